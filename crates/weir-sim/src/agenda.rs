//! What happens next: events in the order of virtual time, and of their entry where the time is the same. Knows nothing
//! of what the events mean.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The clock and all that is to come.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now: Duration,
    entered: u64,
    queue: BinaryHeap<Reverse<Entry<E>>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: (Duration, u64),
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { now: Duration::ZERO, entered: 0, queue: BinaryHeap::new() }
    }

    /// Time since the start of the story.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn at(&mut self, time: Duration, event: E) {
        self.entered += 1;
        self.queue.push(Reverse(Entry { at: (time.max(self.now), self.entered), event }));
    }

    /// Moves the clock to the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse(Entry { at: (time, _), event }) = self.queue.pop()?;
        self.now = time;
        Some(event)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
