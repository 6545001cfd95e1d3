//! Server connections whose client lets go of them: back to the pool with a proof that they are at rest, cleaned first
//! after session pooling, closed otherwise.

use std::time::Instant;

use weir_admin::snapshot::PoolStats;
use weir_discovery::SessionEvidence;
use weir_pool::{ClientId, ServerId, Settled};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::server::Tally;
use weir_session::{AtRest, Mode};

use crate::io::{ConnId, Effect, Effects};
use crate::pools::PoolIndex;
use crate::{Worker, key, server_id};

impl Worker {
    /// The client's server connection is at rest, and the client lets go of it.
    pub(crate) fn release(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let is_inside = client.inside.is_some();
        let Some(server) = client.open_mut().and_then(|open| open.server.take()) else { return };
        self.settle(now, server, effects);
        if is_inside {
            self.lookup_answered(now, id, effects);
        } else {
            self.part_if_done(now, id, effects);
        }
    }

    /// Nobody holds the server connection any longer: it goes back to its pool if it can prove that it is at rest.
    pub(crate) fn settle(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.client = None;
        conn.used = now;
        let (index, cancels, in_doubt) = (conn.pool, conn.cancels, conn.cancel_in_doubt);
        let was_promoted = conn.was_promoted();
        let Some(server) = conn.open_mut() else { return };
        let tally = server.take_tally();
        let proof = server.at_rest();
        self.pools.entry_mut(index).add(tally);
        match proof {
            None => self.discard(now, id, effects),
            // There is nothing to clean on a connection that nobody gets.
            Some(_) if was_promoted => self.leave_promoted(now, id, effects),
            // A cancel request may still arrive there, and must not hit the next client's query.
            Some(_) if in_doubt => self.discard(now, id, effects),
            Some(_) if cancels > 0 => {
                self.pools.entry_mut(index).pool.part(id, now);
                if let Some(conn) = self.servers.get_mut(key(id.0)) {
                    conn.settling_since = Some(now);
                }
            }
            Some(_) if self.clean(now, id, effects) => {}
            Some(_)
                if self.config.pool.server_reset_query_always && self.run_reset_query(now, id, effects) => {}
            Some(_) if self.restore(now, id, effects) => {}
            Some(proof) => self.give_back(now, id, proof, effects),
        }
    }

    /// A replica says that it is one no longer. Its sessions are left at the first boundary, before discovery has spoken.
    fn leave_promoted(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        if let Some(conn) = self.servers.get(key(id.0)) {
            let address = (*conn.address).clone();
            self.tell_discovery(conn.pool, SessionEvidence::NoStandby { address }, effects);
        }
        self.discard_because(now, id, "its member was promoted", effects);
    }

    /// The only way into the idle list. A query of weir's own (a reset, a check) hears of a promotion like any other.
    fn give_back(&mut self, now: Instant, id: ServerId, _at_rest: AtRest, effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        if conn.was_promoted() {
            return self.leave_promoted(now, id, effects);
        }
        conn.settling_since = None;
        let index = conn.pool;
        match self.pools.entry_mut(index).pool.give_back(id, now) {
            Settled::Grant(client) => self.serve(now, client, id, effects),
            Settled::Idle => {}
            Settled::Retire if self.pools.entry(index).pool.gave_way() => {
                self.close_evicted(now, id, effects);
                self.pump(now, index, effects);
            }
            Settled::Retire => {
                self.close_server(id, effects);
                self.pump(now, index, effects);
            }
        }
    }

    /// Closes a server connection that cannot be used again, because its client left it in the middle of something.
    pub(crate) fn discard(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        self.discard_because(now, id, "client disconnect while server was not ready", effects);
    }

    /// The same for another reason.
    pub(crate) fn discard_because(&mut self, now: Instant, id: ServerId, why: &str, effects: &mut Effects) {
        let Some(conn) = self.servers.try_remove(key(id.0)) else { return };
        self.log_server_closing(now, &conn, why);
        effects.list.push(Effect::Abort(ConnId::Server(id)));
        let entry = self.pools.entry_mut(conn.pool);
        entry.stats.servers_closed += 1;
        entry.pool.discard(id);
        self.pump(now, conn.pool, effects);
    }

    /// Session pooling: cleans the connection before the next client gets it.
    pub(crate) fn reset(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.client = None;
        let (index, can_cancel) = (conn.pool, conn.cancels > 0 || conn.cancel_in_doubt);
        let was_promoted = conn.was_promoted();
        let Some(server) = conn.open_mut() else { return };
        let tally = server.take_tally();
        let can_reset = server.at_rest().is_some() && !can_cancel;
        self.pools.entry_mut(index).add(tally);
        let is_replaced = self.pools.entry(index).pool.server(id).is_some_and(|facts| facts.retire);
        if !can_reset {
            self.discard(now, id, effects);
        } else if was_promoted {
            self.leave_promoted(now, id, effects);
        } else if self.ends_with_its_session(id) {
            self.pools.entry_mut(index).pool.discard(id);
            self.close_server(id, effects);
            self.pump(now, index, effects);
        } else if is_replaced || !self.run_reset_query(now, id, effects) {
            self.settle_clean(now, id, effects);
        }
    }

    /// A superuser can leave behind what DISCARD ALL does not undo (loaded libraries, hooks, settings of others' roles), and
    /// comes for administration, not by the thousand: its session ends with its client, as it does without a pooler. A
    /// server_reset_query that was chosen says what is enough.
    fn ends_with_its_session(&self, id: ServerId) -> bool {
        let is_superuser = self.servers.get(key(id.0)).is_some_and(|conn| conn.is_superuser);
        is_superuser && self.config.pool.server_reset_query == RESET_QUERY_DEFAULT
    }

    /// server_fast_close: session-mode clients let go of connections that are to be replaced at the end of their
    /// transaction, and are closed with them, since their session is gone.
    pub(crate) fn hurry_sessions(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        if !self.config.pool.server_fast_close {
            return;
        }
        let pool = &self.pools.entry(index).pool;
        let mut hurried = Vec::new();
        for (at, conn) in self.servers.iter_mut().filter(|(_, conn)| conn.pool == index) {
            let id = server_id(at);
            if conn.client.is_some() && pool.server(id).is_some_and(|facts| facts.retire) {
                conn.closes_fast = true;
                hurried.push(id);
            }
        }
        for id in hurried {
            self.close_fast(now, id, effects);
        }
    }

    /// Closes a connection that is to be replaced, and its session with it, if it is at rest.
    pub(crate) fn close_fast(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(id.0)) else { return };
        let Some(client) = conn.client else { return };
        let session = self.clients.get(key(client.0)).and_then(|client| Some(&client.open()?.session));
        let is_session = session.is_some_and(|session| session.mode() == Mode::Session && session.is_idle());
        if is_session && conn.open().is_some_and(|server| server.at_rest().is_some()) {
            let report = Report::fatal(SqlState::PROTOCOL_VIOLATION, "database configuration changed");
            self.refuse_client(now, client, &report, effects);
        }
    }

    /// Nothing has to be run on the connection any more before it goes back.
    pub(crate) fn settle_clean(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        match self.servers.get(key(id.0)).and_then(|conn| conn.open()?.at_rest()) {
            Some(proof) => self.give_back(now, id, proof, effects),
            None => self.discard(now, id, effects),
        }
    }
}

impl crate::pools::PoolEntry {
    /// Adds the figures of a pairing.
    pub(crate) fn add(&mut self, tally: Tally) {
        add(&mut self.stats, tally);
    }
}

/// Adds the figures of a pairing.
pub(crate) fn add(stats: &mut PoolStats, tally: Tally) {
    let Tally {
        queries,
        transactions,
        query_micros,
        transaction_micros,
        client_parses,
        server_parses,
        binds,
        states,
    } = tally;
    stats.queries += queries;
    stats.transactions += transactions;
    stats.query_micros += query_micros;
    stats.transaction_micros += transaction_micros;
    stats.client_parses += client_parses;
    stats.server_parses += server_parses;
    stats.binds += binds;
    for (sum, more) in stats.session_states.iter_mut().zip(states) {
        *sum += more;
    }
}

/// What PgBouncer does with a connection between two sessions unless it is told otherwise.
const RESET_QUERY_DEFAULT: &str = "DISCARD ALL";
