//! When a pool opens one more server connection: for clients that wait, for a login that needs to have seen one, to move
//! one to another member, to keep a least number; and when its clients need not wait because nobody can be reached.

use std::time::Instant;

use crate::caps::Claim;
use crate::{
    CapId, Caps, DialFailure, Dice, Limits, MemberId, NextDial, Pool, PoolId, PoolKind, ServerId, Target,
};

/// What one more server connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// For somebody who waits since then.
    Somebody(Instant),
    /// For nobody yet: no other pool's connection is closed for it.
    Spare,
    /// The same, of this member.
    SpareOf(Target),
}

impl Pool {
    /// Counts the pool's connections against limits that it shares with others: these, and those of the hosts it dials.
    /// To be said before the first dial.
    pub fn join(&mut self, caps: &Caps, pool: PoolId, fixed: &[CapId]) {
        debug_assert!(self.ledger.is_empty(), "connections that were not counted");
        self.ledger.share = crate::share::Share::new(caps, pool, fixed);
    }

    /// Lists the unused connections under a limit that [`Caps::set_max`] has changed.
    pub fn list_idle(&self) {
        self.ledger.list_idle();
    }

    /// What to do now for one more server connection, if anything: the caller does it and asks again. Bounded by the
    /// waiting clients that no dial under way will serve, by the size and the reserve, by `dials_at_once`, by the
    /// pause after failures of a member, and by shared limits. A pool that a shared limit stops stands in line;
    /// [`Caps::next_turn`] names it.
    pub fn next_dial(&mut self, now: Instant, dice: &mut (impl Dice + ?Sized)) -> NextDial {
        self.dial_step(now, false, dice)
    }

    /// The same for a pool that [`Caps::next_turn`] has named: it need not stand back for others in line.
    pub fn dial_turn(&mut self, now: Instant, dice: &mut (impl Dice + ?Sized)) -> NextDial {
        self.dial_step(now, true, dice)
    }

    fn dial_step(&mut self, now: Instant, is_turn: bool, dice: &mut (impl Dice + ?Sized)) -> NextDial {
        let Some(want) = self.want(now) else {
            self.wished = None;
            self.leave_line();
            return NextDial::Nothing;
        };
        let (since, of) = match want {
            Want::Somebody(since) => (Some(since), None),
            Want::Spare => (None, None),
            Want::SpareOf(target) => (None, self.wished.take().filter(|wished| *wished == target)),
        };
        let mut full: Vec<Target> = Vec::new();
        let mut next = NextDial::Nothing;
        while let Some(target) = self.candidate(now, of, &full, dice) {
            match self.ledger.share.claim(target.member, since, is_turn) {
                Claim::Free => {
                    self.ledger.share.leave_line();
                    return NextDial::Dial(target);
                }
                Claim::Evict(pool, server) => {
                    // Who came first gets what this frees, be it this pool or another.
                    next = NextDial::Evict(pool, server);
                    full.push(target);
                    break;
                }
                Claim::Blocked => full.push(target),
            }
        }
        let members: Vec<MemberId> = full.iter().map(|target| target.member).collect();
        match since.filter(|_| !members.is_empty()) {
            Some(since) => {
                let since = self.private_since.map_or(since, |private| private.min(since));
                self.ledger.share.stand_in_line(since, &members);
            }
            None => self.leave_line(),
        }
        next
    }

    /// Nothing is to be dialed for the queue, but perhaps for a client that waits for a connection of its own.
    fn leave_line(&mut self) {
        if self.private_since.is_none() {
            self.ledger.share.leave_line();
        }
    }

    /// Whom to dial, if not these; `of`: this one or nobody.
    fn candidate(
        &self,
        now: Instant,
        of: Option<Target>,
        not: &[Target],
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<Target> {
        let not = |target| not.contains(&target) || of.is_some_and(|of| of != target);
        match self.kind {
            PoolKind::Write | PoolKind::Read => self.ledger.members.lightest(now, not, dice),
            PoolKind::Turns | PoolKind::First => self.ledger.members.in_turn(now, not),
        }
    }

    /// When to ask [`Pool::next_dial`] again, if it says nothing only because dials failed a moment ago.
    pub fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.want(now).and_then(|_| self.ledger.members.earliest_retry())
    }

    /// A login waits for what only a server connection can tell: one is dialled even if no client waits, unless the
    /// pool has one or is dialing one. Void after the next login of a server, and by [`Pool::demand_none`].
    pub fn demand_one(&mut self, now: Instant) {
        if self.ledger.open() == self.ledger.private {
            self.demanded.get_or_insert(now);
        }
        self.finish();
    }

    /// Undoes [`Pool::demand_one`]: the login that waited has ended.
    pub fn demand_none(&mut self) {
        self.demanded = None;
        self.finish();
    }

    /// Whether somebody has use for `min_size` connections: a client is there, or the pool's user is fixed.
    pub fn keep_min(&mut self, keep: bool) {
        self.keeps_min = keep;
    }

    /// The caller dials `target` for the pool, as [`Pool::next_dial`] asked. True if the connection is one of the
    /// reserve.
    pub fn dial_started(&mut self, server: ServerId, target: Target, now: Instant) -> bool {
        let is_reserve = self.ledger.slots() >= self.limits.size.get();
        self.ledger.start(server, target, now);
        match self.kind {
            PoolKind::Turns => self.ledger.members.pass_turn(target),
            PoolKind::First if !self.ledger.members.has_turn(target) => {
                // Those in front of it cannot be dialled now: it keeps the turn.
                self.ledger.members.give_turn(target);
            }
            PoolKind::Write | PoolKind::Read | PoolKind::First => {}
        }
        self.finish();
        is_reserve
    }

    /// The dial or the login failed; the pool forgets the connection and leaves its member alone for a moment.
    pub fn dial_failed(&mut self, server: ServerId, failure: DialFailure, now: Instant) {
        if let Some(gone) = self.ledger.remove(server) {
            self.sums.dial_failures += 1;
            self.moving = self.moving.after_failure();
            self.warming = 0;
            if self.kind == PoolKind::First && self.ledger.members.has_turn(gone.target) {
                self.ledger.members.pass_turn(gone.target);
            }
            let retry = match failure {
                DialFailure::Refused | DialFailure::NotLetIn => self.limits.login_retry,
                DialFailure::NotYet => None,
            };
            if let Some(member) = self.ledger.members.find(gone.target) {
                member.dial_failed(retry, now);
                if failure == DialFailure::NotLetIn {
                    member.shut_out_at = Some(now);
                }
            }
        }
        self.finish();
    }

    /// True while clients fail at once: there is no connection, and nobody who could be dialed has let weir in lately.
    pub fn fails_fast(&self, now: Instant) -> bool {
        let is_alone = self.ledger.open() == self.ledger.private;
        is_alone && !self.paused && !self.suspended && self.ledger.members.fail_fast(now)
    }

    /// True while no target is left that has not shut this pool out lately ([`DialFailure::NotLetIn`]): whoever waits for a
    /// new connection waits in vain.
    pub fn is_shut_out(&self, now: Instant) -> bool {
        self.ledger.members.iter().all(|member| member.shuts_out(now))
    }

    /// Most connections at once, the reserve included.
    pub(crate) fn slots_allowed(&self) -> u32 {
        let Limits { size, reserve, .. } = self.limits;
        size.get().saturating_add(reserve)
    }

    /// Connections that are not closed for resting too long.
    pub(crate) fn kept(&self) -> u32 {
        if self.keeps_min { self.limits.min_size.min(self.limits.size.get()) } else { 0 }
    }

    /// Connections that will serve somebody soon: in dialing, or being tested.
    fn coming(&self) -> usize {
        (self.ledger.dialing + self.ledger.tested) as usize
    }

    /// The first who waits and whom none of those will serve: since when.
    pub(crate) fn unserved(&self) -> Option<Instant> {
        let demanded = self.demanded.filter(|_| self.ledger.is_empty());
        self.queue.since(self.coming()).or(demanded)
    }

    fn want(&self, now: Instant) -> Option<Want> {
        let (slots, dialing) = (self.ledger.slots(), self.ledger.dialing);
        if self.paused || self.suspended || dialing >= self.limits.dials_at_once.max(1) {
            return None;
        }
        let is_small = slots < self.limits.size.get();
        if let Some(since) = self.unserved()
            && (is_small || self.may_use_reserve(now))
        {
            return Some(Want::Somebody(since));
        }
        if let Some(target) = self.wished.filter(|_| is_small) {
            return Some(Want::SpareOf(target));
        }
        let moves =
            self.moving.wants_dial() && self.queue.len().max(usize::from(self.demands())) >= self.coming();
        // One after the other: nobody waits for them.
        let tops_up = dialing == 0 && slots < self.kept().max(self.warming);
        (is_small && (moves || tops_up)).then_some(Want::Spare)
    }

    fn demands(&self) -> bool {
        self.demanded.is_some() && self.ledger.is_empty()
    }

    fn may_use_reserve(&self, now: Instant) -> bool {
        let Some(timeout) = self.limits.reserve_timeout else { return false };
        self.ledger.slots() < self.slots_allowed() && self.queue.has_waited(self.coming(), timeout, now)
    }
}
