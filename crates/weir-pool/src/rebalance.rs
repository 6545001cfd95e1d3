//! Spreads a read pool's connections over its members, one at a time and with pauses between, so that a member that
//! came back gets its share without a herd on anybody. Knows nothing of clients.

use std::time::{Duration, Instant};

use crate::{Pool, PoolKind, ServerId, Target};

/// Least time between two moves.
const MOVE_PAUSE: Duration = Duration::from_millis(100);

/// Where the replacement of one connection stands. With a free slot the new connection is opened first, so a member
/// that cannot be dialled costs nobody a good connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// None is under way.
    Rest,
    /// One more dial is wanted than waiting clients ask for.
    Opening {
        /// The pool had a free slot, so nothing was closed to make room.
        close_after: bool,
    },
    /// The new one is open; one of the heaviest member goes.
    Closing,
}

impl Move {
    pub(crate) fn wants_dial(self) -> bool {
        matches!(self, Self::Opening { .. })
    }

    pub(crate) fn after_success(self) -> Self {
        match self {
            Self::Opening { close_after: true } | Self::Closing => Self::Closing,
            Self::Opening { close_after: false } | Self::Rest => Self::Rest,
        }
    }

    pub(crate) fn after_failure(self) -> Self {
        match self {
            Self::Opening { .. } | Self::Rest => Self::Rest,
            Self::Closing => Self::Closing,
        }
    }
}

impl Pool {
    /// One step towards a spread by weight over the members of a read pool, at most ten a second. Returns an idle
    /// connection to close, forgotten already; if the heaviest member has none idle, one of its busy ones is marked
    /// to close when given back. Ask [`Pool::next_dial`] afterwards: the replacement is dialled without a client.
    #[must_use = "this connection must be closed"]
    pub fn rebalance(&mut self, now: Instant) -> Option<ServerId> {
        let closed = self.rebalance_step(now);
        self.finish();
        closed
    }

    fn rebalance_step(&mut self, now: Instant) -> Option<ServerId> {
        let resting = self.moved_at.is_some_and(|last| now.saturating_duration_since(last) < MOVE_PAUSE);
        if self.kind != PoolKind::Read || self.paused || resting {
            return None;
        }
        match self.moving {
            Move::Opening { .. } => None,
            Move::Closing => {
                self.moving = Move::Rest;
                self.moved_at = Some(now);
                let from = self.ledger.members.heaviest()?.target;
                self.shed(from)
            }
            Move::Rest => {
                let from = self.ledger.members.uneven(now)?;
                let close_after = self.ledger.slots() < self.limits.size.get();
                self.moving = Move::Opening { close_after };
                self.moved_at = Some(now);
                if close_after { None } else { self.shed(from) }
            }
        }
    }

    /// Takes one connection from a member: the one unused for longest, or a busy one at its end.
    fn shed(&mut self, from: Target) -> Option<ServerId> {
        let member = self.ledger.members.find(from)?;
        if let Some(&idle) = member.idle.front() {
            self.close(idle);
            return Some(idle);
        }
        let takes =
            |server: &crate::ledger::Server| server.target == from && !server.retire && server.is_active();
        let busy = self.ledger.iter().filter(|(_, server)| takes(server)).map(|(id, _)| id).min()?;
        self.ledger.retire(busy);
        None
    }
}
