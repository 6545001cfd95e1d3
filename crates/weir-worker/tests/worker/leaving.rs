//! Clients that vanish, whatever they were doing. Nobody may find what they left behind.

use weir_protocol::frontend;

use crate::settings::size;
use crate::world::{World, echo, simple};

fn one_connection() -> World {
    World::configured(|config| config.pool.size = size(1))
}

#[test]
fn an_idle_client_leaves_its_connection_to_others() {
    let mut world = one_connection();
    let [gone, stays] = world.clients();
    world.query(gone, "select 1");
    let pids = world.pids();
    world.vanish(gone);
    assert_eq!(world.ask(stays, "select 2"), echo("select 2"));
    assert_eq!(world.pids(), pids);
}

#[test]
fn a_client_in_a_transaction_takes_its_connection_with_it() {
    let mut world = one_connection();
    let [gone, stays] = world.clients();
    world.query(gone, "begin");
    let pids = world.pids();
    world.query(stays, "select 2");
    world.vanish(gone);
    assert_eq!(world.heard(stays), echo("select 2"));
    assert_ne!(world.pids(), pids);
}

#[test]
fn so_does_a_client_in_the_middle_of_a_query() {
    let mut world = one_connection();
    let [gone, stays] = world.clients();
    world.query(gone, "sleep 1");
    let pids = world.pids();
    world.vanish(gone);
    assert_eq!(world.ask(stays, "select 2"), echo("select 2"));
    assert_ne!(world.pids(), pids);
}

#[test]
fn so_does_a_client_in_the_middle_of_a_batch() {
    let mut world = one_connection();
    let [gone, stays] = world.clients();
    let mut half = Vec::new();
    frontend::parse(b"", b"select 1", frontend::NO_TYPES, &mut half);
    frontend::flush(&mut half);
    world.send(gone, half);
    assert_eq!(world.heard(gone), ["ParseComplete"]);
    world.vanish(gone);
    assert_eq!(world.ask(stays, "select 2"), echo("select 2"));
}

#[test]
fn a_goodbye_in_a_transaction_is_no_better() {
    let mut world = one_connection();
    let [gone, stays] = world.clients();
    world.query(gone, "begin");
    let pids = world.pids();
    let mut bye = Vec::new();
    frontend::terminate(&mut bye);
    world.send(gone, bye);
    assert!(!world.is_open(gone));
    assert_eq!(world.ask(stays, "select 2"), echo("select 2"));
    assert_ne!(world.pids(), pids);
}

#[test]
fn a_goodbye_behind_a_query_lets_the_query_be_forgotten() {
    let mut world = one_connection();
    let client = world.client();
    let mut bytes = simple("sleep 1");
    frontend::terminate(&mut bytes);
    world.send(client, bytes);
    assert!(!world.is_open(client));
    assert!(world.shell.backends.is_empty());
}

#[test]
fn a_client_that_waits_leaves_the_queue() {
    let mut world = one_connection();
    let [busy, gone, stays] = world.clients();
    world.query(busy, "begin");
    world.query(gone, "select gone");
    world.query(stays, "select stays");
    world.vanish(gone);
    world.query(busy, "commit");
    assert_eq!(world.heard(stays), echo("select stays"));
    assert!(!world.ran().iter().any(|sql| sql.contains("gone")));
}

#[test]
fn a_newcomer_with_the_name_of_one_that_left_hears_nothing_of_it() {
    let mut world = one_connection();
    let [busy, gone] = world.clients();
    world.query(busy, "begin");
    world.query(gone, "select gone");
    let name = world.shell.speakers[gone].conn;
    world.vanish(gone);
    let newcomer = world.client();
    assert_eq!(world.shell.speakers[newcomer].conn, name, "the story is about names that are given again");
    world.query(busy, "commit");
    assert_eq!(world.heard(newcomer), [""; 0]);
    assert_eq!(world.ask(newcomer, "select new"), echo("select new"));
}

#[test]
fn a_client_that_leaves_while_its_connection_is_dialed_leaves_it_to_others() {
    let mut world = one_connection();
    let [gone, stays] = world.clients();
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.kill(pid, None);
    world.dials_held = true;
    world.query(gone, "select gone");
    world.query(stays, "select stays");
    world.vanish(gone);
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(stays), echo("select stays"));
    assert_eq!(world.ran(), ["n1: select stays"]);
}
