//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677) as PostgreSQL speaks them, in both roles.
//!
//! The server role checks a client against a [`Verifier`] and recovers the client's key from its proof; the client
//! role logs in to PostgreSQL with a password or with such recovered keys (pass-through). Messages are byte strings;
//! how they are framed is not known here. As in PostgreSQL, the user name inside the messages is ignored: the one in
//! the startup packet counts.

pub mod client;
pub mod server;

mod crypto;
mod derivation;
mod message;
mod prepare;
mod verifier;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

pub use crypto::{mock_salt, nonce};
pub use derivation::Derivation;
pub use verifier::{BadVerifier, Verifier};

use crate::Secret;

/// The two keys that prove a login to either side without the password (RFC 5802 section 3). They belong to one
/// password, salt and iteration count.
#[derive(Clone)]
pub struct Keys {
    /// Proves a client to a server. Never stored by PostgreSQL: only a client's own proof reveals it.
    pub client_key: [u8; KEY_BYTES],
    /// Proves a server to a client.
    pub server_key: [u8; KEY_BYTES],
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        let equal = self.client_key.ct_eq(&other.client_key) & self.server_key.ct_eq(&other.server_key);
        equal.into()
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.client_key.zeroize();
        self.server_key.zeroize();
    }
}

/// Keys with what they were derived from, so that a later login to a server with the same salt and iteration count
/// need not derive them again (about a millisecond at 4096 iterations).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerivedKeys {
    /// The salt that the server named.
    pub salt: Vec<u8>,
    /// The iteration count that the server named.
    pub iterations: u32,
    /// The keys themselves.
    pub keys: Keys,
}

/// What the client role proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The password, and the keys that an earlier login derived from it.
    Password {
        /// The password.
        password: Secret,
        /// Used instead of deriving when the server names the same salt and iteration count.
        derived: Option<DerivedKeys>,
    },
    /// Keys recovered from a client's own login. They only fit a server that holds the same salt and iteration count.
    Keys(Keys),
}

/// The two mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Without channel binding.
    Sha256,
    /// With channel binding: the login is tied to the server's certificate.
    Sha256Plus,
}

impl Mechanism {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// The mechanism of this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Option<Self> {
        [Self::Sha256, Self::Sha256Plus].into_iter().find(|known| known.name().as_bytes() == name)
    }
}

/// What this side knows of the TLS channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelBinding {
    /// No TLS, or binding is not offered.
    NotSupported,
    /// The hash of the server's certificate (RFC 5929 section 4, tls-server-end-point).
    ServerEndPoint(Vec<u8>),
}

/// Why an exchange ended. None of the texts holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not a SCRAM message of this step; the text says what is wrong with it.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The client wants to act as somebody else.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// The peer insists on an extension.
    #[error("the peer requires an unsupported SCRAM extension")]
    MandatoryExtension,
    /// The client binds to something other than the server's certificate.
    #[error("unsupported SCRAM channel-binding type")]
    UnsupportedBinding,
    /// The client believes that binding was not offered, but it was: somebody may have removed the offer.
    #[error("SCRAM channel binding negotiation error")]
    BindingDowngraded,
    /// The client is bound to another channel than this one.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response: nonce does not match")]
    NonceMismatch,
    /// The client does not know the password.
    #[error("wrong proof")]
    WrongProof,
    /// The server asks for more iterations than [`ITERATIONS_MAX`], or for none.
    #[error("the server asks for {0} iterations")]
    Iterations(u32),
    /// The server does not know the password, so it may not be the server.
    #[error("the server did not prove that it knows the secret")]
    WrongServerProof,
    /// The server ended the exchange by an error of its own.
    #[error("the server refused the exchange")]
    RefusedByServer,
    /// This side was given a nonce that cannot be used: empty, or not printable.
    #[error("unusable nonce")]
    UnusableNonce,
}

/// Length of every key and proof: SHA-256's.
pub const KEY_BYTES: usize = 32;

/// Iterations that weir computes at most: a peer must not be able to stop it for long (about 0.25 s).
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// Iterations of verifiers that weir makes: PostgreSQL's default `scram_iterations`.
pub const ITERATIONS_DEFAULT: u32 = 4096;

/// Longest SCRAM message taken from a peer. PostgreSQL's own limit is 1024; salts are as long as somebody made them.
pub const SCRAM_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests;
