//! A client of the random histories: asks one thing after the other (sometimes a few at once), never the same text twice,
//! and judges every answer by what it asked.

use std::collections::{BTreeMap, VecDeque};

use weir_protocol::frontend;

use crate::world::{Who, World, batch, simple};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Login,
    Echo(String),
    Batch(String),
    /// Prepares under a name of its own, and runs it.
    Named(String),
    Insert(String),
    Begin(String),
    Commit(String),
    Rollback(String),
    Fail(String),
}

/// One client, with what it waits for.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(crate) who: Who,
    pub(crate) is_reader: bool,
    /// weir does not keep prepared statements: they die with their server connection.
    pub(crate) names_pass: bool,
    pub(crate) waits_for: VecDeque<Request>,
    /// Status of the transaction as it was last told.
    pub(crate) status: u8,
    /// A cancel request was sent for it; it may arrive whenever it likes.
    pub(crate) cancelled: bool,
    pub(crate) over: bool,
    lines: Vec<String>,
    /// Inserts confirmed in the transaction that is open.
    inserted: Vec<String>,
}

/// Errors that weir or the server may give for a request of its own accord.
const EXPECTED: [&str; 5] = ["57P03", "08007", "40001", "25P02", "42601"];

impl Actor {
    pub(crate) fn new(who: Who, is_reader: bool, names_pass: bool) -> Self {
        let waits_for = VecDeque::from([Request::Login]);
        Self {
            who,
            is_reader,
            names_pass,
            waits_for,
            status: b'I',
            cancelled: false,
            over: false,
            lines: Vec::new(),
            inserted: Vec::new(),
        }
    }

    /// Bytes of a request.
    pub(crate) fn ask(&mut self, request: Request) -> Vec<u8> {
        self.waits_for.push_back(request.clone());
        match request {
            Request::Login => Vec::new(),
            Request::Batch(sql) => batch(&sql),
            Request::Named(sql) => named(&sql),
            Request::Echo(sql)
            | Request::Insert(sql)
            | Request::Begin(sql)
            | Request::Commit(sql)
            | Request::Rollback(sql)
            | Request::Fail(sql) => simple(&sql),
        }
    }

    /// Takes what was heard and judges each whole answer.
    pub(crate) fn listen(&mut self, world: &mut World) {
        let heard = world.heard(self.who);
        for line in heard {
            assert!(!self.over, "{line:?} after the end");
            if line.starts_with("FATAL") {
                self.last_words(&line, world);
            } else if let Some(status) = line.strip_prefix("ready ") {
                let status = status.as_bytes()[0];
                self.judge(status, world);
                self.status = status;
            } else if !line.starts_with("param ") {
                self.lines.push(line);
            }
        }
        if !world.is_open(self.who) {
            self.over = true;
        }
    }

    /// weir ends a client only if it says why, and not as an answer to what it has begun to answer.
    fn last_words(&mut self, line: &str, world: &World) {
        assert!(["FATAL 57P01", "FATAL 57P03"].contains(&line), "{line}: {}", world.error(self.who));
        self.over = true;
    }

    fn judge(&mut self, status: u8, world: &World) {
        let request =
            self.waits_for.pop_front().unwrap_or_else(|| panic!("{:?} answers nothing", self.lines));
        let lines = std::mem::take(&mut self.lines);
        let rows: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("row ")).collect();
        assert!(rows.iter().all(|row| *row == request.text()), "{rows:?} answers {request:?}");
        match lines.iter().find_map(|line| line.strip_prefix("ERROR ")) {
            Some(code) => self.failed(code, &request, status, world),
            None => self.succeeded(&lines, &request, status, world),
        }
        if status != b'T' {
            self.inserted.clear();
        }
    }

    fn failed(&self, code: &str, request: &Request, status: u8, world: &World) {
        let lost_name = self.names_pass && matches!(request, Request::Named(_)) && code == "26000";
        let expected = EXPECTED.contains(&code) || code == "57014" && self.cancelled || lost_name;
        assert!(expected, "{code} for {request:?}: {}", world.error(self.who));
        let is_own = matches!(request, Request::Fail(_));
        assert!(code != "42601" || is_own, "{code} for {request:?}");
        if let (Request::Commit(sql), "40001") = (request, code) {
            assert_eq!(times(world, sql), 0, "a commit that was denied took place");
            assert_eq!(status, b'I');
        }
    }

    fn succeeded(&mut self, lines: &[String], request: &Request, status: u8, world: &World) {
        let row = format!("row {}", request.text());
        let expected: &[&str] = match request {
            Request::Login => &[],
            Request::Echo(_) => &[&row, "SELECT 1"],
            Request::Batch(_) => &["ParseComplete", "BindComplete", &row, "SELECT 1"],
            Request::Named(_) => &["ParseComplete", "BindComplete", &row, "SELECT 1", "CloseComplete"],
            Request::Insert(_) => &["INSERT 0 1"],
            Request::Begin(_) => &["BEGIN"],
            Request::Commit(_) if self.status == b'E' => &["ROLLBACK"],
            Request::Commit(_) => &["COMMIT"],
            Request::Rollback(_) => &["ROLLBACK"],
            Request::Fail(_) => panic!("{lines:?} answers {request:?}"),
        };
        assert_eq!(lines, expected, "in answer to {request:?} in {}", char::from(self.status));
        match request {
            Request::Insert(sql) => {
                assert_eq!(times(world, sql), 1, "{sql} is confirmed");
                self.inserted.push(sql.clone());
            }
            Request::Commit(sql) if self.status == b'T' => self.all_in_one(sql, world),
            Request::Login
            | Request::Echo(_)
            | Request::Batch(_)
            | Request::Named(_)
            | Request::Begin(_)
            | Request::Commit(_)
            | Request::Rollback(_)
            | Request::Fail(_) => {}
        }
        let open = matches!(request, Request::Begin(_)) || self.status == b'T';
        let ends = matches!(request, Request::Commit(_) | Request::Rollback(_));
        // The connection may have died between the reply to a batch and its Sync.
        let lost =
            status == b'E' && self.status == b'T' && matches!(request, Request::Batch(_) | Request::Named(_));
        assert_eq!(status == b'T' || lost, open && !ends, "after {request:?} in {}", char::from(self.status));
    }

    /// What a confirmed COMMIT promises: every confirmed insert ran in the very transaction that it ended.
    fn all_in_one(&self, commit: &str, world: &World) {
        let ran = |sql: &str| world.executed.iter().find(|executed| executed.sql == sql).map(|it| it.pid);
        let pid = ran(commit);
        assert!(pid.is_some(), "{commit} is confirmed");
        for insert in &self.inserted {
            assert_eq!(ran(insert), pid, "{insert} is committed by {commit}");
        }
    }
}

impl Request {
    fn text(&self) -> &str {
        match self {
            Request::Login => "",
            Request::Echo(sql)
            | Request::Batch(sql)
            | Request::Named(sql)
            | Request::Insert(sql)
            | Request::Begin(sql)
            | Request::Commit(sql)
            | Request::Rollback(sql)
            | Request::Fail(sql) => sql,
        }
    }
}

fn named(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    // A name of its own, too: after a loss nobody knows whether the Close took place.
    let name = sql.replace(' ', "_").into_bytes();
    frontend::parse(&name, sql.as_bytes(), frontend::NO_TYPES, &mut out);
    frontend::bind_text(b"", &name, &[], &mut out);
    frontend::execute(b"", 0, &mut out);
    frontend::close_statement(&name, &mut out);
    frontend::sync(&mut out);
    out
}

fn times(world: &World, sql: &str) -> usize {
    world.executed.iter().filter(|executed| executed.sql == sql).count()
}

/// No write ran twice: nothing is repeated that may have been carried out.
pub(crate) fn nothing_ran_twice(world: &World) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for executed in &world.executed {
        *counts.entry(&executed.sql).or_default() += 1;
    }
    for (sql, count) in counts {
        assert!(
            count == 1 || !sql.starts_with("insert") && !sql.starts_with("commit"),
            "{sql} ran {count} times"
        );
    }
}
