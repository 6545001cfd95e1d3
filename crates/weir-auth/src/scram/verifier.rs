//! What PostgreSQL stores for a SCRAM user: enough to check a login, not enough to log in.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::crypto::{self, Key};
use super::{Derivation, DerivedKeys, ITERATIONS_MAX, ScramError, mock_salt};
use crate::Secret;

/// The verifier of one user (`rolpassword` in PostgreSQL's `pg_authid`): `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`.
#[derive(Clone)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// Text that should be a verifier and is none. Holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SCRAM verifier: {0}")]
pub struct BadVerifier(&'static str);

impl Verifier {
    /// Whether text is meant as a verifier, well formed or not.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Derives the verifier of a password (about a millisecond at 4096 iterations).
    ///
    /// # Errors
    /// When `iterations` is 0 or above [`ITERATIONS_MAX`], or `salt` is empty or longer than 256 bytes.
    pub fn from_password(password: &[u8], salt: &[u8], iterations: u32) -> Result<Self, BadVerifier> {
        check_salt(salt)?;
        if !(1..=ITERATIONS_MAX).contains(&iterations) {
            return Err(BadVerifier(ITERATIONS_WRONG));
        }
        Ok(Self::of(&Derivation::new(Secret::from(password), salt, iterations).run()))
    }

    /// The verifier of a password whose keys have been derived.
    #[must_use]
    pub fn of(derived: &DerivedKeys) -> Self {
        let DerivedKeys { salt, iterations, keys } = derived;
        Self {
            iterations: *iterations,
            salt: salt.clone(),
            stored_key: crypto::hash(&keys.client_key),
            server_key: keys.server_key,
        }
    }

    /// A verifier that no password fits, for users who are unknown or have no usable secret: the exchange runs as for
    /// anybody else and fails at its end. Always the same for one user and one `process_secret`.
    #[must_use]
    pub fn mock(process_secret: &[u8], user: &str, iterations: u32) -> Self {
        Self {
            iterations,
            salt: mock_salt(process_secret, user).to_vec(),
            stored_key: crypto::mock(process_secret, "stored key", user),
            server_key: crypto::mock(process_secret, "server key", user),
        }
    }

    /// The form that PostgreSQL stores, and accepts in `ALTER ROLE .. PASSWORD`.
    #[must_use]
    pub fn to_postgres_string(&self) -> String {
        format!(
            "{PREFIX}{}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key),
        )
    }

    /// What has to be computed to check a password that came in the clear; [`Verifier::accepts`] judges the result.
    #[must_use]
    pub fn derivation(&self, password: &Secret) -> Derivation {
        Derivation::new(password.clone(), &self.salt, self.iterations)
    }

    /// Whether these keys were derived from the password that this verifier is of.
    #[must_use]
    pub fn accepts(&self, derived: &DerivedKeys) -> bool {
        self.salt == derived.salt
            && self.iterations == derived.iterations
            && self.accepts_client_key(&derived.keys.client_key)
    }

    #[cfg(test)]
    pub(crate) fn accepts_password(&self, password: &[u8]) -> bool {
        self.accepts(&self.derivation(&Secret::from(password)).run())
    }

    /// How often the password was hashed.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// What the password was hashed with.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(super) fn accepts_client_key(&self, client_key: &Key) -> bool {
        crypto::hash(client_key).ct_eq(&self.stored_key).into()
    }

    pub(super) fn stored_key(&self) -> &Key {
        &self.stored_key
    }

    pub(super) fn server_key(&self) -> &Key {
        &self.server_key
    }
}

impl FromStr for Verifier {
    type Err = BadVerifier;

    fn from_str(text: &str) -> Result<Self, BadVerifier> {
        let fields = text.strip_prefix(PREFIX).ok_or(BadVerifier("it does not start with SCRAM-SHA-256$"))?;
        let (hashing, keys) = fields.split_once('$').ok_or(BadVerifier("the keys are missing"))?;
        let (iterations, salt) = hashing.split_once(':').ok_or(BadVerifier("the salt is missing"))?;
        let (stored_key, server_key) =
            keys.split_once(':').ok_or(BadVerifier("the server key is missing"))?;
        let salt = STANDARD.decode(salt).map_err(|_| BadVerifier("the salt is not base64"))?;
        check_salt(&salt)?;
        Ok(Self {
            iterations: parse_iterations(iterations)?,
            salt,
            stored_key: parse_key(stored_key)?,
            server_key: parse_key(server_key)?,
        })
    }
}

impl PartialEq for Verifier {
    fn eq(&self, other: &Self) -> bool {
        let keys = self.stored_key.ct_eq(&other.stored_key) & self.server_key.ct_eq(&other.server_key);
        self.iterations == other.iterations && self.salt == other.salt && bool::from(keys)
    }
}

impl Eq for Verifier {}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl From<BadVerifier> for ScramError {
    fn from(BadVerifier(why): BadVerifier) -> Self {
        Self::Malformed(why)
    }
}

fn check_salt(salt: &[u8]) -> Result<(), BadVerifier> {
    match salt.len() {
        1..=SALT_BYTES_MAX => Ok(()),
        _ => Err(BadVerifier("the salt is empty or too long")),
    }
}

fn parse_iterations(text: &str) -> Result<u32, BadVerifier> {
    // `u32::from_str` would take a leading plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let iterations = text.parse().ok().filter(|count| digits && (1..=ITERATIONS_MAX).contains(count));
    iterations.ok_or(BadVerifier(ITERATIONS_WRONG))
}

fn parse_key(text: &str) -> Result<Key, BadVerifier> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| BadVerifier("a key is not base64"))?);
    bytes.as_slice().try_into().map_err(|_| BadVerifier("a key is not 32 bytes long"))
}

const PREFIX: &str = "SCRAM-SHA-256$";
const SALT_BYTES_MAX: usize = 256;
const ITERATIONS_WRONG: &str = "the iteration count is not between 1 and 1000000";
