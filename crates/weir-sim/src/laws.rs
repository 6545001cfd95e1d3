//! The end of a story, and the laws that hold there: everybody is served, nothing is lost, nothing is left behind.

use std::time::Duration;

use weir_discovery::Leadership;
use weir_worker::Order;

use crate::Summary;
use crate::world::World;

impl World {
    /// Faults stop. Within bounds there is a leader, every weir follows it, and everybody is served.
    pub(crate) fn become_calm(&mut self) {
        self.mend_all();
        self.note("all is mended".to_owned());
        let patience = self.agenda.now() + CALM_WITHIN;
        while !self.is_led() {
            assert!(self.agenda.now() < patience, "no leader, or not followed: {}", self.scene());
            self.run_for(Duration::from_millis(500));
        }
        let before: Vec<u64> = self.clients.iter().map(|client| client.served).collect();
        let patience = self.agenda.now() + SERVED_WITHIN;
        let mut waiting = before.len();
        while waiting > 0 {
            assert!(self.agenda.now() < patience, "{waiting} applications are not served: {}", self.scene());
            self.run_for(Duration::from_millis(500));
            waiting =
                self.clients.iter().zip(&before).filter(|(client, before)| client.served <= **before).count();
        }
        self.is_calm = true;
        self.run_for(Duration::from_secs(4));
        self.check_limits();
        self.check_rest();
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
        let waiting: Vec<_> = self
            .clients
            .iter()
            .map(|client| {
                (client.is_reader, client.wire, client.served, &client.waits_for, char::from(client.status))
            })
            .collect();
        let phases: Vec<_> = self.nodes.iter().map(|node| (node.data.phase, node.data.timeline)).collect();
        let servers: Vec<_> =
            self.weirs.iter().map(|weir| weir.worker.snapshot(self.instant()).pools).collect();
        format!("{views:?}\n{waiting:?}\n{phases:?} {:?}\n{servers:#?}", self.dcs)
    }

    pub(crate) fn check_limits(&self) {
        for weir in &self.weirs {
            for pool in weir.worker.snapshot(self.instant()).pools {
                let open = pool.sv_active + pool.sv_idle + pool.sv_login + pool.sv_being_canceled;
                assert!(
                    open <= self.plan.pool_size,
                    "{open} server connections in a pool of {}",
                    self.plan.pool_size
                );
            }
        }
    }

    /// Whatever is pooled is at rest at PostgreSQL, too, once the network is quiet.
    fn check_rest(&self) {
        for weir in &self.weirs {
            for server in weir.worker.snapshot(self.instant()).servers {
                let backend = self.nodes.iter().find_map(|node| node.backends.get(&server.remote_pid));
                let is_idle = server.state == "idle";
                assert!(
                    !is_idle || backend.is_none_or(crate::backend::Backend::is_at_rest),
                    "pooled in the middle of something: {backend:?}"
                );
            }
        }
    }

    /// weir ends: every application is let go, and nothing is left.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        for weir in 0..self.weirs.len() {
            self.turn(weir, |worker, now, effects| worker.order(now, Order::Drain, effects));
        }
        let patience = self.agenda.now() + DRAINED_WITHIN;
        while !self.weirs.iter().all(|weir| weir.worker.is_drained()) {
            assert!(self.agenda.now() < patience, "not drained: {}", self.scene());
            self.run_for(Duration::from_millis(200));
        }
        self.run_for(Duration::from_secs(2));
        for weir in &self.weirs {
            let left = weir.worker.snapshot(self.instant());
            assert!(left.clients.is_empty(), "clients are left: {:?}", left.clients);
        }
        for client in 0..self.clients.len() {
            self.vanish_client(client);
        }
        let log = self.nodes.iter().max_by_key(|node| (node.data.writes(), node.data.timeline));
        if let Some(leader) = log {
            self.ledger.check(&leader.data.log, !self.plan.synchronous);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            rows: self.ledger.count(),
            answers: self.clients.iter().map(|client| client.served).sum(),
            timeline: self.nodes.iter().map(|node| node.data.timeline).max().unwrap_or(0),
            cut_off: self.cut_off,
        }
    }
}

/// A leader is found and followed; Patroni needs up to its ttl and a loop.
const CALM_WITHIN: Duration = Duration::from_secs(40);
const SERVED_WITHIN: Duration = Duration::from_secs(30);
const DRAINED_WITHIN: Duration = Duration::from_secs(20);
