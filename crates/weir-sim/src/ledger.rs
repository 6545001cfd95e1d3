//! The book of all rows: who was told what about them, and how often they were committed anywhere. Owns the laws about
//! writes.

use std::collections::BTreeMap;

use crate::database::{Commit, Row};

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
    commits: BTreeMap<Row, u32>,
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
            let times = self.commits.entry(*row).or_default();
            *times += 1;
            assert_eq!(*times, 1, "row {row} was written twice");
            if let Some(Fate::Denied(code)) = self.fates.get(row) {
                panic!("row {row} was written, and reported as failed with {code} before");
            }
        }
    }

    pub(crate) fn told(&mut self, rows: &[Row], fate: &Fate) {
        for row in rows {
            let is_written = self.commits.contains_key(row);
            match fate {
                Fate::Denied(code) => {
                    assert!(!is_written, "row {row} was written and is reported as failed with {code}")
                }
                Fate::Confirmed => assert!(is_written, "row {row} is confirmed and was not written"),
                Fate::Asked | Fate::InDoubt => {}
            }
            self.fates.insert(*row, fate.clone());
        }
    }

    /// Every confirmed row is in the cluster's final log. `lossy`: a failover may lose what no standby had.
    pub(crate) fn check(&self, log: &[Commit], lossy: bool) {
        let kept: BTreeMap<Row, ()> =
            log.iter().flat_map(|commit| &commit.rows).map(|row| (*row, ())).collect();
        for (row, fate) in &self.fates {
            let is_kept = kept.contains_key(row);
            assert!(lossy || *fate != Fate::Confirmed || is_kept, "row {row} was acknowledged and is lost");
            assert!(*fate != Fate::Asked, "row {row}: nobody was told anything");
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
