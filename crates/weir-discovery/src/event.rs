//! The machine's border: what it is told, and what it wants to have asked. Plain data.

use std::time::Duration;

use crate::patroni::Answer;
use crate::topology::{Address, ReadFallback, SessionEvidence};
use crate::url::ApiUrl;

/// How to follow one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// REST APIs that are always asked, however `/cluster` changes.
    pub seeds: Vec<ApiUrl>,
    /// Scope that the cluster must have; `None`: the one of the first leader that is followed.
    pub scope: Option<String>,
    /// A replica that lags more bytes serves no reads.
    pub max_lag_bytes: u64,
    /// What the read door does without an eligible replica.
    pub fallback: ReadFallback,
    /// How reads are shared out over the replicas.
    pub policy: ReadPolicy,
    /// How often each REST API is asked when all is quiet.
    pub poll_interval: Duration,
    /// Whether monitor connections can be made (there are credentials for them).
    pub monitor: bool,
}

/// How reads are shared out over the replicas that may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadPolicy {
    /// Fewer busy connections of two drawn at random.
    LeastConnections,
    /// One after the other.
    RoundRobin,
    /// One after the other, each as often as its Patroni tag `weir_weight` says.
    Weighted,
    /// Those that answer monitors fastest, as in `LeastConnections`; the others for want of these.
    Nearest,
}

/// Something the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Outcome of [`Request::Primary`].
    Polled {
        /// Who was asked.
        url: ApiUrl,
        /// What came back.
        result: Result<Answer, PollFailure>,
    },
    /// Outcome of [`Request::Cluster`].
    Cluster {
        /// Who was asked.
        url: ApiUrl,
        /// What came back.
        result: Result<Answer, PollFailure>,
    },
    /// Outcome of [`Request::Ping`], or, at any time, the end of a monitor connection.
    Monitor {
        /// Whose PostgreSQL.
        member: String,
        /// Where it was asked: an answer from an address that the member has left is dropped.
        address: Address,
        /// What was seen.
        report: MonitorReport,
    },
    /// A session or a dial met something.
    Evidence(SessionEvidence),
    /// Somebody who knows the token says that something has happened.
    Pushed,
}

/// What the machine wants to have asked. Each is answered by exactly one [`Event`], within a hard deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `GET /primary`.
    Primary {
        /// Whom to ask.
        url: ApiUrl,
    },
    /// `GET /cluster`.
    Cluster {
        /// Whom to ask.
        url: ApiUrl,
    },
    /// Ask PostgreSQL for its role: over the monitor connection if there is one, else open it.
    Ping {
        /// Whose PostgreSQL.
        member: String,
        /// Where it listens.
        address: Address,
    },
}

/// Why a REST call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PollFailure {
    /// Nothing listens, or the host cannot be reached or resolved.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// No whole answer in time.
    #[error("did not answer in time")]
    TimedOut,
    /// One of the two does not trust the other.
    #[error("cannot be asked over TLS: {0}")]
    Tls(String),
    /// The connection ended before a whole answer, or what came is no HTTP.
    #[error("broke off: {0}")]
    Broken(String),
}

/// What a ping has measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Position in the log: what a primary has written, what a standby has replayed. `None`: it was not asked.
    pub location: Option<u64>,
    /// From the question to its answer, without the time that opening the connection took.
    pub round_trip: Option<Duration>,
}

/// What a monitor connection saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MonitorReport {
    /// PostgreSQL answered.
    Answered {
        /// It is in recovery.
        in_hot_standby: bool,
        /// Timeline it writes, if it is not.
        timeline: Option<u32>,
        /// Its cluster's identity, if it was asked.
        system_identifier: Option<u64>,
        /// When its postmaster was started, in microseconds since 1970, if it was asked.
        started: Option<u64>,
        /// What was measured.
        vitals: Vitals,
    },
    /// An established connection ended, or a ping on it stayed unanswered.
    Lost {
        /// How.
        why: String,
    },
    /// No connection could be opened: refused, no answer in time, starting up or shutting down.
    Unreachable {
        /// Why, as the rest of a sentence about the server.
        why: String,
    },
    /// Nothing came back in time, neither on the established connection nor on a new one: what is under way there is as
    /// good as lost.
    Silent,
    /// PostgreSQL answers but does not let the monitor in.
    RoleUnknown {
        /// Why.
        why: String,
    },
}

impl MonitorReport {
    /// What a ping that was answered has measured.
    pub(crate) fn vitals(&self) -> Option<Vitals> {
        match self {
            Self::Answered { vitals, .. } => Some(*vitals),
            Self::Lost { .. } | Self::Unreachable { .. } | Self::Silent | Self::RoleUnknown { .. } => None,
        }
    }
}
