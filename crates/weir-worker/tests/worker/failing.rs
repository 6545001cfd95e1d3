//! Databases with servers of their own that cannot be logged in to: who is refused at once, who waits, in whose words.

use std::time::Duration;

use weir_config::{Config, Database, Host};
use weir_protocol::sqlstate::SqlState;
use weir_worker::Role;

use crate::settings::{self, PASSWORD, address, led};
use crate::world::{Who, World, echo};

fn config(members: &[&str]) -> Config {
    let mut config = settings::config();
    config.pool.server_login_retry = Duration::from_secs(3);
    let host = |name: &&str| Host { host: address(name).host, port: address(name).port };
    let own = Database { hosts: members.iter().map(host).collect(), ..Database::default() };
    config.databases.insert("mrg".to_owned(), own);
    config
}

fn on(members: &[&str]) -> World {
    World::with(config(members), led("n1", 1, &[]), 1)
}

const FAILING: &str = "server login has been failing, try again later (server_login_retry)";

/// The client's request fails at once.
fn fails_fast(world: &mut World, who: Who) {
    assert_eq!(world.ask(who, "select 1"), ["FATAL 08P01"]);
    assert_eq!(world.error(who).split('|').next(), Some(FAILING));
    assert!(!world.is_open(who));
}

// covers: server_login_retry
#[test]
fn the_first_client_waits_and_all_others_fail_until_the_retry() {
    let mut world = on(&["n1"]);
    let [first, second, third, late] = world.clients();
    world.crash("n1");
    world.query(first, "select 1");
    assert_eq!(world.heard(first), [""; 0]);
    fails_fast(&mut world, second);
    world.pass(Duration::from_millis(2500));
    fails_fast(&mut world, third);
    world.member("n1").up = true;
    world.pass(Duration::from_millis(400));
    assert_eq!(world.heard(first), [""; 0], "nobody is dialed before the retry");
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(first), echo("select 1"));
    assert_eq!(world.ask(late, "select 4"), echo("select 4"));
}

#[test]
fn servers_in_use_keep_a_pool_from_failing() {
    let mut world = on(&["n1"]);
    let [inside, outside] = world.clients();
    world.query(inside, "begin");
    world.member("n1").up = false;
    world.query(outside, "select 2");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.heard(outside), [""; 0]);
    world.query(inside, "commit");
    assert_eq!(world.heard(outside), echo("select 2"));
}

#[test]
fn newcomers_hear_why_the_server_does_not_let_weir_in() {
    let mut world = on(&["n1"]);
    world.member("n1").refusal = Some(SqlState::TOO_MANY_CONNECTIONS);
    for _ in 0..2 {
        let client = world.hello(Role::Write, "app", PASSWORD);
        world.run();
        assert_eq!(world.heard(client), ["FATAL 53300"]);
    }
    world.member("n1").refusal = None;
    world.pass(Duration::from_secs(3));
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn nobody_is_dialed_for_logins_that_have_ended() {
    let mut world = on(&["n1"]);
    let dials = |world: &World| world.shell.journal.iter().filter(|(what, _)| *what == "dial").count();
    world.member("n1").refusal = Some(SqlState::INVALID_CATALOG_NAME);
    let refused = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(refused), ["FATAL 3D000"]);
    world.pass(Duration::from_secs(20));
    assert_eq!(dials(&world), 1);
    // One that leaves by itself has no use for another try either.
    world.member("n1").refusal = Some(SqlState::CANNOT_CONNECT_NOW);
    let leaves = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    world.vanish(leaves);
    let before = dials(&world);
    world.pass(Duration::from_secs(20));
    assert_eq!(dials(&world), before);
    world.member("n1").refusal = None;
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn who_waits_with_a_request_hears_it_too() {
    let mut world = on(&["n1"]);
    let client = world.client();
    world.crash("n1");
    world.member("n1").up = true;
    world.member("n1").refusal = Some(SqlState::TOO_MANY_CONNECTIONS);
    assert_eq!(world.ask(client, "select 1"), ["FATAL 53300"]);
}

#[test]
fn a_server_that_is_starting_is_waited_for() {
    let mut world = on(&["n1"]);
    let [first, second] = world.clients();
    world.crash("n1");
    world.member("n1").up = true;
    world.member("n1").refusal = Some(SqlState::CANNOT_CONNECT_NOW);
    world.query(first, "select 1");
    world.query(second, "select 2");
    world.pass(Duration::from_secs(1));
    assert!(world.is_open(first) && world.is_open(second));
    world.member("n1").refusal = None;
    world.pass(Duration::from_millis(1100));
    assert_eq!(world.heard(first), echo("select 1"));
    assert_eq!(world.heard(second), echo("select 2"));
}

#[test]
fn another_host_is_tried_before_anybody_fails() {
    let mut world = on(&["n1", "n2"]);
    let [first, second] = world.clients();
    world.crash("n1");
    assert_eq!(world.ask(first, "select 1"), echo("select 1"));
    world.crash("n2");
    world.query(first, "select 1");
    assert_eq!(world.heard(first), [""; 0]);
    fails_fast(&mut world, second);
}

#[test]
fn a_database_that_follows_the_cluster_never_fails_fast() {
    let mut world = World::configured(|config| config.pool.server_login_retry = Duration::from_secs(3));
    let [first, second] = world.clients();
    world.crash("n1");
    world.query(first, "select 1");
    world.query(second, "select 2");
    world.pass(Duration::from_secs(10));
    assert!(world.is_open(first) && world.is_open(second));
    world.member("n1").up = true;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(first), echo("select 1"));
}
