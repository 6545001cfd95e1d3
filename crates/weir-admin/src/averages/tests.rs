//! Averages over periods of a clock that the test moves.

use super::*;

fn pool(database: &str, role: &'static str, stats: PoolStats) -> PoolRow {
    PoolRow { database: database.to_owned(), role, stats, ..PoolRow::default() }
}

#[expect(clippy::disallowed_methods, reason = "the clock has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn counts_are_per_second_and_times_per_event() {
    let now = start();
    let mut averages = Averages::new(now);
    let before = PoolStats { queries: 1000, query_micros: 1_000_000, ..PoolStats::default() };
    averages.close_period(now, &[pool("mrg", "write", before)]);
    let after = PoolStats {
        queries: 1600,
        query_micros: 1_300_000,
        transactions: 120,
        transaction_micros: 240_000,
        bytes_sent: 6_000_000,
        wait_micros: 90_000,
        ..PoolStats::default()
    };
    averages.close_period(now + Duration::from_secs(60), &[pool("mrg", "write", after)]);
    let expected = AverageRow {
        queries: 10,
        query_micros: 500,
        transactions: 2,
        transaction_micros: 2000,
        bytes_sent: 100_000,
        wait_micros: 1500,
        ..AverageRow::default()
    };
    assert_eq!(averages.of("mrg"), expected);
    assert_eq!(averages.process(), expected);
    assert_eq!(averages.of("other"), AverageRow::default());
}

#[test]
fn the_log_has_pgbouncer_s_line() {
    let now = start();
    let mut averages = Averages::new(now);
    let stats = PoolStats {
        transactions: 10,
        queries: 20,
        client_parses: 30,
        server_parses: 40,
        binds: 50,
        ..PoolStats::default()
    };
    let stats = PoolStats {
        bytes_received: 60,
        bytes_sent: 70,
        transaction_micros: 800,
        query_micros: 1800,
        wait_micros: 100,
        ..stats
    };
    averages.close_period(now + Duration::from_secs(10), &[pool("mrg", "write", stats)]);
    assert_eq!(
        averages.line(),
        "stats: 1 xacts/s, 2 queries/s, 3 client parses/s, 4 server parses/s, 5 binds/s, in 6 B/s, out 7 B/s, \
         xact 80 us, query 90 us, wait 10 us"
    );
}

#[test]
fn roles_and_users_of_a_database_are_summed() {
    let now = start();
    let mut averages = Averages::new(now);
    let with = |queries| PoolStats { queries, ..PoolStats::default() };
    let pools = [pool("a", "write", with(10)), pool("a", "read", with(20)), pool("b", "write", with(5))];
    averages.close_period(now + Duration::from_secs(5), &pools);
    let queries = |row: AverageRow| row.queries;
    assert_eq!(queries(averages.of("a")), 6);
    assert_eq!(queries(averages.of("b")), 1);
    assert_eq!(queries(averages.process()), 7);
}

#[test]
fn a_pool_that_went_away_does_not_make_nonsense() {
    let now = start();
    let mut averages = Averages::new(now);
    let many = PoolStats { queries: 100, ..PoolStats::default() };
    averages.close_period(now + Duration::from_secs(1), &[pool("a", "write", many), pool("a", "read", many)]);
    averages.close_period(now + Duration::from_secs(2), &[pool("a", "write", many)]);
    assert_eq!(averages.of("a"), AverageRow::default());
}

#[test]
fn a_period_without_length_has_no_averages_per_second() {
    let now = start();
    let mut averages = Averages::new(now);
    let stats = PoolStats { queries: 4, query_micros: 8, ..PoolStats::default() };
    averages.close_period(now, &[pool("a", "write", stats)]);
    assert_eq!(averages.of("a"), AverageRow { query_micros: 2, ..AverageRow::default() });
}
