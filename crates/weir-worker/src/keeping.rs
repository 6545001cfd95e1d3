//! The least number of server connections of pools that somebody has use for: those with a client, and those whose user
//! does not depend on the client. The pool opens them; this says when it should.

use std::time::Instant;

use crate::Worker;
use crate::io::{Effects, Role};
use crate::pools::{PoolIndex, PoolKey, Purpose};

impl Worker {
    /// Whether the pool's `min_pool_size` holds now. Without a secret to log in with it does not: nobody has shown one yet.
    pub(crate) fn keep_min(&mut self, index: PoolIndex) {
        let entry = self.pools.entry(index);
        if entry.pool.limits().min_size == 0 {
            return self.pools.entry_mut(index).pool.keep_min(false);
        }
        let forced = self.config.database(&entry.key.database).and_then(|database| database.user.as_ref());
        let has_use = entry.clients > 0 || forced.is_some_and(|user| *user == entry.key.user);
        let keep = has_use && !self.hands_out_nothing() && self.may_log_in(index);
        self.pools.entry_mut(index).pool.keep_min(keep);
    }

    /// Makes the pools of databases that keep connections without any client, after a start or a reload.
    pub(crate) fn make_kept_pools(&mut self, now: Instant, effects: &mut Effects) {
        if std::mem::replace(&mut self.pools.are_kept_made, true) {
            return;
        }
        let min_size = self.config.pool.min_size;
        let kept: Vec<PoolKey> = self
            .config
            .databases
            .iter()
            .filter(|(_, database)| database.min_pool_size.unwrap_or(min_size) > 0)
            .filter_map(|(name, database)| {
                let (database, user) = (name.clone(), database.user.clone()?);
                Some(PoolKey { database, user, role: Role::Write, purpose: Purpose::Clients })
            })
            .collect();
        for wanted in kept {
            if let Some(index) = self.pool_for(wanted) {
                self.point_if_new(now, index, effects);
            }
        }
    }

    fn may_log_in(&self, index: PoolIndex) -> bool {
        let entry = self.pools.entry(index);
        // A pool that has logged in before can do so again, be it by trust or by certificate.
        entry.reported.is_some() || self.server_credential(&entry.key).secret.is_some()
    }
}
