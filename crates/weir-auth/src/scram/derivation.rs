//! The expensive step of SCRAM as a value, so that whoever must not stand still can have it done elsewhere.
//! Knows no messages, and no threads.

use std::num::NonZeroU32;

use super::crypto;
use super::{DerivedKeys, ITERATIONS_MAX};
use crate::Secret;

/// A password, and what it is to be hashed with: about a millisecond of work at 4096 iterations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    password: Secret,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl Derivation {
    /// Work to be done. `iterations` is within 1 and [`ITERATIONS_MAX`]: numbers of a peer or a file are refused where
    /// they are read, and what is outside counts as the nearest one here.
    #[must_use]
    pub fn new(password: Secret, salt: &[u8], iterations: u32) -> Self {
        let iterations = NonZeroU32::new(iterations.min(ITERATIONS_MAX)).unwrap_or(NonZeroU32::MIN);
        Self { password, salt: salt.to_vec(), iterations }
    }

    /// What is hashed.
    #[must_use]
    pub fn password(&self) -> &Secret {
        &self.password
    }

    /// Does the work.
    #[must_use]
    pub fn run(self) -> DerivedKeys {
        let keys = crypto::keys_of_password(self.password.expose(), &self.salt, self.iterations);
        DerivedKeys { salt: self.salt, iterations: self.iterations.get(), keys }
    }
}
