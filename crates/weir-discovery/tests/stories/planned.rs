//! Changes of the leader that are known beforehand: by SWITCHOVER, by Patroni's schedule; and callbacks.

use std::time::Duration;

use weir_discovery::Event;

use crate::world::World;

/// Scheduled for 20 s after the world's start.
const SCHEDULED: &str =
    r#""scheduled_switchover": {"at": "2001-09-09T03:47:00.000000+02:00", "from": "a", "to": "b"},"#;

fn planned(world: &World) -> Option<String> {
    world.discovery.topology().planned.clone()
}

fn scheduled(besides: &str) -> World {
    let mut world = World::three();
    world.besides = besides.to_owned();
    world.run_millis(18_900);
    assert_eq!(planned(&world), None);
    world
}

fn notes(world: &mut World) -> String {
    world.discovery.notes().map(|note| note.text + "\n").collect()
}

#[test]
fn a_scheduled_switchover_is_prepared() {
    let mut world = scheduled(SCHEDULED);
    world.run_millis(200);
    let told = planned(&world).expect("it is a second away");
    assert_eq!(told, "a switchover from a to b is scheduled for 2001-09-09T03:47:00.000000+02:00");
    assert_eq!(world.leader().as_deref(), Some("a"));
    world.run_millis(900);
    let asked = world.sent["primary"];
    world.run_millis(1000);
    assert!(world.sent["primary"] >= asked + 27, "members are asked often");
    world.node("a").rejoin(1);
    world.run_millis(500);
    assert_eq!(world.leader(), None);
    world.node("b").promote(2);
    world.run_millis(300);
    assert_eq!((world.leader().as_deref(), planned(&world)), (Some("b"), None));
    assert_eq!(world.discovery.failovers()[0].planned.as_deref(), Some(told.as_str()));
    world.run_millis(2000);
    assert_eq!(planned(&world), None, "it is done, although /cluster still names it");
}

#[test]
fn one_that_does_not_happen_keeps_nobody_waiting() {
    let mut world = scheduled(SCHEDULED);
    world.run_millis(10_900);
    assert!(planned(&world).is_some());
    world.run_millis(400);
    assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None));
    assert!(notes(&mut world).contains("has not happened; transactions start again"));
    world.run_millis(5000);
    assert_eq!(planned(&world), None);
}

#[test]
fn it_is_believed_for_five_seconds_after_it_was_last_seen() {
    let mut world = scheduled(SCHEDULED);
    for name in ["a", "b", "c"] {
        world.node(name).dcs_away = true;
    }
    world.run_millis(200);
    assert!(planned(&world).is_some());
    world.run_millis(5000);
    assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None));
}

#[test]
fn one_that_is_taken_back_or_moved_lets_go() {
    for later in ["", r#""scheduled_switchover": {"at": "2001-09-09T02:47:00+00:00", "from": "a"},"#] {
        let mut world = scheduled(SCHEDULED);
        world.run_millis(200);
        assert!(planned(&world).is_some());
        world.besides = later.to_owned();
        world.run_millis(1200);
        assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None), "{later}");
    }
}

#[test]
fn schedules_that_are_none_of_ours_are_not_prepared() {
    for besides in [
        &SCHEDULED.replace("\"from\": \"a\"", "\"from\": \"c\""),
        &format!(r#""pause": true, {SCHEDULED}"#),
        &SCHEDULED.replace("+02:00", ""),
        r#""scheduled_switchover": {"at": 17},"#,
        r#""scheduled_switchover": "soon","#,
    ] {
        let mut world = scheduled(besides);
        world.run_millis(3000);
        assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None), "{besides}");
    }
}

#[test]
fn a_switchover_that_is_forgotten_ends_by_itself() {
    let mut world = World::three();
    world.run_millis(1500);
    let plan =
        world.discovery.begin_switchover(world.now, None, Duration::from_secs(5)).expect("all is well");
    assert_eq!((plan.from.member.as_str(), plan.urls[0].host(), plan.urls.len()), ("a", "a", 3));
    world.run_millis(4900);
    assert_eq!(planned(&world).as_deref(), Some("a switchover from a is under way"));
    world.run_millis(200);
    assert_eq!((world.leader().as_deref(), planned(&world)), (Some("a"), None));
}

#[test]
fn what_patroni_would_refuse_is_refused_at_once() {
    let mut world = World::three();
    let mut refused = |besides: &str, to: Option<&str>, why: &str| {
        world.besides = besides.to_owned();
        world.run_millis(1500);
        let refusal = world.discovery.begin_switchover(world.now, to, Duration::from_secs(5)).expect_err(why);
        assert!(refusal.contains(why), "{refusal}");
        assert_eq!(world.discovery.topology().planned, None);
    };
    refused("", Some("a"), "leads already");
    refused("", Some("d"), "no member is called");
    refused(r#""pause": true,"#, None, "Patroni is paused");
    world.node("b").state = "starting";
    world.node("c").state = "stopped";
    world.besides = String::new();
    world.run_millis(1500);
    let refusal = world.discovery.begin_switchover(world.now, None, Duration::ZERO).expect_err("nobody");
    assert_eq!(refusal, "no other member could lead");
}

#[test]
fn a_callback_makes_it_ask_at_once_and_decides_nothing() {
    let mut world = World::three();
    world.run_millis(70_000);
    notes(&mut world);
    world.run_millis(300);
    let asked = world.sent["primary"];
    for _ in 0..100 {
        world.discovery.step(world.now, Event::Pushed);
    }
    world.run_millis(20);
    assert!((3..=6).contains(&(world.sent["primary"] - asked)), "everybody once: callbacks are one event");
    assert_eq!(notes(&mut world), "a callback came, everybody is asked\n");
    assert_eq!(world.leader().as_deref(), Some("a"));
}
