//! One application's connection, seen from the application: what it asks, what it hears, and whether that is an answer to
//! what it asked. Knows nothing of how weir works.

use std::collections::VecDeque;

use weir_protocol::backend::read;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::{self, NO_TYPES};
use weir_protocol::startup::ProtocolVersion;
use weir_protocol::tag::FromServer;

use crate::database::Row;
use crate::dice::Dice;
use crate::ledger::{Fate, Ledger};
use crate::wire::WireId;

#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) is_reader: bool,
    pub(crate) wire: Option<WireId>,
    pub(crate) weir: usize,
    /// Answers that are due, oldest first.
    pub(crate) waits_for: VecDeque<Request>,
    /// Status of the transaction as last told.
    pub(crate) status: u8,
    /// Answers received on all connections.
    pub(crate) served: u64,
    pub(crate) dice: Dice,
    /// What was asked last went in the extended protocol.
    in_batch: bool,
    inbox: Vec<u8>,
    heard: Vec<Heard>,
    /// Rows of the open transaction.
    written: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Login,
    /// A row to be echoed.
    Select(u64),
    Insert(Row),
    Begin,
    Commit,
    Rollback,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Row(String),
    Done(String),
    Error(String),
}

/// What a client has to do after it heard something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// An answer is complete.
    Think,
    /// FATAL: the connection is over.
    Gone,
}

impl Application {
    pub(crate) fn new(mut dice: Dice) -> Self {
        Self {
            is_reader: dice.once_in(3),
            wire: None,
            weir: 0,
            waits_for: VecDeque::new(),
            status: b'I',
            served: 0,
            dice,
            in_batch: false,
            inbox: Vec::new(),
            heard: Vec::new(),
            written: Vec::new(),
        }
    }

    /// A new connection was made.
    pub(crate) fn hello(&mut self, user: &str) -> Vec<u8> {
        self.waits_for = VecDeque::from([Request::Login]);
        self.inbox.clear();
        self.heard.clear();
        self.status = b'I';
        let mut out = Vec::new();
        frontend::startup(ProtocolVersion::V3_0, &[("user", user), ("database", "app")], &mut out);
        out
    }

    /// Something new to ask, fit for the status; now and then two things at once.
    pub(crate) fn next_requests(&mut self, ledger: &mut Ledger, is_calm: bool) -> Vec<u8> {
        let count = if !is_calm && self.status == b'I' && self.dice.once_in(10) { 2 } else { 1 };
        let mut out = Vec::new();
        for _ in 0..count {
            let request = self.next_request(ledger, is_calm, count == 1);
            self.write(&request, &mut out);
            self.waits_for.push_back(request);
        }
        out
    }

    fn next_request(&mut self, ledger: &mut Ledger, is_calm: bool, alone: bool) -> Request {
        let which = self.dice.below(10);
        match (self.status, which) {
            (b'E', _) => Request::Rollback,
            (b'T', 0..3) if !is_calm => Request::Commit,
            (b'T', 4) | (b'T', _) if is_calm || which == 4 => Request::Rollback,
            (b'I', 0..3) if alone && !is_calm => Request::Begin,
            (_, 3..8) if !self.is_reader => {
                let row = ledger.new_row();
                if self.status == b'T' {
                    self.written.push(row);
                }
                Request::Insert(row)
            }
            _ => Request::Select(self.dice.next()),
        }
    }

    fn write(&mut self, request: &Request, out: &mut Vec<u8>) {
        let sql = match request {
            Request::Login => return,
            Request::Select(value) => format!("SELECT '{value}'"),
            Request::Insert(row) => format!("INSERT INTO t VALUES ({row}) RETURNING id"),
            Request::Begin => "BEGIN".to_owned(),
            Request::Commit => "COMMIT".to_owned(),
            Request::Rollback => "ROLLBACK".to_owned(),
        };
        self.in_batch = self.dice.once_in(3);
        if self.in_batch {
            frontend::parse(b"", sql.as_bytes(), NO_TYPES, out);
            frontend::bind_text(b"", b"", &[], out);
            frontend::execute(b"", 0, out);
            frontend::sync(out);
        } else {
            frontend::query(sql.as_bytes(), out);
        }
    }

    /// Bytes from weir. `Err` says what law they break.
    pub(crate) fn receive(&mut self, bytes: &[u8], ledger: &mut Ledger) -> Next {
        self.inbox.extend_from_slice(bytes);
        let mut next = Next::Nothing;
        while let Ok(Some(header)) = frame::peek(&self.inbox, MESSAGE_BYTES_MAX)
            && self.inbox.len() >= header.total
        {
            let message: Vec<u8> = self.inbox.drain(..header.total).collect();
            let tag = FromServer::of(header.tag).expect("weir sends messages that exist");
            match self.hear(tag, &message[HEADER_BYTES..], ledger) {
                Next::Nothing => {}
                Next::Think => next = Next::Think,
                Next::Gone => return Next::Gone,
            }
        }
        next
    }

    fn hear(&mut self, tag: FromServer, body: &[u8], ledger: &mut Ledger) -> Next {
        match tag {
            FromServer::DataRow => {
                let values = read::data_row(body).expect("a row");
                self.heard.push(Heard::Row(text(values.first().copied().flatten().unwrap_or_default())));
            }
            FromServer::CommandComplete => {
                self.heard.push(Heard::Done(text(read::command_tag(body).expect("a tag"))));
            }
            FromServer::ErrorResponse => {
                let fields = read::report(body).expect("a report");
                let code = text(fields.code);
                if fields.severity == b"FATAL" {
                    return self.last_words(&code, &text(fields.message));
                }
                self.heard.push(Heard::Error(code));
            }
            FromServer::ReadyForQuery => {
                let status = read::ready_status(body).expect("a status");
                self.judge(status, ledger);
                self.status = status;
                self.served += 1;
                return Next::Think;
            }
            FromServer::Authentication
            | FromServer::BackendKeyData
            | FromServer::NoticeResponse
            | FromServer::ParameterStatus
            | FromServer::ParseComplete
            | FromServer::BindComplete
            | FromServer::CloseComplete
            | FromServer::NoData
            | FromServer::ParameterDescription
            | FromServer::RowDescription => {}
            FromServer::EmptyQueryResponse
            | FromServer::PortalSuspended
            | FromServer::CopyInResponse
            | FromServer::CopyOutResponse
            | FromServer::CopyBothResponse
            | FromServer::CopyData
            | FromServer::CopyDone
            | FromServer::FunctionCallResponse
            | FromServer::NotificationResponse
            | FromServer::NegotiateProtocolVersion => panic!("nobody asked for {tag:?}"),
        }
        Next::Nothing
    }

    /// weir ends a client that is not logged in yet, or one whose session died; nobody else.
    fn last_words(&self, code: &str, message: &str) -> Next {
        let is_login = self.waits_for.front() == Some(&Request::Login);
        let allowed = if is_login { ["57P03", "08006", "57P01"].contains(&code) } else { code == "57P01" };
        assert!(allowed, "FATAL {code}: {message}");
        Next::Gone
    }

    fn judge(&mut self, status: u8, ledger: &mut Ledger) {
        let heard = std::mem::take(&mut self.heard);
        let request = self.waits_for.pop_front().unwrap_or_else(|| panic!("{heard:?} answers nothing"));
        for row in heard.iter().filter_map(|heard| if let Heard::Row(row) = heard { Some(row) } else { None })
        {
            assert_eq!(Some(row), request.echo().as_ref(), "the row answers {request:?}");
        }
        let error =
            heard.iter().find_map(|heard| if let Heard::Error(code) = heard { Some(code) } else { None });
        match error {
            Some(code) => self.failed(&request, code, status, ledger),
            None => self.succeeded(&request, &heard, ledger),
        }
        if status == b'I' {
            self.settle(&Fate::Denied("the end of its transaction".to_owned()), ledger);
        }
    }

    /// What the transaction wrote is told of.
    fn settle(&mut self, fate: &Fate, ledger: &mut Ledger) {
        ledger.told(&std::mem::take(&mut self.written), fate);
    }

    fn failed(&mut self, request: &Request, code: &str, status: u8, ledger: &mut Ledger) {
        assert!(EXPECTED.contains(&code), "{code} for {request:?} in {}", char::from(self.status));
        let fate = if code == "08007" { Fate::InDoubt } else { Fate::Denied(code.to_owned()) };
        match request {
            Request::Insert(row) if self.status == b'I' => ledger.told(&[*row], &fate),
            Request::Commit => {
                // A batch that failed before its COMMIT was executed leaves the block open, and failed.
                let is_over = status == b'I' || self.in_batch && status == b'E' && fate != Fate::InDoubt;
                assert!(is_over, "a COMMIT ends the block, whatever comes of it");
                self.settle(&fate, ledger);
            }
            Request::Login | Request::Select(_) | Request::Insert(_) | Request::Begin | Request::Rollback => {
            }
        }
    }

    fn succeeded(&mut self, request: &Request, heard: &[Heard], ledger: &mut Ledger) {
        let tag = match request {
            Request::Login => return assert_eq!(heard, [], "a login has no rows"),
            Request::Select(_) | Request::Insert(_) => "SELECT 1",
            Request::Begin => "BEGIN",
            Request::Commit if self.status == b'T' => "COMMIT",
            Request::Commit | Request::Rollback => "ROLLBACK",
        };
        let mut expected: Vec<Heard> = request.echo().map(Heard::Row).into_iter().collect();
        expected.push(Heard::Done(tag.to_owned()));
        assert_eq!(heard, expected, "in answer to {request:?} in {}", char::from(self.status));
        match request {
            Request::Insert(row) if self.status == b'I' => ledger.told(&[*row], &Fate::Confirmed),
            Request::Commit if self.status == b'T' => self.settle(&Fate::Confirmed, ledger),
            Request::Login
            | Request::Select(_)
            | Request::Insert(_)
            | Request::Begin
            | Request::Commit
            | Request::Rollback => {}
        }
    }

    /// The connection is over; what was asked may or may not have happened. True if weir cut an idle client off.
    pub(crate) fn lost(&mut self, ledger: &mut Ledger) -> bool {
        self.wire = None;
        let was_idle = self.waits_for.is_empty() && self.status == b'I';
        let is_committing = self.waits_for.contains(&Request::Commit);
        for request in std::mem::take(&mut self.waits_for) {
            if let Request::Insert(row) = request
                && !self.written.contains(&row)
            {
                ledger.told(&[row], &Fate::InDoubt);
            }
        }
        let fate =
            if is_committing { Fate::InDoubt } else { Fate::Denied("the end of its connection".to_owned()) };
        self.settle(&fate, ledger);
        was_idle
    }
}

impl Request {
    fn echo(&self) -> Option<String> {
        match self {
            Self::Select(value) => Some(value.to_string()),
            Self::Insert(row) => Some(row.to_string()),
            Self::Login | Self::Begin | Self::Commit | Self::Rollback => None,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Errors that weir or PostgreSQL may give here of their own accord. Not 25006: no write is ever led to a standby.
const EXPECTED: [&str; 4] = ["57P03", "08007", "40001", "25P02"];
