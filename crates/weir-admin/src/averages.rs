//! Averages over the last whole statistics period, as SHOW STATS prints them. Fed with sums by a caller who keeps the
//! clock; owns the differences and refuses to know when a period ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::snapshot::{PoolRow, PoolStats};

/// Averages of one database, or of the process. Counts and bytes are per second, times are microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AverageRow {
    /// Server connections given to clients, per second.
    pub server_assignments: u64,
    /// Transactions per second.
    pub transactions: u64,
    /// Queries per second.
    pub queries: u64,
    /// Bytes from clients per second.
    pub bytes_received: u64,
    /// Bytes to clients per second.
    pub bytes_sent: u64,
    /// Length of a transaction in microseconds.
    pub transaction_micros: u64,
    /// Length of a query in microseconds.
    pub query_micros: u64,
    /// Microseconds that clients waited, per second.
    pub wait_micros: u64,
    /// Parse messages from clients, per second.
    pub client_parses: u64,
    /// Parse messages to servers, per second.
    pub server_parses: u64,
    /// Bind messages per second.
    pub binds: u64,
}

/// The averages of the last period, and the sums that the present one began with.
#[derive(Debug, Clone)]
pub struct Averages {
    began: Instant,
    sums: BTreeMap<String, PoolStats>,
    databases: BTreeMap<String, AverageRow>,
    process: AverageRow,
}

impl Averages {
    /// All averages are zero until the first period ends.
    pub fn new(now: Instant) -> Self {
        Self { began: now, sums: BTreeMap::new(), databases: BTreeMap::new(), process: AverageRow::default() }
    }

    /// A period ends now (PgBouncer's `stats_period`: every 60 s). `pools` carry sums since start.
    pub fn close_period(&mut self, now: Instant, pools: &[PoolRow]) {
        let length = now.saturating_duration_since(self.began);
        let sums = by_database(pools);
        let mut whole = PoolStats::default();
        self.databases = sums
            .iter()
            .map(|(database, sum)| {
                let before = self.sums.get(database).copied().unwrap_or_default();
                let grown = sum.since(&before);
                whole += grown;
                (database.clone(), AverageRow::over(&grown, length))
            })
            .collect();
        self.process = AverageRow::over(&whole, length);
        self.sums = sums;
        self.began = now;
    }

    /// Averages of one database; zero for one that had no pool when the period ended.
    pub fn of(&self, database: &str) -> AverageRow {
        self.databases.get(database).copied().unwrap_or_default()
    }

    /// The last period for the log, as PgBouncer writes it.
    pub fn line(&self) -> String {
        let all = &self.process;
        format!(
            "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, in {} B/s, out {} B/s, \
             xact {} us, query {} us, wait {} us",
            all.transactions,
            all.queries,
            all.client_parses,
            all.server_parses,
            all.binds,
            all.bytes_received,
            all.bytes_sent,
            all.transaction_micros,
            all.query_micros,
            all.wait_micros
        )
    }

    /// Averages over all databases.
    pub fn process(&self) -> AverageRow {
        self.process
    }
}

impl AverageRow {
    fn over(grown: &PoolStats, length: Duration) -> Self {
        let per_second = |count: u64| per(u128::from(count) * MICROS_PER_SECOND, length.as_micros());
        Self {
            server_assignments: per_second(grown.server_assignments),
            transactions: per_second(grown.transactions),
            queries: per_second(grown.queries),
            bytes_received: per_second(grown.bytes_received),
            bytes_sent: per_second(grown.bytes_sent),
            transaction_micros: per(grown.transaction_micros.into(), grown.transactions.into()),
            query_micros: per(grown.query_micros.into(), grown.queries.into()),
            wait_micros: per_second(grown.wait_micros),
            client_parses: per_second(grown.client_parses),
            server_parses: per_second(grown.server_parses),
            binds: per_second(grown.binds),
        }
    }
}

/// Sums of all pools of each database, whatever user and role.
pub(crate) fn by_database(pools: &[PoolRow]) -> BTreeMap<String, PoolStats> {
    let mut sums: BTreeMap<String, PoolStats> = BTreeMap::new();
    for pool in pools {
        match sums.get_mut(&pool.database) {
            Some(sum) => *sum += pool.stats,
            None => drop(sums.insert(pool.database.clone(), pool.stats)),
        }
    }
    sums
}

/// Rounded down; zero when there is nothing to divide by.
fn per(sum: u128, count: u128) -> u64 {
    u64::try_from(sum.checked_div(count).unwrap_or(0)).unwrap_or(u64::MAX)
}

const MICROS_PER_SECOND: u128 = 1_000_000;

#[cfg(test)]
mod tests;
