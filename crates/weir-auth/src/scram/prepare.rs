//! SASLprep (RFC 4013) with PostgreSQL's exceptions: a password that it does not allow is used as it is.

use zeroize::Zeroizing;

/// The password as SCRAM uses it. PostgreSQL takes ASCII unchanged, and falls back to the raw bytes when they are not
/// UTF-8, hold prohibited characters, or would become empty.
pub(super) fn saslprep(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared = std::str::from_utf8(password)
        .ok()
        .filter(|text| !text.is_ascii())
        .and_then(|text| stringprep::saslprep(text).ok())
        .filter(|prepared| !prepared.is_empty())
        .map(|prepared| Zeroizing::new(prepared.into_owned()));
    Zeroizing::new(prepared.map_or_else(|| password.to_vec(), |text| text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::saslprep;

    #[track_caller]
    fn check(password: &[u8], expected: &[u8]) {
        assert_eq!(saslprep(password).as_slice(), expected);
    }

    #[test]
    fn allowed_passwords_are_normalised() {
        check("I\u{ad}X".as_bytes(), b"IX");
        check("\u{2168}".as_bytes(), b"IX");
        check("\u{aa}".as_bytes(), b"a");
        check("a\u{a0}b".as_bytes(), b"a b");
        check("USER".as_bytes(), b"USER");
    }

    #[test]
    fn what_cannot_be_prepared_is_taken_raw() {
        check(b"\x07", b"\x07");
        check("\u{627}1".as_bytes(), "\u{627}1".as_bytes());
        check("caf\u{e9}\x07".as_bytes(), "caf\u{e9}\x07".as_bytes());
        check(b"caf\xe9", b"caf\xe9");
        check("\u{ad}".as_bytes(), "\u{ad}".as_bytes());
        check(b"", b"");
    }
}
