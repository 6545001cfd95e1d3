//! The notation of PgBouncer's file: sections, `key = value`, comments, `%include`. Knows no section and no key.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::problem::{Place, Problem, Wrong};
use crate::reader::Files;

/// One `key = value`, with the section that it stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IniLine {
    pub(crate) place: Place,
    pub(crate) section: String,
    pub(crate) key: String,
    /// To the end of the line, without blanks around it. May hold a password.
    pub(crate) value: String,
}

/// Cuts a file, and what it includes, into its settings in their order. What cannot be read is a problem, and so is a
/// file without `main`, the section that every such file has: an empty one was cut short, and means no defaults.
pub(crate) fn read(
    path: &Path,
    text: &str,
    main: &str,
    files: &dyn Files,
    problems: &mut Vec<Problem>,
) -> Vec<IniLine> {
    let mut cutter = Cutter { main, has_main: false, files, problems, section: None, lines: Vec::new() };
    cutter.file(path, text, 0);
    let Cutter { has_main, lines, .. } = cutter;
    if !has_main {
        let wrong = Wrong::new(format!("there is no section [{main}]"), format!("write [{main}] on a line"));
        problems.push(Problem { place: Place::File(path.to_owned()), key: String::new(), wrong });
    }
    lines
}

/// A file's text. Outside of comments it has to be UTF-8; comments are left empty if they are not.
///
/// # Errors
/// Where it is not, for people.
pub fn text_of(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
    if let Ok(text) = str::from_utf8(bytes) {
        return Ok(Cow::Borrowed(text));
    }
    let mut text = String::with_capacity(bytes.len());
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        match str::from_utf8(line) {
            Ok(line) => text.push_str(line),
            Err(_) if line.trim_ascii_start().starts_with(b";") => text.push_str(";\n"),
            Err(_) if line.trim_ascii_start().starts_with(b"#") => text.push_str("#\n"),
            Err(_) => return Err(format!("line {} is not UTF-8 text", index + 1)),
        }
    }
    Ok(Cow::Owned(text))
}

struct Cutter<'a> {
    main: &'a str,
    has_main: bool,
    files: &'a dyn Files,
    problems: &'a mut Vec<Problem>,
    /// It goes on behind an include, as if the included lines stood there.
    section: Option<String>,
    lines: Vec<IniLine>,
}

impl Cutter<'_> {
    fn file(&mut self, path: &Path, text: &str, depth: usize) {
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let place = Place::Line(path.to_owned(), index + 1);
            let line = line.trim();
            match line.strip_prefix("%include").filter(|rest| rest.starts_with([' ', '\t'])) {
                Some(included) => self.include(&place, included.trim(), depth),
                None => self.line(place, line),
            }
        }
    }

    fn line(&mut self, place: Place, line: &str) {
        if line.is_empty() || line.starts_with([';', '#']) {
            return;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.split_once(']') {
                // PgBouncer reads on behind the bracket as if a line began there.
                Some((section, rest)) => {
                    self.has_main |= section == self.main;
                    self.section = Some(section.to_owned());
                    self.line(place, rest.trim_start());
                }
                None => self.complain(place, Wrong::new("the section has no end", "write ] behind its name")),
            }
            return;
        }
        let found = key(line).and_then(|(key, rest)| Some((key, rest.trim_start().strip_prefix('=')?)));
        let Some((key, value)) = found.filter(|(key, _)| !key.is_empty()) else {
            let remedy = "write key = value, [section], %include FILE, or a comment behind ; or #";
            self.complain(place, Wrong::new("this is none of PgBouncer's notations", remedy));
            return;
        };
        match &self.section {
            Some(section) => {
                let (section, value) = (section.clone(), value.trim_start().to_owned());
                self.lines.push(IniLine { place, section, key, value });
            }
            None => {
                let wrong = Wrong::new(
                    format!("{key} stands above the first section"),
                    "write [pgbouncer] on a line before it",
                );
                self.complain(place, wrong);
            }
        }
    }

    fn include(&mut self, place: &Place, name: &str, depth: usize) {
        let path = PathBuf::from(name);
        if depth == INCLUDES_MAX {
            let wrong = Wrong::new(
                format!("more than {INCLUDES_MAX} files include each other"),
                "leave this one out",
            );
            self.complain(place.clone(), wrong);
            return;
        }
        let contents = self.files.read(&path).map(|contents| contents.bytes);
        match contents.as_ref().map(|bytes| text_of(bytes.expose())) {
            Ok(Ok(text)) if self.lines.len() < LINES_MAX => self.file(&path, &text, depth + 1),
            Ok(Ok(_)) => {
                let wrong = Wrong::new(format!("there are more than {LINES_MAX} settings"), "include less");
                self.complain(place.clone(), wrong);
            }
            Ok(Err(why)) => {
                let wrong = Wrong::new(format!("cannot read {name}: {why}"), "write it as UTF-8");
                self.complain(place.clone(), wrong);
            }
            Err(why) => {
                let wrong =
                    Wrong::new(format!("cannot read {name}: {why}"), "name a file that weir's user can read");
                self.complain(place.clone(), wrong);
            }
        }
    }

    fn complain(&mut self, place: Place, wrong: Wrong) {
        self.problems.push(Problem { place, key: String::new(), wrong });
    }
}

/// The key that a line begins with, and the rest: plain characters, or anything in double quotes with `""` for a quote.
fn key(line: &str) -> Option<(String, &str)> {
    let Some(mut rest) = line.strip_prefix('"') else {
        let end = line
            .find(|c: char| !(c.is_ascii_alphanumeric() || !c.is_ascii() || "_.-*".contains(c)))
            .unwrap_or(line.len());
        let (key, rest) = line.split_at(end);
        return Some((key.to_owned(), rest));
    };
    let mut key = String::new();
    loop {
        let (piece, behind) = rest.split_once('"')?;
        key.push_str(piece);
        match behind.strip_prefix('"') {
            Some(more) => {
                key.push('"');
                rest = more;
            }
            None => return Some((key, behind)),
        }
    }
}

/// As many as PgBouncer follows.
const INCLUDES_MAX: usize = 10;

/// Files that include each other several times would multiply without end.
const LINES_MAX: usize = 100_000;
