//! When to ask whom: quiet while all is well, fast while something happens, never two requests at one member.

use std::time::{Duration, Instant};

use crate::endpoint::Heard;
use crate::event::Request;
use crate::judge::{Standing, standing};
use crate::machine::Discovery;
use crate::member::{Member, foreign};
use crate::slot::Slot;
use crate::topology::Monitor;

/// Asking for `/cluster`: one member at a time, in turn.
#[derive(Debug, Default)]
pub(crate) struct ClusterAsk {
    pub slot: Slot,
    /// Failures in a row. With the DCS away the answer hangs until its deadline and keeps `/primary` of that member
    /// waiting, so it is asked less often then.
    pub failures: u32,
    /// Endpoint that is asked now.
    pub asked: Option<usize>,
    /// A first answer came.
    pub heard: bool,
    turn: usize,
}

impl Discovery {
    /// What to ask now. Call after every [`Discovery::step`] and whenever [`Discovery::deadline`] has passed.
    pub fn due(&mut self, now: Instant) -> Vec<Request> {
        // Time alone can change the verdict, but not twice within one moment.
        if self.concluded_at != now {
            self.conclude(now);
        }
        // An answer that was lost frees its place, also where nobody else can be asked now: else its time would stay due.
        if self.cluster.slot.is_busy() && self.cluster.slot.due_at(now, self.cluster_interval()) <= now {
            self.cluster.slot.done();
        }
        let mut requests = Vec::new();
        let interval = self.poll_interval(now);
        let at_cluster = self.cluster.asked.filter(|_| self.cluster.slot.is_busy());
        for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
            if at_cluster != Some(index) && endpoint.slot.due_at(now, interval) <= now {
                endpoint.slot.start(now);
                requests.push(Request::Primary { url: endpoint.url.clone() });
            }
        }
        if self.cluster.slot.due_at(now, self.cluster_interval()) <= now
            && let Some(index) = self.next_for_cluster()
        {
            self.cluster.slot.start(now);
            self.cluster.asked = Some(index);
            requests.push(Request::Cluster { url: self.endpoints[index].url.clone() });
        }
        self.push_pings(now, &mut requests);
        requests
    }

    /// When [`Discovery::due`] has something to say again, if nothing else happens before.
    pub fn deadline(&self, now: Instant) -> Instant {
        let interval = self.poll_interval(now);
        let at_cluster = self.cluster.asked.filter(|_| self.cluster.slot.is_busy());
        let polls = self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(index, _)| at_cluster != Some(*index))
            .map(|(_, endpoint)| endpoint.slot.due_at(now, interval));
        // While nobody can be asked for /cluster, the next answer to /primary is what changes that.
        let cluster = (self.cluster.slot.is_busy() || self.free_for_cluster().next().is_some())
            .then(|| self.cluster.slot.due_at(now, self.cluster_interval()));
        let pings = self
            .members
            .iter()
            .filter(|member| member.is_pinged())
            .map(|member| member.ping.due_at(now, self.ping_interval(now, &member.monitor)));
        let start = (!self.started_up(now)).then_some(self.started + START_PATIENCE);
        let planned = self.planned_changes(now);
        polls.chain(cluster).chain(pings).chain(start).chain(planned).fold(now + DEADLINE_MAX, Instant::min)
    }

    /// True until a minute has passed without anything new.
    pub(crate) fn is_fast(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.news_at) < NEWS_LAST || self.expects_change(now)
    }

    fn poll_interval(&self, now: Instant) -> Duration {
        if self.is_fast(now) {
            POLL_FAST.min(self.settings.poll_interval)
        } else {
            self.settings.poll_interval
        }
    }

    fn cluster_interval(&self) -> Duration {
        (CLUSTER_INTERVAL * 2u32.pow(self.cluster.failures.min(4))).min(CLUSTER_INTERVAL_MAX)
    }

    fn push_pings(&mut self, now: Instant, requests: &mut Vec<Request>) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let interval = self.ping_interval(now, &member.monitor);
            if !member.is_pinged() || member.ping.due_at(now, interval) > now {
                continue;
            }
            if let Some(address) = member.listed.address.clone() {
                requests.push(Request::Ping { member: member.listed.name.clone(), address });
                self.members[index].ping.start(now);
            }
        }
    }

    fn ping_interval(&self, now: Instant, monitor: &Monitor) -> Duration {
        let holding = !self.is_led();
        match (monitor, holding, self.is_fast(now)) {
            (Monitor::Suspect(_), _, _) => PING_HOLDING,
            // Each try writes a line into PostgreSQL's log.
            (Monitor::RoleUnknown(_), true, true) => PING_QUIET,
            (Monitor::RoleUnknown(_), _, _) => PING_UNWELCOME,
            (Monitor::Gone(_), true, true) => PING_GONE,
            (Monitor::Off | Monitor::Pending | Monitor::Primary { .. } | Monitor::Standby, true, true) => {
                PING_HOLDING
            }
            (_, true, false) => PING_LONG_HOLD,
            (_, false, true) => POLL_FAST,
            (_, false, false) => PING_QUIET,
        }
    }

    /// In turn, so that one member with a sick DCS connection does not stop the learning.
    fn next_for_cluster(&mut self) -> Option<usize> {
        let free: Vec<usize> = self.free_for_cluster().collect();
        let turn = self.cluster.turn;
        self.cluster.turn = turn.wrapping_add(1);
        (!free.is_empty()).then(|| free[turn % free.len()])
    }

    /// Endpoints that answered last time, are not being asked anything, and belong to our cluster.
    fn free_for_cluster(&self) -> impl Iterator<Item = usize> + '_ {
        self.endpoints.iter().enumerate().filter_map(|(index, endpoint)| {
            let Heard::Said(status) = &endpoint.heard else {
                return None;
            };
            let stranger = foreign(self.scope(), status.scope.as_deref()).is_some()
                || self.is_foreign_system(status.system_identifier);
            (!stranger && !endpoint.slot.is_busy()).then_some(index)
        })
    }

    /// Somebody claims to lead whose PostgreSQL has yet to say that it does, or on which timeline.
    fn awaits_claimant(&self) -> bool {
        self.sightings().iter().any(|member| matches!(standing(None, member), Standing::NotReady { .. }))
    }

    /// SEMANTICS of a start: everybody known is asked once, within bounds, before a first leader is followed. Else a
    /// stale leader that happens to answer first would be believed, as there is no timeline yet to measure it by.
    pub(crate) fn started_up(&self, now: Instant) -> bool {
        let all_asked = self.endpoints.iter().all(|endpoint| endpoint.heard != Heard::Nothing);
        (all_asked && self.cluster.heard && !self.awaits_claimant())
            || now.saturating_duration_since(self.started) >= START_PATIENCE
    }
}

impl Member {
    fn is_pinged(&self) -> bool {
        self.monitor != Monitor::Off && self.listed.address.is_some()
    }
}

/// Bound of the start rule.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(2);

/// Fast mode ends when nothing new was seen for this long.
const NEWS_LAST: Duration = Duration::from_secs(60);

const POLL_FAST: Duration = Duration::from_millis(100);

const CLUSTER_INTERVAL: Duration = Duration::from_secs(1);
const CLUSTER_INTERVAL_MAX: Duration = Duration::from_secs(10);

const PING_QUIET: Duration = Duration::from_secs(1);
/// Clients wait for the moment of promotion.
const PING_HOLDING: Duration = Duration::from_millis(20);
/// No leader for more than a minute: no promotion is in sight.
const PING_LONG_HOLD: Duration = Duration::from_millis(200);
/// Each ping is a new dial then.
const PING_GONE: Duration = Duration::from_millis(50);
const PING_UNWELCOME: Duration = Duration::from_secs(10);

/// [`Discovery::deadline`] is never further away.
const DEADLINE_MAX: Duration = Duration::from_secs(10);
