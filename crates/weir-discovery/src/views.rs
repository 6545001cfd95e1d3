//! What the machine shows: read targets for workers, and members for people.

use std::time::{Duration, Instant};

use crate::endpoint::{Endpoint, Heard};
use crate::judge::{Standing, standing};
use crate::lag::Lateness;
use crate::machine::Discovery;
use crate::member::{Member, foreign};
use crate::patroni::Listed;
use crate::read::{ApiHealth, Candidate, why_not_read};
use crate::shares::{Reader, weights};
use crate::topology::{Address, Leadership, MemberView, Monitor, ReadFallback, ReadTarget};

impl Discovery {
    /// Everybody as of now: the members by name, then seeds that belong to none of them.
    pub fn members(&self, now: Instant) -> Vec<MemberView> {
        self.views(now, &self.topology().leader)
    }

    /// While the leader is about to go (`is_planned`) nobody reads from it either.
    pub(crate) fn read_targets(
        &self,
        now: Instant,
        leader: &Leadership,
        is_planned: bool,
    ) -> Vec<ReadTarget> {
        let readers = self.members.iter().filter(|member| self.why_not_read(now, member, leader).is_none());
        let readers: Vec<&Member> = readers.collect();
        let replicas: Vec<ReadTarget> = readers
            .iter()
            .zip(self.weights_of(&readers))
            .filter_map(|(member, weight)| {
                Some(ReadTarget {
                    member: member.listed.name.clone(),
                    address: member.listed.address.clone()?,
                    is_primary: false,
                    system_identifier: self.system_of(member),
                    weight,
                })
            })
            .collect();
        match (leader, self.settings.fallback) {
            (Leadership::Led { member, address, epoch, .. }, ReadFallback::Primary)
                if replicas.is_empty() && !is_planned =>
            {
                vec![ReadTarget {
                    member: member.clone(),
                    address: address.clone(),
                    is_primary: true,
                    system_identifier: epoch.map(|epoch| epoch.system_identifier),
                    weight: 1,
                }]
            }
            (
                Leadership::Led { .. } | Leadership::Leaderless { .. },
                ReadFallback::Primary | ReadFallback::Wait | ReadFallback::Error,
            ) => replicas,
        }
    }

    fn weights_of(&self, readers: &[&Member]) -> Vec<u32> {
        let readers: Vec<Reader<'_>> = readers
            .iter()
            .map(|&member| Reader {
                tags: self.tags(member),
                distance: member.round_trips.distance(),
                is_near: self.target_of(member).is_some_and(|target| target.weight > 0),
            })
            .collect();
        weights(self.settings.policy, &readers)
    }

    /// What was published of a replica that serves reads.
    fn target_of(&self, member: &Member) -> Option<ReadTarget> {
        let topology = self.topology();
        let is_it = |target: &&ReadTarget| !target.is_primary && target.member == member.listed.name;
        topology.replicas.iter().find(is_it).cloned()
    }

    /// Servers from which nothing has come for a while, while others answer: else it may be weir's own network that stands
    /// still, or a pause that TCP outlives.
    pub(crate) fn silent(&self, now: Instant) -> Vec<Address> {
        let answers = |member: &Member| matches!(member.monitor, Monitor::Standby | Monitor::Primary { .. });
        if !self.members.iter().any(answers) {
            return Vec::new();
        }
        let is_silent = |member: &&Member| {
            member.silent_since.is_some_and(|since| now.saturating_duration_since(since) >= SILENCE_MIN)
        };
        self.members.iter().filter(is_silent).filter_map(|member| member.listed.address.clone()).collect()
    }

    pub(crate) fn views(&self, now: Instant, leader: &Leadership) -> Vec<MemberView> {
        let sightings = self.sightings();
        let members = self.members.iter().zip(&sightings).map(|(member, sighting)| MemberView {
            why_not_lead: match standing(self.followed.as_ref(), sighting) {
                Standing::Fenced { why } => Some(format!(
                    "{why}; if that is meant, run ACCEPT LEADER {} on weir's console",
                    sighting.name
                )),
                Standing::NotReady { why } => Some(why),
                Standing::No => self.why_no_heir(member, leader),
                Standing::Eligible { .. } => None,
            },
            ..self.view(now, member, leader)
        });
        members.chain(self.strangers().map(stranger_view)).collect()
    }

    /// Somebody promoted it by hand, as in a maintenance pause, and Patroni has not given it the leader key.
    fn why_no_heir(&self, member: &Member, leader: &Leadership) -> Option<String> {
        let writes = matches!(member.monitor, Monitor::Primary { .. }) && !leads(leader, member);
        writes.then(|| "its PostgreSQL takes writes, but its Patroni does not say that it leads".to_owned())
    }

    fn view(&self, now: Instant, member: &Member, leader: &Leadership) -> MemberView {
        let heard = self.heard_of(member);
        let status = heard.status();
        let timeline = match &member.monitor {
            Monitor::Primary { timeline, system_identifier: _ } => *timeline,
            Monitor::Off
            | Monitor::Pending
            | Monitor::Standby
            | Monitor::RoleUnknown(_)
            | Monitor::Suspect(_)
            | Monitor::Gone(_) => None,
        };
        let is_leader = leads(leader, member);
        MemberView {
            name: member.listed.name.clone(),
            api_url: member.listed.url.as_ref().map(ToString::to_string).unwrap_or_default(),
            address: member.listed.address.clone(),
            role: status.map_or(&member.listed.role, |status| &status.role).clone(),
            state: status.map_or(&member.listed.state, |status| &status.state).clone(),
            timeline: timeline.or(status.and_then(|s| s.timeline)).or(member.listed.timeline),
            lag: self.lag(now, member).filter(|_| !is_leader),
            round_trip: member.round_trips.distance(),
            read_weight: self.target_of(member).map(|target| target.weight),
            tags: self.tags(member).to_vec(),
            api: heard.view(),
            monitor: member.monitor.clone(),
            is_leader,
            restart: restart_of(&member.listed),
            why_not_read: self.why_not_read(now, member, leader),
            why_not_lead: None,
        }
    }

    fn why_not_read(&self, now: Instant, member: &Member, leader: &Leadership) -> Option<String> {
        let heard = self.heard_of(member);
        let status = heard.status();
        let name = &member.listed.name;
        let serving =
            self.topology().replicas.iter().any(|target| !target.is_primary && target.member == *name);
        let candidate = Candidate {
            is_leader: leads(leader, member),
            listed: member.in_list && member.listed.address.is_some(),
            foreign: self.is_foreign_system(self.system_of(member))
                || foreign(self.scope(), status.and_then(|status| status.scope.as_deref())).is_some(),
            role: status.map_or(&member.listed.role, |status| &status.role),
            state: status.map_or(&member.listed.state, |status| &status.state),
            tags: self.tags(member),
            monitor: &member.monitor,
            api: match heard {
                Heard::Nothing => ApiHealth::Unasked,
                Heard::Said(_) => ApiHealth::Ok,
                Heard::Failed { since, why: _ } => {
                    ApiHealth::FailingFor(now.saturating_duration_since(*since))
                }
            },
            lag: self.lag(now, member).map(|lag| lag.bytes),
            restarts: self.restart_at_hand(now, member),
            late: member.lateness != Lateness::InTime,
            left_behind: self.is_left_behind(now, status.and_then(|s| s.timeline).or(member.listed.timeline)),
            serving,
        };
        why_not_read(&candidate, self.settings.max_lag_bytes)
    }

    fn tags<'a>(&'a self, member: &'a Member) -> &'a [(String, String)] {
        match self.heard_of(member).status() {
            Some(status) if !status.tags.is_empty() => &status.tags,
            Some(_) | None => &member.listed.tags,
        }
    }

    fn system_of(&self, member: &Member) -> Option<u64> {
        self.heard_of(member).status().and_then(|status| status.system_identifier)
    }

    /// Replicas need a moment to follow a new leader, and Patroni another one to say so.
    fn is_left_behind(&self, now: Instant, timeline: Option<u32>) -> bool {
        let Some(followed) = self.followed.as_ref().filter(|followed| followed.holding_on) else {
            return false;
        };
        now.saturating_duration_since(self.followed_at) > TIMELINE_GRACE
            && timeline.is_some_and(|timeline| timeline < followed.epoch.timeline)
    }

    /// Seeds whose answers cannot be given to any member.
    fn strangers(&self) -> impl Iterator<Item = &Endpoint> + '_ {
        self.endpoints.iter().filter(|endpoint| {
            let name = endpoint.heard.status().and_then(|status| status.name.as_deref());
            !self.members.iter().any(|member| {
                member.listed.url.as_ref() == Some(&endpoint.url) || name == Some(&member.listed.name)
            })
        })
    }
}

fn leads(leader: &Leadership, member: &Member) -> bool {
    match leader {
        Leadership::Led { member: name, .. } => *name == member.listed.name,
        Leadership::Leaderless { why: _ } => false,
    }
}

/// Settings may wait for a restart for weeks: that alone is no reason to leave a member.
fn restart_of(listed: &Listed) -> Option<String> {
    let pending = listed.pending_restart.then(|| "pending".to_owned());
    let scheduled = listed.restart.as_ref().map(|restart| format!("scheduled for {}", restart.moment.text));
    let both: Vec<String> = pending.into_iter().chain(scheduled).collect();
    (!both.is_empty()).then(|| both.join(", "))
}

fn stranger_view(endpoint: &Endpoint) -> MemberView {
    let status = endpoint.heard.status();
    let url = endpoint.url.to_string();
    MemberView {
        role: status.map(|status| status.role.clone()).unwrap_or_default(),
        state: status.map(|status| status.state.clone()).unwrap_or_default(),
        timeline: status.and_then(|status| status.timeline),
        api: endpoint.heard.view(),
        why_not_read: Some("/cluster names no member at this URL".to_owned()),
        ..MemberView::unknown(url.clone(), url)
    }
}

/// How long after a promotion a replica may still report the old timeline.
const TIMELINE_GRACE: Duration = Duration::from_secs(30);

/// Behind the second that a ping and the new connection beside it have had.
const SILENCE_MIN: Duration = Duration::from_secs(1);
