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

/// The subject's common name, the last one if there are several, as OpenSSL gives it to PostgreSQL (RFC 5280, section
/// 4.1). `None` if there is none, or it holds a NUL or is in an encoding that no tool uses any more.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (body, _) = element(certificate, SEQUENCE)?;
    // The version is left out in certificates of version 1.
    let behind_version = element(body, VERSION).map_or(body, |(_, rest)| rest);
    let (_, rest) = element(behind_version, INTEGER)?;
    let (_, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (_validity, rest) = element(rest, SEQUENCE)?;
    let (mut subject, _) = element(rest, SEQUENCE)?;
    let mut found = None;
    while let Some((set, others)) = element(subject, SET) {
        subject = others;
        let mut attributes = set;
        while let Some((attribute, others)) = element(attributes, SEQUENCE) {
            attributes = others;
            let (kind, value) = element(attribute, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME {
                found = Some(value);
            }
        }
    }
    let value = found?;
    let (text, _) =
        [UTF8_STRING, PRINTABLE_STRING, IA5_STRING].iter().find_map(|tag| element(value, *tag))?;
    let text = str::from_utf8(text).ok()?;
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

#[cfg(test)]
mod tests {
    //! Certificates as rcgen makes them.

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::common_name;

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
        for (names, expected) in [
            (vec![(DnType::CommonName, "app_user")], Some("app_user")),
            (vec![organisation.clone(), (DnType::CommonName, "J\u{f6}rg")], Some("J\u{f6}rg")),
            (vec![organisation], None),
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
}
