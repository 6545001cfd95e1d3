//! SHOW POOLS and SHOW POOLS_BY_ROLE. PgBouncer has one pool per database and user, and programs that read its table
//! label their series by these two: so SHOW POOLS sums the write and the read pool, and the other table, which is weir's
//! own, keeps them apart and tells what holds them up.

use weir_protocol::backend::Column;

use super::ConsoleView;
use super::cell::Cell;
use crate::snapshot::PoolRow;

/// PgBouncer's columns, which both tables share, and behind them `$own`, for weir's own table.
macro_rules! columns {
    ($($own:expr),*) => {
        [
            Column::text("database"),
            Column::text("user"),
            Column::int4("cl_active"),
            Column::int4("cl_waiting"),
            Column::int4("cl_active_cancel_req"),
            Column::int4("cl_waiting_cancel_req"),
            Column::int4("sv_active"),
            Column::int4("sv_active_cancel"),
            Column::int4("sv_being_canceled"),
            Column::int4("sv_idle"),
            Column::int4("sv_used"),
            Column::int4("sv_tested"),
            Column::int4("sv_login"),
            Column::int4("maxwait"),
            Column::int4("maxwait_us"),
            Column::text("pool_mode"),
            Column::text("load_balance_hosts"),
            $($own),*
        ]
    };
}

/// The values of [`columns!`].
macro_rules! cells {
    ($pool:ident, $view:ident $(, $own:expr)*) => {
        [
            Cell::from(&$pool.database),
            Cell::from(&$pool.user),
            Cell::from($pool.cl_active),
            Cell::from($pool.cl_waiting),
            Cell::from($pool.cl_active_cancel_req),
            Cell::from($pool.cl_waiting_cancel_req),
            Cell::from($pool.sv_active),
            Cell::from($pool.sv_active_cancel),
            Cell::from($pool.sv_being_canceled),
            Cell::from($pool.sv_idle),
            Cell::from(0_u32), // no state between released and tested
            Cell::from($pool.sv_tested),
            Cell::from($pool.sv_login),
            Cell::from($pool.max_wait.as_secs()),
            Cell::from($pool.max_wait.subsec_micros()),
            Cell::from($pool.pool_mode),
            Cell::from(load_balance_hosts($pool, $view)),
            $($own),*
        ]
    };
}

pub(super) const COLUMNS: [Column<'static>; 17] = columns![];
pub(super) const COLUMNS_BY_ROLE: [Column<'static>; 20] =
    columns![Column::text("role"), Column::text("held"), Column::text("paused")];

pub(super) fn rows(view: &ConsoleView<'_>) -> Vec<[Cell; 17]> {
    let row = |pool: &PoolRow| cells!(pool, view);
    summed(&view.snapshot.pools).iter().map(row).collect()
}

pub(super) fn by_role(view: &ConsoleView<'_>) -> Vec<[Cell; 20]> {
    let row = |pool: &PoolRow| {
        cells!(pool, view, Cell::from(pool.role), Cell::yes_no(pool.held), Cell::yes_no(pool.paused))
    };
    sorted(&view.snapshot.pools).into_iter().map(row).collect()
}

/// One row per database and user, in this order. Its role means nothing.
pub(super) fn summed(pools: &[PoolRow]) -> Vec<PoolRow> {
    let mut rows: Vec<PoolRow> = Vec::new();
    for pool in sorted(pools) {
        match rows.last_mut() {
            Some(sum) if (&sum.database, &sum.user) == (&pool.database, &pool.user) => sum.absorb(pool),
            Some(_) | None => rows.push(pool.clone()),
        }
    }
    rows
}

/// By database and user, write pools first.
fn sorted(pools: &[PoolRow]) -> Vec<&PoolRow> {
    let mut sorted: Vec<&PoolRow> = pools.iter().collect();
    sorted.sort_by_key(|pool| (&pool.database, &pool.user, pool.role != WRITE));
    sorted
}

/// As SHOW DATABASES has it.
fn load_balance_hosts(pool: &PoolRow, view: &ConsoleView<'_>) -> Option<&'static str> {
    view.databases.iter().find(|database| database.name == pool.database)?.load_balance_hosts
}

/// The role of pools that follow the leader.
const WRITE: &str = "write";
