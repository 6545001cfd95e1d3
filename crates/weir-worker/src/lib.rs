//! Everything that one core owns, as one pure machine: clients, server connections, pools, and the logins between them.
//!
//! The machine composes `weir-session` (bytes of one pairing) with `weir-pool` (who gets a server connection); those two
//! know nothing of each other. It is told what happened ([`Worker::received`], [`Worker::dialed`], [`Worker::tick`] ...),
//! and asks for [`Effect`]s in return. It opens no socket, reads no clock and draws no random number of its own, so the
//! same code runs under the shell, a test and a simulator.
//!
//! | module | owns |
//! |---|---|
//! | [`io`] | the border: effects, orders, connection names |
//! | `client`, `server` | what is known of one connection |
//! | `pools`, `places` | the pools and their dialing; where the pools of a database may dial |
//! | `startup` | what a startup packet may ask for |
//! | `login`, `access`, `secrets` | a client's way in; how it has to show who it is; where secrets come from (user list, auth_query, keys learned at login) |
//! | `derivations`, `verifiers` | keys of passwords, computed elsewhere; verifiers of listed passwords |
//! | `referrals` | passwords that LDAP or PAM judges |
//! | `failures`, `refusing` | networks whose logins fail repeatedly; what is held back from them |
//! | `traffic` | bytes of sessions, checkout |
//! | `release` | server connections that their clients let go of |
//! | `replication` | clients with a server connection of their own, relayed unread |
//! | `parting` | clients that go |
//! | `dialing` | a server connection's way in |
//! | `sharing`, `sizes` | limits that pools share; what the configuration says of one pool |
//! | `keeping`, `failing` | least numbers of connections; servers that cannot be logged in to |
//! | `census`, `crowding` | how many clients there are, and may be; who makes room for a newcomer |
//! | `errands` | weir's own queries on server connections: connect, check, reset |
//! | `forgetting` | pools that nobody uses any more |
//! | `loss`, `elsewhere` | server connections that died; requests that are sent once more |
//! | `planned` | a leader that is about to go by plan |
//! | `held` | clients that are held: their clocks, and sessions that wait beside their server connection |
//! | `cancel`, `cancel_key` | cancel requests, and whom their keys name |
//! | `console` | console clients |
//! | `kill`, `ending` | KILL and its kin; the ways to end |
//! | `orders`, `clock` | what control wants; what time brings |
//! | `lines` | log lines about connections |
//! | `deadlines` | clients whose time is over |
//! | `rows` | snapshots |

mod access;
mod cancel;
mod cancel_key;
mod census;
mod client;
mod clock;
mod console;
mod crowding;
mod deadlines;
mod derivations;
mod dialing;
mod elsewhere;
mod ending;
mod errands;
mod failing;
mod failover;
mod failures;
mod forgetting;
mod held;
pub mod io;
mod keeping;
mod kill;
mod lines;
mod login;
mod loss;
mod orders;
mod parting;
mod places;
mod planned;
mod pools;
mod referrals;
mod refusing;
mod reigns;
mod release;
mod replication;
mod rows;
mod secrets;
mod server;
mod sharing;
mod sizes;
mod startup;
mod traffic;
mod verifiers;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;
use weir_admin::snapshot::ProcessTotals;
use weir_config::Config;
use weir_discovery::{Epoch, Leadership, Topology};
use weir_pool::{ClientId, Dice, ServerId};
use weir_session::prepared::Catalog;
use weir_session::settings::{Interner, Settings};

pub use io::{
    Accepted, CancelId, ConnId, ConsoleRequest, DialError, Dialed, Effect, Effects, Encrypted, Encryption,
    Entropy, Order, Referral, ReferralTicket, Role, Ticket, UnixPeer, Verdict,
};

pub use planned::Asker;

use crate::cancel::Cancel;
use crate::census::Census;
use crate::client::{Client, Stage};
use crate::deadlines::Deadlines;
use crate::derivations::Derivations;
use crate::elsewhere::Resting;
use crate::ending::Ending;
use crate::failover::Failover;
use crate::failures::Network;
use crate::pools::Pools;
use crate::referrals::Referrals;
use crate::refusing::HeldBack;
use crate::reigns::Reign;
use crate::secrets::Secrets;
use crate::server::ServerConn;
use crate::verifiers::Verifiers;

/// One worker. See the crate's documentation.
pub struct Worker {
    config: Arc<Config>,
    topology: Arc<Topology>,
    /// What the leader that is followed, or was last, has to confirm.
    followed: Option<Epoch>,
    chance: Chance,
    clients: Slab<Client>,
    servers: Slab<ServerConn>,
    cancels: Slab<Cancel>,
    pools: Pools,
    secrets: Secrets,
    verifiers: Verifiers,
    derivations: Derivations,
    referrals: Referrals,
    held_back: HeldBack,
    /// The network that most of the clients on their way in come from, where places are scarce.
    crowding: Option<Network>,
    catalog: Catalog,
    settings: Interner<Settings>,
    /// Clients on their way in, oldest first, with the serial that tells a reused id.
    logins: VecDeque<(ClientId, u64)>,
    totals: ProcessTotals,
    census: Census,
    /// Clients that were given a server connection and have not used it yet.
    due: VecDeque<ClientId>,
    /// Clients whose requests will be sent once more, in the order of their losses.
    resting: VecDeque<Resting>,
    failover: Failover,
    reign: Reign,
    /// `due` is being worked through.
    is_serving: bool,
    last_serial: u64,
    index: u16,
    deadlines: Deadlines,
    /// The last time on the clock that is known, for the ages in log lines.
    clock: Option<Instant>,
    /// How weir is about to end, if it is.
    ending: Option<Ending>,
    /// Databases that take no new clients.
    disabled: HashSet<String>,
}

impl Worker {
    /// A worker without clients. `index` tells workers of one process apart.
    #[must_use]
    pub fn new(config: Arc<Config>, topology: Arc<Topology>, entropy: Box<dyn Entropy>, index: u16) -> Self {
        let mut chance = Chance(entropy);
        let deadlines = Deadlines::of(&config);
        let secrets = Secrets::new(chance.bytes());
        let mut verifiers = Verifiers::default();
        verifiers.configure(&config, &secrets.mock);
        let followed = match &topology.leader {
            Leadership::Led { epoch, .. } => *epoch,
            Leadership::Leaderless { .. } => None,
        };
        Self {
            config,
            topology,
            followed,
            chance,
            clients: Slab::new(),
            servers: Slab::new(),
            cancels: Slab::new(),
            pools: Pools::default(),
            secrets,
            verifiers,
            derivations: Derivations::default(),
            referrals: Referrals::default(),
            held_back: HeldBack::default(),
            crowding: None,
            catalog: Catalog::default(),
            settings: Interner::default(),
            logins: VecDeque::new(),
            totals: ProcessTotals::default(),
            census: Census::default(),
            due: VecDeque::new(),
            resting: VecDeque::new(),
            failover: Failover::default(),
            reign: Reign::default(),
            is_serving: false,
            last_serial: 0,
            index,
            deadlines,
            clock: None,
            ending: None,
            disabled: HashSet::new(),
        }
    }

    /// A client connected.
    pub fn accept(&mut self, now: Instant, accepted: Accepted, effects: &mut Effects) -> ClientId {
        let serial = self.next_serial();
        let id = client_id(self.clients.insert(Client::new(accepted, now, serial)));
        self.logins.push_back((id, serial));
        if self.ending.is_some() || !self.has_room(now, id, effects) {
            self.clients.remove(key(id.0));
            effects.list.push(Effect::Abort(ConnId::Client(id)));
        }
        id
    }

    /// Bytes arrived, decrypted. `bytes` is never empty.
    pub fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        match conn {
            ConnId::Client(id) => self.client_received(now, id, bytes, effects),
            ConnId::Server(id) => self.server_received(now, id, bytes, effects),
            // PostgreSQL answers a cancel request with nothing but the end of the connection.
            ConnId::Cancel(_) => {}
        }
    }

    /// The peer ended the connection, or it failed; the shell has dropped it.
    pub fn closed(&mut self, now: Instant, conn: ConnId, effects: &mut Effects) {
        match conn {
            ConnId::Client(id) => self.client_left(now, id, effects),
            ConnId::Server(id) => self.server_closed(now, id, effects),
            ConnId::Cancel(id) => self.cancel_ended(now, id, effects),
        }
    }

    /// The TLS handshake with a client is through.
    pub fn tls_established(&mut self, now: Instant, id: ClientId, shown: Encrypted, effects: &mut Effects) {
        let Encrypted { description, end_point, common_name, names_protocol } = shown;
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        client.tls = Some(description.into());
        let Stage::Login(login) = &mut client.stage else { return };
        login.common_name = common_name;
        if let Some(end_point) = end_point {
            login.machine.offer_binding(end_point);
        }
        let step = login.machine.tls_started(names_protocol);
        self.login_step(now, id, step, effects);
    }

    /// A client of the console, which goes on while all others are suspended.
    #[must_use]
    pub fn is_console(&self, conn: ConnId) -> bool {
        let ConnId::Client(id) = conn else { return false };
        self.clients.get(key(id.0)).is_some_and(|client| matches!(client.stage, Stage::Console(_)))
    }

    /// A client that has not logged in yet.
    #[must_use]
    pub fn is_newcomer(&self, conn: ConnId) -> bool {
        let ConnId::Client(id) = conn else { return false };
        self.clients.get(key(id.0)).is_some_and(|client| matches!(client.stage, Stage::Login(_)))
    }

    /// A number that no connection had before; ids are used again.
    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// The connection that takes this one's bytes at the moment: a client's server, a server's client.
    #[must_use]
    pub fn partner(&self, conn: ConnId) -> Option<ConnId> {
        match conn {
            ConnId::Client(id) => self.clients.get(key(id.0))?.server().map(ConnId::Server),
            ConnId::Server(id) => {
                let client = self.servers.get(key(id.0))?.client?;
                let is_inside = self.clients.get(key(client.0))?.inside.is_some();
                (!is_inside).then_some(ConnId::Client(client))
            }
            ConnId::Cancel(_) => None,
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("clients", &self.clients.len())
            .field("servers", &self.servers.len())
            .field("places", &self.pools.places.len())
            .finish_non_exhaustive()
    }
}

/// The shell's entropy in the shapes that the machine needs.
struct Chance(Box<dyn Entropy>);

impl Chance {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// A fresh SCRAM nonce.
    fn nonce(&mut self) -> String {
        weir_auth::scram::nonce(self.bytes())
    }
}

impl Dice for Chance {
    fn below(&mut self, bound: u64) -> u64 {
        u64::from_le_bytes(self.bytes()) % bound.max(1)
    }
}

/// A table's key as an id. Tables hold one entry per open file, of which there are far fewer than 2^32.
fn id_of(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}

fn client_id(key: usize) -> ClientId {
    ClientId(id_of(key))
}

fn server_id(key: usize) -> ServerId {
    ServerId(id_of(key))
}

fn key(id: u32) -> usize {
    id as usize
}
