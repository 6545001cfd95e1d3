//! What the written truth table ([`super::table`]) leaves out, and random tables that must keep the laws.

use proptest::prelude::*;

use super::*;

pub(super) const SYSTEM: u64 = 77;

fn epoch(timeline: u32) -> Epoch {
    Epoch { system_identifier: SYSTEM, timeline }
}

/// We follow `member` on `timeline` and have not lost it.
pub(super) fn following(member: &str, timeline: u32) -> Option<Followed> {
    Some(Followed { member: member.to_owned(), epoch: epoch(timeline), holding_on: true, lately: false })
}

fn lost_leader(member: &str, timeline: u32) -> Option<Followed> {
    following(member, timeline).map(|followed| Followed { holding_on: false, ..followed })
}

/// `/primary` 200 with a primary's body.
fn yes(timeline: u32) -> ApiSays {
    claim("primary", "running", Some(timeline))
}

pub(super) fn claim(role: &str, state: &str, timeline: Option<u32>) -> ApiSays {
    ApiSays::Claims(claimed(role, state, timeline))
}

pub(super) fn claimed(role: &str, state: &str, timeline: Option<u32>) -> Claim {
    Claim {
        role: role.to_owned(),
        is_primary: matches!(role, "primary" | "master"),
        state: state.to_owned(),
        timeline,
        system_identifier: Some(SYSTEM),
        foreign_scope: None,
    }
}

fn no() -> ApiSays {
    ApiSays::Denies { role: "replica".to_owned(), state: "running".to_owned() }
}

fn writes(timeline: u32) -> PostgresSays {
    PostgresSays::Primary { timeline: Some(timeline), system_identifier: Some(SYSTEM) }
}

pub(super) fn gone() -> PostgresSays {
    PostgresSays::Gone("refuses connections".to_owned())
}

/// Members a, b, c in order; `expected` as in the written table.
fn check(followed: Option<Followed>, members: &[(ApiSays, PostgresSays)], expected: &str) {
    let sightings: Vec<Sighting<'_>> = ["a", "b", "c"]
        .into_iter()
        .zip(members)
        .map(|(name, (api, postgres))| Sighting {
            name,
            named: false,
            api: api.clone(),
            postgres: postgres.clone(),
        })
        .collect();
    let told = told(&judge(followed.as_ref(), &sightings), &sightings);
    match expected.strip_prefix("hold: ") {
        Some(piece) => {
            assert!(told.starts_with("hold: ") && told.contains(piece), "{expected:?}, got {told:?}")
        }
        None => assert_eq!(told, expected),
    }
}

/// `a@5`, `a@5 degraded` or `hold: why`.
pub(super) fn told(verdict: &Verdict, members: &[Sighting<'_>]) -> String {
    match verdict {
        Verdict::Lead { index, epoch, degraded } => {
            let degraded = if degraded.is_some() { " degraded" } else { "" };
            format!("{}@{}{degraded}", members[*index].name, epoch.timeline)
        }
        Verdict::Hold { why } => format!("hold: {why}"),
    }
}

#[test]
fn the_rest_role_may_lag_behind_postgresql() {
    check(None, &[(claim("replica", "running", Some(4)), writes(5))], "a@5");
    check(None, &[(claim("demoted", "stopping", None), writes(5))], "a@5");
}

#[test]
fn without_a_monitor_patroni_s_body_has_to_be_complete() {
    let unwatched = || PostgresSays::Unwatched;
    check(None, &[(yes(5), unwatched())], "a@5");
    check(None, &[(claim("master", "running", Some(5)), unwatched())], "a@5");
    check(None, &[(claim("replica", "running", Some(5)), unwatched())], "hold: role is still");
    check(None, &[(claim("primary", "stopping", Some(5)), unwatched())], "hold: state is \"stopping\"");
    check(None, &[(claim("primary", "crashed", None), unwatched())], "hold: state is \"crashed\"");
    check(None, &[(claim("primary", "unknown", None), unwatched())], "hold: state is \"unknown\"");
    check(None, &[(claim("primary", "running", None), unwatched())], "hold: timeline is not known");
    check(following("a", 5), &[(claim("primary", "unknown", None), unwatched())], "a@5 degraded");
    check(lost_leader("a", 5), &[(claim("primary", "unknown", None), unwatched())], "hold: \"unknown\"");
    check(
        following("b", 5),
        &[(claim("primary", "unknown", None), unwatched()), (ApiSays::Silent, gone())],
        "hold: b is lost",
    );
    check(following("a", 5), &[(claim("primary", "stopping", None), unwatched())], "hold: a is lost");
}

#[test]
fn what_a_kept_leader_s_body_leaves_out_has_not_changed() {
    let bare = ApiSays::Claims(Claim {
        is_primary: true,
        role: "primary".to_owned(),
        state: "running".to_owned(),
        ..Claim::default()
    });
    check(following("a", 5), &[(bare.clone(), PostgresSays::Suspect)], "a@5 degraded");
    check(following("a", 5), &[(bare.clone(), PostgresSays::Unwatched)], "a@5");
    check(lost_leader("a", 5), &[(bare.clone(), PostgresSays::Unwatched)], "hold: timeline is not known");
    check(following("b", 5), &[(bare, PostgresSays::Unwatched), (no(), gone())], "hold: b is lost");
}

#[test]
fn another_member_on_the_same_timeline_leads_only_when_the_first_writes_no_more() {
    let b = || (yes(5), writes(5));
    check(following("a", 5), &[(no(), PostgresSays::Standby), b()], "b@5");
    check(following("a", 5), &[(ApiSays::Silent, gone()), b()], "b@5");
    check(following("a", 5), &[(ApiSays::Silent, PostgresSays::Unwatched), b()], "b@5");
    check(following("a", 5), &[(no(), writes(5)), b()], "hold: PostgreSQL of a still takes writes");
    check(
        following("a", 5),
        &[(ApiSays::Silent, writes(5)), b()],
        "hold: PostgreSQL of a still takes writes",
    );
    check(
        lost_leader("a", 5),
        &[(ApiSays::Silent, writes(5)), b()],
        "hold: PostgreSQL of a still takes writes",
    );
    check(following("gone", 5), &[b()], "a@5");
}

#[test]
fn foreigners_are_refused() {
    let stranger =
        |timeline| PostgresSays::Primary { timeline: Some(timeline), system_identifier: Some(SYSTEM + 1) };
    check(None, &[(yes(9), stranger(9))], "hold: PostgreSQL belongs to another cluster");
    let mut body = Claim {
        is_primary: true,
        state: "running".to_owned(),
        timeline: Some(9),
        system_identifier: Some(SYSTEM + 1),
        ..Claim::default()
    };
    let reborn = ApiSays::Claims(body.clone());
    check(following("a", 5), &[(reborn.clone(), stranger(9))], "hold: system identifier is 78");
    check(None, &[(reborn.clone(), stranger(9)), (yes(5), writes(5))], "hold: different clusters");
    check(following("b", 5), &[(reborn, stranger(9)), (yes(5), writes(5))], "b@5");
    body.foreign_scope = Some("other".to_owned());
    check(None, &[(ApiSays::Claims(body), stranger(9))], "hold: scope \"other\"");
}

fn api() -> impl Strategy<Value = ApiSays> {
    let body = (0u32..4, any::<bool>(), 0u64..2, any::<bool>(), any::<bool>()).prop_map(
        |(timeline, is_primary, system, running, foreign)| {
            ApiSays::Claims(Claim {
                role: if is_primary { "primary" } else { "replica" }.to_owned(),
                is_primary,
                state: if running { "running" } else { "unknown" }.to_owned(),
                timeline: (timeline > 0).then_some(timeline),
                system_identifier: Some(SYSTEM + system),
                foreign_scope: (foreign && system == 1).then(|| "other".to_owned()),
            })
        },
    );
    prop_oneof![Just(ApiSays::Unasked), Just(ApiSays::Silent), Just(no()), body.clone(), body]
}

fn postgres() -> impl Strategy<Value = PostgresSays> {
    prop_oneof![
        Just(PostgresSays::Unwatched),
        Just(PostgresSays::Pending),
        Just(PostgresSays::Standby),
        Just(PostgresSays::Suspect),
        Just(gone()),
        (proptest::option::of(1u32..4), proptest::option::of(SYSTEM..SYSTEM + 2)).prop_map(
            |(timeline, system_identifier)| { PostgresSays::Primary { timeline, system_identifier } }
        ),
    ]
}

fn whom() -> impl Strategy<Value = Option<Followed>> {
    proptest::option::of((0usize..4, 1u32..4, any::<bool>(), any::<bool>()).prop_map(
        |(index, timeline, holding_on, lately)| Followed {
            member: ["a", "b", "c", "x"][index].to_owned(),
            epoch: epoch(timeline),
            holding_on,
            lately,
        },
    ))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]
    #[test]
    fn no_table_breaks_the_laws(followed in whom(), named in proptest::option::of(proptest::sample::select(vec!["a", "b"])), members in proptest::collection::vec((api(), postgres()), 0..4)) {
        let sightings: Vec<Sighting<'_>> = ["a", "b", "c"].into_iter().zip(members)
            .map(|(name, (api, postgres))| Sighting { name, named: named == Some(name), api, postgres }).collect();
        let verdict = judge(followed.as_ref(), &sightings);
        let mut turned = sightings.clone();
        turned.reverse();
        let name = |verdict: &Verdict, list: &[Sighting<'_>]| match verdict {
            Verdict::Lead { index, epoch, .. } => Some((list[*index].name.to_owned(), *epoch)),
            Verdict::Hold { .. } => None,
        };
        prop_assert_eq!(name(&verdict, &sightings), name(&judge(followed.as_ref(), &turned), &turned), "order decides nothing");
        if let Verdict::Lead { index, epoch, .. } = &verdict {
            let leader = &sightings[*index];
            if let Some(followed) = &followed {
                prop_assert_eq!(epoch.system_identifier, followed.epoch.system_identifier);
                prop_assert!(epoch.timeline >= followed.epoch.timeline);
            }
            let gone = matches!(leader.postgres, PostgresSays::Gone(_) | PostgresSays::Standby);
            prop_assert!(!gone);
            let denies = matches!(leader.api, ApiSays::Denies { .. });
            prop_assert!(!denies);
            let claims = matches!(leader.api, ApiSays::Claims(_));
            let kept = followed.as_ref().is_some_and(|followed| (followed.holding_on || followed.lately) && followed.member == leader.name);
            prop_assert!(claims || kept, "silence promotes nobody");
        }
    }
}
