//! Cancel requests. The key names the client; the server connection it holds is looked up at the moment the request
//! arrives, and is not given to anybody else until PostgreSQL is done with the request.

use std::time::Instant;

use weir_discovery::Address;
use weir_pool::{ClientId, ServerId};
use weir_protocol::frontend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{BackendKey, SecretKey};

use crate::io::{CancelId, ConnId, DialError, Effect, Effects};
use crate::{Worker, id_of, key};

/// One cancel request on its way to PostgreSQL.
pub(crate) struct Cancel {
    pub(crate) server: ServerId,
    pid: u32,
    secret: SecretKey,
    /// The connection that the request came on; it ends when PostgreSQL is done, as PostgreSQL itself does it.
    requester: ClientId,
    requester_serial: u64,
    pub(crate) started: Instant,
}

impl Worker {
    /// A client connection turned out to be a cancel request.
    pub(crate) fn cancel_requested(
        &mut self,
        now: Instant,
        requester: ClientId,
        wanted: &BackendKey,
        effects: &mut Effects,
    ) {
        self.totals.cancels += 1;
        let target = self.client_of_key(wanted);
        let server = target.and_then(|id| self.clients.get(key(id.0))).and_then(|client| client.server());
        match (target, server) {
            (Some(_), Some(server)) => {
                if self.send_cancel(now, requester, server, effects) {
                    return;
                }
            }
            (Some(id), None) => self.cancel_waiting(now, id, effects),
            (None, _) => tracing::info!("a cancel request names no client of ours"),
        }
        self.end_request(now, requester, effects);
    }

    /// A client that waits for a server connection gets its answer at once; an idle one has nothing to cancel.
    fn cancel_waiting(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(open) = self.clients.get_mut(key(id.0)).and_then(|client| client.open_mut()) else { return };
        if open.waiting_since.take().is_none() {
            return;
        }
        let index = open.pool;
        open.session.refuse_next(
            Report::error(SqlState::QUERY_CANCELED, "canceling statement due to user request")
                .detail("It was waiting for a server connection; nothing of it was executed."),
        );
        self.pools.entry_mut(index).pool.forget(id);
        self.client_turn(now, id, &[], effects);
        self.read_again(id, effects);
    }

    fn send_cancel(
        &mut self,
        now: Instant,
        requester: ClientId,
        server: ServerId,
        effects: &mut Effects,
    ) -> bool {
        let Some(conn) = self.servers.get_mut(key(server.0)) else { return false };
        // Only what a reply is owed for can be cancelled; anything else could hit a later query.
        if conn.open().is_none_or(|server| !server.is_owing()) {
            return false;
        }
        let Some(secret) = conn.secret.clone() else { return false };
        let requester_serial = self.clients.get(key(requester.0)).map_or(0, |client| client.serial);
        let cancel = Cancel { server, pid: conn.pid, secret, requester, requester_serial, started: now };
        conn.cancels += 1;
        let address: Address = (*conn.address).clone();
        let id = CancelId(id_of(self.cancels.insert(cancel)));
        effects.list.push(Effect::Dial(ConnId::Cancel(id), address));
        true
    }

    /// The shell reached PostgreSQL, or did not.
    pub(crate) fn cancel_dialed(
        &mut self,
        now: Instant,
        id: CancelId,
        result: Result<(), DialError>,
        effects: &mut Effects,
    ) {
        let Some(cancel) = self.cancels.get(key(id.0)) else { return };
        match result {
            Ok(()) => {
                effects.send_with(ConnId::Cancel(id), |out| {
                    frontend::cancel_request(cancel.pid, cancel.secret.as_bytes(), out);
                });
            }
            Err(why) => {
                tracing::warn!("a cancel request could not be delivered: {why}");
                self.cancel_ended(now, id, effects);
            }
        }
    }

    /// PostgreSQL closed the connection: the signal has been sent.
    pub(crate) fn cancel_ended(&mut self, now: Instant, id: CancelId, effects: &mut Effects) {
        let Some(cancel) = self.cancels.try_remove(key(id.0)) else { return };
        let asked = self.clients.get(key(cancel.requester.0));
        if asked.is_some_and(|client| client.serial == cancel.requester_serial) {
            self.end_request(now, cancel.requester, effects);
        }
        let Some(conn) = self.servers.get_mut(key(cancel.server.0)) else { return };
        conn.cancels = conn.cancels.saturating_sub(1);
        if conn.cancels == 0 && conn.settling_since.take().is_some() {
            self.settle(now, cancel.server, effects);
        }
    }

    fn end_request(&mut self, now: Instant, requester: ClientId, effects: &mut Effects) {
        self.client_gone(now, requester, "cancel request", effects);
        effects.list.push(Effect::Close(ConnId::Client(requester)));
    }
}
