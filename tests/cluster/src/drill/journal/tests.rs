//! The judgement, on journals written by hand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Attempt, Journal, Kind, Loss, Outcome, Port};

/// Builds a journal from (client, port, kind, open since, ended, rows, outcome), times in ms.
#[expect(clippy::type_complexity, reason = "a table")]
fn journal(start: Instant, attempts: &[(u32, Port, Kind, u64, u64, &[i64], Outcome)]) -> Journal {
    let journal = Journal::default();
    for (client, port, kind, since, ended, rows, outcome) in attempts {
        let at = |millis: u64| start + Duration::from_millis(millis);
        journal.note(Attempt {
            client: *client,
            port: *port,
            kind: *kind,
            open_since: at(*since),
            ended: at(*ended),
            rows: rows.to_vec(),
            outcome: outcome.clone(),
            words: String::new(),
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
            (1, Port::Write, Kind::Single, 900, 1010, &[1], failed("08007")),
            (2, Port::Write, Kind::Transaction, 500, 4000, &[2, 3], failed("40001")),
            (2, Port::Write, Kind::Transaction, 1100, 4010, &[4, 5], failed("40001")),
            // It found a session that had not ended yet.
            (7, Port::Write, Kind::Transaction, 950, 1010, &[9, 10], failed("40001")),
            (7, Port::Write, Kind::Transaction, 1020, 1060, &[11, 12], failed("40001")),
            (3, Port::Write, Kind::Single, 2000, 2010, &[6], failed("08007")),
            (4, Port::Write, Kind::Single, 900, 1010, &[7], failed("57P01")),
            (5, Port::Read, Kind::Single, 900, 1010, &[], failed("08007")),
            // Nothing of a transaction: it has nothing that could be rolled back.
            (6, Port::Write, Kind::Single, 900, 1010, &[8], failed("40001")),
        ],
    );
    let lost = start + Duration::from_millis(1000);
    let loss = Some(Loss { from: lost, until: lost });
    let tally = journal.tally(start, start + Duration::from_secs(5), loss);
    assert_eq!(tally.in_flight.get("08007"), Some(&1));
    assert_eq!(tally.open.get("40001"), Some(&3));
    assert_eq!(tally.failed.values().sum::<usize>(), 4);
    assert_eq!(tally.failed.get("57P01"), Some(&1));
    assert_eq!(tally.failed_reads.get("08007"), Some(&1));
    let end = start + Duration::from_secs(5);
    assert_eq!(journal.failures(start, end, loss).len(), 9);
    let nothing_lost = journal.tally(start, end, None);
    assert_eq!(nothing_lost.failed.values().sum::<usize>(), 8);
    assert!(journal.given_up(6, start + Duration::from_millis(2010)));
    assert!(!journal.given_up(6, start + Duration::from_millis(2009)));
}

#[test]
fn the_gap_counts_from_the_first_to_the_last_moment_and_drops_are_by_port() {
    let start = Instant::now();
    let journal = journal(
        start,
        &[
            (1, Port::Write, Kind::Single, 0, 100, &[1], Outcome::Done),
            (1, Port::Write, Kind::Transaction, 100, 2600, &[2, 3], Outcome::Done),
            (2, Port::Read, Kind::Single, 100, 2000, &[], Outcome::Done),
            (3, Port::Read, Kind::Single, 100, 2000, &[], Outcome::Dropped("57P01".to_owned())),
        ],
    );
    let tally = journal.tally(start, start + Duration::from_secs(3), None);
    assert_eq!(tally.write_gap, Duration::from_millis(2500));
    assert_eq!((tally.writes, tally.reads), (2, 1));
    assert_eq!((tally.dropped_write, tally.dropped_read), (0, 1));
    let first = journal.first_write_after(start + Duration::from_millis(100));
    assert_eq!(first, Some(start + Duration::from_millis(2600)));
}

#[test]
fn rows_are_held_against_what_was_said_about_them() {
    let start = Instant::now();
    let journal = journal(
        start,
        &[
            (1, Port::Write, Kind::Single, 0, 100, &[1], Outcome::Done),
            (1, Port::Write, Kind::Single, 0, 100, &[2], Outcome::Done),
            (1, Port::Write, Kind::Single, 200, 300, &[3], failed("08007")),
            (2, Port::Write, Kind::Transaction, 200, 300, &[4, 5], failed("40001")),
            (3, Port::Write, Kind::Single, 200, 300, &[6], Outcome::Dropped("57P01".to_owned())),
        ],
    );
    let present: BTreeSet<i64> = [1, 3, 4, 6].into();
    journal.forget_before(start + Duration::from_millis(200));
    let rows = journal.promises().hold_against(&present);
    assert_eq!((rows.acknowledged, rows.lost, rows.denied), (2, 1, 2));
    assert_eq!(journal.sent_after(start + Duration::from_millis(150), &present), 3);
    assert_eq!(journal.sent_after(start + Duration::from_millis(200), &present), 0);
}
