//! Which operating system account the started programs run as.
//!
//! PostgreSQL refuses to run as root, so a caller who is root gets the account `postgres` (or `nobody`) for every
//! child. Knows nothing of what the children are.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// An unprivileged account for children; the caller's own unless the caller is root.
#[derive(Debug, Clone)]
pub struct Account {
    switch_to: Option<(u32, u32)>,
    name: String,
    home: String,
}

impl Account {
    /// The account children of this process should run as.
    ///
    /// # Errors
    /// The caller is root and the machine has neither `postgres` nor `nobody`.
    pub fn unprivileged() -> Result<Self> {
        let table = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let own = rustix::process::getuid().as_raw();
        if own != 0 {
            let entry = table.lines().filter_map(Entry::parse).find(|entry| entry.uid == own);
            let name = entry.as_ref().map_or_else(|| own.to_string(), |entry| entry.name.to_owned());
            let home = entry.map_or_else(|| "/".to_owned(), |entry| entry.home.to_owned());
            return Ok(Self { switch_to: None, name, home });
        }
        let entry = ["postgres", "nobody"]
            .into_iter()
            .find_map(|wanted| table.lines().filter_map(Entry::parse).find(|entry| entry.name == wanted))
            .context("running as root and no account postgres or nobody to change to")?;
        Ok(Self {
            switch_to: Some((entry.uid, entry.gid)),
            name: entry.name.to_owned(),
            home: entry.home.to_owned(),
        })
    }

    /// The account's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes `command` run as this account.
    pub fn apply(&self, command: &mut Command) {
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        if let Some((uid, gid)) = self.switch_to {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or folder that the caller made to this account.
    ///
    /// # Errors
    /// The file system refused.
    pub fn take(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.switch_to else { return Ok(()) };
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("giving {} to {}", path.display(), self.name))
    }
}

/// One line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        Some(Self { name, uid, gid, home })
    }
}
