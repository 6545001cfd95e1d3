//! The folder of one run: data, configuration and logs of everything started, on tmpfs where there is room.
//!
//! The folder's name carries its owner's process id and start time, so a later run knows what a killed one left
//! behind, ends those processes and removes the folder. Knows nothing of the programs inside.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

use crate::account::Account;
use crate::process;

/// A fresh folder that ends its processes and vanishes when dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    account: Account,
}

impl RunDir {
    /// Makes the folder for a run called `label` (letters, digits, `-`), after clearing away the folders of runs
    /// whose owner is dead.
    ///
    /// # Errors
    /// No place to write, or the common parent belongs to somebody else.
    pub fn create(label: &str) -> Result<Self> {
        clear_abandoned();
        let account = Account::unprivileged()?;
        let own = std::process::id();
        let ticks = process::start_ticks(own).context("reading /proc/self/stat")?;
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = make(&format!("{label}.{own}.{ticks}.{number}"))?;
        account.take(&path)?;
        Ok(Self { path, account })
    }

    /// The folder of a living run called `label`, if there is one; how a second terminal finds the first.
    #[must_use]
    pub fn find(label: &str) -> Option<Found> {
        all().into_iter().find(|found| found.label == label && found.owner_lives())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The account that owns it.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// What no other run of this machine has for a name: letters, digits and `_`.
    #[must_use]
    pub fn token(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect()
    }

    /// Where the log of the program `name` goes.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// Makes a folder inside; one that is there stays as it is.
    ///
    /// # Errors
    /// The file system refused.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(problem) if problem.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("making {}", path.display()))?,
        }
        self.account.take(&path)?;
        Ok(path)
    }

    /// Writes a file inside, readable by the account only.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        write_private(&path, content, &self.account)?;
        Ok(path)
    }

    /// Copies the logs of the run to `target`, for reading after the run is gone.
    ///
    /// # Errors
    /// The file system refused.
    pub fn keep_logs(&self, target: &Path) -> Result<()> {
        fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
        for entry in fs::read_dir(&self.path)?.flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                fs::copy(&path, target.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Ends the processes and removes the folders of runs whose owner is dead.
pub fn clear_abandoned() {
    all().into_iter().filter(|found| !found.owner_lives()).for_each(|found| remove(&found.path));
}

/// A run folder seen from outside.
#[derive(Debug, Clone)]
pub struct Found {
    /// The run's label.
    pub label: String,
    /// The folder.
    pub path: PathBuf,
    /// Process id of the program that made it.
    pub owner: u32,
    owner_ticks: u64,
}

impl Found {
    fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let mut parts = name.split('.');
        let label = parts.next()?.to_owned();
        let owner = parts.next()?.parse().ok()?;
        let owner_ticks = parts.next()?.parse().ok()?;
        Some(Self { label, path, owner, owner_ticks })
    }

    /// Whether the program that made the folder still runs.
    #[must_use]
    pub fn owner_lives(&self) -> bool {
        process::start_ticks(self.owner) == Some(self.owner_ticks)
    }
}

/// Writes `content` to `path`, readable by `account` only.
///
/// # Errors
/// The file system refused.
pub fn write_private(path: &Path, content: &str, account: &Account) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("writing {}", path.display()))?;
    file.write_all(content.as_bytes())?;
    account.take(path)
}

fn remove(path: &Path) {
    process::end_folder(path);
    release_shared_memory(path, FOLDER_DEPTH_MAX);
    let _ = fs::remove_dir_all(path);
    // The common parent goes with its last run; while there are others this does nothing.
    let _ = path.parent().map(fs::remove_dir);
}

/// Makes a folder in the common parent, which a run that just ended may take away in between.
fn make(name: &str) -> Result<PathBuf> {
    let mut last = None;
    for _ in 0..MAKE_TRIES_MAX {
        let path = parent()?.join(name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(problem) => last = Some(problem),
        }
    }
    bail!("making the run folder {name}: {}", last.map_or_else(String::new, |problem| problem.to_string()))
}

/// A killed PostgreSQL leaves its small System V segment behind and names it in line 7 of `postmaster.pid`.
fn release_shared_memory(folder: &Path, depth: u32) {
    let pid_file = fs::read_to_string(folder.join("postmaster.pid")).unwrap_or_default();
    if let Some(id) = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
    }
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            release_shared_memory(&entry.path(), depth - 1);
        }
    }
}

fn all() -> Vec<Found> {
    bases()
        .into_iter()
        .filter_map(|base| fs::read_dir(own_parent(&base)).ok())
        .flat_map(|entries| entries.flatten().filter_map(|entry| Found::parse(entry.path())))
        .collect()
}

/// The folder that holds this user's run folders: memory if it has room for three small databases, else the
/// temporary folder.
fn parent() -> Result<PathBuf> {
    let base =
        bases().into_iter().find(|base| has_room(base)).context("no temporary folder with 1 GiB of room")?;
    let path = own_parent(&base);
    match fs::DirBuilder::new().mode(0o755).create(&path) {
        Err(problem) if problem.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(problem).with_context(|| format!("making {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    // Anybody may create names in these places; only a folder of our own is safe to use.
    let owner = fs::symlink_metadata(&path)?;
    ensure!(
        owner.is_dir() && owner.uid() == rustix::process::getuid().as_raw(),
        "{} belongs to somebody else",
        path.display()
    );
    Ok(path)
}

fn bases() -> Vec<PathBuf> {
    vec![PathBuf::from("/dev/shm"), std::env::temp_dir()]
}

fn own_parent(base: &Path) -> PathBuf {
    base.join(format!("weir-runs-{}", rustix::process::getuid().as_raw()))
}

fn has_room(base: &Path) -> bool {
    rustix::fs::statvfs(base).is_ok_and(|info| info.f_bavail.saturating_mul(info.f_frsize) >= ROOM_BYTES_MIN)
}

static RUNS: AtomicU32 = AtomicU32::new(0);
const ROOM_BYTES_MIN: u64 = 1 << 30;
const MAKE_TRIES_MAX: u32 = 3;
// run folder / node / data
const FOLDER_DEPTH_MAX: u32 = 2;
