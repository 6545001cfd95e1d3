//! PgBouncer's user list: lines of `"user" "secret"`. The text is handed in; where it lies is not known here.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::StoredSecret;

/// Users and their secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserList {
    users: BTreeMap<String, StoredSecret>,
}

/// A line that cannot be used. Holds nothing of the line's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserListProblem {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong and how it should look.
    pub why: String,
}

impl UserList {
    /// Reads a list. Each line is empty, a comment (`;`), or two strings in double quotes in which `""` stands for one
    /// quote; what follows them is ignored, as in PgBouncer. A later line for the same user replaces the earlier one.
    ///
    /// # Errors
    /// All lines that cannot be used, so that they can be mended at once.
    pub fn parse(text: &str) -> Result<Self, Vec<UserListProblem>> {
        let mut list = Self::default();
        let mut problems = Vec::new();
        // A byte order mark is an editor's, not the first user's.
        for (line, content) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            match entry(content) {
                Ok(Some((user, secret))) => list.insert(user, secret),
                Ok(None) => {}
                Err(why) => problems.push(UserListProblem { line: line + 1, why }),
            }
        }
        if problems.is_empty() { Ok(list) } else { Err(problems) }
    }

    /// The secret of a user.
    #[must_use]
    pub fn get(&self, user: &str) -> Option<&StoredSecret> {
        self.users.get(user)
    }

    /// Adds a user or replaces its secret.
    pub fn insert(&mut self, user: String, secret: StoredSecret) {
        self.users.insert(user, secret);
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is nobody in the list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// All users, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StoredSecret)> {
        self.users.iter().map(|(user, secret)| (user.as_str(), secret))
    }
}

/// Names only: a list may be long, and its secrets are nobody's business.
impl fmt::Debug for UserList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.users.keys()).finish()
    }
}

impl fmt::Display for UserListProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

fn entry(line: &str) -> Result<Option<(String, StoredSecret)>, String> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with(';') {
        return Ok(None);
    }
    let (user, rest) =
        quoted(line).ok_or("a line must look like \"user\" \"secret\"; the user is not in double quotes")?;
    let user = user.to_string();
    if user.is_empty() {
        return Err("the user name is empty".into());
    }
    let (secret, _ignored) = quoted(rest.trim_start())
        .ok_or_else(|| format!("the secret of user \"{user}\" is missing or not in double quotes"))?;
    let secret =
        StoredSecret::parse(&secret).map_err(|bad| format!("the secret of user \"{user}\" is {bad}"))?;
    Ok(Some((user, secret)))
}

/// The string in double quotes that `text` starts with, and what follows it.
fn quoted(text: &str) -> Option<(Zeroizing<String>, &str)> {
    let mut rest = text.strip_prefix('"')?;
    // As much as there can be: a string that grows leaves copies of a secret behind.
    let mut content = Zeroizing::new(String::with_capacity(text.len()));
    loop {
        let (piece, behind) = rest.split_once('"')?;
        content.push_str(piece);
        match behind.strip_prefix('"') {
            Some(more) => {
                content.push('"');
                rest = more;
            }
            None => return Some((content, behind)),
        }
    }
}

#[cfg(test)]
mod tests;
