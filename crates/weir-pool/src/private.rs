//! Server connections that one client has for itself from their dial to their end (replication). They take up room in
//! the pool like any other, but are never idle and never given to anybody else.

use std::time::Instant;

use crate::caps::Claim;
use crate::{Dice, Pool, ServerId, ServerState, Target};

/// What a client that needs a connection of its own gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PrivateRoom {
    /// Dial this target, and call [`Pool::private_started`].
    Dial(Target),
    /// The pool is full, but this connection was idle: close it (the pool has forgotten it), and ask again.
    CloseFirst(ServerId),
    /// Ask again when something has changed.
    None,
}

impl Pool {
    /// Whether a client that needs a connection of its own may have one now. While [`Pool::want_private`] is in force
    /// connections that are given back make room for it.
    pub fn private_room(&mut self, now: Instant, dice: &mut (impl Dice + ?Sized)) -> PrivateRoom {
        if self.paused || self.held() {
            return PrivateRoom::None;
        }
        let Some(target) = self.ledger.members.lightest(now, |_| false, dice) else {
            return PrivateRoom::None;
        };
        // Under limits that pools share it takes what is free, and closes none of another pool.
        let is_shared_free = self.ledger.share.claim(target.member, None, false) == Claim::Free;
        if self.ledger.slots() < self.limits.size.get() && is_shared_free {
            return PrivateRoom::Dial(target);
        }
        let Some(idle) = self.ledger.members.pick_idle(false, dice) else { return PrivateRoom::None };
        self.close(idle);
        self.finish();
        PrivateRoom::CloseFirst(idle)
    }

    /// Whether clients wait for a connection of their own.
    pub fn want_private(&mut self, wanted: bool) {
        self.private_wanted = wanted;
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
                member.dial_succeeded();
            }
        }
    }

    /// Such a connection is closed before its login finished, through no fault of its member.
    pub fn private_given_up(&mut self, server: ServerId) {
        self.ledger.remove(server);
        self.finish();
    }
}
