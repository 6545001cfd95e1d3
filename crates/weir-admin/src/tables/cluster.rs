//! SHOW MEMBERS and SHOW FAILOVERS, weir's own tables.

use std::time::{Duration, Instant};

use weir_discovery::{Api, FailoverRecord, LagSource, MemberView, Monitor, Note};
use weir_protocol::backend::Column;

use super::cell::Cell;
use super::{ConsoleView, clock};

pub(super) const COLUMNS_MEMBERS: [Column<'static>; 16] = [
    Column::text("member"),
    Column::text("role"),
    Column::text("state"),
    Column::text("address"),
    Column::int8("timeline"),
    Column::int8("lag"),
    Column::text("api"),
    Column::text("monitor"),
    Column::text("read_eligible"),
    Column::text("why_not"),
    Column::text("followed"),
    Column::text("lag_source"),
    Column::int8("lag_age_ms"),
    Column::int8("round_trip_us"),
    Column::int8("weight"),
    Column::text("restart"),
];

pub(super) const COLUMNS_FAILOVERS: [Column<'static>; 10] = [
    Column::int8("number"),
    Column::text("lost_time"),
    Column::text("from"),
    Column::text("to"),
    Column::int8("timeline"),
    Column::int8("claimed_ms"),
    Column::int8("followed_ms"),
    Column::text("why"),
    Column::text("planned"),
    Column::text("steps"),
];

/// One failover, for SHOW FAILOVERS. Times count from the moment the old leader was given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailoverRow {
    /// 1 for the first since start.
    pub number: u64,
    /// How long ago the old leader was given up.
    pub lost_ago: Duration,
    /// The old leader.
    pub from: String,
    /// Why it was given up.
    pub why: String,
    /// What weir had prepared for, if it had.
    pub planned: Option<String>,
    /// Who is followed instead, on which timeline; `None` while writes wait.
    pub to: Option<(String, u32)>,
    /// When somebody first claimed to lead.
    pub claimed_after: Option<Duration>,
    /// When writes were let go.
    pub followed_after: Option<Duration>,
    /// What was seen on the way, oldest first, one line each.
    pub steps: Vec<String>,
}

impl FailoverRow {
    /// What discovery wrote down about a failover, seen from `now`.
    pub fn of(record: &FailoverRecord, now: Instant) -> Self {
        let after = |at: Instant| at.saturating_duration_since(record.lost_at);
        let step = |note: &Note| match note.at.checked_duration_since(record.lost_at) {
            Some(after) => format!("+{} ms {}", after.as_millis(), note.text),
            None => format!("-{} ms {}", record.lost_at.duration_since(note.at).as_millis(), note.text),
        };
        Self {
            number: record.number,
            lost_ago: now.saturating_duration_since(record.lost_at),
            from: record.from.clone(),
            why: record.why.clone(),
            planned: record.planned.clone(),
            to: record.followed.as_ref().map(|next| (next.member.clone(), next.timeline)),
            claimed_after: record.claimed.as_ref().map(|(_, at)| after(*at)),
            followed_after: record.followed.as_ref().map(|next| after(next.at)),
            steps: record.steps.iter().map(step).collect(),
        }
    }
}

pub(super) fn members(view: &ConsoleView<'_>) -> Vec<[Cell; 16]> {
    view.topology.members.iter().map(|member| self::member(member, view)).collect()
}

fn member(member: &MemberView, view: &ConsoleView<'_>) -> [Cell; 16] {
    let why_not: Vec<&str> =
        member.why_not_lead.iter().chain(&member.why_not_read).map(String::as_str).collect();
    [
        Cell::from(&member.name),
        Cell::from(&member.role),
        Cell::from(&member.state),
        Cell::from(member.address.as_ref().map(ToString::to_string)),
        Cell::from(member.timeline),
        Cell::from(member.lag.map(|lag| lag.bytes)),
        Cell::from(api(&member.api, view)),
        Cell::from(monitor(&member.monitor)),
        Cell::yes_no(member.why_not_read.is_none()),
        Cell::from(why_not.join("; ")),
        Cell::yes_no(member.is_leader),
        Cell::from(member.lag.map(|lag| lag_source(lag.source))),
        Cell::from(member.lag.map(|lag| millis(lag.age))),
        Cell::from(member.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))),
        Cell::from(member.read_weight),
        Cell::from(member.restart.clone()),
    ]
}

fn lag_source(source: LagSource) -> &'static str {
    match source {
        LagSource::Monitor => "monitor",
        LagSource::RestApi => "api",
        LagSource::Cluster => "cluster",
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn api(api: &Api, view: &ConsoleView<'_>) -> String {
    match api {
        Api::Unasked => "unasked".to_owned(),
        Api::Ok => "ok".to_owned(),
        Api::Failing { since, why } => {
            let seconds = view.now.saturating_duration_since(*since).as_secs();
            format!("failing for {seconds} s: {why}")
        }
    }
}

fn monitor(monitor: &Monitor) -> String {
    match monitor {
        Monitor::Off => "off".to_owned(),
        Monitor::Pending => "pending".to_owned(),
        Monitor::Primary { timeline: _, system_identifier: _ } => "primary".to_owned(),
        Monitor::Standby => "standby".to_owned(),
        Monitor::RoleUnknown(why) => format!("role unknown: {why}"),
        Monitor::Suspect(why) => format!("suspect: {why}"),
        Monitor::Gone(why) => format!("gone: {why}"),
    }
}

pub(super) fn failovers(view: &ConsoleView<'_>) -> Vec<[Cell; 10]> {
    let row = |failover: &FailoverRow| {
        [
            Cell::from(failover.number),
            Cell::from(clock::before(view.wall, failover.lost_ago)),
            Cell::from(&failover.from),
            Cell::from(failover.to.as_ref().map(|(member, _)| member)),
            Cell::from(failover.to.as_ref().map(|(_, timeline)| *timeline)),
            Cell::from(failover.claimed_after.map(millis)),
            Cell::from(failover.followed_after.map(millis)),
            Cell::from(&failover.why),
            Cell::from(failover.planned.as_ref()),
            Cell::from(failover.steps.join("\n")),
        ]
    };
    view.failovers.iter().map(row).collect()
}
