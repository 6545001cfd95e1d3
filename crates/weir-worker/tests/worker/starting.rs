//! What a startup packet may ask for, and what is refused of it.

use weir_worker::Role;

use crate::settings::PASSWORD;
use crate::world::World;

/// A client that asks for these, and what PostgreSQL was told first on its behalf.
#[track_caller]
fn check(world: &mut World, asked: &[(&str, &str)], applied: &str) {
    let mut all = vec![("user", "app"), ("database", "mrg")];
    all.extend_from_slice(asked);
    let who = world.hello_with(Role::Write, &all, PASSWORD);
    world.run();
    assert_eq!(world.heard(who), ["ready I"], "{}", world.error(who));
    world.executed.clear();
    world.query(who, "SELECT 1");
    let mut executed = world.executed.iter().map(|executed| executed.sql.clone());
    // What undoes the client before, in one transaction with what follows.
    let first = executed.find(|sql| sql != "BEGIN" && !sql.starts_with("RESET")).unwrap_or_default();
    assert_eq!(first, applied, "{asked:?}");
    world.vanish(who);
}

fn set(name: &str, value: &str) -> String {
    format!("SELECT pg_catalog.set_config('{name}','{value}',false)")
}

// covers: ignore_startup_parameters
#[test]
fn unknown_parameters_are_applied_and_ignored_ones_are_not() {
    check(&mut World::new(), &[("work_mem", "8MB")], &set("work_mem", "8MB"));
    let mut world = World::configured(|config| {
        config.session.ignore_startup_parameters = vec!["Work_Mem".to_owned(), "timezone".to_owned()];
    });
    check(&mut world, &[("work_mem", "8MB")], "SELECT 1");
    check(&mut world, &[("options", "-c work_mem=8MB")], "SELECT 1");
    // What every client keeps is never ignored.
    check(&mut world, &[("TimeZone", "Asia/Tokyo")], &set("timezone", "Asia/Tokyo"));
}

#[test]
fn options_can_be_ignored_as_a_whole_except_for_what_is_tracked() {
    let mut world = World::configured(|config| {
        config.session.ignore_startup_parameters = vec!["options".to_owned()];
        config.session.track_extra_parameters = vec!["IntervalStyle".to_owned()];
    });
    check(&mut world, &[("options", "-c work_mem=8MB")], "SELECT 1");
    check(&mut world, &[("options", "-B 100 nonsense")], "SELECT 1");
    check(&mut world, &[("options", "-c intervalstyle=iso_8601")], &set("intervalstyle", "iso_8601"));
    let mut strict = World::new();
    let wrong = [("user", "app"), ("database", "mrg"), ("options", "-B 100")];
    let who = strict.hello_with(Role::Write, &wrong, PASSWORD);
    strict.run();
    assert_eq!(strict.heard(who), ["FATAL 42601"]);
}

// covers: track_extra_parameters
#[test]
fn what_is_tracked_beside_the_usual_is_never_ignored() {
    let ignoring = |tracked: &[&str]| {
        World::configured(|config| {
            config.session.ignore_startup_parameters = vec!["work_mem".to_owned(), "options".to_owned()];
            config.session.track_extra_parameters = tracked.iter().map(|name| (*name).to_owned()).collect();
        })
    };
    for asked in [("work_mem", "8MB"), ("options", "-c work_mem=8MB")] {
        check(&mut ignoring(&[]), &[asked], "SELECT 1");
        check(&mut ignoring(&["Work_Mem"]), &[asked], &set("work_mem", "8MB"));
    }
}

// covers: application_name_add_host
#[test]
fn the_address_can_stand_behind_the_name_of_the_application() {
    let mut world = World::configured(|config| config.session.application_name_add_host = true);
    check(&mut world, &[], &set("application_name", "app - unix"));
    check(&mut world, &[("application_name", "psql")], &set("application_name", "psql - unix"));
}

// covers: disable_pqexec
#[test]
fn simple_queries_can_be_refused() {
    let mut world = World::configured(|config| config.session.disable_simple_protocol = true);
    let who = world.client();
    assert_eq!(world.ask(who, "SELECT 1"), ["FATAL 08P01"]);
    assert!(world.error(who).starts_with("PQexec disallowed"));
    assert!(!world.is_open(who));
}

// covers: max_packet_size
#[test]
fn messages_can_be_bounded_in_both_directions() {
    let mut world = World::configured(|config| config.limits.max_packet_size = 100);
    let who = world.client();
    assert_eq!(world.ask(who, &format!("SELECT '{}'", "x".repeat(100))), ["FATAL 08P01"]);
    assert!(world.error(who).starts_with("bad packet header: '5100"), "{}", world.error(who));
}

#[test]
fn policies_for_session_state_change_under_clients_that_are_there() {
    let mut world = World::new();
    let who = world.client();
    let mut config = crate::settings::config();
    config.session.on_listen = weir_config::model::StatePolicy::Refuse;
    world.order(weir_worker::Order::Configure(std::sync::Arc::new(config)));
    world.executed.clear();
    world.query(who, "LISTEN x");
    let ran: Vec<&str> = world.executed.iter().map(|executed| executed.sql.as_str()).collect();
    assert!(ran.first().is_some_and(|sql| sql.starts_with("DO $weir$BEGIN RAISE EXCEPTION")), "{ran:?}");
}
