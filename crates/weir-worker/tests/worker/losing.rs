//! Server connections that die under their clients.

use std::time::Duration;

use weir_config::PoolMode;
use weir_discovery::{GivenUp, SessionEvidence, Topology};
use weir_protocol::sqlstate::SqlState;
use weir_worker::Role;

use crate::settings::{address, leaderless, led, size};
use crate::world::{World, batch, echo, simple};

/// Longer than a request rests before it is sent once more.
const REST: Duration = Duration::from_millis(200);

/// A client with a statement under way, and the server connection that runs it.
fn under_way(world: &mut World, bytes: Vec<u8>) -> (usize, u32) {
    let client = world.client();
    world.member("n1").slow = Some("t 1");
    world.send(client, bytes);
    world.member("n1").slow = None;
    world.heard(client);
    let asleep = world.shell.backends.values().find(|backend| backend.asleep.is_some());
    (client, asleep.expect("the statement is under way").pid)
}

#[test]
fn a_statement_that_was_rolled_back_is_sent_once_more() {
    for bytes in [simple("select 1"), batch("select 1")] {
        let mut world = World::new();
        let (client, pid) = under_way(&mut world, bytes);
        world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
        assert!(world.ran().is_empty(), "the next connection may die as well");
        world.pass(REST);
        let heard = world.heard(client);
        assert!(heard.ends_with(&echo("select 1")), "{heard:?}");
        assert_eq!(world.ran(), ["n1: select 1"]);
        let fatal = SessionEvidence::Fatal { address: address("n1"), code: *b"57P01" };
        assert!(world.shell.evidence.contains(&fatal));
        assert_eq!(world.snapshot().pools[0].stats.retries, 1);
    }
}

// covers: retry_bytes_max
#[test]
fn what_is_longer_than_weir_keeps_is_not_sent_again() {
    for (retry_bytes_max, heard) in
        [(64, &echo("select 1")[..]), (8, &["ERROR 08007", "ready I"].map(str::to_owned))]
    {
        let mut world = World::configured(|config| config.limits.retry_bytes_max = retry_bytes_max);
        let (client, pid) = under_way(&mut world, simple("select 1"));
        world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
        world.pass(REST);
        assert_eq!(world.heard(client), heard, "{retry_bytes_max}");
    }
}

#[test]
fn a_server_that_ends_all_of_its_connections_costs_no_request() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("select 1"));
    let other = world.client();
    assert_eq!(world.ask(other, "select 2"), echo("select 2"));
    world.ran();
    let idle: Vec<u32> = world.pids().into_iter().filter(|other| *other != pid).collect();
    assert!(!idle.is_empty(), "there is one that the request could be sent to");
    world.member("n1").slow = Some("t 1");
    for pid in [pid].into_iter().chain(idle) {
        world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    }
    world.member("n1").slow = None;
    world.pass(REST);
    assert_eq!(world.heard(client), echo("select 1"));
    assert_eq!(world.ran(), ["n1: select 1"]);
}

#[test]
fn who_rests_can_be_canceled_and_can_leave() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("select 1"));
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    crate::showing::agree(&world.snapshot());
    world.cancel(client);
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    world.pass(REST);
    assert_eq!(world.ran(), [""; 0]);
    let (client, pid) = under_way(&mut world, simple("select 1"));
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    world.vanish(client);
    world.pass(REST);
    assert_eq!(world.ran(), [""; 0]);
}

#[test]
fn a_second_loss_is_told() {
    let mut world = World::new();
    let (client, first) = under_way(&mut world, simple("select 1"));
    world.member("n1").slow = Some("t 1");
    world.kill(first, Some(SqlState::ADMIN_SHUTDOWN));
    world.pass(REST);
    let [second] = world.pids()[..] else { panic!("one connection") };
    world.kill(second, Some(SqlState::ADMIN_SHUTDOWN));
    assert_eq!(world.heard(client), ["ERROR 08007", "ready I"]);
    assert_eq!(world.ran(), [""; 0]);
}

#[test]
fn what_waits_behind_a_repeated_request_stays_behind_it() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let (client, pid) = under_way(&mut world, simple("select 1"));
    let piece = simple("select 2");
    world.send(client, piece[..7].to_vec());
    world.dials_held = true;
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    world.send(client, piece[7..].to_vec());
    world.send(client, simple("select 3"));
    world.pass(REST);
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(client), [echo("select 1"), echo("select 2"), echo("select 3")].concat());
    assert_eq!(world.ran(), ["n1: select 1", "n1: select 2", "n1: select 3"]);
}

#[test]
fn a_request_whose_end_nobody_saw_is_in_doubt() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("sleep 1"));
    world.kill(pid, None);
    assert_eq!(world.heard(client), ["ERROR 08007", "ready I"]);
    assert!(world.shell.evidence.contains(&SessionEvidence::Lost { address: address("n1") }));
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn a_repeatable_statement_without_last_words_is_in_doubt_too() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("insert 1"));
    world.kill(pid, None);
    assert_eq!(world.heard(client), ["ERROR 08007", "ready I"]);
    assert_eq!(world.snapshot().pools[0].stats.in_doubt, 1);
}

#[test]
fn an_open_transaction_is_rolled_back_and_its_rest_never_runs() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "begin");
    world.query(client, "insert 1");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.heard(client);
    world.ran();
    world.kill(pid, None);
    assert_eq!(world.heard(client), [""; 0], "nothing unasked for");
    assert_eq!(world.ask(client, "insert 2"), ["ERROR 40001", "ready E"]);
    assert_eq!(world.ask(client, "insert 3"), ["ERROR 25P02", "ready E"]);
    assert_eq!(world.ask(client, "rollback"), ["ROLLBACK", "ready I"]);
    assert_eq!(world.ran(), [""; 0]);
    assert_eq!(world.ask(client, "insert 4"), ["INSERT 0 1", "ready I"]);
}

#[test]
fn a_statement_under_way_in_a_transaction_hears_it_at_once() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "begin");
    world.query(client, "sleep 1");
    world.heard(client);
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    assert_eq!(world.heard(client), ["ERROR 40001", "ready E"]);
}

#[test]
fn what_was_read_before_the_loss_became_known_counts_as_not_sent() {
    let mut world = World::new();
    let client = world.client();
    let [pid] = world.pids()[..] else { panic!("one connection") };
    // The last words of an idle connection.
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    assert_eq!(world.ask(client, "sleep 1"), [""; 0]);
    world.wake("sleep 1");
    assert_eq!(world.heard(client), echo("sleep 1"));
}

#[test]
fn last_words_that_came_with_a_reply_spare_the_next_client() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [one, two] = world.clients();
    world.query(one, "sleep 1");
    world.query(two, "select 2");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    // The end of the reply and the FATAL arrive in one read.
    let at = world.members.iter().position(|member| member.name == "n1").unwrap();
    let member = world.members[at].clone();
    let mut executed = Vec::new();
    let backend = world.backend(pid);
    backend.wake(&member, &mut executed);
    backend.die(SqlState::ADMIN_SHUTDOWN);
    world.run();
    assert_eq!(world.heard(one), echo("sleep 1"));
    assert_eq!(world.heard(two), echo("select 2"));
    assert_eq!(world.ran(), ["n1: select 2"]);
    assert_ne!(world.pids(), [pid]);
}

#[test]
fn a_session_dies_with_its_connection() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    let [used, fresh] = world.clients();
    world.query(used, "select 1");
    world.heard(used);
    for pid in world.pids() {
        world.kill(pid, None);
    }
    assert_eq!(world.heard(used), ["FATAL 57P01"]);
    assert!(!world.is_open(used));
    assert_eq!(world.ask(fresh, "select 2"), echo("select 2"));
}

#[test]
fn half_a_reply_closes_the_client() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    let conn = world.conn_of(pid).unwrap();
    let mut reply = Vec::new();
    weir_protocol::backend::data_row(&[Some(&[b'x'; 100_000])], &mut reply);
    world.turn(|worker, now, effects| worker.received(now, conn, &reply[..70_000], effects));
    world.kill(pid, None);
    assert!(!world.is_open(client));
}

#[test]
fn a_read_is_repeated_on_another_replica_however_it_was_lost() {
    let mut world = World::led_by(led("n1", 1, &["n2"]));
    let client = world.client_of(Role::Read, "app");
    world.member("n2").slow = Some("select");
    world.query(client, "select 1");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.adopt(led("n1", 1, &["n3"]));
    world.kill(pid, None);
    world.pass(REST);
    assert_eq!(world.heard(client), echo("select 1"));
    assert_eq!(world.ran(), ["n3: select 1"]);
}

#[test]
fn a_repeated_request_waits_for_the_next_leader() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("select 1"));
    world.member("n1").up = false;
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    world.adopt(leaderless(&[]));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.heard(client), [""; 0]);
    world.promote("n3", 2);
    world.adopt(led("n3", 2, &[]));
    assert_eq!(world.heard(client), echo("select 1"));
    assert_eq!(world.ran(), ["n3: select 1"]);
}

#[test]
fn a_fatal_of_another_kind_is_in_doubt() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("select 1"));
    world.kill(pid, Some(SqlState::CRASH_SHUTDOWN));
    assert_eq!(world.heard(client), ["ERROR 08007", "ready I"]);
}

/// What the client's last error says of a failover.
fn failover_named(world: &World, client: usize) -> Option<String> {
    let (_, rest) = world.error(client).split_once("failover #")?;
    rest.split(' ').next().map(str::to_owned)
}

/// A world with two clients in a transaction each, and their server connections.
fn two_in_transactions() -> (World, [usize; 2], [u32; 2]) {
    let mut world = World::new();
    let clients = world.clients();
    for client in clients {
        world.query(client, "begin");
        world.query(client, "insert 1");
        world.heard(client);
    }
    let pids = world.pids().try_into().unwrap();
    (world, clients, pids)
}

#[test]
fn a_loss_that_a_failover_begins_with_is_named_after_it_once_it_is_known() {
    let (mut world, [one, other], _) = two_in_transactions();
    let lived_at = Some(world.now);
    world.pass(Duration::from_millis(100));
    world.crash("n1");
    assert_eq!(world.ask(one, "insert 2"), ["ERROR 40001", "ready E"]);
    assert_eq!(failover_named(&world, one), None, "nobody knows of one yet");
    world.pass(Duration::from_secs(1));
    world.adopt(Topology { given_up: Some(GivenUp { epoch_number: 1, lived_at }), ..leaderless(&[]) });
    assert_eq!(world.ask(other, "insert 2"), ["ERROR 40001", "ready E"]);
    assert!(world.error(other).contains("gave no sign of life afterwards"), "{}", world.error(other));
    assert_eq!(failover_named(&world, other).as_deref(), Some("1"));
}

#[test]
fn a_loss_is_named_after_a_failover_by_evidence_and_not_by_time() {
    // When the leader was last known to live, counted from the loss in tenths of a second; whose end it is; the name.
    let cases: [(Option<i32>, u64, Option<&str>); 5] = [
        (Some(-1), 1, Some("1")),
        (Some(0), 1, Some("1")),
        // An operator ended the session, and its PostgreSQL lived on.
        (Some(1), 1, None),
        // Nobody watched it.
        (None, 1, None),
        // Another reign.
        (Some(-1), 7, None),
    ];
    for (lived, epoch_number, named) in cases {
        for is_replaced_at_once in [false, true] {
            let (mut world, [client, _], [pid, _]) = two_in_transactions();
            let tenths = |count: i32| Duration::from_millis(100 * u64::from(count.unsigned_abs()));
            let before = world.now;
            world.pass(tenths(1));
            world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
            let lived_at = lived.map(|lived| if lived < 0 { before } else { world.now + tenths(lived) });
            world.pass(tenths(20));
            let given_up = Some(GivenUp { epoch_number, lived_at });
            let next = if is_replaced_at_once { led("n2", 2, &[]) } else { leaderless(&[]) };
            world.adopt(Topology { given_up, ..next });
            assert_eq!(world.ask(client, "insert 2"), ["ERROR 40001", "ready E"]);
            assert_eq!(failover_named(&world, client).as_deref(), named, "{lived:?} {epoch_number}");
        }
    }
}

#[test]
fn a_failover_is_named_once_however_often_its_client_lost_something() {
    let mut world = World::new();
    let [client] = world.clients();
    let lived_at = Some(world.now);
    for round in 0..3 {
        world.ask(client, "begin");
        world.kill(world.last_pid(), None);
        if round < 2 {
            world.ask(client, "rollback");
        }
    }
    world.adopt(Topology { given_up: Some(GivenUp { epoch_number: 1, lived_at }), ..leaderless(&[]) });
    assert_eq!(world.ask(client, "select 1"), ["ERROR 40001", "ready E"]);
    assert_eq!(world.error(client).matches("failover #1").count(), 1, "{}", world.error(client));
}

#[test]
fn a_loss_during_a_failover_names_it() {
    for holds in [false, true] {
        let mut world = World::new();
        let [busy, open] = world.clients();
        world.query(busy, "sleep 1");
        world.query(open, "begin");
        world.query(open, "insert 1");
        world.heard(open);
        if holds {
            world.adopt(leaderless(&[]));
        }
        world.promote("n2", 2);
        world.adopt(led("n2", 2, &[]));
        assert_eq!(world.heard(busy), ["ERROR 08007", "ready I"]);
        assert_eq!(failover_named(&world, busy).as_deref(), Some("1"));
        assert_eq!(world.ask(open, "commit"), ["ERROR 40001", "ready I"]);
        assert_eq!(failover_named(&world, open).as_deref(), Some("1"));
        assert_eq!(world.snapshot().pools[0].stats.in_doubt, 1);
        assert_eq!(world.snapshot().pools[0].stats.transactions_lost, 1);
        // What is lost later belongs to no failover.
        world.query(busy, "sleep 2");
        let pid = world.pids().into_iter().find(|pid| world.shell.backends[pid].asleep.is_some());
        world.kill(pid.unwrap(), None);
        assert_eq!(world.heard(busy), ["ERROR 08007", "ready I"]);
        assert_eq!(failover_named(&world, busy), None);
    }
}

#[test]
fn what_was_queued_behind_a_lost_request_is_answered_in_order() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let (client, pid) = under_way(&mut world, [simple("select 1"), simple("select 2")].concat());
    world.kill(pid, None);
    let heard = world.heard(client);
    assert_eq!(heard.iter().filter(|line| *line == "ready I").count(), 2, "{heard:?}");
    assert_eq!(world.ask(client, "select 3"), echo("select 3"));
}

#[test]
fn a_refusal_ends_what_was_to_be_sent_once_more() {
    let mut world = World::new();
    let (client, pid) = under_way(&mut world, simple("select 1"));
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    world.cancel(client);
    assert_eq!(world.heard(client), ["ERROR 57014", "ready I"]);
    world.member("n1").slow = Some("t 2");
    world.query(client, "select 2");
    world.member("n1").slow = None;
    let asleep = world.shell.backends.values().find(|backend| backend.asleep.is_some()).unwrap().pid;
    world.kill(asleep, Some(SqlState::ADMIN_SHUTDOWN));
    world.pass(REST);
    assert_eq!(world.heard(client), echo("select 2"), "{}", world.error(client));
}
