//! The formulas of RFC 5802 section 3 on the TLS provider's primitives. Knows no messages.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{KEY_BYTES, Keys, prepare};

pub(super) type Key = [u8; KEY_BYTES];

/// Turns 18 random bytes into a nonce of 24 printable characters, as long as PostgreSQL's.
#[must_use]
pub fn nonce(random: [u8; 18]) -> String {
    STANDARD.encode(random)
}

/// The salt that a user without a verifier is shown: always the same for one user and one `process_secret`, so that an
/// unknown user cannot be told from one whose verifier is derived from a password with this salt.
#[must_use]
pub fn mock_salt(process_secret: &[u8], user: &str) -> [u8; 16] {
    let long = mock(process_secret, "salt", user);
    let mut salt = [0; 16];
    for (to, from) in salt.iter_mut().zip(long) {
        *to = from;
    }
    salt
}

/// Bytes that depend on the process, a purpose and a user, and tell nothing about any of them.
pub(super) fn mock(process_secret: &[u8], purpose: &str, user: &str) -> Key {
    hmac(process_secret, &[purpose.as_bytes(), b"\0", user.as_bytes()])
}

/// ClientKey and ServerKey of a password.
pub(super) fn keys_of_password(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Keys {
    let prepared = prepare::saslprep(password);
    let mut salted = Zeroizing::new([0; KEY_BYTES]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &prepared, salted.as_mut());
    Keys {
        client_key: hmac(salted.as_ref(), &[b"Client Key"]),
        server_key: hmac(salted.as_ref(), &[b"Server Key"]),
    }
}

pub(super) fn hash(bytes: &[u8]) -> Key {
    key_from(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub(super) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    key_from(context.sign().as_ref())
}

pub(super) fn xor(left: &Key, right: &Key) -> Key {
    std::array::from_fn(|at| left[at] ^ right[at])
}

fn key_from(bytes: &[u8]) -> Key {
    bytes.try_into().expect("a SHA-256 digest is 32 bytes long")
}
