//! A client's login: TLS and GSS requests, the startup packet, version negotiation, and the proof of who it is.
//!
//! Knows no user list: it asks for a secret, and is given one or told that there is none. What an unknown user sees until
//! the end is what a known one with a wrong password sees.

use weir_auth::StoredSecret;
use weir_auth::scram::{self, ChannelBinding, Keys, Mechanism, Verifier};
use weir_protocol::frame::{self, HEADER_BYTES};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{
    BackendKey, FirstPacket, ProtocolVersion, STARTUP_BYTES_MAX, Startup, first_packet,
};
use weir_protocol::tag::FromClient;
use weir_protocol::{backend, frontend};

/// What a listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginPolicy {
    /// TLS.
    pub tls: ClientTls,
    /// Proof.
    pub auth: AuthMethod,
}

/// Whether clients may or must use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTls {
    /// An SSLRequest is answered with N.
    Off,
    /// As the client likes.
    Allowed,
    /// A client that goes on in the clear is refused.
    Required,
}

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// Not at all.
    Trust,
    /// SCRAM-SHA-256.
    Scram,
}

/// A client on its way in.
#[derive(Debug)]
pub struct ClientLogin {
    stage: Stage,
    received: Vec<u8>,
    encrypted: bool,
    /// SSLRequest and GSSENCRequest answered so far.
    requests: u8,
}

#[derive(Debug)]
enum Stage {
    /// The first packet, or the one behind an SSLRequest.
    AwaitStartup,
    /// 'S' was sent; the shell is to start the handshake.
    AwaitTls,
    /// The caller looks up the secret.
    AwaitSecret(Startup),
    /// The mechanisms were offered.
    AwaitFirst { startup: Startup, verifier: Verifier, known: bool, nonce: String },
    /// The challenge was sent.
    AwaitProof { startup: Startup, exchange: scram::server::Exchange, known: bool },
    /// Over.
    Done,
}

/// What the caller has to do next.
#[derive(Debug)]
pub enum LoginStep {
    /// Wait for more bytes.
    Wait,
    /// Start the TLS handshake, after what was written has been flushed; then call [`ClientLogin::tls_started`].
    StartTls,
    /// It was a cancel request.
    Cancel(BackendKey),
    /// Look up the secret and call [`ClientLogin::secret`].
    NeedSecret {
        /// Who the client says it is.
        user: String,
        /// The database it wants.
        database: String,
    },
    /// It has proven who it is. AuthenticationOk has not been sent.
    Admitted(Box<Admitted>),
    /// Send this and close.
    Refused(Box<Report>),
    /// Close without a word.
    Close,
}

/// A client that has proven who it is.
#[derive(Debug)]
pub struct Admitted {
    /// Its startup packet.
    pub startup: Startup,
    /// User.
    pub user: String,
    /// Database.
    pub database: String,
    /// The keys that its proof revealed.
    pub keys: Option<Keys>,
    /// Minor protocol version in force: 0 or 2.
    pub minor: u16,
    /// Bytes that came behind the proof.
    pub rest: Vec<u8>,
}

impl Default for ClientLogin {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientLogin {
    /// A client that has said nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { stage: Stage::AwaitStartup, received: Vec::new(), encrypted: false, requests: 0 }
    }

    /// Bytes from the client; replies are appended to `out`.
    pub fn received(&mut self, bytes: &[u8], policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        self.received.extend_from_slice(bytes);
        if self.received.len() > LOGIN_BYTES_MAX {
            return self.refuse(Report::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "too many bytes before the login ended",
            ));
        }
        self.step(policy, out)
    }

    fn step(&mut self, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::AwaitStartup => self.startup_bytes(policy, out),
            // Plaintext behind the request could have been put there by somebody else (CVE-2021-23214).
            Stage::AwaitTls => self.refuse(unencrypted_data()),
            Stage::AwaitSecret(startup) => self.stay(Stage::AwaitSecret(startup)),
            stage @ (Stage::AwaitFirst { .. } | Stage::AwaitProof { .. }) => self.response_bytes(stage, out),
            Stage::Done => LoginStep::Close,
        }
    }

    /// The TLS handshake is through: everything from here on is encrypted.
    pub fn tls_started(&mut self) {
        self.encrypted = true;
        self.stage = Stage::AwaitStartup;
    }

    fn startup_bytes(&mut self, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        let (packet, used) = match first_packet(&self.received) {
            Ok(Some(found)) => found,
            Ok(None) => return self.stay(Stage::AwaitStartup),
            Err(bad) => return self.refuse(bad.report()),
        };
        self.received.drain(..used);
        match packet {
            FirstPacket::Cancel(key) => LoginStep::Cancel(key),
            FirstPacket::Ssl => self.ssl_request(policy, out),
            FirstPacket::GssEnc => self.decline(policy, out),
            FirstPacket::Startup(startup) => self.startup(startup, policy, out),
        }
    }

    fn ssl_request(&mut self, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        if self.encrypted || policy.tls == ClientTls::Off {
            return self.decline(policy, out);
        }
        if !self.received.is_empty() {
            return self.refuse(unencrypted_data());
        }
        out.push(b'S');
        self.stage = Stage::AwaitTls;
        LoginStep::StartTls
    }

    fn decline(&mut self, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        self.requests += 1;
        if self.requests > REQUESTS_MAX {
            return self.refuse(Report::fatal(SqlState::PROTOCOL_VIOLATION, "too many encryption requests"));
        }
        out.push(b'N');
        self.stage = Stage::AwaitStartup;
        self.step(policy, out)
    }

    fn startup(&mut self, startup: Startup, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        if policy.tls == ClientTls::Required && !self.encrypted {
            return self.refuse(
                Report::fatal(SqlState::INVALID_AUTHORIZATION, "TLS is required")
                    .hint("Connect with sslmode=require or stricter."),
            );
        }
        let newer = startup.version.minor > ProtocolVersion::V3_2.minor;
        if newer || startup.version.minor == 1 || !startup.protocol_options.is_empty() {
            let minor = minor_in_force(startup.version);
            let offer = if newer { ProtocolVersion::V3_2.minor } else { minor };
            backend::negotiate_protocol_version(offer, &startup.protocol_options, out);
        }
        if policy.auth == AuthMethod::Trust {
            return self.admit(startup, None);
        }
        let (user, database) = (startup.user().to_owned(), startup.database().to_owned());
        self.stage = Stage::AwaitSecret(startup);
        LoginStep::NeedSecret { user, database }
    }

    /// The answer to [`LoginStep::NeedSecret`]: `None` for an unknown user. `nonce` and `salt` are fresh; `mock_secret` stays
    /// the same for the life of the process.
    pub fn secret(
        &mut self,
        secret: Option<StoredSecret>,
        nonce: &str,
        salt: [u8; 16],
        mock_secret: &[u8],
        out: &mut Vec<u8>,
    ) -> LoginStep {
        let Stage::AwaitSecret(startup) = std::mem::replace(&mut self.stage, Stage::Done) else {
            return LoginStep::Close;
        };
        let verifier = secret.and_then(|secret| secret.to_verifier(&salt, scram::ITERATIONS_DEFAULT));
        let known = verifier.is_some();
        let verifier = verifier.unwrap_or_else(|| Verifier::mock(mock_secret, startup.user()));
        backend::authentication_sasl(&[Mechanism::Sha256.name()], out);
        self.stage = Stage::AwaitFirst { startup, verifier, known, nonce: nonce.to_owned() };
        if self.received.is_empty() { LoginStep::Wait } else { self.respond(out) }
    }

    fn respond(&mut self, out: &mut Vec<u8>) -> LoginStep {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        self.response_bytes(stage, out)
    }

    fn response_bytes(&mut self, stage: Stage, out: &mut Vec<u8>) -> LoginStep {
        let header = match frame::peek(&self.received, RESPONSE_BYTES_MAX) {
            Ok(Some(header)) if self.received.len() >= header.total => header,
            Ok(_) => return self.stay(stage),
            Err(bad) => return self.refuse(Report::fatal(bad.sqlstate(), bad.to_string())),
        };
        if FromClient::of(header.tag) == Some(FromClient::Terminate) {
            return LoginStep::Close;
        }
        if FromClient::of(header.tag) != Some(FromClient::Response) {
            return self.refuse(Report::fatal(SqlState::PROTOCOL_VIOLATION, "expected SASL response"));
        }
        let message: Vec<u8> = self.received.drain(..header.total).collect();
        let body = &message[HEADER_BYTES..];
        match stage {
            Stage::AwaitFirst { startup, verifier, known, nonce } => {
                self.client_first(startup, verifier, known, &nonce, body, out)
            }
            Stage::AwaitProof { startup, exchange, known } => {
                self.client_proof(startup, exchange, known, body, out)
            }
            Stage::AwaitStartup | Stage::AwaitTls | Stage::AwaitSecret(_) | Stage::Done => LoginStep::Close,
        }
    }

    fn client_first(
        &mut self,
        startup: Startup,
        verifier: Verifier,
        known: bool,
        nonce: &str,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> LoginStep {
        let Ok((mechanism, Some(first))) = frontend::read::sasl_initial_response(body) else {
            return self
                .refuse(Report::fatal(SqlState::PROTOCOL_VIOLATION, "malformed SASL initial response"));
        };
        if Mechanism::of(mechanism) != Some(Mechanism::Sha256) {
            let report = Report::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "client selected an invalid SASL authentication mechanism",
            );
            return self.refuse(report);
        }
        match scram::server::first(first, verifier, nonce, &ChannelBinding::NotSupported, Mechanism::Sha256) {
            Ok((exchange, challenge)) => {
                backend::authentication_sasl_continue(&challenge, out);
                self.stage = Stage::AwaitProof { startup, exchange, known };
                LoginStep::Wait
            }
            Err(why) => self.refuse(Report::fatal(SqlState::PROTOCOL_VIOLATION, why.to_string())),
        }
    }

    fn client_proof(
        &mut self,
        startup: Startup,
        exchange: scram::server::Exchange,
        known: bool,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> LoginStep {
        match exchange.finish(body) {
            Ok(proven) if known => {
                backend::authentication_sasl_final(&proven.message, out);
                self.admit(startup, Some(proven.keys))
            }
            Ok(_) | Err(scram::ScramError::WrongProof) => self.refuse(wrong_password(startup.user())),
            Err(why) => self.refuse(Report::fatal(SqlState::PROTOCOL_VIOLATION, why.to_string())),
        }
    }

    fn admit(&mut self, startup: Startup, keys: Option<Keys>) -> LoginStep {
        let minor = minor_in_force(startup.version);
        LoginStep::Admitted(Box::new(Admitted {
            user: startup.user().to_owned(),
            database: startup.database().to_owned(),
            startup,
            keys,
            minor,
            rest: std::mem::take(&mut self.received),
        }))
    }

    fn stay(&mut self, stage: Stage) -> LoginStep {
        self.stage = stage;
        LoginStep::Wait
    }

    fn refuse(&mut self, report: Report) -> LoginStep {
        self.stage = Stage::Done;
        LoginStep::Refused(Box::new(report))
    }
}

/// PostgreSQL's own words.
#[must_use]
pub fn wrong_password(user: &str) -> Report {
    Report::fatal(SqlState::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""))
}

fn unencrypted_data() -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, "received unencrypted data after SSL request").detail(
        "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
    )
}

/// The highest minor version that both sides know; there never was a 3.1.
fn minor_in_force(asked: ProtocolVersion) -> u16 {
    if asked.minor >= ProtocolVersion::V3_2.minor { ProtocolVersion::V3_2.minor } else { 0 }
}

/// Bytes that may arrive before the login has ended.
const LOGIN_BYTES_MAX: usize = STARTUP_BYTES_MAX + 2 * RESPONSE_BYTES_MAX as usize;

/// A SASL response or password.
const RESPONSE_BYTES_MAX: u32 = 8 * 1024;

/// Encryption requests that one client may make: one of each kind.
const REQUESTS_MAX: u8 = 3;
