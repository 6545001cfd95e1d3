//! Pools of the write port: growth, reuse, age, and what a change of leader does to them.

use super::*;

#[test]
fn dials_no_more_than_there_are_waiting_clients() {
    let mut stage = Stage::write(limits(10));
    assert_eq!(stage.dial(), []);
    stage.wait();
    stage.wait();
    assert_eq!(stage.dial().len(), 2);
    assert_eq!(stage.dial(), []);
    assert_eq!(stage.counts(), (0, 0, 2, 2));
}

#[test]
fn dials_no_more_than_the_size_allows() {
    let mut stage = Stage::write(limits(3));
    stage.busy(3);
    stage.wait();
    assert_eq!(stage.dial(), []);
}

#[test]
fn dials_only_so_many_at_once() {
    let mut stage = Stage::write(Limits { dials_at_once: 2, ..limits(10) });
    let clients: Vec<ClientId> = (0..5).map(|_| stage.wait()).collect();
    let first = stage.dial();
    assert_eq!(first.len(), 2);
    assert_eq!(stage.ready(first[0]), Settled::Grant(clients[0]));
    assert_eq!(stage.dial().len(), 1);
}

#[test]
fn the_connection_used_last_is_used_next() {
    let mut stage = Stage::write(limits(3));
    let servers = stage.idle(3);
    assert_eq!(stage.take(), servers[2]);
    assert_eq!(stage.take(), servers[1]);
    assert_eq!(stage.take(), servers[0]);
}

#[test]
fn a_new_leader_ends_every_old_connection_at_once() {
    let mut stage = Stage::write(limits(4));
    let mut servers = stage.busy(3);
    assert_eq!(stage.give_back(servers[0]), Settled::Idle);
    let waiting = {
        stage.take();
        stage.wait()
    };
    servers.extend(stage.dial());
    assert_eq!(stage.counts(), (3, 0, 1, 1));

    assert_eq!(stage.retarget(&[target(2, 2)]), servers);
    assert_eq!(stage.counts(), (0, 0, 0, 1));
    // What the caller still says about them changes nothing.
    assert_eq!(stage.give_back(servers[1]), Settled::Retire);
    assert_eq!(stage.ready(servers[3]), Settled::Retire);
    stage.pool.discard(servers[2]);

    let fresh = stage.dial();
    assert_eq!(stage.pool.server(fresh[0]).map(|facts| facts.member), Some(MemberId(2)));
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(waiting));
}

#[test]
fn the_same_member_on_a_new_timeline_counts_as_new() {
    let mut stage = Stage::write(limits(1));
    let servers = stage.busy(1);
    assert_eq!(stage.retarget(&[target(1, 2)]), servers);
}

#[test]
fn following_the_same_leader_again_disturbs_nobody() {
    let mut stage = Stage::write(limits(2));
    stage.busy(2);
    assert_eq!(stage.retarget(&[target(1, 1)]), []);
    assert_eq!(stage.counts(), (2, 0, 0, 0));
}

#[test]
fn without_a_leader_clients_wait_and_nobody_is_dialled() {
    let mut stage = Stage::write(limits(2));
    let servers = stage.idle(2);
    let mut closed = stage.retarget(&[]);
    closed.sort_unstable();
    assert_eq!(closed, servers);
    assert!(stage.pool.held());
    let client = stage.wait();
    assert_eq!(stage.dial(), []);

    assert_eq!(stage.retarget(&[target(2, 2)]), []);
    assert!(!stage.pool.held());
    let fresh = stage.dial();
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(client));
}

#[test]
fn failed_dials_pause_longer_each_time_up_to_a_second() {
    let mut stage = Stage::write(limits(1));
    stage.wait();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let server = stage.dial()[0];
        stage.fail(server);
        let retry = stage.pool.retry_at(stage.now).expect("a client waits");
        pauses.push((retry - stage.now).as_millis());
        stage.pass(retry - stage.now - millis(1));
        assert_eq!(stage.dial(), []);
        stage.pass(millis(1));
    }
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
}

#[test]
fn dials_that_fail_together_count_once() {
    let mut stage = Stage::write(limits(4));
    for _ in 0..4 {
        stage.wait();
    }
    for server in stage.dial() {
        stage.fail(server);
    }
    assert_eq!(stage.pool.retry_at(stage.now), Some(stage.now + millis(50)));
    assert_eq!(stage.pool.sums().dial_failures, 4);
}

#[test]
fn success_and_a_new_topology_end_the_pause() {
    let mut stage = Stage::write(limits(1));
    stage.wait();
    let server = stage.dial()[0];
    stage.fail(server);
    assert_eq!(stage.dial(), []);
    assert_eq!(stage.retarget(&[target(1, 1)]), []);
    assert_eq!(stage.dial().len(), 1);
    assert_eq!(stage.pool.retry_at(stage.now), None);
}

#[test]
fn a_login_can_ask_for_one_connection_that_no_client_waits_for() {
    let mut stage = Stage::write(limits(5));
    stage.pool.demand_one(stage.now);
    let server = stage.dial();
    assert_eq!(server.len(), 1);
    stage.pool.demand_one(stage.now);
    assert_eq!(stage.dial(), []);
    assert_eq!(stage.ready(server[0]), Settled::Idle);
    stage.pool.demand_one(stage.now);
    assert_eq!(stage.dial(), []);
}

#[test]
fn a_demand_survives_a_failed_dial() {
    let mut stage = Stage::write(limits(5));
    stage.pool.demand_one(stage.now);
    let server = stage.dial()[0];
    stage.fail(server);
    stage.pass(millis(50));
    assert_eq!(stage.dial().len(), 1);
}

#[test]
fn unused_connections_close_after_a_while_the_used_one_stays() {
    let mut stage = Stage::write(Limits { idle_timeout: Some(millis(1000)), ..limits(3) });
    let servers = stage.idle(3);
    stage.pass(millis(999));
    assert_eq!(stage.pool.expired(stage.now), []);
    let used = stage.take();
    assert_eq!(stage.give_back(used), Settled::Idle);
    stage.pass(millis(1));
    assert_eq!(stage.pool.expired(stage.now), servers[..2]);
    assert_eq!(stage.counts(), (0, 1, 0, 0));
    assert_eq!(stage.pool.sums().closed, 2);
}

#[test]
fn old_connections_close_one_after_the_other() {
    let mut stage = Stage::write(Limits { lifetime: Some(millis(4000)), ..limits(4) });
    let servers = stage.busy(4);
    stage.pass(millis(4000));
    assert_eq!(stage.give_back(servers[0]), Settled::Retire);
    assert_eq!(stage.give_back(servers[1]), Settled::Idle);
    stage.pass(millis(1000));
    assert_eq!(stage.pool.expired(stage.now), servers[1..2]);
    assert_eq!(stage.give_back(servers[2]), Settled::Idle);
}

#[test]
fn a_lifetime_of_zero_means_single_use() {
    let mut stage = Stage::write(Limits { lifetime: Some(Duration::ZERO), ..limits(2) });
    let servers = stage.busy(2);
    assert_eq!(stage.give_back(servers[0]), Settled::Retire);
    assert_eq!(stage.give_back(servers[1]), Settled::Retire);
}

#[test]
fn reconnect_replaces_all_but_lets_transactions_end() {
    let mut stage = Stage::write(limits(3));
    let servers = stage.busy(2);
    assert_eq!(stage.give_back(servers[1]), Settled::Idle);
    assert_eq!(stage.pool.retire_all(), servers[1..]);
    assert_eq!(stage.pool.server(servers[0]).map(|facts| facts.retire), Some(true));
    let client = stage.wait();
    assert_eq!(stage.give_back(servers[0]), Settled::Retire);
    let fresh = stage.dial();
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(client));
}

#[test]
fn pause_disconnects_as_transactions_end_and_resume_serves_who_waited() {
    let mut stage = Stage::write(limits(3));
    let servers = stage.busy(2);
    assert_eq!(stage.give_back(servers[1]), Settled::Idle);
    assert_eq!(stage.pool.pause(), servers[1..]);
    assert!(!stage.pool.is_quiet());
    let client = stage.wait();
    assert_eq!(stage.dial(), []);
    assert_eq!(stage.give_back(servers[0]), Settled::Retire);
    assert!(stage.pool.is_quiet());

    stage.pool.resume();
    assert!(!stage.pool.is_quiet());
    let fresh = stage.dial();
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(client));
}

#[test]
fn a_smaller_size_takes_effect_as_connections_come_free() {
    let mut stage = Stage::write(limits(4));
    let servers = stage.busy(4);
    assert_eq!(stage.give_back(servers[0]), Settled::Idle);
    stage.pool.set_limits(limits(2));
    assert_eq!(stage.pool.expired(stage.now), servers[..1]);
    assert_eq!(stage.give_back(servers[1]), Settled::Retire);
    assert_eq!(stage.give_back(servers[2]), Settled::Idle);
    assert_eq!(stage.pool.limits().size.get(), 2);
}

#[test]
fn a_lost_connection_frees_its_slot_in_any_state() {
    let mut stage = Stage::write(limits(3));
    let servers = stage.busy(2);
    assert_eq!(stage.give_back(servers[1]), Settled::Idle);
    stage.take();
    stage.wait();
    let dialing = stage.dial();
    for server in [servers[0], servers[1], dialing[0]] {
        stage.pool.discard(server);
        stage.pool.discard(server);
    }
    assert_eq!(stage.counts(), (0, 0, 0, 1));
    assert_eq!(stage.pool.sums().closed, 2);
}

#[test]
fn a_hold_gives_up_logins_and_keeps_what_is_open() {
    let mut stage = Stage::write(Limits { dials_at_once: 2, ..limits(4) });
    let busy = stage.busy(1);
    let clients = [stage.wait(), stage.wait()];
    let dialing = stage.dial();
    assert_eq!(dialing.len(), 2);
    assert_eq!(stage.pool.hold(stage.now), dialing);
    assert_eq!(stage.counts(), (1, 0, 0, 2));
    assert_eq!(stage.ready(dialing[0]), Settled::Retire, "whatever comes of it");
    assert_eq!(stage.dial(), []);
    assert_eq!(stage.retarget(&[target(1, 1)]), []);
    let fresh = stage.dial();
    assert_eq!(fresh.len(), 2);
    assert_eq!(stage.ready(fresh[0]), Settled::Grant(clients[0]));
    assert_eq!(stage.give_back(busy[0]), Settled::Grant(clients[1]));
}
