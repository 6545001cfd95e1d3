//! Requests that are sent once more: to another member where a replica has failed them, and after a rest where the next
//! connection at hand may only be the next to fail them. Refuses to know why a request may be repeated.

use std::time::{Duration, Instant};

use weir_pool::{ClientId, MemberId, ServerId};

use crate::io::Effects;
use crate::pools::PoolIndex;
use crate::{Worker, key};

impl Worker {
    /// The client's server connection, at rest, has broken off its request, which goes to another member.
    pub(crate) fn leave_member(
        &mut self,
        now: Instant,
        server: ServerId,
        id: ClientId,
        mut bytes: Vec<u8>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        bytes.append(&mut client.carry);
        client.carry = bytes;
        let Some(open) = client.open_mut() else { return };
        open.server = None;
        let entry = self.pools.entry_mut(open.pool);
        entry.stats.retries += 1;
        let member = entry.pool.server(server).map(|facts| facts.member);
        // Nobody else may get what this one says behind it: these are its last words.
        let goes_on = self.servers.get(key(server.0)).is_some_and(|conn| conn.carry.is_empty());
        if goes_on {
            self.settle(now, server, effects);
        } else {
            self.discard(now, server, effects);
        }
        if self.clients.get(key(id.0)).is_some_and(|client| client.inside.is_some()) {
            return self.go_elsewhere(now, id, member, effects);
        }
        // What one replica replays the others replay at nearly the same moment, and it would be in the way there, too.
        self.rest_for_another(now, id, member, effects);
    }

    /// Sends a client's request once more: at once to another member than the one where it was lost, if a connection there
    /// is idle, otherwise after a rest.
    pub(crate) fn go_elsewhere(
        &mut self,
        now: Instant,
        id: ClientId,
        not: Option<MemberId>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let is_inside = client.inside.is_some();
        if self.serve_elsewhere(now, id, not, effects) {
            return;
        }
        if is_inside {
            return self.client_turn(now, id, &[], effects);
        }
        self.rest_for_another(now, id, not, effects);
    }

    /// Lets the request rest; a connection to another member is opened meanwhile, if none is idle.
    fn rest_for_another(&mut self, now: Instant, id: ClientId, not: Option<MemberId>, effects: &mut Effects) {
        let Some(index) = self.clients.get(key(id.0)).and_then(|client| Some(client.open()?.pool)) else {
            return;
        };
        if let Some(not) = not {
            self.pools.entry_mut(index).pool.wish_elsewhere(not, now, &mut self.chance);
        }
        self.rest(now, id, not);
        self.pump(now, index, effects);
    }

    fn serve_elsewhere(
        &mut self,
        now: Instant,
        id: ClientId,
        not: Option<MemberId>,
        effects: &mut Effects,
    ) -> bool {
        let Some(open) = self.clients.get(key(id.0)).and_then(|client| client.open()) else { return false };
        let pool = &mut self.pools.entry_mut(open.pool).pool;
        let server = not.and_then(|not| pool.checkout_elsewhere(id, not, now, &mut self.chance));
        match server {
            Some(server) => self.serve(now, id, server, effects),
            None => return false,
        }
        true
    }

    /// Lets a client wait before its request is sent once more: a server that shuts down ends its connections within
    /// moments of each other, and the next one at hand would only be the next to die. A request is repeated once.
    fn rest(&mut self, now: Instant, id: ClientId, not: Option<MemberId>) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let serial = client.serial;
        if let Some(open) = client.open_mut() {
            open.waiting_since = Some(now);
            self.resting.push_back(Resting { client: id, serial, since: now, not });
        }
    }

    /// Takes up requests that have rested long enough.
    pub(crate) fn end_rests(&mut self, now: Instant, effects: &mut Effects) {
        let is_over = |resting: &mut Resting| now.saturating_duration_since(resting.since) >= REST;
        while let Some(resting) = self.resting.pop_front_if(is_over) {
            if self.rests(&resting).is_none() {
                continue;
            }
            let id = resting.client;
            if let Some(open) = self.clients.get_mut(key(id.0)).and_then(|client| client.open_mut()) {
                open.waiting_since = None;
            }
            if !self.serve_elsewhere(now, id, resting.not, effects) {
                self.client_turn(now, id, &[], effects);
            }
        }
    }

    /// The pools of clients that rest. They are in no pool's queue.
    pub(crate) fn pools_rested_for(&self) -> impl Iterator<Item = PoolIndex> {
        self.resting.iter().filter_map(|resting| self.rests(resting))
    }

    /// The pool of the client, unless it is gone or a cancel request has answered it.
    fn rests(&self, resting: &Resting) -> Option<PoolIndex> {
        let client =
            self.clients.get(key(resting.client.0)).filter(|client| client.serial == resting.serial)?;
        client.open().filter(|open| open.waiting_since == Some(resting.since)).map(|open| open.pool)
    }
}

/// A client whose request will be sent once more.
pub(crate) struct Resting {
    client: ClientId,
    /// Tells a reused id.
    serial: u64,
    since: Instant,
    /// Where it was lost.
    not: Option<MemberId>,
}

impl Resting {
    /// Where it was lost.
    pub(crate) fn not(&self) -> Option<MemberId> {
        self.not
    }
}

/// Longer than a server takes to end all of its connections, and too short for anybody to notice beside a new login.
const REST: Duration = Duration::from_millis(100);
