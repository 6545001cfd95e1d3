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
use crate::server::ServerConn;
use crate::{Worker, id_of, key};

/// One cancel request on its way to PostgreSQL.
pub(crate) struct Cancel {
    pub(crate) server: ServerId,
    pub(crate) server_serial: u64,
    pid: u32,
    secret: SecretKey,
    /// The connection that the request came on; it ends when PostgreSQL is done, as PostgreSQL itself does it.
    requester: ClientId,
    requester_serial: u64,
    pub(crate) started: Instant,
    /// PostgreSQL may have it.
    pub(crate) is_sent: bool,
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
        let cancel = Cancel {
            server,
            server_serial: conn.serial,
            pid: conn.pid,
            secret,
            requester,
            requester_serial,
            started: now,
            is_sent: false,
        };
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
        let Some(cancel) = self.cancels.get_mut(key(id.0)) else { return };
        match result {
            Ok(()) => {
                cancel.is_sent = true;
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
        let Some(conn) = self.cancelled_server(&cancel) else { return };
        conn.cancels = conn.cancels.saturating_sub(1);
        if conn.cancels == 0 && conn.settling_since.take().is_some() {
            self.settle(now, cancel.server, effects);
        }
    }

    /// A cancel request that took too long is given up, and so is a connection that waits for nothing else.
    pub(crate) fn give_up_cancel(&mut self, now: Instant, id: CancelId, effects: &mut Effects) {
        let Some(cancel) = self.cancels.get(key(id.0)) else { return };
        effects.list.push(Effect::Abort(ConnId::Cancel(id)));
        let (server, serial, is_sent) = (cancel.server, cancel.server_serial, cancel.is_sent);
        let conn = self.servers.get_mut(key(server.0)).filter(|conn| conn.serial == serial);
        if let Some(conn) = conn {
            conn.cancel_in_doubt |= is_sent;
            if conn.settling_since.is_some() {
                self.discard(now, server, effects);
            }
        }
        self.cancel_ended(now, id, effects);
    }

    /// The server connection that a request is for, if it is still the same one.
    pub(crate) fn cancelled_server(&mut self, cancel: &Cancel) -> Option<&mut ServerConn> {
        self.servers.get_mut(key(cancel.server.0)).filter(|conn| conn.serial == cancel.server_serial)
    }

    fn end_request(&mut self, now: Instant, requester: ClientId, effects: &mut Effects) {
        self.end_client(now, requester, None, "cancel request", effects);
    }
}
