//! What can be done to a cluster, by name, and what each event may cost. Does nothing itself.

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A planned change of leader by `patronictl switchover`.
    Switchover,
    /// The same by weir's console command SWITCHOVER.
    Planned,
    /// A switchover that `patronictl` was told to make in a few seconds.
    Scheduled,
    /// `kill -9` of Patroni and every PostgreSQL process of the leader's node at once.
    Crash,
    /// `kill -9` of the leader's PostgreSQL; its Patroni lives and starts it again, or another node takes over.
    Postmaster,
    /// `SIGSTOP` of everything on the leader's node, and `SIGCONT` after another one leads: PostgreSQL a second before
    /// its Patroni, so that nothing but the pooler keeps writes away from it.
    Freeze,
    /// The leader's node is cut off the network, nothing is refused or reset; healed after another one leads.
    Cut,
    /// Nothing reaches any REST API for a while; PostgreSQL is well.
    SilentApis,
    /// etcd is killed and started again, with Patroni's `failsafe_mode`: PostgreSQL is well.
    EtcdFailsafe,
    /// The same without `failsafe_mode`: Patroni takes the leader away until etcd is back.
    Etcd,
    /// While Patroni is paused a replica is promoted by hand: the leader keeps its key, and there are two that take writes.
    Pause,
    /// `kill -9` of a replica's node.
    Replica,
    /// A replica stops replaying while much is written, and catches up later.
    Lag,
    /// Every node is restarted by `patronictl`, the replicas first, the leader after a switchover.
    Rolling,
}

impl Event {
    /// All, in an order in which each finds a cluster that is well.
    pub const ALL: [Self; 14] = [
        Self::Switchover,
        Self::Planned,
        Self::Scheduled,
        Self::Crash,
        Self::Postmaster,
        Self::Freeze,
        Self::Cut,
        Self::SilentApis,
        Self::EtcdFailsafe,
        Self::Etcd,
        Self::Pause,
        Self::Replica,
        Self::Lag,
        Self::Rolling,
    ];

    /// Its name, in the table and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Planned => "planned",
            Self::Scheduled => "scheduled",
            Self::Crash => "crash",
            Self::Postmaster => "postmaster",
            Self::Freeze => "freeze",
            Self::Cut => "cut",
            Self::SilentApis => "api",
            Self::EtcdFailsafe => "etcd-failsafe",
            Self::Etcd => "etcd",
            Self::Pause => "pause",
            Self::Replica => "replica",
            Self::Lag => "lag",
            Self::Rolling => "rolling",
        }
    }

    /// The event called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// What becomes of the leader.
    #[must_use]
    pub fn fate(self) -> Fate {
        match self {
            Self::Switchover | Self::Crash | Self::Rolling => Fate::Lost,
            Self::Planned | Self::Scheduled => Fate::Moves,
            Self::Freeze | Self::Cut => Fate::Silent,
            Self::Postmaster | Self::Etcd => Fate::MayReturn,
            Self::SilentApis | Self::EtcdFailsafe | Self::Pause | Self::Replica | Self::Lag => Fate::Stays,
        }
    }
}

/// What becomes of the leader, and so which statements may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its sessions end and another node leads. What was on it may fail.
    Lost,
    /// Another node leads, after everything on it has ended. Nothing may fail.
    Moves,
    /// It answers nothing any more and another node leads. What was sent until then may fail.
    Silent,
    /// Its sessions end; it or another node leads afterwards. What was on it may fail.
    MayReturn,
    /// It is well all the time. Nothing may fail.
    Stays,
}
