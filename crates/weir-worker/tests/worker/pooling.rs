//! Who gets a server connection, for how long, and in which state the next one finds it.

use weir_config::{Database, PoolMode};
use weir_protocol::frontend::{self, NO_TYPES};
use weir_worker::Role;

use crate::settings::{self, PASSWORD, size};
use crate::world::{World, batch, echo, simple};

#[test]
fn a_transaction_keeps_its_connection_and_others_wait() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [one, two] = world.clients();
    assert_eq!(world.ask(one, "begin"), ["BEGIN", "ready T"]);
    assert_eq!(world.ask(two, "select 2"), [""; 0]);
    assert_eq!(world.ask(one, "select 1"), ["row select 1", "SELECT 1", "ready T"]);
    assert_eq!(world.ask(one, "commit"), ["COMMIT", "ready I"]);
    assert_eq!(world.heard(two), echo("select 2"));
    assert_eq!(world.pids().len(), 1);
}

#[test]
fn the_pool_never_grows_beyond_its_size() {
    let mut world = World::new();
    let clients: [usize; 8] = world.clients();
    for client in clients {
        world.query(client, &format!("sleep {client}"));
    }
    assert_eq!(world.pids().len(), 2);
    for client in clients {
        world.wake(&format!("sleep {client}"));
        assert_eq!(world.heard(client), echo(&format!("sleep {client}")));
        assert!(world.shell.backends.len() <= 2);
    }
}

#[test]
fn who_came_first_is_served_first() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let clients: [usize; 5] = world.clients();
    world.query(clients[0], "begin");
    let order = [3, 1, 4, 2];
    for at in order {
        world.query(clients[at], &format!("select {at}"));
    }
    world.query(clients[0], "commit");
    let expected: Vec<String> = order.iter().map(|at| format!("n1: select {at}")).collect();
    assert_eq!(world.ran()[2..], expected);
}

#[test]
fn a_database_can_have_a_size_and_a_name_of_its_own() {
    let mut world = World::configured(|config| {
        let small =
            Database { dbname: Some("inner".to_owned()), pool_size: Some(size(1)), ..Database::default() };
        config.databases.insert("mrg".to_owned(), small);
    });
    let [one, two] = world.clients();
    world.query(one, "begin");
    world.query(two, "begin");
    assert_eq!(world.heard(two), [""; 0]);
    let [pid] = world.pids()[..] else { panic!("one connection") };
    assert!(world.backend(pid).startup.contains(&("database".to_owned(), "inner".to_owned())));
}

#[test]
fn users_and_databases_do_not_share() {
    let mut world = World::new();
    world.client_of(Role::Write, "app");
    world.client_of(Role::Write, "other");
    let parameters = [("user", "app"), ("database", "second")];
    world.hello_with(Role::Write, &parameters, PASSWORD);
    world.run();
    assert_eq!(world.pids().len(), 3);
}

#[test]
fn startup_parameters_follow_their_client() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let named = [("user", "app"), ("database", "mrg"), ("application_name", "report")];
    let one = world.hello_with(Role::Write, &named, PASSWORD);
    let two = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    assert_eq!(world.shell.speakers[one].told.get("application_name").unwrap(), "report");
    assert_eq!(world.shell.speakers[two].told.get("application_name").unwrap(), "");
    world.heard(one);
    world.heard(two);
    world.ran();
    assert_eq!(world.ask(one, "select 1"), echo("select 1"));
    let ran = world.ran();
    assert!(ran[1].contains("set_config") && ran[3] == "n1: select 1", "{ran:?}");
    assert_eq!(world.ask(two, "select 2").last().unwrap(), "ready I");
    assert_eq!(world.ran(), ["n1: RESET \"application_name\"", "n1: select 2"]);
}

#[test]
fn a_startup_parameter_that_the_server_refuses_ends_the_client_in_the_servers_words() {
    let mut world = World::new();
    let odd = [("user", "app"), ("database", "mrg"), ("bad_setting", "1")];
    let client = world.hello_with(Role::Write, &odd, PASSWORD);
    world.run();
    assert_eq!(world.heard(client), ["ready I"]);
    assert_eq!(world.ask(client, "select 1"), ["FATAL 42704"]);
    assert!(!world.is_open(client));
    assert!(world.shell.backends.is_empty(), "nobody knows in which state the connection is");
}

#[test]
fn statements_that_are_prepared_work_on_every_connection() {
    let mut world = World::new();
    let [one, two] = world.clients();
    let mut prepare = Vec::new();
    frontend::parse(b"p", b"select p", NO_TYPES, &mut prepare);
    frontend::sync(&mut prepare);
    world.send(one, prepare);
    assert_eq!(world.heard(one), ["ParseComplete", "ready I"]);
    // The connection it was prepared on is taken.
    world.query(two, "begin");
    let mut run = Vec::new();
    frontend::bind_text(b"", b"p", &[], &mut run);
    frontend::execute(b"", 0, &mut run);
    frontend::sync(&mut run);
    world.send(one, run);
    assert_eq!(world.heard(one), ["BindComplete", "row select p", "SELECT 1", "ready I"]);
    assert_eq!(world.pids().len(), 2);
}

#[test]
fn half_a_message_holds_nobody_up() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [slow, quick] = world.clients();
    for bytes in [simple("select slow"), batch("select slow")] {
        for cut in 1..bytes.len() {
            world.send(slow, bytes[..cut].to_vec());
            if cut < 5 {
                assert_eq!(world.ask(quick, "select quick"), echo("select quick"), "cut at {cut}");
            }
            world.send(slow, bytes[cut..].to_vec());
            let heard = world.heard(slow);
            assert_eq!(heard[heard.len() - 3..], echo("select slow"), "cut at {cut}");
            assert_eq!(world.ask(quick, "select quick"), echo("select quick"), "cut at {cut}");
        }
    }
}

#[test]
fn half_a_query_takes_no_connection_from_others() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [slow, quick] = world.clients();
    let bytes = simple("select slow");
    world.send(slow, bytes[..8].to_vec());
    assert_eq!(world.ask(quick, "select quick"), echo("select quick"));
    world.send(slow, bytes[8..].to_vec());
    assert_eq!(world.heard(slow), echo("select slow"));
}

#[test]
fn long_messages_of_a_client_that_has_waited_arrive_whole() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let [busy, long] = world.clients();
    world.query(busy, "begin");
    let sql = format!("select {}", "x".repeat(300_000));
    let mut named = Vec::new();
    frontend::parse(b"p", sql.as_bytes(), NO_TYPES, &mut named);
    frontend::bind_text(b"", b"p", &[], &mut named);
    frontend::execute(b"", 0, &mut named);
    frontend::sync(&mut named);
    for bytes in [simple(&sql), named] {
        world.send(long, bytes);
        assert!(world.shell.speakers[long].stopped);
        world.query(busy, "commit");
        let heard = world.heard(long);
        assert_eq!(heard[heard.len() - 3..], echo(&sql));
        assert!(!world.shell.speakers[long].stopped);
        world.query(busy, "begin");
    }
}

#[test]
fn requests_that_weir_answers_itself_pass_a_connection_along_any_queue() {
    let mut world = World::configured(|config| config.pool.size = size(1));
    let busy = world.client();
    world.query(busy, "begin");
    let mut close = Vec::new();
    frontend::close_statement(b"unknown", &mut close);
    let crowd: Vec<usize> = (0..90).map(|_| world.client()).collect();
    for client in &crowd {
        world.send(*client, close.clone());
        assert_eq!(world.heard(*client), [""; 0]);
    }
    world.query(busy, "commit");
    for client in &crowd {
        assert_eq!(world.heard(*client), ["CloseComplete"]);
    }
}

// covers: pool_mode
#[test]
fn session_mode_keeps_the_connection_and_cleans_it_for_the_next() {
    let mut world = World::configured(|config| {
        config.pool.mode = PoolMode::Session;
        config.pool.size = size(1);
    });
    let [one, two] = world.clients();
    assert_eq!(world.ask(one, "select 1"), echo("select 1"));
    assert_eq!(world.ask(two, "select 2"), [""; 0]);
    world.ran();
    world.vanish(one);
    assert_eq!(world.heard(two), echo("select 2"));
    assert_eq!(world.ran(), ["n1: DISCARD ALL", "n1: select 2"]);
    assert_eq!(world.pids().len(), 1);
}

#[test]
fn session_mode_throws_away_what_cannot_be_cleaned() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Session);
    let client = world.client();
    world.query(client, "begin");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    world.vanish(client);
    assert!(!world.pids().contains(&pid));
}

#[test]
fn a_newcomer_may_get_the_name_of_one_whose_connection_is_being_cleaned() {
    let mut world = World::configured(|config| {
        config.pool.mode = PoolMode::Session;
        config.pool.size = size(1);
    });
    let [one, _two] = world.clients();
    world.query(one, "select 1");
    world.member("n1").silent = true;
    world.vanish(one);
    let newcomer = world.hello(Role::Write, "app", PASSWORD);
    world.run();
    world.query(newcomer, "select 3");
    world.member("n1").silent = false;
    world.run();
    assert_eq!(world.heard(newcomer), [vec!["ready I".to_owned()], echo("select 3")].concat());
}

// covers: pool_mode
#[test]
fn statement_mode_refuses_transaction_blocks() {
    let mut world = World::configured(|config| config.pool.mode = PoolMode::Statement);
    let client = world.client();
    assert_eq!(world.ask(client, "select 1"), echo("select 1"));
    world.query(client, "begin");
    assert_eq!(world.heard(client).last().unwrap(), "FATAL 0A000");
    assert!(!world.is_open(client));
    assert!(world.shell.backends.is_empty());
}

#[test]
fn a_reply_that_nobody_asked_for_ends_both_connections() {
    let mut world = World::new();
    let client = world.client();
    world.query(client, "sleep 1");
    let [pid] = world.pids()[..] else { panic!("one connection") };
    let conn = world.conn_of(pid).unwrap();
    world.turn(|worker, now, effects| worker.received(now, conn, b"2\0\0\0\x04", effects));
    world.run();
    assert_eq!(world.heard(client), ["FATAL 08P01"]);
    assert!(!world.is_open(client));
    assert!(!world.pids().contains(&pid), "it may say more that nobody asked for");
}

#[test]
fn a_pool_in_session_mode_shares_with_lookups() {
    let mut world = World::with(
        {
            let mut config = settings::config();
            config.pool.mode = PoolMode::Session;
            config
        },
        settings::led("n1", 1, &[]),
        1,
    );
    let late = world.client_of(Role::Write, "late");
    let auth = world.client_of(Role::Write, "auth");
    assert_eq!(world.ask(auth, "select 1"), echo("select 1"));
    assert_eq!(world.ask(late, "select 2"), echo("select 2"));
}
