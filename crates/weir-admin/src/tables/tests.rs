//! Golden tables: what SHOW puts on the wire, read back by the protocol's own parsers. Columns and types are compared
//! with PgBouncer 1.25's lists.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use weir_discovery::{
    Address, Api, FailoverRecord, Lag, LagSource, Leadership, MemberView, Monitor, Note, Succession,
};
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::tag::FromServer;

use super::*;
use crate::snapshot::{Buffered, ClientRow, PoolRow, PoolStats, ServerRow};

mod pools;

/// Owns what a view borrows.
struct Scene {
    snapshot: Snapshot,
    topology: Topology,
    averages: Averages,
    databases: Vec<DatabaseRow>,
    users: Vec<UserRow>,
    peers: Vec<PeerRow>,
    failovers: Vec<FailoverRow>,
    config: Vec<ConfigRow>,
    paused: bool,
    now: Instant,
}

impl Scene {
    /// One leader and nothing else.
    #[expect(clippy::disallowed_methods, reason = "the clock has to start somewhere")]
    fn new() -> Self {
        let now = Instant::now() + Duration::from_secs(3600);
        let address = Address { host: "10.0.0.1".to_owned(), port: 5432 };
        Self {
            snapshot: Snapshot::default(),
            topology: Topology::plain(address),
            averages: Averages::new(now),
            databases: Vec::new(),
            users: Vec::new(),
            peers: Vec::new(),
            failovers: Vec::new(),
            config: Vec::new(),
            paused: false,
            now,
        }
    }

    #[track_caller]
    fn check(&self, table: Table, expected: &str) {
        let bytes = show(table, &self.view());
        assert_eq!(readable(&bytes).trim(), expected.trim());
    }

    fn view(&self) -> ConsoleView<'_> {
        ConsoleView {
            snapshot: &self.snapshot,
            topology: &self.topology,
            averages: &self.averages,
            config: &self.config,
            databases: &self.databases,
            server_lifetime: Some(Duration::from_secs(60)),
            users: &self.users,
            user_limits: UserLimits { max_connections: 8, max_client_connections: 9 },
            peers: &self.peers,
            failovers: &self.failovers,
            paused: self.paused,
            suspended: false,
            version: "0.1.0",
            now: self.now,
            wall: UNIX_EPOCH + Duration::from_secs(1_000_000_000),
        }
    }
}

/// One line per message; NULL is `~`.
fn readable(mut bytes: &[u8]) -> String {
    let mut lines = Vec::new();
    while let Some(header) = frame::peek(bytes, MESSAGE_BYTES_MAX).expect("a frame") {
        let (message, rest) = bytes.split_at(header.total);
        lines.push(line(header.tag, &message[HEADER_BYTES..]));
        bytes = rest;
    }
    assert_eq!(bytes, b"", "bytes behind the last message");
    lines.join("\n")
}

fn line(tag: u8, body: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    match FromServer::of(tag) {
        Some(FromServer::RowDescription) => {
            let columns = backend::read::row_description(body).expect("columns");
            let column =
                |c: &backend::read::ColumnFields<'_>| format!("{}:{}", text(c.name), letter(c.type_oid));
            columns.iter().map(column).collect::<Vec<_>>().join(" ")
        }
        Some(FromServer::DataRow) => {
            let values = backend::read::data_row(body).expect("a row");
            values.into_iter().map(|v| v.map_or("~".to_owned(), text)).collect::<Vec<_>>().join("|")
        }
        Some(FromServer::CommandComplete) => text(backend::read::command_tag(body).expect("a tag")),
        other => panic!("{other:?} in a table"),
    }
}

/// PgBouncer's letters for types.
fn letter(type_oid: u32) -> char {
    match type_oid {
        25 => 's',
        23 => 'i',
        20 => 'q',
        1700 => 'N',
        17 => 'b',
        other => panic!("type {other}"),
    }
}

fn pool(user: &str, role: &'static str) -> PoolRow {
    PoolRow {
        database: "mrg".to_owned(),
        user: user.to_owned(),
        role,
        pool_mode: "transaction",
        server_database: "mrg_main".to_owned(),
        pool_size: 20,
        ..PoolRow::default()
    }
}

fn client(id: u64) -> ClientRow {
    ClientRow {
        id,
        user: "app".to_owned(),
        database: "mrg".to_owned(),
        role: "write",
        state: "idle",
        peer: "10.1.0.9:40000".parse().ok(),
        local: "[::ffff:10.0.0.5]:6432".parse().ok(),
        unix_port: 0,
        remote_pid: 0,
        connected_for: Duration::from_secs(61),
        request_age: Duration::from_secs(1),
        wait: Duration::ZERO,
        link: None,
        tls: String::new(),
        application_name: "psql".to_owned(),
        prepared_statements: 0,
        replication: "none",
        slot: 0,
        buffered: Buffered::default(),
    }
}

fn server(id: u64) -> ServerRow {
    ServerRow {
        id,
        user: "app".to_owned(),
        database: "mrg".to_owned(),
        role: "read",
        state: "idle",
        host: "10.0.0.2".to_owned(),
        port: 5432,
        local: "10.0.0.5:50000".parse().ok(),
        connected_for: Duration::from_secs(60),
        request_age: Duration::from_secs(2),
        close_needed: false,
        link: None,
        remote_pid: 4711,
        tls: "TLSv1.3/TLS13_AES_256_GCM_SHA384".to_owned(),
        application_name: String::new(),
        prepared_statements: 3,
        replication: "none",
        slot: 0,
        buffered: Buffered::default(),
    }
}

#[test]
fn clients() {
    let mut scene = Scene::new();
    let busy = ClientRow { state: "active", link: Some(7), prepared_statements: 2, ..client(2) };
    let waiting = ClientRow { state: "waiting", wait: Duration::from_micros(1_500_000), ..client(3) };
    let local = ClientRow { peer: None, local: None, unix_port: 6432, remote_pid: 4711, ..client(1) };
    scene.snapshot.clients = vec![waiting, busy, local];
    scene.check(
        Table::Clients,
        "\
type:s user:s database:s replication:s state:s addr:s port:i local_addr:s local_port:i connect_time:s request_time:s \
wait:i wait_us:i close_needed:i ptr:s link:s remote_pid:i tls:s application_name:s prepared_statements:i id:i
C|app|mrg|none|idle|unix|6432|unix|6432|2001-09-09 01:45:39 UTC|2001-09-09 01:46:39 UTC|0|0|0|0x1||4711||psql|0|1
C|app|mrg|none|active|10.1.0.9|40000|10.0.0.5|6432|2001-09-09 01:45:39 UTC|2001-09-09 01:46:39 UTC|0|0|0|0x2|0x7|0||psql|2|2
C|app|mrg|none|waiting|10.1.0.9|40000|10.0.0.5|6432|2001-09-09 01:45:39 UTC|2001-09-09 01:46:39 UTC|1|500000|0|0x3||0||psql|0|3
SHOW",
    );
}

#[test]
fn servers() {
    let mut scene = Scene::new();
    let socket =
        ServerRow { host: "/run/postgresql".to_owned(), local: None, tls: String::new(), ..server(8) };
    let busy = ServerRow { state: "active", link: Some(2), close_needed: true, ..server(7) };
    scene.snapshot.servers = vec![socket, busy];
    scene.check(
        Table::Servers,
        "\
type:s user:s database:s replication:s state:s addr:s port:i local_addr:s local_port:i connect_time:s request_time:s \
wait:i wait_us:i close_needed:i ptr:s link:s remote_pid:i tls:s application_name:s prepared_statements:i id:i
S|app|mrg|none|active|10.0.0.2|5432|10.0.0.5|50000|2001-09-09 01:45:40 UTC|2001-09-09 01:46:38 UTC|0|0|1|0x7|0x2|4711|TLSv1.3/TLS13_AES_256_GCM_SHA384||3|7
S|app|mrg|none|idle|unix|5432|unix|5432|2001-09-09 01:45:40 UTC|2001-09-09 01:46:38 UTC|0|0|0|0x8||4711|||3|8
SHOW",
    );
}

#[test]
fn sockets_and_those_that_do_something() {
    let mut scene = Scene::new();
    let buffered = Buffered { incoming: 5, outgoing: 7 };
    scene.snapshot.clients = vec![client(1), ClientRow { buffered, ..client(2) }];
    scene.snapshot.servers = vec![server(8)];
    let rows =
        |table| readable(&show(table, &scene.view())).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let all = rows(Table::Sockets);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all[0].starts_with("S|app") && all[0].ends_with("|3|8|0|0|0|0|0|0|0"), "{all:?}");
    assert!(all[2].starts_with("C|app") && all[2].ends_with("|0|2|0|0|0|0|0|5|7"), "{all:?}");
    let active = rows(Table::ActiveSockets);
    assert_eq!(active, [all[2].clone(), "SHOW".to_owned()]);
}

const DATABASES: &str = "\
name:s host:s port:i database:s force_user:s pool_size:i min_pool_size:i reserve_pool_size:i server_lifetime:i \
pool_mode:s load_balance_hosts:s max_connections:i current_connections:i max_client_connections:i \
current_client_connections:i paused:i disabled:i";

#[test]
fn databases_configured_and_seen() {
    let mut scene = Scene::new();
    scene.databases = vec![DatabaseRow {
        name: "fixed".to_owned(),
        host: Some("db9".to_owned()),
        port: Some(5433),
        database: "real".to_owned(),
        force_user: Some("shared".to_owned()),
        pool_size: 5,
        min_pool_size: 1,
        reserve_pool_size: 2,
        load_balance_hosts: Some("round-robin"),
        max_connections: 6,
        max_client_connections: 7,
        server_lifetime: Some(Duration::from_secs(3600)),
        pool_mode: Some("session".to_owned()),
        paused: true,
        disabled: true,
        is_console: false,
    }];
    scene.snapshot.pools = vec![pool("app", "write"), pool("app", "read")];
    scene.snapshot.clients = vec![client(1), client(2)];
    scene.snapshot.servers = vec![server(1)];
    scene.check(
        Table::Databases,
        &format!(
            "{DATABASES}
fixed|db9|5433|real|shared|5|1|2|3600|session|round-robin|6|0|7|0|1|1
mrg|10.0.0.1|5432|mrg_main|~|20|0|0|60|~|~|0|1|0|2|0|0
SHOW"
        ),
    );
}

#[test]
fn a_database_is_paused_if_any_of_its_pools_is() {
    let mut scene = Scene::new();
    scene.snapshot.pools = vec![pool("app", "write"), PoolRow { paused: true, ..pool("app", "read") }];
    scene.check(
        Table::Databases,
        &format!("{DATABASES}\nmrg|10.0.0.1|5432|mrg_main|~|20|0|0|60|~|~|0|0|0|0|1|0\nSHOW"),
    );
}

#[test]
fn databases_without_a_leader_and_all_paused() {
    let mut scene = Scene::new();
    scene.topology.leader = Leadership::Leaderless { why: "nobody claims to lead".to_owned() };
    scene.paused = true;
    scene.snapshot.pools = vec![pool("app", "write")];
    scene.check(
        Table::Databases,
        &format!("{DATABASES}\nmrg|~|5432|mrg_main|~|20|0|0|60|~|~|0|0|0|0|1|0\nSHOW"),
    );
}

#[test]
fn users_listed_and_seen() {
    let mut scene = Scene::new();
    let app = UserRow {
        name: "app".to_owned(),
        pool_size: Some(3),
        pool_mode: Some("session"),
        ..UserRow::default()
    };
    scene.users = vec![app, UserRow { name: "idle".to_owned(), ..UserRow::default() }];
    scene.snapshot.pools = vec![pool("app", "write"), pool("zoe", "write")];
    scene.snapshot.clients = vec![client(1)];
    scene.check(
        Table::Users,
        "\
name:s pool_size:s reserve_pool_size:s pool_mode:s max_user_connections:i current_connections:i \
max_user_client_connections:i current_client_connections:i
app|3|~|session|0|0|0|1
idle|~|~|~|0|0|0|0
zoe|~|~|~|8|0|9|0
SHOW",
    );
}

/// Every sum a different number.
fn stats() -> PoolStats {
    PoolStats {
        server_assignments: 60,
        transactions: 120,
        queries: 180,
        bytes_received: 240,
        bytes_sent: 300,
        transaction_micros: 3600,
        query_micros: 1800,
        wait_micros: 480,
        client_parses: 540,
        server_parses: 600,
        binds: 660,
        ..PoolStats::default()
    }
}

/// Two pools of one database that did the same within one period.
fn busy_minute() -> Scene {
    let mut scene = Scene::new();
    scene.averages.close_period(scene.now, &[pool("app", "write"), pool("app", "read")]);
    let pools = ["write", "read"].map(|role| PoolRow { stats: stats(), ..pool("app", role) });
    scene.averages.close_period(scene.now + Duration::from_secs(60), &pools);
    scene.snapshot.pools = pools.into();
    scene
}

#[test]
fn sums_and_averages_per_database() {
    busy_minute().check(
        Table::Stats,
        "\
database:s total_server_assignment_count:N total_xact_count:N total_query_count:N total_received:N total_sent:N \
total_xact_time:N total_query_time:N total_wait_time:N total_client_parse_count:N total_server_parse_count:N \
total_bind_count:N avg_server_assignment_count:N avg_xact_count:N avg_query_count:N avg_recv:N avg_sent:N \
avg_xact_time:N avg_query_time:N avg_wait_time:N avg_client_parse_count:N avg_server_parse_count:N avg_bind_count:N
mrg|120|240|360|480|600|7200|3600|960|1080|1200|1320|2|4|6|8|10|30|10|16|18|20|22
SHOW",
    );
    busy_minute().check(
        Table::StatsTotals,
        "\
database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N bytes_sent:N xact_time:N \
query_time:N wait_time:N client_parse_count:N server_parse_count:N bind_count:N
mrg|120|240|360|480|600|7200|3600|960|1080|1200|1320
SHOW",
    );
    busy_minute().check(
        Table::StatsAverages,
        "\
database:s server_assignment_count:N xact_count:N query_count:N bytes_received:N bytes_sent:N xact_time:N \
query_time:N wait_time:N avg_client_parse_count:N avg_server_parse_count:N avg_bind_count:N
mrg|2|4|6|8|10|30|10|16|18|20|22
SHOW",
    );
}

#[test]
fn sums_and_averages_of_the_process() {
    busy_minute().check(
        Table::Totals,
        "\
name:s value:N
total_server_assignment_count|120
total_xact_count|240
total_query_count|360
total_client_bytes|480
total_server_bytes|600
total_xact_time|7200
total_query_time|3600
total_wait_time|960
total_ps_client_parse_count|1080
total_ps_server_parse_count|1200
total_ps_bind_count|1320
avg_server_assignment_count|2
avg_xact_count|4
avg_query_count|6
avg_client_bytes|8
avg_server_bytes|10
avg_xact_time|30
avg_query_time|10
avg_wait_time|16
avg_ps_client_parse_count|18
avg_ps_server_parse_count|20
avg_ps_bind_count|22
SHOW",
    );
}

#[test]
fn lists() {
    let mut scene = Scene::new();
    scene.snapshot.pools = vec![pool("app", "write"), pool("app", "read")];
    scene.snapshot.servers = ["active", "idle", "new"].map(|state| ServerRow { state, ..server(1) }).to_vec();
    scene.snapshot.clients = vec![client(1), client(2)];
    scene.snapshot.totals.login_clients = 4;
    scene.check(
        Table::Lists,
        "\
list:s items:i
databases|1
users|1
peers|0
pools|1
peer_pools|0
free_clients|0
used_clients|2
login_clients|4
free_servers|0
used_servers|3
dns_names|0
dns_zones|0
dns_queries|0
dns_pending|0
SHOW",
    );
}

#[test]
fn settings_version_and_state() {
    let mut scene = Scene::new();
    let row = |key: &str, changeable| ConfigRow {
        key: key.to_owned(),
        value: "20".to_owned(),
        default: "10".to_owned(),
        changeable,
    };
    scene.config = vec![row("pool.size", true), row("workers", false)];
    scene.paused = true;
    let config = "key:s value:s default:s changeable:s\npool.size|20|10|yes\nworkers|20|10|no\nSHOW";
    scene.check(Table::Config, config);
    scene.check(Table::Version, "version:s\nweir 0.1.0 (PgBouncer 1.25.2)\nSHOW");
    scene.check(Table::State, "key:s value:s\nactive|no\npaused|yes\nsuspended|no\nSHOW");
}

#[test]
fn short_tables() {
    let mut scene = Scene::new();
    let peer =
        |id, host: Option<&str>| PeerRow { id, host: host.map(str::to_owned), port: 6432, pool_size: 20 };
    scene.peers = vec![peer(1, None), peer(2, Some("10.0.0.8"))];
    let peers = "peer_id:i host:s port:i pool_size:i\n1|~|6432|20\n2|10.0.0.8|6432|20\nSHOW";
    scene.check(Table::Peers, peers);
    scene.check(
        Table::Fds,
        "fd:i task:s user:s database:s addr:s port:i cancel:q link:i client_encoding:s std_strings:s datestyle:s \
timezone:s password:s scram_client_key:b scram_server_key:b\nSHOW",
    );
    scene.check(Table::Mem, "name:s size:i used:i free:i memtotal:i\nSHOW");
    let pools =
        "peer_id:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active_cancel:i sv_login:i\nSHOW";
    scene.check(Table::PeerPools, pools);
    scene.snapshot.peers = vec![crate::snapshot::PeerPoolRow {
        peer_id: 3,
        cl_active_cancel_req: 4,
        cl_waiting_cancel_req: 5,
        sv_active_cancel: 3,
        sv_login: 1,
    }];
    scene.check(Table::PeerPools, &pools.replace("SHOW", "3|4|5|3|1\nSHOW"));
    scene.check(Table::DnsHosts, "hostname:s ttl:q addrs:s\nSHOW");
    scene.check(Table::DnsZones, "zonename:s serial:q count:i\nSHOW");
    scene.snapshot.dns_hosts = vec![crate::snapshot::DnsHostRow {
        name: "db.test".to_owned(),
        ttl: Duration::from_millis(14_900),
        addresses: vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])],
    }];
    scene.snapshot.dns_zones =
        vec![crate::snapshot::DnsZoneRow { name: "test".to_owned(), serial: 2_026_112_101, count: 1 }];
    scene.check(Table::DnsHosts, "hostname:s ttl:q addrs:s\ndb.test|14|10.0.0.1,fd00::1\nSHOW");
    scene.check(Table::DnsZones, "zonename:s serial:q count:i\ntest|2026112101|1\nSHOW");
}

#[test]
fn members() {
    let mut scene = Scene::new();
    let unknown = |name: &str| MemberView::unknown(name.to_owned(), String::new());
    let leader = MemberView {
        address: Some(Address { host: "10.0.0.1".to_owned(), port: 5432 }),
        role: "primary".to_owned(),
        state: "running".to_owned(),
        timeline: Some(3),
        api: Api::Ok,
        monitor: Monitor::Primary { timeline: Some(3), system_identifier: Some(1) },
        is_leader: true,
        why_not_read: Some("it leads".to_owned()),
        ..unknown("n1")
    };
    let replica = MemberView {
        address: Some(Address { host: "fd00::2".to_owned(), port: 5432 }),
        role: "replica".to_owned(),
        state: "streaming".to_owned(),
        timeline: Some(3),
        lag: Some(Lag { bytes: 4096, source: LagSource::Monitor, age: Duration::from_millis(250) }),
        round_trip: Some(Duration::from_micros(180)),
        read_weight: Some(100),
        restart: Some("pending".to_owned()),
        api: Api::Failing { since: scene.now - Duration::from_secs(7), why: "timeout".to_owned() },
        monitor: Monitor::Standby,
        ..unknown("n2")
    };
    let lost = MemberView {
        monitor: Monitor::Gone("connection refused".to_owned()),
        why_not_read: Some("no role".to_owned()),
        why_not_lead: Some("timeline 2 is older than 3".to_owned()),
        ..unknown("http://n3:8008")
    };
    scene.topology.members = vec![leader, replica, lost];
    scene.check(
        Table::Members,
        "\
member:s role:s state:s address:s timeline:q lag:q api:s monitor:s read_eligible:s why_not:s followed:s lag_source:s lag_age_ms:q round_trip_us:q weight:q restart:s
n1|primary|running|10.0.0.1:5432|3|~|ok|primary|no|it leads|yes|~|~|~|~|~
n2|replica|streaming|[fd00::2]:5432|3|4096|failing for 7 s: timeout|standby|yes||no|monitor|250|180|100|pending
http://n3:8008|||~|~|~|unasked|gone: connection refused|no|timeline 2 is older than 3; no role|no|~|~|~|~|~
SHOW",
    );
}

#[test]
fn failovers() {
    let mut scene = Scene::new();
    let done = FailoverRow {
        number: 1,
        lost_ago: Duration::from_secs(60),
        from: "n1".to_owned(),
        why: "PostgreSQL is gone".to_owned(),
        planned: Some("a switchover".to_owned()),
        to: Some(("n2".to_owned(), 4)),
        claimed_after: Some(Duration::from_millis(900)),
        followed_after: Some(Duration::from_millis(950)),
        steps: vec!["+0 ms lost".to_owned(), "+900 ms n2 claims".to_owned()],
    };
    let open =
        FailoverRow { number: 2, from: "n2".to_owned(), why: "demoted".to_owned(), ..FailoverRow::default() };
    scene.failovers = vec![done, open];
    scene.check(
        Table::Failovers,
        "\
number:q lost_time:s from:s to:s timeline:q claimed_ms:q followed_ms:q why:s planned:s steps:s
1|2001-09-09 01:45:40 UTC|n1|n2|4|900|950|PostgreSQL is gone|a switchover|+0 ms lost
+900 ms n2 claims
2|2001-09-09 01:46:40 UTC|n2|~|~|~|~|demoted|~|
SHOW",
    );
}

#[test]
fn a_failover_as_discovery_wrote_it_down() {
    let scene = Scene::new();
    let lost_at = scene.now - Duration::from_secs(10);
    let note = |at, text: &str| Note { at, warning: false, text: text.to_owned() };
    let record = FailoverRecord {
        number: 3,
        from: "n1".to_owned(),
        lost_at,
        why: "its key expired".to_owned(),
        planned: Some("by plan".to_owned()),
        claimed: Some(("n2".to_owned(), lost_at + Duration::from_millis(700))),
        followed: Some(Succession {
            member: "n2".to_owned(),
            timeline: 5,
            at: lost_at + Duration::from_millis(730),
        }),
        steps: vec![note(lost_at - Duration::from_millis(40), "reset"), note(lost_at, "lost")],
    };
    let expected = FailoverRow {
        number: 3,
        lost_ago: Duration::from_secs(10),
        from: "n1".to_owned(),
        why: "its key expired".to_owned(),
        planned: Some("by plan".to_owned()),
        to: Some(("n2".to_owned(), 5)),
        claimed_after: Some(Duration::from_millis(700)),
        followed_after: Some(Duration::from_millis(730)),
        steps: vec!["-40 ms reset".to_owned(), "+0 ms lost".to_owned()],
    };
    assert_eq!(FailoverRow::of(&record, scene.now), expected);
}
