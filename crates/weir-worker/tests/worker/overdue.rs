//! Clients whose time is over: each limit ends what it is about and nothing else, general or for one user.

use std::time::Duration;

use weir_config::{Config, Limits, User};
use weir_discovery::Topology;
use weir_worker::Order;

use crate::settings::{leaderless, led, size};
use crate::world::{World, echo};

const LIMIT: Duration = Duration::from_secs(5);
const EARLY: Duration = Duration::from_secs(4);
const LATE: Duration = Duration::from_secs(3);

fn limited(change: impl FnOnce(&mut Limits)) -> World {
    World::configured(|config| change(&mut config.limits))
}

#[track_caller]
fn ended(world: &mut World, who: usize, code: &str, words: &str) {
    assert_eq!(world.heard(who), [format!("FATAL {code}")]);
    assert!(world.error(who).starts_with(&format!("{words}|")), "{}", world.error(who));
    assert!(!world.is_open(who));
}

// covers: query_timeout
#[test]
fn a_query_that_takes_too_long_is_cancelled_and_its_client_closed() {
    let mut world = limited(|limits| limits.query_timeout = Some(LIMIT));
    world.cancels_held = true;
    let [slow, idle, open] = world.clients();
    world.query(slow, "sleep 1");
    world.query(open, "begin");
    world.heard(open);
    world.pass(EARLY);
    assert!(world.heard(slow).is_empty() && world.is_open(slow));
    world.pass(LATE);
    ended(&mut world, slow, "57014", "query timeout");
    assert_eq!(world.shell.cancels.len(), 1, "PostgreSQL is told to stop");
    world.cancels_held = false;
    world.run();
    assert!(world.is_open(idle) && world.is_open(open), "they run no query");
    assert_eq!(world.ask(open, "commit").last().unwrap(), "ready I");
}

#[test]
fn a_queued_query_counts_as_well() {
    let mut world = World::configured(|config| {
        config.pool.size = size(1);
        config.limits.query_timeout = Some(LIMIT);
    });
    let [busy, waits] = world.clients();
    world.query(busy, "begin");
    world.query(waits, "select 1");
    world.pass(EARLY + LATE);
    ended(&mut world, waits, "57014", "query_timeout");
    assert!(world.is_open(busy));
}

// covers: client_idle_timeout
#[test]
fn a_client_that_rests_too_long_is_closed() {
    let mut world = limited(|limits| limits.client_idle_timeout = Some(LIMIT));
    let [idle, lively, open] = world.clients();
    world.query(open, "begin");
    world.heard(open);
    world.pass(EARLY);
    assert_eq!(world.ask(lively, "select 1"), echo("select 1"));
    world.pass(LATE);
    ended(&mut world, idle, "57P05", "client_idle_timeout");
    assert!(world.is_open(lively) && world.is_open(open));
}

#[test]
fn session_pooling_knows_idle_clients_too() {
    let mut world = World::configured(|config| {
        config.pool.mode = weir_config::PoolMode::Session;
        config.limits.client_idle_timeout = Some(LIMIT);
    });
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    world.pass(EARLY + LATE);
    ended(&mut world, client, "57P05", "client_idle_timeout");
    assert_eq!(world.pids().len(), 1, "the server connection is cleaned and kept");
}

// covers: idle_transaction_timeout
#[test]
fn a_transaction_that_rests_too_long_is_rolled_back() {
    let mut world = limited(|limits| limits.idle_transaction_timeout = Some(LIMIT));
    let [idle, forgotten, lively] = world.clients();
    for client in [forgotten, lively] {
        world.query(client, "begin");
        world.heard(client);
    }
    world.pass(EARLY);
    assert_eq!(world.ask(lively, "select 1")[1..], ["SELECT 1", "ready T"]);
    world.pass(LATE);
    ended(&mut world, forgotten, "25P03", "idle transaction timeout");
    assert!(world.is_open(idle) && world.is_open(lively));
    assert_eq!(world.pids().len(), 1, "PostgreSQL rolls back when its connection ends");
}

// covers: transaction_timeout
#[test]
fn a_transaction_that_takes_too_long_is_rolled_back() {
    let mut world = limited(|limits| limits.transaction_timeout = Some(LIMIT));
    let [busy, idle] = world.clients();
    world.query(busy, "begin");
    world.pass(EARLY);
    world.ask(busy, "select 1");
    world.pass(LATE);
    ended(&mut world, busy, "25P04", "transaction timeout");
    assert!(world.is_open(idle) && world.pids().is_empty());
}

// covers: users.client_idle_timeout
#[test]
fn users_have_limits_of_their_own() {
    let own = |user: User| {
        move |config: &mut Config| {
            config.limits.client_idle_timeout = Some(Duration::from_secs(1));
            config.users.insert("app".to_owned(), user);
        }
    };
    let mut world = World::configured(own(User { client_idle_timeout: Some(None), ..User::default() }));
    let unlimited = world.client();
    let other = world.client_of(weir_worker::Role::Write, "other");
    world.pass(LATE);
    assert!(world.is_open(unlimited) && !world.is_open(other));
    let patient = User { client_idle_timeout: Some(Some(LIMIT)), ..User::default() };
    let mut world = World::configured(own(patient));
    let client = world.client();
    world.pass(EARLY);
    assert!(world.is_open(client));
    world.pass(LATE);
    ended(&mut world, client, "57P05", "client_idle_timeout");
}

// covers: users.query_timeout users.idle_transaction_timeout users.transaction_timeout
#[test]
fn users_have_limits_of_their_own_on_what_they_run() {
    let own: [(User, &[&str], &str, &str); 3] = [
        (
            User { query_timeout: Some(Some(LIMIT)), ..User::default() },
            &["sleep 1"],
            "57014",
            "query timeout",
        ),
        (
            User { idle_transaction_timeout: Some(Some(LIMIT)), ..User::default() },
            &["begin"],
            "25P03",
            "idle transaction timeout",
        ),
        (
            User { transaction_timeout: Some(Some(LIMIT)), ..User::default() },
            &["begin", "sleep 1"],
            "25P04",
            "transaction timeout",
        ),
    ];
    for (user, statements, code, words) in own {
        let mut world = World::configured(|config| config.users.extend([("app".to_owned(), user)]));
        let limited = world.client();
        let other = world.client_of(weir_worker::Role::Write, "other");
        for client in [limited, other] {
            for sql in statements {
                world.query(client, sql);
            }
            world.heard(client);
        }
        world.pass(EARLY);
        assert!(world.is_open(limited), "{words}");
        world.pass(LATE);
        ended(&mut world, limited, code, words);
        assert!(world.is_open(other), "{words} is the first user's only");
    }
}

#[test]
fn a_new_configuration_brings_its_limits_at_once() {
    let mut world = World::new();
    let client = world.client();
    world.pass(LIMIT);
    let mut config = crate::settings::config();
    config.limits.client_idle_timeout = Some(Duration::from_secs(1));
    world.order(Order::Configure(std::sync::Arc::new(config)));
    world.pass(Duration::from_secs(1));
    ended(&mut world, client, "57P05", "client_idle_timeout");
}

#[test]
fn idle_clocks_stand_still_during_a_hold() {
    let mut world = limited(|limits| {
        limits.client_idle_timeout = Some(LIMIT);
        limits.idle_transaction_timeout = Some(LIMIT);
    });
    let [idle, open] = world.clients();
    world.query(open, "begin");
    world.heard(open);
    world.pass(Duration::from_secs(2));
    world.adopt(leaderless(&[]));
    world.pass(Duration::from_secs(30));
    assert!(world.is_open(idle) && world.is_open(open));
    world.adopt(led("n1", 1, &[]));
    world.pass(Duration::from_millis(1500));
    assert!(world.is_open(idle) && world.is_open(open), "two seconds before, two behind");
    world.pass(LATE + LATE);
    ended(&mut world, idle, "57P05", "client_idle_timeout");
    ended(&mut world, open, "25P03", "idle transaction timeout");
}

/// Clients wait through a hold of any kind, and for a moment behind it: only that counts.
#[test]
fn a_hold_counts_for_no_limit_of_a_wait() {
    let limits: [fn(&mut Config); 3] = [
        |config| config.limits.query_timeout = Some(LIMIT),
        |config| config.pool.query_wait_timeout = Some(LIMIT),
        |config| {
            let user = User { query_wait_timeout: Some(Some(LIMIT)), ..User::default() };
            config.users.insert("app".to_owned(), user);
            config.any_database.get_or_insert_default().user = Some("auth".to_owned());
        },
    ];
    let planned = Topology { planned: Some("a switchover".to_owned()), ..led("n1", 1, &[]) };
    for (limit, hold) in limits.iter().flat_map(|limit| [(limit, leaderless(&[])), (limit, planned.clone())])
    {
        let mut world = World::configured(|config| {
            config.pool.size = size(1);
            limit(config);
        });
        let clients: [usize; 3] = world.clients();
        world.adopt(hold);
        for client in clients {
            world.query(client, "select 1");
        }
        world.pass(Duration::from_secs(20));
        world.dials_held = true;
        world.promote("n2", 2);
        world.adopt(led("n2", 2, &[]));
        world.pass(EARLY);
        world.dials_held = false;
        world.run();
        for client in clients {
            assert_eq!(world.heard(client), echo("select 1"), "{}", world.error(client));
        }
        assert_eq!(world.ask(clients[0], "begin"), ["BEGIN", "ready T"]);
        world.query(clients[1], "select 2");
        world.pass(EARLY + LATE);
        assert!(!world.is_open(clients[1]), "a busy pool is no hold");
    }
}

#[test]
fn waits_have_limits_by_database_and_user() {
    let queue = |world: &mut World| {
        let [busy, waits] = world.clients();
        world.query(busy, "begin");
        world.query(waits, "select 1");
        world.pass(LATE);
        waits
    };
    let mut world = World::configured(|config| {
        config.pool.size = size(1);
        config.any_database.get_or_insert_default().query_wait_timeout = Some(Some(Duration::from_secs(1)));
    });
    let waits = queue(&mut world);
    ended(&mut world, waits, "08P01", "query_wait_timeout");
    let mut world = World::configured(|config| {
        config.pool.size = size(1);
        config.any_database.get_or_insert_default().query_wait_timeout = Some(Some(Duration::from_secs(1)));
        let user = User { query_wait_timeout: Some(None), ..User::default() };
        config.users.insert("app".to_owned(), user);
    });
    let waits = queue(&mut world);
    assert!(world.is_open(waits));
}

// covers: query_wait_notify
#[test]
fn a_queued_client_is_told_so_once() {
    let mut world = World::configured(|config| {
        config.pool.size = size(1);
        config.pool.query_wait_notify = Some(LIMIT);
    });
    let [busy, waits] = world.clients();
    world.query(busy, "begin");
    world.heard(busy);
    for _ in 0..2 {
        world.query(waits, "select 1");
        world.pass(EARLY);
        assert_eq!(world.heard(waits), [""; 0]);
        world.pass(LATE + LIMIT + LIMIT);
        assert_eq!(world.heard(waits), ["NOTICE 00000"]);
        assert_eq!(world.ask(busy, "commit").last().unwrap(), "ready I");
        assert_eq!(world.heard(waits), echo("select 1"));
        world.ask(busy, "begin");
    }
}

#[test]
fn a_held_client_is_told_what_it_waits_for() {
    let mut world = World::configured(|config| config.pool.query_wait_notify = Some(LIMIT));
    let writer = world.client();
    let reader = world.client_of(weir_worker::Role::Read, "app");
    for (who, words) in
        [(writer, "waiting for a new leader|"), (reader, "waiting for a member that may serve reads|")]
    {
        world.adopt(leaderless(&[]));
        world.query(who, "select 1");
        world.pass(EARLY);
        assert_eq!(world.heard(who), [""; 0]);
        world.pass(LATE + LIMIT + LIMIT);
        assert_eq!(world.heard(who), ["NOTICE 00000"], "once");
        let told = world.error(who);
        assert!(
            told.starts_with(words) && told.contains("the leader is gone") && told.contains("#1"),
            "{told}"
        );
        world.adopt(led("n1", 1, &["n2"]));
        assert_eq!(world.heard(who), echo("select 1"));
    }
}

// covers: client_login_timeout
#[test]
fn a_login_has_a_limit_unless_it_is_zero() {
    let begun = |limit: Duration| {
        let mut world = limited(|limits| limits.client_login_timeout = limit);
        let silent = world.connect(weir_worker::Role::Write);
        world.pass(EARLY + LATE);
        (world, silent)
    };
    let (mut world, silent) = begun(LIMIT);
    assert_eq!(world.heard(silent), ["FATAL 57P03"]);
    assert!(world.error(silent).starts_with("client_login_timeout|"));
    let (world, silent) = begun(Duration::ZERO);
    assert!(world.is_open(silent));
}
