//! One outstanding request to one place: when it was sent and whether its answer is still due.

use std::time::{Duration, Instant};

/// At most one request at a time, no more often than an interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Slot {
    sent: Option<Instant>,
    busy: bool,
}

impl Slot {
    /// When the next request may go out.
    pub(crate) fn due_at(&self, now: Instant, interval: Duration) -> Instant {
        match self.sent {
            // The shell answers every request within seconds. Should it ever forget one, asking again is harmless,
            // never asking again is not.
            Some(sent) if self.busy => sent + ANSWER_LOST_AFTER,
            Some(sent) => sent + interval,
            None => now,
        }
    }

    /// When the last request went out.
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.sent
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn start(&mut self, now: Instant) {
        *self = Self { sent: Some(now), busy: true };
    }

    pub(crate) fn done(&mut self) {
        self.busy = false;
    }
}

/// An answer that has not come by then is not waited for any longer.
const ANSWER_LOST_AFTER: Duration = Duration::from_secs(15);
