//! Pools that nothing belongs to any more: those of databases that the configuration does not name are forgotten, and with
//! them the databases; and places that no pool dials any more. Refuses to touch a pool that a client, a server connection or a cancel request still refers to.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::Worker;
use crate::client::{Client, Stage};
use crate::elsewhere::Resting;
use crate::pools::{PoolIndex, PoolKey};

impl Worker {
    /// The pool with this key, made if there is none; `None` when there are too many that are in use.
    pub(crate) fn pool_for(&mut self, wanted: PoolKey) -> Option<PoolIndex> {
        if let Some(index) = self.pools.find_or_make(wanted.clone(), &self.config) {
            return Some(index);
        }
        for index in self.unused_pools() {
            self.pools.remove(index);
        }
        self.pools.find_or_make(wanted, &self.config)
    }

    /// Forgets automatic databases after autodb_idle_timeout without connections, and removed ones at once.
    pub(crate) fn forget_unused(&mut self, now: Instant) {
        let resting = |last: Instant| now.saturating_duration_since(last) < SWEEP_PAUSE;
        if self.pools.swept.is_some_and(resting) {
            return;
        }
        self.pools.swept = Some(now);
        let unused: HashSet<PoolIndex> = self.unused_pools().into_iter().collect();
        for index in self.pools.indices() {
            let keeps_for = self.kept_unused(index);
            let entry = self.pools.entry_mut(index);
            if !unused.contains(&index) {
                entry.unused_since = None;
                continue;
            }
            let since = *entry.unused_since.get_or_insert(now);
            if keeps_for.is_some_and(|limit| now.saturating_duration_since(since) >= limit) {
                tracing::info!("{}/{} is forgotten: nobody uses it", entry.key.database, entry.key.user);
                self.pools.remove(index);
            }
        }
        self.pools.forget_places(self.resting.iter().filter_map(Resting::not));
    }

    /// How long a pool that nobody uses is kept; `None`: for ever.
    fn kept_unused(&self, index: PoolIndex) -> Option<Duration> {
        let name = &self.pools.entry(index).key.database;
        match self.config.database(name) {
            None => Some(Duration::ZERO),
            Some(_) if self.config.databases.contains_key(name) => None,
            Some(_) => self.config.limits.autodb_idle_timeout,
        }
    }

    fn unused_pools(&self) -> Vec<PoolIndex> {
        let mut unused = self.pools.indices();
        unused.retain(|index| self.pools.entry(*index).is_empty());
        if unused.is_empty() {
            return unused;
        }
        let clients = self.clients.iter().filter_map(|(_, client)| pool_of(client));
        let servers = self.servers.iter().map(|(_, conn)| conn.pool);
        let cancels = self.cancels.iter().filter_map(|(_, cancel)| cancel.lane.pool());
        let used: HashSet<PoolIndex> = clients.chain(servers).chain(cancels).collect();
        unused.retain(|index| !used.contains(index));
        unused
    }
}

fn pool_of(client: &Client) -> Option<PoolIndex> {
    match &client.stage {
        Stage::Welcoming(waiting) => Some(waiting.pool),
        Stage::Open(open) => Some(open.pool),
        Stage::Replicating(replicating) => Some(replicating.pool),
        Stage::Login(_) | Stage::Console(_) | Stage::Left => None,
    }
}

/// Least time between two looks: each walks over all clients.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
