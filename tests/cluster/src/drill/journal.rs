//! What every client attempted and how it ended, and the judgement of it. Opens no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The port a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Towards the leader.
    Write,
    /// Towards replicas.
    Read,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, with the ids of the rows that are now promised.
    Done(Vec<i64>),
    /// An error with this SQLSTATE (or a word for want of one); the connection lives.
    Failed(String),
    /// The connection is gone; with the SQLSTATE of the farewell, if there was one.
    Dropped(String),
    /// A new connection was not let in.
    Refused(String),
}

/// One statement of one client.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Which client.
    pub client: u32,
    /// Its port.
    pub port: Port,
    /// When it was sent; for a statement inside a transaction, when that began.
    pub open_since: Instant,
    /// When the answer came.
    pub ended: Instant,
    /// The answer.
    pub outcome: Outcome,
}

/// Attempts of all clients.
#[derive(Debug, Default)]
pub struct Journal {
    attempts: Mutex<Vec<Attempt>>,
}

/// What clients noticed between two moments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writing connections dropped.
    pub dropped_write: usize,
    /// Reading connections dropped.
    pub dropped_read: usize,
    /// New connections not let in, by SQLSTATE.
    pub refused: BTreeMap<String, usize>,
    /// Failed statements by SQLSTATE, without the next.
    pub failed: BTreeMap<String, usize>,
    /// Failed statements that were in flight, or whose transaction was open, on the old leader when it was lost.
    pub excused: BTreeMap<String, usize>,
    /// Longest time without an acknowledged write.
    pub write_gap: Duration,
    /// Acknowledged writes.
    pub writes: usize,
    /// Answered reads.
    pub reads: usize,
}

impl Journal {
    /// Notes an attempt.
    pub fn note(&self, attempt: Attempt) {
        self.lock().push(attempt);
    }

    /// All rows acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<i64> {
        let rows = |attempt: &Attempt| match &attempt.outcome {
            Outcome::Done(rows) => rows.clone(),
            Outcome::Failed(_) | Outcome::Dropped(_) | Outcome::Refused(_) => Vec::new(),
        };
        self.lock().iter().flat_map(rows).collect()
    }

    /// When the first row was acknowledged after `moment`.
    #[must_use]
    pub fn first_write_after(&self, moment: Instant) -> Option<Instant> {
        self.lock()
            .iter()
            .filter(|attempt| attempt.is_write())
            .map(|attempt| attempt.ended)
            .filter(|&at| at > moment)
            .min()
    }

    /// What happened from `began` to `ended`, given when the old leader's sessions were lost.
    #[must_use]
    pub fn tally(&self, began: Instant, ended: Instant, lost_at: Option<Instant>) -> Tally {
        let attempts = self.lock();
        let within = attempts.iter().filter(|attempt| attempt.ended >= began && attempt.ended <= ended);
        let mut tally = Tally::default();
        let mut writes = vec![began, ended];
        let mut excused_clients = BTreeSet::new();
        for attempt in within {
            match (&attempt.outcome, attempt.port) {
                (Outcome::Done(_), Port::Write) => tally.writes += usize::from(attempt.is_write()),
                (Outcome::Done(_), Port::Read) => tally.reads += 1,
                (Outcome::Dropped(_), Port::Write) => tally.dropped_write += 1,
                (Outcome::Dropped(_), Port::Read) => tally.dropped_read += 1,
                (Outcome::Refused(code), _) => count(&mut tally.refused, code),
                // A client had at most one request on the old leader: a second failure has no excuse.
                (Outcome::Failed(code), _)
                    if attempt.is_excused(lost_at) && excused_clients.insert(attempt.client) =>
                {
                    count(&mut tally.excused, code);
                }
                (Outcome::Failed(code), _) => count(&mut tally.failed, code),
            }
            if attempt.is_write() {
                writes.push(attempt.ended);
            }
        }
        tally.write_gap = longest_gap(writes);
        tally
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    fn is_write(&self) -> bool {
        matches!(&self.outcome, Outcome::Done(rows) if !rows.is_empty())
    }

    /// Whether it failed honestly because it had something on the old leader when that was lost.
    fn is_excused(&self, lost_at: Option<Instant>) -> bool {
        let honest = match &self.outcome {
            Outcome::Failed(code) => EXCUSED_CODES.contains(&code.as_str()),
            Outcome::Done(_) | Outcome::Dropped(_) | Outcome::Refused(_) => false,
        };
        let was_there =
            lost_at.is_some_and(|lost| self.open_since <= lost + SLACK && self.ended + SLACK >= lost);
        honest && was_there && self.port == Port::Write
    }
}

fn count(counts: &mut BTreeMap<String, usize>, code: &str) {
    *counts.entry(code.to_owned()).or_default() += 1;
}

fn longest_gap(mut moments: Vec<Instant>) -> Duration {
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// "In doubt" and "rolled back": the two honest answers about a request that was on the old leader.
const EXCUSED_CODES: [&str; 2] = ["08007", "40001"];
/// PostgreSQL ends its sessions one after the other; ours may not be the last.
const SLACK: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Attempt, Journal, Outcome, Port};

    /// Builds a journal from (client, port, open since, ended, outcome), times in ms.
    fn journal(start: Instant, attempts: &[(u32, Port, u64, u64, Outcome)]) -> Journal {
        let journal = Journal::default();
        for (client, port, since, ended, outcome) in attempts {
            let at = |millis: u64| start + Duration::from_millis(millis);
            journal.note(Attempt {
                client: *client,
                port: *port,
                open_since: at(*since),
                ended: at(*ended),
                outcome: outcome.clone(),
            });
        }
        journal
    }

    fn failed(code: &str) -> Outcome {
        Outcome::Failed(code.to_owned())
    }

    #[test]
    fn only_what_was_on_the_old_leader_is_excused_and_only_once() {
        let start = Instant::now();
        let journal = journal(
            start,
            &[
                (1, Port::Write, 900, 1010, failed("08007")),
                (2, Port::Write, 500, 4000, failed("40001")),
                (2, Port::Write, 1100, 4010, failed("40001")),
                (3, Port::Write, 2000, 2010, failed("08007")),
                (4, Port::Write, 900, 1010, failed("57P01")),
                (5, Port::Read, 900, 1010, failed("08007")),
            ],
        );
        let lost = start + Duration::from_millis(1000);
        let tally = journal.tally(start, start + Duration::from_secs(5), Some(lost));
        assert_eq!(tally.excused.values().sum::<usize>(), 2);
        assert_eq!(tally.failed.values().sum::<usize>(), 4);
        assert_eq!(tally.failed.get("57P01"), Some(&1));
    }

    #[test]
    fn the_gap_counts_from_the_first_to_the_last_moment_and_drops_are_by_port() {
        let start = Instant::now();
        let journal = journal(
            start,
            &[
                (1, Port::Write, 0, 100, Outcome::Done(vec![1])),
                (1, Port::Write, 100, 2600, Outcome::Done(vec![2, 3])),
                (2, Port::Read, 100, 2000, Outcome::Done(Vec::new())),
                (3, Port::Read, 100, 2000, Outcome::Dropped("57P01".to_owned())),
            ],
        );
        let tally = journal.tally(start, start + Duration::from_secs(3), None);
        assert_eq!(tally.write_gap, Duration::from_millis(2500));
        assert_eq!((tally.writes, tally.reads), (2, 1));
        assert_eq!((tally.dropped_write, tally.dropped_read), (0, 1));
        assert_eq!(journal.acknowledged().len(), 3);
        let first = journal.first_write_after(start + Duration::from_millis(100));
        assert_eq!(first, Some(start + Duration::from_millis(2600)));
    }
}
