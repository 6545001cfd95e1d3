//! Questions about users that are under way on a leader which is given up: those who wait for the answer get it elsewhere.

use std::time::Duration;

use weir_discovery::Topology;
use weir_worker::Role;

use crate::settings::{PASSWORD, leaderless, led};
use crate::world::{Who, World, echo};

const QUESTION: &str = "SELECT usename, passwd FROM pg_shadow WHERE usename=$1";

/// A login by this door whose question n1 has got and does not answer any more.
fn stuck(world: &mut World, door: Role) -> Who {
    let nobody = world.hello(Role::Write, "nobody", PASSWORD);
    world.run();
    assert_eq!(world.heard(nobody), ["FATAL 28P01"], "a connection for questions is there");
    world.ran();
    world.member("n1").silent = true;
    let client = hello(world, door);
    world.pass(Duration::from_secs(2));
    client
}

fn hello(world: &mut World, door: Role) -> Who {
    let client = world.hello(door, "late", PASSWORD);
    world.run();
    client
}

#[test]
fn a_question_under_way_on_a_leader_that_is_given_up_is_asked_of_a_replica() {
    let mut world = World::new();
    // Where somebody can still tell them what the server reports.
    let first = stuck(&mut world, Role::Read);
    let second = hello(&mut world, Role::Read);
    let before = world.pids();
    world.adopt(leaderless(&["n2", "n3"]));
    let third = hello(&mut world, Role::Read);
    for client in [first, second, third] {
        assert_eq!(world.heard(client), ["ready I"], "{}", world.error(client));
    }
    assert!(world.pids().iter().all(|pid| !before.contains(pid)), "its connection is given up");
    let [asked] = &world.ran()[..] else { panic!("one question") };
    assert!(asked.ends_with(QUESTION) && !asked.starts_with("n1"), "{asked}");
    world.pass(Duration::from_secs(10));
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    assert_eq!(world.ask(first, "select 1"), echo("select 1"));
}

#[test]
fn without_a_replica_it_waits_for_the_next_leader() {
    let mut world = World::new();
    let client = stuck(&mut world, Role::Write);
    world.adopt(leaderless(&[]));
    world.pass(Duration::from_secs(20));
    assert_eq!(world.heard(client), [""; 0], "{}", world.error(client));
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn and_no_longer_than_a_login_may_take() {
    let mut world = World::new();
    let client = stuck(&mut world, Role::Write);
    world.adopt(leaderless(&[]));
    world.pass(Duration::from_secs(60));
    assert_eq!(world.heard(client), ["FATAL 57P03"]);
    assert!(world.error(client).contains("client_login_timeout"), "{}", world.error(client));
}

#[test]
fn an_old_answer_is_enough_for_it() {
    let mut world = World::new();
    world.client_of(Role::Write, "late");
    world.pass(Duration::from_secs(30));
    let client = stuck(&mut world, Role::Write);
    assert_eq!(world.heard(client), [""; 0]);
    world.adopt(leaderless(&[]));
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.ran(), [""; 0]);
}

#[test]
fn a_planned_change_lets_it_end() {
    let mut world = World::new();
    world.member("n1").slow = Some("pg_shadow");
    let client = hello(&mut world, Role::Read);
    let before = world.pids();
    world.adopt(Topology { planned: Some("a switchover".to_owned()), ..led("n1", 1, &["n2"]) });
    assert_eq!(world.pids(), before);
    let asleep = world.shell.backends.values().find_map(|backend| backend.asleep.clone()).unwrap().0;
    world.wake(&asleep);
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.ran(), [format!("n1: {QUESTION}")]);
}
