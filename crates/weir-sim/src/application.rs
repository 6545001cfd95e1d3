//! One application's connection, seen from the application: what it has asked, what it hears, and whether that is an
//! answer to what it asked. Knows nothing of how weir works.

use std::collections::{BTreeSet, VecDeque};

use weir_protocol::backend::read;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend;
use weir_protocol::startup::ProtocolVersion;
use weir_protocol::tag::FromServer;

use crate::copying::Copying;
use crate::database::Row;
use crate::dice::Dice;
use crate::laws::Law;
use crate::ledger::{Fate, Ledger};
use crate::requests::{Reply, Request, Signature, Style, Wish, name_of};
use crate::wire::WireId;

/// What an application is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Writer,
    /// Comes by the read door.
    Reader,
    /// Keeps its server connection (session pooling).
    Sitter,
    /// Makes temporary tables, which tie it to its server connection for a while, and sets parameters.
    Keeper,
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
    /// Those of single statements; COPY takes as long as its client likes.
    pub(crate) single_failures: u32,
    /// The last of them, for the story.
    pub(crate) last_failure: Option<String>,
    /// It has asked to cancel something on this connection.
    pub(crate) has_canceled: bool,
    /// Somebody has forced connections to end while this one was there.
    pub(crate) is_forced: bool,
    /// What is under way was asked with nothing in front of it or behind it, and nothing of its reply has come.
    pub(crate) is_lone: bool,
    pub(crate) copy: Option<Copying>,
    pub(crate) dice: Dice,
    inbox: Vec<u8>,
    heard: Vec<Heard>,
    /// Statements that this connection has prepared.
    named: BTreeSet<&'static str>,
    /// Requests in front of those that are under way have failed.
    is_behind_failure: bool,
    /// Rows of the open transaction.
    written: Vec<Row>,
    /// The number of its application_name.
    name: u32,
    /// It counts on its session: on a temporary table there, or on all of it in session pooling.
    keeps: bool,
    /// Something was asked on this connection.
    has_asked: bool,
    /// Something may have been left on the session; when weir knows that it is gone cannot be seen from here.
    may_be_tied: bool,
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
            Self::Keeper => "keeper",
        }
    }

    /// It may keep server connections to itself.
    pub(crate) fn keeps_servers(self) -> bool {
        matches!(self, Self::Sitter | Self::Keeper)
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
            single_failures: 0,
            last_failure: None,
            has_canceled: false,
            is_forced: false,
            is_lone: false,
            copy: None,
            dice,
            inbox: Vec::new(),
            heard: Vec::new(),
            named: BTreeSet::new(),
            is_behind_failure: false,
            written: Vec::new(),
            name: 0,
            keeps: false,
            has_asked: false,
            may_be_tied: false,
        }
    }

    /// A new connection was made.
    pub(crate) fn hello(&mut self, who: u32) -> Vec<u8> {
        self.who = who;
        self.waits_for = VecDeque::from([Request::Login]);
        self.status = b'I';
        (self.key, self.has_canceled, self.is_forced) = (None, false, false);
        (self.name, self.keeps, self.has_asked, self.may_be_tied) = (who % 3, false, false, false);
        (self.is_lone, self.copy) = (false, None);
        self.inbox.clear();
        self.heard.clear();
        self.named.clear();
        let mut out = Vec::new();
        let name = name_of(self.name);
        let parameters = [("user", self.kind.user()), ("database", "app"), ("application_name", &name)];
        frontend::startup(ProtocolVersion::V3_0, &parameters, &mut out);
        out
    }

    /// Something new to ask, fit for the status; now and then several things at once.
    pub(crate) fn next_requests(&mut self, ledger: &mut Ledger, is_calm: bool) -> Vec<u8> {
        let (kind, status, keeps) = (self.kind, self.status, self.keeps);
        let requests = Wish { kind, status, keeps, is_calm, dice: &mut self.dice, ledger }.draw();
        let by = Signature { who: self.who, name: name_of(self.name), keeps };
        (self.has_asked, self.is_lone) = (true, requests.len() == 1);
        let mut out = Vec::new();
        for request in requests {
            let style = Style::draw(&mut self.dice);
            request.write(style, &by, &mut self.named, &mut out);
            if let Request::CopyIn(rows) = &request {
                self.copy = Some(Copying::new(rows, style));
            }
            self.waits_for.push_back(request);
        }
        out
    }

    /// What comes next of a COPY; nothing if PostgreSQL has not asked for it, or none is open.
    pub(crate) fn next_of_copy(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let goes_on = self.copy.as_mut()?.put_next(self.who, &mut self.dice, &mut out)?;
        if !goes_on {
            self.copy = None;
        }
        Some(out)
    }

    /// Something of its session cannot be had elsewhere, or may not: it goes with its server connection.
    pub(crate) fn is_tied(&self) -> bool {
        match self.kind {
            Kind::Writer | Kind::Reader => false,
            Kind::Sitter => self.has_asked,
            Kind::Keeper => self.may_be_tied || self.waits_for.iter().any(Request::leaves_trace),
        }
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
            FromServer::CopyData => self.heard.push(Heard::Row(text(body).trim_end().to_owned())),
            FromServer::CopyInResponse => {
                let copy = self.copy.as_mut().filter(|copy| !copy.is_asked && !copy.has_failed);
                let Some(copy) = copy else { Law::OwnAnswers.broken("nobody copies anything") };
                copy.is_asked = true;
                return Next::Think;
            }
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
                if let Some(copy) = &mut self.copy {
                    copy.has_failed = true;
                    return Next::Think;
                }
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
            | FromServer::CopyDone
            | FromServer::CopyOutResponse => {}
            FromServer::ParseComplete
            | FromServer::BindComplete
            | FromServer::CloseComplete
            | FromServer::RowDescription => self.is_lone = false,
            FromServer::NoData
            | FromServer::ParameterDescription
            | FromServer::EmptyQueryResponse
            | FromServer::PortalSuspended
            | FromServer::CopyBothResponse
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
        let mut expected = request.replies(self.status).into_iter().flat_map(|(rows, _)| rows);
        for row in heard.iter().filter_map(|heard| if let Heard::Row(row) = heard { Some(row) } else { None })
        {
            Law::OwnAnswers
                .holds(expected.next().as_ref() == Some(row), || format!("{row} answers {request:?}"));
        }
        self.may_be_tied |= request.leaves_trace();
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
            "40001" => self.status != b'I' || self.kind == Kind::Reader,
            "25P02" => status == b'E',
            "57014" => self.has_canceled || matches!(request, Request::CopyIn(_)),
            // Its Parse was in a request in front of it that failed.
            "26000" => self.is_behind_failure,
            _ => false,
        };
        Law::OwnAnswers.holds(is_own, || format!("{code} for {request:?} in {}", char::from(self.status)));
        self.named.clear();
        self.is_behind_failure = !self.waits_for.is_empty();
        // What follows from the application's own mistakes does not count.
        if !["57014", "25P02", "26000"].contains(&code) {
            self.failures += 1;
            let is_single = self.status == b'I' && !matches!(request, Request::CopyIn(_));
            self.single_failures += u32::from(is_single);
            self.last_failure = Some(format!("{code} for {request:?} in {}", char::from(self.status)));
        }
        if let Some(value) =
            request.value().filter(|_| self.is_lone && self.kind == Kind::Reader && self.status == b'I')
        {
            ledger.read_failed(value, code);
        }
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
        self.served += 1;
        let may_succeed = self.status != b'E' || matches!(request, Request::Commit | Request::Rollback);
        Law::OwnAnswers.holds(may_succeed, || format!("{request:?} is done in a failed transaction"));
        let complete = |(rows, tag): Reply| rows.into_iter().map(Heard::Row).chain([Heard::Done(tag)]);
        let expected: Vec<Heard> = request.replies(self.status).into_iter().flat_map(complete).collect();
        Law::OwnAnswers.holds(heard == expected, || {
            format!("{heard:?} in answer to {request:?} in {}", char::from(self.status))
        });
        match request {
            Request::Rename(number) => self.name = *number,
            Request::Keep => self.keeps = true,
            Request::LetGo => {
                (self.name, self.keeps) = (self.who % 3, false);
                self.named.clear();
            }
            Request::Select(_)
            | Request::Scan(..)
            | Request::Insert(_)
            | Request::Pair(..)
            | Request::CopyIn(_)
            | Request::CopyOut(..)
            | Request::Begin
            | Request::Commit
            | Request::Rollback => self.keeps |= self.kind == Kind::Sitter,
            Request::Login => {}
        }
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
