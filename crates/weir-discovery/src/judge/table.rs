//! Runs the truth table that ARCHITECTURE.md shows under "Who leads", so that it stays true.

use super::tests::{SYSTEM, claim, claimed, following, gone, told};
use super::*;

const ARCHITECTURE: &str = include_str!("../../../../ARCHITECTURE.md");

#[test]
fn the_written_table_is_true() {
    let rows: Vec<Vec<&str>> = ARCHITECTURE
        .lines()
        .skip_while(|line| !line.starts_with("| situation |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 50, "only {} rows", rows.len());
    let wrong: Vec<String> = rows.iter().filter_map(|row| difference(row)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the judge says instead of what the row does.
fn difference(row: &[&str]) -> Option<String> {
    let [situation, followed, a, b, expected] = row else { panic!("five cells: {row:?}") };
    let sightings = [sighting("a", a), sighting("b", b)];
    let told = told(&judge(whom(followed).as_ref(), &sightings), &sightings);
    let is_right = match expected.strip_prefix("hold: ") {
        Some(piece) => told.strip_prefix("hold: ").is_some_and(|why| why.contains(piece)),
        None => told == *expected,
    };
    (!is_right).then(|| format!("{situation}: the table says {expected:?}, the judge {told:?}"))
}

fn whom(cell: &str) -> Option<Followed> {
    let (cell, lately) = match cell.strip_suffix(" lately") {
        Some(cell) => (cell, true),
        None => (cell, false),
    };
    let (whom, holding_on) = match cell.strip_suffix(" lost") {
        Some(whom) => (whom, false),
        None => (cell, true),
    };
    let (member, timeline) = whom.split_once('@')?;
    following(member, number(timeline)).map(|followed| Followed { holding_on, lately, ..followed })
}

fn sighting<'a>(name: &'a str, cell: &str) -> Sighting<'a> {
    let words: Vec<&str> = cell.split(", ").collect();
    let (api, postgres, named) = match words[..] {
        [api, postgres] => (api, postgres, false),
        [api, postgres, "named"] => (api, postgres, true),
        _ => panic!("what is {cell:?}?"),
    };
    Sighting { name, named, api: api_says(api), postgres: postgres_says(postgres) }
}

fn api_says(cell: &str) -> ApiSays {
    let (what, timeline) = match cell.split_once('@') {
        Some((what, timeline)) => (what, Some(number(timeline))),
        None => (cell, None),
    };
    match what.split(' ').collect::<Vec<_>>()[..] {
        ["silent"] => ApiSays::Silent,
        ["503"] => ApiSays::Denies { role: "replica".to_owned(), state: "running".to_owned() },
        ["503", role] => ApiSays::Denies { role: role.to_owned(), state: "running".to_owned() },
        ["200"] => claim("primary", "running", timeline),
        ["200", role @ ("replica" | "demoted")] => claim(role, "running", timeline),
        ["200", "other-scope"] => ApiSays::Claims(Claim {
            foreign_scope: Some("other".to_owned()),
            ..claimed("primary", "running", timeline)
        }),
        ["200", "other-system"] => ApiSays::Claims(Claim {
            system_identifier: Some(SYSTEM + 1),
            ..claimed("primary", "running", timeline)
        }),
        ["200", state] => claim("primary", state, timeline),
        _ => panic!("what is {cell:?}?"),
    }
}

fn postgres_says(cell: &str) -> PostgresSays {
    let primary = |timeline: &str, system_identifier| PostgresSays::Primary {
        timeline: Some(number(timeline)),
        system_identifier: Some(system_identifier),
    };
    match cell.split_once('@') {
        Some(("writes", timeline)) => primary(timeline, SYSTEM),
        Some(("stranger", timeline)) => primary(timeline, SYSTEM + 1),
        Some(_) => panic!("what is {cell:?}?"),
        None => match cell {
            "standby" => PostgresSays::Standby,
            "gone" => gone(),
            "suspect" => PostgresSays::Suspect,
            "pending" => PostgresSays::Pending,
            "unwatched" => PostgresSays::Unwatched,
            _ => panic!("what is {cell:?}?"),
        },
    }
}

fn number(text: &str) -> u32 {
    text.parse().expect("a timeline")
}
