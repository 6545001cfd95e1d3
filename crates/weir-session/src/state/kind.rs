//! The kinds of session state and the policies for them. Owns their names in the configuration, in figures and in
//! messages; refuses to know how they are found.

use weir_protocol::sql::Marks;

/// A kind of state that outlives a transaction on its server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// Run-time parameters, role and session authorization.
    Setting,
    /// Statements prepared by SQL.
    Prepared,
    /// LISTEN.
    Listening,
    /// Advisory locks of the session.
    Lock,
    /// Temporary tables and the like.
    Temporary,
    /// Cursors WITH HOLD.
    Cursor,
}

/// How many kinds there are.
pub const KINDS: usize = 6;

impl StateKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; KINDS] =
        [Self::Setting, Self::Prepared, Self::Listening, Self::Lock, Self::Temporary, Self::Cursor];

    /// Its place in figures.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The key of its policy in the configuration.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Setting => "on_set",
            Self::Prepared => "on_prepare",
            Self::Listening => "on_listen",
            Self::Lock => "on_advisory_lock",
            Self::Temporary => "on_temporary_table",
            Self::Cursor => "on_hold_cursor",
        }
    }

    /// What it is called in messages.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Setting => "SET",
            Self::Prepared => "PREPARE",
            Self::Listening => "LISTEN",
            Self::Lock => "session-level advisory locks",
            Self::Temporary => "temporary tables",
            Self::Cursor => "cursors WITH HOLD",
        }
    }

    pub(super) const fn marks(self) -> Marks {
        match self {
            Self::Setting => Marks::SETTING.with(Marks::ROLE),
            Self::Prepared => Marks::PREPARED,
            Self::Listening => Marks::LISTENING,
            Self::Lock => Marks::LOCK,
            Self::Temporary => Marks::TEMPORARY,
            Self::Cursor => Marks::CURSOR,
        }
    }
}

/// What becomes of session state in transaction and statement pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It is made anew on each server connection that the client gets. For settings and prepared statements; others are
    /// pinned.
    Track,
    /// The client keeps its server connection until the state is gone.
    Pin,
    /// The statement is refused.
    Refuse,
    /// The next client gets a cleaned server connection, and this one loses it.
    Forget,
}

impl Policy {
    /// What it is called in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Pin => "pin",
            Self::Refuse => "refuse",
            Self::Forget => "forget",
        }
    }
}

/// A policy for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies([Policy; KINDS]);

impl Policies {
    /// What `policy` says for each kind.
    #[must_use]
    pub fn of(policy: impl Fn(StateKind) -> Policy) -> Self {
        Self(StateKind::ALL.map(policy))
    }

    /// The policy for a kind.
    #[must_use]
    pub fn for_kind(&self, kind: StateKind) -> Policy {
        self.0[kind.index()]
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self::of(|kind| match kind {
            StateKind::Setting | StateKind::Prepared => Policy::Track,
            StateKind::Listening | StateKind::Lock | StateKind::Temporary | StateKind::Cursor => Policy::Pin,
        })
    }
}
