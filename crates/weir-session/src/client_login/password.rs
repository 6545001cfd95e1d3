//! What the answer to a request for a password, or for its md5 hash, is held against. Knows no messages.

use weir_auth::{Secret, StoredSecret, md5};

/// How an answer is judged.
#[derive(Debug)]
pub(super) struct Check {
    /// Salt of the md5 request; `None`: the password itself was asked for.
    pub(super) md5_salt: Option<[u8; 4]>,
    /// What is stored; `None` for an unknown user, whom nothing lets in.
    pub(super) secret: Option<StoredSecret>,
}

impl Check {
    /// Whether this is the right answer. Takes a millisecond and more for a password against a SCRAM verifier.
    pub(super) fn passes(&self, user: &str, answer: &Secret) -> bool {
        match (self.md5_salt, &self.secret) {
            (_, None) | (Some(_), Some(StoredSecret::Scram(_))) => false,
            // PostgreSQL refuses an empty password, too, whatever is stored.
            (None, Some(_)) if answer.is_empty() => false,
            (None, Some(StoredSecret::Plain(password))) => answer == password,
            (None, Some(StoredSecret::Md5(hash))) => {
                Secret::from(md5::stored(user.as_bytes(), answer.expose())) == *hash
            }
            (None, Some(StoredSecret::Scram(verifier))) => verifier.accepts_password(answer.expose()),
            (Some(_), Some(StoredSecret::Plain(password))) if password.is_empty() => false,
            (Some(salt), Some(StoredSecret::Plain(password))) => {
                md5::verify(&md5::stored(user.as_bytes(), password.expose()), salt, answer.expose())
            }
            (Some(salt), Some(StoredSecret::Md5(hash))) => {
                md5::verify(&String::from_utf8_lossy(hash.expose()), salt, answer.expose())
            }
        }
    }

    /// What a right answer is good for on a server: the password, or else the md5 hash.
    pub(super) fn shown(self, answer: Secret) -> (Option<Secret>, Option<Secret>) {
        match (self.md5_salt, self.secret) {
            (None, _) => (Some(answer), None),
            (Some(_), Some(StoredSecret::Plain(password))) => (Some(password), None),
            (Some(_), Some(StoredSecret::Md5(hash))) => (None, Some(hash)),
            (Some(_), Some(StoredSecret::Scram(_)) | None) => (None, None),
        }
    }
}
