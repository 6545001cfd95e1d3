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
    /// Where nothing happens but SWITCHOVER no statement fails, and nobody is cut off; where switchovers are scheduled, no
    /// statement outside a transaction.
    PlannedIsInvisible,
    /// A switchover that is scheduled and does not come about keeps nobody waiting for long.
    PlansEnd,
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
            Self::PlansEnd => "plans end",
            Self::Progress => "progress",
            Self::NothingLeft => "nothing is left",
            Self::Border => "border",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use weir_protocol::frontend;
    use weir_protocol::startup::ProtocolVersion;

    use crate::backend::{Backend, STRANGER, SYSTEM};
    use crate::database::{Database, Phase};
    use crate::dice::Dice;
    use crate::ledger::{Fate, Ledger};
    use crate::wire::WireId;

    /// The law by which this ends; nothing if it ends well.
    fn broken_by(story: impl FnOnce()) -> String {
        let outcome = catch_unwind(AssertUnwindSafe(story));
        outcome.err().and_then(|what| what.downcast_ref::<String>().cloned()).unwrap_or_default()
    }

    /// A session of this system at which these are asked, one after the other.
    fn ask(system: u64, user: &str, queries: &[&str]) {
        let (mut data, mut dice) = (Database::new(Phase::Primary), Dice::new(1));
        let mut backend = Backend::new(1, WireId(0), system);
        let mut bytes = Vec::new();
        frontend::startup(ProtocolVersion::V3_0, &[("user", user)], &mut bytes);
        for query in queries {
            frontend::query(query.as_bytes(), &mut bytes);
        }
        backend.receive(&bytes);
        for _ in queries {
            backend.work(&mut data, &mut dice);
            backend.finish(&mut data);
        }
        backend.work(&mut data, &mut dice);
    }

    fn check(user: &str, queries: &[&str], law: &str) {
        let broken = broken_by(|| ask(SYSTEM, user, queries));
        assert!(broken.starts_with(law) && broken.is_empty() == law.is_empty(), "{queries:?}: {broken:?}");
    }

    #[test]
    fn a_session_tells_whom_it_serves_wrongly() {
        let (own, other) = ("SET application_name = 'a1' /* 1 a1 */", "SET application_name = 'a2'");
        check("w", &["SET application_name = 'a1'", "BEGIN /* 1 a1 */", "SELECT '5' /* 1 a1 */"], "");
        check(
            "w",
            &["SET application_name = 'a1'", "BEGIN /* 1 a1 */", other, "SELECT '5' /* 2 a2 */"],
            "one client",
        );
        check("w", &["SELECT '5' /* 1 a1 */"], "own answers");
        check("w", &["SET application_name = 'a1'", "SELECT '5' /* 1 a1 + */"], "sessions stay");
        let table = "CREATE TEMP TABLE mine (id int) /* 1 a1 */";
        check("w", &["SET application_name = 'a1'", table, "SELECT '5' /* 1 a1 + */"], "");
        check(
            "w",
            &["SET application_name = 'a1'", table, other, "SELECT '5' /* 2 a2 */"],
            "sessions are clean",
        );
        let stranger = || ask(STRANGER, "w", &["SET application_name = 'a1'", own]);
        assert!(broken_by(stranger).starts_with("fence"));
    }

    #[test]
    fn the_book_of_rows_tells_what_is_not_true() {
        let with_row = |act: fn(&mut Ledger, u32)| {
            broken_by(|| {
                let mut ledger = Ledger::default();
                let row = ledger.new_row();
                act(&mut ledger, row);
            })
        };
        let denied = Fate::Denied("40001".to_owned());
        assert_eq!(with_row(|book, row| book.applied(&[row])), "");
        let twice = with_row(|book, row| [(); 2].iter().for_each(|()| book.applied(&[row])));
        assert!(twice.starts_with("applied once"), "{twice}");
        let lost = with_row(|book, row| book.told(&[row], &Fate::Confirmed));
        assert!(lost.starts_with("acknowledged is kept"), "{lost}");
        let dishonest = broken_by(|| {
            let mut book = Ledger::default();
            let row = book.new_row();
            book.told(&[row], &denied);
            book.applied(&[row]);
        });
        assert!(dishonest.starts_with("honest failures"), "{dishonest}");
    }
}
