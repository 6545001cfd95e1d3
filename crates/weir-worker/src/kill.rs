//! KILL and KILL_CLIENT: connections that an operator ends at once, whatever they are doing.

use std::time::Instant;

use weir_pool::{ClientId, ServerId};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use crate::client::{Client, Stage};
use crate::io::Effects;
use crate::{Worker, client_id, key, server_id};

impl Worker {
    /// Closes everything that belongs to a database, or to any. Its pools are paused already, so nobody comes back.
    pub(crate) fn kill(&mut self, now: Instant, database: Option<&str>, effects: &mut Effects) {
        let pools = self.pools.of_database(database);
        let report = forced("database removed");
        for id in self.client_ids() {
            let Some(client) = self.clients.get(key(id.0)) else { continue };
            let pool = match &client.stage {
                Stage::Open(open) => open.pool,
                Stage::Welcoming(waiting) => waiting.pool,
                Stage::Replicating(replicating) => replicating.pool,
                Stage::Login(_) | Stage::Console(_) | Stage::Left => continue,
            };
            if pools.contains(&pool) {
                self.kill_one(now, id, &report, effects);
            }
        }
        let servers: Vec<ServerId> = self
            .servers
            .iter()
            .filter(|(_, conn)| pools.contains(&conn.pool))
            .map(|(at, _)| server_id(at))
            .collect();
        for server in servers {
            self.discard_because(now, server, &report.message, effects);
        }
    }

    /// Closes one client, by the number that no other client had before. Unknown ones have left.
    pub(crate) fn kill_client(&mut self, now: Instant, serial: u64, effects: &mut Effects) {
        let is_it = |client: &Client| client.serial == serial && client.inside.is_none();
        let found = self.clients.iter().find(|(_, client)| is_it(client));
        let Some(id) = found.map(|(at, _)| client_id(at)) else { return };
        self.kill_one(now, id, &forced("admin forced disconnect"), effects);
    }

    /// The server connection goes first: it is not to be cleaned and given to others.
    fn kill_one(&mut self, now: Instant, id: ClientId, report: &Report, effects: &mut Effects) {
        let server =
            self.clients.get_mut(key(id.0)).and_then(Client::open_mut).and_then(|open| open.server.take());
        if let Some(server) = server {
            self.discard_because(now, server, &report.message, effects);
        }
        self.refuse_client(now, id, report, effects);
    }
}

fn forced(words: &str) -> Report {
    Report::fatal(SqlState::ADMIN_SHUTDOWN, words)
        .detail("An operator ended the connection from the console.")
}
