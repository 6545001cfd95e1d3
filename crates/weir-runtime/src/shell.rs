//! One worker's shell: sockets on one side, the pure machine on the other. Owns the read buffer, the connections and
//! the order in which effects are carried out. Decides nothing about sessions.
//!
//! Each socket has one small task that reads it ([`pump`]); whatever the machine then wants sent is written by that
//! same turn, to whichever connection it goes.

mod asides;
mod conn;
mod pump;
mod turns;

#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::{self, AbortHandle};
use weir_admin::snapshot::Snapshot;
use weir_config::{Dns, Tcp};
use weir_pool::{ClientId, ServerId};

use crate::derive::Deriver;
use crate::dial::{self, Dialer, Link};
use crate::elsewhere::Elsewhere;
use crate::handle::{Report, Unfinished};
use crate::listen::OpenedDoor;
use crate::machine::Machine;
use crate::resolver::{AddressesLeft, Resolver};
use crate::socket::Socket;
use crate::tls::TlsBundle;
use conn::{Conn, Key, Phase};
use pump::Pump;
use turns::Turns;
use weir_worker::{
    Accepted, ConnId, ConsoleRequest, DialError, Dialed, Effect, Effects, Encryption, Order, Role,
};

/// A shell as the tasks of one worker share it. Borrowed for one turn at a time, never across an await.
pub(crate) type Shared<M> = Rc<RefCell<Shell<M>>>;

/// Everything one worker thread holds.
pub(crate) struct Shell<M> {
    machine: M,
    /// For the tasks that the shell starts.
    me: Weak<RefCell<Self>>,
    effects: Effects,
    /// What a socket is read into: one for all, as nothing stays in it after the turn.
    read_buffer: Box<[u8]>,
    /// What was decrypted in this turn.
    plain: Vec<u8>,
    /// Records on their way to a socket in this turn.
    cipher: Vec<u8>,
    conns: Slab<Conn>,
    names: HashMap<ConnId, Key, foldhash::fast::FixedState>,
    /// Connections with something to send at the end of this turn.
    touched: Vec<Key>,
    /// Connections whose end was noticed during this turn and that the machine does not know of yet.
    lost: Vec<ConnId>,
    dialing: HashMap<ConnId, Dialing, foldhash::fast::FixedState>,
    dials: u64,
    /// Connections that the machine has closed and that are not gone yet. May name some that are.
    leaving: Vec<Key>,
    /// How many connections hold back another one's reading.
    choked: usize,
    tls: Arc<TlsBundle>,
    /// For sockets that are opened from now on.
    tcp: Tcp,
    resolver: Rc<Resolver>,
    upward: Upward,
    deriver: Deriver,
    turns: Turns,
    elsewhere: Elsewhere,
    /// Where clients come in, until [`Order::Drain`].
    doors: Vec<OpenedDoor>,
    draining: bool,
    /// Reading has stopped; until then what was to be sent has time to leave.
    suspended: Option<Instant>,
}

/// A dial under way.
struct Dialing {
    /// Tells this dial from an earlier one for the same name.
    number: u64,
    task: AbortHandle,
}

/// The way to control, which must never make a worker wait.
struct Upward {
    worker: u16,
    reports: mpsc::Sender<Report>,
    /// Questions that found the channel full; asked again at the next tick.
    questions: VecDeque<ConsoleRequest>,
}

impl<M: Machine> Shell<M> {
    /// A shell without connections.
    pub(crate) fn new(
        machine: M,
        worker: u16,
        tls: Arc<TlsBundle>,
        tcp: Tcp,
        dns: Dns,
        reports: mpsc::Sender<Report>,
    ) -> Shared<M> {
        Rc::new_cyclic(|me| {
            RefCell::new(Self {
                machine,
                me: Weak::clone(me),
                effects: Effects::default(),
                read_buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
                plain: Vec::new(),
                cipher: Vec::new(),
                conns: Slab::new(),
                names: HashMap::default(),
                touched: Vec::new(),
                lost: Vec::new(),
                dialing: HashMap::default(),
                dials: 0,
                leaving: Vec::new(),
                choked: 0,
                tls,
                tcp,
                resolver: Resolver::new(dns),
                upward: Upward { worker, reports, questions: VecDeque::new() },
                deriver: Deriver::default(),
                turns: Turns::default(),
                elsewhere: Elsewhere::default(),
                doors: Vec::new(),
                draining: false,
                suspended: None,
            })
        })
    }

    /// A client came in.
    pub(crate) fn accepted(&mut self, socket: Socket, role: Role) {
        let accepted =
            Accepted { role, peer: socket.peer(), local: socket.local(), unix: socket.unix_peer() };
        let client = self.machine.accept(Instant::now(), accepted, &mut self.effects);
        self.admit(Conn::new(ConnId::Client(client), socket, None));
        self.carry_out();
    }

    /// A dial ended. Its result is dropped if the machine has taken it back meanwhile.
    fn dialed(&mut self, id: ConnId, number: u64, result: Result<Link, DialError>) {
        if self.dialing.get(&id).is_none_or(|dialing| dialing.number != number) {
            return;
        }
        self.dialing.remove(&id);
        let result = result.map(|link| {
            let Link { socket, tls } = link;
            let dialed = Dialed {
                peer: socket.peer(),
                local: socket.local(),
                tls: tls.as_ref().map(|tls| tls.description()),
                end_point: tls.as_ref().and_then(|tls| tls.peer_end_point()),
            };
            self.admit(Conn::new(id, socket, tls));
            dialed
        });
        self.machine.dialed(Instant::now(), id, result, &mut self.effects);
        self.carry_out();
    }

    /// Control gave an order.
    pub(crate) fn order(&mut self, order: Order) {
        match &order {
            Order::Drain | Order::WaitForServers | Order::WaitForClients => self.close_doors(),
            Order::Suspend(patience) => self.suspended = Some(Instant::now() + *patience),
            Order::Resume(None) => self.wake_up(),
            Order::Adopt(_)
            | Order::Configure(_)
            | Order::ConsoleReply(..)
            | Order::ConsoleNotice(..)
            | Order::Pause(_)
            | Order::Resume(Some(_))
            | Order::Reconnect(_)
            | Order::Kill(_)
            | Order::KillClient(_)
            | Order::Disable(..)
            | Order::AddressesLeft { .. } => {}
        }
        if let Order::Configure(config) = &order {
            self.resolver.configure(&config.dns, Instant::now());
            self.tcp = config.tcp.clone();
            self.doors.iter().for_each(|opened| opened.door.adopt(&self.tcp));
        }
        self.machine.order(Instant::now(), order, &mut self.effects);
        self.carry_out();
    }

    /// A tenth of a second has passed.
    pub(crate) fn tick(&mut self) {
        let now = Instant::now();
        match self.suspended {
            // Nobody is read, so nobody is late.
            Some(until) => self.cut_off_the_unflushed(now, until),
            None => self.machine.tick(now, &mut self.effects),
        }
        self.watch_names(now);
        self.carry_out();
        self.part_with_the_overdue(now);
        self.upward.ask_again();
    }

    /// Asks anew for names that server connections go to, and tells the machine of addresses that left.
    fn watch_names(&mut self, now: Instant) {
        for AddressesLeft { host, gone } in self.resolver.changes() {
            self.machine.order(now, Order::AddressesLeft { host, gone }, &mut self.effects);
        }
        let mut stale = self.resolver.stale(now);
        stale.retain(|host| self.machine.is_using(host));
        for host in stale {
            let resolver = Rc::clone(&self.resolver);
            task::spawn_local(async move { drop(resolver.addresses(&host).await) });
        }
        for zone in self.resolver.zones_due(now) {
            let resolver = Rc::clone(&self.resolver);
            task::spawn_local(async move { resolver.check_zone(&zone).await });
        }
    }

    /// Who is in a transaction on the leader, and what has become of a console client.
    pub(crate) fn unfinished(&self, asker: Option<ClientId>) -> Unfinished {
        (self.machine.unfinished(Instant::now()), asker.map(|id| self.machine.asker(id)))
    }

    /// How the machine is.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.machine.snapshot(Instant::now());
        snapshot.dns_hosts = self.resolver.host_rows(Instant::now());
        snapshot.dns_zones = self.resolver.zone_rows();
        let unsent = |id: ConnId| {
            self.names.get(&id).and_then(|&key| self.conns.get(key)).map_or(0, |conn| conn.out.len())
        };
        for client in &mut snapshot.clients {
            client.buffered.outgoing = unsent(ConnId::Client(ClientId(client.slot)));
        }
        for server in &mut snapshot.servers {
            server.buffered.outgoing = unsent(ConnId::Server(ServerId(server.slot)));
        }
        snapshot
    }

    /// Nobody comes in any more.
    fn close_doors(&mut self) {
        for OpenedDoor { role, door, task } in mem::take(&mut self.doors) {
            task.abort();
            match door.accept_waiting() {
                Ok(waiting) => waiting.into_iter().for_each(|socket| self.accepted(socket, role)),
                Err(error) => tracing::warn!("clients that were about to come in were not heard: {error}"),
            }
        }
        self.draining = true;
    }

    /// Ends [`Order::Suspend`].
    fn wake_up(&mut self) {
        if self.suspended.take().is_some() {
            self.conns.iter().for_each(|(_, conn)| conn.wake());
        }
    }

    /// While all is suspended: what does not take its output in time is not waited for.
    fn cut_off_the_unflushed(&mut self, now: Instant, until: Instant) {
        if now < until {
            return;
        }
        let is_late = |conn: &Conn| conn.phase == Phase::Open && !conn.out.is_empty();
        let late: Vec<Key> =
            self.conns.iter().filter(|(_, conn)| is_late(conn)).map(|(key, _)| key).collect();
        for key in late {
            tracing::warn!("a connection is closed because it took nothing within suspend_timeout");
            self.lose(key);
        }
    }

    /// Nothing is to be read from this connection for now.
    fn is_suspended(&self, id: ConnId) -> bool {
        self.suspended.is_some() && !self.machine.is_console(id)
    }

    /// After an order to end: nobody is left to wait for, and what was sent last has arrived or is overdue.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining && self.leaving.is_empty() && self.machine.is_drained()
    }

    /// Certificates for handshakes that begin from now on.
    pub(crate) fn adopt_tls(&mut self, bundle: Arc<TlsBundle>) {
        self.tls = bundle;
    }

    /// A door that clients come in by until [`Order::Drain`] or the like.
    pub(crate) fn keep_door(&mut self, door: OpenedDoor) {
        self.doors.push(door);
    }

    /// A second descriptor of each door, for another process.
    pub(crate) fn door_descriptors(&self) -> Vec<OwnedFd> {
        let descriptor = |opened: &OpenedDoor| opened.door.descriptor();
        match self.doors.iter().map(descriptor).collect() {
            Ok(descriptors) => descriptors,
            Err(error) => {
                tracing::error!("the doors cannot be handed over: {error}");
                Vec::new()
            }
        }
    }

    /// Stores a connection and starts its task, which cannot run before this turn is over.
    fn admit(&mut self, conn: Conn) {
        let id = conn.id;
        let key = self.conns.insert(conn);
        let replaced = self.names.insert(id, key);
        debug_assert!(replaced.is_none(), "the machine gives no name twice");
        if let Some(shell) = self.me.upgrade() {
            task::spawn_local(Pump::new(shell, key));
        }
    }

    /// Does what the machine asks for until it asks for nothing more.
    fn carry_out(&mut self) {
        loop {
            let mut effects = mem::take(&mut self.effects);
            for effect in effects.list.drain(..) {
                self.perform(effect, &effects.bytes);
            }
            self.send_touched(&effects.bytes);
            effects.clear();
            self.effects = effects;
            let Some(id) = self.lost.pop() else { return };
            self.machine.closed(Instant::now(), id, &mut self.effects);
        }
    }

    fn perform(&mut self, effect: Effect, bytes: &[u8]) {
        match effect {
            Effect::Send(to, range) => self.note_send(to, range, bytes),
            Effect::StartTls(client) => self.start_tls(client, bytes),
            Effect::BeginTls(client, range) => {
                self.start_tls(client, bytes);
                self.begin_handshake(client, bytes.get(range).unwrap_or_default());
            }
            Effect::Dial(id, address, tls) => self.start_dial(id, address, None, tls),
            Effect::DialCancel(id, address, remote, tls) => {
                self.start_dial(ConnId::Cancel(id), address, remote, tls);
            }
            Effect::Close(id) => self.close(id, bytes),
            Effect::Abort(id) => self.abort(id),
            Effect::StopReading(id) => self.set_stopped(id, true),
            Effect::ReadAgain(id) => self.set_stopped(id, false),
            Effect::Console(request) => self.upward.ask(request),
            Effect::Evidence(evidence) => self.upward.tell(Report::Evidence(evidence)),
            Effect::Derive(ticket, derivation) => self.start_derivation(ticket, derivation),
            Effect::Refer(referral) => self.refer(referral),
        }
    }

    /// Remembers what to send, so that a connection that is mentioned twice in one turn is still written once.
    fn note_send(&mut self, to: ConnId, range: Range<usize>, bytes: &[u8]) {
        let Some(&key) = self.names.get(&to) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.pending.is_empty() {
            conn.pending = range;
            self.touched.push(key);
        } else if conn.pending.end == range.start {
            conn.pending.end = range.end;
        } else {
            let before = mem::replace(&mut conn.pending, range);
            conn.queue(bytes.get(before).unwrap_or_default());
        }
    }

    fn send_touched(&mut self, bytes: &[u8]) {
        for key in self.touched.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let range = mem::take(&mut conn.pending);
            let was_full = conn.full;
            conn.write_or_queue(bytes.get(range).unwrap_or_default(), &mut self.cipher);
            if conn.full != was_full || conn.broken {
                conn.wake();
            }
            if conn.out.len() > OUT_BYTES_HIGH && !conn.choked && conn.phase == Phase::Open {
                conn.choked = true;
                self.choked += 1;
            }
        }
    }

    /// What was sent before stays in front of the handshake, in the clear.
    fn start_tls(&mut self, client: ClientId, bytes: &[u8]) {
        let id = ConnId::Client(client);
        let Some(&key) = self.names.get(&id) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.queue_pending(bytes);
        match self.tls.accept() {
            Some(tls) => conn.tls = Some(tls),
            None => {
                tracing::warn!("a client was offered TLS but there is no certificate to show");
                self.lose(key);
            }
        }
    }

    /// The first flight of a client that did not ask before it began. The handshake cannot be through with that.
    fn begin_handshake(&mut self, client: ClientId, flight: &[u8]) {
        let Some(&key) = self.names.get(&ConnId::Client(client)) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(tls) = &mut conn.tls else { return };
        let mut plain = Vec::new();
        let result = tls.decrypt(flight, &mut plain);
        conn.queue_records();
        self.touched.push(key);
        if let Err(why) = result {
            self.log_broken(ConnId::Client(client), &why);
            self.lose(key);
        }
    }

    fn start_dial(
        &mut self,
        id: ConnId,
        address: weir_discovery::Address,
        remote: Option<IpAddr>,
        encryption: Encryption,
    ) {
        let Some(shell) = self.me.upgrade() else { return };
        self.dials += 1;
        let number = self.dials;
        let dialer = Dialer {
            tls: Arc::clone(&self.tls),
            encryption,
            tcp: self.tcp.clone(),
            resolver: Rc::clone(&self.resolver),
        };
        let task = task::spawn_local(async move {
            let result = dial::dial(&address, remote, &dialer).await;
            shell.borrow_mut().dialed(id, number, result);
        });
        let replaced = self.dialing.insert(id, Dialing { number, task: task.abort_handle() });
        debug_assert!(replaced.is_none(), "the machine dials one name once");
    }

    /// Lets what was sent leave, then ends. The name is free again at once.
    fn close(&mut self, id: ConnId, bytes: &[u8]) {
        if let Some(dialing) = self.dialing.remove(&id) {
            dialing.task.abort();
        }
        let Some(key) = self.names.remove(&id) else { return self.forget_loss(id) };
        self.release_denied(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.queue_pending(bytes);
        conn.queue_close();
        conn.phase = Phase::Flushing(Instant::now() + FLUSH_TIME_MAX);
        conn.wake();
        self.leaving.push(key);
        self.touched.push(key);
    }

    fn abort(&mut self, id: ConnId) {
        if let Some(dialing) = self.dialing.remove(&id) {
            dialing.task.abort();
        }
        match self.names.remove(&id) {
            Some(key) => self.kill(key),
            None => self.forget_loss(id),
        }
    }

    /// The machine has let go of a connection whose end it was about to hear of. Its name may soon mean another one.
    fn forget_loss(&mut self, id: ConnId) {
        self.lost.retain(|lost| *lost != id);
    }

    fn set_stopped(&mut self, id: ConnId, stopped: bool) {
        let Some(&key) = self.names.get(&id) else { return };
        let Some(conn) = self.conns.get_mut(key) else { return };
        if conn.stopped != stopped {
            conn.stopped = stopped;
            conn.wake();
        }
    }

    /// The connection ended without the machine's doing; the machine hears of it before this turn is over.
    fn lose(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        if conn.phase == Phase::Open {
            let id = conn.id;
            self.names.remove(&id);
            self.lost.push(id);
            self.kill(key);
        }
    }

    /// Drops the socket. The connection's own task removes the rest.
    fn kill(&mut self, key: Key) {
        self.release_denied(key);
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.phase = Phase::Dead;
        conn.drop_socket();
        conn.pending = 0..0;
        conn.wake();
    }

    /// The connection holds nobody back any more.
    fn release_denied(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if mem::take(&mut conn.choked) {
            self.choked -= 1;
        }
        if let Some(other) = conn.denied.take().and_then(|other| self.conns.get(other)) {
            other.wake();
        }
    }

    /// Drops every socket, for the end of the worker.
    pub(crate) fn hang_up(&mut self) {
        let keys: Vec<Key> = self.conns.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.kill(key);
        }
        self.names.clear();
        for (_, dialing) in self.dialing.drain() {
            dialing.task.abort();
        }
    }

    fn part_with_the_overdue(&mut self, now: Instant) {
        let mut leaving = mem::take(&mut self.leaving);
        leaving.retain(|&key| match self.conns.get(key).map(|conn| conn.phase) {
            Some(Phase::Flushing(until) | Phase::Lingering(until)) if until <= now => {
                self.kill(key);
                false
            }
            Some(Phase::Flushing(_) | Phase::Lingering(_)) => true,
            Some(Phase::Open | Phase::Dead) | None => false,
        });
        self.leaving = leaving;
    }
}

impl Upward {
    fn ask(&mut self, request: ConsoleRequest) {
        let report = Report::Console { worker: self.worker, request };
        if let Err(TrySendError::Full(Report::Console { request, worker: _ })) = self.reports.try_send(report)
        {
            self.questions.push_back(request);
        }
    }

    fn ask_again(&mut self) {
        for _ in 0..self.questions.len() {
            if let Some(request) = self.questions.pop_front() {
                self.ask(request);
            }
        }
    }

    fn tell(&self, report: Report) {
        if self.reports.try_send(report).is_err() {
            tracing::debug!(worker = self.worker, "control is busy; evidence dropped");
        }
    }
}

/// One read takes at most this much.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// With more than this waiting to leave, whoever produces it is not read.
const OUT_BYTES_HIGH: usize = 256 * 1024;

/// Reading goes on when no more than this is left.
const OUT_BYTES_LOW: usize = 64 * 1024;

/// A closed connection has this long to take what was sent to it.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the end of a closed connection's peer is waited for.
const LINGER_TIME_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(OUT_BYTES_LOW < OUT_BYTES_HIGH);
