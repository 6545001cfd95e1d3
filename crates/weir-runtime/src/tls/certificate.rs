//! Just enough DER (X.690) to read of a certificate what rustls does not tell. Knows nothing of handshakes; the
//! signatures on what it reads were checked by others.

/// Content of the element in front, and what comes behind it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// What is read of a certificate's body (RFC 5280, section 4.1).
struct Body<'a> {
    serial: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
}

impl<'a> Body<'a> {
    fn of(certificate: &'a [u8]) -> Option<Self> {
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (body, _) = element(certificate, SEQUENCE)?;
        // The version is left out in certificates of version 1.
        let behind_version = element(body, VERSION).map_or(body, |(_, rest)| rest);
        let (serial, rest) = element(behind_version, INTEGER)?;
        let (_algorithm, rest) = element(rest, SEQUENCE)?;
        let (_issuer, rest) = element(rest, SEQUENCE)?;
        let (validity, rest) = element(rest, SEQUENCE)?;
        let (subject, _) = element(rest, SEQUENCE)?;
        Some(Self { serial, validity, subject })
    }
}

/// The subject's common name, the first one if there are several, as OpenSSL gives it to PostgreSQL. `None` if there is
/// none, or it holds a NUL or is in an encoding that no tool uses any more.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let mut subject = Body::of(certificate)?.subject;
    let mut found = None;
    while let Some((set, others)) = element(subject, SET) {
        subject = others;
        let mut attributes = set;
        while let Some((attribute, others)) = element(attributes, SEQUENCE) {
            attributes = others;
            let (kind, value) = element(attribute, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME {
                found = found.or(Some(value));
            }
        }
    }
    let value = found?;
    let (text, _) =
        [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].iter().find_map(|tag| element(value, *tag))?;
    let text = str::from_utf8(text).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

/// Whose certificate it is and which one, for the log. Nobody has vouched for it yet, so nothing but printable ASCII of
/// it is shown, and not too much.
pub(super) fn description(certificate: &[u8]) -> String {
    let name = common_name(certificate).unwrap_or_default();
    let name: String = name.escape_default().take(SHOWN_MAX).collect();
    let serial = Body::of(certificate).map(|body| body.serial).unwrap_or_default();
    let serial: Vec<String> =
        serial.iter().take(SERIAL_BYTES_MAX).map(|byte| format!("{byte:02x}")).collect();
    format!("common name \"{name}\", serial number {}", serial.join(":"))
}

/// The last second in which a certificate is good, counted from 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_not_before, rest) = moment(Body::of(certificate)?.validity)?;
    moment(rest).map(|(end, _)| end)
}

/// When a list of revoked certificates is overdue, counted from 1970 (RFC 5280, section 5.1).
pub(super) fn next_update(list: &[u8]) -> Option<u64> {
    let (list, _) = element(list, SEQUENCE)?;
    let (body, _) = element(list, SEQUENCE)?;
    let behind_version = element(body, INTEGER).map_or(body, |(_, rest)| rest);
    let (_algorithm, rest) = element(behind_version, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (_this_update, rest) = moment(rest)?;
    moment(rest).map(|(end, _)| end)
}

/// The time in front in seconds since 1970, and what comes behind it. RFC 5280, section 4.1.2.5: years have two digits
/// until 2049, seconds are always there, and the zone is always Z. Times before 1970 count as 1970.
fn moment(der: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest, century) = match element(der, UTC_TIME) {
        Some((digits, rest)) => (digits, rest, None),
        None => {
            let (digits, rest) = element(der, GENERALIZED_TIME)?;
            let (century, digits) = digits.split_first_chunk::<2>()?;
            (digits, rest, Some(two_digits(*century)?))
        }
    };
    let (pairs, zone) = digits.as_chunks::<2>();
    let &[year, month, day, hour, minute, second] = pairs else { return None };
    if zone != b"Z" {
        return None;
    }
    let year = two_digits(year)?;
    let century = century.unwrap_or(if year < 50 { 20 } else { 19 });
    let (year, month, day) = (century * 100 + year, two_digits(month)?, two_digits(day)?);
    let time = two_digits(hour)? * 3600 + two_digits(minute)? * 60 + two_digits(second)?;
    Some(((days_since_1970(year, month, day)? * 86_400 + time), rest))
}

fn two_digits(pair: [u8; 2]) -> Option<u64> {
    let [tens, ones] = pair.map(|digit| digit.is_ascii_digit().then(|| u64::from(digit - b'0')));
    Some(tens? * 10 + ones?)
}

/// In the calendar that is counted back and forth for ever, with years that begin in March: leap days come last then.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year == 0 {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    Some(days.saturating_sub(DAYS_BEFORE_1970))
}

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// From 1 March of the year 0.
const DAYS_BEFORE_1970: u64 = 719_468;

/// Letters of a name that the log shows.
const SHOWN_MAX: usize = 128;

/// RFC 5280, section 4.1.2.2.
const SERIAL_BYTES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    //! Certificates as rcgen makes them.

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    use super::{common_name, days_since_1970, description, not_after};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["other.example".to_owned()]).expect("a DNS name");
        params.distinguished_name = DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn the_subject_s_common_name() {
        let organisation = (DnType::OrganizationName, "weir");
        let common_name_again = DnType::CustomDnType(vec![2, 5, 4, 3]);
        for (names, expected) in [
            (vec![(DnType::CommonName, "app_user")], Some("app_user")),
            (vec![organisation.clone(), (DnType::CommonName, "J\u{f6}rg")], Some("J\u{f6}rg")),
            (vec![organisation], None),
            // The first of several: whoever may choose what stands behind it is not somebody else.
            (vec![(DnType::CommonName, "app_user"), (common_name_again, "admin")], Some("app_user")),
            (vec![(DnType::CommonName, "")], None),
            (vec![(DnType::CommonName, "app\0user")], None),
        ] {
            assert_eq!(common_name(&certificate(&names)).as_deref(), expected, "{names:?}");
        }
    }

    #[test]
    fn cut_certificates_have_no_name() {
        let whole = certificate(&[(DnType::CommonName, "app_user")]);
        for length in 0..whole.len() {
            assert_eq!(common_name(&whole[..length]), None);
        }
    }

    #[test]
    fn the_last_second_of_a_certificate() {
        for (year, month, day, expected) in [
            (2030, 1, 1, 1_893_456_000),
            (2049, 12, 31, 2_524_521_600),
            // From here on with four digits.
            (2050, 1, 1, 2_524_608_000),
            (2096, 2, 29, 3_981_312_000),
        ] {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.not_after = date_time_ymd(year, month, day);
            let key = KeyPair::generate().expect("a key");
            let certificate = params.self_signed(&key).expect("a certificate");
            assert_eq!(not_after(certificate.der()), Some(expected), "{year}-{month}-{day}");
            for length in 0..200 {
                assert_eq!(not_after(&certificate.der()[..length]), None);
            }
        }
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        for (year, month, day, expected) in [
            (1970, 1, 1, Some(0)),
            (1970, 3, 1, Some(59)),
            (2000, 2, 29, Some(11_016)),
            (2000, 3, 1, Some(11_017)),
            (1900, 1, 1, Some(0)),
            (2026, 13, 1, None),
            (2026, 1, 0, None),
            (0, 1, 1, None),
        ] {
            assert_eq!(days_since_1970(year, month, day), expected, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn a_description_holds_no_line_of_its_own() {
        let forged = description(&certificate(&[(DnType::CommonName, "a\nERROR: \"x\"")]));
        assert!(forged.starts_with(r#"common name "a\nERROR: \"x\"", serial number "#), "{forged}");
        assert_eq!(description(b"garbage"), "common name \"\", serial number ");
    }
}
