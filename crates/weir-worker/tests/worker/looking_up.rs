//! Users that are in no list: auth_query.

use std::sync::Arc;
use std::time::Duration;

use weir_config::AuthMethod;
use weir_discovery::{ReadFallback, Topology};
use weir_protocol::sqlstate::SqlState;
use weir_worker::{Order, Role};

use crate::settings::{PASSWORD, config, leaderless, led, verifier};
use crate::world::{LOOKUP_PATH, World, echo};

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
    world.pass(Duration::from_millis(1100));
    world.client_of(Role::Write, "late");
    assert_eq!(lookups(&mut world), 1);
}

// covers: auth_query_cache_time
#[test]
fn the_setting_says_how_long_an_answer_is_good() {
    for (millis, expected) in [(0, [1, 1]), (10_000, [0, 0]), (3_000, [0, 1])] {
        let mut world =
            World::configured(|config| config.auth.query_cache_time = Duration::from_millis(millis));
        world.client_of(Role::Write, "late");
        lookups(&mut world);
        let asked = [0, 3_100].map(|later| {
            world.pass(Duration::from_millis(later));
            world.client_of(Role::Write, "late");
            lookups(&mut world)
        });
        assert_eq!(asked, expected, "{millis} ms");
    }
}

#[test]
fn a_user_who_was_not_there_a_moment_ago_gets_in() {
    let mut world = World::new();
    for member in &mut world.members {
        member.shadow.remove("late");
    }
    let early = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(early), ["FATAL 28P01"]);
    for member in &mut world.members {
        member.shadow.insert("late".to_owned(), verifier("late").to_postgres_string());
    }
    world.client_of(Role::Write, "late");
}

#[test]
fn a_user_who_vanished_is_forgotten_with_the_keys() {
    let mut world = World::new();
    world.client_of(Role::Write, "late");
    for member in &mut world.members {
        member.shadow.remove("late");
    }
    world.pass(Duration::from_millis(1100));
    let gone = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(gone), ["FATAL 28P01"]);
    // Nor does weir log in to PostgreSQL under that name any longer.
    for pid in world.pids() {
        world.kill(pid, None);
    }
    let stays = 0;
    assert_eq!(world.ask(stays, "select 1"), ["FATAL 28000"], "{}", world.error(stays));
}

#[test]
fn questions_have_server_connections_of_their_own() {
    let mut world = World::configured(|config| {
        config.limits.max_db_connections = 2;
        config.limits.max_user_connections = 2;
    });
    // auth_user is a client like any other, and its clients hold all connections that there may be.
    let holders: [usize; 2] = std::array::from_fn(|_| world.client_of(Role::Write, "auth"));
    for holder in holders {
        assert_eq!(world.ask(holder, "begin"), ["BEGIN", "ready T"]);
    }
    let late = world.hello(Role::Write, "nobody", "guess");
    world.run();
    assert_eq!(world.heard(late), ["FATAL 28P01"], "{}", world.error(late));
    let mut roles: Vec<_> = world.snapshot().pools.iter().map(|pool| (pool.role, pool.sv_idle)).collect();
    roles.sort_unstable();
    assert_eq!(roles, [("lookup", 1), ("write", 0)]);
    // Nor do questions that hang take anything from clients.
    for holder in holders {
        world.query(holder, "commit");
        world.heard(holder);
    }
    world.member("n1").slow = Some("pg_shadow");
    for number in 0..20 {
        world.hello(Role::Write, &format!("user{number}"), "guess");
        world.run();
    }
    let asleep = world.shell.backends.values().filter(|backend| backend.asleep.is_some()).count();
    assert_eq!(asleep, 4, "no more at once");
    assert_eq!(world.ask(holders[0], "select 1"), echo("select 1"));
}

// covers: auth_query_timeout
#[test]
fn a_question_that_hangs_ends_in_time() {
    for millis in [5_000, 700] {
        let mut world = World::configured(|config| config.auth.query_timeout = Duration::from_millis(millis));
        let (slow, pid) = asking(&mut world, "late");
        world.pass(Duration::from_millis(millis - 200));
        assert_eq!(world.heard(slow), [""; 0]);
        world.pass(Duration::from_millis(300));
        assert_eq!(world.heard(slow), ["FATAL 08006"], "{millis}");
        assert!(world.error(slow).contains("(auth_query_timeout)"), "{}", world.error(slow));
        // PostgreSQL was told, and the connection is not used again.
        assert!(world.shell.backends.get(&pid).is_none_or(|backend| backend.asleep.is_none()));
        world.member("n1").slow = None;
        world.client_of(Role::Write, "late");
    }
}

#[test]
fn questions_of_one_database_wait_for_those_of_no_other() {
    let mut world = World::configured(|config| {
        config.databases.insert("other".to_owned(), weir_config::Database::default());
    });
    world.member("n1").slow = Some("pg_shadow");
    let hanging: [usize; 9] = std::array::from_fn(|number| {
        let user = format!("user{number}");
        world.hello_with(Role::Write, &[("user", &user), ("database", "other")], PASSWORD)
    });
    world.run();
    world.member("n1").slow = None;
    world.client_of(Role::Write, "late");
    assert!(hanging.iter().all(|client| world.is_open(*client)));
    // And those that have not been asked yet end in time as well.
    world.pass(Duration::from_secs(6));
    for client in hanging {
        assert_eq!(world.heard(client), ["FATAL 08006"]);
    }
}

#[test]
fn no_time_passes_while_nobody_leads() {
    let mut world = World::led_by(leaderless(&[]));
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    world.pass(Duration::from_secs(20));
    assert_eq!(world.heard(client), [""; 0]);
    world.adopt(led("n1", 1, &[]));
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn a_question_that_nobody_waits_for_is_not_asked() {
    let mut world = World::new();
    world.dials_held = true;
    let gone = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    world.vanish(gone);
    world.dials_held = false;
    world.run();
    assert_eq!(lookups(&mut world), 0);
    world.client_of(Role::Write, "late");
}

#[test]
fn nobody_s_search_path_reaches_the_question() {
    let mut world = World::new();
    let asked = [("user", "late"), ("database", "mrg"), ("search_path", "evil")];
    let client = world.hello_with(Role::Write, &asked, PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["ready I"], "{}", world.error(client));
    let pid = world.shell.backends.values().find(|backend| backend.user == "auth").unwrap().pid;
    let ran: Vec<_> = world.executed.iter().filter(|ran| ran.pid == pid).map(|ran| ran.sql.clone()).collect();
    let (path, question) = (ran.iter().position(|sql| sql.contains(LOOKUP_PATH)), "pg_shadow");
    let question = ran.iter().position(|sql| sql.contains(question));
    assert!(path.is_some() && path < question, "{ran:?}");
    assert!(ran.iter().all(|sql| !sql.contains("evil")), "{ran:?}");
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
fn a_query_that_waits_for_a_replica_is_asked_of_the_new_leader() {
    let mut world = World::new();
    world.adopt(leaderless(&["n2"]));
    world.dials_held = true;
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    // n2 is promoted, and nobody is left to read from.
    world.promote("n2", 2);
    world.adopt(Topology { fallback: ReadFallback::Wait, ..led("n2", 2, &[]) });
    world.dials_held = false;
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
}

/// What was asked before may be the answer to another question.
#[test]
fn a_reload_asks_anew() {
    let mut world = World::new();
    let (client, _) = asking(&mut world, "late");
    world.member("n1").slow = None;
    let mut changed = config();
    changed.auth.query = Some("SELECT * FROM other_shadow($1) -- pg_shadow".to_owned());
    world.order(Order::Configure(Arc::new(changed)));
    let old = world.shell.backends.values().find_map(|backend| backend.asleep.clone()).unwrap().0;
    world.wake(&old);
    assert_eq!(world.heard(client), ["ready I"]);
    assert!(world.ran().iter().any(|sql| sql.contains("other_shadow")));
}

#[test]
fn strangers_do_not_learn_which_databases_there_are() {
    let mut world = World::new();
    world.member("n1").refusal = Some(SqlState::INVALID_CATALOG_NAME);
    let client = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["FATAL 28P01"]);
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

#[test]
fn keys_that_a_login_reveals_open_the_server_without_any_derivation() {
    let mut world = World::new();
    // auth_user is believed, so that nothing is derived for its own login.
    for member in &mut world.members {
        member.users.insert("auth".to_owned(), None);
    }
    // One is in the list, the other one is looked up; both with verifiers only.
    for user in ["app", "late"] {
        let client = world.client_of(Role::Write, user);
        assert_eq!(world.ask(client, "select 1"), echo("select 1"));
        let keys = world.shell.backends.values().filter(|backend| backend.user == user).count();
        assert_eq!((keys, world.derivations), (1, 0), "{user}");
    }
}
