//! The cluster's store, as Patroni uses it: the leader key with its time to live, the key that names the synchronous
//! standby, and the wish for a switchover. Knows nothing of who can reach it.

use std::time::Duration;

use crate::schedule::Scheduled;

#[derive(Debug)]
pub(crate) struct Dcs {
    pub(crate) is_up: bool,
    /// Holder, and when the key expires.
    pub(crate) leader: Option<(usize, Duration)>,
    /// Who may take over: the last leader and its synchronous standby.
    pub(crate) sync: (usize, Option<usize>),
    /// A switchover to this node is wanted.
    pub(crate) switchover: Option<usize>,
    /// Maintenance: Patroni changes nothing.
    pub(crate) paused: bool,
    pub(crate) scheduled: Option<Scheduled>,
    /// When the last one was to be.
    pub(crate) last_scheduled: Duration,
    /// The cluster follows another one: nobody is promoted.
    pub(crate) is_standby: bool,
}

impl Dcs {
    pub(crate) fn new() -> Self {
        Self {
            is_up: true,
            leader: None,
            sync: (0, None),
            switchover: None,
            scheduled: None,
            last_scheduled: Duration::ZERO,
            paused: false,
            is_standby: false,
        }
    }

    /// Who holds the leader key.
    pub(crate) fn holder(&self, now: Duration) -> Option<usize> {
        self.leader.filter(|(_, expires)| *expires > now).map(|(node, _)| node)
    }

    /// Whether this node has everything that was acknowledged.
    pub(crate) fn may_take_over(&self, node: usize) -> bool {
        self.sync.0 == node || self.sync.1 == Some(node)
    }
}
