//! Logins that fail again and again: their answers are held back, what they cost is bounded, and nobody else notices.

use std::time::Duration;

use weir_auth::StoredSecret;
use weir_config::{AuthMethod, Config};
use weir_worker::{Accepted, Role};

use crate::settings::PASSWORD;
use crate::world::{Who, World, echo};

const GUESSER: &str = "10.9.9.9";

fn from(address: &str, port: usize) -> Accepted {
    let peer = format!("{address}:{}", 10_000 + port).parse().ok();
    Accepted { role: Role::Write, peer, local: None, unix: None }
}

fn try_in(world: &mut World, address: &str, user: &str, password: &str) -> Who {
    let who = world.connect_from(from(address, world.shell.speakers.len()));
    world.shell.speakers[who].start(&[("user", user), ("database", "mrg")], password);
    world.run();
    who
}

#[track_caller]
fn refused_after(world: &mut World, who: Who, time: Duration) {
    let began = world.now;
    while world.is_open(who) {
        assert!(world.now.duration_since(began) < time, "{:?}", world.now.duration_since(began));
        assert!(world.heard(who).is_empty());
        world.tick();
        world.run();
    }
    assert_eq!(world.now.duration_since(began), time);
    assert_eq!(world.heard(who), ["FATAL 28P01"]);
}

fn guess_often(world: &mut World, times: usize) {
    for _ in 0..times {
        try_in(world, GUESSER, "app", "guess");
    }
}

// covers: failed_logins_free failed_login_delay_max
#[test]
fn answers_to_failed_logins_come_later_and_later() {
    for (free, delay_max, delays) in
        [(3, 5000, &[0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000][..]), (1, 300, &[0, 100, 200, 300])]
    {
        let mut world = World::configured(|config| {
            config.auth.failed_logins_free = free;
            config.auth.failed_login_delay_max = Duration::from_millis(delay_max);
        });
        for delay in delays {
            let who = try_in(&mut world, GUESSER, "app", "guess");
            refused_after(&mut world, who, Duration::from_millis(*delay));
        }
        let held_back = delays.iter().filter(|delay| **delay > 0).count() as u64;
        assert_eq!(world.snapshot().totals.logins_held_back, held_back);
    }
}

#[test]
fn nobody_is_held_back_where_it_is_turned_off() {
    let mut world = World::configured(|config| config.auth.failed_login_delay_max = Duration::ZERO);
    for _ in 0..20 {
        let who = try_in(&mut world, GUESSER, "app", "guess");
        refused_after(&mut world, who, Duration::ZERO);
    }
}

#[test]
fn who_knows_the_password_is_let_in_beside_a_guesser() {
    let mut world = World::new();
    guess_often(&mut world, 50);
    for user in ["app", "other"] {
        let who = try_in(&mut world, GUESSER, user, PASSWORD);
        assert_eq!(world.heard(who), ["ready I"]);
    }
    // Others who mistype are answered at once; so is whoever comes by Unix socket, however often.
    let who = try_in(&mut world, "10.9.9.8", "app", "guess");
    refused_after(&mut world, who, Duration::ZERO);
    for _ in 0..10 {
        let who = world.hello(Role::Write, "app", "guess");
        world.run();
        refused_after(&mut world, who, Duration::ZERO);
    }
}

#[test]
fn what_is_held_back_cannot_be_asked_out() {
    let mut world = World::new();
    guess_often(&mut world, 6);
    let who = try_in(&mut world, GUESSER, "app", "guess");
    assert!(world.shell.speakers[who].stopped, "it is not read");
    // A client that leaves is forgotten; its id may be given to another one before the answer is due.
    world.vanish(who);
    let next = try_in(&mut world, "10.9.9.8", "app", PASSWORD);
    assert_eq!(world.heard(next), ["ready I"]);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.ask(next, "select 1"), echo("select 1"));
}

#[test]
fn the_answer_comes_before_the_login_timeout() {
    let mut world = World::configured(|config| config.limits.client_login_timeout = Duration::from_secs(2));
    guess_often(&mut world, 20);
    let who = try_in(&mut world, GUESSER, "app", "guess");
    refused_after(&mut world, who, Duration::from_secs(2));
}

#[test]
fn held_back_answers_take_no_place_from_those_who_know_the_password() {
    let mut world = World::configured(|config| {
        config.limits.max_client_conn = 1;
        config.auth.failed_login_delay_max = Duration::from_secs(30);
    });
    guess_often(&mut world, 256 + 10);
    assert!((0..257).all(|who| !world.is_open(who) || world.shell.speakers[who].stopped));
    world.pass(Duration::from_secs(3));
    let who = try_in(&mut world, "10.9.9.8", "app", PASSWORD);
    assert_eq!(world.heard(who), ["ready I"]);
}

/// Somebody opens connections as fast as he can and says nothing on them.
#[test]
fn a_flood_from_one_address_keeps_nobody_else_out() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 10);
    let flood = |world: &mut World, size: usize| {
        for n in 0..size {
            world.connect_from(from(GUESSER, n));
        }
    };
    for _ in 0..3 {
        flood(&mut world, 270);
        world.tick();
        flood(&mut world, 20);
        let who = try_in(&mut world, "10.9.9.8", "app", PASSWORD);
        assert_eq!(world.heard(who), ["ready I"]);
        assert!(world.worker.snapshot(world.now).clients.len() <= 10 + 256);
        world.vanish(who);
    }
    // The flood does not make room for itself that fast.
    flood(&mut world, 5);
    let who = try_in(&mut world, GUESSER, "app", PASSWORD);
    assert_eq!(world.heard(who), ["aborted"]);
    world.pass(Duration::from_secs(3));
    let who = try_in(&mut world, GUESSER, "app", PASSWORD);
    assert_eq!(world.heard(who), ["ready I"]);
}

fn lookups(world: &mut World) -> usize {
    world.ran().iter().filter(|sql| sql.contains("pg_shadow")).count()
}

#[test]
fn names_are_not_looked_up_at_a_guessers_pace() {
    let mut world = World::new();
    guess_often(&mut world, 10);
    world.client_of(Role::Write, "late");
    lookups(&mut world);
    let crowd: Vec<Who> =
        (0..40).map(|n| try_in(&mut world, GUESSER, &format!("name{n}"), "guess")).collect();
    assert_eq!(lookups(&mut world), 0);
    // Who is known already need not be looked up.
    for user in ["app", "late"] {
        let who = try_in(&mut world, GUESSER, user, PASSWORD);
        assert_eq!(world.heard(who), ["ready I"], "{user}");
    }
    let done: Vec<usize> = (0..9)
        .map(|_| {
            world.tick();
            world.run();
            lookups(&mut world)
        })
        .collect();
    assert_eq!(done, [5, 5, 5, 5, 5, 5, 5, 5, 0]);
    world.pass(Duration::from_secs(6));
    assert!(crowd.iter().all(|who| world.heard(*who) == ["FATAL 28P01"]));
    // Others' users are looked up at once.
    try_in(&mut world, "10.9.9.8", "nobody", "guess");
    assert_eq!(lookups(&mut world), 1);
}

/// A whole service behind one address comes back at once.
#[test]
fn a_crowd_of_one_user_is_one_question() {
    let mut world = World::new();
    guess_often(&mut world, 10);
    let crowd: Vec<Who> = (0..90).map(|_| try_in(&mut world, GUESSER, "late", PASSWORD)).collect();
    world.tick();
    world.run();
    world.tick();
    world.run();
    assert!(crowd.iter().all(|who| world.heard(*who) == ["ready I"]));
    assert_eq!(lookups(&mut world), 1);
}

#[test]
fn asking_for_a_challenge_and_leaving_is_guessing_names() {
    let mut world = World::new();
    for n in 0..10 {
        let who = world.connect_from(from(GUESSER, n));
        let name = format!("name{n}");
        world.shell.speakers[who].start(&[("user", &name), ("database", "mrg")], "");
        world.deliver_from(who);
        world.run_servers();
        world.vanish(who);
    }
    assert!((4..=5).contains(&lookups(&mut world)));
    // psql does so once before it asks its user.
    let mut world = World::new();
    for _ in 0..10 {
        let who = world.connect_from(from(GUESSER, 1));
        world.shell.speakers[who].start(&[("user", "app"), ("database", "mrg")], "");
        world.deliver_from(who);
        world.vanish(who);
        let who = try_in(&mut world, GUESSER, "app", PASSWORD);
        assert_eq!(world.heard(who), ["ready I"]);
    }
    let who = try_in(&mut world, GUESSER, "app", "guess");
    refused_after(&mut world, who, Duration::ZERO);
}

fn plain(config: &mut Config) {
    config.auth.method = AuthMethod::Plain;
    config.auth.users.insert("typed".to_owned(), StoredSecret::Plain(PASSWORD.into()));
}

#[test]
fn passwords_are_not_hashed_at_a_guessers_pace() {
    let mut world = World::configured(plain);
    world.client();
    guess_often(&mut world, 10);
    let before = world.derivations;
    let crowd: Vec<Who> = (0..30).map(|_| try_in(&mut world, GUESSER, "app", "guess")).collect();
    let at_once = world.derivations - before;
    assert!(at_once <= 10, "{at_once}");
    // Others do not stand behind them.
    let who = try_in(&mut world, "10.9.9.8", "other", PASSWORD);
    assert_eq!(world.heard(who), ["ready I"]);
    let before = world.derivations;
    world.tick();
    world.run();
    assert_eq!(world.derivations - before, 10);
    world.pass(Duration::from_secs(6));
    assert!(crowd.iter().all(|who| world.heard(*who) == ["FATAL 28P01"]));
}
