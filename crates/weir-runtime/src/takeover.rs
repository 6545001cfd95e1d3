//! Online restart (`-R`): a new process gets the listening sockets of the running one over a Unix socket beside those
//! for clients, so that at no moment nobody listens. Owns that socket and what is said on it; decides nothing about the
//! clients of the old process.
//!
//! The new process greets, the old one answers with the list of its doors and their descriptors. When the new process
//! accepts clients it says so, and only then the old one stops. A new process that fails meanwhile has changed nothing.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use socket2::{Domain, Socket as RawSocket, Type};
use weir_config::{Listen, UnixListen};

use crate::unix_socket::{self, SocketFile};

/// The name of the socket on which a process offers its doors; `None` without a directory for Unix sockets.
pub(crate) fn name(listen: &Listen) -> Option<String> {
    let unix = listen.unix.as_ref()?;
    let port = listen.write.first().map_or(listen.port, std::net::SocketAddr::port);
    Some(format!("{}/.s.weir.{port}", unix.dir))
}

/// Opens the socket for the process that will take over from this one. Only this process's user may use it.
///
/// # Errors
/// When another process offers its doors there, or the system refuses.
pub(crate) fn offer(name: &str) -> io::Result<(UnixListener, SocketFile)> {
    let private = UnixListen { dir: String::new(), mode: 0o600, group: None };
    unix_socket::bind(&private, name, OFFER_BACKLOG)
}

/// Whether the process at the other end may have this one's sockets: it runs as the same user, or as root.
pub(crate) fn may_take(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() || uid == 0
}

/// One door of the old process, by a label that both processes make from what it is bound to.
#[derive(Debug)]
pub(crate) struct Offered<T> {
    pub(crate) label: String,
    pub(crate) descriptor: T,
}

/// The label of a listening socket: `tcp 127.0.0.1:6432`, `unix /tmp/.s.PGSQL.6432`.
///
/// # Errors
/// The descriptor is no bound socket.
pub(crate) fn label(descriptor: impl AsFd) -> io::Result<String> {
    let address = socket2::SockRef::from(&descriptor).local_addr()?;
    if let Some(address) = address.as_socket() {
        return Ok(format!("tcp {address}"));
    }
    let abstract_name =
        address.as_abstract_namespace().map(|name| String::from_utf8_lossy(name).into_owned());
    match (address.as_pathname(), abstract_name) {
        (Some(path), _) => Ok(format!("unix {}", path.display())),
        (None, Some(name)) => Ok(format!("unix @{name}")),
        (None, None) => Err(io::Error::other("a listening socket without a name")),
    }
}

/// Sends the doors. A stream socket takes this little at once.
///
/// # Errors
/// The new process is gone.
pub(crate) fn send_doors(to: impl AsFd, doors: &[Offered<BorrowedFd<'_>>]) -> io::Result<()> {
    let mut text = String::new();
    for door in doors {
        text.push_str(&door.label);
        text.push('\n');
    }
    // An empty list ends with two line ends, too.
    text.push_str(if doors.is_empty() { "\n\n" } else { "\n" });
    let descriptors: Vec<BorrowedFd<'_>> = doors.iter().map(|door| door.descriptor).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DOORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("too many listening sockets to hand over"));
    }
    let sent = sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// What a new process got from the old one. Dropping it before [`Inheritance::settle`] leaves the old one as it was.
#[derive(Debug)]
pub(crate) struct Inheritance {
    stream: UnixStream,
    doors: Vec<Offered<OwnedFd>>,
}

impl Inheritance {
    /// Asks the running process for its doors; `None` if there is none, as at a first start.
    ///
    /// # Errors
    /// A process is there and does not hand over.
    pub(crate) fn ask(name: &str) -> io::Result<Option<Self>> {
        let Some(mut stream) = connect(name)? else { return Ok(None) };
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
        stream.write_all(GREETING)?;
        let doors = receive_doors(&mut stream)?;
        Ok(Some(Self { stream, doors }))
    }

    /// Takes the socket with this label out, if it was handed over.
    pub(crate) fn take(&mut self, label: &str) -> Option<OwnedFd> {
        let at = self.doors.iter().position(|door| door.label == label)?;
        Some(self.doors.swap_remove(at).descriptor)
    }

    /// Likewise a TCP listener.
    pub(crate) fn take_tcp(&mut self, address: std::net::SocketAddr) -> Option<TcpListener> {
        self.take(&format!("tcp {address}")).map(TcpListener::from)
    }

    /// This process serves clients now: the old one stops. Sockets that were not taken are closed.
    ///
    /// # Errors
    /// The old process does not confirm; it may go on listening.
    pub(crate) fn settle(mut self) -> io::Result<()> {
        self.doors.clear();
        self.stream.write_all(READY)?;
        let mut answer = vec![0; DONE.len()];
        self.stream.read_exact(&mut answer)?;
        if answer == DONE { Ok(()) } else { Err(io::Error::other("the old process answered nonsense")) }
    }
}

/// `None` if nobody offers anything.
fn connect(name: &str) -> io::Result<Option<UnixStream>> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.connect(&unix_socket::address(name)?) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let owner = rustix::net::sockopt::socket_peercred(&socket)?.uid.as_raw();
    if !may_take(owner) {
        return Err(io::Error::other(format!("the process behind {name} belongs to another user ({owner})")));
    }
    Ok(Some(socket.into()))
}

fn receive_doors(stream: &mut UnixStream) -> io::Result<Vec<Offered<OwnedFd>>> {
    let mut text = Vec::new();
    let mut descriptors = Vec::new();
    while !text.ends_with(b"\n\n") {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DOORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let message =
            recvmsg(&*stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for received in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = received {
                descriptors.extend(rights);
            }
        }
        text.extend_from_slice(bytes.get(..message.bytes).unwrap_or_default());
        if message.bytes == 0 || text.len() > LIST_BYTES_MAX {
            return Err(io::Error::other("the running process did not hand over its sockets"));
        }
    }
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let labels: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if labels.len() != descriptors.len() {
        return Err(io::Error::other("the running process handed over other sockets than it said"));
    }
    let doors = labels.into_iter().zip(descriptors);
    Ok(doors.map(|(label, descriptor)| Offered { label: label.to_owned(), descriptor }).collect())
}

/// What the new process says first. A later weir that speaks otherwise says something else.
pub(crate) const GREETING: &[u8] = b"weir takeover 1\n";

/// What the new process says when it accepts clients.
pub(crate) const READY: &[u8] = b"ready\n";

/// What the old process says when it no longer does.
pub(crate) const DONE: &[u8] = b"done\n";

/// Sockets that can be handed over; the kernel would take 253.
pub(crate) const DOORS_MAX: usize = 128;

/// More than that many labels take.
const LIST_BYTES_MAX: usize = 64 * 1024;

/// A living process answers at once.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// One new process at a time, and one that gave up.
const OFFER_BACKLOG: u32 = 4;

#[cfg(test)]
mod tests;
