//! The aborted transaction block that weir plays after a server connection died inside a transaction: everything is
//! refused with 25P02 until the client ends the block, exactly as PostgreSQL would, so that the rest of the application's
//! transaction never runs on another server.

use weir_protocol::backend;
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::message::Report;
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
    /// The block has been ended in this batch; the next ReadyForQuery says idle.
    ended: bool,
}

impl Aborted {
    /// Nothing was in flight: the next request gets the explanation.
    pub(crate) fn owing(explanation: Report) -> Self {
        Self { explanation: Some(explanation), ..Self::told() }
    }

    /// The client has been told.
    pub(crate) fn told() -> Self {
        Self { explanation: None, skipping: false, portal: StatementKind::Other, ended: false }
    }

    /// The client has been told, perhaps in the middle of a batch.
    pub(crate) fn in_batch(skipping: bool) -> Self {
        Self { skipping, ..Self::told() }
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
    /// The block ends, but something was to follow (ROLLBACK AND CHAIN, or several statements).
    Restarts,
}

impl Session {
    /// One frame inside the played block.
    pub(crate) fn play_aborted<W: Wires>(
        &mut self,
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
            return Ok(self.aborted_sync(cut, wires));
        }
        if self.block().skipping {
            return Ok(self.swallow(cut));
        }
        match tag {
            FromClient::Query => return Ok(self.aborted_query(cut, wires)),
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
            self.phase = Phase::Aborted(Box::new(Aborted::told()));
        }
        match &mut self.phase {
            Phase::Aborted(block) => block,
            Phase::Relaying | Phase::Skipping | Phase::Deferred(_) | Phase::Refusing(_) => {
                unreachable!("set just above")
            }
        }
    }

    fn aborted_sync<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Step {
        let block = self.block();
        block.skipping = false;
        if block.ended {
            self.end_block();
        }
        wires.to_client(|out| backend::ready_for_query(self.tx.byte(), out));
        self.swallow(cut)
    }

    fn end_block(&mut self) {
        self.phase = Phase::Relaying;
        self.tx = TxStatus::Idle;
    }

    fn verdict_in_block(&mut self, kind: StatementKind, restarts: bool) -> Verdict {
        let explanation = self.block().explanation.take();
        match (kind, explanation) {
            (StatementKind::MayEnd, None) if restarts => Verdict::Restarts,
            (StatementKind::Rollback, _) | (StatementKind::Commit, None) => Verdict::Ends,
            (StatementKind::Commit, Some(report)) => Verdict::Error { report, ends: true },
            (_, Some(report)) => Verdict::Error { report, ends: false },
            (_, None) => Verdict::Error { report: in_failed_transaction(), ends: false },
        }
    }

    fn aborted_query<W: Wires>(&mut self, cut: Cut<'_>, wires: &mut W) -> Step {
        let sql = if cut.is_whole() { frontend::read::query(cut.body()).unwrap_or_default() } else { b"" };
        let class = weir_protocol::sql::classify(sql);
        let kind = if cut.is_whole() { StatementKind::of(sql) } else { StatementKind::MayEnd };
        if cut.is_whole() && class.statements == weir_protocol::sql::Count::Zero {
            wires.to_client(|out| {
                backend::empty_query_response(out);
                backend::ready_for_query(TxStatus::Failed.byte(), out);
            });
            return self.swallow(cut);
        }
        self.statements.forget_unnamed();
        // AND CHAIN, or more statements behind the end of the block.
        let restarts = class.first.ends_transaction();
        match self.verdict_in_block(kind, restarts) {
            Verdict::Ends => {
                self.end_block();
                wires.to_client(|out| backend::command_complete("ROLLBACK", out));
            }
            Verdict::Error { report, ends } => {
                if ends {
                    self.end_block();
                }
                wires.to_client(|out| backend::error(&report, out));
            }
            // A fresh block on the next server connection. The properties of the lost one are not known here.
            Verdict::Restarts if class.chain && class.statements == weir_protocol::sql::Count::One => {
                self.end_block();
                let mut begin = Vec::new();
                frontend::query(b"BEGIN", &mut begin);
                return Step::Instead(begin);
            }
            // What was to come behind the end of the block has not run, and must not look as if it had.
            Verdict::Restarts => {
                self.end_block();
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
        if self.block().ended {
            return self.fail(in_failed_transaction(), wires);
        }
        match kind {
            StatementKind::Rollback => true,
            StatementKind::Commit => match self.block().explanation.take() {
                Some(report) => {
                    self.block().ended = true;
                    self.fail(report, wires)
                }
                None => true,
            },
            StatementKind::Repeatable | StatementKind::MayEnd | StatementKind::Other => {
                let report = self.block().explanation.take().unwrap_or_else(in_failed_transaction);
                self.fail(report, wires)
            }
        }
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
            self.block().ended = true;
            wires.to_client(|out| backend::command_complete("ROLLBACK", out));
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
    .hint(
        "Send a ROLLBACK of its own, then BEGIN: AND CHAIN cannot copy the properties of a lost transaction.",
    )
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
