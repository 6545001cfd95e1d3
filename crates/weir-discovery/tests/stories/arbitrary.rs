//! Events in any order with any bytes in them: nothing panics, no invariant breaks, nothing spins.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use weir_discovery::{Answer, Discovery, Event, MonitorReport, PollFailure, SessionEvidence, Vitals};

use crate::world::{address, an_instant, settings, url};

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("nobody")]
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("{}".to_owned()),
        Just("null".to_owned()),
        Just("7".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("-1.5e300".to_owned()),
        Just("\"running\"".to_owned()),
        Just("\"master\"".to_owned()),
        Just("\"\\u0000\"".to_owned()),
    ]
}

fn result() -> impl Strategy<Value = Result<Answer, PollFailure>> {
    let members = proptest::collection::vec((name(), word(), word(), 0u32..70_000), 0..70).prop_map(|members| {
        let members: Vec<String> = members
            .into_iter()
            .map(|(name, lag, role, port)| {
                format!(r#"{{"name": "{name}", "lag": {lag}, "role": {role}, "host": "{name}", "port": {port}, "api_url": "http://{name}:8008"}}"#)
            })
            .collect();
        format!(r#"{{"members": [{}]}}"#, members.join(","))
    });
    let primary = (name(), word(), word(), word(), 0u32..4).prop_map(|(name, state, role, location, timeline)| {
        format!(
            r#"{{"state": {state}, "role": {role}, "timeline": {timeline}, "xlog": {{"location": {location}}},
                "database_system_identifier": "{location}", "patroni": {{"name": "{name}"}}}}"#
        )
    });
    let body = prop_oneof![
        members.prop_map(String::into_bytes),
        primary.prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..64),
    ];
    let status = prop_oneof![Just(200u16), Just(503), any::<u16>()];
    prop_oneof![
        9 => (status, body).prop_map(|(status, body)| Ok(Answer { status, body })),
        1 => Just(Err(PollFailure::TimedOut)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let why = || "x".to_owned();
    let report = prop_oneof![
        (
            any::<bool>(),
            proptest::option::of(0u32..5),
            proptest::option::of(any::<u64>()),
            proptest::option::of(0u64..3),
            proptest::option::of(any::<u64>()),
            proptest::option::of((0u64..100_000).prop_map(Duration::from_micros)),
        )
            .prop_map(
                |(in_hot_standby, timeline, system_identifier, started, location, round_trip)| {
                    let vitals = Vitals { location, round_trip };
                    MonitorReport::Answered { in_hot_standby, timeline, system_identifier, started, vitals }
                }
            ),
        Just(MonitorReport::Silent),
        Just(MonitorReport::Lost { why: why() }),
        Just(MonitorReport::Unreachable { why: why() }),
        Just(MonitorReport::RoleUnknown { why: why() }),
    ];
    prop_oneof![
        (name(), result()).prop_map(|(name, result)| Event::Polled { url: url(name), result }),
        (name(), result()).prop_map(|(name, result)| Event::Cluster { url: url(name), result }),
        (name(), name(), report).prop_map(|(name, host, report)| Event::Monitor {
            member: name.to_owned(),
            address: address(host),
            report
        }),
        name().prop_map(|name| Event::Evidence(SessionEvidence::NotPrimary { address: address(name) })),
    ]
}

proptest! {
    #[test]
    fn any_events_in_any_order(events in proptest::collection::vec((event(), 0u64..3_000), 0..60), monitor in any::<bool>()) {
        let start: Instant = an_instant();
        let mut now = start;
        let settings = weir_discovery::Settings { monitor, ..settings(&["a", "b"]) };
        let mut discovery = Discovery::new(now, settings);
        for (event, millis) in events {
            discovery.step(now, event);
            discovery.due(now);
            prop_assert!(discovery.deadline(now) > now);
            prop_assert!(discovery.members(now).len() <= 64 + 2);
            let _ = discovery.accept_leader(now, "b");
            now += Duration::from_millis(millis);
        }
        prop_assert!(discovery.failovers().len() <= weir_discovery::FAILOVERS_MAX);
    }
}
