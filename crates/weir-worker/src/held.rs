//! Clients that are held because nobody leads, or because the leader is about to go: how their clocks stand still, and
//! sessions, which keep their server connection and wait beside it. Whoever has none waits in the queue of its pool.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_discovery::Leadership;
use weir_pool::ClientId;
use weir_protocol::message::Report;

use crate::client::Client;
use crate::clock::{hold_timeout, no_leader, why_not_held};
use crate::io::Effects;
use crate::pools::PoolIndex;
use crate::{Worker, client_id, key};

impl Worker {
    /// Notes which pools are held now. A hold that has ended is taken off the clocks of its clients, so this has to be said
    /// before they are served.
    pub(crate) fn note_holds(&mut self, now: Instant) {
        let indices = self.pools.indices();
        let ended: HashMap<PoolIndex, Instant> =
            indices.into_iter().filter_map(|index| Some((index, self.ended_hold(now, index)?))).collect();
        self.take_off(now, &ended);
    }

    /// The same for one pool.
    pub(crate) fn note_hold(&mut self, now: Instant, index: PoolIndex) {
        if let Some(since) = self.ended_hold(now, index) {
            self.take_off(now, &HashMap::from([(index, since)]));
        }
    }

    /// Since when the pool was held, if it no longer is.
    fn ended_hold(&mut self, now: Instant, index: PoolIndex) -> Option<Instant> {
        let entry = self.pools.entry_mut(index);
        if entry.pool.held() {
            entry.held_since.get_or_insert(now);
            return None;
        }
        entry.held_since.take()
    }

    /// These holds are over.
    fn take_off(&mut self, now: Instant, ended: &HashMap<PoolIndex, Instant>) {
        if ended.is_empty() {
            return;
        }
        for (_, client) in &mut self.clients {
            let Some(open) = client.open_mut() else { continue };
            if let Some(&since) = ended.get(&open.pool) {
                open.active_at += now.saturating_duration_since(open.active_at.max(since));
                open.session.stood_still(since, now);
            }
        }
    }

    /// Nobody begins anything on the leader: it is about to go, or weir has given it up, and what it still takes will be lost.
    pub(crate) fn holds_sessions(&self) -> bool {
        self.topology.planned.is_some() || matches!(self.topology.leader, Leadership::Leaderless { .. })
    }

    /// A client that keeps its server connection on the leader, and must not begin anything on it now. What it sends waits
    /// until the leader stays after all, or takes the session with it.
    pub(crate) fn holds_session(&self, id: ClientId) -> bool {
        if !self.holds_sessions() {
            return false;
        }
        let Some(open) = self.clients.get(key(id.0)).and_then(Client::open) else { return false };
        let Some(conn) = open.server.and_then(|server| self.servers.get(key(server.0))) else { return false };
        let rests = conn.open().is_some_and(|server| server.at_rest().is_some());
        rests && open.session.is_idle() && self.goes_to_leader(conn)
    }

    /// The leader stays, or another one has taken the sessions away: what was sent meanwhile has its turn.
    pub(crate) fn resume_sessions(&mut self, now: Instant, effects: &mut Effects) {
        for (_, client) in &mut self.clients {
            if let Some(open) = client.open_mut() {
                open.held_since = None;
            }
        }
        for id in self.sessions_with_requests() {
            self.client_turn(now, id, &[], effects);
        }
    }

    /// Clients with a server connection that have sent what could not be dealt with yet.
    fn sessions_with_requests(&self) -> Vec<ClientId> {
        let has_waited = |client: &Client| {
            !client.carry.is_empty() && client.server().is_some() && client.inside.is_none()
        };
        self.clients.iter().filter(|(_, client)| has_waited(client)).map(|(at, _)| client_id(at)).collect()
    }

    /// A session whose request has been held for too long gets an error and stays. The next request has a clock of its own.
    pub(crate) fn tend_held_sessions(&mut self, now: Instant, effects: &mut Effects) {
        if !self.holds_sessions() {
            return;
        }
        for id in self.sessions_with_requests() {
            if !self.holds_session(id) {
                continue;
            }
            let Some(client) = self.clients.get_mut(key(id.0)) else { continue };
            let role = client.role;
            let Some(open) = client.open_mut() else { continue };
            let (pool, since) = (open.pool, *open.held_since.get_or_insert(now));
            let refusal = why_not_held(&self.topology, role);
            let limit =
                if refusal.is_some() { Some(Duration::ZERO) } else { hold_timeout(&self.config.upstream) };
            let Some(limit) = limit.filter(|limit| now.saturating_duration_since(since) >= *limit) else {
                continue;
            };
            let why = self.topology.why_held().unwrap_or("the leader is about to change");
            let report = refusal.unwrap_or_else(|| no_leader(&self.topology, why, limit));
            self.pools.entry_mut(pool).stats.wait_timeouts += 1;
            self.log_pooler_error(id, &report);
            self.refuse_held(now, id, report, effects);
        }
    }

    /// What a held session has asked for first is answered with an error.
    pub(crate) fn refuse_held(&mut self, now: Instant, id: ClientId, report: Report, effects: &mut Effects) {
        let Some(open) = self.clients.get_mut(key(id.0)).and_then(Client::open_mut) else { return };
        open.held_since = None;
        open.session.refuse_next(report);
        self.client_turn(now, id, &[], effects);
    }

    /// Sessions whose requests have been held this long, and their pools.
    pub(crate) fn long_held_sessions(&self, now: Instant, limit: Duration) -> Vec<(ClientId, PoolIndex)> {
        let is_long = |since: Instant| now.saturating_duration_since(since) >= limit;
        let held = self.clients.iter().filter_map(|(at, client)| {
            let open = client.open()?;
            open.held_since.filter(|since| is_long(*since)).map(|_| (client_id(at), open.pool))
        });
        held.filter(|(_, pool)| self.pools.entry(*pool).pool.held()).collect()
    }
}
