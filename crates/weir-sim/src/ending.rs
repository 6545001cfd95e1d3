//! The end of a story, and the laws that hold there: everybody is served, nothing is lost, nothing is left behind.

use std::hash::Hasher;
use std::time::Duration;

use weir_discovery::Leadership;
use weir_worker::{ConnId, Order};

use crate::Summary;
use crate::application::{Application, Kind};
use crate::laws::Law;
use crate::node::Node;
use crate::process::MAX_LAG;
use crate::world::{Event, World};

impl World {
    /// Nothing has happened yet. In a cluster that follows another one nobody who wants to write is left waiting.
    pub(crate) fn check_standby(&self) {
        let is_told = |client: &Application| client.kind != Kind::Writer || client.failures > 0;
        for (at, client) in self.clients.iter().enumerate() {
            Law::StandbyIsTold
                .holds(!self.plan.is_standby || is_told(client), || format!("c{at}: {client:?}"));
        }
    }

    /// Faults stop. Within bounds there is a leader, every weir follows it, and everybody is served.
    pub(crate) fn become_calm(&mut self) {
        self.mend_all();
        self.note("all is mended".to_owned());
        let patience = self.agenda.now() + CALM_WITHIN;
        while !self.is_led() {
            Law::Progress.holds(self.agenda.now() < patience, || {
                format!("nobody leads, or is followed: {}", self.scene())
            });
            self.run_for(Duration::from_millis(500));
            if self.was_paused && patience - self.agenda.now() < CALM_WITHIN / 2 {
                self.accept_leader();
            }
        }
        let before: Vec<u64> = self.clients.iter().map(|client| client.served).collect();
        let patience = self.agenda.now() + SERVED_WITHIN;
        let mut waiting = before.len();
        while waiting > 0 {
            Law::Progress.holds(self.agenda.now() < patience, || {
                format!("{waiting} are not served: {}", self.scene())
            });
            self.run_for(Duration::from_millis(500));
            waiting =
                self.clients.iter().zip(&before).filter(|(client, before)| client.served <= **before).count();
        }
        self.is_calm = true;
        self.run_for(SILENCE);
        // Whoever keeps a server connection goes with it.
        let movable = self.clients.iter().filter(|client| client.kind != Kind::Sitter);
        let failures: u32 = movable.map(|client| client.failures).sum();
        Law::PlannedIsInvisible
            .holds(!self.plan.is_planned || failures == 0, || format!("{failures} failures"));
        let movable = self.clients.iter().filter(|client| client.kind != Kind::Sitter);
        let singles: u32 = movable.map(|client| client.single_failures).sum();
        Law::PlannedIsInvisible
            .holds(!self.plan.is_scheduled || singles == 0, || format!("{singles} single statements fail"));
        self.check_rest();
    }

    /// Somebody was promoted by hand, and is gone: it takes an administrator's word to go back to an older timeline.
    fn accept_leader(&mut self) {
        let Some(leader) = self.nodes.iter().position(|node| node.data.writes()) else { return };
        let now = self.instant();
        for weir in 0..self.weirs.len() {
            if self.weirs[weir].discovery.accept_leader(now, &format!("n{leader}")).is_ok() {
                self.is_lossy = true;
                self.weirs[weir].followed = self.nodes[leader].data.timeline;
                self.follow_up(weir);
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.agenda.now() + time;
        self.run_until(end);
    }

    /// One node writes, and every weir knows.
    fn is_led(&self) -> bool {
        let mut writers = (0..self.nodes.len()).filter(|node| self.nodes[*node].data.writes());
        let (Some(leader), None) = (writers.next(), writers.next()) else { return false };
        self.weirs.iter().all(|weir| {
            matches!(&weir.discovery.topology().leader,
                Leadership::Led { member, .. } if *member == format!("n{leader}"))
        })
    }

    fn scene(&self) -> String {
        let views: Vec<_> = self.weirs.iter().map(|weir| weir.discovery.topology().leader.clone()).collect();
        let phases: Vec<_> = self.nodes.iter().map(|node| (node.data.phase, node.data.timeline)).collect();
        let pools: Vec<_> =
            self.weirs.iter().map(|weir| weir.worker.snapshot(self.instant()).pools).collect();
        let (clients, dcs) = (&self.clients, &self.dcs);
        format!("{views:?}\n{clients:?}\n{phases:?} {dcs:?}\n{pools:#?}")
    }

    /// Now that nobody wants anything: what weirs know of is what there is, and all of it rests.
    fn check_rest(&self) {
        for weir in &self.weirs {
            let known = weir.worker.snapshot(self.instant());
            let open = weir.wires.keys().filter(|conn| matches!(conn, ConnId::Server(_))).count();
            Law::NothingLeft.holds(open == known.servers.len(), || {
                format!("the shell has {open} server connections, the worker {:?}", known.servers)
            });
            let waiting: u32 = known.pools.iter().map(|pool| pool.cl_waiting).sum();
            Law::Progress.holds(waiting == 0, || format!("{waiting} clients wait: {:?}", known.pools));
            let reading = known.servers.iter().filter(|server| server.role == "read");
            self.check_lag(&reading.map(|server| server.remote_pid).collect::<Vec<_>>());
            for server in known.servers.iter().filter(|server| server.state == "idle") {
                let of = |node: &Node| {
                    node.backends.get(&server.remote_pid).map(|it| (it.is_read_only, node.data.writes()))
                };
                let may_write = self.nodes.iter().find_map(of) == Some((false, true));
                Law::ReadOnly.holds(server.role != "read" || !may_write, || format!("{server:?}"));
                let backend = self.nodes.iter().find_map(|node| node.backends.get(&server.remote_pid));
                Law::PooledAtRest.holds(backend.is_none_or(|backend| backend.is_at_rest(&[], &[])), || {
                    format!("{backend:?}")
                });
            }
        }
    }

    /// No replica that is far behind has these sessions of the read door.
    fn check_lag(&self, reading: &[u32]) {
        let Some(leader) = self.nodes.iter().find(|node| node.data.writes()) else { return };
        for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.data.writes()) {
            let behind = leader.data.log.len().saturating_sub(node.data.replayed()) as u64;
            let serves = reading.iter().any(|pid| node.backends.contains_key(pid));
            Law::Fresh.holds(behind <= MAX_LAG || !serves, || {
                format!("n{at} is {behind} behind, and serves reads")
            });
        }
    }

    /// weir ends: every application is let go, and nothing is left.
    pub(crate) fn drain(&mut self) {
        (self.is_calm, self.is_draining) = (false, true);
        // Some are at work when it begins, others are idle.
        for client in 0..self.clients.len() {
            if !self.dice.once_in(3) {
                let delay = self.dice.millis(0, 100);
                self.agenda.after(delay, Event::Act { client });
            }
        }
        self.run_for(Duration::from_millis(50));
        for weir in 0..self.weirs.len() {
            self.turn(weir, |worker, now, effects| worker.order(now, Order::Drain, effects));
        }
        let patience = self.agenda.now() + DRAINED_WITHIN;
        while !self.weirs.iter().all(|weir| weir.worker.is_drained()) {
            Law::NothingLeft.holds(self.agenda.now() < patience, || format!("not drained: {}", self.scene()));
            self.run_for(Duration::from_millis(200));
        }
        self.run_for(Duration::from_secs(2));
        for weir in &self.weirs {
            let left = weir.worker.snapshot(self.instant());
            let is_open = weir.wires.keys().any(|conn| !matches!(conn, ConnId::Server(_)));
            Law::NothingLeft.holds(left.clients.is_empty() && !is_open, || {
                format!("{:?}, {:?}", left.clients, weir.wires)
            });
        }
        for client in 0..self.clients.len() {
            self.vanish_client(client);
        }
        let log = self.nodes.iter().max_by_key(|node| (node.data.writes(), node.data.timeline));
        if let Some(leader) = log {
            self.ledger.check(&leader.data.log, self.is_lossy);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            rows: self.ledger.count(),
            answers: self.clients.iter().map(|client| client.served).sum(),
            timeline: self.nodes.iter().map(|node| node.data.timeline).max().unwrap_or(0),
            cut_off: self.cut_off,
            history: self.history.finish(),
        }
    }
}

/// A leader is found and followed; Patroni needs up to its ttl and a loop.
const CALM_WITHIN: Duration = Duration::from_secs(40);
/// Whoever is in a transaction ends it, one after the other where connections are few.
const SILENCE: Duration = Duration::from_secs(10);
const SERVED_WITHIN: Duration = Duration::from_secs(30);
const DRAINED_WITHIN: Duration = Duration::from_secs(20);
