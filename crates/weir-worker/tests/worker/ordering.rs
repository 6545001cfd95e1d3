//! Orders of control: PAUSE and RESUME, RECONNECT, a new configuration, the end.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{Database, PoolMode};
use weir_worker::{Order, Role};

use crate::settings::{PASSWORD, address, config, leaderless, size};
use crate::world::{World, batch, echo};

#[test]
fn a_pause_lets_transactions_end_and_starts_none() {
    let mut world = World::new();
    let [busy, idle] = world.clients();
    world.query(busy, "begin");
    world.order(Order::Pause(None));
    assert_eq!(world.ask(idle, "select 1"), [""; 0]);
    assert_eq!(world.ask(busy, "commit"), ["BEGIN", "ready T", "COMMIT", "ready I"]);
    assert!(world.shell.backends.is_empty(), "a pause lets go of the servers");
    assert!(world.snapshot().pools[0].paused);
    world.order(Order::Resume(None));
    assert_eq!(world.heard(idle), echo("select 1"));
}

#[test]
fn a_pause_holds_for_pools_that_are_made_later() {
    let mut world = World::new();
    world.client();
    world.order(Order::Pause(None));
    let late = world.hello(Role::Write, "other", PASSWORD);
    world.run();
    assert!(world.shell.backends.is_empty());
    world.order(Order::Resume(None));
    assert_eq!(world.heard(late), ["ready I"]);
}

#[test]
fn a_pause_of_one_database_is_no_pause_of_another() {
    let mut world = World::new();
    let paused = world.client();
    world.order(Order::Pause(Some("mrg".to_owned())));
    let parameters = [("user", "app"), ("database", "second")];
    let free = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    world.heard(free);
    assert_eq!(world.ask(free, "select 2"), echo("select 2"));
    assert_eq!(world.ask(paused, "select 1"), [""; 0]);
    let reader = world.hello(Role::Read, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(reader), [""; 0], "the pool is made later, the pause holds");
    world.order(Order::Resume(Some("mrg".to_owned())));
    assert_eq!(world.heard(paused), echo("select 1"));
    assert_eq!(world.heard(reader), ["ready I"]);
}

#[test]
fn one_database_can_be_taken_out_of_a_pause_of_all() {
    let mut world = World::new();
    let client = world.client();
    world.order(Order::Pause(None));
    world.order(Order::Resume(Some("mrg".to_owned())));
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    let other = world.hello(Role::Write, "other", PASSWORD);
    let parameters = [("user", "app"), ("database", "second")];
    let second = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    assert_eq!(world.heard(other), ["ready I"]);
    assert_eq!(world.heard(second), [""; 0]);
}

#[test]
fn reconnect_replaces_every_connection_at_its_next_boundary() {
    let mut world = World::new();
    let [busy, quick] = world.clients();
    world.query(busy, "begin");
    world.query(quick, "select 1");
    let before = world.pids();
    assert_eq!(before.len(), 2);
    world.order(Order::Reconnect(None));
    assert_eq!(world.pids().len(), 1, "idle ones go at once");
    assert_eq!(world.ask(busy, "commit").last().unwrap(), "ready I");
    assert_eq!(world.ask(quick, "select 2").last().unwrap(), "ready I");
    assert!(world.pids().iter().all(|pid| !before.contains(pid)));
}

#[test]
fn a_smaller_pool_shrinks() {
    let mut world = World::new();
    let [one, two] = world.clients();
    world.query(one, "begin");
    world.query(two, "begin");
    let mut smaller = config();
    smaller.pool.size = size(1);
    world.order(Order::Configure(Arc::new(smaller)));
    world.query(one, "commit");
    world.query(two, "commit");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.pids().len(), 1);
}

#[test]
fn a_larger_pool_grows_for_those_who_wait() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [one, two] = world.clients();
    world.query(one, "begin");
    world.query(two, "select 2");
    world.order(Order::Configure(Arc::new(config())));
    assert_eq!(world.heard(two), echo("select 2"));
}

#[test]
fn a_database_that_leads_elsewhere_after_a_reload_is_reached_there() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "select 1");
    let mut moved = config();
    let elsewhere = Database { dbname: Some("elsewhere".to_owned()), ..Database::default() };
    moved.databases.insert("mrg".to_owned(), elsewhere);
    world.order(Order::Configure(Arc::new(moved)));
    world.heard(client);
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    let [pid] = world.pids()[..] else { panic!("one connection") };
    assert!(world.backend(pid).startup.contains(&("database".to_owned(), "elsewhere".to_owned())));
}

#[test]
fn a_new_user_list_holds_for_newcomers() {
    let mut world = World::new();
    let stays = world.client();
    let mut changed = config();
    changed.auth.users = weir_auth::UserList::default();
    changed.auth.query = None;
    world.order(Order::Configure(Arc::new(changed)));
    let newcomer = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(newcomer), ["FATAL 28P01"]);
    assert_eq!(world.ask(stays, "select 1"), echo("select 1"));
}

#[test]
fn the_end_comes_for_each_client_at_its_next_boundary() {
    let mut world = World::new();
    let idle = world.client();
    let open = world.client();
    let busy = world.client();
    let waiting = world.client();
    world.query(open, "begin");
    world.query(busy, "sleep 1");
    world.query(waiting, "select 1");
    let entering = world.connect(Role::Write);
    world.order(Order::Drain);
    assert_eq!(world.heard(idle), ["FATAL 57P01"]);
    assert_eq!(world.heard(entering), ["FATAL 57P01"]);
    assert!(!world.worker.is_drained());
    world.wake("sleep 1");
    assert_eq!(world.heard(busy), [echo("sleep 1"), vec!["FATAL 57P01".to_owned()]].concat());
    assert_eq!(world.heard(waiting), [echo("select 1"), vec!["FATAL 57P01".to_owned()]].concat());
    assert_eq!(world.ask(open, "commit"), ["BEGIN", "ready T", "COMMIT", "ready I", "FATAL 57P01"]);
    assert!(world.worker.is_drained());
    assert!(world.snapshot().clients.is_empty());
    let late = world.connect(Role::Write);
    assert!(!world.is_open(late));
}

#[test]
fn the_end_comes_for_those_whose_transaction_was_lost() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "begin");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.kill(pid, None);
    world.heard(client);
    world.order(Order::Drain);
    assert_eq!(world.ask(client, "rollback"), ["ROLLBACK", "ready I", "FATAL 57P01"]);
    assert!(world.worker.is_drained());
}

#[test]
fn the_end_comes_for_those_who_waited_in_vain() {
    let mut world = World::new();
    let [simple, extended] = world.clients();
    world.adopt(leaderless(&[]));
    world.query(simple, "select 1");
    world.send(extended, batch("select 2"));
    world.order(Order::Drain);
    world.pass(Duration::from_secs(61));
    for client in [simple, extended] {
        assert_eq!(world.heard(client), ["ERROR 57P03", "ready I", "FATAL 57P01"]);
    }
    assert!(world.worker.is_drained());
}

#[test]
fn the_end_comes_for_sessions_between_their_transactions() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    let [idle, open] = world.clients();
    world.query(idle, "select 1");
    world.query(open, "begin");
    world.heard(idle);
    world.heard(open);
    world.order(Order::Drain);
    assert_eq!(world.heard(idle), ["FATAL 57P01"]);
    assert_eq!(world.heard(open), [""; 0]);
    assert_eq!(world.ask(open, "commit"), ["COMMIT", "ready I", "FATAL 57P01"]);
    assert!(world.worker.is_drained());
}

#[test]
fn the_end_waits_for_no_lookup() {
    let mut world = World::new();
    world.dials_held = true;
    let entering = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    world.order(Order::Drain);
    assert_eq!(world.heard(entering), ["FATAL 57P01"]);
    assert!(world.worker.is_drained());
}

#[test]
fn connections_to_an_address_that_left_its_name_go_at_their_next_boundary() {
    let mut world = World::new();
    let [busy, rests] = world.clients();
    world.query(busy, "begin");
    world.ask(rests, "select 1");
    let before = world.pids();
    assert_eq!(before.len(), 2);
    let host = address("n1").host;
    assert!(world.worker.is_using(&host) && !world.worker.is_using("elsewhere"));
    let mut leave = |host: &str, gone: &str| {
        let order = Order::AddressesLeft { host: host.to_owned(), gone: vec![gone.parse().unwrap()] };
        world.turn(|worker, now, effects| worker.order(now, order, effects));
        world.run();
        world.pids()
    };
    assert_eq!(leave(&host, "10.9.9.9"), before, "another address of the name");
    assert_eq!(leave("elsewhere", "10.0.0.1"), before, "the address of another name");
    let held = leave(&host, "10.0.0.1");
    assert_eq!(held.len(), 1, "the idle one goes at once");
    assert_eq!(world.ask(busy, "select 2"), ["BEGIN", "ready T", "row select 2", "SELECT 1", "ready T"]);
    assert_eq!(world.ask(busy, "commit"), ["COMMIT", "ready I"]);
    assert_eq!(world.ask(busy, "select 3"), echo("select 3"));
    assert!(!world.pids().contains(&held[0]));
}
