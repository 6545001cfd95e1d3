//! Random histories: clients that ask, servers that die, leaders that change, bytes that arrive in pieces. Each is a seed.
//! After every step the world is checked; in the end faults stop and everybody must be served, and let go.

use std::sync::Arc;

use weir_config::{AuthMethod, PoolMode};
use weir_discovery::Topology;
use weir_protocol::frontend;
use weir_protocol::sqlstate::SqlState;
use weir_worker::{Order, Role};

use crate::actor::{Actor, Request, nothing_ran_twice};
use crate::settings::{config, leaderless, led, size};
use crate::showing::agree;
use crate::world::World;

/// Histories in the normal test run.
const SEEDS: u64 = 256;
/// What happens in each before faults stop.
const STEPS: usize = 400;
const POOL_SIZE: u32 = 2;
const ACTORS_MAX: usize = 8;
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn nobody_is_lost_or_given_what_is_not_theirs() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| {
            let mut history = History::new(seed);
            history.play();
            history.calm();
            history.drain();
        });
        if let Err(panic) = outcome {
            let what = panic.downcast_ref::<String>().map_or("", String::as_str);
            panic!("seed {seed}: {what}");
        }
    }
}

struct History {
    world: World,
    actors: Vec<Actor>,
    dice: u64,
    texts: u32,
    leader: usize,
    timeline: u32,
    /// Server connections with a smaller number belong to an older epoch.
    first_pid: u32,
    mode: PoolMode,
    names_pass: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        let mode = if seed % 4 == 3 { PoolMode::Session } else { PoolMode::Transaction };
        let mut config = config();
        config.auth.method = AuthMethod::Trust;
        config.pool.mode = mode;
        config.pool.size = size(POOL_SIZE);
        config.pool.query_wait_timeout = None;
        let names_pass = seed % 5 == 4;
        config.pool.max_prepared_statements = if names_pass { 0 } else { 2 };
        config.limits.retry_bytes_max = if seed % 7 == 6 { 0 } else { 64 * 1024 };
        let mut world = World::with(config, led("n1", 1, &["n2", "n3"]), seed);
        for member in &mut world.members {
            member.users = ["app", "other"].map(|user| (user.to_owned(), None)).into();
        }
        let dice = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            world,
            actors: Vec::new(),
            dice,
            texts: 0,
            leader: 0,
            timeline: 1,
            first_pid: 0,
            mode,
            names_pass,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 33) as usize % bound.max(1)
    }

    fn play(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
    }

    fn step(&mut self) {
        match self.below(100) {
            0..20 => self.somebody_asks(),
            20..45 => self.a_piece_arrives(),
            45..75 => self.a_server_speaks(),
            75..82 => drop(self.world.dial_one()),
            82..86 => self.somebody_wakes(),
            86..88 => self.a_server_dies(),
            88 => self.the_topology_changes(),
            89 => self.a_member_comes_or_goes(),
            90..93 => self.world.tick(),
            93 => self.an_operator_orders(),
            94 => self.somebody_cancels(),
            95 => drop(self.world.cancel_one()),
            96 => self.somebody_leaves(),
            _ => self.somebody_comes(),
        }
    }

    fn somebody_comes(&mut self) {
        let here = self.actors.iter().filter(|actor| !actor.over).count();
        if here >= ACTORS_MAX {
            return;
        }
        let is_reader = self.below(4) == 0;
        let (role, user) = if is_reader { (Role::Read, "other") } else { (Role::Write, "app") };
        let who = self.world.hello(role, user, "");
        let names_pass = self.mode == PoolMode::Session || self.names_pass;
        self.actors.push(Actor::new(who, is_reader, names_pass));
    }

    fn somebody(&mut self) -> Option<usize> {
        let here: Vec<usize> = (0..self.actors.len()).filter(|at| !self.actors[*at].over).collect();
        let pick = self.below(here.len());
        here.get(pick).copied()
    }

    fn text(&mut self, verb: &str) -> String {
        self.texts += 1;
        format!("{verb} /* {} */", self.texts)
    }

    fn somebody_asks(&mut self) {
        let Some(at) = self.somebody() else { return };
        if !self.actors[at].waits_for.is_empty() {
            return;
        }
        let count = if self.below(4) == 0 { 1 + self.below(3) } else { 1 };
        let mut bytes = Vec::new();
        for _ in 0..count {
            let (status, is_reader) = (self.actors[at].status, self.actors[at].is_reader);
            let request = self.request(status, count == 1, is_reader);
            bytes.extend(self.actors[at].ask(request));
        }
        self.in_pieces(at, &bytes);
    }

    fn request(&mut self, status: u8, alone: bool, is_reader: bool) -> Request {
        match (status, self.below(10)) {
            (b'I', 0..3) if alone => Request::Begin(self.text("begin")),
            (b'T', 0..4) if alone => Request::Commit(self.text("commit")),
            (b'T', 4) | (b'E', 0..8) if alone => Request::Rollback(self.text("rollback")),
            (b'E', 8) if alone => Request::Commit(self.text("commit")),
            (_, 0..5) if !is_reader => Request::Insert(self.text("insert")),
            (_, 5) => Request::Fail(self.text("fail")),
            (_, 6) => Request::Batch(self.text("select")),
            (_, 7) => Request::Named(self.text("select")),
            (_, 8) => Request::Echo(self.text("sleep")),
            _ => Request::Echo(self.text("select")),
        }
    }

    fn in_pieces(&mut self, at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let cut = if self.below(3) == 0 { 1 + self.below(bytes.len()) } else { bytes.len() };
            let (piece, rest) = bytes.split_at(cut);
            self.world.shell.speakers[self.actors[at].who].outgoing.push_back(piece.to_vec());
            bytes = rest;
        }
    }

    fn a_piece_arrives(&mut self) {
        let speakers = self.world.shell.speakers.len();
        let first = self.below(speakers);
        for at in 0..speakers {
            if self.world.deliver_from((first + at) % speakers) {
                return;
            }
        }
    }

    fn some_pid(&mut self) -> Option<u32> {
        let pids: Vec<u32> = self.world.shell.backends.keys().copied().collect();
        let pick = self.below(pids.len());
        pids.get(pick).copied()
    }

    fn a_server_speaks(&mut self) {
        let Some(pid) = self.some_pid() else { return };
        let bytes_max = if self.below(4) == 0 { 1 + self.below(60) } else { usize::MAX };
        self.world.deliver_part_from_server(pid, bytes_max);
    }

    fn somebody_wakes(&mut self) {
        let Some(pid) = self.some_pid() else { return };
        let World { shell, members, executed, .. } = &mut self.world;
        let backend = shell.backends.get_mut(&pid).unwrap();
        backend.wake(&members[backend.member], executed);
    }

    fn a_server_dies(&mut self) {
        let Some(pid) = self.some_pid() else { return };
        let how = self.below(4);
        let backend = self.world.backend(pid);
        if backend.dead {
            return;
        }
        match how {
            0 => backend.vanish(),
            1 => backend.dead = true,
            2 => backend.die(SqlState::CRASH_SHUTDOWN),
            _ => backend.die(SqlState::ADMIN_SHUTDOWN),
        }
    }

    fn topology(&self) -> Topology {
        let replicas: Vec<&str> =
            NAMES.iter().enumerate().filter(|(at, _)| *at != self.leader).map(|(_, name)| *name).collect();
        led(NAMES[self.leader], self.timeline, &replicas)
    }

    fn the_topology_changes(&mut self) {
        match self.below(3) {
            0 => self.adopt(leaderless(&["n2", "n3"])),
            1 => self.adopt(self.topology()),
            _ => {
                let next = self.below(NAMES.len());
                self.follow(next);
            }
        }
    }

    fn follow(&mut self, next: usize) {
        self.timeline += 1;
        self.world.members[self.leader].in_recovery = true;
        self.leader = next;
        let timeline = self.timeline;
        for member in &mut self.world.members {
            member.timeline = timeline;
        }
        self.world.members[next].in_recovery = false;
        self.first_pid = self.world.last_pid() + 1;
        self.adopt(self.topology());
    }

    fn adopt(&mut self, topology: Topology) {
        self.order(Order::Adopt(Arc::new(topology)));
    }

    fn order(&mut self, order: Order) {
        self.world.turn(|worker, now, effects| worker.order(now, order, effects));
    }

    fn a_member_comes_or_goes(&mut self) {
        let at = self.below(NAMES.len());
        let kill = self.below(2) == 0;
        self.world.members[at].up ^= true;
        if !self.world.members[at].up && kill {
            for backend in self.world.shell.backends.values_mut().filter(|backend| backend.member == at) {
                backend.vanish();
            }
        }
    }

    fn an_operator_orders(&mut self) {
        let database = (self.below(2) == 0).then(|| "mrg".to_owned());
        match self.below(4) {
            0 => self.order(Order::Pause(database)),
            1 => self.order(Order::Reconnect(database)),
            _ => self.order(Order::Resume(None)),
        }
    }

    fn somebody_cancels(&mut self) {
        let Some(at) = self.somebody() else { return };
        let Some((pid, secret)) = self.world.shell.speakers[self.actors[at].who].key.clone() else { return };
        self.actors[at].cancelled = true;
        let requester = self.world.connect(Role::Write);
        let mut bytes = Vec::new();
        frontend::cancel_request(pid, &secret, &mut bytes);
        self.world.shell.speakers[requester].outgoing.push_back(bytes);
    }

    fn somebody_leaves(&mut self) {
        let Some(at) = self.somebody() else { return };
        if self.below(2) == 0 {
            let mut bye = Vec::new();
            frontend::terminate(&mut bye);
            self.in_pieces(at, &bye);
        } else {
            self.actors[at].over = true;
            let who = self.actors[at].who;
            self.world.heard(who);
            self.world.hang_up(who);
        }
    }

    fn check(&mut self) {
        for actor in self.actors.iter_mut().filter(|actor| !actor.over) {
            actor.listen(&mut self.world);
        }
        let rows = self.world.snapshot();
        agree(&rows);
        for pool in &rows.pools {
            assert!(pool.sv_active + pool.sv_idle + pool.sv_login + pool.sv_being_canceled <= POOL_SIZE);
        }
        for server in rows.servers.iter().filter(|server| server.state == "idle") {
            let backend = &self.world.shell.backends[&server.remote_pid];
            assert!(backend.is_at_rest() || backend.dead, "pooled in the middle of something");
        }
        for backend in self.world.shell.backends.values().filter(|backend| backend.user == "app") {
            assert!(backend.pid >= self.first_pid, "{} is of an older epoch", backend.pid);
            assert_eq!(backend.member, self.leader, "writes go to the leader only");
        }
    }

    /// Faults stop.
    fn calm(&mut self) {
        for member in &mut self.world.members {
            member.up = true;
        }
        self.order(Order::Resume(None));
        self.adopt(self.topology());
        for _ in 0..40 {
            self.everybody_asks(false);
            self.world.tick();
            self.settle();
        }
        for actor in self.actors.iter().filter(|actor| !actor.over) {
            let may_wait = self.mode == PoolMode::Session;
            assert!(may_wait || actor.waits_for.is_empty(), "{actor:?} is not served: {}", self.scene());
        }
        nothing_ran_twice(&self.world);
    }

    /// For the message of a failure.
    fn scene(&self) -> String {
        let World { shell, .. } = &self.world;
        format!("{:#?}\n{:#?}\n{:#?}", self.world.snapshot(), shell.backends, shell.dials)
    }

    /// Lets everything happen, sleepers wake included.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.world.run();
            self.check();
            let asleep = self.world.shell.backends.values().find(|backend| backend.asleep.is_some());
            let Some(pid) = asleep.map(|backend| backend.pid) else { return };
            let World { shell, members, executed, .. } = &mut self.world;
            let backend = shell.backends.get_mut(&pid).unwrap();
            backend.wake(&members[backend.member], executed);
        }
        panic!("sleepers without end");
    }

    /// Who is in a transaction ends it; others ask for a row if they should.
    fn everybody_asks(&mut self, idle_too: bool) {
        for at in 0..self.actors.len() {
            let Actor { over, status, ref waits_for, .. } = self.actors[at];
            if over || !waits_for.is_empty() || status == b'I' && !idle_too {
                continue;
            }
            let request = match status {
                b'I' => Request::Echo(self.text("select")),
                _ => Request::Rollback(self.text("rollback")),
            };
            let bytes = self.actors[at].ask(request);
            self.in_pieces(at, &bytes);
        }
    }

    /// Everybody asks once more, is answered, and is let go.
    fn drain(&mut self) {
        self.everybody_asks(true);
        self.settle();
        self.order(Order::Drain);
        for _ in 0..30 {
            self.everybody_asks(false);
            self.world.tick();
            self.settle();
        }
        for actor in &self.actors {
            assert!(actor.over, "{actor:?} is left");
        }
        assert!(self.world.worker.is_drained());
        assert!(self.world.snapshot().clients.is_empty());
        nothing_ran_twice(&self.world);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let ran = || {
        let mut history = History::new(7);
        history.play();
        history.world.executed
    };
    assert_eq!(ran(), ran());
}
