//! Stories from many seeds; a failing seed replays exactly.

use std::ops::Range;

/// The normal run tells these, in parts, so that each core has its share.
const SEEDS: u64 = 256;
const PARTS: u64 = 8;

fn part(number: u64) {
    let share = SEEDS / PARTS;
    all_end_well(number * share..(number + 1) * share);
}

fn all_end_well(seeds: Range<u64>) {
    let failures: Vec<String> = seeds.filter_map(|seed| weir_sim::tell(seed).err()).collect();
    assert!(failures.is_empty(), "{} stories fail, the first: {}", failures.len(), failures[0]);
}

#[test]
fn stories_end_well_1() {
    part(0);
}

#[test]
fn stories_end_well_2() {
    part(1);
}

#[test]
fn stories_end_well_3() {
    part(2);
}

#[test]
fn stories_end_well_4() {
    part(3);
}

#[test]
fn stories_end_well_5() {
    part(4);
}

#[test]
fn stories_end_well_6() {
    part(5);
}

#[test]
fn stories_end_well_7() {
    part(6);
}

#[test]
fn stories_end_well_8() {
    part(7);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let [one, other] = [5, 9].map(|seed| {
        let first = weir_sim::tell(seed);
        assert_eq!(first, weir_sim::tell(seed), "{seed}");
        first
    });
    assert_ne!(one, other);
}
