//! What PostgreSQL sends to an attached client: forwarded in runs, except for what answers weir's own messages, what kills
//! the connection, and what weir has to know (transaction status, reported parameters, statements that are there now).

use std::rc::Rc;
use std::time::Instant;

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, Header, MESSAGE_BYTES_MAX};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromServer;

use crate::lost::LossCause;
use crate::owed::{Owed, ParseOf};
use crate::prepared::Catalog;
use crate::server::{Dying, Server, TxStatus};
use crate::session::{Mode, Session, Then, Turn};
use crate::settings::{IN_HOT_STANDBY, Settings};
use crate::wires::Wires;

/// What to do with one frame from the server.
enum Fate {
    Forward,
    Drop,
    Stop(Then),
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
        while let Some(header) = match frame::peek(run.rest(), MESSAGE_BYTES_MAX) {
            Ok(header) => header,
            Err(_) => return run.stop(Then::Desync("a message of impossible length"), server, wires),
        } {
            let whole = run.rest().len() >= header.total;
            let Some(tag) = FromServer::of(header.tag) else {
                return run.stop(Then::Desync("an unknown message type"), server, wires);
            };
            if !whole && is_looked_into(tag) && header.total <= LOOKED_INTO_BYTES_MAX {
                break;
            }
            let body = &run.rest()[HEADER_BYTES..header.total.min(run.rest().len())];
            match self.fate(now, tag, body, whole, server, catalog) {
                Fate::Forward => run.keep(header, server),
                Fate::Drop => run.skip(header, server, wires),
                Fate::Stop(then) => return run.stop(then, server, wires),
            }
            if let Some(then) = self.after(tag, server, &mut run, wires) {
                return run.stop(then, server, wires);
            }
        }
        run.flush(server, wires);
        Turn { consumed: run.at, then: Then::Continue }
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
        if matches!(server.owed.head(), Some(Owed::HiddenSettings)) {
            return self.fate_of_settings_reply(tag, body, server, catalog);
        }
        match tag {
            FromServer::ReadyForQuery => self.ready(now, body, server),
            FromServer::ErrorResponse => self.error(body, server),
            FromServer::NoticeResponse => notice(body, server),
            FromServer::ParameterStatus => self.parameter(body, whole, server, catalog),
            FromServer::ParseComplete => parse_complete(server),
            FromServer::CloseComplete => match server.owed.pop() {
                Some(Owed::HiddenClose(_)) => Fate::Drop,
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
            FromServer::CopyInResponse | FromServer::CopyBothResponse => {
                server.copy_in = server.owed.copy_in_started();
                Fate::Forward
            }
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
        if matches!(server.owed.head(), Some(Owed::LocalParse(_) | Owed::LocalClose(_) | Owed::CopyEnd)) {
            run.flush(server, wires);
            self.give_local_replies(server, wires);
        }
        if tag != FromServer::ReadyForQuery {
            return None;
        }
        if server.applying.is_none()
            && !Rc::ptr_eq(&self.told, &server.reported)
            && server.owed.head().is_some()
        {
            run.flush(server, wires);
            self.tell_news(server, wires);
        }
        if self.mode == Mode::Statement && server.status != TxStatus::Idle {
            run.flush(server, wires);
            return Some(Then::Refuse(Box::new(no_blocks())));
        }
        self.may_release(server).then_some(Then::Release)
    }

    /// Gives the replies that are weir's to give and are next in the queue.
    pub(crate) fn give_local_replies<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        loop {
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
        if !matches!(server.owed.pop(), Some(Owed::Query(_) | Owed::Sync)) {
            return Fate::Stop(Then::Desync("ReadyForQuery"));
        }
        let Some(status) = body.first().and_then(|byte| TxStatus::from_byte(*byte)) else {
            return Fate::Stop(Then::Desync("ReadyForQuery with an unknown status"));
        };
        server.status = status;
        server.copy_in = false;
        self.tx = status;
        self.retried = false;
        server.replay.give_up();
        if server.owed.is_empty() {
            server.answered_uses = server.statements.clock();
        }
        if status == TxStatus::Idle {
            self.named_portals = crate::prepared::StatementKind::Other;
        }
        server.count_ready(now);
        Fate::Forward
    }

    fn error(&mut self, body: &[u8], server: &mut Server) -> Fate {
        if let Ok(fields) = backend::read::report(body)
            && matches!(fields.severity, b"FATAL" | b"PANIC")
        {
            let code = SqlState::parse(fields.code).unwrap_or(SqlState::INTERNAL_ERROR);
            let message = String::from_utf8_lossy(fields.message).into_owned();
            server.dying = Some(Dying { code, message });
            return Fate::Stop(Then::Lost(LossCause::default()));
        }
        server.copy_in = false;
        if !matches!(server.owed.head(), Some(Owed::Query(_))) {
            while let Some(skipped) = server.owed.pop_skipped() {
                self.undo(skipped, server);
            }
        }
        Fate::Forward
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
            Owed::Parse(ParseOf::Unnamed) | Owed::HiddenParse(ParseOf::Unnamed) => {
                server.statements.unnamed = None
            }
            Owed::LocalClose(Some((name, statement))) => self.statements.insert(name, statement),
            Owed::HiddenClose(Some(id)) => server.statements.not_evicted(id),
            Owed::Query(_)
            | Owed::Sync
            | Owed::Parse(ParseOf::AsIs)
            | Owed::HiddenParse(ParseOf::AsIs)
            | Owed::LocalParse(None)
            | Owed::Bind
            | Owed::Describe { .. }
            | Owed::Execute(_)
            | Owed::Close
            | Owed::LocalClose(None)
            | Owed::HiddenClose(None)
            | Owed::HiddenSettings
            | Owed::CopyEnd => {}
        }
    }

    fn parameter(&mut self, body: &[u8], whole: bool, server: &mut Server, catalog: &mut Catalog) -> Fate {
        let Some((name, value)) = parameter_text(body, whole) else { return Fate::Forward };
        if name == IN_HOT_STANDBY {
            return Fate::Drop;
        }
        let told_all = Rc::ptr_eq(&self.told, &server.reported);
        if Rc::make_mut(&mut server.reported).note(name, value) {
            server.reported = catalog.reported.intern_shared(&server.reported);
            server.applied = None;
        }
        if told_all {
            self.told = Rc::clone(&server.reported);
        } else {
            Rc::make_mut(&mut self.told).note(name, value);
        }
        Fate::Forward
    }

    fn completed(&mut self, tag: FromServer, body: &[u8], server: &mut Server) -> Fate {
        match server.owed.head() {
            Some(Owed::Execute(_)) => {
                server.owed.pop();
            }
            Some(Owed::Query(_)) if tag != FromServer::PortalSuspended => {}
            _ => return Fate::Stop(Then::Desync("CommandComplete")),
        }
        if tag == FromServer::CommandComplete {
            // From here on the request may be committed.
            server.replay.give_up();
            self.note_tag(backend::read::command_tag(body).unwrap_or_default(), server);
        }
        Fate::Forward
    }

    /// Commands that change what the connection carries.
    fn note_tag(&mut self, tag: &[u8], server: &mut Server) {
        match tag {
            b"SET" | b"RESET" => server.applied = None,
            b"DISCARD ALL" => {
                server.applied = None;
                server.statements.forget_all();
                self.statements.forget_all();
            }
            b"DEALLOCATE ALL" => {
                server.statements.forget_all();
                self.statements.forget_all();
            }
            _ => {}
        }
    }

    /// The reply to the query that applies startup parameters: all of it is weir's business.
    fn fate_of_settings_reply(
        &mut self,
        tag: FromServer,
        body: &[u8],
        server: &mut Server,
        catalog: &mut Catalog,
    ) -> Fate {
        match tag {
            FromServer::ReadyForQuery => {
                server.owed.pop();
                server.reported = catalog.reported.intern_shared(&server.reported);
                server.applied = server.applying.take();
                Fate::Drop
            }
            FromServer::ParameterStatus => {
                if let Some((name, value)) = parameter_text(body, true) {
                    Rc::make_mut(&mut server.reported).note(name, value);
                }
                Fate::Drop
            }
            FromServer::ErrorResponse => match backend::read::report(body) {
                Ok(fields) if matches!(fields.severity, b"FATAL" | b"PANIC") => self.error(body, server),
                Ok(_) | Err(_) => Fate::Stop(Then::SettingsRefused(body.to_vec())),
            },
            _ => Fate::Drop,
        }
    }
}

impl Server {
    /// Bytes from a server connection that no client holds: notices, parameter changes, its last words. Returns how many
    /// bytes are done with, or why it must be closed.
    pub fn idle_bytes(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut at = 0;
        while let Some(header) = frame::peek(&bytes[at..], MESSAGE_BYTES_MAX).map_err(|_| "a bad message")? {
            if header.total > LOOKED_INTO_BYTES_MAX {
                return Err("a long message while idle");
            }
            let Some(frame) = bytes.get(at..at + header.total) else { break };
            let body = &frame[HEADER_BYTES..];
            match FromServer::of(header.tag) {
                Some(FromServer::NoticeResponse | FromServer::NotificationResponse) => {}
                Some(FromServer::ParameterStatus) => {
                    if let Some((name, value)) = parameter_text(body, true) {
                        Rc::make_mut(&mut self.reported).note(name, value);
                    }
                }
                Some(FromServer::ErrorResponse) => {
                    self.note_dying(body);
                    return Err("an error while idle");
                }
                _ => return Err("an unexpected message while idle"),
            }
            at += header.total;
        }
        Ok(at)
    }

    /// Bytes in reply to a reset query; takes whole messages from `carry`. True when the connection is clean.
    ///
    /// # Errors
    /// If the reset failed, or something else came.
    pub fn reset_reply(&mut self, carry: &mut Vec<u8>, carried: Rc<Settings>) -> Result<bool, &'static str> {
        while let Some(header) = frame::peek(carry, LOOKED_INTO_BYTES_MAX_U32).map_err(|_| "a bad message")? {
            if carry.len() < header.total {
                return Ok(false);
            }
            let frame: Vec<u8> = carry.drain(..header.total).collect();
            let body = &frame[HEADER_BYTES..];
            match FromServer::of(header.tag) {
                Some(FromServer::ReadyForQuery) if body == b"I" => {
                    self.was_reset(carried);
                    return Ok(true);
                }
                Some(FromServer::ParameterStatus) => {
                    if let Some((name, value)) = parameter_text(body, true) {
                        Rc::make_mut(&mut self.reported).note(name, value);
                    }
                }
                Some(FromServer::ErrorResponse) => return Err("an error"),
                Some(FromServer::ReadyForQuery) | None => return Err("an unexpected message"),
                Some(_) => {}
            }
        }
        Ok(false)
    }

    fn note_dying(&mut self, body: &[u8]) {
        if let Ok(fields) = backend::read::report(body) {
            let code = SqlState::parse(fields.code).unwrap_or(SqlState::INTERNAL_ERROR);
            self.dying = Some(Dying { code, message: String::from_utf8_lossy(fields.message).into_owned() });
        }
    }

    /// Counts a ReadyForQuery that a client was waiting for.
    fn count_ready(&mut self, now: Instant) {
        self.tally.queries += 1;
        if let Some(started) = self.query_started.take() {
            self.tally.query_micros += micros(now, started);
        }
        if self.owed.ready_owed() > 0 {
            self.query_started = Some(now);
        }
        if self.status == TxStatus::Idle {
            self.tally.transactions += 1;
            if let Some(started) = self.transaction_started.take() {
                self.tally.transaction_micros += micros(now, started);
            }
        }
    }
}

fn micros(now: Instant, then: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_micros()).unwrap_or(u64::MAX)
}

fn parse_complete(server: &mut Server) -> Fate {
    match server.owed.pop() {
        Some(Owed::Parse(ParseOf::Named(id, _))) => {
            server.statements.confirm(id);
            Fate::Forward
        }
        Some(Owed::Parse(ParseOf::Unnamed | ParseOf::AsIs)) => Fate::Forward,
        Some(Owed::HiddenParse(of)) => {
            if let ParseOf::Named(id, _) = of {
                server.statements.confirm(id);
            }
            Fate::Drop
        }
        _ => Fate::Stop(Then::Desync("ParseComplete")),
    }
}

/// An immediate shutdown warns (57P02), and so does a commit that was not replicated yet (57P01): neither is for the client,
/// who gets one honest error, and after both nobody knows whether the request was executed.
fn notice(body: &[u8], server: &mut Server) -> Fate {
    let Ok(fields) = backend::read::report(body) else { return Fate::Forward };
    if fields.severity == b"WARNING" && matches!(fields.code, b"57P01" | b"57P02") {
        server.warned = true;
        return Fate::Drop;
    }
    Fate::Forward
}

fn parameter_text(body: &[u8], whole: bool) -> Option<(&str, &str)> {
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

fn no_blocks() -> weir_protocol::message::Report {
    weir_protocol::message::Report::fatal(
        SqlState::FEATURE_NOT_SUPPORTED,
        "transaction blocks not allowed in statement pooling mode",
    )
    .hint("Use transaction pooling for this database.")
}

/// A stretch of the input that is forwarded in one piece.
struct Run<'a> {
    bytes: &'a [u8],
    start: usize,
    at: usize,
}

impl<'a> Run<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The rest of a message whose beginning came earlier.
    fn pass(&mut self, server: &mut Server) {
        let relayed = server.relaying.min(self.bytes.len());
        server.relaying -= relayed;
        self.at += relayed;
        let dropped = server.dropping.min(self.bytes.len() - self.at);
        server.dropping -= dropped;
        self.at += dropped;
        if relayed == 0 {
            self.start = self.at;
        }
    }

    fn keep(&mut self, header: Header, server: &mut Server) {
        let here = header.total.min(self.rest().len());
        self.at += here;
        server.relaying = header.total - here;
    }

    fn skip<W: Wires>(&mut self, header: Header, server: &mut Server, wires: &mut W) {
        self.flush(server, wires);
        let here = header.total.min(self.rest().len());
        self.at += here;
        self.start = self.at;
        server.dropping = header.total - here;
    }

    /// Hands the stretch to the client. What has answered a request part of the way cannot be repeated.
    fn flush<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        let stretch = &self.bytes[self.start..self.at];
        self.start = self.at;
        if !stretch.is_empty() {
            server.replay.give_up();
            wires.to_client(|out| out.extend_from_slice(stretch));
        }
    }

    fn stop<W: Wires>(mut self, then: Then, server: &mut Server, wires: &mut W) -> Turn {
        self.flush(server, wires);
        Turn { consumed: self.at, then }
    }
}

/// Messages that weir reads are waited for up to this size; longer ones are forwarded unread.
const LOOKED_INTO_BYTES_MAX: usize = 64 * 1024;
const LOOKED_INTO_BYTES_MAX_U32: u32 = 64 * 1024;
