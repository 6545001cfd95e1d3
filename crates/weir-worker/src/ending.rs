//! How a worker ends: each client at its next transaction boundary, or when no server connection is in use any more, or
//! when the last client has left. Decides nothing about how long that may take.

use std::time::Instant;

use weir_pool::ClientId;

use crate::client::{Client, Stage};
use crate::io::Effects;
use crate::login::shutting_down;
use crate::server::ServerStage;
use crate::{Worker, client_id, key};

/// How patient the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Clients are closed between two transactions.
    AtBoundaries,
    /// Until no client uses a server connection.
    ServersFree,
    /// Until clients have left by themselves.
    ClientsLeft,
}

impl Worker {
    /// After one of the orders to end: nothing is left to wait for.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let is_console = |client: &Client| matches!(client.stage, Stage::Console(_));
        let is_gone = |client: &Client| matches!(client.stage, Stage::Left);
        match self.ending {
            None => false,
            Some(Ending::AtBoundaries) => self.clients.iter().all(|(_, client)| is_gone(client)),
            Some(Ending::ClientsLeft) => {
                self.clients.iter().all(|(_, client)| is_gone(client) || is_console(client))
            }
            Some(Ending::ServersFree) => self.servers.iter().all(|(_, conn)| {
                let is_settling =
                    conn.settling_since.is_some() || matches!(conn.stage, ServerStage::Errand(..));
                conn.client.is_none() && !is_settling
            }),
        }
    }

    /// Lets nobody in any more, and everybody out at the next transaction boundary.
    pub(crate) fn drain(&mut self, now: Instant, effects: &mut Effects) {
        self.ending = Some(Ending::AtBoundaries);
        self.close_consoles(now, effects);
        for id in self.client_ids() {
            let Some(client) = self.clients.get(key(id.0)) else { continue };
            // Replication has no boundary to wait for.
            if client.is_logging_in() || client.inside.is_some() || client.replicating().is_some() {
                self.refuse_client(now, id, &shutting_down(), effects);
            } else {
                self.part_if_done(now, id, effects);
            }
        }
    }

    /// Lets nobody in any more and gives no server connection out; clients that wait for one are told.
    pub(crate) fn wait_for_servers(&mut self, now: Instant, effects: &mut Effects) {
        self.ending = Some(Ending::ServersFree);
        self.pause(None, effects);
        for id in self.client_ids() {
            let Some(client) = self.clients.get(key(id.0)) else { continue };
            if client.is_logging_in() || client.is_waiting() || client.inside.is_some() {
                self.refuse_client(now, id, &shutting_down(), effects);
            }
        }
    }

    /// Those who are in stay as long as they like. The doors are closed by the shell; whoever had come through one is in,
    /// login or not: where another process takes over, nobody is refused.
    pub(crate) fn wait_for_clients(&mut self) {
        self.ending = Some(Ending::ClientsLeft);
    }

    /// Whoever had begun to log in may come in.
    pub(crate) fn lets_logins_finish(&self) -> bool {
        matches!(self.ending, None | Some(Ending::ClientsLeft))
    }

    /// No server connection is given out any more.
    pub(crate) fn hands_out_nothing(&self) -> bool {
        self.ending == Some(Ending::ServersFree)
    }

    /// While weir is about to end: a client that is between two transactions and waits for nothing is told and closed.
    pub(crate) fn part_if_done(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        if self.ending != Some(Ending::AtBoundaries) {
            return;
        }
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Some(open) = client.open().filter(|_| client.inside.is_none() && !client.is_waiting()) else {
            return;
        };
        let server = open.server.and_then(|server| self.servers.get(key(server.0))?.open());
        if open.session.is_idle() && server.is_none_or(|server| server.at_rest().is_some()) {
            self.refuse_client(now, id, &shutting_down(), effects);
        }
    }

    /// Everybody, weir's own clients included. A client that is told to go may take others of the list with it.
    pub(crate) fn client_ids(&self) -> Vec<ClientId> {
        self.clients.iter().map(|(at, _)| client_id(at)).collect()
    }
}
