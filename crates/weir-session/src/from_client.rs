//! What a client sends: forwarded, rewritten (names of prepared statements), or answered here.
//!
//! Only the five header bytes of most messages are looked at. Messages that need no look inside stream through in pieces of
//! any size; those that do are bounded.

use std::rc::Rc;
use std::time::Instant;

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, Header, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromClient;

use crate::owed::{OWED_MAX, Owed, ParseOf};
use crate::prepared::{
    CLIENT_STATEMENTS_MAX, Catalog, KnownState, STATEMENT_BYTES_MAX, Statement, StatementKind,
    UNNAMED_BYTES_MAX, Unnamed,
};
use crate::server::{Server, TxStatus};
use crate::session::{Mode, Phase, Session, Then, Turn};
use crate::wires::Wires;

/// What became of one frame.
pub(crate) enum Step {
    /// This many bytes are done with; if that is less than the frame, `passing` or `swallowing` says what the rest is for.
    Took(usize),
    /// The frame has to be looked into, and is not complete yet.
    NeedMore,
    /// The turn ends before this frame.
    Then(Then),
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
        loop {
            at += self.stream_through(&bytes[at..], &mut server, wires);
            let cut = match self.cut(&bytes[at..]) {
                Ok(Some(cut)) => cut,
                Ok(None) => break,
                Err(report) => return Turn { consumed: at, then: Then::Refuse(Box::new(report)) },
            };
            match self.frame(now, cut, &mut server, catalog, wires) {
                Ok(Step::Took(bytes)) => at += bytes,
                Ok(Step::NeedMore) => break,
                Ok(Step::Then(then)) => return Turn { consumed: at, then },
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
            if server.is_some() {
                wires.to_server(|out| out.extend_from_slice(&bytes[..passed]));
            }
        }
        let swallowed = self.swallowing.min(bytes.len() - passed);
        self.swallowing -= swallowed;
        passed + swallowed
    }

    /// The next frame, if its header has arrived.
    fn cut<'a>(&self, rest: &'a [u8]) -> Result<Option<Cut<'a>>, Report> {
        let header =
            frame::peek(rest, MESSAGE_BYTES_MAX).map_err(|bad| protocol_violation(&bad.to_string()))?;
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
        match &mut self.phase {
            Phase::Relaying => {}
            Phase::Skipping => return Ok(self.skip(tag, cut, wires)),
            Phase::Aborted(_) => return self.play_aborted(tag, cut, wires),
            Phase::Refusing(_) => return Ok(self.refuse(tag, cut, wires)),
        }
        match server {
            Some(server) => self.relay(now, tag, cut, server, catalog, wires),
            None => Ok(self.without_server(tag, cut, wires)),
        }
    }

    /// A message that finds no server connection: most need one, a few are answered here.
    fn without_server<W: Wires>(&mut self, tag: FromClient, cut: Cut<'_>, wires: &mut W) -> Step {
        match tag {
            FromClient::Sync => {
                wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
                Step::Took(cut.header.total)
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
            | FromClient::FunctionCall => Step::Then(Then::NeedServer),
            FromClient::Response | FromClient::Terminate => {
                Step::Then(Then::Refuse(Box::new(unexpected_response())))
            }
        }
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
        if server.owed.len() >= OWED_MAX {
            return Err(Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many requests in flight")
                .hint("Read replies while sending, or send smaller pipelines."));
        }
        server.query_started.get_or_insert(now);
        server.transaction_started.get_or_insert(now);
        self.has_run = true;
        match tag {
            FromClient::Query => Ok(self.query(cut, server, wires)),
            FromClient::Parse => self.parse(cut, server, catalog, wires),
            FromClient::Bind => self.bind(cut, server, wires),
            FromClient::Describe => self.describe(cut, server, wires),
            FromClient::Execute => self.execute(cut, server, wires),
            FromClient::Close => self.close(cut, server, wires),
            FromClient::Sync => {
                if server.copy_in {
                    return Ok(self.forward(cut, wires));
                }
                server.batch += 1;
                server.replay.sync(cut.bytes, self.rules.retry_bytes_max);
                server.owed.push(Owed::Sync);
                Ok(self.forward(cut, wires))
            }
            FromClient::FunctionCall => {
                server.replay.give_up();
                server.owed.push(Owed::Query(StatementKind::Other));
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
            (true, Ok(sql)) => StatementKind::of(sql),
            (false, _) | (true, Err(_)) => StatementKind::MayEnd,
        };
        server.replay.query(cut.bytes, kind, self.rules.retry_bytes_max);
        // A simple query destroys the unnamed statement (protocol chapter, "Extended Query").
        server.statements.unnamed = None;
        self.statements.unnamed = None;
        server.owed.push(Owed::Query(kind));
        self.forward(cut, wires)
    }

    fn parse<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<Step, Report> {
        let Some(&first) = cut.body().first() else { return Ok(Step::NeedMore) };
        let unnamed = first == 0;
        if unnamed && cut.header.total > UNNAMED_BYTES_MAX {
            return Ok(self.parse_long_unnamed(cut, server, catalog, wires));
        }
        if cut.header.total > STATEMENT_BYTES_MAX {
            return Err(statement_too_long(cut.header.total));
        }
        if !cut.is_whole() {
            return Ok(Step::NeedMore);
        }
        let parse = frontend::read::parse(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        let kind = StatementKind::of(parse.sql);
        server.tally.client_parses += 1;
        server.replay.batch_frame(cut.bytes, Some(kind), self.rules.retry_bytes_max);
        if unnamed {
            let mark = catalog.next_unnamed();
            self.statements.unnamed =
                Some(Box::new(Unnamed { mark, body: Some(cut.body()[1..].into()), kind }));
            server.statements.unnamed = Some(mark);
            server.owed.push(Owed::Parse(ParseOf::Unnamed));
        } else if self.names_pass_through(server) {
            // Kept for the kind only: the name is the server's own.
            let statement = catalog.intern(parse.sql, parse.types_raw, self.context, kind);
            self.statements.insert(parse.name.into(), statement);
            server.owed.push(Owed::Parse(ParseOf::AsIs));
        } else {
            let statement = catalog.intern(parse.sql, parse.types_raw, self.context, kind);
            self.parse_named(parse.name, &statement, server, wires)?;
            return Ok(Step::Took(cut.header.total));
        }
        server.tally.server_parses += 1;
        Ok(self.forward(cut, wires))
    }

    /// An unnamed statement too long to be carried to another server connection streams through.
    fn parse_long_unnamed<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Step {
        let mark = catalog.next_unnamed();
        self.statements.unnamed = Some(Box::new(Unnamed { mark, body: None, kind: StatementKind::MayEnd }));
        server.statements.unnamed = Some(mark);
        server.replay.give_up();
        server.owed.push(Owed::Parse(ParseOf::Unnamed));
        server.tally.client_parses += 1;
        server.tally.server_parses += 1;
        self.forward(cut, wires)
    }

    fn parse_named<W: Wires>(
        &mut self,
        name: &[u8],
        statement: &Rc<Statement>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<(), Report> {
        if let Some(held) = self.statements.named(name).cloned() {
            // PostgreSQL refuses a name that is taken (42P05); so that it does it in the right place of the batch, it is
            // asked to take the one it has a second time.
            make_known(&held, server, wires);
            send_parse(&held, server, wires);
            server.owed.push(Owed::Parse(ParseOf::AsIs));
            return Ok(());
        }
        if self.statements.len() >= CLIENT_STATEMENTS_MAX {
            return Err(Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many prepared statements")
                .detail(format!("A client may hold {CLIENT_STATEMENTS_MAX} of them."))
                .hint("Close prepared statements that are no longer used."));
        }
        self.statements.insert(name.into(), Rc::clone(statement));
        match usable(statement, server) {
            Usable::Yes => server.owed.push(Owed::LocalParse(Some(name.into()))),
            Usable::No => {
                evict_if_full(server, wires);
                send_parse(statement, server, wires);
                server.owed.push(Owed::Parse(ParseOf::Named(statement.id, Some(name.into()))));
            }
            Usable::Unclear => {
                send_close_hidden(statement, server, wires);
                send_parse(statement, server, wires);
                server.owed.push(Owed::Parse(ParseOf::Named(statement.id, Some(name.into()))));
            }
        }
        self.give_local_replies(server, wires);
        Ok(())
    }

    fn bind<W: Wires>(&mut self, cut: Cut<'_>, server: &mut Server, wires: &mut W) -> Result<Step, Report> {
        let names =
            frontend::read::bind_names(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        let Some(names) = names else {
            return need_more_or(cut, "Bind message without names");
        };
        server.tally.binds += 1;
        let kind = self.kind_of(names.statement);
        if names.portal.is_empty() {
            self.unnamed_portal = kind;
        } else {
            self.named_portals = worse(self.named_portals, kind);
        }
        if cut.is_whole() {
            server.replay.batch_frame(cut.bytes, Some(kind), self.rules.retry_bytes_max);
        } else {
            server.replay.give_up();
        }
        let target = self.target(names.statement, server, wires);
        server.owed.push(Owed::Bind);
        let Target::Renamed(server_name) = target else { return Ok(self.forward(cut, wires)) };
        let total = cut.header.total - names.statement.len() + server_name.len();
        let rest = cut.body().get(names.end..).unwrap_or_default();
        wires.to_server(|out| {
            push_header(out, cut.header.tag, total);
            out.extend_from_slice(names.portal);
            out.push(0);
            out.extend_from_slice(&server_name);
            out.push(0);
            out.extend_from_slice(rest);
        });
        self.passing = cut.header.total - cut.bytes.len();
        Ok(Step::Took(cut.bytes.len()))
    }

    fn describe<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<Step, Report> {
        if !cut.is_whole() {
            return need_more_or(cut, "Describe message too long");
        }
        let (kind, name) =
            frontend::read::describe(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        server.replay.batch_frame(cut.bytes, None, self.rules.retry_bytes_max);
        let target = match kind {
            TargetKind::Statement => self.target(name, server, wires),
            TargetKind::Portal => Target::Same,
        };
        server.owed.push(Owed::Describe { statement: kind == TargetKind::Statement });
        let Target::Renamed(server_name) = target else { return Ok(self.forward(cut, wires)) };
        wires.to_server(|out| {
            push_header(out, cut.header.tag, HEADER_BYTES + 2 + server_name.len());
            out.push(b'S');
            out.extend_from_slice(&server_name);
            out.push(0);
        });
        Ok(Step::Took(cut.header.total))
    }

    fn execute<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<Step, Report> {
        if !cut.is_whole() {
            return need_more_or(cut, "Execute message too long");
        }
        let execute =
            frontend::read::execute(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        let kind = if execute.portal.is_empty() { self.unnamed_portal } else { self.named_portals };
        server.replay.execute(cut.bytes, self.rules.retry_bytes_max);
        server.owed.push(Owed::Execute(kind));
        Ok(self.forward(cut, wires))
    }

    fn close<W: Wires>(&mut self, cut: Cut<'_>, server: &mut Server, wires: &mut W) -> Result<Step, Report> {
        if !cut.is_whole() {
            return need_more_or(cut, "Close message too long");
        }
        let (kind, name) =
            frontend::read::close(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        server.replay.batch_frame(cut.bytes, None, self.rules.retry_bytes_max);
        if kind == TargetKind::Portal || self.names_pass_through(server) {
            if kind == TargetKind::Statement {
                self.forget(name);
            }
            server.owed.push(Owed::Close);
            return Ok(self.forward(cut, wires));
        }
        let held = self.forget(name).map(|statement| (name.into(), statement));
        server.owed.push(Owed::LocalClose(held));
        self.give_local_replies(server, wires);
        Ok(Step::Took(cut.header.total))
    }

    fn forget(&mut self, name: &[u8]) -> Option<Rc<Statement>> {
        if name.is_empty() {
            self.statements.unnamed = None;
        }
        self.statements.remove(name)
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
    fn forward<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Step {
        wires.to_server(|out| out.extend_from_slice(cut.bytes));
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

    /// Names mean the same to client and server: the server is this client's alone, or weir was told not to care.
    fn names_pass_through(&self, server: &Server) -> bool {
        self.mode == Mode::Session || server.statements_max == 0
    }

    fn kind_of(&self, name: &[u8]) -> StatementKind {
        if name.is_empty() {
            return self.statements.unnamed.as_ref().map_or(StatementKind::Other, |unnamed| unnamed.kind);
        }
        self.statements.named(name).map_or(StatementKind::MayEnd, |statement| statement.kind)
    }

    /// Makes sure that the statement a Bind or Describe names is there, or that PostgreSQL says it is not.
    fn target<W: Wires>(&mut self, name: &[u8], server: &mut Server, wires: &mut W) -> Target {
        if self.mode == Mode::Session {
            return Target::Same;
        }
        if name.is_empty() {
            self.bring_unnamed(server, wires);
            return Target::Same;
        }
        if server.statements_max == 0 {
            return Target::Same;
        }
        match self.statements.named(name).cloned() {
            Some(statement) => {
                make_known(&statement, server, wires);
                Target::Renamed(statement.server_name.clone())
            }
            // What another client prepared by SQL under this name must not be found.
            None => Target::Renamed([MISSING_PREFIX, name].concat().into()),
        }
    }

    /// The unnamed statement may have been parsed on another server connection.
    fn bring_unnamed<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        let wanted = self.statements.unnamed.as_ref();
        if wanted.is_some_and(|unnamed| server.statements.unnamed == Some(unnamed.mark)) {
            return;
        }
        let Some(body) = wanted.and_then(|unnamed| unnamed.body.as_ref()) else {
            // Nothing of another client's may be found under the empty name.
            wires.to_server(|out| frontend::close_statement(b"", out));
            server.owed.push(Owed::HiddenClose(None));
            server.statements.unnamed = None;
            return;
        };
        wires.to_server(|out| {
            push_header(out, b'P', HEADER_BYTES + 1 + body.len());
            out.push(0);
            out.extend_from_slice(body);
        });
        server.statements.unnamed = wanted.map(|unnamed| unnamed.mark);
        server.tally.server_parses += 1;
        server.owed.push(Owed::HiddenParse(ParseOf::Unnamed));
    }

    /// True when the client is outside a transaction and waits for nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tx == TxStatus::Idle && matches!(self.phase, Phase::Relaying)
    }
}

/// Where a Bind or Describe goes.
enum Target {
    /// To the name the client used.
    Same,
    /// To this name.
    Renamed(Box<[u8]>),
}

/// Whether a statement can be named on a server connection.
enum Usable {
    /// It is there, or its Parse is ahead in the same batch (and if that fails, this is skipped as well).
    Yes,
    /// It is not there.
    No,
    /// Its Parse is ahead in an earlier batch and may fail.
    Unclear,
}

fn usable(statement: &Statement, server: &mut Server) -> Usable {
    match server.statements.use_of(statement.id) {
        Some(KnownState::Confirmed) => Usable::Yes,
        Some(KnownState::Pending(batch)) if batch == server.batch => Usable::Yes,
        Some(KnownState::Pending(_)) => Usable::Unclear,
        None => Usable::No,
    }
}

/// Parses the statement on the server connection unless it is there already.
fn make_known<W: Wires>(statement: &Rc<Statement>, server: &mut Server, wires: &mut W) {
    match usable(statement, server) {
        Usable::Yes => return,
        Usable::No => evict_if_full(server, wires),
        Usable::Unclear => send_close_hidden(statement, server, wires),
    }
    send_parse(statement, server, wires);
    server.owed.push(Owed::HiddenParse(ParseOf::Named(statement.id, None)));
}

fn send_parse<W: Wires>(statement: &Statement, server: &mut Server, wires: &mut W) {
    wires.to_server(|out| frontend::parse(&statement.server_name, &statement.sql, &statement.types, out));
    if server.statements.use_of(statement.id) != Some(KnownState::Confirmed) {
        server.statements.parse_sent(statement, server.batch);
    }
    server.tally.server_parses += 1;
}

/// Closing a statement that does not exist is no error, so after this the Parse behind it cannot find the name taken.
fn send_close_hidden<W: Wires>(statement: &Statement, server: &mut Server, wires: &mut W) {
    wires.to_server(|out| frontend::close_statement(&statement.server_name, out));
    server.owed.push(Owed::HiddenClose(None));
}

fn evict_if_full<W: Wires>(server: &mut Server, wires: &mut W) {
    if let Some((id, name)) = server.evict_statement() {
        wires.to_server(|out| frontend::close_statement(&name, out));
        server.owed.push(Owed::HiddenClose(Some(id)));
    }
}

/// The kind that constrains more, for portals that are not told apart.
fn worse(one: StatementKind, other: StatementKind) -> StatementKind {
    let rank = |kind| match kind {
        StatementKind::Other => 0,
        StatementKind::Repeatable => 1,
        StatementKind::Rollback | StatementKind::Commit | StatementKind::MayEnd => 2,
    };
    match (rank(one), rank(other)) {
        (2, _) | (_, 2) => StatementKind::MayEnd,
        (a, b) if a >= b => one,
        _ => other,
    }
}

fn push_header(out: &mut Vec<u8>, tag: u8, total: usize) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(total - 1).unwrap_or(u32::MAX).to_be_bytes());
}

/// A frame that has to be looked into is waited for as long as it is of a sane size.
fn need_more_or(cut: Cut<'_>, why: &str) -> Result<Step, Report> {
    if cut.is_whole() || cut.bytes.len() > NAMES_BYTES_MAX {
        return Err(protocol_violation(why));
    }
    Ok(Step::NeedMore)
}

fn protocol_violation(why: &str) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, why.to_owned())
}

fn unexpected_response() -> Report {
    protocol_violation("a password message outside the login")
}

fn statement_too_long(bytes: usize) -> Report {
    Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, "a named prepared statement is too long")
        .detail(format!(
            "Its Parse message has {bytes} bytes; weir keeps at most {STATEMENT_BYTES_MAX} for one statement."
        ))
        .hint("Send it as an unnamed statement, or use session pooling.")
}

/// Queries up to this size are classified (may they be repeated, do they end the transaction); longer ones stream
/// through, and count as unknown.
const QUERY_BYTES_CLASSIFIED_MAX: usize = 64 * 1024;

/// Names in Bind, Describe, Execute and Close may be this long together.
const NAMES_BYTES_MAX: usize = 64 * 1024;

/// In front of a statement name that the client does not hold, so that PostgreSQL's error is certain.
const MISSING_PREFIX: &[u8] = b"weir?";
