//! Transactions that have only said BEGIN: no server connection is taken for them, and nothing happens to them with the
//! leader.

use std::time::Duration;

use weir_config::{Config, PoolMode};
use weir_worker::Order;

use crate::settings::{leaderless, led, size};
use crate::world::{World, echo};

fn deferring(change: impl FnOnce(&mut Config)) -> World {
    World::configured(|config| {
        config.pool.size = size(1);
        config.pool.defer_begin = true;
        change(config);
    })
}

/// Asks for something that is answered by weir.
#[track_caller]
fn own(world: &mut World, who: usize, sql: &str, answer: [&str; 2]) {
    assert_eq!(world.ask(who, sql), answer, "{sql}");
    assert_eq!(world.ran(), [""; 0], "{sql}");
}

// covers: defer_begin
#[test]
fn the_setting_decides_whether_begin_takes_a_server_connection() {
    for defers in [true, false] {
        let mut world = deferring(|config| config.pool.defer_begin = defers);
        let [first, second] = world.clients();
        world.query(first, "begin");
        world.query(second, "select 1");
        let served = world.heard(second) == echo("select 1");
        assert_eq!(served, defers);
    }
}

#[test]
fn it_survives_a_failover() {
    let mut world = deferring(|_| {});
    let client = world.client();
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    world.crash("n1");
    world.adopt(leaderless(&[]));
    world.query(client, "insert 1");
    world.pass(Duration::from_secs(20));
    assert_eq!(world.heard(client), [""; 0]);
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(client), ["INSERT 0 1", "ready T"]);
    assert_eq!(world.ask(client, "commit"), ["COMMIT", "ready I"]);
    assert_eq!(world.ran(), ["n2: BEGIN", "n2: insert 1", "n2: commit"]);
}

#[test]
fn an_empty_block_needs_nobody() {
    let mut world = deferring(|_| {});
    let client = world.client();
    world.ran();
    world.crash("n1");
    world.adopt(leaderless(&[]));
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    own(&mut world, client, "rollback", ["ROLLBACK", "ready I"]);
    own(&mut world, client, "start transaction", ["START TRANSACTION", "ready T"]);
    own(&mut world, client, "commit", ["COMMIT", "ready I"]);
    let stats = world.snapshot().pools[0].stats;
    assert_eq!((stats.queries, stats.transactions, stats.server_assignments), (4, 2, 0));
}

#[test]
fn figures_and_states_are_those_of_any_transaction() {
    let mut world = deferring(|_| {});
    let client = world.client();
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    let snapshot = world.snapshot();
    assert_eq!((snapshot.clients[0].state, snapshot.clients[0].link), ("active", None));
    assert_eq!((snapshot.pools[0].cl_active, snapshot.pools[0].sv_active), (1, 0));
    world.pass(Duration::from_secs(3));
    world.query(client, "select 1");
    assert_eq!(world.snapshot().pools[0].sv_active, 1);
    world.query(client, "commit");
    let stats = world.snapshot().pools[0].stats;
    assert_eq!((stats.queries, stats.transactions), (3, 1));
    assert!(stats.transaction_micros >= 3_000_000 && stats.query_micros < 1_000_000, "{stats:?}");
}

#[test]
fn a_hold_that_is_too_long_fails_the_block() {
    let mut world = deferring(|_| {});
    let client = world.client();
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    world.pass(Duration::from_secs(61));
    assert_eq!(world.heard(client), ["ERROR 57P03", "ready E"]);
    own(&mut world, client, "select 2", ["ERROR 25P02", "ready E"]);
    own(&mut world, client, "commit", ["ROLLBACK", "ready I"]);
}

#[test]
fn a_cancelled_wait_fails_the_block() {
    let mut world = deferring(|_| {});
    let client = world.client();
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    world.cancel(client);
    assert_eq!(world.heard(client), ["ERROR 57014", "ready E"]);
    own(&mut world, client, "rollback", ["ROLLBACK", "ready I"]);
}

type Limit = fn(&mut Config);

#[test]
fn its_clocks_run() {
    let limits: [(Limit, &str); 2] = [
        (|config| config.limits.idle_transaction_timeout = Some(Duration::from_secs(4)), "FATAL 25P03"),
        (|config| config.limits.transaction_timeout = Some(Duration::from_secs(4)), "FATAL 25P04"),
    ];
    for (limit, end) in limits {
        let mut world = deferring(limit);
        let client = world.client();
        own(&mut world, client, "begin", ["BEGIN", "ready T"]);
        world.pass(Duration::from_secs(3));
        assert!(world.is_open(client));
        world.pass(Duration::from_secs(3));
        assert_eq!(world.heard(client), [end]);
    }
    let mut world = deferring(|config| config.pool.query_wait_timeout = Some(Duration::from_secs(5)));
    let [busy, waits] = world.clients();
    world.query(busy, "begin");
    world.query(busy, "select 1");
    own_waits(&mut world, waits);
}

#[test]
fn its_clocks_stand_still_during_a_hold() {
    let limits: [(Limit, &str); 2] = [
        (|config| config.limits.idle_transaction_timeout = Some(Duration::from_secs(4)), "FATAL 25P03"),
        (|config| config.limits.transaction_timeout = Some(Duration::from_secs(4)), "FATAL 25P04"),
    ];
    for (limit, end) in limits {
        let mut world = deferring(limit);
        let [waits, rests] = world.clients();
        for client in [waits, rests] {
            own(&mut world, client, "begin", ["BEGIN", "ready T"]);
        }
        world.pass(Duration::from_secs(2));
        world.adopt(leaderless(&[]));
        world.query(waits, "select 1");
        world.pass(Duration::from_secs(20));
        world.promote("n2", 2);
        world.adopt(led("n2", 2, &[]));
        world.pass(Duration::from_secs(1));
        assert!(world.is_open(rests), "{}", world.error(rests));
        assert_eq!(world.heard(waits).last().unwrap(), "ready T", "{}", world.error(waits));
        assert_eq!(world.ask(waits, "commit"), ["COMMIT", "ready I"]);
        world.pass(Duration::from_secs(3));
        assert_eq!(world.heard(rests), [end]);
    }
}

fn own_waits(world: &mut World, waits: usize) {
    world.query(waits, "begin");
    assert_eq!(world.heard(waits), ["BEGIN", "ready T"]);
    world.query(waits, "select 2");
    world.pass(Duration::from_secs(6));
    assert_eq!(world.heard(waits), ["FATAL 08P01"], "{}", world.error(waits));
}

#[test]
fn weir_ends_behind_it() {
    let mut world = deferring(|_| {});
    let [open, empty] = world.clients();
    for client in [open, empty] {
        own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    }
    world.order(Order::Drain);
    assert!(world.is_open(open) && world.is_open(empty));
    assert_eq!(world.ask(open, "select 1").last().unwrap(), "ready T");
    assert_eq!(world.ask(empty, "commit"), ["COMMIT", "ready I", "FATAL 57P01"]);
    assert_eq!(world.ask(open, "commit"), ["COMMIT", "ready I", "FATAL 57P01"]);
    assert!(world.worker.is_drained());
}

#[test]
fn a_pause_waits_for_no_block_that_has_not_begun() {
    let mut world = deferring(|_| {});
    let client = world.client();
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    world.order(Order::Pause(None));
    own(&mut world, client, "rollback", ["ROLLBACK", "ready I"]);
    own(&mut world, client, "begin", ["BEGIN", "ready T"]);
    world.query(client, "select 1");
    assert_eq!(world.ran(), [""; 0]);
    world.order(Order::Resume(None));
    assert_eq!(world.ran(), ["n1: BEGIN", "n1: select 1"]);
}

#[test]
fn statement_and_session_pooling_know_nothing_of_it() {
    for (mode, ran) in [(PoolMode::Session, "n1: begin"), (PoolMode::Statement, "n1: begin")] {
        let mut world = deferring(|config| config.pool.mode = mode);
        let client = world.client();
        world.query(client, "begin");
        assert_eq!(world.ran(), [ran]);
        assert_eq!(world.is_open(client), mode == PoolMode::Session);
    }
}
