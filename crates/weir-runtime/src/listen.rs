//! The doors: listening sockets and the loop that accepts. Knows no client once it is handed over.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::AbortHandle;
use weir_config::{Listen, Tcp};

use crate::RunError;
use crate::machine::Machine;
use crate::shell::Shared;
use crate::socket::Socket;
use crate::takeover::Inheritance;
use crate::tcp;
use crate::unix_socket::{self, SocketFile};
use weir_worker::Role;

/// A listening socket for clients.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) role: Role,
    pub(crate) socket: DoorSocket,
}

/// What a door is made of.
#[derive(Debug)]
pub(crate) enum DoorSocket {
    /// One TCP address.
    Tcp(StdListener),
    /// A Unix socket.
    Unix(StdUnixListener),
}

/// All doors of a process, and the files of those that have one.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    pub(crate) doors: Vec<Door>,
    pub(crate) files: Vec<SocketFile>,
}

impl Doors {
    /// Opens everything that the configuration names, or takes it over from an older process.
    ///
    /// # Errors
    /// When an address is in use or not ours, or nothing is named.
    pub(crate) fn open(
        listen: &Listen,
        tcp: &Tcp,
        mut inherited: Option<&mut Inheritance>,
    ) -> Result<Self, RunError> {
        let mut all = Self::default();
        for (role, addresses) in [(Role::Write, &listen.write), (Role::Read, &listen.read)] {
            let (before, mut missing) = (all.doors.len(), None);
            for &address in addresses {
                let old = inherited.as_mut().and_then(|inherited| inherited.take_tcp(address));
                let listener = match old {
                    Some(listener) => reopen(listener, address, listen, tcp).map(Some),
                    None => open_tcp(listen, addresses, address, tcp),
                };
                match listener {
                    Ok(Some(listener)) => all.doors.push(Door { role, socket: DoorSocket::Tcp(listener) }),
                    Ok(None) => {}
                    Err(error) if is_elsewhere(&error) => {
                        if let Some(earlier) = missing.replace(error) {
                            tracing::warn!("{earlier}");
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            // An address that wanders between machines may be another's at the moment, as with PgBouncer.
            match missing {
                Some(error) if all.doors.len() > before => tracing::warn!("{error}"),
                Some(error) => return Err(error),
                None => {}
            }
        }
        for (role, port) in unix_ports(listen) {
            all.open_unix(listen, role, port, inherited.as_deref_mut())?;
        }
        if all.doors.is_empty() {
            let source = io::Error::other("neither a TCP address nor a directory for Unix sockets is set");
            return Err(RunError::Listen { address: "anything".to_owned(), source });
        }
        Ok(all)
    }

    fn open_unix(
        &mut self,
        listen: &Listen,
        role: Role,
        port: u16,
        inherited: Option<&mut Inheritance>,
    ) -> Result<(), RunError> {
        let Some(unix) = &listen.unix else { return Ok(()) };
        let name = unix_socket::name(&unix.dir, port);
        let opened = match inherited.and_then(|inherited| inherited.take(&format!("unix {name}"))) {
            Some(old) if name.starts_with('@') => Ok((StdUnixListener::from(old), SocketFile::none())),
            Some(old) => SocketFile::new(Path::new(&name)).map(|file| (StdUnixListener::from(old), file)),
            None => unix_socket::bind(unix, &name, listen.backlog),
        };
        let (listener, file) =
            opened.map_err(|source| RunError::Listen { address: format!("unix:{name}"), source })?;
        tracing::info!("listening on unix:{name}");
        self.doors.push(Door { role, socket: DoorSocket::Unix(listener) });
        self.files.push(file);
        Ok(())
    }
}

/// One TCP address. `::` is left out if the system has no IPv6 and the same port is listened on for IPv4.
fn open_tcp(
    listen: &Listen,
    beside: &[SocketAddr],
    address: SocketAddr,
    tcp: &Tcp,
) -> Result<Option<StdListener>, RunError> {
    let is_any = address.ip().is_unspecified();
    let has_sister = beside.iter().any(|other| {
        is_any && other.is_ipv4() && other.ip().is_unspecified() && other.port() == address.port()
    });
    // Alone, `::` stands for IPv4 as well.
    let only_v6 = !is_any || has_sister;
    match bind(address, only_v6, listen, tcp) {
        Ok(listener) => {
            tracing::info!("listening on {address}");
            Ok(Some(listener))
        }
        Err(error) if address.is_ipv6() && has_sister && is_without_v6(&error) => {
            tracing::warn!("not listening on {address}: {error}");
            Ok(None)
        }
        Err(source) => Err(RunError::Listen { address: address.to_string(), source }),
    }
}

/// Whether the address is none of this machine's.
fn is_elsewhere(error: &RunError) -> bool {
    matches!(error, RunError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Gives an old process's listening socket this one's options.
fn reopen(
    listener: StdListener,
    address: SocketAddr,
    listen: &Listen,
    tcp: &Tcp,
) -> Result<StdListener, RunError> {
    let adopt = || {
        tcp::set_anew(&SockRef::from(&listener), tcp)?;
        SockRef::from(&listener).listen(i32::try_from(listen.backlog).unwrap_or(i32::MAX))?;
        tcp::defer_accept(&listener, listen.defer_accept.unwrap_or_default())
    };
    adopt().map_err(|source| RunError::Listen { address: address.to_string(), source })?;
    tracing::info!("listening on {address}, taken over");
    Ok(listener)
}

/// The Unix socket of each door.
fn unix_ports(listen: &Listen) -> Vec<(Role, u16)> {
    if listen.unix.is_none() {
        return Vec::new();
    }
    let port_of = |addresses: &[SocketAddr]| addresses.first().map(SocketAddr::port);
    let write = port_of(&listen.write).unwrap_or(listen.port);
    let read = port_of(&listen.read).or(listen.read_port);
    let read = read.filter(|read| *read != write).map(|read| (Role::Read, read));
    [(Role::Write, write)].into_iter().chain(read).collect()
}

/// Opens a listening socket. With `reuse_port` several processes may listen on the address and the kernel spreads
/// connections over them.
///
/// # Errors
/// When the address is in use or not ours.
pub(crate) fn bind(
    address: SocketAddr,
    only_v6: bool,
    listen: &Listen,
    tcp: &Tcp,
) -> io::Result<StdListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(listen.reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Before listening: the window that is offered to clients depends on the size of the buffers.
    tcp::set(&SockRef::from(&socket), tcp)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(listen.backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    let listener = StdListener::from(socket);
    if let Some(patience) = listen.defer_accept {
        tcp::defer_accept(&listener, patience)?;
    }
    Ok(listener)
}

fn is_without_v6(error: &io::Error) -> bool {
    let causes = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| causes.iter().any(|errno| errno.raw_os_error() == code))
}

impl Door {
    /// The same door once more, for another worker.
    ///
    /// # Errors
    /// When descriptors are short.
    pub(crate) fn try_clone(&self) -> Result<Self, RunError> {
        let cloned = match &self.socket {
            DoorSocket::Tcp(listener) => listener.try_clone().map(DoorSocket::Tcp),
            DoorSocket::Unix(listener) => listener.try_clone().map(DoorSocket::Unix),
        };
        let socket = cloned.map_err(|source| RunError::Start { what: "a worker's door", source })?;
        Ok(Self { role: self.role, socket })
    }
}

/// An open door and the task that accepts clients there.
pub(crate) struct OpenedDoor {
    pub(crate) role: Role,
    pub(crate) door: Rc<OpenDoor>,
    pub(crate) task: AbortHandle,
}

/// A door that the reactor knows.
#[derive(Debug)]
pub(crate) enum OpenDoor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl OpenDoor {
    fn new(socket: DoorSocket) -> io::Result<Self> {
        Ok(match socket {
            DoorSocket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            DoorSocket::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::Tcp(listener.accept().await?.0),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }

    /// Connections that wait in the kernel's queue. They were told that they are connected, and would be reset if the
    /// door closed over them.
    pub(crate) fn accept_waiting(&self) -> io::Result<Vec<Socket>> {
        let mut found = Vec::new();
        // Asked directly: the reactor may not have heard of the latest.
        let descriptor = self.descriptor()?;
        match self {
            Self::Tcp(_) => {
                let listener = StdListener::from(descriptor);
                while let (true, Ok((stream, _))) = (found.len() < WAITING_MAX, listener.accept()) {
                    stream.set_nonblocking(true)?;
                    found.push(Socket::Tcp(TcpStream::from_std(stream)?));
                }
            }
            Self::Unix(_) => {
                let listener = StdUnixListener::from(descriptor);
                while let (true, Ok((stream, _))) = (found.len() < WAITING_MAX, listener.accept()) {
                    stream.set_nonblocking(true)?;
                    found.push(Socket::Unix(UnixStream::from_std(stream)?));
                }
            }
        }
        Ok(found)
    }

    /// A second descriptor.
    ///
    /// # Errors
    /// When descriptors are short.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Options of connections that come from now on.
    pub(crate) fn adopt(&self, tcp: &Tcp) {
        let Self::Tcp(listener) = self else { return };
        if let Err(error) = tcp::set_anew(&SockRef::from(listener), tcp) {
            tracing::warn!("the TCP options of a listening socket stay as they are: {error}");
        }
    }
}

/// Accepts clients for ever, and gives way to other tasks after a few.
async fn accept_clients<M: Machine>(door: Rc<OpenDoor>, role: Role, shell: Shared<M>) {
    let mut complained = false;
    let mut in_a_row = 0;
    loop {
        match door.accept().await {
            Ok(socket) => {
                complained = false;
                shell.borrow_mut().accepted(socket, role);
                in_a_row = (in_a_row + 1) % ACCEPTS_IN_A_ROW;
                if in_a_row == 0 {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_shortage(&error) => {
                if !complained {
                    tracing::error!(
                        "cannot accept more clients: {error}; trying again, serving the others meanwhile"
                    );
                    complained = true;
                }
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            // The client left before it was accepted.
            Err(error) => tracing::debug!("accept: {error}"),
        }
    }
}

/// Starts the loop and leaves the shell the means to end it.
pub(crate) fn open<M: Machine>(door: Door, shell: &Shared<M>) {
    let Door { role, socket } = door;
    let door = match OpenDoor::new(socket) {
        Ok(door) => Rc::new(door),
        Err(error) => return tracing::error!(?role, "listening failed: {error}"),
    };
    let task = tokio::task::spawn_local(accept_clients(Rc::clone(&door), role, Rc::clone(shell)));
    shell.borrow_mut().keep_door(OpenedDoor { role, door, task: task.abort_handle() });
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}

/// Clients that are taken in when a door closes; more than that do not come in a moment.
const WAITING_MAX: usize = 4096;

/// A crowd at the door delays nobody's query for long.
const ACCEPTS_IN_A_ROW: u32 = 8;

/// While descriptors or memory are short.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
pub(crate) mod tests;
