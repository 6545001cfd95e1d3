//! Durations and sizes as people write them: `10s`, `500ms`, `16MB`. Knows no setting.

use std::time::Duration;

/// Reads a duration such as `10s`, `500ms` or `2min`. `None`: no such notation, or too large.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let (_, millis) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*millis).map(Duration::from_millis)
}

/// Reads a number of bytes such as `16MB` or `64kB`; units are powers of 1024 as in PostgreSQL.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let (_, bytes) = BYTE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// Writes a duration in the largest unit that divides it; parts of a millisecond are not kept.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, &DURATION_UNITS, "0")
}

/// Writes a number of bytes in the largest unit that divides it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    show(bytes, &BYTE_UNITS, "0")
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let largest = units.iter().rev().find(|(_, size)| value >= *size && value.is_multiple_of(*size));
    largest.map_or_else(|| zero.to_owned(), |(name, size)| format!("{}{name}", value / size))
}

/// Name and milliseconds, smallest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Name and bytes, smallest first.
const BYTE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_take_postgresql_s_names() {
        let check = |text, millis: Option<u64>| {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text:?}");
        };
        check("10s", Some(10_000));
        check("500ms", Some(500));
        check(" 2 min ", Some(120_000));
        check("1h", Some(3_600_000));
        check("1d", Some(86_400_000));
        for bad in [
            "10",
            "s",
            "",
            "1.5s",
            "-1s",
            "10 seconds",
            "10S",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let check = |text, bytes| assert_eq!(parse_bytes(text), bytes, "{text:?}");
        check("16MB", Some(16 << 20));
        check("64kB", Some(65_536));
        check("7B", Some(7));
        check("1 GB", Some(1 << 30));
        for bad in ["64KB", "64", "MB", "1.5MB", "99999999999TB"] {
            check(bad, None);
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for (text, canonical) in [("90s", "90s"), ("120s", "2min"), ("3600s", "1h"), ("1500ms", "1500ms")] {
            let shown = parse_duration(text).map(show_duration);
            assert_eq!(shown.as_deref(), Some(canonical));
            assert_eq!(parse_duration(canonical), parse_duration(text));
        }
        assert_eq!(show_duration(Duration::ZERO), "0");
        assert_eq!(show_bytes(16 << 20), "16MB");
        assert_eq!(show_bytes(1000), "1000B");
    }
}
