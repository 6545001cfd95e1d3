//! The welcome: values that PostgreSQL reports at login, known only once a server connection has been open.

use std::time::Duration;

use weir_worker::{Order, Role};

use crate::settings::{PASSWORD, leaderless, led, plain};
use crate::world::{World, echo};

#[test]
fn the_first_client_waits_for_a_server_connection() {
    let mut world = World::new();
    world.dials_held = true;
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), [""; 0]);
    assert_eq!(world.shell.dials.len(), 1);
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.shell.speakers[client].told.get("server_version").unwrap(), "17.2");
}

#[test]
fn a_crowd_of_first_clients_costs_one_dial() {
    let mut world = World::new();
    let clients: Vec<usize> = (0..10).map(|_| world.hello(Role::Write, "app", PASSWORD)).collect();
    world.run();
    for client in clients {
        assert_eq!(world.heard(client), ["ready I"]);
    }
    assert_eq!(world.pids().len(), 1);
}

#[test]
fn later_clients_are_told_what_is_known() {
    let mut world = World::new();
    world.client();
    world.adopt(leaderless(&[]));
    let client = world.client();
    assert_eq!(world.shell.speakers[client].told.get("server_version").unwrap(), "17.2");
    assert_eq!(world.pids().len(), 1, "nothing is dialed in a hold");
}

#[test]
fn each_door_says_what_it_leads_to() {
    let mut world = World::new();
    let writer = world.client();
    let reader = world.client_of(Role::Read, "app");
    assert_eq!(world.shell.speakers[writer].told.get("in_hot_standby").unwrap(), "off");
    assert_eq!(world.shell.speakers[reader].told.get("in_hot_standby").unwrap(), "on");
}

#[test]
fn clients_in_a_hold_are_welcomed_by_the_next_leader() {
    let mut world = World::led_by(leaderless(&[]));
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.heard(client), [""; 0]);
    world.adopt(led("n1", 1, &[]));
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn what_one_door_knows_welcomes_at_the_other_during_a_hold() {
    let mut world = World::led_by(leaderless(&["n2"]));
    world.client_of(Role::Read, "app");
    let writer = world.client_of(Role::Write, "app");
    assert_eq!(world.shell.speakers[writer].told.get("in_hot_standby").unwrap(), "off");
    world.query(writer, "select 1");
    world.pass(Duration::from_secs(5));
    assert_eq!(world.heard(writer), [""; 0]);
    world.adopt(led("n1", 1, &[]));
    assert_eq!(world.heard(writer), echo("select 1"));
}

#[test]
fn a_dial_that_fails_is_repeated() {
    let mut world = World::new();
    world.member("n1").up = false;
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.heard(client), [""; 0]);
    world.member("n1").up = true;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn a_server_without_a_cluster_that_is_down_ends_the_login_at_once() {
    let mut world = World::with(plain(), weir_discovery::Topology::plain(crate::settings::address("n1")), 1);
    world.member("n1").up = false;
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["FATAL 08006"]);
    assert!(world.error(client).contains("10.0.0.1:5432"), "{}", world.error(client));
}

#[test]
fn impatient_senders_are_not_read_for_ever_and_lose_nothing() {
    let mut world = World::new();
    world.dials_held = true;
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    let requests: Vec<String> = (0..4000).map(|number| format!("select {number:0>60}")).collect();
    let bytes: Vec<u8> = requests.iter().flat_map(|sql| crate::world::simple(sql)).collect();
    world.send(client, bytes);
    assert!(world.shell.speakers[client].stopped, "more than a buffer is not read");
    assert!(!world.shell.speakers[client].outgoing.is_empty());
    world.dials_held = false;
    world.run();
    let expected: Vec<String> = requests.iter().flat_map(|sql| echo(sql)).collect();
    assert_eq!(world.heard(client), [vec!["ready I".to_owned()], expected].concat());
}

#[test]
fn a_paused_pool_welcomes_with_what_is_known() {
    let mut world = World::new();
    let first = world.client();
    world.order(Order::Pause(None));
    let second = world.client();
    assert_eq!(world.ask(second, "select 2"), [""; 0]);
    assert_eq!(world.ask(first, "select 1"), [""; 0]);
    world.order(Order::Resume(None));
    assert_eq!(world.heard(first), echo("select 1"));
    assert_eq!(world.heard(second), echo("select 2"));
}
