//! The laws: what has to hold in every story, by name. Each is checked where what it is about happens; a story that breaks
//! one ends there.

use std::fmt;

/// What has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Law {
    /// A server connection serves one client at a time.
    OneClientAtATime,
    /// Replies reach the client that asked, in order, complete; and errors are about what the client itself did.
    OwnAnswers,
    /// A server connection that changes hands is outside a transaction, and owes no reply.
    PooledAtRest,
    /// Whoever counts on something of his session is served by that session, or by none.
    SessionStays,
    /// Nobody meets what another has left on a session.
    SessionClean,
    /// A query is sent at most twice, and not again once a byte of its reply was forwarded.
    RepeatedOnce,
    /// At the read door a query that a replica loses or breaks off is tried once more.
    ReadsGoOn,
    /// Sizes of pools and what databases and users may have are never exceeded.
    Limits,
    /// Nothing is written to a leader of an older timeline than the one that this weir has followed, nor to a stranger.
    Fence,
    /// A weir that has just been started follows nobody before all were asked, or two seconds are over.
    StartsWithAll,
    /// While the cluster follows another one writers are told so at once.
    StandbyIsTold,
    /// The read door leaves a replica that is too far behind.
    Fresh,
    /// The read door gives out no session that could write, once it had time to leave one.
    ReadOnly,
    /// What was applied is not reported as failed, but for 08007.
    HonestFailures,
    /// Nothing is applied twice.
    AppliedOnce,
    /// What is reported as done was applied, and is kept (with a synchronous standby).
    Kept,
    /// Nobody is cut off by what befalls a server.
    NobodyCutOff,
    /// Where nothing happens but SWITCHOVER no statement fails, and nobody is cut off.
    PlannedIsInvisible,
    /// Once faults have stopped everybody is served.
    Progress,
    /// A drain ends, and nothing is left behind it; what the shell holds open is what the worker knows of.
    NothingLeft,
    /// Between worker and shell: nothing is sent to, dialed or ended that is not there, or is there already.
    Border,
}

impl Law {
    /// Ends the story unless it holds.
    #[track_caller]
    pub(crate) fn holds(self, is_kept: bool, what: impl FnOnce() -> String) {
        if !is_kept {
            self.broken(&what());
        }
    }

    #[track_caller]
    pub(crate) fn broken(self, what: &str) -> ! {
        panic!("{self}: {what}")
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneClientAtATime => "one client at a time",
            Self::OwnAnswers => "own answers, in order",
            Self::PooledAtRest => "pooled at rest",
            Self::SessionStays => "sessions stay",
            Self::SessionClean => "sessions are clean",
            Self::RepeatedOnce => "repeated at most once",
            Self::ReadsGoOn => "reads go on",
            Self::Limits => "limits",
            Self::Fence => "fence",
            Self::StartsWithAll => "asks all at the start",
            Self::StandbyIsTold => "a standby cluster is told of",
            Self::Fresh => "reads are fresh",
            Self::ReadOnly => "read door reads",
            Self::HonestFailures => "honest failures",
            Self::AppliedOnce => "applied once",
            Self::Kept => "acknowledged is kept",
            Self::NobodyCutOff => "nobody is cut off",
            Self::PlannedIsInvisible => "planned is invisible",
            Self::Progress => "progress",
            Self::NothingLeft => "nothing is left",
            Self::Border => "border",
        })
    }
}
