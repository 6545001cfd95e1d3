//! Keys that have to be derived from passwords: nobody else waits for them, and what they cost tells nobody who exists.

use std::time::Duration;

use weir_auth::StoredSecret;
use weir_auth::scram::Verifier;
use weir_config::{AuthMethod, Config};
use weir_worker::{Accepted, Order, Role};

use crate::settings::{PASSWORD, config};
use crate::world::{Who, World, echo};

/// Listed: `typed` with a password. `app` has a verifier.
fn listed(method: AuthMethod) -> Config {
    let mut config = config();
    config.auth.method = method;
    config.auth.users.insert("typed".to_owned(), StoredSecret::Plain(PASSWORD.into()));
    config
}

fn world(method: AuthMethod) -> World {
    World::configured(|config| *config = listed(method))
}

/// As far as a login gets, and the number of keys that were derived for it.
fn cost(world: &mut World, user: &str, password: &str) -> (Vec<String>, usize) {
    let before = world.derivations;
    let who = world.hello(Role::Write, user, password);
    world.run();
    (world.heard(who), world.derivations - before)
}

fn begin(world: &mut World, user: &str) -> Who {
    let who = world.hello(Role::Write, user, PASSWORD);
    world.run();
    assert!(world.heard(who).is_empty(), "it waits");
    who
}

#[test]
fn a_login_that_waits_for_its_key_keeps_nobody_waiting() {
    let mut world = world(AuthMethod::Plain);
    let first = world.client();
    world.derivations_held = true;
    let second = begin(&mut world, "app");
    assert_eq!(world.ask(first, "select 1"), echo("select 1"));
    world.derivations_held = false;
    world.run();
    assert_eq!(world.heard(second), ["ready I"]);
}

#[test]
fn a_key_that_comes_too_late_reaches_nobody_else() {
    for leaves in [true, false] {
        let mut world = world(AuthMethod::Plain);
        world.client();
        world.derivations_held = true;
        let late = begin(&mut world, "app");
        if leaves {
            world.vanish(late);
        } else {
            world.pass(Duration::from_secs(61));
            assert_eq!(world.heard(late), ["FATAL 57P03"], "client_login_timeout goes on");
        }
        // It gets the same id, has asked for the same, and is not in yet.
        let next = world.connect_from(Accepted { role: Role::Write, peer: None, local: None, unix: None });
        assert_eq!(world.shell.speakers[next].conn, world.shell.speakers[late].conn);
        world.shell.speakers[next].start(&[("user", "other"), ("database", "mrg")], "guess");
        world.run();
        let (ticket, derivation) = world.shell.derivations.pop_front().unwrap();
        let derived = derivation.run();
        world.turn(|worker, now, effects| worker.derived(now, ticket, &derived, effects));
        assert!(world.heard(next).is_empty(), "{}", world.error(next));
        world.derivations_held = false;
        world.run();
        assert_eq!(world.heard(next), ["FATAL 28P01"]);
    }
}

#[test]
fn few_are_under_way_at_once_and_servers_come_first() {
    let mut world = world(AuthMethod::Plain);
    let first = world.client();
    let before = world.derivations;
    world.derivations_held = true;
    let crowd: Vec<Who> = (0..20).map(|_| begin(&mut world, "app")).collect();
    let under_way = world.shell.derivations.len();
    assert_eq!(under_way, 4);
    // Half of those who wait for their turn give up.
    for who in &crowd[10..] {
        world.vanish(*who);
    }
    // A new server connection needs a key, too: the password is listed, the server's salt is new.
    world.order(Order::Configure(std::sync::Arc::new(Config {
        auth: weir_config::Auth { users: listed_password_of_app(), ..listed(AuthMethod::Plain).auth },
        ..listed(AuthMethod::Plain)
    })));
    world.order(Order::Reconnect(None));
    world.query(first, "select 1");
    assert_eq!(world.shell.derivations.len(), under_way);
    world.shell.derivations.rotate_left(1);
    world.derivations_held = false;
    world.derive_one();
    world.derive_one();
    world.derivations_held = true;
    world.run();
    assert_eq!(world.heard(first), echo("select 1"), "it was served before the crowd");
    world.derivations_held = false;
    world.run();
    assert!(crowd[..10].iter().all(|who| world.heard(*who) == ["ready I"]));
    assert_eq!(world.derivations, before + 10 + 1, "for those who are there only");
}

fn listed_password_of_app() -> weir_auth::UserList {
    let mut users = listed(AuthMethod::Plain).auth.users;
    users.insert("app".to_owned(), StoredSecret::Plain(PASSWORD.into()));
    users
}

#[test]
fn the_time_for_a_server_login_includes_its_key() {
    let mut world = World::configured(|config| {
        config.auth.users = listed_password_of_app();
        config.pool.server_connect_timeout = Duration::from_secs(5);
    });
    world.derivations_held = true;
    let who = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    // The client's own comes first.
    while world.pids().is_empty() && world.shell.backends.is_empty() {
        world.derivations_held = false;
        world.derive_one();
        world.derivations_held = true;
        world.run();
    }
    let late = world.shell.backends.keys().copied().next().unwrap();
    assert!(world.pids().is_empty() && world.heard(who).is_empty());
    world.pass(Duration::from_secs(6));
    assert!(!world.shell.backends.contains_key(&late), "the login took too long");
    world.derivations_held = false;
    world.pass(Duration::from_secs(20));
    assert_eq!(world.heard(who), ["ready I"], "the next one gets through");
}

#[test]
fn scram_costs_listed_users_nothing_once_their_verifiers_are_known() {
    let mut world = world(AuthMethod::ScramSha256);
    // Listed with passwords are `typed` and `auth`, which has no client. One comes before anything was derived ahead.
    assert_eq!(cost(&mut world, "typed", "guess"), (vec!["FATAL 28P01".to_owned()], 1));
    world.tick();
    world.run();
    assert_eq!(world.derivations, 2, "and the other one ahead");
    // auth_query's own server connection needs a key, once.
    assert_eq!(cost(&mut world, "late", "guess").1, 1);
    for user in ["typed", "auth", "app", "late", "nobody"] {
        assert_eq!(cost(&mut world, user, "guess"), (vec!["FATAL 28P01".to_owned()], 0), "{user}");
    }
    // A reload brings one more user, and derives no more than that.
    let mut config = listed(AuthMethod::ScramSha256);
    config.auth.users.insert("more".to_owned(), StoredSecret::Plain(PASSWORD.into()));
    config.auth.users.insert("auth".to_owned(), StoredSecret::Plain("changed".into()));
    world.order(Order::Configure(std::sync::Arc::new(config)));
    world.tick();
    world.run();
    assert_eq!(world.derivations, 5);
    assert_eq!(cost(&mut world, "auth", PASSWORD), (vec!["FATAL 28P01".to_owned()], 0), "the new one counts");
}

#[test]
fn a_long_list_is_worked_through_little_by_little() {
    let mut world = World::configured(|config| {
        for number in 0..40 {
            config.auth.users.insert(format!("user{number}"), StoredSecret::Plain(PASSWORD.into()));
        }
    });
    let mut done = Vec::new();
    for _ in 0..4 {
        world.tick();
        world.run();
        done.push(world.derivations);
    }
    assert_eq!(done, [16, 32, 41, 41]);
}

#[test]
fn a_wrong_password_costs_as_much_for_a_user_who_is_unknown() {
    let mut world = world(AuthMethod::Plain);
    // auth_query's own server connection needs a key, once.
    cost(&mut world, "late", "guess");
    for user in ["typed", "app", "late", "nobody"] {
        assert_eq!(cost(&mut world, user, "guess"), (vec!["FATAL 28P01".to_owned()], 1), "{user}");
    }
}

/// The challenge without its nonce and salt.
fn iterations(world: &mut World, user: &str) -> String {
    let who = world.hello(Role::Write, user, "guess");
    world.run();
    assert_eq!(world.heard(who), ["FATAL 28P01"]);
    let challenge = &world.shell.speakers[who].challenge;
    challenge.rsplit_once(",i=").unwrap().1.to_owned()
}

#[test]
fn unknown_users_have_the_iterations_that_others_have() {
    // Those of the list, or those that weir uses itself. What auth_query tells of one user changes nothing for others.
    let mut world = World::configured(|config| config.auth.user = None);
    assert_eq!(iterations(&mut world, "nobody"), "16");
    let mut world = World::configured(|config| {
        config.auth.user = None;
        config.auth.users = weir_auth::UserList::default();
    });
    assert_eq!(iterations(&mut world, "nobody"), "4096");
    let mut world = World::new();
    let other = Verifier::from_password(PASSWORD.as_bytes(), b"salt of late", 20).unwrap();
    for member in &mut world.members {
        member.shadow.insert("late".to_owned(), other.to_postgres_string());
    }
    assert_eq!(iterations(&mut world, "nobody"), "16");
    assert_eq!(iterations(&mut world, "late"), "20");
    assert_eq!(iterations(&mut world, "nobody"), "16");
}
