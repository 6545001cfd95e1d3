//! The drill's reports for people: a line each, and a table with one row per event over all rounds. Knows nothing of
//! how they came about.

use std::collections::BTreeMap;
use std::time::Duration;

use super::journal::Tally;
use super::{Held, Memory, Report};

/// One report in one line.
#[must_use]
pub fn line(report: &Report) -> String {
    let Report { event, from, to, tally, note, .. } = report;
    let mut line = format!(
        "drill: {} {from} -> {to}: idle dropped {} of {}, dropped {}/{}, refused {}, failed writes {}, failed reads {}, \
         open {}, in flight {}, gap {}, promotion to first write {} (directly {}), lost {}, writes on an old leader {} \
         (in flight {}), {} writes, {} reads",
        event.name(),
        report.idle.dropped,
        report.idle.all,
        tally.dropped_write,
        tally.dropped_read,
        codes(&tally.refused),
        codes(&tally.failed),
        codes(&tally.failed_reads),
        codes(&tally.open),
        codes(&tally.in_flight),
        millis(Some(tally.write_gap)),
        millis(report.first_write),
        millis(report.direct_write),
        report.rows.lost,
        report.stale.accepted,
        report.stale.in_flight,
        tally.writes,
        tally.reads,
    );
    if report.callbacks > 0 {
        line += &format!(", {} callbacks heard", report.callbacks);
    }
    if let Some(rows) = report.only_on_old {
        line += &format!(", rows only there {} ({} in flight)", rows.accepted, rows.in_flight);
    }
    if let Some(held) = &report.held {
        line += &self::held(held);
    }
    if !note.is_empty() {
        line += &format!("; {note}");
    }
    line
}

fn held(held: &Held) -> String {
    let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let Memory { before, quiet, held: full } = held.memory;
    let waits = held.waits.map_or_else(
        || "-".to_owned(),
        |(median, last)| format!("{} (median), {} (last)", millis(Some(median)), millis(Some(last))),
    );
    format!(
        "; {} held: failed {}, answered after {waits}, order off by {} places (nine of ten) and {} (worst), {} logins ({} at once), \
         {} sessions at once, pooler's memory {} MB, {} with them quiet, {} with them held",
        held.clients,
        codes(&held.failed),
        held.disorder.most_places,
        millis(Some(held.disorder.longest)),
        held.logins.all,
        held.logins.at_once,
        held.logins.sessions_at_once,
        megabytes(before),
        megabytes(quiet),
        megabytes(full),
    )
}

/// Renders a row per event over all its rounds, as a table in Markdown.
#[must_use]
pub fn render(reports: &[Report]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    for rounds in by_event(reports) {
        rows.push(row(&rounds));
    }
    align(&rows) + LEGEND
}

/// The delays that are asked for and were not met, as sentences: a median and a worst per event.
#[must_use]
pub fn slow(reports: &[Report]) -> Vec<String> {
    let mut slow = Vec::new();
    for rounds in by_event(reports) {
        let Some((median, worst)) = spread(&rounds, Report::delay) else { continue };
        if median > MEDIAN_MAX || worst > WORST_MAX {
            slow.push(format!(
                "{}: first write {} (median), {} (worst) after the leader took writes, not {} and {}",
                rounds[0].event.name(),
                millis(Some(median)),
                millis(Some(worst)),
                millis(Some(MEDIAN_MAX)),
                millis(Some(WORST_MAX)),
            ));
        }
    }
    slow
}

/// The reports of each event, in order of its first.
fn by_event(reports: &[Report]) -> Vec<Vec<&Report>> {
    let mut groups: Vec<Vec<&Report>> = Vec::new();
    for report in reports {
        match groups.iter_mut().find(|group| group[0].event == report.event) {
            Some(group) => group.push(report),
            None => groups.push(vec![report]),
        }
    }
    groups
}

fn row(rounds: &[&Report]) -> Vec<String> {
    let sum = |value: &dyn Fn(&Report) -> usize| {
        rounds.iter().map(|report| value(report)).sum::<usize>().to_string()
    };
    let counts = |value: &dyn Fn(&Report) -> usize| {
        spread(rounds, |report| Some(value(report)))
            .map_or_else(|| "-".to_owned(), |(median, worst)| format!("{median}, {worst}"))
    };
    let times = |value: &dyn Fn(&Report) -> Option<Duration>, unit: &dyn Fn(Duration) -> String| {
        spread(rounds, value)
            .map_or_else(String::new, |(median, worst)| format!("{}, {}", unit(median), unit(worst)))
    };
    let tally = |report: &Report, counts: fn(&Tally) -> usize| counts(&report.tally);
    let gone = |report: &Report| {
        tally(report, |tally| tally.dropped_write + tally.dropped_read + all(&tally.refused))
    };
    vec![
        format!("`{}`", rounds[0].event.name()),
        rounds.len().to_string(),
        sum(&|report| report.idle.dropped),
        sum(&gone),
        sum(&|report| tally(report, |tally| all(&tally.failed))),
        sum(&|report| tally(report, |tally| all(&tally.failed_reads))),
        counts(&|report| tally(report, |tally| all(&tally.open))),
        counts(&|report| tally(report, |tally| all(&tally.in_flight))),
        times(&Report::delay, &whole),
        times(&|report| report.first_write, &whole),
        times(&|report| Some(report.tally.write_gap), &seconds),
        sum(&Report::stale_writes),
        sum(&|report| report.rows.lost),
        sum(&|report| report.rows.denied + report.torn),
    ]
}

/// Median and worst of what was measured.
fn spread<T: Ord + Copy>(rounds: &[&Report], value: impl Fn(&Report) -> Option<T>) -> Option<(T, T)> {
    let mut measured: Vec<T> = rounds.iter().filter_map(|report| value(report)).collect();
    measured.sort_unstable();
    Some((*measured.get(measured.len() / 2)?, *measured.last()?))
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join(" | ");
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1.min(lines.len()), format!("| {rule} |\n"));
    lines.concat()
}

fn all(counts: &BTreeMap<String, usize>) -> usize {
    counts.values().sum()
}

fn codes(counts: &BTreeMap<String, usize>) -> String {
    let all = all(counts);
    if all == 0 {
        return "0".to_owned();
    }
    let each: Vec<String> = counts.iter().map(|(code, count)| format!("{code} x{count}")).collect();
    format!("{all} ({})", each.join(", "))
}

fn millis(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3))
}

fn whole(duration: Duration) -> String {
    format!("{:.0}", duration.as_secs_f64() * 1e3)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

const HEAD: [&str; 14] = [
    "event",
    "rounds",
    "idle",
    "gone",
    "failed",
    "reads",
    "open",
    "in flight",
    "delay ms",
    "promotion ms",
    "gap s",
    "stale",
    "lost",
    "denied",
];
const LEGEND: &str = "
Sums over all rounds: idle, gone: idle clients and other connections that lost their place or were not let in; failed,
reads: statements that nothing excuses, on each port; stale: writes that an old leader took, by its own log, after its
successor was promoted; lost: acknowledged rows that are gone; denied: rows that are there although reported failed
without 08007, or a transaction of which only a part is there. All of these are to be 0.
Median and worst per round: open, in flight: transactions and single statements that were on the old leader when it was
lost (each is explained above); delay: from the first write that the new leader took directly to the first one through the
write port; promotion: to that from the promotion; gap: longest time without a write.
";
const MEDIAN_MAX: Duration = Duration::from_millis(100);
const WORST_MAX: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{render, slow};
    use crate::drill::report::tests::report;
    use crate::drill::{Event, Report};

    fn after(event: Event, millis: u64) -> Report {
        Report { first_write: Some(Duration::from_millis(millis + 2)), ..report(event) }
    }

    #[test]
    fn the_table_has_a_row_per_event_with_median_and_worst() {
        let reports = [
            after(Event::Crash, 10),
            after(Event::Switchover, 5),
            after(Event::Crash, 20),
            after(Event::Crash, 90),
        ];
        let table = render(&reports);
        let cells = |event: &str| {
            let line = table.lines().find(|line| line.contains(event)).unwrap_or_default();
            line.split('|').skip(1).map(str::trim).collect::<Vec<_>>()
        };
        let crash = cells("`crash`");
        assert_eq!(crash[1], "3", "{table}");
        assert_eq!(crash[6], "3, 3", "{table}");
        assert_eq!(crash[8], "20, 90", "{table}");
        assert_eq!(cells("`switchover`")[8], "5, 5", "{table}");
        assert_eq!(cells("`switchover`")[11], "0", "{table}");
    }

    #[test]
    fn a_median_and_a_worst_are_asked_for() {
        let rounds = |times: &[u64]| times.iter().map(|&time| after(Event::Crash, time)).collect::<Vec<_>>();
        assert!(slow(&rounds(&[90, 90, 249])).is_empty());
        assert_eq!(slow(&rounds(&[90, 101, 101])).len(), 1);
        assert_eq!(slow(&rounds(&[9, 9, 251])).len(), 1);
    }
}
