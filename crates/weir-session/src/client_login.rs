//! A client's login: encryption requests, the startup packet, version negotiation, and the proof of who it is
//! ("Start-up" and "SASL Authentication" in PostgreSQL's protocol chapter).
//!
//! A pure machine: bytes in, bytes and a [`LoginStep`] out. It looks up no secret, makes no nonce, does no TLS, and
//! says nothing after the proof: AuthenticationOk and what follows is the caller's, who may have to find a server
//! first. Nothing it says tells whether a user exists.

mod password;
mod referral;
mod refusals;
mod sasl;

use std::mem;

use weir_auth::scram::server::Exchange;
use weir_auth::scram::{self, ChannelBinding, Derivation, DerivedKeys, Keys, Mechanism, Verifier};
use weir_auth::{Secret, StoredSecret};
use weir_protocol::message::Report;
use weir_protocol::startup::{self, BackendKey, BadStartup, FirstPacket, ProtocolVersion, Startup};
use weir_protocol::tag::FromClient;
use weir_protocol::{backend, frame, frontend};
use zeroize::{Zeroize, Zeroizing};

use password::{Asked, Check, Verdict};
use refusals::{negotiated_before, not_encrypted, unencrypted, violation};
use sasl::{Prover, Stored};

pub use refusals::wrong_password;

/// One client on its way in.
#[derive(Debug)]
pub struct ClientLogin {
    stage: Stage,
    /// Bytes received and not understood yet; bounded by [`PENDING_BYTES_MAX`].
    buffer: Vec<u8>,
    encrypted: bool,
    ssl_answered: bool,
    gss_answered: bool,
    /// TLS began without SSLRequest, which needs a name for the protocol in the handshake.
    direct: bool,
    binding: ChannelBinding,
}

/// What the listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginPolicy {
    /// Whether the connection has to be encrypted. [`ClientTls::Off`] for Unix sockets.
    pub tls: ClientTls,
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

/// How a client is asked for its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// SCRAM-SHA-256.
    Scram,
    /// The hash of the stored md5 secret; SCRAM for a user whose stored secret is a verifier.
    Md5,
    /// As it is.
    Plain,
    /// As it is, for somebody else to judge.
    Elsewhere,
}

/// What an exchange needs that a pure machine cannot make.
#[derive(Debug)]
pub struct Fresh<'a> {
    /// For SCRAM: never used before, printable.
    pub nonce: &'a str,
    /// For md5: never used before.
    pub md5_salt: [u8; 4],
    /// Iterations of verifiers that are derived or made up. Their salt is [`weir_auth::scram::mock_salt`] of the user for
    /// known and unknown ones: otherwise a second login would tell them apart.
    pub iterations: u32,
    /// The verifier of the plain password that is stored, if it has been derived before: [`ClientLogin::ask`] of another
    /// login asked for it, by [`LoginStep::Derive`].
    pub derived: Option<Verifier>,
    /// The process's own and constant.
    pub mock_secret: &'a [u8],
}

/// What the caller has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// Read more.
    Wait,
    /// Send what was appended, start the TLS handshake, then call [`ClientLogin::tls_started`].
    StartTls,
    /// The client began with TLS without asking: these are the first bytes of the handshake. Then as
    /// [`LoginStep::StartTls`].
    BeginTls(Vec<u8>),
    /// The client came to cancel; it expects no answer, only the end of the connection.
    Cancel(BackendKey),
    /// The startup packet is here. Decide how the client shows who it is, and call [`ClientLogin::ask`] with its secret,
    /// or [`ClientLogin::admit`] if there is nothing to ask.
    Named {
        /// The user.
        user: String,
        /// The database it asked for.
        database: String,
    },
    /// Goes on when this has been computed, which is better done elsewhere; then call [`ClientLogin::derived`].
    Derive(Derivation),
    /// Whether this is the user's password is for somebody else to say; then call [`ClientLogin::judged`].
    Refer(Secret),
    /// The answer does not fit the secret. If the secret may be out of date fetch it again; then call
    /// [`ClientLogin::judge_again`].
    Mismatch,
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
    /// [`ClientLogin::ask`]; `None` when a password was given there, since its salt is not a server's.
    pub keys: Option<Keys>,
    /// The user's password, when that is what was stored or what the client sent.
    pub password: Option<Secret>,
    /// The stored md5 secret, when that is what the answer fitted.
    pub md5: Option<Secret>,
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
    Proof(Person, Stored, Exchange),
    /// An answer that is the password or its hash is awaited.
    Password(Person, Check),
    /// The caller has something computed.
    Deriving(Person, Deriving),
    /// The caller asks somebody else about this password.
    Referred(Person, Secret),
    /// The answer does not fit; the caller may know better.
    Doubt(Person, Check, Secret),
    Over,
}

/// What is being computed, and what goes on with it.
#[derive(Debug)]
enum Deriving {
    /// The verifier of the stored password, to judge a SCRAM proof.
    Stored { password: Secret, exchange: Exchange, message: Zeroizing<Vec<u8>> },
    /// The keys of a password that came as it is.
    Answer(Check, Secret),
    /// The same, after the secret was looked up once more: there is no third attempt.
    AnswerAgain(Check, Secret),
}

/// Whom the startup packet names.
#[derive(Debug)]
struct Person {
    startup: Startup,
    minor: u16,
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
            direct: false,
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

    /// The TLS handshake is through; from now on bytes come decrypted. `names_protocol` says whether the handshake agreed
    /// upon PostgreSQL's protocol (ALPN): without that, a client that began with TLS at once is sent away, because it may
    /// be a browser that somebody leads here (PostgreSQL's manual, "SSL Session Encryption").
    pub fn tls_started(&mut self, names_protocol: bool) -> LoginStep {
        if matches!(self.stage, Stage::FirstPacket | Stage::TlsHandshake) {
            self.stage = Stage::FirstPacket;
            self.encrypted = true;
            self.ssl_answered = true;
            self.gss_answered = true;
        }
        if self.direct && !names_protocol {
            self.stage = Stage::Over;
            return LoginStep::Close;
        }
        LoginStep::Wait
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Offers channel binding (SCRAM-SHA-256-PLUS) with this hash of the certificate that TLS showed to the client.
    pub fn offer_binding(&mut self, end_point: Vec<u8>) {
        self.binding = ChannelBinding::ServerEndPoint(end_point);
    }

    /// Whom the startup packet names, while the caller decides about them.
    #[must_use]
    pub fn startup(&self) -> Option<&Startup> {
        match &self.stage {
            Stage::Lookup(person) => Some(&person.startup),
            Stage::FirstPacket
            | Stage::TlsHandshake
            | Stage::Mechanism(_)
            | Stage::FirstMessage(..)
            | Stage::Proof(..)
            | Stage::Password(..)
            | Stage::Deriving(..)
            | Stage::Referred(..)
            | Stage::Doubt(..)
            | Stage::Over => None,
        }
    }

    /// Answers [`LoginStep::Named`]: nothing more is asked of this client. The secret is what is stored for the user, if
    /// anything.
    pub fn admit(&mut self, secret: Option<StoredSecret>) -> LoginStep {
        let Some(person) = self.take_person() else { return LoginStep::Close };
        match secret {
            Some(StoredSecret::Plain(password)) => self.let_in(person, None, Some(password), None),
            Some(StoredSecret::Md5(hash)) => self.let_in(person, None, None, Some(hash)),
            Some(StoredSecret::Scram(_)) | None => self.let_in(person, None, None, None),
        }
    }

    /// Answers [`LoginStep::Named`]: the client is asked for its password. `None` is an unknown user: the exchange goes on
    /// as with any other and fails at its end.
    pub fn ask(
        &mut self,
        method: Method,
        secret: Option<StoredSecret>,
        fresh: Fresh<'_>,
        out: &mut Vec<u8>,
    ) -> LoginStep {
        if matches!(self.stage, Stage::Lookup(_) | Stage::Over) {
            let Some(person) = self.take_person() else { return LoginStep::Close };
            self.stage = match (method, &secret) {
                (Method::Plain, _) => {
                    backend::authentication_cleartext(out);
                    let decoy_salt = scram::mock_salt(fresh.mock_secret, person.startup.user());
                    let asked = Asked::Password { decoy_salt, decoy_iterations: fresh.iterations };
                    Stage::Password(person, Check { asked, secret })
                }
                (Method::Elsewhere, _) => {
                    backend::authentication_cleartext(out);
                    Stage::Password(person, Check { asked: Asked::ForOthers, secret: None })
                }
                (Method::Md5, Some(StoredSecret::Plain(_) | StoredSecret::Md5(_)) | None) => {
                    backend::authentication_md5(fresh.md5_salt, out);
                    Stage::Password(person, Check { asked: Asked::Md5(fresh.md5_salt), secret })
                }
                (Method::Md5, Some(StoredSecret::Scram(_))) | (Method::Scram, _) => {
                    backend::authentication_sasl(self.offered(), out);
                    Stage::Mechanism(Prover::new(person, secret, fresh))
                }
            };
        }
        self.run(None, out)
    }

    /// Answers [`LoginStep::Mismatch`] with what is stored for the user now.
    pub fn judge_again(&mut self, secret: Option<StoredSecret>) -> LoginStep {
        let Some((person, check, answer)) = self.take_doubt() else { return self.waiting() };
        if check.secret == secret {
            return self.refuse(wrong_password(person.startup.user()));
        }
        let check = Check { asked: check.asked, secret };
        match check.judge(person.startup.user(), &answer) {
            Verdict::Fits => self.passed(person, check, answer),
            Verdict::Unfit => self.refuse(wrong_password(person.startup.user())),
            Verdict::Open(derivation) => {
                self.stage = Stage::Deriving(person, Deriving::AnswerAgain(check, answer));
                LoginStep::Derive(derivation)
            }
        }
    }

    /// Answers [`LoginStep::Derive`].
    pub fn derived(&mut self, derived: &DerivedKeys, out: &mut Vec<u8>) -> LoginStep {
        let Some((person, deriving)) = self.take_deriving() else { return self.waiting() };
        match deriving {
            Deriving::Stored { password, exchange, message } => {
                let exchange = exchange.against(Verifier::of(derived));
                self.judge_proof(person, Some(password), exchange, &message, out)
            }
            Deriving::Answer(check, answer) | Deriving::AnswerAgain(check, answer)
                if check.accepts(derived) =>
            {
                self.passed(person, check, answer)
            }
            Deriving::Answer(check, answer) => self.mismatch(person, check, answer),
            Deriving::AnswerAgain(..) => self.refuse(wrong_password(person.startup.user())),
        }
    }

    /// The person that the caller has decided about; `None`: nobody asked.
    fn take_person(&mut self) -> Option<Person> {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        let Stage::Lookup(person) = stage else {
            self.stage = stage;
            return None;
        };
        Some(person)
    }

    /// The answer that the caller has looked up the secret for once more; `None`: nobody asked.
    fn take_doubt(&mut self) -> Option<(Person, Check, Secret)> {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        let Stage::Doubt(person, check, answer) = stage else {
            self.stage = stage;
            return None;
        };
        Some((person, check, answer))
    }

    /// What the caller had something computed for; `None`: nobody asked.
    fn take_deriving(&mut self) -> Option<(Person, Deriving)> {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        let Stage::Deriving(person, deriving) = stage else {
            self.stage = stage;
            return None;
        };
        Some((person, deriving))
    }

    /// What is to be done in this stage until something happens.
    fn waiting(&self) -> LoginStep {
        if matches!(self.stage, Stage::Over) { LoginStep::Close } else { LoginStep::Wait }
    }

    /// Goes on until something is missing. The policy is only needed up to the startup packet.
    fn run(&mut self, policy: Option<&LoginPolicy>, out: &mut Vec<u8>) -> LoginStep {
        loop {
            let step = match (mem::replace(&mut self.stage, Stage::Over), policy) {
                (Stage::FirstPacket, Some(policy)) => self.first_packet(policy, out),
                (Stage::TlsHandshake, _) => Some(self.refuse(unencrypted("SSL"))),
                (Stage::Mechanism(prover), _) => self.mechanism(prover, out),
                (Stage::FirstMessage(prover, chosen), _) => self.first_message(prover, chosen, out),
                (Stage::Proof(person, stored, exchange), _) => {
                    Some(self.proof(person, stored, exchange, out))
                }
                (Stage::Password(person, check), _) => Some(self.password(person, check)),
                (Stage::Over, _) => Some(LoginStep::Close),
                (
                    stage @ (Stage::FirstPacket
                    | Stage::Lookup(_)
                    | Stage::Deriving(..)
                    | Stage::Referred(..)
                    | Stage::Doubt(..)),
                    _,
                ) => Some(self.wait(stage)),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn first_packet(&mut self, policy: &LoginPolicy, out: &mut Vec<u8>) -> Option<LoginStep> {
        if !self.ssl_answered && policy.tls != ClientTls::Off && startup::opens_with_tls(&self.buffer) {
            self.stage = Stage::TlsHandshake;
            self.direct = true;
            return Some(LoginStep::BeginTls(mem::take(&mut self.buffer)));
        }
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
            FirstPacket::Startup(startup) => Some(self.take_startup(startup, policy, out)),
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

    fn take_startup(&mut self, startup: Startup, policy: &LoginPolicy, out: &mut Vec<u8>) -> LoginStep {
        if policy.tls == ClientTls::Required && !self.encrypted {
            return self.refuse(not_encrypted());
        }
        let minor = minor_in_force(startup.version);
        if minor != startup.version.minor || !startup.protocol_options.is_empty() {
            backend::negotiate_protocol_version(minor, &startup.protocol_options, out);
        }
        let (user, database) = (startup.user().to_owned(), startup.database().to_owned());
        self.stage = Stage::Lookup(Person { startup, minor });
        LoginStep::Named { user, database }
    }

    /// The client's PasswordMessage.
    fn password(&mut self, person: Person, check: Check) -> LoginStep {
        let body = match self.response("password response", PASSWORD_BYTES_MAX) {
            Ok(Some(body)) => body,
            Ok(None) => return self.wait(Stage::Password(person, check)),
            Err(step) => return step,
        };
        let answer = match frontend::read::password(&body) {
            Ok(answer) => Secret::from(answer),
            Err(bad) => return self.refuse(violation(bad.to_string())),
        };
        if matches!(check.asked, Asked::ForOthers) {
            return self.refer(person, answer);
        }
        let derivation = match check.judge(person.startup.user(), &answer) {
            Verdict::Fits => return self.passed(person, check, answer),
            Verdict::Unfit => check.decoy(&answer),
            Verdict::Open(derivation) => Some(derivation),
        };
        let Some(derivation) = derivation else { return self.mismatch(person, check, answer) };
        self.stage = Stage::Deriving(person, Deriving::Answer(check, answer));
        LoginStep::Derive(derivation)
    }

    fn mismatch(&mut self, person: Person, check: Check, answer: Secret) -> LoginStep {
        self.stage = Stage::Doubt(person, check, answer);
        LoginStep::Mismatch
    }

    fn passed(&mut self, person: Person, check: Check, answer: Secret) -> LoginStep {
        let (password, md5) = check.shown(answer);
        self.let_in(person, None, password, md5)
    }

    /// The body of the next message, which must be what was asked for. It may be a password, so nothing is left of it here.
    fn response(&mut self, expected: &str, bytes_max: u32) -> Result<Option<Zeroizing<Vec<u8>>>, LoginStep> {
        match self.buffer.first().map(|tag| FromClient::of(*tag)) {
            None | Some(Some(FromClient::Response)) => {}
            Some(Some(FromClient::Terminate)) => return Err(LoginStep::Close),
            Some(_) => {
                return Err(self.refuse(violation(format!("expected {expected}, got another message"))));
            }
        }
        match frame::peek(&self.buffer, bytes_max) {
            Ok(Some(header)) if self.buffer.len() >= header.total => {
                let body = Zeroizing::new(self.buffer[frame::HEADER_BYTES..header.total].to_vec());
                self.buffer[..header.total].zeroize();
                self.buffer.drain(..header.total);
                Ok(Some(body))
            }
            Ok(Some(_) | None) => Ok(None),
            Err(bad) => Err(self.refuse(violation(bad.to_string()))),
        }
    }

    fn wait(&mut self, stage: Stage) -> LoginStep {
        self.stage = stage;
        LoginStep::Wait
    }

    fn let_in(
        &mut self,
        person: Person,
        keys: Option<Keys>,
        password: Option<Secret>,
        md5: Option<Secret>,
    ) -> LoginStep {
        let Person { startup, minor } = person;
        let (user, database) = (startup.user().to_owned(), startup.database().to_owned());
        let rest = mem::take(&mut self.buffer);
        LoginStep::Admitted(Box::new(Admitted { startup, user, database, keys, password, md5, minor, rest }))
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

const SSL_MINOR: u16 = 5679;
const GSS_MINOR: u16 = 5680;

/// Largest SASL message (its length word) that is taken from a client, as in PostgreSQL.
pub const SASL_BYTES_MAX: u32 = 1024;

/// Largest PasswordMessage: tokens that stand in a password's place take several kilobytes.
pub const PASSWORD_BYTES_MAX: u32 = 32 * 1024;

/// Bytes that are kept at most while the login is not complete. A client that waits for answers sends less than
/// [`startup::STARTUP_BYTES_MAX`]; one that does not wait may have its first requests in the same read.
pub const PENDING_BYTES_MAX: usize = 64 * 1024;

// A whole startup packet must fit, or a login could never finish.
const _: () = assert!(startup::STARTUP_BYTES_MAX <= PENDING_BYTES_MAX);

#[cfg(test)]
mod tests;
