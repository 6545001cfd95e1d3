//! The pools of one worker: one for each (database, user, role), made on demand, and their dialing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use slab::Slab;
use weir_admin::snapshot::PoolStats;
use weir_config::Config;
use weir_config::model::{SessionSettings, StatePolicy};
use weir_pool::{ClientId, Pool, PoolCounts, PoolId, ServerId, Target};
use weir_protocol::message::Report;
use weir_session::Mode;
use weir_session::session::Rules;
use weir_session::settings::Reported;
use weir_session::state::{Policies, Policy, StateKind};

use crate::io::{ConnId, Effect, Effects, Role};
use crate::orders::MEMBER_LEFT;
use crate::places::{self, Places};
use crate::server::{ServerConn, ServerStage};
use crate::sharing::Shared;
use crate::{Worker, key, server_id, sizes};

/// A pool's place in the table. It is good as long as a client, a server connection or a cancel request belongs to the
/// pool: only unused pools are removed (see `forgetting`). Their number is bounded by [`POOLS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PoolIndex(usize);

impl From<PoolId> for PoolIndex {
    fn from(PoolId(at): PoolId) -> Self {
        Self(key(at))
    }
}

/// Who shares server connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// Client-facing database name.
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) role: Role,
    pub(crate) purpose: Purpose,
}

/// Whom a pool serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Clients.
    Clients,
    /// Questions of weir's own about users. A pool apart, so that neither waits for the other's server connections.
    Lookups,
}

/// One pool and what belongs to it.
pub(crate) struct PoolEntry {
    pub(crate) key: PoolKey,
    /// Stands for the pool among all that this worker ever had.
    pub(crate) scope: u64,
    /// Since when its clients have been held, as far as has been noted: clocks stand still.
    pub(crate) held_since: Option<Instant>,
    /// Since when nobody has used it, as far as has been looked.
    pub(crate) unused_since: Option<Instant>,
    /// Name of the database on the server.
    pub(crate) dbname: String,
    pub(crate) pool: Pool,
    pub(crate) mode: Mode,
    /// Values reported at the last server login: what a new client is told.
    pub(crate) reported: Option<Rc<Reported>>,
    /// What the last server that was logged in to said about itself.
    pub(crate) in_hot_standby: bool,
    /// Clients that have proven who they are; weir's own do not count.
    pub(crate) clients: u32,
    /// Why the last dial or login did not succeed, if it was the last one.
    pub(crate) last_failure: Option<Report>,
    /// Proven clients that wait for `reported`.
    pub(crate) welcoming: Vec<ClientId>,
    /// Clients that wait for a server connection of their own, in order, and since when.
    pub(crate) wants_private: VecDeque<(ClientId, Instant)>,
    pub(crate) stats: PoolStats,
    /// Kinds of session state whose first user has been named in the log.
    pub(crate) named_states: Vec<StateKind>,
}

impl PoolEntry {
    /// It has no server connection, and nobody waits in it.
    pub(crate) fn is_empty(&self) -> bool {
        let PoolCounts { active, idle, dialing, tested, waiting } = self.pool.counts();
        active + idle + dialing + tested + waiting == 0 && self.welcoming.is_empty()
    }
}

/// All pools.
#[derive(Default)]
pub(crate) struct Pools {
    entries: Slab<PoolEntry>,
    by_key: HashMap<PoolKey, PoolIndex>,
    pub(crate) places: Places,
    pub(crate) shared: Shared,
    /// Pools that keep connections without clients have been made.
    pub(crate) are_kept_made: bool,
    pub(crate) pauses: Pauses,
    last_scope: u64,
    /// When unused pools were last looked for.
    pub(crate) swept: Option<Instant>,
}

/// The databases that PAUSE holds for, known to weir or not.
#[derive(Default)]
pub(crate) struct Pauses {
    all: bool,
    /// Databases for which it is the other way round.
    except: HashSet<String>,
}

impl Pauses {
    /// PAUSE (or RESUME) of one database or of all.
    pub(crate) fn set(&mut self, database: Option<&str>, paused: bool) {
        match database {
            None => {
                self.all = paused;
                self.except.clear();
            }
            Some(name) if paused == self.all => drop(self.except.remove(name)),
            Some(name) => drop(self.except.insert(name.to_owned())),
        }
    }

    fn holds_for(&self, database: &str) -> bool {
        self.all != self.except.contains(database)
    }
}

impl Pools {
    pub(crate) fn entry(&self, index: PoolIndex) -> &PoolEntry {
        &self.entries[index.0]
    }

    pub(crate) fn entry_mut(&mut self, index: PoolIndex) -> &mut PoolEntry {
        &mut self.entries[index.0]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PoolEntry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    pub(crate) fn indices(&self) -> Vec<PoolIndex> {
        self.entries.iter().map(|(key, _)| PoolIndex(key)).collect()
    }

    /// Pools of a client-facing database, or all.
    pub(crate) fn of_database(&self, database: Option<&str>) -> Vec<PoolIndex> {
        let wanted = |entry: &PoolEntry| database.is_none_or(|name| entry.key.database == name);
        self.entries.iter().filter(|(_, entry)| wanted(entry)).map(|(key, _)| PoolIndex(key)).collect()
    }

    /// Forgets a pool that nothing belongs to any more.
    pub(crate) fn remove(&mut self, index: PoolIndex) {
        if let Some(entry) = self.entries.try_remove(index.0) {
            self.by_key.remove(&entry.key);
            self.shared.pool_removed(&entry.key);
        }
    }

    /// The pool with this key, if there is one.
    pub(crate) fn find(&self, wanted: &PoolKey) -> Option<PoolIndex> {
        self.by_key.get(wanted).copied()
    }

    /// The pool with this key, made if there is none; `None` when there are too many.
    pub(crate) fn find_or_make(&mut self, wanted: PoolKey, config: &Config) -> Option<PoolIndex> {
        if let Some(index) = self.find(&wanted) {
            return Some(index);
        }
        if self.entries.len() >= POOLS_MAX {
            return None;
        }
        self.last_scope += 1;
        let kind = places::kind(config, &wanted.database, wanted.role);
        let mut pool = Pool::new(kind, sizes::limits(config, &wanted));
        let at = crate::id_of(self.entries.vacant_key());
        pool.join(&self.shared.caps.clone(), PoolId(at), &self.shared.of_pool(config, &wanted));
        if self.pauses.holds_for(&wanted.database) {
            let none = pool.pause();
            debug_assert!(none.is_empty(), "a new pool has no connections");
        }
        let entry = PoolEntry {
            dbname: dbname(config, &wanted.database),
            pool,
            mode: sizes::mode(config, &wanted.database, &wanted.user),
            key: wanted.clone(),
            scope: self.last_scope,
            held_since: None,
            unused_since: None,
            reported: None,
            in_hot_standby: false,
            clients: 0,
            last_failure: None,
            welcoming: Vec::new(),
            wants_private: VecDeque::new(),
            stats: PoolStats::default(),
            named_states: Vec::new(),
        };
        let index = PoolIndex(self.entries.insert(entry));
        self.by_key.insert(wanted, index);
        Some(index)
    }
}

impl Worker {
    /// Points a pool at the topology in force. What it returns is to be closed before anybody is served. Without a leader,
    /// or with one that is about to go, only logins under way are given up: transactions that are open on it may end.
    #[must_use]
    pub(crate) fn point(&mut self, now: Instant, index: PoolIndex) -> Vec<ServerId> {
        let PoolKey { database, role, .. } = self.pools.entry(index).key.clone();
        let targets = self.pools.places.targets(&self.config, &self.topology, &database, role);
        self.pools.share_hosts(&self.config, &targets);
        let goes = self.topology.planned.is_some() && places::follows_cluster(&self.config, &database);
        let pool = &mut self.pools.entry_mut(index).pool;
        if role == Role::Write && (targets.is_empty() || goes) {
            return pool.hold(now);
        }
        let closed = pool.retarget(&targets, now);
        if role == Role::Read && places::follows_cluster(&self.config, &database) {
            let Pools { entries, places, .. } = &mut self.pools;
            let weight = |target: Target| places.weight(&self.topology, target.member);
            entries[index.0].pool.set_weights(weight);
        }
        closed
    }

    /// Serves those who wait from connections that were kept over a hold, and dials for the others.
    pub(crate) fn serve_waiting(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        while let Some((server, client)) = self.pools.entry_mut(index).pool.grant_idle(now, &mut self.chance)
        {
            self.serve(now, client, server, effects);
        }
        self.pump(now, index, effects);
    }

    /// The pool's first use: tells it where it may dial.
    pub(crate) fn point_if_new(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        if self.pools.entry(index).pool.has_no_target() {
            for server in self.point(now, index) {
                self.lose(now, server, MEMBER_LEFT, effects);
            }
            self.note_hold(now, index);
            self.serve_waiting(now, index, effects);
        }
    }

    /// Closes an unused server connection whose slot another pool needs.
    pub(crate) fn evict(&mut self, now: Instant, server: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(server.0)) else { return };
        self.pools.entry_mut(conn.pool).pool.discard(server);
        self.close_evicted(now, server, effects);
    }

    /// The same for one that its pool has already forgotten.
    pub(crate) fn close_evicted(&mut self, now: Instant, server: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(server.0)) else { return };
        self.log_server_closing(now, conn, "evicted");
        self.end_server(server, effects);
    }

    /// Begins a server connection; the pool has yet to be told. `None` for a target that is not known.
    pub(crate) fn dial(
        &mut self,
        now: Instant,
        index: PoolIndex,
        target: Target,
        effects: &mut Effects,
    ) -> Option<ServerId> {
        let place = self.pools.places.get(target.member).cloned()?;
        let serial = self.next_serial();
        let is_read = self.pools.entry(index).key.role == Role::Read;
        let server = server_id(self.servers.insert(ServerConn {
            stage: ServerStage::Dialing,
            serial,
            pool: index,
            member: place.member,
            address: Rc::clone(&place.address),
            reads_from_primary: place.is_primary,
            reign: Some(target.epoch).filter(|_| place.is_primary && is_read),
            carry: Vec::new(),
            created: now,
            used: now,
            local: None,
            remote: None,
            tls: None,
            wants_tls: false,
            pid: 0,
            secret: None,
            client: None,
            cancels: 0,
            settling_since: None,
            cancel_in_doubt: false,
            closes_fast: false,
            is_new: true,
            in_hot_standby: false,
            is_superuser: false,
            replication: None,
        }));
        self.dial_server(server, effects);
        Some(server)
    }

    /// Closes a server connection that its pool has already forgotten and no client holds.
    pub(crate) fn close_server(&mut self, server: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(server.0)) else { return };
        let now = self.clock.unwrap_or(conn.created);
        self.log_server_closing(now, conn, self.why_retired(now, conn));
        self.end_server(server, effects);
    }

    fn end_server(&mut self, server: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.try_remove(key(server.0)) else { return };
        if conn.open().is_some() {
            effects.send_with(ConnId::Server(server), weir_protocol::frontend::terminate);
            effects.list.push(Effect::Close(ConnId::Server(server)));
        } else {
            effects.list.push(Effect::Abort(ConnId::Server(server)));
        }
        self.pools.entry_mut(conn.pool).stats.servers_closed += 1;
    }
}

/// What sessions have to know of the configuration.
pub(crate) fn rules(config: &Config, pool: &PoolEntry) -> Rules {
    Rules {
        retry_bytes_max: config.limits.retry_bytes_max,
        shares_statements: config.pool.max_prepared_statements > 0,
        message_bytes_max: config.limits.max_packet_size,
        refuses_simple_queries: config.session.disable_simple_protocol,
        defers_begin: config.pool.defer_begin,
        policies: policies(&config.session),
        scope: pool.scope,
    }
}

pub(crate) fn policies(session: &SessionSettings) -> Policies {
    Policies::of(|kind| {
        let policy = match kind {
            StateKind::Setting => session.on_set,
            StateKind::Prepared => session.on_prepare,
            StateKind::Listening => session.on_listen,
            StateKind::Lock => session.on_advisory_lock,
            StateKind::Temporary => session.on_temporary_table,
            StateKind::Cursor => session.on_hold_cursor,
        };
        match policy {
            StatePolicy::Track => Policy::Track,
            StatePolicy::Pin => Policy::Pin,
            StatePolicy::Refuse => Policy::Refuse,
            StatePolicy::Forget => Policy::Forget,
        }
    })
}

/// The same for weir's own clients, to whom what is refused to others is allowed.
pub(crate) fn rules_inside(config: &Config, pool: &PoolEntry) -> Rules {
    Rules { refuses_simple_queries: false, ..rules(config, pool) }
}

/// Name of a database on the server.
pub(crate) fn dbname(config: &Config, database: &str) -> String {
    let settings = config.database(database);
    settings.and_then(|database| database.dbname.clone()).unwrap_or_else(|| database.to_owned())
}

/// As whom PostgreSQL is logged in to for a client: the database's own user, or the client's.
pub(crate) fn server_user(config: &Config, database: &str, user: &str) -> String {
    let forced = config.database(database).and_then(|database| database.user.as_deref());
    forced.unwrap_or(user).to_owned()
}

/// Pools that one worker keeps; each costs a few hundred bytes. Clients of more are refused.
const POOLS_MAX: usize = 10_000;
