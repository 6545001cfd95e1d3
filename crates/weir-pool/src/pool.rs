//! One pool: who gets a server connection next, and whether to open or close some. Owns the accounting of one
//! (database, user, role); the connections themselves, and every byte on them, are the caller's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::choice::{Pick, Wish};
use crate::ledger::{Ledger, Server};
use crate::queue::Queue;
use crate::rebalance::Move;
use crate::{
    Checkout, ClientId, Dice, Limits, MemberId, PoolCounts, PoolKind, PoolSums, ServerFacts, ServerId,
    ServerState, Settled, Target,
};

/// The accounting of one (database, user, role). [`Pool::next_dial`] is asked in a loop after anything that may leave
/// clients without a connection, free a slot, or name new targets.
#[derive(Debug)]
pub struct Pool {
    pub(crate) kind: PoolKind,
    pub(crate) limits: Limits,
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
    pub(crate) sums: PoolSums,
    pub(crate) paused: bool,
    /// Nobody may be served, though connections are kept: whether their member still leads is not known.
    pub(crate) suspended: bool,
    /// Who should serve is not what it was said to be, and nobody else is named: [`Pool::bar`].
    pub(crate) barred: bool,
    /// A hold has just ended: [`Pool::grant_idle`] serves those who wait from connections that were kept.
    resuming: bool,
    /// Since when a login needs to have seen one server connection, though no client asks for it.
    pub(crate) demanded: Option<Instant>,
    /// Somebody has use for the least number of connections.
    pub(crate) keeps_min: bool,
    /// Since when a client has waited for a connection of its own.
    pub(crate) private_since: Option<Instant>,
    pub(crate) moving: Move,
    pub(crate) moved_at: Option<Instant>,
    /// A member that should have a connection more, opened for nobody, by the next [`Pool::next_dial`].
    pub(crate) wished: Option<Target>,
    /// The connection that was given back last had to end for other pools.
    gave_way: bool,
    /// The most open connections since the pool last closed some by itself: what it needs when it begins anew elsewhere.
    pub(crate) had: u32,
    /// So many connections are opened ahead, because the pool had them at the leader before.
    pub(crate) warming: u32,
    /// When a connection was last closed for its age.
    aged_at: Option<Instant>,
    /// The size, or more for as long as connections from before a smaller limit live.
    slots_max: u32,
}

impl Pool {
    /// An empty pool. It holds its clients until [`Pool::retarget`] names somebody to dial.
    pub fn new(kind: PoolKind, limits: Limits) -> Self {
        Self {
            kind,
            limits,
            ledger: Ledger::default(),
            queue: Queue::new(),
            sums: PoolSums::default(),
            paused: false,
            suspended: false,
            barred: false,
            resuming: false,
            demanded: None,
            keeps_min: false,
            private_since: None,
            wished: None,
            gave_way: false,
            moving: Move::Rest,
            moved_at: None,
            had: 0,
            warming: 0,
            aged_at: None,
            slots_max: limits.size.get().saturating_add(limits.reserve),
        }
    }

    /// A client wants a server connection. It must neither wait nor hold one already. Constant time; allocates only
    /// while the queue grows beyond its longest so far.
    pub fn checkout(&mut self, client: ClientId, now: Instant, dice: &mut (impl Dice + ?Sized)) -> Checkout {
        let may_have = !self.paused && !self.suspended && self.queue.is_empty();
        let checkout = match may_have.then(|| self.usable_idle(now, None, dice)).flatten() {
            Some(server) => {
                self.grant(server, client, Duration::ZERO, now);
                Checkout::Granted(server)
            }
            None if self.fails_fast(now) => Checkout::Failing,
            None if self.queue.len() >= self.limits.waiting_max as usize => {
                self.sums.refused += 1;
                Checkout::QueueFull
            }
            None => {
                self.queue.push(client, now);
                Checkout::Queued
            }
        };
        self.finish();
        checkout
    }

    /// The same for a request that has failed on one member: an idle connection of another. `None`: there is none; one is
    /// opened, if there is room, by the next [`Pool::next_dial`], and the client may ask again or check out as usual.
    pub fn checkout_elsewhere(
        &mut self,
        client: ClientId,
        not: MemberId,
        now: Instant,
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<ServerId> {
        let may_have = !self.paused && !self.suspended && self.queue.is_empty();
        let server = may_have.then(|| self.usable_idle(now, Some(not), dice)).flatten();
        match server {
            Some(server) => self.grant(server, client, Duration::ZERO, now),
            None => self.wish_elsewhere(not, now, dice),
        }
        self.finish();
        server
    }

    /// Has a connection to another member opened by the next [`Pool::next_dial`], if none is idle and there is room.
    pub fn wish_elsewhere(&mut self, not: MemberId, now: Instant, dice: &mut (impl Dice + ?Sized)) {
        let is_other = |target: Target| target.member != not;
        let members = &self.ledger.members;
        if !members.iter().any(|member| is_other(member.target) && !member.idle.is_empty()) {
            self.wished = members.lightest(now, |target| !is_other(target), dice);
        }
    }

    /// Whether [`Pool::next_dial`] would open a connection that nobody waits for.
    pub fn has_wish(&self) -> bool {
        self.wished.is_some()
    }

    /// How much of the load each member gets, compared to the others; 0: none as long as others can take it. Holds for the
    /// members there are; behind each [`Pool::retarget`] it has to be said anew for those that came.
    pub fn set_weights(&mut self, weight: impl Fn(Target) -> u32) {
        self.ledger.members.set_weights(weight);
    }

    /// A connection that has rested too long to be given out as it is ([`Limits::test_after`]), while clients wait: the
    /// caller tests it and gives it back, or discards it. Ask in a loop, in front of [`Pool::next_dial`].
    pub fn next_test(&mut self, now: Instant, dice: &mut (impl Dice + ?Sized)) -> Option<ServerId> {
        let may_have = self.limits.test_after.is_some() && !self.paused && !self.suspended;
        let wanted = self.queue.len() > self.ledger.tested as usize;
        let wish = Wish { balance: self.limits.balance, oldest: false, not: None };
        let picked = (may_have && wanted).then(|| self.ledger.members.pick_idle(wish, dice)).flatten()?;
        let server = picked.server;
        self.ledger.put(server, ServerState::Tested, now);
        self.finish();
        Some(server)
    }

    /// The login finished; the connection can be used.
    pub fn ready(&mut self, server: ServerId, now: Instant) -> Settled {
        let settled = match self.ledger.get(server) {
            Some(entry) if entry.state == ServerState::Dialing => {
                self.logged_in(entry.target, now);
                self.settle(server, entry, now)
            }
            // Let go of in the meantime; whoever still holds it may only close it.
            Some(_) | None => Settled::Retire,
        };
        self.finish();
        settled
    }

    /// A client is done with its server connection, and the caller has proof that it is at rest: no open
    /// transaction, no reply owed.
    pub fn give_back(&mut self, server: ServerId, now: Instant) -> Settled {
        self.gave_way = false;
        let settled = match self.ledger.get(server) {
            Some(entry) if entry.is_active() && self.is_aged(entry, now) => self.end(server),
            Some(entry) if entry.is_active() => self.settle(server, entry, now),
            Some(_) | None => Settled::Retire,
        };
        self.finish();
        settled
    }

    /// Whether the connection that was given back last had to end because of a limit that pools share: for another pool's
    /// client, or since the limit has become smaller.
    pub fn gave_way(&self) -> bool {
        self.gave_way
    }

    /// The client has let go of its server connection, which is not at rest yet (it is being cleaned, or a cancel request
    /// is under way). It stays in use, by nobody, until it is given back or discarded; the client may ask for another.
    pub fn part(&mut self, server: ServerId, now: Instant) {
        if self.ledger.get(server).is_some_and(|entry| entry.is_active()) {
            self.ledger.put(server, ServerState::Parted, now);
        }
        self.finish();
    }

    /// The connection is gone, whatever its state. A name the pool does not know is ignored.
    pub fn discard(&mut self, server: ServerId) {
        self.close(server);
        self.finish();
    }

    /// The client waits no longer. Linear in the number of waiting clients.
    pub fn forget(&mut self, client: ClientId) {
        self.queue.forget(client);
        self.finish();
    }

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Clients that have waited this long or longer, whatever for; the one that has waited longest first.
    pub fn long_waiting(&self, now: Instant, limit: Duration) -> Vec<ClientId> {
        self.queue.long_waiting(now, limit)
    }

    /// How long the first in the queue has waited, whatever for.
    pub fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        self.queue.oldest_wait(now)
    }

    /// The clients that wait, and how long each has for the *present* cause, as with [`Pool::overdue`].
    pub fn waits(&self, now: Instant) -> impl Iterator<Item = (ClientId, Duration)> {
        self.queue.waits(now)
    }

    /// Removes and returns the clients that have waited `limit` or longer for the *present* cause: for a target if
    /// the pool is [`Pool::held`], else for a free connection. Time spent on the other cause does not count.
    /// A limit of zero empties the queue. Constant time if none has.
    pub fn overdue(&mut self, now: Instant, limit: Duration) -> Vec<ClientId> {
        let mut overdue = Vec::new();
        while let Some(client) = self.queue.pop_overdue(now, limit) {
            overdue.push(client);
        }
        self.sums.overdue += overdue.len() as u64;
        self.finish();
        overdue
    }

    /// The same with a limit for each client (`None`: it waits for ever). Linear in the number of waiting clients.
    pub fn overdue_each(
        &mut self,
        now: Instant,
        limit: impl Fn(ClientId) -> Option<Duration>,
    ) -> Vec<ClientId> {
        let overdue = self.queue.take_overdue(now, limit);
        self.sums.overdue += overdue.len() as u64;
        self.finish();
        overdue
    }

    /// Gives an idle connection to the first in the queue: after a hold that ended with the same leader.
    pub fn grant_idle(
        &mut self,
        now: Instant,
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<(ServerId, ClientId)> {
        let may_have = !self.paused && !self.suspended && !self.queue.is_empty();
        let Some(server) = may_have.then(|| self.usable_idle(now, None, dice)).flatten() else {
            self.resuming = false;
            return None;
        };
        let (client, waited) = self.queue.pop(now)?;
        self.grant(server, client, waited, now);
        self.finish();
        Some((server, client))
    }

    /// Another kind (reload), in front of [`Pool::retarget`], which lets go of connections as the new kind does.
    pub fn set_kind(&mut self, kind: PoolKind) {
        self.kind = kind;
        self.moving = Move::Rest;
    }

    /// Follows these targets and no others; returns the connections to close at once, forgotten already.
    ///
    /// A write pool lets go of every connection that is not of the target, busy or not. A read pool lets go of idle
    /// and dialing ones on members that left (or stay with another epoch); busy ones close when given back.
    #[must_use = "these connections must be closed"]
    pub fn retarget(&mut self, targets: &[Target], now: Instant) -> Vec<ServerId> {
        if self.kind == PoolKind::Write
            && targets.iter().any(|target| self.ledger.members.find(*target).is_none())
        {
            self.warming = std::mem::take(&mut self.had).min(self.limits.size.get());
        }
        debug_assert!(
            self.kind != PoolKind::Write || targets.len() < 2,
            "a write pool has one target at most"
        );
        self.resuming = std::mem::take(&mut self.suspended);
        let closed = self.let_go(self.kind == PoolKind::Write, |server| !targets.contains(&server.target));
        self.ledger.members.retarget(targets);
        self.barred = false;
        self.queue.set_held(targets.is_empty(), now);
        self.finish();
        closed
    }

    /// Replaces every connection (RECONNECT): returns the idle and dialing ones for closing, forgotten already;
    /// the busy ones close when given back.
    #[must_use = "these connections must be closed"]
    pub fn retire_all(&mut self) -> Vec<ServerId> {
        let closed = self.let_go(false, |_| true);
        self.finish();
        closed
    }

    /// Replaces these connections as [`Pool::retire_all`] replaces all.
    #[must_use = "these connections must be closed"]
    pub fn retire_some(&mut self, which: &[ServerId]) -> Vec<ServerId> {
        let mut closed = Vec::new();
        for &server in which {
            match self.ledger.get(server) {
                None => {}
                Some(entry) if entry.is_active() => self.ledger.retire(server),
                Some(_) => {
                    self.close(server);
                    closed.push(server);
                }
            }
        }
        if !which.is_empty() {
            self.moving = Move::Rest;
        }
        self.finish();
        closed
    }

    /// Idle connections that are too old, unused for too long, or too many after a smaller limit came: returned for
    /// closing, forgotten already.
    #[must_use = "these connections must be closed"]
    pub fn expired(&mut self, now: Instant) -> Vec<ServerId> {
        let resting: Vec<ServerId> =
            self.ledger.members.iter().flat_map(|member| member.idle.iter().copied()).collect();
        let mut expired = Vec::new();
        for server in resting {
            let Some(entry) = self.ledger.get(server) else { continue };
            let too_many =
                self.ledger.slots() > self.slots_allowed() || self.ledger.share.is_over(entry.target.member);
            if too_many || self.is_unused(entry, now) || self.is_aged(entry, now) {
                self.close(server);
                expired.push(server);
            }
        }
        if !expired.is_empty() {
            self.had = self.ledger.open();
        }
        self.finish();
        expired
    }

    /// Gives out nothing until [`Pool::resume`]. Returns the idle and dialing connections for closing, forgotten
    /// already (PgBouncer's PAUSE disconnects from the server too); the busy ones close when given back.
    #[must_use = "these connections must be closed"]
    pub fn pause(&mut self) -> Vec<ServerId> {
        self.paused = true;
        (self.had, self.warming) = (0, 0);
        let closed = self.let_go(false, |_| true);
        self.finish();
        closed
    }

    /// Undoes [`Pool::pause`]. Clients may be waiting: ask [`Pool::next_dial`].
    pub fn resume(&mut self) {
        self.paused = false;
        self.finish();
    }

    /// True between [`Pool::pause`] and [`Pool::resume`].
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Paused, and no client uses a server connection any more.
    pub fn is_quiet(&self) -> bool {
        self.paused && self.ledger.active + self.ledger.tested == 0
    }

    /// New limits (reload). With a smaller size, idle connections beyond it come out of [`Pool::expired`] and busy
    /// ones retire when given back.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.slots_max = self.ledger.slots().max(self.slots_allowed());
        self.finish();
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many of what there are now. Constant time.
    pub fn counts(&self) -> PoolCounts {
        let Ledger { active, idle, dialing, tested, .. } = self.ledger;
        let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        PoolCounts { active, idle, dialing, tested, waiting }
    }

    /// Sums since the pool was made.
    pub fn sums(&self) -> PoolSums {
        self.sums
    }

    /// One connection, if it is in this pool.
    pub fn server(&self, server: ServerId) -> Option<ServerFacts> {
        self.ledger.get(server).map(|entry| entry.facts())
    }

    /// Members that the pool dials or has connections to; some more than once.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        let dialed = self.ledger.members.iter().map(|member| member.target.member);
        dialed.chain(self.ledger.iter().map(|(_, entry)| entry.target.member))
    }

    /// All connections, in no order that means anything.
    pub fn servers(&self) -> impl Iterator<Item = (ServerId, ServerFacts)> {
        self.ledger.iter().map(|(id, entry)| (id, entry.facts()))
    }

    /// An idle connection that a client can be given as it is.
    fn usable_idle(
        &mut self,
        now: Instant,
        not: Option<MemberId>,
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<ServerId> {
        let oldest = self.limits.round_robin;
        let wish = Wish { balance: self.limits.balance, oldest, not };
        let Pick { server: chosen, missed } = self.ledger.members.pick_idle(wish, dice)?;
        if self.kind == PoolKind::Read && self.ledger.slots() < self.limits.size.get() {
            self.wished = missed.filter(|target| self.ledger.members.is_short(*target, now));
        }
        let Some(limit) = self.limits.test_after else { return Some(chosen) };
        let is_fresh = |server: ServerId| {
            let entry = self.ledger.get(server);
            entry.is_some_and(|entry| now.saturating_duration_since(entry.last_used) < limit)
        };
        if is_fresh(chosen) {
            return Some(chosen);
        }
        // Each list is in the order in which its connections were given back.
        let stale = |idle: &VecDeque<ServerId>| idle.partition_point(|server| !is_fresh(*server));
        let members = self.ledger.members.iter().filter(|member| Some(member.target.member) != not);
        members
            .filter_map(|member| {
                let last = member.idle.len().checked_sub(1)?;
                member.idle.get(if oldest { stale(&member.idle) } else { last }).copied()
            })
            .find(|&server| is_fresh(server))
    }

    fn logged_in(&mut self, target: Target, now: Instant) {
        if std::mem::take(&mut self.barred) {
            self.queue.set_held(self.suspended, now);
        }
        self.sums.opened += 1;
        let open = self.ledger.open() + 1;
        self.had = self.had.max(open);
        if open >= self.warming {
            self.warming = 0;
        }
        self.demanded = None;
        self.moving = self.moving.after_success();
        if let Some(member) = self.ledger.members.find(target) {
            member.forget_failures();
        }
    }

    /// A connection is free: for the client that waits longest, for the idle list, or for nobody any more.
    fn settle(&mut self, server: ServerId, entry: Server, now: Instant) -> Settled {
        let too_many = self.ledger.slots() > self.slots_allowed();
        let gives_way = self.gives_way_to_private(entry.target);
        if entry.retire || self.paused || too_many || gives_way {
            return self.end(server);
        }
        self.gave_way = self.must_yield(entry, now);
        if self.gave_way {
            return self.end(server);
        }
        let next = if self.suspended { None } else { self.queue.pop(now) };
        match next {
            Some((client, waited)) => {
                self.grant(server, client, waited, now);
                Settled::Grant(client)
            }
            None => {
                self.ledger.put(server, ServerState::Idle, now);
                Settled::Idle
            }
        }
    }

    /// Whether the slot of a connection that is free belongs to another pool's client.
    fn must_yield(&self, entry: Server, now: Instant) -> bool {
        let own = if self.suspended { None } else { self.queue.since(0) };
        // One that has just been opened serves once at least, or pools could open connections for nothing in turns.
        let is_new = entry.state == ServerState::Dialing && own.is_some();
        !is_new && self.ledger.share.must_yield(entry.target.member, own, now)
    }

    fn end(&mut self, server: ServerId) -> Settled {
        self.sums.closed += u64::from(self.ledger.remove(server).is_some());
        Settled::Retire
    }

    fn grant(&mut self, server: ServerId, client: ClientId, waited: Duration, now: Instant) {
        self.ledger.put(server, ServerState::Active(client), now);
        self.sums.assignments += 1;
        self.sums.wait_micros += u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
    }

    /// Forgets a connection and counts its end.
    pub(crate) fn close(&mut self, server: ServerId) {
        if let Some(gone) = self.ledger.remove(server) {
            self.sums.closed += u64::from(gone.state != ServerState::Dialing);
        }
    }

    pub(crate) fn let_go(&mut self, busy_too: bool, which: impl Fn(&Server) -> bool) -> Vec<ServerId> {
        (self.moving, self.wished) = (Move::Rest, None);
        let dialing_before = self.ledger.dialing;
        let closed = self.ledger.let_go(busy_too, which);
        let never_open = (dialing_before - self.ledger.dialing) as usize;
        self.sums.closed += (closed.len() - never_open) as u64;
        closed
    }

    fn is_unused(&self, entry: Server, now: Instant) -> bool {
        let unused_for = now.saturating_duration_since(entry.last_used);
        self.limits.idle_timeout.is_some_and(|limit| unused_for >= limit) && self.ledger.open() > self.kept()
    }

    /// True if the connection is to end for its age; the next one then has to wait for a while.
    fn is_aged(&mut self, entry: Server, now: Instant) -> bool {
        let Some(lifetime) = self.limits.lifetime else { return false };
        let gap = lifetime / self.limits.size.get();
        let just_closed_one = self.aged_at.is_some_and(|last| now.saturating_duration_since(last) < gap);
        let aged = now.saturating_duration_since(entry.created) >= lifetime && !just_closed_one;
        if aged {
            self.aged_at = Some(now);
        }
        aged
    }

    /// To be called at the end of whatever changes the pool: keeps its place in line for shared limits true to its queue.
    #[inline]
    pub(crate) fn finish(&mut self) {
        if self.ledger.share.is_in_line() {
            let may_dial = !self.paused && !self.suspended;
            let since = [self.unserved(), self.private_since].into_iter().flatten().min();
            self.ledger.share.stand_for(since.filter(|_| may_dial));
        }
        if cfg!(debug_assertions) {
            self.slots_max = self.slots_max.min(self.slots_allowed().max(self.ledger.slots()));
            self.check_invariants();
        }
    }

    /// Panics if the pool contradicts itself. Linear, so debug builds only.
    fn check_invariants(&self) {
        self.ledger.check_invariants();
        let slots = self.ledger.slots();
        assert!(slots <= self.slots_max, "{slots} slots of {}", self.slots_max);
        // What has to be tested first is not to be had at once.
        let tests = self.limits.test_after.is_some();
        let may_wait_beside = self.suspended || self.resuming || self.queue.is_empty() || tests;
        assert!(may_wait_beside || self.ledger.idle == 0, "a client waits beside an idle connection");
        assert!(
            !self.paused || self.ledger.idle + self.ledger.dialing == 0,
            "a paused pool keeps connections"
        );
        let mut clients: Vec<ClientId> = self.queue.clients().collect();
        clients.extend(self.ledger.iter().filter_map(|(_, server)| match server.state {
            ServerState::Active(client) => Some(client),
            ServerState::Idle
            | ServerState::Dialing
            | ServerState::Parted
            | ServerState::Private
            | ServerState::Tested => None,
        }));
        clients.sort_unstable();
        let distinct = clients.windows(2).all(|pair| matches!(pair, [one, other] if one != other));
        assert!(distinct, "a client waits twice, holds two, or waits and holds");
    }
}
