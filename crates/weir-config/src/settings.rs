//! The settings as they were written, from the file and the command line, each with its place. Finds every key that
//! does not exist. Knows no types: what a value means is the business of the checks.
//!
//! serde would end at the first mistake and loses the place of what it flattens; walking the spanned document finds
//! all mistakes in one go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::expand::{Variable, expand};
use crate::key::{Family, Key};
use crate::keys::KEYS;
use crate::model::Dialect;
use crate::problem::{Place, Problem, Wrong};
use crate::reader::Files;
use crate::suggest::{nearest, pgbouncer_name};
use crate::value::Value;

/// One setting that was given.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Where it stands.
    pub(crate) place: Place,
    /// What it says.
    pub(crate) value: Value,
    /// What it is called there, if not by its path.
    pub(crate) written: Option<String>,
    /// What the environment has put into the value.
    pub(crate) variables: Vec<Variable>,
    /// A variable is missing, which is complained about; there is no value then.
    pub(crate) is_incomplete: bool,
}

impl Item {
    pub(crate) fn new(place: Place, value: Value) -> Self {
        Self { place, value, written: None, variables: Vec::new(), is_incomplete: false }
    }
}

/// A value may be a password, or hold one.
impl Drop for Item {
    fn drop(&mut self) {
        self.value.wipe();
    }
}

/// Everything that was given.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// What kind of file they come from.
    pub(crate) dialect: Dialect,
    /// By path, such as `pool.size` or `databases.app.pool_size`.
    pub(crate) items: BTreeMap<String, Item>,
    /// The sections that have a name of their own, such as `[databases.NAME]`.
    pub(crate) named: BTreeMap<Family, BTreeMap<String, Place>>,
}

impl Settings {
    /// Reads a file. What cannot be used is a problem and left out. Without an environment `${NAME}` stays as it is.
    pub(crate) fn from_toml(
        path: &Path,
        text: &str,
        environment: Option<&dyn Files>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let file = path.to_owned();
        let mut walk = Walk { file, text, environment, settings: Self::default(), problems };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let wrong = Wrong::new(
                format!("this is not TOML: {}", one_line(error.message())),
                "see https://toml.io for the notation; strings need quotes",
            );
            walk.complain(at, String::new(), wrong);
        }
        walk.document(document.get_ref());
        walk.settings
    }

    /// Puts what an option of the command line says in place of what the file says. A kind of upstream given by
    /// option also replaces the other kind in the file.
    pub(crate) fn overrule(&mut self, option: &'static str, key: &'static str, value: Value) {
        let rival = match key {
            "upstream.url" => Some("patroni.urls"),
            "patroni.urls" => Some("upstream.url"),
            _ => None,
        };
        if let Some(rival) = rival
            && matches!(self.items.get(rival), Some(Item { place: Place::Line(..), .. }))
        {
            self.items.remove(rival);
        }
        self.items.insert(key.to_owned(), Item::new(Place::Option(option), value));
    }

    /// Whether a single database says who looks up secrets.
    pub(crate) fn names_auth_user_of_a_database(&self) -> bool {
        self.items.keys().any(|path| path.starts_with("databases.") && path.ends_with(".auth_user"))
    }

    /// Sets a value that follows from another setting (a URL), unless something at least as strong was said:
    /// an option is stronger than a line of the file.
    pub(crate) fn derive(&mut self, key: &'static str, value: Value, from: &Item) {
        let stronger = matches!(from.place, Place::Option(_));
        match self.items.get(key) {
            Some(Item { place: Place::Option(_), .. }) => {}
            Some(_) if !stronger => {}
            Some(_) | None => {
                let mut item = Item::new(from.place.clone(), value);
                item.variables.clone_from(&from.variables);
                self.items.insert(key.to_owned(), item);
            }
        }
    }
}

struct Walk<'a> {
    file: PathBuf,
    text: &'a str,
    environment: Option<&'a dyn Files>,
    settings: Settings,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn document(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let family = Family::ALL.into_iter().find(|family| family.name() == name);
            match (value.get_ref(), family) {
                (DeValue::Table(sections), Some(family)) => self.named_sections(family, sections),
                (DeValue::Table(section), None) if is_section(name) => self.section(name, section),
                (DeValue::Table(_), None) => self.unknown_section(key.span().start, name),
                (_, Some(_)) => self.not_a_section(key.span().start, name),
                (_, None) if is_section(name) => self.not_a_section(key.span().start, name),
                (_, None) => self.entry("", key, value, &top_level_names()),
            }
        }
    }

    fn not_a_section(&mut self, at: usize, name: &str) {
        let wrong = Wrong::new("is a section, not a value", format!("write [{name}] on a line of its own"));
        self.complain(at, name.to_owned(), wrong);
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        let known: Vec<_> = names_in(section).collect();
        for (key, value) in table {
            self.entry(section, key, value, &known);
        }
    }

    fn named_sections(&mut self, family: Family, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = format!("{}.{name}", family.name());
            if let DeValue::Table(section) = value.get_ref() {
                let place = self.place(key.span().start);
                self.settings.named.entry(family).or_default().insert(name.to_owned(), place);
                for (key, value) in section {
                    self.entry(&path, key, value, family.keys());
                }
            } else {
                let wrong = Wrong::new("is not a section", format!("write [{path}] on a line of its own"));
                self.complain(key.span().start, path, wrong);
            }
        }
    }

    fn entry(
        &mut self,
        section: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        known: &[&'static str],
    ) {
        let name = key.get_ref().as_ref();
        let path = join(section, name);
        if known.contains(&name) {
            let item = Item::new(self.place(key.span().start), plain(value.get_ref()));
            let item = self.filled_in(&path, item);
            self.settings.items.insert(path, item);
        } else {
            let wrong = Wrong::new("there is no such setting", remedy_for(section, name, known));
            self.complain(key.span().start, path, wrong);
        }
    }

    /// The setting with its variables replaced by what the environment says.
    fn filled_in(&mut self, path: &str, mut item: Item) -> Item {
        let Some(environment) = self.environment else { return item };
        let mut variables = Vec::new();
        let mut fill = |text: &mut String| -> Result<(), Wrong> {
            let expanded = expand(text, |name| environment.variable(name), &mut variables)?;
            *text = expanded;
            Ok(())
        };
        let outcome = match &mut item.value {
            Value::Text(text) => fill(text),
            Value::Words(words) => words.iter_mut().try_for_each(fill),
            Value::Number(_) | Value::Truth(_) | Value::Other(_) => Ok(()),
        };
        item.variables = variables;
        if let Err(wrong) = outcome {
            item.is_incomplete = true;
            self.problems.push(Problem { place: item.place.clone(), key: path.to_owned(), wrong });
        }
        item
    }

    fn unknown_section(&mut self, at: usize, name: &str) {
        let remedy = match nearest(name, sections()) {
            Some(meant) => format!("did you mean [{meant}]?"),
            None => format!(
                "the sections are {}",
                sections().map(|s| format!("[{s}]")).collect::<Vec<_>>().join(", ")
            ),
        };
        self.complain(at, name.to_owned(), Wrong::new("there is no such section", remedy));
    }

    fn complain(&mut self, at: usize, key: String, wrong: Wrong) {
        let place = self.place(at);
        self.problems.push(Problem { place, key, wrong });
    }

    /// The line that holds a byte of the text.
    fn place(&self, at: usize) -> Place {
        let before = self.text.as_bytes().iter().take(at);
        Place::Line(self.file.clone(), 1 + before.filter(|byte| **byte == b'\n').count())
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number beyond 64 bits"), Value::Number),
        DeValue::Array(entries) => entries
            .iter()
            .map(|entry| entry.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(Value::Other("a list of something else than strings"), Value::Words),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Table(_) => Value::Other("a section"),
    }
}

fn remedy_for(section: &str, name: &str, known: &[&'static str]) -> String {
    if let Some(meant) = nearest(name, known.iter().copied()) {
        return format!("did you mean {:?}?", join(section, meant));
    }
    if Family::ALL
        .into_iter()
        .any(|family| section.split_once('.').is_some_and(|(of, _)| of == family.name()))
    {
        return format!("[{section}] has {}", known.join(", "));
    }
    let elsewhere = || KEYS.iter().find(|key| key.section_and_name().1 == name).map(|key| key.path);
    if let Some(meant) = pgbouncer_name(name).or_else(elsewhere) {
        let (section, name) = meant.rsplit_once('.').unwrap_or(("", meant));
        return if section.is_empty() {
            format!("write {name:?} above the first section")
        } else {
            format!("write {name:?} in [{section}]")
        };
    }
    if section.is_empty() {
        return format!("above the first section stand {}; all else is in a section", known.join(", "));
    }
    format!("[{section}] has {}", known.join(", "))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn names_in(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(Key::section_and_name).filter(move |(of, _)| *of == section).map(|(_, name)| name)
}

fn top_level_names() -> Vec<&'static str> {
    names_in("").collect()
}

fn is_section(name: &str) -> bool {
    !name.is_empty() && sections().any(|section| section == name)
}

/// Every section, in the order of the table of settings.
fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    let named = KEYS.iter().map(|key| key.section_and_name().0).filter(move |section| {
        let new = *section != last;
        last = section;
        new
    });
    named.chain(Family::ALL.map(Family::name))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
