//! The tables of SHOW. Those that PgBouncer has too have its columns (1.25) in its order and of its types, and no others,
//! so that programs may go by name, by position or by number of columns; what only weir has to tell is in tables of its
//! own. Knows no console and no connection.

use std::time::{Duration, Instant, SystemTime};

use weir_discovery::Topology;
use weir_protocol::backend::{self, Column};

use crate::averages::Averages;
use crate::console::Table;
use crate::snapshot::Snapshot;
use cell::Cell;

mod cell;
mod clock;
mod cluster;
mod connections;
mod databases;
mod lists;
mod pools;
mod stats;

pub use cluster::FailoverRow;

/// Everything that tables are made of, gathered at one moment.
#[derive(Debug, Clone)]
pub struct ConsoleView<'a> {
    /// The workers' state.
    pub snapshot: &'a Snapshot,
    /// Whom weir follows.
    pub topology: &'a Topology,
    /// Averages of the last statistics period.
    pub averages: &'a Averages,
    /// Settings, in the order to print them.
    pub config: &'a [ConfigRow],
    /// Configured databases. Others that have pools are shown as well.
    pub databases: &'a [DatabaseRow],
    /// `server_lifetime` of databases that are not configured.
    pub server_lifetime: Option<Duration>,
    /// Users of the user list or with settings of their own. Others that have pools are shown as well.
    pub users: &'a [UserRow],
    /// What limits the connections of users without settings of their own.
    pub user_limits: UserLimits,
    /// Configured peers.
    pub peers: &'a [PeerRow],
    /// Failovers since start, oldest first.
    pub failovers: &'a [FailoverRow],
    /// True after PAUSE without a database.
    pub paused: bool,
    /// True after SUSPEND.
    pub suspended: bool,
    /// weir's version, such as `0.1.0`.
    pub version: &'a str,
    /// The moment on the clock that ages are measured with.
    pub now: Instant,
    /// The same moment on the wall clock; times are printed in UTC.
    pub wall: SystemTime,
}

/// One line of SHOW CONFIG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigRow {
    /// Name of the setting.
    pub key: String,
    /// Value in force; secrets are not for this table.
    pub value: String,
    /// Value without a configuration file.
    pub default: String,
    /// Whether a reload can change it.
    pub changeable: bool,
}

/// One line of SHOW DATABASES.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseRow {
    /// Client-facing name.
    pub name: String,
    /// Fixed server; `None`: wherever the leader is.
    pub host: Option<String>,
    /// Port of the fixed server.
    pub port: Option<u16>,
    /// Name on the server.
    pub database: String,
    /// User that all clients share on the server.
    pub force_user: Option<String>,
    /// Server connections per pool.
    pub pool_size: u32,
    /// Server connections that a pool in use keeps.
    pub min_pool_size: u32,
    /// Server connections beyond the size while clients wait long.
    pub reserve_pool_size: u32,
    /// How several hosts share the connections; `None` with one host.
    pub load_balance_hosts: Option<&'static str>,
    /// Most server connections; 0: no limit.
    pub max_connections: u32,
    /// Most clients; 0: no limit.
    pub max_client_connections: u32,
    /// Age at which server connections close; `None`: never.
    pub server_lifetime: Option<Duration>,
    /// Its own pool mode; `None`: the general one.
    pub pool_mode: Option<String>,
    /// True after PAUSE of this database.
    pub paused: bool,
    /// True after DISABLE of this database.
    pub disabled: bool,
    /// The console, which is no database of any server.
    pub is_console: bool,
}

/// One line of SHOW USERS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserRow {
    /// Name.
    pub name: String,
    /// Its own pool size.
    pub pool_size: Option<u32>,
    /// Its own reserve.
    pub reserve_pool_size: Option<u32>,
    /// Its own pool mode.
    pub pool_mode: Option<&'static str>,
    /// The limits in force for it.
    pub limits: UserLimits,
}

/// Limits of one user's connections; 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Server connections.
    pub max_connections: u32,
    /// Client connections.
    pub max_client_connections: u32,
}

/// One line of SHOW PEERS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerRow {
    /// Its number.
    pub id: u16,
    /// Where it listens; `None` for the process itself.
    pub host: Option<String>,
    /// Its port.
    pub port: u16,
    /// Cancel requests under way to it at once.
    pub pool_size: u32,
}

/// A table as wire bytes: RowDescription, DataRows and CommandComplete `SHOW`; no ReadyForQuery.
pub fn show(table: Table, view: &ConsoleView<'_>) -> Vec<u8> {
    match table {
        Table::Pools => write(&pools::COLUMNS, pools::rows(view)),
        Table::PoolsByRole => write(&pools::COLUMNS_BY_ROLE, pools::by_role(view)),
        Table::Clients => write(&connections::COLUMNS, connections::clients(view)),
        Table::Servers => write(&connections::COLUMNS, connections::servers(view)),
        Table::Databases => write(&databases::COLUMNS, databases::rows(view)),
        Table::Users => write(&databases::COLUMNS_USERS, databases::users(view)),
        Table::Stats => write(&stats::COLUMNS, stats::rows(view)),
        Table::StatsTotals => write(&stats::COLUMNS_TOTALS, stats::totals(view)),
        Table::StatsAverages => write(&stats::COLUMNS_AVERAGES, stats::averages(view)),
        Table::Totals => write(&stats::COLUMNS_PROCESS, stats::process(view)),
        Table::Lists => write(&lists::COLUMNS, lists::rows(view)),
        Table::Config => write(&lists::COLUMNS_CONFIG, lists::config(view)),
        Table::Version => write(&lists::COLUMNS_VERSION, lists::version(view)),
        Table::State => write(&lists::COLUMNS_STATE, lists::state(view)),
        Table::Members => write(&cluster::COLUMNS_MEMBERS, cluster::members(view)),
        Table::Failovers => write(&cluster::COLUMNS_FAILOVERS, cluster::failovers(view)),
        Table::Peers => write(&lists::COLUMNS_PEERS, lists::peers(view)),
        Table::Sockets => write(&connections::COLUMNS_SOCKETS, connections::sockets(view, false)),
        Table::ActiveSockets => write(&connections::COLUMNS_SOCKETS, connections::sockets(view, true)),
        Table::Fds => write(&lists::COLUMNS_FDS, no_rows()),
        Table::Mem => write(&lists::COLUMNS_MEM, no_rows()),
        Table::PeerPools => write(&lists::COLUMNS_PEER_POOLS, lists::peer_pools(view)),
        Table::DnsHosts => write(&lists::COLUMNS_DNS_HOSTS, lists::dns_hosts(view)),
        Table::DnsZones => write(&lists::COLUMNS_DNS_ZONES, lists::dns_zones(view)),
    }
}

fn write<const N: usize>(columns: &[Column<'_>; N], rows: impl IntoIterator<Item = [Cell; N]>) -> Vec<u8> {
    let mut out = Vec::new();
    backend::row_description(columns, &mut out);
    for row in rows {
        backend::data_row(&row.each_ref().map(Cell::as_bytes), &mut out);
    }
    backend::command_complete("SHOW", &mut out);
    out
}

fn no_rows<const N: usize>() -> [[Cell; N]; 0] {
    []
}

#[cfg(test)]
mod tests;
