//! What applications ask: drawn by chance, fit for the state of the connection, and written in either protocol. Each
//! statement is signed by the connection that asks it, so that PostgreSQL can see whom it serves and what he counts on.

use std::collections::BTreeSet;
use std::fmt;

use weir_protocol::frontend::{self, NO_TYPES};

use crate::application::Kind;
use crate::database::Row;
use crate::dice::Dice;
use crate::ledger::Ledger;

/// Something that is answered by one ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Login,
    /// A value to be echoed.
    Select(u64),
    /// So many rows, which count up from the value. They come in parts.
    Scan(u64, u64),
    Insert(Row),
    /// Two rows in one string or one batch: both or none.
    Pair(Row, Row),
    /// COPY FROM STDIN: the rows are sent when PostgreSQL asks for them.
    CopyIn(Vec<Row>),
    /// COPY TO STDOUT, with so many rows.
    CopyOut(u64, u64),
    /// SET application_name to the name of this number.
    Rename(u32),
    /// A temporary table, which ties the connection to its session.
    Keep,
    /// DISCARD ALL.
    LetGo,
    Begin,
    Commit,
    Rollback,
}

/// Whose statement it is: stands behind each in a comment, or in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The connection that asks.
    pub(crate) who: u32,
    /// The `application_name` that it has.
    pub(crate) name: String,
    /// It has run something on this session that it counts on.
    pub(crate) keeps: bool,
}

/// One after the other without waiting.
pub(crate) struct Wish<'a> {
    pub(crate) kind: Kind,
    /// Status of the transaction.
    pub(crate) status: u8,
    /// It has a temporary table.
    pub(crate) keeps: bool,
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
            (b'T', false) => match self.dice.below(11) {
                0..3 => vec![Request::Commit],
                3 => vec![Request::Rollback],
                4 => vec![self.alone()],
                _ => vec![self.statement()],
            },
            (_, true) if self.keeps => vec![Request::LetGo],
            (_, _) if self.kind.keeps_servers() && self.dice.once_in(4) => vec![self.trace()],
            (_, _) => match self.dice.below(14) {
                0..3 => vec![Request::Begin],
                3 => (0..2 + self.dice.below(3)).map(|_| self.statement()).collect(),
                4 => vec![Request::Begin, self.statement(), self.statement(), Request::Commit],
                5 if self.writes() => vec![Request::Pair(self.ledger.new_row(), self.ledger.new_row())],
                6 | 7 => vec![self.alone()],
                _ => vec![self.statement()],
            },
        }
    }

    fn writes(&self) -> bool {
        self.kind != Kind::Reader
    }

    fn statement(&mut self) -> Request {
        if self.writes() && !self.dice.once_in(3) {
            Request::Insert(self.ledger.new_row())
        } else if self.dice.once_in(4) {
            Request::Scan(self.dice.next() >> 32, 2 + self.dice.below(20))
        } else {
            Request::Select(self.dice.next() >> 32)
        }
    }

    /// What nothing is sent behind before its answer.
    fn alone(&mut self) -> Request {
        if self.writes() && self.dice.once_in(2) {
            Request::CopyIn((0..1 + self.dice.below(4)).map(|_| self.ledger.new_row()).collect())
        } else {
            Request::CopyOut(self.dice.next() >> 32, self.dice.below(8))
        }
    }

    /// What leaves a trace on the session, or takes it away.
    fn trace(&mut self) -> Request {
        match self.dice.below(4) {
            0 | 1 => Request::Rename(100 + u32::try_from(self.dice.below(5)).unwrap_or(0)),
            2 if !self.keeps => Request::Keep,
            _ => Request::LetGo,
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

/// What one statement answers: its rows, and its tag.
pub(crate) type Reply = (Vec<String>, String);

impl Request {
    /// The rows that it writes.
    pub(crate) fn rows(&self) -> Vec<Row> {
        match self {
            Self::Insert(row) => vec![*row],
            Self::Pair(one, other) => vec![*one, *other],
            Self::CopyIn(rows) => rows.clone(),
            Self::Login
            | Self::Select(_)
            | Self::Scan(..)
            | Self::CopyOut(..)
            | Self::Rename(_)
            | Self::Keep
            | Self::LetGo
            | Self::Begin
            | Self::Commit
            | Self::Rollback => Vec::new(),
        }
    }

    /// What comes back if all goes well, for each statement; in a failed transaction COMMIT rolls back.
    pub(crate) fn replies(&self, status: u8) -> Vec<Reply> {
        let one = |value: String| (vec![value], "SELECT 1".to_owned());
        let no_rows = |tag: &str| vec![(Vec::new(), tag.to_owned())];
        let counted = |value: u64, count: u64| (value..value + count).map(|row| row.to_string()).collect();
        match self {
            Self::Login => Vec::new(),
            Self::Select(value) => vec![one(value.to_string())],
            Self::Scan(value, count) => vec![(counted(*value, *count), format!("SELECT {count}"))],
            Self::CopyOut(value, count) => vec![(counted(*value, *count), format!("COPY {count}"))],
            Self::Insert(_) | Self::Pair(..) => self.rows().iter().map(|row| one(row.to_string())).collect(),
            Self::CopyIn(rows) => no_rows(&format!("COPY {}", rows.len())),
            Self::Rename(_) => no_rows("SET"),
            Self::Keep => no_rows("CREATE TABLE"),
            Self::LetGo => no_rows("DISCARD ALL"),
            Self::Begin => no_rows("BEGIN"),
            Self::Commit if status != b'E' => no_rows("COMMIT"),
            Self::Commit | Self::Rollback => no_rows("ROLLBACK"),
        }
    }

    /// The value by which a query can be told from all others.
    pub(crate) fn value(&self) -> Option<u64> {
        match self {
            Self::Select(value) | Self::Scan(value, _) => Some(*value),
            Self::CopyOut(..)
            | Self::Login
            | Self::Insert(_)
            | Self::Pair(..)
            | Self::CopyIn(_)
            | Self::Rename(_)
            | Self::Keep
            | Self::LetGo
            | Self::Begin
            | Self::Commit
            | Self::Rollback => None,
        }
    }

    /// It may leave a trace on its session, which weir has to ask about.
    pub(crate) fn leaves_trace(&self) -> bool {
        matches!(self, Self::Rename(_) | Self::Keep | Self::LetGo)
    }

    /// Its messages. `named` are the statements that this connection has prepared. COPY FROM STDIN in the extended protocol
    /// has its Sync behind its data.
    pub(crate) fn write(
        &self,
        style: Style,
        by: &Signature,
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
                for value in self.replies(b'I').into_iter().flat_map(|(rows, _)| rows) {
                    let values = [Some(value.as_bytes()), Some(&by.to_string().into_bytes()[..])];
                    frontend::bind_text(b"", name.as_bytes(), &values, out);
                    frontend::execute(b"", 0, out);
                }
                frontend::sync(out);
            }
            (_, Style::Simple) => frontend::query(self.texts(by).join("; ").as_bytes(), out),
            (_, Style::Unnamed | Style::Named) => {
                for sql in self.texts(by) {
                    frontend::parse(b"", sql.as_bytes(), NO_TYPES, out);
                    frontend::bind_text(b"", b"", &[], out);
                    frontend::execute(b"", 0, out);
                }
                if matches!(self, Self::CopyIn(_)) {
                    frontend::flush(out);
                } else {
                    frontend::sync(out);
                }
            }
        }
    }

    fn texts(&self, by: &Signature) -> Vec<String> {
        let texts = match self {
            Self::Login => Vec::new(),
            Self::Select(value) => vec![format!("SELECT '{value}'")],
            Self::Scan(value, count) => vec![format!("SELECT '{value}' FROM generate_series(1,{count})")],
            Self::Insert(_) | Self::Pair(..) => {
                self.rows().iter().map(|row| format!("INSERT INTO t VALUES ({row}) RETURNING id")).collect()
            }
            Self::CopyIn(_) => vec!["COPY t FROM STDIN".to_owned()],
            Self::CopyOut(value, count) => {
                vec![format!("COPY (SELECT '{value}' FROM generate_series(1,{count})) TO STDOUT")]
            }
            Self::Rename(number) => vec![format!("SET application_name = '{}'", name_of(*number))],
            Self::Keep => vec!["CREATE TEMP TABLE mine (id int)".to_owned()],
            Self::LetGo => vec!["DISCARD ALL".to_owned()],
            Self::Begin => vec!["BEGIN".to_owned()],
            Self::Commit => vec!["COMMIT".to_owned()],
            Self::Rollback => vec!["ROLLBACK".to_owned()],
        };
        texts.into_iter().map(|text| format!("{text} /* {by} */")).collect()
    }
}

/// The `application_name` of this number.
pub(crate) fn name_of(number: u32) -> String {
    format!("a{number}")
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.who, self.name, if self.keeps { " +" } else { "" })
    }
}

impl Signature {
    /// As it stands in a comment or a value.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (who, name) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        Some(Self { who, name, keeps: words.next() == Some("+") })
    }
}

/// Prepared once by each connection; the second value says who asks.
const PREPARED_SELECT: &str = "SELECT $1, $2";
const PREPARED_INSERT: &str = "INSERT INTO t VALUES ($1) RETURNING id, $2";
