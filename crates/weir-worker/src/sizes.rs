//! What the configuration says of one pool: its limits, its clocks and its mode. A user's settings come before the
//! database's, those before the general ones. Functions of the configuration; knows no state.

use std::num::NonZeroU32;
use std::time::Duration;

use weir_config::{Config, PoolMode, ReadPolicy, Upstream};
use weir_pool::{Balance, Limits};
use weir_session::Mode;

use crate::places;
use crate::pools::{PoolKey, Purpose};

/// Limits of a pool.
pub(crate) fn limits(config: &Config, key: &PoolKey) -> Limits {
    let (database, user) = (config.database(&key.database), config.users.get(&key.user));
    let pool = &config.pool;
    let size = user.and_then(|user| user.pool_size).or(database.and_then(|database| database.pool_size));
    let reserve = user
        .and_then(|user| user.reserve_pool_size)
        .or(database.and_then(|database| database.reserve_pool_size));
    // `upstream.url` has no counterpart in PgBouncer: its clients wait through a restart of PostgreSQL.
    let fails_fast = places::has_hosts(config, &key.database);
    let limits = Limits {
        size: size.unwrap_or(pool.size),
        reserve: reserve.unwrap_or(pool.reserve_size),
        reserve_timeout: pool.reserve_timeout,
        min_size: database.and_then(|database| database.min_pool_size).unwrap_or(pool.min_size),
        round_robin: pool.round_robin,
        balance: balance(config, key),
        login_retry: fails_fast.then_some(pool.server_login_retry),
        idle_timeout: pool.server_idle_timeout,
        lifetime: database.and_then(|database| database.server_lifetime).or(pool.server_lifetime),
        test_after: pool.server_check_query.as_ref().map(|_| pool.server_check_delay),
        waiting_max: clients_max(config),
        dials_at_once: DIALS_AT_ONCE,
    };
    match key.purpose {
        Purpose::Clients => limits,
        Purpose::Lookups => Limits { size: LOOKUPS_AT_ONCE, reserve: 0, min_size: 0, ..limits },
    }
}

/// How a pool chooses among replicas. The weights that come with it are discovery's.
fn balance(config: &Config, key: &PoolKey) -> Balance {
    match &config.upstream {
        Upstream::Patroni(patroni) if !places::has_hosts(config, &key.database) => {
            match patroni.read_policy {
                ReadPolicy::LeastConnections | ReadPolicy::Nearest => Balance::FewerBusy,
                ReadPolicy::RoundRobin | ReadPolicy::Weighted => Balance::InTurn,
            }
        }
        Upstream::Patroni(_) | Upstream::Plain { .. } | Upstream::None => Balance::FewerBusy,
    }
}

/// Pool mode of a user's clients in a database.
pub(crate) fn mode(config: &Config, database: &str, user: &str) -> Mode {
    let of_user = config.users.get(user).and_then(|user| user.pool_mode);
    let of_database = || config.database(database).and_then(|database| database.pool_mode);
    match of_user.or_else(of_database).unwrap_or(config.pool.mode) {
        PoolMode::Session => Mode::Session,
        PoolMode::Transaction => Mode::Transaction,
        PoolMode::Statement => Mode::Statement,
    }
}

/// How long a user's client in a database may wait for a server connection while somebody could be dialed.
pub(crate) fn query_wait_timeout(config: &Config, database: &str, user: &str) -> Option<Duration> {
    let of_user = config.users.get(user).and_then(|user| user.query_wait_timeout);
    let of_database = || config.database(database).and_then(|database| database.query_wait_timeout);
    of_user.or_else(of_database).unwrap_or(config.pool.query_wait_timeout)
}

/// Clients at once.
pub(crate) fn clients_max(config: &Config) -> u32 {
    unlimited_if_zero(config.limits.max_client_conn)
}

/// Clients of a database at once.
pub(crate) fn database_clients_max(config: &Config, database: &str) -> u32 {
    let own = config.database(database).and_then(|database| database.max_db_client_connections);
    unlimited_if_zero(own.unwrap_or(config.limits.max_db_client_connections))
}

/// Clients of a user at once.
pub(crate) fn user_clients_max(config: &Config, user: &str) -> u32 {
    let own = config.users.get(user).and_then(|user| user.max_user_client_connections);
    unlimited_if_zero(own.unwrap_or(config.limits.max_user_client_connections))
}

fn unlimited_if_zero(max: u32) -> u32 {
    if max == 0 { u32::MAX } else { max }
}

/// Server connections of a pool that looks users up. A question takes a fraction of a millisecond; several, so that one that
/// has to wait for something holds up no other.
const LOOKUPS_AT_ONCE: NonZeroU32 = NonZeroU32::new(4).expect("four is not zero");

/// Server logins of one pool under way at once, so that a new leader is not crushed by a full pool at the same moment.
const DIALS_AT_ONCE: u32 = 8;
