//! What the process does with itself before anything else runs: gives root away, goes to the background, keeps a pid
//! file. Everything here happens while there is only one thread.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, geteuid, setsid, test_kill_process};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::disk::for_people;

/// Becomes the user that the configuration names, if weir was started as root.
///
/// # Errors
/// There is no such user, or the system refuses; in words for people.
pub(crate) fn become_user(name: Option<&str>) -> Result<(), String> {
    let Some(name) = name else { return Ok(()) };
    let passwd = read_lines("/etc/passwd")?;
    let fields =
        passwd.iter().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let ids = fields.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
    let Some((user, group)): Option<(u32, u32)> = ids else {
        return Err(format!("there is no user {name:?} on this machine"));
    };
    if geteuid().as_raw() == user {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(format!("only root can become user {name:?}; start weir as root, or leave the user out"));
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    let mut groups = groups_of(name)?;
    groups.push(group);
    // Groups first: without root there is no way to change them.
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user))
        .map_err(|error| format!("cannot become user {name:?}: {}", for_people(&io::Error::from(error))))
}

fn groups_of(user: &str) -> Result<Vec<Gid>, String> {
    let members = |line: &String| {
        let fields: Vec<_> = line.split(':').collect();
        let id = fields.get(2)?.parse().ok()?;
        fields.get(3)?.split(',').any(|member| member == user).then(|| Gid::from_raw(id))
    };
    Ok(read_lines("/etc/group")?.iter().filter_map(members).collect())
}

fn read_lines(file: &str) -> Result<Vec<String>, String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {file}: {}", for_people(&error)))?;
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

/// Starts this program once more with the same arguments, away from the terminal, and leaves it to itself.
///
/// # Errors
/// The program cannot be started; in words for people.
pub(crate) fn start_in_background() -> Result<(), String> {
    let start = || {
        Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--detached")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    };
    start().map(drop).map_err(|error| format!("cannot go to the background: {}", for_people(&error)))
}

/// Leaves the terminal's session, so that its end is no business of this process.
pub(crate) fn leave_terminal() {
    // It fails only for a process that leads a session already.
    let _ = setsid();
}

/// A file that holds the process id as long as this value lives.
pub(crate) struct PidFile {
    path: PathBuf,
    content: String,
}

impl PidFile {
    /// Refuses if the process of an existing file still runs.
    ///
    /// # Errors
    /// Another process runs; in words for people.
    pub(crate) fn check(path: &Path) -> Result<(), String> {
        let Ok(content) = fs::read_to_string(path) else { return Ok(()) };
        let running = content.trim().parse().ok().and_then(Pid::from_raw);
        let is_other = |pid: &Pid| pid.as_raw_nonzero().get().unsigned_abs() != std::process::id();
        match running.filter(is_other).filter(|pid| test_kill_process(*pid) != Err(rustix::io::Errno::SRCH)) {
            Some(pid) => Err(format!(
                "{} says that weir runs as process {}; end that one first, or take over from it with -R",
                path.display(),
                pid.as_raw_nonzero()
            )),
            None => Ok(()),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written; in words for people.
    pub(crate) fn write(path: &Path) -> Result<Self, String> {
        let content = format!("{}\n", std::process::id());
        let write = || fs::File::create(path)?.write_all(content.as_bytes());
        write().map_err(|error| {
            format!("cannot write the pid file {}: {}", path.display(), for_people(&error))
        })?;
        // Where it leads to stays the same when somebody changes the directory.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, content })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A process that has taken over wrote its own number; that file is no longer ours.
        if fs::read_to_string(&self.path).is_ok_and(|content| content == self.content) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    //! The pid file guards against a second process and goes away with its owner.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    #[test]
    fn a_pid_file_lives_as_long_as_its_process() {
        let path = std::env::temp_dir().join(format!("weir-pid-{}", std::process::id()));
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        PidFile::check(&path).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_runs_is_respected_and_a_dead_one_is_not() {
        let path = std::env::temp_dir().join(format!("weir-pids-{}", std::process::id()));
        fs::write(&path, "1\n").unwrap();
        assert!(PidFile::check(&path).unwrap_err().contains("process 1"));
        // No system has as many processes.
        fs::write(&path, "2147483646\n").unwrap();
        PidFile::check(&path).unwrap();
        let ours = PidFile::write(&path).unwrap();
        fs::write(&path, "77\n").unwrap();
        drop(ours);
        assert!(path.exists(), "somebody else's by now");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_user_who_does_not_exist_is_named() {
        assert_eq!(
            become_user(Some("nobody-of-that-name")).unwrap_err(),
            "there is no user \"nobody-of-that-name\" on this machine"
        );
    }
}
