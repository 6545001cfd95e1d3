//! What is being done, told on standard error with the seconds since the start. Knows nothing of who tells it.

use std::io::Write;
use std::time::Instant;

/// Tells progress, or keeps silent (tests).
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    told_since: Option<Instant>,
}

impl Progress {
    /// Says nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self { told_since: None }
    }

    /// Tells on standard error; seconds count from now.
    #[must_use]
    pub fn told() -> Self {
        Self { told_since: Some(Instant::now()) }
    }

    /// One line of progress.
    pub fn say(&self, line: &str) {
        if let Some(since) = self.told_since {
            // A closed terminal is no reason to stop.
            let _ = writeln!(std::io::stderr(), "[{:5.1} s] {line}", since.elapsed().as_secs_f64());
        }
    }
}
