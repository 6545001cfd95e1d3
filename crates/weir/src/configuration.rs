//! The configuration as the running process reads it again: the file, the options, what SET said on top, and whether
//! the files about logins have changed since. Checks nothing itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use weir_config::{Access, Config, FileContents, Files, Loaded, Override, Source};
use weir_runtime::Configuration;
use zeroize::Zeroizing;

use crate::Failure;
use crate::disk::Disk;
use crate::log::LogHandle;

/// A configuration file's contents, if there is a file.
pub(crate) struct Text {
    path: PathBuf,
    /// May hold passwords.
    text: Zeroizing<String>,
    access: Access,
}

impl Text {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |why| Failure::Unreadable { file: path.to_owned(), why };
        let FileContents { bytes, access } = Disk.read(path).map_err(unreadable)?;
        let text = weir_config::text_of(bytes.expose()).map_err(unreadable)?.into_owned();
        Ok(Self { path: path.to_owned(), text: Zeroizing::new(text), access })
    }

    /// As the checks take it.
    pub(crate) fn source(&self) -> Source<'_> {
        Source { path: &self.path, text: &self.text, access: self.access }
    }
}

/// The file, if there is one, and the options, checked.
pub(crate) fn load(
    text: Option<&Text>,
    overrides: &[Override],
    sets: &[(String, String)],
) -> Result<Loaded, Failure> {
    weir_config::load_with(text.map(Text::source), overrides, sets, &Disk).map_err(Failure::Wrong)
}

/// What the process keeps to read its configuration again.
pub(crate) struct Rereader {
    file: Option<PathBuf>,
    /// As it was read last: SET is put on top of that, not on top of edits that nobody asked to read.
    text: Option<Text>,
    overrides: Vec<Override>,
    sets: Vec<(String, String)>,
    log: LogHandle,
    /// Files about logins, and when they were written.
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

/// Tells one version of a file from another.
type Stamp = (SystemTime, u64);

impl Rereader {
    pub(crate) fn new(text: Option<Text>, overrides: Vec<Override>, log: LogHandle, config: &Config) -> Self {
        let file = text.as_ref().map(|text| text.path.clone());
        Self { file, text, overrides, sets: Vec::new(), log, seen: stamps(config) }
    }

    fn adopt(&mut self, loaded: Result<Loaded, Failure>) -> Result<Config, String> {
        let Loaded { config, warnings } = loaded.map_err(|failure| failure.to_string())?;
        self.log.change(&config.log);
        self.seen = stamps(&config);
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(config)
    }
}

impl Configuration for Rereader {
    fn read(&mut self) -> Result<Config, String> {
        // Whoever moved the log away wants a new one even if the configuration turns out to be wrong.
        self.log.reopen();
        let text = self.file.as_deref().map(Text::read).transpose().map_err(|failure| failure.to_string())?;
        let loaded = load(text.as_ref(), &self.overrides, &[]);
        let config = self.adopt(loaded)?;
        self.text = text;
        self.sets.clear();
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<Config, String> {
        let mut sets = self.sets.clone();
        sets.retain(|(known, _)| known != key);
        sets.push((key.to_owned(), value.to_owned()));
        let loaded = load(self.text.as_ref(), &self.overrides, &sets);
        let config = match loaded {
            // The console shows the reason alone: how many there are is of no use beside one setting.
            Err(Failure::Wrong(problems)) => return Err(problems.to_string()),
            loaded => self.adopt(loaded)?,
        };
        self.sets = sets;
        Ok(config)
    }

    fn renew(&mut self) -> Option<Result<Config, String>> {
        let is_changed = self.seen.iter().any(|(path, stamp)| stamp_of(path) != *stamp);
        if !is_changed {
            return None;
        }
        // Remembered even if it cannot be used: the same complaint every second helps nobody.
        for (path, stamp) in &mut self.seen {
            *stamp = stamp_of(path);
        }
        let loaded = load(self.text.as_ref(), &self.overrides, &self.sets);
        Some(self.adopt(loaded))
    }
}

fn stamps(config: &Config) -> Vec<(PathBuf, Option<Stamp>)> {
    let files = [&config.auth.file, &config.auth.hba_file, &config.auth.ident_file];
    files.into_iter().flatten().map(|path| (path.clone(), stamp_of(path))).collect()
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
