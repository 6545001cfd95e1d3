//! Server connections that one client has for itself from their dial to their end (replication). They take up room in
//! the pool like any other, but are never idle and never given to anybody else.

use std::time::Instant;

use crate::caps::Claim;
use crate::choice::{Pick, Wish};
use crate::{Dice, Pool, ServerId, ServerState, Target};

/// What a client that needs a connection of its own gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PrivateRoom {
    /// Dial this target, and call [`Pool::private_started`].
    Dial(Target),
    /// The pool is full, but this connection was idle: close it (the pool has forgotten it), and ask again.
    CloseFirst(ServerId),
    /// To close this unused connection of another pool, as with [`NextDial::Evict`](crate::NextDial::Evict), and ask
    /// again.
    Evict(ServerId),
    /// Ask again when something has changed. A pool that a shared limit stops stands in line.
    None,
}

impl Pool {
    /// Whether a client that needs a connection of its own may have one now. While [`Pool::want_private`] is in force
    /// connections that are given back make room for it. `is_turn`: [`Caps::next_turn`](crate::Caps::next_turn) has named
    /// the pool.
    pub fn private_room(
        &mut self,
        now: Instant,
        is_turn: bool,
        dice: &mut (impl Dice + ?Sized),
    ) -> PrivateRoom {
        if self.paused || self.has_no_target() {
            return PrivateRoom::None;
        }
        let Some(target) = self.ledger.members.lightest(now, |_| false, dice) else {
            return PrivateRoom::None;
        };
        let since = self.private_since.unwrap_or(now);
        let claim = self.ledger.share.claim(target.member, Some(since), is_turn);
        let is_small = self.ledger.slots() < self.limits.size.get();
        if is_small && claim == Claim::Free {
            return PrivateRoom::Dial(target);
        }
        let wish = Wish { balance: self.limits.balance, oldest: false, not: None };
        if let Some(Pick { server: idle, .. }) = self.ledger.members.pick_idle(wish, dice) {
            self.close(idle);
            self.finish();
            return PrivateRoom::CloseFirst(idle);
        }
        if is_small {
            self.ledger.share.stand_in_line(since, &[target.member]);
        }
        match claim {
            Claim::Evict(_, server) if is_small => PrivateRoom::Evict(server),
            Claim::Evict(..) | Claim::Free | Claim::Blocked => PrivateRoom::None,
        }
    }

    /// Since when the first of the clients has waited that wait for a connection of their own; `None`: nobody does.
    pub fn want_private(&mut self, since: Option<Instant>) {
        self.private_since = since;
        self.finish();
    }

    /// A connection that is given back makes room for one that a client has for itself.
    pub(crate) fn gives_way_to_private(&self, to: Target) -> bool {
        let is_full = || {
            let is_small = self.ledger.slots() < self.limits.size.get();
            !is_small || self.ledger.share.claim(to.member, None, true) != Claim::Free
        };
        self.private_since.is_some() && is_full()
    }

    /// The caller dials `target` for one client, as [`Pool::private_room`] allowed. [`Pool::dial_failed`] if that fails.
    pub fn private_started(&mut self, server: ServerId, target: Target, now: Instant) {
        self.ledger.start(server, target, now);
        self.ledger.put(server, ServerState::Private, now);
        self.finish();
    }

    /// The login of such a connection finished.
    pub fn private_ready(&mut self, server: ServerId) {
        if let Some(entry) = self.ledger.get(server) {
            self.sums.opened += 1;
            self.sums.assignments += 1;
            if let Some(member) = self.ledger.members.find(entry.target) {
                member.forget_failures();
            }
        }
    }

    /// Such a connection is closed before its login finished, through no fault of its member.
    pub fn private_given_up(&mut self, server: ServerId) {
        self.ledger.remove(server);
        self.finish();
    }
}
