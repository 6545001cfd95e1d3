//! The drill's reports as a table for people: one column per event. Knows nothing of how they came about.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Report;

/// Renders the reports side by side.
#[must_use]
pub fn render(reports: &[Report]) -> String {
    let rows: [Row; 14] = [
        ("", |report| report.event.name().to_owned()),
        ("leader", |report| format!("{} -> {}", report.from, report.to)),
        ("connections dropped, write port", |report| report.tally.dropped_write.to_string()),
        ("connections dropped, read port", |report| report.tally.dropped_read.to_string()),
        ("new connections refused", |report| codes(&report.tally.refused)),
        ("idle clients dropped", |report| format!("{} of {}", report.idle.dropped, report.idle.all)),
        ("statements failed", |report| codes(&report.tally.failed)),
        ("  in flight or open at the loss", |report| codes(&report.tally.excused)),
        ("longest write gap", |report| millis(Some(report.tally.write_gap))),
        ("promotion to first direct write", |report| millis(report.direct_write)),
        ("promotion to first write", |report| millis(report.first_write)),
        ("writes acknowledged / reads", |report| format!("{} / {}", report.tally.writes, report.tally.reads)),
        ("rows acknowledged so far", |report| report.acknowledged.to_string()),
        ("acknowledged rows lost", |report| report.lost.to_string()),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(label, cell)| std::iter::once((*label).to_owned()).chain(reports.iter().map(cell)).collect())
        .collect();
    align(&cells)
}

/// A label, and how the cell of a report is written.
type Row = (&'static str, fn(&Report) -> String);

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    let rule = widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>().join("---") + "\n";
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
    duration.map_or_else(|| "never".to_owned(), |duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::render;
    use crate::drill::journal::Tally;
    use crate::drill::load::IdleCount;
    use crate::drill::{Event, Report};

    fn report(event: Event) -> Report {
        let mut tally = Tally { write_gap: Duration::from_millis(2500), writes: 10, ..Tally::default() };
        tally.excused.insert("40001".to_owned(), 3);
        Report {
            event,
            from: "n1".to_owned(),
            to: "n2".to_owned(),
            tally,
            idle: IdleCount { dropped: 0, all: 200 },
            direct_write: None,
            first_write: Some(Duration::from_micros(12_300)),
            acknowledged: 10,
            lost: 0,
            torn: 0,
        }
    }

    #[test]
    fn the_table_has_a_column_per_event() {
        let table = render(&[report(Event::Switchover), report(Event::Crash)]);
        let cells = |label: &str| {
            let line = table.lines().find(|line| line.starts_with(label)).unwrap_or_default();
            line[label.len()..]
                .split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect::<Vec<_>>()
        };
        assert_eq!(cells("leader"), ["n1 -> n2", "n1 -> n2"], "{table}");
        assert_eq!(cells("  in flight or open at the loss"), ["3 (40001 x3)", "3 (40001 x3)"], "{table}");
        assert_eq!(cells("promotion to first write"), ["12.3 ms", "12.3 ms"], "{table}");
    }

    #[test]
    fn a_late_first_write_breaks_the_switchover_but_not_the_crash() {
        let late = |event| Report { first_write: Some(Duration::from_millis(501)), ..report(event) };
        assert_eq!(late(Event::Switchover).broken().len(), 1);
        assert!(late(Event::Crash).broken().is_empty());
        let none = Report { first_write: None, lost: 2, ..report(Event::Crash) };
        assert_eq!(none.broken().len(), 2);
    }
}
