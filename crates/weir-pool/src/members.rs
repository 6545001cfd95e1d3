//! The members a pool may use now: idle connections of each, how busy each is, and which one must not be dialled
//! for a moment. Knows server connections by name only.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ledger::Step;
use crate::{ServerId, ServerState, Target};

/// Pause after the first failed dial; doubles with each further one.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause between dials of a member that keeps failing.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// So long a fixed server that has failed, and a member that does not let a pool's user in, get no turn while there are
/// others, so that clients do not wait for them again and again.
pub(crate) const AVOIDED_FOR: Duration = Duration::from_secs(15);

/// All present targets. There are few (one in a write pool), so they are searched by walking.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) list: Vec<Member>,
    /// Fixed servers: place in the list of the one whose turn it is.
    turn: usize,
}

/// One present target.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) target: Target,
    /// Unused for longest first: given back at the end.
    pub(crate) idle: VecDeque<ServerId>,
    /// Connections in use that will come back to `idle`.
    pub(crate) busy: u32,
    pub(crate) dialing: u32,
    /// Its part of the load, compared to the others; 0: it is there for want of others.
    pub(crate) weight: u32,
    /// In turn: what it has gained since it was chosen last.
    pub(crate) credit: i64,
    /// When it last did not let this pool's user in, if nothing was heard of it since that could have changed it.
    pub(crate) shut_out_at: Option<Instant>,
    backoff: Backoff,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    until: Option<Instant>,
    failed_at: Option<Instant>,
    /// Clients need not wait for the end of the pause.
    fails_fast: bool,
}

impl Members {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.list.iter()
    }

    pub(crate) fn find(&mut self, target: Target) -> Option<&mut Member> {
        self.list.iter_mut().find(|member| member.target == target)
    }

    /// Makes `targets` the present ones. Members that stay keep their connections; every pause after failures ends.
    pub(crate) fn retarget(&mut self, targets: &[Target]) {
        let whose = self.list.get(self.turn).map(|member| member.target);
        self.list.retain(|member| targets.contains(&member.target));
        for &target in targets {
            match self.find(target) {
                Some(member) => member.forget_failures(),
                None => self.list.push(Member::new(target)),
            }
        }
        let place = |target| targets.iter().position(|other| *other == target).unwrap_or(usize::MAX);
        self.list.sort_by_key(|member| place(member.target));
        self.turn = self.list.iter().position(|member| Some(member.target) == whose).unwrap_or(0);
    }

    /// Fixed servers: the first from the one whose turn it is that may be dialled now, but for the targets that `not`.
    /// One that has failed lately comes behind all others.
    pub(crate) fn in_turn(&self, now: Instant, not: impl Fn(Target) -> bool) -> Option<Target> {
        let turn = self.turn.min(self.list.len());
        let (before, from_here) = self.list.split_at(turn);
        let may = |member: &&Member| member.may_dial(now) && !not(member.target);
        let may_dial = || from_here.iter().chain(before).filter(may);
        let good = may_dial().find(|member| !member.is_avoided(now));
        good.or_else(|| may_dial().next()).map(|member| member.target)
    }

    /// Fixed servers: the turn goes to the one behind this.
    pub(crate) fn pass_turn(&mut self, from: Target) {
        if let Some(at) = self.list.iter().position(|member| member.target == from) {
            self.turn = (at + 1) % self.list.len();
        }
    }

    /// Fixed servers: it is this one's turn from now on.
    pub(crate) fn give_turn(&mut self, target: Target) {
        self.turn = self.list.iter().position(|member| member.target == target).unwrap_or(0);
    }

    /// Whether it is this one's turn.
    pub(crate) fn has_turn(&self, target: Target) -> bool {
        self.list.get(self.turn).is_some_and(|member| member.target == target)
    }

    /// How much of the load each member gets, compared to the others; 0: none as long as others can take it.
    pub(crate) fn set_weights(&mut self, weight: impl Fn(Target) -> u32) {
        for member in &mut self.list {
            let weight = weight(member.target);
            if member.weight != weight {
                (member.weight, member.credit) = (weight, 0);
            }
        }
    }

    /// Clients need not wait: every member is left alone after a failure.
    pub(crate) fn fail_fast(&self, now: Instant) -> bool {
        let fails = |member: &Member| member.backoff.fails_fast && !member.may_dial(now);
        !self.list.is_empty() && self.list.iter().all(fails)
    }

    /// When the first of the members that are left alone may be dialled again.
    pub(crate) fn earliest_retry(&self) -> Option<Instant> {
        self.list.iter().filter_map(|member| member.backoff.until).min()
    }
}

impl Member {
    fn new(target: Target) -> Self {
        Self {
            target,
            idle: VecDeque::new(),
            busy: 0,
            dialing: 0,
            weight: 1,
            credit: 0,
            shut_out_at: None,
            backoff: Backoff::default(),
        }
    }

    /// Connections this member has or will have.
    pub(crate) fn load(&self) -> usize {
        self.idle.len() + self.busy as usize + self.dialing as usize
    }

    pub(crate) fn may_dial(&self, now: Instant) -> bool {
        self.backoff.until.is_none_or(|until| until <= now)
    }

    /// It has failed lately: another one is better, if there is another one.
    fn is_avoided(&self, now: Instant) -> bool {
        self.backoff.failed_at.is_some_and(|at| now.saturating_duration_since(at) < AVOIDED_FOR)
    }

    /// It has not let this pool's user in, not long ago.
    pub(crate) fn shuts_out(&self, now: Instant) -> bool {
        self.shut_out_at.is_some_and(|at| now.saturating_duration_since(at) < AVOIDED_FOR)
    }

    /// A connection to it is not likely to fail.
    pub(crate) fn is_promising(&self, now: Instant) -> bool {
        self.may_dial(now) && !self.shuts_out(now)
    }

    /// A dial has succeeded, or there is a reason to hope for one.
    pub(crate) fn forget_failures(&mut self) {
        self.backoff = Backoff::default();
        self.shut_out_at = None;
    }

    /// Several dials that fail together count once. With `retry` the member is left alone for that long, and clients
    /// need not wait.
    pub(crate) fn dial_failed(&mut self, retry: Option<Duration>, now: Instant) {
        if let Some(pause) = retry {
            self.backoff =
                Backoff { failures: 0, until: Some(now + pause), failed_at: Some(now), fails_fast: true };
            return;
        }
        if !self.may_dial(now) {
            return;
        }
        self.backoff.fails_fast = false;
        let pause =
            BACKOFF_MIN.saturating_mul(1 << self.backoff.failures.min(BACKOFF_DOUBLINGS)).min(BACKOFF_MAX);
        self.backoff.failures = self.backoff.failures.saturating_add(1);
        self.backoff.until = Some(now + pause);
        self.backoff.failed_at = Some(now);
    }

    /// One of its connections enters or leaves a state.
    pub(crate) fn weigh(&mut self, server: ServerId, state: ServerState, step: Step) {
        match (state, step) {
            (ServerState::Dialing, _) => step.apply(&mut self.dialing),
            (
                ServerState::Active(_) | ServerState::Parted | ServerState::Private | ServerState::Tested,
                _,
            ) => step.apply(&mut self.busy),
            (ServerState::Idle, Step::Enter) => self.idle.push_back(server),
            (ServerState::Idle, Step::Leave) => self.drop_idle(server),
        }
    }

    fn drop_idle(&mut self, server: ServerId) {
        if self.idle.back() == Some(&server) {
            self.idle.pop_back();
        } else if self.idle.front() == Some(&server) {
            self.idle.pop_front();
        } else {
            self.idle.retain(|&idle| idle != server);
        }
    }
}

/// Enough to get from the shortest pause to the longest.
const BACKOFF_DOUBLINGS: u32 = 5;
const _: () = assert!(BACKOFF_MIN.as_millis() << BACKOFF_DOUBLINGS >= BACKOFF_MAX.as_millis());
