//! Why a server connection is lost, in the words that clients read: what happened, what is known of their requests, what
//! to do. Decides nothing.

use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

/// Why a server connection is lost, and how to say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LossCause {
    /// What happened, as a clause for DETAIL: "the server connection to n1 (10.0.0.1:5432) was closed".
    pub what: String,
    /// The connection had said `in_hot_standby=on`: nothing it ran can have written.
    pub read_only_member: bool,
    /// Number of the failover that it belongs to, if one is known to be under way.
    pub failover: Option<u64>,
}

/// What it is whose outcome nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Requests outside of a transaction, or some that may have ended it.
    Request,
    /// One that may have ended the transaction; the client is in an aborted block now.
    InBlock,
    /// A COMMIT.
    Commit,
    /// A request on a standby, which cannot have changed anything.
    Read,
}

/// What is lost with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// In transaction pooling, and tied to its connection by what it has set up there.
    pub(crate) is_pinned: bool,
    pub(crate) under_way: UnderWay,
}

/// What a session had under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnderWay {
    /// Nothing.
    Nothing,
    /// A transaction that cannot have been committed.
    Transaction,
    /// Something that may have been carried out.
    Request,
}

impl LossCause {
    /// For requests that may have been carried out.
    pub(crate) fn in_doubt(&self, of: Doubt) -> Report {
        let what = sentence(&self.what);
        let message = match of {
            Doubt::Commit => "the outcome of this transaction is not known",
            Doubt::Request | Doubt::InBlock => "the outcome of this request is not known",
            Doubt::Read => "the answer to this request is lost",
        };
        let detail = match of {
            Doubt::Commit => {
                "before PostgreSQL confirmed the COMMIT; either all of the transaction was committed, or nothing."
            }
            Doubt::Request | Doubt::InBlock => {
                "before PostgreSQL confirmed the request; it may or may not have been carried out."
            }
            Doubt::Read => "before the answer was complete. It was a standby's: nothing was changed there.",
        };
        let hint = match of {
            Doubt::Commit | Doubt::Request => {
                "Check whether its changes are there before repeating it. The connection to weir can go on being used."
            }
            Doubt::InBlock => {
                "Roll back, then check whether its changes are there before repeating it. The connection to weir can go on being used."
            }
            Doubt::Read => "Send it once more. The connection to weir can go on being used.",
        };
        let report = Report::error(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message);
        self.named(report.detail(format!("{what} {detail}")).hint(hint))
    }

    /// For a transaction that certainly was not committed.
    pub(crate) fn rolled_back(&self) -> Report {
        let report = Report::error(
            SqlState::SERIALIZATION_FAILURE,
            "the transaction was rolled back because its server connection is lost",
        )
        .detail(format!("{}. Nothing of the transaction was committed.", sentence(&self.what)))
        .hint("Roll back and run the whole transaction again on this connection.");
        self.named(report)
    }

    /// For a client that goes with the connection.
    pub(crate) fn session_over(&self, lost: Session) -> Report {
        let under_way = match lost.under_way {
            UnderWay::Nothing => "",
            UnderWay::Transaction => " Its transaction was rolled back.",
            UnderWay::Request => " What it had under way may or may not have been carried out.",
        };
        let hint = if lost.is_pinned {
            "Connect again and set it up anew. In transaction pooling only clients with something that cannot follow them \
             (temporary tables, LISTEN, session locks and the like) end with a server connection."
        } else {
            "Connect again. Transaction pooling keeps clients connected over such a loss."
        };
        let report = Report::fatal(SqlState::ADMIN_SHUTDOWN, "the server connection of this session is lost")
            .detail(format!(
                "{}; what the session had set up there is gone.{under_way}",
                sentence(&self.what)
            ))
            .hint(hint);
        self.named(report)
    }

    fn named(&self, mut report: Report) -> Report {
        if let Some(number) = self.failover {
            add_detail(&mut report, &format!("That was during failover #{number} (SHOW FAILOVERS)."));
        }
        report
    }
}

/// Says in DETAIL which failover a client waits for.
pub fn name_failover(report: &mut Report, number: u64) {
    add_detail(report, &format!("This wait is part of failover #{number} (SHOW FAILOVERS)."));
}

/// Says in DETAIL which failover began with the loss.
pub(crate) fn name_failover_behind(report: &mut Report, number: u64) {
    let text =
        format!("That PostgreSQL gave no sign of life afterwards: failover #{number} (SHOW FAILOVERS).");
    add_detail(report, &text);
}

fn add_detail(report: &mut Report, text: &str) {
    let detail = report.detail.get_or_insert_default();
    if !detail.is_empty() {
        detail.push(' ');
    }
    detail.push_str(text);
}

/// A clause as the beginning of a sentence.
fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    letters.next().map_or_else(
        || "The server connection was lost".to_owned(),
        |first| first.to_uppercase().chain(letters).collect(),
    )
}
