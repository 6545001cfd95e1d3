//! One server without a cluster that is restarted.

use std::time::Duration;

use weir_discovery::Topology;
use weir_protocol::sqlstate::SqlState;

use crate::settings::{address, plain};
use crate::world::{World, echo};

fn one_server() -> World {
    let mut world = World::with(plain(), Topology::plain(address("n1")), 1);
    world.member("n1").in_recovery = false;
    world
}

#[test]
fn clients_stay_over_a_restart() {
    let mut world = one_server();
    let [idle, open, busy] = world.clients();
    world.query(open, "begin");
    world.query(busy, "sleep 1");
    world.heard(open);
    for pid in world.pids() {
        world.backend(pid).die(SqlState::ADMIN_SHUTDOWN);
    }
    world.member("n1").up = false;
    world.run();
    assert_eq!(world.heard(busy), ["ERROR 08007", "ready I"], "a statement of unknown kind");
    world.query(idle, "select 1");
    world.pass(Duration::from_secs(3));
    world.member("n1").up = true;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(idle), echo("select 1"));
    assert_eq!(world.ask(open, "commit"), ["ERROR 40001", "ready I"]);
    assert_eq!(world.ask(busy, "select 2"), echo("select 2"));
}

#[test]
fn no_fence_is_asked() {
    let mut world = one_server();
    let client = world.client();
    world.query(client, "select 1");
    assert!(world.executed.iter().all(|executed| !executed.sql.contains("pg_walfile_name")));
}

#[test]
fn a_server_that_starts_is_waited_for() {
    let mut world = one_server();
    world.member("n1").refusal = Some(SqlState::CANNOT_CONNECT_NOW);
    let client = world.hello(weir_worker::Role::Write, "app", crate::settings::PASSWORD);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), [""; 0]);
    world.member("n1").refusal = None;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn a_wait_has_an_end() {
    let mut world = one_server();
    let client = world.client();
    world.crash("n1");
    world.query(client, "select 1");
    world.pass(Duration::from_secs(121));
    assert_eq!(world.heard(client), ["FATAL 08P01"]);
    assert!(world.error(client).contains("query_wait_timeout"));
}
