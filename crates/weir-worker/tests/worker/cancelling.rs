//! Cancel requests: for whom, when, and what they must never hit.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{Database, Peer, PoolMode};
use weir_worker::{Order, Role};

use crate::settings::{self, PASSWORD, address, leaderless, led, size};
use crate::world::{World, echo};

fn one_connection() -> World {
    World::configured(|config| config.pool.size = size(1))
}

#[test]
fn a_running_statement_is_cancelled() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    let requester = world.cancel(client);
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    assert!(!world.is_open(requester), "the request's connection ends when PostgreSQL is done");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn the_requester_waits_until_postgresql_is_done() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    world.cancels_held = true;
    let requester = world.cancel(client);
    assert!(world.is_open(requester));
    world.cancels_held = false;
    world.run();
    assert!(!world.is_open(requester));
}

#[test]
fn a_wrong_key_cancels_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    let (pid, mut secret) = world.shell.speakers[client].key.clone().unwrap();
    secret[0] ^= 1;
    for (pid, secret) in
        [(pid, secret.clone()), (pid + 1, secret.clone()), (0, secret), (u32::MAX, vec![0; 4])]
    {
        let requester = world.cancel_with(pid, &secret);
        assert!(!world.is_open(requester));
    }
    assert_eq!(world.heard(client), [""; 0]);
    world.wake("sleep 1");
    assert_eq!(world.heard(client), echo("sleep 1"));
}

#[test]
fn an_idle_client_has_nothing_to_cancel() {
    let mut world = World::new();
    let client = world.client();
    world.cancel(client);
    assert!(world.shell.cancels.is_empty());
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    world.query(client, "begin");
    world.cancel(client);
    assert_eq!(world.ask(client, "commit"), ["BEGIN", "ready T", "COMMIT", "ready I"]);
}

#[test]
fn a_waiting_client_gets_its_answer_at_once() {
    let mut world = one_connection();
    let [busy, waits, next] = world.clients();
    world.query(busy, "begin");
    world.query(waits, "select 1");
    world.query(next, "select 2");
    world.cancel(waits);
    assert_eq!(world.heard(waits), ["ERROR 57014", "ready I"]);
    world.query(busy, "commit");
    assert_eq!(world.heard(next), echo("select 2"));
    assert!(!world.ran().contains(&"n1: select 1".to_owned()));
    assert_eq!(world.ask(waits, "select 3"), echo("select 3"));
}

#[test]
fn so_does_a_held_one() {
    let mut world = World::new();
    let client = world.client();
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    world.cancel(client);
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
}

/// A client whose parameters are on their way to its server connection, and take their time; its statement is behind them.
fn behind_settings(sql: &str) -> (World, usize) {
    let mut world = World::new();
    let parameters = [("user", "app"), ("database", "mrg"), ("work_mem", "1MB")];
    let client = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    world.heard(client);
    world.member("n1").slow = Some("set_config");
    world.query(client, sql);
    world.member("n1").slow = None;
    let setting = |world: &World| {
        let asleep = world.shell.backends.values().find_map(|backend| backend.asleep.as_ref());
        asleep.is_some_and(|(sql, _)| sql.contains("set_config"))
    };
    assert!(setting(&world), "the story is about weir's own query");
    (world, client)
}

#[test]
fn a_cancel_never_hits_weir_s_own_query_in_front_of_the_client_s() {
    let (mut world, client) = behind_settings("sleep 1");
    let requester = world.cancel(client);
    world.pass(Duration::from_secs(1));
    assert!(world.shell.cancels.is_empty() && world.is_open(requester), "it waits");
    assert_eq!(world.heard(client), [""; 0]);
    world.wake("SELECT pg_catalog.set_config('work_mem','1MB',false)");
    world.pass(Duration::from_millis(100));
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    assert!(!world.is_open(requester));
    assert_eq!(
        world.ask(client, "select 1"),
        echo("select 1"),
        "with the same parameters, and no later query is hit"
    );
    let ran = world.ran();
    assert_eq!(ran.iter().filter(|ran| ran.contains("set_config")).count(), 1, "{ran:?}");
}

#[test]
fn a_cancel_whose_statement_ends_while_it_waits_is_dropped() {
    let (mut world, client) = behind_settings("select 1");
    let requester = world.cancel(client);
    world.wake("SELECT pg_catalog.set_config('work_mem','1MB',false)");
    assert_eq!(world.heard(client), echo("select 1"));
    world.query(client, "begin");
    world.heard(client);
    world.pass(Duration::from_millis(100));
    assert!(!world.is_open(requester));
    assert_eq!(world.ask(client, "select 2"), ["row select 2", "SELECT 1", "ready T"]);
}

// covers: cancel_wait_timeout
#[test]
fn a_cancel_that_waits_for_weir_s_own_query_is_given_up_in_time() {
    let (mut world, client) = behind_settings("select 1");
    let requesters = [world.cancel(client), world.cancel(client)];
    world.pass(Duration::from_secs(11));
    assert!(requesters.iter().all(|requester| !world.is_open(*requester)));
    world.wake("SELECT pg_catalog.set_config('work_mem','1MB',false)");
    assert_eq!(world.heard(client), echo("select 1"));
}

#[test]
fn a_connection_with_a_cancel_under_way_is_not_given_to_the_next_client() {
    let mut world = one_connection();
    let [cancelled, next] = world.clients();
    world.query(cancelled, "sleep 1");
    world.query(next, "sleep 2");
    world.cancels_held = true;
    world.cancel(cancelled);
    // The statement ends before the request arrives.
    world.wake("sleep 1");
    assert_eq!(world.heard(cancelled), echo("sleep 1"));
    assert_eq!(world.ran(), ["n1: sleep 1"], "the next one must not be hit");
    assert_eq!(world.snapshot().pools[0].sv_being_canceled, 1);
    world.cancels_held = false;
    world.run();
    world.wake("sleep 2");
    assert_eq!(world.heard(next), echo("sleep 2"));
}

#[test]
fn its_own_client_can_go_on_meanwhile() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    world.cancels_held = true;
    world.cancel(client);
    world.wake("sleep 1");
    world.heard(client);
    // Its old connection is not at rest yet, so this runs on another.
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(world.pids().len(), 2);
}

#[test]
fn a_cancel_that_never_ends_costs_its_connection() {
    let mut world = one_connection();
    let [cancelled, next] = world.clients();
    world.query(cancelled, "sleep 1");
    world.cancels_held = true;
    let requester = world.cancel(cancelled);
    world.wake("sleep 1");
    world.query(next, "select 2");
    let before = world.pids();
    world.pass(Duration::from_secs(9));
    assert_eq!(world.heard(next), [""; 0]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(next), echo("select 2"));
    assert_ne!(world.pids(), before);
    assert!(!world.is_open(requester));
}

#[test]
fn a_cancel_that_was_given_up_does_not_hit_a_later_client() {
    let mut world = one_connection();
    let [cancelled, next] = world.clients();
    world.query(cancelled, "sleep 1");
    let before = world.pids();
    world.cancels_held = true;
    world.cancel(cancelled);
    world.pass(Duration::from_secs(11));
    // Nobody knows whether the request still arrives: the connection is good for this client only.
    world.wake("sleep 1");
    assert_eq!(world.heard(cancelled), echo("sleep 1"));
    assert_eq!(world.ask(next, "select 2"), echo("select 2"));
    assert_ne!(world.pids(), before);
}

#[test]
fn a_cancel_belongs_to_its_connection_and_not_to_the_next_of_that_name() {
    let mut world = World::configured(|config| config.pool.size = size(2));
    let [one, two, three] = world.clients();
    world.query(one, "sleep 1");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    let name = world.conn_of(pid);
    world.cancels_held = true;
    world.cancel(one);
    world.kill(pid, None);
    assert_eq!(world.heard(one), ["ERROR 08007", "ready I"]);
    world.query(two, "sleep 2");
    let fresh = world.pids()[0];
    assert_eq!(world.conn_of(fresh), name, "the story is about names that are given again");
    let late = world.cancel(two);
    assert_eq!(world.shell.cancels.len(), 2);
    // The first request ends; the second is still under way, so nobody else may have the connection.
    world.cancels_held = false;
    world.cancel_one();
    world.cancels_held = true;
    world.wake("sleep 2");
    assert_eq!(world.heard(two), echo("sleep 2"));
    world.query(three, "sleep 3");
    let asleep: Vec<u32> = world
        .shell
        .backends
        .values()
        .filter(|backend| backend.asleep.is_some())
        .map(|backend| backend.pid)
        .collect();
    assert!(!asleep.contains(&fresh) && asleep.len() == 1, "{asleep:?}");
    world.cancels_held = false;
    world.run();
    assert!(!world.is_open(late));
    world.wake("sleep 3");
    assert_eq!(world.heard(three), echo("sleep 3"));
}

#[test]
fn a_requester_that_leaves_early_leaves_its_name_to_others() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    world.cancels_held = true;
    let requester = world.cancel(client);
    let name = world.shell.speakers[requester].conn;
    world.vanish(requester);
    let newcomer = world.client();
    assert_eq!(world.shell.speakers[newcomer].conn, name, "the story is about names that are given again");
    world.cancels_held = false;
    world.run();
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    assert!(world.is_open(newcomer));
    assert_eq!(world.ask(newcomer, "select 1"), echo("select 1"));
}

#[test]
fn a_request_that_cannot_be_delivered_ends_and_harms_nobody() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    world.member("n1").up = false;
    let requester = world.cancel(client);
    assert!(!world.is_open(requester));
    world.member("n1").up = true;
    world.wake("sleep 1");
    assert_eq!(world.heard(client), echo("sleep 1"));
    let [pid] = world.pids()[..] else { panic!("one connection") };
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.pids(), [pid]);
}

#[test]
fn sessions_can_be_cancelled_and_left_in_any_order() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    let client = world.client_of(Role::Write, "app");
    world.query(client, "sleep 1");
    world.cancels_held = true;
    world.cancel(client);
    world.wake("sleep 1");
    world.vanish(client);
    world.cancels_held = false;
    world.run();
    let next = world.client();
    assert_eq!(world.ask(next, "select 1"), echo("select 1"));
}

#[test]
fn a_request_goes_to_the_address_that_its_server_connection_goes_to() {
    let mut world = World::new();
    world.found_at = Some(address("n2").host);
    let client = world.client();
    world.query(client, "sleep 1");
    world.dials_held = true;
    world.cancel(client);
    assert_eq!(world.shell.dials[0].1, address("n2"), "other addresses of the name are other servers");
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
}

#[test]
fn a_request_may_outlive_its_pool() {
    let mut config = settings::config();
    config.any_database = None;
    for name in ["mrg", "second"] {
        config.databases.insert(name.to_owned(), Database::default());
    }
    let mut world = World::with(config.clone(), led("n1", 1, &[]), 1);
    let parameters = [("user", "app"), ("database", "second")];
    let client = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    world.query(client, "sleep 1");
    world.cancels_held = true;
    world.cancel(client);
    config.databases.remove("second");
    world.order(Order::Configure(Arc::new(config)));
    assert!(!world.is_open(client));
    // Longer than removed databases are remembered, and than a request may take.
    world.pass(Duration::from_secs(15));
    assert!(world.shell.cancels.is_empty() && world.snapshot().pools.is_empty());
    let other = world.client();
    assert_eq!(world.ask(other, "select 1"), echo("select 1"));
}

#[test]
fn no_more_requests_are_under_way_than_the_pool_has_connections() {
    let mut world = one_connection();
    let client = world.client();
    world.query(client, "sleep 1");
    world.cancels_held = true;
    let requesters = [0; 3].map(|_| world.cancel(client));
    assert_eq!(world.shell.cancels.len(), 1);
    let row = &world.snapshot().pools[0];
    assert_eq!((row.cl_active_cancel_req, row.cl_waiting_cancel_req, row.sv_active_cancel), (1, 2, 1));
    let snapshot = world.snapshot();
    let states: Vec<&str> = snapshot.clients.iter().map(|row| row.state).collect();
    assert_eq!(states, ["active", "active_cancel_req", "waiting_cancel_req", "waiting_cancel_req"]);
    // The first one ends the statement; what the others are for is over when they have their turn.
    world.cancels_held = false;
    world.cancel_one();
    world.cancels_held = true;
    world.run();
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    world.cancels_held = false;
    world.run();
    assert!(requesters.iter().all(|requester| !world.is_open(*requester)));
    assert_eq!(world.ask(client, "select 1"), echo("select 1"), "no late request may hit it");
}

// covers: cancel_wait_timeout
#[test]
fn a_request_that_has_waited_too_long_is_dropped_unless_the_timeout_is_zero() {
    for (limit, survives) in [(2, false), (0, true)] {
        let mut world = World::configured(|config| {
            config.pool.size = size(1);
            config.limits.cancel_wait_timeout = Duration::from_secs(limit);
        });
        let client = world.client();
        world.query(client, "sleep 1");
        world.cancels_held = true;
        world.cancel(client);
        world.pass(Duration::from_secs(1));
        let waits = world.cancel(client);
        world.pass(Duration::from_millis(900));
        assert!(world.is_open(waits));
        world.pass(Duration::from_secs(3));
        assert_eq!(world.is_open(waits), survives, "{limit}");
    }
}

/// Process 1 of two; the other one stands where member n1 is.
fn with_a_peer() -> World {
    World::configured(|config| {
        config.peer_id = 1;
        let peer =
            |host: Option<&str>| Peer { host: host.map(str::to_owned), port: 5432, pool_size: Some(size(1)) };
        config.peers = [(1, peer(None)), (2, peer(Some("10.0.0.1")))].into();
    })
}

#[test]
fn a_request_for_a_peer_s_client_goes_there_with_one_hop_less() {
    let mut world = with_a_peer();
    world.cancels_held = true;
    let pid = u32::from_be_bytes([2, 0, 0, 9]);
    for secret in [vec![1, 2, 3, 0xff], [vec![5; 31], vec![0xff]].concat()] {
        let requester = world.cancel_with(pid, &secret);
        let sent = world.shell.cancels.last().unwrap();
        let mut expected = secret.clone();
        *expected.last_mut().unwrap() = 0xfe;
        assert_eq!((sent.1, &sent.2), (pid, &expected));
        assert!(world.is_open(requester), "the requester waits until the peer is done");
        assert_eq!(world.snapshot().peers[0].sv_active_cancel, 1);
        world.cancels_held = false;
        world.run();
        assert!(!world.is_open(requester));
        world.cancels_held = true;
    }
}

// covers: peers.pool_size
#[test]
fn requests_to_a_peer_are_bounded_and_go_no_further_than_three_hops() {
    let mut world = with_a_peer();
    world.cancels_held = true;
    let pid = u32::from_be_bytes([2, 0, 0, 9]);
    for _ in 0..3 {
        world.cancel_with(pid, &[1, 2, 3, 3]);
    }
    assert_eq!(world.shell.cancels.len(), 1);
    let row = world.snapshot().peers[0];
    assert_eq!((row.peer_id, row.cl_active_cancel_req, row.cl_waiting_cancel_req), (2, 1, 2));
    world.cancels_held = false;
    world.run();
    assert_eq!(world.snapshot().peers[0].cl_waiting_cancel_req, 0);
    world.cancels_held = true;
    for (pid, secret) in [(pid, [1, 2, 3, 4]), (u32::from_be_bytes([3, 0, 0, 9]), [1, 2, 3, 3])] {
        let requester = world.cancel_with(pid, &secret);
        assert!(world.shell.cancels.is_empty(), "no hop is left, or nobody has this number");
        assert!(!world.is_open(requester));
    }
}

#[test]
fn requests_that_strangers_leave_behind_are_bounded() {
    let mut world = with_a_peer();
    world.cancels_held = true;
    let pid = u32::from_be_bytes([2, 0, 0, 9]);
    for _ in 0..500 {
        let requester = world.cancel_with(pid, &[1, 2, 3, 3]);
        world.vanish(requester);
    }
    let row = world.snapshot().peers[0];
    // max_client_conn, and those who may be on their way in beyond it.
    assert_eq!(row.cl_active_cancel_req + row.cl_waiting_cancel_req, 100 + 256);
    world.cancels_held = false;
    world.run();
    assert_eq!(world.snapshot().peers[0].cl_waiting_cancel_req, 0);
}

#[test]
fn with_peers_own_clients_are_cancelled_directly_or_by_forwarded_requests() {
    let mut world = with_a_peer();
    let [client, other] = world.clients();
    world.query(other, "sleep 2");
    for hops in 0..4 {
        world.query(client, "sleep 1");
        let (pid, mut secret) = world.shell.speakers[client].key.clone().unwrap();
        assert_eq!(pid.to_be_bytes()[..2], [1, 0]);
        let last = secret.last_mut().unwrap();
        assert_eq!(*last & 3, 3);
        *last -= hops;
        world.cancel_with(pid, &secret);
        assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    }
    world.wake("sleep 2");
    assert_eq!(world.heard(other), echo("sleep 2"));
}
