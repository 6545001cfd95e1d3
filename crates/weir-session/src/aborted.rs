//! The aborted transaction block that weir plays after a server connection died inside a transaction: everything is
//! refused with 25P02 until the client ends the block, exactly as PostgreSQL would, so that the rest of the application's
//! transaction never runs on another server.

use std::time::Instant;

use weir_protocol::backend;
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::message::{Report, Severity};
use weir_protocol::sql::{Begin, Count};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromClient;

use crate::extended::too_many_statements;
use crate::from_client::{Cut, Step};
use crate::prepared::{CLIENT_STATEMENTS_MAX, Catalog, StatementKind};
use crate::server::TxStatus;
use crate::session::{Phase, Session};
use crate::wires::Wires;

/// State of the played block.
#[derive(Debug)]
pub(crate) struct Aborted {
    /// The error that explains the loss, if no request has got it yet.
    pub(crate) explanation: Option<Report>,
    /// Extended protocol: an error was given, everything up to the Sync is dropped.
    skipping: bool,
    /// Extended protocol: what the unnamed portal would do.
    portal: StatementKind,
    /// The block has been ended in this batch; what the next ReadyForQuery says.
    ended: Option<End>,
    /// What the lost transaction began with, if that is known.
    pub(crate) begun: Option<Begin>,
}

/// What follows the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Idle,
    /// Another block (AND CHAIN).
    Chain,
}

impl Aborted {
    /// Nothing was in flight: the next request gets the explanation.
    pub(crate) fn owing(explanation: Report, begun: Option<Begin>) -> Self {
        Self { explanation: Some(explanation), ..Self::told(begun) }
    }

    /// The client has been told.
    pub(crate) fn told(begun: Option<Begin>) -> Self {
        Self { explanation: None, skipping: false, portal: StatementKind::Other, ended: None, begun }
    }

    /// The client has been told, perhaps in the middle of a batch.
    pub(crate) fn in_batch(skipping: bool) -> Self {
        Self { skipping, ..Self::told(None) }
    }
}

/// PostgreSQL's own words for a statement in an aborted block.
pub(crate) fn in_failed_transaction() -> Report {
    Report::error(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// What a statement in the played block gets.
enum Verdict {
    /// The block ends, with the tag ROLLBACK.
    Ends,
    /// This error; the block goes on, or ends all the same (COMMIT as the first request after the loss).
    Error { report: Report, ends: bool },
    /// The same, and another one begins.
    Chains,
    /// The block ends, but more statements were to follow in the same string.
    EndsShort,
}

impl Session {
    /// One frame inside the played block.
    pub(crate) fn play_aborted<W: Wires>(
        &mut self,
        now: Instant,
        tag: FromClient,
        cut: Cut<'_>,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<Step, Report> {
        let looked_into = matches!(
            tag,
            FromClient::Query
                | FromClient::Parse
                | FromClient::Bind
                | FromClient::Describe
                | FromClient::Close
        );
        if looked_into && !cut.is_whole() && cut.header.total <= LOOKED_INTO_BYTES_MAX {
            return Ok(Step::NeedMore);
        }
        if tag == FromClient::Sync {
            return Ok(self.aborted_sync(now, cut, wires));
        }
        if self.block().skipping {
            return Ok(self.swallow(cut));
        }
        match tag {
            FromClient::Query => return Ok(self.aborted_query(now, cut, wires)),
            FromClient::FunctionCall => self.aborted_call(wires),
            FromClient::Parse => self.aborted_parse(cut, catalog, wires)?,
            FromClient::Bind => self.aborted_bind(cut, wires)?,
            FromClient::Describe => self.aborted_describe(cut, wires)?,
            FromClient::Execute => self.aborted_execute(wires),
            FromClient::Close => self.aborted_close(cut, wires)?,
            FromClient::Flush
            | FromClient::Sync
            | FromClient::CopyData
            | FromClient::CopyDone
            | FromClient::CopyFail
            | FromClient::Response
            | FromClient::Terminate => {}
        }
        Ok(self.swallow(cut))
    }

    fn block(&mut self) -> &mut Aborted {
        if !matches!(self.phase, Phase::Aborted(_)) {
            self.phase = Phase::Aborted(Box::new(Aborted::told(None)));
        }
        match &mut self.phase {
            Phase::Aborted(block) => block,
            Phase::Relaying | Phase::Skipping | Phase::Deferred(_) | Phase::Refusing(_) => {
                unreachable!("set just above")
            }
        }
    }

    fn aborted_sync<W: Wires>(&mut self, now: Instant, cut: Cut<'_>, wires: &mut W) -> Step {
        let block = self.block();
        block.skipping = false;
        if let Some(end) = block.ended {
            self.end_block(now, end);
        }
        wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
        self.swallow(cut)
    }

    fn end_block(&mut self, now: Instant, end: End) {
        let begun = self.block().begun;
        match end {
            End::Idle => (self.phase, self.tx) = (Phase::Relaying, TxStatus::Idle),
            // Even where BEGIN is sent at once: the request that opens this block is weir's to answer.
            End::Chain => self.defer(now, begun.unwrap_or_default()),
        }
    }

    /// The block ends as it was asked to, with PostgreSQL's tag for that.
    fn tell_end<W: Wires>(&mut self, end: End, wires: &mut W) {
        let warns = end == End::Chain && self.block().begun.is_none();
        wires.to_client(|out| {
            if warns {
                backend::notice(&begins_by_default(), out);
            }
            backend::command_complete("ROLLBACK", out);
        });
    }

    fn verdict_in_block(&mut self, kind: StatementKind, ends_first: bool) -> Verdict {
        let explanation = self.block().explanation.take();
        match (kind, explanation) {
            (StatementKind::MayEnd, None) if ends_first => Verdict::EndsShort,
            (StatementKind::Rollback, _) | (StatementKind::Commit, None) => Verdict::Ends,
            (StatementKind::RollbackAndChain, _) | (StatementKind::CommitAndChain, None) => Verdict::Chains,
            (StatementKind::Commit, Some(report)) => Verdict::Error { report, ends: true },
            (_, Some(report)) => Verdict::Error { report, ends: false },
            (_, None) => Verdict::Error { report: in_failed_transaction(), ends: false },
        }
    }

    fn aborted_query<W: Wires>(&mut self, now: Instant, cut: Cut<'_>, wires: &mut W) -> Step {
        let sql = if cut.is_whole() { frontend::read::query(cut.body()).unwrap_or_default() } else { b"" };
        let class = weir_protocol::sql::classify(sql);
        let kind = if cut.is_whole() { StatementKind::of(sql) } else { StatementKind::MayEnd };
        if cut.is_whole() && class.statements == Count::Zero {
            wires.to_client(|out| {
                backend::empty_query_response(out);
                backend::ready_for_query(TxStatus::Failed.byte(), out);
            });
            return self.swallow(cut);
        }
        self.statements.forget_unnamed();
        match self.verdict_in_block(kind, class.first.ends_transaction()) {
            Verdict::Ends => {
                self.tell_end(End::Idle, wires);
                self.end_block(now, End::Idle);
            }
            Verdict::Chains => {
                self.tell_end(End::Chain, wires);
                self.end_block(now, End::Chain);
            }
            Verdict::Error { report, ends } => {
                if ends {
                    self.end_block(now, End::Idle);
                }
                wires.to_client(|out| backend::error(&report, out));
            }
            // What was to come behind the end of the block has not run, and must not look as if it had.
            Verdict::EndsShort => {
                self.end_block(now, End::Idle);
                wires.to_client(|out| backend::error(&nothing_behind(), out));
            }
        }
        wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
        self.swallow(cut)
    }

    fn aborted_call<W: Wires>(&mut self, wires: &mut W) {
        let report = self.block().explanation.take().unwrap_or_else(in_failed_transaction);
        wires.to_client(|out| {
            backend::error(&report, out);
            backend::ready_for_query(TxStatus::Failed.byte(), out);
        });
    }

    /// PostgreSQL lets only statements that end the block be parsed and bound.
    fn admit<W: Wires>(&mut self, kind: StatementKind, wires: &mut W) -> bool {
        if self.block().ended.is_some() {
            return self.fail(in_failed_transaction(), wires);
        }
        let explanation = match kind {
            StatementKind::Rollback | StatementKind::RollbackAndChain => return true,
            StatementKind::Commit
            | StatementKind::CommitAndChain
            | StatementKind::Repeatable
            | StatementKind::MayEnd
            | StatementKind::Other => self.block().explanation.take(),
        };
        let is_commit = matches!(kind, StatementKind::Commit | StatementKind::CommitAndChain);
        if is_commit && explanation.is_none() {
            return true;
        }
        if kind == StatementKind::Commit {
            self.block().ended = Some(End::Idle);
        }
        self.fail(explanation.unwrap_or_else(in_failed_transaction), wires)
    }

    /// Gives an error inside a batch; always false.
    fn fail<W: Wires>(&mut self, report: Report, wires: &mut W) -> bool {
        self.block().skipping = true;
        wires.to_client(|out| backend::error(&report, out));
        false
    }

    fn aborted_parse<W: Wires>(
        &mut self,
        cut: Cut<'_>,
        catalog: &mut Catalog,
        wires: &mut W,
    ) -> Result<(), Report> {
        if !cut.is_whole() {
            self.fail(in_failed_transaction(), wires);
            return Ok(());
        }
        let parse = frontend::read::parse(cut.body()).map_err(malformed)?;
        let judged = StatementKind::with_marks(parse.sql);
        if !self.admit(judged.0, wires) {
            return Ok(());
        }
        if parse.name.is_empty() {
            self.statements.set_unnamed(catalog.next_unnamed(), judged, cut.body().get(1..));
        } else if self.statements.named(parse.name).is_some() {
            self.fail(name_taken(parse.name), wires);
            return Ok(());
        } else if self.statements.len() >= CLIENT_STATEMENTS_MAX {
            return Err(too_many_statements());
        } else {
            // Drivers do name their ROLLBACK. It is parsed on a server connection when it is used there.
            let statement = catalog.intern(parse.sql, parse.types_raw, self.context);
            self.statements.insert(parse.name.into(), statement);
        }
        wires.to_client(backend::parse_complete);
        Ok(())
    }

    fn aborted_bind<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Result<(), Report> {
        let names = frontend::read::bind_names(cut.body()).map_err(malformed)?;
        let kind = names.map_or(StatementKind::Other, |names| self.kind_named(names.statement));
        if self.admit(kind, wires) {
            self.block().portal = kind;
            wires.to_client(backend::bind_complete);
        }
        Ok(())
    }

    fn kind_named(&self, name: &[u8]) -> StatementKind {
        if name.is_empty() {
            return self.statements.unnamed().map_or(StatementKind::Other, |unnamed| unnamed.kind);
        }
        self.statements.named(name).map_or(StatementKind::Other, |statement| statement.kind)
    }

    fn aborted_describe<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Result<(), Report> {
        if !cut.is_whole() {
            self.fail(in_failed_transaction(), wires);
            return Ok(());
        }
        let (target, name) = frontend::read::describe(cut.body()).map_err(malformed)?;
        let kind = match target {
            TargetKind::Statement => self.kind_named(name),
            TargetKind::Portal => self.block().portal,
        };
        if self.admit(kind, wires) {
            wires.to_client(|out| {
                if target == TargetKind::Statement {
                    backend::parameter_description(&[], out);
                }
                backend::no_data(out);
            });
        }
        Ok(())
    }

    fn aborted_execute<W: Wires>(&mut self, wires: &mut W) {
        let kind = self.block().portal;
        if self.admit(kind, wires) {
            let chains = matches!(kind, StatementKind::CommitAndChain | StatementKind::RollbackAndChain);
            let end = if chains { End::Chain } else { End::Idle };
            self.block().ended = Some(end);
            self.tell_end(end, wires);
        }
    }

    fn aborted_close<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Result<(), Report> {
        if cut.is_whole() {
            let (target, name) = frontend::read::close(cut.body()).map_err(malformed)?;
            if target == TargetKind::Statement {
                self.forget(name);
            }
        }
        wires.to_client(backend::close_complete);
        Ok(())
    }
}

fn nothing_behind() -> Report {
    Report::error(
        SqlState::SERIALIZATION_FAILURE,
        "the lost transaction is rolled back, but nothing behind its end was run",
    )
    .detail("The request held several statements, and its server connection was lost before: only the end of the transaction could be played.")
    .hint("Send what stood behind it once more, as a request of its own.")
}

/// In front of the tag of AND CHAIN.
fn begins_by_default() -> Report {
    Report::new(
        Severity::Warning,
        SqlState::WARNING,
        "the new transaction begins with default characteristics",
    )
    .detail("The server connection of the transaction before it is lost, and weir does not know how that one began.")
    .hint("Use SET TRANSACTION, or ROLLBACK and BEGIN, if it needs another isolation level or access mode.")
}

fn name_taken(name: &[u8]) -> Report {
    let name = String::from_utf8_lossy(name);
    Report::error(
        SqlState::DUPLICATE_PREPARED_STATEMENT,
        format!("prepared statement \"{name}\" already exists"),
    )
}

fn malformed(bad: impl std::fmt::Display) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, bad.to_string())
}

/// Frames that are looked into are waited for up to this size; longer ones count as refused.
const LOOKED_INTO_BYTES_MAX: usize = 64 * 1024;
