//! Members that do not let weir's user in, while others do, or for as long as a new leader is being put right.

use std::time::Duration;

use weir_protocol::sqlstate::SqlState;
use weir_worker::{Order, Role};

use crate::settings::{leaderless, led, size};
use crate::world::{Who, World, echo};

const LASTING: [SqlState; 4] = [
    SqlState::INVALID_AUTHORIZATION,
    SqlState::INVALID_PASSWORD,
    SqlState::INVALID_CATALOG_NAME,
    SqlState::INSUFFICIENT_PRIVILEGE,
];

fn readers<const N: usize>(world: &mut World) -> [Who; N] {
    std::array::from_fn(|_| world.client_of(Role::Read, "app"))
}

#[test]
fn a_replica_that_refuses_costs_nobody_anything_beside_a_good_one() {
    for code in LASTING {
        let mut world = World::configured(|config| config.pool.size = size(3));
        world.adopt(led("n1", 1, &["n3"]));
        let readers: [Who; 6] = readers(&mut world);
        for busy in &readers[..2] {
            assert_eq!(world.ask(*busy, "begin"), ["BEGIN", "ready T"]);
        }
        world.member("n2").refusal = Some(code);
        world.adopt(led("n1", 1, &["n2", "n3"]));
        for waits in &readers[2..] {
            world.query(*waits, "select 1");
        }
        world.pass(Duration::from_secs(1));
        for reader in &readers[2..] {
            assert_eq!(world.heard(*reader), echo("select 1"), "{code:?} {}", world.error(*reader));
        }
        assert!(readers.iter().all(|reader| world.is_open(*reader)));
    }
}

#[test]
fn nor_where_no_connection_is_open_yet() {
    let mut world = World::configured(|config| config.pool.size = size(2));
    let readers: [Who; 6] = readers(&mut world);
    world.member("n2").refusal = Some(SqlState::INVALID_AUTHORIZATION);
    world.adopt(led("n1", 1, &["n2", "n3"]));
    world.order(Order::Reconnect(None));
    for reader in readers {
        world.query(reader, "select 1");
    }
    world.pass(Duration::from_secs(1));
    for reader in readers {
        assert_eq!(world.heard(reader), echo("select 1"), "{}", world.error(reader));
    }
    let late = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(late, "select 2"), echo("select 2"));
}

#[test]
fn one_that_refuses_is_left_alone_for_a_while() {
    let mut world = World::configured(|config| config.pool.size = size(4));
    world.adopt(led("n1", 1, &["n3"]));
    world.member("n2").refusal = Some(SqlState::INVALID_AUTHORIZATION);
    let readers: [Who; 4] = readers(&mut world);
    world.adopt(led("n1", 1, &["n2", "n3"]));
    let before = world.last_pid();
    for reader in readers {
        world.query(reader, "begin");
    }
    world.pass(Duration::from_secs(14));
    let dialed = world.last_pid() - before;
    assert!(dialed <= 5, "{dialed} dials for four connections");
    // It lets weir in again, and gets its share in the end.
    world.member("n2").refusal = None;
    world.pass(Duration::from_secs(10));
    for reader in readers {
        assert!(world.ask(reader, "commit").ends_with(&["ready I".to_owned()]));
    }
    world.pass(Duration::from_secs(5));
    assert!(world.shell.backends.values().any(|backend| backend.member == 1));
}

#[test]
fn where_all_refuse_nobody_waits() {
    for code in LASTING {
        let mut world = World::new();
        let [first, later] = readers(&mut world);
        for name in ["n2", "n3"] {
            world.member(name).refusal = Some(code);
        }
        for pid in world.pids() {
            world.kill(pid, None);
        }
        let refused = [format!("FATAL {}", code.as_str())];
        assert_eq!(world.ask(first, "select 1"), refused);
        world.query(later, "select 1");
        world.pass(Duration::from_secs(1));
        assert_eq!(world.heard(later), refused);
    }
}

/// Clients that are held, and n2 follows, which does not let anybody in.
fn held<const N: usize>(world: &mut World, code: SqlState) -> [Who; N] {
    let clients = world.clients();
    world.adopt(leaderless(&[]));
    for client in clients {
        world.query(client, "select 1");
    }
    world.promote("n2", 2);
    world.member("n2").refusal = Some(code);
    world.adopt(led("n2", 2, &[]));
    clients
}

#[test]
fn a_new_leader_that_refuses_for_a_moment_is_waited_for() {
    let mut world = World::new();
    let clients: [Who; 5] = held(&mut world, SqlState::INVALID_AUTHORIZATION);
    world.pass(Duration::from_secs(10));
    let late = world.client();
    assert_eq!(world.ask(late, "select 1"), [""; 0]);
    world.member("n2").refusal = None;
    world.pass(Duration::from_secs(2));
    for client in clients.into_iter().chain([late]) {
        assert_eq!(world.heard(client), echo("select 1"), "{}", world.error(client));
    }
}

#[test]
fn not_longer_than_for_any_leader_and_its_words_are_told() {
    let mut world = World::new();
    let clients: [Who; 3] = held(&mut world, SqlState::INVALID_AUTHORIZATION);
    world.pass(Duration::from_secs(61));
    for client in clients {
        assert_eq!(world.heard(client), ["ERROR 57P03", "ready I"], "{}", world.error(client));
        assert!(world.error(client).contains("as the story asks"), "{}", world.error(client));
    }
    // By now it is what it is.
    world.query(clients[0], "select 2");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(clients[0]), ["FATAL 28000"]);
}

#[test]
fn a_wrong_password_is_one_on_every_leader() {
    let mut world = World::new();
    let clients: [Who; 3] = held(&mut world, SqlState::INVALID_PASSWORD);
    for client in clients {
        assert_eq!(world.heard(client), ["FATAL 28P01"]);
    }
}

#[test]
fn in_ordinary_times_nobody_waits_for_a_login_that_cannot_succeed() {
    for code in LASTING {
        let mut world = World::new();
        let client = world.client();
        world.member("n1").refusal = Some(code);
        world.kill(world.last_pid(), None);
        assert_eq!(world.ask(client, "select 1"), [format!("FATAL {}", code.as_str())]);
    }
}
