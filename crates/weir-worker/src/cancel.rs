//! Cancel requests. The key names the client; the server connection it holds is looked up at the moment the request
//! has its turn, and is not given to anybody else until PostgreSQL is done with the request. A request for another
//! process's client goes to that process. While the server works on a query of weir's own in front of the client's request,
//! the request waits: it would end the wrong one.
//!
//! Requests under way to the servers of one pool are bounded by the pool's size, those to one peer by the peer's; the
//! others wait, at most for `cancel_wait_timeout`, and no more of them than there may be clients.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use weir_discovery::Address;
use weir_pool::{ClientId, ServerId};
use weir_protocol::frontend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::BackendKey;
use weir_session::server::WorksFor;

use crate::client::Stage;
use crate::io::{CancelId, ConnId, DialError, Effect, Effects, Encryption};
use crate::pools::PoolIndex;
use crate::server::ServerConn;
use crate::{Worker, cancel_key, id_of, key};

/// One cancel request.
pub(crate) struct Cancel {
    pub(crate) lane: Lane,
    /// The connection that the request came on; it ends when PostgreSQL is done, as PostgreSQL itself does it.
    requester: ClientId,
    pub(crate) requester_serial: u64,
    /// When it came, or was sent on its way.
    since: Instant,
    pub(crate) progress: Progress,
}

/// What requests share a limit with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Those to the servers of one pool.
    Pool(PoolIndex),
    /// Those to one other process.
    Peer(u16),
}

impl Lane {
    pub(crate) fn pool(self) -> Option<PoolIndex> {
        match self {
            Self::Pool(index) => Some(index),
            Self::Peer(_) => None,
        }
    }
}

/// How far a request has come.
pub(crate) enum Progress {
    /// Too many others are under way, or PostgreSQL does not work for the client yet. The key as the client sent it.
    Waiting(BackendKey),
    /// The shell is connecting, or has sent it.
    UnderWay(Errand),
}

/// A request under way.
pub(crate) struct Errand {
    /// The server connection it is for, with the serial that tells a reused id; `None` for a peer's.
    pub(crate) server: Option<(ServerId, u64)>,
    /// What is sent.
    key: BackendKey,
    /// PostgreSQL may have it.
    is_sent: bool,
}

impl Cancel {
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.progress, Progress::Waiting(_))
    }

    /// PostgreSQL or the peer may have it.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(&self.progress, Progress::UnderWay(errand) if errand.is_sent)
    }

    /// The server connection it is under way to.
    pub(crate) fn server(&self) -> Option<(ServerId, u64)> {
        match &self.progress {
            Progress::Waiting(_) => None,
            Progress::UnderWay(errand) => errand.server,
        }
    }
}

/// What becomes of a request.
enum Aim {
    /// It goes there.
    At(Destination),
    /// Its turn comes when PostgreSQL works for the client.
    Later(PoolIndex),
    /// There is nothing to cancel, or that is done.
    Nothing,
}

/// Where a request has to go.
struct Destination {
    lane: Lane,
    address: Address,
    /// Which one of the host's addresses.
    remote: Option<IpAddr>,
    tls: Encryption,
    errand: Errand,
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
        let aim = self.aim(now, wanted, effects);
        let lane = match &aim {
            Aim::At(destination) => destination.lane,
            Aim::Later(pool) => Lane::Pool(*pool),
            Aim::Nothing => return self.end_request(now, requester, effects),
        };
        // Requests stay when those who made them leave, and for a peer's client anybody can make one.
        if self.cancels.len() >= self.open_max() {
            tracing::warn!("a cancel request is dropped: {} others are waiting", self.cancels.len());
            return self.end_request(now, requester, effects);
        }
        let cancel = Cancel {
            lane,
            requester,
            requester_serial: self.clients.get(key(requester.0)).map_or(0, |client| client.serial),
            since: now,
            progress: Progress::Waiting(wanted.clone()),
        };
        let id = CancelId(id_of(self.cancels.insert(cancel)));
        if let Aim::At(destination) = aim
            && self.under_way(lane) < self.under_way_max(lane)
        {
            self.send_out(now, id, destination, effects);
        }
    }

    /// A query has taken too long, and its server connection is about to be closed: PostgreSQL is to stop working on it.
    pub(crate) fn cancel_overdue(&mut self, now: Instant, server: ServerId, effects: &mut Effects) {
        let Some(destination) = self.towards_server(server) else { return };
        let cancel = Cancel {
            lane: destination.lane,
            requester: ClientId(u32::MAX),
            requester_serial: NOBODY,
            since: now,
            progress: Progress::Waiting(destination.errand.key.clone()),
        };
        let id = CancelId(id_of(self.cancels.insert(cancel)));
        self.send_out(now, id, destination, effects);
    }

    /// Finds out what a request is for. One for a client that only waits or is held is done with here, one for an idle client or
    /// for nobody is dropped.
    fn aim(&mut self, now: Instant, wanted: &BackendKey, effects: &mut Effects) -> Aim {
        let own = self.config.peer_id;
        if own != 0 && cancel_key::owner(wanted) != own {
            return self.towards_peer(wanted).map_or(Aim::Nothing, Aim::At);
        }
        let Some(target) = self.client_of_key(wanted) else {
            tracing::info!("a cancel request names no client of ours");
            return Aim::Nothing;
        };
        let Some(server) = self.clients.get(key(target.0)).and_then(|client| client.server()) else {
            self.cancel_waiting(now, target, effects);
            return Aim::Nothing;
        };
        let Some(conn) = self.servers.get(key(server.0)) else { return Aim::Nothing };
        let works_for = match &conn.replication {
            Some(_) => WorksFor::Client,
            None => conn.open().map_or(WorksFor::Nobody, weir_session::Server::works_for),
        };
        match works_for {
            // Only what the client is owed a reply for can be cancelled; anything else could hit a later query.
            WorksFor::Nobody => {
                self.cancel_held(now, target, effects);
                Aim::Nothing
            }
            WorksFor::WeirFirst => Aim::Later(conn.pool),
            WorksFor::Client => self.towards_server(server).map_or(Aim::Nothing, Aim::At),
        }
    }

    fn towards_peer(&self, wanted: &BackendKey) -> Option<Destination> {
        let peer_id = cancel_key::owner(wanted);
        let Some((host, port)) =
            self.config.peers.get(&peer_id).and_then(|peer| Some((peer.host.clone()?, peer.port)))
        else {
            tracing::warn!("a cancel request belongs to peer {peer_id}, which is not configured");
            return None;
        };
        let Some(key) = cancel_key::forwarded(wanted) else {
            tracing::warn!(
                "a cancel request for peer {peer_id} was forwarded too often; do the peers' numbers agree?"
            );
            return None;
        };
        let errand = Errand { server: None, key, is_sent: false };
        let (address, tls) = (Address { host, port }, Encryption::default());
        Some(Destination { lane: Lane::Peer(peer_id), address, remote: None, tls, errand })
    }

    fn towards_server(&self, server: ServerId) -> Option<Destination> {
        let conn = self.servers.get(key(server.0))?;
        let key = BackendKey { pid: conn.pid, secret: conn.secret.clone()? };
        let errand = Errand { server: Some((server, conn.serial)), key, is_sent: false };
        let (lane, address) = (Lane::Pool(conn.pool), (*conn.address).clone());
        // What is secret on one connection is no less so on the other.
        let tls = self.tls_towards(conn, conn.tls.is_some());
        Some(Destination { lane, address, remote: conn.remote, tls, errand })
    }

    /// A client that waits for a server connection gets its answer at once; an idle one has nothing to cancel.
    fn cancel_waiting(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        if let Stage::Console(console) = &mut client.stage {
            console.is_cancelled = console.busy;
        }
        let Some(open) = client.open_mut() else { return };
        if open.waiting_since.take().is_none() {
            return;
        }
        let index = open.pool;
        open.session
            .refuse_next(cancelled("It was waiting for a server connection; nothing of it was executed."));
        self.pools.entry_mut(index).pool.forget(id);
        self.client_turn(now, id, &[], effects);
    }

    /// The same for one that holds a server connection and may not begin anything on it: the leader is about to go by plan.
    fn cancel_held(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let is_held = self.holds_session(id);
        if is_held && self.clients.get(key(id.0)).is_some_and(|client| !client.carry.is_empty()) {
            let report = cancelled("It waited for a change of the leader; nothing of it was executed.");
            self.refuse_held(now, id, report, effects);
        }
    }

    /// The client that a cancel key names, if the key is right.
    fn client_of_key(&self, wanted: &BackendKey) -> Option<ClientId> {
        let peer_id = self.config.peer_id;
        let is_meant = |id: &ClientId| {
            let own = self.clients.get(key(id.0)).and_then(|client| client.cancel_key());
            own.is_some_and(|own| cancel_key::is_same(peer_id, own, &wanted.secret))
        };
        // Ids are given from the lowest up, so none is beyond the table's size.
        cancel_key::candidates(peer_id, self.index, wanted.pid, self.clients.capacity()).find(is_meant)
    }

    fn under_way(&self, lane: Lane) -> usize {
        self.cancels.iter().filter(|(_, cancel)| cancel.lane == lane && !cancel.is_waiting()).count()
    }

    fn under_way_max(&self, lane: Lane) -> usize {
        let size = match lane {
            Lane::Pool(index) => self.pools.entry(index).pool.limits().size,
            Lane::Peer(id) => {
                let own = self.config.peers.get(&id).and_then(|peer| peer.pool_size);
                own.unwrap_or(self.config.pool.size)
            }
        };
        usize::try_from(size.get()).unwrap_or(usize::MAX)
    }

    fn send_out(&mut self, now: Instant, id: CancelId, destination: Destination, effects: &mut Effects) {
        let Destination { lane, address, remote, tls, errand } = destination;
        let Some(cancel) = self.cancels.get_mut(key(id.0)) else { return };
        if let Some(conn) = errand.server.and_then(|(server, _)| self.servers.get_mut(key(server.0))) {
            conn.cancels += 1;
        }
        cancel.lane = lane;
        cancel.since = now;
        cancel.progress = Progress::UnderWay(errand);
        effects.list.push(Effect::DialCancel(id, address, remote, tls));
    }

    /// Requests of the lane that wait have their turn as far as there is room, the oldest first. What they are for may have
    /// ended meanwhile.
    fn next_in_lane(&mut self, now: Instant, lane: Lane, effects: &mut Effects) {
        let in_lane = self.cancels.iter().filter(|(_, cancel)| cancel.lane == lane && cancel.is_waiting());
        let mut waiting: Vec<(u64, usize)> =
            in_lane.map(|(at, cancel)| (cancel.requester_serial, at)).collect();
        waiting.sort_unstable();
        for (_, at) in waiting {
            if self.under_way(lane) >= self.under_way_max(lane) {
                return;
            }
            let Some(Cancel { progress: Progress::Waiting(wanted), .. }) = self.cancels.get(at) else {
                continue;
            };
            match self.aim(now, &wanted.clone(), effects) {
                Aim::At(destination) => self.send_out(now, CancelId(id_of(at)), destination, effects),
                Aim::Later(_) => {}
                Aim::Nothing => self.drop_cancel(now, CancelId(id_of(at)), effects),
            }
        }
    }

    /// Requests whose server was busy with a query of weir's own have another try.
    fn try_waiting_cancels(&mut self, now: Instant, effects: &mut Effects) {
        let mut lanes: Vec<Lane> = Vec::new();
        for (_, cancel) in self.cancels.iter().filter(|(_, cancel)| cancel.is_waiting()) {
            if !lanes.contains(&cancel.lane) {
                lanes.push(cancel.lane);
            }
        }
        for lane in lanes {
            self.next_in_lane(now, lane, effects);
        }
    }

    /// The shell reached PostgreSQL or the peer, or did not.
    pub(crate) fn cancel_dialed(
        &mut self,
        now: Instant,
        id: CancelId,
        result: Result<(), DialError>,
        effects: &mut Effects,
    ) {
        let Some(cancel) = self.cancels.get_mut(key(id.0)) else { return };
        let Progress::UnderWay(errand) = &mut cancel.progress else { return };
        match result {
            Ok(()) => {
                errand.is_sent = true;
                effects.send_with(ConnId::Cancel(id), |out| {
                    frontend::cancel_request(errand.key.pid, errand.key.secret.as_bytes(), out);
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
        let Some(lane) = self.cancels.get(key(id.0)).map(|cancel| cancel.lane) else { return };
        self.drop_cancel(now, id, effects);
        self.next_in_lane(now, lane, effects);
    }

    /// Forgets a request, and lets go of its requester and of the server connection that waited for it.
    fn drop_cancel(&mut self, now: Instant, id: CancelId, effects: &mut Effects) {
        let Some(cancel) = self.cancels.try_remove(key(id.0)) else { return };
        let asked = self.clients.get(key(cancel.requester.0));
        if asked.is_some_and(|client| client.serial == cancel.requester_serial) {
            self.end_request(now, cancel.requester, effects);
        }
        let Some((server, serial)) = cancel.server() else { return };
        let Some(conn) = self.cancelled_server(server, serial) else { return };
        conn.cancels = conn.cancels.saturating_sub(1);
        if conn.cancels == 0 && conn.settling_since.take().is_some() {
            self.settle(now, server, effects);
        }
    }

    /// Requests that took too long are given up, and so is a connection that waits for nothing else. The others may go on.
    pub(crate) fn tend_cancels(&mut self, now: Instant, effects: &mut Effects) {
        let limit = self.config.limits.cancel_wait_timeout;
        let is_late = |cancel: &Cancel| {
            let age = now.saturating_duration_since(cancel.since);
            match &cancel.progress {
                // PgBouncer's zero: they wait for their turn as long as it takes.
                Progress::Waiting(_) => !limit.is_zero() && age >= limit,
                Progress::UnderWay(_) => age >= if limit.is_zero() { UNDER_WAY_TIME_MAX } else { limit },
            }
        };
        let late: Vec<CancelId> = self
            .cancels
            .iter()
            .filter(|(_, cancel)| is_late(cancel))
            .map(|(at, _)| CancelId(id_of(at)))
            .collect();
        for id in late {
            self.give_up_cancel(now, id, effects);
        }
        self.try_waiting_cancels(now, effects);
    }

    fn give_up_cancel(&mut self, now: Instant, id: CancelId, effects: &mut Effects) {
        let Some(cancel) = self.cancels.get(key(id.0)) else { return };
        if let Progress::UnderWay(errand) = &cancel.progress {
            effects.list.push(Effect::Abort(ConnId::Cancel(id)));
            let (server, is_sent) = (errand.server, errand.is_sent);
            if let Some((server, serial)) = server
                && let Some(conn) = self.cancelled_server(server, serial)
            {
                conn.cancel_in_doubt |= is_sent;
                if conn.settling_since.is_some() {
                    self.discard(now, server, effects);
                }
            }
        }
        self.cancel_ended(now, id, effects);
    }

    /// The server connection that a request is for, if it is still the same one.
    fn cancelled_server(&mut self, server: ServerId, serial: u64) -> Option<&mut ServerConn> {
        self.servers.get_mut(key(server.0)).filter(|conn| conn.serial == serial)
    }

    fn end_request(&mut self, now: Instant, requester: ClientId, effects: &mut Effects) {
        self.end_client(now, requester, None, "cancel request", effects);
    }
}

/// PostgreSQL's words; `detail` says how far it had come.
fn cancelled(detail: &str) -> Report {
    Report::error(SqlState::QUERY_CANCELED, "canceling statement due to user request").detail(detail)
}

/// Serial of no client: they begin with 1.
const NOBODY: u64 = 0;

/// Without `cancel_wait_timeout`, so long a request may be under way.
const UNDER_WAY_TIME_MAX: Duration = Duration::from_secs(10);
