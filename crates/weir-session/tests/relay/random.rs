//! Random histories: several clients send random batches over few server connections, bytes arrive in random pieces and in
//! random order, and each client must hear exactly what it would hear from a PostgreSQL of its own.
//!
//! Three things a client cannot have through a pool are left out of the histories: names that hang on the outcome of an
//! earlier batch *still in flight*; the unnamed statement that an earlier batch would have replaced, had it not been
//! skipped; and the Parse of a statement that weir knows, inside a failed transaction, where weir says ParseComplete and
//! PostgreSQL refuses the Bind behind it.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;
use weir_session::Mode;

use crate::postgres::{Postgres, Tx};
use crate::stage::Stage;
use crate::words::{self, *};

/// One message of a batch, by choice numbers that are looked up where it is made.
#[derive(Debug, Clone, Copy)]
enum Op {
    Query(u8),
    Parse(u8, u8),
    Bind(u8, u8),
    DescribeStatement(u8),
    DescribePortal(u8),
    Execute(u8),
    CloseStatement(u8),
    ClosePortal(u8),
    Flush,
    Sync,
    /// Data and end of a COPY, if one is going on.
    CopyEnd(bool),
}

const NAMES: [&str; 4] = ["", "a", "b", "c"];
const PORTALS: [&str; 3] = ["", "", "p"];
const SQL: [&str; 12] = [
    "select 1", "select 2", "select 3", "insert", "fail", "bad sql", "", "BEGIN", "COMMIT", "ROLLBACK",
    "COPY OUT", "COPY IN",
];

fn pick<'a>(from: &[&'a str], choice: u8) -> &'a str {
    from[usize::from(choice) % from.len()]
}

fn op() -> impl Strategy<Value = Op> {
    let byte = any::<u8>;
    prop_oneof![
        3 => byte().prop_map(Op::Query),
        6 => (byte(), byte()).prop_map(|(name, sql)| Op::Parse(name, sql)),
        8 => (byte(), byte()).prop_map(|(name, portal)| Op::Bind(name, portal)),
        2 => byte().prop_map(Op::DescribeStatement),
        1 => byte().prop_map(Op::DescribePortal),
        6 => byte().prop_map(Op::Execute),
        3 => byte().prop_map(Op::CloseStatement),
        1 => byte().prop_map(Op::ClosePortal),
        1 => Just(Op::Flush),
        6 => Just(Op::Sync),
        3 => any::<bool>().prop_map(Op::CopyEnd),
    ]
}

/// What a client sends before it waits, and how many bytes it has heard in all when everything is answered.
struct Round {
    bytes: Vec<u8>,
    heard: usize,
}

/// A client's side of the history: what it will send, round by round, and what it would hear from its own PostgreSQL.
struct Script {
    direct: Postgres,
    rounds: VecDeque<Round>,
    /// Names that hang on a batch of this round.
    tainted: HashSet<String>,
    /// What the unnamed statement is hangs on a batch that was skipped.
    unnamed_doubtful: bool,
}

impl Script {
    fn of(rounds: &[Vec<Op>]) -> Self {
        let mut script = Self {
            direct: Postgres::new(),
            rounds: VecDeque::new(),
            tainted: HashSet::new(),
            unnamed_doubtful: false,
        };
        for ops in rounds {
            script.tainted.clear();
            let mut bytes = Vec::new();
            for op in ops {
                script.add(*op, &mut bytes);
            }
            // Each round ends with everything answered, and outside of a transaction now and then.
            if script.direct.copying {
                script.send(done(), &mut bytes);
            }
            script.send(sync(), &mut bytes);
            script.end_round(bytes);
        }
        let mut bytes = Vec::new();
        script.send(query("ROLLBACK"), &mut bytes);
        script.end_round(bytes);
        script
    }

    fn end_round(&mut self, bytes: Vec<u8>) {
        self.rounds.push_back(Round { bytes, heard: self.direct.output.len() });
    }

    fn send(&mut self, message: Vec<u8>, bytes: &mut Vec<u8>) {
        self.direct.feed(&message);
        bytes.extend(message);
    }

    fn add(&mut self, op: Op, bytes: &mut Vec<u8>) {
        if self.direct.copying {
            // Only what a sane client sends there.
            let message = match op {
                Op::Flush => flush(),
                Op::Sync => sync(),
                Op::CopyEnd(true) => done(),
                Op::CopyEnd(false) => copy_fail(),
                Op::Query(_)
                | Op::Parse(..)
                | Op::Bind(..)
                | Op::DescribeStatement(_)
                | Op::DescribePortal(_)
                | Op::Execute(_)
                | Op::CloseStatement(_)
                | Op::ClosePortal(_) => data("1"),
            };
            return self.send(message, bytes);
        }
        match op {
            Op::Query(sql) => self.add_query(pick(&SQL, sql), bytes),
            Op::Parse(name, sql) => self.add_parse(pick(&NAMES, name), pick(&SQL, sql), bytes),
            Op::Bind(name, portal) => {
                let (name, portal) = (pick(&NAMES, name), pick(&PORTALS, portal));
                if self.may_name(name) {
                    self.send(bind_portal(portal, name), bytes);
                }
            }
            Op::DescribeStatement(name) => {
                if self.may_name(pick(&NAMES, name)) {
                    self.send(describe(pick(&NAMES, name)), bytes);
                }
            }
            Op::DescribePortal(portal) => self.send(describe_portal(pick(&PORTALS, portal)), bytes),
            Op::Execute(portal) => self.send(execute_portal(pick(&PORTALS, portal)), bytes),
            Op::CloseStatement(name) => {
                let name = pick(&NAMES, name);
                if self.may_name(name) {
                    self.taint_if_skipped(name);
                    self.send(close(name), bytes);
                }
            }
            Op::ClosePortal(portal) => self.send(close_portal(pick(&PORTALS, portal)), bytes),
            Op::Flush => self.send(flush(), bytes),
            Op::Sync => self.send(sync(), bytes),
            // Stray ones, as after a COPY that has failed.
            Op::CopyEnd(_) => self.send([data("1"), done()].concat(), bytes),
        }
    }

    fn add_query(&mut self, sql: &str, bytes: &mut Vec<u8>) {
        // Skipped, it leaves the unnamed statement where it is; weir has forgotten it.
        if self.direct.skipping {
            self.unnamed_doubtful = true;
        }
        self.send(query(sql), bytes);
    }

    fn add_parse(&mut self, name: &str, sql: &str, bytes: &mut Vec<u8>) {
        if !name.is_empty() && (self.tainted.contains(name) || self.direct.tx == Tx::Failed) {
            return;
        }
        let before = self.direct.statements.get(name).cloned();
        let skipped = self.direct.skipping;
        self.send(parse(name, sql), bytes);
        let made = !skipped && !self.direct.skipping;
        if name.is_empty() {
            self.unnamed_doubtful = skipped && before.is_some() || self.unnamed_doubtful && !made;
        }
        if made {
            self.tainted.remove(name);
        } else {
            self.tainted.insert(name.to_owned());
        }
    }

    fn taint_if_skipped(&mut self, name: &str) {
        if self.direct.skipping {
            if name.is_empty() {
                self.unnamed_doubtful = true;
            } else {
                self.tainted.insert(name.to_owned());
            }
        }
    }

    fn may_name(&self, name: &str) -> bool {
        let doubtful = name.is_empty() && self.unnamed_doubtful;
        !doubtful && !self.tainted.contains(name)
    }
}

/// Everything that can happen next.
#[derive(Debug, Clone, Copy)]
enum Move {
    ClientSends(usize),
    ServerReads(usize),
    ServerSends(usize),
}

struct World {
    stage: Stage,
    backends: Vec<Postgres>,
    scripts: Vec<Script>,
    /// What each client still has to send of its round.
    unsent: Vec<Vec<u8>>,
    /// What it will have heard at the end of its round.
    awaited: Vec<usize>,
}

impl World {
    fn new(scripts: Vec<Script>, history: &History) -> Self {
        let mut stage = Stage::new(usize::MAX);
        stage.clients.clear();
        stage.servers.clear();
        stage.statements_max = history.statements_max;
        stage.rules.shares_statements = history.shares;
        stage.rules.defers_begin = history.defers;
        for _ in &scripts {
            stage.client(Mode::Transaction);
        }
        let servers = history.servers;
        for _ in 0..servers {
            stage.server();
        }
        let unsent = scripts.iter().map(|_| Vec::new()).collect();
        let awaited = vec![0; scripts.len()];
        Self { stage, backends: vec![Postgres::new(); servers], scripts, unsent, awaited }
    }

    fn moves(&self) -> Vec<Move> {
        let clients = (0..self.scripts.len())
            .filter(|client| !self.unsent[*client].is_empty() || self.may_begin_round(*client))
            .map(Move::ClientSends);
        let servers = 0..self.backends.len();
        let reads = servers.clone().filter(|server| !self.stage.servers[*server].got.is_empty());
        let sends = servers.filter(|server| !self.backends[*server].output.is_empty());
        clients.chain(reads.map(Move::ServerReads)).chain(sends.map(Move::ServerSends)).collect()
    }

    /// A client waits for all replies of its round before it begins the next one.
    fn may_begin_round(&self, client: usize) -> bool {
        !self.scripts[client].rounds.is_empty()
            && self.stage.clients[client].got.len() >= self.awaited[client]
    }

    fn make(&mut self, step: Move, bytes: usize) {
        match step {
            Move::ClientSends(client) => {
                if self.unsent[client].is_empty() {
                    let round = self.scripts[client].rounds.pop_front().expect("a round is left");
                    self.awaited[client] = round.heard;
                    self.unsent[client] = round.bytes;
                }
                let piece = take(&mut self.unsent[client], bytes);
                self.stage.client_sends(client, piece);
            }
            Move::ServerReads(server) => {
                let piece = take(&mut self.stage.servers[server].got, bytes);
                self.backends[server].feed(&piece);
            }
            Move::ServerSends(server) => {
                let piece = take(&mut self.backends[server].output, bytes);
                self.stage.server_says(server, piece);
            }
        }
    }
}

fn take(bytes: &mut Vec<u8>, count: usize) -> Vec<u8> {
    let count = count.min(bytes.len());
    bytes.drain(..count).collect()
}

#[derive(Debug, Clone)]
struct History {
    clients: Vec<Vec<Vec<Op>>>,
    servers: usize,
    statements_max: usize,
    shares: bool,
    defers: bool,
    dice: Vec<(u16, u8)>,
}

fn history() -> impl Strategy<Value = History> {
    let rounds = proptest::collection::vec(proptest::collection::vec(op(), 0..14), 1..6);
    let dice = proptest::collection::vec((any::<u16>(), any::<u8>()), 1..300);
    (proptest::collection::vec(rounds, 1..4), 1..4usize, 1..4usize, any::<[bool; 2]>(), dice).prop_map(
        |(clients, servers, statements_max, [shares, defers], dice)| History {
            clients,
            servers,
            statements_max,
            shares,
            defers,
            dice,
        },
    )
}

fn play(history: &History) {
    let scripts: Vec<Script> = history.clients.iter().map(|rounds| Script::of(rounds)).collect();
    let expected: Vec<Vec<u8>> = scripts.iter().map(|script| script.direct.output.clone()).collect();
    let mut world = World::new(scripts, history);
    let mut dice = history.dice.iter().cycle();
    for _ in 0..200_000 {
        let moves = world.moves();
        if moves.is_empty() {
            break;
        }
        let (which, bytes) = dice.next().expect("dice roll for ever");
        let bytes = if bytes % 3 == 0 { usize::MAX } else { usize::from(*bytes) + 1 };
        world.make(moves[usize::from(*which) % moves.len()], bytes);
    }
    for (client, expected) in expected.iter().enumerate() {
        let actor = &world.stage.clients[client];
        assert_eq!(actor.end, None, "client {client} was closed");
        assert_eq!(words::heard(&actor.got), words::heard(expected), "client {client}");
        assert!(world.scripts[client].rounds.is_empty(), "client {client} came to its end");
        assert!(actor.server.is_none(), "client {client} has let go");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 600 },
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn each_client_hears_what_it_would_hear_from_postgresql(history in history()) {
        play(&history);
    }
}
