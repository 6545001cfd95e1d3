//! How the load of reads is shared out over the replicas that may serve: a weight for each, by policy. Owns what "near"
//! means; knows no connection.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::ReadPolicy;

/// The last round trips to one member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RoundTrips(VecDeque<Duration>);

impl RoundTrips {
    pub(crate) fn note(&mut self, time: Duration) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(time);
    }

    /// The shortest of them: the way there, without what delays an answer now and then.
    pub(crate) fn distance(&self) -> Option<Duration> {
        self.0.iter().min().copied()
    }
}

/// What is known of one replica that may serve reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub tags: &'a [(String, String)],
    pub distance: Option<Duration>,
    /// It counts as near now.
    pub is_near: bool,
}

/// The weight of each.
pub(crate) fn weights(policy: ReadPolicy, readers: &[Reader<'_>]) -> Vec<u32> {
    match policy {
        ReadPolicy::LeastConnections | ReadPolicy::RoundRobin => vec![1; readers.len()],
        ReadPolicy::Weighted => readers.iter().map(|reader| tagged_weight(reader.tags)).collect(),
        ReadPolicy::Nearest => {
            let best = readers.iter().filter_map(|reader| reader.distance).min();
            readers
                .iter()
                .map(|reader| u32::from(best.is_none_or(|best| reader.is_as_near_as(best))))
                .collect()
        }
    }
}

impl Reader<'_> {
    /// Not much further than the nearest; one that is near may be a little further, so that two equals do not take turns.
    fn is_as_near_as(&self, best: Duration) -> bool {
        let allowed = if self.is_near { (best / 2).max(NEAR_STAYS) } else { (best / 4).max(NEAR) };
        self.distance.is_some_and(|distance| distance <= best + allowed)
    }
}

/// What Patroni's tag says.
fn tagged_weight(tags: &[(String, String)]) -> u32 {
    let tag = tags.iter().find(|(name, _)| name == WEIGHT_TAG);
    tag.and_then(|(_, value)| value.parse().ok()).map_or(WEIGHT_DEFAULT, |weight: u32| weight.min(WEIGHT_MAX))
}

/// Round trips that are looked back on.
const KEPT: usize = 8;

/// A member this much further away than the nearest is as near.
const NEAR: Duration = Duration::from_millis(1);
/// The same for one that counts as near already.
const NEAR_STAYS: Duration = Duration::from_millis(2);

/// The tag in a member's Patroni configuration.
const WEIGHT_TAG: &str = "weir_weight";
/// Of a member without the tag.
const WEIGHT_DEFAULT: u32 = 100;
const WEIGHT_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(tenths: u64) -> Duration {
        Duration::from_micros(tenths * 100)
    }

    fn check_near(distances: &[(Option<u64>, bool)], expected: &[u32]) {
        let reader = |&(tenths, is_near): &(Option<u64>, bool)| Reader {
            tags: &[],
            distance: tenths.map(millis),
            is_near,
        };
        let readers: Vec<Reader<'_>> = distances.iter().map(reader).collect();
        assert_eq!(weights(ReadPolicy::Nearest, &readers), expected, "{distances:?}");
    }

    #[test]
    fn near_is_what_is_not_much_further_than_the_nearest() {
        check_near(&[(Some(2), false), (Some(3), false)], &[1, 1]);
        check_near(&[(Some(2), false), (Some(12), false), (Some(13), false)], &[1, 1, 0]);
        check_near(&[(Some(2), true), (Some(22), true), (Some(23), true)], &[1, 1, 0]);
        check_near(&[(Some(200), false), (Some(250), false), (Some(251), false)], &[1, 1, 0]);
        check_near(&[(Some(200), true), (Some(300), true), (Some(301), true)], &[1, 1, 0]);
        // Without a monitor nobody is near or far.
        check_near(&[(None, false), (None, true)], &[1, 1]);
        check_near(&[(None, true), (Some(5), false)], &[0, 1]);
        check_near(&[], &[]);
    }

    #[test]
    fn one_slow_answer_moves_nobody_away() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.distance(), None);
        trips.note(millis(2));
        for _ in 0..7 {
            trips.note(millis(900));
        }
        assert_eq!(trips.distance(), Some(millis(2)));
        trips.note(millis(900));
        assert_eq!(trips.distance(), Some(millis(900)), "it is true");
    }

    #[test]
    fn weights_are_tags() {
        let tag = |value: &str| vec![("weir_weight".to_owned(), value.to_owned())];
        let tags = [tag("50"), vec![], tag("0"), tag("much"), tag("4000000000"), tag("-1")];
        let reader = |tags| Reader { tags, distance: None, is_near: false };
        let readers: Vec<Reader<'_>> = tags.iter().map(|tags| reader(tags)).collect();
        assert_eq!(weights(ReadPolicy::Weighted, &readers), [50, 100, 0, 100, 1_000_000, 100]);
        for policy in [ReadPolicy::LeastConnections, ReadPolicy::RoundRobin] {
            assert_eq!(weights(policy, &readers), [1; 6]);
        }
    }
}
