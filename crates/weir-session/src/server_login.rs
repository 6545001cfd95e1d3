//! Logging in to PostgreSQL: startup, proof, the values it reports, and the fence that keeps writes away from a member
//! that does not lead.
//!
//! Plays the client of the protocol. Knows neither the dial before it nor the pool behind it.

use weir_auth::scram::{self, ChannelBinding, Credential, DerivedKeys, Keys, Mechanism};
use weir_auth::{Secret, md5};
use weir_protocol::backend::read::{self, Authentication};
use weir_protocol::frame::{self, HEADER_BYTES};
use weir_protocol::frontend;
use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{ProtocolVersion, SecretKey};
use weir_protocol::tag::FromServer;

use crate::settings::IN_HOT_STANDBY;

/// Whom to log in as, and with what.
#[derive(Debug, Clone)]
pub struct ServerCredential {
    /// User.
    pub user: String,
    /// What proves it; `None` if nothing is known (which is enough where the server trusts).
    pub secret: Option<ServerSecret>,
}

/// What proves to PostgreSQL who weir is.
#[derive(Debug, Clone)]
pub enum ServerSecret {
    /// The password, and the keys that an earlier login derived from it.
    Password {
        /// The password.
        password: Secret,
        /// Spares the derivation (a millisecond) when the server's salt is the same.
        derived: Option<DerivedKeys>,
    },
    /// Keys from a client's own login.
    Keys(Keys),
    /// PostgreSQL's md5 hash, which is all that md5 logins need.
    Md5(Secret),
}

impl ServerSecret {
    /// A password.
    #[must_use]
    pub fn password(password: Secret) -> Self {
        Self::Password { password, derived: None }
    }
}

/// What a member has to prove before the connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Nothing.
    None,
    /// That it leads, on this timeline of this cluster where those are known.
    Primary {
        /// Timeline that is followed.
        expect_timeline: Option<u32>,
        /// System identifier of the cluster.
        expect_system: Option<u64>,
    },
    /// That it is a standby.
    Replica,
}

/// What the caller has to do next.
#[derive(Debug)]
pub enum ServerStep {
    /// Wait for more bytes.
    Wait,
    /// The connection can be used.
    Ready(Box<Ready>),
    /// It cannot; close it.
    Failed(LoginFailure),
}

/// A server connection that is logged in.
#[derive(Debug)]
pub struct Ready {
    /// PostgreSQL's process id.
    pub pid: u32,
    /// Its secret for cancel requests, if it gave one.
    pub secret: Option<SecretKey>,
    /// ParameterStatus values in order.
    pub parameters: Vec<(String, String)>,
    /// What it said it is (PostgreSQL 14 and later say it at login, earlier ones are asked when fenced).
    pub in_hot_standby: Option<bool>,
    /// Timeline, if fenced as a primary.
    pub timeline: Option<u32>,
    /// System identifier, if fenced as a primary.
    pub system_identifier: Option<u64>,
    /// Keys derived from a password, to be given again at the next login.
    pub derived: Option<DerivedKeys>,
    /// Bytes behind the last ReadyForQuery.
    pub rest: Vec<u8>,
}

/// Why a login did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginFailure {
    /// PostgreSQL's own refusal.
    Refused(Box<Report>),
    /// It asks for a proof that weir has nothing for.
    NoCredential {
        /// What it asks for.
        method: &'static str,
    },
    /// A standby, where a leader was expected.
    NotPrimary,
    /// A leader, where a standby was expected.
    NotReplica,
    /// Another timeline than the one that is followed.
    WrongTimeline {
        /// The member's.
        seen: u32,
        /// The one followed.
        expected: u32,
    },
    /// Another database cluster.
    WrongSystem {
        /// The member's.
        seen: u64,
        /// The one followed.
        expected: u64,
    },
    /// It does not speak the protocol, or not this step of it.
    Malformed(String),
}

impl LoginFailure {
    /// What a waiting client may read.
    #[must_use]
    pub fn report(&self, user: &str) -> Report {
        match self {
            Self::Refused(report) if report.code == SqlState::INVALID_PASSWORD => {
                Report::fatal(SqlState::INVALID_PASSWORD, format!("the server refused the password of user \"{user}\""))
                    .detail("What weir knows is not, or is no longer, the user's password on the server.")
                    .hint("If the password was changed, reconnect. Check that the user list holds the server's own verifier.")
            }
            Self::Refused(report) => (**report).clone().with_severity(Severity::Fatal),
            Self::NoCredential { method } => no_credential(user, method),
            Self::NotPrimary => fenced("the member is a standby"),
            Self::NotReplica => fenced("the member is not a standby"),
            Self::WrongTimeline { seen, expected } => {
                fenced(&format!("the member is on timeline {seen}, and {expected} is followed"))
            }
            Self::WrongSystem { seen, expected } => fenced(&format!(
                "the member belongs to another database cluster (system identifier {seen}, not {expected})"
            )),
            Self::Malformed(why) => {
                Report::fatal(SqlState::CONNECTION_FAILURE, "the server's login reply cannot be read").detail(why.clone())
            }
        }
    }
}

fn fenced(why: &str) -> Report {
    Report::fatal(SqlState::CANNOT_CONNECT_NOW, "the database server may not be used for this connection")
        .detail(format!("{why}."))
}

fn no_credential(user: &str, method: &str) -> Report {
    Report::fatal(
        SqlState::INVALID_AUTHORIZATION,
        format!("weir cannot log in to the server as \"{user}\": it has no secret for {method}"),
    )
    .detail("A SCRAM verifier alone is not enough: nobody has shown weir the key that belongs to it in this process.")
    .hint("Let the user log in to weir with SCRAM once, or put the password into the user list.")
}

/// A login under way.
#[derive(Debug)]
pub struct ServerLogin {
    stage: Stage,
    received: Vec<u8>,
    user: String,
    secret: Option<ServerSecret>,
    nonce: String,
    fence: Fence,
    ready: Ready,
    error: Option<Report>,
}

#[derive(Debug)]
enum Stage {
    Authenticating,
    Challenged(scram::client::First),
    Proving(scram::client::Final),
    /// Authenticated; values and the first ReadyForQuery come.
    Settling,
    /// The fence's question was asked.
    Fencing,
    Over,
}

impl ServerLogin {
    /// Begins a login; the startup packet is appended to `out`. `parameters` go with it, besides user and database. `nonce`
    /// is fresh and printable.
    pub fn start(
        database: &str,
        parameters: &[(&str, &str)],
        credential: ServerCredential,
        nonce: &str,
        fence: Fence,
        out: &mut Vec<u8>,
    ) -> Self {
        let ServerCredential { user, secret } = credential;
        let mut all = vec![("user", user.as_str()), ("database", database)];
        all.extend_from_slice(parameters);
        frontend::startup(ProtocolVersion::V3_0, &all, out);
        Self {
            stage: Stage::Authenticating,
            received: Vec::new(),
            user,
            secret,
            nonce: nonce.to_owned(),
            fence,
            ready: Ready {
                pid: 0,
                secret: None,
                parameters: Vec::new(),
                in_hot_standby: None,
                timeline: None,
                system_identifier: None,
                derived: None,
                rest: Vec::new(),
            },
            error: None,
        }
    }

    /// Bytes from the server; replies are appended to `out`.
    pub fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> ServerStep {
        self.received.extend_from_slice(bytes);
        loop {
            let header = match frame::peek(&self.received, MESSAGE_BYTES_MAX) {
                Ok(Some(header)) if self.received.len() >= header.total => header,
                Ok(_) => return ServerStep::Wait,
                Err(bad) => return ServerStep::Failed(LoginFailure::Malformed(bad.to_string())),
            };
            let message: Vec<u8> = self.received.drain(..header.total).collect();
            match self.message(FromServer::of(header.tag), &message[HEADER_BYTES..], out) {
                Ok(false) => {}
                Ok(true) => return self.finish(),
                Err(failure) => return ServerStep::Failed(failure),
            }
        }
    }

    fn finish(&mut self) -> ServerStep {
        self.stage = Stage::Over;
        self.ready.rest = std::mem::take(&mut self.received);
        let empty = Ready {
            pid: 0,
            secret: None,
            parameters: Vec::new(),
            in_hot_standby: None,
            timeline: None,
            system_identifier: None,
            derived: None,
            rest: Vec::new(),
        };
        ServerStep::Ready(Box::new(std::mem::replace(&mut self.ready, empty)))
    }

    /// One message; true when the login is over.
    fn message(
        &mut self,
        tag: Option<FromServer>,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, LoginFailure> {
        let Some(tag) = tag else { return Err(malformed("an unknown message type")) };
        match tag {
            FromServer::Authentication => self.authentication(body, out).map(|()| false),
            FromServer::ErrorResponse => self.refused(body),
            FromServer::ParameterStatus => self.parameter(body).map(|()| false),
            FromServer::BackendKeyData => {
                let (pid, secret) =
                    read::backend_key_data(body).map_err(|bad| malformed(&bad.to_string()))?;
                self.ready.pid = pid;
                self.ready.secret = SecretKey::new(secret);
                Ok(false)
            }
            FromServer::ReadyForQuery => self.ready_for_query(out),
            FromServer::DataRow if matches!(self.stage, Stage::Fencing) => {
                self.fence_row(body).map(|()| false)
            }
            FromServer::NoticeResponse
            | FromServer::NegotiateProtocolVersion
            | FromServer::RowDescription
            | FromServer::CommandComplete => Ok(false),
            _ => Err(malformed("an unexpected message")),
        }
    }

    fn refused(&mut self, body: &[u8]) -> Result<bool, LoginFailure> {
        let fields = read::report(body).map_err(|bad| malformed(&bad.to_string()))?;
        let report = fields.to_report();
        if matches!(self.stage, Stage::Fencing) && !fields.ends_connection() {
            // The ReadyForQuery behind it ends the login with this.
            self.error = Some(report);
            return Ok(false);
        }
        Err(LoginFailure::Refused(Box::new(report)))
    }

    fn parameter(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let (name, value) = read::parameter_status(body).map_err(|bad| malformed(&bad.to_string()))?;
        let (name, value) =
            (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned());
        if name == IN_HOT_STANDBY {
            self.ready.in_hot_standby = Some(value == "on");
        }
        if self.ready.parameters.len() >= PARAMETERS_MAX {
            return Err(malformed("too many parameters"));
        }
        self.ready.parameters.push((name, value));
        Ok(())
    }

    fn authentication(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), LoginFailure> {
        let request = read::authentication(body).map_err(|bad| malformed(&bad.to_string()))?;
        match (request, std::mem::replace(&mut self.stage, Stage::Over)) {
            (Authentication::Ok, Stage::Authenticating) => self.stage = Stage::Settling,
            (Authentication::Cleartext, Stage::Authenticating) => self.cleartext(out)?,
            (Authentication::Md5(salt), Stage::Authenticating) => self.md5(salt, out)?,
            (Authentication::Sasl(offered), Stage::Authenticating) => self.sasl(&offered, out)?,
            (Authentication::SaslContinue(challenge), Stage::Challenged(first)) => {
                let credential = self.scram_credential()?;
                let (proving, message) =
                    first.respond(challenge, &credential).map_err(|why| scram_failure(&why))?;
                frontend::sasl_response(&message, out);
                self.stage = Stage::Proving(proving);
            }
            (Authentication::SaslFinal(outcome), Stage::Proving(proving)) => {
                let derived = proving.verify(outcome).map_err(|why| scram_failure(&why))?;
                if matches!(self.secret, Some(ServerSecret::Password { .. })) {
                    self.ready.derived = Some(derived);
                }
                self.stage = Stage::Authenticating;
            }
            (Authentication::Unsupported(_), _) => {
                return Err(LoginFailure::NoCredential {
                    method: "an authentication method that weir does not speak",
                });
            }
            _ => return Err(malformed("an authentication request out of order")),
        }
        Ok(())
    }

    fn cleartext(&mut self, out: &mut Vec<u8>) -> Result<(), LoginFailure> {
        let Some(ServerSecret::Password { password, .. }) = &self.secret else {
            return Err(LoginFailure::NoCredential { method: "a cleartext password" });
        };
        frontend::password(password.expose(), out);
        self.stage = Stage::Authenticating;
        Ok(())
    }

    fn md5(&mut self, salt: [u8; 4], out: &mut Vec<u8>) -> Result<(), LoginFailure> {
        let stored = match &self.secret {
            Some(ServerSecret::Password { password, .. }) => {
                md5::stored(self.user.as_bytes(), password.expose())
            }
            Some(ServerSecret::Md5(hash)) => String::from_utf8_lossy(hash.expose()).into_owned(),
            Some(ServerSecret::Keys(_)) | None => {
                return Err(LoginFailure::NoCredential { method: "an md5 password" });
            }
        };
        frontend::password(md5::response(&stored, salt).as_bytes(), out);
        self.stage = Stage::Authenticating;
        Ok(())
    }

    fn sasl(&mut self, offered: &[&[u8]], out: &mut Vec<u8>) -> Result<(), LoginFailure> {
        self.scram_credential()?;
        let binding = ChannelBinding::NotSupported;
        let Some(mechanism) = scram::client::choose(offered, &binding) else {
            return Err(LoginFailure::NoCredential { method: "a SASL mechanism that weir does not speak" });
        };
        let (first, message) =
            scram::client::first(&self.nonce, &binding, mechanism).map_err(|why| scram_failure(&why))?;
        frontend::sasl_initial_response(Mechanism::name(mechanism), &message, out);
        self.stage = Stage::Challenged(first);
        Ok(())
    }

    fn scram_credential(&self) -> Result<Credential, LoginFailure> {
        match &self.secret {
            Some(ServerSecret::Password { password, derived }) => {
                Ok(Credential::Password { password: password.clone(), derived: derived.clone() })
            }
            Some(ServerSecret::Keys(keys)) => Ok(Credential::Keys(keys.clone())),
            Some(ServerSecret::Md5(_)) | None => Err(LoginFailure::NoCredential { method: "SCRAM-SHA-256" }),
        }
    }

    /// ReadyForQuery: the login itself is over, or the fence's question is answered.
    fn ready_for_query(&mut self, out: &mut Vec<u8>) -> Result<bool, LoginFailure> {
        match (&self.stage, self.fence) {
            (Stage::Settling, Fence::None) => Ok(true),
            (Stage::Settling, Fence::Replica) if self.ready.in_hot_standby == Some(true) => Ok(true),
            (Stage::Settling, Fence::Replica) if self.ready.in_hot_standby == Some(false) => {
                Err(LoginFailure::NotReplica)
            }
            (Stage::Settling, Fence::Primary { .. }) if self.ready.in_hot_standby == Some(true) => {
                Err(LoginFailure::NotPrimary)
            }
            (Stage::Settling, Fence::Replica | Fence::Primary { .. }) => {
                frontend::query(FENCE_SQL.as_bytes(), out);
                self.stage = Stage::Fencing;
                Ok(false)
            }
            (Stage::Fencing, _) => self.fenced().map(|()| true),
            _ => Err(malformed("ReadyForQuery out of order")),
        }
    }

    fn fence_row(&mut self, body: &[u8]) -> Result<(), LoginFailure> {
        let values = read::data_row(body).map_err(|bad| malformed(&bad.to_string()))?;
        let text =
            |at: usize| values.get(at).copied().flatten().and_then(|value| std::str::from_utf8(value).ok());
        self.ready.in_hot_standby = Some(text(0) == Some("t"));
        self.ready.timeline = text(1).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.ready.system_identifier =
            text(2).and_then(|digits| digits.parse::<i64>().ok()).map(i64::cast_unsigned);
        Ok(())
    }

    fn fenced(&mut self) -> Result<(), LoginFailure> {
        if let Some(report) = self.error.take() {
            return Err(LoginFailure::Refused(Box::new(report)));
        }
        let standby = self.ready.in_hot_standby == Some(true);
        match self.fence {
            Fence::Replica if !standby => Err(LoginFailure::NotReplica),
            Fence::Primary { .. } if standby => Err(LoginFailure::NotPrimary),
            Fence::Primary { expect_timeline, expect_system } => {
                let (Some(timeline), Some(system)) = (self.ready.timeline, self.ready.system_identifier)
                else {
                    return Err(malformed("an unreadable answer about timeline and system identifier"));
                };
                match (expect_timeline, expect_system) {
                    (_, Some(expected)) if expected != system => {
                        Err(LoginFailure::WrongSystem { seen: system, expected })
                    }
                    (Some(expected), _) if expected != timeline => {
                        Err(LoginFailure::WrongTimeline { seen: timeline, expected })
                    }
                    _ => Ok(()),
                }
            }
            Fence::Replica | Fence::None => Ok(()),
        }
    }
}

fn malformed(why: &str) -> LoginFailure {
    LoginFailure::Malformed(why.to_owned())
}

fn scram_failure(why: &scram::ScramError) -> LoginFailure {
    LoginFailure::Malformed(why.to_string())
}

/// Is it a standby, which timeline does it write, which cluster is it. A standby does not know a timeline to write, so it is
/// not asked; `pg_control_checkpoint()` would keep the old timeline for seconds after a promotion.
pub const FENCE_SQL: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
    ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system())";

/// A message at login is short.
const MESSAGE_BYTES_MAX: u32 = 64 * 1024;

/// Parameters reported at login: about 15, and some of extensions.
const PARAMETERS_MAX: usize = 200;
