//! SHOW DATABASES and SHOW USERS: what is configured, and what else has pools.

use std::collections::{HashMap, HashSet};

use weir_discovery::{Leadership, Topology};
use weir_protocol::backend::Column;

use super::cell::Cell;
use super::{ConsoleView, DatabaseRow, UserRow};

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
    let servers = count(view.snapshot.servers.iter().map(|server| server.database.as_str()));
    let clients = count(view.snapshot.clients.iter().map(|client| client.database.as_str()));
    let now = |database: &DatabaseRow| {
        let of = |counts: &HashMap<&str, u32>| counts.get(database.name.as_str()).copied().unwrap_or(0);
        [of(&servers), of(&clients)]
    };
    all(view).iter().map(|database| row(database, now(database), view)).collect()
}

/// How often each name comes.
fn count<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, u32> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

/// Configured databases, then those that clients brought up, each once.
pub(super) fn all(view: &ConsoleView<'_>) -> Vec<DatabaseRow> {
    let pools = &view.snapshot.pools;
    let paused: HashSet<&str> =
        pools.iter().filter(|pool| pool.paused).map(|pool| pool.database.as_str()).collect();
    let mut all = view.databases.to_vec();
    let mut known: HashSet<&str> = view.databases.iter().map(|database| database.name.as_str()).collect();
    for pool in pools {
        if known.insert(&pool.database) {
            all.push(DatabaseRow {
                name: pool.database.clone(),
                database: pool.server_database.clone(),
                pool_size: pool.pool_size,
                server_lifetime: view.server_lifetime,
                paused: paused.contains(pool.database.as_str()),
                ..DatabaseRow::default()
            });
        }
    }
    all
}

/// Users of the user list, then others that have pools, each once.
pub(super) fn all_users(view: &ConsoleView<'_>) -> Vec<UserRow> {
    let mut all = view.users.to_vec();
    let mut known: HashSet<&str> = view.users.iter().map(|user| user.name.as_str()).collect();
    for pool in &view.snapshot.pools {
        if known.insert(&pool.user) {
            all.push(UserRow { name: pool.user.clone(), limits: view.user_limits, ..UserRow::default() });
        }
    }
    all
}

fn row(database: &DatabaseRow, [servers, clients]: [u32; 2], view: &ConsoleView<'_>) -> [Cell; 17] {
    let (host, port) = place(database, view.topology);
    [
        Cell::from(&database.name),
        host,
        port,
        Cell::from(&database.database),
        Cell::from(database.force_user.as_ref()),
        Cell::from(database.pool_size),
        Cell::from(database.min_pool_size),
        Cell::from(database.reserve_pool_size),
        Cell::from(database.server_lifetime.map_or(0, |lifetime| lifetime.as_secs())),
        Cell::from(database.pool_mode.as_ref()),
        Cell::from(database.load_balance_hosts),
        Cell::from(database.max_connections),
        Cell::from(servers),
        Cell::from(database.max_client_connections),
        Cell::from(clients),
        Cell::flag(database.paused || (view.paused && !database.is_console)),
        Cell::flag(database.disabled),
    ]
}

/// Where writes to the database go now; NULL while nobody leads.
fn place(database: &DatabaseRow, topology: &Topology) -> (Cell, Cell) {
    match (&database.host, &topology.leader) {
        (None, _) if database.is_console => (Cell::NULL, Cell::from(database.port)),
        (Some(host), _) => (Cell::from(host), Cell::from(database.port.unwrap_or(POSTGRESQL_PORT))),
        (None, Leadership::Led { address, .. }) => (Cell::from(&address.host), Cell::from(address.port)),
        (None, Leadership::Leaderless { .. }) => {
            (Cell::NULL, Cell::from(database.port.unwrap_or(POSTGRESQL_PORT)))
        }
    }
}

pub(super) fn users(view: &ConsoleView<'_>) -> Vec<[Cell; 8]> {
    let servers = count(view.snapshot.servers.iter().map(|server| server.user.as_str()));
    let clients = count(view.snapshot.clients.iter().map(|client| client.user.as_str()));
    let row = |user: UserRow| {
        let now = |counts: &HashMap<&str, u32>| counts.get(user.name.as_str()).copied().unwrap_or(0);
        [
            Cell::from(&user.name),
            Cell::from(user.pool_size.map(|size| size.to_string())),
            Cell::from(user.reserve_pool_size.map(|size| size.to_string())),
            Cell::from(user.pool_mode),
            Cell::from(user.limits.max_connections),
            Cell::from(now(&servers)),
            Cell::from(user.limits.max_client_connections),
            Cell::from(now(&clients)),
        ]
    };
    all_users(view).into_iter().map(row).collect()
}

const POSTGRESQL_PORT: u16 = 5432;
