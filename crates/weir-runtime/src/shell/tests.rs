//! The shell over real loopback sockets, with a scripted machine in place of the real one. Conditions are waited for
//! with a deadline; nothing sleeps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod at_once;
mod backpressure;
mod dials;
mod leaving;
mod stopping;
mod taking_turns;
mod talking;
mod weight;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task;
use weir_admin::snapshot::{Snapshot, UnfinishedRow};
use weir_auth::scram::DerivedKeys;
use weir_config::{Dns, Tcp};
use weir_pool::{ClientId, ServerId};

use super::{Shared, Shell};
use crate::handle::Report;
use crate::listen::{self, Door, DoorSocket};
use crate::machine::Machine;
use crate::tls::TlsBundle;
use crate::tls::tests::no_tls;
use weir_worker::{
    Accepted, Asker, ConnId, DialError, Dialed, Effect, Effects, Encrypted, Order, ReferralTicket, Role,
    Ticket, Verdict,
};

/// What the machine was told.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Accepted(ClientId),
    Received(ConnId, Vec<u8>),
    Closed(ConnId),
    Encrypted(ClientId, String),
    Dialed(ConnId, Result<Dialed, DialError>),
    Ordered,
}

/// Answers each event as its script says, and tells the test of it.
pub(crate) struct Scripted<S> {
    script: S,
    told: mpsc::UnboundedSender<Event>,
    clients: u32,
    partners: Rc<RefCell<HashMap<ConnId, ConnId>>>,
    /// Clients from this number on have not logged in.
    newcomers_from: u32,
}

impl<S: FnMut(&Event, &mut Effects) + 'static> Scripted<S> {
    pub(crate) fn new(script: S, told: mpsc::UnboundedSender<Event>) -> Self {
        Self { script, told, clients: 0, partners: Rc::default(), newcomers_from: u32::MAX }
    }

    fn happen(&mut self, event: Event, effects: &mut Effects) {
        (self.script)(&event, effects);
        self.told.send(event).ok();
    }
}

impl<S: FnMut(&Event, &mut Effects) + 'static> Machine for Scripted<S> {
    fn accept(&mut self, _now: Instant, _accepted: Accepted, effects: &mut Effects) -> ClientId {
        let client = ClientId(self.clients);
        self.clients += 1;
        self.happen(Event::Accepted(client), effects);
        client
    }

    fn received(&mut self, _now: Instant, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        self.happen(Event::Received(conn, bytes.to_vec()), effects);
    }

    fn closed(&mut self, _now: Instant, conn: ConnId, effects: &mut Effects) {
        self.happen(Event::Closed(conn), effects);
    }

    fn tls_broken(&self, _client: ClientId, _why: &str) {}

    fn tls_established(&mut self, _now: Instant, client: ClientId, shown: Encrypted, effects: &mut Effects) {
        self.happen(Event::Encrypted(client, shown.description), effects);
    }

    fn dialed(
        &mut self,
        _now: Instant,
        conn: ConnId,
        result: Result<Dialed, DialError>,
        effects: &mut Effects,
    ) {
        self.happen(Event::Dialed(conn, result), effects);
    }

    fn order(&mut self, _now: Instant, _order: Order, effects: &mut Effects) {
        self.happen(Event::Ordered, effects);
    }

    fn derived(&mut self, _now: Instant, _ticket: Ticket, _derived: &DerivedKeys, _effects: &mut Effects) {}
    fn judged(&mut self, _now: Instant, _to: ReferralTicket, _verdict: &Verdict, _effects: &mut Effects) {}

    fn tick(&mut self, _now: Instant, _effects: &mut Effects) {}

    fn snapshot(&self, _now: Instant) -> Snapshot {
        Snapshot::default()
    }

    fn unfinished(&self, _: Instant) -> Vec<UnfinishedRow> {
        Vec::new()
    }

    fn asker(&self, _: ClientId) -> Asker {
        Asker::IsGone
    }

    fn is_console(&self, _conn: ConnId) -> bool {
        false
    }

    fn is_newcomer(&self, conn: ConnId) -> bool {
        matches!(conn, ConnId::Client(ClientId(number)) if number >= self.newcomers_from)
    }

    fn is_drained(&self) -> bool {
        true
    }

    fn is_using(&self, _host: &str) -> bool {
        true
    }

    fn partner(&self, conn: ConnId) -> Option<ConnId> {
        self.partners.borrow().get(&conn).copied()
    }
}

/// A shell that listens, and what its machine hears.
pub(super) struct World<S> {
    pub(super) shell: Shared<Scripted<S>>,
    pub(super) address: SocketAddr,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) reports: mpsc::Receiver<Report>,
    partners: Rc<RefCell<HashMap<ConnId, ConnId>>>,
}

impl<S: FnMut(&Event, &mut Effects) + 'static> World<S> {
    pub(super) fn new(script: S) -> Self {
        Self::with_tls(no_tls(), script)
    }

    pub(super) fn with_tls(tls: TlsBundle, script: S) -> Self {
        let (told, events) = mpsc::unbounded_channel();
        let (reports_in, reports) = mpsc::channel(1);
        let machine = Scripted::new(script, told);
        let partners = Rc::clone(&machine.partners);
        let shell = Shell::new(machine, 0, Arc::new(tls), Tcp::default(), Dns::default(), reports_in);
        let listener = listen::bind(loopback(), false, &listen::tests::nothing(), &Tcp::default()).unwrap();
        let address = listener.local_addr().unwrap();
        listen::open(Door { role: Role::Write, socket: DoorSocket::Tcp(listener) }, &shell);
        Self { shell, address, events, reports, partners }
    }

    /// A client, and the machine knows of it.
    pub(super) async fn connect(&mut self) -> (ClientId, TcpStream) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let event = self.event().await;
        let Event::Accepted(client) = event else { panic!("instead of a new client: {event:?}") };
        (client, stream)
    }

    pub(super) async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }

    /// The next thing the machine hears has to be bytes.
    pub(super) async fn bytes_from(&mut self, conn: ConnId) -> Vec<u8> {
        let event = self.event().await;
        let Event::Received(from, bytes) = event else { panic!("instead of bytes from {conn:?}: {event:?}") };
        assert_eq!(from, conn);
        bytes
    }

    /// The next thing the machine hears has to be this end.
    pub(super) async fn end_of(&mut self, conn: ConnId) {
        let event = self.event().await;
        let Event::Closed(ended) = event else { panic!("instead of the end of {conn:?}: {event:?}") };
        assert_eq!(ended, conn);
    }

    pub(super) fn pair(&self, one: ConnId, other: ConnId) {
        self.partners.borrow_mut().extend([(one, other), (other, one)]);
    }

    /// Lets everything else run until the shell is in the wanted state.
    pub(super) async fn until(&self, wanted: impl Fn(&Shell<Scripted<S>>) -> bool) {
        while !wanted(&self.shell.borrow()) {
            task::yield_now().await;
        }
    }
}

/// Runs a test on a worker's kind of runtime. The bound only turns a hang into a failure.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.unwrap() });
}

/// Lets the reactor deliver what the kernel already has.
pub(super) async fn let_the_reactor_run() {
    for _ in 0..32 {
        task::yield_now().await;
    }
}

pub(super) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(super) const SERVER: ConnId = ConnId::Server(ServerId(0));

/// Bytes that show where they belong.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

pub(super) fn send(to: ConnId, bytes: &[u8], effects: &mut Effects) {
    effects.send_with(to, |buffer| buffer.extend_from_slice(bytes));
}

/// Sends back what came.
pub(crate) fn echo(event: &Event, effects: &mut Effects) {
    if let Event::Received(from, bytes) = event {
        send(*from, bytes, effects);
    }
}

pub(super) fn ask(effect: Effect, effects: &mut Effects) {
    effects.list.push(effect);
}

pub(super) async fn read_exactly(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

pub(super) async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

pub(super) async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}
