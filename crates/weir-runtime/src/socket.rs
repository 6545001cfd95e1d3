//! The seam: every read and write of an established connection goes through here, so that another data plane
//! (one io_uring per worker) can be put beside epoll. Owns readiness; knows neither TLS nor messages.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use weir_worker::UnixPeer;

use crate::unix_socket;

/// A connected socket, registered with the worker's reactor.
#[derive(Debug)]
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix-domain socket.
    Unix(UnixStream),
}

impl Socket {
    /// Reads once. A read that does not fill the buffer tells that nothing is left, so the next call waits for the
    /// reactor without a system call. Zero bytes: the peer has ended. Only the task that owns the socket may call it:
    /// it is the one that is woken.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut into),
        };
        ready!(read)?;
        Poll::Ready(Ok(into.filled().len()))
    }

    /// Reads once without asking the reactor. Needed after [`Socket::poll_end`], which forgets that bytes are there;
    /// the kernel will not announce them a second time.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd();
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(fd, &mut *buffer, RecvFlags::empty()))?;
        Ok(length)
    }

    /// Writes what the kernel takes at once. May be called by any task of the worker: it registers no waker.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Waits until the kernel takes more. Only for the task that owns the socket.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Waits for the peer's end without reading: done when the peer has shut down, reset, or the connection failed,
    /// even if unread bytes are in front of it. Bytes that arrive meanwhile stay in the kernel, and the reactor
    /// forgets them: the next read has to be [`Socket::read_now`]. Only for the task that owns the socket.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_read_ready(cx)).is_err() || self.peer_has_ended() {
            return Poll::Ready(());
        }
        self.forget_readable();
        // What is still readable now is a closed half, which the reactor never forgets.
        ready!(self.poll_read_ready(cx)).ok();
        Poll::Ready(())
    }

    /// What the kernel has not got across yet is dropped with the socket instead of being sent again and again: a COMMIT
    /// must not arrive at an old leader when the way to it is mended.
    pub(crate) fn drop_unsent(&self) {
        // What fails here has no connection any more.
        rustix::net::sockopt::set_socket_linger(self.fd(), Some(Duration::ZERO)).ok();
    }

    /// Tells the peer that nothing more will come.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.fd(), Shutdown::Write)?)
    }

    /// Remote address; `None` for a Unix socket.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Local address; `None` for a Unix socket.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Who is at the other end of a Unix socket; `None` for TCP.
    pub(crate) fn unix_peer(&self) -> Option<UnixPeer> {
        let Self::Unix(stream) = self else { return None };
        let credentials = stream.peer_cred().ok()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default();
        let name = stream.local_addr().ok()?;
        let name = match name.as_pathname() {
            Some(path) => path.as_os_str().as_encoded_bytes(),
            None => name.as_abstract_name().unwrap_or_default(),
        };
        let uid = credentials.uid();
        let is_own = uid == rustix::process::geteuid().as_raw();
        Some(UnixPeer { uid, pid, port: unix_socket::port_of(name), is_own })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn forget_readable(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let forgotten = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
        };
        debug_assert!(forgotten.is_err(), "the closure above never succeeds");
    }

    fn peer_has_ended(&self) -> bool {
        let fd = self.fd();
        let mut polled = [PollFd::new(&fd, PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut polled, Some(&at_once)) {
            Ok(_) => polled[0].revents().intersects(ENDED),
            Err(_) => false,
        }
    }
}

/// What `poll` says of a connection whose peer has ended; HUP and ERR are always reported.
const ENDED: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);
