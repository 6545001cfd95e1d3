//! What a client sends: forwarded, rewritten (names of prepared statements), or answered here.
//!
//! Only the five header bytes of most messages are looked at. Messages that need no look inside stream through in pieces of
//! any size; those that do are bounded.

use std::time::Instant;

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, Header, MESSAGE_BYTES_MAX};
use weir_protocol::frontend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromClient;

use crate::owed::{OWED_MAX, Owed};
use crate::prepared::{Catalog, STATEMENT_BYTES_MAX, StatementKind, UNNAMED_BYTES_MAX};
use crate::server::{Server, TxStatus, Unsynced};
use crate::session::{Phase, Session, Then, Turn};
use crate::wires::Wires;

/// What became of one frame.
pub(crate) enum Step {
    /// This many bytes are done with; if that is less than the frame, `passing` or `swallowing` says what the rest is for.
    Took(usize),
    /// The frame has to be looked into, and is not complete yet.
    NeedMore,
    /// The turn ends before this frame.
    Then(Then),
    /// The frame, which is whole, is done with, and stands for these ones.
    Instead(Vec<u8>),
}

/// A frame at the start of the unread input.
#[derive(Clone, Copy)]
pub(crate) struct Cut<'a> {
    pub(crate) header: Header,
    /// The frame, as far as it has arrived.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Cut<'a> {
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() == self.header.total
    }

    /// The body as far as it has arrived.
    pub(crate) fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }
}

impl Session {
    /// Bytes from the client, starting with what the last turn did not consume. `server` is the connection it holds.
    pub fn from_client<W: Wires>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        mut server: Option<&mut Server>,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Turn {
        let mut at = 0;
        self.stalled = false;
        loop {
            at += self.stream_through(&bytes[at..], &mut server, wires);
            if server.is_none()
                && let Some(answered) = self.answer_deferred(now, &bytes[at..], catalog, wires)
            {
                at += answered;
                continue;
            }
            let cut = match self.cut(&bytes[at..]) {
                Ok(Some(cut)) => cut,
                Ok(None) => break,
                Err(report) => return Turn { consumed: at, then: Then::Refuse(Box::new(report)) },
            };
            let is_refused = matches!(self.phase, Phase::Refusing(_) | Phase::Skipping);
            match self.frame(now, cut, &mut server, catalog, wires) {
                Ok(Step::Took(bytes)) => {
                    at += bytes;
                    if is_refused && matches!(self.phase, Phase::Relaying) {
                        return Turn { consumed: at, then: Then::Answered };
                    }
                }
                Ok(Step::NeedMore) => break,
                Ok(Step::Then(then)) => return Turn { consumed: at, then },
                Ok(Step::Instead(bytes)) => {
                    return Turn { consumed: at + cut.header.total, then: Then::Again(bytes) };
                }
                Err(report) => return Turn { consumed: at, then: Then::Refuse(Box::new(report)) },
            }
        }
        let released = server.is_some_and(|server| self.may_release(server));
        Turn { consumed: at, then: if released { Then::Release } else { Then::Continue } }
    }

    /// Deals with the rest of a message whose beginning was dealt with before.
    fn stream_through<W: Wires>(
        &mut self,
        bytes: &[u8],
        server: &mut Option<&mut Server>,
        wires: &mut W,
    ) -> usize {
        let passed = self.passing.min(bytes.len());
        if passed > 0 {
            self.passing -= passed;
            if let Some(server) = server.as_deref_mut() {
                wires.to_server(|out| out.extend_from_slice(&bytes[..passed]));
                self.sync_failed_begin(server, wires);
            }
        }
        let swallowed = self.swallowing.min(bytes.len() - passed);
        self.swallowing -= swallowed;
        passed + swallowed
    }

    /// The next frame, if its header has arrived.
    fn cut<'a>(&self, rest: &'a [u8]) -> Result<Option<Cut<'a>>, Report> {
        let longest = self.rules.message_bytes_max.min(MESSAGE_BYTES_MAX);
        let header = frame::peek(rest, longest).map_err(|_| bad_header(rest))?;
        Ok(header.map(|header| Cut { header, bytes: &rest[..header.total.min(rest.len())] }))
    }

    fn frame<W: Wires>(
        &mut self,
        now: Instant,
        cut: Cut<'_>,
        server: &mut Option<&mut Server>,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<Step, Report> {
        let Some(tag) = FromClient::of(cut.header.tag) else {
            return Err(protocol_violation(&format!("invalid frontend message type {}", cut.header.tag)));
        };
        if tag == FromClient::Terminate {
            return Ok(Step::Then(Then::Terminate));
        }
        if tag == FromClient::Query && self.rules.refuses_simple_queries {
            return Err(protocol_violation("PQexec disallowed"));
        }
        match &mut self.phase {
            Phase::Relaying => {}
            Phase::Deferred(_) => {
                if let Some(server) = server {
                    self.begin_block(server, wires);
                }
            }
            Phase::Skipping => return Ok(self.skip(tag, cut, wires)),
            Phase::Aborted(_) => return self.play_aborted(now, tag, cut, catalog, wires),
            Phase::Refusing(_) => return Ok(self.refuse(tag, cut, wires)),
        }
        match server {
            Some(server) => self.relay(now, tag, cut, server, catalog, wires),
            None => self.without_server(tag, cut, catalog, wires),
        }
    }

    /// A message that finds no server connection: most need one, a few are answered here.
    fn without_server<W: Wires>(
        &mut self,
        tag: FromClient,
        cut: Cut<'_>,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<Step, Report> {
        if tag == FromClient::Parse && self.parse_without_server(cut, catalog)? {
            wires.to_client(backend::parse_complete);
            return Ok(Step::Took(cut.bytes.len()));
        }
        Ok(match tag {
            FromClient::Sync => {
                wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
                self.swallow(cut)
            }
            // Left over from a COPY that has failed, or with nothing to flush: PostgreSQL ignores them, too.
            FromClient::CopyData | FromClient::CopyDone | FromClient::CopyFail | FromClient::Flush => {
                self.swallow(cut)
            }
            FromClient::Query
            | FromClient::Parse
            | FromClient::Bind
            | FromClient::Describe
            | FromClient::Execute
            | FromClient::Close
            | FromClient::FunctionCall => {
                if can_begin(tag, cut) {
                    Step::Then(Then::NeedServer)
                } else {
                    Step::NeedMore
                }
            }
            FromClient::Response | FromClient::Terminate => {
                Step::Then(Then::Refuse(Box::new(unexpected_response())))
            }
        })
    }

    fn relay<W: Wires>(
        &mut self,
        now: Instant,
        tag: FromClient,
        cut: Cut<'_>,
        server: &mut Server,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<Step, Report> {
        if server.again.is_some() {
            // The request in front of this one is about to run again.
            return Ok(Step::NeedMore);
        }
        if server.is_skipping() && tag != FromClient::Sync {
            return Ok(self.swallow(cut));
        }
        if server.owed.len() >= OWED_MAX || server.holds_requests_back() {
            self.stalled = true;
            return Ok(Step::NeedMore);
        }
        server.query_started.get_or_insert(now);
        server.transaction_started.get_or_insert(now);
        if server.copy_in && !may_come_in_copy(tag) {
            // PostgreSQL fails the COPY for it, and answers nothing else.
            server.copy_in = false;
            server.replay.give_up();
            return Ok(self.forward(cut, wires));
        }
        match tag {
            FromClient::Query => Ok(self.query(cut, server, wires)),
            FromClient::Parse => self.parse(cut, server, catalog, wires),
            FromClient::Bind => self.bind(cut, server, wires),
            FromClient::Describe => self.describe(cut, server, wires),
            FromClient::Execute => self.execute(cut, server, wires),
            FromClient::Close => self.close(cut, server, wires),
            FromClient::Sync => self.sync(cut, server, wires),
            FromClient::FunctionCall => {
                server.replay.give_up();
                server.unsynced = Unsynced::Nothing;
                server.owed.push(Owed::Query(StatementKind::Other));
                server.opening.request_sent();
                Ok(self.forward(cut, wires))
            }
            FromClient::CopyData => Ok(self.copy_data(cut, server, wires)),
            FromClient::CopyDone | FromClient::CopyFail => Ok(self.copy_end(cut, server, wires)),
            FromClient::Flush => Ok(self.forward(cut, wires)),
            FromClient::Response | FromClient::Terminate => Err(unexpected_response()),
        }
    }

    fn query<W: Wires>(&mut self, cut: Cut<'_>, server: &mut Server, wires: &mut W) -> Step {
        if !cut.is_whole() && cut.header.total <= QUERY_BYTES_CLASSIFIED_MAX {
            return Step::NeedMore;
        }
        let kind = match (cut.is_whole(), frontend::read::query(cut.body())) {
            (true, Ok(sql)) => {
                let (kind, marks) = StatementKind::with_marks(sql);
                if let Some(report) = self.refusal(marks, sql) {
                    return refused_query(&report);
                }
                self.watch(marks, sql, server);
                self.note_begin(kind, marks, sql, server);
                kind
            }
            (false, _) | (true, Err(_)) => {
                server.begun = None;
                StatementKind::MayEnd
            }
        };
        server.replay.query(cut.bytes, kind, self.rules.retry_bytes_max);
        // A simple query destroys the unnamed statement (protocol chapter, "Extended Query").
        server.statements.forget_unnamed();
        self.statements.forget_unnamed();
        server.unsynced = Unsynced::Nothing;
        server.owed.push(Owed::Query(kind));
        server.opening.request_sent();
        self.forward(cut, wires)
    }

    fn sync<W: Wires>(&mut self, cut: Cut<'_>, server: &mut Server, wires: &mut W) -> Result<Step, Report> {
        if cut.header.total != HEADER_BYTES {
            return Err(protocol_violation("Sync message with a body"));
        }
        // During COPY IN PostgreSQL does not answer it.
        if !server.copy_in {
            server.batch += 1;
            server.unsynced = Unsynced::Nothing;
            server.replay.sync(cut.bytes, self.rules.retry_bytes_max);
            server.owed.push(Owed::Sync);
            server.opening.request_sent();
        }
        Ok(self.forward(cut, wires))
    }

    fn copy_data<W: Wires>(&mut self, cut: Cut<'_>, server: &mut Server, wires: &mut W) -> Step {
        if server.owed.is_empty() {
            return self.swallow(cut);
        }
        server.replay.give_up();
        self.forward(cut, wires)
    }

    fn copy_end<W: Wires>(&mut self, cut: Cut<'_>, server: &mut Server, wires: &mut W) -> Step {
        if server.owed.is_empty() {
            return self.swallow(cut);
        }
        server.replay.give_up();
        if !std::mem::take(&mut server.copy_in) {
            server.owed.push(Owed::CopyEnd);
        }
        self.forward(cut, wires)
    }

    /// Sends the frame on as it is; what has not arrived yet streams behind it.
    pub(crate) fn forward<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Step {
        wires.to_server(|out| out.extend_from_slice(cut.bytes));
        self.passed(cut)
    }

    /// The frame was sent on, as far as it has arrived; the rest streams behind it.
    pub(crate) fn passed(&mut self, cut: Cut<'_>) -> Step {
        self.has_run = true;
        self.passing = cut.header.total - cut.bytes.len();
        Step::Took(cut.bytes.len())
    }

    /// Drops the frame; what has not arrived yet is dropped when it does.
    pub(crate) fn swallow(&mut self, cut: Cut<'_>) -> Step {
        self.swallowing = cut.header.total - cut.bytes.len();
        Step::Took(cut.bytes.len())
    }

    /// After an error in a batch: everything up to the Sync is dropped.
    fn skip<W: Wires>(&mut self, tag: FromClient, cut: Cut<'_>, wires: &mut W) -> Step {
        if tag == FromClient::Sync {
            self.phase = Phase::Relaying;
            wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
        }
        self.swallow(cut)
    }

    /// The next request is answered with an error instead of being run.
    fn refuse<W: Wires>(&mut self, tag: FromClient, cut: Cut<'_>, wires: &mut W) -> Step {
        let simple = matches!(tag, FromClient::Query | FromClient::FunctionCall);
        if matches!(
            tag,
            FromClient::CopyData | FromClient::CopyDone | FromClient::CopyFail | FromClient::Flush
        ) {
            return self.swallow(cut);
        }
        let next = if simple { Phase::Relaying } else { Phase::Skipping };
        let Phase::Refusing(report) = std::mem::replace(&mut self.phase, next) else {
            return self.swallow(cut);
        };
        wires.to_client(|out| {
            backend::error(&report, out);
            if simple {
                backend::ready_for_query(self.tx.byte(), out);
            }
        });
        if tag == FromClient::Sync { self.skip(tag, cut, wires) } else { self.swallow(cut) }
    }

    /// True when the client is outside a transaction and waits for nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tx == TxStatus::Idle && matches!(self.phase, Phase::Relaying)
    }
}

/// Enough of a message has arrived to send something of it: before, no server connection is taken. (A client that never
/// sends the rest would keep it, and one that is given back at once would be asked for again at once.)
fn can_begin(tag: FromClient, cut: Cut<'_>) -> bool {
    if cut.is_whole() {
        return true;
    }
    let names_are_here = cut.body().len() > 2 * (frontend::read::NAME_BYTES_MAX + 1);
    match tag {
        FromClient::Parse if cut.body().first() == Some(&0) => cut.header.total > UNNAMED_BYTES_MAX,
        FromClient::Parse => cut.header.total > STATEMENT_BYTES_MAX && names_are_here,
        FromClient::Bind => cut.header.total > QUERY_BYTES_CLASSIFIED_MAX && names_are_here,
        FromClient::Query
        | FromClient::Describe
        | FromClient::Execute
        | FromClient::Close
        | FromClient::FunctionCall
        | FromClient::Flush
        | FromClient::Sync
        | FromClient::CopyData
        | FromClient::CopyDone
        | FromClient::CopyFail
        | FromClient::Response
        | FromClient::Terminate => cut.header.total > QUERY_BYTES_CLASSIFIED_MAX,
    }
}

/// A query that fails with this error.
fn refused_query(report: &Report) -> Step {
    let mut frame = Vec::new();
    frontend::query(&crate::state::raising(report), &mut frame);
    Step::Instead(frame)
}

/// What a client may say while PostgreSQL reads its COPY.
fn may_come_in_copy(tag: FromClient) -> bool {
    matches!(
        tag,
        FromClient::CopyData
            | FromClient::CopyDone
            | FromClient::CopyFail
            | FromClient::Flush
            | FromClient::Sync
            | FromClient::Response
            | FromClient::Terminate
    )
}

/// PgBouncer's words for a message of impossible or forbidden length: its first bytes.
fn bad_header(bytes: &[u8]) -> Report {
    let shown: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    protocol_violation(&format!("bad packet header: '{shown}'"))
}

pub(crate) fn protocol_violation(why: &str) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, why.to_owned())
}

fn unexpected_response() -> Report {
    protocol_violation("a password message outside the login")
}

/// Queries up to this size are classified (may they be repeated, do they end the transaction); longer ones stream
/// through, and count as unknown.
const QUERY_BYTES_CLASSIFIED_MAX: usize = 64 * 1024;
