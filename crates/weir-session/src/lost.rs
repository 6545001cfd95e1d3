//! What a client is told when the server connection it holds is lost. The rules decide between "sent once more", "one
//! honest error", and "close", and never guess: a request is repeated only if PostgreSQL itself said that it was rolled
//! back.

use weir_protocol::backend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use crate::aborted::Aborted;
use crate::owed::Owed;
use crate::prepared::StatementKind;
use crate::server::{Server, TxStatus};
use crate::session::{Mode, Phase, Session};
use crate::wires::Wires;

/// Why a server connection is lost, and how to say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LossCause {
    /// What happened, as a clause for DETAIL: "the server connection to n1 (10.0.0.1:5432) was closed".
    pub what: String,
    /// The connection had said `in_hot_standby=on`: nothing it ran can have written.
    pub read_only_member: bool,
}

/// What the caller has to do with the client.
#[derive(Debug)]
pub enum AfterLoss {
    /// It stays, holds no server connection, and was told what there is to tell.
    Stays,
    /// It stays, and these bytes are its input once more, in front of any that have not been consumed.
    Again(Vec<u8>),
    /// Send this and close it.
    Close(Box<Report>),
    /// Close it without a word: half a message has already been sent.
    CloseSilently,
}

impl Session {
    /// The server connection is gone. Answers what is owed according to what can be known about it.
    pub fn server_lost<W: Wires>(
        &mut self,
        server: &mut Server,
        cause: &LossCause,
        wires: &mut W,
    ) -> AfterLoss {
        self.swallowing += std::mem::take(&mut self.passing);
        if server.relaying > 0 {
            return AfterLoss::CloseSilently;
        }
        if self.mode == Mode::Session {
            return self.session_lost(server, cause);
        }
        let promised: Vec<Owed> = server.owed.iter().cloned().collect();
        for owed in promised.iter().rev() {
            self.undo(owed.clone(), server);
        }
        let sent: Vec<Owed> = promised.into_iter().filter(|owed| !owed.is_hidden()).collect();
        match self.tx {
            TxStatus::Idle if sent.is_empty() => AfterLoss::Stays,
            TxStatus::Idle => self.lost_outside_transaction(&sent, server, cause, wires),
            TxStatus::Open => {
                self.lost_in_transaction(&sent, cause, wires);
                AfterLoss::Stays
            }
            TxStatus::Failed => {
                self.lost_in_failed_transaction(&sent, wires);
                AfterLoss::Stays
            }
        }
    }

    /// Session pooling: settings, temporary tables, locks and statements died with the connection.
    fn session_lost(&mut self, server: &Server, cause: &LossCause) -> AfterLoss {
        if !self.has_run && server.owed.iter().all(Owed::is_hidden) {
            return AfterLoss::Stays;
        }
        AfterLoss::Close(Box::new(
            Report::fatal(SqlState::ADMIN_SHUTDOWN, "the server connection of this session is lost")
                .detail(format!("{}; what the session had set up there is gone.", sentence(&cause.what)))
                .hint("Connect again. Transaction pooling keeps clients connected over such a loss."),
        ))
    }

    fn lost_outside_transaction<W: Wires>(
        &mut self,
        sent: &[Owed],
        server: &mut Server,
        cause: &LossCause,
        wires: &mut W,
    ) -> AfterLoss {
        let rolled_back = server.dying.as_ref().is_some_and(|dying| dying.code == SqlState::ADMIN_SHUTDOWN);
        if !self.retried
            && !server.warned
            && (rolled_back || cause.read_only_member)
            && let Some(bytes) = server.replay.take()
        {
            self.retried = true;
            return AfterLoss::Again(bytes);
        }
        self.retried = false;
        self.answer_all(sent, &in_doubt(cause), TxStatus::Idle, wires);
        AfterLoss::Stays
    }

    fn lost_in_transaction<W: Wires>(&mut self, sent: &[Owed], cause: &LossCause, wires: &mut W) {
        let kinds = || sent.iter().filter_map(kind_of_request);
        if sent.is_empty() {
            self.phase = Phase::Aborted(Box::new(Aborted::owing(rolled_back(cause))));
            self.tx = TxStatus::Failed;
        } else if kinds().any(|kind| kind == StatementKind::Commit) {
            self.answer_all(sent, &in_doubt(cause), TxStatus::Idle, wires);
        } else if kinds().any(|kind| kind == StatementKind::MayEnd) {
            self.answer_all(sent, &in_doubt(cause), TxStatus::Failed, wires);
        } else if is_lone_rollback(sent) {
            self.answer_rollback(sent, wires);
        } else {
            self.answer_all(sent, &rolled_back(cause), TxStatus::Failed, wires);
        }
    }

    /// The client knows already that its transaction failed: nothing can have been committed.
    fn lost_in_failed_transaction<W: Wires>(&mut self, sent: &[Owed], wires: &mut W) {
        if sent.is_empty() {
            self.phase = Phase::Aborted(Box::new(Aborted::told()));
        } else if is_lone_rollback(sent) {
            self.answer_rollback(sent, wires);
        } else {
            self.answer_all(sent, &crate::aborted::in_failed_transaction(), TxStatus::Failed, wires);
        }
    }

    /// One error for each request in flight, and the ReadyForQuery it waits for. A batch whose Sync has not been sent is
    /// skipped up to there.
    fn answer_all<W: Wires>(&mut self, sent: &[Owed], report: &Report, status: TxStatus, wires: &mut W) {
        let mut answered = false;
        for owed in sent {
            match owed {
                Owed::Query(_) | Owed::Sync => {
                    wires.to_client(|out| {
                        if !std::mem::take(&mut answered) {
                            backend::error(report, out);
                        }
                        backend::ready_for_query(status.byte(), out);
                    });
                }
                _ if !answered => {
                    answered = true;
                    wires.to_client(|out| backend::error(report, out));
                }
                _ => {}
            }
        }
        self.leave_with(status, answered);
    }

    /// Nothing but a ROLLBACK was in flight: what it asked for has happened.
    fn answer_rollback<W: Wires>(&mut self, sent: &[Owed], wires: &mut W) {
        let mut ready = false;
        for owed in sent {
            wires.to_client(|out| match owed {
                Owed::Query(_) => {
                    backend::command_complete("ROLLBACK", out);
                    backend::ready_for_query(TxStatus::Idle.byte(), out);
                }
                Owed::Sync => backend::ready_for_query(TxStatus::Idle.byte(), out),
                Owed::Parse(_) | Owed::LocalParse(_) => backend::parse_complete(out),
                Owed::Bind => backend::bind_complete(out),
                Owed::Describe { statement } => {
                    if *statement {
                        backend::parameter_description(&[], out);
                    }
                    backend::no_data(out);
                }
                Owed::Execute(_) => backend::command_complete("ROLLBACK", out),
                Owed::Close | Owed::LocalClose(_) => backend::close_complete(out),
                Owed::HiddenParse(_) | Owed::HiddenClose(_) | Owed::HiddenSettings | Owed::CopyEnd => {}
            });
            ready = matches!(owed, Owed::Query(_) | Owed::Sync);
        }
        self.phase = Phase::Relaying;
        self.tx = TxStatus::Idle;
        if !ready {
            // The batch goes on; nothing that may still come in it can be answered by a server connection.
            self.phase = Phase::Skipping;
        }
    }

    fn leave_with(&mut self, status: TxStatus, in_batch: bool) {
        self.tx = status;
        self.phase = match (status, in_batch) {
            (TxStatus::Failed | TxStatus::Open, _) => Phase::Aborted(Box::new(Aborted::in_batch(in_batch))),
            (TxStatus::Idle, true) => Phase::Skipping,
            (TxStatus::Idle, false) => Phase::Relaying,
        };
    }
}

fn kind_of_request(owed: &Owed) -> Option<StatementKind> {
    match owed {
        Owed::Query(kind) | Owed::Execute(kind) => Some(*kind),
        _ => None,
    }
}

/// Exactly one request is in flight, and it can only roll back.
fn is_lone_rollback(sent: &[Owed]) -> bool {
    let mut kinds = sent.iter().filter_map(kind_of_request);
    let endings = sent.iter().filter(|owed| owed.ends_in_ready()).count();
    kinds.next() == Some(StatementKind::Rollback) && kinds.next().is_none() && endings <= 1
}

fn in_doubt(cause: &LossCause) -> Report {
    Report::error(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, "the outcome of this request is not known")
        .detail(format!(
            "{} before PostgreSQL confirmed the request; it may or may not have been carried out.",
            sentence(&cause.what)
        ))
        .hint("Check whether its changes are there before repeating it. The connection to weir can go on being used.")
}

fn rolled_back(cause: &LossCause) -> Report {
    Report::error(
        SqlState::SERIALIZATION_FAILURE,
        "the transaction was rolled back because its server connection is lost",
    )
    .detail(format!("{}. Nothing of the transaction was committed.", sentence(&cause.what)))
    .hint("Roll back and run the whole transaction again on this connection.")
}

/// A clause as the beginning of a sentence.
fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    letters.next().map_or_else(
        || "The server connection was lost".to_owned(),
        |first| first.to_uppercase().chain(letters).collect(),
    )
}

#[cfg(test)]
#[path = "lost/tests.rs"]
mod tests;
