//! Who serves reads, and how much of them: lag, policies, replicas that fall silent. Uses the public door only.

use std::time::Duration;

use weir_discovery::{LagSource, ReadFallback, ReadPolicy};

use crate::world::{Reach, World, address, settings};

// covers: max_lag
#[test]
fn replicas_leave_and_come_back_by_lag_and_tag() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("b").location = 10_000 - 950;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["b", "c"], "below the limit");
    world.node("b").location = 10_000 - 1_001;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["c"]);
    world.node("b").location = 10_000 - 900;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["c"], "not yet well below");
    world.node("b").location = 10_000 - 800;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["c"], "one good moment is not enough");
    world.run_millis(2_000);
    assert_eq!(world.readers(), ["b", "c"]);
    world.node("c").noloadbalance = true;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["b"]);
}

#[test]
fn lag_that_moves_makes_no_new_generation() {
    let mut world = World::three();
    world.run_millis(70_000);
    let before = world.discovery.topology().generation;
    for step in 0..20 {
        world.node("a").location += 500;
        world.node("b").location += 450 + step;
        world.node("c").location += 500;
        world.run_millis(1_000);
    }
    assert_eq!(world.discovery.topology().generation, before);
}

// covers: read_fallback
#[test]
fn without_a_replica_the_fallback_decides() {
    for (fallback, readers) in
        [(ReadFallback::Primary, vec!["a"]), (ReadFallback::Wait, vec![]), (ReadFallback::Error, vec![])]
    {
        let mut world = World::with(weir_discovery::Settings { fallback, ..settings(&["a"]) });
        world.node("b").die();
        world.node("c").die();
        world.run_millis(3_000);
        assert_eq!(world.readers(), readers, "{fallback:?}");
        let topology = world.discovery.topology();
        assert_eq!(topology.fallback, fallback);
        assert!(topology.replicas.iter().all(|target| target.is_primary));
        world.node("b").rejoin(1);
        world.run_millis(2_000);
        assert_eq!(world.readers(), ["b"]);
    }
}

/// Makes REST APIs say nothing, so that only monitors tell positions.
fn silence_apis(world: &mut World) {
    for name in ["a", "b", "c"] {
        world.node(name).api = Reach::Refused;
    }
}

#[test]
fn lag_is_measured_without_patroni_s_help() {
    let mut world = World::three();
    world.run_millis(500);
    silence_apis(&mut world);
    world.run_millis(1_000);
    world.node("a").location += 5_000;
    world.node("c").location += 4_500;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["c"]);
    let lag = world.lag("b").expect("b tells its position");
    assert_eq!((lag.bytes, lag.source), (5_000, LagSource::Monitor));
    assert!(lag.age < Duration::from_millis(1_100));
    world.node("b").location += 5_000;
    world.run_millis(4_000);
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn lag_is_measured_without_monitors_too() {
    let mut world = World::with(weir_discovery::Settings { monitor: false, ..settings(&["a"]) });
    world.run_millis(500);
    world.node("a").location += 5_000;
    world.run_millis(1_500);
    assert_eq!(world.lag("b").map(|lag| (lag.bytes, lag.source)), Some((5_000, LagSource::RestApi)));
    assert!(world.readers().is_empty());
}

#[test]
fn a_busy_leader_makes_nobody_look_late() {
    let mut world = World::three();
    world.run_millis(70_000);
    // 100,000 bytes a second, a hundred times the limit; both replicas are never more than 10 ms behind.
    for _ in 0..1_000 {
        for name in ["b", "c"] {
            world.node(name).location = world.nodes[0].location;
        }
        world.node("a").location += 1_000;
        world.run_millis(10);
    }
    // The figures are a moment old, but hold the right things against each other.
    assert!(world.lag("b").is_some_and(|lag| lag.bytes <= 2_000), "{:?}", world.lag("b"));
}

#[test]
fn a_standing_replay_is_no_lag_where_nothing_is_written() {
    let mut world = World::three();
    world.run_millis(60_000);
    assert_eq!(world.lag("b").map(|lag| lag.bytes), Some(0));
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn while_nobody_leads_the_furthest_replica_is_the_measure() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").die();
    world.run_millis(20_000);
    assert_eq!(world.readers(), ["b", "c"], "nobody writes, so nobody falls behind");
    world.node("b").location += 300;
    world.run_millis(2_000);
    assert_eq!(world.lag("c").map(|lag| lag.bytes), Some(300));
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn a_new_leader_is_the_new_measure() {
    let mut world = World::three();
    world.run_millis(500);
    // It has written what nobody got.
    world.node("a").location += 900;
    world.run_millis(1_500);
    world.node("a").die();
    world.run_millis(1_000);
    world.node("b").promote(2);
    world.run_millis(500);
    assert_eq!(world.leader().as_deref(), Some("b"));
    assert_eq!(world.lag("c").map(|lag| lag.bytes), Some(0));
}

#[test]
fn a_leader_that_tells_nothing_makes_nobody_look_quick() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").api = Reach::Refused;
    world.measures = false;
    world.run_millis(30_000);
    assert_eq!(world.leader().as_deref(), Some("a"));
    assert_eq!(world.lag("b"), None, "what it was held against is half a minute old");
    assert_eq!(world.readers(), ["b", "c"], "who serves goes on");
}

#[test]
fn a_frozen_replica_is_left_within_two_seconds_and_given_up_within_three() {
    let mut world = World::three();
    world.run_millis(70_000);
    world.node("b").postgres = Reach::Frozen;
    world.run_millis(1_900);
    assert_eq!(world.readers(), ["c"]);
    assert!(world.discovery.topology().silent.is_empty(), "it may be a pause that connections outlive");
    world.run_millis(1_200);
    assert_eq!(world.discovery.topology().silent, [address("b")]);
    world.node("b").postgres = Reach::Up;
    world.run_millis(3_000);
    assert_eq!(world.readers(), ["b", "c"]);
    assert!(world.discovery.topology().silent.is_empty());
    // One whose process has ended has closed its connections itself.
    world.node("c").postgres = Reach::Refused;
    world.run_millis(1_000);
    assert_eq!(world.readers(), ["b"]);
    assert!(world.discovery.topology().silent.is_empty());
    // Where nobody answers it may be weir's own network.
    for name in ["a", "b", "c"] {
        world.node(name).postgres = Reach::Frozen;
    }
    world.run_millis(10_000);
    assert!(world.discovery.topology().silent.is_empty());
}

#[test]
fn a_replica_whose_api_alone_hangs_goes_on() {
    let mut world = World::three();
    world.run_millis(70_000);
    world.node("b").api = Reach::Frozen;
    for _ in 0..60 {
        world.run_millis(1_000);
        assert_eq!(world.readers(), ["b", "c"]);
    }
}

#[test]
fn a_replica_is_left_when_patroni_takes_it_away() {
    for state in ["stopping", "restarting", "starting"] {
        let mut world = World::three();
        world.run_millis(500);
        world.node("b").state = state;
        world.run_millis(1_100);
        assert_eq!(world.readers(), ["c"], "{state}");
        assert!(world.discovery.topology().silent.is_empty(), "what is under way may end");
    }
}

// covers: read_policy
#[test]
fn policies_are_weights() {
    let with = |policy| {
        let mut world = World::with(weir_discovery::Settings { policy, ..settings(&["a"]) });
        world.node("b").weight = Some(30);
        world.node("c").distance = Duration::from_millis(40);
        world.run_millis(3_000);
        assert_eq!(world.readers(), ["b", "c"]);
        world
    };
    assert_eq!(with(ReadPolicy::LeastConnections).weights(), [1, 1]);
    assert_eq!(with(ReadPolicy::RoundRobin).weights(), [1, 1]);
    assert_eq!(with(ReadPolicy::Weighted).weights(), [30, 100]);
    let mut world = with(ReadPolicy::Nearest);
    assert_eq!(world.weights(), [1, 0]);
    // For want of others the distant one serves, and a reload changes the policy.
    world.node("b").noloadbalance = true;
    world.run_millis(1_500);
    assert_eq!((world.readers(), world.weights()), (vec!["c".to_owned()], vec![1]));
    world.node("b").noloadbalance = false;
    let now = world.now;
    let weighted = weir_discovery::Settings { policy: ReadPolicy::Weighted, ..settings(&["a"]) };
    world.discovery.configure(now, weighted);
    world.run_millis(1_500);
    assert_eq!(world.weights(), [30, 100]);
}

#[test]
fn two_that_are_equally_near_do_not_take_turns() {
    let mut world = World::with(weir_discovery::Settings { policy: ReadPolicy::Nearest, ..settings(&["a"]) });
    world.run_millis(10_000);
    let before = world.discovery.topology().generation;
    for turn in 0..100 {
        world.node("b").distance = Duration::from_micros(300 + turn * 10);
        world.node("c").distance = Duration::from_micros(1_300 - turn * 10);
        world.run_millis(1_000);
    }
    assert_eq!(world.discovery.topology().generation, before);
}
