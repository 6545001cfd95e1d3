//! A leader that is about to go by plan: nobody begins anything there, whoever has begun may end.

use std::time::Duration;

use weir_config::PoolMode;
use weir_discovery::Topology;
use weir_worker::Role;

use crate::settings::{led, size, target};
use crate::world::{World, batch, echo, simple};

/// n1 leads and is about to go.
fn leaving(replicas: &[&str]) -> Topology {
    Topology { planned: Some("a switchover is under way".to_owned()), ..led("n1", 1, replicas) }
}

/// A transaction that PostgreSQL knows of.
fn begin(world: &mut World, client: usize) {
    assert_eq!(world.ask(client, "begin"), ["BEGIN", "ready T"]);
    world.ask(client, "select 0");
}

#[test]
fn open_transactions_end_and_nothing_begins() {
    let mut world = World::new();
    let [open, waits] = world.clients();
    begin(&mut world, open);
    world.adopt(leaving(&["n2"]));
    world.query(waits, "select 1");
    world.pass(Duration::from_millis(300));
    let unfinished = world.worker.unfinished(world.now);
    assert_eq!(unfinished.len(), 1);
    assert_eq!((unfinished[0].user.as_str(), unfinished[0].running_for), ("app", None));
    assert!(unfinished[0].open_for >= Duration::from_millis(300));
    assert_eq!(world.ask(open, "commit"), ["COMMIT", "ready I"]);
    assert!(world.worker.unfinished(world.now).is_empty());
    world.query(open, "select 2");
    world.pass(Duration::from_secs(5));
    assert_eq!((world.heard(open), world.heard(waits)), (vec![], vec![]));
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    assert_eq!(world.heard(waits), echo("select 1"));
    assert_eq!(world.heard(open), echo("select 2"));
}

#[test]
fn reads_that_began_before_the_promotion_are_waited_for() {
    let mut world = World::new();
    world.adopt(led("n1", 1, &["n2"]));
    let reader = world.client_of(Role::Read, "app");
    begin(&mut world, reader);
    world.promote("n2", 2);
    world.adopt(Topology { planned: Some("another one is under way".to_owned()), ..led("n2", 2, &["n3"]) });
    assert_eq!(world.worker.unfinished(world.now).len(), 1, "it reads on n2");
    assert_eq!(world.ask(reader, "commit"), ["COMMIT", "ready I"]);
    assert!(world.worker.unfinished(world.now).is_empty());
}

#[test]
fn everybody_is_served_again_by_a_leader_that_stays() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let clients: [usize; 3] = world.clients();
    assert_eq!(world.ask(clients[0], "select 0"), echo("select 0"));
    world.adopt(leaving(&["n2"]));
    for client in clients {
        world.query(client, &format!("select {client}"));
    }
    assert!(world.worker.unfinished(world.now).is_empty());
    world.adopt(led("n1", 1, &["n2"]));
    for client in clients {
        assert_eq!(world.heard(client), echo(&format!("select {client}")));
    }
    assert!(world.ran().iter().all(|line| line.starts_with("n1: ")));
}

#[test]
fn a_session_is_waited_for_in_a_transaction_only_and_begins_nothing() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    let [busy, idle] = world.clients();
    begin(&mut world, busy);
    assert_eq!(world.ask(idle, "select 1"), echo("select 1"));
    world.adopt(leaving(&["n2"]));
    assert_eq!(world.worker.unfinished(world.now).len(), 1);
    assert_eq!(world.ask(busy, "commit"), ["COMMIT", "ready I"]);
    world.query(busy, "select 2");
    world.query(idle, "select 3");
    assert_eq!((world.heard(busy), world.heard(idle)), (vec![], vec![]));
    assert!(world.worker.unfinished(world.now).is_empty());
    world.adopt(led("n1", 1, &["n2"]));
    assert_eq!(world.heard(busy), echo("select 2"));
    assert_eq!(world.heard(idle), echo("select 3"));
}

#[test]
fn a_session_that_is_held_can_be_cancelled() {
    let mut world = World::configured(|config| {
        config.pool.mode = PoolMode::Session;
        config.pool.size = size(3);
    });
    let [one, two, idle] = world.clients();
    for client in [one, two, idle] {
        assert_eq!(world.ask(client, "select 0"), echo("select 0"));
    }
    world.adopt(leaving(&["n2"]));
    // The second request of each came behind the one that is meant.
    world.send(one, [simple("select 1"), simple("select 2")].concat());
    world.send(two, [batch("select 3"), batch("select 4")].concat());
    for client in [one, two, idle] {
        world.cancel(client);
    }
    for client in [one, two] {
        assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    }
    assert_eq!(world.heard(idle), [""; 0], "nothing of it is held");
    world.pass(Duration::from_secs(1));
    assert_eq!((world.heard(one), world.heard(two)), (vec![], vec![]));
    world.adopt(led("n1", 1, &["n2"]));
    assert_eq!(world.heard(one), echo("select 2"));
    assert_eq!(world.heard(two)[2..], echo("select 4"));
    assert_eq!(world.ask(idle, "select 5"), echo("select 5"));
    assert!(!world.ran().iter().any(|line| line.ends_with("select 1") || line.ends_with("select 3")));
}

#[test]
fn so_can_one_whose_request_comes_in_pieces() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    let client = world.client();
    for request in [simple("select 1"), batch("select 1")] {
        for cut in 1..request.len() {
            assert_eq!(world.ask(client, "select 0"), echo("select 0"));
            world.adopt(leaving(&["n2"]));
            world.send(client, request[..cut].to_vec());
            world.cancel(client);
            world.send(client, request[cut..].to_vec());
            world.adopt(led("n1", 1, &["n2"]));
            assert_eq!(world.heard(client), ["ERROR 57014", "ready I"], "cut at {cut}");
        }
    }
    assert!(!world.ran().contains(&"n1: select 1".to_owned()));
}

#[test]
fn reads_that_fall_back_to_the_leader_wait_as_well() {
    let fallback = Topology { replicas: vec![target("n1", true)], ..led("n1", 1, &[]) };
    let mut world = World::new();
    world.adopt(fallback);
    let [open, waits] = [world.client_of(Role::Read, "app"), world.client_of(Role::Read, "app")];
    begin(&mut world, open);
    world.adopt(leaving(&[]));
    world.query(waits, "select 1");
    assert_eq!(world.heard(waits), [""; 0]);
    assert_eq!(world.worker.unfinished(world.now).len(), 1);
    assert_eq!(world.ask(open, "commit"), ["COMMIT", "ready I"]);
    assert!(world.worker.unfinished(world.now).is_empty());
    world.promote("n2", 2);
    world.adopt(Topology { replicas: vec![target("n2", true)], ..led("n2", 2, &[]) });
    assert_eq!(world.heard(waits), echo("select 1"));
}

#[test]
fn reads_on_replicas_go_on() {
    let mut world = World::new();
    let reader = world.client_of(Role::Read, "app");
    world.adopt(leaving(&["n2"]));
    assert_eq!(world.ask(reader, "select 1"), echo("select 1"));
    assert!(world.worker.unfinished(world.now).is_empty());
}

#[test]
fn a_crowd_is_served_in_order_by_a_few_logins_at_once() {
    let mut world = World::configured(|config| {
        config.pool.size = size(20);
        config.limits.max_client_conn = 500;
    });
    let clients: [usize; 200] = world.clients();
    world.adopt(leaving(&["n3"]));
    for client in clients {
        world.query(client, &format!("select {client}"));
    }
    world.dials_held = true;
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    let logins = |world: &World| world.snapshot().servers.iter().filter(|row| row.state == "new").count();
    assert_eq!(logins(&world), 8);
    world.dials_held = false;
    world.run();
    let ran = world.ran();
    assert_eq!(ran.len(), clients.len());
    for (place, client) in clients.iter().enumerate() {
        let served = ran.iter().position(|line| *line == format!("n2: select {client}")).unwrap();
        assert!(served.abs_diff(place) < 20, "who came as number {place} was served as number {served}");
    }
    assert!(world.snapshot().servers.len() <= 20);
}

#[test]
fn a_pool_opens_ahead_what_it_had_at_the_old_leader() {
    let mut world = World::configured(|config| config.pool.size = size(4));
    let clients: [usize; 4] = world.clients();
    for client in clients {
        begin(&mut world, client);
    }
    for client in clients {
        world.query(client, "commit");
    }
    let open = |world: &World, host: &str| {
        world.snapshot().servers.iter().filter(|row| row.host == host && row.state == "idle").count()
    };
    assert_eq!(open(&world, "10.0.0.1"), 4);
    world.adopt(leaving(&["n3"]));
    world.crash("n1");
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    world.run();
    assert_eq!((open(&world, "10.0.0.1"), open(&world, "10.0.0.2")), (0, 4));
    world.adopt(led("n2", 2, &["n3", "n1"]));
    world.pass(Duration::from_secs(1));
    assert_eq!(open(&world, "10.0.0.2"), 4, "once");
}
