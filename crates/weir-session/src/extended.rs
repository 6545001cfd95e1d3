//! The extended protocol from the client's side: Parse, Bind, Describe, Execute and Close, with names of prepared statements
//! put into the server connection's own.
//!
//! Owns what has to be sent in front of a message so that the statement it names is there; refuses to know replies.

use std::rc::Rc;

use weir_protocol::frame::HEADER_BYTES;
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::message::Report;
use weir_protocol::sql::Marks;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromClient;

use crate::from_client::{Cut, Step, protocol_violation};
use crate::owed::{Owed, ParseOf, Taken};
use crate::prepared::{
    CLIENT_STATEMENTS_MAX, Catalog, KnownState, NAME_PREFIX, STATEMENT_BYTES_MAX, Statement, StatementKind,
    UNNAMED_BYTES_MAX,
};
use crate::server::Server;
use crate::session::{Mode, Session};
use crate::state::raising;
use crate::wires::Wires;

impl Session {
    pub(crate) fn parse<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<Step, Report> {
        let Some(&first) = cut.body().first() else {
            let whole = cut.is_whole();
            return if whole {
                Err(protocol_violation("Parse message without a name"))
            } else {
                Ok(Step::NeedMore)
            };
        };
        let unnamed = first == 0;
        if unnamed && cut.header.total > UNNAMED_BYTES_MAX {
            return Ok(self.parse_long_unnamed(cut, server, catalog, wires));
        }
        if cut.header.total > STATEMENT_BYTES_MAX {
            return self.parse_long_named(cut, server, wires);
        }
        if !cut.is_whole() {
            return Ok(Step::NeedMore);
        }
        let parse = frontend::read::parse(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        server.tally.client_parses += 1;
        if unnamed {
            let judged = StatementKind::with_marks(parse.sql);
            if let Some(report) = self.refusal(judged.1, parse.sql) {
                return Ok(refused_parse(b"", &report));
            }
            server.replay.batch_frame(cut.bytes, Some(judged.0), self.rules.retry_bytes_max);
            let mark = catalog.next_unnamed();
            self.statements.set_unnamed(mark, judged, cut.body().get(1..));
            server.statements.unnamed_sent(mark, server.batch);
            server.owe_in_batch(Owed::Parse(ParseOf::Unnamed(mark)));
        } else {
            let statement = catalog.intern(parse.sql, parse.types_raw, self.context);
            if let Some(report) = self.refusal(statement.marks, parse.sql) {
                return Ok(refused_parse(parse.name, &report));
            }
            server.replay.batch_frame(cut.bytes, Some(statement.kind), self.rules.retry_bytes_max);
            if !self.names_pass_through(server) {
                self.parse_named(parse.name, &statement, server, wires)?;
                return Ok(Step::Took(cut.bytes.len()));
            }
            // Kept for the kind only: the name is the server's own.
            self.statements.insert(parse.name.into(), statement);
            server.owe_in_batch(Owed::Parse(ParseOf::AsIs));
        }
        server.tally.server_parses += 1;
        Ok(self.forward(cut, wires))
    }

    /// A statement that PostgreSQL has parsed before needs no server connection to be prepared again: it is parsed where
    /// it is bound. Clients that prepare one after the other would otherwise wait for each other's transactions.
    pub(crate) fn parse_without_server(
        &mut self,
        cut: Cut<'_>,
        catalog: &mut Catalog,
    ) -> Result<bool, Report> {
        if !self.rules.shares_statements || self.mode == Mode::Session || !cut.is_whole() {
            return Ok(false);
        }
        let parse = frontend::read::parse(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        let is_new = !parse.name.is_empty()
            && self.statements.named(parse.name).is_none()
            && self.statements.len() < CLIENT_STATEMENTS_MAX;
        let found = is_new.then(|| catalog.find(parse.sql, parse.types_raw, self.context)).flatten();
        let Some(statement) = found.filter(|statement| statement.proven.get()) else { return Ok(false) };
        self.statements.insert(parse.name.into(), statement);
        self.parses_uncounted += 1;
        Ok(true)
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
        self.statements.set_unnamed(mark, (StatementKind::MayEnd, Marks::NONE), None);
        server.statements.unnamed_sent(mark, server.batch);
        server.replay.give_up();
        server.owe_in_batch(Owed::Parse(ParseOf::Unnamed(mark)));
        server.tally.client_parses += 1;
        server.tally.server_parses += 1;
        self.forward(cut, wires)
    }

    /// A named statement too long to be kept streams through where names are the server's own, and is refused elsewhere.
    fn parse_long_named<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<Step, Report> {
        if !self.names_pass_through(server) {
            return Err(statement_too_long(cut.header.total));
        }
        let seen = cut.body().get(..=frontend::read::NAME_BYTES_MAX).unwrap_or(cut.body());
        let Some(end) = seen.iter().position(|byte| *byte == 0) else {
            let too_long = seen.len() > frontend::read::NAME_BYTES_MAX;
            return if too_long { Err(protocol_violation("a name is too long")) } else { Ok(Step::NeedMore) };
        };
        // An unknown name counts as a statement that may do anything.
        self.statements.remove(seen.get(..end).unwrap_or_default());
        server.replay.give_up();
        server.owe_in_batch(Owed::Parse(ParseOf::AsIs));
        server.tally.client_parses += 1;
        server.tally.server_parses += 1;
        Ok(self.forward(cut, wires))
    }

    fn parse_named<W: Wires>(
        &mut self,
        name: &[u8],
        statement: &Rc<Statement>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<(), Report> {
        if let Some(held) = self.statements.named(name).cloned() {
            // PostgreSQL refuses a name that is taken (42P05). So that it does so in the right place of the batch, and not
            // before it has looked at the text, it is asked to give the name a second time.
            make_known(&held, server, wires);
            parse_to_server(&held.server_name, statement, server, wires);
            let taken = Taken { name: name.into(), held, asked: Rc::clone(statement) };
            server.owe_in_batch(Owed::Parse(ParseOf::Taken(Box::new(taken))));
            return Ok(());
        }
        if self.statements.len() >= CLIENT_STATEMENTS_MAX {
            return Err(too_many_statements());
        }
        self.statements.insert(name.into(), Rc::clone(statement));
        match usable(statement, server) {
            Usable::Yes => {
                // Nothing is sent, so the batch is none of the server's business yet.
                server.owed.push(Owed::LocalParse(Some(name.into())));
                self.give_local_replies(server, wires);
                return Ok(());
            }
            Usable::No => evict_if_full(server, wires),
            Usable::Unclear => send_close_hidden(statement, server, wires),
        }
        parse_to_server(&statement.server_name, statement, server, wires);
        server.statements.parse_sent(statement, server.batch);
        server.owe_in_batch(Owed::Parse(ParseOf::Named(statement.id, Some(name.into()))));
        Ok(())
    }

    pub(crate) fn bind<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<Step, Report> {
        if !cut.is_whole() && cut.header.total <= BIND_BYTES_KEPT_WHOLE {
            return Ok(Step::NeedMore);
        }
        let names =
            frontend::read::bind_names(cut.body()).map_err(|bad| protocol_violation(&bad.to_string()))?;
        let Some(names) = names else {
            let whole = cut.is_whole();
            return if whole {
                Err(protocol_violation("Bind message without names"))
            } else {
                Ok(Step::NeedMore)
            };
        };
        server.tally.binds += 1;
        let held = self.statements.named(names.statement).cloned();
        let kind = match (names.statement, &held) {
            (b"", _) => self.statements.unnamed().map_or(StatementKind::Other, |unnamed| {
                self.watch(unnamed.marks, unnamed.text(), server);
                self.note_begin(unnamed.kind, unnamed.marks, unnamed.text(), server);
                unnamed.kind
            }),
            (_, Some(statement)) => {
                self.watch(statement.marks, &statement.sql, server);
                self.note_begin(statement.kind, statement.marks, &statement.sql, server);
                statement.kind
            }
            (_, None) => {
                server.begun = None;
                StatementKind::MayEnd
            }
        };
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
        let target = self.target(names.statement, held, server, wires);
        server.owe_in_batch(Owed::Bind);
        if matches!(target, Target::Same) {
            return Ok(self.forward(cut, wires));
        }
        let total = cut.header.total - names.statement.len() + target.name_bytes(names.statement);
        let rest = cut.body().get(names.end..).unwrap_or_default();
        wires.to_server(|out| {
            push_header(out, cut.header.tag, total);
            out.extend_from_slice(names.portal);
            out.push(0);
            target.push_name(names.statement, out);
            out.push(0);
            out.extend_from_slice(rest);
        });
        Ok(self.passed(cut))
    }

    pub(crate) fn describe<W: Wires>(
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
            TargetKind::Statement => {
                let held = self.statements.named(name).cloned();
                self.target(name, held, server, wires)
            }
            TargetKind::Portal => Target::Same,
        };
        server.owe_in_batch(Owed::Describe { statement: kind == TargetKind::Statement });
        if matches!(target, Target::Same) {
            return Ok(self.forward(cut, wires));
        }
        wires.to_server(|out| {
            push_header(out, cut.header.tag, HEADER_BYTES + 2 + target.name_bytes(name));
            out.push(b'S');
            target.push_name(name, out);
            out.push(0);
        });
        Ok(self.passed(cut))
    }

    pub(crate) fn execute<W: Wires>(
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
        server.owe_in_batch(Owed::Execute(kind));
        Ok(self.forward(cut, wires))
    }

    pub(crate) fn close<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        server: &mut Server,
        wires: &mut W,
    ) -> Result<Step, Report> {
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
            server.owe_in_batch(Owed::Close);
            return Ok(self.forward(cut, wires));
        }
        let held = self.forget(name).map(|statement| (name.into(), statement));
        server.owed.push(Owed::LocalClose(held));
        self.give_local_replies(server, wires);
        Ok(Step::Took(cut.bytes.len()))
    }

    /// The client closed a statement.
    pub(crate) fn forget(&mut self, name: &[u8]) -> Option<Rc<Statement>> {
        if name.is_empty() {
            self.statements.forget_unnamed();
        }
        self.statements.remove(name)
    }

    /// Names mean the same to client and server: the server is this client's alone, or weir was told not to care.
    fn names_pass_through(&self, server: &Server) -> bool {
        self.mode == Mode::Session || server.statements_max == 0
    }

    /// Makes sure that the statement a Bind or Describe names is there, or that PostgreSQL says it is not.
    fn target<W: Wires>(
        &mut self,
        name: &[u8],
        held: Option<Rc<Statement>>,
        server: &mut Server,
        wires: &mut W,
    ) -> Target {
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
        match held {
            Some(statement) => {
                make_known(&statement, server, wires);
                Target::Held(statement)
            }
            // weir's own names are not for clients, whatever they call their statements.
            None if name.starts_with(NAME_PREFIX) => Target::Missing,
            None => {
                // What another client prepared by SQL under this name must not be found; PostgreSQL itself then says, in
                // the right place of the batch, that there is no such statement.
                wires.to_server(|out| frontend::close_statement(name, out));
                server.owe_in_batch(Owed::HiddenClose(None));
                Target::Same
            }
        }
    }

    /// The unnamed statement may have been parsed on another server connection.
    fn bring_unnamed<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        let wanted = self.statements.unnamed();
        if wanted.is_some_and(|unnamed| server.statements.has_unnamed(unnamed.mark, server.batch)) {
            return;
        }
        let Some((mark, body)) = wanted.and_then(|unnamed| Some((unnamed.mark, unnamed.body()?))) else {
            // Nothing of another client's may be found under the empty name.
            wires.to_server(|out| frontend::close_statement(b"", out));
            server.owe_in_batch(Owed::HiddenClose(None));
            server.statements.forget_unnamed();
            return;
        };
        wires.to_server(|out| {
            push_header(out, FromClient::Parse.byte(), HEADER_BYTES + 1 + body.len());
            out.push(0);
            out.extend_from_slice(body);
        });
        server.statements.unnamed_sent(mark, server.batch);
        server.tally.server_parses += 1;
        server.owe_in_batch(Owed::HiddenParse(ParseOf::Unnamed(mark)));
    }
}

/// Where a Bind or Describe goes.
enum Target {
    /// To the name the client used.
    Same,
    /// To the server connection's name for this statement.
    Held(Rc<Statement>),
    /// To a name that nothing has.
    Missing,
}

impl Target {
    fn name_bytes(&self, asked: &[u8]) -> usize {
        match self {
            Target::Same => asked.len(),
            Target::Held(statement) => statement.server_name.len(),
            Target::Missing => MISSING_PREFIX.len() + asked.len(),
        }
    }

    fn push_name(&self, asked: &[u8], out: &mut Vec<u8>) {
        match self {
            Target::Same => out.extend_from_slice(asked),
            Target::Held(statement) => out.extend_from_slice(&statement.server_name),
            Target::Missing => {
                out.extend_from_slice(MISSING_PREFIX);
                out.extend_from_slice(asked);
            }
        }
    }
}

/// Whether a statement can be named on a server connection.
enum Usable {
    /// It is there, or its Parse is ahead in the same batch (and if that fails, this is skipped as well).
    Yes,
    /// It is not there.
    No,
    /// Its Parse is ahead in an earlier batch and may fail, or a Close of it may be skipped.
    Unclear,
}

fn usable(statement: &Statement, server: &mut Server) -> Usable {
    match server.statements.use_of(statement.id) {
        Some(KnownState::Confirmed) => Usable::Yes,
        Some(KnownState::Pending(batch)) if batch == server.batch => Usable::Yes,
        Some(KnownState::Pending(_) | KnownState::Unclear) => Usable::Unclear,
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
    parse_to_server(&statement.server_name, statement, server, wires);
    server.statements.parse_sent(statement, server.batch);
    server.owe_in_batch(Owed::HiddenParse(ParseOf::Named(statement.id, None)));
}

fn parse_to_server<W: Wires>(name: &[u8], statement: &Statement, server: &mut Server, wires: &mut W) {
    wires.to_server(|out| frontend::parse(name, &statement.sql, &statement.types, out));
    server.tally.server_parses += 1;
}

/// Closing a statement that does not exist is no error, so after this the Parse behind it cannot find the name taken.
fn send_close_hidden<W: Wires>(statement: &Statement, server: &mut Server, wires: &mut W) {
    wires.to_server(|out| frontend::close_statement(&statement.server_name, out));
    server.owe_in_batch(Owed::HiddenClose(None));
}

fn evict_if_full<W: Wires>(server: &mut Server, wires: &mut W) {
    // One makes room; a second one lets a table that a large batch has overfilled shrink again.
    for _ in 0..2 {
        let Some(statement) = server.evict_statement() else { return };
        wires.to_server(|out| frontend::close_statement(&statement.server_name, out));
        server.owe_in_batch(Owed::HiddenClose(Some(statement)));
    }
}

/// A Parse of the same name that fails with this error when it is run.
fn refused_parse(name: &[u8], report: &Report) -> Step {
    let mut frame = Vec::new();
    frontend::parse(name, &raising(report), frontend::NO_TYPES, &mut frame);
    Step::Instead(frame)
}

/// The kind that constrains more, for portals that are not told apart.
fn worse(one: StatementKind, other: StatementKind) -> StatementKind {
    let rank = |kind| match kind {
        StatementKind::Other => 0,
        StatementKind::Repeatable => 1,
        StatementKind::Rollback
        | StatementKind::Commit
        | StatementKind::RollbackAndChain
        | StatementKind::CommitAndChain
        | StatementKind::MayEnd => 2,
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
    if cut.is_whole() || cut.header.total > NAMES_BYTES_MAX {
        return Err(protocol_violation(why));
    }
    Ok(Step::NeedMore)
}

fn statement_too_long(bytes: usize) -> Report {
    Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, "a named prepared statement is too long")
        .detail(format!(
            "Its Parse message has {bytes} bytes; weir keeps at most {STATEMENT_BYTES_MAX} for one statement."
        ))
        .hint("Send it as an unnamed statement, or use session pooling.")
}

/// A client holds as many named statements as it may.
pub(crate) fn too_many_statements() -> Report {
    Report::fatal(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many prepared statements")
        .detail(format!("A client may hold {CLIENT_STATEMENTS_MAX} of them."))
        .hint("Close prepared statements that are no longer used.")
}

/// Describe, Execute and Close may be this long: they hold a name and little else.
const NAMES_BYTES_MAX: usize = 64 * 1024;

/// A Bind up to this size is sent in one piece, so that it can be kept for a retry; longer ones stream through.
const BIND_BYTES_KEPT_WHOLE: usize = 64 * 1024;

/// In front of a statement name that could be one of weir's own, so that PostgreSQL's error is certain.
const MISSING_PREFIX: &[u8] = b"weir?";
