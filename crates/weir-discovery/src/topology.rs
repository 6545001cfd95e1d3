//! What discovery publishes: an immutable picture of whom to send writes and reads to, and what sessions report
//! back. Decides nothing.

use std::fmt;
use std::time::{Duration, Instant};

/// Where a PostgreSQL server listens: a host name or address (or a socket directory) and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Name, IPv4 or IPv6 address without brackets, or a directory that starts with `/`.
    pub host: String,
    /// TCP port, or the number in the Unix socket's file name.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// One reign over one database cluster. Server connections of different epochs never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The number that initdb drew (`pg_control_system()`); all members of a cluster share it.
    pub system_identifier: u64,
    /// Grows with every promotion.
    pub timeline: u32,
}

/// Whom to send writes and reads to, as of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Grows whenever the leader, the read targets, the fallback or the plan change.
    pub generation: u64,
    /// Where writes go.
    pub leader: Leadership,
    /// Where reads go. Empty: nobody may serve them now, see `fallback`.
    pub replicas: Vec<ReadTarget>,
    /// What the read door does while `replicas` is empty.
    pub fallback: ReadFallback,
    /// Servers from which nothing comes any more: what is under way there is as good as lost.
    pub silent: Vec<Address>,
    /// The cluster follows another one (Patroni's `standby_cluster`): by design nobody in it takes writes, so nobody
    /// need wait for a leader.
    pub is_standby_cluster: bool,
    /// Number of the failover that is under way, or of the last one, as in [`crate::FailoverRecord::number`]; 0 if there
    /// was none.
    pub failover: u64,
    /// The leader that was given up, or replaced, by that failover.
    pub given_up: Option<GivenUp>,
    /// The leader is about to go by plan, for this reason: nobody is given a connection to it any more, those who have
    /// one finish their transaction.
    pub planned: Option<String>,
    /// Everybody, as known when this generation was made.
    pub members: Vec<MemberView>,
}

impl Topology {
    /// Whoever follows one of the two need not hear of the other.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let said = |it: &Self| (it.fallback, it.is_standby_cluster);
        said(self) == said(other)
            && (&self.leader, &self.replicas, &self.silent, &self.planned)
                == (&other.leader, &other.replicas, &other.silent, &other.planned)
    }

    /// Why writes wait; `None` if they do not.
    pub fn why_held(&self) -> Option<&str> {
        match &self.leader {
            Leadership::Led { .. } => self.planned.as_deref(),
            Leadership::Leaderless { why } => Some(self.planned.as_deref().unwrap_or(why)),
        }
    }

    /// Number of the failover that is under way, as SHOW FAILOVERS has it; `None` while somebody leads, or nobody did yet.
    pub fn failover_under_way(&self) -> Option<u64> {
        let is_leaderless = matches!(self.leader, Leadership::Leaderless { .. });
        Some(self.failover).filter(|number| is_leaderless && *number > 0)
    }

    /// Nothing is behind weir but the servers that databases name themselves.
    pub fn nobody() -> Self {
        Self {
            generation: 1,
            leader: Leadership::Leaderless { why: "no server is named for this database".to_owned() },
            replicas: Vec::new(),
            fallback: ReadFallback::Primary,
            silent: Vec::new(),
            is_standby_cluster: false,
            failover: 0,
            given_up: None,
            planned: None,
            members: Vec::new(),
        }
    }

    /// One PostgreSQL server without a cluster around it: always led, and the reader's only target as well.
    pub fn plain(address: Address) -> Self {
        let member = address.to_string();
        Self {
            generation: 1,
            leader: Leadership::Led {
                member: member.clone(),
                address: address.clone(),
                epoch: None,
                epoch_number: 0,
                degraded: None,
            },
            replicas: vec![ReadTarget {
                member: member.clone(),
                address: address.clone(),
                is_primary: true,
                system_identifier: None,
                weight: 1,
            }],
            fallback: ReadFallback::Primary,
            silent: Vec::new(),
            is_standby_cluster: false,
            failover: 0,
            given_up: None,
            planned: None,
            members: vec![MemberView {
                is_leader: true,
                address: Some(address),
                ..MemberView::unknown(member, String::new())
            }],
        }
    }
}

/// The end of a reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// [`Leadership::Led::epoch_number`] of the reign.
    pub epoch_number: u64,
    /// When its PostgreSQL was last known to live, and it was not started anew since. `None`: nobody watched it.
    pub lived_at: Option<Instant>,
}

/// Where writes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// To this member.
    Led {
        /// Patroni's name of the member.
        member: String,
        /// Its PostgreSQL.
        address: Address,
        /// What a new write connection has to confirm; `None` without a cluster.
        epoch: Option<Epoch>,
        /// Grows with each (member, timeline) that is newly followed, and when the leader's PostgreSQL was started anew
        /// (a host that lost power comes back on its timeline, and its old connections are dead without a word). A leader
        /// that was only lost from sight keeps its number, and so do the connections to it.
        epoch_number: u64,
        /// Set while the leader is kept although something about it cannot be asked; says what.
        degraded: Option<String>,
    },
    /// Nowhere for now: hold.
    Leaderless {
        /// One sentence for operators.
        why: String,
    },
}

/// A place to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadTarget {
    /// Patroni's name of the member.
    pub member: String,
    /// Its PostgreSQL.
    pub address: Address,
    /// The leader serves reads because no replica can: such connections have to be made read-only.
    pub is_primary: bool,
    /// What the member's cluster calls itself, where known.
    pub system_identifier: Option<u64>,
    /// Its part of the load, compared to the others; 0: it is there for want of others.
    pub weight: u32,
}

/// How far a replica is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Bytes of the log that it has still to replay.
    pub bytes: u64,
    /// Where its position comes from.
    pub source: LagSource,
    /// How long ago it told.
    pub age: Duration,
}

/// Who tells a position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagSource {
    /// PostgreSQL, by the monitor connection.
    Monitor,
    /// The member's own REST API.
    RestApi,
    /// `/cluster`, which is up to Patroni's `loop_wait` late.
    Cluster,
}

/// What the read door does while no replica is eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFallback {
    /// Read from the leader, in read-only transactions.
    Primary,
    /// Hold clients as the write door does.
    Wait,
    /// Answer with an error at once.
    Error,
}

/// One member as SHOW MEMBERS and the status page tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Patroni's name; the URL for a seed that no `/cluster` answer has named yet.
    pub name: String,
    /// Base URL of its REST API.
    pub api_url: String,
    /// Its PostgreSQL; `None` until `/cluster` announced one.
    pub address: Option<Address>,
    /// Role as Patroni last put it (`primary`, `replica`, ...); empty if unknown.
    pub role: String,
    /// State as Patroni last put it (`running`, `streaming`, ...); empty if unknown.
    pub state: String,
    /// Timeline, PostgreSQL's own word first, then Patroni's.
    pub timeline: Option<u32>,
    /// How far it is behind; `None` if unknown, and for the leader.
    pub lag: Option<Lag>,
    /// Shortest of the last round trips to its PostgreSQL, as a monitor measures them.
    pub round_trip: Option<Duration>,
    /// [`ReadTarget::weight`], if it serves reads.
    pub read_weight: Option<u32>,
    /// Patroni tags, values as text.
    pub tags: Vec<(String, String)>,
    /// How its REST API does.
    pub api: Api,
    /// What the monitor connection sees.
    pub monitor: Monitor,
    /// True for the member that gets the writes.
    pub is_leader: bool,
    /// A restart that settings wait for, or that is scheduled, in words.
    pub restart: Option<String>,
    /// Why it serves no reads; `None` if it does.
    pub why_not_read: Option<String>,
    /// Why it is not followed although it claims to lead.
    pub why_not_lead: Option<String>,
}

impl MemberView {
    /// A member of which only the name and the URL are known.
    pub fn unknown(name: String, api_url: String) -> Self {
        Self {
            name,
            api_url,
            address: None,
            role: String::new(),
            state: String::new(),
            timeline: None,
            lag: None,
            round_trip: None,
            read_weight: None,
            tags: Vec::new(),
            api: Api::Unasked,
            monitor: Monitor::Off,
            is_leader: false,
            restart: None,
            why_not_read: None,
            why_not_lead: None,
        }
    }
}

/// How a member's REST API does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Api {
    /// No answer was due yet.
    Unasked,
    /// The last request was answered.
    Ok,
    /// The last request failed.
    Failing {
        /// First failure in a row.
        since: Instant,
        /// The last failure.
        why: String,
    },
}

/// What the monitor connection to a member sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Monitor {
    /// No monitor runs (no credentials, or no cluster).
    Off,
    /// No answer yet.
    Pending,
    /// PostgreSQL answers and takes writes.
    Primary {
        /// Timeline that it writes.
        timeline: Option<u32>,
        /// Its cluster's identity.
        system_identifier: Option<u64>,
    },
    /// PostgreSQL answers and is in recovery.
    Standby,
    /// PostgreSQL answers but does not let the monitor in, so its role is unknown; says why.
    RoleUnknown(String),
    /// The connection ended or a ping stayed unanswered; asking again. Says what happened.
    Suspect(String),
    /// PostgreSQL does not take connections; says why.
    Gone(String),
}

/// Something that a session or a dial met and that discovery should look into. It starts a poll and never decides
/// anything: an application can raise any SQLSTATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvidence {
    /// PostgreSQL ended a connection with FATAL.
    Fatal {
        /// The server.
        address: Address,
        /// Its SQLSTATE.
        code: [u8; 5],
    },
    /// A dial failed or login was turned away.
    Refused {
        /// The server.
        address: Address,
    },
    /// A connection ended without a word.
    Lost {
        /// The server.
        address: Address,
    },
    /// A new write connection found a standby.
    NotPrimary {
        /// The server.
        address: Address,
    },
    /// A connection to a replica found it promoted.
    NoStandby {
        /// The server.
        address: Address,
    },
    /// A new write connection found a newer timeline than the one followed.
    NewerTimeline {
        /// The server.
        address: Address,
        /// What it found.
        timeline: u32,
    },
}

impl SessionEvidence {
    /// The server it is about.
    pub fn address(&self) -> &Address {
        match self {
            Self::Fatal { address, code: _ }
            | Self::Refused { address }
            | Self::Lost { address }
            | Self::NotPrimary { address }
            | Self::NoStandby { address }
            | Self::NewerTimeline { address, timeline: _ } => address,
        }
    }
}
