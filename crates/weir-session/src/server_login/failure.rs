//! Why a login to PostgreSQL failed, and what a client who waited for it may read about that.

use std::fmt;

use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;

/// What weir has of a user whom it cannot log in to PostgreSQL as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// Nothing, or a SCRAM verifier: that checks a client but does not log in.
    Nothing,
    /// The password, but PostgreSQL wants something else.
    Password,
    /// Keys from a client's SCRAM login.
    Keys,
    /// An md5 secret.
    Md5,
}

impl fmt::Display for Has {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing usable",
            Self::Password => "a password only",
            Self::Keys => "the keys of a SCRAM login only",
            Self::Md5 => "an md5 secret only",
        })
    }
}

impl Has {
    /// What would help.
    fn way_out(self) -> &'static str {
        match self {
            Self::Nothing => {
                "A SCRAM verifier alone is not enough: either the user list holds the password, \
                 or the user has logged in to weir with SCRAM since it was started."
            }
            Self::Password => "Let pg_hba.conf ask weir for scram-sha-256, a certificate or nothing.",
            Self::Keys => {
                "Let pg_hba.conf ask weir for scram-sha-256, or put the user's password into the user list."
            }
            Self::Md5 => {
                "Put the user's password into the user list, or let PostgreSQL store a SCRAM verifier for the user \
                 (password_encryption) and weir find it by auth_query."
            }
        }
    }
}

/// Why a login to PostgreSQL failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginFailure {
    /// PostgreSQL said no, in these words.
    #[error("{0}")]
    Refused(Report),
    /// PostgreSQL asks for something that weir does not have for this user.
    #[error("the server asks for {method}, and weir has {has} for this user")]
    NoCredential {
        /// What was asked for, as `pg_hba.conf` calls it.
        method: &'static str,
        /// What weir has.
        has: Has,
    },
    /// It does not tie the login to the channel, and has to.
    #[error("the login cannot be bound to the TLS channel: {0}")]
    Unbound(&'static str),
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
            Self::Refused(report) if report.code == SqlState::INVALID_PASSWORD => Report::fatal(
                report.code,
                format!("password authentication failed for user \"{user}\""),
            )
            .detail("PostgreSQL does not accept the secret that weir has for this user.")
            .hint(
                "If the password was changed, reconnect with the new one. A verifier in the user list has to \
                         be the very one that PostgreSQL stores.",
            ),
            Self::Refused(report) => report.clone().with_severity(Severity::Fatal),
            Self::NoCredential { method, has } => Report::fatal(
                SqlState::INVALID_AUTHORIZATION,
                format!("weir cannot log in to PostgreSQL as user \"{user}\""),
            )
            .detail(format!("PostgreSQL asks for {method}, and weir has {has} for this user."))
            .hint(has.way_out()),
            Self::Unbound(why) => Report::fatal(
                SqlState::CONNECTION_FAILURE,
                "the server does not prove that nobody stands between it and weir",
            )
            .detail(format!("Channel binding is required (server_tls.channel_binding), and {why}."))
            .hint(
                "PostgreSQL offers SCRAM-SHA-256-PLUS over TLS where pg_hba.conf asks for scram-sha-256 and its \
                 certificate is not signed with Ed25519. If it does, somebody else has answered.",
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
