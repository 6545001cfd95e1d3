//! PostgreSQL's md5 logins (manual, chapter "Frontend/Backend Protocol", AuthenticationMD5Password).
//! Only for servers that still ask for it. Knows no messages.

use std::fmt::Write as _;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// What PostgreSQL stores for a user with an md5 secret: `md5` and the hex digest of password and user name.
#[must_use]
pub fn stored(user: &[u8], password: &[u8]) -> String {
    digest(password, user)
}

/// The answer to a server's challenge: the stored secret (with its `md5` prefix) hashed once more with the salt.
#[must_use]
pub fn response(stored: &str, salt: [u8; 4]) -> String {
    digest(stored.strip_prefix(PREFIX).unwrap_or(stored).as_bytes(), &salt)
}

/// Whether a client's answer to the challenge `salt` shows that it knows the stored secret. Constant time.
#[must_use]
pub fn verify(stored: &str, salt: [u8; 4], answer: &[u8]) -> bool {
    response(stored, salt).as_bytes().ct_eq(answer).into()
}

/// Whether this has the shape of a stored md5 secret: `md5` and 32 hex digits.
#[must_use]
pub fn is_stored(secret: &str) -> bool {
    secret
        .strip_prefix(PREFIX)
        .is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn digest(first: &[u8], second: &[u8]) -> String {
    let hash = Md5::new().chain_update(first).chain_update(second).finalize();
    let mut text = String::with_capacity(PREFIX.len() + 2 * hash.len());
    text.push_str(PREFIX);
    for byte in hash {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

const PREFIX: &str = "md5";

#[cfg(test)]
mod tests {
    use super::{is_stored, response, stored, verify};

    #[test]
    fn stored_is_what_postgresql_stores() {
        // The digest of `xyzzyfoo`, as coreutils' md5sum gives it.
        assert_eq!(stored(b"foo", b"xyzzy"), "md5799d0c0d7b7b9676c938bf1f0c5eb5d6");
    }

    #[test]
    fn response_agrees_with_postgres_protocol() {
        let salt = [0x2a, 0x3d, 0x8f, 0xe0];
        let ours = response(&stored(b"md5_user", b"password"), salt);
        assert_eq!(ours, postgres_protocol::authentication::md5_hash(b"md5_user", b"password", salt));
        assert!(verify(&stored(b"md5_user", b"password"), salt, ours.as_bytes()));
        assert!(!verify(&stored(b"md5_user", b"passwore"), salt, ours.as_bytes()));
        assert!(!verify(&stored(b"md5_user", b"password"), [0; 4], ours.as_bytes()));
        assert!(!verify(&stored(b"md5_user", b"password"), salt, b""));
    }

    #[test]
    fn shape_of_a_stored_secret() {
        assert!(is_stored(&stored(b"u", b"p")));
        assert!(!is_stored("md5"));
        assert!(!is_stored("md5zz2ec6b98c9a5f7f29c85a2d6ac7a9ee0"));
        assert!(!is_stored("982ec6b98c9a5f7f29c85a2d6ac7a9ee"));
    }
}
