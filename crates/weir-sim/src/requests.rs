//! What applications ask: drawn by chance, fit for the state of the connection, and written in either protocol. Each
//! statement names the connection that asks it, so that PostgreSQL can see whom it serves.

use std::collections::BTreeSet;

use weir_protocol::frontend::{self, NO_TYPES};

use crate::database::Row;
use crate::dice::Dice;
use crate::ledger::Ledger;

/// Something that is answered by one ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Login,
    /// A value to be echoed.
    Select(u64),
    Insert(Row),
    /// Two rows in one string or one batch: both or none.
    Pair(Row, Row),
    Begin,
    Commit,
    Rollback,
}

/// One after the other without waiting.
pub(crate) struct Wish<'a> {
    pub(crate) writes: bool,
    /// Status of the transaction.
    pub(crate) status: u8,
    /// What is open is to end.
    pub(crate) is_calm: bool,
    pub(crate) dice: &'a mut Dice,
    pub(crate) ledger: &'a mut Ledger,
}

impl Wish<'_> {
    pub(crate) fn draw(mut self) -> Vec<Request> {
        match (self.status, self.is_calm) {
            (b'E' | b'T', true) => vec![Request::Rollback],
            // Some applications do not look.
            (b'E', false) => match self.dice.below(4) {
                0 => vec![Request::Commit],
                1 => vec![self.statement()],
                _ => vec![Request::Rollback],
            },
            (b'T', false) => match self.dice.below(10) {
                0..3 => vec![Request::Commit],
                3 => vec![Request::Rollback],
                _ => vec![self.statement()],
            },
            (_, _) => match self.dice.below(12) {
                0..3 => vec![Request::Begin],
                3 => (0..2 + self.dice.below(3)).map(|_| self.statement()).collect(),
                4 => vec![Request::Begin, self.statement(), self.statement(), Request::Commit],
                5 if self.writes => vec![Request::Pair(self.ledger.new_row(), self.ledger.new_row())],
                _ => vec![self.statement()],
            },
        }
    }

    fn statement(&mut self) -> Request {
        if self.writes && !self.dice.once_in(3) {
            Request::Insert(self.ledger.new_row())
        } else {
            Request::Select(self.dice.next() >> 32)
        }
    }
}

/// How a request is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    /// One batch of the unnamed statement.
    Unnamed,
    /// Statements that are prepared once and used again.
    Named,
}

impl Style {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        match dice.below(6) {
            0 => Self::Unnamed,
            1 => Self::Named,
            _ => Self::Simple,
        }
    }
}

impl Request {
    /// The rows that it writes.
    pub(crate) fn rows(&self) -> Vec<Row> {
        match self {
            Self::Insert(row) => vec![*row],
            Self::Pair(one, other) => vec![*one, *other],
            Self::Login | Self::Select(_) | Self::Begin | Self::Commit | Self::Rollback => Vec::new(),
        }
    }

    /// What comes back in rows, one for each statement that has any.
    pub(crate) fn echoes(&self) -> Vec<String> {
        match self {
            Self::Select(value) => vec![value.to_string()],
            Self::Insert(_) | Self::Pair(..) => self.rows().iter().map(Row::to_string).collect(),
            Self::Login | Self::Begin | Self::Commit | Self::Rollback => Vec::new(),
        }
    }

    /// Its messages. `named` are the statements that this connection has prepared.
    pub(crate) fn write(
        &self,
        style: Style,
        who: u32,
        named: &mut BTreeSet<&'static str>,
        out: &mut Vec<u8>,
    ) {
        match (self, style) {
            (Self::Login, _) => {}
            (Self::Select(_) | Self::Insert(_) | Self::Pair(..), Style::Named) => {
                let reads = matches!(self, Self::Select(_));
                let (name, sql) = if reads { ("s", PREPARED_SELECT) } else { ("i", PREPARED_INSERT) };
                if named.insert(name) {
                    frontend::close_statement(name.as_bytes(), out);
                    frontend::parse(name.as_bytes(), sql.as_bytes(), NO_TYPES, out);
                }
                for value in self.echoes() {
                    let values = [Some(value.as_bytes()), Some(&who.to_string().into_bytes()[..])];
                    frontend::bind_text(b"", name.as_bytes(), &values, out);
                    frontend::execute(b"", 0, out);
                }
                frontend::sync(out);
            }
            (_, Style::Simple) => frontend::query(self.texts(who).join("; ").as_bytes(), out),
            (_, Style::Unnamed | Style::Named) => {
                for sql in self.texts(who) {
                    frontend::parse(b"", sql.as_bytes(), NO_TYPES, out);
                    frontend::bind_text(b"", b"", &[], out);
                    frontend::execute(b"", 0, out);
                }
                frontend::sync(out);
            }
        }
    }

    fn texts(&self, who: u32) -> Vec<String> {
        let texts = match self {
            Self::Login => Vec::new(),
            Self::Select(value) => vec![format!("SELECT '{value}'")],
            Self::Insert(_) | Self::Pair(..) => {
                self.rows().iter().map(|row| format!("INSERT INTO t VALUES ({row}) RETURNING id")).collect()
            }
            Self::Begin => vec!["BEGIN".to_owned()],
            Self::Commit => vec!["COMMIT".to_owned()],
            Self::Rollback => vec!["ROLLBACK".to_owned()],
        };
        texts.into_iter().map(|text| format!("{text} /* {who} */")).collect()
    }
}

/// Prepared once by each connection; the second value says who asks.
const PREPARED_SELECT: &str = "SELECT $1, $2";
const PREPARED_INSERT: &str = "INSERT INTO t VALUES ($1) RETURNING id, $2";
