//! What kind of story a seed tells: how many of everything, and the cluster's habits.

use std::time::Duration;

use crate::dice::Dice;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) weirs: usize,
    pub(crate) clients: usize,
    pub(crate) pool_size: u32,
    pub(crate) session_pooling: bool,
    /// Without credentials for monitors weir has Patroni's word only.
    pub(crate) monitor: bool,
    /// Commits wait for a standby; without, an acknowledged row can be lost by design.
    pub(crate) synchronous: bool,
    pub(crate) failsafe: bool,
    pub(crate) ttl: Duration,
    pub(crate) loop_wait: Duration,
    pub(crate) faults: u64,
    pub(crate) retry_bytes_max: usize,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let loop_wait = dice.millis(500, 2_000);
        let clients = 4 + dice.index(9);
        let session_pooling = dice.once_in(8);
        let small = 1 + u32::try_from(dice.below(4)).unwrap_or(0);
        Self {
            nodes: 3,
            weirs: if dice.once_in(4) { 2 } else { 1 },
            clients,
            // Whoever has a server connection keeps it in session pooling.
            pool_size: if session_pooling { u32::try_from(clients).unwrap_or(0) } else { small },
            session_pooling,
            monitor: !dice.once_in(5),
            synchronous: !dice.once_in(4),
            failsafe: dice.once_in(3),
            ttl: loop_wait * 3,
            loop_wait,
            faults: 3 + dice.below(8),
            retry_bytes_max: if dice.once_in(8) { 0 } else { 64 * 1024 },
        }
    }
}
