//! The console: who gets in, and what is asked of control.

use weir_pool::ClientId;
use weir_protocol::backend;
use weir_protocol::frontend::{self, NO_TYPES, TargetKind};
use weir_worker::{Asker, ConnId, Order, Role};

use crate::settings::PASSWORD;
use crate::world::{World, batch};

fn console(world: &mut World, user: &str) -> usize {
    let client = world.hello_with(Role::Write, &[("user", user), ("database", "pgbouncer")], PASSWORD);
    world.run();
    client
}

/// Control answers the oldest question.
fn answer(world: &mut World, text: &str) {
    let request = world.shell.asked.remove(0);
    let mut reply = Vec::new();
    backend::row_description(&[backend::Column::text("answer")], &mut reply);
    backend::data_row(&[Some(text.as_bytes())], &mut reply);
    backend::command_complete("SHOW", &mut reply);
    backend::ready_for_query(b'I', &mut reply);
    world.order(Order::ConsoleReply(request.client, reply));
}

// covers: admin_users stats_users
#[test]
fn listed_users_get_in_with_their_rights() {
    for (user, admin) in [("admin", true), ("stats", false)] {
        let mut world = World::new();
        let client = console(&mut world, user);
        assert_eq!(world.heard(client), ["ready I"]);
        world.query(client, "SHOW POOLS");
        let request = &world.shell.asked[0];
        assert_eq!((request.admin, request.sql.as_slice()), (admin, &b"SHOW POOLS"[..]));
        answer(&mut world, "pools");
        assert_eq!(world.heard(client), ["row pools", "SHOW", "ready I"]);
        assert!(world.shell.backends.is_empty(), "the console needs no server");
    }
}

#[test]
fn others_do_not() {
    let mut world = World::new();
    let client = console(&mut world, "app");
    assert_eq!(world.heard(client), ["FATAL 28000"]);
    let stranger = console(&mut world, "late");
    assert_eq!(world.heard(stranger), ["FATAL 28P01"], "no server is asked for the console's users");
}

#[test]
fn commands_are_answered_one_after_the_other() {
    let mut world = World::new();
    let client = console(&mut world, "admin");
    world.heard(client);
    world.query(client, "SHOW ONE");
    world.query(client, "SHOW TWO");
    assert_eq!(world.shell.asked.len(), 1);
    answer(&mut world, "one");
    answer(&mut world, "two");
    assert_eq!(world.heard(client), ["row one", "SHOW", "ready I", "row two", "SHOW", "ready I"]);
}

#[test]
fn a_command_behind_the_login_is_not_lost() {
    let mut world = World::new();
    let client = world.hello_with(Role::Write, &[("user", "admin"), ("database", "weir")], PASSWORD);
    world.shell.speakers[client].behind_login = crate::world::simple("SHOW ONE");
    world.run();
    answer(&mut world, "one");
    assert_eq!(world.heard(client), ["ready I", "row one", "SHOW", "ready I"]);
}

#[test]
fn drivers_may_use_the_extended_protocol() {
    let mut world = World::new();
    let client = console(&mut world, "admin");
    world.heard(client);
    for _ in 0..2 {
        world.send(client, batch("SHOW ONE"));
        answer(&mut world, "one");
        assert_eq!(world.heard(client), ["ParseComplete", "BindComplete", "row one", "SHOW", "ready I"]);
    }
}

#[test]
fn every_sync_is_answered_once() {
    let mut world = World::new();
    let client = console(&mut world, "admin");
    world.heard(client);
    let mut describe = Vec::new();
    frontend::describe(TargetKind::Statement, b"", &mut describe);
    frontend::sync(&mut describe);
    world.send(client, describe.clone());
    assert_eq!(world.heard(client), ["ERROR 0A000", "ready I"]);
    let mut parsed = Vec::new();
    frontend::parse(b"", b"SHOW ONE", NO_TYPES, &mut parsed);
    parsed.extend_from_slice(&describe);
    world.send(client, parsed);
    assert_eq!(world.heard(client), ["ParseComplete", "ERROR 0A000", "ready I"]);
    let mut sync = Vec::new();
    frontend::sync(&mut sync);
    world.send(client, sync);
    assert_eq!(world.heard(client), ["ready I"]);
}

#[test]
fn an_answer_reaches_only_the_one_who_asked() {
    let mut world = World::new();
    let gone = console(&mut world, "admin");
    world.query(gone, "SHOW SECRETS");
    world.vanish(gone);
    let newcomer = console(&mut world, "stats");
    assert_eq!(world.heard(newcomer), ["ready I"]);
    world.query(newcomer, "SHOW ONE");
    answer(&mut world, "secrets");
    assert_eq!(world.heard(newcomer), [""; 0]);
    answer(&mut world, "one");
    assert_eq!(world.heard(newcomer), ["row one", "SHOW", "ready I"]);
}

#[test]
fn an_answer_for_nobody_is_dropped() {
    let mut world = World::new();
    let client = console(&mut world, "admin");
    world.query(client, "SHUTDOWN");
    world.order(Order::Drain);
    assert!(world.worker.is_drained());
    answer(&mut world, "late");
    world.order(Order::ConsoleReply(ClientId(77), b"?".to_vec()));
    assert!(!world.is_open(client));
}

#[test]
fn a_talkative_console_is_not_read_while_it_waits() {
    let mut world = World::new();
    let client = console(&mut world, "admin");
    world.heard(client);
    world.query(client, "SHOW ONE");
    for _ in 0..100_000 {
        world.shell.speakers[client].outgoing.push_back(crate::world::simple("SHOW MORE"));
    }
    for _ in 0..100_000 {
        world.deliver_from(client);
    }
    assert!(world.shell.speakers[client].stopped);
    answer(&mut world, "one");
    assert_eq!(world.heard(client), ["row one", "SHOW", "ready I"]);
    assert!(matches!(world.shell.speakers[client].conn, ConnId::Client(_)));
    world.vanish(client);
}

#[test]
fn a_goodbye_or_nonsense_ends_it() {
    let mut world = World::new();
    let polite = console(&mut world, "admin");
    world.heard(polite);
    let mut bye = Vec::new();
    frontend::terminate(&mut bye);
    world.send(polite, bye);
    assert_eq!(world.heard(polite), [""; 0]);
    assert!(!world.is_open(polite));
    let odd = console(&mut world, "admin");
    world.heard(odd);
    world.send(odd, b"F\0\0\0\x04".to_vec());
    assert_eq!(world.heard(odd), ["FATAL 08P01"]);
    assert!(world.snapshot().clients.is_empty());
}

#[test]
fn control_learns_whether_a_command_is_still_wanted() {
    let mut world = World::new();
    let client = console(&mut world, "admin");
    world.heard(client);
    world.cancel(client);
    world.query(client, "SWITCHOVER");
    let id = world.shell.asked[0].client;
    assert_eq!(world.worker.asker(id), Asker::Waits, "what came before is for nothing");
    let mut notice = Vec::new();
    backend::notice(&weir_protocol::message::Report::notice("so far"), &mut notice);
    world.order(Order::ConsoleNotice(id, notice.clone()));
    assert_eq!(world.heard(client), ["NOTICE 00000"]);
    world.cancel(client);
    assert_eq!(world.worker.asker(id), Asker::ThinksBetterOfIt);
    answer(&mut world, "called off");
    world.order(Order::ConsoleNotice(id, notice));
    assert_eq!(world.heard(client), ["row called off", "SHOW", "ready I"], "nothing follows the answer");
    world.query(client, "SWITCHOVER");
    assert_eq!(world.worker.asker(id), Asker::Waits);
    world.vanish(client);
    assert_eq!(world.worker.asker(id), Asker::IsGone);
    assert_eq!(world.worker.asker(ClientId(77)), Asker::IsGone);
}
