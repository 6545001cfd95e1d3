//! Snapshots: the worker's state as rows for the console and the metrics page.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use weir_admin::snapshot::{Buffered, ClientRow, PeerPoolRow, PoolRow, PoolStats, ServerRow, Snapshot};
use weir_pool::PoolCounts;
use weir_session::Mode;
use weir_session::server::TxStatus;

use crate::cancel::Lane;
use crate::client::{Client, Stage};
use crate::errands::Errand;
use crate::io::Role;
use crate::pools::{PoolEntry, PoolIndex, PoolKey, Purpose};
use crate::replication::Replication;
use crate::server::{ServerConn, ServerStage};
use crate::{Worker, key};

impl Worker {
    /// How things are.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut totals = self.totals;
        totals.login_clients =
            self.clients.iter().filter(|(_, client)| client.is_logging_in()).count() as u64;
        totals.max_client_conn = u64::from(self.config.limits.max_client_conn);
        Snapshot {
            pools: self.pool_rows(now),
            clients: self.visible_clients().map(|(at, client)| self.client_row(now, at, client)).collect(),
            peers: self.peer_rows(),
            // The shell knows them.
            dns_hosts: Vec::new(),
            dns_zones: Vec::new(),
            servers: self.servers.iter().map(|(at, conn)| self.server_row(now, at, conn)).collect(),
            totals,
        }
    }

    fn visible_clients(&self) -> impl Iterator<Item = (usize, &Client)> {
        let is_visible = |client: &Client| client.inside.is_none() && !matches!(client.stage, Stage::Left);
        self.clients.iter().filter(move |(_, client)| is_visible(client))
    }

    fn pool_rows(&self, now: Instant) -> Vec<PoolRow> {
        let mut rows: Vec<PoolRow> = self.pools.iter().map(|entry| pool_row(now, entry)).collect();
        let places: HashMap<PoolIndex, usize> =
            self.pools.indices().into_iter().enumerate().map(|(at, index)| (index, at)).collect();
        let row_of = |index| places.get(&index).copied();
        for open in self.visible_clients().filter_map(|(_, client)| client.open()) {
            if let Some(at) = row_of(open.pool)
                && open.waiting_since.is_none()
            {
                rows[at].cl_active += 1;
            }
        }
        for at in self.pools_rested_for().filter_map(row_of) {
            rows[at].cl_waiting += 1;
        }
        for replicating in self.visible_clients().filter_map(|(_, client)| client.replicating()) {
            let Some(at) = row_of(replicating.pool) else { continue };
            rows[at].cl_active += u32::from(replicating.is_welcome());
            rows[at].cl_waiting += u32::from(!replicating.is_welcome());
        }
        for (_, conn) in &self.servers {
            let Some(at) = row_of(conn.pool) else { continue };
            let is_settling = u32::from(conn.settling_since.is_some());
            rows[at].sv_being_canceled += is_settling;
            rows[at].sv_active -= is_settling;
            // What a pairing has done so far is with its pool only when it ends.
            if let Some(server) = conn.open() {
                crate::release::add(&mut rows[at].stats, server.tally());
            }
            // A check has a state of its own in the pool; what runs behind a client counts as in use there.
            let is_cleaned = matches!(conn.stage, ServerStage::Errand(errand, _) if !conn.is_new && errand != Errand::Test);
            rows[at].sv_tested += u32::from(is_cleaned);
            rows[at].sv_active -= u32::from(is_cleaned);
        }
        for (_, cancel) in &self.cancels {
            let Lane::Pool(index) = cancel.lane else { continue };
            let Some(at) = row_of(index) else { continue };
            if cancel.is_waiting() {
                rows[at].cl_waiting_cancel_req += 1;
            } else {
                rows[at].sv_active_cancel += 1;
                rows[at].cl_active_cancel_req += 1;
            }
        }
        rows
    }

    /// Cancel requests to other processes.
    fn peer_rows(&self) -> Vec<PeerPoolRow> {
        let row = |id: u16| {
            let mut row = PeerPoolRow { peer_id: id, ..PeerPoolRow::default() };
            for (_, cancel) in self.cancels.iter().filter(|(_, cancel)| cancel.lane == Lane::Peer(id)) {
                row.cl_waiting_cancel_req += u32::from(cancel.is_waiting());
                row.cl_active_cancel_req += u32::from(!cancel.is_waiting());
                row.sv_active_cancel += u32::from(cancel.is_sent());
                row.sv_login += u32::from(!cancel.is_waiting() && !cancel.is_sent());
            }
            row
        };
        let others = self.config.peers.iter().filter(|(_, peer)| peer.host.is_some());
        others.map(|(id, _)| row(*id)).collect()
    }

    /// What became of a client that brought a cancel request.
    fn cancel_state(&self, client: &Client) -> Option<&'static str> {
        let mut cancels = self.cancels.iter();
        let (_, cancel) = cancels.find(|(_, cancel)| cancel.requester_serial == client.serial)?;
        Some(if cancel.is_waiting() { "waiting_cancel_req" } else { "active_cancel_req" })
    }

    fn client_row(&self, now: Instant, at: usize, client: &Client) -> ClientRow {
        let mut row = ClientRow {
            id: client.serial,
            user: String::new(),
            database: String::new(),
            role: role_name(client.role),
            state: "login",
            peer: client.peer,
            local: client.local,
            unix_port: client.unix.map_or(0, |unix| unix.port),
            remote_pid: client.unix.map_or(0, |unix| unix.pid),
            replication: client.replicating().map_or("none", |replicating| replicating.kind.name()),
            connected_for: now.saturating_duration_since(client.accepted),
            request_age: now.saturating_duration_since(client.accepted),
            wait: Duration::ZERO,
            link: None,
            tls: client.tls.as_deref().unwrap_or_default().to_owned(),
            application_name: String::new(),
            prepared_statements: 0,
            slot: crate::id_of(at),
            buffered: Buffered { incoming: client.carry.len(), outgoing: 0 },
        };
        match &client.stage {
            Stage::Login(_) => row.state = self.cancel_state(client).unwrap_or(row.state),
            Stage::Left => {}
            Stage::Welcoming(waiting) => {
                row.user.clone_from(&waiting.admitted.user);
                row.database.clone_from(&waiting.admitted.database);
            }
            Stage::Console(console) => {
                row.user.clone_from(&console.user);
                "pgbouncer".clone_into(&mut row.database);
                row.state = "active";
            }
            Stage::Replicating(replicating) => {
                row.user = replicating.user.as_ref().to_owned();
                row.database.clone_from(&self.pools.entry(replicating.pool).key.database);
                row.state = if replicating.is_welcome() { "active" } else { "waiting" };
                row.link = client.server().and_then(|server| Some(self.servers.get(key(server.0))?.serial));
                row.application_name = replicating.application_name().to_owned();
            }
            Stage::Open(open) => {
                let pool = &self.pools.entry(open.pool).key;
                open.user(&pool.user).clone_into(&mut row.user);
                row.database.clone_from(&pool.database);
                row.state = match (open.server, open.waiting_since) {
                    (_, Some(_)) => "waiting",
                    (Some(_), None) => "active",
                    // In a transaction that PostgreSQL knows nothing of (yet, or any more).
                    (None, None) if open.session.tx() != TxStatus::Idle => "active",
                    (None, None) => "idle",
                };
                row.request_age = now.saturating_duration_since(open.request_at);
                row.wait =
                    open.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                row.link = open.server.and_then(|server| Some(self.servers.get(key(server.0))?.serial));
                row.application_name = open.application_name.as_ref().to_owned();
                row.prepared_statements = u32::try_from(open.session.statement_count()).unwrap_or(u32::MAX);
            }
        }
        row
    }

    fn server_row(&self, now: Instant, at: usize, conn: &ServerConn) -> ServerRow {
        let entry = self.pools.entry(conn.pool);
        let state = match (&conn.stage, conn.client, conn.settling_since) {
            (ServerStage::Dialing | ServerStage::Login(_), _, _) => "new",
            (ServerStage::Open(_), _, Some(_)) => "being_canceled",
            (ServerStage::Open(_), Some(_), None) => "active",
            (ServerStage::Open(_), None, None) => "idle",
            (ServerStage::Errand(Errand::Connect, _), _, _) if conn.is_new => "new",
            (ServerStage::Errand(..), _, _) => "tested",
            (ServerStage::Relaying, _, _) => "active",
        };
        let id = crate::server_id(at);
        let facts = entry.pool.server(id);
        let reported = conn.open().map(|server| server.reported());
        ServerRow {
            id: conn.serial,
            user: entry.key.user.clone(),
            database: entry.key.database.clone(),
            role: pool_role(&entry.key),
            state,
            host: conn.address.host.clone(),
            port: conn.address.port,
            local: conn.local,
            replication: conn.replication.map_or("none", Replication::name),
            connected_for: now.saturating_duration_since(conn.created),
            request_age: now.saturating_duration_since(conn.used),
            close_needed: facts.is_some_and(|facts| facts.retire),
            link: conn.client.and_then(|id| self.clients.get(key(id.0))).map(|client| client.serial),
            remote_pid: conn.pid,
            tls: conn.tls.as_deref().unwrap_or_default().to_owned(),
            application_name: reported
                .and_then(|reported| reported.value("application_name"))
                .unwrap_or_default()
                .to_owned(),
            prepared_statements: conn
                .open()
                .map_or(0, |server| u32::try_from(server.statement_count()).unwrap_or(u32::MAX)),
            slot: id.0,
            buffered: Buffered { incoming: conn.carry.len(), outgoing: 0 },
        }
    }
}

fn pool_row(now: Instant, entry: &PoolEntry) -> PoolRow {
    let PoolCounts { active, idle, dialing, tested, waiting } = entry.pool.counts();
    let sums = entry.pool.sums();
    PoolRow {
        database: entry.key.database.clone(),
        user: entry.key.user.clone(),
        role: pool_role(&entry.key),
        pool_mode: match entry.mode {
            Mode::Session => "session",
            Mode::Transaction => "transaction",
            Mode::Statement => "statement",
        },
        server_database: entry.dbname.clone(),
        pool_size: shown_size(entry.pool.limits().size),
        cl_active: 0,
        cl_waiting: waiting,
        cl_active_cancel_req: 0,
        cl_waiting_cancel_req: 0,
        sv_active: active,
        sv_being_canceled: 0,
        sv_active_cancel: 0,
        sv_idle: idle,
        sv_tested: tested,
        sv_login: dialing,
        max_wait: entry.pool.oldest_wait(now).unwrap_or_default(),
        held: entry.pool.held(),
        paused: entry.pool.is_paused(),
        stats: PoolStats {
            server_assignments: sums.assignments,
            wait_micros: sums.wait_micros,
            ..entry.stats
        },
    }
}

/// Pools for questions about users have a word of their own where those of clients have their role.
fn pool_role(key: &PoolKey) -> &'static str {
    match key.purpose {
        Purpose::Clients => role_name(key.role),
        Purpose::Lookups => "lookup",
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Write => "write",
        Role::Read => "read",
    }
}

/// The console writes 0 for no limit.
fn shown_size(size: NonZeroU32) -> u32 {
    if size == weir_config::UNLIMITED { 0 } else { size.get() }
}
