//! One member of the cluster: what `/cluster` said of it and what its PostgreSQL says.

use std::time::Instant;

use crate::endpoint::Heard;
use crate::event::MonitorReport;
use crate::judge::{ApiSays, Claim, PostgresSays};
use crate::lag::{Lateness, Told};
use crate::patroni::Listed;
use crate::restart::Restart;
use crate::shares::RoundTrips;
use crate::slot::Slot;
use crate::topology::{Address, Monitor};

#[derive(Debug)]
pub(crate) struct Member {
    pub listed: Listed,
    /// When `/cluster` named it last.
    pub listed_at: Instant,
    /// The last `/cluster` answer named it.
    pub in_list: bool,
    /// When `/cluster` was first answered without it.
    pub missing_since: Option<Instant>,
    pub monitor: Monitor,
    pub ping: Slot,
    /// When its postmaster was started, as a monitor last heard.
    started: Option<u64>,
    /// How often its PostgreSQL was found started anew. What was connected before is dead, whether it knows or not: a
    /// host that loses power says no goodbye.
    pub incarnation: u64,
    /// Its PostgreSQL lived then, or later: when the last question that it answered was asked. What was started anew since has
    /// not lived on.
    pub lived_at: Option<Instant>,
    /// Where in the log it was when it told last, by its REST API or to a monitor.
    pub told: Option<Told>,
    pub lateness: Lateness,
    pub round_trips: RoundTrips,
    /// Nothing comes from its PostgreSQL any more.
    pub silent_since: Option<Instant>,
    pub restart: Option<Restart>,
}

impl Member {
    pub(crate) fn new(now: Instant, listed: Listed, watched: bool) -> Self {
        Self {
            listed,
            listed_at: now,
            in_list: true,
            missing_since: None,
            monitor: if watched { Monitor::Pending } else { Monitor::Off },
            ping: Slot::default(),
            started: None,
            incarnation: 0,
            lived_at: None,
            told: None,
            lateness: Lateness::default(),
            round_trips: RoundTrips::default(),
            silent_since: None,
            restart: None,
        }
    }

    /// Takes over what a newer `/cluster` answer says. A new address is a new PostgreSQL: nothing seen at the old
    /// one counts for it.
    pub(crate) fn relist(&mut self, now: Instant, listed: Listed) {
        if listed.address.is_some() && listed.address != self.listed.address {
            self.ping = Slot::default();
            (self.told, self.round_trips, self.silent_since) = (None, RoundTrips::default(), None);
            self.lived_at = None;
            if self.monitor != Monitor::Off {
                self.monitor = Monitor::Pending;
            }
        }
        let address = listed.address.clone().or_else(|| self.listed.address.take());
        let url = listed.url.clone().or_else(|| self.listed.url.take());
        self.listed = Listed { address, url, ..listed };
        self.listed_at = now;
        (self.in_list, self.missing_since) = (true, None);
    }

    /// Takes a monitor's report in; true if it is news.
    pub(crate) fn observe(&mut self, now: Instant, address: &Address, report: MonitorReport) -> bool {
        if self.listed.address.as_ref() != Some(address) {
            return false;
        }
        self.ping.done();
        self.silent_since = match report {
            MonitorReport::Silent => self.silent_since.or(Some(now)),
            // No connection is no news about those that there were.
            MonitorReport::Unreachable { .. } | MonitorReport::Lost { .. } => self.silent_since,
            MonitorReport::Answered { .. } | MonitorReport::RoleUnknown { .. } => None,
        };
        if let MonitorReport::Answered { started, .. } = report {
            let before = self.started;
            self.started = started.or(before);
            if before.is_some() && self.started != before {
                self.incarnation += 1;
            } else {
                self.lived_at = self.ping.sent();
            }
        }
        let seen = match report {
            MonitorReport::Answered { in_hot_standby: true, .. } => Monitor::Standby,
            MonitorReport::Answered { in_hot_standby: false, timeline, system_identifier, .. } => {
                Monitor::Primary { timeline, system_identifier }
            }
            // What is known to be gone cannot be lost again; that report is a late one.
            MonitorReport::Lost { why } => match &self.monitor {
                Monitor::Gone(_) | Monitor::RoleUnknown(_) | Monitor::Off => return false,
                Monitor::Pending | Monitor::Primary { .. } | Monitor::Standby | Monitor::Suspect(_) => {
                    Monitor::Suspect(why)
                }
            },
            MonitorReport::Unreachable { why } => Monitor::Gone(why),
            MonitorReport::Silent => Monitor::Gone("does not answer".to_owned()),
            MonitorReport::RoleUnknown { why } => Monitor::RoleUnknown(why),
        };
        let news = seen != self.monitor;
        self.monitor = seen;
        news
    }

    pub(crate) fn postgres_says(&self) -> PostgresSays {
        if self.listed.address.is_none() {
            return PostgresSays::Gone("has no address in /cluster yet".to_owned());
        }
        match &self.monitor {
            Monitor::Off | Monitor::RoleUnknown(_) => PostgresSays::Unwatched,
            Monitor::Pending => PostgresSays::Pending,
            Monitor::Primary { timeline, system_identifier } => {
                PostgresSays::Primary { timeline: *timeline, system_identifier: *system_identifier }
            }
            Monitor::Standby => PostgresSays::Standby,
            Monitor::Suspect(_) => PostgresSays::Suspect,
            Monitor::Gone(why) => PostgresSays::Gone(why.clone()),
        }
    }
}

/// What the REST API's last answer means for leadership. `scope` is the one that answers have to come from.
pub(crate) fn api_says(heard: &Heard, scope: Option<&str>) -> ApiSays {
    let status = match heard {
        Heard::Nothing => return ApiSays::Unasked,
        Heard::Failed { since: _, why: _ } => return ApiSays::Silent,
        Heard::Said(status) => status,
    };
    if !status.leads {
        let role = match foreign(scope, status.scope.as_deref()) {
            Some(scope) => format!("{} of another cluster, scope \"{scope}\"", status.role),
            None => status.role.clone(),
        };
        return ApiSays::Denies { role, state: status.state.clone() };
    }
    ApiSays::Claims(Claim {
        role: status.role.clone(),
        is_primary: status.is_primary(),
        state: status.state.clone(),
        timeline: status.timeline,
        system_identifier: status.system_identifier,
        foreign_scope: foreign(scope, status.scope.as_deref()).map(str::to_owned),
    })
}

/// The answer's scope, if it is another than ours. A missing one (Patroni before 3.2 in places) proves nothing.
pub(crate) fn foreign<'a>(ours: Option<&str>, theirs: Option<&'a str>) -> Option<&'a str> {
    theirs.filter(|theirs| ours.is_some_and(|ours| ours != *theirs))
}

/// A few words for the journal.
pub(crate) fn monitor_told(monitor: &Monitor) -> String {
    match monitor {
        Monitor::Off => "PostgreSQL is not watched".to_owned(),
        Monitor::Pending => "PostgreSQL not asked yet".to_owned(),
        Monitor::Primary { timeline: Some(timeline), system_identifier: _ } => {
            format!("PostgreSQL takes writes on timeline {timeline}")
        }
        Monitor::Primary { timeline: None, system_identifier: _ } => "PostgreSQL takes writes".to_owned(),
        Monitor::Standby => "PostgreSQL is a standby".to_owned(),
        Monitor::RoleUnknown(why) => format!("PostgreSQL lives, but does not let the monitor in: {why}"),
        Monitor::Suspect(why) => format!("monitor connection lost: {why}"),
        Monitor::Gone(why) => format!("PostgreSQL {why}"),
    }
}
