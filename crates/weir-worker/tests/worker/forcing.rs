//! What an operator does to others from the console: KILL, KILL_CLIENT, DISABLE; and the patient ways to end.

use weir_worker::{Order, Role};

use crate::settings::PASSWORD;
use crate::world::{World, echo};

#[test]
fn kill_closes_everybody_of_a_database_at_once_and_holds_those_who_come() {
    let mut world = World::new();
    let [busy, idle] = world.clients();
    let other = world.hello_with(Role::Write, &[("user", "app"), ("database", "second")], PASSWORD);
    world.run();
    world.heard(other);
    world.query(busy, "begin");
    world.heard(busy);
    world.order(Order::Pause(Some("mrg".to_owned())));
    world.order(Order::Kill(Some("mrg".to_owned())));
    for client in [busy, idle] {
        assert_eq!(world.heard(client), ["FATAL 57P01"]);
        assert!(world.error(client).starts_with("database removed|"), "{}", world.error(client));
        assert!(!world.is_open(client));
    }
    assert_eq!(world.pids().len(), 1, "server connections go with them, but for the other database");
    assert_eq!(world.ask(other, "select 1"), echo("select 1"));
    let late = world.client();
    assert_eq!(world.ask(late, "select 2"), [""; 0], "it waits for RESUME");
    world.order(Order::Resume(Some("mrg".to_owned())));
    assert_eq!(world.heard(late), echo("select 2"));
}

#[test]
fn kill_client_closes_one_client_and_its_server_connection() {
    let mut world = World::new();
    let [one, two] = world.clients();
    world.query(one, "begin");
    world.query(two, "begin");
    world.heard(one);
    world.heard(two);
    let before = world.pids();
    let rows = world.snapshot().clients;
    let serial = rows.iter().map(|row| row.id).min().unwrap();
    world.order(Order::KillClient(serial));
    assert_eq!(world.heard(one), ["FATAL 57P01"]);
    assert!(world.error(one).starts_with("admin forced disconnect|"));
    assert_eq!(world.pids(), before[1..]);
    assert_eq!(world.ask(two, "commit").last().unwrap(), "ready I");
    // A number that nobody has is nobody's.
    world.order(Order::KillClient(serial));
    assert!(world.is_open(two));
}

#[test]
fn a_disabled_database_takes_no_new_clients() {
    let mut world = World::new();
    let stays = world.client();
    world.order(Order::Disable("mrg".to_owned(), true));
    let refused = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(refused), ["FATAL 57P03"]);
    assert!(world.error(refused).starts_with("database \"mrg\" is disabled|"));
    assert_eq!(world.ask(stays, "select 1"), echo("select 1"));
    world.order(Order::Disable("mrg".to_owned(), false));
    world.client();
}

#[test]
fn waiting_for_servers_lets_transactions_end_and_nobody_begin_one() {
    let mut world = World::configured(|config| config.pool.size = crate::settings::size(1));
    let [busy, waits, idle] = world.clients();
    world.query(busy, "begin");
    world.query(waits, "select 1");
    world.order(Order::WaitForServers);
    assert_eq!(world.heard(waits), ["FATAL 57P01"]);
    assert!(!world.worker.is_drained() && world.is_open(idle));
    let late = world.connect(Role::Write);
    assert!(!world.is_open(late));
    assert_eq!(world.ask(idle, "select 2"), ["FATAL 57P01"]);
    assert_eq!(world.ask(busy, "commit").last().unwrap(), "ready I");
    assert!(world.worker.is_drained() && world.is_open(busy));
}

#[test]
fn waiting_for_clients_lets_in_who_had_come_through_the_door() {
    let mut world = World::new();
    let half = world.hello(Role::Write, "app", PASSWORD);
    world.order(Order::WaitForClients);
    world.run();
    assert_eq!(world.ask(half, "select 1").last().unwrap(), "ready I");
    assert!(!world.worker.is_drained());
    world.vanish(half);
    assert!(world.worker.is_drained());
}

#[test]
fn waiting_for_clients_lets_them_work_until_they_leave() {
    let mut world = World::new();
    let works = world.client();
    let console = world.hello_with(Role::Write, &[("user", "admin"), ("database", "pgbouncer")], PASSWORD);
    world.run();
    world.order(Order::WaitForClients);
    let late = world.connect(Role::Write);
    assert!(!world.is_open(late));
    assert_eq!(world.ask(works, "select 1"), echo("select 1"));
    assert!(!world.worker.is_drained());
    world.vanish(works);
    assert!(world.worker.is_drained() && world.is_open(console), "the console does not count");
}
