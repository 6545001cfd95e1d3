//! Regular expressions in PostgreSQL's authentication files: a word that begins with a slash. Two patterns are the same if
//! they are written the same.

use regex_lite::{Captures, Regex};

/// What stands behind the slash. It fits wherever it is found, unless it is anchored.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Regex);

impl Pattern {
    /// Reads a word; `None` if it does not begin with a slash, quoted or not.
    pub(crate) fn of(word: &str) -> Option<Result<Self, (String, String)>> {
        let pattern = word.strip_prefix('/')?;
        let bad = |why| (format!("{pattern:?}: {why}"), "mend the expression".to_owned());
        Some(Regex::new(pattern).map(Self).map_err(bad))
    }

    pub(crate) fn fits(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    pub(crate) fn captures<'a>(&self, text: &'a str) -> Option<Captures<'a>> {
        self.0.captures(text)
    }

    pub(crate) fn has_group(&self) -> bool {
        self.0.captures_len() > 1
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}
