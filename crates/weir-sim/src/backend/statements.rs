//! What statements do: as much SQL as applications and weir send here. Owns the laws about whom a session serves.

use std::time::Duration;

use weir_protocol::backend::{self, Column};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use super::{Backend, Doing, SYSTEM};
use crate::application::Kind;
use crate::database::{Commit, Database, Phase, Row};
use crate::dice::Dice;
use crate::laws::Law;
use crate::requests::Signature;

/// One statement as it is executed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<String>,
}

impl Backend {
    pub(super) fn execute(&mut self, statement: &Statement, data: &mut Database) {
        let first = keyword(&statement.sql);
        if let Some(by) = statement.by() {
            self.check_whom(&by);
        }
        if self.tx == b'E' && !may_end(&first) {
            return self.fail(SqlState::IN_FAILED_SQL_TRANSACTION);
        }
        match first.as_str() {
            "begin" => {
                (self.tx, self.holder) = (b'T', statement.by().map(|by| by.who));
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
            "copy" => self.begin_copy(statement, data),
            "create" => {
                self.keeps = statement.by().map(|by| by.who);
                backend::command_complete("CREATE TABLE", &mut self.out);
            }
            "set" => {
                self.application_name = statement.quoted().next().map(str::to_owned);
                backend::command_complete("SET", &mut self.out);
            }
            "reset" if !statement.sql.contains("AUTHORIZATION") => {
                self.application_name = None;
                backend::command_complete("RESET", &mut self.out);
            }
            "discard" => {
                self.statements.clear();
                self.application_name = None;
                self.keeps = None;
                backend::command_complete("DISCARD ALL", &mut self.out);
            }
            _ => backend::command_complete(&first.to_ascii_uppercase(), &mut self.out),
        }
    }

    fn end_block(&mut self) {
        (self.tx, self.holder) = (b'I', None);
    }

    /// Nobody but who has begun a transaction block is served in it, everybody with what he has set, and who counts on
    /// something of his session has it, while nobody else meets it.
    fn check_whom(&mut self, by: &Signature) {
        let who = by.who;
        Law::Fence.holds(self.system == SYSTEM, || format!("connection {who} is served by a stranger"));
        let is_shared = self.tx != b'I' && self.holder.is_some_and(|holder| holder != who);
        Law::OneClientAtATime.holds(!is_shared, || {
            format!("connection {who} is served in the transaction of {:?}", self.holder)
        });
        Law::OwnAnswers.holds(self.application_name.as_ref() == Some(&by.name), || {
            format!("connection {who} is served with application_name {:?}", self.application_name)
        });
        Law::SessionStays.holds(!by.keeps || self.keeps == Some(who), || {
            format!("connection {who} counts on its session, and is served by one of {:?}", self.keeps)
        });
        let is_clean = self.keeps.is_none_or(|keeps| keeps == who);
        Law::SessionClean
            .holds(is_clean, || format!("connection {who} meets what {:?} has left", self.keeps));
        if self.user == Kind::Sitter.user() {
            self.keeps = Some(who);
        }
    }

    fn select(&mut self, statement: &Statement, data: &Database) {
        if statement.is_fence() {
            return self.identify(data);
        }
        if statement.sql.contains("generate_series") {
            return self.scan(statement);
        }
        if statement.by().is_none() && statement.sql.starts_with(QUESTION) {
            return self.tell_state(statement);
        }
        let mut quoted = statement.quoted();
        let first =
            statement.values.first().map(String::as_str).or_else(|| quoted.next()).unwrap_or_default();
        let mut value = first.to_owned();
        if statement.sql.contains("set_config") && value == "application_name" {
            value = quoted.next().unwrap_or_default().to_owned();
            // What the session has set already stays, where weir brings back what a reset has taken away.
            let stays = statement.sql.contains("LEFT JOIN") && self.application_name.is_some();
            if !stays {
                self.application_name = Some(value.clone());
            }
        }
        let reply = self.row(&[&value]);
        self.out.extend_from_slice(&reply);
    }

    /// weir asks what a transaction has left behind.
    fn tell_state(&mut self, statement: &Statement) {
        let mut rows = Vec::new();
        let is_named = statement.sql.contains("'s','application_name'");
        let is_listed = statement.sql.contains("pg_settings") && self.application_name.is_some();
        if is_named || is_listed {
            rows.push(["s", "application_name", self.application_name.as_deref().unwrap_or_default()]);
        }
        if statement.sql.contains("pg_my_temp_schema") && self.keeps.is_some() {
            rows.push(["t", "", ""]);
        }
        backend::row_description(&["what", "name", "value"].map(Column::text), &mut self.out);
        for row in &rows {
            backend::data_row(&row.map(|value| Some(value.as_bytes())), &mut self.out);
        }
        backend::command_complete(&format!("SELECT {}", rows.len()), &mut self.out);
    }

    /// Some of the rows of a query that takes its time leave before it ends.
    pub(super) fn show_part(&mut self, statement: &Statement, dice: &mut Dice) {
        let rows = statement.counted();
        if keyword(&statement.sql) == "select" && !rows.is_empty() && dice.once_in(2) {
            let part = rows.len() / 2;
            self.describe_row();
            self.put_rows(&rows[..part]);
            (self.shown, self.flushed) = (part as u64, self.out.len());
        }
    }

    fn scan(&mut self, statement: &Statement) {
        let rows = statement.counted();
        let shown = usize::try_from(std::mem::take(&mut self.shown)).unwrap_or(0);
        if shown == 0 {
            self.describe_row();
        }
        self.put_rows(&rows[shown.min(rows.len())..]);
        backend::command_complete(&format!("SELECT {}", rows.len()), &mut self.out);
    }

    fn describe_row(&mut self) {
        if self.simple {
            backend::row_description(&[Column::text("value")], &mut self.out);
        }
    }

    fn put_rows(&mut self, rows: &[u64]) {
        for row in rows {
            backend::data_row(&[Some(row.to_string().as_bytes())], &mut self.out);
        }
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
        self.end_write(reply, data);
    }

    /// Rows were written. Alone, or the last in its string, that is the end of an implicit transaction.
    pub(super) fn end_write(&mut self, reply: Vec<u8>, data: &mut Database) {
        if self.tx == b'I' && self.simple && self.rest.is_empty() {
            self.commit(reply, data);
        } else {
            self.out.extend_from_slice(&reply);
        }
    }

    pub(super) fn commit(&mut self, reply: Vec<u8>, data: &mut Database) {
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

    pub(super) fn fail(&mut self, code: SqlState) {
        self.fail_by(code, b"elog.c");
    }

    /// An error that this file of PostgreSQL's sources reports.
    pub(super) fn fail_by(&mut self, code: SqlState, file: &[u8]) {
        let begin = self.out.len();
        backend::error(&Report::error(code, "refused"), &mut self.out);
        // In front of the zero that ends the fields.
        self.out.pop();
        self.out.push(b'F');
        self.out.extend_from_slice(file);
        self.out.extend_from_slice(&[0, 0]);
        let length = u32::try_from(self.out.len() - begin - 1).unwrap_or(u32::MAX);
        self.out[begin + 1..begin + 5].copy_from_slice(&length.to_be_bytes());
        // PostgreSQL keeps no error back.
        self.flushed = self.out.len();
        self.rest.clear();
        self.skipping = !self.simple;
        self.pending.clear();
        if self.tx == b'T' {
            self.tx = b'E';
        }
    }
}

impl Statement {
    /// Whose it is; nobody's if it is weir's own.
    pub(super) fn by(&self) -> Option<Signature> {
        let in_comment = || Some(self.sql.split_once("/* ")?.1.split_once(" */")?.0);
        Signature::read(self.values.get(1).map(String::as_str).or_else(in_comment)?)
    }

    /// weir asks a new session who it is.
    pub(super) fn is_fence(&self) -> bool {
        self.sql.contains("pg_walfile_name")
    }

    fn quoted(&self) -> impl Iterator<Item = &str> {
        self.sql.split('\'').skip(1).step_by(2)
    }

    /// The value that an application's query asks for.
    pub(super) fn value(&self) -> Option<u64> {
        self.by()?;
        self.values.first().map(String::as_str).or_else(|| self.quoted().next())?.parse().ok()
    }

    /// The rows of one that counts up.
    pub(super) fn counted(&self) -> Vec<u64> {
        let count = || self.sql.split_once("generate_series(1,")?.1.split_once(')')?.0.parse::<u64>().ok();
        match (self.value(), count()) {
            (Some(value), Some(count)) => (value..value + count).collect(),
            (_, _) => Vec::new(),
        }
    }

    /// Most are quick.
    pub(super) fn duration(&self, dice: &mut Dice) -> Duration {
        if !self.is_fence() && dice.once_in(10) { dice.millis(50, 900) } else { dice.millis(0, 8) }
    }
}

/// What weir asks a session for begins so.
const QUESTION: &str = "SELECT '";

pub(super) fn keyword(sql: &str) -> String {
    sql.split_whitespace().next().unwrap_or_default().to_ascii_lowercase()
}

pub(super) fn may_end(keyword: &str) -> bool {
    matches!(keyword, "commit" | "rollback")
}

/// The values of a Bind, all in text: behind the formats a count, and each with its length in front.
pub(super) fn values(body: &[u8]) -> Vec<String> {
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

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
