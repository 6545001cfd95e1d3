//! Restarts of members that somebody has scheduled with Patroni: whose is at hand, and when it is over. A replica that is
//! about to restart gets no new reads, a leader no new transactions. Owns no verdict on who leads or lags.

use std::time::Instant;

use crate::machine::Discovery;
use crate::member::Member;
use crate::patroni::Listed;
use crate::schedule::Moment;
use crate::topology::Monitor;

/// What `/cluster` says of a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScheduledRestart {
    pub moment: Moment,
    /// Patroni restarts only a member with this role.
    pub role: Option<String>,
    /// Patroni restarts only a member with settings that wait for a restart.
    pub only_if_pending: bool,
}

impl ScheduledRestart {
    /// Patroni would carry it out, as far as `/cluster` tells. A condition on PostgreSQL's version is taken to be met.
    fn concerns(&self, listed: &Listed) -> bool {
        let leads = listed.role == "leader";
        let is_of_role = match self.role.as_deref() {
            Some("primary" | "master") => leads,
            Some("replica") => !leads && listed.role != "standby_leader",
            Some(_) | None => true,
        };
        is_of_role && (!self.only_if_pending || listed.pending_restart)
    }
}

/// A scheduled restart and what has become of it.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    moment: Moment,
    /// When `/cluster` last named it.
    seen: Instant,
    /// What tells the PostgreSQL that is to be restarted from the one after it: as monitors and as the REST API tell.
    before: (u64, Option<String>),
    /// It has happened, or has been waited for in vain.
    is_over: bool,
}

impl Restart {
    fn told(&self, member: &str) -> String {
        format!("a restart of {member} is scheduled for {}", self.moment.text)
    }
}

impl Discovery {
    /// `/cluster` tells whose restart is scheduled.
    pub(crate) fn note_restarts(&mut self, now: Instant) {
        for at in 0..self.members.len() {
            let moment = told(&self.members[at]);
            let is_at_hand = self.restart_at_hand(now, &self.members[at]).is_some();
            let before = (self.members[at].incarnation, self.started(&self.members[at]));
            let member = &mut self.members[at];
            match (moment, &mut member.restart) {
                (Some(moment), Some(known)) if known.moment == moment => known.seen = now,
                (Some(moment), known) => {
                    let restart = Restart { moment, seen: now, before, is_over: false };
                    let text = restart.told(&member.listed.name);
                    *known = Some(restart);
                    self.news(now, false, text);
                }
                // What is at hand and no longer named may be under way.
                (None, Some(_)) if is_at_hand => {}
                (None, known) => *known = None,
            }
        }
    }

    /// Why a member is about to restart; `None` if it is not.
    pub(crate) fn restart_at_hand(&self, now: Instant, member: &Member) -> Option<String> {
        let (restart, begin, end) = self.pending_restart(member)?;
        (begin <= now && now < end).then(|| restart.told(&member.listed.name))
    }

    /// The same of the leader that is followed.
    pub(crate) fn leader_restarts(&self, now: Instant) -> Option<String> {
        let leader = &self.followed.as_ref()?.member;
        self.restart_at_hand(now, self.members.iter().find(|member| member.listed.name == *leader)?)
    }

    /// When [`Discovery::restart_at_hand`] may change by itself.
    pub(crate) fn restarts_change(&self, now: Instant) -> Option<Instant> {
        let spans = self.members.iter().filter_map(|member| self.pending_restart(member));
        spans.flat_map(|(_, begin, end)| [begin, end]).filter(|moment| *moment > now).min()
    }

    /// Who was started anew has restarted; who does not restart in time keeps nobody waiting.
    pub(crate) fn end_restarts(&mut self, now: Instant) {
        for at in 0..self.members.len() {
            let member = &self.members[at];
            let Some((restart, begin, end)) = self.pending_restart(member) else { continue };
            let (incarnation, before) = &restart.before;
            let started = self.started(member);
            let is_new = before.is_some() && started.is_some() && started != *before;
            let has_restarted = is_new || *incarnation != member.incarnation;
            let is_late = now >= begin.max(end);
            let stays = matches!(member.monitor, Monitor::Off | Monitor::Standby | Monitor::Primary { .. });
            let text = format!("{}, but has not happened", restart.told(&member.listed.name));
            let Some(restart) = &mut self.members[at].restart else { continue };
            restart.is_over = has_restarted || is_late;
            if restart.before.1.is_none() {
                restart.before.1 = started;
            }
            if is_late && !has_restarted && stays {
                self.news(now, true, text);
            }
        }
    }

    /// The member's restart that is still to come, and when it is at hand.
    fn pending_restart<'a>(&self, member: &'a Member) -> Option<(&'a Restart, Instant, Instant)> {
        let restart = member.restart.as_ref().filter(|restart| !restart.is_over && !self.is_paused)?;
        let (begin, end) = restart.moment.span(restart.seen, self.wall?)?;
        Some((restart, begin, end))
    }

    /// When its PostgreSQL was started, in Patroni's words.
    fn started(&self, member: &Member) -> Option<String> {
        self.heard_of(member).status().and_then(|status| status.started.clone())
    }
}

/// The restart that the last `/cluster` answer announces for a member.
fn told(member: &Member) -> Option<Moment> {
    let restart = member.listed.restart.as_ref().filter(|_| member.in_list)?;
    restart.concerns(&member.listed).then(|| restart.moment.clone())
}
