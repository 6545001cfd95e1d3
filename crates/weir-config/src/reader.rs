//! Takes settings out one by one as typed values and keeps the list of what is wrong. Knows no setting by name.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use weir_auth::Secret;

use crate::Source;
use crate::expand::conceal;
use crate::key::{Family, Key};
use crate::model::Dialect;
use crate::problem::{Place, Problem, Wrong};
use crate::settings::Settings;
use crate::value::{Value, text};

/// How file contents and environment variables reach the checks: this crate looks at nothing itself.
pub trait Files {
    /// The contents of a file.
    ///
    /// # Errors
    /// Why it cannot be read, for people: `No such file or directory`.
    fn read(&self, path: &Path) -> Result<FileContents, String>;

    /// An environment variable.
    ///
    /// # Errors
    /// Why it cannot be had, for people: `is not set`.
    fn variable(&self, _name: &str) -> Result<String, String> {
        Err("is not set".to_owned())
    }

    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool {
        self.read(path).is_ok()
    }

    /// The files in a folder, by path. Where files do not come from a file system, there are no folders.
    ///
    /// # Errors
    /// Why it cannot be listed, for people.
    fn list(&self, _folder: &Path) -> Result<Vec<PathBuf>, String> {
        Err("there are no folders here".to_owned())
    }

    /// This machine's own addresses, each with the mask of its network, if they can be known.
    ///
    /// # Errors
    /// Why they cannot be told, for people.
    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        Err("this machine's addresses are not known".to_owned())
    }

    /// Whether the build has this cargo feature: `ldap`, `pam`.
    fn has_feature(&self, _name: &str) -> bool {
        false
    }
}

/// A file that was read.
#[derive(Debug, Clone)]
pub struct FileContents {
    /// Its bytes; user lists and keys are secrets, so every file is treated as one.
    pub bytes: Secret,
    /// Who may read it.
    pub access: Access,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Its permission bits (`stat(2)`, the lowest nine).
    pub mode: u32,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The user's that weir runs as.
    Weir,
    /// root's: weir reads it as a member of its group, if it does not run as root.
    Root,
    /// Another user's, with the same consequence.
    Other,
}

impl Access {
    /// Nobody but weir.
    pub const PRIVATE: Self = Self { mode: 0o600, owner: Owner::Weir };

    /// Who may read a secret here and should not, and what of chmod takes that right away. The rule is PostgreSQL's for
    /// private keys ("Secure TCP/IP Connections with SSL"): only the owner, or root's group.
    fn excess(self) -> Option<(&'static str, &'static str)> {
        let by_others = self.mode & 0o004 != 0;
        let by_group = self.mode & 0o040 != 0;
        match (self.owner, by_others, by_group) {
            (Owner::Weir, true, _) => Some((EVERYBODY, "go-rwx")),
            (Owner::Root | Owner::Other, true, _) => Some((EVERYBODY, "o-rwx")),
            (Owner::Weir, false, true) => Some(("its whole group", "g-rwx")),
            (_, false, _) => None,
        }
    }
}

/// The settings while they are being checked.
pub(crate) struct Reader<'a> {
    pub(crate) settings: Settings,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    /// The configuration file, if there is one.
    pub(crate) source: Option<Source<'a>>,
    pub(crate) files: &'a dyn Files,
    /// Once is enough for one file.
    warned_readable: BTreeSet<PathBuf>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        settings: Settings,
        problems: Vec<Problem>,
        source: Option<Source<'a>>,
        files: &'a dyn Files,
    ) -> Self {
        Self { settings, problems, warnings: Vec::new(), source, files, warned_readable: BTreeSet::new() }
    }

    /// Whether the setting was given.
    pub(crate) fn is_given(&self, path: &str) -> bool {
        self.settings.items.contains_key(path)
    }

    /// A setting without a default. `None`: not given, or wrong, which is noted.
    pub(crate) fn optional<T>(&mut self, path: &str, read: impl Fn(&Value) -> Result<T, Wrong>) -> Option<T> {
        let item = self.settings.items.get(path).filter(|item| !item.is_incomplete)?;
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
                if secrecy == Secrecy::Secret {
                    self.warn_if_readable(file, contents.access);
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
        text_of(self.files, file)
    }

    /// Notes what is wrong with a setting, at its place, or at the file as a whole if it was not given.
    pub(crate) fn complain(&mut self, path: &str, mut wrong: Wrong) {
        let (place, name) = match self.settings.items.get(path) {
            Some(item) => {
                wrong.what = conceal(&wrong.what, &item.variables);
                (item.place.clone(), item.written.clone())
            }
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

    /// Warns if a secret stands in a file that others may read, and not only the name of a variable that holds it.
    pub(crate) fn warn_if_secret_is_readable(&mut self, key: &str) {
        let Some(item) = self.settings.items.get(key).filter(|item| item.variables.is_empty()) else {
            return;
        };
        let Place::Line(file, _) = item.place.clone() else { return };
        let access = match self.source {
            Some(source) if source.path == file => Some(source.access),
            // A file that this one includes.
            Some(_) | None => self.files.read(&file).ok().map(|contents| contents.access),
        };
        if let Some(access) = access {
            self.warn_if_readable(&file, access);
        }
    }

    fn warn_if_readable(&mut self, file: &Path, access: Access) {
        let Some((readers, right)) = access.excess() else { return };
        if self.warned_readable.insert(file.to_owned()) {
            let file = file.display();
            self.warn(format!("{file} holds secrets and {readers} can read it; chmod {right} {file}"));
        }
    }

    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// The text of a file.
///
/// # Errors
/// Why it cannot be read, for people.
pub(crate) fn text_of(files: &dyn Files, file: &Path) -> Result<String, String> {
    let contents = files.read(file)?;
    let text = str::from_utf8(contents.bytes.expose()).map_err(|_| "it is not UTF-8 text".to_owned())?;
    Ok(text.to_owned())
}

/// Whether the contents of a file are nobody else's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Passwords, verifiers, private keys.
    Secret,
    /// Certificates.
    Public,
}

const EVERYBODY: &str = "every user of this machine";

#[cfg(test)]
mod tests {
    //! Who may read a secret.

    use super::{Access, EVERYBODY, Owner};

    #[test]
    fn a_secret_is_for_its_owner_or_roots_group() {
        let group = "its whole group";
        for (owner, mode, expected) in [
            (Owner::Weir, 0o600, None),
            (Owner::Weir, 0o400, None),
            (Owner::Weir, 0o640, Some((group, "g-rwx"))),
            (Owner::Weir, 0o644, Some((EVERYBODY, "go-rwx"))),
            (Owner::Weir, 0o604, Some((EVERYBODY, "go-rwx"))),
            (Owner::Root, 0o640, None),
            (Owner::Root, 0o644, Some((EVERYBODY, "o-rwx"))),
            (Owner::Other, 0o640, None),
            (Owner::Other, 0o664, Some((EVERYBODY, "o-rwx"))),
        ] {
            assert_eq!(Access { mode, owner }.excess(), expected, "{owner:?} {mode:o}");
        }
    }
}
