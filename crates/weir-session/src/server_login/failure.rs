//! Why a login to PostgreSQL failed, and what a client who waited for it may read about that.

use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;

/// Why a login to PostgreSQL failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginFailure {
    /// PostgreSQL said no, in these words.
    #[error("{0}")]
    Refused(Report),
    /// PostgreSQL asks for something that weir does not have for this user.
    #[error("the server asks for {method}, for which nothing usable is known")]
    NoCredential {
        /// What was asked for, as `pg_hba.conf` calls it.
        method: &'static str,
    },
    /// A standby where the primary should be.
    #[error("the server is not the primary")]
    NotPrimary,
    /// A primary where a standby should be.
    #[error("the server is not a standby")]
    NotReplica,
    /// A primary on another timeline than the one that is followed.
    #[error("the server is on timeline {seen}, not {expected}")]
    WrongTimeline {
        /// The server's.
        seen: u32,
        /// The one that is followed.
        expected: u32,
    },
    /// A primary of another cluster.
    #[error("the server belongs to the cluster with system identifier {seen}, not {expected}")]
    WrongSystem {
        /// The server's.
        seen: u64,
        /// The one that is followed.
        expected: u64,
    },
    /// It does not speak the protocol as it should, or has not proven that it knows the secret.
    #[error("{0}")]
    Malformed(String),
}

impl LoginFailure {
    /// The failure as a client of `user` may read it: PostgreSQL's own code where it gave one.
    #[must_use]
    pub fn report(&self, user: &str) -> Report {
        match self {
            Self::Refused(report) if report.code == SqlState::INVALID_PASSWORD => {
                Report::fatal(report.code, format!("password authentication failed for user \"{user}\""))
                    .detail("PostgreSQL does not accept the secret that weir has for this user.")
                    .hint("If the password was changed, reconnect with the new one.")
            }
            Self::Refused(report) => report.clone().with_severity(Severity::Fatal),
            Self::NoCredential { method } => Report::fatal(
                SqlState::INVALID_AUTHORIZATION,
                format!("weir cannot log in to PostgreSQL as user \"{user}\""),
            )
            .detail(format!("PostgreSQL asks for {method}, and nothing usable for that is known."))
            .hint(
                "A SCRAM verifier alone is not enough: either the user list holds the password, \
                 or the user has logged in to weir with SCRAM since it was started.",
            ),
            Self::NotPrimary | Self::NotReplica | Self::WrongTimeline { .. } | Self::WrongSystem { .. } => {
                Report::fatal(SqlState::CANNOT_CONNECT_NOW, "the server cannot be used")
                    .detail(format!("{self}."))
            }
            Self::Malformed(why) => Report::fatal(SqlState::CONNECTION_FAILURE, "login to PostgreSQL failed")
                .detail(format!("{why}.")),
        }
    }
}
