//! The worker's border: what the shell tells it and what it asks the shell to do, as data.
//! Knows no socket; a connection is a name here.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use weir_auth::scram::Derivation;
use weir_config::Config;
use weir_discovery::{Address, SessionEvidence, Topology};
use weir_pool::{ClientId, ServerId};

pub use crate::derivations::Ticket;
pub use crate::referrals::{Referral, ReferralTicket, Verdict};

/// A connection that the shell holds open for the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnId {
    /// A connection from an application.
    Client(ClientId),
    /// A connection to PostgreSQL.
    Server(ServerId),
    /// A short connection to PostgreSQL that carries one CancelRequest.
    Cancel(CancelId),
}

/// One cancel request on its way to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CancelId(pub u32);

/// Which door a client came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `:6432`, always the leader.
    Write,
    /// `:6433`, healthy replicas.
    Read,
}

/// What the shell has to do after it told the worker something, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write these bytes of [`Effects::bytes`] to the connection. Consecutive sends to one connection are already merged.
    Send(ConnId, Range<usize>),
    /// Everything sent so far is flushed in the clear, then the client starts its TLS handshake.
    StartTls(ClientId),
    /// The client began with TLS at once: starts its handshake with these bytes of [`Effects::bytes`].
    BeginTls(ClientId, Range<usize>),
    /// Open a connection (TCP or Unix socket, then TLS as configured) and report to [`crate::Worker::dialed`].
    Dial(ConnId, Address, Encryption),
    /// The same for a cancel request. With an address, that one of the host's and no other: the server connection that it
    /// is for goes there, and where a name has several addresses the others are other servers.
    DialCancel(CancelId, Address, Option<IpAddr>, Encryption),
    /// Flush what was sent (bounded in time), then close. The worker has forgotten the connection.
    Close(ConnId),
    /// Close at once, unsent bytes dropped. The worker has forgotten the connection.
    Abort(ConnId),
    /// Read no more from this connection, but still report its end.
    StopReading(ConnId),
    /// Read again.
    ReadAgain(ConnId),
    /// A console client asked something; answer with [`Order::ConsoleReply`].
    Console(ConsoleRequest),
    /// Something for discovery to look into at once.
    Evidence(SessionEvidence),
    /// Compute this where it keeps nobody waiting and report to [`crate::Worker::derived`], whoever is gone by then. There
    /// are never more than a few at once.
    Derive(Ticket, Derivation),
    /// Ask about a password where it keeps nobody waiting and report to [`crate::Worker::judged`], whoever is gone by then
    /// and whatever comes of it, in bounded time. There are never more than a few at once.
    Refer(Referral),
}

/// What a dial needs of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encryption {
    /// The section of `[databases]` whose settings hold; `None` for `[server_tls]`.
    pub of: Option<String>,
    /// Nothing but TLS will do, although the mode leaves it open.
    pub is_needed: bool,
}

/// A console command waiting for its answer.
#[derive(Debug, PartialEq, Eq)]
pub struct ConsoleRequest {
    /// Who asked.
    pub client: ClientId,
    /// What was asked, one simple query's text.
    pub sql: Vec<u8>,
    /// Whether the user may change anything, or only SHOW.
    pub admin: bool,
}

/// Effects of one or more calls, and the bytes they refer to. Reused from turn to turn.
#[derive(Debug, Default)]
pub struct Effects {
    /// What to do, in order.
    pub list: Vec<Effect>,
    /// What [`Effect::Send`] points into.
    pub bytes: Vec<u8>,
}

impl Effects {
    /// Appends bytes for a connection, by letting `fill` append to the shared buffer.
    pub fn send_with(&mut self, to: ConnId, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        fill(&mut self.bytes);
        let end = self.bytes.len();
        if start == end {
            return;
        }
        if let Some(Effect::Send(last, range)) = self.list.last_mut()
            && *last == to
            && range.end == start
        {
            range.end = end;
            return;
        }
        self.list.push(Effect::Send(to, start..end));
    }

    /// Forgets everything, keeping the memory up to a bound.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
        self.bytes.shrink_to(EFFECT_BYTES_KEPT);
    }
}

/// Capacity that [`Effects::bytes`] keeps between turns.
pub const EFFECT_BYTES_KEPT: usize = 256 * 1024;

/// A new connection from an application.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The door.
    pub role: Role,
    /// Remote address; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Local address; `None` for a Unix socket.
    pub local: Option<SocketAddr>,
    /// Who is at the other end of a Unix socket, by the kernel's word; `None` for TCP.
    pub unix: Option<UnixPeer>,
}

/// The process at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its user.
    pub uid: u32,
    /// Its process id; 0 if it runs where this process cannot see it.
    pub pid: u32,
    /// The port that the socket is named after.
    pub port: u16,
    /// Its user is the one that weir runs as.
    pub is_own: bool,
}

/// What a TLS handshake with a client has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encrypted {
    /// TLS version and cipher, for SHOW CLIENTS.
    pub description: String,
    /// `tls-server-end-point` hash of the certificate that was shown to the client, if it has one.
    pub end_point: Option<Vec<u8>>,
    /// Common name of the client's certificate, if it showed one and an authority vouches for it.
    pub common_name: Option<String>,
    /// The handshake named PostgreSQL's protocol (ALPN).
    pub names_protocol: bool,
}

/// What the shell learned while dialing.
#[derive(Debug, Clone)]
pub struct Dialed {
    /// Remote address; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Local address.
    pub local: Option<SocketAddr>,
    /// TLS version and cipher for SHOW SERVERS, if encrypted.
    pub tls: Option<String>,
    /// `tls-server-end-point` hash of the server's certificate, if it has one.
    pub end_point: Option<Vec<u8>>,
}

/// Why dialing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// Nothing listens, or the host is not reachable.
    Refused(String),
    /// No answer in time.
    TimedOut,
    /// The host name has no address.
    NoAddress(String),
    /// There is no TLS, or it broke off.
    Tls(String),
    /// One of the two does not believe the other's certificate, or they have nothing in common: so it will be next time.
    Untrusted(String),
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) | Self::Tls(why) | Self::Untrusted(why) => f.write_str(why),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::NoAddress(why) => write!(f, "the host name has no address: {why}"),
        }
    }
}

/// What the control thread tells a worker.
#[derive(Debug, Clone)]
pub enum Order {
    /// Follow this topology.
    Adopt(Arc<Topology>),
    /// Use this configuration (and its user list) from now on.
    Configure(Arc<Config>),
    /// Answer to [`Effect::Console`]: whole messages, ReadyForQuery included.
    ConsoleReply(ClientId, Vec<u8>),
    /// Words on the way to that answer: whole messages.
    ConsoleNotice(ClientId, Vec<u8>),
    /// Start no transaction in this database (`None`: any) until [`Order::Resume`].
    Pause(Option<String>),
    /// Undo [`Order::Pause`].
    Resume(Option<String>),
    /// Replace the server connections of this database (`None`: all) at their next transaction boundary.
    Reconnect(Option<String>),
    /// Accept no new clients; close each client at its next transaction boundary.
    Drain,
    /// Accept no new clients, and give nobody a server connection any more; [`crate::Worker::is_drained`] when none is
    /// in use.
    WaitForServers,
    /// Accept no new clients; [`crate::Worker::is_drained`] when all have left by themselves.
    WaitForClients,
    /// Close all clients and server connections of this database (`None`: all) at once. A [`Order::Pause`] comes first.
    Kill(Option<String>),
    /// Close the client with this number (`id` of SHOW CLIENTS) at once, and its server connection.
    KillClient(u64),
    /// Refuse new clients of this database (true), or take them again (false).
    Disable(String, bool),
    /// Read nothing from anybody but console clients, and cut off those whose output has not left weir within this
    /// time. [`Order::Resume`] of everything undoes it. The shell's own business; the worker hears no time passing.
    Suspend(Duration),
    /// A host name no longer has these addresses: connections to them close at their next transaction boundary.
    AddressesLeft {
        /// The name.
        host: String,
        /// The addresses.
        gone: Vec<IpAddr>,
    },
}

/// Randomness, owned by the shell: nonces, cancel keys, choices between members.
pub trait Entropy {
    /// Fills the buffer with unpredictable bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}
