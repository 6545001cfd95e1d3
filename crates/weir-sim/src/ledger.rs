//! The book of all rows: who was told what about them, and how often they were committed anywhere. Owns the laws about
//! writes.

use std::collections::{BTreeMap, BTreeSet};

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
