//! Names and files of Unix sockets: where they are, who may connect, when an old one may be replaced, and that it is
//! removed at the end. Knows no client.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use weir_config::UnixListen;

/// The name of PostgreSQL's socket in a directory, or in the abstract namespace if the directory begins with `@`.
pub(crate) fn name(directory: &str, port: u16) -> String {
    format!("{directory}/.s.PGSQL.{port}")
}

/// The port at the end of such a name; 0 if there is none.
pub(crate) fn port_of(name: &[u8]) -> u16 {
    let end = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    str::from_utf8(end).ok().and_then(|port| port.parse().ok()).unwrap_or_default()
}

/// Whether a host is the place of a Unix socket.
pub(crate) fn is_place(host: &str) -> bool {
    host.starts_with(['/', '@'])
}

/// The address of a socket by its name. As in libpq, an abstract name is as long as its text.
///
/// # Errors
/// The name is too long.
pub(crate) fn address(name: &str) -> io::Result<SockAddr> {
    match name.strip_prefix('@') {
        Some(rest) => SockAddr::unix(format!("\0{rest}")),
        None => SockAddr::unix(name),
    }
}

/// Opens a listening socket. A file that an ended process left behind is replaced; one that somebody listens on is not.
///
/// # Errors
/// When somebody listens there, or the system refuses.
pub(crate) fn bind(listen: &UnixListen, name: &str, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    let address = address(name)?;
    let is_file = !name.starts_with('@');
    if is_file {
        refuse_lock_of_postgres(name)?;
        remove_stale(name, &address)?;
    }
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    let file = if is_file { SocketFile::new(Path::new(name))? } else { SocketFile::none() };
    if is_file {
        fs::set_permissions(name, fs::Permissions::from_mode(listen.mode))?;
        if let Some(group) = &listen.group {
            let group = group_id(group)?;
            std::os::unix::fs::chown(name, None, Some(group))?;
        }
    }
    // Nobody can connect before this, so nobody gets in by the mode that the file had at first.
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from(socket), file))
}

/// The file of a listening socket. Dropping it removes the file, unless it was left to somebody else or is another
/// one by now.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: Option<PathBuf>,
    /// Device and inode.
    identity: (u64, u64),
    left: Cell<bool>,
}

impl SocketFile {
    /// The file at this place, which is ours.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let identity = (found.dev(), found.ino());
        Ok(Self { path: Some(path.to_owned()), identity, left: Cell::new(false) })
    }

    /// An abstract socket has no file.
    pub(crate) fn none() -> Self {
        Self { path: None, identity: (0, 0), left: Cell::new(true) }
    }

    /// The file belongs to another process from now on.
    pub(crate) fn leave(&self) {
        self.left.set(true);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Some(path) = self.path.as_ref().filter(|_| !self.left.get()) else { return };
        let is_ours =
            fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(path) {
            tracing::warn!("{} stays behind: {error}", path.display());
        }
    }
}

/// PostgreSQL locks its socket by a file that holds its process id in the first line.
fn refuse_lock_of_postgres(name: &str) -> io::Result<()> {
    let lock = format!("{name}.lock");
    let Ok(text) = fs::read_to_string(&lock) else { return Ok(()) };
    let owner = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
    // Without the right to signal it, it is somebody else's and alive.
    let is_alive = owner.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    if is_alive { Err(in_use(&format!("{lock} belongs to a process that runs"))) } else { Ok(()) }
}

fn remove_stale(name: &str, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(in_use("a file is there that is no socket"));
        }
        Ok(_) => {}
    }
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    // With a full queue the answer is "try again", which also means that somebody listens.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => Err(in_use("another process listens there")),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why.to_owned())
}

/// A group by number or by name.
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group")?;
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("/etc/group has no group \"{group}\""));
    groups.lines().find_map(of_line).ok_or_else(missing)
}

#[cfg(test)]
mod tests;
