//! Rules about single source files. Relies on rustfmt: a function's closing brace stands under its `fn`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Files above the limit say why in their module doc, in a sentence that starts with this.
const REASON: &str = "Long because";
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const INLINE_TEST_LINES_MAX: usize = 160;

/// Functions that are longer than the limit today: path of the file, name, lines. None may grow, none may be added.
const LONG_FUNCTIONS: [(&str, &str, usize); 0] = [];

pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) lines: Vec<String>,
}

#[test]
fn every_file_opens_with_what_it_owns() -> Result<()> {
    let bare = |source: &Source| {
        let first = source.lines.iter().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        first.is_none_or(|line| !line.starts_with("//! "))
    };
    refuse("no module doc", sources()?.iter().filter(|source| bare(source)).map(|source| source.path.clone()))
}

#[test]
fn a_long_file_gives_its_reason() -> Result<()> {
    let long = |source: &Source| {
        let reason = source.lines.iter().any(|line| line.starts_with("//!") && line.contains(REASON));
        (source.lines.len() > FILE_LINES_MAX && !reason)
            .then(|| format!("{} ({} lines)", source.path, source.lines.len()))
    };
    refuse("too long", sources()?.iter().filter_map(long))
}

#[test]
fn functions_are_short() -> Result<()> {
    let mut problems = Vec::new();
    for source in sources()? {
        for (name, length) in functions(&source.lines) {
            let known = LONG_FUNCTIONS.iter().find(|(path, known, _)| *path == source.path && *known == name);
            if length > known.map_or(FUNCTION_LINES_MAX, |(_, _, length)| *length) {
                problems.push(format!("{} fn {name} ({length} lines)", source.path));
            }
        }
    }
    refuse("function too long", problems)
}

#[test]
fn long_tests_have_a_file_of_their_own() -> Result<()> {
    let crowded = |source: &Source| {
        let start = source.lines.iter().position(|line| line == "mod tests {")?;
        let length = source.lines.len() - start;
        (length > INLINE_TEST_LINES_MAX).then(|| format!("{} ({length} lines of tests)", source.path))
    };
    refuse("move the tests to tests.rs", sources()?.iter().filter_map(crowded))
}

#[test]
fn tests_wait_for_conditions_and_none_is_skipped() -> Result<()> {
    let mut problems = Vec::new();
    for source in sources()? {
        for (number, line) in test_lines(&source) {
            let sleeps = line.contains(concat!("::sle", "ep(")) || line.trim_start().starts_with("sleep(");
            if sleeps || line.contains(concat!("#[", "ignore")) {
                problems.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    refuse("sleeps or is ignored", problems)
}

#[test]
fn nothing_is_left_to_do() -> Result<()> {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X ")];
    let mut problems = Vec::new();
    for source in sources()? {
        for (number, line) in source.lines.iter().enumerate() {
            if line.contains("//") && words.iter().any(|word| line.contains(word)) {
                problems.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    refuse("unfinished", problems)
}

/// The lines of a file that only tests run.
fn test_lines(source: &Source) -> impl Iterator<Item = (usize, &String)> {
    let all = source.path.contains("/tests/") || source.path.ends_with("/tests.rs");
    let from = if all { Some(0) } else { source.lines.iter().position(|line| line == "#[cfg(test)]") };
    let numbered = source.lines.iter().enumerate().map(|(at, line)| (at + 1, line));
    numbered.skip(from.unwrap_or(usize::MAX))
}

/// Name and length of every function, from its `fn` line to its closing brace.
fn functions(lines: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let closing = format!("{indent}}}");
        let one_liner = line.ends_with('}') || line.ends_with(';');
        let length = lines.iter().skip(at).position(|line| *line == closing).map(|distance| distance + 1);
        found.push((name, if one_liner { 1 } else { length.unwrap_or(1) }));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_qualifier = |word: &str| {
        matches!(word, "async" | "const" | "unsafe" | "extern" | "\"C\"") || word.starts_with("pub")
    };
    let inside_pub = |word: &str| word.ends_with(')');
    if !before.split_whitespace().all(|word| is_qualifier(word) || inside_pub(word)) {
        return None;
    }
    let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// Every Rust source of the workspace.
pub(crate) fn sources() -> Result<Vec<Source>> {
    let root = root();
    let mut paths = Vec::new();
    for folder in ["crates", "fuzz", "tests", "benches"] {
        collect(&root.join(folder), &mut paths)?;
    }
    anyhow::ensure!(paths.len() > 20, "found only {} sources under {}", paths.len(), root.display());
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path)?;
        let relative = path.strip_prefix(&root).unwrap_or(path).display().to_string();
        Ok(Source { path: relative, lines: text.lines().map(str::to_owned).collect() })
    };
    paths.iter().map(read).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap_or_default()
}

/// Fails with one line per problem.
pub(crate) fn refuse(rule: &str, problems: impl IntoIterator<Item = String>) -> Result<()> {
    let problems: Vec<String> = problems.into_iter().collect();
    anyhow::ensure!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
    Ok(())
}

#[test]
fn functions_are_measured_to_their_closing_brace() {
    let text = "impl A {\n    pub(crate) async fn long(\n        &self,\n    ) {\n        body\n    }\n\n    const fn short() {}\n}";
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(functions(&lines), vec![("long".to_owned(), 5), ("short".to_owned(), 1)]);
    assert_eq!(function_name("// some fn in a comment"), None);
}
