//! One session at a PostgreSQL: login by trust, simple and extended queries, statements that take their time, commits that
//! wait for a standby, and the ways to die. What statements do is in `statements`, COPY in `copy`.

mod copy;
mod statements;

use std::collections::BTreeMap;
use std::time::Duration;

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::read;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{FirstPacket, first_packet};
use weir_protocol::tag::FromClient;

use crate::database::{Database, Row};
use crate::dice::Dice;
use crate::laws::Law;
use crate::wire::WireId;
use copy::CopyIn;
use copy::is_of_copy;
use statements::{Statement, keyword, may_end, text, values};

/// The cluster's number; as SQL shows it, it is negative.
pub(crate) const SYSTEM: u64 = 0xf000_0000_0000_0001;

/// Another cluster's, which has got the address of one of our nodes.
pub(crate) const STRANGER: u64 = 0xf000_0000_0000_0002;

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) pid: u32,
    pub(crate) wire: WireId,
    pub(crate) user: String,
    /// Status of its transaction block.
    pub(crate) tx: u8,
    pub(crate) doing: Doing,
    /// The timeline that this session writes on.
    pub(crate) timeline: u32,
    /// Of the cluster that it belongs to.
    pub(crate) system: u64,
    /// A cancel request for the session with this process id came on this connection.
    pub(crate) cancels: Option<u32>,
    /// The other side has closed; noticed when there is nothing else to do.
    pub(crate) hung_up: bool,
    /// It was asked to be so at its login.
    pub(crate) is_read_only: bool,
    /// The connection whose transaction block is open.
    holder: Option<u32>,
    /// The connection that counts on what this session has: a temporary table, or all of it in session pooling.
    keeps: Option<u32>,
    /// If the session has set it.
    application_name: Option<String>,
    is_in: bool,
    is_standby: bool,
    told_standby: bool,
    input: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` may leave: like PostgreSQL, nothing of a batch before its end, unless a buffer is full.
    flushed: usize,
    rest: Vec<String>,
    simple: bool,
    skipping: bool,
    /// A Sync waits for its commit.
    syncing: bool,
    statements: BTreeMap<Vec<u8>, String>,
    /// Statement and values.
    portal: Statement,
    /// Rows of the statement under way that have been told already.
    shown: u64,
    /// COPY FROM STDIN is open.
    copy: Option<CopyIn>,
    /// Written in the open transaction, or in the string or batch under way.
    pending: Vec<Row>,
}

/// What a session is busy with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doing {
    Nothing,
    /// A statement that takes its time.
    Running(Statement),
    /// A commit that is in the log, up to this length, and waits for the standby. What is answered then.
    Waiting(usize, Vec<u8>),
    Dead,
}

/// How far a session came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing more to do for now.
    Rests,
    /// The statement under way ends after this time.
    Runs(Duration),
    /// A commit was written.
    Committed,
    /// The session is over.
    Ended,
}

impl Backend {
    pub(crate) fn new(pid: u32, wire: WireId, system: u64) -> Self {
        Self {
            pid,
            wire,
            system,
            cancels: None,
            is_read_only: false,
            holder: None,
            keeps: None,
            application_name: None,
            syncing: false,
            user: String::new(),
            tx: b'I',
            doing: Doing::Nothing,
            timeline: 0,
            hung_up: false,
            is_in: false,
            is_standby: false,
            told_standby: false,
            input: Vec::new(),
            out: Vec::new(),
            flushed: 0,
            rest: Vec::new(),
            simple: false,
            skipping: false,
            statements: BTreeMap::new(),
            portal: Statement::default(),
            shown: 0,
            copy: None,
            pending: Vec::new(),
        }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// What it has to say.
    pub(crate) fn say(&mut self) -> Vec<u8> {
        let leaving = std::mem::take(&mut self.flushed);
        self.out.drain(..leaving).collect()
    }

    /// As it has said itself.
    pub(crate) fn says_standby(&self) -> bool {
        self.told_standby
    }

    /// Nothing is asked of it, it is outside a transaction, and what is on its way to it in front of `next` means nothing: it
    /// comes behind a COPY that has failed.
    pub(crate) fn is_at_rest(&self, under_way: &[u8], next: &[u8]) -> bool {
        let mut rest = [&self.input, under_way, next].concat();
        while rest.len() > next.len()
            && let Ok(Some(header)) = frame::peek(&rest, MESSAGE_BYTES_MAX)
            && rest.len() >= header.total
            && FromClient::of(header.tag).is_some_and(is_of_copy)
        {
            rest.drain(..header.total);
        }
        self.tx == b'I' && self.doing == Doing::Nothing && self.copy.is_none() && rest.len() <= next.len()
    }

    /// Works until something takes time.
    pub(crate) fn work(&mut self, data: &mut Database, dice: &mut Dice) -> Progress {
        if self.doing != Doing::Nothing {
            return Progress::Rests;
        }
        self.is_standby = !data.writes();
        while self.doing == Doing::Nothing {
            if !self.step(data, dice) {
                if !self.hung_up {
                    return Progress::Rests;
                }
                self.doing = Doing::Dead;
            }
        }
        if self.doing == Doing::Dead || dice.once_in(50) {
            self.flushed = self.out.len();
        }
        match &self.doing {
            Doing::Nothing => Progress::Rests,
            Doing::Running(statement) => Progress::Runs(statement.duration(dice)),
            Doing::Waiting(..) => Progress::Committed,
            Doing::Dead => Progress::Ended,
        }
    }

    /// The statement that took its time is through.
    pub(crate) fn finish(&mut self, data: &mut Database) -> Progress {
        // The one that ran may have been cancelled, and a later one may wait for its commit by now.
        let Doing::Running(statement) = &self.doing else { return Progress::Rests };
        let statement = statement.clone();
        self.doing = Doing::Nothing;
        self.execute(&statement, data);
        self.go_on(data);
        if let Doing::Waiting(..) = self.doing { Progress::Committed } else { Progress::Rests }
    }

    /// SIGINT: the statement under way fails. A commit that waits for its standby goes on waiting, and COPY waits for its
    /// client's next message.
    pub(crate) fn interrupt(&mut self, data: &mut Database) {
        if let Some(copy) = &mut self.copy {
            copy.is_canceled = true;
        }
        if let Doing::Running(_) = self.doing {
            self.doing = Doing::Nothing;
            self.fail(SqlState::QUERY_CANCELED);
            self.go_on(data);
        }
    }

    /// The query that a standby is busy with, if it is an application's.
    pub(crate) fn query_of(&self) -> Option<u64> {
        if let Doing::Running(statement) = &self.doing { statement.value() } else { None }
    }

    /// Replay needs what the statement under way reads, which is broken off (manual, "Handling Query Conflicts").
    pub(crate) fn conflict(&mut self, data: &mut Database) {
        if let Doing::Running(_) = self.doing {
            self.doing = Doing::Nothing;
            self.fail_by(SqlState::SERIALIZATION_FAILURE, b"postgres.c");
            self.go_on(data);
        }
    }

    /// The standby has the commit.
    pub(crate) fn acknowledged(&mut self, data: &mut Database) {
        if let Doing::Waiting(_, reply) = std::mem::replace(&mut self.doing, Doing::Nothing) {
            self.out.extend_from_slice(&reply);
            if std::mem::take(&mut self.syncing) {
                self.ready();
            }
            self.go_on(data);
        }
    }

    /// SIGTERM: what is not committed is rolled back. A commit that waits for its standby has taken place here, and is only
    /// warned about (PostgreSQL's manual, "Synchronous Replication").
    pub(crate) fn terminate(&mut self, code: SqlState) {
        match self.doing {
            Doing::Waiting(..) => self.warn(code),
            Doing::Nothing | Doing::Running(_) => self.die(code),
            Doing::Dead => {}
        }
    }

    /// SIGQUIT: a warning from the signal handler, and the end.
    pub(crate) fn quit(&mut self) {
        self.warn(SqlState::CRASH_SHUTDOWN);
    }

    fn warn(&mut self, code: SqlState) {
        backend::notice(&Report::warning(code, "terminating connection"), &mut self.out);
        (self.doing, self.flushed) = (Doing::Dead, self.out.len());
    }

    fn die(&mut self, code: SqlState) {
        backend::error(&Report::fatal(code, "terminating connection"), &mut self.out);
        (self.doing, self.flushed) = (Doing::Dead, self.out.len());
    }

    fn step(&mut self, data: &mut Database, dice: &mut Dice) -> bool {
        if !self.is_in {
            return self.log_in(data);
        }
        let Ok(Some(header)) = frame::peek(&self.input, MESSAGE_BYTES_MAX) else { return false };
        if self.input.len() < header.total {
            return false;
        }
        let message: Vec<u8> = self.input.drain(..header.total).collect();
        let tag = FromClient::of(header.tag).expect("weir sends messages that exist");
        self.message(tag, &message[HEADER_BYTES..], data, dice);
        true
    }

    fn log_in(&mut self, data: &Database) -> bool {
        let Ok(Some((packet, used))) = first_packet(&self.input) else { return false };
        self.input.drain(..used);
        let startup = match packet {
            FirstPacket::Startup(startup) => startup,
            FirstPacket::Cancel(key) => {
                (self.cancels, self.doing) = (Some(key.pid), Doing::Dead);
                return true;
            }
            FirstPacket::Ssl | FirstPacket::GssEnc => Law::Border.broken("there is no TLS here"),
        };
        startup.user().clone_into(&mut self.user);
        self.is_read_only = startup.parameter("default_transaction_read_only") == Some("on");
        if !data.is_open() {
            self.die(SqlState::CANNOT_CONNECT_NOW);
            return true;
        }
        (self.is_in, self.timeline) = (true, data.timeline);
        backend::authentication_ok(&mut self.out);
        for (name, value) in [("server_version", "17.2"), ("client_encoding", "UTF8")] {
            backend::parameter_status(name.as_bytes(), value.as_bytes(), &mut self.out);
        }
        self.tell_role();
        backend::backend_key_data(self.pid, &self.pid.to_be_bytes(), &mut self.out);
        self.ready();
        true
    }

    fn message(&mut self, tag: FromClient, body: &[u8], data: &mut Database, dice: &mut Dice) {
        if self.copy.is_some() {
            return self.copied(tag, body, data);
        }
        // PostgreSQL takes no notice of what comes behind a COPY that has failed.
        if is_of_copy(tag) || self.skipping && !matches!(tag, FromClient::Sync | FromClient::Terminate) {
            return;
        }
        self.simple = tag == FromClient::Query;
        match tag {
            FromClient::Query => {
                let sql = text(read::query(body).expect("a query"));
                self.statements.remove(&b""[..]);
                self.rest = sql
                    .split(';')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect();
                if self.rest.is_empty() {
                    backend::empty_query_response(&mut self.out);
                }
                self.go_on_slowly(data, dice);
            }
            FromClient::Parse => {
                let parse = read::parse(body).expect("a Parse");
                let sql = text(parse.sql);
                if self.tx == b'E' && !may_end(&keyword(&sql)) {
                    return self.fail(SqlState::IN_FAILED_SQL_TRANSACTION);
                }
                self.statements.insert(parse.name.to_vec(), sql);
                backend::parse_complete(&mut self.out);
            }
            FromClient::Bind => self.bind(body),
            FromClient::Describe => backend::no_data(&mut self.out),
            FromClient::Execute => {
                let statement = self.portal.clone();
                self.begin(statement, data, dice);
            }
            FromClient::Close => {
                let (_, name) = read::close(body).expect("a Close");
                self.statements.remove(name);
                backend::close_complete(&mut self.out);
            }
            FromClient::Sync => {
                self.skipping = false;
                self.sync(data);
            }
            FromClient::Flush => self.flushed = self.out.len(),
            FromClient::Terminate => self.doing = Doing::Dead,
            FromClient::FunctionCall
            | FromClient::CopyData
            | FromClient::CopyDone
            | FromClient::CopyFail
            | FromClient::Response => panic!("nobody sends {tag:?}"),
        }
    }

    fn bind(&mut self, body: &[u8]) {
        let names = read::bind_names(body).ok().flatten().expect("a Bind");
        match self.statements.get(names.statement) {
            Some(sql) if self.tx == b'E' && !may_end(&keyword(sql)) => {
                self.fail(SqlState::IN_FAILED_SQL_TRANSACTION);
            }
            Some(sql) => {
                self.portal = Statement { sql: sql.clone(), values: values(&body[names.end..]) };
                backend::bind_complete(&mut self.out);
            }
            None => self.fail(SqlState::INVALID_SQL_STATEMENT_NAME),
        }
    }

    /// Runs what is left of a simple query; what comes after a statement that took its time runs at once.
    fn go_on(&mut self, data: &mut Database) {
        if !self.simple || self.copy.is_some() {
            return;
        }
        while self.doing == Doing::Nothing && !self.rest.is_empty() {
            let sql = self.rest.remove(0);
            self.execute(&Statement { sql, values: Vec::new() }, data);
        }
        if self.doing == Doing::Nothing {
            self.ready();
        }
    }

    fn go_on_slowly(&mut self, data: &mut Database, dice: &mut Dice) {
        if self.rest.is_empty() {
            return self.ready();
        }
        let sql = self.rest.remove(0);
        self.begin(Statement { sql, values: Vec::new() }, data, dice);
        if self.doing == Doing::Nothing {
            self.go_on(data);
        }
    }

    fn begin(&mut self, statement: Statement, data: &mut Database, dice: &mut Dice) {
        self.shown = 0;
        // What weir sets up takes no time, or applications would cancel that.
        let may_take_time = statement.by().is_some() || statement.is_fence();
        if self.tx != b'E' && may_take_time && dice.once_in(3) {
            self.show_part(&statement, dice);
            self.doing = Doing::Running(statement);
        } else {
            self.execute(&statement, data);
        }
    }

    /// The end of a batch is the end of its implicit transaction.
    fn sync(&mut self, data: &mut Database) {
        if self.tx == b'I' && !self.pending.is_empty() {
            self.syncing = true;
            self.commit(Vec::new(), data);
        } else {
            self.ready();
        }
    }

    fn tell_role(&mut self) {
        self.told_standby = self.is_standby;
        let value = if self.is_standby { "on" } else { "off" };
        backend::parameter_status(b"in_hot_standby", value.as_bytes(), &mut self.out);
    }

    fn ready(&mut self) {
        if self.told_standby != self.is_standby {
            self.tell_role();
        }
        backend::ready_for_query(self.tx, &mut self.out);
        self.flushed = self.out.len();
    }
}
