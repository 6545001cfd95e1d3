//! Passwords that somebody else judges. Knows nobody who does.

use std::mem;

use weir_auth::Secret;

use super::refusals::wrong_password;
use super::{ClientLogin, LoginStep, Person, Stage};

impl ClientLogin {
    /// The client's password is here.
    pub(super) fn refer(&mut self, person: Person, password: Secret) -> LoginStep {
        // Directories take an empty password for no wish to log in, and agree (RFC 4513, section 5.1.2).
        if password.is_empty() {
            return self.refuse(wrong_password(person.startup.user()));
        }
        self.stage = Stage::Referred(person, password.clone());
        LoginStep::Refer(password)
    }

    /// Answers [`LoginStep::Refer`].
    pub fn judged(&mut self, is_right: bool) -> LoginStep {
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Referred(person, password) if is_right => self.let_in(person, None, Some(password), None),
            Stage::Referred(person, _) => self.refuse(wrong_password(person.startup.user())),
            stage @ (Stage::FirstPacket
            | Stage::TlsHandshake
            | Stage::Lookup(_)
            | Stage::Mechanism(_)
            | Stage::FirstMessage(..)
            | Stage::Proof(..)
            | Stage::Password(..)
            | Stage::Deriving(..)
            | Stage::Doubt(..)
            | Stage::Over) => {
                self.stage = stage;
                self.waiting()
            }
        }
    }
}
