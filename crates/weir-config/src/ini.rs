//! PgBouncer's configuration file: its dialect, its names and its defaults, put in terms of weir.toml's settings, so
//! that the checks and the rest of weir know one kind of configuration. Checks no value beyond its notation.

mod lines;
mod named;
mod pairs;
mod rows;
mod set;
mod table;
mod translate;

pub(crate) use lines::read as read_lines;
pub use lines::text_of;
pub use rows::{ConfigRow, config_rows};
pub(crate) use set::set;
pub(crate) use translate::translate;

/// Sections that only PgBouncer's file has. Those of weir.toml that share a name carry the name of a database or user
/// behind it.
const SECTIONS: [&str; 5] = ["databases", "users", "pgbouncer", "peers", "weir"];

/// The section that PgBouncer does not start without.
pub(crate) const MAIN: &str = "pgbouncer";

/// Whether this is PgBouncer's kind of file: its name ends in `.ini`, or its first section is one of PgBouncer's.
pub(crate) fn is_ini(path: &std::path::Path, text: &str) -> bool {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ini") => true,
        Some("toml") => false,
        Some(_) | None => first_section(text).is_some_and(|section| SECTIONS.contains(&section)),
    }
}

/// Every key of PgBouncer's file and of its section `[weir]`. Those of a connection string carry their section, such as
/// `databases.pool_size`.
#[must_use]
pub fn ini_keys() -> Vec<String> {
    let general = table::SETTINGS.iter().map(|setting| setting.name.to_owned());
    general.chain(named::keys()).collect()
}

fn first_section(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim_start).find(|line| line.starts_with('['))?;
    line.strip_prefix('[')?.split(']').next()
}

#[cfg(test)]
mod tests;
