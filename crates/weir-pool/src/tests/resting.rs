//! Connections that have rested for long: tested before a client gets them.

use super::*;

/// A pool of two idle connections that have to be tested after a second.
fn resting() -> (Stage, Vec<ServerId>) {
    let mut stage = Stage::write(Limits { test_after: Some(millis(1000)), ..limits(2) });
    let servers = stage.idle(2);
    (stage, servers)
}

impl Stage {
    fn test(&mut self) -> Option<ServerId> {
        self.pool.next_test(self.now, &mut self.dice)
    }
}

#[test]
fn what_was_used_a_moment_ago_is_given_out_as_it_is() {
    let (mut stage, servers) = resting();
    stage.pass(millis(999));
    assert_eq!(stage.take(), servers[1]);
    assert_eq!(stage.test(), None);
}

#[test]
fn what_has_rested_is_tested_and_given_to_the_first_in_the_queue() {
    let (mut stage, servers) = resting();
    stage.pass(millis(1000));
    let client = stage.wait();
    assert_eq!(stage.test(), Some(servers[1]));
    assert_eq!(stage.test(), None, "one test serves one client");
    assert_eq!(stage.dial(), [], "and no dial is needed beside it");
    let PoolCounts { active, idle, tested, .. } = stage.pool.counts();
    assert_eq!((active, idle, tested), (0, 1, 1));
    assert_eq!(stage.give_back(servers[1]), Settled::Grant(client));
    assert_eq!(stage.give_back(servers[1]), Settled::Idle);
    assert_eq!(stage.take(), servers[1], "a test counts as use");
}

#[test]
fn what_fails_makes_place_for_the_next() {
    let (mut stage, servers) = resting();
    stage.pass(millis(1000));
    let client = stage.wait();
    assert_eq!(stage.test(), Some(servers[1]));
    stage.pool.discard(servers[1]);
    assert_eq!(stage.test(), Some(servers[0]));
    stage.pool.discard(servers[0]);
    assert_eq!(stage.test(), None);
    let fresh = stage.dial();
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(client));
}

#[test]
fn a_test_that_nobody_waits_for_any_longer_leaves_an_idle_connection() {
    let (mut stage, servers) = resting();
    stage.pass(millis(1000));
    let client = stage.wait();
    assert_eq!(stage.test(), Some(servers[1]));
    stage.pool.forget(client);
    assert_eq!(stage.give_back(servers[1]), Settled::Idle);
}

#[test]
fn nothing_is_tested_while_nobody_may_be_served() {
    let (mut stage, servers) = resting();
    stage.pass(millis(1000));
    assert_eq!(stage.pool.hold(stage.now), []);
    stage.wait();
    assert_eq!(stage.test(), None);
    assert_eq!(stage.retarget(&[target(1, 1)]), []);
    assert_eq!(stage.pool.grant_idle(stage.now, &mut stage.dice), None, "not without a test");
    assert_eq!(stage.test(), Some(servers[1]));
    assert_eq!(stage.retarget(&[target(2, 2)]), servers, "a test does not save it from a new leader");
}
