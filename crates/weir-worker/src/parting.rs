//! Clients that go, by themselves or because weir has to end them, and what they leave behind.

use std::time::Instant;

use weir_pool::ClientId;
use weir_protocol::backend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::Mode;

use crate::client::{Open, Stage};
use crate::io::{ConnId, Effect, Effects};
use crate::{Worker, key};

impl Worker {
    /// The client's connection ended without a goodbye.
    pub(crate) fn client_left(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        self.client_gone(now, id, "client unexpected eof", effects);
    }

    /// Says why, and closes the client.
    pub(crate) fn refuse_client(
        &mut self,
        now: Instant,
        id: ClientId,
        report: &Report,
        effects: &mut Effects,
    ) {
        self.end_client(now, id, Some(report), &report.message, effects);
    }

    /// Closes a client, with a last word if there is one.
    pub(crate) fn end_client(
        &mut self,
        now: Instant,
        id: ClientId,
        report: Option<&Report>,
        why: &str,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        if client.inside.is_some() {
            let unsaid = Report::error(SqlState::CONNECTION_FAILURE, why.to_owned());
            return self.lookup_failed(now, id, report.unwrap_or(&unsaid), effects);
        }
        let name = report.filter(|_| self.config.log.pooler_errors).map(|_| self.client_name(client));
        // Nothing can be said in the middle of a message that is relayed unread.
        let held = client.server().and_then(|server| self.servers.get(key(server.0))?.open());
        let may_be_told = client.replicating().is_none_or(|replicating| replicating.may_be_told())
            && !held.is_some_and(weir_session::Server::is_in_message);
        if let Some(report) = report.filter(|_| may_be_told) {
            effects.send_with(ConnId::Client(id), |out| backend::error(report, out));
        }
        // First of all, since the id may be given to another one while the rest is cleared away.
        effects.list.push(Effect::Close(ConnId::Client(id)));
        self.client_gone(now, id, why, effects);
        if let (Some(name), Some(report)) = (name, report) {
            tracing::warn!("{name} pooler error: {}", report.message);
        }
    }

    /// Forgets a client and frees what it held.
    pub(crate) fn client_gone(&mut self, now: Instant, id: ClientId, why: &str, effects: &mut Effects) {
        if let Some(client) = self.clients.get_mut(key(id.0))
            && client.is_asking_control()
        {
            client.stage = Stage::Left;
            client.carry = Vec::new();
            return;
        }
        let Some(client) = self.clients.try_remove(key(id.0)) else { return };
        self.log_client_closing(now, &client, why);
        self.uncount_client(&client);
        match client.stage {
            Stage::Login(login) => {
                self.note_departure(now, client.peer, &login);
                self.forget_asking(id, login.asking);
            }
            Stage::Welcoming(waiting) => {
                self.pools.entry_mut(waiting.pool).welcoming.retain(|other| *other != id);
                self.demand_if_welcoming(waiting.pool);
            }
            Stage::Console(_) | Stage::Left => {}
            Stage::Replicating(replicating) => self.end_replication(now, id, &replicating, effects),
            Stage::Open(open) => self.free_held(now, id, &open, effects),
        }
    }

    pub(crate) fn free_held(&mut self, now: Instant, id: ClientId, open: &Open, effects: &mut Effects) {
        if open.waiting_since.is_some() {
            self.pools.entry_mut(open.pool).pool.forget(id);
        }
        let Some(server) = open.server else { return };
        if open.session.mode() == Mode::Session {
            self.reset(now, server, effects);
        } else {
            self.settle(now, server, effects);
        }
    }
}
