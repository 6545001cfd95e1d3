//! The plain pages for people and probes: `/`, `/healthz`, `/readyz`. Text in, text out.

use std::fmt::Write;
use std::time::Duration;

use weir_discovery::{Api, Leadership, MemberView, Monitor, Topology};

/// `/readyz`: what a balancer in front should know. A hold is not a reason to take clients away: they would lose their
/// connections for nothing, and every other weir holds as well.
pub(super) fn ready(topology: &Topology, draining: bool) -> (bool, String) {
    if draining {
        return (false, "weir is shutting down\n".to_owned());
    }
    let text = match (&topology.leader, topology.why_held()) {
        // Databases with hosts of their own need no leader.
        (Leadership::Leaderless { .. }, _) if *topology == Topology::nobody() => "ready\n".to_owned(),
        (_, Some(why)) => format!("ready, holding writes: {why}\n"),
        (Leadership::Led { degraded: Some(why), member, .. }, None) => {
            format!("ready, leader {member} is degraded: {why}\n")
        }
        (Leadership::Led { .. } | Leadership::Leaderless { .. }, None) => "ready\n".to_owned(),
    };
    (true, text)
}

/// `/`: a few lines on how weir sees the world.
pub(super) fn status(topology: &Topology, version: &str, uptime: Duration) -> String {
    let mut page = format!("weir {version}, up for {} s\n\n", uptime.as_secs());
    let leader = match &topology.leader {
        Leadership::Led { member, address, epoch, degraded, .. } => {
            let epoch = epoch.map(|epoch| format!(", timeline {}", epoch.timeline)).unwrap_or_default();
            let degraded = degraded.as_ref().map(|why| format!(" (degraded: {why})")).unwrap_or_default();
            format!("{member} at {address}{epoch}{degraded}")
        }
        Leadership::Leaderless { why } => format!("none, writes wait: {why}"),
    };
    let readers: Vec<&str> = topology.replicas.iter().map(|target| target.member.as_str()).collect();
    let readers = if readers.is_empty() { "none".to_owned() } else { readers.join(", ") };
    // Writing to a String cannot fail.
    let _ = writeln!(page, "writes go to:    {leader}\nreads go to:     {readers}\n");
    for member in &topology.members {
        let _ = writeln!(page, "{}", line(member));
    }
    page.push_str("\nsee also /metrics /healthz /readyz\n");
    page
}

fn line(member: &MemberView) -> String {
    let address = member.address.as_ref().map(ToString::to_string).unwrap_or_else(|| "-".to_owned());
    let timeline = member.timeline.map_or_else(|| "-".to_owned(), |timeline| timeline.to_string());
    let lag = member.lag.map_or_else(|| "-".to_owned(), |lag| lag.bytes.to_string());
    let mut line = format!(
        "{:<16} {address:<24} role {:<10} state {:<10} timeline {timeline:<4} lag {lag:<8} api {} monitor {}",
        member.name,
        or_dash(&member.role),
        or_dash(&member.state),
        api(&member.api),
        monitor(&member.monitor),
    );
    for (what, why) in [("no leader", &member.why_not_lead), ("no reads", &member.why_not_read)] {
        if let Some(why) = why {
            let _ = write!(line, "; {what}: {why}");
        }
    }
    line
}

fn api(api: &Api) -> String {
    match api {
        Api::Unasked => "unasked".to_owned(),
        Api::Ok => "ok".to_owned(),
        Api::Failing { since: _, why } => format!("failing ({why})"),
    }
}

fn monitor(monitor: &Monitor) -> &'static str {
    match monitor {
        Monitor::Off => "off",
        Monitor::Pending => "pending",
        Monitor::Primary { .. } => "primary",
        Monitor::Standby => "standby",
        Monitor::RoleUnknown(_) => "role unknown",
        Monitor::Suspect(_) => "suspect",
        Monitor::Gone(_) => "gone",
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
