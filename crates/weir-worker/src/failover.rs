//! Which failover a lost server connection belongs to, for the errors that tell of it. Discovery counts them. What is lost
//! before it knows of one belongs to it if that connection's leader was given up without having shown a sign of life since;
//! a client that has not been told by then hears of it. Makes up no numbers, and does not guess: an operator may end a
//! session a second before a leader dies.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use weir_discovery::{GivenUp, Leadership, Topology};
use weir_pool::ClientId;

use crate::io::Role;
use crate::pools::PoolIndex;
use crate::{Worker, key, places};

/// What is known of the failover that losses belong to.
#[derive(Debug, Default)]
pub(crate) struct Failover {
    /// Its number, while one is under way.
    number: Option<u64>,
    /// Losses seen before discovery knew of a failover, oldest first.
    untold: VecDeque<Untold>,
}

/// A loss that its client will be told of with its next request.
#[derive(Debug)]
struct Untold {
    client: ClientId,
    /// Tells a reused id.
    serial: u64,
    since: Instant,
    /// Whose reign the lost connection was of.
    epoch_number: u64,
}

impl Untold {
    /// The connection was of the reign that is given up, and its PostgreSQL was not heard of again.
    fn belongs_to(&self, end: GivenUp) -> bool {
        end.epoch_number == self.epoch_number && end.lived_at.is_some_and(|lived| lived <= self.since)
    }
}

impl Failover {
    /// The number of the one under way.
    pub(crate) fn number(&self) -> Option<u64> {
        self.number
    }
}

impl Worker {
    /// The pool leads to whoever leads the cluster.
    pub(crate) fn follows_leader(&self, index: PoolIndex) -> bool {
        let key = &self.pools.entry(index).key;
        key.role == Role::Write && !places::has_hosts(&self.config, &key.database)
    }

    /// A client is going to be told of a loss with its next request.
    pub(crate) fn note_untold(&mut self, now: Instant, client: ClientId, serial: u64) {
        if let Leadership::Led { epoch_number, .. } = self.topology.leader {
            self.failover.untold.push_back(Untold { client, serial, since: now, epoch_number });
        }
    }

    /// A topology is about to be followed: which failover losses belong to from now on, and which of those before it that
    /// their clients have not heard of yet.
    pub(crate) fn note_failover(&mut self, now: Instant, next: &Topology) {
        let is_led = matches!(next.leader, Leadership::Led { .. });
        let was_led = matches!(self.topology.leader, Leadership::Led { .. });
        let goes_on = !is_led || !was_led || next.failover != self.topology.failover;
        self.failover.number = Some(next.failover).filter(|number| goes_on && *number > 0);
        let Some(number) = self.failover.number else { return };
        self.forget_untold(now);
        let mut seen = HashSet::new();
        // Whoever has lost something twice has been told of the first.
        let last = |loss: &Untold| seen.insert((loss.client, loss.serial));
        let untold = std::mem::take(&mut self.failover.untold).into_iter().rev().filter(last);
        let belonging = untold.filter(|loss| next.given_up.is_some_and(|end| loss.belongs_to(end)));
        for Untold { client, serial, .. } in belonging {
            let client = self.clients.get_mut(key(client.0)).filter(|client| client.serial == serial);
            if let Some(open) = client.and_then(|client| client.open_mut()) {
                open.session.belongs_to_failover(number);
            }
        }
    }

    /// The topology is followed. Once somebody leads, what is lost belongs to no failover.
    pub(crate) fn note_failover_over(&mut self) {
        if matches!(self.topology.leader, Leadership::Led { .. }) {
            self.failover.number = None;
        }
    }

    /// Drops losses that are too old to belong to a failover that begins now: a leader without a sign of life is given up
    /// long before.
    pub(crate) fn forget_untold(&mut self, now: Instant) {
        let is_old = |untold: &mut Untold| now.saturating_duration_since(untold.since) > FAILOVER_SEEN_WITHIN;
        while self.failover.untold.pop_front_if(is_old).is_some() {}
    }
}

/// So long losses are kept for a failover that may begin.
const FAILOVER_SEEN_WITHIN: Duration = Duration::from_secs(10);
