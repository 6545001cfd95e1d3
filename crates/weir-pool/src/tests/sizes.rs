//! Sizes of one pool: reserve, least number, order of reuse, and clients that need not wait for a server out of reach.

use super::*;

#[test]
fn the_reserve_opens_for_a_client_that_has_waited_long_enough() {
    let mut stage = Stage::write(Limits { reserve: 2, reserve_timeout: Some(millis(3000)), ..limits(1) });
    stage.busy(1);
    let first = stage.wait();
    stage.pass(millis(1000));
    stage.wait();
    stage.pass(millis(1999));
    assert_eq!(stage.dial(), []);
    stage.pass(millis(1));
    let opened = stage.dial();
    assert_eq!(opened.len(), 1, "the second client has not waited long enough");
    assert_eq!(stage.ready(opened[0]), Settled::Grant(first));
    stage.pass(millis(1000));
    assert_eq!(stage.dial().len(), 1);
    stage.wait();
    stage.wait();
    stage.pass(millis(60_000));
    assert_eq!(stage.dial(), [], "the reserve has an end");
}

#[test]
fn a_reserve_without_a_timeout_stays_closed() {
    let mut stage = Stage::write(Limits { reserve: 2, ..limits(1) });
    stage.busy(1);
    stage.wait();
    stage.pass(millis(60_000));
    assert_eq!(stage.dial(), []);
}

#[test]
fn the_reserve_closes_like_other_connections() {
    let limits = Limits {
        reserve: 1,
        reserve_timeout: Some(Duration::ZERO),
        idle_timeout: Some(millis(600)),
        ..limits(1)
    };
    let mut stage = Stage::write(limits);
    let servers = stage.idle(2);
    assert_eq!(stage.counts(), (0, 2, 0, 0));
    stage.pass(millis(599));
    assert_eq!(stage.pool.expired(stage.now), []);
    stage.pass(millis(1));
    assert_eq!(stage.pool.expired(stage.now), servers);
}

#[test]
fn a_pool_in_use_keeps_its_least_number_open() {
    let mut stage = Stage::write(Limits { min_size: 3, idle_timeout: Some(millis(600)), ..limits(5) });
    assert_eq!(stage.dial(), [], "nobody has use for it");
    stage.pool.keep_min(true);
    for _ in 0..3 {
        let [one] = stage.dial()[..] else { panic!("one at a time") };
        assert_eq!(stage.ready(one), Settled::Idle);
    }
    assert_eq!(stage.dial(), []);
    let mut burst: Vec<ServerId> = (0..3).map(|_| stage.take()).collect();
    burst.extend(stage.busy(2));
    for server in burst {
        assert_eq!(stage.give_back(server), Settled::Idle);
    }
    stage.pass(millis(600));
    assert_eq!(stage.pool.expired(stage.now).len(), 2);
    assert_eq!(stage.counts(), (0, 3, 0, 0));
    stage.pool.keep_min(false);
    assert_eq!(stage.pool.expired(stage.now).len(), 3);
}

#[test]
fn the_least_number_is_never_above_the_size() {
    let mut stage = Stage::write(Limits { min_size: 9, ..limits(2) });
    stage.pool.keep_min(true);
    for _ in 0..2 {
        let [one] = stage.dial()[..] else { panic!("one at a time") };
        assert_eq!(stage.ready(one), Settled::Idle);
    }
    assert_eq!(stage.dial(), []);
}

#[test]
fn connections_are_used_again_newest_first_or_in_turn() {
    for (round_robin, expected) in [(false, [2, 2, 2, 2]), (true, [0, 1, 2, 0])] {
        let mut stage = Stage::write(Limits { round_robin, ..limits(3) });
        let servers = stage.idle(3);
        for at in expected {
            let taken = stage.take();
            assert_eq!(taken, servers[at], "round robin: {round_robin}");
            assert_eq!(stage.give_back(taken), Settled::Idle);
        }
    }
}

#[test]
fn a_lifetime_of_zero_lets_each_connection_serve_once() {
    let mut stage = Stage::write(Limits { lifetime: Some(Duration::ZERO), ..limits(2) });
    let server = stage.busy(1)[0];
    assert_eq!(stage.give_back(server), Settled::Retire);
}

#[test]
fn without_a_limit_a_pool_grows_with_its_clients() {
    let unlimited = Limits { size: NonZeroU32::MAX, reserve: 5, lifetime: Some(millis(1000)), ..limits(1) };
    let mut stage = Stage::write(unlimited);
    assert_eq!(stage.busy(90).len(), 90);
}

#[test]
fn clients_fail_fast_after_a_failed_login_until_the_retry() {
    let mut stage = Stage::write(Limits { login_retry: Some(millis(3000)), ..limits(2) });
    stage.wait();
    let [dialed] = stage.dial()[..] else { panic!("one dial") };
    assert_eq!(stage.ask().1, Checkout::Queued, "nothing has failed yet");
    stage.fail(dialed);
    assert_eq!(stage.ask().1, Checkout::Failing);
    assert_eq!(stage.dial(), []);
    stage.pass(millis(2999));
    assert_eq!(stage.ask().1, Checkout::Failing);
    stage.pass(millis(1));
    assert_eq!(stage.ask().1, Checkout::Queued, "somebody has to try");
    let [dialed, _] = stage.dial()[..] else { panic!("two dials") };
    assert!(matches!(stage.ready(dialed), Settled::Grant(_)));
    assert_eq!(stage.ask().1, Checkout::Queued);
}

#[test]
fn a_pool_with_a_connection_does_not_fail_fast() {
    let mut stage = Stage::write(Limits { login_retry: Some(millis(3000)), ..limits(2) });
    let busy = stage.busy(1)[0];
    let waiting = stage.wait();
    let [dialed] = stage.dial()[..] else { panic!("one dial") };
    stage.fail(dialed);
    assert_eq!(stage.ask().1, Checkout::Queued);
    assert_eq!(stage.give_back(busy), Settled::Grant(waiting));
}

#[test]
fn a_server_that_is_starting_fails_nobody() {
    let mut stage = Stage::write(Limits { login_retry: Some(millis(3000)), ..limits(2) });
    stage.wait();
    let [dialed] = stage.dial()[..] else { panic!("one dial") };
    stage.pool.dial_failed(dialed, DialFailure::NotYet, stage.now);
    assert_eq!(stage.ask().1, Checkout::Queued);
    stage.pass(millis(50));
    assert_eq!(stage.dial().len(), 2);
}

#[test]
fn another_member_is_tried_before_anybody_fails() {
    let mut stage = Stage::read(2, Limits { login_retry: Some(millis(3000)), ..limits(2) });
    stage.wait();
    let [one] = stage.dial()[..] else { panic!("one dial") };
    stage.fail(one);
    assert_eq!(stage.ask().1, Checkout::Queued);
    for other in stage.dial() {
        stage.fail(other);
    }
    assert_eq!(stage.ask().1, Checkout::Failing);
}

#[test]
fn each_client_may_wait_as_long_as_its_own_limit() {
    let mut stage = Stage::write(limits(1));
    stage.busy(1);
    let (patient, hasty, endless) = (stage.wait(), stage.wait(), stage.wait());
    stage.pass(millis(100));
    let limit = move |client| match client {
        client if client == patient => Some(millis(500)),
        client if client == hasty => Some(millis(100)),
        _ => None,
    };
    assert_eq!(stage.pool.overdue_each(stage.now, limit), [hasty]);
    stage.pass(millis(10_000));
    assert_eq!(stage.pool.overdue_each(stage.now, limit), [patient]);
    stage.pool.forget(endless);
    assert_eq!(stage.pool.waiting(), 0);
}
