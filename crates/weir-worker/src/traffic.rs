//! Bytes of sessions: relayed through their pairing, which is made at the first request (checkout).

use std::time::Instant;

use weir_pool::{Checkout, ClientId, ServerId};
use weir_protocol::backend;
use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;
use weir_session::state::StateKind;
use weir_session::{Then, Wires};

use crate::client::{Client, Stage};
use crate::io::{ConnId, Effect, Effects};
use crate::pools;
use crate::secrets::Lookup;
use crate::server::{ServerConn, ServerStage};
use crate::{Worker, key};

/// Where the output of one turn goes.
pub(crate) struct TurnWires<'a> {
    pub(crate) effects: &'a mut Effects,
    pub(crate) client: ConnId,
    pub(crate) server: Option<ConnId>,
    /// Set for weir's own client: what it would receive stays here.
    pub(crate) inside: Option<&'a mut Lookup>,
}

impl Wires for TurnWires<'_> {
    fn to_client(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.inside {
            Some(lookup) => lookup.keep_reply(fill),
            None => self.effects.send_with(self.client, fill),
        }
    }

    fn to_server(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.server.is_some(), "a request needs a server connection");
        if let Some(server) = self.server {
            self.effects.send_with(server, fill);
        }
    }
}

impl Worker {
    pub(crate) fn client_received(
        &mut self,
        now: Instant,
        id: ClientId,
        bytes: &[u8],
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        match &mut client.stage {
            Stage::Login(_) => self.login_received(now, id, bytes, effects),
            Stage::Welcoming(_) => self.keep_for_later(id, bytes, effects),
            Stage::Console(_) => self.console_received(now, id, bytes, effects),
            Stage::Replicating(_) => self.client_relays(now, id, bytes, effects),
            Stage::Left => {}
            Stage::Open(open) => {
                open.active_at = now;
                let pool = open.pool;
                self.pools.entry_mut(pool).stats.bytes_received += bytes.len() as u64;
                self.client_turn(now, id, bytes, effects);
            }
        }
    }

    /// Bytes that cannot be dealt with yet.
    pub(crate) fn keep_for_later(&mut self, id: ClientId, bytes: &[u8], effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        client.carry.extend_from_slice(bytes);
        self.balance_reading(id, effects);
    }

    /// A client that has sent [`CARRY_BYTES_MAX`] of what cannot be dealt with yet is not read until it can.
    pub(crate) fn balance_reading(&mut self, id: ClientId, effects: &mut Effects) {
        let is_held = self.holds_session(id);
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        // One that holds a server connection, or could get one, may be in the middle of a longer message.
        let stalled = client.open().is_some_and(|open| open.session.is_stalled());
        let uses_more = client.open().is_some() && !client.is_waiting() && !stalled && !is_held;
        let stop = client.carry.len() >= CARRY_BYTES_MAX && !uses_more;
        if client.inside.is_some() || client.reading_stopped == stop {
            return;
        }
        client.reading_stopped = stop;
        let conn = ConnId::Client(id);
        effects.list.push(if stop { Effect::StopReading(conn) } else { Effect::ReadAgain(conn) });
    }

    /// Works through what the client sent, including what was kept from earlier.
    pub(crate) fn client_turn(&mut self, now: Instant, id: ClientId, fresh: &[u8], effects: &mut Effects) {
        let is_held = self.holds_session(id);
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        if is_held || client.open().is_none_or(|open| open.waiting_since.is_some()) {
            return self.keep_for_later(id, fresh, effects);
        }
        let serial = client.serial;
        let mut carried = std::mem::take(&mut client.carry);
        let consumed = if carried.is_empty() {
            self.client_steps(now, id, fresh, effects)
        } else {
            carried.extend_from_slice(fresh);
            self.client_steps(now, id, &carried, effects)
        };
        let Some(client) = self.clients.get_mut(key(id.0)).filter(|client| client.serial == serial) else {
            return;
        };
        let rest = if carried.is_empty() { fresh } else { &carried }.get(consumed..).unwrap_or_default();
        if !rest.is_empty() && rest.len() == carried.len() && client.carry.is_empty() {
            client.carry = carried;
        } else {
            // What a retry has put there in the meantime comes first.
            client.carry.extend_from_slice(rest);
        }
        if let Some(open) = client.open_mut()
            && let Some(answered) = open.session.take_answered()
        {
            let pool = open.pool;
            self.pools.entry_mut(pool).add(answered);
        }
        self.balance_reading(id, effects);
        self.part_if_done(now, id, effects);
    }

    /// Returns how many bytes are done with.
    fn client_steps(&mut self, now: Instant, id: ClientId, input: &[u8], effects: &mut Effects) -> usize {
        let mut at = 0;
        loop {
            let Some(client) = self.clients.get_mut(key(id.0)) else { return input.len() };
            let Stage::Open(open) = &mut client.stage else { return at };
            let linked = open.server;
            let server = linked.and_then(|server| self.servers.get_mut(key(server.0)));
            let mut wires = TurnWires {
                effects,
                client: ConnId::Client(id),
                server: linked.map(ConnId::Server),
                inside: client.inside.as_deref_mut(),
            };
            let server = server.and_then(ServerConn::open_mut);
            let turn = open.session.from_client(now, &input[at..], server, &mut self.catalog, &mut wires);
            at += turn.consumed;
            match turn.then {
                Then::Continue => return at,
                Then::Answered => {
                    if self.holds_session(id) {
                        return at;
                    }
                }
                Then::NeedServer => {
                    if !self.checkout(now, id, effects) {
                        return at;
                    }
                }
                Then::Release => {
                    self.release(now, id, effects);
                    if turn.consumed == 0 {
                        // The rest of a message has to come first.
                        return at;
                    }
                }
                Then::Terminate => {
                    self.end_client(now, id, None, "client close request", effects);
                    return input.len();
                }
                Then::Refuse(report) => {
                    self.totals.protocol_errors += 1;
                    self.refuse_client(now, id, &report, effects);
                    return input.len();
                }
                Then::Again(mut bytes) => {
                    bytes.extend_from_slice(&input[at..]);
                    self.once_more(now, id, bytes, effects);
                    return input.len();
                }
                Then::Elsewhere(_) | Then::Lost | Then::Desync(_) | Then::SettingsRefused(_) => {
                    debug_assert!(false, "only a server's bytes lead to this");
                    return at;
                }
            }
        }
    }

    /// Asks for a server connection. True when the client's turn goes on at once: it holds one, or is refused.
    fn checkout(&mut self, now: Instant, id: ClientId, effects: &mut Effects) -> bool {
        let ends = self.hands_out_nothing();
        let Some(open) = self.clients.get_mut(key(id.0)).and_then(|client| client.open_mut()) else {
            return false;
        };
        open.request_at = now;
        if ends {
            // Nobody is given a server connection any more, and the client would wait for nothing.
            self.refuse_client(now, id, &crate::login::shutting_down(), effects);
            return false;
        }
        let index = open.pool;
        let entry = self.pools.entry_mut(index);
        if entry.pool.held()
            && let Some(report) = crate::clock::why_not_held(&self.topology, entry.key.role)
        {
            open.session.refuse_next(report);
            return true;
        }
        match entry.pool.checkout(id, now, &mut self.chance) {
            Checkout::Granted(server) => {
                self.link(now, id, server, effects);
                if self.pools.entry(index).pool.has_wish() {
                    self.pump(now, index, effects);
                }
                true
            }
            Checkout::Queued => {
                open.waiting_since = Some(now);
                self.pump(now, index, effects);
                false
            }
            Checkout::Failing => {
                self.fail_fast(now, id, index, effects);
                false
            }
            Checkout::QueueFull => {
                open.session.refuse_next(queue_full());
                true
            }
        }
    }

    /// A client that waited has got a server connection. Its turn may free the connection at once, for the next one in the
    /// queue, and so on: the list keeps that from nesting as deep as the queue is long.
    pub(crate) fn serve(&mut self, now: Instant, id: ClientId, server: ServerId, effects: &mut Effects) {
        self.link(now, id, server, effects);
        self.due.push_back(id);
        if std::mem::replace(&mut self.is_serving, true) {
            return;
        }
        while let Some(id) = self.due.pop_front() {
            self.client_turn(now, id, &[], effects);
        }
        self.is_serving = false;
    }

    fn link(&mut self, now: Instant, id: ClientId, server: ServerId, effects: &mut Effects) {
        let Some((client, open)) = self.clients.get_mut(key(id.0)).and_then(Client::split_open) else {
            debug_assert!(false, "a pool serves clients that wait");
            return self.discard(now, server, effects);
        };
        let Some(conn) = self.servers.get_mut(key(server.0)) else { return };
        open.waiting_since = None;
        open.server = Some(server);
        conn.client = Some(id);
        conn.used = now;
        let mut wires = TurnWires {
            effects,
            client: ConnId::Client(id),
            server: Some(ConnId::Server(server)),
            inside: client,
        };
        if let Some(server) = conn.open_mut() {
            open.session.attached(server, &mut wires);
        }
    }

    pub(crate) fn server_received(
        &mut self,
        now: Instant,
        id: ServerId,
        bytes: &[u8],
        effects: &mut Effects,
    ) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        match &conn.stage {
            ServerStage::Dialing => {}
            ServerStage::Login(_) => self.server_login_received(now, id, bytes, effects),
            ServerStage::Errand(..) => self.errand_received(now, id, bytes, effects),
            ServerStage::Relaying => self.server_relays(now, id, bytes, effects),
            ServerStage::Open(_) => {
                let index = conn.pool;
                self.pools.entry_mut(index).stats.bytes_sent += bytes.len() as u64;
                self.server_turn(now, id, bytes, effects);
            }
        }
    }

    fn server_turn(&mut self, now: Instant, id: ServerId, bytes: &[u8], effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        let mut carried = std::mem::take(&mut conn.carry);
        let input = if carried.is_empty() {
            bytes
        } else {
            carried.extend_from_slice(bytes);
            &carried
        };
        let Some(client_id) = conn.client else {
            self.idle_turn(now, id, input, effects);
            return;
        };
        let ServerStage::Open(server) = &mut conn.stage else { return };
        let Some(client) = self.clients.get_mut(key(client_id.0)) else { return };
        let Stage::Open(open) = &mut client.stage else { return };
        let mut wires = TurnWires {
            effects,
            client: ConnId::Client(client_id),
            server: Some(ConnId::Server(id)),
            inside: client.inside.as_deref_mut(),
        };
        open.active_at = now;
        let turn = open.session.from_server(now, input, server, &mut self.catalog, &mut wires);
        conn.carry.extend_from_slice(&input[turn.consumed..]);
        let (used, closes_fast) = (server.states_used().next(), conn.closes_fast);
        let goes_on = open.session.wants_turn(server);
        if let Some(kind) = used {
            self.name_first_user(id, client_id, kind);
        }
        match turn.then {
            Then::Continue if closes_fast => self.close_fast(now, id, effects),
            Then::Continue if goes_on => self.client_turn(now, client_id, &[], effects),
            Then::Continue => self.part_if_done(now, client_id, effects),
            Then::Release => self.release(now, client_id, effects),
            Then::Again(bytes) => self.once_more(now, client_id, bytes, effects),
            Then::Elsewhere(bytes) => self.leave_member(now, id, client_id, bytes, effects),
            Then::Lost => self.server_died(now, id, effects),
            Then::Desync(what) => self.desynchronised(now, id, client_id, what, effects),
            Then::Refuse(report) => self.refuse_client(now, client_id, &report, effects),
            Then::SettingsRefused(body) => self.settings_refused(now, client_id, &body, effects),
            Then::NeedServer | Then::Terminate | Then::Answered => {
                debug_assert!(false, "only a client's bytes lead to this");
            }
        }
    }

    /// Says once for each pool who uses session state, which makes pooling less than it could be.
    fn name_first_user(&mut self, server: ServerId, id: ClientId, first: StateKind) {
        let Some(conn) = self.servers.get(key(server.0)) else { return };
        let index = conn.pool;
        let seen = &self.pools.entry(index).named_states;
        let kinds = conn.open().into_iter().flat_map(weir_session::Server::states_used);
        let kind = kinds.filter(|kind| !seen.contains(kind)).last().unwrap_or(first);
        let Some(client) = self.clients.get(key(id.0)) else { return };
        if seen.contains(&kind) || client.inside.is_some() {
            return;
        }
        let (peer, serial) = (client.peer_text(), client.serial);
        let policy = pools::policies(&self.config.session).for_kind(kind);
        let entry = self.pools.entry_mut(index);
        entry.named_states.push(kind);
        tracing::info!(
            "C-{serial}: {}/{}@{peer} uses {}, the first client of this pool to do so; {} = {}",
            entry.key.database,
            entry.key.user,
            kind.what(),
            kind.key(),
            policy.name(),
        );
    }

    /// The client's turn goes on with these bytes, in front of what was kept.
    fn once_more(&mut self, now: Instant, id: ClientId, mut bytes: Vec<u8>, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        bytes.append(&mut client.carry);
        client.carry = bytes;
        self.client_turn(now, id, &[], effects);
    }

    /// Bytes from a server connection that nobody holds. False if the connection did not survive them.
    pub(crate) fn idle_turn(
        &mut self,
        now: Instant,
        id: ServerId,
        input: &[u8],
        effects: &mut Effects,
    ) -> bool {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return false };
        let ServerStage::Open(server) = &mut conn.stage else { return true };
        match server.idle_bytes(input) {
            Ok(consumed) => conn.carry.extend_from_slice(&input[consumed..]),
            Err(_) => {
                self.server_died(now, id, effects);
                return false;
            }
        }
        true
    }

    /// Something came that answers nothing: nobody may get it, and nothing more may run on that connection.
    fn desynchronised(
        &mut self,
        now: Instant,
        id: ServerId,
        client: ClientId,
        what: &str,
        effects: &mut Effects,
    ) {
        let name = self.servers.get(key(id.0)).map(ServerConn::name).unwrap_or_default();
        tracing::error!(server = %name, "unexpected {what} from PostgreSQL; closing the connection and its client");
        let report =
            Report::fatal(SqlState::PROTOCOL_VIOLATION, "the server sent a reply that was not expected")
                .detail(format!("Unexpected {what}."))
                .hint("Connect again.");
        if let Some(open) = self.clients.get_mut(key(client.0)).and_then(Client::open_mut) {
            open.server = None;
        }
        self.discard_because(now, id, &report.message, effects);
        self.refuse_client(now, client, &report, effects);
    }

    /// PostgreSQL does not take the client's startup parameters: it hears PostgreSQL's own words.
    fn settings_refused(&mut self, now: Instant, client: ClientId, body: &[u8], effects: &mut Effects) {
        let report = backend::read::report(body).map_or_else(
            |_| Report::fatal(SqlState::PROTOCOL_VIOLATION, "startup parameters were refused"),
            |fields| fields.to_report().with_severity(Severity::Fatal),
        );
        self.refuse_client(now, client, &report, effects);
    }
}

fn queue_full() -> Report {
    Report::error(SqlState::TOO_MANY_CONNECTIONS, "too many clients are waiting for a server connection")
        .hint("Raise the pool size, or send fewer requests at once.")
}

/// Bytes kept for a client that has to wait; then it is not read until it is served.
const CARRY_BYTES_MAX: usize = 64 * 1024;
