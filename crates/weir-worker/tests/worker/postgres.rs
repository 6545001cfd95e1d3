//! PostgreSQL servers made of memory: logins, simple and extended queries, transactions, errors, sleep, cancel. Every
//! statement is recorded with who ran it and where. Knows only as much SQL as the stories say.

use std::collections::BTreeMap;

use weir_auth::scram::server::Exchange;
use weir_auth::scram::{ChannelBinding, Mechanism, Verifier, server};
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::read;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{FirstPacket, first_packet};
use weir_protocol::tag::FromClient;
use weir_protocol::{backend, backend::Column};

/// One server process group.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) in_recovery: bool,
    pub(crate) timeline: u32,
    pub(crate) system: u64,
    /// Accepts connections.
    pub(crate) up: bool,
    /// Accepts, and then says nothing.
    pub(crate) silent: bool,
    /// Statements that hold this text take their time.
    pub(crate) slow: Option<&'static str>,
    /// Statements that hold this text are in the way of recovery.
    pub(crate) conflict: Option<&'static str>,
    /// Reports `in_hot_standby`, as PostgreSQL 14 and later do.
    pub(crate) tells_recovery: bool,
    /// Answers each startup packet with this.
    pub(crate) refusal: Option<SqlState>,
    /// Who may log in; with a verifier: by SCRAM only.
    pub(crate) users: BTreeMap<String, Option<Verifier>>,
    /// What the auth_query returns.
    pub(crate) shadow: BTreeMap<String, String>,
    /// The groups that users belong to.
    pub(crate) groups: BTreeMap<String, Vec<String>>,
}

/// A statement that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executed {
    pub(crate) member: &'static str,
    pub(crate) pid: u32,
    pub(crate) sql: String,
}

/// One server connection, seen from the server.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) member: usize,
    pub(crate) pid: u32,
    pub(crate) user: String,
    pub(crate) startup: Vec<(String, String)>,
    /// Status of its transaction block.
    pub(crate) tx: u8,
    /// Inside a statement that takes its time: its text and values.
    pub(crate) asleep: Option<(String, Vec<String>)>,
    /// Has said its last word.
    pub(crate) dead: bool,
    /// Was promoted, and will say so in front of the next ReadyForQuery.
    pub(crate) reports_promotion: bool,
    stage: Stage,
    input: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` may leave: like PostgreSQL, nothing of a batch before its Sync, a Flush, or the end.
    flushed: usize,
    /// Statements of the simple query under way that come after the one that sleeps.
    rest: Vec<String>,
    simple: bool,
    skipping: bool,
    statements: BTreeMap<Vec<u8>, String>,
    portal: (String, Vec<String>),
    reported: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Stage {
    Startup,
    First(Verifier),
    Proof(Box<Exchange>),
    Ready,
}

impl Backend {
    pub(crate) fn new(member: usize, pid: u32) -> Self {
        Self {
            member,
            pid,
            user: String::new(),
            startup: Vec::new(),
            tx: b'I',
            asleep: None,
            dead: false,
            reports_promotion: false,
            stage: Stage::Startup,
            input: Vec::new(),
            out: Vec::new(),
            flushed: 0,
            rest: Vec::new(),
            simple: false,
            skipping: false,
            statements: BTreeMap::new(),
            portal: (String::new(), Vec::new()),
            reported: BTreeMap::new(),
        }
    }

    /// Its secret for cancel requests.
    pub(crate) fn secret(&self) -> [u8; 4] {
        self.pid.wrapping_mul(2_654_435_761).to_be_bytes()
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready)
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Works through its input as far as it can.
    pub(crate) fn work(&mut self, member: &Member, log: &mut Vec<Executed>) {
        while !self.dead && self.asleep.is_none() && !member.silent && self.step(member, log) {}
        if !self.is_ready() || self.dead {
            self.flushed = self.out.len();
        }
    }

    /// Takes up to this many bytes of what it says.
    pub(crate) fn leave(&mut self, bytes_max: usize) -> Vec<u8> {
        let leaving = self.flushed.min(bytes_max);
        self.flushed -= leaving;
        self.out.drain(..leaving).collect()
    }

    /// It has ended, and all it said has been delivered.
    pub(crate) fn is_gone(&self) -> bool {
        self.dead && self.out.is_empty()
    }

    /// It ends without a word; what was on the way is lost.
    pub(crate) fn vanish(&mut self) {
        (self.dead, self.flushed) = (true, 0);
        self.out.clear();
    }

    /// Nobody asks anything of it, and it is outside a transaction.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.tx == b'I' && self.asleep.is_none() && self.input.is_empty()
    }

    /// The statement that took its time ends well.
    pub(crate) fn wake(&mut self, member: &Member, log: &mut Vec<Executed>) {
        let Some((sql, values)) = self.asleep.take() else { return };
        self.execute(&sql, &values, member, log);
        self.finish_simple(member, log);
    }

    /// A cancel request came for it.
    pub(crate) fn cancel(&mut self) {
        if self.asleep.take().is_some() {
            self.rest.clear();
            self.fail(SqlState::QUERY_CANCELED);
            if self.simple {
                self.ready();
            }
        }
    }

    fn step(&mut self, member: &Member, log: &mut Vec<Executed>) -> bool {
        if matches!(self.stage, Stage::Startup) {
            return self.startup(member);
        }
        let Ok(Some(header)) = frame::peek(&self.input, MESSAGE_BYTES_MAX) else { return false };
        if self.input.len() < header.total {
            return false;
        }
        let message: Vec<u8> = self.input.drain(..header.total).collect();
        let body = &message[HEADER_BYTES..];
        let tag = FromClient::of(header.tag).unwrap();
        match std::mem::replace(&mut self.stage, Stage::Ready) {
            Stage::Startup => unreachable!("handled above"),
            Stage::First(verifier) => self.sasl_first(body, verifier),
            Stage::Proof(exchange) => self.sasl_proof(body, *exchange, member),
            Stage::Ready => self.message(tag, body, member, log),
        }
        true
    }

    fn startup(&mut self, member: &Member) -> bool {
        let Some((packet, used)) = first_packet(&self.input).unwrap() else { return false };
        self.input.drain(..used);
        let FirstPacket::Startup(startup) = packet else { panic!("weir sends startup packets only") };
        self.user = startup.user().to_owned();
        self.startup = startup.parameters.clone();
        if let Some(code) = member.refusal {
            self.die(code);
            return true;
        }
        match member.users.get(&self.user) {
            None => self.die(SqlState::INVALID_AUTHORIZATION),
            Some(None) => self.welcome(member),
            Some(Some(verifier)) => {
                backend::authentication_sasl(&[Mechanism::Sha256.name()], &mut self.out);
                self.stage = Stage::First(verifier.clone());
            }
        }
        true
    }

    fn sasl_first(&mut self, body: &[u8], verifier: Verifier) {
        let (_, first) = read::sasl_initial_response(body).unwrap();
        let none = ChannelBinding::NotSupported;
        let (exchange, challenge) =
            server::first(first.unwrap(), verifier, "server-nonce", &none, Mechanism::Sha256).unwrap();
        backend::authentication_sasl_continue(&challenge, &mut self.out);
        self.stage = Stage::Proof(Box::new(exchange));
    }

    fn sasl_proof(&mut self, body: &[u8], exchange: Exchange, member: &Member) {
        match exchange.finish(body) {
            Ok(proven) => {
                backend::authentication_sasl_final(&proven.message, &mut self.out);
                self.welcome(member);
            }
            Err(_) => self.die(SqlState::INVALID_PASSWORD),
        }
    }

    fn welcome(&mut self, member: &Member) {
        self.stage = Stage::Ready;
        let standby = if member.in_recovery { "on" } else { "off" };
        let asked = self.startup.iter().find(|(name, _)| name == "default_transaction_read_only");
        let read_only = asked.map_or_else(|| "off".to_owned(), |(_, value)| value.clone());
        let own = [
            ("server_version", "17.2"),
            ("client_encoding", "UTF8"),
            ("application_name", ""),
            ("default_transaction_read_only", read_only.as_str()),
        ];
        self.reported = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        backend::authentication_ok(&mut self.out);
        for (name, value) in
            own.iter().chain(Some(&("in_hot_standby", standby)).filter(|_| member.tells_recovery))
        {
            backend::parameter_status(name.as_bytes(), value.as_bytes(), &mut self.out);
        }
        backend::backend_key_data(self.pid, &self.secret(), &mut self.out);
        self.ready();
    }

    fn message(&mut self, tag: FromClient, body: &[u8], member: &Member, log: &mut Vec<Executed>) {
        if self.skipping && tag != FromClient::Sync {
            return;
        }
        self.simple = tag == FromClient::Query;
        match tag {
            FromClient::Query => self.query(&text(read::query(body).unwrap()), member, log),
            FromClient::Parse => {
                let parse = read::parse(body).unwrap();
                if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
                    return self.fail(SqlState::DUPLICATE_PREPARED_STATEMENT);
                }
                self.statements.insert(parse.name.to_vec(), text(parse.sql));
                backend::parse_complete(&mut self.out);
            }
            FromClient::Bind => self.bind(body),
            FromClient::Describe => backend::no_data(&mut self.out),
            FromClient::Execute => {
                let (sql, values) = self.portal.clone();
                self.run(&sql, &values, member, log);
            }
            FromClient::Close => {
                let (_, name) = read::close(body).unwrap();
                self.statements.remove(name);
                backend::close_complete(&mut self.out);
            }
            FromClient::Sync => {
                self.skipping = false;
                self.ready();
            }
            FromClient::Flush => self.flushed = self.out.len(),
            FromClient::Terminate => self.dead = true,
            FromClient::FunctionCall
            | FromClient::CopyData
            | FromClient::CopyDone
            | FromClient::CopyFail
            | FromClient::Response => panic!("no story sends {tag:?}"),
        }
    }

    fn bind(&mut self, body: &[u8]) {
        let names = read::bind_names(body).unwrap().unwrap();
        let Some(sql) = self.statements.get(names.statement) else {
            return self.fail(SqlState::INVALID_SQL_STATEMENT_NAME);
        };
        self.portal = (sql.clone(), bind_values(&body[names.end..]));
        backend::bind_complete(&mut self.out);
    }

    fn query(&mut self, sql: &str, member: &Member, log: &mut Vec<Executed>) {
        self.simple = true;
        self.statements.remove(&b""[..]);
        self.rest =
            sql.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if self.rest.is_empty() {
            backend::empty_query_response(&mut self.out);
        }
        self.finish_simple(member, log);
    }

    fn finish_simple(&mut self, member: &Member, log: &mut Vec<Executed>) {
        if !self.simple {
            return;
        }
        while !self.rest.is_empty() && !self.dead {
            let sql = self.rest.remove(0);
            self.run(&sql, &[], member, log);
            if self.asleep.is_some() {
                return;
            }
        }
        if !self.dead {
            self.ready();
        }
    }

    fn run(&mut self, sql: &str, values: &[String], member: &Member, log: &mut Vec<Executed>) {
        if self.tx != b'E' && (sql.starts_with("sleep") || member.slow.is_some_and(|part| sql.contains(part)))
        {
            self.asleep = Some((sql.to_owned(), values.to_vec()));
        } else {
            self.execute(sql, values, member, log);
        }
    }

    fn execute(&mut self, sql: &str, values: &[String], member: &Member, log: &mut Vec<Executed>) {
        let words: Vec<String> = sql.split_whitespace().map(str::to_ascii_lowercase).collect();
        let first = words.first().map_or("", String::as_str);
        if self.tx == b'E' && !matches!(first, "commit" | "rollback") {
            return self.fail(SqlState::IN_FAILED_SQL_TRANSACTION);
        }
        log.push(Executed { member: member.name, pid: self.pid, sql: sql.to_owned() });
        match first {
            "begin" => self.block(b'T', "BEGIN"),
            "commit" if self.tx == b'E' => self.block(b'I', "ROLLBACK"),
            "commit" => self.block(b'I', "COMMIT"),
            "rollback" => self.block(b'I', "ROLLBACK"),
            "fail" => self.fail(SqlState::SYNTAX_ERROR),
            "fatal" => self.die(SqlState::parse(words[1].to_ascii_uppercase().as_bytes()).unwrap()),
            "discard" => self.forget_all(),
            "set" | "reset" => backend::command_complete(&first.to_ascii_uppercase(), &mut self.out),
            "insert" => backend::command_complete("INSERT 0 1", &mut self.out),
            "select" if member.conflict.is_some_and(|part| sql.contains(part)) => self.conflict(),
            "select" if sql.contains("set_config(") => self.set_config(sql),
            "select" if sql.contains("pg_walfile_name") => self.identify(member),
            "identify_system" => self.identify_system(member),
            "select" if sql.contains("pg_is_in_recovery") => {
                self.echo(if member.in_recovery { "t" } else { "f" });
            }
            "select" if sql.contains("pg_shadow") => self.shadow(&values[0], member),
            "with" => self.groups(&values[0], &values[1], member),
            _ => self.echo(&[&[sql.to_owned()], values].concat().join("/")),
        }
    }

    fn block(&mut self, status: u8, tag: &str) {
        self.tx = status;
        backend::command_complete(tag, &mut self.out);
    }

    /// As PostgreSQL's server loop reports it.
    fn conflict(&mut self) {
        let from = self.out.len();
        self.fail(SqlState::SERIALIZATION_FAILURE);
        let end = self.out.pop();
        self.out.extend_from_slice(b"Fpostgres.c\0");
        self.out.extend(end);
        let length = u32::try_from(self.out.len() - from - 1).unwrap();
        self.out[from + 1..from + 5].copy_from_slice(&length.to_be_bytes());
    }

    fn forget_all(&mut self) {
        self.statements.clear();
        backend::command_complete("DISCARD ALL", &mut self.out);
    }

    fn set_config(&mut self, sql: &str) {
        let mut quoted = sql.split('\'');
        let (name, value) = (quoted.nth(1).unwrap().to_owned(), quoted.nth(1).unwrap().to_owned());
        if name == "bad_setting" {
            return self.fail(SqlState::UNDEFINED_OBJECT);
        }
        if let Some(old) = self.reported.get_mut(&name) {
            if *old != value {
                backend::parameter_status(name.as_bytes(), value.as_bytes(), &mut self.out);
            }
            old.clone_from(&value);
        }
        self.row(&[&value]);
    }

    fn identify(&mut self, member: &Member) {
        let timeline = format!("{:08X}", member.timeline);
        let system = member.system.cast_signed().to_string();
        let recovering = if member.in_recovery { "t" } else { "f" };
        self.row(&[recovering, &timeline, &system]);
    }

    fn identify_system(&mut self, member: &Member) {
        let (system, timeline) = (member.system.to_string(), member.timeline.to_string());
        self.row(&[&system, &timeline]);
    }

    fn shadow(&mut self, user: &str, member: &Member) {
        match member.shadow.get(user) {
            Some(secret) if secret == "fail" => self.fail(SqlState::INSUFFICIENT_PRIVILEGE),
            Some(secret) if secret == "none" => {
                backend::data_row(&[Some(user.as_bytes()), None], &mut self.out);
                backend::command_complete("SELECT 1", &mut self.out);
            }
            Some(secret) => self.row(&[user, secret]),
            None => backend::command_complete("SELECT 0", &mut self.out),
        }
    }

    /// Those of the wanted groups that the user belongs to.
    fn groups(&mut self, user: &str, wanted: &str, member: &Member) {
        let wanted: Vec<&str> =
            wanted.trim_matches(['{', '}']).split(',').map(|name| name.trim_matches('"')).collect();
        let own = member.groups.get(user).into_iter().flatten();
        for group in own.filter(|group| wanted.contains(&group.as_str())) {
            backend::data_row(&[Some(group.as_bytes())], &mut self.out);
        }
        backend::command_complete("SELECT 1", &mut self.out);
    }

    fn echo(&mut self, value: &str) {
        self.row(&[value]);
    }

    fn row(&mut self, values: &[&str]) {
        if self.simple {
            let columns: Vec<Column<'_>> = values.iter().map(|_| Column::text("echo")).collect();
            backend::row_description(&columns, &mut self.out);
        }
        let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_bytes())).collect();
        backend::data_row(&values, &mut self.out);
        backend::command_complete("SELECT 1", &mut self.out);
    }

    fn fail(&mut self, code: SqlState) {
        backend::error(&Report::error(code, "as the story asks"), &mut self.out);
        self.rest.clear();
        self.skipping = !self.simple;
        if self.tx == b'T' {
            self.tx = b'E';
        }
    }

    /// The last word of a connection.
    pub(crate) fn die(&mut self, code: SqlState) {
        backend::error(&Report::fatal(code, "as the story asks"), &mut self.out);
        self.dead = true;
    }

    fn ready(&mut self) {
        if std::mem::take(&mut self.reports_promotion) {
            backend::parameter_status(b"in_hot_standby", b"off", &mut self.out);
        }
        backend::ready_for_query(self.tx, &mut self.out);
        self.flushed = self.out.len();
    }
}

/// Values of a Bind in text.
fn bind_values(rest: &[u8]) -> Vec<String> {
    let number = |at: usize| usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
    let mut at = 2 + 2 * number(0);
    let count = number(at);
    at += 2;
    let mut values = Vec::new();
    for _ in 0..count {
        let length = u32::from_be_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        at += 4;
        values.push(text(&rest[at..at + length]));
        at += length;
    }
    values
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
