//! Limits that several pools share: of a database, of a user, of a PostgreSQL host. Owns how many server connections
//! count against each, which of them nobody uses, and the line of pools that wait for a slot. Knows no client, no
//! name and no address; a pool tells what it does through its [`Share`](crate::share::Share).

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;

use crate::ledger::Step;
use crate::{CapId, MemberId, PoolId, ServerId};

/// All shared limits of one worker. A clone is another handle to the same ones.
#[derive(Debug, Clone, Default)]
pub struct Caps(pub(crate) Rc<RefCell<Book>>);

impl Caps {
    /// A new limit; `None`: it only counts.
    pub fn add(&self, max: Option<NonZeroU32>) -> CapId {
        let mut book = self.0.borrow_mut();
        let cap = book.free.pop().unwrap_or_else(|| {
            book.caps.push(Cap::default());
            CapId(u32::try_from(book.caps.len() - 1).unwrap_or(u32::MAX))
        });
        *book.entry(cap) = Cap { max, ..Cap::default() };
        cap
    }

    /// Forgets a limit that no pool and no member has any more; its name is given to another one.
    pub fn remove(&self, cap: CapId) {
        let mut book = self.0.borrow_mut();
        debug_assert!(book.entry(cap).used == 0, "connections that nobody counts any more");
        book.free.push(cap);
    }

    /// Connections to this member count against `cap` from now on, in every pool. To be said before its first dial.
    pub fn set_host(&self, member: MemberId, cap: CapId) {
        let mut book = self.0.borrow_mut();
        let at = member.0 as usize;
        if book.hosts.len() <= at {
            book.hosts.resize(at + 1, None);
        }
        book.hosts[at] = Some(cap);
    }

    /// The limit that connections to this member count against, if it has one.
    pub fn host(&self, member: MemberId) -> Option<CapId> {
        self.0.borrow().host(member)
    }

    /// Undoes [`Caps::set_host`]: no pool dials the member or has connections to it any more, and its name will be given to
    /// another one.
    pub fn forget_host(&self, member: MemberId) {
        if let Some(host) = self.0.borrow_mut().hosts.get_mut(member.0 as usize) {
            *host = None;
        }
    }

    /// Changes a limit (reload). True if it has changed: then every pool is to be told by
    /// [`Pool::list_idle`](crate::Pool::list_idle), and [`Caps::next_turn`] to be asked. Connections above a smaller
    /// limit close when given back, or come out of [`Pool::expired`](crate::Pool::expired).
    pub fn set_max(&self, cap: CapId, max: Option<NonZeroU32>) -> bool {
        let mut book = self.0.borrow_mut();
        let Some(entry) = book.caps.get_mut(cap.0 as usize).filter(|entry| entry.max != max) else {
            return false;
        };
        entry.max = max;
        entry.idle.clear();
        book.woken = true;
        true
    }

    /// Server connections that count against a limit, those in dialing or login included.
    pub fn used(&self, cap: CapId) -> u32 {
        self.0.borrow().caps.get(cap.0 as usize).map_or(0, |entry| entry.used)
    }

    /// The pool that is next to have a slot that became free under shared limits: of those that need nothing else, the
    /// one whose client came first. The caller asks it with [`Pool::dial_turn`](crate::Pool::dial_turn), then asks here
    /// again until there is none. To be asked after anything that may have closed a server connection; constant
    /// time if none was closed since, else linear in the number of pools in line that cannot go.
    pub fn next_turn(&self) -> Option<PoolId> {
        let mut book = self.0.borrow_mut();
        if !book.woken {
            return None;
        }
        let first = book.lines.iter().find(|(ticket, ways)| book.can_go(**ticket, ways, &[]));
        let pool = first.map(|(ticket, _)| ticket.pool);
        match pool {
            Some(pool) => book.leave_line(pool),
            None => book.woken = false,
        }
        pool
    }

    /// Panics if a limit is exceeded or a pool waits beside a free slot; `used` counts what a limit should count. Linear;
    /// for tests.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self, used: impl Fn(CapId) -> u32) {
        let book = self.0.borrow();
        for (at, entry) in book.caps.iter().enumerate() {
            let cap = CapId(u32::try_from(at).expect("few caps"));
            assert_eq!(entry.used, used(cap), "used of {cap:?}");
            assert!(entry.max.is_none_or(|max| entry.used <= max.get()), "{cap:?} is exceeded: {entry:?}");
            assert!(entry.max.is_some() || entry.idle.is_empty(), "{cap:?} lists for nothing");
        }
        let idler = book.lines.iter().find(|(ticket, ways)| book.can_go(**ticket, ways, &[]));
        assert_eq!(idler, None, "it has a slot, and does not go");
        assert_eq!(book.lines.len(), book.tickets.len());
    }
}

/// What [`Caps`] share.
#[derive(Debug, Default)]
pub(crate) struct Book {
    caps: Vec<Cap>,
    /// Limits that stand for nothing.
    free: Vec<CapId>,
    /// By member.
    hosts: Vec<Option<CapId>>,
    /// Pools in line, first come first, with the limits under which each needs a slot, for each member it could dial.
    lines: BTreeMap<Ticket, Vec<Vec<CapId>>>,
    tickets: HashMap<PoolId, Ticket, FixedState>,
    /// A slot has become free since the line was gone through.
    woken: bool,
    last_ticket: u64,
}

/// One limit.
#[derive(Debug, Default)]
struct Cap {
    max: Option<NonZeroU32>,
    used: u32,
    /// Connections nobody uses, resting for longest first; only kept while there is a limit.
    idle: BTreeMap<(Instant, ServerId), PoolId>,
    /// When a connection was last closed for another pool although its own pool had a client for it.
    handed_over: Option<Instant>,
}

/// A pool's place in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    /// Since when the client has waited that needs the slot.
    pub(crate) since: Instant,
    /// Who stood in line first, if they came at the same time.
    pub(crate) number: u64,
    pub(crate) pool: PoolId,
}

/// Whether a slot can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Under every limit.
    Free,
    /// If this connection of another pool is closed; the same may be true under another limit then.
    Evict(PoolId, ServerId),
    /// Not now.
    Blocked,
}

/// Who asks for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) pool: PoolId,
    /// Since when its client has waited; `None`: no client does, and nobody is to suffer for it.
    pub(crate) since: Option<Instant>,
    /// It is this pool's turn: those in line come later.
    pub(crate) is_turn: bool,
}

impl Book {
    /// The limit of a member's host.
    fn host(&self, member: MemberId) -> Option<CapId> {
        self.hosts.get(member.0 as usize).copied().flatten()
    }

    fn entry(&mut self, cap: CapId) -> &mut Cap {
        &mut self.caps[cap.0 as usize]
    }

    pub(crate) fn count(&mut self, fixed: &[CapId], member: MemberId, step: Step) {
        let host = self.host(member);
        for &cap in fixed.iter().chain(&host) {
            let entry = self.entry(cap);
            step.apply(&mut entry.used);
        }
        self.woken |= step == Step::Leave && !self.lines.is_empty();
    }

    /// A connection begins or ceases to rest.
    pub(crate) fn rest(
        &mut self,
        fixed: &[CapId],
        member: MemberId,
        (pool, server, since): (PoolId, ServerId, Instant),
        step: Step,
    ) {
        let host = self.host(member);
        for &cap in fixed.iter().chain(&host) {
            let entry = self.entry(cap);
            if entry.max.is_none() {
                continue;
            }
            match step {
                Step::Enter => drop(entry.idle.insert((since, server), pool)),
                Step::Leave => drop(entry.idle.remove(&(since, server))),
            }
        }
    }

    /// Whether there is a slot under every limit.
    pub(crate) fn claim(&self, fixed: &[CapId], member: MemberId, asker: Asker) -> Claim {
        let host = self.host(member);
        let mut victim = None;
        for &cap in fixed.iter().chain(&host) {
            let Some(entry) = self.caps.get(cap.0 as usize) else { continue };
            if entry.has_room() {
                // Others may have waited longer for what has just become free: the line is gone through first.
                if entry.max.is_some() && self.woken && !asker.is_turn {
                    return Claim::Blocked;
                }
                continue;
            }
            match entry.idle_of_others(asker.pool).filter(|_| asker.since.is_some()) {
                Some(other) => victim = victim.or(Some(other)),
                None => return Claim::Blocked,
            }
        }
        victim.map_or(Claim::Free, |(pool, server)| Claim::Evict(pool, server))
    }

    /// Whether a pool in line could dial one of its members now, or if these limits had one slot more.
    fn can_go(&self, ticket: Ticket, ways: &[Vec<CapId>], freed: &[CapId]) -> bool {
        let has_slot = |cap: &CapId| {
            let may = |entry: &Cap| entry.has_room() || entry.idle_of_others(ticket.pool).is_some();
            freed.contains(cap) || self.caps.get(cap.0 as usize).is_some_and(may)
        };
        ways.iter().any(|way| way.iter().all(has_slot))
    }

    /// Whether a connection that has just become free has to end, because that serves a client of another pool that came
    /// before `own`, the next client of its own pool, or because a limit has become smaller.
    pub(crate) fn must_yield(
        &mut self,
        (fixed, member): (&[CapId], MemberId),
        pool: PoolId,
        own: Option<Instant>,
        now: Instant,
    ) -> bool {
        let host = self.host(member);
        let freed: Vec<CapId> = fixed
            .iter()
            .chain(&host)
            .filter(|cap| self.caps.get(cap.0 as usize).is_some_and(|entry| !entry.has_room()))
            .copied()
            .collect();
        if freed.is_empty() {
            return false;
        }
        if self.is_over(fixed, member) {
            return true;
        }
        let comes_first = |ticket: &Ticket| own.is_none_or(|own| ticket.since < own);
        let is_owed = self
            .lines
            .iter()
            .take_while(|(ticket, _)| comes_first(ticket))
            .any(|(ticket, ways)| ticket.pool != pool && self.can_go(*ticket, ways, &freed));
        if !is_owed || own.is_none() {
            return is_owed;
        }
        let just_did = |last: Instant| now.saturating_duration_since(last) < HANDOVER_PAUSE;
        let last = freed.iter().filter_map(|cap| self.caps.get(cap.0 as usize)?.handed_over).max();
        if last.is_some_and(just_did) {
            return false;
        }
        freed.iter().for_each(|cap| self.entry(*cap).handed_over = Some(now));
        true
    }

    pub(crate) fn is_over(&self, fixed: &[CapId], member: MemberId) -> bool {
        let is_over = |cap: &CapId| {
            let entry = self.caps.get(cap.0 as usize);
            entry.is_some_and(|entry| entry.max.is_some_and(|max| entry.used > max.get()))
        };
        let host = self.host(member);
        fixed.iter().chain(&host).any(is_over)
    }

    /// Puts a pool in line, for a client that has waited since then; `members` are those that it could dial.
    pub(crate) fn stand_in_line(
        &mut self,
        (pool, since): (PoolId, Instant),
        fixed: &[CapId],
        members: &[MemberId],
    ) {
        let way = |member: &MemberId| fixed.iter().copied().chain(self.host(*member)).collect();
        let ways = members.iter().map(way).collect();
        let before = self.tickets.get(&pool).copied().filter(|ticket| ticket.since == since);
        self.leave_line(pool);
        let ticket = before.unwrap_or_else(|| self.ticket(pool, since));
        self.tickets.insert(pool, ticket);
        self.lines.insert(ticket, ways);
    }

    pub(crate) fn leave_line(&mut self, pool: PoolId) {
        if let Some(ticket) = self.tickets.remove(&pool) {
            self.lines.remove(&ticket);
        }
    }

    /// The client that a pool stands in line for is another one now.
    pub(crate) fn stand_since(&mut self, pool: PoolId, since: Instant) {
        if let Some(ways) = self.tickets.remove(&pool).and_then(|ticket| self.lines.remove(&ticket)) {
            let ticket = self.ticket(pool, since);
            self.tickets.insert(pool, ticket);
            self.lines.insert(ticket, ways);
        }
    }

    fn ticket(&mut self, pool: PoolId, since: Instant) -> Ticket {
        self.last_ticket += 1;
        Ticket { since, number: self.last_ticket, pool }
    }
}

impl Cap {
    fn has_room(&self) -> bool {
        self.max.is_none_or(|max| self.used < max.get())
    }

    /// The connection that has rested longest and is of another pool.
    fn idle_of_others(&self, pool: PoolId) -> Option<(PoolId, ServerId)> {
        let other = self.idle.iter().find(|(_, owner)| **owner != pool);
        other.map(|((_, server), owner)| (*owner, *server))
    }
}

/// Least time between two connections that are closed under one limit although their own pool had a client for them. It
/// keeps a limit that many clients press against from opening a connection for each transaction, and costs a
/// client this much more than its turn.
pub(crate) const HANDOVER_PAUSE: Duration = Duration::from_millis(10);
