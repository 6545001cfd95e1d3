//! A client's login: encryption requests, the startup packet, version negotiation, and the proof of who it is
//! ("Start-up" and "SASL Authentication" in PostgreSQL's protocol chapter).
//!
//! A pure machine: bytes in, bytes and a [`LoginStep`] out. It looks up no secret, makes no nonce, does no TLS, and
//! says nothing after the proof: AuthenticationOk and what follows is the caller's, who may have to find a server
//! first. Nothing it says tells whether a user exists.

use std::mem;

use weir_auth::scram::server::{self, Exchange, Proven};
use weir_auth::scram::{ChannelBinding, ITERATIONS_DEFAULT, Keys, Mechanism, ScramError, Verifier};
use weir_auth::{Secret, StoredSecret};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{self, BackendKey, BadStartup, FirstPacket, ProtocolVersion, Startup};
use weir_protocol::tag::FromClient;
use weir_protocol::{backend, frame, frontend};

/// One client on its way in.
#[derive(Debug)]
pub struct ClientLogin {
    stage: Stage,
    /// Bytes received and not understood yet; bounded by [`PENDING_BYTES_MAX`].
    buffer: Vec<u8>,
    encrypted: bool,
    ssl_answered: bool,
    gss_answered: bool,
    binding: ChannelBinding,
}

/// What the listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginPolicy {
    /// Whether the connection has to be encrypted. [`ClientTls::Off`] for Unix sockets.
    pub tls: ClientTls,
    /// How a client shows who it is.
    pub auth: AuthMethod,
}

/// TLS towards clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTls {
    /// SSLRequest is answered `N`.
    Off,
    /// The client chooses.
    Allowed,
    /// A login in the clear is refused.
    Required,
}

/// How a client shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// Not at all.
    Trust,
    /// SCRAM-SHA-256.
    Scram,
}

/// What the caller has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// Read more.
    Wait,
    /// Send what was appended, start the TLS handshake, then call [`ClientLogin::tls_started`].
    StartTls,
    /// The client came to cancel; it expects no answer, only the end of the connection.
    Cancel(BackendKey),
    /// Find the user's secret and call [`ClientLogin::secret`].
    NeedSecret {
        /// The user.
        user: String,
        /// The database it asked for.
        database: String,
    },
    /// The client is who it says it is. AuthenticationOk has not been sent.
    Admitted(Box<Admitted>),
    /// Send this error and close.
    Refused(Report),
    /// Close without a word.
    Close,
}

/// A client that has proven itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The startup packet.
    pub startup: Startup,
    /// The user.
    pub user: String,
    /// The database it asked for.
    pub database: String,
    /// Keys that the client's proof revealed. Good for every server that stores the verifier that was given to
    /// [`ClientLogin::secret`]; `None` when a password was given there, since its salt is not a server's.
    pub keys: Option<Keys>,
    /// The user's password, when that is what was given to [`ClientLogin::secret`].
    pub password: Option<Secret>,
    /// Minor protocol version agreed upon, 0 or 2. Below 2 a cancel key has four bytes.
    pub minor: u16,
    /// Bytes that the client sent behind its last login message without waiting.
    pub rest: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    FirstPacket,
    TlsHandshake,
    /// The caller looks for the secret.
    Lookup(Person),
    /// The client chooses a mechanism and usually sends its first message along.
    Mechanism(Prover),
    /// The client chose, but waits for an empty challenge to send its first message (RFC 4422 section 5).
    FirstMessage(Prover, Mechanism),
    Proof(Person, Option<Secret>, Exchange),
    Over,
}

/// Whom the startup packet names.
#[derive(Debug)]
struct Person {
    startup: Startup,
    minor: u16,
}

/// A person and what its proof is checked against.
#[derive(Debug)]
struct Prover {
    person: Person,
    password: Option<Secret>,
    verifier: Verifier,
    nonce: String,
}

impl ClientLogin {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::FirstPacket,
            buffer: Vec::new(),
            encrypted: false,
            ssl_answered: false,
            gss_answered: false,
            binding: ChannelBinding::NotSupported,
        }
    }

    /// Takes bytes of the client (decrypted, once TLS has started) and appends the answer to `out`.
    pub fn received(&mut self, bytes: &[u8], policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        if bytes.len() > PENDING_BYTES_MAX.saturating_sub(self.buffer.len()) {
            return self.refuse(violation("too much data before the login is complete"));
        }
        self.buffer.extend_from_slice(bytes);
        self.run(Some(policy), out)
    }

    /// The TLS handshake is through; from now on bytes come decrypted. Also for clients that began with TLS at once.
    pub fn tls_started(&mut self) {
        if matches!(self.stage, Stage::FirstPacket | Stage::TlsHandshake) {
            self.stage = Stage::FirstPacket;
            self.encrypted = true;
            self.ssl_answered = true;
            self.gss_answered = true;
        }
    }

    /// Offers channel binding (SCRAM-SHA-256-PLUS) with this hash of the certificate that TLS showed to the client.
    pub fn offer_binding(&mut self, end_point: Vec<u8>) {
        self.binding = ChannelBinding::ServerEndPoint(end_point);
    }

    /// The user whose secret is being looked up.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.stage {
            Stage::Lookup(person) => Some(person.startup.user()),
            Stage::FirstPacket
            | Stage::TlsHandshake
            | Stage::Mechanism(_)
            | Stage::FirstMessage(..)
            | Stage::Proof(..)
            | Stage::Over => None,
        }
    }

    /// Answers [`LoginStep::NeedSecret`]. `None` is an unknown user: the exchange goes on as with any other and fails
    /// at its end. `nonce` is fresh and printable; `mock_secret` is the process's own and constant.
    ///
    /// `salt` is for a plain password, whose verifier is derived here (about a millisecond). The client sees it: unless
    /// it is [`weir_auth::scram::mock_salt`] of this user, a second login tells the user from an unknown one, whose salt
    /// does not change.
    pub fn secret(
        &mut self,
        secret: Option<StoredSecret>,
        nonce: &str,
        salt: [u8; 16],
        mock_secret: &[u8],
        out: &mut Vec<u8>,
    ) -> LoginStep {
        let person = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Lookup(person) => person,
            Stage::Over => return LoginStep::Close,
            // Nobody asked.
            stage @ (Stage::FirstPacket
            | Stage::TlsHandshake
            | Stage::Mechanism(_)
            | Stage::FirstMessage(..)
            | Stage::Proof(..)) => return self.wait(stage),
        };
        let user = person.startup.user();
        let verifier = secret.as_ref().and_then(|secret| secret.to_verifier(&salt, ITERATIONS_DEFAULT));
        let verifier = verifier.unwrap_or_else(|| Verifier::mock(mock_secret, user));
        let password = match secret {
            Some(StoredSecret::Plain(password)) => Some(password),
            Some(StoredSecret::Md5(_) | StoredSecret::Scram(_)) | None => None,
        };
        backend::authentication_sasl(self.offered(), out);
        self.stage = Stage::Mechanism(Prover { person, password, verifier, nonce: nonce.to_owned() });
        self.run(None, out)
    }

    /// Goes on until something is missing. The policy is only needed up to the startup packet.
    fn run(&mut self, policy: Option<&LoginPolicy>, out: &mut Vec<u8>) -> LoginStep {
        loop {
            let step = match (mem::replace(&mut self.stage, Stage::Over), policy) {
                (Stage::FirstPacket, Some(policy)) => self.first_packet(policy, out),
                (Stage::TlsHandshake, _) => Some(self.refuse(unencrypted("SSL"))),
                (Stage::Mechanism(prover), _) => self.mechanism(prover, out),
                (Stage::FirstMessage(prover, chosen), _) => self.first_message(prover, chosen, out),
                (Stage::Proof(person, password, exchange), _) => self.proof(person, password, exchange, out),
                (Stage::Over, _) => Some(LoginStep::Close),
                (stage @ (Stage::FirstPacket | Stage::Lookup(_)), _) => Some(self.wait(stage)),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn first_packet(&mut self, policy: &LoginPolicy, out: &mut Vec<u8>) -> Option<LoginStep> {
        let (packet, used) = match startup::first_packet(&self.buffer) {
            Ok(Some(found)) => found,
            Ok(None) => return Some(self.wait(Stage::FirstPacket)),
            // Nobody who sends a cancel request reads an answer, and PostgreSQL gives none.
            Err(BadStartup::BadCancelKey) => return Some(LoginStep::Close),
            Err(bad) => return Some(self.refuse(bad.report())),
        };
        self.buffer.drain(..used);
        match packet {
            FirstPacket::Ssl => self.ssl_request(policy.tls, out),
            FirstPacket::GssEnc => self.gss_request(out),
            FirstPacket::Cancel(key) => Some(LoginStep::Cancel(key)),
            FirstPacket::Startup(startup) => Some(self.startup(startup, policy, out)),
        }
    }

    fn ssl_request(&mut self, tls: ClientTls, out: &mut Vec<u8>) -> Option<LoginStep> {
        if mem::replace(&mut self.ssl_answered, true) {
            return Some(self.refuse(negotiated_before(SSL_MINOR)));
        }
        // Whatever is behind the request was sent before the handshake, maybe by somebody in between (CVE-2021-23214).
        if !self.buffer.is_empty() {
            return Some(self.refuse(unencrypted("SSL")));
        }
        match tls {
            ClientTls::Off => {
                out.push(b'N');
                self.stage = Stage::FirstPacket;
                None
            }
            ClientTls::Allowed | ClientTls::Required => {
                out.push(b'S');
                self.stage = Stage::TlsHandshake;
                Some(LoginStep::StartTls)
            }
        }
    }

    fn gss_request(&mut self, out: &mut Vec<u8>) -> Option<LoginStep> {
        if mem::replace(&mut self.gss_answered, true) {
            return Some(self.refuse(negotiated_before(GSS_MINOR)));
        }
        if !self.buffer.is_empty() {
            return Some(self.refuse(unencrypted("GSSAPI encryption")));
        }
        out.push(b'N');
        self.stage = Stage::FirstPacket;
        None
    }

    fn startup(&mut self, startup: Startup, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        if policy.tls == ClientTls::Required && !self.encrypted {
            return self.refuse(not_encrypted());
        }
        let minor = minor_in_force(startup.version);
        if minor != startup.version.minor || !startup.protocol_options.is_empty() {
            backend::negotiate_protocol_version(minor, &startup.protocol_options, out);
        }
        let person = Person { startup, minor };
        match policy.auth {
            AuthMethod::Trust => self.admit(person, None, None),
            AuthMethod::Scram => {
                let (user, database) =
                    (person.startup.user().to_owned(), person.startup.database().to_owned());
                self.stage = Stage::Lookup(person);
                LoginStep::NeedSecret { user, database }
            }
        }
    }

    /// The client's SASLInitialResponse.
    fn mechanism(&mut self, prover: Prover, out: &mut Vec<u8>) -> Option<LoginStep> {
        let body = match self.response() {
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
    fn first_message(&mut self, prover: Prover, chosen: Mechanism, out: &mut Vec<u8>) -> Option<LoginStep> {
        match self.response() {
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
        let Prover { person, password, verifier, nonce } = prover;
        match server::first(message, verifier, &nonce, &self.binding, chosen) {
            Ok((exchange, challenge)) => {
                backend::authentication_sasl_continue(&challenge, out);
                self.stage = Stage::Proof(person, password, exchange);
                None
            }
            Err(error) => Some(self.refuse(refusal(&error, person.startup.user()))),
        }
    }

    fn proof(
        &mut self,
        person: Person,
        password: Option<Secret>,
        exchange: Exchange,
        out: &mut Vec<u8>,
    ) -> Option<LoginStep> {
        let message = match self.response() {
            Ok(Some(message)) => message,
            Ok(None) => return Some(self.wait(Stage::Proof(person, password, exchange))),
            Err(step) => return Some(step),
        };
        match exchange.finish(&message) {
            Ok(Proven { keys, message }) => {
                backend::authentication_sasl_final(&message, out);
                let keys = password.is_none().then_some(keys);
                Some(self.admit(person, keys, password))
            }
            Err(error) => Some(self.refuse(refusal(&error, person.startup.user()))),
        }
    }

    /// The body of the next message, which must be a SASL response.
    fn response(&mut self) -> Result<Option<Vec<u8>>, LoginStep> {
        match self.buffer.first().map(|tag| FromClient::of(*tag)) {
            None | Some(Some(FromClient::Response)) => {}
            Some(Some(FromClient::Terminate)) => return Err(LoginStep::Close),
            Some(_) => return Err(self.refuse(violation("expected SASL response, got another message"))),
        }
        match frame::peek(&self.buffer, SASL_BYTES_MAX) {
            Ok(Some(header)) if self.buffer.len() >= header.total => {
                let message: Vec<u8> = self.buffer.drain(..header.total).collect();
                Ok(Some(message[frame::HEADER_BYTES..].to_vec()))
            }
            Ok(Some(_) | None) => Ok(None),
            Err(bad) => Err(self.refuse(violation(bad.to_string()))),
        }
    }

    fn offered(&self) -> &'static [&'static str] {
        match self.binding {
            ChannelBinding::ServerEndPoint(_) if self.encrypted => &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"],
            ChannelBinding::ServerEndPoint(_) | ChannelBinding::NotSupported => &["SCRAM-SHA-256"],
        }
    }

    fn wait(&mut self, stage: Stage) -> LoginStep {
        self.stage = stage;
        LoginStep::Wait
    }

    fn admit(&mut self, person: Person, keys: Option<Keys>, password: Option<Secret>) -> LoginStep {
        let Person { startup, minor } = person;
        let (user, database) = (startup.user().to_owned(), startup.database().to_owned());
        let rest = mem::take(&mut self.buffer);
        LoginStep::Admitted(Box::new(Admitted { startup, user, database, keys, password, minor, rest }))
    }

    fn refuse(&mut self, report: Report) -> LoginStep {
        self.stage = Stage::Over;
        self.buffer = Vec::new();
        LoginStep::Refused(report)
    }
}

impl Default for ClientLogin {
    fn default() -> Self {
        Self::new()
    }
}

/// The newest minor version that both sides speak. There never was a 3.1.
fn minor_in_force(asked: ProtocolVersion) -> u16 {
    let newest = ProtocolVersion::V3_2.minor;
    if asked.minor >= newest { newest } else { ProtocolVersion::V3_0.minor }
}

/// PostgreSQL's words for a client that did not prove itself, whatever the reason: they do not say whether the user
/// exists.
#[must_use]
pub fn wrong_password(user: &str) -> Report {
    Report::fatal(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

/// What a client reads when its SCRAM exchange failed, with PostgreSQL's codes (auth-scram.c).
fn refusal(error: &ScramError, user: &str) -> Report {
    match error {
        ScramError::WrongProof => wrong_password(user),
        ScramError::Malformed(why) => violation("malformed SCRAM message").detail(sentence(why)),
        ScramError::UnsupportedBinding | ScramError::BindingMismatch | ScramError::NonceMismatch => {
            violation(error.to_string())
        }
        ScramError::AuthorizationIdentity | ScramError::MandatoryExtension => {
            Report::fatal(SqlState::FEATURE_NOT_SUPPORTED, error.to_string())
        }
        ScramError::BindingDowngraded => Report::fatal(SqlState::INVALID_AUTHORIZATION, error.to_string())
            .detail("The client believes that weir does not support channel binding, but weir offered it."),
        ScramError::UnusableNonce
        | ScramError::Iterations(_)
        | ScramError::WrongServerProof
        | ScramError::RefusedByServer => Report::fatal(SqlState::INTERNAL_ERROR, error.to_string()),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

fn violation(message: impl Into<String>) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, message)
}

fn unencrypted(request: &str) -> Report {
    violation(format!("received unencrypted data after {request} request")).detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    )
}

fn not_encrypted() -> Report {
    Report::fatal(SqlState::INVALID_AUTHORIZATION, "this connection must be encrypted")
        .hint("Connect with sslmode=require, or a stricter mode.")
}

/// A request for encryption where PostgreSQL takes only a startup packet: there it is a version that does not exist.
fn negotiated_before(minor: u16) -> Report {
    BadStartup::UnsupportedVersion(ProtocolVersion { major: 1234, minor }).report()
}

const SSL_MINOR: u16 = 5679;
const GSS_MINOR: u16 = 5680;

/// Largest SASL message (its length word) that is taken from a client, as in PostgreSQL.
pub const SASL_BYTES_MAX: u32 = 1024;

/// Bytes that are kept at most while the login is not complete. A client that waits for answers sends less than
/// [`startup::STARTUP_BYTES_MAX`]; one that does not wait may have its first requests in the same read.
pub const PENDING_BYTES_MAX: usize = 64 * 1024;

// A whole startup packet must fit, or a login could never finish.
const _: () = assert!(startup::STARTUP_BYTES_MAX <= PENDING_BYTES_MAX);

#[cfg(test)]
mod tests;
