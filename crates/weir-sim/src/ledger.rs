//! The book of all rows: who was told what about them, and how often they were committed anywhere. Owns the laws about
//! writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weir_worker::ConnId;

use crate::database::{Commit, Row};
use crate::laws::Law;

/// What an application was told of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// No answer yet.
    Asked,
    Confirmed,
    /// It was told that the row was not written.
    Denied(String),
    /// 08007, or the connection ended first.
    InDoubt,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    fates: BTreeMap<Row, Fate>,
    commits: BTreeSet<Row>,
    last: Row,
    reads: BTreeMap<u64, Read>,
    /// weirs keep requests until they are answered.
    pub(crate) expects_retries: bool,
}

/// One query that stood alone: what has become of it.
#[derive(Debug, Default)]
struct Read {
    /// The server connections that weir has sent something on for it, be it only parameters.
    tried: Vec<(usize, ConnId)>,
    /// Those that it has sent the query on.
    sent: Vec<(usize, ConnId)>,
    /// How often a standby has broken it off.
    broken: u32,
    /// When something of its reply was forwarded first.
    begun_at: Option<Duration>,
    /// It went to a session that may write, where fewer things prove that nothing was done.
    is_elsewhere: bool,
}

impl Ledger {
    /// A row that nobody has written yet.
    pub(crate) fn new_row(&mut self) -> Row {
        self.last += 1;
        self.fates.insert(self.last, Fate::Asked);
        self.last
    }

    /// A transaction with these rows was committed somewhere.
    pub(crate) fn applied(&mut self, rows: &[Row]) {
        for row in rows {
            Law::AppliedOnce.holds(self.commits.insert(*row), || format!("row {row} is written twice"));
            if let Some(Fate::Denied(code)) = self.fates.get(row) {
                Law::HonestFailures
                    .broken(&format!("row {row} is written, and was reported as failed ({code})"));
            }
        }
    }

    pub(crate) fn told(&mut self, rows: &[Row], fate: &Fate) {
        for row in rows {
            let is_written = self.commits.contains(row);
            match fate {
                Fate::Denied(code) => Law::HonestFailures.holds(!is_written, || {
                    format!("row {row} was written and is reported as failed ({code})")
                }),
                Fate::Confirmed => {
                    Law::Kept.holds(is_written, || format!("row {row} is confirmed and was not written"));
                }
                Fate::Asked | Fate::InDoubt => {}
            }
            self.fates.insert(*row, fate.clone());
        }
    }

    /// weir sends something on this connection for a query that stands alone. `is_it`: the query itself, at this time.
    pub(crate) fn read_sent(
        &mut self,
        value: u64,
        conn: (usize, ConnId),
        standby: bool,
        is_it: Option<Duration>,
    ) {
        let read = self.reads.entry(value).or_default();
        read.is_elsewhere |= !standby;
        if !read.tried.contains(&conn) {
            read.tried.push(conn);
        }
        if let Some(now) = is_it.filter(|_| !read.sent.contains(&conn)) {
            read.sent.push(conn);
            // What weir answers by itself may leave in front of it.
            let is_begun = read.begun_at.is_some_and(|begun_at| begun_at < now);
            Law::RepeatedOnce.holds(read.sent.len() < 2 || !is_begun, || {
                format!("query {value} is sent once more, and part of its reply was forwarded")
            });
            Law::RepeatedOnce.holds(read.sent.len() < 3, || format!("query {value} is sent a third time"));
        }
    }

    /// Something of a reply goes to its client.
    pub(crate) fn read_answered(&mut self, value: u64, now: Duration) {
        // What is answered before it was sent anywhere are messages in front of it.
        if let Some(read) = self.reads.get_mut(&value).filter(|read| !read.sent.is_empty()) {
            read.begun_at.get_or_insert(now);
        }
    }

    /// A standby has broken it off in favour of replay.
    pub(crate) fn read_broken(&mut self, value: u64) {
        self.reads.entry(value).or_default().broken += 1;
    }

    /// A query that stood alone at the read door, outside a transaction, has failed without a word of its reply.
    pub(crate) fn read_failed(&self, value: u64, code: &str) {
        let expected = |read: &&Read| self.expects_retries && !read.is_elsewhere;
        let Some(read) = self.reads.get(&value).filter(expected) else { return };
        let losses = read.tried.len().max(1) + usize::try_from(read.broken).unwrap_or(0);
        let may_fail = !["40001", "08007"].contains(&code) || read.tried.len() > 1 || read.broken > 1;
        Law::ReadsGoOn.holds(may_fail || code == "08007" && losses > 1, || {
            format!("query {value} has failed with {code}, and was tried once: {read:?}")
        });
    }

    /// Every confirmed row is in the cluster's final log. `lossy`: a failover may lose what no standby had.
    pub(crate) fn check(&self, log: &[Commit], lossy: bool) {
        let kept: BTreeSet<Row> = log.iter().flat_map(|commit| &commit.rows).copied().collect();
        for (row, fate) in &self.fates {
            let is_lost = *fate == Fate::Confirmed && !kept.contains(row);
            Law::Kept.holds(lossy || !is_lost, || format!("row {row} was acknowledged and is lost"));
            Law::Progress.holds(*fate != Fate::Asked, || format!("row {row}: nobody was told anything"));
        }
    }

    /// For the report: rows asked for, confirmed, denied, in doubt.
    pub(crate) fn count(&self) -> [usize; 4] {
        let count = |wanted: fn(&Fate) -> bool| self.fates.values().filter(|fate| wanted(fate)).count();
        [
            self.fates.len(),
            count(|fate| *fate == Fate::Confirmed),
            count(|fate| matches!(fate, Fate::Denied(_))),
            count(|fate| *fate == Fate::InDoubt),
        ]
    }
}
