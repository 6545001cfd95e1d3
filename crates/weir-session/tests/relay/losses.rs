//! Random losses: server connections die at random moments, with FATAL or without a word, while clients insert rows in every
//! way they can. What a client was told must be true of what was committed: success means once, an error other than
//! 08007 means not at all, 08007 means once or not at all.

use std::collections::HashMap;

use proptest::prelude::*;
use weir_session::Mode;

use crate::postgres::Postgres;
use crate::stage::Stage;
use crate::words::{self, *};

/// How a client sends one statement.
#[derive(Debug, Clone, Copy)]
enum Form {
    Simple,
    Unnamed,
    Named,
    /// Execute and Flush first, Sync only after the reply.
    Flushed,
}

/// One unit of a client's work.
#[derive(Debug, Clone)]
enum Work {
    /// A row in a transaction of its own.
    Alone(Form),
    /// Rows between BEGIN and COMMIT (or ROLLBACK).
    Together { rows: u8, form: Form, commits: bool },
    /// The same, sent in one go.
    Pipelined { rows: u8, form: Form },
    /// Rows in transactions of their own, sent in one go.
    Burst { rows: u8, form: Form },
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Simple), Just(Form::Unnamed), Just(Form::Named), Just(Form::Flushed)]
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![
        form().prop_map(Work::Alone),
        (1..4u8, form(), any::<bool>()).prop_map(|(rows, form, commits)| Work::Together {
            rows,
            form,
            commits
        }),
        (1..4u8, form()).prop_map(|(rows, form)| Work::Pipelined { rows, form }),
        (1..4u8, form()).prop_map(|(rows, form)| Work::Burst { rows, form }),
    ]
}

/// What a client believes about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Committed,
    RolledBack,
    InDoubt,
}

/// What one request was answered with.
#[derive(Debug, Default)]
struct Reply {
    text: String,
    error: Option<String>,
    tag: Option<String>,
    status: char,
}

/// A client that works one unit after the other, as a driver does: it waits for the reply to each request.
struct Driver {
    at: usize,
    next_row: u32,
    beliefs: HashMap<u32, Belief>,
}

struct World {
    stage: Stage,
    backends: Vec<Postgres>,
    dice: Vec<u16>,
    thrown: usize,
    committed: HashMap<u32, u32>,
    deaths_left: u32,
}

impl World {
    fn below(&mut self, bound: usize) -> usize {
        self.thrown += 1;
        // Each time round they fall differently, so that no server connection is left out for ever.
        let round = self.thrown / self.dice.len();
        (usize::from(self.dice[self.thrown % self.dice.len()]) + round * 7919) % bound
    }

    fn add_server(&mut self) {
        self.stage.server();
        self.backends.push(Postgres::new());
    }

    fn settle(&mut self, server: usize) {
        for row in self.backends[server].committed.drain(..) {
            *self.committed.entry(row).or_default() += 1;
        }
    }

    /// Moves bytes, and kills server connections, until the client has heard enough or was closed.
    fn until(&mut self, client: usize, enough: impl Fn(&str) -> bool) -> String {
        for _ in 0..10_000 {
            let heard = words::whole(&self.stage.clients[client].got);
            if enough(&heard) || self.stage.clients[client].end.is_some() {
                return heard;
            }
            self.step();
        }
        panic!("client {client} waits for ever: {:?}", words::whole(&self.stage.clients[client].got));
    }

    fn step(&mut self) {
        let server = self.below(self.backends.len());
        if !self.stage.servers[server].alive {
            self.stage.resume();
            return;
        }
        match self.below(12) {
            0 if self.deaths_left > 0 => self.kill(server),
            1..6 => {
                let count = self.below(60) + 1;
                let input = &mut self.stage.servers[server].got;
                let piece: Vec<u8> = input.drain(..count.min(input.len())).collect();
                self.backends[server].feed(&piece);
                self.settle(server);
            }
            _ => {
                let count = self.below(60) + 1;
                let output = &mut self.backends[server].output;
                let piece: Vec<u8> = output.drain(..count.min(output.len())).collect();
                self.stage.server_says(server, piece);
            }
        }
    }

    fn kill(&mut self, server: usize) {
        self.deaths_left -= 1;
        // It may have read some more before.
        let more = self.below(200);
        let input = &mut self.stage.servers[server].got;
        let piece: Vec<u8> = input.drain(..more.min(input.len())).collect();
        self.backends[server].feed(&piece);
        self.settle(server);
        let mut last = std::mem::take(&mut self.backends[server].output);
        if self.below(2) == 0 {
            last.extend(said("FATAL:57P01"));
            // All at once, or in two pieces.
            let cut = self.below(last.len() + 1);
            let cut = if self.below(2) == 0 { cut } else { 0 };
            self.stage.server_says(server, &last[..cut]);
            self.stage.server_says(server, &last[cut..]);
        } else {
            // Some of it may be lost with the connection, in the middle of a message too.
            let lost = if self.below(3) == 0 { self.below(last.len() + 1) } else { 0 };
            let cut = if self.below(3) == 0 { 0 } else { last.len() - lost };
            self.stage.server_says(server, &last[..cut]);
            if self.stage.servers[server].alive {
                self.stage.dies(server);
            }
        }
        self.stage.servers[server].alive = false;
        self.add_server();
        self.stage.resume();
    }
}

impl Driver {
    /// Sends a request of one statement and waits for its end.
    fn ask(&mut self, world: &mut World, client: usize, sql: &str, form: Form) -> Reply {
        match form {
            Form::Simple => world.stage.client_sends(client, query(sql)),
            Form::Unnamed => world.stage.client_sends(client, unnamed(sql)),
            Form::Named => {
                let name = self.name();
                world
                    .stage
                    .client_sends(client, [parse(&name, sql), run(&name), close(&name), sync()].concat());
                let text = world.until(client, |heard| heard.matches("Z:").count() == 2);
                world.stage.clients[client].got.clear();
                return Reply::of(text);
            }
            Form::Flushed => {
                world.stage.client_sends(client, [parse("", sql), bind(""), execute(), flush()].concat());
                world.until(client, |heard| heard.contains("C:") || heard.contains("E:"));
                world.stage.client_sends(client, sync());
            }
        }
        let text = world.until(client, |heard| heard.contains("Z:"));
        world.stage.clients[client].got.clear();
        Reply::of(text)
    }

    fn name(&mut self) -> String {
        self.at += 1;
        format!("s{}", self.at)
    }

    fn row(&mut self) -> (u32, String) {
        self.next_row += 1;
        (self.next_row, format!("insert {}", self.next_row))
    }

    fn believe(&mut self, rows: &[u32], belief: Belief) {
        for row in rows {
            self.beliefs.insert(*row, belief);
        }
    }

    fn does(&mut self, world: &mut World, client: usize, work: &Work) {
        match work {
            Work::Alone(form) => {
                let (row, sql) = self.row();
                let reply = self.ask(world, client, &sql, *form);
                self.believe(&[row], reply.belief());
            }
            Work::Together { rows, form, commits } => self.together(world, client, *rows, *form, *commits),
            Work::Pipelined { rows, form } => self.pipelined(world, client, *rows, *form, true),
            Work::Burst { rows, form } => self.pipelined(world, client, *rows, *form, false),
        }
    }

    fn together(&mut self, world: &mut World, client: usize, rows: u8, form: Form, commits: bool) {
        let begin = self.ask(world, client, "BEGIN", form);
        if begin.status != 'T' {
            return;
        }
        let mut made = Vec::new();
        for _ in 0..rows {
            let (row, sql) = self.row();
            let reply = self.ask(world, client, &sql, form);
            if reply.status == 'x' {
                return self.believe(&made, Belief::InDoubt);
            }
            made.push(row);
            if reply.error.is_some() {
                assert_eq!(
                    reply.error.as_deref(),
                    Some("40001"),
                    "nothing could have ended it: {}",
                    reply.text
                );
                self.believe(&made, Belief::RolledBack);
                // Some drivers send COMMIT even then.
                let end = if commits { "COMMIT" } else { "ROLLBACK" };
                let reply = self.ask(world, client, end, form);
                let told = matches!(reply.status, 'I' | 'x') && reply.tag.as_deref() != Some("COMMIT");
                assert!(told || reply.error.is_some(), "{}", reply.text);
                return;
            }
        }
        let reply = self.ask(world, client, if commits { "COMMIT" } else { "ROLLBACK" }, form);
        let belief = match (reply.error.as_deref(), reply.tag.as_deref()) {
            (Some("40001" | "25P02"), _) | (None, Some("ROLLBACK")) => Belief::RolledBack,
            (None, Some("COMMIT")) => Belief::Committed,
            _ => Belief::InDoubt,
        };
        assert!(commits || belief != Belief::Committed, "{}", reply.text);
        self.believe(&made, belief);
    }

    /// Several requests in one go: each has a reply of its own, or all of them have.
    fn pipelined(&mut self, world: &mut World, client: usize, rows: u8, form: Form, in_block: bool) {
        let made: Vec<(u32, String)> = (0..rows).map(|_| self.row()).collect();
        let mut statements: Vec<String> = made.iter().map(|(_, sql)| sql.clone()).collect();
        if in_block {
            statements.insert(0, "BEGIN".to_owned());
            statements.push("COMMIT".to_owned());
        }
        let bytes: Vec<u8> = statements
            .iter()
            .flat_map(|sql| if matches!(form, Form::Simple) { query(sql) } else { unnamed(sql) })
            .collect();
        world.stage.client_sends(client, bytes);
        let text = world.until(client, |heard| heard.matches("Z:").count() >= statements.len());
        world.stage.clients[client].got.clear();
        let replies: Vec<Reply> = text.split_inclusive("Z:").map(|part| Reply::of(part.to_owned())).collect();
        if in_block {
            // Only the last reply tells; a client that sent it all blindly may find itself in a played block.
            let last = replies.iter().take(statements.len()).next_back();
            let clean =
                !text.contains("E:") && last.is_some_and(|last| last.tag.as_deref() == Some("COMMIT"));
            let belief = if clean { Belief::Committed } else { Belief::InDoubt };
            self.believe(&made.iter().map(|(row, _)| *row).collect::<Vec<_>>(), belief);
            if !text.ends_with('I') {
                self.ask(world, client, "ROLLBACK", Form::Simple);
            }
            return;
        }
        for ((row, _), reply) in made.iter().zip(&replies) {
            self.believe(&[*row], reply.belief());
        }
    }
}

impl Reply {
    /// Status `x` stands for a connection that was closed.
    fn of(text: String) -> Self {
        let behind = |tag: &str| {
            let (_, rest) = text.rsplit_once(tag)?;
            Some(rest.split("  ").next().unwrap_or_default().to_owned())
        };
        let error =
            text.contains("E:").then(|| text.split("E:").nth(1).map(|rest| rest[..5].to_owned())).flatten();
        let status = text.rsplit_once("Z:").and_then(|(_, rest)| rest.chars().next()).unwrap_or('x');
        Self { error, tag: behind("C:"), status, text }
    }

    /// For a row in a transaction of its own.
    fn belief(&self) -> Belief {
        match (self.error.as_deref(), self.tag.as_deref()) {
            (None, Some("INSERT 0 1")) if self.text.contains("Z:") => Belief::Committed,
            (Some("40001"), _) => Belief::RolledBack,
            _ => Belief::InDoubt,
        }
    }
}

fn play(clients: &[Vec<Work>], dice: &[u16], deaths: u32, defers: bool) -> (u32, u32) {
    let mut world = World {
        stage: Stage::new(usize::MAX),
        backends: vec![Postgres::new()],
        dice: dice.to_vec(),
        thrown: 0,
        committed: HashMap::new(),
        deaths_left: deaths,
    };
    world.stage.clients.clear();
    world.stage.rules.defers_begin = defers;
    world.add_server();
    let mut drivers = Vec::new();
    for at in 0..clients.len() {
        world.stage.client(Mode::Transaction);
        let first = u32::try_from(at).unwrap_or(0) * 1000;
        drivers.push(Driver { at: 0, next_row: first, beliefs: HashMap::new() });
    }
    // One unit of one client at a time; what the others left behind on the connections is what matters.
    let longest = clients.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..longest {
        for (client, works) in clients.iter().enumerate() {
            if let Some(work) = works.get(at).filter(|_| world.stage.clients[client].end.is_none()) {
                drivers[client].does(&mut world, client, work);
            }
        }
    }
    let mut told = (0, 0);
    for (row, belief) in drivers.iter().flat_map(|driver| &driver.beliefs) {
        let times = world.committed.get(row).copied().unwrap_or(0);
        match belief {
            Belief::Committed => assert_eq!(times, 1, "row {row} was committed, says its client"),
            Belief::RolledBack => assert_eq!(times, 0, "row {row} was rolled back, says its client"),
            Belief::InDoubt => assert!(times <= 1, "row {row} was committed {times} times"),
        }
        told.0 += u32::from(*belief == Belief::Committed);
        told.1 += u32::from(*belief == Belief::RolledBack);
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 600 }, ..ProptestConfig::default() })]

    #[test]
    fn what_clients_are_told_is_true(
        clients in proptest::collection::vec(proptest::collection::vec(work(), 1..8), 1..3),
        dice in proptest::collection::vec(any::<u16>(), 50..400),
        deaths in 0..8u32,
        defers in any::<bool>(),
    ) {
        play(&clients, &dice, deaths, defers);
    }
}

#[test]
fn without_losses_everything_is_committed() {
    let forms = [Form::Simple, Form::Unnamed, Form::Named, Form::Flushed];
    for form in forms {
        let works = vec![
            Work::Alone(form),
            Work::Together { rows: 2, form, commits: true },
            Work::Together { rows: 2, form, commits: false },
            Work::Pipelined { rows: 2, form },
            Work::Burst { rows: 2, form },
        ];
        let dice: Vec<u16> = (0..997u16).map(|n| n.wrapping_mul(7919)).collect();
        assert_eq!(play(&[works], &dice, 0, false), (7, 2));
    }
}
