//! Who may serve reads. One pure function per question, so that its table is its test.

use std::time::Duration;

use crate::lag::well_below;
use crate::patroni::is_set;
use crate::topology::Monitor;

/// What is known of one member when its fitness for reads is asked.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub is_leader: bool,
    /// The last `/cluster` answer names it, with an address.
    pub listed: bool,
    /// It belongs to another cluster.
    pub foreign: bool,
    /// As its own REST API says, else as `/cluster` does.
    pub role: &'a str,
    pub state: &'a str,
    pub tags: &'a [(String, String)],
    pub monitor: &'a Monitor,
    pub api: ApiHealth,
    pub lag: Option<u64>,
    /// Why it is about to restart.
    pub restarts: Option<String>,
    /// It has been too far behind, and has not shown for long enough that it is no longer.
    pub late: bool,
    /// It is long since the leader started its timeline, and this one is still on an older one.
    pub left_behind: bool,
    /// It serves reads now: what was let in once needs a reason to be put out.
    pub serving: bool,
}

/// How its REST API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiHealth {
    Unasked,
    Ok,
    FailingFor(Duration),
}

/// Why a member serves no reads; `None` if it does.
pub(crate) fn why_not_read(member: &Candidate<'_>, max_lag_bytes: u64) -> Option<String> {
    if member.is_leader {
        return Some("it is the leader".to_owned());
    }
    if !member.listed {
        return Some("/cluster does not name it".to_owned());
    }
    if member.foreign {
        return Some("it belongs to another cluster".to_owned());
    }
    if !matches!(member.role, "replica" | "sync_standby" | "quorum_standby" | STANDBY_LEADER) {
        return Some(format!("its role is \"{}\"", member.role));
    }
    if !matches!(member.state, "running" | "streaming" | "in archive recovery") {
        return Some(format!("its state is \"{}\"", member.state));
    }
    if is_set(member.tags, "noloadbalance") {
        return Some("it is tagged noloadbalance".to_owned());
    }
    if let Some(why) = &member.restarts {
        return Some(why.clone());
    }
    if member.left_behind {
        return Some("it has not followed the leader to its timeline".to_owned());
    }
    why_not_alive(member).or_else(|| why_too_late(member, max_lag_bytes))
}

/// PostgreSQL's own word counts before Patroni's; a sick REST API alone puts nobody out.
fn why_not_alive(member: &Candidate<'_>) -> Option<String> {
    match member.monitor {
        Monitor::Standby | Monitor::RoleUnknown(_) | Monitor::Suspect(_) => None,
        Monitor::Primary { .. } => Some("its PostgreSQL is no standby".to_owned()),
        Monitor::Gone(why) => Some(format!("its PostgreSQL {why}")),
        Monitor::Pending => Some("its PostgreSQL has not answered yet".to_owned()),
        Monitor::Off => match member.api {
            ApiHealth::Ok => None,
            ApiHealth::Unasked => Some("its REST API has not answered yet".to_owned()),
            ApiHealth::FailingFor(time) if time < UNWATCHED_PATIENCE => None,
            ApiHealth::FailingFor(_) => {
                Some("its REST API does not answer and no monitor watches its PostgreSQL".to_owned())
            }
        },
    }
}

/// Out above the limit, in only well below it, and back in only if it stays there.
fn why_too_late(member: &Candidate<'_>, max_lag_bytes: u64) -> Option<String> {
    let limit = if member.serving { max_lag_bytes } else { well_below(max_lag_bytes) };
    match member.lag {
        Some(lag) if lag <= limit && member.late => {
            Some(format!("it lagged more than {max_lag_bytes} bytes until a moment ago"))
        }
        Some(lag) if lag <= limit => None,
        Some(lag) => Some(format!("it lags {lag} bytes, the limit is {limit}")),
        // Nobody in a standby cluster is ahead of its leader.
        None if member.serving || member.role == STANDBY_LEADER => None,
        None => Some("its lag is not known".to_owned()),
    }
}

/// Leads a standby cluster: it follows another cluster and is a replica to everybody who reads.
const STANDBY_LEADER: &str = "standby_leader";

/// Without a monitor a silent REST API is all there is to see of a dead replica.
pub(crate) const UNWATCHED_PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1000;

    fn good() -> Candidate<'static> {
        Candidate {
            is_leader: false,
            listed: true,
            foreign: false,
            role: "replica",
            state: "running",
            tags: &[],
            monitor: &Monitor::Standby,
            api: ApiHealth::Ok,
            lag: Some(0),
            restarts: None,
            late: false,
            left_behind: false,
            serving: false,
        }
    }

    /// `expected` is a piece of the reason, empty if the member may serve.
    fn check(member: Candidate<'_>, expected: &str) {
        match why_not_read(&member, LIMIT) {
            Some(why) => assert!(!expected.is_empty() && why.contains(expected), "{why}"),
            None => assert_eq!(expected, "", "{member:?}"),
        }
    }

    #[test]
    fn roles_states_and_tags() {
        check(good(), "");
        check(Candidate { role: "sync_standby", state: "streaming", ..good() }, "");
        check(Candidate { role: "quorum_standby", ..good() }, "");
        check(Candidate { role: "standby_leader", lag: None, ..good() }, "");
        check(Candidate { role: "demoted", ..good() }, "role is");
        check(Candidate { role: "", ..good() }, "role is");
        check(Candidate { state: "starting", ..good() }, "state is \"starting\"");
        check(Candidate { state: "a state of 2030", ..good() }, "state is");
        check(Candidate { is_leader: true, ..good() }, "leader");
        check(Candidate { listed: false, ..good() }, "/cluster");
        check(Candidate { foreign: true, ..good() }, "another cluster");
        check(Candidate { left_behind: true, ..good() }, "timeline");
        check(Candidate { restarts: Some("a restart is scheduled".to_owned()), ..good() }, "a restart");
        let tag = |value: &str| vec![("noloadbalance".to_owned(), value.to_owned())];
        check(Candidate { tags: &tag("true"), ..good() }, "noloadbalance");
        check(Candidate { tags: &tag("false"), ..good() }, "");
    }

    #[test]
    fn lag_has_hysteresis() {
        check(Candidate { lag: Some(800), ..good() }, "");
        check(Candidate { lag: Some(801), ..good() }, "lags 801");
        check(Candidate { lag: Some(1000), serving: true, ..good() }, "");
        check(Candidate { lag: Some(1001), serving: true, ..good() }, "lags 1001");
        check(Candidate { lag: None, ..good() }, "not known");
        check(Candidate { lag: None, serving: true, ..good() }, "");
        check(Candidate { lag: Some(0), late: true, ..good() }, "until a moment ago");
    }

    #[test]
    fn postgresql_s_own_word_counts_before_the_api() {
        let silent = ApiHealth::FailingFor(Duration::from_secs(60));
        let brief = ApiHealth::FailingFor(Duration::from_secs(1));
        check(Candidate { api: silent, ..good() }, "");
        let unknown = Monitor::RoleUnknown("too many connections".to_owned());
        check(Candidate { api: silent, monitor: &unknown, ..good() }, "");
        check(Candidate { monitor: &Monitor::Suspect("ended".to_owned()), ..good() }, "");
        check(Candidate { monitor: &Monitor::Gone("refuses".to_owned()), ..good() }, "refuses");
        check(Candidate { monitor: &Monitor::Pending, ..good() }, "not answered");
        let primary = Monitor::Primary { timeline: Some(3), system_identifier: None };
        check(Candidate { monitor: &primary, ..good() }, "no standby");
        check(Candidate { monitor: &Monitor::Off, ..good() }, "");
        check(Candidate { monitor: &Monitor::Off, api: brief, ..good() }, "");
        check(Candidate { monitor: &Monitor::Off, api: silent, ..good() }, "does not answer");
        check(Candidate { monitor: &Monitor::Off, api: ApiHealth::Unasked, ..good() }, "not answered");
    }
}
