//! The bugs that `scripts/mutate.sh` plants: patches that have to fit the sources as they are, or nobody notices that the
//! simulator has ceased to find them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sources::{refuse, root};

#[test]
fn every_planted_bug_fits_the_sources() -> Result<()> {
    let mut problems = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(root().join("crates/weir-sim/bugs"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        if !text.lines().next().is_some_and(|line| line.ends_with('.')) {
            problems
                .push(format!("{} does not begin with a sentence that says what is wrong", path.display()));
        }
        let check = Command::new("git")
            .args(["apply", "--check"])
            .arg(&path)
            .current_dir(root())
            .output()
            .context("git apply")?;
        if !check.status.success() {
            problems.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&check.stderr).trim()));
        }
        count += 1;
    }
    ensure!(count >= 10, "only {count} bugs are there");
    refuse("make it again for the new code, so that the simulator finds it", problems)
}
