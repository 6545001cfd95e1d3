//! The validated configuration: what the rest of weir reads. Every value here is already checked.

mod auth;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use weir_auth::Secret;

pub use auth::{Auth, AuthMethod};

pub use crate::tls::{
    CertificateFiles, ChannelBinding, ClientTls, PatroniTls, SYSTEM_AUTHORITIES, ServerTls, Tls13Cipher,
    TlsCipher, TlsGroup, TlsMode, TlsOffer,
};

/// Everything weir was told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where weir listens.
    pub listen: Listen,
    /// What weir pools for.
    pub upstream: Upstream,
    /// How clients prove who they are, and who may use the console.
    pub auth: Auth,
    /// Defaults for every pool.
    pub pool: PoolSettings,
    /// Exceptions by client-facing database name.
    pub databases: BTreeMap<String, Database>,
    /// What holds for names that are not in [`Config::databases`] (PgBouncer's `*`); `None`: they are refused.
    pub any_database: Option<Database>,
    /// Exceptions by user name.
    pub users: BTreeMap<String, User>,
    /// Other weir processes behind the same address, by `peer_id`; cancel requests are forwarded to them.
    pub peers: BTreeMap<u16, Peer>,
    /// This process's own number among [`Config::peers`]; 0: none.
    pub peer_id: u16,
    /// Process-wide limits and clocks.
    pub limits: Limits,
    /// TLS towards clients.
    pub client_tls: ClientTls,
    /// TLS towards PostgreSQL.
    pub server_tls: ServerTls,
    /// What startup packets may ask for, and what clients may leave behind on a server connection.
    pub session: SessionSettings,
    /// Options of TCP sockets.
    pub tcp: Tcp,
    /// How host names are looked up.
    pub dns: Dns,
    /// What the process does with itself.
    pub process: Process,
    /// Log shape.
    pub log: Log,
    /// Data-plane threads.
    pub workers: NonZeroU32,
    /// Whose names the settings have for their readers.
    pub dialect: Dialect,
}

/// The kind of a configuration file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// weir.toml, or options alone.
    #[default]
    Weir,
    /// PgBouncer's file.
    PgBouncer,
}

/// Addresses that weir listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Write pool: always the leader. The first address names the port of the Unix socket.
    pub write: Vec<SocketAddr>,
    /// Read pool: healthy replicas. Empty: there is none.
    pub read: Vec<SocketAddr>,
    /// Metrics, health and status; `None`: not served.
    pub http: Option<SocketAddr>,
    /// Unix sockets, one named after the port of each door; `None`: none.
    pub unix: Option<UnixListen>,
    /// Port that Unix sockets are named after when no TCP address gives one.
    pub port: u16,
    /// Port of the read door's Unix socket, if there is a read door.
    pub read_port: Option<u16>,
    /// Length of the kernel's queue of connections not yet accepted (`listen(2)`).
    pub backlog: u32,
    /// Lets several processes listen on the same addresses (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The kernel hands over a TCP connection only when its first bytes are there, or after this
    /// (`TCP_DEFER_ACCEPT`); `None`: at once.
    pub defer_accept: Option<Duration>,
}

/// Unix sockets that weir listens on: `DIR/.s.PGSQL.PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixListen {
    /// A directory, or `@PREFIX` for the abstract namespace.
    pub dir: String,
    /// File mode of the sockets.
    pub mode: u32,
    /// Group of the sockets, by name or number; default: the process's own.
    pub group: Option<String>,
}

/// What is behind weir for databases that name no hosts of their own.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// One PostgreSQL server.
    Plain {
        /// Host name, address, or a directory holding a Unix socket.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A cluster that Patroni manages.
    Patroni(Box<Patroni>),
    /// Nothing: every database names its hosts.
    None,
}

/// How to follow a Patroni cluster.
#[derive(Debug, Clone)]
pub struct Patroni {
    /// REST API base URLs of some members; the rest is learned from them.
    pub urls: Vec<String>,
    /// Scope the cluster must have, if given.
    pub scope: Option<String>,
    /// A replica that lags more bytes than this serves no reads.
    pub max_lag_bytes: u64,
    /// What `:6433` does while no replica is eligible.
    pub read_fallback: ReadFallback,
    /// How reads are shared out.
    pub read_policy: ReadPolicy,
    /// How often members are polled when all is quiet.
    pub poll_interval: Duration,
    /// Deadline of one REST call.
    pub poll_timeout: Duration,
    /// How long a write client waits for a leader before it gets an error (57P03).
    pub hold_timeout: Duration,
    /// User of the monitor connections; default: `auth.user`.
    pub monitor_user: Option<String>,
    /// File that [`Patroni::monitor_password`] was read from.
    pub monitor_password_file: Option<PathBuf>,
    /// Password of `monitor_user`, if it is not in the user list.
    pub monitor_password: Option<Secret>,
    /// Database of the monitor connections.
    pub monitor_database: String,
    /// How long SWITCHOVER waits for transactions to end.
    pub switchover_wait: Duration,
    /// Who weir is to the REST API, for SWITCHOVER.
    pub login: PatroniLogin,
    /// The door for Patroni's callbacks.
    pub callback: Callback,
    /// TLS to the REST API.
    pub tls: Box<PatroniTls>,
}

/// A user of `restapi.authentication`, if there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatroniLogin {
    /// Its name.
    pub username: Option<String>,
    /// File that the password was read from.
    pub password_file: Option<PathBuf>,
    /// Its password; there is one if there is a name.
    pub password: Option<Secret>,
}

/// How reads are shared out over the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// To the less busy of two drawn at random.
    LeastConnections,
    /// To one after the other.
    RoundRobin,
    /// To one after the other, as often as their Patroni tag `weir_weight` says.
    Weighted,
    /// To those with the shortest round trip, to the others for want of these.
    Nearest,
}

/// Where Patroni's callbacks are heard, if anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callback {
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// File that the token was read from.
    pub token_file: Option<PathBuf>,
    /// What callbacks have to show; there is one if there is an address.
    pub token: Option<Secret>,
}

/// What the read pool does without an eligible replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFallback {
    /// Read from the leader, in read-only transactions.
    Primary,
    /// Hold clients as the write pool does.
    Wait,
    /// Answer with an error at once.
    Error,
}

/// When a server connection goes back to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement; transaction blocks are refused.
    Statement,
}

/// Limits of each pool (database, user, role).
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// When a server connection is released.
    pub mode: PoolMode,
    /// Server connections per pool; [`UNLIMITED`]: as many as other limits allow.
    pub size: NonZeroU32,
    /// Server connections that a pool in use keeps open at least.
    pub min_size: u32,
    /// Server connections above [`PoolSettings::size`] once a client has waited for [`PoolSettings::reserve_timeout`].
    pub reserve_size: u32,
    /// How long a client waits before the reserve opens; `None`: the reserve stays closed.
    pub reserve_timeout: Option<Duration>,
    /// Gives out the connection that has rested longest instead of the one used last.
    pub round_robin: bool,
    /// How long a client may wait for a server connection while the leader is known; `None`: for ever.
    pub query_wait_timeout: Option<Duration>,
    /// A queued client is told so after this long (NOTICE); `None`: never.
    pub query_wait_notify: Option<Duration>,
    /// Idle server connections close after this; `None`: never.
    pub server_idle_timeout: Option<Duration>,
    /// Server connections older than this close when released; `None`: never; zero: each serves once.
    pub server_lifetime: Option<Duration>,
    /// After a failed dial or login clients of the pool fail at once until this has passed (fixed hosts only).
    pub server_login_retry: Duration,
    /// Sent to a connection that has rested longer than [`PoolSettings::server_check_delay`], before it is given out;
    /// `None`: never. Empty text is PostgreSQL's empty query.
    pub server_check_query: Option<String>,
    /// See [`PoolSettings::server_check_query`]; zero: before every checkout.
    pub server_check_delay: Duration,
    /// `server_reset_query` also runs in transaction and statement mode.
    pub server_reset_query_always: bool,
    /// A server connection that is to be replaced closes at the end of its transaction even in session mode.
    pub server_fast_close: bool,
    /// In transaction pooling, BEGIN is answered by weir and goes out with the first statement of its transaction.
    pub defer_begin: bool,
    /// Deadline of dialing plus login to PostgreSQL.
    pub server_connect_timeout: Duration,
    /// Sent to a server connection when a session-mode client leaves it.
    pub server_reset_query: String,
    /// Named prepared statements kept on each server connection; 0: not handled.
    pub max_prepared_statements: u32,
}

/// Stands for no limit where a size must be positive.
pub const UNLIMITED: NonZeroU32 = NonZeroU32::MAX;

/// Settings of one client-facing database name; `None` falls back to [`Config::pool`] and the like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// Name on the server; default: the same.
    pub dbname: Option<String>,
    /// Fixed servers, tried in turn; empty: [`Config::upstream`].
    pub hosts: Vec<Host>,
    /// How [`Database::hosts`] are used.
    pub load_balance: LoadBalance,
    /// Every client shares server connections of this user.
    pub user: Option<String>,
    /// Password of [`Database::user`].
    pub password: Option<Secret>,
    /// Overrides [`Auth::user`].
    pub auth_user: Option<String>,
    /// Overrides [`Auth::query`].
    pub auth_query: Option<String>,
    /// Overrides [`Auth::database`].
    pub auth_database: Option<String>,
    /// Overrides [`PoolSettings::mode`].
    pub pool_mode: Option<PoolMode>,
    /// Overrides [`PoolSettings::size`].
    pub pool_size: Option<NonZeroU32>,
    /// Overrides [`PoolSettings::min_size`].
    pub min_pool_size: Option<u32>,
    /// Overrides [`PoolSettings::reserve_size`].
    pub reserve_pool_size: Option<u32>,
    /// Overrides [`PoolSettings::server_lifetime`].
    pub server_lifetime: Option<Duration>,
    /// Overrides [`PoolSettings::query_wait_timeout`].
    pub query_wait_timeout: Option<Option<Duration>>,
    /// Overrides [`Limits::max_db_connections`].
    pub max_db_connections: Option<u32>,
    /// Overrides [`Limits::max_db_client_connections`].
    pub max_db_client_connections: Option<u32>,
    /// Sent to each new server connection; its errors are only logged.
    pub connect_query: Option<String>,
    /// In place of [`Config::server_tls`], with what is left out as there.
    pub server_tls: Option<Box<ServerTls>>,
    /// Run-time parameters that clients of this database get unless they ask for others: `client_encoding`,
    /// `datestyle`, `timezone`, `application_name`.
    pub parameters: Vec<(String, String)>,
}

/// The name of the section for every database that has none of its own.
pub const ANY_DATABASE: &str = "*";

/// One fixed server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Host name, address, a directory holding a Unix socket, or `@PREFIX` of an abstract one.
    pub host: String,
    /// TCP port, and the end of a Unix socket's name.
    pub port: u16,
}

/// How several hosts of one database share its connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LoadBalance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The first that answers.
    Disable,
}

/// Settings of one user; `None` falls back to the database's and the general ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Overrides the database's pool mode.
    pub pool_mode: Option<PoolMode>,
    /// Overrides the database's pool size.
    pub pool_size: Option<NonZeroU32>,
    /// Overrides the database's reserve.
    pub reserve_pool_size: Option<u32>,
    /// Overrides [`Limits::max_user_connections`].
    pub max_user_connections: Option<u32>,
    /// Overrides [`Limits::max_user_client_connections`].
    pub max_user_client_connections: Option<u32>,
    /// Overrides [`Limits::query_timeout`]; `Some(None)`: no limit.
    pub query_timeout: Option<Option<Duration>>,
    /// Overrides [`PoolSettings::query_wait_timeout`]; `Some(None)`: no limit.
    pub query_wait_timeout: Option<Option<Duration>>,
    /// Overrides [`Limits::idle_transaction_timeout`]; `Some(None)`: no limit.
    pub idle_transaction_timeout: Option<Option<Duration>>,
    /// Overrides [`Limits::transaction_timeout`]; `Some(None)`: no limit.
    pub transaction_timeout: Option<Option<Duration>>,
    /// Overrides [`Limits::client_idle_timeout`]; `Some(None)`: no limit.
    pub client_idle_timeout: Option<Option<Duration>>,
}

/// Another weir process to which cancel requests are forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens: host name, address, or a directory holding its Unix socket. `None` for the entry that is
    /// this process itself.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// Cancel requests under way to it at once; default: [`PoolSettings::size`].
    pub pool_size: Option<NonZeroU32>,
}

/// Process-wide limits and clocks. In limits of connections 0 means none.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once.
    pub max_client_conn: u32,
    /// Server connections per client-facing database.
    pub max_db_connections: u32,
    /// Client connections per client-facing database.
    pub max_db_client_connections: u32,
    /// Server connections per user.
    pub max_user_connections: u32,
    /// Client connections per user.
    pub max_user_client_connections: u32,
    /// Server connections per PostgreSQL host, over all pools that share it.
    pub max_host_connections: u32,
    /// A query that runs longer is cancelled and its client closed; `None`: no limit.
    pub query_timeout: Option<Duration>,
    /// A client that rests longer outside a transaction is closed; `None`: no limit.
    pub client_idle_timeout: Option<Duration>,
    /// A client that rests longer inside a transaction is closed; `None`: no limit.
    pub idle_transaction_timeout: Option<Duration>,
    /// A client whose transaction takes longer is closed; `None`: no limit.
    pub transaction_timeout: Option<Duration>,
    /// Databases that only [`Config::any_database`] allows are forgotten after this long without connections;
    /// `None`: never.
    pub autodb_idle_timeout: Option<Duration>,
    /// SUSPEND waits this long for buffers to be flushed.
    pub suspend_timeout: Duration,
    /// Deadline from accept to ReadyForQuery.
    pub client_login_timeout: Duration,
    /// A cancelled server connection that does not settle within this is discarded; a cancel request that has waited
    /// this long for its turn is dropped.
    pub cancel_wait_timeout: Duration,
    /// Request bytes kept for a retry (SELECT/INSERT/... in flight at a failover); 0 turns retries off.
    pub retry_bytes_max: usize,
    /// Largest message that is passed on, in bytes; a larger one closes its connection.
    pub max_packet_size: u32,
    /// SIGTERM waits this long for clients to leave; `None`: for ever, as PgBouncer does.
    pub shutdown_timeout: Option<Duration>,
}

/// Startup parameters, and what a client may leave behind on a shared server connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Startup parameters that are accepted and dropped; `options` stands for all that is inside of it.
    pub ignore_startup_parameters: Vec<String>,
    /// Reported parameters that follow a client beside those that always do.
    pub track_extra_parameters: Vec<String>,
    /// Appends the client's address to its `application_name`.
    pub application_name_add_host: bool,
    /// Refuses the simple query protocol.
    pub disable_simple_protocol: bool,
    /// SET outside a transaction by a client in transaction or statement mode.
    pub on_set: StatePolicy,
    /// SQL-level PREPARE likewise.
    pub on_prepare: StatePolicy,
    /// LISTEN likewise.
    pub on_listen: StatePolicy,
    /// Session-level advisory locks likewise.
    pub on_advisory_lock: StatePolicy,
    /// CREATE TEMPORARY TABLE and the like, likewise.
    pub on_temporary_table: StatePolicy,
    /// DECLARE ... WITH HOLD likewise.
    pub on_hold_cursor: StatePolicy,
}

/// What becomes of state that would outlive the transaction on a shared server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatePolicy {
    /// weir remembers it and makes it anew wherever the client goes (SET and PREPARE only).
    Track,
    /// The client keeps its server connection until the state is gone or it disconnects.
    Pin,
    /// The statement is refused (0A000).
    Refuse,
    /// Let through; the next client gets a cleaned connection.
    Forget,
}

impl Config {
    /// Settings of a client-facing database name; `None`: there is no such database.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or(self.any_database.as_ref())
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            ignore_startup_parameters: Vec::new(),
            track_extra_parameters: vec!["IntervalStyle".to_owned()],
            application_name_add_host: false,
            disable_simple_protocol: false,
            on_set: StatePolicy::Track,
            on_prepare: StatePolicy::Track,
            on_listen: StatePolicy::Pin,
            on_advisory_lock: StatePolicy::Pin,
            on_temporary_table: StatePolicy::Pin,
            on_hold_cursor: StatePolicy::Pin,
        }
    }
}

/// Options of TCP sockets, both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Whether the kernel probes silent connections.
    pub keepalive: bool,
    /// Probes without answer before the connection is given up; 0: the system's own.
    pub keepalive_count: u32,
    /// Silence before the first probe; zero: the system's own.
    pub keepalive_idle: Duration,
    /// Time between probes; zero: the system's own.
    pub keepalive_interval: Duration,
    /// Unacknowledged data older than this ends the connection; zero: the system's own.
    pub user_timeout: Duration,
    /// Size of the kernel's buffers of each socket in bytes; 0: the system's own.
    pub socket_buffer: u32,
}

/// A peer that vanished without a word is noticed within half a minute: the system's own two hours are of no use to a
/// pooler. [`Tcp::user_timeout`] stays off because Linux counts it against a peer that acknowledges but does not read, too:
/// a client that pauses in a large result would be cut off.
impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive: true,
            keepalive_count: 3,
            keepalive_idle: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(5),
            user_timeout: Duration::ZERO,
            socket_buffer: 0,
        }
    }
}

/// How host names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Answers are used for this long.
    pub max_ttl: Duration,
    /// So long a name that does not exist is not asked for again.
    pub nxdomain_ttl: Duration,
    /// Zones' serial numbers are asked for this often, and a changed one makes their names be asked for again; `None`:
    /// never.
    pub zone_check_period: Option<Duration>,
    /// Read in place of `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            max_ttl: Duration::from_secs(15),
            nxdomain_ttl: Duration::from_secs(15),
            zone_check_period: None,
            resolv_conf: None,
        }
    }
}

/// What the process does with itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Runs as this user, if started as root.
    pub user: Option<String>,
    /// File that holds the process id while weir runs.
    pub pid_file: Option<PathBuf>,
}

/// Log settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Line shape.
    pub format: LogFormat,
    /// `tracing` filter, such as `info` or `weir_discovery=debug`.
    pub level: String,
    /// Lines are appended to this file, which is opened anew at a reload.
    pub file: Option<PathBuf>,
    /// Lines go to syslog.
    pub syslog: Option<Syslog>,
    /// Clients that come are logged.
    pub connections: bool,
    /// Clients that go are logged.
    pub disconnections: bool,
    /// Errors that weir sends to clients are logged.
    pub pooler_errors: bool,
    /// Figures are logged once in each [`Log::stats_period`].
    pub stats: bool,
    /// Period that averages are over.
    pub stats_period: Duration,
}

/// How weir calls itself in syslog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Name of the program.
    pub ident: String,
    /// `daemon`, `user`, `local0` and so on.
    pub facility: String,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}
