//! What the control thread knows. Shared between its tasks on one thread; nothing is borrowed across an await.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc};
use weir_admin::averages::Averages;
use weir_admin::snapshot::{Snapshot, UnfinishedRow};
use weir_config::{Config, Upstream};
use weir_discovery::{Address, Discovery, Event, SessionEvidence, Topology};
use weir_pool::ClientId;

use super::follow;
use super::patroni::Way;
use crate::Reload;
use crate::derive::Deriver;
use crate::handle::WorkerHandle;
use crate::resolver::Resolver;
use crate::tls::TlsBundle;
use crate::unix_socket::SocketFile;
use weir_worker::{Asker, Order};

/// The control thread's state.
pub(super) struct Control {
    pub(super) config: RefCell<Arc<Config>>,
    pub(super) tls: RefCell<Arc<TlsBundle>>,
    pub(super) resolver: Rc<Resolver>,
    /// For the monitors' logins.
    pub(super) deriver: RefCell<Deriver>,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) reload: RefCell<Option<Reload>>,
    pub(super) following: Following,
    pub(super) averages: RefCell<Averages>,
    pub(super) paused: RefCell<Paused>,
    pub(super) started: Instant,
    /// Workers that hold no client any more; `None` unless weir is draining.
    draining: RefCell<Option<BTreeSet<u16>>>,
    end: Notify,
    /// Tells the follower that somebody else has changed what discovery knows.
    changed: Notify,
    /// Files of Unix sockets, removed when weir ends.
    files: RefCell<Vec<SocketFile>>,
    /// The end that began gives no server connection out.
    pub(super) holds_back: Cell<bool>,
    /// A SWITCHOVER is under way.
    pub(super) switching: Cell<bool>,
    /// SWITCHOVERs that ended with another leader.
    pub(super) switchovers_done: Cell<u64>,
    /// SWITCHOVERs that did not.
    pub(super) switchovers_failed: Cell<u64>,
    /// Counts RESUMEs: a PAUSE that still waits for quiet learns that it was undone.
    pub(super) resumed: Cell<u64>,
}

/// Whom weir follows.
pub(super) enum Following {
    /// One PostgreSQL server.
    Plain(Arc<Topology>),
    /// A cluster; what happens there goes to [`follow::follow`] by this channel.
    Cluster { discovery: Box<RefCell<Discovery>>, events: mpsc::Sender<Event> },
}

/// What PAUSE has stopped.
#[derive(Debug, Default)]
pub(super) struct Paused {
    /// PAUSE without a database.
    pub(super) all: bool,
    /// PAUSE of one database each.
    pub(super) databases: BTreeSet<String>,
    /// SUSPEND.
    pub(super) suspended: bool,
    /// DISABLE of one database each.
    pub(super) disabled: BTreeSet<String>,
}

impl Paused {
    /// Whether a database is paused.
    pub(super) fn holds_for(&self, name: &str) -> bool {
        self.all || self.databases.contains(name)
    }

    /// Whether a command was about this database.
    pub(super) fn names(&self, name: &str) -> bool {
        self.databases.contains(name) || self.disabled.contains(name)
    }
}

impl Control {
    /// The state, and the receiving end of [`Following::Cluster`].
    pub(super) fn new(
        config: Arc<Config>,
        workers: Vec<WorkerHandle>,
        reload: Option<Reload>,
        tls: Arc<TlsBundle>,
    ) -> (Rc<Self>, mpsc::Receiver<Event>) {
        let started = now();
        let (events_in, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let following = match &config.upstream {
            Upstream::Plain { host, port } => {
                Following::Plain(Arc::new(Topology::plain(Address { host: host.clone(), port: *port })))
            }
            Upstream::None => Following::Plain(Arc::new(Topology::nobody())),
            Upstream::Patroni(patroni) => {
                let settings = follow::settings(&config, patroni);
                let discovery = Box::new(RefCell::new(Discovery::new(started, settings)));
                Following::Cluster { discovery, events: events_in }
            }
        };
        let resolver = Resolver::new(config.dns.clone());
        let control = Self {
            resolver,
            deriver: RefCell::default(),
            config: RefCell::new(config),
            tls: RefCell::new(tls),
            workers,
            reload: RefCell::new(reload),
            following,
            averages: RefCell::new(Averages::new(started)),
            paused: RefCell::default(),
            started,
            draining: RefCell::new(None),
            end: Notify::new(),
            changed: Notify::new(),
            files: RefCell::default(),
            holds_back: Cell::new(false),
            switching: Cell::new(false),
            switchovers_done: Cell::new(0),
            switchovers_failed: Cell::new(0),
            resumed: Cell::new(0),
        };
        (Rc::new(control), events)
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// A second descriptor of each door that is open.
    pub(super) async fn doors(&self) -> Vec<OwnedFd> {
        // All workers have the same doors.
        match self.workers.first() {
            Some(worker) => worker.doors().await,
            None => Vec::new(),
        }
    }

    /// Keeps the files of Unix sockets to the end of weir.
    pub(super) fn keep(&self, files: Vec<SocketFile>) {
        self.files.borrow_mut().extend(files);
    }

    /// The files of Unix sockets are another process's from now on.
    pub(super) fn leave_files(&self) {
        self.files.borrow().iter().for_each(SocketFile::leave);
    }

    /// Removes the files of Unix sockets that are still ours.
    pub(super) fn remove_files(&self) {
        self.files.borrow_mut().clear();
    }

    /// Gives every worker the same order.
    pub(super) fn order(&self, order: &Order) {
        for worker in &self.workers {
            worker.order(order.clone());
        }
    }

    /// The topology in force, with members as they are at this moment.
    pub(super) fn topology(&self, now: Instant) -> Topology {
        match &self.following {
            Following::Plain(topology) => Topology::clone(topology),
            Following::Cluster { discovery, events: _ } => {
                let discovery = discovery.borrow();
                let topology = discovery.topology();
                Topology { members: discovery.members(now), ..Topology::clone(&topology) }
            }
        }
    }

    /// How things are in all workers together.
    pub(super) async fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for worker in &self.workers {
            let Some(Snapshot { pools, clients, servers, peers, dns_hosts, dns_zones, totals }) =
                worker.snapshot().await
            else {
                continue;
            };
            sum.pools.extend(pools);
            sum.clients.extend(clients);
            sum.servers.extend(servers);
            sum.peers.extend(peers);
            sum.dns_hosts.extend(dns_hosts);
            sum.dns_zones.extend(dns_zones);
            sum.totals.login_clients += totals.login_clients;
            sum.totals.logins_accepted += totals.logins_accepted;
            sum.totals.logins_refused += totals.logins_refused;
            sum.totals.logins_held_back += totals.logins_held_back;
            sum.totals.protocol_errors += totals.protocol_errors;
            sum.totals.cancels += totals.cancels;
            sum.totals.max_client_conn = totals.max_client_conn;
        }
        sum
    }

    /// Who is in a transaction on the leader, and what has become of whoever gave a command.
    pub(super) async fn unfinished(&self, (worker, client): (u16, ClientId)) -> (Vec<UnfinishedRow>, Asker) {
        let (mut rows, mut asker) = (Vec::new(), Asker::IsGone);
        for handle in &self.workers {
            let own = (handle.index() == worker).then_some(client);
            let Some((more, seen)) = handle.unfinished(own).await else { continue };
            rows.extend(more);
            asker = seen.unwrap_or(asker);
        }
        (rows, asker)
    }

    /// Passes on what a session met. With that many events waiting a poll is about to start anyway.
    pub(super) fn evidence(&self, evidence: SessionEvidence) {
        if let Following::Cluster { discovery: _, events } = &self.following {
            tracing::debug!(?evidence, "evidence from a session");
            if events.try_send(Event::Evidence(evidence)).is_err() {
                tracing::debug!("evidence dropped: too many events wait");
            }
        }
    }

    /// To any of the cluster's REST APIs.
    pub(super) fn way_to_patroni(&self) -> Way {
        Way { resolver: Rc::clone(&self.resolver), tls: self.tls.borrow().towards_patroni() }
    }

    /// A callback came.
    pub(super) fn pushed(&self) {
        if let Following::Cluster { discovery: _, events } = &self.following
            && events.try_send(Event::Pushed).is_err()
        {
            tracing::debug!("a callback dropped: too many events wait");
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.borrow().is_some()
    }

    /// Nobody is given a server connection any more.
    pub(super) fn waits_for_servers(&self) -> bool {
        self.holds_back.get()
    }

    /// True if this call began it.
    pub(super) fn start_draining(&self) -> bool {
        let mut draining = self.draining.borrow_mut();
        let begins = draining.is_none();
        draining.get_or_insert_default();
        begins
    }

    /// A worker has nothing to wait for any more; when none has, weir ends.
    pub(super) fn drained(&self, worker: u16) {
        let mut draining = self.draining.borrow_mut();
        let Some(done) = draining.as_mut() else { return };
        done.insert(worker);
        if done.len() >= self.workers.len() {
            tracing::info!("nothing is left to wait for");
            self.end();
        }
    }

    /// Lets the follower publish what was changed behind its back.
    pub(super) fn poke(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn poked(&self) {
        self.changed.notified().await;
    }

    /// Lets [`super::run`] return.
    pub(super) fn end(&self) {
        self.end.notify_one();
    }

    pub(super) async fn ended(&self) {
        self.end.notified().await;
    }
}

/// The clock of the control thread: tokio's, so that tests can hold it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Answers that may wait for the follower. Each comes from a request it made, of which there is one per place.
const EVENTS_WAITING_MAX: usize = 1024;
