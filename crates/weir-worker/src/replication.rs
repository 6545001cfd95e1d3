//! Replication connections: each client has a server connection of its own, opened with the parameters of the client's own
//! startup packet and closed with the client. What passes is relayed unread, so that COPY in both directions works; the
//! pool only counts such a connection.

use std::time::Instant;

use weir_pool::{ClientId, PrivateRoom, ServerId};
use weir_protocol::backend;
use weir_protocol::frontend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{SecretKey, Startup};
use weir_protocol::tag::{FromClient, FromServer};
use weir_session::client_login::Admitted;
use weir_session::tunnel::Tunnel;

use crate::client::{Client, Stage};
use crate::io::{ConnId, Effect, Effects};
use crate::pools::{PoolEntry, PoolIndex};
use crate::server::{ServerConn, ServerStage};
use crate::{Worker, cancel_key, key};

/// What a client asked for with the startup parameter `replication`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    /// `true`: replication commands only, bound to no database.
    Physical,
    /// `database`: replication commands and SQL.
    Logical,
}

/// A client that replicates, or is about to.
pub(crate) struct Replicating {
    pub(crate) pool: PoolIndex,
    pub(crate) kind: Replication,
    /// What its server connection is opened with.
    parameters: Vec<(String, String)>,
    /// Length of its cancel key.
    key_bytes: usize,
    pub(crate) user: Box<str>,
    /// Its server connection; before the welcome it may still be dialled.
    pub(crate) server: Option<ServerId>,
    /// Given with the welcome.
    pub(crate) cancel_key: Option<SecretKey>,
    from_client: Tunnel,
    from_server: Tunnel,
}

impl Replicating {
    /// It has been let in.
    pub(crate) fn is_welcome(&self) -> bool {
        self.cancel_key.is_some()
    }

    /// A message can be put in on its way to the client.
    pub(crate) fn may_be_told(&self) -> bool {
        self.from_server.is_between()
    }

    /// For the console.
    pub(crate) fn application_name(&self) -> &str {
        let named = self.parameters.iter().rfind(|(name, _)| name == "application_name");
        named.map_or("", |(_, value)| value.as_str())
    }
}

impl Replication {
    /// For the console, in PgBouncer's words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }

    /// What a startup packet asks for; PostgreSQL's own refusal of a value that means nothing (`postmaster.c`).
    pub(crate) fn wanted(startup: &Startup) -> Result<Option<Self>, Report> {
        let Some(value) = startup.parameter("replication") else { return Ok(None) };
        if value == "database" {
            return Ok(Some(Self::Logical));
        }
        match boolean(value) {
            Some(true) => Ok(Some(Self::Physical)),
            Some(false) => Ok(None),
            None => Err(Report::fatal(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"replication\": \"{value}\""),
            )
            .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")),
        }
    }
}

/// PostgreSQL takes any unambiguous beginning of these words (`bool.c`).
fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || value == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0" {
        Some(false)
    } else {
        None
    }
}

impl Worker {
    /// A client that wants to replicate has proven who it is.
    pub(crate) fn open_replication(
        &mut self,
        now: Instant,
        id: ClientId,
        admitted: Admitted,
        kind: Replication,
        pool: PoolIndex,
        effects: &mut Effects,
    ) {
        let ignored = &self.config.session.ignore_startup_parameters;
        let is_passed = |name: &String| {
            !matches!(name.as_str(), "user" | "database") && !ignored.iter().any(|other| other == name)
        };
        let parameters =
            admitted.startup.parameters.into_iter().filter(|(name, _)| is_passed(name)).collect();
        self.count_client(pool, &admitted.user);
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        client.stage = Stage::Replicating(Box::new(Replicating {
            pool,
            kind,
            parameters,
            // Version 3.0 knows keys of four bytes only (protocol chapter, "BackendKeyData").
            key_bytes: if admitted.minor >= 2 { CANCEL_KEY_BYTES } else { 4 },
            user: admitted.user.into(),
            server: None,
            cancel_key: None,
            from_client: Tunnel::default(),
            from_server: Tunnel::default(),
        }));
        self.point_if_new(now, pool, effects);
        self.queue_private(now, pool, id);
        self.pump(now, pool, effects);
    }

    fn queue_private(&mut self, now: Instant, pool: PoolIndex, id: ClientId) {
        let entry = self.pools.entry_mut(pool);
        entry.wants_private.push_back((id, now));
        entry.note_private();
    }

    /// Dials for the clients that need a connection of their own, as far as there is room. With `is_turn`, the first of
    /// them need not stand back for others in line; returns whether that turn is still to be had.
    pub(crate) fn pump_private(
        &mut self,
        now: Instant,
        index: PoolIndex,
        mut is_turn: bool,
        effects: &mut Effects,
    ) -> bool {
        while let Some(&(id, _)) = self.pools.entry(index).wants_private.front() {
            let entry = self.pools.entry_mut(index);
            match entry.pool.private_room(now, is_turn, &mut self.chance) {
                PrivateRoom::None => break,
                PrivateRoom::CloseFirst(server) => self.close_server(server, effects),
                PrivateRoom::Evict(server) => self.evict(now, server, effects),
                PrivateRoom::Dial(target) => {
                    is_turn = false;
                    entry.forget_private(id);
                    let Some(server) = self.dial(now, index, target, effects) else { break };
                    self.pools.entry_mut(index).pool.private_started(server, target, now);
                    let Some(replicating) = self.replicating(id) else { continue };
                    replicating.server = Some(server);
                    let kind = replicating.kind;
                    let conn = &mut self.servers[key(server.0)];
                    conn.client = Some(id);
                    conn.replication = Some(kind);
                }
            }
        }
        is_turn
    }

    fn replicating(&mut self, id: ClientId) -> Option<&mut Replicating> {
        self.clients.get_mut(key(id.0)).and_then(Client::replicating_mut)
    }

    /// What the startup packet of a client's own server connection holds.
    pub(crate) fn replication_parameters(&self, conn: &ServerConn) -> Vec<(String, String)> {
        let client = conn.client.filter(|_| conn.replication.is_some());
        let replicating = client.and_then(|id| self.clients.get(key(id.0))?.replicating());
        replicating.map(|replicating| replicating.parameters.clone()).unwrap_or_default()
    }

    /// The client's own server connection is logged in: the client is told what the server said.
    pub(crate) fn replication_ready(
        &mut self,
        now: Instant,
        id: ServerId,
        parameters: &[(String, String)],
        rest: &[u8],
        effects: &mut Effects,
    ) {
        let secret: [u8; CANCEL_KEY_BYTES] = self.chance.bytes();
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.stage = ServerStage::Relaying;
        conn.is_new = false;
        let index = conn.pool;
        let entry = self.pools.entry_mut(index);
        entry.pool.private_ready(id);
        entry.stats.servers_opened += 1;
        let Some(client_id) = conn.client else { return };
        let Some(client) = self.clients.get_mut(key(client_id.0)) else { return };
        let carry = std::mem::take(&mut client.carry);
        let Some(replicating) = client.replicating_mut() else { return };
        let length = replicating.key_bytes;
        let own = cancel_key::make(self.config.peer_id, self.index, client_id, &secret, length);
        let Some(own) = own else { return };
        effects.send_with(ConnId::Client(client_id), |out| {
            backend::authentication_ok(out);
            for (name, value) in parameters {
                backend::parameter_status(name.as_bytes(), value.as_bytes(), out);
            }
            backend::backend_key_data(own.pid, own.secret.as_bytes(), out);
            backend::ready_for_query(b'I', out);
        });
        replicating.cancel_key = Some(own.secret);
        self.totals.logins_accepted += 1;
        self.log_replication(client_id);
        if !rest.is_empty() {
            self.server_relays(now, id, rest, effects);
        }
        self.client_relays(now, client_id, &carry, effects);
        self.balance_reading(client_id, effects);
        self.pump(now, index, effects);
    }

    fn log_replication(&self, id: ClientId) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Some(replicating) = client.replicating() else { return };
        tracing::info!(
            "C-{}: {}/{}@{} login (tls={}, replication={})",
            client.serial,
            self.pools.entry(replicating.pool).key.database,
            replicating.user,
            client.peer_text(),
            client.tls.as_deref().unwrap_or("no"),
            replicating.kind.name(),
        );
    }

    /// Bytes of a client that replicates.
    pub(crate) fn client_relays(&mut self, now: Instant, id: ClientId, bytes: &[u8], effects: &mut Effects) {
        let Some(replicating) = self.replicating(id).filter(|replicating| replicating.is_welcome()) else {
            return self.keep_for_later(id, bytes, effects);
        };
        let Some(server) = replicating.server else { return };
        let passed = replicating.from_client.pass(bytes, Some(FromClient::Terminate.byte()));
        let said_goodbye = replicating.from_client.last() == Some(FromClient::Terminate.byte());
        let index = replicating.pool;
        match passed {
            Ok(passed) => {
                self.pools.entry_mut(index).stats.bytes_received += passed as u64;
                effects.send_with(ConnId::Server(server), |out| out.extend_from_slice(&bytes[..passed]));
                if said_goodbye {
                    self.end_client(now, id, None, "client close request", effects);
                }
            }
            Err(bad) => {
                self.totals.protocol_errors += 1;
                let report = Report::fatal(bad.sqlstate(), bad.to_string());
                self.refuse_client(now, id, &report, effects);
            }
        }
    }

    /// Bytes of a server whose client replicates.
    pub(crate) fn server_relays(&mut self, now: Instant, id: ServerId, bytes: &[u8], effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.used = now;
        let (index, Some(client)) = (conn.pool, conn.client) else { return };
        let Some(replicating) = self.replicating(client) else { return };
        if replicating.from_server.pass(bytes, None).is_err() {
            return self.lose(now, id, "PostgreSQL sent something unexpected", effects);
        }
        self.pools.entry_mut(index).stats.bytes_sent += bytes.len() as u64;
        effects.send_with(ConnId::Client(client), |out| out.extend_from_slice(bytes));
    }

    /// The server connection of a client that is not welcome yet could not be made. With `report` nothing else would
    /// help; without, it is tried again until the login has taken too long.
    pub(crate) fn replication_not_dialed(
        &mut self,
        now: Instant,
        id: ClientId,
        report: Option<&Report>,
        effects: &mut Effects,
    ) {
        let Some(replicating) = self.replicating(id) else { return };
        replicating.server = None;
        let pool = replicating.pool;
        match report {
            Some(report) => self.refuse_login(now, id, report, effects),
            None => self.queue_private(now, pool, id),
        }
    }

    /// The server connection is gone, and the client goes with it. What PostgreSQL said last has been passed on.
    pub(crate) fn replication_lost(&mut self, now: Instant, id: ClientId, what: &str, effects: &mut Effects) {
        let Some(replicating) = self.replicating(id) else { return };
        if !replicating.is_welcome() {
            return self.replication_not_dialed(now, id, None, effects);
        }
        replicating.server = None;
        let has_heard = replicating.from_server.last() == Some(FromServer::ErrorResponse.byte());
        let report = Report::fatal(SqlState::ADMIN_SHUTDOWN, "the replication connection has ended")
            .detail(format!("{what}."))
            .hint("Connect again.");
        let report = (!has_heard).then_some(&report);
        self.end_client(now, id, report, "server connection closed", effects);
    }

    /// The client is gone, and its server connection goes with it.
    pub(crate) fn end_replication(
        &mut self,
        now: Instant,
        id: ClientId,
        own: &Replicating,
        effects: &mut Effects,
    ) {
        let entry = self.pools.entry_mut(own.pool);
        entry.forget_private(id);
        let Some(server) = own.server.filter(|server| self.servers.contains(key(server.0))) else { return };
        self.servers.remove(key(server.0));
        let conn = ConnId::Server(server);
        if own.is_welcome() && own.from_client.is_between() {
            if own.from_client.last() != Some(FromClient::Terminate.byte()) {
                effects.send_with(conn, frontend::terminate);
            }
            effects.list.push(Effect::Close(conn));
        } else {
            effects.list.push(Effect::Abort(conn));
        }
        let entry = self.pools.entry_mut(own.pool);
        if own.is_welcome() {
            entry.stats.servers_closed += 1;
            entry.pool.discard(server);
        } else {
            entry.pool.private_given_up(server);
        }
        self.pump(now, own.pool, effects);
    }

    /// PostgreSQL has ended such a connection with an error of its own.
    pub(crate) fn has_said_why(&self, conn: &ServerConn) -> bool {
        let replicating = conn.client.and_then(|id| self.clients.get(key(id.0))?.replicating());
        let last = replicating.and_then(|replicating| replicating.from_server.last());
        last == Some(FromServer::ErrorResponse.byte())
    }
}

impl PoolEntry {
    fn forget_private(&mut self, id: ClientId) {
        self.wants_private.retain(|(other, _)| *other != id);
        self.note_private();
    }

    fn note_private(&mut self) {
        self.pool.want_private(self.wants_private.front().map(|(_, since)| *since));
    }
}

const CANCEL_KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use weir_protocol::startup::ProtocolVersion;

    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Result<Option<Replication>, &str>) {
        let startup = Startup {
            version: ProtocolVersion::V3_0,
            parameters: vec![("user".into(), "u".into()), ("replication".into(), value.into())],
            protocol_options: Vec::new(),
        };
        let wanted = Replication::wanted(&startup);
        let wanted = wanted.map_err(|report| report.code.as_str().to_owned());
        assert_eq!(wanted, expected.map_err(str::to_owned), "{value}");
    }

    #[test]
    fn values_are_read_as_postgresql_reads_them() {
        for value in ["true", "t", "on", "YES", "y", "1"] {
            check(value, Ok(Some(Replication::Physical)));
        }
        for value in ["false", "f", "off", "no", "0"] {
            check(value, Ok(None));
        }
        check("database", Ok(Some(Replication::Logical)));
        for value in ["", "o", "2", "Database", "truest"] {
            check(value, Err("22023"));
        }
    }
}
