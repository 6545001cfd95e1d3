//! One started program: its own process group, its log file, its end; and finding the processes of a run folder.
//!
//! Processes are found by what the kernel says about them, not by remembered numbers: PostgreSQL's children leave
//! their parent's group, and Patroni detaches the postmaster. A process belongs to a folder when it carries the
//! folder in its environment, or is PostgreSQL working inside it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use crate::wait::{Limit, until};

/// Environment variable that marks a child as part of a run folder.
pub const MARK: &str = "WEIR_RUN_DIR";

/// A running program whose output goes to a log file. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, marked as belonging to `folder`, output appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn start(mut command: Command, folder: &Path, log: &Path) -> Result<Self> {
        let output = open_log(log)?;
        let errors = output.try_clone().context("duplicating the log handle")?;
        let child = command
            .env(MARK, folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal to this one process. A process that is gone is not an error.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Asks with `signal`, waits up to `patience`, then kills. Returns how it ended.
    ///
    /// # Errors
    /// It did not even end after SIGKILL.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        self.signal(signal);
        if let Ok(status) = self.wait(patience).await {
            return Ok(status);
        }
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5)).await
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// It still runs after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        until("the process to end", Limit::quick(patience), async || self.ended()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            // The kernel ends a killed process at once; waiting collects it so that no zombie stays.
            let _ = self.child.wait();
        }
    }
}

/// Runs `command` to its end with its output in `log`.
///
/// # Errors
/// It cannot be started or it fails; the text then holds the end of the log.
pub async fn run(command: Command, folder: &Path, log: &Path, patience: Duration) -> Result<()> {
    let what = command.get_program().display().to_string();
    let mut process = Process::start(command, folder, log)?;
    let ended = process.wait(patience).await.with_context(|| what.clone());
    let status = with_log(ended, log)?;
    anyhow::ensure!(status.success(), "{what} failed: {status}\n{}", tail(log));
    Ok(())
}

/// Sends a signal to a process id; one that is gone is not an error.
pub fn send(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let _ = rustix::process::kill_process(pid, signal);
}

/// The processes that belong to `folder` (a run folder or a folder inside one), parents before their children.
#[must_use]
pub fn of_folder(folder: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    let mut found: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != own && belongs(pid, folder))
        .collect();
    found.sort_by_key(|&pid| start_ticks(pid).unwrap_or(u64::MAX));
    found
}

/// When the process started, in clock ticks since boot; with the id it names a process for good.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces; counting starts behind it, with the state as field 3.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(START_TIME_FIELD - 3)?.parse().ok()
}

/// Kills every process of `folder` with SIGKILL until none is left.
///
/// Bounded: a process that forks faster than it is found would be left after the last pass.
pub fn kill_folder(folder: &Path) {
    let mut killed = Vec::new();
    for _ in 0..KILL_PASSES_MAX {
        let found = of_folder(folder);
        found.iter().for_each(|&pid| send(pid, Signal::KILL));
        killed.extend(found);
        killed.retain(|&pid| is_running(pid));
        if killed.is_empty() {
            return;
        }
        pause();
    }
}

/// Ends every process of `folder`: PostgreSQL by an immediate shutdown, so that it returns its shared memory to the
/// system, everything else and whatever is left after two seconds by SIGKILL.
pub fn end_folder(folder: &Path) {
    let mut ending = of_folder(folder);
    let (postgres, others): (Vec<u32>, Vec<u32>) = ending.iter().partition(|&&pid| is_postgres(pid));
    // Patroni first, or it would start PostgreSQL again.
    others.into_iter().for_each(|pid| send(pid, Signal::KILL));
    for pid in postgres {
        send(pid, Signal::QUIT);
        send(pid, Signal::CONT);
    }
    for _ in 0..END_LOOKS_MAX {
        ending.retain(|&pid| is_running(pid));
        if ending.is_empty() {
            break;
        }
        pause();
    }
    kill_folder(folder);
}

/// Puts the end of `log` behind the causes of a failure.
///
/// # Errors
/// The one handed in.
pub fn with_log<T>(outcome: Result<T>, log: &Path) -> Result<T> {
    outcome.map_err(|problem| anyhow::anyhow!("{problem:#}\n{}", tail(log)))
}

/// The last lines of a log, indented, for an error text.
#[must_use]
pub fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    let mut out = format!("--- end of {}", log.display());
    for line in lines.iter().skip(from) {
        out.push_str("\n    ");
        out.push_str(line);
    }
    out
}

/// Whether the process still has its files and sockets. One that is being torn down loses its memory, and with it the
/// signs by which it was found, before it closes them; a zombie has closed them.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn belongs(pid: u32, folder: &Path) -> bool {
    marked(pid, folder) || is_postgres_in(pid, folder)
}

fn marked(pid: u32, folder: &Path) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    environment
        .split(|&byte| byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix(MARK)?.strip_prefix('='))
        .any(|value| Path::new(value).starts_with(folder))
}

/// PostgreSQL writes its process title over its environment, but works in its data folder.
fn is_postgres_in(pid: u32, folder: &Path) -> bool {
    is_postgres(pid) && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path.starts_with(folder))
}

/// Whether the process runs PostgreSQL's program.
#[must_use]
pub fn is_postgres(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path.file_name().is_some_and(|name| name == "postgres"))
}

/// Resident memory of a process.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening the log {}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "called by Drop, which cannot await")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

const TAIL_LINES: usize = 25;
const KILL_PASSES_MAX: u32 = 200;
const END_LOOKS_MAX: u32 = 200;
const START_TIME_FIELD: usize = 22;
