//! What is wrong with a configuration, said so that its reader can put it right. Knows no setting by name.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, where it stands, and what would be right.
///
/// Shown as `file:line: key: what is wrong; what would be right`. A value that may hold a password is never part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the reader has to look.
    pub place: Place,
    /// The setting, such as `pool.size`; empty where the place already says it.
    pub key: String,
    /// What is wrong and what would be right.
    pub wrong: Wrong,
}

/// Where a problem stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An option of the command line, such as `--pool-size`.
    Option(&'static str),
    /// A line of a file, counted from 1.
    Line(PathBuf, usize),
    /// A file as a whole: something is missing in it.
    File(PathBuf),
    /// The command line as a whole: something is missing and there is no file.
    CommandLine,
}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The complaint.
    pub what: String,
    /// The remedy, in the imperative.
    pub remedy: String,
}

impl Wrong {
    /// A complaint and its remedy.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// All problems of one configuration, in the order of their places. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(option) => f.write_str(option),
            Self::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, wrong: Wrong { what, remedy } } = self;
        write!(f, "{place}: ")?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        write!(f, "{what}; {remedy}")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}
