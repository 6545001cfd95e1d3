//! A switchover that somebody has scheduled with Patroni: when it happens, how `/cluster` tells of it, and what calendars say.
//! Patroni's calendar is right; a weir's may leap.

use std::time::Duration;

use crate::laws::Law;
use crate::world::{Event, World};

/// In the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheduled {
    /// Since the story began.
    pub(crate) at: Duration,
    pub(crate) from: usize,
    pub(crate) to: Option<usize>,
}

impl World {
    /// An administrator schedules one, unless there is one or was a moment ago.
    pub(crate) fn schedule(&mut self, to: usize, ahead: Duration) {
        let now = self.agenda.now();
        let Some(from) = self.dcs.holder(now) else { return };
        let is_free = self.dcs.scheduled.is_none() && now >= self.dcs.last_scheduled + APART;
        if is_free && from != to && !self.dcs.is_standby && !self.dcs.paused {
            self.dcs.last_scheduled = now + ahead;
            let to = self.dice.once_in(2).then_some(to);
            self.dcs.scheduled = Some(Scheduled { at: now + ahead, from, to });
        }
    }

    /// The leader's Patroni looks at what is scheduled: it comes in time if that is before its next look.
    pub(crate) fn heed_schedule(&mut self, node: usize, now: Duration) {
        let Some(scheduled) = self.dcs.scheduled else { return };
        if scheduled.from != node || now > scheduled.at + STALE {
            self.dcs.scheduled = None;
        } else if now >= scheduled.at {
            self.dcs.scheduled = None;
            let standby = || self.dcs.sync.1.or_else(|| self.any_standby());
            self.dcs.switchover = scheduled.to.or_else(standby);
            self.maybe_switch_over(node);
        } else if scheduled.at - now < self.plan.loop_wait {
            self.agenda.at(scheduled.at, Event::Scheduled { node });
        }
    }

    pub(crate) fn scheduled_now(&mut self, node: usize) {
        let now = self.agenda.now();
        let agent = &self.nodes[node].patroni;
        if agent.is_up && agent.leads && self.dcs.is_up && self.dcs.holder(now) == Some(node) {
            self.heed_schedule(node, now);
        }
    }

    /// As it stands in `/cluster`, with a comma in front.
    pub(crate) fn scheduled_body(&self) -> String {
        let Some(Scheduled { at, from, to }) = self.dcs.scheduled else { return String::new() };
        let to = to.map(|to| format!(r#", "to": "n{to}""#)).unwrap_or_default();
        let (seconds, micros) = (at.as_secs(), at.subsec_micros());
        let time = format!("2027-01-15T08:{:02}:{:02}.{micros:06}+00:00", seconds / 60, seconds % 60);
        format!(r#", "scheduled_switchover": {{"at": "{time}", "from": "n{from}"{to}}}"#)
    }

    /// A weir reads its calendar.
    pub(crate) fn tell_time(&mut self, weir: usize) {
        let (now, true_time) = (self.instant(), STORY_BEGINS + self.agenda.now());
        let process = &mut self.weirs[weir];
        let said = match process.calendar {
            Calendar::Right => true_time,
            Calendar::Ahead(by) => true_time + by,
            Calendar::Behind(by) => true_time.saturating_sub(by),
        };
        process.discovery.tell_time(now, said);
    }

    /// What is planned and does not come about keeps nobody waiting for long.
    pub(crate) fn check_plan(&mut self, weir: usize) {
        let now = self.instant();
        let process = &mut self.weirs[weir];
        if process.discovery.topology().planned.is_none() || process.switchover.is_some() {
            process.planned_since = None;
            return;
        }
        let since = *process.planned_since.get_or_insert(now);
        Law::PlansEnd.holds(now - since < HELD_MAX, || format!("w{weir} has been waiting since {since:?}"));
    }
}

/// How a weir's calendar does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calendar {
    Right,
    Ahead(Duration),
    Behind(Duration),
}

/// 2027-01-15 08:00 UTC, since 1970.
const STORY_BEGINS: Duration = Duration::from_secs(1_800_000_000);
/// What Patroni is late for by so much it forgets.
const STALE: Duration = Duration::from_secs(10);
/// Between two of them.
const APART: Duration = Duration::from_secs(15);
/// A second before the time, ten behind it, and a leap of the calendar meanwhile.
const HELD_MAX: Duration = Duration::from_secs(13);
