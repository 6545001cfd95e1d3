//! Which failover a lost server connection belongs to, for the errors that tell of it. Discovery counts them; what is lost
//! before it knows of one is named afterwards, if the client has not been told by then. Makes up no numbers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use weir_discovery::{Leadership, Topology};
use weir_pool::ClientId;

use crate::io::Role;
use crate::pools::PoolIndex;
use crate::{Worker, key, places};

/// What is known of the failover that losses belong to.
#[derive(Debug, Default)]
pub(crate) struct Failover {
    /// Its number, while one is under way.
    number: Option<u64>,
    /// Losses seen before discovery knew of a failover, oldest first. At most one for each client.
    untold: VecDeque<Untold>,
}

/// A loss that its client will be told of with its next request.
#[derive(Debug)]
struct Untold {
    client: ClientId,
    /// Tells a reused id.
    serial: u64,
    since: Instant,
}

impl Failover {
    /// The number of the one under way.
    pub(crate) fn number(&self) -> Option<u64> {
        self.number
    }

    /// A client's loss may turn out to belong to a failover that nobody knows of yet.
    pub(crate) fn note_untold(&mut self, now: Instant, client: ClientId, serial: u64) {
        self.untold.push_back(Untold { client, serial, since: now });
    }
}

impl Worker {
    /// The pool leads to whoever leads the cluster.
    pub(crate) fn follows_leader(&self, index: PoolIndex) -> bool {
        let key = &self.pools.entry(index).key;
        key.role == Role::Write && !places::has_hosts(&self.config, &key.database)
    }

    /// A topology is about to be followed: which failover losses belong to from now on. Those of the last seconds that
    /// their clients have not heard of yet do, too.
    pub(crate) fn note_failover(&mut self, now: Instant, next: &Topology) {
        let is_led = matches!(next.leader, Leadership::Led { .. });
        let was_led = matches!(self.topology.leader, Leadership::Led { .. });
        let goes_on = !is_led || !was_led || next.failover != self.topology.failover;
        self.failover.number = Some(next.failover).filter(|number| goes_on && *number > 0);
        let Some(number) = self.failover.number else { return };
        self.forget_untold(now);
        for Untold { client, serial, since: _ } in std::mem::take(&mut self.failover.untold) {
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

    /// Drops losses that are too old to belong to a failover that begins now.
    pub(crate) fn forget_untold(&mut self, now: Instant) {
        let is_old = |untold: &mut Untold| now.saturating_duration_since(untold.since) > FAILOVER_SEEN_WITHIN;
        while self.failover.untold.pop_front_if(is_old).is_some() {}
    }
}

/// Connections of a leader that dies are lost at most this long before discovery gives it up.
const FAILOVER_SEEN_WITHIN: Duration = Duration::from_secs(10);
