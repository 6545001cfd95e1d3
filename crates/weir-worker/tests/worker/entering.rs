//! Clients on their way in: proof, limits, deadlines.

use std::time::Duration;

use weir_config::{AuthMethod, TlsMode};
use weir_protocol::frontend;
use weir_worker::{ConnId, Encrypted, Role};

use crate::settings::{PASSWORD, leaderless};
use crate::world::{World, echo, simple};

#[test]
fn the_right_password_opens_the_door() {
    let mut world = World::new();
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.ran(), ["n1: select 1"]);
}

#[test]
fn a_wrong_password_and_an_unknown_user_hear_the_same() {
    let mut world = World::new();
    let wrong = world.hello(Role::Write, "app", "guess");
    let unknown = world.hello(Role::Write, "nobody", "guess");
    world.run();
    for (client, user) in [(wrong, "app"), (unknown, "nobody")] {
        assert_eq!(world.heard(client), ["FATAL 28P01"]);
        assert_eq!(world.error(client), format!("password authentication failed for user \"{user}\"||"));
        assert!(!world.is_open(client));
    }
}

#[test]
fn the_keys_of_a_clients_own_login_open_its_server_connection() {
    let mut world = World::new();
    // The user list holds a verifier only, and the server insists on SCRAM.
    let client = world.client_of(Role::Write, "other");
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.backend(101).user, "other");
}

#[test]
fn with_trust_nobody_is_asked() {
    let mut world = World::configured(|config| config.auth.method = AuthMethod::Trust);
    for member in &mut world.members {
        member.users.insert("app".to_owned(), None);
    }
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
}

#[test]
fn a_server_that_wants_more_than_is_known_ends_the_login_with_the_reason() {
    let mut world = World::configured(|config| config.auth.method = AuthMethod::Trust);
    let client = world.hello(Role::Write, "app", "");
    world.run();
    assert_eq!(world.heard(client), ["FATAL 28000"]);
    assert!(world.error(client).contains("weir cannot log in"), "{}", world.error(client));
}

#[test]
fn what_a_client_sends_right_behind_its_proof_is_not_lost() {
    let mut world = World::new();
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.shell.speakers[client].behind_login = [simple("select 1"), simple("select 2")].concat();
    world.run();
    let heard = world.heard(client);
    assert_eq!(heard, [vec!["ready I".to_owned()], echo("select 1"), echo("select 2")].concat());
}

#[test]
fn clients_above_the_limit_are_told_so_and_others_stay() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 2);
    let [one, two] = world.clients();
    let third = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.heard(third), ["FATAL 53300"]);
    assert!(world.error(third).contains("no more connections allowed"));
    world.vanish(one);
    let fourth = world.client();
    assert_eq!(world.ask(two, "select 2"), echo("select 2"));
    assert_eq!(world.ask(fourth, "select 4"), echo("select 4"));
}

#[test]
fn clients_that_wait_for_their_welcome_count_too() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 2);
    world.dials_held = true;
    let clients: Vec<usize> = (0..4).map(|_| world.hello(Role::Write, "app", PASSWORD)).collect();
    world.run();
    world.dials_held = false;
    world.run();
    let mut heard: Vec<String> = clients.iter().flat_map(|client| world.heard(*client)).collect();
    heard.sort();
    assert_eq!(heard, ["FATAL 53300", "FATAL 53300", "ready I", "ready I"]);
}

#[test]
fn a_crowd_far_above_the_limit_is_cut_off_before_it_logs_in() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 2);
    let crowd: Vec<usize> = (0..300).map(|_| world.connect(Role::Write)).collect();
    let cut_off = crowd.iter().filter(|client| !world.is_open(**client)).count();
    assert_eq!(cut_off, 300 - 258);
}

#[test]
fn silent_connections_make_room_when_there_is_none() {
    let mut world = World::configured(|config| config.limits.max_client_conn = 2);
    let inside = world.client();
    let silent: Vec<usize> = (0..257).map(|_| world.connect(Role::Write)).collect();
    let early = world.connect(Role::Write);
    assert!(!world.is_open(early), "the others may be about to log in");
    world.pass(Duration::from_secs(3));
    let client = world.client();
    assert_eq!(world.heard(silent[0]), ["FATAL 53300"]);
    assert!(world.is_open(silent[1]));
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    assert_eq!(world.ask(inside, "select 2"), echo("select 2"));
}

#[test]
fn a_client_that_says_nothing_is_let_go_in_time() {
    let mut world = World::new();
    let silent = world.connect(Role::Write);
    let quick = world.client();
    world.pass(Duration::from_secs(59));
    assert!(world.is_open(silent));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(silent), ["FATAL 57P03"]);
    assert!(!world.is_open(silent));
    assert!(world.is_open(quick), "the deadline ends with the login");
}

#[test]
fn the_deadline_of_one_that_left_is_not_that_of_the_next_with_its_name() {
    let mut world = World::new();
    let gone = world.connect(Role::Write);
    world.pass(Duration::from_secs(50));
    world.vanish(gone);
    let newcomer = world.connect(Role::Write);
    assert_eq!(world.shell.speakers[newcomer].conn, world.shell.speakers[gone].conn);
    world.pass(Duration::from_secs(50));
    assert!(world.is_open(newcomer));
    world.pass(Duration::from_secs(11));
    assert!(!world.is_open(newcomer));
}

#[test]
fn tls_is_offered_if_there_is_some_and_nothing_may_come_before_it() {
    let mut world = World::configured(|config| config.client_tls.mode = TlsMode::Allow);
    let mut ask = Vec::new();
    frontend::ssl_request(&mut ask);
    let client = world.connect(Role::Write);
    world.send(client, ask.clone());
    let conn = world.shell.speakers[client].conn;
    assert_eq!(world.shell.handshakes, [conn]);
    let ConnId::Client(id) = conn else { panic!("a client") };
    let shown = Encrypted { description: "TLSv1.3".to_owned(), ..Encrypted::default() };
    world.turn(|worker, now, effects| worker.tls_established(now, id, shown, effects));
    world.shell.speakers[client].forget_inbox();
    world.shell.speakers[client].start(&[("user", "app"), ("database", "mrg")], PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.snapshot().clients[0].tls, "TLSv1.3");
    let hasty = world.connect(Role::Write);
    world.send(hasty, [ask, b"early".to_vec()].concat());
    assert!(!world.is_open(hasty));
    assert_eq!(world.shell.handshakes.len(), 1);
}

#[test]
fn a_client_without_a_welcome_is_let_go_in_time() {
    let mut world = World::led_by(leaderless(&[]));
    let client = world.hello(Role::Write, "app", PASSWORD);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.heard(client), [""; 0]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.heard(client), ["FATAL 57P03"]);
    let rows = world.snapshot();
    assert!(rows.clients.is_empty());
}

#[test]
fn clients_that_leave_during_the_login_leave_nothing_behind() {
    let mut world = World::new();
    world.dials_held = true;
    let silent = world.connect(Role::Write);
    let proven = world.hello(Role::Write, "app", PASSWORD);
    let asking = world.hello(Role::Write, "late", PASSWORD);
    world.run();
    for client in [silent, proven, asking] {
        world.vanish(client);
    }
    world.dials_held = false;
    // Their names are given to others, who hear nothing that was meant for them.
    let clients = [world.hello(Role::Write, "app", PASSWORD), world.hello(Role::Write, "app", PASSWORD)];
    world.run();
    for client in clients {
        assert_eq!(world.heard(client), ["ready I"]);
        assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    }
    assert_eq!(world.snapshot().clients.len(), 2);
}

#[test]
fn garbage_harms_nobody_else() {
    let mut world = World::new();
    let good = world.client();
    let bad = world.connect(Role::Write);
    world.send(bad, b"GET / HTTP/1.1\r\n\r\n".to_vec());
    assert!(!world.is_open(bad));
    let worse = world.client();
    world.send(worse, b"?\0\0\0\x04".to_vec());
    assert_eq!(world.heard(worse), ["FATAL 08P01"]);
    assert!(!world.is_open(worse));
    assert_eq!(world.ask(good, "select 1"), echo("select 1"));
}
