//! What one PostgreSQL holds: the rows it has committed, in order, on which timeline, and how far its standbys are. Knows no
//! sessions and no network.

use std::collections::BTreeMap;

/// A row that an application writes; each only once.
pub(crate) type Row = u32;

/// What a PostgreSQL is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Down,
    /// Recovers, and refuses connections meanwhile.
    Starting {
        as_standby: bool,
    },
    Standby,
    /// A standby that will be a primary in a moment.
    Promoting,
    Primary,
    /// A fast shutdown; afterwards it starts as a standby, or stays down.
    Stopping {
        restarts: bool,
    },
}

/// One committed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Tells commits of different histories apart.
    pub(crate) number: u64,
    pub(crate) rows: Vec<Row>,
}

#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) phase: Phase,
    pub(crate) timeline: u32,
    /// When its postmaster was started, in microseconds.
    pub(crate) started: u64,
    pub(crate) log: Vec<Commit>,
    /// By node: how much of the log it has.
    pub(crate) acknowledged: BTreeMap<usize, usize>,
    /// Commits wait for this node.
    pub(crate) synchronous: Option<usize>,
    /// Replay stands still here while the log goes on.
    pub(crate) replay_stops_at: Option<usize>,
    /// Its recovery has not ended yet: it starts as a standby, whoever wants it to lead.
    pub(crate) is_recovering: bool,
}

impl Database {
    pub(crate) fn new(phase: Phase) -> Self {
        Self {
            phase,
            timeline: 1,
            started: 0,
            log: Vec::new(),
            acknowledged: BTreeMap::new(),
            synchronous: None,
            replay_stops_at: None,
            is_recovering: phase == Phase::Standby,
        }
    }

    /// Lets sessions in.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Standby | Phase::Promoting | Phase::Primary)
    }

    pub(crate) fn writes(&self) -> bool {
        self.phase == Phase::Primary
    }

    /// A commit of this length of the log is where it has to be.
    pub(crate) fn is_safe(&self, length: usize) -> bool {
        self.synchronous.is_none_or(|node| self.acknowledged.get(&node).is_some_and(|have| *have >= length))
    }

    /// How much of the log can be seen.
    pub(crate) fn replayed(&self) -> usize {
        self.replay_stops_at.map_or(self.log.len(), |stopped| stopped.min(self.log.len()))
    }

    /// Everything of ours is in the other's log, too.
    pub(crate) fn is_prefix_of(&self, other: &Self) -> bool {
        let last = self.log.len();
        last <= other.log.len()
            && self.log.last().map(|commit| commit.number)
                == other.log[..last].last().map(|commit| commit.number)
    }

    /// Streaming: takes over what the other has more.
    pub(crate) fn catch_up(&mut self, other: &Self) {
        self.log.extend_from_slice(&other.log[self.log.len()..]);
        self.timeline = other.timeline;
    }

    /// pg_rewind: what the other does not have is lost.
    pub(crate) fn rewind(&mut self, other: &Self) {
        self.log.clone_from(&other.log);
        self.timeline = other.timeline;
    }
}
