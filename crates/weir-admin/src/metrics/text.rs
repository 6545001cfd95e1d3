//! Prometheus' text format, version 0.0.4: escaping and layout. Knows no metric.

use std::fmt::Write;

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows.
    Counter,
}

/// A number to print.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Count(u64),
    /// Microseconds, printed as seconds.
    Micros(u64),
}

/// Label names and values of one sample.
pub(super) type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

impl Page {
    /// One family: its description, then a line for each sample. Nothing at all if there are no samples.
    pub(super) fn family<'a, const N: usize>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a, N>, Value)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, kind: Kind, name: &str, help: &str, value: Value) {
        self.family(kind, name, help, [([], value)]);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: Value) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.escaped(text);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = match value {
            Value::Count(count) => writeln!(self.0, " {count}"),
            Value::Micros(micros) => writeln!(self.0, " {}.{:06}", micros / 1_000_000, micros % 1_000_000),
        };
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                _ => self.0.push(c),
            }
        }
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Value {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Count(yes.into())
    }
}

impl From<std::time::Duration> for Value {
    fn from(time: std::time::Duration) -> Self {
        Self::Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}
