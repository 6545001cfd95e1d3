//! Fixed servers: in turn, or the first that answers.

use super::*;

/// A pool of this kind on members 1 to 3.
fn stage(kind: PoolKind) -> Stage {
    let mut stage = Stage::new(kind, limits(9));
    assert_eq!(stage.retarget(&[1, 2, 3].map(|member| target(member, 0))), []);
    stage
}

/// Where the next connection is dialled; it stays busy.
fn next(stage: &mut Stage) -> u32 {
    stage.wait();
    let [server] = stage.dial()[..] else { panic!("one client, one dial") };
    let member = stage.member(server).expect("just dialled");
    assert!(matches!(stage.ready(server), Settled::Grant(_)));
    member.0
}

/// The next dial fails. Where it went; its client keeps waiting.
fn fail(stage: &mut Stage) -> u32 {
    let [server] = stage.dial()[..] else { panic!("one client, one dial") };
    let member = stage.member(server).expect("just dialled");
    stage.fail(server);
    member.0
}

#[test]
fn each_has_its_turn() {
    let mut stage = stage(PoolKind::Turns);
    assert_eq!([(); 5].map(|()| next(&mut stage)), [1, 2, 3, 1, 2]);
}

#[test]
fn a_failure_sends_the_client_to_the_next_at_once() {
    let mut stage = stage(PoolKind::Turns);
    let client = stage.wait();
    assert_eq!([fail(&mut stage), fail(&mut stage)], [1, 2]);
    let [server] = stage.dial()[..] else { panic!("one dial") };
    assert_eq!(stage.member(server), Some(MemberId(3)));
    assert_eq!(stage.ready(server), Settled::Grant(client));
    stage.pass(millis(2000));
    assert_eq!([(); 2].map(|()| next(&mut stage)), [3, 3], "the others are left alone for a while");
    stage.pass(crate::members::AVOIDED_FOR);
    assert_eq!([(); 3].map(|()| next(&mut stage)), [1, 2, 3]);
}

#[test]
fn the_first_that_answers_is_kept_until_it_fails() {
    let mut stage = stage(PoolKind::First);
    assert_eq!([(); 2].map(|()| next(&mut stage)), [1, 1]);
    stage.wait();
    assert_eq!(fail(&mut stage), 1);
    let [server] = stage.dial()[..] else { panic!("one dial") };
    assert_eq!(stage.member(server), Some(MemberId(2)));
    assert!(matches!(stage.ready(server), Settled::Grant(_)));
    stage.pass(millis(2000));
    assert_eq!([(); 2].map(|()| next(&mut stage)), [2, 2]);
    stage.wait();
    assert_eq!([fail(&mut stage), fail(&mut stage), fail(&mut stage)], [2, 3, 1], "round and round");
}

#[test]
fn busy_connections_to_a_server_that_left_the_list_end_their_work() {
    let mut stage = stage(PoolKind::Turns);
    next(&mut stage);
    let server = ServerId(1);
    assert_eq!(stage.retarget(&[target(2, 0), target(3, 0)]), []);
    assert_eq!(stage.give_back(server), Settled::Retire);
    assert_eq!(next(&mut stage), 2);
}

#[test]
fn a_pool_that_follows_a_leader_can_come_to_have_servers_of_its_own() {
    let mut stage = Stage::write(limits(9));
    let server = stage.busy(1)[0];
    stage.pool.set_kind(PoolKind::Turns);
    assert_eq!(stage.retarget(&[target(2, 0), target(3, 0)]), []);
    assert_eq!([(); 2].map(|()| next(&mut stage)), [2, 3]);
    stage.pool.set_kind(PoolKind::Write);
    let mut closed = stage.retarget(&[target(1, 2)]);
    closed.sort_unstable();
    assert_eq!(closed.len(), 3, "a leader's pool keeps nothing else");
    assert_eq!(closed[0], server);
}
