//! What a worker knows of one server connection.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use weir_discovery::Address;
use weir_pool::ClientId;
use weir_protocol::startup::SecretKey;
use weir_session::Server;
use weir_session::server_login::ServerLogin;

use crate::errands::Errand;
use crate::pools::PoolIndex;
use crate::replication::Replication;

/// One server connection.
pub(crate) struct ServerConn {
    pub(crate) stage: ServerStage,
    /// Tells it from others that have the same id before or after it.
    pub(crate) serial: u64,
    pub(crate) pool: PoolIndex,
    /// Patroni's name of the member, or the address.
    pub(crate) member: Rc<str>,
    pub(crate) address: Rc<Address>,
    /// It leads only to a leader that serves reads for want of replicas, or to a server without a cluster.
    pub(crate) reads_from_primary: bool,
    /// Of the read door: the number of the last epoch in which its member has led since it was dialed, if it has.
    pub(crate) reign: Option<u64>,
    pub(crate) carry: Vec<u8>,
    pub(crate) created: Instant,
    pub(crate) used: Instant,
    pub(crate) local: Option<SocketAddr>,
    /// Where its host's name led when it was dialed.
    pub(crate) remote: Option<IpAddr>,
    pub(crate) tls: Option<Box<str>>,
    /// It was refused without TLS, where that is tried first.
    pub(crate) wants_tls: bool,
    /// PostgreSQL's key for cancelling.
    pub(crate) pid: u32,
    pub(crate) secret: Option<SecretKey>,
    /// Who holds it.
    pub(crate) client: Option<ClientId>,
    /// Cancel requests under way to it.
    pub(crate) cancels: u32,
    /// Its client let go of it, but a cancel request is still under way: it must not reach the next client.
    pub(crate) settling_since: Option<Instant>,
    /// A cancel request was given up after it had been sent: it may still arrive, whoever holds the connection then.
    pub(crate) cancel_in_doubt: bool,
    /// It is to be replaced, and closes with its session at the end of the transaction (server_fast_close).
    pub(crate) closes_fast: bool,
    /// It has not been ready for a client yet.
    pub(crate) is_new: bool,
    /// It said at its login that it is a standby.
    pub(crate) in_hot_standby: bool,
    /// It was logged in to as a superuser.
    pub(crate) is_superuser: bool,
    /// It belongs to one client that replicates, from its dial to its end.
    pub(crate) replication: Option<Replication>,
}

/// How far a server connection has come.
pub(crate) enum ServerStage {
    /// The shell is connecting.
    Dialing,
    /// Logging in.
    Login(Box<ServerLogin>),
    /// Logged in.
    Open(Box<Server>),
    /// Runs a query of weir's own; no client holds it.
    Errand(Errand, Box<Server>),
    /// Logged in, and relayed unread for the client that it belongs to.
    Relaying,
}

impl ServerConn {
    pub(crate) fn open(&self) -> Option<&Server> {
        match &self.stage {
            ServerStage::Open(server) | ServerStage::Errand(_, server) => Some(server),
            ServerStage::Dialing | ServerStage::Login(_) | ServerStage::Relaying => None,
        }
    }

    pub(crate) fn open_mut(&mut self) -> Option<&mut Server> {
        match &mut self.stage {
            ServerStage::Open(server) => Some(server),
            ServerStage::Dialing
            | ServerStage::Login(_)
            | ServerStage::Errand(..)
            | ServerStage::Relaying => None,
        }
    }

    /// It was a standby at its login and has said since that it is none.
    pub(crate) fn was_promoted(&self) -> bool {
        self.in_hot_standby && self.open().is_some_and(|server| !server.is_standby())
    }

    /// On its way in: dialing, login, connect_query.
    pub(crate) fn is_logging_in(&self) -> bool {
        self.is_new
    }

    /// For messages: who is at the other end.
    pub(crate) fn name(&self) -> String {
        let address = self.address.to_string();
        if *self.member == *address { address } else { format!("{} ({address})", self.member) }
    }
}
