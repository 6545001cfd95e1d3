//! Planned changes of the leader: while one is under way nobody starts a transaction on the leader, so that nothing is
//! cut off when it goes. Owns from when and until when at the latest; knows no transaction, and decides no succession.

use std::time::{Duration, Instant};

use crate::machine::Discovery;
use crate::patroni::{Listed, is_set};
use crate::schedule::{Schedule, Scheduled};
use crate::topology::{Epoch, Leadership};
use crate::url::ApiUrl;

/// Whom writes go to, or went to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// The member.
    pub member: String,
    /// Its cluster and timeline.
    pub epoch: Epoch,
    /// Grows with each (member, timeline) that is newly followed.
    pub number: u64,
    /// Writes go to it at this moment; false while nobody leads.
    pub lasts: bool,
}

/// What SWITCHOVER needs to know when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchoverPlan {
    /// Who leads.
    pub from: Reign,
    /// Who shall; `None`: Patroni chooses.
    pub to: Option<String>,
    /// REST APIs that can be asked for it, the leader's first.
    pub urls: Vec<ApiUrl>,
}

/// Transactions are kept from starting on the leader, by somebody's command.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    why: String,
    /// Whatever becomes of whoever asked, it ends here.
    until: Instant,
}

impl Discovery {
    /// SWITCHOVER begins: from now on nobody is given a connection to the leader, until [`Discovery::end_switchover`], a
    /// new reign, or `bound` has passed.
    ///
    /// # Errors
    /// A sentence that says why Patroni would not do it, as far as can be known.
    pub fn begin_switchover(
        &mut self,
        now: Instant,
        to: Option<&str>,
        bound: Duration,
    ) -> Result<SwitchoverPlan, String> {
        let plan = self.plan_switchover(to)?;
        let heir = to.map(|to| format!(" to {to}")).unwrap_or_default();
        let why = format!("a switchover from {}{heir} is under way", plan.from.member);
        self.news(now, false, format!("SWITCHOVER: {why}, no transaction is started"));
        self.asked = Some(Asked { why, until: now + bound });
        self.conclude(now);
        Ok(plan)
    }

    /// Lets transactions start again, wherever writes go now; `outcome` is written down.
    pub fn end_switchover(&mut self, now: Instant, outcome: &str) {
        self.asked = None;
        self.news(now, false, format!("SWITCHOVER: {outcome}"));
        self.conclude(now);
    }

    /// Writes down how far a switchover has come.
    pub fn note_switchover(&mut self, now: Instant, progress: &str) {
        self.news(now, false, format!("SWITCHOVER: {progress}"));
    }

    /// The last one that was followed, if there was one.
    pub fn reign(&self) -> Option<Reign> {
        let followed = self.followed.as_ref()?;
        Some(Reign {
            member: followed.member.clone(),
            epoch: followed.epoch,
            number: self.epoch_number,
            lasts: followed.holding_on,
        })
    }

    fn plan_switchover(&self, to: Option<&str>) -> Result<SwitchoverPlan, String> {
        let from = self.reign().filter(|reign| reign.lasts).ok_or("nobody leads at the moment")?;
        if let Leadership::Led { degraded: Some(why), .. } = &self.topology().leader {
            return Err(format!("the state of the leader is not certain: {why}"));
        }
        match to {
            Some(to) if to == from.member => return Err(format!("{to} leads already")),
            Some(to) => {
                let member = self.members.iter().find(|member| member.listed.name == to);
                let member = member.ok_or_else(|| format!("no member is called \"{to}\""))?;
                if let Some(why) = unfit(&member.listed, member.in_list) {
                    return Err(format!("{to} cannot lead: {why}"));
                }
            }
            None if self.is_paused => {
                return Err("Patroni is paused, and then switches over to a named member only".to_owned());
            }
            None => {
                let fit = |member: &crate::member::Member| {
                    member.listed.name != from.member && unfit(&member.listed, member.in_list).is_none()
                };
                if !self.members.iter().any(fit) {
                    return Err("no other member could lead".to_owned());
                }
            }
        }
        let (own, others): (Vec<_>, Vec<_>) = self
            .members
            .iter()
            .filter_map(|member| Some((&member.listed.name, member.listed.url.clone()?)))
            .partition(|(name, _)| **name == from.member);
        let urls: Vec<ApiUrl> = own.into_iter().chain(others).map(|(_, url)| url).collect();
        if urls.is_empty() {
            return Err("/cluster tells no member's REST API".to_owned());
        }
        Ok(SwitchoverPlan { from, to: to.map(str::to_owned), urls })
    }

    /// A callback is as good as evidence: everybody is asked at once, and what they say counts.
    pub(crate) fn pushed(&mut self, now: Instant) {
        self.news_at = now;
        if self.pushed_at.is_none_or(|last| now.saturating_duration_since(last) >= PUSH_TOLD) {
            self.pushed_at = Some(now);
            self.news(now, false, "a callback came, everybody is asked".to_owned());
        }
    }

    /// What a calendar says: the time since 1970-01-01 00:00 UTC. Scheduled switchovers are prepared by it; without it
    /// they are met like any other.
    pub fn tell_time(&mut self, now: Instant, since_epoch: Duration) {
        self.wall = Some((now, since_epoch));
    }

    /// Why nobody is given a connection to the leader although one is known; `None` if that is not so.
    pub(crate) fn planned(&self, now: Instant) -> Option<String> {
        let asked = self.asked.as_ref().filter(|asked| now < asked.until).map(|asked| asked.why.clone());
        let scheduled = || {
            let (schedule, begin, end) = self.pending()?;
            (begin <= now && now < end).then(|| schedule.told())
        };
        asked.or_else(scheduled).or_else(|| self.leader_restarts(now))
    }

    /// When [`Discovery::planned`] may change by itself.
    pub(crate) fn planned_changes(&self, now: Instant) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.until);
        let scheduled =
            self.pending().map(|(_, begin, end)| [begin.checked_sub(WATCHED), Some(begin), Some(end)]);
        let moments = scheduled.into_iter().flatten().flatten().chain(asked).chain(self.restarts_change(now));
        moments.filter(|moment| *moment > now).min()
    }

    /// A scheduled switchover is so near that its leader is worth watching closely.
    pub(crate) fn expects_change(&self, now: Instant) -> bool {
        self.pending().is_some_and(|(_, begin, end)| now + WATCHED >= begin && now < end)
    }

    /// `/cluster` tells what is scheduled.
    pub(crate) fn reschedule(&mut self, now: Instant, scheduled: Option<Scheduled>) {
        match (&mut self.schedule, scheduled) {
            (Some(known), Some(scheduled)) if known.scheduled == scheduled => known.seen = now,
            (_, Some(scheduled)) => {
                let schedule = Schedule { scheduled, seen: now, is_over: false };
                self.news(now, false, schedule.told());
                self.schedule = Some(schedule);
            }
            (Some(known), None) => {
                let gone = (!known.is_over).then(|| known.told());
                self.schedule = None;
                if let Some(told) = gone {
                    self.news(now, false, format!("no longer: {told}"));
                }
            }
            (None, None) => {}
        }
    }

    /// A scheduled switchover that has not happened keeps nobody waiting.
    pub(crate) fn give_up_late_plan(&mut self, now: Instant) {
        if self.pending().is_none_or(|(_, begin, end)| now < begin.max(end)) {
            return;
        }
        let Some(schedule) = &mut self.schedule else { return };
        schedule.is_over = true;
        let told = schedule.told();
        if self.is_led() {
            self.news(now, true, format!("{told}, but has not happened; transactions start again"));
        }
    }

    /// The scheduled switchover that is still to come, and when nobody begins a transaction for it.
    fn pending(&self) -> Option<(&Schedule, Instant, Instant)> {
        let schedule = self.schedule.as_ref().filter(|schedule| !schedule.is_over && !self.is_paused)?;
        let leader = self.followed.as_ref().map(|followed| &followed.member);
        let concerns_us = schedule.scheduled.from.as_ref().is_none_or(|from| Some(from) == leader);
        let (begin, end) =
            schedule.scheduled.moment.span(schedule.seen, self.wall?).filter(|_| concerns_us)?;
        Some((schedule, begin, end))
    }

    /// Somebody else is followed, or the same on another timeline: what was planned is over.
    pub(crate) fn plan_is_done(&mut self, now: Instant) {
        self.asked = None;
        // One that is scheduled for later may still come.
        let is_due = self.expects_change(now);
        if let Some(schedule) = self.schedule.as_mut().filter(|_| is_due) {
            schedule.is_over = true;
        }
    }
}

/// Callbacks that come closer together are one event to the log.
const PUSH_TOLD: Duration = Duration::from_secs(1);

/// So long before transactions begin to wait for a scheduled switchover members are asked often.
const WATCHED: Duration = Duration::from_secs(4);

/// Why Patroni would not take a member for the next leader, by what `/cluster` says of it.
fn unfit(listed: &Listed, in_list: bool) -> Option<String> {
    if !in_list {
        return Some("/cluster does not name it".to_owned());
    }
    if !matches!(listed.role.as_str(), "replica" | "sync_standby" | "quorum_standby") {
        return Some(format!("its role is \"{}\"", listed.role));
    }
    if !matches!(listed.state.as_str(), "running" | "streaming") {
        return Some(format!("its state is \"{}\"", listed.state));
    }
    is_set(&listed.tags, "nofailover").then(|| "it is tagged nofailover".to_owned())
}
