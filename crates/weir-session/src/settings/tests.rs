//! Sets of startup parameters, the SQL between two of them, and reported values.

use super::*;

fn set(pairs: &[(&str, &str)]) -> Settings {
    Settings::from_startup(pairs.iter().copied())
}

#[track_caller]
fn check(from: Option<&[(&str, &str)]>, to: &[(&str, &str)], expected: &str) {
    let sql = set(to).statements_from(from.map(set).as_ref());
    assert_eq!(String::from_utf8(sql).as_deref(), Ok(expected));
}

#[test]
fn the_difference_goes_both_ways() {
    check(Some(&[]), &[], "");
    check(Some(&[("a", "1")]), &[("a", "1")], "");
    check(Some(&[]), &[("a", "1")], "BEGIN;SELECT pg_catalog.set_config('a','1',false);COMMIT;");
    check(Some(&[("a", "1")]), &[], "RESET \"a\";");
    check(Some(&[("a", "1")]), &[("a", "2")], "BEGIN;SELECT pg_catalog.set_config('a','2',false);COMMIT;");
    check(
        Some(&[("a", "1"), ("b", "1"), ("c", "1")]),
        &[("b", "1"), ("c", "2"), ("d", "3")],
        "BEGIN;RESET \"a\";SELECT pg_catalog.set_config('c','2',false);\
            SELECT pg_catalog.set_config('d','3',false);COMMIT;",
    );
    check(None, &[], "RESET SESSION AUTHORIZATION;RESET ALL;");
    check(
        None,
        &[("a", "1")],
        "BEGIN;RESET SESSION AUTHORIZATION;RESET ALL;SELECT pg_catalog.set_config('a','1',false);COMMIT;",
    );
}

#[test]
fn names_and_values_are_quoted() {
    let quoted = "BEGIN;SELECT pg_catalog.set_config('a''b','x''; drop',false);COMMIT;";
    check(Some(&[]), &[("a'b", "x'; drop")], quoted);
    check(Some(&[("my.\"x", "1")]), &[], "RESET \"my\".\"\"\"x\";");
    let sql = set(&[("a", r"back\slash'")]).statements_from(Some(&set(&[])));
    let sql = String::from_utf8(sql).unwrap_or_default();
    assert!(!sql.contains(r"\slash'',"), "safe whatever standard_conforming_strings says: {sql}");
}

#[test]
fn what_a_startup_packet_asks_for() {
    let settings = set(&[
        ("user", "u"),
        ("database", "d"),
        ("options", "-c x=y"),
        ("replication", "true"),
        ("_pq_.x", "y"),
        ("TimeZone", "UTC"),
        ("application_name", "a"),
        ("timezone", "Europe/Paris"),
    ]);
    assert_eq!(settings, set(&[("application_name", "a"), ("TIMEZONE", "Europe/Paris")]));
    assert_eq!(settings.value("timezone"), Some("Europe/Paris"));
    assert!(!settings.is_empty() && set(&[("user", "u")]).is_empty());
    assert_eq!(settings.refused(), None);
    for name in ["role", "Session_Authorization", "log_connections", "session_preload_libraries"] {
        assert_eq!(set(&[("a", "b"), (name, "x")]).refused(), Some(name.to_ascii_lowercase().as_str()));
    }
}

fn reported(pairs: &[(&str, &str)]) -> Reported {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reported::from_login(&pairs)
}

#[test]
fn news_are_what_is_new() {
    let told = reported(&[("a", "1"), ("b", "2"), ("in_hot_standby", "on")]);
    let now = reported(&[("b", "3"), ("a", "1"), ("c", "4")]);
    assert_eq!(now.news_for(&told).collect::<Vec<_>>(), [("b", "3"), ("c", "4")]);
    assert_eq!(told.value("in_hot_standby"), None, "weir's own answer");
}

#[test]
fn notes_say_whether_anything_changed() {
    let mut reported = reported(&[("a", "1")]);
    assert!(!reported.note("a", "1"));
    assert!(reported.note("a", "2"));
    assert!(reported.note("b", "1"));
    assert!(!reported.note("in_hot_standby", "on"));
    for n in 0..1000 {
        reported.note(&n.to_string(), "x");
    }
    assert_eq!(reported.iter().count(), REPORTED_MAX);
}

#[test]
fn equal_sets_are_one() {
    let mut interner = Interner::default();
    let one = interner.intern(set(&[("a", "1")]));
    assert!(Rc::ptr_eq(&one, &interner.intern(set(&[("A", "1")]))));
    assert!(Rc::ptr_eq(&one, &interner.intern_shared(&Rc::new(set(&[("a", "1")])))));
    // What nobody holds is forgotten as the table grows.
    for n in 0..10_000 {
        interner.intern(set(&[("a", &n.to_string())]));
    }
    assert!(interner.0.len() < 1000, "{} kept", interner.0.len());
    assert!(Rc::ptr_eq(&one, &interner.intern(set(&[("a", "1")]))));
}
