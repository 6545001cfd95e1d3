//! What the answer to a request for a password, or for its md5 hash, is held against. Knows no messages.

use weir_auth::scram::{Derivation, DerivedKeys};
use weir_auth::{Secret, StoredSecret, md5};

/// How an answer is judged.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) asked: Asked,
    /// What is stored; `None` for an unknown user, whom nothing lets in.
    pub(super) secret: Option<StoredSecret>,
}

/// What the client was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// The password's hash with this salt.
    Md5([u8; 4]),
    /// The password itself. An answer that needs no hashing is hashed with these for nothing before it is refused:
    /// otherwise the time would tell whether there is a verifier.
    Password { decoy_salt: [u8; 16], decoy_iterations: u32 },
    /// The password itself, which nothing here is held against.
    ForOthers,
}

/// What comes of an answer.
#[derive(Debug)]
pub(super) enum Verdict {
    Fits,
    Unfit,
    /// [`Check::accepts`] tells when this has been computed.
    Open(Derivation),
}

impl Check {
    /// Whether this is the right answer.
    pub(super) fn judge(&self, user: &str, answer: &Secret) -> Verdict {
        let fits = match (&self.asked, &self.secret) {
            (_, None) | (Asked::ForOthers, Some(_)) | (Asked::Md5(_), Some(StoredSecret::Scram(_))) => false,
            // PostgreSQL refuses an empty password, too, whatever is stored.
            (Asked::Password { .. }, Some(_)) if answer.is_empty() => false,
            (Asked::Password { .. }, Some(StoredSecret::Plain(password))) => answer == password,
            (Asked::Password { .. }, Some(StoredSecret::Md5(hash))) => {
                Secret::from(md5::stored(user.as_bytes(), answer.expose())) == *hash
            }
            (Asked::Password { .. }, Some(StoredSecret::Scram(verifier))) => {
                return Verdict::Open(verifier.derivation(answer));
            }
            (Asked::Md5(_), Some(StoredSecret::Plain(password))) if password.is_empty() => false,
            (Asked::Md5(salt), Some(StoredSecret::Plain(password))) => {
                md5::verify(&md5::stored(user.as_bytes(), password.expose()), *salt, answer.expose())
            }
            (Asked::Md5(salt), Some(StoredSecret::Md5(hash))) => {
                md5::verify(&String::from_utf8_lossy(hash.expose()), *salt, answer.expose())
            }
        };
        if fits { Verdict::Fits } else { Verdict::Unfit }
    }

    /// Whether the answer that this was derived from is the right one.
    pub(super) fn accepts(&self, derived: &DerivedKeys) -> bool {
        match &self.secret {
            Some(StoredSecret::Scram(verifier)) => verifier.accepts(derived),
            Some(StoredSecret::Plain(_) | StoredSecret::Md5(_)) | None => false,
        }
    }

    /// What an unfit answer is made to cost.
    pub(super) fn decoy(&self, answer: &Secret) -> Option<Derivation> {
        match self.asked {
            Asked::Password { decoy_salt, decoy_iterations } if !answer.is_empty() => {
                Some(Derivation::new(answer.clone(), &decoy_salt, decoy_iterations))
            }
            Asked::Password { .. } | Asked::Md5(_) | Asked::ForOthers => None,
        }
    }

    /// What a right answer is good for on a server: the password, or else the md5 hash.
    pub(super) fn shown(self, answer: Secret) -> (Option<Secret>, Option<Secret>) {
        match (self.asked, self.secret) {
            (Asked::Password { .. } | Asked::ForOthers, _) => (Some(answer), None),
            (Asked::Md5(_), Some(StoredSecret::Plain(password))) => (Some(password), None),
            (Asked::Md5(_), Some(StoredSecret::Md5(hash))) => (None, Some(hash)),
            (Asked::Md5(_), Some(StoredSecret::Scram(_)) | None) => (None, None),
        }
    }
}
