//! A leader that is about to go by plan: who is still in a transaction there. Everybody else is held, as without a leader.

use std::time::Instant;

use weir_admin::snapshot::UnfinishedRow;
use weir_discovery::Leadership;
use weir_pool::ClientId;

use crate::client::Stage;
use crate::io::Role;
use crate::pools::Purpose;
use crate::server::ServerConn;
use crate::{Worker, key, places};

/// Whether somebody who gave a console command still waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Yes.
    Waits,
    /// A cancel request came.
    ThinksBetterOfIt,
    /// The connection has ended.
    IsGone,
}

impl Worker {
    /// Who is in a transaction, or waits for the reply to a request, on the leader of the cluster. Databases with hosts of
    /// their own, and clients that replicate, have no part in it.
    #[must_use]
    pub fn unfinished(&self, now: Instant) -> Vec<UnfinishedRow> {
        let is_unfinished = |conn: &&ServerConn| {
            self.goes_to_leader(conn)
                && conn.client.is_some()
                && conn.open().is_some_and(|server| server.at_rest().is_none())
        };
        let servers = self.servers.iter().map(|(_, conn)| conn);
        servers.filter(is_unfinished).map(|conn| self.unfinished_row(now, conn)).collect()
    }

    fn unfinished_row(&self, now: Instant, conn: &ServerConn) -> UnfinishedRow {
        let entry = self.pools.entry(conn.pool);
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let mut row = UnfinishedRow {
            client: 0,
            user: entry.key.user.clone(),
            database: entry.key.database.clone(),
            peer: String::new(),
            application_name: String::new(),
            is_own: entry.key.purpose == Purpose::Lookups,
            open_for: since(conn.open().and_then(|server| server.transaction_started()))
                .unwrap_or_else(|| now.saturating_duration_since(conn.used)),
            running_for: since(conn.open().and_then(|server| server.query_started())),
        };
        let Some(client) = conn.client.and_then(|id| self.clients.get(key(id.0))) else { return row };
        row.client = client.serial;
        row.peer = client.peer_text();
        if let Some(open) = client.open() {
            open.user(&entry.key.user).clone_into(&mut row.user);
            row.application_name = open.application_name.as_ref().to_owned();
        }
        row
    }

    /// Whether the client that gave a console command still waits for its answer.
    #[must_use]
    pub fn asker(&self, id: ClientId) -> Asker {
        match self.clients.get(key(id.0)).map(|client| &client.stage) {
            Some(Stage::Console(console)) if console.is_cancelled => Asker::ThinksBetterOfIt,
            Some(Stage::Console(console)) if console.busy => Asker::Waits,
            Some(
                Stage::Console(_)
                | Stage::Login(_)
                | Stage::Welcoming(_)
                | Stage::Open(_)
                | Stage::Replicating(_)
                | Stage::Left,
            )
            | None => Asker::IsGone,
        }
    }

    /// Writes, reads that fall back, and reads that began there when it was a replica.
    pub(crate) fn goes_to_leader(&self, conn: &ServerConn) -> bool {
        let pool = &self.pools.entry(conn.pool).key;
        let follows = places::follows_cluster(&self.config, &pool.database);
        let leads =
            matches!(&self.topology.leader, Leadership::Led { address, .. } if *address == *conn.address);
        follows && (pool.role == Role::Write || conn.reads_from_primary || leads)
    }
}
