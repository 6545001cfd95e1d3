//! Limits that pools share: one for each database, each user that PostgreSQL is logged in to as, and each host. Owns their
//! names and what the configuration says of them; who may have a slot is decided by `weir-pool`.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Instant;

use weir_config::Config;
use weir_discovery::Address;
use weir_pool::{CapId, Caps, MemberId, NextDial, PoolId, ServerId, Target};

use crate::Worker;
use crate::io::Effects;
use crate::pools::{PoolIndex, PoolKey, Pools, Purpose};

/// What is limited.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Limited {
    /// A database, by its client-facing name.
    Database(String),
    /// A user, as PostgreSQL knows it.
    User(String),
    /// A PostgreSQL server.
    Host(Address),
}

/// All limits that pools share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) caps: Caps,
    /// Each with the number of pools that it belongs to, or of places.
    known: HashMap<Limited, (CapId, u32)>,
}

impl Shared {
    /// The limits of all connections of a new pool.
    pub(crate) fn of_pool(&mut self, config: &Config, key: &PoolKey) -> Vec<CapId> {
        let share = |limited: Limited| {
            let max = limited.max(config);
            let (cap, pools) = self.known.entry(limited).or_insert_with(|| (self.caps.add(max), 0));
            *pools += 1;
            *cap
        };
        Limited::of(key).into_iter().map(share).collect()
    }

    /// A pool is gone.
    pub(crate) fn pool_removed(&mut self, key: &PoolKey) {
        for limited in Limited::of(key) {
            self.let_go(&limited);
        }
    }

    /// A pool or a place has this limit no longer; without any it is forgotten.
    fn let_go(&mut self, limited: &Limited) {
        let Some((cap, users)) = self.known.get_mut(limited) else { return };
        *users -= 1;
        if *users == 0 {
            self.caps.remove(*cap);
            self.known.remove(limited);
        }
    }

    fn share_host(&mut self, config: &Config, member: MemberId, address: &Address) {
        if self.caps.host(member).is_some() {
            return;
        }
        let limited = Limited::Host(address.clone());
        let max = limited.max(config);
        let (cap, places) = self.known.entry(limited).or_insert_with(|| (self.caps.add(max), 0));
        *places += 1;
        self.caps.set_host(member, *cap);
    }

    /// Nobody names this place any more.
    fn place_forgotten(&mut self, member: MemberId, address: &Address) {
        if self.caps.host(member).is_some() {
            self.caps.forget_host(member);
            self.let_go(&Limited::Host(address.clone()));
        }
    }

    /// Takes over other limits (reload). True if one has changed.
    fn configure(&mut self, config: &Config) -> bool {
        let change =
            |(limited, (cap, _)): (&Limited, &(CapId, u32))| self.caps.set_max(*cap, limited.max(config));
        self.known.iter().map(change).filter(|changed| *changed).count() > 0
    }
}

impl Limited {
    /// What counts all connections of a pool. Questions about users count for their host only: where clients hold all
    /// connections of their database nobody could log in otherwise.
    fn of(key: &PoolKey) -> Vec<Self> {
        match key.purpose {
            Purpose::Clients => vec![Self::Database(key.database.clone()), Self::User(key.user.clone())],
            Purpose::Lookups => Vec::new(),
        }
    }

    fn max(&self, config: &Config) -> Option<NonZeroU32> {
        let limits = &config.limits;
        NonZeroU32::new(match self {
            Self::Database(name) => config
                .database(name)
                .and_then(|database| database.max_db_connections)
                .unwrap_or(limits.max_db_connections),
            Self::User(name) => config
                .users
                .get(name)
                .and_then(|user| user.max_user_connections)
                .unwrap_or(limits.max_user_connections),
            Self::Host(_) => limits.max_host_connections,
        })
    }
}

impl Pools {
    /// Connections to these targets count against their hosts' limits.
    pub(crate) fn share_hosts(&mut self, config: &Config, targets: &[Target]) {
        for Target { member, .. } in targets {
            if let Some(place) = self.places.get(*member) {
                self.shared.share_host(config, *member, &place.address);
            }
        }
    }

    /// Forgets places that no pool dials or has connections to, and that `others` do not name: members come and go, and each
    /// may have had an address of its own.
    pub(crate) fn forget_places(&mut self, others: impl Iterator<Item = MemberId>) {
        let named: HashSet<MemberId> =
            self.iter().flat_map(|entry| entry.pool.members()).chain(others).collect();
        for (member, place) in self.places.forget(|member| named.contains(&member)) {
            self.shared.place_forgotten(member, &place.address);
        }
    }

    /// Takes over other shared limits (reload).
    pub(crate) fn configure_shared(&mut self, config: &Config) {
        if self.shared.configure(config) {
            self.iter().for_each(|entry| entry.pool.list_idle());
        }
    }
}

impl Worker {
    /// Tests and dials as many server connections as the pool wants, and as shared limits allow. Slots that became free go
    /// to whichever pool's client came first.
    pub(crate) fn pump(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        self.test_rested(now, index, effects);
        self.pump_private(now, index, false, effects);
        self.dial_for(now, index, false, effects);
        while let Some(pool) = self.pools.shared.caps.next_turn() {
            let index = PoolIndex::from(pool);
            let is_turn = self.pump_private(now, index, true, effects);
            self.dial_for(now, index, is_turn, effects);
        }
    }

    fn dial_for(&mut self, now: Instant, index: PoolIndex, mut is_turn: bool, effects: &mut Effects) {
        loop {
            let pool = &mut self.pools.entry_mut(index).pool;
            let next = match std::mem::take(&mut is_turn) {
                true => pool.dial_turn(now, &mut self.chance),
                false => pool.next_dial(now, &mut self.chance),
            };
            match next {
                NextDial::Nothing => return,
                NextDial::Dial(target) => {
                    let Some(server) = self.dial(now, index, target, effects) else { return };
                    self.note_dial(now, index, target, server);
                }
                NextDial::Evict(PoolId(_), server) => {
                    self.evict(now, server, effects);
                    return;
                }
            }
        }
    }

    fn note_dial(&mut self, now: Instant, index: PoolIndex, target: Target, server: ServerId) {
        let entry = self.pools.entry_mut(index);
        if entry.pool.dial_started(server, target, now) {
            tracing::warn!("{}/{} taking connection from reserve_pool", entry.key.database, entry.key.user);
        }
    }
}
