//! What every client attempted and how it ended, and the judgement of it. Opens no connection.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
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
    /// What the client was told besides, in full: the error, its DETAIL, warnings.
    pub words: String,
}

/// What may be said of an attempt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Acknowledged.
    Done,
    /// Its connection was dropped, or not let in.
    Gone,
    /// An honest error about a transaction that was open on the old leader when that was lost.
    Open,
    /// An honest error about a single statement in flight on the old leader when that was lost.
    InFlight,
    /// An error without excuse.
    Failed,
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
    /// Failed statements on the write port by SQLSTATE, without `open` and `in_flight`.
    pub failed: BTreeMap<String, usize>,
    /// Failed statements on the read port by SQLSTATE.
    pub failed_reads: BTreeMap<String, usize>,
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
        let mut tally = Tally::default();
        let mut writes = vec![began, ended];
        for (attempt, standing) in entries.judged(began, ended, loss) {
            let code = attempt.outcome.code();
            match (standing, attempt.port) {
                (Standing::Done, Port::Write) => tally.writes += usize::from(attempt.is_write()),
                (Standing::Done, Port::Read) => tally.reads += 1,
                (Standing::Gone, _) if matches!(attempt.outcome, Outcome::Refused(_)) => {
                    count(&mut tally.refused, code);
                }
                (Standing::Gone, Port::Write) => tally.dropped_write += 1,
                (Standing::Gone, Port::Read) => tally.dropped_read += 1,
                (Standing::Open, _) => count(&mut tally.open, code),
                (Standing::InFlight, _) => count(&mut tally.in_flight, code),
                (Standing::Failed, Port::Write) => count(&mut tally.failed, code),
                (Standing::Failed, Port::Read) => count(&mut tally.failed_reads, code),
            }
            if attempt.is_write() {
                writes.push(attempt.ended);
            }
        }
        tally.write_gap = longest_gap(writes);
        tally
    }

    /// Every attempt between the two moments that did not end well.
    #[must_use]
    pub fn failures(&self, began: Instant, ended: Instant, loss: Option<Loss>) -> Vec<(Attempt, Standing)> {
        let entries = self.lock();
        let judged = entries.judged(began, ended, loss).into_iter();
        judged
            .filter(|(_, standing)| *standing != Standing::Done)
            .map(|(attempt, standing)| (attempt.clone(), standing))
            .collect()
    }

    /// The remembered attempts of these clients.
    #[must_use]
    pub fn attempts_of(&self, clients: &Range<u32>) -> Vec<Attempt> {
        self.lock().attempts.iter().filter(|attempt| clients.contains(&attempt.client)).cloned().collect()
    }

    /// Whether the client of the row had been told by `moment` that the row failed: its request was given up by then.
    #[must_use]
    pub fn given_up(&self, row: i64, moment: Instant) -> bool {
        let entries = self.lock();
        entries.attempts.iter().any(|attempt| {
            attempt.rows.contains(&row) && attempt.outcome != Outcome::Done && attempt.ended <= moment
        })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// The attempts that ended between the two moments, and what may be said of each.
    fn judged(&self, began: Instant, ended: Instant, loss: Option<Loss>) -> Vec<(&Attempt, Standing)> {
        let within = self.attempts.iter().filter(|attempt| attempt.ended >= began && attempt.ended <= ended);
        let mut excused_clients = BTreeSet::new();
        let mut judge = |attempt: &Attempt| match &attempt.outcome {
            Outcome::Done => Standing::Done,
            Outcome::Dropped(_) | Outcome::Refused(_) => Standing::Gone,
            // A client had at most one request on the old leader: a second failure has no excuse, unless it found another
            // session there that had not ended yet.
            Outcome::Failed(_)
                if attempt.is_excused(loss)
                    && (excused_clients.insert(attempt.client) || attempt.found_another(loss)) =>
            {
                match attempt.kind {
                    Kind::Single => Standing::InFlight,
                    Kind::Transaction => Standing::Open,
                }
            }
            Outcome::Failed(_) => Standing::Failed,
        };
        within.map(|attempt| (attempt, judge(attempt))).collect()
    }
}

impl Outcome {
    /// The SQLSTATE, or the word for want of one; empty if there was no error.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Done => "",
            Self::Failed(code) | Self::Dropped(code) | Self::Refused(code) => code,
        }
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

    /// Whether this transaction began and ended while the old leader's sessions ended one after the other.
    fn found_another(&self, loss: Option<Loss>) -> bool {
        let at_once = loss.filter(|loss| loss.from == loss.until);
        self.kind == Kind::Transaction && at_once.is_some_and(|loss| self.ended <= loss.until + SLACK)
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
pub(super) const SLACK: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests;
