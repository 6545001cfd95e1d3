//! Clients that replicate: a server connection of their own, relayed unread.

use std::time::Duration;

use weir_worker::Role;

use crate::settings::{PASSWORD, leaderless, led};
use crate::world::{Who, World, echo, simple};

const PARAMETERS: [(&str, &str); 3] = [("user", "app"), ("database", "mrg"), ("replication", "database")];

fn replicate(world: &mut World) -> Who {
    let client = world.hello_with(Role::Write, &PARAMETERS, PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
    client
}

#[test]
fn each_has_a_server_connection_and_takes_it_along() {
    let mut world = World::new();
    let first = replicate(&mut world);
    let second = replicate(&mut world);
    assert_eq!(world.ask(first, "select 1"), echo("select 1"));
    assert_eq!(world.ask(second, "select 2"), echo("select 2"));
    assert_eq!(world.pids().len(), 2);
    world.hang_up(first);
    assert_eq!(world.pids().len(), 1);
    // Nothing is left for others, and nothing of theirs is used.
    let other = world.client();
    assert_eq!(world.ask(other, "select 3"), echo("select 3"));
    assert_eq!(world.pids().len(), 2);
}

fn hello(world: &mut World, user: &str, replication: &str) -> Who {
    let parameters = [("user", user), ("database", "mrg"), ("replication", replication)];
    let who = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    who
}

#[test]
fn idle_connections_of_other_pools_make_room() {
    let mut world = World::configured(|config| config.limits.max_db_connections = 1);
    let other = world.client_of(Role::Write, "other");
    assert_eq!(world.ask(other, "select 1"), echo("select 1"));
    let client = replicate(&mut world);
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(world.pids().len(), 1);
}

#[test]
fn it_stands_in_line_under_shared_limits() {
    for busy_user in ["other", "app"] {
        let mut world = World::configured(|config| config.limits.max_db_connections = 1);
        let [busy, next, last] = [0; 3].map(|_| world.client_of(Role::Write, busy_user));
        world.query(busy, "begin");
        let client = hello(&mut world, "app", "database");
        world.pass(Duration::from_millis(100));
        world.query(next, "begin");
        world.query(last, "begin");
        world.heard(busy);
        world.query(busy, "commit");
        assert_eq!(world.heard(client), ["ready I"], "{busy_user}");
        assert_eq!((world.heard(next), world.heard(last)), (vec![], vec![]));
        world.vanish(client);
        assert_eq!(world.heard(next), ["BEGIN", "ready T"], "{busy_user}");
        world.query(next, "commit");
        assert_eq!(world.heard(last), ["BEGIN", "ready T"], "{busy_user}");
    }
}

#[test]
fn one_that_leaves_the_line_is_not_served() {
    let mut world = World::configured(|config| config.limits.max_db_connections = 1);
    let [busy, next] = [0; 2].map(|_| world.client_of(Role::Write, "other"));
    world.query(busy, "begin");
    let client = hello(&mut world, "app", "true");
    world.pass(Duration::from_millis(100));
    world.query(next, "select 1");
    world.vanish(client);
    let pids = world.pids();
    world.query(busy, "commit");
    assert_eq!(world.heard(next), echo("select 1"));
    assert_eq!(world.pids(), pids, "nobody is left who needs the slot");
}

#[test]
fn it_ends_with_its_server() {
    let mut world = World::new();
    let silent = replicate(&mut world);
    world.crash("n1");
    assert_eq!(world.heard(silent), ["FATAL 57P01"]);
    assert!(!world.is_open(silent));
}

#[test]
fn what_postgresql_says_last_is_not_said_twice() {
    let mut world = World::new();
    let client = replicate(&mut world);
    world.send(client, simple("fatal 57p01"));
    assert_eq!(world.heard(client), ["FATAL 57P01"]);
    assert!(!world.is_open(client));
}

#[test]
fn a_new_leader_ends_those_of_the_old_one() {
    let mut world = World::new();
    let client = replicate(&mut world);
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(client), ["FATAL 57P01"]);
    assert_eq!(world.pids().len(), 0);
}

#[test]
fn a_login_without_a_leader_waits_for_one() {
    let mut world = World::new();
    world.adopt(leaderless(&[]));
    let client = world.hello_with(Role::Write, &PARAMETERS, PASSWORD);
    world.run();
    assert_eq!(world.heard(client), [""; 0]);
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}
