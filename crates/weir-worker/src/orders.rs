//! What the control thread wants: a new topology or configuration, PAUSE and RESUME, RECONNECT, the end.

use std::sync::Arc;
use std::time::Instant;

use weir_config::Config;
use weir_discovery::Topology;
use weir_pool::ClientId;
use weir_protocol::backend;

use crate::io::{ConnId, Effect, Effects, Order};
use crate::login::shutting_down;
use crate::{Worker, client_id, key, pools};

impl Worker {
    /// The control thread wants something.
    pub fn order(&mut self, now: Instant, order: Order, effects: &mut Effects) {
        match order {
            Order::Adopt(topology) => self.adopt(now, topology, effects),
            Order::Configure(config) => self.configure(config),
            Order::ConsoleReply(client, reply) => self.console_reply(client, &reply, effects),
            Order::Pause(database) => self.pause(database.as_deref(), effects),
            Order::Resume(database) => self.resume(now, database.as_deref(), effects),
            Order::Reconnect(database) => self.reconnect(now, database.as_deref(), effects),
            Order::Drain => self.drain(now, effects),
        }
    }

    /// Follows a new topology. What belongs to an older epoch is closed before anybody is served by the new one.
    fn adopt(&mut self, now: Instant, topology: Arc<Topology>, effects: &mut Effects) {
        self.topology = topology;
        for index in self.pools.indices() {
            self.retarget(now, index, effects);
        }
    }

    fn configure(&mut self, config: Arc<Config>) {
        self.config = config;
        self.secrets.forget_derived();
        for index in self.pools.indices() {
            let database = self.pools.entry(index).key.database.clone();
            let entry = self.pools.entry_mut(index);
            entry.pool.set_limits(pools::limits(&self.config, &database));
            // Clients that are there keep the mode they came with.
            entry.mode = pools::mode(&self.config, &database);
        }
    }

    fn pause(&mut self, database: Option<&str>, effects: &mut Effects) {
        self.pools.note_pause(database);
        for index in self.pools.of_database(database) {
            for server in self.pools.entry_mut(index).pool.pause() {
                self.close_server(server, effects);
            }
        }
    }

    fn resume(&mut self, now: Instant, database: Option<&str>, effects: &mut Effects) {
        self.pools.note_resume(database);
        for index in self.pools.of_database(database) {
            self.pools.entry_mut(index).pool.resume();
            self.pump(now, index, effects);
        }
    }

    fn reconnect(&mut self, now: Instant, database: Option<&str>, effects: &mut Effects) {
        for index in self.pools.of_database(database) {
            for server in self.pools.entry_mut(index).pool.retire_all() {
                self.close_server(server, effects);
            }
            self.pump(now, index, effects);
        }
    }

    /// Lets nobody in any more, and everybody out at the next transaction boundary.
    fn drain(&mut self, now: Instant, effects: &mut Effects) {
        self.draining = true;
        self.close_consoles(now, effects);
        let idle: Vec<ClientId> = self
            .clients
            .iter()
            .filter(|(_, client)| client.inside.is_none())
            .filter(|(_, client)| {
                client.is_logging_in()
                    || client.open().is_some_and(|open| open.server.is_none() && open.session.is_idle())
            })
            .map(|(at, _)| client_id(at))
            .collect();
        for id in idle {
            self.say_farewell(now, id, effects);
        }
    }

    /// Tells a client that weir is about to end, and closes it.
    pub(crate) fn say_farewell(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        if self.clients.contains(key(id.0)) {
            let report = shutting_down();
            effects.send_with(ConnId::Client(id), |out| backend::error(&report, out));
            self.client_gone(now, id, "weir is shutting down", effects);
            effects.list.push(Effect::Close(ConnId::Client(id)));
        }
    }
}
