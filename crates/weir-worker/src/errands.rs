//! Queries of weir's own on a server connection that no client holds: connect_query after its login, server_check_query
//! when it has rested for long, server_reset_query behind a client. Each has a deadline.

use std::rc::Rc;
use std::time::Instant;

use weir_pool::{ServerId, Settled};
use weir_session::OwnReply;
use weir_session::settings::Settings;

use crate::io::{ConnId, DialError, Effects};
use crate::pools::PoolIndex;
use crate::server::ServerStage;
use crate::{Worker, key, server_id};

/// What a query of weir's own is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errand {
    /// connect_query, between the login and the first client.
    Connect,
    /// server_check_query: does the connection still work?
    Test,
    /// server_reset_query: nothing of the last client may be left.
    Reset,
    /// Parameters go back to the connection's own, and connect_query runs again behind that: it may have set some.
    Restore,
}

impl Errand {
    fn setting(self) -> &'static str {
        match self {
            Self::Connect => "connect_query",
            Self::Test => "server_check_query",
            Self::Reset => "server_reset_query",
            Self::Restore => "RESET ALL or DISCARD ALL",
        }
    }
}

impl Worker {
    /// Runs a query on a connection that is at rest and that its pool counts as neither idle nor a client's.
    fn send_on_errand(
        &mut self,
        now: Instant,
        id: ServerId,
        errand: Errand,
        sql: &str,
        effects: &mut Effects,
    ) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.stage = match std::mem::replace(&mut conn.stage, ServerStage::Dialing) {
            ServerStage::Open(mut server) | ServerStage::Errand(_, mut server) => {
                if matches!(errand, Errand::Reset | Errand::Restore) {
                    server.set_carried(None);
                }
                ServerStage::Errand(errand, server)
            }
            stage @ (ServerStage::Dialing | ServerStage::Login(_) | ServerStage::Relaying) => stage,
        };
        conn.used = now;
        effects.send_with(ConnId::Server(id), |out| weir_protocol::frontend::query(sql.as_bytes(), out));
    }

    /// Sends connect_query on a connection whose login just ended. False if there is none.
    pub(crate) fn run_connect_query(&mut self, now: Instant, id: ServerId, effects: &mut Effects) -> bool {
        let Some(conn) = self.servers.get(key(id.0)) else { return false };
        let Some(sql) = self.connect_query(conn.pool) else { return false };
        self.send_on_errand(now, id, Errand::Connect, &sql, effects);
        true
    }

    fn connect_query(&self, pool: PoolIndex) -> Option<String> {
        self.config.database(&self.pools.entry(pool).key.database)?.connect_query.clone()
    }

    /// Finds out whether connections that have rested for long still work, as many as clients wait for.
    pub(crate) fn test_rested(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        while let Some(id) = self.pools.entry_mut(index).pool.next_test(now, &mut self.chance) {
            let sql = self.config.pool.server_check_query.clone().unwrap_or_default();
            self.send_on_errand(now, id, Errand::Test, &sql, effects);
        }
    }

    /// Sends server_reset_query on a connection that is at rest. False if there is none.
    pub(crate) fn run_reset_query(&mut self, now: Instant, id: ServerId, effects: &mut Effects) -> bool {
        let sql = self.config.pool.server_reset_query.clone();
        if sql.is_empty() {
            return false;
        }
        self.part_server(now, id);
        self.send_on_errand(now, id, Errand::Reset, &sql, effects);
        true
    }

    /// A client has changed parameters, and connect_query may have set some: brings the connection back to what it was in
    /// front of its first client. False if nothing has to be done.
    pub(crate) fn restore(&mut self, now: Instant, id: ServerId, effects: &mut Effects) -> bool {
        let Some(conn) = self.servers.get(key(id.0)) else { return false };
        let is_unknown = conn.open().is_some_and(weir_session::Server::is_unknown);
        if !is_unknown || self.connect_query(conn.pool).is_none() {
            return false;
        }
        self.part_server(now, id);
        let sql = "RESET SESSION AUTHORIZATION;RESET ALL";
        self.send_on_errand(now, id, Errand::Restore, sql, effects);
        true
    }

    /// A client in transaction pooling has left more behind than settings: nothing of it may reach the next one. False if
    /// nothing has to be done.
    pub(crate) fn clean(&mut self, now: Instant, id: ServerId, effects: &mut Effects) -> bool {
        let is_dirty =
            |conn: &crate::server::ServerConn| conn.open().is_some_and(weir_session::Server::needs_cleaning);
        if !self.servers.get(key(id.0)).is_some_and(is_dirty) {
            return false;
        }
        self.part_server(now, id);
        self.send_on_errand(now, id, Errand::Restore, "DISCARD ALL", effects);
        true
    }

    fn part_server(&mut self, now: Instant, id: ServerId) {
        if let Some(conn) = self.servers.get(key(id.0)) {
            self.pools.entry_mut(conn.pool).pool.part(id, now);
        }
    }

    pub(crate) fn errand_received(
        &mut self,
        now: Instant,
        id: ServerId,
        bytes: &[u8],
        effects: &mut Effects,
    ) {
        let plain = self.settings.intern(Settings::default());
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.carry.extend_from_slice(bytes);
        let ServerStage::Errand(errand, server) = &mut conn.stage else { return };
        let errand = *errand;
        match server.own_reply(&mut conn.carry, &plain) {
            Ok(None) => {}
            Ok(Some(reply)) => self.errand_done(now, id, errand, reply, effects),
            Err(what) => {
                let name = conn.name();
                tracing::warn!(server = %name, "{what} in reply to {}; closing the connection", errand.setting());
                self.give_up_errand(now, id, errand, effects);
            }
        }
    }

    fn errand_done(
        &mut self,
        now: Instant,
        id: ServerId,
        errand: Errand,
        OwnReply { error }: OwnReply,
        effects: &mut Effects,
    ) {
        if let Some(error) = &error {
            let name = self.servers.get(key(id.0)).map(crate::server::ServerConn::name).unwrap_or_default();
            tracing::warn!(server = %name, "{} failed: {error}", errand.setting());
        }
        match (errand, error) {
            (Errand::Connect, _) => self.connected(now, id, effects),
            (Errand::Restore, None) => {
                if !self.run_connect_query(now, id, effects) {
                    self.errand_over(now, id, effects);
                }
            }
            (Errand::Test | Errand::Reset, None) => self.errand_over(now, id, effects),
            (Errand::Test | Errand::Reset | Errand::Restore, Some(_)) => {
                self.give_up_errand(now, id, errand, effects);
            }
        }
    }

    /// connect_query has run, whatever it did: this is what the connection carries when nobody asks for anything.
    fn connected(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let plain = self.settings.intern(Settings::default());
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        let ServerStage::Errand(_, server) = &mut conn.stage else { return };
        server.set_carried(Some(plain));
        let reported = Rc::clone(server.reported());
        let index = conn.pool;
        self.pools.entry_mut(index).reported = Some(self.catalog.reported.intern_shared(&reported));
        self.errand_over(now, id, effects);
    }

    /// The connection can be used (again).
    fn errand_over(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        let stage = std::mem::replace(&mut conn.stage, ServerStage::Dialing);
        conn.stage = match stage {
            ServerStage::Errand(_, server) => ServerStage::Open(server),
            ServerStage::Dialing | ServerStage::Login(_) | ServerStage::Open(_) | ServerStage::Relaying => {
                stage
            }
        };
        let rest = std::mem::take(&mut conn.carry);
        if conn.is_new {
            self.take_into_use(now, id, &rest, effects);
        } else if self.idle_turn(now, id, &rest, effects) {
            self.settle_clean(now, id, effects);
        }
    }

    fn give_up_errand(&mut self, now: Instant, id: ServerId, errand: Errand, effects: &mut Effects) {
        let is_new = self.servers.get(key(id.0)).is_some_and(|conn| conn.is_new);
        if is_new {
            effects.list.push(crate::io::Effect::Abort(ConnId::Server(id)));
            let why = DialError::Refused(format!("{} ended the connection", errand.setting()));
            self.server_unreachable(now, id, &why, effects);
        } else {
            self.discard(now, id, effects);
        }
    }

    /// Errands that PostgreSQL does not get done with. Those of a new connection end with its login.
    pub(crate) fn end_slow_errands(&mut self, now: Instant, effects: &mut Effects) {
        let limit = self.config.pool.server_connect_timeout;
        let slow = |since: Instant| now.saturating_duration_since(since) >= limit;
        let late: Vec<(ServerId, Errand)> = self
            .servers
            .iter()
            .filter_map(|(at, conn)| {
                let ServerStage::Errand(errand, _) = conn.stage else { return None };
                (!conn.is_new && slow(conn.used)).then(|| (server_id(at), errand))
            })
            .collect();
        for (id, errand) in late {
            let name = self.servers.get(key(id.0)).map(crate::server::ServerConn::name).unwrap_or_default();
            tracing::warn!(server = %name, "no answer to {} in time; closing the connection", errand.setting());
            self.give_up_errand(now, id, errand, effects);
        }
    }

    /// A new connection goes to the first client in the queue.
    pub(crate) fn take_into_use(&mut self, now: Instant, id: ServerId, rest: &[u8], effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        let index = conn.pool;
        conn.is_new = false;
        conn.used = now;
        // What came behind the login may be the connection's last words.
        if self.idle_turn(now, id, rest, effects) {
            let settled = self.pools.entry_mut(index).pool.ready(id, now);
            self.note_hold(now, index);
            match settled {
                Settled::Grant(client) => self.serve(now, client, id, effects),
                Settled::Idle => {}
                Settled::Retire => self.close_server(id, effects),
            }
        }
        self.welcome_all(now, index, effects);
        self.pump(now, index, effects);
    }
}
