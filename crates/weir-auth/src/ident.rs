//! Which name outside (a certificate's, a system user's) may log in under which name inside: PgBouncer's
//! `auth_ident_file`, which is PostgreSQL's `pg_ident.conf`. Opens no file: the text is handed in.

use std::collections::BTreeMap;

use regex_lite::{Captures, Regex};

use crate::HbaProblem;
use crate::hba::token::{self, Token};

/// All maps of a file, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentMaps {
    maps: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    outside: Outside,
    inside: Inside,
}

#[derive(Debug, Clone)]
enum Outside {
    Name(String),
    Pattern(Regex),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Inside {
    /// `all`: any name.
    All,
    /// In which `\1` stands for what the pattern's first parentheses caught.
    Name(String),
}

/// Two patterns are the same if they are written the same.
impl PartialEq for Outside {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(left), Self::Name(right)) => left == right,
            (Self::Pattern(left), Self::Pattern(right)) => left.as_str() == right.as_str(),
            (Self::Name(_), Self::Pattern(_)) | (Self::Pattern(_), Self::Name(_)) => false,
        }
    }
}

impl Eq for Outside {}

impl IdentMaps {
    /// Reads a file of lines `MAP OUTSIDE INSIDE`. An outside name that begins with a slash is a regular expression.
    ///
    /// # Errors
    /// All lines that cannot be used.
    pub fn parse(text: &str) -> Result<Self, Vec<HbaProblem>> {
        let (lines, open) = token::lines(text);
        let mut found = Self::default();
        let problem =
            |line, (what, remedy): (String, &str)| HbaProblem { line, what, remedy: remedy.to_owned() };
        let mut problems: Vec<_> = open
            .into_iter()
            .map(|line| problem(line, ("a quote is not closed".into(), "close it")))
            .collect();
        for (line, fields) in lines {
            match entry(&fields) {
                Ok((map, entry)) => found.maps.entry(map).or_default().push(entry),
                Err(wrong) => problems.push(problem(line, wrong)),
            }
        }
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Whether there is a map of this name.
    #[must_use]
    pub fn contains(&self, map: &str) -> bool {
        self.maps.contains_key(map)
    }

    /// Whether `outside` may log in as `user`: by this map, or without one if the names are the same.
    #[must_use]
    pub fn allow(&self, map: Option<&str>, outside: &str, user: &str) -> bool {
        match map {
            None => outside == user,
            Some(map) => {
                self.maps.get(map).is_some_and(|map| map.iter().any(|entry| entry.allows(outside, user)))
            }
        }
    }
}

impl Entry {
    fn allows(&self, outside: &str, user: &str) -> bool {
        let caught = match &self.outside {
            Outside::Name(name) if name == outside => None,
            Outside::Name(_) => return false,
            Outside::Pattern(pattern) => match pattern.captures(outside) {
                Some(captures) => first_group(&captures),
                None => return false,
            },
        };
        match (&self.inside, caught) {
            (Inside::All, _) => true,
            (Inside::Name(name), Some(caught)) => name.replacen(FIRST_GROUP, &caught, 1) == user,
            (Inside::Name(name), None) => name == user,
        }
    }
}

fn first_group(captures: &Captures<'_>) -> Option<String> {
    // A group that took no part caught nothing, as in PostgreSQL.
    (captures.len() > 1)
        .then(|| captures.get(1).map_or_else(String::new, |caught| caught.as_str().to_owned()))
}

fn entry(fields: &[Vec<Token>]) -> Result<(String, Entry), (String, &'static str)> {
    let [map, outside, inside] = fields else {
        return Err((format!("has {} fields", fields.len()), SHAPE));
    };
    let ([map], [outside], [inside]) = (map.as_slice(), outside.as_slice(), inside.as_slice()) else {
        return Err(("has a list where one name belongs".into(), SHAPE));
    };
    let outside = match outside.text.strip_prefix('/') {
        Some(pattern) => {
            let regex = Regex::new(pattern);
            Outside::Pattern(regex.map_err(|why| (format!("{pattern:?}: {why}"), "mend the expression"))?)
        }
        None => Outside::Name(outside.text.clone()),
    };
    let has_group = matches!(&outside, Outside::Pattern(pattern) if pattern.captures_len() > 1);
    let inside = match inside.text.as_str() {
        "all" if !inside.quoted => Inside::All,
        text if !inside.quoted && text.starts_with(['+', '/']) => {
            let what = format!("{text:?}: roles' members and expressions are not supported on this side");
            return Err((what, "name one user, or write all"));
        }
        text if text.contains(FIRST_GROUP) && !has_group => {
            return Err((format!("{text:?} needs parentheses in an expression before it"), SHAPE));
        }
        text => Inside::Name(text.to_owned()),
    };
    Ok((map.text.clone(), Entry { outside, inside }))
}

const FIRST_GROUP: &str = "\\1";
const SHAPE: &str = "write MAP SYSTEM-NAME USER, or MAP \"/^(.*)@example\\.com$\" \\1";

#[cfg(test)]
mod tests {
    //! Maps as people write them.

    use super::IdentMaps;

    fn maps(text: &str) -> IdentMaps {
        IdentMaps::parse(text).expect("the maps are good")
    }

    #[test]
    fn names_patterns_and_groups() {
        let maps = maps(
            "# outside to inside\n\
             plain  www-data   shop\n\
             plain  www-data   \"shop admin\"\n\
             mail   /^(.*)@example\\.com$  \\1\n\
             mail   \"/^root@.*$\"  postgres\n\
             any    /^ops-        all\n",
        );
        for (map, outside, user, expected) in [
            (Some("plain"), "www-data", "shop", true),
            (Some("plain"), "www-data", "shop admin", true),
            (Some("plain"), "www-data", "www-data", false),
            (Some("plain"), "other", "shop", false),
            (Some("mail"), "ann@example.com", "ann", true),
            (Some("mail"), "ann@example.com", "bob", false),
            (Some("mail"), "ann@example.community", "ann", false),
            (Some("mail"), "root@anywhere", "postgres", true),
            (Some("any"), "ops-7", "whoever", true),
            (Some("any"), "dev-7", "whoever", false),
            (Some("missing"), "ann", "ann", false),
            (None, "ann", "ann", true),
            (None, "ann", "bob", false),
            (None, "", "bob", false),
        ] {
            assert_eq!(maps.allow(map, outside, user), expected, "{map:?} {outside} {user}");
        }
    }

    #[test]
    fn all_bad_lines_are_told_at_once() {
        let bad = "two fields\nm /( x\nm name \\1\nm a +role\ngood a b\nm \"open\n";
        let problems = IdentMaps::parse(bad).expect_err("there are bad lines");
        let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 6]);
    }
}
