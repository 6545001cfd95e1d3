//! Restarts that somebody has scheduled with Patroni: who is about to restart gets nothing new, until it has.

use weir_discovery::{ReadFallback, Settings};

use crate::world::{Reach, World, settings};

/// 20 s after the world's start.
const SCHEDULED: &str =
    r#""scheduled_restart": {"schedule": "2001-09-09T01:47:00+00:00", "postmaster_start_time": "1"},"#;

fn planned(world: &World) -> Option<String> {
    world.discovery.topology().planned.clone()
}

fn notes(world: &mut World) -> String {
    world.discovery.notes().map(|note| note.text + "\n").collect()
}

fn why_not_read(world: &World, name: &str) -> String {
    let members = world.discovery.members(world.now);
    members
        .into_iter()
        .find(|member| member.name == name)
        .and_then(|member| member.why_not_read)
        .unwrap_or_default()
}

/// What is scheduled for this member is 1.1 s away, and nothing has changed yet.
fn scheduled(mut world: World, name: &str, besides: &str) -> World {
    world.run_millis(2000);
    let readers = world.readers();
    world.node(name).besides = besides.to_owned();
    world.run_millis(16_900);
    assert_eq!((world.readers(), planned(&world)), (readers, None));
    world
}

/// PostgreSQL of a member is stopped and started by its Patroni, which forgets the schedule as it begins.
fn restart(world: &mut World, name: &str, millis: u64) {
    let node = world.node(name);
    node.besides = String::new();
    (node.state, node.postgres) = ("restarting", Reach::Refused);
    world.run_millis(millis);
    let node = world.node(name);
    (node.state, node.postgres) = ("running", Reach::Up);
    node.started += 1;
}

#[test]
fn a_replica_is_left_a_second_before_and_comes_back_when_it_has_restarted() {
    for monitor in [true, false] {
        let world = World::with(Settings { monitor, ..settings(&["a", "b", "c"]) });
        let mut world = scheduled(world, "b", SCHEDULED);
        world.run_millis(200);
        assert_eq!(world.readers(), ["c"]);
        assert_eq!(why_not_read(&world, "b"), "a restart of b is scheduled for 2001-09-09T01:47:00+00:00");
        // Patroni has forgotten it, and PostgreSQL has not gone yet.
        world.run_millis(900);
        world.node("b").besides = String::new();
        world.run_millis(1500);
        assert_eq!(world.readers(), ["c"]);
        restart(&mut world, "b", 4000);
        world.run_millis(700);
        assert_eq!(world.readers(), ["b", "c"], "monitored: {monitor}");
        assert!(!notes(&mut world).contains("has not happened"));
        assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None));
    }
}

#[test]
fn a_quick_restart_ends_it_at_once() {
    let mut world = scheduled(World::three(), "b", SCHEDULED);
    world.run_millis(1100);
    assert_eq!(world.readers(), ["c"]);
    restart(&mut world, "b", 300);
    world.run_millis(400);
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn a_restart_that_does_not_come_keeps_nobody_away() {
    let mut world = scheduled(World::three(), "b", SCHEDULED);
    world.run_millis(10_900);
    assert_eq!(world.readers(), ["c"]);
    world.run_millis(400);
    assert_eq!(world.readers(), ["b", "c"]);
    assert!(
        notes(&mut world)
            .contains("a restart of b is scheduled for 2001-09-09T01:47:00+00:00, but has not happened")
    );
    world.run_millis(5000);
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn one_that_is_taken_back_or_put_off_is_forgotten() {
    for later in [String::new(), SCHEDULED.replace("01:47", "02:47")] {
        let mut world = World::three();
        world.node("b").besides = SCHEDULED.to_owned();
        world.run_millis(17_000);
        world.node("b").besides = later;
        for _ in 0..50 {
            world.run_millis(100);
            assert_eq!(world.readers(), ["b", "c"]);
        }
    }
}

#[test]
fn one_that_is_taken_back_in_the_last_second_may_be_under_way() {
    let mut world = scheduled(World::three(), "b", SCHEDULED);
    world.run_millis(200);
    world.node("b").besides = String::new();
    world.run_millis(3500);
    assert_eq!(world.readers(), ["c"]);
    world.run_millis(2000);
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn restarts_that_patroni_would_not_carry_out_are_not_prepared() {
    let with = |more: &str| SCHEDULED.replace("\"schedule\"", &format!("{more}, \"schedule\""));
    let scheduled_for_b = [
        with(r#""restart_pending": true"#),
        with(r#""role": "primary""#),
        with(r#""role": "master""#),
        r#""pending_restart": true,"#.to_owned(),
        SCHEDULED.replace("+00:00", ""),
        r#""scheduled_restart": "soon","#.to_owned(),
    ];
    for besides in scheduled_for_b {
        let mut world = scheduled(World::three(), "b", &besides);
        world.run_millis(3000);
        assert_eq!(world.readers(), ["b", "c"], "{besides}");
    }
    let mut paused = World::three();
    paused.besides = r#""pause": true,"#.to_owned();
    let mut world = scheduled(paused, "b", SCHEDULED);
    world.run_millis(3000);
    assert_eq!(world.readers(), ["b", "c"]);
    for besides in
        [with(r#""restart_pending": true"#) + r#""pending_restart": true,"#, with(r#""role": "replica""#)]
    {
        let mut world = scheduled(World::three(), "b", &besides);
        world.run_millis(200);
        assert_eq!(world.readers(), ["c"], "{besides}");
    }
}

#[test]
fn reads_of_the_only_replica_go_where_they_go_without_it() {
    for (fallback, then) in
        [(ReadFallback::Primary, vec!["a"]), (ReadFallback::Wait, vec![]), (ReadFallback::Error, vec![])]
    {
        let mut world = World::with(Settings { fallback, ..settings(&["a", "b", "c"]) });
        world.node("c").noloadbalance = true;
        let mut world = scheduled(world, "b", SCHEDULED);
        world.run_millis(200);
        assert_eq!(world.readers(), then);
        world.run_millis(900);
        restart(&mut world, "b", 300);
        world.run_millis(400);
        assert_eq!(world.readers(), ["b"]);
    }
}

#[test]
fn a_leader_begins_nothing_before_it_restarts() {
    for monitor in [true, false] {
        let world = World::with(Settings { monitor, ..settings(&["a", "b", "c"]) });
        let mut world = scheduled(world, "a", SCHEDULED);
        let before = world.reign();
        world.run_millis(200);
        let told = "a restart of a is scheduled for 2001-09-09T01:47:00+00:00";
        assert_eq!((world.leader().as_deref(), planned(&world).as_deref()), (Some("a"), Some(told)));
        world.run_millis(900);
        restart(&mut world, "a", 1500);
        assert_eq!(world.leader(), None);
        world.run_millis(400);
        assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None), "monitored: {monitor}");
        assert_eq!(world.reign() == before, !monitor, "monitors know that what was connected is gone");
        assert_eq!(world.discovery.failovers()[0].planned.as_deref(), Some(told));
        assert_eq!(world.readers(), ["b", "c"]);
    }
}

#[test]
fn a_leader_that_does_not_restart_goes_on() {
    let mut world = scheduled(World::three(), "a", SCHEDULED);
    world.run_millis(11_300);
    assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None));
    assert!(notes(&mut world).contains("but has not happened"));
}
