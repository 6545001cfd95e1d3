//! Which name outside (a certificate's, a system user's) may log in under which name inside: PgBouncer's
//! `auth_ident_file`, which is PostgreSQL's `pg_ident.conf` (manual of PostgreSQL 16). Opens no file and asks nobody: texts
//! and groups are handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex_lite::Captures;

use crate::HbaProblem;
use crate::hba::Surroundings;
use crate::hba::lines::{self, Wrong};
use crate::hba::token::Token;
use crate::pattern::Pattern;

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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outside {
    Name(String),
    Pattern(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Inside {
    /// `all`: any name.
    All,
    /// Anybody in this group.
    Group(String),
    Pattern(Pattern),
    /// In which `\1` stands for what the outer pattern's first parentheses caught.
    Name(String),
}

impl IdentMaps {
    /// Reads a file of lines `MAP OUTSIDE INSIDE`. A name that begins with a slash is a regular expression; `around` has the
    /// files that are included.
    ///
    /// # Errors
    /// All lines that cannot be used.
    pub fn parse(file: &Path, text: &str, around: &dyn Surroundings) -> Result<Self, Vec<HbaProblem>> {
        let mut found = Self::default();
        let mut problems = Vec::new();
        for line in lines::read(file, text, around, &mut problems) {
            match entry(&line.fields, around) {
                Ok((map, entry)) => found.maps.entry(map).or_default().push(entry),
                Err(wrong) => problems.push(line.place.problem(wrong)),
            }
        }
        problems.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Whether there is a map of this name.
    #[must_use]
    pub fn contains(&self, map: &str) -> bool {
        self.maps.contains_key(map)
    }

    /// Whether `outside` may log in as `user`: by this map, or without one if the names are the same. `groups` are those that
    /// the user belongs to, if that is known; `None`: it depends on them.
    #[must_use]
    pub fn allow(
        &self,
        map: Option<&str>,
        outside: &str,
        user: &str,
        groups: Option<&BTreeSet<String>>,
    ) -> Option<bool> {
        let Some(map) = map else { return Some(outside == user) };
        let mut is_open = false;
        for entry in self.maps.get(map).into_iter().flatten() {
            match entry.allows(outside, user, groups) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => is_open = true,
            }
        }
        (!is_open).then_some(false)
    }

    /// The groups that maps name.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.maps.values().flatten().filter_map(|entry| match &entry.inside {
            Inside::Group(name) => Some(name.as_str()),
            Inside::All | Inside::Pattern(_) | Inside::Name(_) => None,
        })
    }
}

impl Entry {
    fn allows(&self, outside: &str, user: &str, groups: Option<&BTreeSet<String>>) -> Option<bool> {
        let caught = match &self.outside {
            Outside::Name(name) if name == outside => None,
            Outside::Name(_) => return Some(false),
            Outside::Pattern(pattern) => match pattern.captures(outside) {
                Some(captures) => first_group(&captures),
                None => return Some(false),
            },
        };
        match (&self.inside, caught) {
            (Inside::All, _) => Some(true),
            (Inside::Group(group), _) => groups.map(|groups| groups.contains(group)),
            (Inside::Pattern(pattern), _) => Some(pattern.fits(user)),
            // What was caught is a name and never a keyword.
            (Inside::Name(name), Some(caught)) => Some(name.replacen(FIRST_GROUP, &caught, 1) == user),
            (Inside::Name(name), None) => Some(name == user),
        }
    }
}

fn first_group(captures: &Captures<'_>) -> Option<String> {
    // A group that took no part caught nothing, as in PostgreSQL.
    (captures.len() > 1)
        .then(|| captures.get(1).map_or_else(String::new, |caught| caught.as_str().to_owned()))
}

fn entry(fields: &[Vec<Token>], around: &dyn Surroundings) -> Result<(String, Entry), Wrong> {
    let [map, outside, inside] = fields else {
        return Err((format!("has {} fields", fields.len()), SHAPE.to_owned()));
    };
    let ([map], [outside], [inside]) = (map.as_slice(), outside.as_slice(), inside.as_slice()) else {
        return Err(("has a list where one name belongs".into(), SHAPE.to_owned()));
    };
    let outside = match Pattern::of(&outside.text) {
        Some(pattern) => Outside::Pattern(pattern?),
        None => Outside::Name(outside.text.clone()),
    };
    let has_group = matches!(&outside, Outside::Pattern(pattern) if pattern.has_group());
    let inside = match (inside.text.as_str(), Pattern::of(&inside.text)) {
        ("all", _) if !inside.quoted => Inside::All,
        (_, Some(pattern)) => Inside::Pattern(pattern?),
        (text, None) if text.contains(FIRST_GROUP) && !has_group => {
            return Err((format!("{text:?} needs parentheses in an expression before it"), SHAPE.to_owned()));
        }
        (text, None) if text.contains(FIRST_GROUP) => Inside::Name(text.to_owned()),
        (text, None) if !inside.quoted && text.starts_with('+') => Inside::Group(lines::group(text, around)?),
        (text, None) => Inside::Name(text.to_owned()),
    };
    Ok((map.text.clone(), Entry { outside, inside }))
}

const FIRST_GROUP: &str = "\\1";
const SHAPE: &str = "write MAP SYSTEM-NAME USER, or MAP \"/^(.*)@example\\.com$\" \\1";

#[cfg(test)]
mod tests;
