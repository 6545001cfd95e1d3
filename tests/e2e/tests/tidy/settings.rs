//! Every setting has a test that fails if weir ignores it. The test says so in a line of its own, `covers:` and the keys
//! behind two slashes, above its attribute; keys of `[databases]`, `[users]` and `[peers]` carry their section. That a
//! key in the file reaches the model is tried for all of them in weir-config; what is marked is what the value does.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::sources::{Source, refuse, sources};

const MARK: &str = "// covers: ";

#[test]
fn each_setting_has_a_test_of_what_it_does() -> Result<()> {
    let known: BTreeSet<String> = weir_config::ini_keys().into_iter().collect();
    let mut covered = BTreeSet::new();
    let mut problems = Vec::new();
    for source in sources()? {
        for (at, key) in marks(&source.lines) {
            if known.contains(&key) {
                covered.insert(key);
            } else {
                problems.push(format!("{}:{}: {key} is no setting", source.path, at + 1));
            }
        }
        problems.extend(strays(&source));
    }
    let missing = known.difference(&covered).map(|key| format!("{key} is tried by no test"));
    refuse("settings and their tests", problems.into_iter().chain(missing))
}

/// Line and key of every mark.
fn marks(lines: &[String]) -> Vec<(usize, String)> {
    let marked =
        lines.iter().enumerate().filter_map(|(at, line)| Some((at, line.trim().strip_prefix(MARK)?)));
    marked.flat_map(|(at, keys)| keys.split_whitespace().map(move |key| (at, key.to_owned()))).collect()
}

/// Marks that stand in front of no test.
fn strays(source: &Source) -> Vec<String> {
    let is_stray = |at: usize| {
        let below = source.lines.iter().skip(at).map(|line| line.trim());
        let above_function = below.take_while(|line| line.starts_with("//") || line.starts_with("#["));
        !above_function.into_iter().any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
    };
    let lines: BTreeSet<usize> = marks(&source.lines).into_iter().map(|(at, _)| at).collect();
    let stray = lines.into_iter().filter(|at| is_stray(*at));
    stray.map(|at| format!("{}:{}: a mark without a test", source.path, at + 1)).collect()
}

#[test]
fn a_mark_belongs_to_the_test_below_it() {
    let source = |text: &str| Source {
        path: "a.rs".to_owned(),
        lines: text.lines().map(|line| line.replace("MARK ", MARK)).collect(),
    };
    let good = source("MARK one users.two\n/// Why.\n#[tokio::test]\nasync fn a() {}\n");
    let keys: Vec<String> = marks(&good.lines).into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, ["one", "users.two"]);
    assert!(strays(&good).is_empty());
    assert_eq!(strays(&source("MARK one\nfn helper() {}\n\n#[test]\nfn a() {}\n")).len(), 1);
}
