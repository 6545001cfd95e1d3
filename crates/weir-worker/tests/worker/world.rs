//! The world that the stories happen in: one worker, its shell, clients, servers, and a clock that moves when told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_admin::snapshot::Snapshot;
use weir_config::Config;
use weir_discovery::Topology;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::{frontend, frontend::NO_TYPES};
use weir_worker::{Accepted, ConnId, DialError, Dialed, Effects, Entropy, Order, Role, Worker};

use crate::postgres::{Backend, Executed, Member};
use crate::settings::{self, PASSWORD, SYSTEM, address, led, verifier};
use crate::shell::{End, Shell};
use crate::speaker::Speaker;

/// A client, by its place in the list.
pub(crate) type Who = usize;

pub(crate) struct World {
    pub(crate) worker: Worker,
    pub(crate) shell: Shell,
    pub(crate) now: Instant,
    pub(crate) members: Vec<Member>,
    pub(crate) executed: Vec<Executed>,
    /// Dials wait until this is taken back.
    pub(crate) dials_held: bool,
    /// Which one of the host's addresses the next dial reaches.
    pub(crate) found_at: Option<String>,
    /// Keys are not computed until this is taken back.
    pub(crate) derivations_held: bool,
    /// How many were computed.
    pub(crate) derivations: usize,
    /// Cancel requests wait at PostgreSQL's door until this is taken back.
    pub(crate) cancels_held: bool,
    effects: Effects,
    last_pid: u32,
}

impl World {
    /// Three members, n1 leads on timeline 1, n2 and n3 serve reads.
    pub(crate) fn new() -> Self {
        Self::with(settings::config(), led("n1", 1, &["n2", "n3"]), 1)
    }

    pub(crate) fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = settings::config();
        change(&mut config);
        Self::with(config, led("n1", 1, &["n2", "n3"]), 1)
    }

    pub(crate) fn led_by(topology: Topology) -> Self {
        Self::with(settings::config(), topology, 1)
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    pub(crate) fn with(config: Config, topology: Topology, seed: u64) -> Self {
        let members = ["n1", "n2", "n3"].map(|name| member(name, name != "n1"));
        let entropy = Box::new(Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
        Self {
            worker: Worker::new(Arc::new(config), Arc::new(topology), entropy, 0),
            shell: Shell::default(),
            now: Instant::now(),
            members: members.into(),
            executed: Vec::new(),
            dials_held: false,
            found_at: None,
            derivations_held: false,
            derivations: 0,
            cancels_held: false,
            effects: Effects::default(),
            last_pid: 100,
        }
    }

    pub(crate) fn member(&mut self, name: &str) -> &mut Member {
        self.members.iter_mut().find(|member| member.name == name).unwrap()
    }

    /// One call into the worker, and its effects.
    pub(crate) fn turn<R>(&mut self, call: impl FnOnce(&mut Worker, Instant, &mut Effects) -> R) -> R {
        let result = call(&mut self.worker, self.now, &mut self.effects);
        self.shell.carry_out(&mut self.effects);
        result
    }

    // Clients.

    pub(crate) fn connect(&mut self, role: Role) -> Who {
        self.connect_from(Accepted { role, peer: None, local: None, unix: None })
    }

    pub(crate) fn connect_from(&mut self, accepted: Accepted) -> Who {
        let id = self.worker.accept(self.now, accepted, &mut self.effects);
        let who = self.shell.speakers.len();
        self.shell.speakers.push(Speaker::new(ConnId::Client(id)));
        let replaced = self.shell.names.insert(ConnId::Client(id), End::Speaker(who));
        assert_eq!(replaced, None, "the worker gives no name twice");
        self.shell.carry_out(&mut self.effects);
        who
    }

    /// Begins a login; [`World::run`] takes it as far as it goes.
    pub(crate) fn hello(&mut self, role: Role, user: &str, password: &str) -> Who {
        self.hello_with(role, &[("user", user), ("database", "mrg")], password)
    }

    pub(crate) fn hello_with(&mut self, role: Role, parameters: &[(&str, &str)], password: &str) -> Who {
        let who = self.connect(role);
        self.shell.speakers[who].start(parameters, password);
        who
    }

    /// A client that is in.
    pub(crate) fn client(&mut self) -> Who {
        self.client_of(Role::Write, "app")
    }

    pub(crate) fn client_of(&mut self, role: Role, user: &str) -> Who {
        let who = self.hello(role, user, PASSWORD);
        self.run();
        assert_eq!(self.heard(who), ["ready I"], "{}", self.error(who));
        who
    }

    pub(crate) fn clients<const N: usize>(&mut self) -> [Who; N] {
        std::array::from_fn(|_| self.client())
    }

    pub(crate) fn send(&mut self, who: Who, bytes: Vec<u8>) {
        self.shell.speakers[who].outgoing.push_back(bytes);
        self.run();
    }

    /// Sends a simple query and lets happen what can.
    pub(crate) fn query(&mut self, who: Who, sql: &str) {
        self.send(who, simple(sql));
    }

    /// Sends a simple query and returns all that the client hears.
    pub(crate) fn ask(&mut self, who: Who, sql: &str) -> Vec<String> {
        self.query(who, sql);
        self.heard(who)
    }

    /// What the client heard since it was asked last.
    pub(crate) fn heard(&mut self, who: Who) -> Vec<String> {
        std::mem::take(&mut self.shell.speakers[who].heard)
    }

    pub(crate) fn error(&self, who: Who) -> &str {
        &self.shell.speakers[who].last_error
    }

    pub(crate) fn is_open(&self, who: Who) -> bool {
        self.shell.speakers[who].open
    }

    /// The client's connection ends without a word.
    pub(crate) fn vanish(&mut self, who: Who) {
        self.hang_up(who);
        self.run();
    }

    /// The same, and nothing else happens.
    pub(crate) fn hang_up(&mut self, who: Who) {
        let conn = self.shell.speakers[who].conn;
        if self.shell.speakers[who].open {
            self.shell.speakers[who].open = false;
            self.shell.names.remove(&conn);
            self.turn(|worker, now, effects| worker.closed(now, conn, effects));
        }
    }

    /// Sends a cancel request with this client's key; returns the connection it came on.
    pub(crate) fn cancel(&mut self, who: Who) -> Who {
        let (pid, secret) = self.shell.speakers[who].key.clone().unwrap();
        self.cancel_with(pid, &secret)
    }

    pub(crate) fn cancel_with(&mut self, pid: u32, secret: &[u8]) -> Who {
        let requester = self.connect(Role::Write);
        let mut bytes = Vec::new();
        frontend::cancel_request(pid, secret, &mut bytes);
        self.send(requester, bytes);
        requester
    }

    // Servers.

    /// Process ids of the server connections that are logged in, oldest first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.shell.backends.values().filter(|backend| backend.is_ready()).map(|backend| backend.pid).collect()
    }

    /// Of the connection that was dialed last.
    pub(crate) fn last_pid(&self) -> u32 {
        self.last_pid
    }

    pub(crate) fn backend(&mut self, pid: u32) -> &mut Backend {
        self.shell.backends.get_mut(&pid).unwrap()
    }

    /// The sleeping statement with this text ends well.
    pub(crate) fn wake(&mut self, sql: &str) {
        let asleep = |backend: &&mut Backend| backend.asleep.as_ref().is_some_and(|(text, _)| text == sql);
        let backend = self.shell.backends.values_mut().find(asleep).expect("somebody sleeps");
        backend.wake(&self.members[backend.member], &mut self.executed);
        self.run();
    }

    /// The server connection ends, after a FATAL of this code or without a word.
    pub(crate) fn kill(&mut self, pid: u32, code: Option<SqlState>) {
        let backend = self.backend(pid);
        match code {
            Some(code) => backend.die(code),
            None => backend.dead = true,
        }
        self.run();
    }

    /// All connections of a member end, and it listens no more.
    pub(crate) fn crash(&mut self, name: &str) {
        self.member(name).up = false;
        let at = self.members.iter().position(|member| member.name == name).unwrap();
        for backend in self.shell.backends.values_mut().filter(|backend| backend.member == at) {
            backend.dead = true;
        }
        self.run();
    }

    /// Member becomes the leader on a timeline; nobody told weir.
    pub(crate) fn promote(&mut self, name: &str, timeline: u32) {
        let member = self.member(name);
        (member.in_recovery, member.timeline) = (false, timeline);
    }

    /// What ran, as "member: text", without weir's own questions; forgets it.
    pub(crate) fn ran(&mut self) -> Vec<String> {
        // A path is set in a transaction of its own.
        while let Some(at) = self.executed.iter().position(|ran| ran.sql.contains(LOOKUP_PATH)) {
            self.executed.drain(at - 1..=at + 1);
        }
        let own = |sql: &str| sql.contains("pg_is_in_recovery") || sql == "IDENTIFY_SYSTEM";
        std::mem::take(&mut self.executed)
            .into_iter()
            .filter(|executed| !own(&executed.sql))
            .map(|executed| format!("{}: {}", executed.member, executed.sql))
            .collect()
    }

    // Control.

    pub(crate) fn order(&mut self, order: Order) {
        self.turn(|worker, now, effects| worker.order(now, order, effects));
        self.run();
    }

    pub(crate) fn adopt(&mut self, topology: Topology) {
        self.order(Order::Adopt(Arc::new(topology)));
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.worker.snapshot(self.now)
    }

    /// Lets time pass in the steps of the shell's clock.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.tick();
            self.run();
        }
    }

    pub(crate) fn tick(&mut self) {
        self.now += TICK;
        self.turn(|worker, now, effects| worker.tick(now, effects));
    }

    // What happens by itself.

    /// Lets everything happen that can happen without time passing.
    pub(crate) fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let happened = self.deliver_from_clients()
                | self.dial_one()
                | self.deliver_from_servers()
                | self.derive_one()
                | self.cancel_one();
            if !happened {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// The same, but no client says anything.
    pub(crate) fn run_servers(&mut self) {
        while self.dial_one() | self.deliver_from_servers() | self.derive_one() {}
    }

    pub(crate) fn deliver_from_clients(&mut self) -> bool {
        let mut happened = false;
        for who in 0..self.shell.speakers.len() {
            happened |= self.deliver_from(who);
        }
        happened
    }

    /// One piece of what a client sent.
    pub(crate) fn deliver_from(&mut self, who: Who) -> bool {
        let speaker = &mut self.shell.speakers[who];
        if !speaker.open || speaker.stopped {
            return false;
        }
        let Some(mut piece) = speaker.outgoing.pop_front() else { return false };
        if piece.len() > READ_BYTES_MAX {
            speaker.outgoing.push_front(piece.split_off(READ_BYTES_MAX));
        }
        let conn = speaker.conn;
        self.turn(|worker, now, effects| worker.received(now, conn, &piece, effects));
        true
    }

    pub(crate) fn dial_one(&mut self) -> bool {
        if self.dials_held {
            return false;
        }
        let Some((conn, to)) = self.shell.dials.pop_front() else { return false };
        let at = self.members.iter().position(|member| address(member.name) == to).unwrap();
        let result = if self.members[at].up {
            let end = match conn {
                ConnId::Cancel(_) => End::Cancel,
                ConnId::Server(_) | ConnId::Client(_) => {
                    self.last_pid += 1;
                    self.shell.backends.insert(self.last_pid, Backend::new(at, self.last_pid));
                    End::Backend(self.last_pid)
                }
            };
            self.shell.names.insert(conn, end);
            let host = self.found_at.take().unwrap_or(to.host);
            let peer = format!("{host}:{}", to.port).parse().ok();
            Ok(Dialed { peer, local: None, tls: None, end_point: None })
        } else {
            Err(DialError::Refused("connection refused".to_owned()))
        };
        self.turn(|worker, now, effects| worker.dialed(now, conn, result, effects));
        true
    }

    /// The key that was asked for last is computed first: threads finish in any order.
    pub(crate) fn derive_one(&mut self) -> bool {
        if self.derivations_held {
            return false;
        }
        let Some((ticket, derivation)) = self.shell.derivations.pop_back() else { return false };
        let derived = derivation.run();
        self.derivations += 1;
        self.turn(|worker, now, effects| worker.derived(now, ticket, &derived, effects));
        true
    }

    fn deliver_from_servers(&mut self) -> bool {
        let pids: Vec<u32> = self.shell.backends.keys().copied().collect();
        pids.into_iter().fold(false, |happened, pid| self.deliver_from_server(pid) | happened)
    }

    fn deliver_from_server(&mut self, pid: u32) -> bool {
        self.deliver_part_from_server(pid, usize::MAX)
    }

    /// Lets a server work, and delivers some of what it says. Its end is noticed when all has been delivered.
    pub(crate) fn deliver_part_from_server(&mut self, pid: u32, bytes_max: usize) -> bool {
        let Some(backend) = self.shell.backends.get_mut(&pid) else { return false };
        backend.work(&self.members[backend.member], &mut self.executed);
        let said = backend.leave(bytes_max);
        let Some(conn) = self.conn_of(pid) else { return false };
        if !said.is_empty() {
            self.turn(|worker, now, effects| worker.received(now, conn, &said, effects));
        }
        let over = self.shell.backends.get(&pid).is_some_and(Backend::is_gone);
        if over {
            self.shell.backends.remove(&pid);
            self.shell.names.remove(&conn);
            self.turn(|worker, now, effects| worker.closed(now, conn, effects));
        }
        over || !said.is_empty()
    }

    pub(crate) fn conn_of(&self, pid: u32) -> Option<ConnId> {
        let is_it = |end: &End| *end == End::Backend(pid);
        self.shell.names.iter().find(|(_, end)| is_it(end)).map(|(conn, _)| *conn)
    }

    pub(crate) fn cancel_one(&mut self) -> bool {
        if self.cancels_held || self.shell.cancels.is_empty() {
            return false;
        }
        let (conn, pid, secret) = self.shell.cancels.remove(0);
        if let Some(backend) = self.shell.backends.get_mut(&pid)
            && backend.secret() == *secret
        {
            backend.cancel();
        }
        self.shell.names.remove(&conn);
        self.turn(|worker, now, effects| worker.closed(now, conn, effects));
        true
    }
}

/// A simple query's bytes.
pub(crate) fn simple(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::query(sql.as_bytes(), &mut out);
    out
}

/// One batch: Parse, Bind, Execute, Sync of an unnamed statement.
pub(crate) fn batch(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frontend::parse(b"", sql.as_bytes(), NO_TYPES, &mut out);
    frontend::bind_text(b"", b"", &[], &mut out);
    frontend::execute(b"", 0, &mut out);
    frontend::sync(&mut out);
    out
}

/// What a client hears in reply to a simple query that is echoed.
pub(crate) fn echo(sql: &str) -> Vec<String> {
    [&format!("row {sql}"), "SELECT 1", "ready I"].map(str::to_owned).into()
}

fn member(name: &'static str, in_recovery: bool) -> Member {
    Member {
        name,
        in_recovery,
        timeline: 1,
        system: SYSTEM,
        up: true,
        silent: false,
        slow: None,
        conflict: None,
        tells_recovery: true,
        refusal: None,
        users: ["app", "other", "auth", "late"].map(|user| (user.to_owned(), Some(verifier(user)))).into(),
        groups: std::collections::BTreeMap::new(),
        shadow: [("late".to_owned(), verifier("late").to_postgres_string())].into(),
    }
}

/// Chance that repeats itself.
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = (self.0 >> 24) as u8;
        }
    }
}

/// The shell's clock.
const TICK: Duration = Duration::from_millis(100);

/// One read of the shell.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Rounds after which a story would go on for ever.
const ROUNDS_MAX: usize = 100_000;

/// What a connection that looks users up is set to.
pub(crate) const LOOKUP_PATH: &str = "pg_catalog, public, pg_temp";
