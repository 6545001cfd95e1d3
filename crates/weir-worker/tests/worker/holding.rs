//! A cluster without a leader: clients wait, stay, and are served by the next leader only.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{PoolMode, Upstream};
use weir_discovery::{Address, SessionEvidence};
use weir_protocol::sqlstate::SqlState;
use weir_worker::{Order, Role};

use crate::settings::{SYSTEM, address, leaderless, led, size};
use crate::world::{World, batch, echo, simple};

#[test]
fn idle_clients_notice_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.adopt(leaderless(&[]));
    world.crash("n1");
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    assert_eq!(world.heard(client), [""; 0]);
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.ran(), ["n2: select 1"]);
}

#[test]
fn requests_wait_for_the_next_leader_in_the_order_they_came() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let clients: [usize; 4] = world.clients();
    world.adopt(leaderless(&[]));
    for client in clients {
        world.query(client, &format!("select {client}"));
    }
    world.pass(Duration::from_secs(20));
    for client in clients {
        assert_eq!(world.heard(client), [""; 0]);
    }
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &["n3"]));
    for client in clients {
        assert_eq!(world.heard(client), echo(&format!("select {client}")));
    }
    let expected: Vec<String> = clients.iter().map(|client| format!("n2: select {client}")).collect();
    assert_eq!(world.ran(), expected);
}

#[test]
fn logins_under_way_are_given_up_with_the_leader() {
    // In one the shell is connecting, in the other PostgreSQL says nothing more.
    for reaches in [false, true] {
        let mut world = World::configured(|config| {
            config.pool.size = size(20);
            config.limits.max_db_connections = 8;
        });
        let clients: [usize; 12] = world.clients();
        for pid in world.pids() {
            world.kill(pid, None);
        }
        (world.dials_held, world.member("n1").silent) = (!reaches, true);
        for client in clients {
            world.query(client, &format!("select {client}"));
        }
        let logins = |world: &World| world.snapshot().servers.iter().filter(|row| row.state == "new").count();
        assert_eq!(logins(&world), 8);
        world.adopt(leaderless(&["n2"]));
        assert_eq!((logins(&world), world.shell.dials.len()), (0, 0));
        world.pass(Duration::from_secs(3));
        (world.dials_held, world.member("n1").silent) = (false, false);
        world.adopt(led("n1", 1, &["n2"]));
        for client in clients {
            assert_eq!(world.heard(client), echo(&format!("select {client}")));
        }
    }
}

#[test]
fn newcomers_log_in_during_a_hold() {
    let mut world = World::new();
    world.client();
    world.adopt(leaderless(&[]));
    let newcomer = world.client();
    world.query(newcomer, "select 1");
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(newcomer), echo("select 1"));
}

#[test]
fn the_hold_has_an_end_and_the_client_stays() {
    let mut world = World::new();
    let [simple, extended] = world.clients();
    world.adopt(leaderless(&[]));
    world.query(simple, "select 1");
    world.send(extended, batch("select 2"));
    world.pass(Duration::from_secs(59));
    assert_eq!(world.heard(simple), [""; 0]);
    world.pass(Duration::from_secs(2));
    for client in [simple, extended] {
        assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
        assert!(world.error(client).contains("the leader is gone"), "{}", world.error(client));
        assert!(world.error(client).contains("failover #1 "), "{}", world.error(client));
        assert!(world.is_open(client));
    }
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.ask(simple, "select 3"), echo("select 3"));
    assert_eq!(world.ask(extended, "select 4"), echo("select 4"));
    assert_eq!(world.ran(), ["n2: select 3", "n2: select 4"]);
}

#[test]
fn a_held_client_is_read_up_to_a_buffer_and_its_end_is_noticed() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 2);
    let [silent, talkative] = world.clients();
    world.adopt(leaderless(&[]));
    let request = "select 0".repeat(100);
    for who in [silent, talkative] {
        world.query(who, "select 1");
    }
    for _ in 0..1000 {
        world.send(talkative, crate::world::simple(&request));
    }
    assert!(world.shell.speakers[talkative].stopped, "it is not read any longer");
    assert_eq!(world.snapshot().pools[0].cl_waiting, 2);
    for who in [silent, talkative] {
        world.vanish(who);
    }
    assert_eq!(world.snapshot().pools[0].cl_waiting, 0);
    // Their places are free.
    let newcomer = world.client();
    world.query(newcomer, "select 2");
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(newcomer), echo("select 2"));
    assert_eq!(world.ran(), ["n2: select 2"]);
}

#[test]
fn the_clock_of_the_busy_pool_stands_still_during_a_hold() {
    let mut world = World::configured(|config| {
        config.pool.size = size(1);
        config.pool.query_wait_timeout = Some(Duration::from_secs(10));
    });
    let [busy, waits] = world.clients();
    world.query(busy, "begin");
    world.query(waits, "select 1");
    world.pass(Duration::from_secs(6));
    world.adopt(leaderless(&[]));
    world.pass(Duration::from_secs(30));
    assert_eq!(world.heard(waits), [""; 0]);
    world.adopt(led("n1", 2, &[]));
    world.promote("n1", 2);
    world.pass(Duration::from_secs(3));
    assert_eq!(world.heard(waits), echo("select 1"));
}

#[test]
fn a_waiting_client_can_go_on_after_it_was_told_of_the_end_of_the_hold() {
    let mut world = World::new();
    let client = world.client();
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    world.query(client, "select 2");
    world.pass(Duration::from_secs(61));
    // The second request begins a wait of its own.
    assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
}

#[test]
fn connections_of_the_old_epoch_are_closed_busy_or_not() {
    let mut world = World::new();
    let [open, busy, idle] = world.clients();
    world.query(open, "begin");
    world.query(busy, "sleep 1");
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(open), ["BEGIN", "ready T"]);
    assert_eq!(world.heard(busy), ["ERROR 08007", "ready I"]);
    let on_n1 = world.shell.backends.values().filter(|backend| backend.member == 0).count();
    assert_eq!(on_n1, 0, "nothing may commit there after a thaw");
    assert_eq!(world.ask(idle, "select 1"), echo("select 1"));
    // A COMMIT is not sent anywhere, and is not answered as if it had been.
    assert_eq!(world.ask(open, "commit"), ["ERROR 40001", "ready I"]);
    assert!(!world.ran().contains(&"n2: commit".to_owned()));
}

#[test]
fn the_same_member_on_a_new_timeline_is_another_epoch() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "begin");
    let pids = world.pids();
    world.promote("n1", 2);
    world.adopt(led("n1", 2, &[]));
    assert!(pids.iter().all(|pid| !world.pids().contains(pid)));
    assert_eq!(world.ask(client, "select 1"), ["BEGIN", "ready T", "ERROR 40001", "ready E"]);
}

#[test]
fn transactions_that_are_open_may_end_during_a_hold() {
    let mut world = World::new();
    let [open, waits] = world.clients();
    world.query(open, "begin");
    world.adopt(leaderless(&[]));
    world.query(waits, "select 2");
    world.heard(open);
    assert_eq!(world.ask(open, "commit"), ["COMMIT", "ready I"]);
    // Its connection is free, but nobody knows whether it leads to the leader.
    assert_eq!(world.heard(waits), [""; 0]);
    assert_eq!(world.ask(open, "select 1"), [""; 0]);
    world.adopt(led("n1", 1, &[]));
    assert_eq!(world.heard(waits), echo("select 2"));
    assert_eq!(world.heard(open), echo("select 1"));
    assert_eq!(world.ran(), ["n1: begin", "n1: commit", "n1: select 2", "n1: select 1"]);
}

#[test]
fn a_leader_that_returns_in_its_epoch_keeps_its_connections() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let clients: [usize; 3] = world.clients();
    let before = world.pids();
    world.adopt(leaderless(&[]));
    for client in clients {
        world.query(client, &format!("select {client}"));
    }
    world.adopt(led("n1", 1, &[]));
    for client in clients {
        assert_eq!(world.heard(client), echo(&format!("select {client}")));
    }
    assert_eq!(world.pids(), before);
}

#[test]
fn connections_kept_over_a_hold_do_not_outlive_it_if_another_leads() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [open, waits] = world.clients();
    world.query(open, "begin");
    world.adopt(leaderless(&[]));
    world.query(waits, "select 2");
    world.promote("n3", 2);
    world.adopt(led("n3", 2, &[]));
    assert_eq!(world.heard(waits), echo("select 2"));
    assert_eq!(world.ask(open, "commit"), ["BEGIN", "ready T", "ERROR 40001", "ready I"]);
    assert!(world.shell.backends.values().all(|backend| backend.member == 2));
}

#[test]
fn dials_to_the_old_leader_are_taken_back() {
    let mut world = World::new();
    let client = world.client();
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.kill(pid, None);
    world.dials_held = true;
    world.query(client, "select 1");
    assert_eq!(world.shell.dials[0].1, address("n1"));
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    let places: Vec<Address> = world.shell.dials.iter().map(|(_, address)| address.clone()).collect();
    assert_eq!(places, [address("n2")]);
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(client), echo("select 1"));
}

/// What discovery hears of a leader that fails the fence, and that no client is served by it.
fn fenced_off(change: impl FnOnce(&mut World)) -> Vec<SessionEvidence> {
    let mut world = World::new();
    let client = world.client();
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    change(&mut world);
    world.adopt(led("n2", 2, &[]));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.heard(client), [""; 0]);
    assert_eq!(world.ran(), [""; 0]);
    let evidence = std::mem::take(&mut world.shell.evidence);
    // It is the leader after all, and weir comes back to it by itself.
    world.promote("n2", 2);
    world.member("n2").system = SYSTEM;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), echo("select 1"));
    evidence
}

#[test]
fn a_standby_gets_no_writes() {
    let evidence = fenced_off(|_| {});
    assert!(evidence.contains(&SessionEvidence::NotPrimary { address: address("n2") }), "{evidence:?}");
}

#[test]
fn another_timeline_gets_no_writes() {
    let evidence = fenced_off(|world| world.promote("n2", 3));
    let newer = SessionEvidence::NewerTimeline { address: address("n2"), timeline: 3 };
    assert!(evidence.contains(&newer), "{evidence:?}");
    assert!(!fenced_off(|world| world.promote("n2", 1)).is_empty());
}

#[test]
fn another_cluster_gets_no_writes() {
    let evidence = fenced_off(|world| {
        world.promote("n2", 2);
        world.member("n2").system = SYSTEM + 1;
    });
    assert!(!evidence.is_empty());
}

#[test]
fn a_leader_that_cannot_be_reached_is_evidence() {
    let mut world = World::new();
    let client = world.client();
    world.crash("n1");
    world.query(client, "select 1");
    world.pass(Duration::from_secs(2));
    assert!(world.shell.evidence.contains(&SessionEvidence::Refused { address: address("n1") }));
    assert_eq!(world.heard(client), [""; 0], "a cluster holds");
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    assert_eq!(world.heard(client), echo("select 1"));
}

/// Patroni names it, and no monitor has looked at it: its own login is what tells.
#[test]
fn a_leader_that_is_none_is_no_busy_pool() {
    let lies: [fn(&mut World); 4] = [
        |world| world.member("n2").in_recovery = true,
        |world| world.member("n2").system = SYSTEM + 1,
        |world| world.member("n2").timeline = 1,
        |world| world.member("n2").up = false,
    ];
    for lie in lies {
        let mut world = World::configured(|config| {
            config.pool.query_wait_timeout = Some(Duration::from_secs(5));
            config.pool.query_wait_notify = Some(Duration::from_secs(3));
        });
        let client = world.client();
        world.promote("n2", 2);
        lie(&mut world);
        world.adopt(led("n2", 2, &["n3"]));
        world.query(client, "insert 1");
        world.pass(Duration::from_secs(59));
        assert_eq!(world.heard(client), ["NOTICE 00000"], "the pool is not busy");
        world.pass(Duration::from_secs(2));
        assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
        let error = world.error(client);
        assert!(error.contains("n2 is said to lead, but no login succeeds there: "), "{error}");
        world.query(client, "insert 2");
        world.pass(Duration::from_secs(10));
        world.adopt(led("n1", 3, &["n3"]));
        world.promote("n1", 3);
        world.pass(Duration::from_secs(2));
        assert_eq!(world.heard(client)[1..], ["INSERT 0 1", "ready I"]);
        assert_eq!(world.ran(), ["n1: insert 2"]);
    }
}

#[test]
fn a_server_that_starts_is_waited_for() {
    let mut world = World::new();
    let client = world.client();
    world.crash("n1");
    let member = world.member("n1");
    (member.up, member.refusal) = (true, Some(SqlState::CANNOT_CONNECT_NOW));
    world.query(client, "select 1");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), [""; 0]);
    world.member("n1").refusal = None;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), echo("select 1"));
}

#[test]
fn a_server_that_is_full_is_waited_for() {
    let mut world = World::new();
    let client = world.client();
    world.crash("n1");
    let member = world.member("n1");
    (member.up, member.refusal) = (true, Some(SqlState::TOO_MANY_CONNECTIONS));
    world.query(client, "select 1");
    world.pass(Duration::from_secs(2));
    world.member("n1").refusal = None;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), echo("select 1"));
}

#[test]
fn every_pool_follows_in_the_same_turn() {
    let mut world = World::new();
    let app = world.client_of(Role::Write, "app");
    let other = world.client_of(Role::Write, "other");
    world.query(app, "begin");
    world.query(other, "begin");
    world.promote("n3", 2);
    world.adopt(led("n3", 2, &["n2"]));
    assert!(world.shell.backends.values().all(|backend| backend.member == 2));
    assert_eq!(world.ask(app, "rollback").last().unwrap(), "ready I");
    assert_eq!(world.ask(other, "rollback").last().unwrap(), "ready I");
}

#[test]
fn the_last_old_connection_is_closed_before_the_first_new_one_is_dialed() {
    let mut world = World::new();
    let app: [usize; 3] = world.clients();
    let other = [world.client_of(Role::Write, "other"), world.client_of(Role::Write, "other")];
    world.member("n1").slow = Some("t 1");
    for client in app.into_iter().chain(other) {
        world.query(client, "insert 1");
    }
    world.shell.journal.clear();
    world.promote("n2", 2);
    world.adopt(led("n2", 2, &[]));
    let last_end = world.shell.journal.iter().rposition(|(what, _)| *what == "abort").unwrap();
    let first_dial = world.shell.journal.iter().position(|(what, _)| *what != "abort").unwrap();
    assert!(last_end < first_dial, "{:?}", world.shell.journal);
    assert_eq!(last_end, 3);
    // The one that waited has not been sent anywhere before.
    assert_eq!(world.heard(app[2]), ["INSERT 0 1", "ready I"]);
}

// covers: hold_timeout
#[test]
fn the_hold_timeout_is_the_configurations() {
    let mut world = World::configured(|config| {
        if let Upstream::Patroni(patroni) = &mut config.upstream {
            patroni.hold_timeout = Duration::from_secs(3);
        }
    });
    let client = world.client();
    world.adopt(leaderless(&[]));
    world.query(client, "select 1");
    world.pass(Duration::from_secs(4));
    assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
}

/// Clients that keep their server connection between transactions: one in session pooling, one that is pinned.
fn tied() -> [(World, usize); 2] {
    let mut session = World::configured(|config| config.pool.mode = PoolMode::Session);
    let mut pinned = World::new();
    let [one, other] = [session.client(), pinned.client()];
    assert_eq!(session.ask(one, "select 0"), echo("select 0"));
    pinned.query(other, "listen news");
    assert!(pinned.heard(other).ends_with(&["ready I".to_owned()]));
    assert_eq!(pinned.snapshot().servers.iter().filter(|row| row.state == "active").count(), 1);
    for world in [&mut session, &mut pinned] {
        world.ran();
    }
    [(session, one), (pinned, other)]
}

#[test]
fn a_session_begins_nothing_on_a_leader_that_is_given_up() {
    for (mut world, client) in tied() {
        world.adopt(leaderless(&[]));
        world.query(client, "insert 1");
        world.pass(Duration::from_secs(20));
        assert_eq!((world.heard(client), world.ran()), (vec![], vec![]));
        world.adopt(led("n1", 1, &[]));
        assert_eq!(world.heard(client), ["INSERT 0 1", "ready I"]);
    }
    for (mut world, client) in tied() {
        world.adopt(leaderless(&[]));
        world.query(client, "insert 1");
        world.promote("n2", 2);
        world.adopt(led("n2", 2, &[]));
        assert_eq!(world.heard(client), ["FATAL 57P01"], "what it had there is lost");
        assert_eq!(world.ran(), [""; 0]);
    }
}

#[test]
fn a_session_ends_its_transaction_there() {
    for (mut world, client) in tied() {
        assert_eq!(world.ask(client, "begin"), ["BEGIN", "ready T"]);
        world.adopt(leaderless(&[]));
        assert_eq!(world.ask(client, "insert 1"), ["INSERT 0 1", "ready T"]);
        assert_eq!(world.ask(client, "commit"), ["COMMIT", "ready I"]);
        assert_eq!(world.ask(client, "select 2"), [""; 0]);
        world.adopt(led("n1", 1, &[]));
        assert_eq!(world.heard(client), echo("select 2"));
    }
}

#[test]
fn each_request_of_a_held_session_has_the_hold_s_limit() {
    for (mut world, client) in tied() {
        world.adopt(leaderless(&[]));
        world.send(client, [simple("select 1"), batch("select 2")].concat());
        for _ in 0..2 {
            world.pass(Duration::from_secs(59));
            assert_eq!(world.heard(client), [""; 0]);
            world.pass(Duration::from_secs(2));
            assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"]);
            assert!(world.error(client).contains("the leader is gone"), "{}", world.error(client));
        }
        world.query(client, "select 3");
        world.cancel(client);
        assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
        world.adopt(led("n1", 1, &[]));
        assert_eq!(world.ask(client, "select 4"), echo("select 4"));
        assert_eq!(world.ran(), ["n1: select 4"]);
    }
}

#[test]
fn a_held_session_is_told_read_up_to_a_buffer_and_missed_when_it_goes() {
    for (mut world, client) in tied() {
        let mut config = crate::settings::config();
        config.pool.query_wait_notify = Some(Duration::from_secs(5));
        world.order(Order::Configure(Arc::new(config)));
        world.adopt(leaderless(&[]));
        let request = simple(&"select 0".repeat(100));
        for _ in 0..200 {
            world.shell.speakers[client].outgoing.push_back(request.clone());
        }
        world.pass(Duration::from_secs(20));
        assert_eq!(world.heard(client), ["NOTICE 00000"], "once");
        assert!(world.shell.speakers[client].stopped);
        assert!(world.shell.speakers[client].outgoing.len() > 100);
        world.vanish(client);
        assert!(world.snapshot().clients.is_empty());
    }
}
