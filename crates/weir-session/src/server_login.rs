//! weir's own login to PostgreSQL, and the fence behind it: a connection is only given out when the server has said
//! that it is what it should be.
//!
//! A pure machine that plays the client once the connection (and its TLS) stands: bytes in, bytes and a [`ServerStep`]
//! out. It makes no nonce, dials nobody, and does not decide what to do about a failure.

use std::mem;

use weir_auth::scram::client::{self, Challenged, Final, First};
use weir_auth::scram::{ChannelBinding, Credential, Derivation, DerivedKeys, Keys, Mechanism, ScramError};
use weir_auth::{Secret, md5};
use weir_protocol::backend::read::{self, Authentication};
use weir_protocol::startup::{ProtocolVersion, SecretKey};
use weir_protocol::tag::FromServer;
use weir_protocol::{Malformed, frame, frontend};

use fence::Answer;

pub use failure::{Has, LoginFailure};
pub use fence::Fence;

mod failure;
mod fence;

/// One server connection on its way in.
#[derive(Debug)]
pub struct ServerLogin {
    stage: Stage,
    buffer: Vec<u8>,
    credential: ServerCredential,
    nonce: String,
    binding: ChannelBinding,
    /// Without a login that is bound to the channel there is none.
    must_bind: bool,
    fence: Fence,
    /// It asked for `replication`.
    walsender: bool,
    learned: Learned,
}

/// Who weir is towards PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCredential {
    /// The user.
    pub user: String,
    /// What it proves itself with; `None` works only where PostgreSQL asks for nothing (trust, cert, peer).
    pub secret: Option<ServerSecret>,
}

/// What weir proves itself with towards PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerSecret {
    /// A password: good for every method.
    Password {
        /// The password.
        password: Secret,
        /// Keys that an earlier login derived from it ([`Ready::derived`]); saves a millisecond.
        derived: Option<DerivedKeys>,
    },
    /// Keys that a client revealed in its own login: good for SCRAM only.
    Keys(Keys),
    /// A stored md5 secret: good for md5 only.
    Md5(Secret),
}

impl ServerSecret {
    /// A password without known keys.
    #[must_use]
    pub fn password(password: Secret) -> Self {
        Self::Password { password, derived: None }
    }
}

/// What the caller has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum ServerStep {
    /// Read more.
    Wait,
    /// Goes on when this has been computed, which is better done elsewhere: the server says how long it takes. Then call
    /// [`ServerLogin::derived`].
    Derive(Derivation),
    /// The connection may be given out.
    Ready(Box<Ready>),
    /// Close the connection.
    Failed(LoginFailure),
}

/// What a login has learned of its server.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready {
    /// Process id, for cancel requests; 0 when the server gave none.
    pub pid: u32,
    /// Secret, for cancel requests. PostgreSQL always gives one; something in between may not.
    pub secret: Option<SecretKey>,
    /// ParameterStatus values in the order of their first appearance, with their last values.
    pub parameters: Vec<(String, String)>,
    /// Whether it is a standby; `None` when nobody asked and the server (before PostgreSQL 14) did not say.
    pub in_hot_standby: Option<bool>,
    /// The timeline it writes; only after [`Fence::Primary`].
    pub timeline: Option<u32>,
    /// The cluster's identity; only after [`Fence::Primary`].
    pub system_identifier: Option<u64>,
    /// Keys that SCRAM derived from the password, for the next login of the same user to the same cluster.
    pub derived: Option<DerivedKeys>,
    /// Bytes that came behind the login.
    pub rest: Vec<u8>,
}

impl Ready {
    /// The value of a reported parameter, for example `server_version`.
    #[must_use]
    pub fn parameter(&self, wanted: &str) -> Option<&str> {
        self.parameters.iter().find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
    }
}

#[derive(Debug)]
enum Stage {
    /// The startup packet is out.
    Asked,
    SaslFirst(First),
    /// The caller has the keys computed that fit the server's salt.
    Deriving(Challenged),
    SaslFinal(Final),
    /// Everything we had to show is out, and the server has shown its part if the method has one.
    Proven,
    /// AuthenticationOk has come.
    Starting,
    /// The fence's query is out; its row may have come.
    Fencing(Option<Answer>),
    Over,
}

#[derive(Debug, Default)]
struct Learned {
    key: Option<(u32, SecretKey)>,
    parameters: Vec<(String, String)>,
    answer: Answer,
    derived: Option<DerivedKeys>,
}

impl ServerLogin {
    /// Appends the startup packet. `parameters` go into it beside user and database; `nonce` is fresh and printable.
    pub fn start(
        database: &str,
        parameters: &[(&str, &str)],
        credential: ServerCredential,
        nonce: &str,
        fence: Fence,
        out: &mut Vec<u8>,
    ) -> Self {
        let mut all = vec![("user", credential.user.as_str()), ("database", database)];
        all.extend_from_slice(parameters);
        // Every server speaks 3.0; weir needs nothing of 3.2 on this side.
        frontend::startup(ProtocolVersion::V3_0, &all, out);
        Self {
            stage: Stage::Asked,
            buffer: Vec::new(),
            credential,
            nonce: nonce.to_owned(),
            binding: ChannelBinding::NotSupported,
            must_bind: false,
            fence,
            walsender: parameters.iter().any(|(name, _)| *name == "replication"),
            learned: Learned::default(),
        }
    }

    /// Ties the login to this hash of the certificate that the server showed in TLS, if there is one and the server can
    /// do that.
    pub fn bind(&mut self, end_point: Option<Vec<u8>>) {
        self.binding = end_point.map_or(ChannelBinding::NotSupported, ChannelBinding::ServerEndPoint);
    }

    /// Refuses a server that cannot show in its login that it holds the certificate's key: in TLS alone anybody could
    /// have been given a certificate, and passed on what is said.
    pub fn insist_on_binding(&mut self) {
        self.must_bind = true;
    }

    /// Takes bytes of the server and appends the answer to `out`.
    pub fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> ServerStep {
        if matches!(self.stage, Stage::Over) {
            return ServerStep::Wait;
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            let step = match self.next_message() {
                Ok(Some(message)) => self.message(&message, out),
                Ok(None) => return ServerStep::Wait,
                Err(failure) => Err(failure),
            };
            match step {
                Ok(None) => {}
                Ok(Some(step)) => return step,
                Err(failure) => {
                    self.stage = Stage::Over;
                    return ServerStep::Failed(failure);
                }
            }
        }
    }

    /// Answers [`ServerStep::Derive`].
    pub fn derived(&mut self, derived: DerivedKeys, out: &mut Vec<u8>) {
        let stage = mem::replace(&mut self.stage, Stage::Over);
        self.stage = if let Stage::Deriving(challenged) = stage {
            send_proof(challenged, derived.keys, out)
        } else {
            // Nobody asked, or the server has ended the login.
            stage
        };
    }

    fn next_message(&mut self) -> Result<Option<Vec<u8>>, LoginFailure> {
        match frame::peek(&self.buffer, LOGIN_MESSAGE_BYTES_MAX) {
            Ok(Some(header)) if self.buffer.len() >= header.total => {
                Ok(Some(self.buffer.drain(..header.total).collect()))
            }
            Ok(Some(_) | None) => Ok(None),
            Err(bad) => Err(LoginFailure::Malformed(bad.to_string())),
        }
    }

    /// Takes one message; `None`: the next one, please.
    fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<Option<ServerStep>, LoginFailure> {
        let body = message.get(frame::HEADER_BYTES..).unwrap_or_default();
        let tag = message.first().and_then(|tag| FromServer::of(*tag));
        let started = matches!(self.stage, Stage::Starting | Stage::Fencing(_));
        let fencing = matches!(self.stage, Stage::Fencing(_));
        match tag {
            Some(FromServer::ErrorResponse) => Err(LoginFailure::Refused(read::report(body)?.to_report())),
            Some(FromServer::NoticeResponse | FromServer::NotificationResponse) => Ok(None),
            Some(FromServer::Authentication) => self.authentication(body, out),
            Some(FromServer::ParameterStatus) if started => self.parameter(body).map(|()| None),
            Some(FromServer::BackendKeyData) if started => self.backend_key(body).map(|()| None),
            Some(FromServer::DataRow) if fencing => self.row(body).map(|()| None),
            Some(FromServer::RowDescription | FromServer::CommandComplete) if fencing => Ok(None),
            Some(FromServer::ReadyForQuery) if started => self.ready(body, out),
            Some(unexpected) => {
                Err(LoginFailure::Malformed(format!("unexpected {unexpected:?} during login")))
            }
            None => Err(LoginFailure::Malformed("unknown message during login".into())),
        }
    }

    fn authentication(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Option<ServerStep>, LoginFailure> {
        let request = read::authentication(body)?;
        if self.must_bind && matches!(self.stage, Stage::Asked) {
            self.expect_binding(&request)?;
        }
        self.stage = match (mem::replace(&mut self.stage, Stage::Over), request) {
            (Stage::Asked | Stage::Proven, Authentication::Ok) => Stage::Starting,
            (Stage::Asked, Authentication::Cleartext) => self.cleartext(out)?,
            (Stage::Asked, Authentication::Md5(salt)) => self.md5(salt, out)?,
            (Stage::Asked, Authentication::Sasl(offered)) => self.sasl(&offered, out)?,
            (Stage::SaslFirst(first), Authentication::SaslContinue(challenge)) => {
                let challenged = first.challenged(challenge)?;
                match challenged.keys(&self.scram_credential()?) {
                    Ok(keys) => send_proof(challenged, keys, out),
                    Err(derivation) => {
                        self.stage = Stage::Deriving(challenged);
                        return Ok(Some(ServerStep::Derive(derivation)));
                    }
                }
            }
            (Stage::SaslFinal(last), Authentication::SaslFinal(outcome)) => {
                let derived = last.verify(outcome)?;
                // Keys that were given are known to whoever gave them.
                let is_password = matches!(self.credential.secret, Some(ServerSecret::Password { .. }));
                self.learned.derived = is_password.then_some(derived);
                Stage::Proven
            }
            (Stage::Asked, Authentication::Unsupported(method)) => {
                return Err(self.lack_for(method_name(method)));
            }
            // Above all an AuthenticationOk that comes before the server's own proof: it may not be the server.
            (_, _) => return Err(LoginFailure::Malformed("unexpected authentication request".into())),
        };
        Ok(None)
    }

    /// The first request decides: what follows a SCRAM exchange was bound or has failed.
    fn expect_binding(&self, request: &Authentication<'_>) -> Result<(), LoginFailure> {
        if self.binding == ChannelBinding::NotSupported {
            return Err(LoginFailure::Unbound("there is no TLS, or no digest in the server's certificate"));
        }
        match request {
            Authentication::Sasl(offered)
                if client::choose(offered, &self.binding) == Some(Mechanism::Sha256Plus) =>
            {
                Ok(())
            }
            Authentication::Sasl(_) => Err(LoginFailure::Unbound("the server offers SCRAM without it")),
            Authentication::Ok
            | Authentication::Cleartext
            | Authentication::Md5(_)
            | Authentication::SaslContinue(_)
            | Authentication::SaslFinal(_)
            | Authentication::Unsupported(_) => {
                Err(LoginFailure::Unbound("the server asks for something else than SCRAM"))
            }
        }
    }

    fn cleartext(&self, out: &mut Vec<u8>) -> Result<Stage, LoginFailure> {
        match &self.credential.secret {
            Some(ServerSecret::Password { password, derived: _ }) => {
                frontend::password(password.expose(), out);
                Ok(Stage::Proven)
            }
            Some(ServerSecret::Keys(_) | ServerSecret::Md5(_)) | None => Err(self.lack_for("password")),
        }
    }

    fn md5(&self, salt: [u8; 4], out: &mut Vec<u8>) -> Result<Stage, LoginFailure> {
        let stored = match &self.credential.secret {
            Some(ServerSecret::Password { password, derived: _ }) => {
                md5::stored(self.credential.user.as_bytes(), password.expose())
            }
            Some(ServerSecret::Md5(stored)) => String::from_utf8_lossy(stored.expose()).into_owned(),
            Some(ServerSecret::Keys(_)) | None => return Err(self.lack_for("md5")),
        };
        frontend::password(md5::response(&stored, salt).as_bytes(), out);
        Ok(Stage::Proven)
    }

    fn sasl(&self, offered: &[&[u8]], out: &mut Vec<u8>) -> Result<Stage, LoginFailure> {
        // Says so before the exchange begins: PostgreSQL would log a failed login otherwise.
        self.scram_credential()?;
        let mechanism =
            client::choose(offered, &self.binding).ok_or(self.lack_for("an unknown SASL mechanism"))?;
        let (first, message) = client::first(&self.nonce, &self.binding, mechanism)?;
        frontend::sasl_initial_response(mechanism.name(), &message, out);
        Ok(Stage::SaslFirst(first))
    }

    fn scram_credential(&self) -> Result<Credential, LoginFailure> {
        match &self.credential.secret {
            Some(ServerSecret::Password { password, derived }) => {
                Ok(Credential::Password { password: password.clone(), derived: derived.clone() })
            }
            Some(ServerSecret::Keys(keys)) => Ok(Credential::Keys(keys.clone())),
            Some(ServerSecret::Md5(_)) | None => Err(self.lack_for("scram-sha-256")),
        }
    }

    /// PostgreSQL asks for something that is not there.
    fn lack_for(&self, method: &'static str) -> LoginFailure {
        let has = match &self.credential.secret {
            None => Has::Nothing,
            Some(ServerSecret::Password { .. }) => Has::Password,
            Some(ServerSecret::Keys(_)) => Has::Keys,
            Some(ServerSecret::Md5(_)) => Has::Md5,
        };
        LoginFailure::NoCredential { method, has }
    }

    fn parameter(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (name, value) = read::parameter_status(body)?;
        // Names are ASCII. Values could be in any encoding, but those that PostgreSQL reports hardly are.
        let name = String::from_utf8_lossy(name).into_owned();
        let value = String::from_utf8_lossy(value).into_owned();
        if name == "in_hot_standby" {
            self.learned.answer.in_recovery = Some(value == "on");
        }
        let parameters = &mut self.learned.parameters;
        let room = parameters.len() < PARAMETERS_MAX;
        match parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None if room => parameters.push((name, value)),
            None => return Err(LoginFailure::Malformed("the server reports too many parameters".into())),
        }
        Ok(())
    }

    fn backend_key(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (pid, secret) = read::backend_key_data(body)?;
        self.learned.key = SecretKey::new(secret).map(|secret| (pid, secret));
        Ok(())
    }

    fn row(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let row = read::data_row(body)?;
        let answer = if self.walsender { Answer::read_walsender(&row)? } else { Answer::read(&row)? };
        self.stage = Stage::Fencing(Some(answer));
        Ok(())
    }

    /// ReadyForQuery: behind the login the fence may have a question, behind the fence's answer there is the verdict.
    fn ready(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Option<ServerStep>, LoginFailure> {
        // Whoever gets the connection begins outside a transaction.
        if read::ready_status(body)? != b'I' {
            return Err(LoginFailure::Malformed("the server is in a transaction after the login".into()));
        }
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Starting => {
                if let Some(question) =
                    self.fence.question(self.learned.answer.in_recovery, self.walsender)?
                {
                    frontend::query(question.as_bytes(), out);
                    self.stage = Stage::Fencing(None);
                    return Ok(None);
                }
            }
            Stage::Fencing(Some(answer)) => {
                self.fence.judge(&answer)?;
                self.learned.answer = answer;
            }
            Stage::Fencing(None) => {
                return Err(LoginFailure::Malformed("the fence's question has no answer".into()));
            }
            Stage::Asked
            | Stage::SaslFirst(_)
            | Stage::Deriving(_)
            | Stage::SaslFinal(_)
            | Stage::Proven
            | Stage::Over => {
                return Err(LoginFailure::Malformed("unexpected ReadyForQuery during login".into()));
            }
        }
        Ok(Some(ServerStep::Ready(self.finish())))
    }

    fn finish(&mut self) -> Box<Ready> {
        let Learned { key, parameters, answer, derived } = mem::take(&mut self.learned);
        let (pid, secret) = key.unzip();
        Box::new(Ready {
            pid: pid.unwrap_or(0),
            secret,
            parameters,
            in_hot_standby: answer.in_recovery,
            timeline: answer.timeline,
            system_identifier: answer.system_identifier,
            derived,
            rest: mem::take(&mut self.buffer),
        })
    }
}

impl From<Malformed> for LoginFailure {
    fn from(bad: Malformed) -> Self {
        Self::Malformed(bad.to_string())
    }
}

impl From<ScramError> for LoginFailure {
    fn from(error: ScramError) -> Self {
        Self::Malformed(error.to_string())
    }
}

fn send_proof(challenged: Challenged, keys: Keys, out: &mut Vec<u8>) -> Stage {
    let (last, message) = challenged.prove(keys);
    frontend::sasl_response(&message, out);
    Stage::SaslFinal(last)
}

/// Name of an authentication request that weir cannot answer (protocol chapter, "Message Formats").
fn method_name(method: u32) -> &'static str {
    match method {
        2 => "Kerberos V5",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => "an unknown method",
    }
}

/// Largest message (its length word) that is taken from a server during login.
pub const LOGIN_MESSAGE_BYTES_MAX: u32 = 64 * 1024;

/// Parameters that a server may report during login. PostgreSQL 18 reports 15.
pub const PARAMETERS_MAX: usize = 256;

#[cfg(test)]
mod tests;
