//! What happened and when: lines for the log, and each failover step by step. Bounded, and read by operators only:
//! no decision looks in here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: Instant,
    /// Whether an operator should worry.
    pub warning: bool,
    /// One line.
    pub text: String,
}

/// From losing a leader to following the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailoverRecord {
    /// 1 for the first since start.
    pub number: u64,
    /// The leader that was lost or replaced.
    pub from: String,
    /// When it was given up: writes wait from here on.
    pub lost_at: Instant,
    /// Why.
    pub why: String,
    /// Weir had prepared for it, because of this.
    pub planned: Option<String>,
    /// Who first claimed to lead after that, and when.
    pub claimed: Option<(String, Instant)>,
    /// Who is followed since when; `None` while writes wait.
    pub followed: Option<Succession>,
    /// What was seen on the way, oldest first, at most [`STEPS_MAX`].
    pub steps: Vec<Note>,
}

/// The end of a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// The leader; the old one again if it came back.
    pub member: String,
    /// Its timeline.
    pub timeline: u32,
    /// When writes were let go.
    pub at: Instant,
}

/// Failovers that are remembered.
pub const FAILOVERS_MAX: usize = 16;

/// Steps that are kept of one failover.
pub const STEPS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Not yet taken by the log.
    fresh: VecDeque<Note>,
    /// The last few, whether taken or not: the start of a failover is seen before it is understood.
    recent: VecDeque<Note>,
    failovers: VecDeque<FailoverRecord>,
    count: u64,
}

impl Journal {
    pub(crate) fn note(&mut self, at: Instant, warning: bool, text: String) {
        let note = Note { at, warning, text };
        if let Some(open) = self.open() {
            open.step(note.clone());
        }
        push_bounded(&mut self.recent, note.clone(), RECENT_MAX);
        push_bounded(&mut self.fresh, note, FRESH_MAX);
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Note> + '_ {
        self.fresh.drain(..)
    }

    pub(crate) fn lost(&mut self, at: Instant, from: &str, why: &str, planned: Option<String>) {
        self.count += 1;
        let steps = self
            .recent
            .iter()
            .filter(|note| at.saturating_duration_since(note.at) <= PRELUDE)
            .cloned()
            .collect();
        let record = FailoverRecord {
            number: self.count,
            from: from.to_owned(),
            lost_at: at,
            why: why.to_owned(),
            planned,
            claimed: None,
            followed: None,
            steps,
        };
        push_bounded(&mut self.failovers, record, FAILOVERS_MAX);
    }

    pub(crate) fn claimed(&mut self, at: Instant, by: &str) {
        if let Some(open) = self.open()
            && open.claimed.is_none()
        {
            open.claimed = Some((by.to_owned(), at));
        }
    }

    pub(crate) fn followed(&mut self, succession: Succession) {
        if let Some(open) = self.open() {
            open.followed = Some(succession);
        }
    }

    pub(crate) fn failovers(&mut self) -> &[FailoverRecord] {
        self.failovers.make_contiguous()
    }

    /// How many failovers there were, the one under way included.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn open(&mut self) -> Option<&mut FailoverRecord> {
        self.failovers.back_mut().filter(|record| record.followed.is_none())
    }
}

impl FailoverRecord {
    fn step(&mut self, note: Note) {
        if self.steps.len() < STEPS_MAX {
            self.steps.push(note);
        }
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() >= bound {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// Notes before the loss that belong to a failover's story.
const PRELUDE: Duration = Duration::from_secs(3);

const RECENT_MAX: usize = 16;

/// Lines that wait for the log; the oldest go first.
const FRESH_MAX: usize = 256;
