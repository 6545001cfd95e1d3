//! Limits on connections: of pools, of databases, of users, of hosts; sizes; who gets a slot; what a reload changes.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{Config, Database, PoolMode, UNLIMITED, User};
use weir_worker::{Order, Role};

use crate::settings::{self, PASSWORD, led, size};
use crate::world::{Who, World, echo};

fn configured(change: impl FnOnce(&mut Config)) -> (World, Config) {
    let mut config = settings::config();
    change(&mut config);
    (World::configured(|own| *own = config.clone()), config)
}

fn enter(world: &mut World, user: &str, database: &str) -> Who {
    let who = world.hello_with(Role::Write, &[("user", user), ("database", database)], PASSWORD);
    world.run();
    assert_eq!(world.heard(who), ["ready I"], "{}", world.error(who));
    who
}

fn refused(world: &mut World, user: &str, database: &str) -> String {
    let who = world.hello_with(Role::Write, &[("user", user), ("database", database)], PASSWORD);
    world.run();
    assert_eq!(world.heard(who), ["FATAL 53300"]);
    world.error(who).split('|').next().unwrap_or_default().to_owned()
}

/// A client in a transaction.
fn busy(world: &mut World, user: &str, database: &str) -> Who {
    let who = enter(world, user, database);
    assert_eq!(world.ask(who, "begin"), ["BEGIN", "ready T"], "{}", world.error(who));
    who
}

fn reload(world: &mut World, config: &mut Config, change: impl FnOnce(&mut Config)) {
    change(config);
    world.order(Order::Configure(Arc::new(config.clone())));
}

/// Users of the server connections, oldest first.
fn server_users(world: &mut World) -> Vec<String> {
    let pids = world.pids();
    let user = |pid| {
        let startup = &world.backend(pid).startup;
        startup.iter().find(|(name, _)| name == "user").map(|(_, user)| user.clone()).unwrap()
    };
    pids.into_iter().map(user).collect()
}

// covers: max_db_connections
#[test]
fn users_of_a_database_share_its_limit_and_idle_connections_make_room() {
    let (mut world, _) = configured(|config| config.limits.max_db_connections = 1);
    let app = enter(&mut world, "app", "mrg");
    let other = enter(&mut world, "other", "mrg");
    assert_eq!(server_users(&mut world), ["other"], "the idle one had to go");
    assert_eq!(world.ask(app, "begin"), ["BEGIN", "ready T"]);
    assert_eq!(server_users(&mut world), ["app"]);
    world.query(other, "select 1");
    assert_eq!(world.heard(other), [""; 0], "a busy one stays");
    world.query(app, "commit");
    assert_eq!(world.heard(other), echo("select 1"));
    enter(&mut world, "app", "second");
    assert_eq!(world.pids().len(), 2, "another database has a limit of its own");
}

// covers: databases.max_db_connections
#[test]
fn a_database_may_have_its_own_limit() {
    let (mut world, mut config) = configured(|config| {
        let own = Database { max_db_connections: Some(3), ..Database::default() };
        config.databases.insert("mrg".to_owned(), own);
        config.limits.max_db_connections = 1;
    });
    for user in ["app", "app", "other"] {
        busy(&mut world, user, "mrg");
    }
    assert_eq!(world.pids().len(), 3);
    let waiting = enter(&mut world, "other", "mrg");
    assert_eq!(world.ask(waiting, "select 1"), [""; 0]);
    reload(&mut world, &mut config, |config| {
        config.databases.get_mut("mrg").unwrap().max_db_connections = None
    });
    reload(&mut world, &mut config, |config| config.limits.max_db_connections = 4);
    assert_eq!(world.heard(waiting), echo("select 1"));
}

// covers: max_user_connections users.max_user_connections
#[test]
fn a_users_limit_holds_over_all_databases() {
    let (mut world, _) = configured(|config| {
        config.limits.max_user_connections = 2;
        config.users.insert("other".to_owned(), User { max_user_connections: Some(1), ..User::default() });
    });
    busy(&mut world, "app", "mrg");
    busy(&mut world, "app", "second");
    busy(&mut world, "other", "second");
    assert_eq!(world.pids().len(), 3);
    for user in ["app", "other"] {
        let waiting = world.hello_with(Role::Write, &[("user", user), ("database", "third")], PASSWORD);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.heard(waiting), [""; 0], "{user} has had all");
    }
    assert_eq!(world.pids().len(), 3);
}

// covers: max_host_connections
#[test]
fn a_host_has_a_limit_over_everything_that_leads_there() {
    let (mut world, _) = configured(|config| {
        config.limits.max_host_connections = 2;
        config.pool.size = size(9);
    });
    let one = busy(&mut world, "app", "mrg");
    let two = busy(&mut world, "other", "second");
    let mut queue = Vec::new();
    // n1 serves what is written; what is read is on the other hosts.
    let reader = world.client_of(Role::Read, "app");
    assert_eq!(world.ask(reader, "select 0"), echo("select 0"));
    let readers = world.pids().len() - 2;
    for user in ["other", "app", "other"] {
        world.pass(Duration::from_millis(100));
        queue.push(world.hello_with(Role::Write, &[("user", user), ("database", "mrg")], PASSWORD));
        world.run();
    }
    assert_eq!(world.heard(queue[1]), ["ready I"], "its pool is known");
    world.query(queue[1], "begin");
    assert_eq!(world.pids().len(), 2 + readers);
    assert_eq!(world.heard(queue[0]), [""; 0]);
    world.query(two, "commit");
    assert_eq!(world.heard(queue[0]), ["ready I"], "who came first is served first");
    assert_eq!(world.heard(queue[2]), ["ready I"], "of the same pool");
    assert_eq!(world.heard(queue[1]), ["BEGIN", "ready T"], "the connection is idle, and makes room");
    world.query(one, "commit");
    assert_eq!(world.pids().len(), 2 + readers);
}

// covers: max_db_client_connections max_user_client_connections
// covers: databases.max_db_client_connections users.max_user_client_connections
#[test]
fn clients_of_a_database_and_of_a_user_are_limited() {
    let (mut world, mut config) = configured(|config| {
        config.limits.max_db_client_connections = 2;
        config.limits.max_user_client_connections = 3;
        let own = Database { max_db_client_connections: Some(1), ..Database::default() };
        config.databases.insert("small".to_owned(), own);
        config
            .users
            .insert("other".to_owned(), User { max_user_client_connections: Some(1), ..User::default() });
    });
    let database_full = "client connections exceeded (max_db_client_connections)";
    let user_full = "client connections exceeded (max_user_client_connections)";
    enter(&mut world, "app", "small");
    assert_eq!(refused(&mut world, "app", "small"), database_full);
    let first = enter(&mut world, "app", "mrg");
    enter(&mut world, "other", "mrg");
    assert_eq!(refused(&mut world, "app", "mrg"), database_full);
    assert_eq!(refused(&mut world, "other", "second"), user_full);
    enter(&mut world, "app", "second");
    assert_eq!(refused(&mut world, "app", "second"), user_full);
    world.vanish(first);
    enter(&mut world, "app", "mrg");
    reload(&mut world, &mut config, |config| config.limits.max_user_client_connections = 0);
    enter(&mut world, "app", "second");
    assert_eq!(refused(&mut world, "app", "second"), database_full);
}

#[test]
fn no_limit_on_clients_at_all_is_possible() {
    let (mut world, _) = configured(|config| config.limits.max_client_conn = 0);
    let [client] = world.clients();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

// covers: databases.pool_size users.pool_size users.pool_mode
#[test]
fn a_users_pool_size_and_mode_come_before_the_databases() {
    let (mut world, mut config) = configured(|config| {
        let own = Database {
            pool_size: Some(size(1)),
            pool_mode: Some(PoolMode::Transaction),
            ..Database::default()
        };
        config.databases.insert("mrg".to_owned(), own);
        let user = User { pool_size: Some(size(3)), pool_mode: Some(PoolMode::Session), ..User::default() };
        config.users.insert("app".to_owned(), user);
    });
    let session = enter(&mut world, "app", "mrg");
    assert_eq!(world.ask(session, "select 1"), echo("select 1"));
    for _ in 0..2 {
        let other = enter(&mut world, "app", "mrg");
        assert_eq!(world.ask(other, "select 1"), echo("select 1"), "its session has a connection of its own");
    }
    assert_eq!(world.pids().len(), 3);
    busy(&mut world, "other", "mrg");
    let waiting = enter(&mut world, "other", "mrg");
    assert_eq!(world.ask(waiting, "select 1"), [""; 0]);
    reload(&mut world, &mut config, |config| {
        config.databases.get_mut("mrg").unwrap().pool_size = Some(UNLIMITED);
    });
    assert_eq!(world.heard(waiting), echo("select 1"));
}

#[test]
fn a_pool_without_a_size_grows_with_its_clients() {
    let (mut world, _) = configured(|config| config.pool.size = UNLIMITED);
    for _ in 0..40 {
        busy(&mut world, "app", "mrg");
    }
    assert_eq!(world.pids().len(), 40);
    assert_eq!(world.snapshot().pools[0].pool_size, 0);
}

// covers: reserve_pool_timeout users.reserve_pool_size
#[test]
fn the_reserve_is_for_who_has_waited_long() {
    let (mut world, _) = configured(|config| {
        config.pool.size = size(1);
        config.pool.reserve_size = 5;
        config.pool.reserve_timeout = Some(Duration::from_secs(3));
        let user = User { reserve_pool_size: Some(1), ..User::default() };
        config.users.insert("app".to_owned(), user);
        config.pool.server_idle_timeout = Some(Duration::from_secs(60));
    });
    let [first, second, third] = world.clients();
    world.query(first, "begin");
    world.query(second, "begin");
    world.pass(Duration::from_millis(2800));
    assert_eq!(world.heard(second), [""; 0]);
    world.pass(Duration::from_millis(300));
    assert_eq!(world.heard(second), ["BEGIN", "ready T"]);
    world.query(third, "select 3");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.heard(third), [""; 0], "the user's reserve is one");
    world.query(first, "commit");
    world.query(second, "commit");
    assert_eq!(world.pids().len(), 2);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.pids().len(), 0);
}

// covers: reserve_pool_size databases.reserve_pool_size databases.reserve_pool
#[test]
fn each_database_may_have_a_reserve_of_its_own() {
    let (mut world, _) = configured(|config| {
        config.pool.size = size(1);
        config.pool.reserve_size = 1;
        config.pool.reserve_timeout = Some(Duration::from_secs(1));
        for (name, reserve) in [("larger", 2), ("none", 0)] {
            let own = Database { reserve_pool_size: Some(reserve), ..Database::default() };
            config.databases.insert(name.to_owned(), own);
        }
    });
    for (database, expected) in [("mrg", 2), ("larger", 3), ("none", 1)] {
        let before = world.pids().len();
        for _ in 0..4 {
            let client = enter(&mut world, "app", database);
            world.query(client, "begin");
        }
        world.pass(Duration::from_secs(10));
        assert_eq!(world.pids().len() - before, expected, "{database}");
    }
}

// covers: min_pool_size databases.min_pool_size
#[test]
fn a_least_number_is_kept_while_there_is_a_client() {
    let (mut world, mut config) = configured(|config| {
        config.pool.min_size = 2;
        config.pool.server_idle_timeout = Some(Duration::from_secs(60));
        config
            .databases
            .insert("none".to_owned(), Database { min_pool_size: Some(0), ..Database::default() });
    });
    world.pass(Duration::from_secs(1));
    assert_eq!(world.pids().len(), 0, "nobody has use for it");
    let client = enter(&mut world, "app", "mrg");
    enter(&mut world, "other", "none");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.pids().len(), 3);
    world.pass(Duration::from_secs(120));
    assert_eq!(server_users(&mut world), ["app", "app"]);
    world.vanish(client);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.pids().len(), 0);
    enter(&mut world, "app", "mrg");
    reload(&mut world, &mut config, |config| config.pool.min_size = 0);
    world.pass(Duration::from_secs(120));
    assert_eq!(world.pids().len(), 0, "a reload counts at once");
}

#[test]
fn a_fixed_user_needs_no_client_for_it_but_a_secret() {
    for (password, expected) in [(Some(PASSWORD.into()), 2), (None, 0)] {
        let (mut world, _) = configured(|config| {
            let kept = Database {
                user: Some("app".to_owned()),
                password,
                min_pool_size: Some(2),
                ..Database::default()
            };
            config.databases.insert("kept".to_owned(), kept);
        });
        world.pass(Duration::from_secs(1));
        assert_eq!(world.pids().len(), expected);
    }
}

// covers: server_round_robin
#[test]
fn connections_are_used_in_turn_if_asked() {
    for (round_robin, expected) in [(false, 1), (true, 2)] {
        let (mut world, _) = configured(|config| config.pool.round_robin = round_robin);
        let clients = [busy(&mut world, "app", "mrg"), busy(&mut world, "app", "mrg")];
        for client in clients {
            world.query(client, "commit");
        }
        world.heard(clients[0]);
        let mut used = std::collections::BTreeSet::new();
        for _ in 0..4 {
            world.query(clients[0], "sleep 1");
            let pids = world.pids();
            used.extend(pids.into_iter().filter(|pid| world.backend(*pid).asleep.is_some()));
            world.wake("sleep 1");
        }
        assert_eq!(used.len(), expected, "round robin: {round_robin}");
    }
}

// covers: databases.pool_mode
#[test]
fn a_databases_mode_comes_before_the_general_one() {
    let (mut world, _) = configured(|config| {
        let own = Database { pool_mode: Some(PoolMode::Session), ..Database::default() };
        config.databases.insert("tied".to_owned(), own);
    });
    for (database, connections) in [("mrg", 1), ("tied", 2)] {
        let before = world.pids().len();
        for _ in 0..2 {
            let client = enter(&mut world, "app", database);
            assert_eq!(world.ask(client, "select 1"), echo("select 1"));
        }
        assert_eq!(world.pids().len() - before, connections, "{database}");
    }
}

// covers: databases.server_lifetime
#[test]
fn a_databases_lifetime_comes_before_the_general_one_and_zero_means_once() {
    let (mut world, _) = configured(|config| {
        config.pool.server_lifetime = Some(Duration::from_secs(3600));
        let own = Database { server_lifetime: Some(Duration::ZERO), ..Database::default() };
        config.databases.insert("once".to_owned(), own);
    });
    for (database, connections) in [("mrg", 1), ("once", 3)] {
        let client = enter(&mut world, "app", database);
        let before = world.last_pid();
        for _ in 0..3 {
            assert_eq!(world.ask(client, "select 1"), echo("select 1"));
        }
        assert_eq!(world.last_pid() - before + 1, connections, "{database}");
    }
}

// covers: databases.query_wait_timeout users.query_wait_timeout
#[test]
fn who_waits_too_long_is_told_by_the_users_clock_or_the_databases() {
    let (mut world, _) = configured(|config| {
        config.pool.size = size(1);
        let shared = Database {
            user: Some("app".to_owned()),
            password: Some(PASSWORD.into()),
            query_wait_timeout: Some(Some(Duration::from_secs(5))),
            ..Database::default()
        };
        config.databases.insert("mrg".to_owned(), shared);
        let patient = User { query_wait_timeout: Some(None), ..User::default() };
        config.users.insert("other".to_owned(), patient);
    });
    busy(&mut world, "app", "mrg");
    let patient = enter(&mut world, "other", "mrg");
    let hasty = enter(&mut world, "app", "mrg");
    world.query(patient, "select 1");
    world.query(hasty, "select 2");
    world.heard(patient);
    world.heard(hasty);
    world.pass(Duration::from_millis(4900));
    assert!(world.is_open(hasty));
    world.pass(Duration::from_millis(200));
    assert_eq!(world.heard(hasty), ["FATAL 08P01"]);
    assert!(world.error(hasty).starts_with("query_wait_timeout|"));
    world.pass(Duration::from_secs(600));
    assert!(world.is_open(patient));
}

/// Members of a cluster whose hosts have a new address whenever they start.
#[test]
fn addresses_that_nobody_names_any_more_are_forgotten() {
    let mut world = World::configured(|config| config.limits.max_host_connections = 1);
    let [first, second, third] = [(); 3].map(|()| world.client_of(Role::Read, "app"));
    world.client();
    world.dials_held = true;
    for number in 4..60 {
        world.adopt(led("n1", 1, &[&format!("n{number}"), &format!("n{}", number + 100)]));
        world.pass(Duration::from_secs(2));
    }
    let told = format!("{:?}", world.worker);
    assert!((1..5).any(|places| told.contains(&format!("places: {places}, "))), "{told}");
    world.adopt(led("n1", 1, &["n2", "n3"]));
    world.dials_held = false;
    for reader in [first, second, third] {
        world.query(reader, "begin");
    }
    world.pass(Duration::from_secs(2));
    let mut hosts: Vec<String> = world.snapshot().servers.into_iter().map(|row| row.host).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["10.0.0.1", "10.0.0.2", "10.0.0.3"], "one each");
    assert_eq!(world.heard(third), [""; 0], "both replicas are full");
    assert_eq!(world.ask(first, "commit").last().unwrap(), "ready I");
    assert_eq!(world.heard(third), ["BEGIN", "ready T"]);
}
