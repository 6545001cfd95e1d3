//! The queue: order, bounds, and the two clocks of a waiting client.

use super::*;

#[test]
fn first_come_first_served() {
    let mut stage = Stage::write(limits(1));
    let server = stage.busy(1)[0];
    let clients: Vec<ClientId> = (0..3).map(|_| stage.wait()).collect();
    for client in clients {
        assert_eq!(stage.give_back(server), Settled::Grant(client));
    }
    assert_eq!(stage.give_back(server), Settled::Idle);
}

#[test]
fn who_gives_up_loses_the_place() {
    let mut stage = Stage::write(limits(1));
    let server = stage.busy(1)[0];
    let (first, second) = (stage.wait(), stage.wait());
    stage.pool.forget(first);
    stage.pool.forget(ClientId(999));
    assert_eq!(stage.pool.waiting(), 1);
    assert_eq!(stage.give_back(server), Settled::Grant(second));
}

#[test]
fn the_queue_is_bounded() {
    let mut stage = Stage::write(Limits { waiting_max: 2, ..limits(1) });
    stage.busy(1);
    stage.wait();
    stage.wait();
    assert_eq!(stage.ask().1, Checkout::QueueFull);
    assert_eq!(stage.pool.sums().refused, 1);
}

#[test]
fn a_wait_ends_at_its_limit() {
    let mut stage = Stage::write(limits(1));
    stage.busy(1);
    let first = stage.wait();
    stage.pass(millis(400));
    let second = stage.wait();
    stage.pass(millis(599));
    assert_eq!(stage.pool.overdue(stage.now, millis(1000)), []);
    assert_eq!(stage.pool.oldest_wait(stage.now), Some(millis(999)));
    stage.pass(millis(1));
    assert_eq!(stage.pool.overdue(stage.now, millis(1000)), [first]);
    stage.pass(millis(400));
    assert_eq!(stage.pool.overdue(stage.now, millis(1000)), [second]);
    assert_eq!(stage.pool.sums().overdue, 2);
}

#[test]
fn a_limit_of_zero_empties_the_queue() {
    let mut stage = Stage::write(limits(1));
    stage.busy(1);
    let clients = [stage.wait(), stage.wait()];
    assert_eq!(stage.pool.overdue(stage.now, Duration::ZERO), clients);
}

#[test]
fn only_the_clock_of_the_present_cause_runs() {
    let mut stage = Stage::write(limits(1));
    let server = stage.busy(1)[0];
    let client = stage.wait();
    stage.pass(millis(700));
    // Busy for 700 ms so far; the hold begins at zero.
    assert_eq!(stage.retarget(&[]), [server]);
    stage.pass(millis(400));
    assert_eq!(stage.pool.overdue(stage.now, millis(401)), []);
    // A leader: 700 ms of busy waiting stand, the 400 ms of the hold do not count.
    assert_eq!(stage.retarget(&[target(2, 2)]), []);
    stage.pass(millis(200));
    assert_eq!(stage.pool.overdue(stage.now, millis(901)), []);
    assert_eq!(stage.pool.oldest_wait(stage.now), Some(millis(1300)));
    // A second hold goes on where the first one ended.
    assert_eq!(stage.retarget(&[]), []);
    stage.pass(millis(100));
    assert_eq!(stage.pool.overdue(stage.now, millis(501)), []);
    assert_eq!(stage.pool.overdue(stage.now, millis(500)), [client]);
}

#[test]
fn a_pool_that_never_had_a_target_holds_from_the_first_client_on() {
    let mut stage = Stage::new(PoolKind::Write, limits(1));
    stage.pass(millis(5000));
    let client = stage.wait();
    stage.pass(millis(300));
    assert_eq!(stage.pool.overdue(stage.now, millis(301)), []);
    assert_eq!(stage.pool.overdue(stage.now, millis(300)), [client]);
}

#[test]
fn waits_are_summed_when_they_end_well() {
    let mut stage = Stage::write(limits(1));
    let server = stage.busy(1)[0];
    stage.wait();
    stage.pass(millis(250));
    let _ = stage.give_back(server);
    let sums = stage.pool.sums();
    assert_eq!((sums.assignments, sums.wait_micros, sums.opened), (2, 250_000, 1));
}
