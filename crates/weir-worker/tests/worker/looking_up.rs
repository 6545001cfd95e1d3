//! Users that are in no list: auth_query.

use std::time::Duration;

use weir_config::AuthMethod;
use weir_protocol::sqlstate::SqlState;
use weir_worker::Role;

use crate::settings::{PASSWORD, config, leaderless, led, verifier};
use crate::world::{World, echo};

/// A client on its way in, and the server connection that takes its time to find the secret.
fn asking(world: &mut World, user: &str) -> (usize, u32) {
    world.member("n1").slow = Some("pg_shadow");
    let client = world.hello(Role::Write, user, PASSWORD);
    world.run();
    let asleep = world.shell.backends.values().find(|backend| backend.asleep.is_some());
    (client, asleep.expect("the query is under way").pid)
}

fn lookups(world: &mut World) -> usize {
    world.ran().iter().filter(|sql| sql.contains("pg_shadow")).count()
}

#[test]
fn a_user_of_the_server_gets_in() {
    let mut world = World::new();
    let client = world.client_of(Role::Write, "late");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    let users: Vec<&str> = world.shell.backends.values().map(|backend| backend.user.as_str()).collect();
    assert_eq!(users, ["auth", "late"]);
}

// covers: auth_dbname
#[test]
fn the_query_runs_in_the_clients_database_or_in_one_for_all() {
    for (place, expected) in [(None, "mrg"), (Some("users"), "users")] {
        let mut world = World::configured(|config| config.auth.database = place.map(str::to_owned));
        world.client_of(Role::Write, "late");
        let asked = world.shell.backends.values().find(|backend| backend.user == "auth").unwrap();
        assert!(asked.startup.contains(&("database".to_owned(), expected.to_owned())), "{:?}", asked.startup);
    }
}

#[test]
fn a_wrong_password_does_not() {
    let mut world = World::new();
    let client = world.hello(Role::Write, "late", "guess");
    world.run();
    assert_eq!(world.heard(client), ["FATAL 28P01"]);
}

#[test]
fn an_unknown_user_hears_of_a_wrong_password_only() {
    let mut world = World::new();
    let client = world.hello(Role::Write, "nobody", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["FATAL 28P01"]);
    assert_eq!(lookups(&mut world), 1);
}

#[test]
fn a_password_in_the_clear_serves_both_logins() {
    let mut world = World::new();
    for member in &mut world.members {
        member.shadow.insert("late".to_owned(), PASSWORD.to_owned());
    }
    let client = world.client_of(Role::Write, "late");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn an_old_answer_refuses_nobody_without_asking_again() {
    for method in [AuthMethod::Plain, AuthMethod::Md5] {
        let mut world = World::configured(|config| config.auth.method = method);
        let store = |world: &mut World, password: &str| {
            for member in &mut world.members {
                member.shadow.insert("late".to_owned(), password.to_owned());
            }
        };
        store(&mut world, PASSWORD);
        world.client_of(Role::Write, "late");
        store(&mut world, "changed");
        let refused = world.hello(Role::Write, "late", "guess");
        world.run();
        assert_eq!((world.heard(refused), lookups(&mut world)), (vec!["FATAL 28P01".to_owned()], 2));
        // The right one of now is let in by what was fetched for the wrong one; the one of before is asked about anew.
        let old = world.hello(Role::Write, "late", PASSWORD);
        world.run();
        assert_eq!((world.heard(old), lookups(&mut world)), (vec!["FATAL 28P01".to_owned()], 1));
        store(&mut world, PASSWORD);
        let back = world.hello(Role::Write, "late", PASSWORD);
        world.run();
        assert_eq!((world.heard(back), lookups(&mut world)), (vec!["ready I".to_owned()], 1), "{method:?}");
    }
}

#[test]
fn after_a_failed_proof_the_next_login_asks_anew() {
    let mut world = World::new();
    world.client_of(Role::Write, "late");
    let wrong = world.hello(Role::Write, "late", "guess");
    world.run();
    assert_eq!((world.heard(wrong), lookups(&mut world)), (vec!["FATAL 28P01".to_owned()], 1));
    world.client_of(Role::Write, "late");
    assert_eq!(lookups(&mut world), 1);
}

#[test]
fn many_at_once_cost_one_query() {
    let mut world = World::new();
    world.dials_held = true;
    let crowd: Vec<usize> = (0..20).map(|_| world.hello(Role::Write, "late", PASSWORD)).collect();
    world.run();
    world.dials_held = false;
    world.run();
    for client in crowd {
        assert_eq!(world.heard(client), ["ready I"]);
    }
    assert_eq!(lookups(&mut world), 1);
}

#[test]
fn an_answer_is_good_for_seconds_only() {
    let mut world = World::new();
    world.client_of(Role::Write, "late");
    world.client_of(Role::Write, "late");
    assert_eq!(lookups(&mut world), 1);
    world.pass(Duration::from_secs(6));
    world.client_of(Role::Write, "late");
    assert_eq!(lookups(&mut world), 1);
}

#[test]
fn a_failing_query_is_told_without_the_servers_words() {
    let mut world = World::new();
    for member in &mut world.members {
        member.shadow.insert("late".to_owned(), "fail".to_owned());
    }
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["FATAL 08006"]);
    assert!(!world.error(client).contains("as the story asks"), "{}", world.error(client));
    assert!(world.error(client).contains("42501"), "{}", world.error(client));
}

#[test]
fn a_slow_query_blocks_no_other_login() {
    let mut world = World::new();
    let (slow, _) = asking(&mut world, "late");
    let quick = world.client();
    assert_eq!(world.ask(quick, "select 1"), echo("select 1"));
    assert_eq!(world.heard(slow), [""; 0]);
    world.wake("SELECT usename, passwd FROM pg_shadow WHERE usename=$1");
    assert_eq!(world.heard(slow), ["ready I"]);
}

#[test]
fn one_that_left_is_not_waited_for() {
    let mut world = World::new();
    world.dials_held = true;
    let gone = world.hello(Role::Write, "late", PASSWORD);
    let stays = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    world.vanish(gone);
    let newcomer = world.connect(Role::Write);
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(stays), ["ready I"]);
    assert_eq!(world.heard(newcomer), [""; 0]);
}

#[test]
fn nobody_gets_the_secret_of_somebody_else() {
    let mut world = World::new();
    for member in &mut world.members {
        member.users.insert("later".to_owned(), Some(verifier("later")));
        member.shadow.insert("later".to_owned(), verifier("later").to_postgres_string());
    }
    let (late, pid) = asking(&mut world, "late");
    let conn = world.conn_of(pid).unwrap();
    // The connection that runs the first query says something impossible.
    world.member("n1").slow = None;
    world.turn(|worker, now, effects| worker.received(now, conn, b"2\0\0\0\x04", effects));
    let later = world.hello(Role::Write, "later", PASSWORD);
    world.run();
    assert_eq!(world.heard(late), ["FATAL 08006"]);
    assert_eq!(world.heard(later), ["ready I"]);
    assert_eq!(world.ask(later, "select 1"), echo("select 1"));
}

#[test]
fn a_query_that_says_nothing_sensible_ends_the_logins_that_wait_for_it() {
    let mut world = World::new();
    let (client, pid) = asking(&mut world, "late");
    let conn = world.conn_of(pid).unwrap();
    world.turn(|worker, now, effects| worker.received(now, conn, b"2\0\0\0\x04", effects));
    assert_eq!(world.heard(client), ["FATAL 08006"]);
    assert!(world.snapshot().clients.is_empty());
    world.member("n1").slow = None;
    let again = world.client_of(Role::Write, "late");
    assert_eq!(world.ask(again, "select 1"), echo("select 1"));
}

#[test]
fn a_connection_lost_in_the_middle_of_the_query_is_made_again() {
    for code in [None, Some(SqlState::ADMIN_SHUTDOWN)] {
        let mut world = World::new();
        let (client, pid) = asking(&mut world, "late");
        world.member("n1").slow = None;
        world.kill(pid, code);
        assert_eq!(world.heard(client), ["ready I"], "{code:?} {}", world.error(client));
    }
}

#[test]
fn without_a_leader_a_replica_is_asked() {
    let mut world = World::led_by(leaderless(&["n2"]));
    let client = world.hello(Role::Read, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.ran(), ["n2: SELECT usename, passwd FROM pg_shadow WHERE usename=$1"]);
}

#[test]
fn a_query_that_waits_for_a_leader_is_asked_of_a_replica_when_a_hold_begins() {
    let mut world = World::new();
    world.dials_held = true;
    let clients: [usize; 2] = std::array::from_fn(|_| world.hello(Role::Read, "late", PASSWORD));
    world.run();
    world.adopt(leaderless(&["n3"]));
    world.dials_held = false;
    world.run();
    for client in clients {
        assert_eq!(world.heard(client), ["ready I"]);
    }
    assert_eq!(world.ran(), ["n3: SELECT usename, passwd FROM pg_shadow WHERE usename=$1"]);
}

#[test]
fn during_a_hold_an_old_answer_is_better_than_none() {
    let mut world = World::new();
    world.client_of(Role::Write, "late");
    world.adopt(leaderless(&[]));
    world.pass(Duration::from_secs(30));
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn a_verifier_alone_cannot_run_the_query_and_the_client_hears_so() {
    let mut config = config();
    config.auth.users.insert("auth".to_owned(), weir_auth::StoredSecret::Scram(verifier("auth")));
    let mut world = World::with(config, led("n1", 1, &[]), 1);
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["FATAL 08006"]);
    assert!(
        world.error(client).contains("cannot log in to PostgreSQL as auth_user \"auth\""),
        "{}",
        world.error(client)
    );
}

#[test]
fn a_changed_password_is_learned() {
    let mut world = World::new();
    let client = world.client_of(Role::Write, "late");
    let fresh = weir_auth::scram::Verifier::from_password(b"fresh", b"another salt", 16).unwrap();
    for member in &mut world.members {
        member.users.insert("late".to_owned(), Some(fresh.clone()));
        member.shadow.insert("late".to_owned(), fresh.to_postgres_string());
    }
    let pids = world.pids();
    for pid in pids {
        world.kill(pid, None);
    }
    // What weir knows is worth nothing any more.
    assert_eq!(world.ask(client, "select 1"), ["FATAL 28P01"]);
    assert!(!world.is_open(client));
    let again = world.hello(Role::Write, "late", "fresh");
    world.run();
    assert_eq!(world.heard(again), ["ready I"], "{}", world.error(again));
    world.query(again, "select 2");
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(again), echo("select 2"));
}
