//! What PostgreSQL answered about users lately, each answer with its age. Owns how long and how much is kept; knows no
//! clients and asks nobody.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Whom an answer is about: the client-facing database, and the user.
pub(crate) type Whose = (String, String);

/// Answers to one kind of question.
#[derive(Debug)]
pub(super) struct Answers<T> {
    kept: HashMap<Whose, Answer<T>>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Answer<T> {
    what: T,
    at: Instant,
}

impl<T> Answers<T> {
    pub(super) fn new() -> Self {
        Self { kept: HashMap::new(), swept: None }
    }

    /// The answer, if it is younger than this.
    pub(super) fn younger_than(&self, age: Duration, now: Instant, whose: &Whose) -> Option<&T> {
        let answer = self.kept.get(whose)?;
        (now.saturating_duration_since(answer.at) < age).then_some(&answer.what)
    }

    /// The answer, however old it is.
    pub(super) fn of_any_age(&self, whose: &Whose) -> Option<&T> {
        self.kept.get(whose).map(|answer| &answer.what)
    }

    /// Keeps what was answered just now. Old answers are thrown away at most once a minute, so that a login costs no walk
    /// over all users.
    pub(super) fn keep(&mut self, now: Instant, whose: Whose, what: T) {
        let rests = |last: Instant| now.saturating_duration_since(last) < SWEEP_PAUSE;
        if !self.swept.is_some_and(rests) {
            self.swept = Some(now);
            self.kept.retain(|_, answer| now.saturating_duration_since(answer.at) < KEPT_FOR);
        }
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(whose, Answer { what, at: now });
    }

    pub(super) fn forget(&mut self, whose: &Whose) {
        self.kept.remove(whose);
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.kept.values().map(|answer| &answer.what)
    }
}

/// Answers kept at once; those of users who are not known are not kept.
const KEPT_MAX: usize = 50_000;

/// How long an answer is kept for a hold, in which an old one is better than none.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// Least time between two walks over all answers.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    //! Bounds in time and number.

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "time has to start somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn whose(number: usize) -> Whose {
        ("shop".to_owned(), format!("user{number}"))
    }

    #[test]
    fn an_answer_gets_old_and_is_thrown_away_in_the_end() {
        let mut answers = Answers::new();
        let start = start();
        answers.keep(start, whose(1), "old");
        let age = Duration::from_secs(1);
        for (later, fresh) in [(0, Some(&"old")), (999, Some(&"old")), (1000, None)] {
            let now = start + Duration::from_millis(later);
            assert_eq!(answers.younger_than(age, now, &whose(1)), fresh, "after {later} ms");
        }
        assert_eq!(answers.of_any_age(&whose(1)), Some(&"old"));
        answers.keep(start + KEPT_FOR, whose(2), "new");
        assert_eq!((answers.of_any_age(&whose(1)), answers.of_any_age(&whose(2))), (None, Some(&"new")));
        assert_eq!(answers.younger_than(Duration::ZERO, start + KEPT_FOR, &whose(2)), None);
    }

    #[test]
    fn no_more_are_kept_than_there_may_be() {
        let (mut answers, now) = (Answers::new(), start());
        for number in 0..=KEPT_MAX {
            answers.keep(now, whose(number), ());
            assert!(answers.kept.len() <= KEPT_MAX);
        }
        assert!(answers.of_any_age(&whose(KEPT_MAX)).is_some());
    }
}
