//! Passwords that LDAP or PAM judges: what comes of each verdict, and of one that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use weir_auth::Authority;
use weir_config::AuthMethod;
use weir_worker::{Accepted, Referral, Role, Verdict};

use crate::settings::PASSWORD;
use crate::world::{Who, World, echo};

fn world() -> World {
    World::configured(|config| {
        config.auth.method = AuthMethod::Pam;
        config.auth.authority = Some(Arc::new(Authority::Pam("weir".to_owned())));
    })
}

/// Somebody has said its password, which is being asked about.
fn referred(world: &mut World, user: &str) -> (Who, Referral) {
    let who = world.hello(Role::Write, user, PASSWORD);
    world.run();
    assert!(world.heard(who).is_empty(), "{}", world.error(who));
    (who, world.shell.referrals.pop().unwrap())
}

fn judge(world: &mut World, referral: &Referral, verdict: Verdict) {
    world.turn(|worker, now, effects| worker.judged(now, referral.ticket, &verdict, effects));
    world.run();
}

#[test]
fn the_verdict_decides() {
    let mut world = world();
    let (first, referral) = referred(&mut world, "app");
    assert_eq!((referral.user.as_str(), &referral.password), ("app", &PASSWORD.into()));
    judge(&mut world, &referral, Verdict::Right);
    assert_eq!(world.heard(first), ["ready I"], "{}", world.error(first));
    // PostgreSQL is logged in to with the same password.
    assert_eq!(world.ask(first, "select 1"), echo("select 1"));
    let (second, referral) = referred(&mut world, "app");
    assert_eq!(world.ask(first, "select 2"), echo("select 2"), "nobody else waits");
    judge(&mut world, &referral, Verdict::Wrong);
    assert_eq!(world.heard(second), ["FATAL 28P01"]);
    assert_eq!(world.error(second), "password authentication failed for user \"app\"||");
    let (third, referral) = referred(&mut world, "app");
    judge(&mut world, &referral, Verdict::Unavailable("a secret of the network".to_owned()));
    assert_eq!(world.heard(third), ["FATAL 08006"]);
    let said = world.error(third);
    assert!(said.starts_with("the password could not be checked|") && !said.contains("secret"), "{said}");
}

#[test]
fn nobody_is_asked_about_an_empty_password() {
    let mut world = world();
    let who = world.hello(Role::Write, "app", "");
    world.run();
    assert_eq!(world.heard(who), ["FATAL 28P01"]);
    assert!(world.shell.referrals.is_empty());
}

#[test]
fn a_verdict_that_comes_too_late_reaches_nobody_else() {
    for leaves in [true, false] {
        let mut world = world();
        let (late, referral) = referred(&mut world, "app");
        if leaves {
            world.vanish(late);
        } else {
            world.pass(Duration::from_secs(61));
            assert_eq!(world.heard(late), ["FATAL 57P03"], "client_login_timeout goes on");
        }
        let next = world.connect_from(Accepted { role: Role::Write, peer: None, local: None, unix: None });
        assert_eq!(world.shell.speakers[next].conn, world.shell.speakers[late].conn);
        world.shell.speakers[next].start(&[("user", "app"), ("database", "mrg")], "guess");
        world.run();
        judge(&mut world, &referral, Verdict::Right);
        assert!(world.heard(next).is_empty(), "{}", world.error(next));
        let own = world.shell.referrals.pop().unwrap();
        judge(&mut world, &own, Verdict::Wrong);
        assert_eq!(world.heard(next), ["FATAL 28P01"]);
    }
}

#[test]
fn few_are_asked_about_at_once() {
    let mut world = world();
    let crowd: Vec<Who> = (0..20).map(|_| world.hello(Role::Write, "app", PASSWORD)).collect();
    world.run();
    assert_eq!(world.shell.referrals.len(), 16);
    world.vanish(crowd[19]);
    let mut asked = 0;
    while let Some(referral) = world.shell.referrals.pop() {
        asked += 1;
        judge(&mut world, &referral, Verdict::Wrong);
    }
    assert_eq!(asked, 19, "about those who are there only");
    assert!(crowd[..19].iter().all(|who| world.heard(*who) == ["FATAL 28P01"]));
}
