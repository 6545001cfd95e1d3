//! Databases with servers and users of their own, beside those that follow the cluster; databases that are not there.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{Config, Database, Host, LoadBalance, Upstream};
use weir_worker::{Order, Role};

use crate::settings::{self, PASSWORD, address, leaderless, led, size};
use crate::world::{Who, World, echo};

/// These members are the database's hosts.
fn on(members: &[&str]) -> Database {
    let host = |name: &&str| Host { host: address(name).host, port: address(name).port };
    Database { hosts: members.iter().map(host).collect(), ..Database::default() }
}

fn with(database: Database) -> Config {
    let mut config = settings::config();
    config.databases.insert("mrg".to_owned(), database);
    config
}

fn world(config: Config) -> World {
    World::with(config, led("n1", 1, &[]), 1)
}

fn enter(world: &mut World, role: Role, database: &str) -> Who {
    let who = world.hello_with(role, &[("user", "app"), ("database", database)], PASSWORD);
    world.run();
    assert_eq!(world.heard(who), ["ready I"], "{}", world.error(who));
    who
}

/// Members that the connections lead to, oldest first.
fn places(world: &World) -> Vec<usize> {
    world
        .shell
        .backends
        .values()
        .filter(|backend| backend.is_ready())
        .map(|backend| backend.member + 1)
        .collect()
}

/// Opens connections one after the other, each busy with a transaction.
fn busy<const N: usize>(world: &mut World) -> [Who; N] {
    std::array::from_fn(|_| {
        let who = enter(world, Role::Write, "mrg");
        assert_eq!(world.ask(who, "begin"), ["BEGIN", "ready T"]);
        who
    })
}

#[test]
fn new_connections_go_to_the_hosts_in_turn() {
    let database = Database { pool_size: Some(size(5)), ..on(&["n1", "n2", "n3"]) };
    let mut world = world(with(database));
    busy::<5>(&mut world);
    assert_eq!(places(&world), [1, 2, 3, 1, 2]);
}

// covers: databases.load_balance_hosts
#[test]
fn without_balancing_they_go_to_the_first_that_answers() {
    let mut first = Database { pool_size: Some(size(5)), ..on(&["n1", "n2", "n3"]) };
    first.load_balance = LoadBalance::Disable;
    let mut world = world(with(first));
    busy::<2>(&mut world);
    assert_eq!(places(&world), [1, 1]);
    world.member("n1").up = false;
    busy::<1>(&mut world);
    world.member("n1").up = true;
    world.pass(Duration::from_secs(5));
    busy::<1>(&mut world);
    assert_eq!(places(&world), [1, 1, 2, 2], "the one that answered is kept until it fails");
}

#[test]
fn a_host_that_does_not_answer_is_passed_over() {
    let mut world = world(with(Database { pool_size: Some(size(5)), ..on(&["n1", "n2", "n3"]) }));
    world.member("n2").up = false;
    busy::<4>(&mut world);
    assert_eq!(places(&world), [1, 3, 1, 3]);
    assert_eq!(world.shell.evidence, [], "that is nothing to the cluster");
}

#[test]
fn a_login_is_refused_only_when_no_host_answers() {
    let mut world = world(with(on(&["n1", "n2", "n3"])));
    world.member("n1").up = false;
    world.member("n2").up = false;
    let first = enter(&mut world, Role::Write, "mrg");
    assert_eq!(world.ask(first, "select 1"), echo("select 1"));
    world.order(Order::Configure(Arc::new(with(on(&["n1", "n2"])))));
    let second = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(second), ["FATAL 08006"]);
}

#[test]
fn fixed_hosts_are_not_fenced_and_care_for_no_cluster() {
    let mut world = World::with(with(on(&["n2"])), leaderless(&[]), 1);
    let writer = enter(&mut world, Role::Write, "mrg");
    let reader = enter(&mut world, Role::Read, "mrg");
    assert_eq!(world.ask(writer, "select 1"), echo("select 1"));
    assert_eq!(world.ask(reader, "select 2"), echo("select 2"));
    assert_eq!(places(&world), [2, 2]);
    assert!(world.executed.iter().all(|ran| !ran.sql.contains("pg_walfile_name")));
    assert_eq!(world.shell.speakers[writer].told["in_hot_standby"], "on", "its own word counts");
    world.query(writer, "begin");
    world.adopt(led("n3", 2, &[]));
    world.heard(writer);
    assert_eq!(world.ask(writer, "select 3"), ["row select 3", "SELECT 1", "ready T"]);
}

#[test]
fn databases_of_the_cluster_hold_beside_them() {
    let mut world = World::with(with(on(&["n2"])), led("n1", 1, &[]), 1);
    let fixed = enter(&mut world, Role::Write, "mrg");
    let clustered = enter(&mut world, Role::Write, "other");
    world.adopt(leaderless(&[]));
    assert_eq!(world.ask(fixed, "select 1"), echo("select 1"));
    assert_eq!(world.ask(clustered, "select 2"), [""; 0]);
    world.adopt(led("n1", 1, &[]));
    assert_eq!(world.heard(clustered), echo("select 2"));
}

#[test]
fn hosts_that_change_are_left_when_their_clients_let_go() {
    let mut world = world(with(on(&["n1"])));
    let [one] = busy(&mut world);
    world.order(Order::Configure(Arc::new(with(on(&["n2"])))));
    assert_eq!(places(&world), [1], "transactions end where they began");
    assert_eq!(world.ask(one, "commit"), ["COMMIT", "ready I"]);
    assert_eq!(world.ask(one, "select 1"), echo("select 1"));
    assert_eq!(places(&world), [2]);
}

#[test]
fn a_database_can_get_hosts_and_lose_them() {
    let mut world = world(settings::config());
    let client = enter(&mut world, Role::Write, "mrg");
    world.query(client, "select 1");
    world.order(Order::Configure(Arc::new(with(on(&["n2"])))));
    world.heard(client);
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(places(&world), [2]);
    world.order(Order::Configure(Arc::new(settings::config())));
    world.ran();
    assert_eq!(world.ask(client, "select 3"), echo("select 3"));
    assert_eq!(world.ran(), ["n1: select 3"]);
}

#[test]
fn with_nothing_behind_it_weir_serves_databases_with_hosts() {
    let config = Config { upstream: Upstream::None, ..with(on(&["n3"])) };
    let mut world = World::with(config, weir_discovery::Topology::nobody(), 1);
    let client = enter(&mut world, Role::Write, "mrg");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn an_unknown_database_is_refused_after_the_proof() {
    let mut config = with(on(&["n1"]));
    config.any_database = None;
    let mut world = world(config);
    let parameters = [("user", "app"), ("database", "nope")];
    let who = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    assert_eq!(world.heard(who), ["FATAL 08P01"]);
    assert!(world.error(who).contains("no such database: nope"), "{}", world.error(who));
    let guesser = world.hello_with(Role::Write, &parameters, "guess");
    world.run();
    assert_eq!(world.heard(guesser), ["FATAL 28P01"], "strangers do not learn what there is");
    enter(&mut world, Role::Write, "mrg");
}

#[test]
fn a_database_that_is_removed_ends_its_clients() {
    let mut config = with(on(&["n1"]));
    config.databases.insert("kept".to_owned(), on(&["n1"]));
    config.any_database = None;
    let mut world = world(config.clone());
    let gone = enter(&mut world, Role::Write, "mrg");
    let kept = enter(&mut world, Role::Write, "kept");
    world.query(gone, "begin");
    world.heard(gone);
    config.databases.remove("mrg");
    world.order(Order::Configure(Arc::new(config)));
    assert_eq!(world.heard(gone), ["FATAL 08P01"]);
    assert!(world.error(gone).contains("database removed"));
    assert!(!world.is_open(gone));
    assert_eq!(world.ask(kept, "select 1"), echo("select 1"));
    assert_eq!(world.snapshot().servers.len(), 1);
}

// covers: databases.user databases.password
#[test]
fn a_forced_user_is_shared_by_all_clients() {
    let mut database = on(&["n1"]);
    database.user = Some("other".to_owned());
    database.password = Some(PASSWORD.into());
    let mut world = world(with(database));
    let app = world.client_of(Role::Write, "app");
    world.query(app, "select 1");
    let admin = world.client_of(Role::Write, "admin");
    world.query(admin, "select 2");
    let users: Vec<_> = world.shell.backends.values().map(|backend| backend.user.clone()).collect();
    assert_eq!(users, ["other"]);
    let snapshot = world.snapshot();
    let mut names: Vec<_> = snapshot.clients.iter().map(|row| row.user.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["admin", "app"], "clients keep their names");
    assert_eq!(snapshot.pools[0].user, "other");
    assert_eq!(snapshot.pools.len(), 1);
    let guesser = world.hello(Role::Write, "app", "guess");
    world.run();
    assert_eq!(world.heard(guesser), ["FATAL 28P01"]);
}

#[test]
fn a_forced_user_looks_nobody_up() {
    let mut database = on(&["n1"]);
    database.user = Some("other".to_owned());
    database.password = Some(PASSWORD.into());
    let mut world = world(with(database));
    let late = world.client_of(Role::Write, "late");
    assert_eq!(world.ask(late, "select 1"), echo("select 1"));
    let users: Vec<_> = world.shell.backends.values().map(|backend| backend.user.as_str()).collect();
    assert_eq!(users, ["auth", "other"], "auth_user may read secrets, and the forced user need not");
}

/// One automatic database for each name, and one that is configured; unused ones are forgotten after a minute.
fn automatic() -> Config {
    let mut config = settings::config();
    config.databases.insert("mrg".to_owned(), Database::default());
    config.limits.autodb_idle_timeout = Some(Duration::from_secs(60));
    config.pool.server_idle_timeout = Some(Duration::from_secs(10));
    config
}

fn names(world: &World) -> Vec<String> {
    world.snapshot().pools.into_iter().map(|pool| pool.database).collect()
}

// covers: autodb_idle_timeout
#[test]
fn automatic_databases_are_forgotten_when_nobody_has_used_them_for_long() {
    let mut world = world(automatic());
    for database in ["mrg", "left", "stays"] {
        let client = enter(&mut world, Role::Write, database);
        world.query(client, "select 1");
        if database != "stays" {
            world.vanish(client);
        }
    }
    world.pass(Duration::from_secs(65));
    assert_eq!(names(&world), ["mrg", "left", "stays"], "the time runs from the last connection on");
    world.pass(Duration::from_secs(10));
    assert_eq!(names(&world), ["mrg", "stays"], "a client keeps its database, the configuration as well");
    let back = enter(&mut world, Role::Write, "left");
    assert_eq!(world.ask(back, "select 2"), echo("select 2"));
}

#[test]
fn without_a_timeout_they_are_kept() {
    let mut config = automatic();
    config.limits.autodb_idle_timeout = None;
    let mut world = world(config);
    let client = enter(&mut world, Role::Write, "left");
    world.vanish(client);
    world.pass(Duration::from_secs(600));
    assert_eq!(names(&world), ["left"]);
}

#[test]
fn statements_of_a_forgotten_database_do_not_come_back_with_its_place() {
    let mut config = automatic();
    config.limits.autodb_idle_timeout = Some(Duration::from_secs(1));
    let mut world = world(config);
    let client = enter(&mut world, Role::Write, "left");
    let mut named = Vec::new();
    weir_protocol::frontend::parse(b"s", b"select 1", weir_protocol::frontend::NO_TYPES, &mut named);
    weir_protocol::frontend::sync(&mut named);
    world.send(client, named.clone());
    world.vanish(client);
    world.pass(Duration::from_secs(20));
    assert_eq!(names(&world), [""; 0]);
    let client = enter(&mut world, Role::Write, "right");
    world.send(client, named);
    assert_eq!(world.pids().len(), 1, "the new database's server has to parse it");
}

#[test]
fn pools_of_removed_databases_are_forgotten() {
    let mut config = with(on(&["n1"]));
    config.any_database = None;
    let mut world = world(config.clone());
    enter(&mut world, Role::Write, "mrg");
    config.databases.clear();
    world.order(Order::Configure(Arc::new(config)));
    world.pass(Duration::from_secs(2));
    assert_eq!(names(&world), [""; 0]);
}

#[test]
fn parameters_of_a_database_hold_for_clients_that_ask_for_nothing_else() {
    let mut database = on(&["n1"]);
    database.parameters = [("application_name", "mine"), ("timezone", "UTC")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let mut world = world(with(database));
    let client = enter(&mut world, Role::Write, "mrg");
    assert_eq!(world.shell.speakers[client].told["application_name"], "mine");
    world.query(client, "select 1");
    let set = |ran: &[String], name: &str, value: &str| {
        ran.iter().any(|sql| sql.contains(&format!("set_config('{name}','{value}'")))
    };
    let ran = world.ran();
    assert!(set(&ran, "application_name", "mine") && set(&ran, "timezone", "UTC"), "{ran:?}");
    let parameters = [("user", "app"), ("database", "mrg"), ("application_name", "own")];
    let other = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    world.query(other, "select 2");
    let ran = world.ran();
    assert!(set(&ran, "application_name", "own") && !set(&ran, "timezone", "UTC"), "{ran:?}");
}

// covers: databases.auth_user databases.auth_query databases.auth_dbname
#[test]
fn auth_settings_of_a_database_are_its_own() {
    let mut elsewhere = on(&["n2"]);
    elsewhere.auth_user = Some("auth".to_owned());
    elsewhere.auth_query = Some("select mine from pg_shadow where $1".to_owned());
    elsewhere.auth_database = Some("users".to_owned());
    let mut config = with(elsewhere);
    config.databases.insert("users".to_owned(), on(&["n3"]));
    config.auth.user = None;
    config.auth.query = None;
    let mut world = world(config);
    let client = world.client_of(Role::Write, "late");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    let ran = world.ran();
    assert_eq!(ran, ["n3: select mine from pg_shadow where $1", "n2: select 1"]);
    let nobody = world.hello_with(Role::Write, &[("user", "late"), ("database", "users")], PASSWORD);
    world.run();
    assert_eq!(world.heard(nobody), ["FATAL 28P01"], "the other database has no auth_query");
}

#[test]
fn what_a_login_revealed_serves_the_server_that_it_belongs_to() {
    let mut config = with(on(&["n2"]));
    config.databases.insert("far".to_owned(), on(&["n3"]));
    let mut world = world(config);
    let other =
        weir_auth::scram::Verifier::from_password(PASSWORD.as_bytes(), b"quite another salt", 16).unwrap();
    world.member("n3").shadow.insert("late".to_owned(), other.to_postgres_string());
    world.member("n3").users.insert("late".to_owned(), Some(other));
    for database in ["mrg", "far", "mrg", "far"] {
        let who = world.hello_with(Role::Write, &[("user", "late"), ("database", database)], PASSWORD);
        world.run();
        assert_eq!(world.heard(who), ["ready I"], "{database}: {}", world.error(who));
        world.query(who, "begin");
        world.heard(who);
    }
}

/// A session-mode client in the middle of nothing, and the connection it holds.
fn session(fast: bool) -> (World, Who, Config) {
    let mut config = with(on(&["n1"]));
    config.pool.mode = weir_config::PoolMode::Session;
    config.pool.server_fast_close = fast;
    let mut world = world(config.clone());
    let client = enter(&mut world, Role::Write, "mrg");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    (world, client, config)
}

#[test]
fn sessions_keep_connections_that_are_to_be_replaced() {
    let (mut world, client, _) = session(false);
    world.order(Order::Reconnect(None));
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert!(world.snapshot().servers[0].close_needed);
    world.ran();
    world.vanish(client);
    assert_eq!(world.snapshot().servers.len(), 0);
    assert_eq!(world.ran(), [""; 0], "what is closed needs no reset");
}

// covers: server_fast_close
#[test]
fn with_server_fast_close_they_end_with_their_transaction() {
    let (mut world, client, _) = session(true);
    world.order(Order::Reconnect(None));
    assert_eq!(world.heard(client), ["FATAL 08P01"]);
    assert!(world.error(client).contains("database configuration changed"));

    let (mut world, client, mut config) = session(true);
    assert_eq!(world.ask(client, "begin"), ["BEGIN", "ready T"]);
    config.databases.insert("mrg".to_owned(), on(&["n2"]));
    world.order(Order::Configure(Arc::new(config)));
    assert_eq!(world.ask(client, "select 2"), ["row select 2", "SELECT 1", "ready T"]);
    assert_eq!(world.ask(client, "commit"), ["COMMIT", "ready I", "FATAL 08P01"]);
    assert_eq!(world.snapshot().servers.len(), 0);
}
