//! Gathers what tables and pages are made of. The shapes are weir-admin's; nothing is rendered here.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use weir_admin::averages::Averages;
use weir_admin::console::Table;
use weir_admin::metrics::{self, MetricsView};
use weir_admin::reply;
use weir_admin::snapshot::Snapshot;
use weir_admin::tables::{ConfigRow, ConsoleView, DatabaseRow, FailoverRow, PeerRow, UserLimits, UserRow};
use weir_config::{Config, Database, LoadBalance, PoolMode, UNLIMITED, Upstream, User};
use weir_discovery::Topology;

use super::state::{Control, Following, Paused, now};

/// This version of weir.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A table of SHOW, as a whole answer.
pub(super) async fn show(control: &Control, table: Table) -> Vec<u8> {
    let snapshot = control.snapshot().await;
    let now = now();
    let config = control.config();
    let paused = control.paused.borrow();
    let averages: Averages = control.averages.borrow().clone();
    let view = ConsoleView {
        snapshot: &snapshot,
        topology: &control.topology(now),
        averages: &averages,
        config: &config_rows(&config),
        databases: &database_rows(&config, &paused),
        server_lifetime: config.pool.server_lifetime,
        users: &user_rows(&config),
        user_limits: user_limits(&config, &User::default()),
        peers: &peer_rows(&config),
        failovers: &failovers(control),
        paused: paused.all,
        suspended: paused.suspended,
        version: VERSION,
        now,
        wall: SystemTime::now(),
    };
    reply::show(table, &view)
}

/// The metrics page.
pub(super) fn metrics(control: &Control, snapshot: &Snapshot, topology: &Topology) -> String {
    metrics::render(&MetricsView {
        snapshot,
        topology,
        failovers: failovers(control).last().map_or(0, |last| last.number),
        switchovers: [control.switchovers_done.get(), control.switchovers_failed.get()],
        uptime: uptime(control),
        version: VERSION,
        expiring: control.tls.borrow().expiring(),
    })
}

pub(super) fn uptime(control: &Control) -> Duration {
    now().saturating_duration_since(control.started)
}

pub(super) fn failovers(control: &Control) -> Vec<FailoverRow> {
    match &control.following {
        Following::Plain(_) => Vec::new(),
        Following::Cluster { discovery, events: _ } => {
            discovery.borrow_mut().failovers().iter().map(|record| FailoverRow::of(record, now())).collect()
        }
    }
}

fn config_rows(config: &Config) -> Vec<ConfigRow> {
    weir_config::config_rows(config)
        .into_iter()
        .map(|weir_config::ConfigRow { key, value, default, changeable }| ConfigRow {
            key,
            value,
            default,
            changeable,
        })
        .collect()
}

fn database_rows(config: &Config, paused: &Paused) -> Vec<DatabaseRow> {
    let mut rows: Vec<DatabaseRow> = config
        .databases
        .iter()
        .map(|(name, database)| database_row(config, paused, name, database))
        .collect();
    // PgBouncer lists its console, too.
    rows.push(DatabaseRow {
        name: CONSOLE.to_owned(),
        port: Some(config.listen.write.first().map_or(config.listen.port, std::net::SocketAddr::port)),
        database: CONSOLE.to_owned(),
        force_user: Some(CONSOLE.to_owned()),
        pool_mode: Some(mode_name(PoolMode::Statement).to_owned()),
        is_console: true,
        ..DatabaseRow::default()
    });
    rows
}

fn database_row(config: &Config, paused: &Paused, name: &str, database: &Database) -> DatabaseRow {
    let upstream = match &config.upstream {
        Upstream::Plain { host, port } => (Some(host.clone()), Some(*port)),
        Upstream::Patroni(_) | Upstream::None => (None, None),
    };
    let hosts: Vec<&str> = database.hosts.iter().map(|host| host.host.as_str()).collect();
    let (host, port) = match database.hosts.first() {
        Some(first) => (Some(hosts.join(",")), Some(first.port)),
        None => upstream,
    };
    let (pool, limits) = (&config.pool, &config.limits);
    DatabaseRow {
        name: name.to_owned(),
        host,
        port,
        database: database.dbname.clone().unwrap_or_else(|| name.to_owned()),
        force_user: database.user.clone(),
        pool_size: shown_size(database.pool_size.unwrap_or(pool.size)),
        min_pool_size: database.min_pool_size.unwrap_or(pool.min_size),
        reserve_pool_size: database.reserve_pool_size.unwrap_or(pool.reserve_size),
        load_balance_hosts: (hosts.len() > 1).then_some(match database.load_balance {
            LoadBalance::RoundRobin => "round-robin",
            LoadBalance::Disable => "disable",
        }),
        max_connections: database.max_db_connections.unwrap_or(limits.max_db_connections),
        max_client_connections: database
            .max_db_client_connections
            .unwrap_or(limits.max_db_client_connections),
        server_lifetime: database.server_lifetime.or(pool.server_lifetime),
        pool_mode: database.pool_mode.map(mode_name).map(str::to_owned),
        paused: paused.holds_for(name),
        disabled: paused.disabled.contains(name),
        is_console: false,
    }
}

/// PgBouncer writes 0 for no limit.
fn shown_size(size: NonZeroU32) -> u32 {
    if size == UNLIMITED { 0 } else { size.get() }
}

/// Users of the list, and those with settings.
fn user_rows(config: &Config) -> Vec<UserRow> {
    let listed = config.auth.users.iter().map(|(name, _)| name);
    let names: BTreeSet<&str> = listed.chain(config.users.keys().map(String::as_str)).collect();
    let none = User::default();
    let row = |name: &str| {
        let user = config.users.get(name).unwrap_or(&none);
        UserRow {
            name: name.to_owned(),
            pool_size: user.pool_size.map(shown_size),
            reserve_pool_size: user.reserve_pool_size,
            pool_mode: user.pool_mode.map(mode_name),
            limits: user_limits(config, user),
        }
    };
    names.into_iter().map(row).collect()
}

fn user_limits(config: &Config, user: &User) -> UserLimits {
    let limits = &config.limits;
    UserLimits {
        max_connections: user.max_user_connections.unwrap_or(limits.max_user_connections),
        max_client_connections: user
            .max_user_client_connections
            .unwrap_or(limits.max_user_client_connections),
    }
}

fn peer_rows(config: &Config) -> Vec<PeerRow> {
    let row = |(id, peer): (&u16, &weir_config::Peer)| PeerRow {
        id: *id,
        host: peer.host.clone(),
        port: peer.port,
        pool_size: shown_size(peer.pool_size.unwrap_or(config.pool.size)),
    };
    config.peers.iter().map(row).collect()
}

fn mode_name(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

/// The database name of the console.
const CONSOLE: &str = "pgbouncer";
