//! SHOW DATABASES and SHOW USERS: what is configured, and what else has pools.

use std::collections::BTreeSet;

use weir_discovery::{Leadership, Topology};
use weir_protocol::backend::Column;

use super::cell::Cell;
use super::{ConsoleView, DatabaseRow};

pub(super) const COLUMNS: [Column<'static>; 17] = [
    Column::text("name"),
    Column::text("host"),
    Column::int4("port"),
    Column::text("database"),
    Column::text("force_user"),
    Column::int4("pool_size"),
    Column::int4("min_pool_size"),
    Column::int4("reserve_pool_size"),
    Column::int4("server_lifetime"),
    Column::text("pool_mode"),
    Column::text("load_balance_hosts"),
    Column::int4("max_connections"),
    Column::int4("current_connections"),
    Column::int4("max_client_connections"),
    Column::int4("current_client_connections"),
    Column::int4("paused"),
    Column::int4("disabled"),
];

pub(super) const COLUMNS_USERS: [Column<'static>; 8] = [
    Column::text("name"),
    Column::text("pool_size"),
    Column::text("reserve_pool_size"),
    Column::text("pool_mode"),
    Column::int4("max_user_connections"),
    Column::int4("current_connections"),
    Column::int4("max_user_client_connections"),
    Column::int4("current_client_connections"),
];

pub(super) fn rows(view: &ConsoleView<'_>) -> Vec<[Cell; 17]> {
    all(view).iter().map(|database| row(database, view)).collect()
}

/// Configured databases, then those that clients brought up, each once.
pub(super) fn all(view: &ConsoleView<'_>) -> Vec<DatabaseRow> {
    let pools = &view.snapshot.pools;
    let paused = |name: &str| pools.iter().any(|pool| pool.paused && pool.database == name);
    let mut all = view.databases.to_vec();
    let mut known: BTreeSet<&str> = view.databases.iter().map(|database| database.name.as_str()).collect();
    for pool in pools {
        if known.insert(&pool.database) {
            all.push(DatabaseRow {
                name: pool.database.clone(),
                database: pool.server_database.clone(),
                pool_size: pool.pool_size,
                server_lifetime: view.server_lifetime,
                paused: paused(&pool.database),
                ..DatabaseRow::default()
            });
        }
    }
    all
}

/// Users of the user list, then others that have pools, each once.
pub(super) fn all_users<'a>(view: &ConsoleView<'a>) -> Vec<&'a str> {
    let mut known = BTreeSet::new();
    let listed = view.users.iter().map(String::as_str);
    let seen = view.snapshot.pools.iter().map(|pool| pool.user.as_str());
    listed.chain(seen).filter(|user| known.insert(*user)).collect()
}

fn row(database: &DatabaseRow, view: &ConsoleView<'_>) -> [Cell; 17] {
    let (host, port) = place(database, view.topology);
    let name = database.name.as_str();
    let servers = view.snapshot.servers.iter().filter(|server| server.database == name).count();
    let clients = view.snapshot.clients.iter().filter(|client| client.database == name).count();
    [
        Cell::from(name),
        host,
        port,
        Cell::from(&database.database),
        Cell::from(database.force_user.as_ref()),
        Cell::from(database.pool_size),
        Cell::from(0_u32),
        Cell::from(0_u32),
        Cell::from(database.server_lifetime.map_or(0, |lifetime| lifetime.as_secs())),
        Cell::from(database.pool_mode.as_ref()),
        Cell::NULL,
        Cell::from(0_u32),
        Cell::from(servers),
        Cell::from(0_u32),
        Cell::from(clients),
        Cell::flag(database.paused || view.paused),
        Cell::flag(false),
    ]
}

/// Where writes to the database go now; NULL while nobody leads.
fn place(database: &DatabaseRow, topology: &Topology) -> (Cell, Cell) {
    match (&database.host, &topology.leader) {
        (Some(host), _) => (Cell::from(host), Cell::from(database.port.unwrap_or(POSTGRESQL_PORT))),
        (None, Leadership::Led { address, .. }) => (Cell::from(&address.host), Cell::from(address.port)),
        (None, Leadership::Leaderless { .. }) => {
            (Cell::NULL, Cell::from(database.port.unwrap_or(POSTGRESQL_PORT)))
        }
    }
}

pub(super) fn users(view: &ConsoleView<'_>) -> Vec<[Cell; 8]> {
    let row = |user: &str| {
        let servers = view.snapshot.servers.iter().filter(|server| server.user == user).count();
        let clients = view.snapshot.clients.iter().filter(|client| client.user == user).count();
        [
            Cell::from(user),
            Cell::NULL,
            Cell::NULL,
            Cell::NULL,
            Cell::from(0_u32),
            Cell::from(servers),
            Cell::from(0_u32),
            Cell::from(clients),
        ]
    };
    all_users(view).into_iter().map(row).collect()
}

const POSTGRESQL_PORT: u16 = 5432;
