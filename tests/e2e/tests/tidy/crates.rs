//! Rules about the crates: which may know which, and that the pure ones have no way to touch the outside world.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sources::{refuse, root};

/// Each crate with the workspace's crates it may use. Arrows point one way.
const ARROWS: [(&str, &[&str]); 11] = [
    ("weir-protocol", &[]),
    ("weir-auth", &[]),
    ("weir-pool", &[]),
    ("weir-discovery", &[]),
    ("weir-session", &["weir-protocol", "weir-auth"]),
    ("weir-config", &["weir-auth"]),
    ("weir-admin", &["weir-protocol", "weir-discovery"]),
    ("weir-worker", &PURE_BELOW_WORKER),
    ("weir-sim", &["weir-protocol", "weir-config", "weir-discovery", "weir-pool", "weir-worker"]),
    (
        "weir-runtime",
        &[
            "weir-protocol",
            "weir-auth",
            "weir-session",
            "weir-pool",
            "weir-discovery",
            "weir-config",
            "weir-admin",
            "weir-worker",
        ],
    ),
    ("weir", &["weir-config", "weir-auth", "weir-runtime"]),
];
const PURE_BELOW_WORKER: [&str; 7] = [
    "weir-protocol",
    "weir-auth",
    "weir-session",
    "weir-pool",
    "weir-discovery",
    "weir-config",
    "weir-admin",
];
/// Crates that open sockets, keep clocks or run tasks.
const IMPURE: [&str; 12] = [
    "tokio",
    "mio",
    "hyper",
    "hyper-util",
    "rustls",
    "tokio-rustls",
    "socket2",
    "async-io",
    "smol",
    "crossbeam-channel",
    "signal-hook-registry",
    "weir-runtime",
];

fn pure() -> impl Iterator<Item = &'static str> {
    PURE_BELOW_WORKER.into_iter().chain(["weir-worker", "weir-sim"])
}

#[test]
fn a_pure_crate_depends_on_no_runtime() -> Result<()> {
    let mut problems = Vec::new();
    for name in pure() {
        let depends = tree(name, &[])?;
        let found = depends.iter().filter(|depend| IMPURE.contains(&depend.as_str()));
        problems.extend(found.map(|depend| format!("{name} depends on {depend}")));
    }
    refuse("not pure", problems)
}

#[test]
fn a_pure_crate_is_linted_as_one() -> Result<()> {
    let linked = |name: &str| {
        let path = root().join("crates").join(name).join("clippy.toml");
        fs::read_link(path).is_ok_and(|target| target.ends_with("clippy-pure.toml"))
    };
    let missing = pure().filter(|name| !linked(name));
    refuse("clippy.toml does not link to clippy-pure.toml", missing.map(str::to_owned))
}

#[test]
fn arrows_between_crates_point_one_way() -> Result<()> {
    let mut problems = Vec::new();
    for (name, allowed) in ARROWS {
        for depend in tree(name, &["--depth", "1"])? {
            if depend != name && depend.starts_with("weir") && !allowed.contains(&depend.as_str()) {
                problems.push(format!("{name} must not know {depend}"));
            }
        }
    }
    refuse("wrong arrow", problems)
}

#[test]
fn every_crate_has_its_place() -> Result<()> {
    let known = |name: &str| ARROWS.iter().any(|(crate_name, _)| *crate_name == name);
    let mut problems = Vec::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !known(&name) {
            problems.push(format!("{name} stands in no row of ARROWS"));
        }
        let manifest = fs::read_to_string(path.join("Cargo.toml"))?;
        // The runtime has a copy of them that leaves room for one system call.
        let has_copy = name == "weir-runtime" && manifest.contains("unsafe_code = \"deny\"");
        if !manifest.contains("[lints]") && !has_copy {
            problems.push(format!("{name} does not take the workspace's lints"));
        }
    }
    refuse("crates", problems)
}

/// Names of the crates that `name` is built from, itself included; development and build dependencies do not count.
fn tree(name: &str, more: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", name, "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(more)
        .current_dir(root())
        .output()
        .context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let names: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    ensure!(names.iter().any(|found| found == name), "cargo tree does not name {name} itself:\n{text}");
    Ok(names)
}
