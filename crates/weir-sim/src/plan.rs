//! What kind of story a seed tells: how many of everything, and the cluster's habits.

use std::time::Duration;

use weir_discovery::ReadPolicy;

use crate::application::Kind;
use crate::dice::Dice;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) weirs: usize,
    /// What each application is there for.
    pub(crate) clients: Vec<Kind>,
    pub(crate) pool_size: u32,
    pub(crate) max_db_connections: Option<u32>,
    pub(crate) max_host_connections: Option<u32>,
    /// Without credentials for monitors weir has Patroni's word only.
    pub(crate) monitor: bool,
    /// Commits wait for a standby; without, an acknowledged row can be lost by design.
    pub(crate) synchronous: bool,
    pub(crate) failsafe: bool,
    pub(crate) ttl: Duration,
    pub(crate) loop_wait: Duration,
    /// Percent by which each node's Patroni counts time too slowly (above 100) or too fast.
    pub(crate) paces: Vec<u32>,
    /// What is killed in the middle of a failover, and at which step.
    pub(crate) crash_at: Option<Step>,
    /// Nothing happens but SWITCHOVER at the console.
    pub(crate) is_planned: bool,
    /// The same with switchovers that are scheduled with Patroni.
    pub(crate) is_scheduled: bool,
    /// Patroni's callbacks reach weirs.
    pub(crate) calls: bool,
    pub(crate) faults: u64,
    /// The cluster follows another one when the story begins.
    pub(crate) is_standby: bool,
    /// A replica that never catches up.
    pub(crate) laggard: Option<usize>,
    pub(crate) policy: ReadPolicy,
    /// By node: its weight for reads, and the time that a question to it takes.
    pub(crate) weights: Vec<u32>,
    pub(crate) distances: Vec<Duration>,
    pub(crate) retry_bytes_max: usize,
}

/// Steps of a failover at which the node that takes it can die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The old leader stops.
    Demotes,
    /// It has got the leader key, and is still a standby.
    HasKey,
    /// Its PostgreSQL ends recovery.
    Promotes,
    /// It writes on a new timeline.
    Writes,
    /// A weir follows it.
    IsFollowed,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let loop_wait = dice.millis(500, 2_000);
        let clients: Vec<Kind> = (0..4 + dice.index(9)).map(|_| draw_kind(dice)).collect();
        let small = |dice: &mut Dice| 1 + u32::try_from(dice.below(4)).unwrap_or(0);
        let keepers = clients.iter().filter(|kind| kind.keeps_servers()).count();
        let nodes = 3;
        let is_planned = dice.once_in(8);
        let is_scheduled = !is_planned && dice.once_in(16);
        Self {
            nodes,
            weirs: if dice.once_in(4) && !is_planned { 2 } else { 1 },
            pool_size: small(dice),
            // Whoever may keep a server connection does not share.
            max_db_connections: dice.once_in(3).then(|| u32::try_from(keepers).unwrap_or(0) + small(dice)),
            max_host_connections: dice.once_in(4).then(|| u32::try_from(keepers).unwrap_or(0) + small(dice)),
            is_standby: dice.once_in(12) && !is_planned && !is_scheduled,
            laggard: dice.once_in(6).then(|| dice.index(nodes)),
            policy: draw_policy(dice),
            weights: (0..nodes).map(|_| [0, 50, 100, 300][dice.index(4)]).collect(),
            distances: (0..nodes).map(|_| dice.millis(0, 5)).collect(),
            monitor: !dice.once_in(5),
            synchronous: !dice.once_in(4),
            failsafe: dice.once_in(3),
            ttl: loop_wait * 3,
            loop_wait,
            paces: (0..nodes).map(|_| 80 + u32::try_from(dice.below(50)).unwrap_or(0)).collect(),
            crash_at: dice.once_in(3).then(|| Step::draw(dice)).filter(|_| !is_planned && !is_scheduled),
            is_planned,
            is_scheduled,
            calls: dice.once_in(2),
            faults: 3 + dice.below(8),
            retry_bytes_max: if dice.once_in(8) { 0 } else { 64 * 1024 },
            clients,
        }
    }

    /// How many applications of this kind there are.
    pub(crate) fn count(&self, kind: Kind) -> u32 {
        u32::try_from(self.clients.iter().filter(|other| **other == kind).count()).unwrap_or(u32::MAX)
    }
}

fn draw_policy(dice: &mut Dice) -> ReadPolicy {
    let policies =
        [ReadPolicy::LeastConnections, ReadPolicy::RoundRobin, ReadPolicy::Weighted, ReadPolicy::Nearest];
    policies[dice.index(policies.len())]
}

fn draw_kind(dice: &mut Dice) -> Kind {
    match dice.below(10) {
        0 => Kind::Sitter,
        1 => Kind::Keeper,
        2..5 => Kind::Reader,
        _ => Kind::Writer,
    }
}

impl Step {
    fn draw(dice: &mut Dice) -> Self {
        let steps = [Self::Demotes, Self::HasKey, Self::Promotes, Self::Writes, Self::IsFollowed];
        steps[dice.index(steps.len())]
    }
}
