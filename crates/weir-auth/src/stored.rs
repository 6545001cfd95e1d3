//! What a user list or an `auth_query` holds for a user. Knows nothing of where it came from.

use crate::scram::{BadVerifier, Verifier};
use crate::{Secret, md5};

/// A user's secret in one of the three forms that PostgreSQL and PgBouncer store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredSecret {
    /// The password itself: good for every login on both sides.
    Plain(Secret),
    /// `md5` and 32 hex digits: good for md5 logins only, but on both sides.
    Md5(Secret),
    /// A SCRAM verifier: checks a client, and yields the keys for a server when the client logs in.
    Scram(Verifier),
}

impl StoredSecret {
    /// Tells the three forms apart by their shape, as PostgreSQL does.
    ///
    /// # Errors
    /// For text that starts like a SCRAM verifier and is none: taking it as a password would hide the typing error.
    pub fn parse(text: &str) -> Result<Self, BadVerifier> {
        if Verifier::is_meant(text) {
            return text.parse().map(Self::Scram);
        }
        if md5::is_stored(text) {
            return Ok(Self::Md5(Secret::from(text.to_ascii_lowercase())));
        }
        Ok(Self::Plain(Secret::from(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::StoredSecret;
    use crate::Secret;

    #[test]
    fn forms_are_told_apart_by_shape() {
        assert_eq!(StoredSecret::parse("pencil"), Ok(StoredSecret::Plain(Secret::from("pencil"))));
        assert_eq!(StoredSecret::parse(""), Ok(StoredSecret::Plain(Secret::from(""))));
        assert_eq!(StoredSecret::parse("md5isfun"), Ok(StoredSecret::Plain(Secret::from("md5isfun"))));
        let md5 = crate::md5::stored(b"u", b"p");
        assert_eq!(StoredSecret::parse(&md5), Ok(StoredSecret::Md5(Secret::from(md5.as_str()))));
        assert!(StoredSecret::parse("SCRAM-SHA-256$4096:nonsense").is_err());
    }
}
