//! weir.toml and the command line, checked into one model that cannot be wrong: [`load`] reports all problems at once,
//! each with its place, what is wrong and what would be right.
//!
//! Knows nothing of sockets, clocks or tasks, and opens no file itself: contents come in through [`Files`].

mod check;
mod convert;
mod diff;
mod expand;
mod ini;
mod key;
mod keys;
mod logins;
pub mod model;
mod problem;
mod quantity;
mod reader;
mod settings;
mod suggest;
mod tls;
mod url;
mod value;

use std::path::Path;

pub use check::CONSOLE_DATABASES;
pub use convert::to_toml;
pub use diff::{Change, diff, reload};
pub use ini::{ConfigRow, config_rows, ini_keys, text_of};
pub use key::{Fallback, Key, TakesEffect};
pub use keys::{
    CERTIFICATE_KEYS, DATABASE_KEYS, DEFAULT_AUTH_QUERY, KEYS, PEER_KEYS, USER_KEYS, WORKERS_MAX,
};
pub use model::*;
pub use problem::{Place, Problem, Problems, Wrong};
pub use quantity::show_duration;
pub use reader::{Access, FileContents, Files, Owner};
pub use value::Value;

/// A configuration file: where it stands and what it says.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Shown in problems; paths in the file are relative to its directory.
    pub path: &'a Path,
    /// Its text.
    pub text: &'a str,
    /// Who may read it.
    pub access: Access,
}

/// An option of the command line; it overrules the file.
#[derive(Debug, Clone)]
pub struct Override {
    /// As it is typed, such as `--pool-size`.
    pub option: &'static str,
    /// The setting that it stands for, one of [`KEYS`].
    pub key: &'static str,
    /// What it says.
    pub value: Value,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// What is allowed and yet worth a word at start.
    pub warnings: Vec<String>,
}

/// Checks a file, if there is one, with the options of the command line on top.
///
/// # Errors
/// Everything that is wrong, in the order of the places.
pub fn load(
    source: Option<Source<'_>>,
    overrides: &[Override],
    files: &dyn Files,
) -> Result<Loaded, Problems> {
    load_with(source, overrides, &[], files)
}

/// [`load`], and on top of all else what SET said on the console: keys (PgBouncer's names, or weir.toml's such as
/// `pool.size`) and values.
///
/// # Errors
/// Everything that is wrong, in the order of the places.
pub fn load_with(
    source: Option<Source<'_>>,
    overrides: &[Override],
    sets: &[(String, String)],
    files: &dyn Files,
) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut settings = match source {
        Some(source) => read_settings(source, files, &mut problems, &mut warnings),
        None => settings::Settings::default(),
    };
    for Override { option, key, value } in overrides {
        settings.overrule(option, key, value.clone());
    }
    for (key, value) in sets {
        problems.extend(ini::set(&mut settings, key, value).err());
    }
    let mut reader = reader::Reader::new(settings, problems, source, files);
    reader.warnings = warnings;
    let config = check::check(&mut reader);
    let reader::Reader { mut problems, warnings, .. } = reader;
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
        Some(_) | None => {
            problems.sort_by(|left, right| left.place.cmp(&right.place));
            Err(Problems(problems))
        }
    }
}

/// The file's settings in weir.toml's terms, whichever kind of file it is.
fn read_settings(
    Source { path, text, .. }: Source<'_>,
    files: &dyn Files,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> settings::Settings {
    if ini::is_ini(path, text) {
        let lines = ini::read_lines(path, text, ini::MAIN, files, problems);
        return ini::translate(path, &lines, problems, warnings);
    }
    settings::Settings::from_toml(path, text, Some(files), problems)
}

#[cfg(test)]
mod tests;
