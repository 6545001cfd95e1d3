//! One pool's part in the limits that it shares with others: what it counts, and where it stands in line.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use crate::caps::{Asker, Book, Claim};
use crate::ledger::Step;
use crate::{CapId, Caps, MemberId, PoolId, ServerId};

/// A pool that shares nothing has no book.
#[derive(Debug, Default)]
pub(crate) struct Share {
    book: Option<Rc<RefCell<Book>>>,
    pool: PoolId,
    /// Limits of all its connections; that of a host depends on the member.
    fixed: Vec<CapId>,
    /// Since when the client has waited that the pool stands in line for.
    in_line: Option<Instant>,
}

impl Share {
    pub(crate) fn new(caps: &Caps, pool: PoolId, fixed: &[CapId]) -> Self {
        Self { book: Some(Rc::clone(&caps.0)), pool, fixed: fixed.to_vec(), in_line: None }
    }

    /// A connection comes into being, or ends.
    pub(crate) fn count(&self, member: MemberId, step: Step) {
        if let Some(book) = &self.book {
            book.borrow_mut().count(&self.fixed, member, step);
        }
    }

    /// A connection begins or ceases to rest.
    pub(crate) fn rest(&self, member: MemberId, server: ServerId, since: Instant, step: Step) {
        if let Some(book) = &self.book {
            book.borrow_mut().rest(&self.fixed, member, (self.pool, server, since), step);
        }
    }

    /// Whether there is a slot for a connection to this member.
    pub(crate) fn claim(&self, member: MemberId, since: Option<Instant>, is_turn: bool) -> Claim {
        let asker = Asker { pool: self.pool, since, is_turn };
        self.book.as_ref().map_or(Claim::Free, |book| book.borrow().claim(&self.fixed, member, asker))
    }

    /// Whether a connection that is free now must end; `own`: since when the pool's next client has waited.
    pub(crate) fn must_yield(&self, member: MemberId, own: Option<Instant>, now: Instant) -> bool {
        let Some(book) = &self.book else { return false };
        book.borrow_mut().must_yield((&self.fixed, member), self.pool, own, now)
    }

    /// More connections exist than a limit allows that has become smaller.
    pub(crate) fn is_over(&self, member: MemberId) -> bool {
        self.book.as_ref().is_some_and(|book| book.borrow().is_over(&self.fixed, member))
    }

    pub(crate) fn is_in_line(&self) -> bool {
        self.in_line.is_some()
    }

    /// Stands in line for a slot on one of these members, for a client that has waited since then.
    pub(crate) fn stand_in_line(&mut self, since: Instant, members: &[MemberId]) {
        let Some(book) = &self.book else { return };
        book.borrow_mut().stand_in_line((self.pool, since), &self.fixed, members);
        self.in_line = Some(since);
    }

    /// The client that the pool stands in line for is another one now, or there is none.
    pub(crate) fn stand_for(&mut self, since: Option<Instant>) {
        let Some(since) = since else { return self.leave_line() };
        if let Some(book) = self.book.as_ref().filter(|_| self.in_line.is_some_and(|before| before != since))
        {
            book.borrow_mut().stand_since(self.pool, since);
            self.in_line = Some(since);
        }
    }

    pub(crate) fn leave_line(&mut self) {
        if let Some(book) = self.book.as_ref().filter(|_| self.in_line.take().is_some()) {
            book.borrow_mut().leave_line(self.pool);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave_line();
    }
}
