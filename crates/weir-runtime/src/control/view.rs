//! Gathers what tables and pages are made of. The shapes are weir-admin's; nothing is rendered here.

use std::time::{Duration, SystemTime};

use weir_admin::averages::Averages;
use weir_admin::console::Table;
use weir_admin::metrics::{self, MetricsView};
use weir_admin::reply;
use weir_admin::snapshot::Snapshot;
use weir_admin::tables::{ConfigRow, ConsoleView, DatabaseRow, FailoverRow};
use weir_config::{Config, Database, KEYS, PoolMode, TakesEffect, Upstream};
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
    let users: Vec<String> = config.auth.users.iter().map(|(name, _)| name.to_owned()).collect();
    let view = ConsoleView {
        snapshot: &snapshot,
        topology: &control.topology(now),
        averages: &averages,
        config: &config_rows(&config),
        databases: &database_rows(&config, &paused),
        server_lifetime: config.pool.server_lifetime,
        users: &users,
        failovers: &failovers(control),
        paused: paused.all,
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
        uptime: uptime(control),
        version: VERSION,
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
    let row = |key: &weir_config::Key| ConfigRow {
        key: key.path.to_owned(),
        value: (key.show)(config),
        default: key.default.shown(),
        changeable: key.takes_effect == TakesEffect::AtReload,
    };
    KEYS.iter().map(row).collect()
}

fn database_rows(config: &Config, paused: &Paused) -> Vec<DatabaseRow> {
    let (host, port) = match &config.upstream {
        Upstream::Plain { host, port } => (Some(host.clone()), Some(*port)),
        Upstream::Patroni(_) | Upstream::None => (None, None),
    };
    let row = |(name, database): (&String, &Database)| DatabaseRow {
        name: name.clone(),
        host: host.clone(),
        port,
        database: database.dbname.clone().unwrap_or_else(|| name.clone()),
        force_user: None,
        pool_size: database.pool_size.unwrap_or(config.pool.size).get(),
        server_lifetime: config.pool.server_lifetime,
        pool_mode: database.pool_mode.map(mode_name).map(str::to_owned),
        paused: paused.all || paused.databases.contains(name),
    };
    config.databases.iter().map(row).collect()
}

fn mode_name(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}
