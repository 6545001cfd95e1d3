//! Stories from many seeds; a failing seed replays exactly.

/// Stories in the normal test run; `WEIR_SEEDS=from..to` asks for others.
const SEEDS: std::ops::Range<u64> = 0..256;

#[test]
fn every_story_ends_well() {
    let mut failures = Vec::new();
    for seed in seeds() {
        if let Err(story) = weir_sim::tell(seed) {
            failures.push(story);
        }
    }
    assert!(failures.is_empty(), "{} stories fail, the first: {}", failures.len(), failures[0]);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    assert_eq!(weir_sim::tell(5), weir_sim::tell(5));
}

#[expect(clippy::disallowed_methods, reason = "long runs ask for other seeds")]
fn seeds() -> std::ops::Range<u64> {
    let Ok(wanted) = std::env::var("WEIR_SEEDS") else { return SEEDS };
    let (from, to) = wanted.split_once("..").expect("WEIR_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}
