//! What one event did to the clients, and the promises held against it. Makes nothing happen.

use std::time::Duration;

use super::act::Stale;
use super::event::{Event, Fate};
use super::journal::{Rows, Tally};
use super::load::IdleCount;

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
    /// What the old leader took, where it could be asked.
    pub stale: Option<Stale>,
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

    /// Every promise that the event broke, as sentences; empty when all were kept.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut promise = |kept: bool, text: String| {
            if !kept {
                broken.push(format!("{}: {text}", self.event.name()));
            }
        };
        let Tally { dropped_write, dropped_read, refused, failed, .. } = &self.tally;
        promise(*dropped_write == 0, format!("{dropped_write} connections dropped on the write port"));
        promise(*dropped_read == 0, format!("{dropped_read} connections dropped on the read port"));
        promise(refused.is_empty(), format!("new connections refused: {refused:?}"));
        promise(self.idle.dropped == 0, format!("{} idle clients dropped", self.idle.dropped));
        promise(failed.is_empty(), format!("statements failed that nothing excuses: {failed:?}"));
        let Rows { lost, denied, .. } = self.rows;
        promise(lost == 0, format!("{lost} acknowledged rows lost"));
        promise(denied == 0, format!("{denied} rows are there that were reported failed, without 08007"));
        promise(self.torn == 0, format!("{} transactions are there only in part", self.torn));
        let accepted = self.stale.map_or(0, |stale| stale.accepted);
        promise(accepted == 0, format!("{accepted} writes or logins on the old leader after the promotion"));
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
    use crate::drill::Event;
    use crate::drill::act::Stale;
    use crate::drill::journal::{Rows, Tally};
    use crate::drill::load::IdleCount;

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
            stale: None,
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
        let stale = Some(Stale { accepted: 1, in_flight: 2 });
        let rows = Rows { acknowledged: 10, lost: 1, denied: 1 };
        assert_eq!(Report { stale, rows, torn: 1, ..report(Event::Freeze) }.broken().len(), 4);
    }
}
