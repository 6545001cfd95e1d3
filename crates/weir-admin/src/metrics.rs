//! The `/metrics` page in Prometheus' text format, from the same snapshot that SHOW reads, so the two cannot disagree.
//! Knows no HTTP.
//!
//! The text is written here rather than by metrics-exporter-prometheus: weir's counters already exist as plain sums,
//! a counter of the `metrics` crate is a whole number (times would be cut to full seconds), and its recorder reads a
//! clock and keeps series of pools that are gone until told to forget them. A page is a function of its arguments.

use std::time::Duration;

use weir_discovery::{Api, Leadership, MemberView, Topology};

use crate::snapshot::{PoolRow, PoolStats, ProcessTotals, STATES, Snapshot};
use text::{Kind, Labels, Page, Value};

mod text;

/// The page's Content-Type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything the page is made of, gathered at one moment.
#[derive(Debug, Clone, Copy)]
pub struct MetricsView<'a> {
    /// The workers' state.
    pub snapshot: &'a Snapshot,
    /// Whom weir follows.
    pub topology: &'a Topology,
    /// Failovers since start.
    pub failovers: u64,
    /// SWITCHOVERs since start: those that another leader came of, and the others.
    pub switchovers: [u64; 2],
    /// Time since start.
    pub uptime: Duration,
    /// weir's version, such as `0.1.0`.
    pub version: &'a str,
    /// Files of TLS that are good until some day.
    pub expiring: &'a [Expiring],
}

/// A certificate, or a list of revoked ones, as far as it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// What it is for, such as `client TLS certificate`.
    pub what: &'static str,
    /// The file it stands in.
    pub file: String,
    /// Its end in seconds since 1970; of several in one file the first.
    pub end: u64,
}

/// The whole page.
pub fn render(view: &MetricsView<'_>) -> String {
    let mut page = Page::default();
    process(view, &mut page);
    cluster(view, &mut page);
    members(&view.topology.members, &mut page);
    pools_now(&view.snapshot.pools, &mut page);
    pools_since_start(&view.snapshot.pools, &mut page);
    page.into_text()
}

fn process(view: &MetricsView<'_>, page: &mut Page) {
    let ProcessTotals {
        login_clients,
        logins_accepted,
        logins_refused,
        logins_held_back,
        protocol_errors,
        cancels,
        max_client_conn,
    } = view.snapshot.totals;
    let build = [([("version", view.version)], Value::Count(1))];
    page.family(Kind::Gauge, "weir_build_info", "Always 1; the version is a label.", build);
    page.single(Kind::Gauge, "weir_uptime_seconds", "Time since start.", view.uptime.into());
    let clients = view.snapshot.clients.len().into();
    page.single(Kind::Gauge, "weir_clients", "Client connections, console clients included.", clients);
    page.single(Kind::Gauge, "weir_clients_logging_in", "Clients still logging in.", login_clients.into());
    page.single(
        Kind::Gauge,
        "weir_clients_max",
        "Client connections allowed at once.",
        max_client_conn.into(),
    );
    let logins = [
        ([("result", "accepted")], logins_accepted.into()),
        ([("result", "refused")], logins_refused.into()),
    ];
    page.family(Kind::Counter, "weir_logins_total", "Client logins by result.", logins);
    let help =
        "Failed logins whose answer was held back, because others from their network had failed before.";
    page.single(Kind::Counter, "weir_logins_held_back_total", help, logins_held_back.into());
    let help = "Clients closed for a protocol error.";
    page.single(Kind::Counter, "weir_protocol_errors_total", help, protocol_errors.into());
    page.single(Kind::Counter, "weir_cancel_requests_total", "Cancel requests received.", cancels.into());
    let ends =
        view.expiring.iter().map(|one| ([("what", one.what), ("file", one.file.as_str())], one.end.into()));
    let help = "When a certificate or a list of revoked ones ends, in seconds since 1970.";
    page.family(Kind::Gauge, "weir_tls_expiry_timestamp_seconds", help, ends);
}

fn cluster(view: &MetricsView<'_>, page: &mut Page) {
    let (known, degraded, epoch) = match &view.topology.leader {
        Leadership::Led { degraded, epoch_number, .. } => (true, degraded.is_some(), *epoch_number),
        Leadership::Leaderless { why: _ } => (false, false, 0),
    };
    let held = view.snapshot.pools.iter().filter(|pool| pool.held).count();
    page.single(
        Kind::Gauge,
        "weir_leader_known",
        "1 while there is a leader to send writes to.",
        known.into(),
    );
    let help = "1 while the leader is kept although something about it cannot be asked.";
    page.single(Kind::Gauge, "weir_leader_degraded", help, degraded.into());
    let help = "Number of the reign that is followed; grows with each new leader or timeline.";
    page.single(Kind::Gauge, "weir_leader_epoch", help, epoch.into());
    let help = "Grows with each change of leader, read targets or fallback.";
    page.single(Kind::Gauge, "weir_topology_generation", help, view.topology.generation.into());
    page.single(
        Kind::Counter,
        "weir_failovers_total",
        "Times the leader was given up.",
        view.failovers.into(),
    );
    let help = "SWITCHOVERs on the console that ended.";
    let samples = ["done", "failed"].into_iter().zip(view.switchovers);
    let samples = samples.map(|(outcome, count)| ([("outcome", outcome)], count.into()));
    page.family(Kind::Counter, "weir_switchovers_total", help, samples);
    page.single(Kind::Gauge, "weir_members", "Members known.", view.topology.members.len().into());
    let readers = view.topology.replicas.len().into();
    page.single(Kind::Gauge, "weir_read_targets", "Members that reads go to.", readers);
    page.single(
        Kind::Gauge,
        "weir_pools_held",
        "Pools that hold their clients for want of a target.",
        held.into(),
    );
}

fn members(members: &[MemberView], page: &mut Page) {
    let mut gauge = |name: &str, help: &str, value: fn(&MemberView) -> Option<Value>| {
        let sample = |member| Some((member_labels(member), value(member)?));
        page.family(Kind::Gauge, name, help, members.iter().filter_map(sample));
    };
    gauge("weir_member_leader", "1 for the member that writes go to.", |m| Some(m.is_leader.into()));
    let help = "1 if the member may serve reads.";
    gauge("weir_member_read_eligible", help, |m| Some(m.why_not_read.is_none().into()));
    let help = "1 if the member's REST API answered last time.";
    gauge("weir_member_api_up", help, |m| match m.api {
        Api::Unasked => None,
        Api::Ok => Some(true.into()),
        Api::Failing { .. } => Some(false.into()),
    });
    gauge("weir_member_timeline", "Timeline of the member.", |m| m.timeline.map(Value::from));
    let help = "Write-ahead log the member has yet to replay.";
    gauge("weir_member_lag_bytes", help, |m| m.lag.map(|lag| lag.bytes.into()));
    let help = "Age of the position that the lag was computed from.";
    gauge("weir_member_lag_age_seconds", help, |m| m.lag.map(|lag| lag.age.into()));
    let help = "Part of the reads that the member gets, compared to the others.";
    gauge("weir_member_read_weight", help, |m| m.read_weight.map(Value::from));
    let help = "Shortest of the last round trips to the member's PostgreSQL.";
    gauge("weir_member_round_trip_seconds", help, |m| m.round_trip.map(Value::from));
}

fn pools_now(pools: &[PoolRow], page: &mut Page) {
    let states = |pool: &'_ PoolRow| [("active", pool.cl_active), ("waiting", pool.cl_waiting)];
    let clients =
        pools.iter().flat_map(|pool| states(pool).map(|(state, n)| (state_labels(pool, state), n.into())));
    page.family(Kind::Gauge, "weir_pool_clients", "Clients by state.", clients);
    let states = |pool: &'_ PoolRow| {
        [
            ("active", pool.sv_active),
            ("idle", pool.sv_idle),
            ("login", pool.sv_login),
            ("tested", pool.sv_tested),
            ("being_canceled", pool.sv_being_canceled),
            ("active_cancel", pool.sv_active_cancel),
        ]
    };
    let servers =
        pools.iter().flat_map(|pool| states(pool).map(|(state, n)| (state_labels(pool, state), n.into())));
    page.family(Kind::Gauge, "weir_pool_servers", "Server connections by state.", servers);
    let mut gauge = |name: &str, help: &str, value: fn(&PoolRow) -> Value| {
        page.family(Kind::Gauge, name, help, pools.iter().map(|pool| (pool_labels(pool), value(pool))));
    };
    gauge("weir_pool_size", "Server connections allowed at once.", |pool| pool.pool_size.into());
    let help = "How long the client that has waited longest has waited.";
    gauge("weir_pool_max_wait_seconds", help, |pool| pool.max_wait.into());
    gauge("weir_pool_held", "1 while there is nobody to connect to.", |pool| pool.held.into());
    gauge("weir_pool_paused", "1 after PAUSE.", |pool| pool.paused.into());
}

fn pools_since_start(pools: &[PoolRow], page: &mut Page) {
    let rows: Vec<_> = pools.iter().map(|pool| (pool_labels(pool), counters(&pool.stats))).collect();
    for (index, (name, help, _)) in counters(&PoolStats::default()).into_iter().enumerate() {
        let column =
            rows.iter().filter_map(|(labels, row)| row.get(index).map(|&(_, _, value)| (*labels, value)));
        page.family(Kind::Counter, name, help, column);
    }
    let states = pools.iter().flat_map(|pool| {
        let counted = STATES.iter().zip(pool.stats.session_states);
        counted.map(|(kind, count)| (kind_labels(pool, kind), count.into()))
    });
    let help = "Statements that may have left state of this kind on a shared server connection.";
    page.family(Kind::Counter, "weir_session_state_total", help, states);
}

/// Every sum of a pool, with its name on the page.
fn counters(stats: &PoolStats) -> [(&'static str, &'static str, Value); 17] {
    let PoolStats {
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
        retries,
        in_doubt,
        transactions_lost,
        servers_opened,
        servers_closed,
        wait_timeouts,
        session_states: _,
    } = *stats;
    [
        ("weir_server_assignments_total", "Server connections given to clients.", server_assignments.into()),
        ("weir_transactions_total", "Transactions ended.", transactions.into()),
        ("weir_queries_total", "Queries ended.", queries.into()),
        ("weir_received_bytes_total", "Bytes from clients.", bytes_received.into()),
        ("weir_sent_bytes_total", "Bytes to clients.", bytes_sent.into()),
        ("weir_transaction_seconds_total", "Time in transactions.", Value::Micros(transaction_micros)),
        ("weir_query_seconds_total", "Time in queries.", Value::Micros(query_micros)),
        (
            "weir_wait_seconds_total",
            "Time clients waited for a server connection.",
            Value::Micros(wait_micros),
        ),
        ("weir_client_parses_total", "Parse messages from clients.", client_parses.into()),
        ("weir_server_parses_total", "Parse messages to servers.", server_parses.into()),
        ("weir_binds_total", "Bind messages.", binds.into()),
        ("weir_retries_total", "Requests sent again after a lost server connection.", retries.into()),
        ("weir_in_doubt_total", "Requests answered with 08007, outcome unknown.", in_doubt.into()),
        (
            "weir_transactions_lost_total",
            "Transactions ended by a lost server connection.",
            transactions_lost.into(),
        ),
        ("weir_servers_opened_total", "Server connections opened.", servers_opened.into()),
        ("weir_servers_closed_total", "Server connections closed.", servers_closed.into()),
        ("weir_wait_timeouts_total", "Clients that waited too long.", wait_timeouts.into()),
    ]
}

fn member_labels(member: &MemberView) -> Labels<'_, 1> {
    [("member", &member.name)]
}

fn pool_labels(pool: &PoolRow) -> Labels<'_, 3> {
    [("database", &pool.database), ("user", &pool.user), ("role", pool.role)]
}

fn kind_labels<'a>(pool: &'a PoolRow, kind: &'a str) -> Labels<'a, 4> {
    let [database, user, role] = pool_labels(pool);
    [database, user, role, ("kind", kind)]
}

fn state_labels<'a>(pool: &'a PoolRow, state: &'a str) -> Labels<'a, 4> {
    let [database, user, role] = pool_labels(pool);
    [database, user, role, ("state", state)]
}

#[cfg(test)]
mod tests;
