//! Takes settings out one by one as typed values and keeps the list of what is wrong. Knows no setting by name.

use std::path::{Path, PathBuf};

use weir_auth::Secret;

use crate::Source;
use crate::key::{Family, Key};
use crate::model::Dialect;
use crate::problem::{Place, Problem, Wrong};
use crate::settings::Settings;
use crate::value::{Value, text};

/// How file contents reach the checks: this crate opens no file itself.
pub trait Files {
    /// The contents of a file.
    ///
    /// # Errors
    /// Why it cannot be read, for people: `No such file or directory`.
    fn read(&self, path: &Path) -> Result<FileContents, String>;
}

/// A file that was read.
#[derive(Debug, Clone)]
pub struct FileContents {
    /// Its bytes; user lists and keys are secrets, so every file is treated as one.
    pub bytes: Secret,
    /// True if users outside its owner and group may read it.
    pub world_readable: bool,
}

/// The settings while they are being checked.
pub(crate) struct Reader<'a> {
    pub(crate) settings: Settings,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    /// The configuration file, if there is one.
    pub(crate) source: Option<Source<'a>>,
    files: &'a dyn Files,
    /// Once is enough for one file.
    is_warned_readable: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        settings: Settings,
        problems: Vec<Problem>,
        source: Option<Source<'a>>,
        files: &'a dyn Files,
    ) -> Self {
        Self { settings, problems, warnings: Vec::new(), source, files, is_warned_readable: false }
    }

    /// Whether the setting was given.
    pub(crate) fn is_given(&self, path: &str) -> bool {
        self.settings.items.contains_key(path)
    }

    /// A setting without a default. `None`: not given, or wrong, which is noted.
    pub(crate) fn optional<T>(&mut self, path: &str, read: impl Fn(&Value) -> Result<T, Wrong>) -> Option<T> {
        let item = self.settings.items.get(path)?;
        match read(&item.value) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.complain(path, wrong);
                None
            }
        }
    }

    /// A setting with a default, which also stands in for a value that is wrong and noted.
    pub(crate) fn required<T>(&mut self, path: &str, read: impl Fn(&Value) -> Result<T, Wrong>) -> T {
        if let Some(value) = self.optional(path, &read) {
            return value;
        }
        let default = Key::find(path).and_then(|key| key.default.value()).and_then(|value| read(&value).ok());
        default.expect("settings read as required have a default that reads well: tested for all of them")
    }

    /// A path: relative to weir.toml's directory if it stands there, else to the working directory, as in PgBouncer.
    pub(crate) fn path(&mut self, path: &str) -> Option<PathBuf> {
        let written = PathBuf::from(self.optional(path, text)?);
        let beside_file = match &self.settings.items.get(path)?.place {
            Place::Line(..) | Place::File(_) if self.settings.dialect == Dialect::PgBouncer => None,
            Place::Line(file, _) | Place::File(file) => file.parent(),
            Place::Option(_) | Place::CommandLine => None,
        };
        Some(beside_file.map_or_else(|| written.clone(), |directory| directory.join(&written)))
    }

    /// The contents of the file that a setting names, with a warning if everybody may read a secret.
    pub(crate) fn contents(&mut self, key: &str, file: &Path, secrecy: Secrecy) -> Option<Secret> {
        match self.files.read(file) {
            Ok(contents) => {
                if contents.world_readable && secrecy == Secrecy::Secret {
                    self.warn_readable(file);
                }
                Some(contents.bytes)
            }
            Err(why) => {
                let what = format!("cannot read {}: {why}", file.display());
                self.complain(key, Wrong::new(what, "name a file that weir's user can read"));
                None
            }
        }
    }

    /// The text of a file that another file names.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    pub(crate) fn text_of(&self, file: &Path) -> Result<String, String> {
        let contents = self.files.read(file)?;
        let text = str::from_utf8(contents.bytes.expose()).map_err(|_| "it is not UTF-8 text".to_owned())?;
        Ok(text.to_owned())
    }

    /// Notes what is wrong with a setting, at its place, or at the file as a whole if it was not given.
    pub(crate) fn complain(&mut self, path: &str, wrong: Wrong) {
        let (place, name) = match self.settings.items.get(path) {
            Some(item) => (item.place.clone(), item.written.clone()),
            None => (self.somewhere(), None),
        };
        self.complain_at(place, name.as_deref().unwrap_or(path), wrong);
    }

    /// Notes what is wrong at a place. An option names its setting, so the key is left out there.
    pub(crate) fn complain_at(&mut self, place: Place, path: &str, wrong: Wrong) {
        let key = if matches!(place, Place::Option(_)) { String::new() } else { path.to_owned() };
        self.problems.push(Problem { place, key, wrong });
    }

    /// The place of what is missing.
    pub(crate) fn somewhere(&self) -> Place {
        self.source.map_or(Place::CommandLine, |source| Place::File(source.path.to_owned()))
    }

    /// Where a database's section stands.
    pub(crate) fn place_of_database(&self, name: &str) -> Place {
        let sections = self.settings.named.get(&Family::Databases);
        sections.and_then(|sections| sections.get(name)).cloned().unwrap_or_else(|| self.somewhere())
    }

    /// Warns if a secret stands at a place in the configuration file and everybody may read that.
    pub(crate) fn warn_if_secrets_are_readable(&mut self, place: &Place) {
        if let (Some(Source { path, world_readable: true, .. }), Place::Line(..)) = (self.source, place)
            && !self.is_warned_readable
        {
            self.is_warned_readable = true;
            self.warn_readable(path);
        }
    }

    /// Warns that everybody may read a file with secrets.
    pub(crate) fn warn_readable(&mut self, file: &Path) {
        let file = file.display();
        self.warn(format!(
            "{file} holds secrets and every user of this machine can read it; chmod o-rwx {file}"
        ));
    }

    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// Whether the contents of a file are nobody else's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Passwords, verifiers, private keys.
    Secret,
    /// Certificates.
    Public,
}
