//! What the control thread wants: a new topology or configuration, PAUSE and RESUME, RECONNECT, the end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use weir_config::Config;
use weir_discovery::{Leadership, Topology};
use weir_pool::{ClientId, ServerId};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use crate::client::Client;
use crate::io::{ConnId, Effect, Effects, Order, Role};
use crate::pools::PoolIndex;
use crate::server::ServerConn;
use crate::{Worker, client_id, places, pools, server_id, sizes};

impl Worker {
    /// The control thread wants something.
    pub fn order(&mut self, now: Instant, order: Order, effects: &mut Effects) {
        self.clock = Some(now);
        match order {
            Order::Adopt(topology) => self.adopt(now, topology, effects),
            Order::Configure(config) => self.configure(now, config, effects),
            Order::ConsoleNotice(client, notice) => self.console_notice(client, &notice, effects),
            Order::ConsoleReply(client, reply) => self.console_reply(now, client, &reply, effects),
            Order::Pause(database) => self.pause(database.as_deref(), effects),
            Order::Resume(database) => self.resume(now, database.as_deref(), effects),
            Order::Reconnect(database) => self.reconnect(now, database.as_deref(), effects),
            Order::Drain => self.drain(now, effects),
            Order::WaitForServers => self.wait_for_servers(now, effects),
            Order::WaitForClients => self.wait_for_clients(),
            Order::Kill(database) => self.kill(now, database.as_deref(), effects),
            Order::KillClient(serial) => self.kill_client(now, serial, effects),
            Order::Disable(database, true) => drop(self.disabled.insert(database)),
            Order::Disable(database, false) => drop(self.disabled.remove(&database)),
            Order::Suspend(_) => {}
            Order::AddressesLeft { host, gone } => self.leave_addresses(now, &host, &gone, effects),
        }
    }

    /// Follows a new topology. What belongs to an older epoch is closed before anybody is served by the new one.
    fn adopt(&mut self, now: Instant, topology: Arc<Topology>, effects: &mut Effects) {
        if let Leadership::Led { epoch, .. } = &topology.leader {
            self.followed = *epoch;
        }
        self.note_failover(now, &topology);
        self.note_reign(now, &topology);
        let held_sessions = self.holds_sessions();
        self.topology = topology;
        let mut indices = self.pools.indices();
        indices.retain(|index| !places::has_hosts(&self.config, &self.pools.entry(*index).key.database));
        let mut gone = Vec::new();
        for index in &indices {
            gone.extend(self.point(now, *index));
        }
        for server in self.reads_of_the_past() {
            if !gone.contains(&server) {
                gone.push(server);
            }
        }
        // Nobody hears anything, and nobody is dialed, before the last old connection is closed.
        effects.list.extend(gone.iter().map(|server| Effect::Abort(ConnId::Server(*server))));
        for server in gone {
            self.forget_lost(now, server, MEMBER_LEFT, effects);
        }
        self.give_up_silent(now, effects);
        self.note_holds(now);
        for index in indices {
            self.hurry_sessions(now, index, effects);
            self.serve_waiting(now, index, effects);
        }
        self.note_failover_over();
        if held_sessions && !self.holds_sessions() {
            self.resume_sessions(now, effects);
        }
        self.move_lookups(now, effects);
    }

    /// Connections of the read door to servers from which nothing comes any more: what runs there will not be answered.
    /// Those of the write door wait for the next epoch, because the leader may be back before there is another one.
    fn give_up_silent(&mut self, now: Instant, effects: &mut Effects) {
        let topology = Arc::clone(&self.topology);
        let is_lost = |conn: &ServerConn| {
            let key = &self.pools.entry(conn.pool).key;
            topology.silent.contains(&conn.address)
                && key.role == Role::Read
                && !places::has_hosts(&self.config, &key.database)
        };
        let lost: Vec<ServerId> =
            self.servers.iter().filter(|(_, conn)| is_lost(conn)).map(|(at, _)| server_id(at)).collect();
        for server in lost {
            self.lose(now, server, SILENT, effects);
        }
    }

    fn configure(&mut self, now: Instant, config: Arc<Config>, effects: &mut Effects) {
        let before = std::mem::replace(&mut self.config, config);
        self.deadlines.configure(&self.config);
        self.secrets.forget_derived();
        self.verifiers.configure(&self.config, &self.secrets.mock);
        self.pools.configure_shared(&self.config);
        self.pools.are_kept_made = false;
        let policies = pools::policies(&self.config.session);
        for (_, client) in &mut self.clients {
            if let Some(open) = client.open_mut() {
                open.session.set_policies(policies);
            }
        }
        for index in self.pools.indices() {
            let database = self.pools.entry(index).key.database.clone();
            if self.config.database(&database).is_none() {
                self.remove_database(now, index, effects);
                continue;
            }
            let entry = self.pools.entry_mut(index);
            entry.pool.set_limits(sizes::limits(&self.config, &entry.key));
            // Clients that are there keep the mode they came with.
            entry.mode = sizes::mode(&self.config, &database, &entry.key.user);
            entry.dbname = pools::dbname(&self.config, &database);
            if places::has_moved(&before, &self.config, &database) {
                entry.reported = None;
                self.replace_servers(now, index, effects);
                self.repoint(now, index, effects);
            }
            self.pump(now, index, effects);
        }
        self.ask_anew(now, effects);
    }

    /// The pool's database is reached in another way than before.
    fn repoint(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        let entry = self.pools.entry_mut(index);
        let kind = places::kind(&self.config, &entry.key.database, entry.key.role);
        entry.pool.set_kind(kind);
        for server in self.point(now, index) {
            self.lose(now, server, DATABASE_MOVED, effects);
        }
        self.note_hold(now, index);
        self.hurry_sessions(now, index, effects);
        self.serve_waiting(now, index, effects);
    }

    /// The configuration knows the pool's database no longer: everybody has to leave, as with PgBouncer.
    fn remove_database(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        let report = Report::fatal(SqlState::PROTOCOL_VIOLATION, "database removed");
        self.refuse_welcoming(now, index, &report, effects);
        let uses = |client: &Client| client.open().is_some_and(|open| open.pool == index);
        let clients: Vec<ClientId> =
            self.clients.iter().filter(|(_, client)| uses(client)).map(|(at, _)| client_id(at)).collect();
        for id in clients {
            self.refuse_client(now, id, &report, effects);
        }
        self.replace_servers(now, index, effects);
    }

    pub(crate) fn pause(&mut self, database: Option<&str>, effects: &mut Effects) {
        self.pools.pauses.set(database, true);
        for index in self.pools.of_database(database) {
            for server in self.pools.entry_mut(index).pool.pause() {
                self.close_server(server, effects);
            }
        }
    }

    fn resume(&mut self, now: Instant, database: Option<&str>, effects: &mut Effects) {
        self.pools.pauses.set(database, false);
        for index in self.pools.of_database(database) {
            self.pools.entry_mut(index).pool.resume();
            self.pump(now, index, effects);
        }
    }

    fn reconnect(&mut self, now: Instant, database: Option<&str>, effects: &mut Effects) {
        for index in self.pools.of_database(database) {
            self.replace_servers(now, index, effects);
            self.pump(now, index, effects);
        }
    }

    fn replace_servers(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        for server in self.pools.entry_mut(index).pool.retire_all() {
            self.close_server(server, effects);
        }
        self.hurry_sessions(now, index, effects);
    }
}

impl Worker {
    /// Whether a server connection goes to this host.
    #[must_use]
    pub fn is_using(&self, host: &str) -> bool {
        self.servers.iter().any(|(_, conn)| conn.address.host == host)
    }

    /// Replaces server connections to addresses that their host's name no longer has.
    fn leave_addresses(&mut self, now: Instant, host: &str, gone: &[IpAddr], effects: &mut Effects) {
        for index in self.pools.indices() {
            let is_there = |conn: &ServerConn| {
                let remote = conn.remote.is_some_and(|remote| gone.contains(&remote));
                conn.pool == index && conn.address.host == host && remote
            };
            let there: Vec<ServerId> =
                self.servers.iter().filter(|(_, conn)| is_there(conn)).map(|(at, _)| server_id(at)).collect();
            for server in self.pools.entry_mut(index).pool.retire_some(&there) {
                self.close_server(server, effects);
            }
            self.hurry_sessions(now, index, effects);
            self.pump(now, index, effects);
        }
    }
}

/// For the log: why connections are closed when the topology changes.
pub(crate) const MEMBER_LEFT: &str = "the cluster has changed, and its member has another role now";

/// For the log, and for the DETAIL of errors.
const SILENT: &str = "its server does not answer any more";

/// Likewise when the configuration changes.
const DATABASE_MOVED: &str = "its database is somewhere else now";
