//! SHOW STATS and its relatives. PgBouncer counts per database; write and read pools of a database are summed.

use weir_protocol::backend::Column;

use super::ConsoleView;
use super::cell::Cell;
use crate::averages::{AverageRow, by_database};
use crate::snapshot::PoolStats;

pub(super) const COLUMNS: [Column<'static>; 23] = [
    Column::text("database"),
    Column::numeric("total_server_assignment_count"),
    Column::numeric("total_xact_count"),
    Column::numeric("total_query_count"),
    Column::numeric("total_received"),
    Column::numeric("total_sent"),
    Column::numeric("total_xact_time"),
    Column::numeric("total_query_time"),
    Column::numeric("total_wait_time"),
    Column::numeric("total_client_parse_count"),
    Column::numeric("total_server_parse_count"),
    Column::numeric("total_bind_count"),
    Column::numeric("avg_server_assignment_count"),
    Column::numeric("avg_xact_count"),
    Column::numeric("avg_query_count"),
    Column::numeric("avg_recv"),
    Column::numeric("avg_sent"),
    Column::numeric("avg_xact_time"),
    Column::numeric("avg_query_time"),
    Column::numeric("avg_wait_time"),
    Column::numeric("avg_client_parse_count"),
    Column::numeric("avg_server_parse_count"),
    Column::numeric("avg_bind_count"),
];

pub(super) const COLUMNS_TOTALS: [Column<'static>; 12] = [
    Column::text("database"),
    Column::numeric("server_assignment_count"),
    Column::numeric("xact_count"),
    Column::numeric("query_count"),
    Column::numeric("bytes_received"),
    Column::numeric("bytes_sent"),
    Column::numeric("xact_time"),
    Column::numeric("query_time"),
    Column::numeric("wait_time"),
    Column::numeric("client_parse_count"),
    Column::numeric("server_parse_count"),
    Column::numeric("bind_count"),
];

/// Like the totals, but for the names of the last three: that is how PgBouncer has it.
pub(super) const COLUMNS_AVERAGES: [Column<'static>; 12] = [
    Column::text("database"),
    Column::numeric("server_assignment_count"),
    Column::numeric("xact_count"),
    Column::numeric("query_count"),
    Column::numeric("bytes_received"),
    Column::numeric("bytes_sent"),
    Column::numeric("xact_time"),
    Column::numeric("query_time"),
    Column::numeric("wait_time"),
    Column::numeric("avg_client_parse_count"),
    Column::numeric("avg_server_parse_count"),
    Column::numeric("avg_bind_count"),
];

pub(super) const COLUMNS_PROCESS: [Column<'static>; 2] = [Column::text("name"), Column::numeric("value")];

pub(super) fn rows(view: &ConsoleView<'_>) -> Vec<[Cell; 23]> {
    per_database(view, |database, sum| {
        let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10] = sums(sum).map(Cell::from);
        let [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10] =
            means(&view.averages.of(database)).map(Cell::from);
        let name = Cell::from(database);
        [
            name, t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, //
            a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10,
        ]
    })
}

pub(super) fn totals(view: &ConsoleView<'_>) -> Vec<[Cell; 12]> {
    per_database(view, |database, sum| named(database, sums(sum)))
}

pub(super) fn averages(view: &ConsoleView<'_>) -> Vec<[Cell; 12]> {
    per_database(view, |database, _| named(database, means(&view.averages.of(database))))
}

pub(super) fn process(view: &ConsoleView<'_>) -> Vec<[Cell; 2]> {
    let mut whole = PoolStats::default();
    for pool in &view.snapshot.pools {
        whole += pool.stats;
    }
    let rows = |prefix: &'static str, values: [u64; 11]| {
        let name = move |name: &str| Cell::from(format!("{prefix}_{name}"));
        PROCESS_NAMES.into_iter().zip(values).map(move |(row, value)| [name(row), Cell::from(value)])
    };
    rows("total", sums(&whole)).chain(rows("avg", means(&view.averages.process()))).collect()
}

fn per_database<const N: usize>(
    view: &ConsoleView<'_>,
    row: impl Fn(&str, &PoolStats) -> [Cell; N],
) -> Vec<[Cell; N]> {
    by_database(&view.snapshot.pools).iter().map(|(database, sum)| row(database, sum)).collect()
}

fn named(database: &str, values: [u64; 11]) -> [Cell; 12] {
    let [v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10] = values.map(Cell::from);
    [Cell::from(database), v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10]
}

/// In the order that all these tables share.
fn sums(stats: &PoolStats) -> [u64; 11] {
    [
        stats.server_assignments,
        stats.transactions,
        stats.queries,
        stats.bytes_received,
        stats.bytes_sent,
        stats.transaction_micros,
        stats.query_micros,
        stats.wait_micros,
        stats.client_parses,
        stats.server_parses,
        stats.binds,
    ]
}

fn means(average: &AverageRow) -> [u64; 11] {
    let AverageRow {
        server_assignments,
        transactions,
        queries,
        bytes_received,
        bytes_sent,
        transaction_micros,
        query_micros,
        wait_micros,
        client_parses,
        server_parses,
        binds,
    } = *average;
    [
        server_assignments,
        transactions,
        queries,
        bytes_received,
        bytes_sent,
        transaction_micros,
        query_micros,
        wait_micros,
        client_parses,
        server_parses,
        binds,
    ]
}

/// SHOW TOTALS has its own names for the same values.
const PROCESS_NAMES: [&str; 11] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
];
