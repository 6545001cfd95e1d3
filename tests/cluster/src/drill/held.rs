//! A crowd that waits: thousands of clients that are connected, quiet, and all want to write while nobody leads. What becomes
//! of them when a leader is there again. Judges nothing but its own numbers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::{JoinHandle, JoinSet};

use super::journal::{Attempt, Outcome};
use super::load::{Connected, Shared, Work, Worker};
use super::server_log::Logins;
use super::watch::Eyes;
use crate::process;

/// The crowd, quiet.
#[derive(Debug)]
pub(super) struct Crowd {
    clients: Vec<(Arc<Worker>, Arc<Connected>)>,
    memory: Memory,
}

/// The crowd while it waits for a leader to be lost, and then for an answer.
#[derive(Debug)]
pub(super) struct Waiting {
    task: JoinHandle<Memory>,
    given_up: Arc<AtomicBool>,
    clients: Vec<(Arc<Worker>, Arc<Connected>)>,
}

/// Resident bytes of the pooler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Before the crowd came.
    pub before: u64,
    /// With the crowd connected and quiet.
    pub quiet: u64,
    /// With the whole crowd held.
    pub held: u64,
}

/// By how much the order in which rows were written differs from the order in which they were asked for. As many as there
/// are server connections run side by side, so some of it has to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disorder {
    /// Places by which nine of ten rows are off at most.
    pub most_places: usize,
    /// The longest that a row was written after one that was asked for later.
    pub longest: Duration,
}

/// What became of a crowd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Clients that were asked to write.
    pub clients: usize,
    /// Those without success, by SQLSTATE.
    pub failed: BTreeMap<String, usize>,
    /// From the first write that the new leader took directly to the answers of the crowd: median and last.
    pub waits: Option<(Duration, Duration)>,
    /// How rows were written in another order than they were asked for.
    pub disorder: Disorder,
    /// Logins to the new leader since its promotion.
    pub logins: Logins,
    /// The size of the pool, where it is known.
    pub pool_size: Option<u32>,
    /// The pooler's memory, where it can be seen.
    pub memory: Memory,
}

impl Crowd {
    /// Connects them, a few at a time.
    pub(super) async fn gather(shared: &Arc<Shared>, count: u32, pooler: Option<u32>) -> Result<Self> {
        let mut memory = Memory { before: resident(pooler), ..Memory::default() };
        let mut clients = Vec::new();
        let mut numbers = FIRST..FIRST + count;
        let mut connecting = JoinSet::new();
        loop {
            while connecting.len() < LOGINS_AT_ONCE
                && let Some(number) = numbers.next()
            {
                let worker = Arc::new(Worker::new(shared, number, Work::IdleWriter));
                connecting.spawn(async move {
                    let connected = Connected::quiet(&worker).await?;
                    anyhow::Ok((worker, Arc::new(connected)))
                });
            }
            let Some(connected) = connecting.join_next().await else { break };
            clients.push(connected?.context("connecting the crowd")?);
        }
        memory.quiet = resident(pooler);
        Ok(Self { clients, memory })
    }

    /// Lets everybody write once as soon as the leader is lost.
    pub(super) fn wait(self, eyes: Eyes, pooler: Option<u32>) -> Waiting {
        let given_up = Arc::new(AtomicBool::new(false));
        let (stop, clients) = (Arc::clone(&given_up), self.clients.clone());
        let task = tokio::spawn(async move {
            let mut memory = Memory { held: 0, ..self.memory };
            while eyes.look().lost_at.is_none() {
                if stop.load(Ordering::Relaxed) {
                    return memory;
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            tokio::time::sleep(BEHIND_THE_LOSS).await;
            let mut writing = JoinSet::new();
            for (worker, connected) in &self.clients {
                let (worker, connected) = (Arc::clone(worker), Arc::clone(connected));
                writing.spawn(async move { worker.attempt(&connected).await });
                // One after the other, so that there is an order in which they ask.
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            while !writing.is_empty() {
                memory.held = memory.held.max(resident(pooler));
                // Looking costs next to nothing, and the crowd is gone a moment after its release.
                let _ = tokio::time::timeout(LOOK_PAUSE, writing.join_next()).await;
                while writing.try_join_next().is_some() {}
            }
            memory
        });
        Waiting { task, given_up, clients }
    }
}

impl Waiting {
    /// Waits until everybody has an answer; nobody asks any more if no leader was lost. Those without a connection stay
    /// away from the next event.
    pub(super) async fn finish(self) -> Result<Crowd> {
        self.given_up.store(true, Ordering::Relaxed);
        let memory = self.task.await.context("the crowd")?;
        let clients = self.clients.into_iter().filter(|(_, connected)| connected.is_open()).collect();
        Ok(Crowd { clients, memory })
    }
}

impl Crowd {
    /// The memory of the pooler with it.
    pub(super) fn memory(&self) -> Memory {
        self.memory
    }
}

impl Held {
    /// From what the crowd attempted, when the new leader took a write, and its rows' ids and times in the order in which
    /// they were written.
    pub(super) fn of(attempts: &[Attempt], taken: Option<Instant>, written: &[(i64, Duration)]) -> Self {
        let mut failed = BTreeMap::new();
        for attempt in attempts.iter().filter(|attempt| attempt.outcome != Outcome::Done) {
            *failed.entry(attempt.outcome.code().to_owned()).or_default() += 1;
        }
        let mut waits: Vec<Duration> = attempts
            .iter()
            .filter_map(|attempt| Some(attempt.ended.saturating_duration_since(taken?)))
            .collect();
        waits.sort_unstable();
        let waits = waits.get(waits.len() / 2).copied().zip(waits.last().copied());
        Self { clients: attempts.len(), failed, waits, disorder: Disorder::of(written), ..Self::default() }
    }
}

/// Numbers of the crowd's clients; nobody else has such.
pub(super) const NUMBERS: Range<u32> = FIRST..u32::MAX;

impl Disorder {
    /// Of ids, which grow in the order of asking, and times, in the order of these.
    fn of(written: &[(i64, Duration)]) -> Self {
        let mut asked: Vec<i64> = written.iter().map(|(id, _)| *id).collect();
        asked.sort_unstable();
        let off = |(at, (id, _)): (usize, &(i64, Duration))| {
            at.abs_diff(asked.binary_search(id).unwrap_or_default())
        };
        let mut places: Vec<usize> = written.iter().enumerate().map(off).collect();
        places.sort_unstable();
        let most_places = places.get(places.len() * 9 / 10).copied().unwrap_or(0);
        // Who was asked for last comes first: the earliest time so far is that of somebody who asked later.
        let mut by_id = written.to_vec();
        by_id.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
        let mut earliest = Duration::MAX;
        let mut longest = Duration::ZERO;
        for (_, at) in by_id {
            longest = longest.max(at.saturating_sub(earliest));
            earliest = earliest.min(at);
        }
        Self { most_places, longest }
    }
}

fn resident(pooler: Option<u32>) -> u64 {
    pooler.and_then(process::resident_bytes).unwrap_or(0)
}

const FIRST: u32 = 100_000;
/// As many as a pool of applications that starts anew.
const LOGINS_AT_ONCE: usize = 32;
/// Then the last session of the old leader is gone, too.
const BEHIND_THE_LOSS: Duration = Duration::from_millis(150);
const LOOK_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Disorder;

    #[test]
    fn order_is_measured_in_places_and_time() {
        let disorder = |ids: &[i64]| {
            let times = (0..).map(Duration::from_secs);
            let found = Disorder::of(&ids.iter().copied().zip(times).collect::<Vec<_>>());
            (found.most_places, found.longest.as_secs())
        };
        assert_eq!(disorder(&[]), (0, 0));
        assert_eq!(disorder(&[3, 5, 9]), (0, 0));
        assert_eq!(disorder(&[5, 3, 9]), (1, 1));
        assert_eq!(disorder(&[9, 3, 5]), (2, 2));
        // One straggler of eleven is no disorder of most.
        assert_eq!(disorder(&[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1]), (1, 10));
    }
}
