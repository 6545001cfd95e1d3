//! The end of a reign: until when its PostgreSQL is known to have lived, by which losses before it are told apart from those
//! that it has caused.

use std::time::{Duration, Instant};

use weir_discovery::{Event, Settings};

use crate::world::{Reach, World, address, settings};

/// Number of the reign, and how long before this its PostgreSQL was last known to live.
fn given_up(world: &World, before: Instant) -> (u64, Option<Duration>) {
    let end = world.discovery.topology().given_up.expect("somebody was given up");
    (end.epoch_number, end.lived_at.map(|at| before.saturating_duration_since(at)))
}

/// A session was ended, as a worker tells it.
fn session_ends(world: &mut World) {
    let evidence = weir_discovery::SessionEvidence::Fatal { address: address("a"), code: *b"57P01" };
    world.discovery.step(world.now, Event::Evidence(evidence));
}

#[test]
fn a_leader_that_dies_has_lived_until_it_was_last_asked() {
    let mut world = World::three();
    world.run_millis(70_300);
    assert_eq!(world.discovery.topology().given_up, None);
    let death = world.now;
    world.node("a").die();
    session_ends(&mut world);
    world.run_millis(20);
    assert_eq!(world.leader(), None);
    let (number, before) = given_up(&world, death);
    assert_eq!(number, 1);
    assert!(
        before.is_some_and(|before| before > Duration::ZERO && before <= Duration::from_secs(1)),
        "{before:?}"
    );
    // It counts until the next end of a reign, whoever leads.
    world.run_millis(20_000);
    world.node("b").promote(2);
    world.run_millis(300);
    assert_eq!(world.reign(), Some((2, 2)), "{}", world.why());
    assert_eq!(given_up(&world, death), (1, before));
}

#[test]
fn a_session_that_an_operator_ended_was_outlived_by_its_postgresql() {
    let mut world = World::three();
    world.run_millis(70_300);
    let ended = world.now;
    session_ends(&mut world);
    world.run_millis(200);
    world.node("a").die();
    world.run_millis(20);
    assert_eq!(world.leader(), None);
    assert_eq!(given_up(&world, ended), (1, Some(Duration::ZERO)), "asked at once, and answered");
    assert!(world.discovery.topology().given_up.and_then(|end| end.lived_at) > Some(ended));
}

#[test]
fn a_replaced_leader_may_live_on() {
    let mut world = World::three();
    world.run_millis(70_300);
    let ended = world.now;
    world.run_millis(2_000);
    world.node("a").key = false;
    world.node("b").promote(2);
    world.run_millis(1_500);
    assert_eq!(world.reign(), Some((2, 2)), "{}", world.why());
    assert_eq!(given_up(&world, ended), (1, Some(Duration::ZERO)));
}

#[test]
fn what_was_started_anew_has_not_lived_on() {
    let mut world = World::three();
    world.run_millis(70_300);
    let restart = world.now;
    world.node("a").started += 1;
    world.run_millis(2_000);
    assert_eq!(world.reign(), Some((1, 2)));
    let (number, before) = given_up(&world, restart);
    assert!(number == 1 && before.is_some_and(|before| before > Duration::ZERO), "{number} {before:?}");
}

#[test]
fn nobody_vouches_for_a_leader_that_nobody_watches() {
    let mut world = World::with(Settings { monitor: false, ..settings(&["a", "b"]) });
    world.run_millis(70_000);
    world.node("a").key = false;
    world.node("a").role = "demoted";
    world.node("a").postgres = Reach::Refused;
    world.run_millis(150);
    assert_eq!(world.leader(), None);
    assert_eq!(given_up(&world, world.now), (1, None));
}
