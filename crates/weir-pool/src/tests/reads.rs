//! Pools of the read port: choice of the member, members that leave and return, even spread.

use super::*;

#[test]
fn connections_spread_over_the_members() {
    let mut stage = Stage::read(3, limits(9));
    stage.busy(9);
    assert_eq!([stage.on(1), stage.on(2), stage.on(3)], [3, 3, 3]);
}

#[test]
fn the_less_busy_of_two_members_is_chosen() {
    let mut stage = Stage::read(2, limits(8));
    stage.idle(8);
    for _ in 0..4 {
        let (one, two) = (stage.take(), stage.take());
        assert_ne!(stage.member(one), stage.member(two));
    }
}

#[test]
fn an_idle_connection_elsewhere_is_better_than_waiting() {
    let mut stage = Stage::read(2, limits(2));
    stage.idle(2);
    stage.take();
    stage.take();
    assert_eq!(stage.counts(), (2, 0, 0, 0));
}

#[test]
fn a_member_that_left_keeps_its_transactions_until_they_end() {
    let mut stage = Stage::read(2, limits(4));
    let servers = stage.busy(4);
    let on_two =
        |stage: &Stage, id: &ServerId| stage.pool.server(*id).is_some_and(|s| s.member == MemberId(2));
    let gone: Vec<ServerId> = servers.iter().copied().filter(|id| on_two(&stage, id)).collect();
    assert_eq!(stage.give_back(gone[0]), Settled::Idle);

    assert_eq!(stage.retarget(&[target(1, 1)]), gone[..1]);
    let client = stage.wait();
    assert_eq!(stage.give_back(gone[1]), Settled::Retire);
    let fresh = stage.dial();
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(client));
    assert_eq!((stage.on(1), stage.on(2)), (3, 0));
}

#[test]
fn a_promoted_replica_counts_as_left() {
    let mut stage = Stage::read(1, limits(2));
    let servers = stage.busy(2);
    assert_eq!(stage.give_back(servers[0]), Settled::Idle);
    assert_eq!(stage.retarget(&[target(1, 2)]), servers[..1]);
    assert_eq!(stage.give_back(servers[1]), Settled::Retire);
}

#[test]
fn a_member_that_cannot_be_dialled_does_not_stop_the_others() {
    let mut stage = Stage::read(2, limits(4));
    stage.wait();
    let failed = stage.dial()[0];
    let bad = stage.pool.server(failed).expect("dialing").member;
    stage.fail(failed);
    let other = stage.dial()[0];
    assert_ne!(stage.pool.server(other).expect("dialing").member, bad);
}

#[test]
fn a_member_that_returns_gets_its_share_slowly() {
    let mut stage = Stage::read(1, limits(6));
    stage.idle(6);
    assert_eq!(stage.retarget(&[target(1, 1), target(2, 1)]), []);
    let mut closed = 0;
    let began = stage.now;
    while (stage.on(1), stage.on(2)) != (3, 3) {
        closed += usize::from(stage.pool.rebalance(stage.now).is_some());
        assert_eq!(stage.pool.rebalance(stage.now), None, "two moves at the same moment");
        for server in stage.dial() {
            assert_eq!(stage.ready(server), Settled::Idle);
        }
        stage.pass(millis(10));
        assert!(stage.now - began < millis(2000), "{:?}", stage.pool);
    }
    assert_eq!(closed, 3);
    assert!(stage.now - began >= millis(200));
    stage.pass(millis(1000));
    assert_eq!(stage.pool.rebalance(stage.now), None);
}

#[test]
fn a_free_slot_is_used_before_a_good_connection_is_closed() {
    let mut stage = Stage::read(1, limits(10));
    stage.idle(4);
    assert_eq!(stage.retarget(&[target(1, 1), target(2, 1)]), []);
    for _ in 0..20 {
        assert_eq!(stage.pool.rebalance(stage.now), None, "closed before the replacement was open");
        for server in stage.dial() {
            stage.fail(server);
        }
        stage.pass(millis(100));
    }
    assert_eq!(stage.on(1), 4);
}

#[test]
fn saturated_members_hand_over_at_the_end_of_transactions() {
    let mut stage = Stage::read(1, limits(2));
    let servers = stage.busy(2);
    let waiting = stage.wait();
    assert_eq!(stage.retarget(&[target(1, 1), target(2, 1)]), []);
    assert_eq!(stage.pool.rebalance(stage.now), None);
    assert_eq!(stage.give_back(servers[0]), Settled::Retire);
    let fresh = stage.dial();
    assert_eq!(stage.on(2), 1);
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(waiting));
}

#[test]
fn a_write_pool_has_nothing_to_balance() {
    let mut stage = Stage::write(limits(4));
    stage.idle(4);
    assert_eq!(stage.pool.rebalance(stage.now), None);
}

#[test]
fn a_member_that_shuts_the_pool_out_is_dialed_for_want_of_others_only() {
    let mut stage = Stage::read(2, limits(8));
    stage.wait();
    let [first] = stage.dial()[..] else { panic!("one dial for one client") };
    let shuts_out = stage.member(first);
    stage.pool.dial_failed(first, DialFailure::NotLetIn, stage.now);
    for later in [Duration::ZERO, crate::members::BACKOFF_MAX, Duration::from_secs(13)] {
        stage.pass(later);
        stage.wait();
        for server in stage.dial() {
            assert_ne!(stage.member(server), shuts_out);
            let _ = stage.ready(server);
        }
        assert!(!stage.pool.is_shut_out(stage.now));
        assert_eq!(stage.pool.rebalance(stage.now), None, "nothing is moved to it");
    }
    stage.pass(Duration::from_secs(1));
    stage.wait();
    let last = stage.dial();
    assert_eq!(last.iter().map(|server| stage.member(*server)).collect::<Vec<_>>(), [shuts_out]);
}

#[test]
fn a_pool_is_shut_out_when_no_member_is_left() {
    let mut stage = Stage::read(2, limits(4));
    stage.wait();
    for is_shut_out in [false, true] {
        let [server] = stage.dial()[..] else { panic!("one dial for one client") };
        stage.pool.dial_failed(server, DialFailure::NotLetIn, stage.now);
        assert_eq!(stage.pool.is_shut_out(stage.now), is_shut_out);
    }
    stage.pass(crate::members::AVOIDED_FOR);
    assert!(!stage.pool.is_shut_out(stage.now), "it may have changed");
    assert_eq!(stage.dial().len(), 1);
}
