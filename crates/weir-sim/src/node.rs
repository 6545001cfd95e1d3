//! A machine with one PostgreSQL and its Patroni: their state. What they do is in `server` and `patroni`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::backend::{Backend, STRANGER, SYSTEM};
use crate::database::{Database, Phase};
use crate::wire::WireId;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) data: Database,
    /// The server of another cluster that has got this node's address while it is away.
    pub(crate) stranger: Option<Database>,
    /// By process id.
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) last_pid: u32,
    /// Counts changes of the phase: an event of an earlier one does not count.
    pub(crate) run: u32,
    /// Weirs whose monitors are connected.
    pub(crate) monitors: BTreeSet<usize>,
    /// Connections whose other ends have not noticed that this machine was switched off.
    pub(crate) ghosts: Vec<WireId>,
    /// Replay breaks off what sessions of a standby read.
    pub(crate) has_conflicts: bool,
    pub(crate) patroni: Patroni,
}

/// One Patroni agent.
#[derive(Debug)]
pub(crate) struct Patroni {
    pub(crate) is_up: bool,
    /// Counts its starts.
    pub(crate) run: u32,
    /// Believes that it holds the leader key: what `/primary` answers by.
    pub(crate) leads: bool,
    /// When it last reached the store, if it does not now.
    pub(crate) lost_store_at: Option<Duration>,
    pub(crate) api: Api,
    pub(crate) noloadbalance: bool,
}

/// How the REST API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Honest,
    Hangs,
    Refuses,
    /// Says 200 (true) or 503 whatever is.
    Lies(bool),
    /// Says the other role.
    WrongRole,
    /// Says something that is no answer.
    Garbage,
}

impl Node {
    /// The server that answers at this node's address, and its sessions.
    pub(crate) fn serving(&mut self) -> (&mut Database, &mut BTreeMap<u32, Backend>) {
        (self.stranger.as_mut().unwrap_or(&mut self.data), &mut self.backends)
    }

    pub(crate) fn system(&self) -> u64 {
        if self.stranger.is_some() { STRANGER } else { SYSTEM }
    }

    /// The first one leads.
    pub(crate) fn new(index: usize) -> Self {
        let phase = if index == 0 { Phase::Primary } else { Phase::Standby };
        Self {
            data: Database::new(phase),
            stranger: None,
            backends: BTreeMap::new(),
            // Numbers of different machines do not meet.
            last_pid: u32::try_from(index).unwrap_or(0) * 1_000_000,
            run: 0,
            monitors: BTreeSet::new(),
            ghosts: Vec::new(),
            has_conflicts: false,
            patroni: Patroni {
                is_up: true,
                run: 0,
                leads: index == 0,
                lost_store_at: None,
                api: Api::Honest,
                noloadbalance: false,
            },
        }
    }
}
