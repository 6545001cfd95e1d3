//! The validated configuration: what the rest of weir reads. Every value here is already checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use weir_auth::Secret;

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
    /// Process-wide limits and clocks.
    pub limits: Limits,
    /// TLS towards clients.
    pub client_tls: ClientTls,
    /// TLS towards PostgreSQL.
    pub server_tls: ServerTls,
    /// Log shape.
    pub log: Log,
    /// Data-plane threads.
    pub workers: NonZeroU32,
}

/// Addresses that weir listens on.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Write pool: always the leader.
    pub write: SocketAddr,
    /// Read pool: healthy replicas.
    pub read: SocketAddr,
    /// Metrics, health and status.
    pub http: SocketAddr,
}

/// What is behind weir.
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
    Patroni(Patroni),
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

/// Login settings.
#[derive(Debug, Clone)]
pub struct Auth {
    /// How clients are asked for their secret.
    pub method: AuthMethod,
    /// User list file (PgBouncer's format), already read into [`Auth::users`].
    pub file: Option<PathBuf>,
    /// File with the password of [`Auth::user`], already read into [`Auth::users`].
    pub password_file: Option<PathBuf>,
    /// The user list, with the credentials of the upstream URL and of `password_file` merged in.
    pub users: weir_auth::UserList,
    /// User that runs `query` for users who are not in the list.
    pub user: Option<String>,
    /// SELECT with `$1` = user name that returns (name, secret).
    pub query: Option<String>,
    /// Client-facing database to run `query` in; default: the client's own.
    pub database: Option<String>,
    /// Users with full console access.
    pub admin_users: Vec<String>,
    /// Users who may only SHOW.
    pub stats_users: Vec<String>,
}

/// How clients log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// SCRAM-SHA-256.
    ScramSha256,
    /// Anybody is let in under any name: for tests only.
    Trust,
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
    /// Server connections per pool.
    pub size: NonZeroU32,
    /// How long a client may wait for a server connection while the leader is known; `None`: for ever.
    pub query_wait_timeout: Option<Duration>,
    /// Idle server connections close after this; `None`: never.
    pub server_idle_timeout: Option<Duration>,
    /// Server connections older than this close when released; `None`: never.
    pub server_lifetime: Option<Duration>,
    /// Deadline of dialing plus login to PostgreSQL.
    pub server_connect_timeout: Duration,
    /// Sent to a server connection when a session-mode client leaves it.
    pub server_reset_query: String,
    /// Named prepared statements kept on each server connection; 0: not handled.
    pub max_prepared_statements: u32,
}

/// Settings of one client-facing database name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// Name on the server; default: the same.
    pub dbname: Option<String>,
    /// Overrides [`PoolSettings::mode`].
    pub pool_mode: Option<PoolMode>,
    /// Overrides [`PoolSettings::size`].
    pub pool_size: Option<NonZeroU32>,
}

/// Process-wide limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once.
    pub max_client_conn: u32,
    /// Deadline from accept to ReadyForQuery.
    pub client_login_timeout: Duration,
    /// A cancelled server connection that does not settle within this is discarded.
    pub cancel_wait_timeout: Duration,
    /// Request bytes kept for a retry (SELECT/INSERT/... in flight at a failover); 0 turns retries off.
    pub retry_bytes_max: usize,
    /// SIGTERM waits this long for transactions to end.
    pub shutdown_timeout: Duration,
}

/// How much TLS a side wants; names as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the other side insists.
    Allow,
    /// If the other side can.
    Prefer,
    /// Always, certificates unchecked.
    Require,
    /// Always, certificate signed by a known authority.
    VerifyCa,
    /// Always, and the certificate names the host (server side) / the user (client side).
    VerifyFull,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// What is asked of clients.
    pub mode: TlsMode,
    /// PEM private key.
    pub key_file: Option<PathBuf>,
    /// PEM certificate chain.
    pub cert_file: Option<PathBuf>,
    /// PEM authorities that sign client certificates.
    pub ca_file: Option<PathBuf>,
}

/// TLS towards PostgreSQL.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What is asked of servers.
    pub mode: TlsMode,
    /// PEM authorities that sign server certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM private key of weir's own certificate.
    pub key_file: Option<PathBuf>,
    /// PEM certificate that weir shows to servers.
    pub cert_file: Option<PathBuf>,
}

/// Log settings.
#[derive(Debug, Clone)]
pub struct Log {
    /// Line shape.
    pub format: LogFormat,
    /// `tracing` filter, such as `info` or `weir_discovery=debug`.
    pub level: String,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}
