//! Queries of weir's own: connect_query, server_check_query, server_reset_query.

use std::sync::Arc;
use std::time::Duration;

use weir_config::{Config, Database, PoolMode};
use weir_protocol::sqlstate::SqlState;
use weir_worker::{Order, Role};

use crate::settings::{self, PASSWORD, size};
use crate::world::{World, echo};

const REST: Duration = Duration::from_secs(31);

/// Rested connections are asked this first.
fn checking(sql: &str) -> World {
    World::configured(|config| config.pool.server_check_query = Some(sql.to_owned()))
}

fn connecting(sql: &str) -> World {
    World::configured(|config| connect_with(config, sql))
}

fn connect_with(config: &mut Config, sql: &str) {
    let database = Database { connect_query: Some(sql.to_owned()), ..Database::default() };
    config.databases.insert("mrg".to_owned(), database);
}

fn states(world: &World) -> Vec<&'static str> {
    world.snapshot().servers.iter().map(|server| server.state).collect()
}

// covers: server_check_query
#[test]
fn a_connection_that_has_rested_is_asked_before_it_is_given_out() {
    let mut world = checking("check 1");
    let client = world.client();
    world.query(client, "select 1");
    world.pass(REST);
    world.ran();
    world.heard(client);
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(world.ran(), ["n1: check 1", "n1: select 2"]);
    assert_eq!(world.ask(client, "select 3"), echo("select 3"));
    assert_eq!(world.ran(), ["n1: select 3"], "only once");
}

// covers: server_check_delay
#[test]
fn the_delay_counts() {
    let mut world = checking("check 1");
    let client = world.client();
    world.query(client, "select 1");
    world.pass(Duration::from_secs(29));
    world.ran();
    world.query(client, "select 2");
    assert_eq!(world.ran(), ["n1: select 2"]);
    let mut sooner = settings::config();
    sooner.pool.server_check_query = Some("check 2".to_owned());
    sooner.pool.server_check_delay = Duration::ZERO;
    world.order(Order::Configure(Arc::new(sooner)));
    world.query(client, "select 3");
    assert_eq!(world.ran(), ["n1: check 2", "n1: select 3"], "zero means always");
}

#[test]
fn without_a_check_query_nothing_is_asked() {
    let mut world = World::configured(|config| config.pool.server_check_query = None);
    let client = world.client();
    world.query(client, "select 1");
    world.pass(REST);
    world.ran();
    world.query(client, "select 2");
    assert_eq!(world.ran(), ["n1: select 2"]);
}

#[test]
fn a_connection_that_fails_the_check_is_replaced() {
    for code in ["fail", "fatal 57P01"] {
        let mut world = checking(code);
        let client = world.client();
        world.query(client, "select 1");
        let [old] = world.pids()[..] else { panic!("one connection") };
        world.pass(REST);
        world.heard(client);
        assert_eq!(world.ask(client, "select 2"), echo("select 2"), "{code}");
        assert!(!world.pids().contains(&old), "{code}");
    }
}

#[test]
fn an_empty_query_is_a_check_and_a_dead_connection_is_noticed() {
    let mut world = checking("");
    let client = world.client();
    world.query(client, "select 1");
    world.pass(REST);
    world.heard(client);
    world.member("n1").silent = true;
    world.query(client, "select 2");
    assert_eq!(states(&world), ["tested"]);
    let snapshot = world.snapshot();
    let pool = &snapshot.pools[0];
    assert_eq!((pool.sv_tested, pool.sv_active, pool.sv_idle), (1, 0, 0));
    assert_eq!(world.heard(client), [""; 0]);
    world.pass(Duration::from_secs(14));
    assert_eq!(states(&world), ["tested"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(states(&world), ["new"], "the deadline is server_connect_timeout");
    world.member("n1").silent = false;
    world.run();
    assert_eq!(world.heard(client), echo("select 2"));
}

#[test]
fn as_many_are_checked_as_clients_wait() {
    let mut world = checking("sleep check");
    let [one, two] = world.clients();
    world.query(one, "begin");
    world.query(two, "select 1");
    world.query(one, "commit");
    assert_eq!(world.pids().len(), 2);
    world.pass(REST);
    for client in [one, two] {
        world.heard(client);
        world.query(client, "select 2");
    }
    assert_eq!(states(&world), ["tested", "tested"]);
    world.vanish(two);
    world.wake("sleep check");
    assert_eq!(world.heard(one), echo("select 2"));
    world.wake("sleep check");
    assert_eq!(states(&world), ["idle", "idle"]);
}

// covers: databases.connect_query
#[test]
fn connect_query_runs_once_before_the_first_client() {
    let mut world = connecting("prepare ground");
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.ask(client, "select 2"), echo("select 2"));
    assert_eq!(world.ran(), ["n1: prepare ground", "n1: select 1", "n1: select 2"]);
}

#[test]
fn an_error_of_connect_query_hurts_nobody() {
    let mut world = connecting("fail");
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.pids().len(), 1);
}

#[test]
fn connect_query_ends_with_the_login_s_deadline() {
    let mut world = connecting("sleep ground");
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(states(&world), ["new"]);
    let [slow] = world.pids()[..] else { panic!("one connection") };
    world.pass(Duration::from_secs(16));
    assert!(!world.pids().contains(&slow));
    world.wake("sleep ground");
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn what_connect_query_set_is_there_again_after_a_client_s_own_set() {
    let mut config = settings::config();
    connect_with(&mut config, "set ground");
    config.session.on_set = weir_config::model::StatePolicy::Forget;
    let mut world = World::with(config, settings::led("n1", 1, &["n2", "n3"]), 1);
    let client = world.client();
    world.ran();
    world.query(client, "set mine = 1");
    world.query(client, "select 1");
    let ran = world.ran();
    let cleaned = ["n1: RESET SESSION AUTHORIZATION", "n1: RESET ALL", "n1: set ground"];
    assert_eq!(ran, [&["n1: set mine = 1"], &cleaned[..], &["n1: select 1"]].concat());
}

#[test]
fn a_change_of_connect_query_replaces_connections() {
    let mut world = connecting("ground one");
    let client = world.client();
    world.query(client, "select 1");
    let mut other = settings::config();
    connect_with(&mut other, "ground two");
    world.order(Order::Configure(Arc::new(other)));
    world.ran();
    world.query(client, "select 2");
    assert_eq!(world.ran(), ["n1: ground two", "n1: select 2"]);
}

/// Pools of one in this mode.
fn resetting(mode: PoolMode, sql: &str, always: bool) -> World {
    World::configured(|config| {
        config.pool.mode = mode;
        config.pool.size = size(1);
        config.pool.server_reset_query = sql.to_owned();
        config.pool.server_reset_query_always = always;
    })
}

// covers: server_reset_query
#[test]
fn the_reset_query_runs_behind_clients_of_session_mode_only() {
    let mut world = resetting(PoolMode::Transaction, "clean up", false);
    let client = world.client();
    world.query(client, "select 1");
    world.vanish(client);
    assert_eq!(world.ran(), ["n1: select 1"]);
    let mut world = resetting(PoolMode::Session, "clean up", false);
    let client = world.client();
    world.query(client, "select 1");
    world.query(client, "select 2");
    world.vanish(client);
    assert_eq!(world.ran(), ["n1: select 1", "n1: select 2", "n1: clean up"]);
}

// covers: server_reset_query_always
#[test]
fn always_means_after_each_transaction() {
    for mode in [PoolMode::Transaction, PoolMode::Statement] {
        let mut world = resetting(mode, "DISCARD ALL", true);
        let [one, two] = world.clients();
        world.query(one, "select 1");
        world.query(two, "select 2");
        assert_eq!(world.ran(), ["n1: select 1", "n1: DISCARD ALL", "n1: select 2", "n1: DISCARD ALL"]);
        assert_eq!(states(&world), ["idle"]);
    }
}

#[test]
fn without_a_reset_query_the_next_client_gets_the_connection_as_it_is() {
    let mut world = resetting(PoolMode::Session, "", false);
    let one = world.client();
    world.query(one, "select 1");
    world.vanish(one);
    assert_eq!(world.ran(), ["n1: select 1"]);
    assert_eq!(states(&world), ["idle"]);
}

#[test]
fn only_discard_all_is_known_to_clean_everything() {
    let mut world = resetting(PoolMode::Session, "clean up", false);
    let parameters = [("user", "app"), ("database", "mrg"), ("application_name", "first")];
    let one = world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    world.query(one, "select 1");
    world.vanish(one);
    world.ran();
    let two = world.client();
    world.query(two, "select 2");
    let ran = world.ran();
    assert_eq!(ran, ["n1: RESET SESSION AUTHORIZATION", "n1: RESET ALL", "n1: select 2"]);
}

#[test]
fn a_reset_that_fails_or_takes_too_long_costs_the_connection() {
    for sql in ["fail", "sleep long", "begin"] {
        let mut world = resetting(PoolMode::Session, sql, false);
        let one = world.client();
        world.query(one, "select 1");
        let [old] = world.pids()[..] else { panic!("one connection") };
        world.vanish(one);
        if sql == "sleep long" {
            let snapshot = world.snapshot();
            assert_eq!((snapshot.pools[0].sv_tested, snapshot.pools[0].sv_active), (1, 0));
        }
        let two = world.client();
        world.query(two, "select 2");
        world.pass(Duration::from_secs(16));
        assert_eq!(world.heard(two), echo("select 2"), "{sql}");
        assert!(!world.pids().contains(&old), "{sql}");
    }
}

#[test]
fn a_connection_that_dies_in_a_check_is_not_missed() {
    let mut world = checking("sleep check");
    let client = world.client();
    world.query(client, "select 1");
    world.pass(REST);
    world.heard(client);
    world.query(client, "select 2");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.kill(pid, Some(SqlState::ADMIN_SHUTDOWN));
    assert_eq!(world.heard(client), echo("select 2"));
}
