//! What time brings to clients that wait and to connections that grow old.

use std::time::Duration;

use weir_discovery::SessionEvidence;

use crate::settings::{address, size};
use crate::world::{World, echo};

// covers: query_wait_timeout
#[test]
fn a_wait_for_a_busy_pool_has_an_end() {
    let mut world = World::configured(|config| {
        config.pool.size = size(1);
        config.pool.query_wait_timeout = Some(Duration::from_secs(5));
    });
    let [busy, waits] = world.clients();
    world.query(busy, "begin");
    world.query(waits, "select 1");
    world.pass(Duration::from_secs(4));
    assert_eq!(world.heard(waits), [""; 0]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(waits), ["FATAL 08P01"]);
    assert!(world.error(waits).starts_with("query_wait_timeout|"));
    assert!(!world.is_open(waits));
    assert_eq!(world.snapshot().pools[0].stats.wait_timeouts, 1);
    assert_eq!(world.ask(busy, "commit").last().unwrap(), "ready I");
}

#[test]
fn a_dial_has_a_deadline() {
    let mut world = World::new();
    world.dials_held = true;
    let client = world.hello(weir_worker::Role::Write, "app", crate::settings::PASSWORD);
    world.pass(Duration::from_secs(16));
    assert!(world.shell.evidence.contains(&SessionEvidence::Refused { address: address("n1") }));
    world.dials_held = false;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn so_has_a_login_to_the_server() {
    let mut world = World::new();
    world.member("n1").silent = true;
    let client = world.hello(weir_worker::Role::Write, "app", crate::settings::PASSWORD);
    world.pass(Duration::from_secs(14));
    let pid = *world.shell.backends.keys().next().unwrap();
    world.pass(Duration::from_secs(2));
    assert!(!world.shell.backends.contains_key(&pid));
    world.member("n1").silent = false;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), ["ready I"]);
}

// covers: server_connect_timeout
#[test]
fn the_deadline_is_the_configurations() {
    let mut world = World::configured(|config| config.pool.server_connect_timeout = Duration::from_secs(3));
    world.member("n1").silent = true;
    world.hello(weir_worker::Role::Write, "app", crate::settings::PASSWORD);
    world.pass(Duration::from_secs(2));
    let pid = *world.shell.backends.keys().next().unwrap();
    assert!(world.shell.evidence.is_empty());
    world.pass(Duration::from_secs(2));
    assert!(!world.shell.backends.contains_key(&pid));
}

#[test]
fn dials_that_fail_are_repeated_less_and_less_often() {
    let mut world = World::new();
    let client = world.client();
    world.crash("n1");
    world.query(client, "select 1");
    world.pass(Duration::from_secs(2));
    let in_two_seconds = world.shell.evidence.len();
    world.shell.evidence.clear();
    world.pass(Duration::from_secs(10));
    let in_ten_more = world.shell.evidence.len();
    assert!(in_two_seconds <= 10 && (5..=12).contains(&in_ten_more), "{in_two_seconds}, {in_ten_more}");
}

// covers: server_idle_timeout
#[test]
fn unused_connections_are_closed() {
    let mut world =
        World::configured(|config| config.pool.server_idle_timeout = Some(Duration::from_secs(10)));
    let client = world.client();
    world.query(client, "select 1");
    world.pass(Duration::from_secs(9));
    assert_eq!(world.pids().len(), 1);
    world.pass(Duration::from_secs(2));
    assert!(world.pids().is_empty());
    world.heard(client);
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
}

// covers: server_lifetime
#[test]
fn old_connections_are_closed_when_nobody_uses_them() {
    let mut world = World::configured(|config| config.pool.server_lifetime = Some(Duration::from_secs(10)));
    let client = world.client();
    world.query(client, "begin");
    world.pass(Duration::from_secs(20));
    let before = world.pids();
    assert_eq!(before.len(), 1);
    assert_eq!(world.ask(client, "commit").last().unwrap(), "ready I");
    world.pass(Duration::from_secs(1));
    assert!(world.pids().is_empty());
}
