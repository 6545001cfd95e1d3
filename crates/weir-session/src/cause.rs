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

impl LossCause {
    /// For requests that may have been carried out.
    pub(crate) fn in_doubt(&self) -> Report {
        let what = sentence(&self.what);
        let report = Report::error(
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            "the outcome of this request is not known",
        )
        .detail(format!(
            "{what} before PostgreSQL confirmed the request; it may or may not have been carried out."
        ))
        .hint("Check whether its changes are there before repeating it. The connection to weir can go on being used.");
        self.named(report)
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

    /// For a client that is tied to the connection.
    pub(crate) fn session_over(&self) -> Report {
        let report = Report::fatal(SqlState::ADMIN_SHUTDOWN, "the server connection of this session is lost")
            .detail(format!("{}; what the session had set up there is gone.", sentence(&self.what)))
            .hint("Connect again. Transaction pooling keeps clients connected over such a loss.");
        self.named(report)
    }

    fn named(&self, mut report: Report) -> Report {
        if let Some(number) = self.failover {
            name_failover(&mut report, number);
        }
        report
    }
}

/// Says in DETAIL which failover an error belongs to.
pub fn name_failover(report: &mut Report, number: u64) {
    let detail = report.detail.get_or_insert_default();
    if !detail.is_empty() {
        detail.push(' ');
    }
    detail.push_str(&format!("This belongs to failover #{number} (SHOW FAILOVERS)."));
}

/// A clause as the beginning of a sentence.
fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    letters.next().map_or_else(
        || "The server connection was lost".to_owned(),
        |first| first.to_uppercase().chain(letters).collect(),
    )
}
