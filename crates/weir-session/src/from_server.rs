//! What PostgreSQL sends to an attached client: forwarded in runs, except for what answers weir's own messages, what kills
//! the connection, and what weir has to know (transaction status, reported parameters, statements that are there now).

use std::rc::Rc;
use std::time::Instant;

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromServer;

use crate::again::Again;
use crate::deferred::Opening;
use crate::owed::{Owed, ParseOf};
use crate::prepared::{Catalog, StatementKind};
use crate::run::Run;
use crate::server::{Answered, Server, TxStatus, Unsynced};
use crate::session::{Mode, Session, Then, Turn};
use crate::settings::IN_HOT_STANDBY;
use crate::state::is_last_word;
use crate::wires::Wires;

/// What to do with one frame from the server.
pub(crate) enum Fate {
    Forward,
    Drop,
    /// Kept back until it is known whether these were its last words.
    Hold,
    Stop(Then),
    /// Drop it, and what of the same reply has not been forwarded: the request runs again.
    Withdraw,
    /// Drop it, and end the turn behind it.
    Last(Then),
}

impl Session {
    /// Bytes from the attached server connection, starting with what the last turn did not consume.
    pub fn from_server<W: Wires>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        server: &mut Server,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Turn {
        let mut run = Run { bytes, start: 0, at: 0 };
        run.pass(server);
        self.answer_locally(server, &mut run, wires);
        while let Some(header) = match frame::peek(run.rest(), MESSAGE_BYTES_MAX) {
            Ok(header) => header,
            Err(_) => return self.stop(run, Then::Desync("a message of impossible length"), server, wires),
        } {
            if header.body_bytes() + LENGTH_WORD_BYTES > self.rules.message_bytes_max as usize {
                server.out_of_step = true;
                return self.stop(run, Then::Refuse(Box::new(too_long())), server, wires);
            }
            // Rows come by the thousand and say nothing to weir.
            if header.tag == FromServer::DataRow.byte() && server.expects_rows() {
                run.keep(header, server);
                continue;
            }
            let whole = run.rest().len() >= header.total;
            let Some(tag) = FromServer::of(header.tag) else {
                return self.stop(run, Then::Desync("an unknown message type"), server, wires);
            };
            let asks = matches!(server.owed.head(), Some(Owed::HiddenState { .. }));
            if !whole && (is_looked_into(tag) || asks) && header.total <= LOOKED_INTO_BYTES_MAX {
                break;
            }
            let body = &run.rest()[HEADER_BYTES..header.total.min(run.rest().len())];
            match self.fate(now, tag, body, whole, server, catalog) {
                Fate::Forward => {
                    run.give_warning(server, wires);
                    run.keep(header, server);
                }
                Fate::Drop => run.skip(header, server, wires),
                Fate::Hold => run.hold(header, server, wires),
                Fate::Withdraw => {
                    run.withdraw();
                    run.skip(header, server, wires);
                }
                Fate::Last(then) => {
                    run.skip(header, server, wires);
                    return self.stop(run, then, server, wires);
                }
                Fate::Stop(then) => return self.stop(run, then, server, wires),
            }
            if let Some(then) = self.after(tag, server, &mut run, wires) {
                return self.stop(run, then, server, wires);
            }
        }
        run.flush(server, wires);
        // What came behind the last ReadyForQuery is still this client's, and may be the connection's last words.
        let released = run.at == bytes.len() && self.may_release(server);
        Turn { consumed: run.at, then: if released { Then::Release } else { Then::Continue } }
    }

    /// Ends the turn in front of the next frame.
    fn stop<W: Wires>(&self, mut run: Run<'_>, then: Then, server: &mut Server, wires: &mut W) -> Turn {
        // A request that is going to be repeated has not been answered at all.
        if !(matches!(then, Then::Lost) && self.was_rolled_back(server)) {
            run.flush(server, wires);
        }
        server.out_of_step |= matches!(then, Then::Desync(_));
        Turn { consumed: run.at, then }
    }

    /// Decides over one frame and notes what it says.
    fn fate(
        &mut self,
        now: Instant,
        tag: FromServer,
        body: &[u8],
        whole: bool,
        server: &mut Server,
        catalog: &mut Catalog,
    ) -> Fate {
        if server.owed.head().is_some_and(Owed::is_hidden_query) {
            return self.fate_of_hidden(tag, body, whole, server, catalog);
        }
        if matches!(server.owed.head(), Some(Owed::HiddenBegin))
            && let Some(fate) = self.fate_of_begin(tag, body, server)
        {
            return fate;
        }
        match tag {
            FromServer::ReadyForQuery => self.ready(now, body, server),
            FromServer::ErrorResponse => self.error(body, server),
            FromServer::NoticeResponse => notice(body),
            FromServer::ParameterStatus => self.parameter(body, whole, server, catalog),
            FromServer::ParseComplete => self.parse_complete(server),
            FromServer::CloseComplete => match server.owed.pop() {
                Some(Owed::HiddenClose(evicted)) => {
                    if let Some(statement) = evicted {
                        server.statements.evicted(statement.id);
                    }
                    Fate::Drop
                }
                Some(Owed::Close) => Fate::Forward,
                _ => Fate::Stop(Then::Desync("CloseComplete")),
            },
            FromServer::BindComplete => match server.owed.pop() {
                Some(Owed::Bind) => Fate::Forward,
                _ => Fate::Stop(Then::Desync("BindComplete")),
            },
            FromServer::RowDescription | FromServer::NoData => match server.owed.head() {
                Some(Owed::Describe { .. }) => {
                    server.owed.pop();
                    Fate::Forward
                }
                Some(Owed::Query(_)) if tag == FromServer::RowDescription => Fate::Forward,
                // EXECUTE of FETCH and the like give rows without a description; nothing else describes.
                _ => Fate::Stop(Then::Desync("RowDescription")),
            },
            FromServer::CommandComplete | FromServer::EmptyQueryResponse | FromServer::PortalSuspended => {
                self.completed(tag, body, server)
            }
            FromServer::CopyInResponse | FromServer::CopyBothResponse => copy_in_started(server),
            FromServer::Authentication
            | FromServer::BackendKeyData
            | FromServer::NegotiateProtocolVersion => {
                Fate::Stop(Then::Desync("a login message after the login"))
            }
            FromServer::ParameterDescription
            | FromServer::DataRow
            | FromServer::CopyOutResponse
            | FromServer::CopyData
            | FromServer::CopyDone
            | FromServer::FunctionCallResponse => match server.owed.is_empty() {
                true => Fate::Stop(Then::Desync("a reply that nothing asked for")),
                false => Fate::Forward,
            },
            FromServer::NotificationResponse => Fate::Forward,
        }
    }

    /// What follows a frame: replies that weir gives itself, the end of a transaction.
    fn after<W: Wires>(
        &mut self,
        tag: FromServer,
        server: &mut Server,
        run: &mut Run<'_>,
        wires: &mut W,
    ) -> Option<Then> {
        self.answer_locally(server, run, wires);
        if tag == FromServer::ErrorResponse {
            self.sync_failed_begin(server, wires);
        }
        if tag != FromServer::ReadyForQuery {
            return None;
        }
        self.tell_of_failed_begin(server, wires);
        if self.mode == Mode::Statement {
            if server.status != TxStatus::Idle {
                // Nobody is to believe that the block has begun.
                run.withdraw();
                return Some(Then::Refuse(Box::new(no_blocks())));
            }
            run.flush(server, wires);
        }
        if server.applying.is_none()
            && !Rc::ptr_eq(&self.told, &server.reported)
            && server.owed.head().is_some()
        {
            run.flush(server, wires);
            self.tell_news(server, wires);
        }
        self.tend_state(server, wires);
        None
    }

    fn answer_locally<W: Wires>(&mut self, server: &mut Server, run: &mut Run<'_>, wires: &mut W) {
        if matches!(server.owed.head(), Some(Owed::LocalParse(_) | Owed::LocalClose(_) | Owed::CopyEnd)) {
            run.flush(server, wires);
            self.give_local_replies(server, wires);
        }
    }

    /// Gives the replies that are weir's to give and are next in the queue.
    pub(crate) fn give_local_replies<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        // Not in the middle of a message.
        while server.relaying == 0 {
            match server.owed.head() {
                Some(Owed::LocalParse(_)) => wires.to_client(backend::parse_complete),
                Some(Owed::LocalClose(_)) => wires.to_client(backend::close_complete),
                Some(Owed::CopyEnd) => {}
                _ => return,
            }
            if !matches!(server.owed.pop(), Some(Owed::CopyEnd)) {
                server.replay.give_up();
            }
        }
    }

    fn ready(&mut self, now: Instant, body: &[u8], server: &mut Server) -> Fate {
        match server.owed.pop() {
            Some(Owed::Query(_) | Owed::Sync) => {}
            // The COPY had failed before PostgreSQL read over this Sync.
            None if server.syncs_in_doubt > 0 => {
                server.syncs_in_doubt -= 1;
                server.unsynced = Unsynced::Nothing;
            }
            _ => return Fate::Stop(Then::Desync("ReadyForQuery")),
        }
        let Some(status) = body.first().and_then(|byte| TxStatus::from_byte(*byte)) else {
            return Fate::Stop(Then::Desync("ReadyForQuery with an unknown status"));
        };
        server.status = status;
        server.copy_in = false;
        self.tx = status;
        self.retried = false;
        server.failed = false;
        server.answered = Answered::Nothing;
        server.replay.give_up();
        if server.owed.is_empty() {
            server.answered_uses = server.statements.clock();
        }
        if status == TxStatus::Idle {
            self.named_portals = StatementKind::Other;
        }
        if let Some(Again { bytes, elsewhere }) = server.again.take() {
            self.retried = true;
            return Fate::Last(if elsewhere { Then::Elsewhere(bytes) } else { Then::Again(bytes) });
        }
        server.count_ready(now);
        if server.opening == Opening::Failed {
            self.end_failed_begin(server);
            return Fate::Drop;
        }
        Fate::Forward
    }

    /// An error in a batch: PostgreSQL skips everything up to the Sync, which may not have been sent yet.
    pub(crate) fn skip_to_sync(&mut self, server: &mut Server) {
        let skipped: Vec<Owed> = std::iter::from_fn(|| server.owed.pop_skipped()).collect();
        for owed in skipped.into_iter().rev() {
            self.undo(owed, server);
        }
        server.waits_for_sync();
    }

    fn error(&mut self, body: &[u8], server: &mut Server) -> Fate {
        if let Ok(fields) = backend::read::report(body) {
            if fields.ends_connection() {
                server.note_dying(&fields);
                return Fate::Stop(Then::Lost);
            }
            self.plan_again(&fields, server);
        }
        server.copy_in = false;
        match server.owed.head() {
            None => return Fate::Forward,
            Some(Owed::Query(_)) => {}
            Some(_) => {
                self.skip_to_sync(server);
            }
        }
        server.failed = true;
        let Some(again) = &server.again else { return Fate::Forward };
        self.forget_parsed_in(&again.bytes);
        Fate::Withdraw
    }

    /// PostgreSQL skipped (or failed) what this entry stands for.
    pub(crate) fn undo(&mut self, skipped: Owed, server: &mut Server) {
        match skipped {
            Owed::Parse(ParseOf::Named(id, name)) => {
                server.statements.refuted(id);
                if let Some(name) = name {
                    self.statements.remove(&name);
                }
            }
            Owed::HiddenParse(ParseOf::Named(id, _)) => server.statements.refuted(id),
            Owed::LocalParse(Some(name)) => {
                self.statements.remove(&name);
            }
            // If it was skipped, PostgreSQL still has the one before, which weir has not kept: to have none is the safe side.
            Owed::Parse(ParseOf::Unnamed(mark)) => {
                server.statements.unnamed_refuted(mark);
                self.statements.unnamed_refuted(mark);
            }
            Owed::HiddenParse(ParseOf::Unnamed(mark)) => server.statements.unnamed_refuted(mark),
            Owed::LocalClose(Some((name, statement))) => self.statements.insert(name, statement),
            Owed::HiddenClose(Some(statement)) => server.statements.not_evicted(statement),
            Owed::Query(_)
            | Owed::Sync
            | Owed::Parse(ParseOf::AsIs | ParseOf::Taken(_))
            | Owed::HiddenParse(ParseOf::AsIs | ParseOf::Taken(_))
            | Owed::LocalParse(None)
            | Owed::Bind
            | Owed::Describe { .. }
            | Owed::Execute(_)
            | Owed::Close
            | Owed::LocalClose(None)
            | Owed::HiddenClose(None)
            | Owed::HiddenSettings
            | Owed::HiddenState { .. }
            | Owed::HiddenBegin
            | Owed::CopyEnd => {}
        }
    }

    fn parameter(&mut self, body: &[u8], whole: bool, server: &mut Server, catalog: &mut Catalog) -> Fate {
        let Some((name, value)) = parameter_text(body, whole) else { return Fate::Forward };
        if name == IN_HOT_STANDBY {
            server.set_standby(value == "on");
            return Fate::Drop;
        }
        let told_all = Rc::ptr_eq(&self.told, &server.reported);
        if server.reported.value(name) != Some(value) && Rc::make_mut(&mut server.reported).note(name, value)
        {
            server.reported = catalog.reported.intern_shared(&server.reported);
            server.watch.reported_changed = true;
        }
        if told_all {
            self.told = Rc::clone(&server.reported);
        } else if self.told.value(name) != Some(value) {
            Rc::make_mut(&mut self.told).note(name, value);
        }
        Fate::Forward
    }

    fn completed(&mut self, tag: FromServer, body: &[u8], server: &mut Server) -> Fate {
        let said = tag == FromServer::CommandComplete;
        let tag_text = if said { backend::read::command_tag(body).unwrap_or_default() } else { b"" };
        let by_text_unknown = match server.owed.head() {
            Some(Owed::Execute(kind)) => {
                let kind = *kind;
                server.owed.pop();
                note_executed(kind, tag_text, false, server);
                kind == StatementKind::MayEnd
            }
            Some(Owed::Query(kind)) if tag != FromServer::PortalSuspended => {
                let kind = *kind;
                note_executed(kind, tag_text, true, server);
                kind == StatementKind::MayEnd
            }
            _ => return Fate::Stop(Then::Desync("CommandComplete")),
        };
        // From here on the request may be committed: a Sync commits what a portal has left unfinished, too.
        server.replay.give_up();
        if tag == FromServer::CommandComplete {
            // A COPY that has ended well has read over everything in front of its end.
            server.syncs_in_doubt = 0;
            self.note_tag(tag_text, by_text_unknown, server);
        }
        Fate::Forward
    }

    /// Commands that change what the connection carries.
    fn note_tag(&mut self, tag: &[u8], text_is_unknown: bool, server: &mut Server) {
        if text_is_unknown {
            self.suspect_by_tag(tag, server);
        }
        match tag {
            b"DISCARD ALL" => {
                server.watch.hides = false;
                self.forget_named(server);
            }
            b"DEALLOCATE ALL" => self.forget_named(server),
            _ => {}
        }
    }

    fn parse_complete(&mut self, server: &mut Server) -> Fate {
        match server.owed.pop() {
            Some(Owed::Parse(ParseOf::Named(id, _))) => {
                server.statements.confirm(id);
                Fate::Forward
            }
            Some(Owed::Parse(ParseOf::AsIs)) => Fate::Forward,
            Some(Owed::Parse(ParseOf::Taken(taken))) => {
                // The name has become free in the meantime.
                server.statements.replaced(taken.held);
                self.statements.insert(taken.name, taken.asked);
                Fate::Forward
            }
            Some(Owed::Parse(ParseOf::Unnamed(_))) => {
                server.statements.unnamed_confirmed();
                Fate::Forward
            }
            Some(Owed::HiddenParse(of)) => {
                match of {
                    ParseOf::Named(id, _) => server.statements.confirm(id),
                    ParseOf::Unnamed(_) => server.statements.unnamed_confirmed(),
                    ParseOf::AsIs | ParseOf::Taken(_) => {}
                }
                Fate::Drop
            }
            _ => Fate::Stop(Then::Desync("ParseComplete")),
        }
    }

    /// Named statements are gone, except for those whose Parse is behind the command in flight.
    fn forget_named(&mut self, server: &mut Server) {
        server.statements.forget_named();
        let newer: Vec<&[u8]> = server.owed.iter().filter_map(Owed::promised_name).collect();
        self.statements.forget_named(|name| newer.contains(&name));
    }

    /// The reply to a simple query of weir's own.
    fn fate_of_hidden(
        &mut self,
        tag: FromServer,
        body: &[u8],
        whole: bool,
        server: &mut Server,
        catalog: &mut Catalog,
    ) -> Fate {
        if matches!(server.owed.head(), Some(Owed::HiddenSettings)) {
            return self.fate_of_settings_reply(tag, body, server, catalog);
        }
        self.fate_of_state_reply(tag, body, whole, server, catalog)
    }

    /// The reply to a query about session state.
    fn fate_of_state_reply(
        &mut self,
        tag: FromServer,
        body: &[u8],
        whole: bool,
        server: &mut Server,
        catalog: &mut Catalog,
    ) -> Fate {
        if tag == FromServer::ParameterStatus {
            return self.parameter(body, whole, server, catalog);
        }
        if is_last_word(tag, body) {
            return self.error(body, server);
        }
        let forwards = self.hear_about_state(tag, body, whole, server, catalog);
        if forwards { Fate::Forward } else { Fate::Drop }
    }

    /// The reply to the query that applies startup parameters: all of it is weir's business.
    fn fate_of_settings_reply(
        &mut self,
        tag: FromServer,
        body: &[u8],
        server: &mut Server,
        catalog: &mut Catalog,
    ) -> Fate {
        if tag == FromServer::ReadyForQuery {
            server.owed.pop();
            server.reported = catalog.reported.intern_shared(&server.reported);
            server.reported_at_checkout = Rc::clone(&server.reported);
            server.applied = server.applying.take();
        } else if tag == FromServer::ParameterStatus {
            server.note_reported(body);
        } else if tag == FromServer::ErrorResponse {
            return match backend::read::report(body) {
                Ok(fields) if fields.ends_connection() => self.error(body, server),
                Ok(_) | Err(_) => Fate::Stop(Then::SettingsRefused(body.to_vec())),
            };
        }
        Fate::Drop
    }
}

/// PostgreSQL reads a COPY from here on.
fn copy_in_started(server: &mut Server) -> Fate {
    let copy = server.owed.copy_in_started();
    server.copy_in = copy.open;
    server.syncs_in_doubt += copy.syncs_ignored;
    if copy.syncs_ignored > 0 && server.owed.ready_owed() == 0 {
        server.unsynced = Unsynced::Work;
    }
    Fate::Forward
}

/// What a statement that has succeeded did to the transaction.
fn note_executed(kind: StatementKind, tag: &[u8], by_query: bool, server: &mut Server) {
    let sure = matches!(kind, StatementKind::Commit | StatementKind::Rollback);
    match tag {
        b"COMMIT" | b"PREPARE TRANSACTION" | b"ROLLBACK" if sure => {
            server.answered = Answered::End { by_query };
            server.unsynced = server.unsynced.min(Unsynced::Names);
        }
        // With AND CHAIN, or from one of several portals; ROLLBACK TO has the tag ROLLBACK but is of no such kind.
        b"COMMIT" | b"PREPARE TRANSACTION" | b"ROLLBACK" if kind.may_end() => {
            server.answered = Answered::EndThenWork;
        }
        _ => {
            let ended = server.answered.has_ended();
            server.answered = if ended { Answered::EndThenWork } else { Answered::Work };
            if server.unsynced != Unsynced::Nothing {
                server.unsynced = Unsynced::Work;
            }
        }
    }
}

/// An immediate shutdown warns (57P02), and so does a commit that was not replicated yet (57P01): after both nobody knows
/// whether the request was executed, and the client gets one honest error. A function may raise the same, and goes on.
fn notice(body: &[u8]) -> Fate {
    match backend::read::report(body) {
        Ok(fields) if fields.severity == b"WARNING" && matches!(fields.code, b"57P01" | b"57P02") => {
            Fate::Hold
        }
        Ok(_) | Err(_) => Fate::Forward,
    }
}

pub(crate) fn parameter_text(body: &[u8], whole: bool) -> Option<(&str, &str)> {
    let (name, value) = whole.then(|| backend::read::parameter_status(body).ok())??;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// Messages whose body weir reads.
fn is_looked_into(tag: FromServer) -> bool {
    matches!(
        tag,
        FromServer::ReadyForQuery
            | FromServer::ErrorResponse
            | FromServer::NoticeResponse
            | FromServer::ParameterStatus
            | FromServer::CommandComplete
    )
}

/// PgBouncer's words for a message of forbidden length from a server.
fn too_long() -> weir_protocol::message::Report {
    weir_protocol::message::Report::fatal(SqlState::PROTOCOL_VIOLATION, "bad pkt header")
}

fn no_blocks() -> weir_protocol::message::Report {
    weir_protocol::message::Report::fatal(
        SqlState::FEATURE_NOT_SUPPORTED,
        "transaction blocks not allowed in statement pooling mode",
    )
    .hint("Use transaction pooling for this database.")
}

/// What a message's length counts beside its body.
const LENGTH_WORD_BYTES: usize = 4;

/// Messages that weir reads are waited for up to this size; longer ones are forwarded unread.
pub(crate) const LOOKED_INTO_BYTES_MAX: usize = 64 * 1024;
pub(crate) const LOOKED_INTO_BYTES_MAX_U32: u32 = 64 * 1024;
