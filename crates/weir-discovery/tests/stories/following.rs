//! Stories of one cluster each, told on a virtual clock: what is followed when, how long it takes, and what is asked
//! meanwhile. Uses the public door only.

use crate::world::{Node, Reach, World, address, settings};
use weir_discovery::{Event, MonitorReport, ReadFallback, SessionEvidence};

#[test]
fn a_healthy_cluster_is_followed_after_everybody_was_asked() {
    let mut world = World::three();
    world.run_millis(100);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert_eq!(world.reign(), Some((1, 1)));
    assert_eq!(world.readers(), ["b", "c"]);
    let members = world.discovery.members(world.now);
    assert_eq!(members.len(), 3);
    assert_eq!(members[0].why_not_read.as_deref(), Some("it is the leader"));
    assert_eq!(members[1].lag.map(|lag| lag.bytes), Some(0));
}

#[test]
fn one_seed_is_enough_to_find_the_others() {
    let mut world = World::with(settings(&["c"]));
    world.run_millis(100);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
}

#[test]
fn patroni_3_without_names_is_followed_too() {
    let mut world = World::three();
    world.nameless = true;
    world.node("a").role = "master";
    world.run_millis(100);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn a_stale_leader_that_answers_first_is_not_believed() {
    let mut world = World::three();
    world.node("a").promote(4);
    world.node("b").promote(5);
    world.node("b").api = Reach::Frozen;
    world.run_millis(900);
    assert_eq!(world.leader(), None, "b was asked and has time left to answer");
    world.node("b").api = Reach::Up;
    world.run_millis(1100);
    assert_eq!(world.leader().as_deref(), Some("b"), "{}", world.why());
}

#[test]
fn the_start_does_not_wait_for_the_dead() {
    let mut world = World::three();
    world.node("b").api = Reach::Frozen;
    world.node("c").api = Reach::Frozen;
    world.run_millis(1100);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
}

#[test]
fn a_quiet_cluster_is_asked_once_a_second() {
    let mut world = World::three();
    world.run_millis(70_000);
    world.sent.clear();
    world.run_millis(10_000);
    assert!((29..=31).contains(&world.sent["primary"]), "{:?}", world.sent);
    assert!((9..=11).contains(&world.sent["cluster"]), "{:?}", world.sent);
    assert!((29..=31).contains(&world.sent["ping"]), "{:?}", world.sent);
}

// covers: poll_interval
#[test]
fn or_as_often_as_it_should_be() {
    let poll_interval = std::time::Duration::from_secs(5);
    let mut world = World::with(weir_discovery::Settings { poll_interval, ..settings(&["a", "b", "c"]) });
    world.run_millis(70_000);
    world.sent.clear();
    world.run_millis(50_000);
    assert!((29..=31).contains(&world.sent["primary"]), "{:?}", world.sent);
}

// covers: patroni_scope
#[test]
fn members_of_a_cluster_of_another_name_are_not_followed() {
    for (scope, leader) in [("s", Some("a")), ("other", None)] {
        let scope = Some(scope.to_owned());
        let mut world = World::with(weir_discovery::Settings { scope, ..settings(&["a"]) });
        world.run_millis(3_000);
        assert_eq!(world.leader().as_deref(), leader, "{}", world.why());
    }
}

#[test]
fn evidence_makes_it_ask_at_once_and_decides_nothing() {
    let mut world = World::three();
    world.run_millis(70_300);
    let before = world.discovery.topology();
    world.sent.clear();
    let evidence = SessionEvidence::Fatal { address: address("a"), code: *b"57P01" };
    world.discovery.step(world.now, Event::Evidence(evidence));
    world.run_millis(1);
    assert_eq!(world.sent["primary"], 3);
    world.run_millis(9_999);
    assert!((280..=303).contains(&world.sent["primary"]), "at most ten a second: {:?}", world.sent);
    assert!(world.sent["cluster"] <= 11, "{:?}", world.sent);
    assert_eq!(world.discovery.topology().generation, before.generation);
    world.run_millis(60_000);
    world.sent.clear();
    world.run_millis(10_000);
    assert!(world.sent["primary"] <= 31, "quiet again: {:?}", world.sent);
}

#[test]
fn a_crash_is_noticed_at_once_and_the_heir_followed_within_a_ping() {
    let mut world = World::three();
    world.run_millis(70_000);
    world.node("a").die();
    world.run_millis(20);
    assert_eq!(world.leader(), None, "the monitor saw it die");
    assert!(world.why().contains("a is lost"), "{}", world.why());
    assert_eq!(world.readers(), ["b", "c"], "reads go on");
    world.run_millis(20_000);
    // The key first, promotion 400 ms later.
    world.node("b").key = true;
    world.run_millis(400);
    assert_eq!(world.leader(), None);
    assert!(world.why().contains("b is to lead"), "{}", world.why());
    world.node("b").writes = true;
    world.node("b").timeline = 2;
    world.run_millis(30);
    assert_eq!(world.leader().as_deref(), Some("b"), "{}", world.why());
    assert_eq!(world.reign(), Some((2, 2)));
    assert_eq!(world.readers(), ["c"], "a is dead, b leads");
    let record = world.discovery.failovers().last().expect("one").clone();
    assert_eq!((record.number, record.from.as_str()), (1, "a"));
    assert_eq!(world.discovery.topology().failover, 1);
    let (claimed_by, claimed_at) = record.claimed.expect("b claimed");
    let followed = record.followed.expect("b was followed");
    assert_eq!((claimed_by.as_str(), followed.member.as_str(), followed.timeline), ("b", "b", 2));
    assert!(record.lost_at < claimed_at && claimed_at < followed.at);
    assert!(record.steps.iter().any(|step| step.text.contains("PostgreSQL takes writes on timeline 2")));
}

#[test]
fn a_switchover_goes_through_the_states_that_patroni_reports() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").state = "stopping";
    world.node("a").postgres = Reach::Refused;
    world.run_millis(100);
    assert_eq!(world.leader(), None);
    world.node("a").key = false;
    world.node("a").role = "demoted";
    world.run_millis(1500);
    world.node("c").promote(2);
    world.run_millis(150);
    assert_eq!(world.leader().as_deref(), Some("c"), "{}", world.why());
    world.node("a").rejoin(2);
    world.run_millis(2000);
    assert_eq!(world.readers(), ["a", "b"]);
    assert_eq!(world.discovery.failovers().len(), 1);
}

#[test]
fn a_thawed_leader_that_still_claims_is_fenced() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").api = Reach::Frozen;
    world.node("a").postgres = Reach::Frozen;
    world.run_millis(5_000);
    assert_eq!(world.leader(), None, "{}", world.why());
    world.node("b").promote(2);
    world.run_millis(200);
    assert_eq!(world.leader().as_deref(), Some("b"));
    world.node("a").api = Reach::Up;
    world.node("a").postgres = Reach::Up;
    world.run_millis(3_000);
    assert_eq!(world.leader().as_deref(), Some("b"));
    world.node("b").die();
    world.run_millis(3_000);
    assert_eq!(world.leader(), None, "an older timeline is no way out");
    let members = world.discovery.members(world.now);
    let why = members[0].why_not_lead.clone().expect("fenced");
    assert!(why.contains("timeline 1") && why.contains("ACCEPT LEADER a"), "{why}");
}

#[test]
fn accept_leader_is_the_way_out_of_the_fence() {
    let mut world = World::three();
    for (name, role) in [("a", 7), ("b", 1), ("c", 1)] {
        world.node(name).timeline = role;
    }
    world.run_millis(500);
    assert_eq!(world.reign(), Some((7, 1)));
    let now = world.now;
    assert!(world.discovery.accept_leader(now, "a").is_err(), "nothing to accept");
    assert!(world.discovery.accept_leader(now, "b").is_err(), "b claims nothing");
    assert!(world.discovery.accept_leader(now, "x").is_err(), "nobody of that name");
    world.node("a").die();
    world.node("b").promote(3);
    world.run_millis(2_000);
    assert_eq!(world.leader(), None);
    let now = world.now;
    assert!(world.discovery.accept_leader(now, "b").is_ok());
    assert_eq!(world.leader().as_deref(), Some("b"));
    assert_eq!(world.reign(), Some((3, 2)));
    world.run_millis(2_000);
    assert_eq!(world.leader().as_deref(), Some("b"));
}

#[test]
fn another_cluster_on_a_reused_address_is_refused() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").die();
    world.node("b").promote(9);
    world.node("b").system = crate::world::SYSTEM + 1;
    world.run_millis(3_000);
    assert_eq!(world.leader(), None);
    assert!(world.why().contains("system identifier"), "{}", world.why());
    assert_eq!(world.readers(), ["c"], "b belongs to another cluster");
}

#[test]
fn a_silent_api_keeps_the_leader_and_says_so() {
    let mut world = World::three();
    world.run_millis(500);
    let reign = world.reign();
    world.node("a").api = Reach::Refused;
    world.run_millis(30_000);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert_eq!(world.why(), "its REST API does not answer");
    world.node("a").api = Reach::Up;
    world.run_millis(200);
    assert_eq!((world.why().as_str(), world.reign()), ("", reign));
}

#[test]
fn everything_is_followed_without_a_monitor() {
    let mut world = World::with(weir_discovery::Settings { monitor: false, ..settings(&["a", "b"]) });
    world.run_millis(500);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert_eq!(world.readers(), ["b", "c"]);
    world.node("a").key = false;
    world.node("a").role = "demoted";
    world.run_millis(150);
    assert_eq!(world.leader(), None);
    world.node("b").key = true;
    world.run_millis(300);
    assert_eq!(world.leader(), None, "role is still replica");
    world.node("b").promote(2);
    world.run_millis(150);
    assert_eq!(world.leader().as_deref(), Some("b"));
    assert!(!world.sent.contains_key("ping"));
    world.node("c").die();
    world.run_millis(1_000);
    assert!(world.readers().contains(&"c".to_owned()), "one hiccup puts nobody out");
    world.run_millis(4_000);
    assert!(!world.readers().contains(&"c".to_owned()));
}

#[test]
fn a_monitor_that_is_not_let_in_is_no_obstacle() {
    let mut world = World::three();
    for name in ["a", "b", "c"] {
        world.node(name).postgres = Reach::Frozen;
    }
    world.run_millis(30);
    for name in ["a", "b", "c"] {
        let report = MonitorReport::RoleUnknown { why: "too many connections".to_owned() };
        world
            .discovery
            .step(world.now, Event::Monitor { member: name.to_owned(), address: address(name), report });
    }
    world.run_millis(10);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn the_restarted_leader_keeps_its_number_on_its_timeline_only() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").postgres = Reach::Refused;
    world.run_millis(50);
    assert_eq!(world.leader(), None);
    world.node("a").postgres = Reach::Up;
    world.run_millis(150);
    assert_eq!(world.reign(), Some((1, 1)), "connections that survived may go on");
    world.node("a").postgres = Reach::Refused;
    world.run_millis(50);
    world.node("a").promote(2);
    world.run_millis(150);
    assert_eq!(world.reign(), Some((2, 2)));
    assert_eq!(world.discovery.failovers().len(), 2);
}

#[test]
fn a_leader_whose_server_was_started_anew_gets_a_new_number_on_its_timeline() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").postgres = Reach::Frozen;
    world.run_millis(3_000);
    assert_eq!(world.leader(), None, "{}", world.why());
    world.node("a").postgres = Reach::Up;
    world.run_millis(200);
    assert_eq!(world.reign(), Some((1, 1)), "it was only out of sight");
    // The host loses power and is back before Patroni's ttl is over: nobody was promoted, and no connection survived.
    world.node("a").postgres = Reach::Frozen;
    world.run_millis(3_000);
    world.node("a").postgres = Reach::Up;
    world.node("a").started += 1;
    world.run_millis(200);
    assert_eq!(world.reign(), Some((1, 2)), "{}", world.why());
    world.node("a").started += 1;
    world.run_millis(2_000);
    assert_eq!(world.reign(), Some((1, 3)), "nobody had to be missed for it");
    world.run_millis(5_000);
    assert_eq!(world.reign(), Some((1, 3)));
}

#[test]
fn a_host_that_vanishes_without_a_word_is_missed_within_two_seconds() {
    for millis in [0, 250, 500, 750, 990] {
        let mut world = World::three();
        world.run_millis(70_000 + millis);
        let replica = world.node("c");
        replica.api = Reach::Frozen;
        replica.postgres = Reach::Frozen;
        let leader = world.node("a");
        leader.api = Reach::Frozen;
        leader.postgres = Reach::Frozen;
        world.run_millis(2_010);
        assert_eq!(world.leader(), None, "{}", world.why());
        assert_eq!(world.readers(), ["b"]);
    }
}

#[test]
fn members_come_and_go_but_seeds_stay() {
    let mut world = World::with(settings(&["a", "old"]));
    world.run_millis(1_000);
    assert_eq!(world.discovery.members(world.now).len(), 4, "three members and a seed that nobody names");
    world.nodes.push(Node::standby("d", 1));
    world.run_millis(2_000);
    assert_eq!(world.readers(), ["b", "c", "d"]);
    world.node("c").listed = false;
    world.run_millis(2_000);
    assert_eq!(world.readers(), ["b", "d"], "Patroni counts it out");
    world.run_millis(62_000);
    let names: Vec<String> =
        world.discovery.members(world.now).into_iter().map(|member| member.name).collect();
    assert_eq!(names, ["a", "b", "d", "http://old:8008"]);
}

#[test]
fn a_leader_that_gets_another_name_stays_the_leader() {
    for nameless in [false, true] {
        let mut world = World::three();
        world.nameless = nameless;
        world.run_millis(500);
        // Its Patroni is started again under another name; the old name's keys live on for a while.
        let old = world.node("a").clone();
        let new = world.node("a");
        new.name = "primus".to_owned();
        new.key = false;
        world.nodes.push(old);
        world.run_millis(3_000);
        world.nodes.pop();
        world.node("primus").key = true;
        world.run_millis(3_000);
        assert_eq!(world.leader().as_deref(), Some("primus"), "{}", world.why());
        assert_eq!(world.reign(), Some((1, 1)));
    }
}

#[test]
fn a_stall_while_all_apis_hang_is_a_pause_and_no_more() {
    let mut world = World::three();
    world.run_millis(70_000);
    for name in ["a", "b", "c"] {
        world.node(name).api = Reach::Frozen;
    }
    world.run_millis(5_000);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    world.node("a").postgres = Reach::Frozen;
    world.run_millis(2_500);
    assert_eq!(world.leader(), None, "{}", world.why());
    world.node("a").postgres = Reach::Up;
    world.run_millis(1_500);
    assert_eq!(world.reign(), Some((1, 1)), "{}", world.why());
    // Away for as long as it takes others to elect somebody, only a claim brings it back.
    world.node("a").postgres = Reach::Frozen;
    world.run_millis(15_000);
    world.node("a").postgres = Reach::Up;
    world.run_millis(10_000);
    assert_eq!(world.leader(), None, "{}", world.why());
    world.node("a").api = Reach::Up;
    world.run_millis(1_500);
    assert_eq!(world.reign(), Some((1, 1)), "{}", world.why());
}

#[test]
fn a_leader_that_moves_to_another_address_is_followed_there() {
    let mut world = World::three();
    world.run_millis(500);
    world.node("a").host = "elsewhere".to_owned();
    world.node("a").started += 1;
    world.run_millis(3_000);
    let topology = world.discovery.topology();
    let weir_discovery::Leadership::Led { member, address: at, .. } = &topology.leader else {
        panic!("{}", world.why())
    };
    assert_eq!((member.as_str(), at), ("a", &address("elsewhere")));
}

#[test]
fn a_standby_cluster_has_nobody_who_takes_writes_until_it_is_promoted() {
    let mut world = World::three();
    let head = world.node("a");
    head.key = false;
    head.writes = false;
    head.role = "standby_leader";
    for name in ["a", "b", "c"] {
        world.node(name).location = 0;
    }
    world.run_millis(3_000);
    assert!(world.why().contains("a standby cluster, led by a"), "{}", world.why());
    assert!(world.discovery.topology().is_standby_cluster);
    assert_eq!(world.readers(), ["a", "b", "c"], "as far as anybody has come is the measure");
    world.node("a").promote(2);
    world.run_millis(3_000);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert!(!world.discovery.topology().is_standby_cluster);
}

#[test]
fn a_member_promoted_by_hand_in_a_pause_is_not_followed_and_shown() {
    let mut world = World::three();
    world.run_millis(500);
    let rogue = world.node("b");
    rogue.promote(2);
    rogue.key = false;
    world.run_millis(3_000);
    assert_eq!((world.leader().as_deref(), world.reign()), (Some("a"), Some((1, 1))));
    let members = world.discovery.members(world.now);
    let why = members[1].why_not_lead.clone().unwrap_or_default();
    assert!(why.contains("takes writes"), "{why}");
    assert_eq!(world.readers(), ["c"]);
}

#[test]
fn of_two_writers_on_one_timeline_the_one_that_the_dcs_names_leads() {
    let mut world = World::three();
    world.run_millis(500);
    // As after a copy of the leader's data was started without standby.signal in a pause, where Patroni lost the DCS.
    let copy = world.node("b");
    copy.promote(1);
    world.run_millis(3_000);
    assert_eq!(world.leader(), None, "{}", world.why());
    assert!(world.why().contains("a and b claim to lead on the same timeline"), "{}", world.why());
    world.node("b").listed = false;
    world.run_millis(3_000);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
}

#[test]
fn a_seed_that_is_a_balancer_speaks_for_whom_it_reached() {
    let mut world = World::with(settings(&["b"]));
    world.run_millis(500);
    // c's own API cannot be reached from here, b's URL now reaches c.
    world.node("c").api = Reach::Refused;
    world.run_millis(2_000);
    assert_eq!(world.leader().as_deref(), Some("a"));
    assert_eq!(world.readers(), ["b", "c"]);
}

#[test]
fn a_hanging_dcs_does_not_stop_the_polls() {
    let mut world = World::three();
    world.run_millis(70_000);
    for name in ["a", "b", "c"] {
        world.node(name).dcs_away = true;
    }
    world.sent.clear();
    world.run_millis(60_000);
    assert_eq!(world.leader().as_deref(), Some("a"), "{}", world.why());
    assert!(world.sent["cluster"] <= 12, "{:?}", world.sent);
    assert!(world.sent["primary"] >= 165, "{:?}", world.sent);
}

#[test]
fn notes_tell_the_story_to_the_log() {
    let mut world = World::three();
    world.run_millis(500);
    let lines: Vec<String> = world.discovery.notes().map(|note| note.text).collect();
    assert!(lines.iter().any(|line| line == "following a on timeline 1"), "{lines:#?}");
    world.run_millis(10_000);
    assert_eq!(world.discovery.notes().count(), 0, "quiet is quiet");
}

#[test]
fn a_reload_changes_limits_but_not_whom_it_follows() {
    let mut world = World::three();
    world.run_millis(500);
    let generation = world.discovery.topology().generation;
    let new = weir_discovery::Settings {
        max_lag_bytes: 10,
        fallback: ReadFallback::Error,
        monitor: false,
        ..settings(&["elsewhere"])
    };
    world.discovery.configure(world.now, new);
    let topology = world.discovery.topology();
    assert_eq!((topology.generation, topology.fallback), (generation + 1, ReadFallback::Error));
    world.node("b").location -= 11;
    world.run_millis(1_500);
    assert_eq!(world.readers(), ["c"]);
    assert_eq!(world.leader().as_deref(), Some("a"));
    world.discovery.configure(world.now, settings(&[]));
    world.run_millis(1_500);
    assert_eq!((world.leader().as_deref(), world.readers().len()), (Some("a"), 2));
}

#[test]
fn credentials_for_monitors_that_come_by_a_reload_cost_no_leader() {
    let with = settings(&["a", "b", "c"]);
    let mut world = World::with(weir_discovery::Settings { monitor: false, ..with.clone() });
    world.run_millis(5_000);
    let reign = world.reign();
    assert!(reign.is_some(), "{}", world.why());
    world.discovery.configure(world.now, with);
    assert_eq!(world.reign(), reign, "{}", world.why());
    world.run_millis(5_000);
    assert_eq!(world.reign(), reign, "{}", world.why());
    assert!(world.discovery.failovers().is_empty());
}

#[test]
fn the_first_leader_is_not_the_one_that_is_faster_to_answer() {
    let mut world = World::three();
    world.node("a").promote(4);
    world.node("b").promote(5);
    world.node("b").postgres = Reach::Frozen;
    for _ in 0..15 {
        world.run_millis(100);
        assert_eq!(world.leader(), None);
    }
    world.node("b").postgres = Reach::Up;
    world.run_millis(2_000);
    assert_eq!(world.leader().as_deref(), Some("b"), "{}", world.why());
}

#[test]
fn members_that_register_again_behind_an_outage_of_the_dcs_are_not_forgotten_before() {
    let mut world = World::with(settings(&["a"]));
    world.run_millis(5_000);
    for name in ["a", "b", "c"] {
        world.node(name).dcs_away = true;
    }
    world.run_millis(120_000);
    for name in ["a", "b", "c"] {
        world.node(name).dcs_away = false;
        world.node(name).listed = name == "a";
    }
    world.run_millis(12_000);
    assert_eq!(world.discovery.members(world.now).len(), 3);
    world.node("b").listed = true;
    world.run_millis(75_000);
    assert_eq!(world.readers(), ["b"]);
    assert_eq!(world.discovery.members(world.now).len(), 2, "a minute without c is enough");
}
