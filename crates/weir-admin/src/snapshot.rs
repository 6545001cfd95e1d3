//! What the console and the metrics page show, as plain values. Workers fill them in; nothing here computes, apart
//! from adding up.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::time::Duration;

/// State of one worker (or the sum of several) at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One per (database, user, role).
    pub pools: Vec<PoolRow>,
    /// One per client connection, console clients included.
    pub clients: Vec<ClientRow>,
    /// One per server connection.
    pub servers: Vec<ServerRow>,
    /// One per other process that cancel requests are forwarded to.
    pub peers: Vec<PeerPoolRow>,
    /// One per host name that is known.
    pub dns_hosts: Vec<DnsHostRow>,
    /// One per zone whose serial number is watched.
    pub dns_zones: Vec<DnsZoneRow>,
    /// Process-wide figures.
    pub totals: ProcessTotals,
}

/// Figures that belong to no pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessTotals {
    /// Clients that are still logging in.
    pub login_clients: u64,
    /// Logins that ended well, since start.
    pub logins_accepted: u64,
    /// Logins refused, since start.
    pub logins_refused: u64,
    /// Of these: answered late, because their network had failed before.
    pub logins_held_back: u64,
    /// Clients closed for a protocol error, since start.
    pub protocol_errors: u64,
    /// Cancel requests received, since start.
    pub cancels: u64,
    /// `max_client_conn`.
    pub max_client_conn: u64,
}

/// A transaction that keeps the leader from going by plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRow {
    /// `id` of SHOW CLIENTS.
    pub client: u64,
    /// The client's user.
    pub user: String,
    /// The client's database.
    pub database: String,
    /// Where the client comes from.
    pub peer: String,
    /// What it calls itself.
    pub application_name: String,
    /// It is a question of weir's own about users.
    pub is_own: bool,
    /// Since it has begun.
    pub open_for: Duration,
    /// A statement is being executed, since then.
    pub running_for: Option<Duration>,
}

impl std::fmt::Display for UnfinishedRow {
    /// One line for an operator.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client, user, database, peer, application_name, is_own, open_for, running_for } = self;
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        if *is_own {
            write!(f, "weir's own question about a user: {database}/{user}")?;
        } else {
            write!(f, "client {client}: {database}/{user}@{peer}")?;
        }
        if !application_name.is_empty() {
            write!(f, " ({application_name})")?;
        }
        write!(f, ", in a transaction for {}, ", seconds(*open_for))?;
        match running_for {
            Some(time) => write!(f, "a statement is running for {}", seconds(*time)),
            None => f.write_str("no statement is running"),
        }
    }
}

/// What is known of a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHostRow {
    /// The name.
    pub name: String,
    /// The addresses are used for this long still.
    pub ttl: Duration,
    /// Its addresses; none if it has none.
    pub addresses: Vec<IpAddr>,
}

/// What is known of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsZoneRow {
    /// The name.
    pub name: String,
    /// Its serial number; 0 if it has not told one.
    pub serial: u32,
    /// Host names in it.
    pub count: usize,
}

/// Cancel requests for the clients of one other process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerPoolRow {
    /// Its number.
    pub peer_id: u16,
    /// Requests under way to it.
    pub cl_active_cancel_req: u32,
    /// Requests that wait for their turn.
    pub cl_waiting_cancel_req: u32,
    /// Connections to it that carry a request.
    pub sv_active_cancel: u32,
    /// Connections to it that are being opened.
    pub sv_login: u32,
}

/// One pool.
#[derive(Debug, Clone, Default)]
pub struct PoolRow {
    /// Client-facing database name.
    pub database: String,
    /// User.
    pub user: String,
    /// `write` or `read`.
    pub role: &'static str,
    /// `session`, `transaction` or `statement`.
    pub pool_mode: &'static str,
    /// Name on the server.
    pub server_database: String,
    /// Configured size.
    pub pool_size: u32,
    /// Clients linked to a server connection, or idle and not waiting.
    pub cl_active: u32,
    /// Clients that wait for a server connection.
    pub cl_waiting: u32,
    /// Clients whose cancel is under way.
    pub cl_active_cancel_req: u32,
    /// Clients whose cancel waits because as many as the pool's size are under way.
    pub cl_waiting_cancel_req: u32,
    /// Server connections linked to a client.
    pub sv_active: u32,
    /// Server connections that are being cancelled.
    pub sv_being_canceled: u32,
    /// Server connections carrying a cancel request.
    pub sv_active_cancel: u32,
    /// Idle server connections.
    pub sv_idle: u32,
    /// Server connections that run a query of weir's own: a check or a reset.
    pub sv_tested: u32,
    /// Server connections in dialing or login.
    pub sv_login: u32,
    /// How long the oldest waiting client has waited.
    pub max_wait: Duration,
    /// True while no leader (or no replica) can be given out.
    pub held: bool,
    /// True after PAUSE.
    pub paused: bool,
    /// Sums since start.
    pub stats: PoolStats,
}

impl PoolRow {
    /// Adds another pool of the same database and user: counts and sizes are summed, the longest wait wins, and one that
    /// is held or paused makes the sum so. Names and pool mode stay.
    pub fn absorb(&mut self, other: &Self) {
        let Self {
            database: _,
            user: _,
            role: _,
            pool_mode: _,
            server_database: _,
            pool_size,
            cl_active,
            cl_waiting,
            cl_active_cancel_req,
            cl_waiting_cancel_req,
            sv_active,
            sv_being_canceled,
            sv_active_cancel,
            sv_idle,
            sv_tested,
            sv_login,
            max_wait,
            held,
            paused,
            stats,
        } = other;
        self.pool_size += pool_size;
        self.cl_active += cl_active;
        self.cl_waiting += cl_waiting;
        self.cl_active_cancel_req += cl_active_cancel_req;
        self.cl_waiting_cancel_req += cl_waiting_cancel_req;
        self.sv_active += sv_active;
        self.sv_being_canceled += sv_being_canceled;
        self.sv_active_cancel += sv_active_cancel;
        self.sv_idle += sv_idle;
        self.sv_tested += sv_tested;
        self.sv_login += sv_login;
        self.max_wait = self.max_wait.max(*max_wait);
        self.held |= held;
        self.paused |= paused;
        self.stats += *stats;
    }
}

/// Sums of one pool since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Times a server connection was given to a client.
    pub server_assignments: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Queries ended (ReadyForQuery seen).
    pub queries: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Time in transactions.
    pub transaction_micros: u64,
    /// Time in queries.
    pub query_micros: u64,
    /// Time clients waited for a server connection.
    pub wait_micros: u64,
    /// Parse messages from clients.
    pub client_parses: u64,
    /// Parse messages to servers.
    pub server_parses: u64,
    /// Bind messages.
    pub binds: u64,
    /// Requests retried after a lost server connection.
    pub retries: u64,
    /// Requests answered 08007 (in doubt).
    pub in_doubt: u64,
    /// Transactions ended by a lost server connection (40001).
    pub transactions_lost: u64,
    /// Server connections opened.
    pub servers_opened: u64,
    /// Server connections closed.
    pub servers_closed: u64,
    /// Clients that gave up waiting or were told to (timeouts).
    pub wait_timeouts: u64,
    /// Statements that may have left state behind on a shared server connection, in the order of [`STATES`].
    pub session_states: [u64; STATES.len()],
}

/// Kinds of session state, as labels.
pub const STATES: [&str; 6] =
    ["setting", "prepared_statement", "listen", "advisory_lock", "temporary_table", "hold_cursor"];

impl PoolStats {
    /// What was added since `before`. A pool that was dropped in between can only make it too small, never wrap.
    pub fn since(&self, before: &Self) -> Self {
        self.with_each(before, u64::saturating_sub)
    }

    /// Every sum of this one put together with the other's.
    fn with_each(&self, other: &Self, put: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            server_assignments: put(self.server_assignments, other.server_assignments),
            transactions: put(self.transactions, other.transactions),
            queries: put(self.queries, other.queries),
            bytes_received: put(self.bytes_received, other.bytes_received),
            bytes_sent: put(self.bytes_sent, other.bytes_sent),
            transaction_micros: put(self.transaction_micros, other.transaction_micros),
            query_micros: put(self.query_micros, other.query_micros),
            wait_micros: put(self.wait_micros, other.wait_micros),
            client_parses: put(self.client_parses, other.client_parses),
            server_parses: put(self.server_parses, other.server_parses),
            binds: put(self.binds, other.binds),
            retries: put(self.retries, other.retries),
            in_doubt: put(self.in_doubt, other.in_doubt),
            transactions_lost: put(self.transactions_lost, other.transactions_lost),
            servers_opened: put(self.servers_opened, other.servers_opened),
            servers_closed: put(self.servers_closed, other.servers_closed),
            wait_timeouts: put(self.wait_timeouts, other.wait_timeouts),
            session_states: std::array::from_fn(|at| put(self.session_states[at], other.session_states[at])),
        }
    }
}

impl AddAssign for PoolStats {
    fn add_assign(&mut self, other: Self) {
        *self = self.with_each(&other, |own, more| own + more);
    }
}

/// One client connection.
#[derive(Debug, Clone)]
pub struct ClientRow {
    /// Unique id.
    pub id: u64,
    /// User, empty before login.
    pub user: String,
    /// Client-facing database name.
    pub database: String,
    /// `write` or `read`.
    pub role: &'static str,
    /// `active`, `waiting`, `idle`, `login`.
    pub state: &'static str,
    /// Remote address.
    pub peer: Option<SocketAddr>,
    /// Local address.
    pub local: Option<SocketAddr>,
    /// Port that its Unix socket is named after; 0 for TCP.
    pub unix_port: u16,
    /// Process id at the other end of a Unix socket; 0 if unknown.
    pub remote_pid: u32,
    /// Age of the connection.
    pub connected_for: Duration,
    /// Since the last request.
    pub request_age: Duration,
    /// How long it has waited for a server connection.
    pub wait: Duration,
    /// Id of the server connection it holds.
    pub link: Option<u64>,
    /// TLS version and cipher, empty without.
    pub tls: String,
    /// `application_name` it gave.
    pub application_name: String,
    /// Named prepared statements it holds.
    pub prepared_statements: u32,
    /// `none`, `physical` or `logical`.
    pub replication: &'static str,
    /// Its place in the worker's table.
    pub slot: u32,
    /// What is in its buffers.
    pub buffered: Buffered,
}

/// Bytes of one connection that weir holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Buffered {
    /// Received, and not yet dealt with.
    pub incoming: usize,
    /// To be sent, and not yet taken by the kernel.
    pub outgoing: usize,
}

/// One server connection.
#[derive(Debug, Clone)]
pub struct ServerRow {
    /// Unique id.
    pub id: u64,
    /// User it is logged in as.
    pub user: String,
    /// Client-facing database name.
    pub database: String,
    /// `write` or `read`.
    pub role: &'static str,
    /// `active`, `idle`, `new` (login), `being_canceled`, `active_cancel`.
    pub state: &'static str,
    /// Where it goes: host and port as configured or announced.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Local address.
    pub local: Option<SocketAddr>,
    /// Age of the connection.
    pub connected_for: Duration,
    /// Since the last request.
    pub request_age: Duration,
    /// Will be closed when released.
    pub close_needed: bool,
    /// Id of the client that holds it.
    pub link: Option<u64>,
    /// PostgreSQL's process id.
    pub remote_pid: u32,
    /// TLS version and cipher, empty without.
    pub tls: String,
    /// `application_name` in force.
    pub application_name: String,
    /// Named prepared statements it knows.
    pub prepared_statements: u32,
    /// `none`, `physical` or `logical`.
    pub replication: &'static str,
    /// Its place in the worker's table.
    pub slot: u32,
    /// What is in its buffers.
    pub buffered: Buffered,
}
