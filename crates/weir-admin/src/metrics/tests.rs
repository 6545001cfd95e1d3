//! The metrics page: one whole page as it must be, and a reader for the text format that checks any page.

use std::collections::BTreeSet;

use weir_discovery::{Address, Lag, LagSource};

use super::*;

fn pool(database: &str, role: &'static str) -> PoolRow {
    PoolRow {
        database: database.to_owned(),
        user: "app".to_owned(),
        role,
        pool_size: 20,
        ..PoolRow::default()
    }
}

fn page(snapshot: &Snapshot, topology: &Topology) -> String {
    let uptime = Duration::from_millis(61_500);
    let expiring =
        [Expiring { what: "client TLS key", file: "/etc/weir/a \"b\".pem".to_owned(), end: 1_900_000_000 }];
    let expiring = &expiring;
    render(&MetricsView {
        snapshot,
        topology,
        failovers: 2,
        switchovers: [1, 0],
        uptime,
        version: "0.1.0",
        expiring,
    })
}

fn plain() -> Topology {
    Topology::plain(Address { host: "10.0.0.1".to_owned(), port: 5432 })
}

#[track_caller]
fn check(page: &str, line: &str) {
    assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
}

#[test]
fn figures_reach_the_page() {
    let stats = PoolStats { queries: 7, query_micros: 1_500_001, bytes_sent: 4096, ..PoolStats::default() };
    let write = PoolRow {
        cl_waiting: 3,
        sv_idle: 2,
        max_wait: Duration::from_micros(20),
        stats,
        ..pool("mrg", "write")
    };
    let read = PoolRow { held: true, ..pool("mrg", "read") };
    let totals = ProcessTotals { logins_refused: 5, ..ProcessTotals::default() };
    let page = page(&Snapshot { pools: vec![write, read], totals, ..Snapshot::default() }, &plain());
    for line in [
        "weir_build_info{version=\"0.1.0\"} 1",
        "weir_uptime_seconds 61.500000",
        "weir_tls_expiry_timestamp_seconds{what=\"client TLS key\",file=\"/etc/weir/a \\\"b\\\".pem\"} 1900000000",
        "weir_logins_total{result=\"refused\"} 5",
        "weir_leader_known 1",
        "weir_pools_held 1",
        "weir_failovers_total 2",
        "weir_members 1",
        "weir_member_leader{member=\"10.0.0.1:5432\"} 1",
        "weir_pool_clients{database=\"mrg\",user=\"app\",role=\"write\",state=\"waiting\"} 3",
        "weir_pool_servers{database=\"mrg\",user=\"app\",role=\"write\",state=\"idle\"} 2",
        "weir_pool_max_wait_seconds{database=\"mrg\",user=\"app\",role=\"write\"} 0.000020",
        "weir_pool_held{database=\"mrg\",user=\"app\",role=\"read\"} 1",
        "weir_queries_total{database=\"mrg\",user=\"app\",role=\"write\"} 7",
        "weir_query_seconds_total{database=\"mrg\",user=\"app\",role=\"write\"} 1.500001",
        "weir_sent_bytes_total{database=\"mrg\",user=\"app\",role=\"read\"} 0",
    ] {
        check(&page, line);
    }
    read_page(&page);
}

#[test]
fn without_a_leader_and_without_pools() {
    let leader = Leadership::Leaderless { why: "nobody claims to lead".to_owned() };
    let page = page(&Snapshot::default(), &Topology { leader, members: Vec::new(), ..plain() });
    check(&page, "weir_leader_known 0");
    check(&page, "weir_members 0");
    assert!(!page.contains("weir_pool_clients"));
    read_page(&page);
}

#[test]
fn members_in_every_condition() {
    let unknown = |name: &str| MemberView::unknown(name.to_owned(), String::new());
    let replica = MemberView {
        api: Api::Ok,
        timeline: Some(3),
        lag: Some(Lag { bytes: 512, source: LagSource::Monitor, age: Duration::from_millis(250) }),
        round_trip: Some(Duration::from_micros(180)),
        read_weight: Some(100),
        ..unknown("n2")
    };
    let seed = MemberView { why_not_read: Some("no role".to_owned()), ..unknown("n3") };
    let page = page(&Snapshot::default(), &Topology { members: vec![replica, seed], ..plain() });
    check(&page, "weir_member_api_up{member=\"n2\"} 1");
    check(&page, "weir_member_lag_bytes{member=\"n2\"} 512");
    check(&page, "weir_member_lag_age_seconds{member=\"n2\"} 0.250000");
    check(&page, "weir_member_read_weight{member=\"n2\"} 100");
    check(&page, "weir_member_round_trip_seconds{member=\"n2\"} 0.000180");
    check(&page, "weir_member_timeline{member=\"n2\"} 3");
    check(&page, "weir_member_read_eligible{member=\"n3\"} 0");
    assert!(!page.contains("weir_member_api_up{member=\"n3\"}"));
    read_page(&page);
}

#[test]
fn names_that_clients_choose_cannot_break_the_page() {
    let pools = vec![pool("a\"b\\c\nd ü{},=", "write")];
    let page = page(&Snapshot { pools, ..Snapshot::default() }, &plain());
    check(&page, "weir_pool_size{database=\"a\\\"b\\\\c\\nd ü{},=\",user=\"app\",role=\"write\"} 20");
    read_page(&page);
}

/// Reads a page as the format's description has it: HELP and TYPE once per family and before its samples, lines of a
/// family together, no sample twice, counters end in `_total`, names and labels well formed.
fn read_page(page: &str) {
    assert!(page.ends_with('\n'));
    let mut families = BTreeSet::new();
    let mut samples = BTreeSet::new();
    let mut family = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').expect("a description").0;
            assert!(families.insert(family), "{family} twice");
            let kind =
                lines.next().and_then(|line| line.strip_prefix("# TYPE ")).expect("a TYPE behind the HELP");
            let (name, kind) = kind.split_once(' ').expect("a kind");
            assert_eq!(name, family);
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            assert!(family.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{family}");
            assert!(family.starts_with("weir_"));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert_eq!(name, family, "a sample away from its family");
        assert!(labels.ends_with('}'));
        assert!(value.parse::<f64>().is_ok(), "{value}");
        assert!(samples.insert(series), "{series} twice");
    }
}
