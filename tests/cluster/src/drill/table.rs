//! The drill's reports for people: a line each, and a table with one row per event over all rounds. Knows nothing of
//! how they came about.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Report;

/// One report in one line.
#[must_use]
pub fn line(report: &Report) -> String {
    let Report { event, from, to, tally, note, .. } = report;
    let mut line = format!(
        "drill: {} {from} -> {to}: idle dropped {} of {}, dropped {}/{}, refused {}, failed {}, open {}, in flight {}, \
         gap {}, promotion to first write {} (directly {}), lost {}, {} writes, {} reads",
        event.name(),
        report.idle.dropped,
        report.idle.all,
        tally.dropped_write,
        tally.dropped_read,
        codes(&tally.refused),
        codes(&tally.failed),
        codes(&tally.open),
        codes(&tally.in_flight),
        millis(Some(tally.write_gap)),
        millis(report.first_write),
        millis(report.direct_write),
        report.rows.lost,
        tally.writes,
        tally.reads,
    );
    if let Some(stale) = report.stale {
        line += &format!(", on the old leader {} ({} in flight)", stale.accepted, stale.in_flight);
    }
    if !note.is_empty() {
        line += &format!("; {note}");
    }
    line
}

/// Renders a row per event, over all reports of it.
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
    let sum = |value: &dyn Fn(&Report) -> usize| rounds.iter().map(|report| value(report)).sum::<usize>();
    let merged = |counts: &dyn Fn(&Report) -> &BTreeMap<String, usize>| {
        let mut all: BTreeMap<String, usize> = BTreeMap::new();
        for (code, count) in rounds.iter().flat_map(|report| counts(report)) {
            *all.entry(code.clone()).or_default() += count;
        }
        codes(&all)
    };
    let between = |value: &dyn Fn(&Report) -> Option<Duration>| {
        spread(rounds, value)
            .map_or_else(|| "-".to_owned(), |(median, worst)| format!("{} {}", whole(median), whole(worst)))
    };
    let stale = match rounds.iter().any(|report| report.stale.is_some()) {
        true => sum(&|report| report.stale.map_or(0, |stale| stale.accepted)).to_string(),
        false => "-".to_owned(),
    };
    vec![
        rounds[0].event.name().to_owned(),
        rounds.len().to_string(),
        sum(&|report| report.idle.dropped).to_string(),
        sum(&|report| report.tally.dropped_write + report.tally.dropped_read).to_string(),
        merged(&|report| &report.tally.refused),
        merged(&|report| &report.tally.failed),
        merged(&|report| &report.tally.open),
        merged(&|report| &report.tally.in_flight),
        between(&Report::delay),
        between(&|report| report.first_write),
        between(&|report| Some(report.tally.write_gap)),
        stale,
        sum(&|report| report.rows.lost).to_string(),
        sum(&|report| report.rows.denied + report.torn).to_string(),
    ]
}

/// Median and worst of what was measured.
fn spread(rounds: &[&Report], value: impl Fn(&Report) -> Option<Duration>) -> Option<(Duration, Duration)> {
    let mut measured: Vec<Duration> = rounds.iter().filter_map(|report| value(report)).collect();
    measured.sort_unstable();
    Some((*measured.get(measured.len() / 2)?, *measured.last()?))
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let rule = widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("--") + "\n";
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1.min(lines.len()), rule);
    lines.concat()
}

fn codes(counts: &BTreeMap<String, usize>) -> String {
    let all: usize = counts.values().sum();
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

const HEAD: [&str; 14] = [
    "event",
    "rounds",
    "idle",
    "dropped",
    "refused",
    "failed",
    "open",
    "in flight",
    "delay",
    "promotion",
    "gap",
    "stale",
    "lost",
    "denied",
];
const LEGEND: &str = "
idle, dropped, refused: clients and connections that lost their place; failed: statements without excuse.
open, in flight: transactions and single statements that were on the old leader when it was lost.
delay: from the first write that the new leader took directly to the first one through the write port; promotion: to
that from the promotion; gap: longest time without a write. Median and worst, in ms.
stale: writes on the old leader after the promotion; lost: acknowledged rows that are gone; denied: rows that are there
although reported failed without 08007, or a transaction of which only a part is there.
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
            let line = table.lines().find(|line| line.starts_with(event)).unwrap_or_default();
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
        };
        let crash = cells("crash");
        assert_eq!(crash[1], "3", "{table}");
        assert_eq!(crash[6], "9 (40001 x9)", "{table}");
        assert_eq!(crash[8], "20 90", "{table}");
        assert_eq!(cells("switchover")[8], "5 5", "{table}");
        assert_eq!(cells("switchover")[11], "-", "{table}");
    }

    #[test]
    fn a_median_and_a_worst_are_asked_for() {
        let rounds = |times: &[u64]| times.iter().map(|&time| after(Event::Crash, time)).collect::<Vec<_>>();
        assert!(slow(&rounds(&[90, 90, 249])).is_empty());
        assert_eq!(slow(&rounds(&[90, 101, 101])).len(), 1);
        assert_eq!(slow(&rounds(&[9, 9, 251])).len(), 1);
    }
}
