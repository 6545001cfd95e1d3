//! The reigns of leaders: what the read door still has open on one of the past, and whether the present one has only begun.

use std::time::Instant;

use weir_discovery::{Leadership, Topology};
use weir_pool::ServerId;

use crate::clock::hold_timeout;
use crate::io::Role;
use crate::{Worker, places, server_id};

/// The last leader that is known of.
#[derive(Debug, Default)]
pub(crate) struct Reign {
    number: Option<u64>,
    /// When it followed another one. The first has none to follow.
    began: Option<Instant>,
}

impl Worker {
    /// A topology is about to be followed.
    pub(crate) fn note_reign(&mut self, now: Instant, next: &Topology) {
        let number = |topology: &Topology| match &topology.leader {
            Leadership::Led { epoch_number, .. } => Some(*epoch_number),
            Leadership::Leaderless { .. } => None,
        };
        let before = self.reign.number.or_else(|| number(&self.topology));
        let next = number(next).or(before);
        if before.is_some() && next != before {
            self.reign.began = Some(now);
        }
        self.reign.number = next;
    }

    /// The leader has followed another one not longer ago than clients wait for one: what goes wrong there may be a matter of
    /// the new one (its pg_hba.conf), which others will put right.
    pub(crate) fn reign_is_new(&self, now: Instant) -> bool {
        let lasts = hold_timeout(&self.config.upstream).unwrap_or_default();
        self.reign.began.is_some_and(|began| now.saturating_duration_since(began) < lasts)
    }

    /// Connections of the read door to somebody who has led, but does not in the present epoch, and those whose member was
    /// promoted and leads nobody. Only a primary session outlives the end of a reign, and its client may have asked for
    /// read-write transactions: it is fenced like those of the write door. Without a leader they stay as those do.
    pub(crate) fn reads_of_the_past(&mut self) -> Vec<ServerId> {
        let Leadership::Led { address, epoch_number, .. } = &self.topology.leader else { return Vec::new() };
        let mut past = Vec::new();
        for (at, conn) in &mut self.servers {
            let key = &self.pools.entry(conn.pool).key;
            if key.role != Role::Read || !places::follows_cluster(&self.config, &key.database) {
                continue;
            }
            let leads = *conn.address == *address;
            if leads && conn.reign.is_none() {
                conn.reign = Some(*epoch_number);
            }
            let is_past = conn.reign.is_some_and(|reign| reign != *epoch_number);
            if is_past || conn.was_promoted() && !leads {
                past.push(server_id(at));
            }
        }
        past
    }
}
