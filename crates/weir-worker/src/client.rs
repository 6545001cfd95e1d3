//! What a worker knows of one client connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weir_auth::{Authority, Secret};
use weir_pool::ServerId;
use weir_protocol::startup::SecretKey;
use weir_session::Session;
use weir_session::client_login::{Admitted, ClientLogin, Method};

use crate::io::{Accepted, Role, UnixPeer};
use crate::pools::PoolIndex;
use crate::replication::Replicating;
use crate::secrets::{Lookup, Wanted, Whose};

/// One client connection. Kept small: most clients are idle.
pub(crate) struct Client {
    pub(crate) stage: Stage,
    /// Bytes of an unfinished message, or of requests that wait for a server connection.
    pub(crate) carry: Vec<u8>,
    pub(crate) accepted: Instant,
    pub(crate) serial: u64,
    pub(crate) role: Role,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) unix: Option<UnixPeer>,
    pub(crate) tls: Option<Box<str>>,
    /// Set for weir's own client that runs an auth_query: its replies stay inside.
    pub(crate) inside: Option<Box<Lookup>>,
    /// The shell was told to read no more.
    pub(crate) reading_stopped: bool,
}

/// How far a client has come.
pub(crate) enum Stage {
    /// On its way in.
    Login(Box<Login>),
    /// Proven, waiting for the values that PostgreSQL reports at login.
    Welcoming(Box<Welcoming>),
    /// In.
    Open(Box<Open>),
    /// In the console.
    Console(Box<Console>),
    /// Has a server connection of its own, or waits for it.
    Replicating(Box<Replicating>),
    /// Gone, but control still works on its console command: the answer must not reach another client of the same id.
    Left,
}

impl Stage {
    /// Stands in while a stage is being replaced by the next.
    pub(crate) fn placeholder() -> Self {
        Stage::Login(Box::new(Login::new()))
    }
}

/// A client on its way in.
pub(crate) struct Login {
    pub(crate) machine: ClientLogin,
    /// What is being asked about its user.
    pub(crate) asking: Option<Wanted>,
    /// What it has to show.
    pub(crate) demand: Demand,
    /// Database and user, if what auth_query told about them earlier is what the proof is held against.
    pub(crate) cached: Option<Whose>,
    /// It was asked for a proof.
    pub(crate) was_asked: bool,
    /// The user, and the stored password whose verifier has yet to be derived.
    pub(crate) underived: Option<(String, Secret)>,
    /// Who judges its password, if that is somebody else.
    pub(crate) authority: Option<Arc<Authority>>,
    /// Its answer did not fit, and its secret is being looked up once more.
    pub(crate) is_doubting: bool,
    /// Common name of the certificate that it has shown.
    pub(crate) common_name: Option<String>,
    /// The database and the user that it wants, once the log has them.
    pub(crate) announced: Option<(String, String)>,
}

/// What a client has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// A password.
    Password(Method),
    /// Nothing more, but somebody has to know the user. Holds the name of the method.
    Existence(&'static str),
}

impl Login {
    fn new() -> Self {
        Self {
            machine: ClientLogin::new(),
            asking: None,
            demand: Demand::Password(Method::Scram),
            cached: None,
            was_asked: false,
            underived: None,
            authority: None,
            is_doubting: false,
            common_name: None,
            announced: None,
        }
    }
}

/// A client that has proven who it is.
pub(crate) struct Welcoming {
    pub(crate) admitted: Admitted,
    pub(crate) settings: weir_session::settings::Settings,
    pub(crate) pool: PoolIndex,
}

/// A client that runs queries.
pub(crate) struct Open {
    pub(crate) session: Session,
    pub(crate) pool: PoolIndex,
    pub(crate) server: Option<ServerId>,
    /// Since when it has waited for a server connection.
    pub(crate) waiting_since: Option<Instant>,
    /// Since when what it has sent is held although it has a server connection.
    pub(crate) held_since: Option<Instant>,
    pub(crate) request_at: Instant,
    /// When it or its server connection said something last.
    pub(crate) active_at: Instant,
    /// The wait that it was told of, by its beginning.
    pub(crate) notified_of: Option<Instant>,
    pub(crate) cancel_key: SecretKey,
    pub(crate) application_name: Box<str>,
    /// Who it is, if PostgreSQL is logged in to as somebody else.
    pub(crate) user: Option<Box<str>>,
}

/// A client of the console.
pub(crate) struct Console {
    pub(crate) user: String,
    pub(crate) admin: bool,
    /// A command is being executed; more input waits.
    pub(crate) busy: bool,
    /// A cancel request has come for it. Few commands heed that.
    pub(crate) is_cancelled: bool,
    pub(crate) cancel_key: SecretKey,
    /// Extended protocol: the text of the last Parse.
    pub(crate) parsed: Option<Vec<u8>>,
    /// Extended protocol: what happens up to the next Sync.
    pub(crate) skipping: Skipping,
}

/// What a console does with the messages of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skipping {
    /// Takes them.
    No,
    /// Drops them and answers the Sync: an error was given.
    ToSync,
    /// Drops them and the Sync: the answer to the command brought its own ReadyForQuery.
    PastSync,
}

impl Open {
    /// Who the client is, given its pool's user.
    pub(crate) fn user<'a>(&'a self, pool_user: &'a str) -> &'a str {
        self.user.as_deref().unwrap_or(pool_user)
    }
}

impl Client {
    pub(crate) fn new(accepted: Accepted, now: Instant, serial: u64) -> Self {
        Self {
            stage: Stage::Login(Box::new(Login::new())),
            carry: Vec::new(),
            accepted: now,
            serial,
            role: accepted.role,
            peer: accepted.peer,
            local: accepted.local,
            unix: accepted.unix,
            tls: None,
            inside: None,
            reading_stopped: false,
        }
    }

    /// The proof that was asked for has come, and was right or wrong.
    pub(crate) fn note_judged(&mut self) {
        if let Stage::Login(login) = &mut self.stage {
            login.was_asked = false;
        }
    }

    /// The server connection it holds.
    pub(crate) fn server(&self) -> Option<ServerId> {
        match &self.stage {
            Stage::Open(open) => open.server,
            Stage::Replicating(replicating) => replicating.server.filter(|_| replicating.is_welcome()),
            Stage::Login(_) | Stage::Welcoming(_) | Stage::Console(_) | Stage::Left => None,
        }
    }

    pub(crate) fn open(&self) -> Option<&Open> {
        match &self.stage {
            Stage::Open(open) => Some(open),
            Stage::Login(_)
            | Stage::Welcoming(_)
            | Stage::Console(_)
            | Stage::Replicating(_)
            | Stage::Left => None,
        }
    }

    pub(crate) fn replicating(&self) -> Option<&Replicating> {
        match &self.stage {
            Stage::Replicating(replicating) => Some(replicating),
            Stage::Login(_) | Stage::Welcoming(_) | Stage::Console(_) | Stage::Open(_) | Stage::Left => None,
        }
    }

    pub(crate) fn replicating_mut(&mut self) -> Option<&mut Replicating> {
        match &mut self.stage {
            Stage::Replicating(replicating) => Some(replicating),
            Stage::Login(_) | Stage::Welcoming(_) | Stage::Console(_) | Stage::Open(_) | Stage::Left => None,
        }
    }

    /// The secret that cancels what it runs.
    pub(crate) fn cancel_key(&self) -> Option<&SecretKey> {
        match &self.stage {
            Stage::Open(open) => Some(&open.cancel_key),
            Stage::Replicating(replicating) => replicating.cancel_key.as_ref(),
            Stage::Console(console) => Some(&console.cancel_key),
            Stage::Login(_) | Stage::Welcoming(_) | Stage::Left => None,
        }
    }

    pub(crate) fn open_mut(&mut self) -> Option<&mut Open> {
        match &mut self.stage {
            Stage::Open(open) => Some(open),
            Stage::Login(_)
            | Stage::Welcoming(_)
            | Stage::Console(_)
            | Stage::Replicating(_)
            | Stage::Left => None,
        }
    }

    /// What a turn needs of a client that runs queries.
    pub(crate) fn split_open(&mut self) -> Option<(Option<&mut Lookup>, &mut Open)> {
        match &mut self.stage {
            Stage::Open(open) => Some((self.inside.as_deref_mut(), open)),
            Stage::Login(_)
            | Stage::Welcoming(_)
            | Stage::Console(_)
            | Stage::Replicating(_)
            | Stage::Left => None,
        }
    }

    /// Waits for a server connection.
    pub(crate) fn is_waiting(&self) -> bool {
        self.open().is_some_and(|open| open.waiting_since.is_some())
    }

    /// Control works on its console command.
    pub(crate) fn is_asking_control(&self) -> bool {
        match &self.stage {
            Stage::Console(console) => console.busy,
            Stage::Login(_) | Stage::Welcoming(_) | Stage::Open(_) | Stage::Replicating(_) | Stage::Left => {
                false
            }
        }
    }

    /// On its way in still.
    pub(crate) fn is_logging_in(&self) -> bool {
        matches!(self.stage, Stage::Login(_) | Stage::Welcoming(_))
            || self.replicating().is_some_and(|replicating| !replicating.is_welcome())
    }

    /// For log lines: where it comes from.
    pub(crate) fn peer_text(&self) -> String {
        match (self.peer, self.unix) {
            (Some(peer), _) => peer.to_string(),
            (None, Some(unix)) if unix.pid > 0 => format!("unix({}):{}", unix.pid, unix.port),
            (None, Some(unix)) => format!("unix:{}", unix.port),
            (None, None) => "unix".to_owned(),
        }
    }
}
