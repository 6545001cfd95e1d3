//! Recorded answers of two Patroni versions, and answers no Patroni ever gave.

use proptest::prelude::*;

use super::*;

fn primary(status: u16, body: &str) -> Result<Status, BadAnswer> {
    Status::parse(&Answer { status, body: body.as_bytes().to_vec() })
}

fn cluster(body: &str) -> Result<Listing, BadAnswer> {
    Listing::parse(&Answer { status: 200, body: body.as_bytes().to_vec() })
}

#[test]
fn the_leader_of_patroni_3_is_called_master_and_has_no_name() {
    let body = include_str!("../../tests/fixtures/patroni_3_0_2_leader_primary.json");
    let status = primary(200, body).expect("recorded");
    assert!(status.leads && status.is_primary() && status.state == "running");
    assert_eq!(status.role, "master");
    assert_eq!(status.name, None);
    assert_eq!(status.scope.as_deref(), Some("weir"));
    assert_eq!(status.system_identifier, Some(7_710_408_028_347_696_459));
    assert_eq!(status.timeline, Some(1));
    assert!(status.location.is_some());
}

#[test]
fn the_leader_of_patroni_4_is_called_primary_and_says_its_name() {
    let body = include_str!("../../tests/fixtures/patroni_4_1_5_leader_primary.json");
    let status = primary(200, body).expect("recorded");
    assert!(status.leads && status.is_primary());
    assert_eq!(status.name.as_deref(), Some("n1"));
    assert_eq!(status.location, Some(71_587_872));
}

#[test]
fn a_leader_without_its_dcs_says_that_failsafe_mode_keeps_it() {
    let body = include_str!("../../tests/fixtures/patroni_4_1_5_failsafe_leader.json");
    let status = primary(200, body).expect("recorded");
    assert!(status.failsafe && !status.paused && status.is_primary());
    assert!(primary(200, r#"{"pause": true}"#).expect("an object").paused);
}

#[test]
fn replicas_tell_what_they_replayed() {
    for body in [
        include_str!("../../tests/fixtures/patroni_3_0_2_replica_primary.json"),
        include_str!("../../tests/fixtures/patroni_3_0_2_sync_standby_primary.json"),
        include_str!("../../tests/fixtures/patroni_4_1_5_replica_primary.json"),
        include_str!("../../tests/fixtures/patroni_4_1_5_sync_standby_primary.json"),
    ] {
        let status = primary(503, body).expect("recorded");
        assert!(!status.leads && !status.is_primary());
        assert_eq!(status.role, "replica");
        assert!(status.replayed.is_some());
    }
}

#[test]
fn both_versions_list_the_same_members() {
    for (body, scope) in [
        (include_str!("../../tests/fixtures/patroni_3_0_2_cluster.json"), None),
        (include_str!("../../tests/fixtures/patroni_4_1_5_cluster.json"), Some("weir")),
    ] {
        let listing = cluster(body).expect("recorded");
        assert_eq!(listing.scope.as_deref(), scope);
        let names: Vec<_> = listing.members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2", "n3"]);
        for member in &listing.members {
            assert!(member.url.is_some() && member.address.is_some());
            assert_eq!(member.lag.is_none(), member.role == "leader", "{member:?}");
        }
    }
}

#[test]
fn missing_and_misshapen_fields_count_as_missing() {
    let status = primary(200, "{}").expect("an object");
    assert_eq!(status, Status { leads: true, ..Status::default() });
    let odd = r#"{"role": 7, "state": ["running"], "timeline": "x", "xlog": 3, "patroni": [],
        "database_system_identifier": -1, "tags": {"noloadbalance": true, "a": null, "w": 3, "z": "Yes"}}"#;
    let status = primary(503, odd).expect("an object");
    assert_eq!((status.role.as_str(), status.timeline), ("", None));
    assert!(is_set(&status.tags, "noloadbalance") && is_set(&status.tags, "z"));
    assert!(!is_set(&status.tags, "a"));
}

#[test]
fn lag_is_a_number_or_unknown_or_missing() {
    let body = r#"{"members": [
        {"name": "a", "lag": 10, "host": "[::1]", "port": "5432"},
        {"name": "b", "lag": "unknown", "host": "b", "port": 0},
        {"name": "c", "host": "c", "port": 70000, "api_url": "nonsense"},
        {"lag": 3}, 7, {"name": ""}]}"#;
    let listing = cluster(body).expect("three members");
    let lags: Vec<_> = listing.members.iter().map(|m| m.lag).collect();
    assert_eq!(lags, [Some(10), None, None]);
    let first = listing.members[0].address.as_ref().expect("an address");
    assert_eq!(first.to_string(), "[::1]:5432");
    assert_eq!((&listing.members[1].address, &listing.members[2].address), (&None, &None));
    assert_eq!(listing.members[2].url, None);
}

#[test]
fn what_says_nothing_about_a_member_is_refused() {
    assert_eq!(primary(403, "{}"), Err(BadAnswer::Status(403)));
    assert_eq!(primary(200, ""), Err(BadAnswer::NotAnObject));
    assert_eq!(primary(200, "[]"), Err(BadAnswer::NotAnObject));
    assert_eq!(primary(200, "<html>"), Err(BadAnswer::NotAnObject));
    assert_eq!(cluster(r#"{"members": []}"#), Err(BadAnswer::NoMembers));
    let long = "[".repeat(ANSWER_BYTES_MAX + 1);
    assert_eq!(primary(200, &long), Err(BadAnswer::TooLong));
    assert_eq!(primary(200, &"[".repeat(10_000)), Err(BadAnswer::NotAnObject), "nesting is bounded");
}

#[test]
fn names_that_would_spoil_a_log_line_are_dropped() {
    let listing = cluster(r#"{"members": [{"name": "a\nb"}, {"name": "ok"}]}"#).expect("one");
    assert_eq!(listing.members.len(), 1);
    let many = (0..100).map(|n| format!(r#"{{"name": "m{n}"}}"#)).collect::<Vec<_>>();
    let listing = cluster(&format!(r#"{{"members": [{}]}}"#, many.join(","))).expect("many");
    assert_eq!(listing.members.len(), MEMBERS_MAX);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..600)) {
        let answer = Answer { status, body };
        let _ = Status::parse(&answer);
        let _ = Listing::parse(&answer);
    }

    #[test]
    fn any_json_is_read_without_panic(body in json(), status in prop_oneof![Just(200u16), Just(503)]) {
        let answer = Answer { status, body: body.to_string().into_bytes() };
        let _ = Status::parse(&answer);
        let _ = Listing::parse(&Answer { status: 200, ..answer });
    }
}

/// JSON that uses Patroni's keys with values of any shape.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("unknown"), Just("replica"), Just("running"), Just("http://a:1"), Just("\u{7}")]
            .prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("members"),
        Just("name"),
        Just("role"),
        Just("state"),
        Just("timeline"),
        Just("lag"),
        Just("port"),
        Just("host"),
        Just("api_url"),
        Just("xlog"),
        Just("location"),
        Just("tags"),
        Just("patroni"),
        Just("scope"),
        Just("database_system_identifier"),
    ];
    leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..8).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}
