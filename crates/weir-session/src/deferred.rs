//! A transaction that has only said BEGIN: weir answers it and takes no server connection for it. The BEGIN goes out in one
//! write with the first statement, and a block that ends before there is one never reaches PostgreSQL.
//!
//! It goes out as a batch of the extended protocol without a Sync: if it fails, PostgreSQL skips the statement behind it
//! instead of running it outside of a transaction. Until it has been answered, only one request is sent behind it; the
//! error of a BEGIN that fails answers that request, and weir plays the aborted block.

use std::time::Instant;

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::sql::{Begin, Classified, Count, Ending, Keyword, Marks, classify, lone_begin};
use weir_protocol::tag::{FromClient, FromServer};

use crate::aborted::Aborted;
use crate::from_server::Fate;
use crate::owed::Owed;
use crate::prepared::{Catalog, StatementKind};
use crate::server::{Server, Tally, TxStatus, Unsynced};
use crate::session::{Mode, Phase, Session};
use crate::wires::Wires;

/// A block that PostgreSQL knows nothing of yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deferred {
    begin: Begin,
    /// When the client said it.
    since: Instant,
}

/// How far the BEGIN has come that was sent in front of a client's first statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// There is none, or it has been answered.
    Over,
    /// It is on its way.
    Sent,
    /// It is on its way, and a whole request behind it.
    SentWithRequest,
    /// It has failed, and PostgreSQL waits for a Sync that the client does not owe.
    FailedInQuery,
    /// It has failed; the next ReadyForQuery is the end of it.
    Failed,
    /// It has failed and PostgreSQL is done with it; the client has yet to be told of its aborted block.
    Ended,
}

impl Opening {
    /// A whole request was sent.
    pub(crate) fn request_sent(&mut self) {
        if *self == Opening::Sent {
            *self = Opening::SentWithRequest;
        }
    }
}

/// What a statement does to a block that PostgreSQL knows nothing of.
enum Act {
    Begins(Begin),
    /// With this tag.
    Ends(&'static str),
    /// The same, and another one of the same kind begins.
    Chains(&'static str),
}

impl Session {
    /// A whole Query, or a batch with one Execute and its Sync, that is answered without a server connection. Returns how
    /// many of these bytes are done with.
    pub(crate) fn answer_deferred<W: Wires>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Option<usize> {
        if !self.may_defer() {
            return None;
        }
        let mut rest = bytes;
        match next(&mut rest)? {
            (FromClient::Query, body) if !self.rules.refuses_simple_queries => {
                let act = self.act_of(frontend::read::query(body).ok()?)?;
                self.statements.forget_unnamed();
                self.play(now, act, wires);
            }
            (FromClient::Parse, body) => {
                let parse = frontend::read::parse(body).ok()?;
                if !parse.name.is_empty() || parse.types_raw != frontend::NO_TYPES {
                    return None;
                }
                let act = self.act_of(parse.sql)?;
                let describes = rest_of_batch(&mut rest)?;
                let judged = StatementKind::with_marks(parse.sql);
                self.statements.set_unnamed(catalog.next_unnamed(), judged, body.get(1..));
                wires.to_client(|out| {
                    backend::parse_complete(out);
                    backend::bind_complete(out);
                    if describes {
                        backend::no_data(out);
                    }
                });
                self.play(now, act, wires);
            }
            (_, _) => return None,
        }
        Some(bytes.len() - rest.len())
    }

    fn may_defer(&self) -> bool {
        match self.phase {
            Phase::Deferred(_) => true,
            Phase::Relaying => {
                self.rules.defers_begin
                    && self.mode == Mode::Transaction
                    && self.tx == TxStatus::Idle
                    && self.passing + self.swallowing == 0
            }
            Phase::Skipping | Phase::Aborted(_) | Phase::Refusing(_) => false,
        }
    }

    fn act_of(&self, sql: &[u8]) -> Option<Act> {
        match self.phase {
            Phase::Deferred(_) => ending(classify(sql)),
            Phase::Relaying | Phase::Skipping | Phase::Aborted(_) | Phase::Refusing(_) => {
                lone_begin(sql).map(Act::Begins)
            }
        }
    }

    fn play<W: Wires>(&mut self, now: Instant, act: Act, wires: &mut W) {
        self.answered.queries += 1;
        let (tag, next) = match (act, &self.phase) {
            (Act::Begins(begin), _) => (begin.tag(), Some(begin)),
            (Act::Chains(tag), Phase::Deferred(block)) => (tag, Some(block.begin)),
            (Act::Ends(tag) | Act::Chains(tag), _) => (tag, None),
        };
        if let Phase::Deferred(block) = &self.phase {
            self.answered.transactions += 1;
            let lasted = now.saturating_duration_since(block.since).as_micros();
            self.answered.transaction_micros += u64::try_from(lasted).unwrap_or(u64::MAX);
        }
        match next {
            Some(begin) => self.defer(now, begin),
            None => (self.phase, self.tx) = (Phase::Relaying, TxStatus::Idle),
        }
        wires.to_client(|out| {
            backend::command_complete(tag, out);
            backend::ready_for_query(self.tx.byte(), out);
        });
    }

    /// The client is in a block that PostgreSQL will hear of with its first statement.
    pub(crate) fn defer(&mut self, now: Instant, begin: Begin) {
        self.phase = Phase::Deferred(Deferred { begin, since: now });
        self.tx = TxStatus::Open;
    }

    /// A statement is sent: notes what its transaction has begun with, in case that it is lost and AND CHAIN asks for another
    /// one like it. That is known if it began with a BEGIN of its own and nothing has run since but plain statements.
    pub(crate) fn note_begin(&self, kind: StatementKind, marks: Marks, text: &[u8], server: &mut Server) {
        let keeps = match kind {
            StatementKind::Repeatable => !marks.has(Marks::SETTING),
            StatementKind::CommitAndChain | StatementKind::RollbackAndChain => true,
            StatementKind::Commit
            | StatementKind::Rollback
            | StatementKind::MayEnd
            | StatementKind::Other => false,
        };
        if self.tx == TxStatus::Idle {
            let begin = if kind == StatementKind::Other { lone_begin(text) } else { None };
            // Behind requests that are still under way it may be another transaction's second.
            let is_first =
                |_: &Begin| !server.owed.iter().any(|owed| owed.ends_in_ready() && !owed.is_hidden());
            server.begun = begin.filter(is_first);
        } else if !keeps {
            server.begun = None;
        }
    }

    /// A statement is about to be sent: its transaction begins on this server connection.
    pub(crate) fn begin_block<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        let Phase::Deferred(Deferred { begin, since }) = self.phase else { return };
        self.phase = Phase::Relaying;
        wires.to_server(|out| frontend::begin(begin, out));
        server.statements.forget_unnamed();
        server.replay.give_up();
        server.transaction_started = Some(since);
        server.begun = Some(begin);
        server.opening = Opening::Sent;
        server.owed.push(Owed::HiddenBegin);
    }

    /// A reply while that of a hidden BEGIN is owed first; `None` for what may come at any time.
    pub(crate) fn fate_of_begin(
        &mut self,
        tag: FromServer,
        body: &[u8],
        server: &mut Server,
    ) -> Option<Fate> {
        if matches!(tag, FromServer::ParseComplete | FromServer::BindComplete | FromServer::CommandComplete) {
            return Some(Fate::Drop);
        }
        if tag == FromServer::CloseComplete {
            server.owed.pop();
            server.opening = Opening::Over;
            server.status = TxStatus::Open;
            return Some(Fate::Drop);
        }
        (tag == FromServer::ErrorResponse && !is_last_word(body)).then(|| self.begin_failed(server))
    }

    /// BEGIN has failed, and what was sent behind it is skipped. Its error answers that.
    fn begin_failed(&mut self, server: &mut Server) -> Fate {
        server.owed.pop();
        server.failed = true;
        if let Some(Owed::Query(_)) = server.owed.head() {
            server.owed.pop();
            server.owed.push(Owed::Sync);
            server.opening = Opening::FailedInQuery;
            return Fate::Forward;
        }
        server.opening = Opening::Failed;
        self.skip_to_sync(server);
        Fate::Forward
    }

    /// Sends the Sync that PostgreSQL waits for behind a BEGIN that has failed in front of a Query, once the Query has been
    /// sent to its end: a long one may still be on its way.
    pub(crate) fn sync_failed_begin<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        if server.opening == Opening::FailedInQuery && self.passing == 0 {
            server.opening = Opening::Failed;
            wires.to_server(frontend::sync);
        }
    }

    /// ReadyForQuery behind a BEGIN that has failed: PostgreSQL is outside of a transaction, and the client in an aborted one.
    pub(crate) fn end_failed_begin(&mut self, server: &mut Server) {
        server.opening = Opening::Ended;
        self.tx = TxStatus::Failed;
        self.phase = Phase::Aborted(Box::new(Aborted::told(server.begun)));
    }

    /// The client's own ReadyForQuery in place of PostgreSQL's. No other one is weir's to give: what weir asks next on this
    /// server connection is answered with one, too.
    pub(crate) fn tell_of_failed_begin<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        if server.opening == Opening::Ended {
            server.opening = Opening::Over;
            wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
        }
    }

    /// What such a block begins with.
    pub(crate) fn deferred_begin(&self) -> Option<Begin> {
        match &self.phase {
            Phase::Deferred(block) => Some(block.begin),
            Phase::Relaying | Phase::Skipping | Phase::Aborted(_) | Phase::Refusing(_) => None,
        }
    }

    /// Figures of requests that were answered without a server connection, since they were taken last.
    pub fn take_answered(&mut self) -> Option<Tally> {
        (self.answered != Tally::default()).then(|| std::mem::take(&mut self.answered))
    }

    /// The time between these two does not count for a block that PostgreSQL knows nothing of yet: nobody could have begun it.
    pub fn stood_still(&mut self, since: Instant, until: Instant) {
        if let Phase::Deferred(block) = &mut self.phase {
            block.since += until.saturating_duration_since(block.since.max(since));
        }
    }

    /// When the client said the BEGIN that PostgreSQL knows nothing of yet; later, if [`Session::stood_still`] says so.
    #[must_use]
    pub fn deferred_since(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Deferred(block) => Some(block.since),
            Phase::Relaying | Phase::Skipping | Phase::Aborted(_) | Phase::Refusing(_) => None,
        }
    }
}

impl Server {
    /// The client's next request has to wait until it is known whether its transaction has begun.
    pub(crate) fn holds_requests_back(&self) -> bool {
        match self.opening {
            Opening::Over | Opening::Sent | Opening::Ended => false,
            Opening::SentWithRequest | Opening::FailedInQuery => true,
            Opening::Failed => self.owed.ready_owed() > 0,
        }
    }

    /// PostgreSQL skips everything up to a Sync that has not been sent.
    pub(crate) fn waits_for_sync(&mut self) {
        if self.owed.ready_owed() == 0 {
            self.unsynced = Unsynced::Work;
        }
    }
}

/// The next whole message.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(FromClient, &'a [u8])> {
    let header = frame::peek(rest, MESSAGE_BYTES_MAX).ok()??;
    let (message, behind) = rest.split_at_checked(header.total)?;
    *rest = behind;
    Some((FromClient::of(header.tag)?, message.get(HEADER_BYTES..)?))
}

/// What follows the Parse of a batch that runs the unnamed statement once: Bind without values, perhaps Describe, Execute,
/// Sync. Whether there is a Describe; `None` if it is anything else, or has not arrived yet.
fn rest_of_batch(rest: &mut &[u8]) -> Option<bool> {
    let (FromClient::Bind, body) = next(rest)? else { return None };
    // No names, no formats, no values; formats of results do not matter.
    if !body.starts_with(&[0, 0, 0, 0, 0, 0]) {
        return None;
    }
    let (mut tag, mut body) = next(rest)?;
    let describes = tag == FromClient::Describe;
    if describes {
        if frontend::read::describe(body).ok()? != (TargetKind::Portal, b"") {
            return None;
        }
        (tag, body) = next(rest)?;
    }
    let is_execute = tag == FromClient::Execute && frontend::read::execute(body).ok()?.portal.is_empty();
    let is_synced = is_execute && matches!(next(rest)?, (FromClient::Sync, []));
    is_synced.then_some(describes)
}

/// The end of a block in which nothing has run.
fn ending(class: Classified) -> Option<Act> {
    if class.statements != Count::One {
        return None;
    }
    let tag = if matches!(class.first, Keyword::Commit | Keyword::End) {
        "COMMIT"
    } else if matches!(class.first, Keyword::Rollback | Keyword::Abort) {
        "ROLLBACK"
    } else {
        return None;
    };
    match class.ending? {
        Ending::Plain => Some(Act::Ends(tag)),
        Ending::Chains => Some(Act::Chains(tag)),
        Ending::Unclear => None,
    }
}

fn is_last_word(body: &[u8]) -> bool {
    backend::read::report(body).is_ok_and(|fields| fields.ends_connection())
}
