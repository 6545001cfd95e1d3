//! The read door and leaders of the past: what is open there on somebody who has led is closed when another one is followed.

use weir_config::PoolMode;
use weir_discovery::{Leadership, Topology};
use weir_worker::Role;

use crate::settings::{leaderless, led, target};
use crate::world::{Who, World, echo};

/// n1 leads and serves reads, for want of replicas.
fn fallback(epoch_number: u64) -> Topology {
    let mut topology = Topology { replicas: vec![target("n1", true)], ..led("n1", 1, &[]) };
    if let Leadership::Led { epoch_number: number, .. } = &mut topology.leader {
        *number = epoch_number;
    }
    topology
}

/// A client of the read door in read-write transactions on n1.
fn writer_of_the_read_door(world: &mut World) -> Who {
    let reader = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(reader, "begin read write"), ["BEGIN", "ready T"]);
    world.ask(reader, "insert into t values (1)");
    reader
}

/// n1 is cut off, and lives.
fn follow_n2(world: &mut World) {
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    world.ran();
}

#[test]
fn a_transaction_of_the_read_door_does_not_end_on_a_stale_leader() {
    for replicas_are_named in [false, true] {
        let mut world = World::led_by(match replicas_are_named {
            true => led("n1", 1, &[]),
            false => fallback(1),
        });
        let reader = writer_of_the_read_door(&mut world);
        let before = world.pids();
        world.adopt(leaderless(&[]));
        assert_eq!(world.pids(), before, "it may be back");
        follow_n2(&mut world);
        assert_eq!(world.ask(reader, "commit"), ["ERROR 40001", "ready I"]);
        assert_eq!(world.ran(), [""; 0]);
        assert_eq!(world.ask(reader, "select 1"), echo("select 1"));
        assert_eq!(world.ran(), ["n3: select 1"]);
    }
}

#[test]
fn it_ends_where_the_leader_was_only_out_of_sight() {
    let mut world = World::led_by(fallback(1));
    let reader = writer_of_the_read_door(&mut world);
    world.adopt(leaderless(&[]));
    world.adopt(fallback(1));
    assert_eq!(world.ask(reader, "commit"), ["COMMIT", "ready I"]);
}

#[test]
fn nothing_is_kept_of_a_leader_that_was_started_anew() {
    let mut world = World::led_by(fallback(1));
    let [busy, idle] = [world.client_of(Role::Read, "app"), world.client_of(Role::Read, "app")];
    world.ask(busy, "begin");
    assert_eq!(world.ask(idle, "select 1"), echo("select 1"));
    let before = world.pids();
    assert_eq!(before.len(), 2);
    world.adopt(fallback(2));
    assert!(world.pids().iter().all(|pid| !before.contains(pid)), "{before:?} {:?}", world.pids());
    assert_eq!(world.ask(busy, "select 2"), ["ERROR 40001", "ready E"]);
    assert_eq!(world.ask(idle, "select 2"), echo("select 2"));
}

#[test]
fn a_session_of_the_read_door_does_not_stay_with_a_stale_leader() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    world.adopt(fallback(1));
    let reader = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(reader, "select 1"), echo("select 1"));
    follow_n2(&mut world);
    assert_eq!(world.ask(reader, "insert into t values (1)"), ["FATAL 57P01"]);
    assert_eq!(world.ran(), [""; 0]);
}

#[test]
fn nor_with_a_replica_that_was_promoted_and_deposed() {
    for says_that_it_is_none in [false, true] {
        let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
        world.adopt(led("n1", 1, &["n2"]));
        let reader = world.client_of(Role::Read, "app");
        assert_eq!(world.ask(reader, "select 1"), echo("select 1"));
        let [pid] = world.pids()[..] else { panic!("one connection") };
        world.promote("n2", 2);
        world.adopt(led("n2", 2, &["n3"]));
        if says_that_it_is_none {
            world.backend(pid).reports_promotion = true;
            assert_eq!(world.ask(reader, "select 2"), echo("select 2"), "a session keeps its server");
        }
        world.promote("n3", 3);
        world.adopt(led("n3", 3, &["n1"]));
        world.ran();
        assert_eq!(world.ask(reader, "insert into t values (1)"), ["FATAL 57P01"]);
        assert_eq!(world.ran(), [""; 0]);
    }
}

#[test]
fn nor_with_a_replica_that_promoted_itself_and_was_never_followed() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    world.adopt(led("n1", 1, &["n2"]));
    let reader = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(reader, "select 1"), echo("select 1"));
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.promote("n2", 2);
    world.backend(pid).reports_promotion = true;
    assert_eq!(world.ask(reader, "select 2"), echo("select 2"));
    world.adopt(led("n1", 1, &["n3"]));
    world.ran();
    assert_eq!(world.ask(reader, "insert into t values (1)"), ["FATAL 57P01"]);
    assert_eq!(world.ran(), [""; 0]);
}
