//! What one event did to the clients, and the promises held against it. Makes nothing happen.

use std::time::Duration;

use super::act::Stale;
use super::event::{Event, Fate};
use super::held::Held;
use super::journal::{Rows, Tally};
use super::load::IdleCount;
use super::trace::Failure;

/// What one event did to the clients.
#[derive(Debug, Clone)]
pub struct Report {
    /// The event.
    pub event: Event,
    /// The leader before.
    pub from: String,
    /// The leader after.
    pub to: String,
    /// Connections dropped, statements failed, longest gap.
    pub tally: Tally,
    /// Every statement that failed, and why it may have.
    pub failures: Vec<Failure>,
    /// Idle clients: dropped, and all.
    pub idle: IdleCount,
    /// From promotion to the first write made directly on the new leader.
    pub direct_write: Option<Duration>,
    /// From promotion to the first write acknowledged through the write port.
    pub first_write: Option<Duration>,
    /// Acknowledged rows, and those that are not there or were reported failed.
    pub rows: Rows,
    /// Transactions of which only a part is there.
    pub torn: usize,
    /// Writes that servers other than the leader took, by their own logs.
    pub stale: Stale,
    /// Rows that only the old leader has, where it could be asked before it was rewound.
    pub only_on_old: Option<Stale>,
    /// What became of a crowd that waited, if there was one and a leader was lost.
    pub held: Option<Held>,
    /// Callbacks of Patroni's that the pooler heard.
    pub callbacks: usize,
    /// In words.
    pub note: String,
}

impl Report {
    /// From the first write that the new leader took directly to the first one through the write port. Behind a
    /// promotion a new leader may wait for a synchronous standby, which is nothing that a pooler could shorten.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        Some(self.first_write?.saturating_sub(self.direct_write?))
    }

    /// Writes on an old leader after its successor was promoted.
    #[must_use]
    pub fn stale_writes(&self) -> usize {
        self.stale.accepted.max(self.only_on_old.map_or(0, |rows| rows.accepted))
    }

    /// Every promise that the event broke, as sentences; empty when all were kept.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut promise = |kept: bool, text: String| {
            if !kept {
                broken.push(format!("{}: {text}", self.event.name()));
            }
        };
        let Tally { dropped_write, dropped_read, refused, failed, failed_reads, .. } = &self.tally;
        promise(*dropped_write == 0, format!("{dropped_write} connections dropped on the write port"));
        promise(*dropped_read == 0, format!("{dropped_read} connections dropped on the read port"));
        promise(refused.is_empty(), format!("new connections refused: {refused:?}"));
        promise(self.idle.dropped == 0, format!("{} idle clients dropped", self.idle.dropped));
        promise(failed.is_empty(), format!("statements failed that nothing excuses: {failed:?}"));
        promise(failed_reads.is_empty(), format!("reads failed: {failed_reads:?}"));
        let repeatable = self.failures.iter().filter(|failure| failure.could_be_repeated).count();
        promise(repeatable == 0, format!("{repeatable} statements failed that PostgreSQL had rolled back"));
        let Rows { lost, denied, .. } = self.rows;
        promise(lost == 0, format!("{lost} acknowledged rows lost"));
        promise(denied == 0, format!("{denied} rows are there that were reported failed, without 08007"));
        promise(self.torn == 0, format!("{} transactions are there only in part", self.torn));
        let stale = self.stale_writes();
        promise(stale == 0, format!("{stale} writes or logins on an old leader after the promotion"));
        if let Some(held) = &self.held {
            promise(held.failed.is_empty(), format!("held clients failed: {:?}", held.failed));
            let sessions = held.logins.sessions_at_once;
            let fits = held.pool_size.is_none_or(|size| sessions <= size as usize);
            promise(fits, format!("{sessions} sessions at once on the new leader"));
        }
        self.check_leader(&mut promise);
        broken
    }

    fn check_leader(&self, promise: &mut impl FnMut(bool, String)) {
        let (from, to) = (&self.from, &self.to);
        match self.event.fate() {
            Fate::Lost | Fate::Moves | Fate::Silent => promise(from != to, format!("{from} still leads")),
            Fate::Stays => promise(from == to, format!("{to} leads, and {from} had nothing")),
            Fate::MayReturn => {}
        }
        if self.event.fate() != Fate::Stays {
            let in_time = self.delay().is_some_and(|delay| delay <= DELAY_MAX);
            promise(in_time, format!("first write {:?} after the leader took writes", self.delay()));
        }
    }
}

/// What is far from right even on a machine that is busy with other things.
const DELAY_MAX: Duration = Duration::from_secs(3);

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::Report;
    use crate::drill::act::Stale;
    use crate::drill::journal::{Rows, Tally};
    use crate::drill::load::IdleCount;
    use crate::drill::{Event, Failure, Held, Logins};

    /// One that keeps all promises.
    pub(in crate::drill) fn report(event: Event) -> Report {
        let mut tally = Tally { write_gap: Duration::from_millis(2500), writes: 10, ..Tally::default() };
        tally.open.insert("40001".to_owned(), 3);
        Report {
            event,
            from: "n1".to_owned(),
            to: "n2".to_owned(),
            tally,
            idle: IdleCount { dropped: 0, all: 100 },
            direct_write: Some(Duration::from_millis(2)),
            first_write: Some(Duration::from_micros(14_300)),
            rows: Rows { acknowledged: 10, ..Rows::default() },
            torn: 0,
            failures: Vec::new(),
            stale: Stale::default(),
            only_on_old: None,
            held: None,
            callbacks: 0,
            note: String::new(),
        }
    }

    #[test]
    fn promises_are_those_of_the_event() {
        assert_eq!(report(Event::Switchover).broken(), [""; 0]);
        let late = Report { first_write: Some(Duration::from_secs(4)), ..report(Event::Crash) };
        assert_eq!(late.broken().len(), 1);
        // Nobody may take over when only the REST APIs are silent.
        assert_eq!(report(Event::SilentApis).broken().len(), 1);
        let stale = Stale { accepted: 1, in_flight: 2 };
        let rows = Rows { acknowledged: 10, lost: 1, denied: 1 };
        assert_eq!(Report { stale, rows, torn: 1, ..report(Event::Freeze) }.broken().len(), 4);
        let only_on_old = Some(stale);
        assert_eq!(Report { only_on_old, ..report(Event::Freeze) }.broken().len(), 1);
        let failures = vec![Failure { line: String::new(), could_be_repeated: true }];
        assert_eq!(Report { failures, ..report(Event::Crash) }.broken().len(), 1);
        let logins = Logins { all: 30, at_once: 8, sessions_at_once: 21 };
        let held =
            Held { logins, pool_size: Some(20), failed: [("08007".to_owned(), 1)].into(), ..Held::default() };
        assert_eq!(Report { held: Some(held), ..report(Event::Crash) }.broken().len(), 2);
    }
}
