//! Which member serves: by weight, in turn, anywhere but there; and how connections follow the weights.

use super::*;

/// Member 1 has the first weight, and so on.
fn weigh(stage: &mut Stage, weights: &[u32]) {
    let at = |member: u32| member as usize - 1;
    stage.pool.set_weights(|Target { member: MemberId(member), .. }| weights[at(member)]);
}

fn weighed(weights: &[u32], balance: Balance, size: u32) -> Stage {
    let members = u32::try_from(weights.len()).expect("few");
    let mut stage = Stage::read(members, Limits { balance, ..limits(size) });
    weigh(&mut stage, weights);
    stage
}

/// How often each of three members serves one client after the other, once connections are where they belong.
fn served(stage: &mut Stage, requests: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..requests {
        let server = match stage.ask().1 {
            Checkout::Granted(server) => server,
            Checkout::Queued => {
                let fresh = stage.dial()[0];
                assert!(matches!(stage.ready(fresh), Settled::Grant(_)));
                fresh
            }
            Checkout::QueueFull | Checkout::Failing => panic!("{:?}", stage.pool),
        };
        for spare in stage.dial() {
            assert_eq!(stage.ready(spare), Settled::Idle);
        }
        let MemberId(member) = stage.member(server).expect("in use");
        counts[member as usize - 1] += 1;
        assert_eq!(stage.give_back(server), Settled::Idle);
    }
    counts
}

#[test]
fn clients_that_come_one_by_one_reach_all_members() {
    let mut stage = weighed(&[1, 1, 1], Balance::FewerBusy, 10);
    served(&mut stage, 50);
    assert_eq!([stage.on(1), stage.on(2), stage.on(3)], [1, 1, 1], "and no connection is opened for nothing");
    let counts = served(&mut stage, 300);
    assert!(counts.iter().all(|count| (70..130).contains(count)), "{counts:?}");
}

#[test]
fn each_in_turn() {
    let mut stage = weighed(&[1, 1, 1], Balance::InTurn, 10);
    served(&mut stage, 10);
    assert_eq!(served(&mut stage, 300), [100, 100, 100]);
}

#[test]
fn each_as_often_as_its_weight_says() {
    let mut stage = weighed(&[5, 3, 2], Balance::InTurn, 10);
    served(&mut stage, 30);
    assert_eq!(served(&mut stage, 100), [50, 30, 20]);
    assert!(stage.on(1) >= stage.on(2) && stage.on(2) >= stage.on(3));
    let mut stage = weighed(&[5, 3, 2], Balance::FewerBusy, 10);
    served(&mut stage, 30);
    let [five, three, two] = served(&mut stage, 1000);
    assert!(five > three && three > two && two > 100, "{five} {three} {two}");
}

#[test]
fn who_has_no_weight_serves_for_want_of_others() {
    for balance in [Balance::FewerBusy, Balance::InTurn] {
        let mut stage = weighed(&[0, 1, 0], balance, 4);
        assert_eq!(served(&mut stage, 20), [0, 20, 0]);
        let mut stage = weighed(&[0, 1, 0], balance, 4);
        stage.busy(4);
        assert_eq!([stage.on(1), stage.on(2), stage.on(3)], [0, 4, 0]);
        // It cannot be dialled any more.
        let mut stage = weighed(&[0, 1, 0], balance, 4);
        stage.wait();
        let failed = stage.dial()[0];
        assert_eq!(stage.member(failed), Some(MemberId(2)));
        stage.fail(failed);
        let other = stage.dial()[0];
        assert_ne!(stage.member(other), Some(MemberId(2)));
        // And all alone they share.
        let mut stage = weighed(&[0, 0, 0], balance, 9);
        let counts = served(&mut stage, 90);
        assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    }
}

#[test]
fn connections_follow_the_weights() {
    for (weights, spread) in [([1, 1, 2], [2, 2, 4]), ([3, 1, 0], [6, 2, 0]), ([0, 0, 1], [0, 0, 8])] {
        let mut stage = weighed(&[1, 1, 1], Balance::FewerBusy, 8);
        stage.idle(8);
        weigh(&mut stage, &weights);
        for _ in 0..200 {
            let closed = stage.pool.rebalance(stage.now);
            let opened = stage.dial();
            assert!(usize::from(closed.is_some()) + opened.len() <= 2, "a herd");
            for server in opened {
                assert_eq!(stage.ready(server), Settled::Idle);
            }
            stage.pass(millis(100));
        }
        assert_eq!([stage.on(1), stage.on(2), stage.on(3)], spread, "{weights:?}");
    }
}

#[test]
fn dials_follow_the_weights() {
    let mut stage = weighed(&[4, 2, 2], Balance::FewerBusy, 8);
    stage.busy(8);
    assert_eq!([stage.on(1), stage.on(2), stage.on(3)], [4, 2, 2]);
}

#[test]
fn anywhere_but_there() {
    for balance in [Balance::FewerBusy, Balance::InTurn] {
        let mut stage = weighed(&[1, 1, 1], balance, 3);
        stage.idle(3);
        stage.clients += 1;
        let client = ClientId(stage.clients);
        for not in [2, 3, 2] {
            let not = MemberId(not);
            let server = stage.pool.checkout_elsewhere(client, not, stage.now, &mut stage.dice);
            let server = server.expect("two others are idle");
            assert_ne!(stage.member(server), Some(not));
            assert_eq!(stage.give_back(server), Settled::Idle);
        }
    }
}

#[test]
fn a_connection_elsewhere_is_opened_where_there_is_none() {
    let mut stage = Stage::read(1, limits(3));
    stage.idle(1);
    assert_eq!(stage.retarget(&[target(1, 1), target(2, 1)]), []);
    let client = ClientId(99);
    assert_eq!(stage.pool.checkout_elsewhere(client, MemberId(1), stage.now, &mut stage.dice), None);
    let [fresh] = stage.dial()[..] else { panic!("one dial") };
    assert_eq!(stage.member(fresh), Some(MemberId(2)));
    assert_eq!(stage.ready(fresh), Settled::Idle);
    let server = stage.pool.checkout_elsewhere(client, MemberId(1), stage.now, &mut stage.dice);
    assert_eq!(server, Some(fresh));
    assert_eq!(stage.give_back(fresh), Settled::Idle);
    // A full pool opens none.
    let mut full = Stage::read(1, limits(1));
    full.idle(1);
    assert_eq!(full.retarget(&[target(1, 1), target(2, 1)]), []);
    assert_eq!(full.pool.checkout_elsewhere(client, MemberId(1), full.now, &mut full.dice), None);
    assert_eq!(full.dial(), []);
}
