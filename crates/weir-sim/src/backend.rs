//! One session at a PostgreSQL: login by trust, simple and extended queries, transactions, statements that take their time,
//! commits that wait for a standby, and the ways to die. Knows only as much SQL as applications and weir send here.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::read;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{FirstPacket, first_packet};
use weir_protocol::tag::FromClient;
use weir_protocol::{backend, backend::Column};

use crate::database::{Commit, Database, Phase, Row};
use crate::dice::Dice;
use crate::laws::Law;
use crate::wire::WireId;

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
    application_name: String,
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
    /// Written in the open transaction, or in the string or batch under way.
    pending: Vec<Row>,
}

/// One statement as it is executed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    sql: String,
    values: Vec<String>,
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
            application_name: String::new(),
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

    /// Nothing is asked of it, and it is outside a transaction.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.tx == b'I' && self.doing == Doing::Nothing && self.input.is_empty()
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
            Doing::Running(statement) => Progress::Runs(duration(&statement.sql, dice)),
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

    /// SIGINT: the statement under way fails. A commit that waits for its standby goes on waiting.
    pub(crate) fn interrupt(&mut self, data: &mut Database) {
        if let Doing::Running(_) = self.doing {
            self.doing = Doing::Nothing;
            self.fail(SqlState::QUERY_CANCELED);
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
        if self.skipping && !matches!(tag, FromClient::Sync | FromClient::Terminate) {
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
        if !self.simple {
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
        // What weir sets up takes no time, or applications would cancel that.
        let may_take_time = statement.who().is_some() || statement.sql.contains("pg_walfile_name");
        if self.tx != b'E' && may_take_time && dice.once_in(3) {
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

    fn execute(&mut self, statement: &Statement, data: &mut Database) {
        let first = keyword(&statement.sql);
        if let Some(who) = statement.who() {
            self.check_whom(who);
        }
        if self.tx == b'E' && !may_end(&first) {
            return self.fail(SqlState::IN_FAILED_SQL_TRANSACTION);
        }
        match first.as_str() {
            "begin" => {
                (self.tx, self.holder) = (b'T', statement.who());
                backend::command_complete("BEGIN", &mut self.out);
            }
            "commit" if self.tx != b'E' => {
                let mut reply = Vec::new();
                backend::command_complete("COMMIT", &mut reply);
                self.end_block();
                self.commit(reply, data);
            }
            "commit" | "rollback" => {
                self.pending.clear();
                self.end_block();
                backend::command_complete("ROLLBACK", &mut self.out);
            }
            "insert" => self.insert(statement, data),
            "select" => self.select(statement, data),
            "reset" if !statement.sql.contains("AUTHORIZATION") => {
                self.application_name.clear();
                backend::command_complete("RESET", &mut self.out);
            }
            "discard" => {
                self.statements.clear();
                self.application_name.clear();
                backend::command_complete("DISCARD ALL", &mut self.out);
            }
            _ => backend::command_complete(&first.to_ascii_uppercase(), &mut self.out),
        }
    }

    fn end_block(&mut self) {
        (self.tx, self.holder) = (b'I', None);
    }

    /// Nobody but who has begun a transaction block is served in it.
    fn check_whom(&self, who: u32) {
        Law::Fence.holds(self.system == SYSTEM, || format!("connection {who} is served by a stranger"));
        let is_shared = self.tx != b'I' && self.holder.is_some_and(|holder| holder != who);
        Law::OneClientAtATime.holds(!is_shared, || {
            format!("connection {who} is served in the transaction of {:?}", self.holder)
        });
        let name = format!("a{}", who % 3);
        Law::OwnAnswers.holds(self.application_name == name, || {
            format!("connection {who} is served with application_name {:?}", self.application_name)
        });
    }

    fn select(&mut self, statement: &Statement, data: &Database) {
        let sql = &statement.sql;
        if sql.contains("pg_walfile_name") {
            return self.identify(data);
        }
        let mut quoted = sql.split('\'').skip(1).step_by(2);
        let first =
            statement.values.first().map(String::as_str).or_else(|| quoted.next()).unwrap_or_default();
        let mut value = first.to_owned();
        if sql.contains("set_config") && value == "application_name" {
            value = quoted.next().unwrap_or_default().to_owned();
            self.application_name.clone_from(&value);
        }
        let reply = self.row(&[&value]);
        self.out.extend_from_slice(&reply);
    }

    fn insert(&mut self, statement: &Statement, data: &mut Database) {
        if !data.writes() {
            return self.fail(SqlState::READ_ONLY_SQL_TRANSACTION);
        }
        let literal = statement.sql.split(['(', ')']).nth(1).unwrap_or_default();
        let number = statement.values.first().map_or(literal, String::as_str);
        let row: Row = number.parse().expect("a row's number");
        let reply = self.row(&[number]);
        self.pending.push(row);
        // Alone, or the last in its string: the end of an implicit transaction.
        if self.tx == b'I' && self.simple && self.rest.is_empty() {
            self.commit(reply, data);
        } else {
            self.out.extend_from_slice(&reply);
        }
    }

    fn commit(&mut self, reply: Vec<u8>, data: &mut Database) {
        let rows = std::mem::take(&mut self.pending);
        if rows.is_empty() {
            self.out.extend_from_slice(&reply);
            return;
        }
        assert_eq!(data.phase, Phase::Primary, "sessions that write end with the primary");
        let number = u64::from(self.timeline) << 32 | u64::from(rows[0]);
        data.log.push(Commit { number, rows });
        self.doing = Doing::Waiting(data.log.len(), reply);
    }

    fn identify(&mut self, data: &Database) {
        let recovering = if data.writes() { "f" } else { "t" };
        let timeline = format!("{:08X}", data.timeline);
        let reply = self.row(&[recovering, &timeline, &self.system.cast_signed().to_string()]);
        self.out.extend_from_slice(&reply);
    }

    fn row(&self, values: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.simple {
            let columns: Vec<Column<'_>> = values.iter().map(|_| Column::text("value")).collect();
            backend::row_description(&columns, &mut out);
        }
        let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_bytes())).collect();
        backend::data_row(&values, &mut out);
        backend::command_complete("SELECT 1", &mut out);
        out
    }

    fn fail(&mut self, code: SqlState) {
        backend::error(&Report::error(code, "refused"), &mut self.out);
        self.rest.clear();
        self.skipping = !self.simple;
        self.pending.clear();
        if self.tx == b'T' {
            self.tx = b'E';
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

/// Most statements are quick.
fn duration(sql: &str, dice: &mut Dice) -> Duration {
    let is_own = sql.contains("pg_walfile_name");
    if !is_own && dice.once_in(10) { dice.millis(50, 900) } else { dice.millis(0, 8) }
}

impl Statement {
    /// The connection that asks it; nobody for weir's own.
    fn who(&self) -> Option<u32> {
        let in_comment = || self.sql.split_once("/* ")?.1.split_once(" */")?.0.parse().ok();
        self.values.get(1).map_or_else(in_comment, |who| who.parse().ok())
    }
}

fn keyword(sql: &str) -> String {
    sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()
}

fn may_end(keyword: &str) -> bool {
    matches!(keyword, "commit" | "rollback")
}

/// The values of a Bind, all in text: behind the formats a count, and each with its length in front.
fn values(body: &[u8]) -> Vec<String> {
    let number =
        |at: usize| body.get(at..at + 2).map_or(0, |two| usize::from(two[0]) << 8 | usize::from(two[1]));
    let mut at = 2 + 2 * number(0);
    let count = number(at);
    at += 2;
    (0..count)
        .map(|_| {
            let length = number(at) << 16 | number(at + 2);
            at += 4 + length;
            text(body.get(at - length..at).unwrap_or_default())
        })
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
