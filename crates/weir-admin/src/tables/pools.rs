//! SHOW POOLS.

use weir_protocol::backend::Column;

use super::ConsoleView;
use super::cell::Cell;
use crate::snapshot::PoolRow;

pub(super) const COLUMNS: [Column<'static>; 20] = [
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
    // weir's own.
    Column::text("role"),
    Column::text("held"),
    Column::text("paused"),
];

pub(super) fn rows(view: &ConsoleView<'_>) -> Vec<[Cell; 20]> {
    let mut pools: Vec<&PoolRow> = view.snapshot.pools.iter().collect();
    pools.sort_by_key(|pool| (&pool.database, &pool.user, pool.role != WRITE));
    pools.into_iter().map(row).collect()
}

fn row(pool: &PoolRow) -> [Cell; 20] {
    [
        Cell::from(&pool.database),
        Cell::from(&pool.user),
        Cell::from(pool.cl_active),
        Cell::from(pool.cl_waiting),
        Cell::from(pool.cl_active_cancel_req),
        Cell::from(0_u32), // a cancel request waits for nothing here
        Cell::from(pool.sv_active),
        Cell::from(pool.sv_active_cancel),
        Cell::from(pool.sv_being_canceled),
        Cell::from(pool.sv_idle),
        Cell::from(0_u32), // no state between released and tested
        Cell::from(0_u32),
        Cell::from(pool.sv_login),
        Cell::from(pool.max_wait.as_secs()),
        Cell::from(pool.max_wait.subsec_micros()),
        Cell::from(pool.pool_mode),
        Cell::NULL,
        Cell::from(pool.role),
        Cell::yes_no(pool.held),
        Cell::yes_no(pool.paused),
    ]
}

/// The role of pools that follow the leader; they come first.
const WRITE: &str = "write";
