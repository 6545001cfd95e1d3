//! The SCRAM part of a client's login ("SASL Authentication" in PostgreSQL's protocol chapter): mechanism, challenge,
//! proof. Knows nothing of what came before the request for it.

use weir_auth::scram::server::{self, Exchange, Proven};
use weir_auth::scram::{ChannelBinding, Mechanism, Verifier};
use weir_auth::{Secret, StoredSecret};
use weir_protocol::{backend, frontend};

use super::refusals::{refusal, violation};
use super::{ClientLogin, Deriving, Fresh, LoginStep, Person, SASL_BYTES_MAX, Stage};

/// A person and what its proof is checked against.
#[derive(Debug)]
pub(super) struct Prover {
    person: Person,
    stored: Stored,
    /// Names salt and iteration count.
    verifier: Verifier,
    nonce: String,
}

/// What is known of the secret behind a challenge.
#[derive(Debug)]
pub(super) enum Stored {
    /// The challenge's verifier is PostgreSQL's, or nobody's: only a proof reveals keys.
    Verifier,
    /// The password, which the challenge's verifier was derived from.
    Password(Secret),
    /// The password alone; the challenge's verifier is a placeholder.
    Underived(Secret),
}

impl Prover {
    pub(super) fn new(person: Person, secret: Option<StoredSecret>, fresh: Fresh<'_>) -> Self {
        let Fresh { nonce, iterations, derived, mock_secret, md5_salt: _ } = fresh;
        let placeholder = || Verifier::mock(mock_secret, person.startup.user(), iterations);
        let (stored, verifier) = match (secret, derived) {
            // An empty password lets nobody in (PostgreSQL's manual, CREATE ROLE): nobody's verifier stands for it.
            (Some(StoredSecret::Plain(password)), _) if password.is_empty() => {
                (Stored::Verifier, placeholder())
            }
            (Some(StoredSecret::Plain(password)), Some(derived)) => (Stored::Password(password), derived),
            (Some(StoredSecret::Plain(password)), None) => (Stored::Underived(password), placeholder()),
            (Some(StoredSecret::Scram(verifier)), _) => (Stored::Verifier, verifier),
            (Some(StoredSecret::Md5(_)) | None, _) => (Stored::Verifier, placeholder()),
        };
        Self { person, stored, verifier, nonce: nonce.to_owned() }
    }
}

impl ClientLogin {
    /// The client's SASLInitialResponse.
    pub(super) fn mechanism(&mut self, prover: Prover, out: &mut Vec<u8>) -> Option<LoginStep> {
        let body = match self.response("SASL response", SASL_BYTES_MAX) {
            Ok(Some(body)) => body,
            Ok(None) => return Some(self.wait(Stage::Mechanism(prover))),
            Err(step) => return Some(step),
        };
        let (name, message) = match frontend::read::sasl_initial_response(&body) {
            Ok(found) => found,
            Err(bad) => return Some(self.refuse(violation(bad.to_string()))),
        };
        let offered = |mechanism: &Mechanism| self.offered().contains(&mechanism.name());
        let Some(chosen) = Mechanism::of(name).filter(offered) else {
            return Some(self.refuse(violation("client selected an invalid SASL authentication mechanism")));
        };
        match message {
            Some(message) => self.challenge(prover, chosen, message, out),
            None => {
                backend::authentication_sasl_continue(b"", out);
                self.stage = Stage::FirstMessage(prover, chosen);
                None
            }
        }
    }

    /// The client's first SCRAM message, sent apart from its choice.
    pub(super) fn first_message(
        &mut self,
        prover: Prover,
        chosen: Mechanism,
        out: &mut Vec<u8>,
    ) -> Option<LoginStep> {
        match self.response("SASL response", SASL_BYTES_MAX) {
            Ok(Some(message)) => self.challenge(prover, chosen, &message, out),
            Ok(None) => Some(self.wait(Stage::FirstMessage(prover, chosen))),
            Err(step) => Some(step),
        }
    }

    fn challenge(
        &mut self,
        prover: Prover,
        chosen: Mechanism,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<LoginStep> {
        let Prover { person, stored, verifier, nonce } = prover;
        match server::first(message, verifier, &nonce, &self.binding, chosen) {
            Ok((exchange, challenge)) => {
                backend::authentication_sasl_continue(&challenge, out);
                self.stage = Stage::Proof(person, stored, exchange);
                None
            }
            Err(error) => Some(self.refuse(refusal(&error, person.startup.user()))),
        }
    }

    pub(super) fn proof(
        &mut self,
        person: Person,
        stored: Stored,
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> LoginStep {
        let message = match self.response("SASL response", SASL_BYTES_MAX) {
            Ok(Some(message)) => message,
            Ok(None) => return self.wait(Stage::Proof(person, stored, exchange)),
            Err(step) => return step,
        };
        match stored {
            Stored::Verifier => self.judge_proof(person, None, exchange, &message, out),
            Stored::Password(password) => self.judge_proof(person, Some(password), exchange, &message, out),
            Stored::Underived(password) => {
                let derivation = exchange.derivation(&password);
                self.stage = Stage::Deriving(person, Deriving::Stored { password, exchange, message });
                LoginStep::Derive(derivation)
            }
        }
    }

    pub(super) fn judge_proof(
        &mut self,
        person: Person,
        password: Option<Secret>,
        exchange: Exchange,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> LoginStep {
        match exchange.finish(message) {
            Ok(Proven { keys, message }) => {
                backend::authentication_sasl_final(&message, out);
                let keys = password.is_none().then_some(keys);
                self.let_in(person, keys, password, None)
            }
            Err(error) => self.refuse(refusal(&error, person.startup.user())),
        }
    }

    pub(super) fn offered(&self) -> &'static [&'static str] {
        match self.binding {
            ChannelBinding::ServerEndPoint(_) if self.encrypted => &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"],
            ChannelBinding::ServerEndPoint(_) | ChannelBinding::NotSupported => &["SCRAM-SHA-256"],
        }
    }
}
