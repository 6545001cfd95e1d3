//! PostgreSQL at work: sessions, replication, and its ways to start and stop.

use std::time::Duration;

use weir_protocol::sqlstate::SqlState;

use crate::backend::{Backend, Doing, Progress};
use crate::database::Phase;
use crate::plan::Step;
use crate::wire::{Host, Party, Segment, WireId};
use crate::world::{Event, Place, World};

impl World {
    /// Somebody connects.
    pub(crate) fn listen(&mut self, node: usize, wire: WireId) {
        let server = &mut self.nodes[node];
        if server.serving().0.phase == Phase::Down {
            self.network.close(wire, 1);
            return self.transmit(wire, 1, Segment::Refused);
        }
        server.last_pid += 1;
        let pid = server.last_pid;
        let system = server.system();
        server.backends.insert(pid, Backend::new(pid, wire, system));
        self.network.assign(wire, 1, Party::Backend(node, Some(pid)));
        self.transmit(wire, 1, Segment::SynAck);
    }

    pub(crate) fn backend_hears(&mut self, node: usize, pid: u32, segment: Segment) {
        let Some(backend) = self.nodes[node].backends.get_mut(&pid) else { return };
        match segment {
            Segment::Bytes(bytes) => backend.receive(&bytes),
            Segment::Fin | Segment::Reset => backend.hung_up = true,
            Segment::Syn | Segment::SynAck | Segment::Refused => {}
        }
        self.work(node, pid);
    }

    pub(crate) fn statement_finished(&mut self, node: usize, pid: u32) {
        let breaks_off = self.nodes[node].has_conflicts && self.dice.once_in(2);
        let (data, backends) = self.nodes[node].serving();
        if let Some(backend) = backends.get_mut(&pid) {
            if breaks_off && !data.writes() {
                if let Some(value) = backend.query_of() {
                    self.ledger.read_broken(value);
                }
                backend.conflict(data);
            } else if backend.finish(data) == Progress::Committed {
                self.committed(node, pid);
            }
            self.work(node, pid);
        }
    }

    /// Lets a session work as far as it gets.
    fn work(&mut self, node: usize, pid: u32) {
        loop {
            let (data, backends) = self.nodes[node].serving();
            let Some(backend) = backends.get_mut(&pid) else { return };
            let progress = backend.work(data, &mut self.dice);
            self.speak(node, pid);
            match progress {
                Progress::Rests => return,
                Progress::Runs(time) => return self.agenda.after(time, Event::Finished { node, pid }),
                Progress::Committed => self.committed(node, pid),
                Progress::Ended => return self.end_backend(node, pid),
            }
        }
    }

    fn speak(&mut self, node: usize, pid: u32) {
        let Some(backend) = self.nodes[node].backends.get_mut(&pid) else { return };
        let (said, wire) = (backend.say(), backend.wire);
        self.transmit_in_pieces(wire, 1, &said);
    }

    /// A session's commit is in the log: standbys get it, and the session goes on when it is where it has to be.
    fn committed(&mut self, node: usize, pid: u32) {
        let server = &mut self.nodes[node];
        let length = server.data.log.len();
        if let Some(commit) = server.data.log.last() {
            self.ledger.applied(&commit.rows);
        }
        for standby in (0..self.nodes.len()).filter(|standby| *standby != node) {
            let latency = self.network.latency();
            self.agenda.after(latency, Event::Stream { node: standby });
        }
        let server = &mut self.nodes[node];
        if server.data.is_safe(length)
            && let Some(backend) = server.backends.get_mut(&pid)
        {
            backend.acknowledged(&mut server.data);
        }
    }

    /// A standby fetches what there is, if it follows a primary whose history is its own.
    pub(crate) fn stream(&mut self, node: usize) {
        let Some(upstream) = self.upstream_of(node) else { return };
        let Some([standby, primary]) = self.two(node, upstream) else { return };
        if standby.data.phase != Phase::Standby || !standby.data.is_prefix_of(&primary.data) {
            return;
        }
        standby.data.catch_up(&primary.data);
        let length = standby.data.log.len();
        let latency = self.network.latency();
        self.agenda.after(latency, Event::Acknowledged { node: upstream, standby: node, length });
    }

    /// The primary that this standby is connected to.
    pub(crate) fn upstream_of(&self, node: usize) -> Option<usize> {
        let follows = |other: &usize| {
            *other != node
                && self.nodes[*other].data.writes()
                && self.nodes[*other].data.timeline >= self.nodes[node].data.timeline
                && self.can_talk(Host::Node(node), Host::Node(*other))
                && !self.is_frozen(Place::Postgres(node))
                && !self.is_frozen(Place::Postgres(*other))
        };
        (0..self.nodes.len()).filter(follows).max_by_key(|other| self.nodes[*other].data.timeline)
    }

    fn two(&mut self, a: usize, b: usize) -> Option<[&mut crate::node::Node; 2]> {
        self.nodes.get_disjoint_mut([a, b]).ok()
    }

    pub(crate) fn standby_has(&mut self, node: usize, standby: usize, length: usize) {
        if !self.network.reach_each_other(Host::Node(node), Host::Node(standby)) {
            return;
        }
        let data = &mut self.nodes[node].data;
        if !data.writes() {
            return;
        }
        let known = data.acknowledged.entry(standby).or_default();
        *known = length.max(*known);
        self.release_commits(node);
    }

    /// Sessions whose commits are safe now go on.
    pub(crate) fn release_commits(&mut self, node: usize) {
        let server = &mut self.nodes[node];
        let safe = |backend: &Backend| matches!(backend.doing, Doing::Waiting(length, _) if server.data.is_safe(length));
        let pids: Vec<u32> =
            server.backends.values().filter(|backend| safe(backend)).map(|backend| backend.pid).collect();
        for pid in pids {
            let server = &mut self.nodes[node];
            if let Some(backend) = server.backends.get_mut(&pid) {
                backend.acknowledged(&mut server.data);
                self.work(node, pid);
            }
        }
    }

    // Ends.

    /// pg_terminate_backend.
    pub(crate) fn terminate_backend(&mut self, node: usize, pid: u32) {
        if let Some(backend) = self.nodes[node].backends.get_mut(&pid) {
            backend.terminate(SqlState::ADMIN_SHUTDOWN);
            self.speak(node, pid);
            self.end_backend(node, pid);
        }
    }

    fn end_backend(&mut self, node: usize, pid: u32) {
        let Some(backend) = self.nodes[node].backends.remove(&pid) else { return };
        // PostgreSQL signals first, and closes then.
        if let Some(other) = backend.cancels {
            let (data, backends) = self.nodes[node].serving();
            if let Some(other) = backends.get_mut(&other) {
                other.interrupt(data);
            }
            self.work(node, other);
        }
        self.network.close(backend.wire, 1);
        self.transmit(backend.wire, 1, Segment::Fin);
    }

    fn end_all(&mut self, node: usize, how: fn(&mut Backend)) {
        let pids: Vec<u32> = self.nodes[node].backends.keys().copied().collect();
        for pid in pids {
            if let Some(backend) = self.nodes[node].backends.get_mut(&pid) {
                how(backend);
            }
            self.speak(node, pid);
            self.end_backend(node, pid);
        }
        self.end_monitors(node);
    }

    fn end_monitors(&mut self, node: usize) {
        for weir in std::mem::take(&mut self.nodes[node].monitors) {
            let latency = self.network.latency();
            self.agenda.after(latency, Event::MonitorEnded { weir, node });
        }
    }

    /// A fast shutdown, as Patroni does it for a switchover or a demotion.
    pub(crate) fn stop_fast(&mut self, node: usize, restarts: bool) {
        if matches!(self.nodes[node].data.phase, Phase::Down | Phase::Stopping { .. }) {
            return;
        }
        self.ship_everything(node);
        self.end_all(node, |backend| backend.terminate(SqlState::ADMIN_SHUTDOWN));
        self.enter(node, Phase::Stopping { restarts }, 10, 300);
    }

    /// Walsenders are the last to go at a fast shutdown.
    fn ship_everything(&mut self, node: usize) {
        if !self.nodes[node].data.writes() {
            return;
        }
        for standby in (0..self.nodes.len()).filter(|standby| *standby != node) {
            if self.upstream_of(standby) == Some(node)
                && let Some([standby, primary]) = self.two(standby, node)
                && standby.data.phase == Phase::Standby
                && standby.data.is_prefix_of(&primary.data)
            {
                standby.data.catch_up(&primary.data);
            }
        }
    }

    /// A backend was killed: the postmaster ends all and recovers.
    pub(crate) fn crash_recover(&mut self, node: usize) {
        let writes = match self.nodes[node].data.phase {
            Phase::Primary => true,
            Phase::Standby => false,
            Phase::Down | Phase::Starting { .. } | Phase::Promoting | Phase::Stopping { .. } => return,
        };
        self.end_all(node, Backend::quit);
        self.enter(node, Phase::Starting { as_standby: !writes }, 50, 800);
    }

    /// kill -9 of everything: sockets close without a word.
    pub(crate) fn kill_postgres(&mut self, node: usize) {
        self.end_all(node, |_| {});
        self.enter(node, Phase::Down, 0, 0);
    }

    /// Power is gone: nobody hears anything.
    pub(crate) fn vanish(&mut self, node: usize) {
        for (_, backend) in std::mem::take(&mut self.nodes[node].backends) {
            self.network.close(backend.wire, 1);
            self.network.lose_sent(backend.wire, 1);
            self.nodes[node].ghosts.push(backend.wire);
            let after = self.dice.millis(KEEPALIVE_MS, 2 * KEEPALIVE_MS);
            self.agenda.after(after, Event::Probed { wire: backend.wire });
        }
        self.nodes[node].monitors.clear();
        self.enter(node, Phase::Down, 0, 0);
    }

    /// A new phase, which ends after some milliseconds if it is one that ends.
    pub(crate) fn enter(&mut self, node: usize, phase: Phase, from: u64, to: u64) {
        let now = self.agenda.now();
        let server = &mut self.nodes[node];
        server.run += 1;
        let run = server.run;
        let is_started = matches!(phase, Phase::Starting { .. });
        if is_started && matches!(server.data.phase, Phase::Down | Phase::Stopping { .. }) {
            server.data.started = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        }
        server.data.phase = phase;
        match phase {
            Phase::Primary => server.data.is_recovering = false,
            Phase::Standby => server.data.is_recovering = true,
            Phase::Down | Phase::Starting { .. } | Phase::Promoting | Phase::Stopping { .. } => {}
        }
        if phase == Phase::Promoting {
            // Recovery ends with all that there is.
            server.data.replay_stops_at = None;
        }
        if phase != Phase::Primary {
            server.data.acknowledged.clear();
        }
        self.note(format!("n{node}: PostgreSQL {phase:?}"));
        if matches!(phase, Phase::Starting { .. } | Phase::Promoting | Phase::Stopping { .. }) {
            let time = self.dice.millis(from, to);
            self.agenda.after(time, Event::Phase { node, run });
        }
    }

    pub(crate) fn phase_over(&mut self, node: usize, run: u32) {
        if self.nodes[node].run != run {
            return;
        }
        match self.nodes[node].data.phase {
            Phase::Starting { as_standby: false } => self.enter(node, Phase::Primary, 0, 0),
            Phase::Starting { as_standby: true } => self.start_as_standby(node),
            Phase::Promoting => {
                self.nodes[node].data.timeline += 1;
                self.enter(node, Phase::Primary, 0, 0);
                self.note(format!("n{node}: timeline {}", self.nodes[node].data.timeline));
                self.reach(Step::Writes, node);
            }
            Phase::Stopping { restarts: true } => {
                self.enter(node, Phase::Starting { as_standby: true }, 50, 800)
            }
            Phase::Stopping { restarts: false } => self.enter(node, Phase::Down, 0, 0),
            Phase::Down | Phase::Standby | Phase::Primary => {}
        }
    }

    /// Patroni has rewound it first, if there is somebody to follow.
    fn start_as_standby(&mut self, node: usize) {
        if let Some(upstream) = self.upstream_of(node)
            && let Some([standby, primary]) = self.two(node, upstream)
        {
            standby.data.rewind(&primary.data);
        }
        self.nodes[node].data.synchronous = None;
        self.enter(node, Phase::Standby, 0, 0);
        self.agenda.after(Duration::from_millis(5), Event::Stream { node });
    }
}

/// Silence after which a kernel asks whether the other end is still there; and what it waits for an answer.
pub(crate) const KEEPALIVE_MS: u64 = 15_000;
