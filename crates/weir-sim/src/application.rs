//! One application's connection, seen from the application: what it has asked, what it hears, and whether that is an
//! answer to what it asked. Knows nothing of how weir works.

use std::collections::{BTreeSet, VecDeque};

use weir_protocol::backend::read;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend;
use weir_protocol::startup::ProtocolVersion;
use weir_protocol::tag::FromServer;

use crate::database::Row;
use crate::dice::Dice;
use crate::laws::Law;
use crate::ledger::{Fate, Ledger};
use crate::requests::{Request, Style, Wish};
use crate::wire::WireId;

/// What an application is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Writer,
    /// Comes by the read door.
    Reader,
    /// Keeps its server connection (session pooling).
    Sitter,
}

#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) kind: Kind,
    pub(crate) wire: Option<WireId>,
    pub(crate) weir: usize,
    /// The number of this connection; no other has it.
    pub(crate) who: u32,
    /// Answers that are due, oldest first.
    pub(crate) waits_for: VecDeque<Request>,
    /// Status of the transaction as last told.
    pub(crate) status: u8,
    /// Requests that succeeded, on all connections.
    pub(crate) served: u64,
    /// What a cancel request has to name.
    pub(crate) key: Option<(u32, Vec<u8>)>,
    /// Errors and ends that it has met, but for those that it has asked for.
    pub(crate) failures: u32,
    /// It has asked to cancel something on this connection.
    pub(crate) has_canceled: bool,
    /// An operator has forced connections to end while this one was there.
    pub(crate) is_forced: bool,
    pub(crate) dice: Dice,
    inbox: Vec<u8>,
    heard: Vec<Heard>,
    /// Statements that this connection has prepared.
    named: BTreeSet<&'static str>,
    /// Requests in front of those that are under way have failed.
    is_behind_failure: bool,
    /// Rows of the open transaction.
    written: Vec<Row>,
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

impl Kind {
    /// Who it logs in as: kinds have pools of their own.
    pub(crate) fn user(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Sitter => "sitter",
        }
    }
}

impl Application {
    pub(crate) fn new(kind: Kind, dice: Dice) -> Self {
        Self {
            kind,
            wire: None,
            weir: 0,
            who: 0,
            waits_for: VecDeque::new(),
            status: b'I',
            served: 0,
            key: None,
            failures: 0,
            has_canceled: false,
            is_forced: false,
            dice,
            inbox: Vec::new(),
            heard: Vec::new(),
            named: BTreeSet::new(),
            is_behind_failure: false,
            written: Vec::new(),
        }
    }

    /// A new connection was made.
    pub(crate) fn hello(&mut self, who: u32) -> Vec<u8> {
        self.who = who;
        self.waits_for = VecDeque::from([Request::Login]);
        self.status = b'I';
        (self.key, self.has_canceled, self.is_forced) = (None, false, false);
        self.inbox.clear();
        self.heard.clear();
        self.named.clear();
        let mut out = Vec::new();
        let name = format!("a{}", who % 3);
        let parameters = [("user", self.kind.user()), ("database", "app"), ("application_name", &name)];
        frontend::startup(ProtocolVersion::V3_0, &parameters, &mut out);
        out
    }

    /// Something new to ask, fit for the status; now and then several things at once.
    pub(crate) fn next_requests(&mut self, ledger: &mut Ledger, is_calm: bool) -> Vec<u8> {
        let writes = self.kind != Kind::Reader;
        let wish = Wish { writes, status: self.status, is_calm, dice: &mut self.dice, ledger };
        let mut out = Vec::new();
        for request in wish.draw() {
            request.write(Style::draw(&mut self.dice), self.who, &mut self.named, &mut out);
            self.waits_for.push_back(request);
        }
        out
    }

    /// Bytes from weir.
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
                return Next::Think;
            }
            FromServer::BackendKeyData => {
                let (pid, secret) = read::backend_key_data(body).expect("a key");
                self.key = Some((pid, secret.to_vec()));
            }
            FromServer::Authentication
            | FromServer::NoticeResponse
            | FromServer::ParameterStatus
            | FromServer::ParseComplete
            | FromServer::BindComplete
            | FromServer::CloseComplete
            | FromServer::RowDescription => {}
            FromServer::NoData
            | FromServer::ParameterDescription
            | FromServer::EmptyQueryResponse
            | FromServer::PortalSuspended
            | FromServer::CopyInResponse
            | FromServer::CopyOutResponse
            | FromServer::CopyBothResponse
            | FromServer::CopyData
            | FromServer::CopyDone
            | FromServer::FunctionCallResponse
            | FromServer::NotificationResponse
            | FromServer::NegotiateProtocolVersion => {
                Law::OwnAnswers.broken(&format!("nobody asked for {tag:?}"))
            }
        }
        Next::Nothing
    }

    /// weir ends a client that is not logged in yet, or one whose session died; nobody else.
    fn last_words(&self, code: &str, message: &str) -> Next {
        let is_login = self.waits_for.front() == Some(&Request::Login);
        let allowed = if is_login { ["57P03", "08006", "57P01"].contains(&code) } else { code == "57P01" };
        Law::NobodyCutOff.holds(allowed, || format!("FATAL {code}: {message}"));
        Next::Gone
    }

    fn judge(&mut self, status: u8, ledger: &mut Ledger) {
        let heard = std::mem::take(&mut self.heard);
        let Some(request) = self.waits_for.pop_front() else {
            Law::OwnAnswers.broken(&format!("{heard:?} answers nothing"))
        };
        let mut echoes = request.echoes().into_iter();
        for row in heard.iter().filter_map(|heard| if let Heard::Row(row) = heard { Some(row) } else { None })
        {
            Law::OwnAnswers
                .holds(echoes.next().as_ref() == Some(row), || format!("{row} answers {request:?}"));
        }
        let error =
            heard.iter().find_map(|heard| if let Heard::Error(code) = heard { Some(code) } else { None });
        match error {
            Some(code) => self.failed(&request, code, status, ledger),
            None => self.succeeded(&request, &heard, status, ledger),
        }
    }

    /// What the transaction wrote is told of.
    fn settle(&mut self, fate: &Fate, ledger: &mut Ledger) {
        ledger.told(&std::mem::take(&mut self.written), fate);
    }

    fn failed(&mut self, request: &Request, code: &str, status: u8, ledger: &mut Ledger) {
        // Errors that weir or PostgreSQL may give here of their own accord. Not 25006: no write is led to a standby.
        let is_own = match code {
            "57P03" | "08007" => true,
            // A transaction was lost, so there was one.
            "40001" => self.status != b'I',
            "25P02" => status == b'E',
            "57014" => self.has_canceled,
            // Its Parse was in a request in front of it that failed.
            "26000" => self.is_behind_failure,
            _ => false,
        };
        Law::OwnAnswers.holds(is_own, || format!("{code} for {request:?} in {}", char::from(self.status)));
        self.named.clear();
        self.is_behind_failure = !self.waits_for.is_empty();
        self.failures += u32::from(!self.has_canceled);
        let fate = if code == "08007" { Fate::InDoubt } else { Fate::Denied(code.to_owned()) };
        ledger.told(&request.rows(), &fate);
        if *request == Request::Commit {
            // A batch that failed before its COMMIT was executed leaves the block open, and failed.
            let is_over = status == b'I' || status == b'E' && fate != Fate::InDoubt;
            Law::OwnAnswers.holds(is_over, || "a COMMIT leaves the block open".to_owned());
        }
        if status == b'I' {
            self.settle(&fate, ledger);
        }
    }

    fn succeeded(&mut self, request: &Request, heard: &[Heard], status: u8, ledger: &mut Ledger) {
        let tag = match request {
            Request::Login => "",
            Request::Select(_) | Request::Insert(_) | Request::Pair(..) => "SELECT 1",
            Request::Begin => "BEGIN",
            Request::Commit if self.status != b'E' => "COMMIT",
            Request::Commit | Request::Rollback => "ROLLBACK",
        };
        self.served += 1;
        let may_succeed = self.status != b'E' || matches!(request, Request::Commit | Request::Rollback);
        Law::OwnAnswers.holds(may_succeed, || format!("{request:?} is done in a failed transaction"));
        let done = || Heard::Done(tag.to_owned());
        let echoes = request.echoes();
        let mut expected: Vec<Heard> =
            echoes.iter().cloned().flat_map(|row| [Heard::Row(row), done()]).collect();
        if echoes.is_empty() && *request != Request::Login {
            expected.push(done());
        }
        Law::OwnAnswers.holds(heard == expected, || {
            format!("{heard:?} in answer to {request:?} in {}", char::from(self.status))
        });
        if status == b'T' {
            self.written.append(&mut request.rows());
            return;
        }
        ledger.told(&request.rows(), &Fate::Confirmed);
        let is_committed = *request == Request::Commit && self.status == b'T';
        let rolled_back = || Fate::Denied("the end of its transaction".to_owned());
        self.settle(&if is_committed { Fate::Confirmed } else { rolled_back() }, ledger);
    }

    /// The connection is over; what was asked may or may not have happened. True if weir cut an idle client off.
    pub(crate) fn lost(&mut self, ledger: &mut Ledger) -> bool {
        self.wire = None;
        let was_idle = self.waits_for.is_empty() && self.status == b'I';
        let waited_for = std::mem::take(&mut self.waits_for);
        let stays_open = self.status == b'T' && !waited_for.contains(&Request::Commit);
        let ended = || Fate::Denied("the end of its connection".to_owned());
        let fate = if stays_open { ended() } else { Fate::InDoubt };
        for request in waited_for {
            ledger.told(&request.rows(), &fate);
        }
        self.settle(&fate, ledger);
        was_idle
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
