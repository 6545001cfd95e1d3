//! Clients that wait, first come first served, each with two clocks: one runs while the pool is held (nobody to
//! dial), the other while it is merely busy. Knows nothing of server connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ClientId;

/// The waiting clients of one pool. A queue that was just made counts as held.
#[derive(Debug)]
pub(crate) struct Queue {
    waiters: VecDeque<Waiter>,
    hold: HoldClock,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    client: ClientId,
    since: Instant,
    /// Reading of the hold clock when the client came.
    held_before: Duration,
}

/// Sum of all times during which the pool was held while anybody could wait.
#[derive(Debug)]
struct HoldClock {
    held: bool,
    /// Start of the present hold; `None` until the first client notices it.
    since: Option<Instant>,
    past: Duration,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { waiters: VecDeque::new(), hold: HoldClock { held: true, since: None, past: Duration::ZERO } }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn push(&mut self, client: ClientId, now: Instant) {
        let held_before = self.hold.start_reading(now);
        self.waiters.push_back(Waiter { client, since: now, held_before });
    }

    /// The client that has waited longest, and for how long.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(ClientId, Duration)> {
        let waiter = self.waiters.pop_front()?;
        Some((waiter.client, now.saturating_duration_since(waiter.since)))
    }

    /// True if the client was waiting.
    pub(crate) fn forget(&mut self, client: ClientId) -> bool {
        let place = self.waiters.iter().position(|waiter| waiter.client == client);
        place.and_then(|place| self.waiters.remove(place)).is_some()
    }

    /// Whole wait of the client that has waited longest, whatever the cause.
    pub(crate) fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        self.waiters.front().map(|waiter| now.saturating_duration_since(waiter.since))
    }

    /// Since when a client has waited, by its place in the queue.
    pub(crate) fn since(&self, place: usize) -> Option<Instant> {
        self.waiters.get(place).map(|waiter| waiter.since)
    }

    /// Whether the client at a place has waited this long for the present cause.
    pub(crate) fn has_waited(&self, place: usize, limit: Duration, now: Instant) -> bool {
        self.waiters.get(place).is_some_and(|waiter| self.wait_for_cause(waiter, now) >= limit)
    }

    /// The next client, if it has waited at least `limit` for the present cause.
    pub(crate) fn pop_overdue(&mut self, now: Instant, limit: Duration) -> Option<ClientId> {
        let first = self.waiters.front()?;
        if self.wait_for_cause(first, now) < limit {
            return None;
        }
        self.waiters.pop_front().map(|waiter| waiter.client)
    }

    /// Clients that have waited at least `limit`, whatever the cause.
    pub(crate) fn long_waiting(&self, now: Instant, limit: Duration) -> Vec<ClientId> {
        let is_long = |waiter: &&Waiter| now.saturating_duration_since(waiter.since) >= limit;
        self.waiters.iter().take_while(is_long).map(|waiter| waiter.client).collect()
    }

    /// How long each client has waited for the present cause, in order.
    pub(crate) fn waits(&self, now: Instant) -> impl Iterator<Item = (ClientId, Duration)> {
        self.waiters.iter().map(move |waiter| (waiter.client, self.wait_for_cause(waiter, now)))
    }

    /// Removes the clients that have waited longer for the present cause than `limit` allows each; `None`: for ever.
    pub(crate) fn take_overdue(
        &mut self,
        now: Instant,
        limit: impl Fn(ClientId) -> Option<Duration>,
    ) -> Vec<ClientId> {
        let is_overdue = |waiter: &Waiter| {
            limit(waiter.client).is_some_and(|limit| self.wait_for_cause(waiter, now) >= limit)
        };
        let overdue: Vec<ClientId> =
            self.waiters.iter().filter(|waiter| is_overdue(waiter)).map(|waiter| waiter.client).collect();
        if !overdue.is_empty() {
            self.waiters.retain(|waiter| !overdue.contains(&waiter.client));
        }
        overdue
    }

    pub(crate) fn set_held(&mut self, held: bool, now: Instant) {
        self.hold.set(held, now);
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.waiters.iter().map(|waiter| waiter.client)
    }

    fn wait_for_cause(&self, waiter: &Waiter, now: Instant) -> Duration {
        let held = self.hold.read(now).saturating_sub(waiter.held_before);
        if self.hold.held { held } else { now.saturating_duration_since(waiter.since).saturating_sub(held) }
    }
}

impl HoldClock {
    fn read(&self, now: Instant) -> Duration {
        self.past + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Like `read`, but a hold that nobody has noticed yet begins to count.
    fn start_reading(&mut self, now: Instant) -> Duration {
        if self.held {
            self.since.get_or_insert(now);
        }
        self.read(now)
    }

    fn set(&mut self, held: bool, now: Instant) {
        if held == self.held {
            return;
        }
        self.past = self.read(now);
        self.since = held.then_some(now);
        self.held = held;
    }
}
