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

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One statement outside a transaction, or a new connection with one.
    Single,
    /// A transaction of several statements.
    Transaction,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Done,
    /// An error with this SQLSTATE (or a word for want of one); the connection lives.
    Failed(String),
    /// The connection is gone; with the SQLSTATE of the farewell, if there was one.
    Dropped(String),
    /// A new connection was not let in.
    Refused(String),
}

/// One statement or transaction of one client.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Which client.
    pub client: u32,
    /// Its port.
    pub port: Port,
    /// What it was.
    pub kind: Kind,
    /// When it was sent; for a transaction, when that began.
    pub open_since: Instant,
    /// When the answer came.
    pub ended: Instant,
    /// Ids of the rows it was to insert.
    pub rows: Vec<i64>,
    /// The answer.
    pub outcome: Outcome,
}

/// When the old leader was lost to the clients: requests that were on it between the two moments may fail honestly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// From when on what was there got no answer.
    pub from: Instant,
    /// Until when something could still be sent there.
    pub until: Instant,
}

/// Attempts of all clients.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    attempts: Vec<Attempt>,
    promises: Promises,
}

/// What clients were told about rows since the beginning.
#[derive(Debug, Clone, Default)]
pub struct Promises {
    /// Acknowledged.
    kept: BTreeSet<i64>,
    /// Reported failed, with the code.
    failed: BTreeMap<i64, String>,
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
    /// Failed statements by SQLSTATE, without the next two.
    pub failed: BTreeMap<String, usize>,
    /// Transactions that were open on the old leader when it was lost.
    pub open: BTreeMap<String, usize>,
    /// Single statements in flight on the old leader when it was lost, and not sent once more.
    pub in_flight: BTreeMap<String, usize>,
    /// Longest time without an acknowledged write.
    pub write_gap: Duration,
    /// Acknowledged writes.
    pub writes: usize,
    /// Answered reads.
    pub reads: usize,
}

/// Promises about rows, held against the rows that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// Acknowledged.
    pub acknowledged: usize,
    /// Acknowledged and not there.
    pub lost: usize,
    /// There although reported failed, without the code 08007 that leaves it open.
    pub denied: usize,
}

impl Journal {
    /// Notes an attempt.
    pub fn note(&self, attempt: Attempt) {
        let mut entries = self.lock();
        match &attempt.outcome {
            Outcome::Done => entries.promises.kept.extend(&attempt.rows),
            Outcome::Failed(code) | Outcome::Dropped(code) | Outcome::Refused(code) => {
                let failed: Vec<_> = attempt.rows.iter().map(|id| (*id, code.clone())).collect();
                entries.promises.failed.extend(failed);
            }
        }
        entries.attempts.push(attempt);
    }

    /// What was promised until now; to be taken before one looks which rows are there.
    #[must_use]
    pub fn promises(&self) -> Promises {
        self.lock().promises.clone()
    }

    /// How many of these rows were sent after `moment`, by attempts that are still remembered.
    #[must_use]
    pub fn sent_after(&self, moment: Instant, rows: &BTreeSet<i64>) -> usize {
        let entries = self.lock();
        let late = entries.attempts.iter().filter(|attempt| attempt.open_since > moment);
        late.flat_map(|attempt| &attempt.rows).filter(|id| rows.contains(id)).count()
    }

    /// Forgets attempts that ended before `moment`; what they promised stays.
    pub fn forget_before(&self, moment: Instant) {
        self.lock().attempts.retain(|attempt| attempt.ended >= moment);
    }

    /// When the first row was acknowledged after `moment`.
    #[must_use]
    pub fn first_write_after(&self, moment: Instant) -> Option<Instant> {
        let entries = self.lock();
        let writes = entries.attempts.iter().filter(|attempt| attempt.is_write());
        writes.map(|attempt| attempt.ended).filter(|&at| at > moment).min()
    }

    /// What happened from `began` to `ended`, given when the old leader was lost, if it was.
    #[must_use]
    pub fn tally(&self, began: Instant, ended: Instant, loss: Option<Loss>) -> Tally {
        let entries = self.lock();
        let within =
            entries.attempts.iter().filter(|attempt| attempt.ended >= began && attempt.ended <= ended);
        let mut tally = Tally::default();
        let mut writes = vec![began, ended];
        let mut excused_clients = BTreeSet::new();
        for attempt in within {
            match (&attempt.outcome, attempt.port) {
                (Outcome::Done, Port::Write) => tally.writes += usize::from(attempt.is_write()),
                (Outcome::Done, Port::Read) => tally.reads += 1,
                (Outcome::Dropped(_), Port::Write) => tally.dropped_write += 1,
                (Outcome::Dropped(_), Port::Read) => tally.dropped_read += 1,
                (Outcome::Refused(code), _) => count(&mut tally.refused, code),
                // A client had at most one request on the old leader: a second failure has no excuse.
                (Outcome::Failed(code), _)
                    if attempt.is_excused(loss) && excused_clients.insert(attempt.client) =>
                {
                    let counts = match attempt.kind {
                        Kind::Single => &mut tally.in_flight,
                        Kind::Transaction => &mut tally.open,
                    };
                    count(counts, code);
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

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promises {
    /// Holds what was promised against the rows that are there.
    #[must_use]
    pub fn hold_against(&self, present: &BTreeSet<i64>) -> Rows {
        let denied = self.failed.iter().filter(|(id, code)| *code != IN_DOUBT && present.contains(id));
        Rows {
            acknowledged: self.kept.len(),
            lost: self.kept.difference(present).count(),
            denied: denied.count(),
        }
    }
}

impl Attempt {
    fn is_write(&self) -> bool {
        self.outcome == Outcome::Done && !self.rows.is_empty()
    }

    /// Whether it failed honestly because it had something on the old leader when that was lost.
    fn is_excused(&self, loss: Option<Loss>) -> bool {
        let honest = match (&self.outcome, self.kind) {
            (Outcome::Failed(code), Kind::Single) => code == IN_DOUBT,
            (Outcome::Failed(code), Kind::Transaction) => code == IN_DOUBT || code == ROLLED_BACK,
            (Outcome::Done | Outcome::Dropped(_) | Outcome::Refused(_), _) => false,
        };
        let was_there =
            loss.is_some_and(|loss| self.open_since <= loss.until + SLACK && self.ended + SLACK >= loss.from);
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

/// The two honest answers about a request that was on the old leader.
pub(super) const IN_DOUBT: &str = "08007";
const ROLLED_BACK: &str = "40001";
/// PostgreSQL ends its sessions one after the other; ours may not be the last.
const SLACK: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests;
