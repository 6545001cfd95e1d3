//! Randomness for nonces, cancel keys and choices between members, from the TLS provider's generator.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use weir_worker::Entropy;

/// The system's generator.
#[derive(Debug)]
pub(crate) struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    pub(crate) fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        let filled = self.0.fill(bytes);
        // Predictable nonces and keys would be worse than no answer.
        assert!(filled.is_ok(), "the system's random generator failed");
    }
}
