//! How far replicas are behind: positions as members tell them, held against the leader's at the same moment. Owns which
//! figure is to be trusted and when a replica that was too far behind may come back; asks nobody.

use std::time::{Duration, Instant};

use crate::machine::Discovery;
use crate::member::Member;
use crate::patroni::Status;
use crate::topology::{Lag, LagSource};

/// A position in the log, and when it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub location: u64,
    pub at: Instant,
    pub source: LagSource,
}

/// The last two positions that the leader has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Yardstick {
    before: Option<Told>,
    last: Option<Told>,
}

impl Yardstick {
    /// Somebody else leads: nothing that was told before counts.
    pub(crate) fn restart(&mut self, first: Option<Told>) {
        *self = Self { before: None, last: first };
    }

    pub(crate) fn note(&mut self, told: Told) {
        if self.last.is_some_and(|last| last.at == told.at) {
            self.last = Some(told);
        } else {
            self.before = self.last.replace(told);
        }
    }

    /// Where the leader was at a moment: between two positions in proportion, else where it was last known to be.
    fn at(&self, at: Instant) -> Option<Told> {
        let last = self.last?;
        let Some(before) = self.before.filter(|_| at < last.at) else { return Some(last) };
        let written = u128::from(last.location.saturating_sub(before.location));
        let whole = last.at.saturating_duration_since(before.at).as_nanos().max(1);
        let part = at.saturating_duration_since(before.at).as_nanos().min(whole);
        let since = u64::try_from(written * part / whole).unwrap_or(u64::MAX);
        Some(Told { location: before.location.saturating_add(since), ..last })
    }
}

/// Whether a replica has been too far behind and not caught up for good yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lateness {
    /// It was not.
    #[default]
    InTime,
    /// It is.
    Late,
    /// It is well below the limit again, since then.
    Recovering(Instant),
}

impl Lateness {
    /// Out above the limit; back only after some time well below it, so that a replica at the limit does not come and go.
    pub(crate) fn after(self, lag: Option<u64>, max_lag_bytes: u64, now: Instant) -> Self {
        match (self, lag) {
            (_, Some(lag)) if lag > max_lag_bytes => Self::Late,
            // What is not known changes nothing.
            (_, None) | (Self::InTime, Some(_)) => self,
            (_, Some(lag)) if lag > well_below(max_lag_bytes) => Self::Late,
            (Self::Late, Some(_)) => Self::Recovering(now),
            (Self::Recovering(since), Some(_)) if now.saturating_duration_since(since) >= RECOVERED_AFTER => {
                Self::InTime
            }
            (Self::Recovering(since), Some(_)) => Self::Recovering(since),
        }
    }
}

/// What a replica has to come down to.
pub(crate) fn well_below(max_lag_bytes: u64) -> u64 {
    max_lag_bytes - max_lag_bytes / 5
}

impl Discovery {
    /// A member has told its position: what it has written, or replayed.
    pub(crate) fn located(&mut self, index: usize, told: Told) {
        self.members[index].told = Some(told);
        let leads = self.followed.as_ref().is_some_and(|followed| {
            followed.holding_on && followed.member == self.members[index].listed.name
        });
        if leads {
            self.yardstick.note(told);
        }
    }

    /// Members that have just become known may have told their positions before.
    pub(crate) fn locate_newcomers(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let location = self.heard_of(member).status().and_then(Status::position);
            if let Some(location) = location.filter(|_| member.told.is_none()) {
                self.located(index, Told { location, at: now, source: LagSource::RestApi });
            }
        }
    }

    /// Bytes that a replica has still to replay, by the freshest figure that can be trusted; `None`: nobody knows.
    pub(crate) fn lag(&self, now: Instant, member: &Member) -> Option<Lag> {
        let trusted = TRUSTED_FOR.max(self.settings.poll_interval * 3);
        let age = |at: Instant| now.saturating_duration_since(at);
        let own = || {
            let told = member.told.filter(|told| age(told.at) <= trusted)?;
            let reference = self.reference(told.at, trusted)?;
            let bytes = reference.saturating_sub(told.location);
            Some(Lag { bytes, source: told.source, age: age(told.at) })
        };
        let listed = || {
            let bytes = member.listed.lag?;
            Some(Lag { bytes, source: LagSource::Cluster, age: age(member.listed_at) })
        };
        own().or_else(listed)
    }

    /// Where the leader was at that moment. While nobody leads nothing is written: then what counts is the furthest that
    /// anybody is known to have come.
    fn reference(&self, at: Instant, trusted: Duration) -> Option<u64> {
        let leader = self.yardstick.at(at);
        if self.is_led() {
            // One that tells nothing any more would make everybody look quick.
            return leader
                .filter(|leader| at.saturating_duration_since(leader.at) <= trusted)
                .map(|leader| leader.location);
        }
        let members = self.members.iter().filter_map(|member| member.told);
        members.chain(leader).map(|told| told.location).max()
    }

    /// Notes who is too far behind, as of now.
    pub(crate) fn judge_lateness(&mut self, now: Instant) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let lag = self.lag(now, member).map(|lag| lag.bytes);
            let lateness = member.lateness.after(lag, self.settings.max_lag_bytes, now);
            self.members[index].lateness = lateness;
        }
    }
}

/// A position that is older is not held against anything.
const TRUSTED_FOR: Duration = Duration::from_secs(5);

/// A replica that has left for its lag comes back after it has been well below the limit for this long.
const RECOVERED_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn told(location: u64, at: Instant) -> Told {
        Told { location, at, source: LagSource::Monitor }
    }

    #[test]
    fn the_leader_is_where_it_was_between_two_answers() {
        let start = start();
        let at = |millis| start + Duration::from_millis(millis);
        let mut yardstick = Yardstick::default();
        assert_eq!(yardstick.at(start), None);
        yardstick.note(told(1000, at(0)));
        assert_eq!(yardstick.at(at(700)).map(|told| told.location), Some(1000));
        yardstick.note(told(2000, at(1000)));
        for (millis, location) in [(0, 1000), (250, 1250), (999, 1999), (1000, 2000), (5000, 2000)] {
            assert_eq!(yardstick.at(at(millis)).map(|told| told.location), Some(location), "{millis}");
        }
        // One that was asked in two ways at the same moment.
        yardstick.note(told(2100, at(1000)));
        assert_eq!(yardstick.at(at(500)).map(|told| told.location), Some(1550));
        yardstick.restart(None);
        assert_eq!(yardstick.at(at(500)), None);
    }

    /// Lags at moments (in milliseconds), and what the last one leads to.
    fn check(lags: &[(u64, Option<u64>)], expected: &str) {
        let start = start();
        let lateness = lags.iter().fold(Lateness::InTime, |lateness, (millis, lag)| {
            lateness.after(*lag, 1000, start + Duration::from_millis(*millis))
        });
        let told = match lateness {
            Lateness::InTime => "in time",
            Lateness::Late => "late",
            Lateness::Recovering(_) => "recovering",
        };
        assert_eq!(told, expected, "{lags:?}");
    }

    #[test]
    fn who_was_late_has_to_show_that_it_is_quick() {
        check(&[(0, Some(1000))], "in time");
        check(&[(0, Some(1001))], "late");
        check(&[(0, Some(900)), (1, None)], "in time");
        check(&[(0, Some(1001)), (1000, None)], "late");
        check(&[(0, Some(1001)), (1000, Some(801)), (9000, Some(801))], "late");
        check(&[(0, Some(1001)), (1000, Some(800))], "recovering");
        check(&[(0, Some(1001)), (1000, Some(800)), (2999, Some(0))], "recovering");
        check(&[(0, Some(1001)), (1000, Some(800)), (3000, Some(0))], "in time");
        // One quick moment is not enough, and the clock begins anew.
        check(&[(0, Some(1001)), (1000, Some(0)), (2000, Some(900)), (3000, Some(0))], "recovering");
        check(&[(0, Some(1001)), (1000, Some(0)), (2000, None), (3000, Some(0))], "in time");
    }
}
