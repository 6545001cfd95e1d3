//! Counting, doubling, forgetting; and who is counted together.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use super::*;

const PATIENCE: Patience = Patience { free: 3, delay_max: Duration::from_secs(5) };

fn network(text: &str) -> Network {
    Network::of(text.parse().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn the_delay_doubles_up_to_its_limit_behind_the_free_ones() {
    let (mut failures, now, ann) = (Failures::default(), start(), network("10.0.0.1"));
    let delays: Vec<u128> = (0..11).map(|_| failures.fail(now, ann, PATIENCE).delay.as_millis()).collect();
    assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    for _ in 0..100 {
        failures.fail(now, ann, PATIENCE);
    }
    assert_eq!(failures.fail(now, ann, PATIENCE).delay, PATIENCE.delay_max);
    assert_eq!(failures.fail(now, network("10.0.0.2"), PATIENCE).delay, Duration::ZERO);
    let off = Patience { delay_max: Duration::ZERO, ..PATIENCE };
    assert_eq!(failures.fail(now, ann, off), Consequence { delay: Duration::ZERO, begins: false });
    assert!(failures.is_suspect(now, ann, PATIENCE) && !failures.is_suspect(now, ann, off));
}

#[test]
fn the_beginning_is_told_once() {
    let (mut failures, now, ann) = (Failures::default(), start(), network("10.0.0.1"));
    let begins: Vec<bool> = (0..6).map(|_| failures.fail(now, ann, PATIENCE).begins).collect();
    assert_eq!(begins, [false, false, false, true, false, false]);
}

#[test]
fn what_counts_halves_every_minute() {
    let (mut failures, now, ann) = (Failures::default(), start(), network("10.0.0.1"));
    for _ in 0..16 {
        failures.fail(now, ann, PATIENCE);
    }
    let minute = |minutes: u32| now + HALVED_EVERY * minutes;
    assert!(failures.is_suspect(minute(2), ann, PATIENCE));
    assert!(!failures.is_suspect(minute(3), ann, PATIENCE), "2 are left");
    assert_eq!(failures.fail(minute(3), ann, PATIENCE).delay, Duration::ZERO);
    let again = failures.fail(minute(3), ann, PATIENCE);
    assert_eq!((again.delay, again.begins), (Duration::from_millis(100), false), "it was told already");
    // An old password every nine minutes is answered at once, for ever.
    let ben = network("10.0.0.2");
    assert!((0..50).all(|n| failures.fail(minute(9 * n), ben, PATIENCE).delay.is_zero()));
}

/// A balancer asks every second whether somebody answers.
#[test]
fn looking_only_delays_no_answer() {
    let (mut failures, now, ann) = (Failures::default(), start(), network("10.0.0.1"));
    for second in 0..600 {
        failures.leave_unfinished(now + Duration::from_secs(second), ann);
    }
    let later = now + Duration::from_secs(600);
    assert!(failures.is_suspect(later, ann, PATIENCE));
    assert_eq!(failures.fail(later, ann, PATIENCE).delay, Duration::ZERO);
}

#[test]
fn who_is_quiet_for_long_starts_anew() {
    let (mut failures, now, ann) = (Failures::default(), start(), network("10.0.0.1"));
    for _ in 0..5 {
        failures.fail(now, ann, PATIENCE);
    }
    assert!(failures.forget(now + FORGOTTEN_AFTER / 2).is_empty());
    let later = now + FORGOTTEN_AFTER;
    assert!(!failures.is_suspect(later, ann, PATIENCE));
    let told = failures.forget(later);
    assert_eq!(told, [(ann, 5)]);
    assert_eq!(failures.fail(later, ann, PATIENCE).delay, Duration::ZERO);
    assert!(failures.networks.len() == 1 && failures.forget(later).is_empty());
}

#[test]
fn a_success_makes_good_for_looking_only() {
    let (mut failures, now, ann) = (Failures::default(), start(), network("10.0.0.1"));
    for _ in 0..100 {
        failures.leave_unfinished(now, ann);
        failures.succeed(ann);
    }
    assert!(!failures.is_suspect(now, ann, PATIENCE));
    for _ in 0..4 {
        failures.leave_unfinished(now, ann);
    }
    assert!(failures.is_suspect(now, ann, PATIENCE));
    failures.succeed(ann);
    assert!(!failures.is_suspect(now, ann, PATIENCE));
    for _ in 0..4 {
        failures.fail(now, ann, PATIENCE);
        failures.succeed(ann);
    }
    assert!(failures.is_suspect(now, ann, PATIENCE), "a guesser with a password of his own is a guesser");
}

#[test]
fn one_customer_is_one_network() {
    for (one, other, same) in [
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.1", "::ffff:10.0.0.1", true),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
    ] {
        assert_eq!(network(one) == network(other), same, "{one} {other}");
    }
    assert_eq!(network("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    assert_eq!(network("::ffff:10.0.0.1").to_string(), "10.0.0.1");
}

#[test]
fn as_many_networks_as_there_are_addresses_fill_no_memory() {
    let (mut failures, now) = (Failures::default(), start());
    let nth = |n: u32| Network::V4(Ipv4Addr::from(n));
    let count = u32::try_from(NETWORKS_MAX).unwrap();
    for n in 0..count + 5 {
        failures.leave_unfinished(now + Duration::from_millis(n.into()), nth(n));
    }
    assert_eq!(failures.networks.len(), NETWORKS_MAX);
    assert!(!failures.networks.contains_key(&nth(0)) && failures.networks.contains_key(&nth(count + 4)));
}
