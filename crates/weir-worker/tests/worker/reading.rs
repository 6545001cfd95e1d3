//! The read door: replicas, and what there is for want of them.

use std::time::Duration;

use weir_config::{PoolMode, ReadPolicy};
use weir_discovery::{ReadFallback, SessionEvidence};
use weir_protocol::sqlstate::SqlState;
use weir_worker::Role;

use crate::settings::{address, leaderless, led, size, target};
use crate::world::{World, batch, echo, simple};

#[test]
fn reads_spread_over_the_replicas() {
    let mut world = World::configured(|config| config.pool.size = size(4));
    let clients: Vec<usize> = (0..4).map(|_| world.client_of(Role::Read, "app")).collect();
    for client in &clients {
        world.query(*client, "begin");
    }
    let on = |member: usize| world.shell.backends.values().filter(|backend| backend.member == member).count();
    assert_eq!((on(0), on(1), on(2)), (0, 2, 2));
}

#[test]
fn without_replicas_the_leader_serves_reads_only() {
    let mut world = World::led_by(led("n1", 1, &[]));
    let client = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    let [pid] = world.pids()[..] else { panic!("one connection") };
    let read_only = ("default_transaction_read_only".to_owned(), "on".to_owned());
    assert!(world.backend(pid).startup.contains(&read_only));
    assert_eq!(world.shell.speakers[client].told.get("in_hot_standby").unwrap(), "off");
    // A replica may be promoted before weir hears of it.
    world.adopt(led("n1", 1, &["n2"]));
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(world.ran(), ["n1: select 1", "n2: select 2"]);
    let [pid] = world.pids()[..] else { panic!("one connection") };
    assert!(world.backend(pid).startup.contains(&read_only));
}

#[test]
fn the_same_when_discovery_names_the_leader_itself() {
    let mut topology = led("n1", 1, &[]);
    topology.replicas = vec![target("n1", true)];
    let mut world = World::led_by(topology);
    let client = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn reads_wait_for_a_replica_if_they_should() {
    let mut waits = led("n1", 1, &["n2"]);
    waits.fallback = ReadFallback::Wait;
    let mut world = World::led_by(waits.clone());
    let client = world.client_of(Role::Read, "app");
    waits.replicas.clear();
    world.adopt(waits);
    assert_eq!(world.ask(client, "select 1"), [""; 0]);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
    assert!(world.error(client).contains("no replica may serve reads"), "{}", world.error(client));
}

#[test]
fn reads_are_refused_at_once_if_they_should() {
    let mut errors = led("n1", 1, &["n2"]);
    errors.fallback = ReadFallback::Error;
    let mut world = World::led_by(errors.clone());
    let client = world.client_of(Role::Read, "app");
    errors.replicas.clear();
    world.adopt(errors.clone());
    assert_eq!(world.ask(client, "select 1"), ["ERROR 57P03", "ready I"]);
    errors.replicas = vec![target("n3", false)];
    world.adopt(errors);
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn nobody_waits_for_writes_to_a_standby_cluster() {
    let mut standby = leaderless(&["n2"]);
    standby.is_standby_cluster = true;
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Write, "app");
    world.adopt(leaderless(&["n2"]));
    assert_eq!(world.ask(client, "select 0"), [""; 0]);
    world.adopt(standby);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"], "who waits already need not wait on");
    assert_eq!(world.ask(client, "select 1"), ["ERROR 57P03", "ready I"]);
    assert!(world.error(client).contains("standby cluster"), "{}", world.error(client));
    world.promote("n1", 2);
    world.adopt(led("n1", 2, &["n2"]));
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
}

#[test]
fn a_promoted_replica_is_left_at_the_next_boundary() {
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(client, "begin"), ["BEGIN", "ready T"]);
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    assert_eq!(world.ask(client, "select 1"), ["row select 1", "SELECT 1", "ready T"]);
    assert_eq!(world.ask(client, "commit"), ["COMMIT", "ready I"]);
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(world.ran()[2..], ["n2: commit", "n3: select 2"]);
}

#[test]
fn a_member_that_is_no_replica_gets_no_reads() {
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Read, "app");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.kill(pid, None);
    world.promote("n2", 2);
    world.query(client, "select 1");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), [""; 0]);
    world.adopt(led("n2", 2, &["n3"]));
    assert_eq!(world.heard(client), echo("select 1"));
    assert_eq!(world.ran(), ["n3: select 1"]);
}

#[test]
fn reads_go_on_without_a_leader() {
    let mut world = World::new();
    let client = world.client_of(Role::Read, "app");
    world.adopt(leaderless(&["n2", "n3"]));
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn a_replica_that_returns_gets_its_share() {
    let mut world = World::configured(|config| config.pool.size = size(4));
    world.adopt(led("n1", 1, &["n2"]));
    let clients: Vec<usize> = (0..4).map(|_| world.client_of(Role::Read, "app")).collect();
    for client in &clients {
        world.query(*client, "begin");
    }
    for client in &clients {
        world.query(*client, "commit");
    }
    world.adopt(led("n1", 1, &["n2", "n3"]));
    world.pass(Duration::from_secs(20));
    let on_n3 = world.shell.backends.values().filter(|backend| backend.member == 2).count();
    assert_eq!(on_n3, 2);
}

/// A client of the read door, and idle connections to both replicas.
fn reader_of_both(world: &mut World) -> usize {
    let clients: Vec<usize> = (0..2).map(|_| world.client_of(Role::Read, "app")).collect();
    for sql in ["begin", "commit"] {
        clients.iter().for_each(|client| world.query(*client, sql));
    }
    clients.iter().for_each(|client| drop(world.heard(*client)));
    assert_eq!(world.pids().len(), 2);
    world.ran();
    clients[0]
}

fn retries(world: &World) -> u64 {
    world.snapshot().pools.iter().map(|pool| pool.stats.retries).sum()
}

#[test]
fn what_recovery_breaks_off_runs_on_another_member() {
    for request in [simple("select 1"), batch("select 1")] {
        let mut world = World::new();
        let client = reader_of_both(&mut world);
        world.member("n2").conflict = Some("t 1");
        for _ in 0..20 {
            world.send(client, request.clone());
            world.pass(Duration::from_millis(200));
            let heard = world.heard(client);
            assert!(heard.ends_with(&echo("select 1")[..]) && !heard[0].contains("ERROR"), "{heard:?}");
        }
        let ran = world.ran();
        let tried = ran.iter().filter(|ran| *ran == "n2: select 1").count();
        let done = ran.iter().filter(|ran| *ran == "n3: select 1").count();
        assert_eq!(done, 20);
        assert_eq!(retries(&world), u64::try_from(tried).unwrap());
        assert!(tried > 0 && world.pids().len() == 2, "{tried}, {:?}", world.pids());
    }
}

#[test]
fn what_recovery_breaks_off_everywhere_is_told() {
    let mut world = World::new();
    let client = reader_of_both(&mut world);
    for name in ["n2", "n3"] {
        world.member(name).conflict = Some("t 1");
    }
    assert_eq!(world.ask(client, "select 1"), [""; 0], "the others are about to replay the same");
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), ["ERROR 40001", "ready I"]);
    assert_eq!(world.ran().len(), 2, "one try on each");
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
}

#[test]
fn one_that_was_cancelled_meanwhile_takes_no_try_from_the_next() {
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Read, "app");
    world.member("n2").conflict = Some("t 1");
    world.query(client, "select 1");
    world.cancel(client);
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    world.query(client, "select 1");
    world.member("n2").conflict = None;
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), echo("select 1"));
    assert_eq!(world.ran(), ["n2: select 1", "n2: select 1", "n2: select 1"]);
}

#[test]
fn a_transaction_hears_of_its_conflict() {
    let mut world = World::new();
    let client = reader_of_both(&mut world);
    for name in ["n2", "n3"] {
        world.member(name).conflict = Some("t 1");
    }
    assert_eq!(world.ask(client, "begin"), ["BEGIN", "ready T"]);
    assert_eq!(world.ask(client, "select 1"), ["ERROR 40001", "ready E"]);
    assert_eq!(retries(&world), 0);
}

#[test]
fn a_connection_elsewhere_is_opened_for_what_recovery_breaks_off() {
    let mut world = World::configured(|config| config.pool.size = size(2));
    let client = world.client_of(Role::Read, "app");
    for name in ["n2", "n3"] {
        world.member(name).conflict = Some("t 1");
    }
    world.query(client, "select 1");
    assert_eq!(world.heard(client), [""; 0], "the only connection there was has failed it");
    world.member("n2").conflict = None;
    world.member("n3").conflict = None;
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), echo("select 1"));
    let ran = world.ran();
    assert!(ran.len() == 2 && ran[0] != ran[1], "{ran:?}");
}

#[test]
fn an_only_replica_is_asked_again() {
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Read, "app");
    world.member("n2").conflict = Some("t 1");
    world.query(client, "select 1");
    world.member("n2").conflict = None;
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(client), echo("select 1"));
    assert_eq!(world.ran(), ["n2: select 1", "n2: select 1"]);
}

#[test]
fn a_read_that_is_lost_in_whatever_way_goes_to_another_member() {
    for code in [None, Some(SqlState::ADMIN_SHUTDOWN), Some(SqlState::SERIALIZATION_FAILURE)] {
        let mut world = World::new();
        let client = reader_of_both(&mut world);
        for name in ["n2", "n3"] {
            world.member(name).slow = Some("t 1");
        }
        world.query(client, "select 1");
        let asleep = world.shell.backends.values().find(|backend| backend.asleep.is_some()).unwrap();
        let (pid, first) = (asleep.pid, asleep.member);
        for name in ["n2", "n3"] {
            world.member(name).slow = None;
        }
        world.kill(pid, code);
        assert_eq!(world.heard(client), echo("select 1"), "at once, after {code:?}");
        let other = world.members[3 - first].name;
        assert_eq!(world.ran(), [format!("{other}: select 1")]);
    }
}

#[test]
fn a_standby_that_would_not_tell_of_its_promotion_gets_nothing_twice() {
    for tells in [true, false] {
        let mut world = World::new();
        for name in ["n2", "n3"] {
            world.member(name).tells_recovery = tells;
        }
        let client = reader_of_both(&mut world);
        for name in ["n2", "n3"] {
            world.member(name).slow = Some("t 1");
        }
        world.query(client, "select 1");
        for name in ["n2", "n3"] {
            world.member(name).slow = None;
        }
        let asleep = world.shell.backends.values().find(|backend| backend.asleep.is_some()).unwrap().pid;
        world.kill(asleep, None);
        let in_doubt = ["ERROR 08007", "ready I"].map(str::to_owned);
        assert_eq!(world.heard(client), if tells { echo("select 1") } else { in_doubt.into() });
    }
}

#[test]
fn a_promoted_replica_is_left_before_discovery_knows() {
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.promote("n2", 2);
    world.backend(pid).reports_promotion = true;
    assert_eq!(world.ask(client, "select 2"), echo("select 2"), "read-only still");
    assert_eq!(world.pids(), [0; 0], "its sessions are left");
    let evidence = SessionEvidence::NoStandby { address: address("n2") };
    assert!(world.shell.evidence.contains(&evidence));
}

#[test]
fn so_is_one_that_a_session_leaves() {
    for hears_before_its_end in [true, false] {
        let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
        world.adopt(led("n1", 1, &["n2"]));
        let [leaves, stays] = [world.client_of(Role::Read, "app"), world.client_of(Role::Read, "app")];
        for client in [leaves, stays] {
            assert_eq!(world.ask(client, "select 1"), echo("select 1"));
        }
        world.promote("n2", 2);
        for pid in world.pids() {
            world.backend(pid).reports_promotion = true;
        }
        assert_eq!(world.ask(stays, "select 2"), echo("select 2"), "a session keeps its server");
        if hears_before_its_end {
            assert_eq!(world.ask(leaves, "select 3"), echo("select 3"));
        }
        // Otherwise the reset query hears of it.
        world.vanish(leaves);
        assert_eq!(world.pids().len(), 1, "it is not reset for the next session");
        let evidence = SessionEvidence::NoStandby { address: address("n2") };
        assert!(world.shell.evidence.contains(&evidence));
        assert_eq!(world.ask(stays, "select 4"), echo("select 4"));
    }
}

#[test]
fn a_session_keeps_a_replica_that_is_left_and_with_server_fast_close_until_its_transaction_ends() {
    for fast in [false, true] {
        let mut world = World::configured(|config| {
            config.pool.mode = PoolMode::Session;
            config.pool.server_fast_close = fast;
        });
        world.adopt(led("n1", 1, &["n2"]));
        let [rests, block] = [world.client_of(Role::Read, "app"), world.client_of(Role::Read, "app")];
        assert_eq!(world.ask(rests, "select 1"), echo("select 1"));
        assert_eq!(world.ask(block, "begin"), ["BEGIN", "ready T"]);
        world.adopt(led("n1", 1, &["n3"]));
        world.pass(Duration::from_secs(120));
        assert_eq!(world.is_open(rests), !fast);
        assert_eq!(world.ask(block, "commit")[..2], ["COMMIT", "ready I"]);
        assert_eq!(world.is_open(block), !fast);
        if !fast {
            assert_eq!(world.ask(rests, "select 2"), echo("select 2"));
            world.vanish(rests);
        }
        let next = world.client_of(Role::Read, "app");
        assert_eq!(world.ask(next, "select 3"), echo("select 3"));
        assert_eq!(world.ran().last().unwrap(), "n3: select 3");
    }
}

#[test]
fn a_server_that_has_fallen_silent_is_given_up() {
    let mut world = World::new();
    let reader = reader_of_both(&mut world);
    let block = world.client_of(Role::Read, "app");
    world.query(block, "begin");
    world.heard(block);
    let busy_on = world.shell.backends.values().find(|backend| backend.tx == b'T').unwrap().member;
    let (name, other) = (world.members[busy_on].name, world.members[3 - busy_on].name);
    // One request is under way there, and a transaction is open.
    let more = world.client_of(Role::Read, "app");
    for name in ["n2", "n3"] {
        world.member(name).slow = Some("t 1");
    }
    for client in [reader, more] {
        world.query(client, "select 1");
    }
    for name in ["n2", "n3"] {
        world.member(name).slow = None;
    }
    world.ran();
    world.member(name).silent = true;
    let mut topology = led("n1", 1, &[other]);
    topology.silent = vec![address(name)];
    world.adopt(topology);
    world.pass(Duration::from_millis(200));
    world.wake("select 1");
    let left = world.shell.backends.values().filter(|backend| backend.member == busy_on).count();
    assert_eq!(left, 0, "nothing is waited for there");
    for client in [reader, more] {
        assert_eq!(world.heard(client), echo("select 1"));
    }
    assert_eq!(world.ask(block, "select 2"), ["ERROR 40001", "ready E"]);
    assert!(world.ran().iter().all(|ran| ran.starts_with(other)));
}

#[test]
fn a_leader_that_has_fallen_silent_keeps_its_connections_until_there_is_another() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "begin");
    let before = world.pids();
    let mut topology = leaderless(&["n2", "n3"]);
    topology.silent = vec![address("n1")];
    world.adopt(topology);
    assert_eq!(world.pids(), before);
}

/// Where 40 requests of one client after the other ran: on n2, on n3.
fn shares(policy: ReadPolicy, weights: [u32; 2]) -> (usize, usize) {
    let mut world = World::configured(|config| {
        let weir_config::Upstream::Patroni(patroni) = &mut config.upstream else { panic!("no cluster") };
        patroni.read_policy = policy;
    });
    let mut topology = led("n1", 1, &["n2", "n3"]);
    for (target, weight) in topology.replicas.iter_mut().zip(weights) {
        target.weight = weight;
    }
    world.adopt(topology);
    let client = world.client_of(Role::Read, "app");
    for _ in 0..8 {
        world.query(client, "select 0");
    }
    world.ran();
    for _ in 0..40 {
        world.query(client, "select 1");
    }
    let ran = world.ran();
    let on = |member: &str| ran.iter().filter(|ran| ran.starts_with(member)).count();
    (on("n2"), on("n3"))
}

// covers: read_policy
#[test]
fn reads_are_shared_out_as_the_policy_says() {
    assert_eq!(shares(ReadPolicy::RoundRobin, [1, 1]), (20, 20));
    assert_eq!(shares(ReadPolicy::Weighted, [75, 25]), (30, 10));
    assert_eq!(shares(ReadPolicy::Weighted, [0, 100]), (0, 40));
    assert_eq!(shares(ReadPolicy::Nearest, [1, 0]), (40, 0));
    let (one, other) = shares(ReadPolicy::LeastConnections, [1, 1]);
    assert!(one > 5 && other > 5, "{one} {other}");
}
