//! How many clients there are: in all, by database and by user; and whom the limits on them turn away.

use std::collections::HashMap;

use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use crate::client::{Client, Stage};
use crate::pools::PoolIndex;
use crate::{Worker, sizes};

/// Counts of clients that have proven who they are; the console's and weir's own do not count. Names without clients are
/// not kept.
#[derive(Debug, Default)]
pub(crate) struct Census {
    all: u32,
    databases: HashMap<String, u32>,
    users: HashMap<String, u32>,
}

impl Census {
    fn enter(&mut self, database: &str, user: &str) {
        self.all += 1;
        for (counts, name) in [(&mut self.databases, database), (&mut self.users, user)] {
            match counts.get_mut(name) {
                Some(count) => *count += 1,
                None => drop(counts.insert(name.to_owned(), 1)),
            }
        }
    }

    fn leave(&mut self, database: &str, user: &str) {
        self.all -= 1;
        for (counts, name) in [(&mut self.databases, database), (&mut self.users, user)] {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        }
    }
}

impl Worker {
    /// Refuses one client too many, in PgBouncer's words.
    pub(crate) fn check_limits(&self, database: &str, user: &str) -> Result<(), Report> {
        let config = &self.config;
        let count = |counts: &HashMap<String, u32>, name: &str| counts.get(name).copied().unwrap_or(0);
        let refused = |text: &str| Err(Report::fatal(SqlState::TOO_MANY_CONNECTIONS, text.to_owned()));
        if self.census.all >= sizes::clients_max(config) {
            return refused("no more connections allowed (max_client_conn)");
        }
        if count(&self.census.databases, database) >= sizes::database_clients_max(config, database) {
            return refused("client connections exceeded (max_db_client_connections)");
        }
        if count(&self.census.users, user) >= sizes::user_clients_max(config, user) {
            return refused("client connections exceeded (max_user_client_connections)");
        }
        Ok(())
    }

    /// A client has become one of a pool.
    pub(crate) fn count_client(&mut self, pool: PoolIndex, user: &str) {
        let entry = self.pools.entry_mut(pool);
        entry.clients += 1;
        self.census.enter(&entry.key.database, user);
    }

    /// A client that may have been counted is gone.
    pub(crate) fn uncount_client(&mut self, client: &Client) {
        let (pool, own_user) = match &client.stage {
            Stage::Welcoming(waiting) => (waiting.pool, Some(waiting.admitted.user.as_str())),
            Stage::Open(open) if client.inside.is_none() => (open.pool, open.user.as_deref()),
            Stage::Replicating(replicating) => (replicating.pool, Some(&*replicating.user)),
            Stage::Open(_) | Stage::Login(_) | Stage::Console(_) | Stage::Left => return,
        };
        let entry = self.pools.entry_mut(pool);
        entry.clients -= 1;
        self.census.leave(&entry.key.database, own_user.unwrap_or(&entry.key.user));
    }
}
