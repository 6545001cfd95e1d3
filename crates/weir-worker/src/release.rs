//! Server connections whose client lets go of them: back to the pool with a proof that they are at rest, cleaned first
//! after session pooling, closed otherwise.

use std::time::Instant;

use weir_pool::{ClientId, ServerId, Settled};
use weir_session::AtRest;
use weir_session::server::Tally;

use crate::io::{ConnId, Effect, Effects};
use crate::{Worker, key};

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
        let Some(server) = conn.open_mut() else { return };
        let tally = server.take_tally();
        let proof = server.at_rest();
        self.pools.entry_mut(index).add(tally);
        match proof {
            None => self.discard(now, id, effects),
            // A cancel request may still arrive there, and must not hit the next client's query.
            Some(_) if in_doubt => self.discard(now, id, effects),
            Some(_) if cancels > 0 => {
                self.pools.entry_mut(index).pool.part(id, now);
                if let Some(conn) = self.servers.get_mut(key(id.0)) {
                    conn.settling_since = Some(now);
                }
            }
            Some(_)
                if self.config.pool.server_reset_query_always && self.run_reset_query(now, id, effects) => {}
            Some(_) if self.restore(now, id, effects) => {}
            Some(proof) => self.give_back(now, id, proof, effects),
        }
    }

    /// The only way into the idle list.
    fn give_back(&mut self, now: Instant, id: ServerId, _at_rest: AtRest, effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.settling_since = None;
        let index = conn.pool;
        match self.pools.entry_mut(index).pool.give_back(id, now) {
            Settled::Grant(client) => self.serve(now, client, id, effects),
            Settled::Idle => {}
            Settled::Retire => {
                self.close_server(id, effects);
                self.pump(now, index, effects);
            }
        }
    }

    /// Closes a server connection that cannot be used again.
    pub(crate) fn discard(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.try_remove(key(id.0)) else { return };
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
        let Some(server) = conn.open_mut() else { return };
        let tally = server.take_tally();
        let can_reset = server.at_rest().is_some() && !can_cancel;
        self.pools.entry_mut(index).add(tally);
        if !can_reset {
            self.discard(now, id, effects);
        } else if !self.run_reset_query(now, id, effects) {
            self.settle_clean(now, id, effects);
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
        let Tally {
            queries,
            transactions,
            query_micros,
            transaction_micros,
            client_parses,
            server_parses,
            binds,
        } = tally;
        self.stats.queries += queries;
        self.stats.transactions += transactions;
        self.stats.query_micros += query_micros;
        self.stats.transaction_micros += transaction_micros;
        self.stats.client_parses += client_parses;
        self.stats.server_parses += server_parses;
        self.stats.binds += binds;
    }
}
