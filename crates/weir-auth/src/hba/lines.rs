//! The lines of a file and of the files that it includes (`include`, `include_if_exists`, `include_dir`; PostgreSQL 16), each
//! with the place where it stands; and lists of words that stand in files of their own (`@file`). Opens no file itself.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::HbaProblem;
use super::token::{self, Token};

/// What stands outside of a file's text. The texts of files are handed in by the caller, who may open files.
pub trait Surroundings {
    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read, for people; `None` if it does not exist.
    fn read(&self, file: &Path) -> Result<String, Option<String>>;

    /// The files in a folder, by path.
    ///
    /// # Errors
    /// Why it cannot be listed, for people.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, String>;

    /// This machine's own addresses, each with the mask of its network (`samehost`, `samenet`).
    ///
    /// # Errors
    /// Why they cannot be told, for people.
    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String>;

    /// Whether anybody can ask PostgreSQL who belongs to a group.
    fn tells_groups(&self) -> bool;

    /// Whether the build has this cargo feature: `ldap`, `pam`.
    fn has_feature(&self, _name: &str) -> bool {
        false
    }
}

/// A line with something on it that is no directive.
pub(crate) struct Line {
    pub(crate) place: Place,
    /// No field is empty.
    pub(crate) fields: Vec<Vec<Token>>,
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Rc<Path>,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// What is wrong, and what would be right.
pub(crate) type Wrong = (String, String);

impl Place {
    pub(crate) fn problem(&self, (what, remedy): Wrong) -> HbaProblem {
        HbaProblem { file: self.file.to_path_buf(), line: self.line, what, remedy }
    }

    /// A path as it is written in the file: relative to the file's folder.
    fn beside(&self, written: &str) -> PathBuf {
        self.file.parent().map_or_else(|| PathBuf::from(written), |folder| folder.join(written))
    }
}

/// All lines of a file, those of included files in their places.
pub(crate) fn read(
    file: &Path,
    text: &str,
    around: &dyn Surroundings,
    problems: &mut Vec<HbaProblem>,
) -> Vec<Line> {
    let mut reading = Reading { around, problems, found: Vec::new(), lines_left: LINES_MAX + 1 };
    reading.text(file, text, 0);
    reading.found
}

struct Reading<'a> {
    around: &'a dyn Surroundings,
    problems: &'a mut Vec<HbaProblem>,
    found: Vec<Line>,
    /// Also counts directives, so that it ends what includes itself many times over.
    lines_left: usize,
}

impl Reading<'_> {
    fn text(&mut self, file: &Path, text: &str, depth: usize) {
        let file: Rc<Path> = file.into();
        let (lines, open) = token::lines(text);
        for line in open {
            let place = Place { file: Rc::clone(&file), line };
            self.problems.push(place.problem(("a quote is not closed".into(), "close it".into())));
        }
        for (line, fields) in lines {
            let place = Place { file: Rc::clone(&file), line };
            if let Err(wrong) = self.line(&place, fields, depth) {
                self.problems.push(place.problem(wrong));
            }
        }
    }

    fn line(&mut self, place: &Place, fields: Vec<Vec<Token>>, depth: usize) -> Result<(), Wrong> {
        // Files may include one another many times over.
        if self.lines_left == 0 {
            return Ok(());
        }
        self.lines_left -= 1;
        if self.lines_left == 0 {
            return Err((format!("there are more than {LINES_MAX} lines"), "include less".into()));
        }
        let directive = match fields.first().map(Vec::as_slice) {
            Some([word]) if DIRECTIVES.iter().any(|directive| word.is(directive)) => word.text.clone(),
            Some(_) | None => {
                self.found.push(Line { place: place.clone(), fields });
                return Ok(());
            }
        };
        let [_, named] = fields.as_slice() else { return Err(one_path(&directive)) };
        let [named] = named.as_slice() else { return Err(one_path(&directive)) };
        let named = place.beside(&named.text);
        let files = if directive == INCLUDE_FOLDER { self.folder(&named)? } else { vec![named] };
        for file in files {
            if depth >= DEPTH_MAX {
                return Err(too_deep());
            }
            match self.around.read(&file) {
                Ok(text) => self.text(&file, &text, depth + 1),
                Err(None) if directive == INCLUDE_IF_EXISTS => {}
                Err(why) => return Err(unreadable(&file, why)),
            }
        }
        Ok(())
    }

    /// As PostgreSQL takes them: by name, only `*.conf`, none that begins with a dot.
    fn folder(&self, folder: &Path) -> Result<Vec<PathBuf>, Wrong> {
        let mut files = self.around.list(folder).map_err(|why| unreadable(folder, Some(why)))?;
        files.retain(|file| {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.ends_with(".conf") && !name.starts_with('.')
        });
        files.sort();
        Ok(files)
    }
}

/// Puts the words of `@file` in its place, and of files that such a file names.
pub(crate) fn expand(field: &[Token], place: &Place, around: &dyn Surroundings) -> Result<Vec<Token>, Wrong> {
    let mut expanded = Vec::new();
    expand_into(field, place, around, 0, &mut expanded)?;
    Ok(expanded)
}

fn expand_into(
    field: &[Token],
    place: &Place,
    around: &dyn Surroundings,
    depth: usize,
    expanded: &mut Vec<Token>,
) -> Result<(), Wrong> {
    for token in field {
        if expanded.len() >= WORDS_MAX {
            return Err((format!("there are more than {WORDS_MAX} words"), "name fewer".into()));
        }
        let Some(name) = token.text.strip_prefix('@').filter(|name| !token.quoted && !name.is_empty()) else {
            expanded.push(token.clone());
            continue;
        };
        if depth >= DEPTH_MAX {
            return Err(too_deep());
        }
        let file = place.beside(name);
        let text = around.read(&file).map_err(|why| unreadable(&file, why))?;
        let (lines, open) = token::lines(&text);
        if let Some(line) = open.first() {
            return Err((format!("{}:{line}: a quote is not closed", file.display()), "close it".into()));
        }
        let inner = Place { file: file.into(), line: place.line };
        for (_, fields) in lines {
            for field in fields {
                expand_into(&field, &inner, around, depth + 1, expanded)?;
            }
        }
    }
    Ok(())
}

/// The name of a group that is written `+NAME`.
pub(crate) fn group(word: &str, around: &dyn Surroundings) -> Result<String, Wrong> {
    match word.strip_prefix('+') {
        Some("") | None => Err(("a group without a name".to_owned(), "write +NAME".to_owned())),
        Some(name) if around.tells_groups() => Ok(name.to_owned()),
        Some(_) => {
            let what = "only PostgreSQL knows who belongs to a group, and nobody is named to ask it";
            let remedy = "name a user as auth.user (auth_user), or write the users' own names";
            Err((what.to_owned(), remedy.to_owned()))
        }
    }
}

fn one_path(directive: &str) -> Wrong {
    (
        format!("{directive} takes one path"),
        format!("write {directive} and the path, in quotes if it has spaces"),
    )
}

fn unreadable(file: &Path, why: Option<String>) -> Wrong {
    let why = why.unwrap_or_else(|| "it does not exist".to_owned());
    (format!("cannot read {}: {why}", file.display()), "name what weir's user can read".to_owned())
}

fn too_deep() -> Wrong {
    let what = format!("files name each other more than {DEPTH_MAX} deep");
    (what, "does one name itself? Put their lines into one file".to_owned())
}

const INCLUDE_IF_EXISTS: &str = "include_if_exists";
const INCLUDE_FOLDER: &str = "include_dir";
const DIRECTIVES: [&str; 3] = ["include", INCLUDE_IF_EXISTS, INCLUDE_FOLDER];

/// As in PostgreSQL.
const DEPTH_MAX: usize = 10;

/// Lines of all files together, and words of one list: each is looked at by every login.
const LINES_MAX: usize = 10_000;
const WORDS_MAX: usize = 100_000;
