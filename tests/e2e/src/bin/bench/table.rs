//! Medians and ratios as text. Knows no processes.

use std::fmt::Write;

/// One run of one pooler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// User plus system CPU of the pooler per transaction.
    pub(crate) cpu_micros: f64,
    /// Transactions per second.
    pub(crate) tps: f64,
    /// 99th percentile of the latency.
    pub(crate) p99_millis: f64,
}

/// All runs, by load and seat.
#[derive(Debug)]
pub(crate) struct Table {
    seats: [String; 2],
    loads: Vec<(String, [Vec<Sample>; 2])>,
    idle: Vec<(&'static str, [Option<f64>; 2])>,
}

impl Table {
    /// An empty table with its column headings.
    pub(crate) fn new(seats: [String; 2]) -> Self {
        Self { seats, loads: Vec::new(), idle: Vec::new() }
    }

    /// One more run.
    pub(crate) fn add(&mut self, load: &str, seat: usize, sample: Sample) {
        if self.loads.iter().all(|(known, _)| known != load) {
            self.loads.push((load.to_owned(), [Vec::new(), Vec::new()]));
        }
        let row = self.loads.iter_mut().find(|(known, _)| known == load);
        if let Some(samples) = row.and_then(|(_, seats)| seats.get_mut(seat)) {
            samples.push(sample);
        }
    }

    /// Memory per idle client.
    pub(crate) fn idle(&mut self, kind: &'static str, seat: usize, bytes: f64) {
        if self.idle.iter().all(|(known, _)| *known != kind) {
            self.idle.push((kind, [None, None]));
        }
        let row = self.idle.iter_mut().find(|(known, _)| *known == kind);
        if let Some(cell) = row.and_then(|(_, seats)| seats.get_mut(seat)) {
            *cell = Some(bytes);
        }
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let [first, second] = &self.seats;
        line(&mut out, "", first, second, "ratio");
        for (load, seats) in &self.loads {
            let _ = writeln!(out, "{load}");
            for (label, decimals, read) in METRICS {
                let cells = seats.each_ref().map(|samples| median(samples.iter().map(read).collect()));
                metric(&mut out, label, decimals, cells);
            }
        }
        if !self.idle.is_empty() {
            let _ = writeln!(out, "memory per idle client");
        }
        for (kind, cells) in &self.idle {
            metric(&mut out, &format!("bytes, {kind}"), 0, *cells);
        }
        out
    }
}

type Metric = (&'static str, usize, fn(&Sample) -> f64);
const METRICS: [Metric; 3] = [
    ("CPU us per transaction", 2, |sample| sample.cpu_micros),
    ("transactions per second", 0, |sample| sample.tps),
    ("p99 ms", 2, |sample| sample.p99_millis),
];

/// One number of both seats, and their ratio.
pub(crate) fn metric(out: &mut String, label: &str, decimals: usize, cells: [Option<f64>; 2]) {
    let [first, second] =
        cells.map(|cell| cell.map_or("-".to_owned(), |value| format!("{value:.decimals$}")));
    let ratio = match cells {
        [Some(first), Some(second)] if second > 0.0 => format!("{:.2}", first / second),
        [_, _] => "-".to_owned(),
    };
    line(out, &format!("  {label}"), &first, &second, &ratio);
}

/// One line of a table.
pub(crate) fn line(out: &mut String, label: &str, first: &str, second: &str, ratio: &str) {
    let _ = writeln!(out, "{label:<40}{first:>18}{second:>18}{ratio:>9}");
}

/// The value in the middle; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::{Sample, Table, median};

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn the_ratio_is_the_first_seat_over_the_second() {
        let mut table = Table::new(["a".to_owned(), "b".to_owned()]);
        let sample = |cpu_micros| Sample { cpu_micros, tps: 1.0, p99_millis: 1.0 };
        table.add("simple", 0, sample(9.0));
        table.add("simple", 1, sample(12.0));
        assert!(table.render().lines().any(|line| line.contains("CPU") && line.ends_with("0.75")));
    }

    #[test]
    fn a_load_that_one_seat_cannot_run_has_no_ratio() {
        let mut table = Table::new(["a".to_owned(), "b".to_owned()]);
        table.add("prepared", 0, Sample { cpu_micros: 9.0, tps: 1.0, p99_millis: 1.0 });
        assert!(table.render().lines().any(|line| line.contains("CPU") && line.ends_with('-')));
    }
}
