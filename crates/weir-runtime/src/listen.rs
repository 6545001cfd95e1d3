//! The doors: listening sockets and the loop that accepts. Knows no client once it is handed over.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::TcpListener;

use crate::dial;
use crate::machine::Machine;
use crate::shell::Shared;
use crate::socket::Socket;
use weir_worker::Role;

/// Opens a listening socket. With `shared_port` several sockets may listen on the address and the kernel spreads
/// connections over them, one socket per worker.
///
/// # Errors
/// When the address is in use or not ours.
pub(crate) fn bind(address: SocketAddr, shared_port: bool) -> io::Result<StdListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Inherited by accepted connections: no option costs a system call per client.
    dial::prepare(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts clients for ever. A loop of accepts gives way to other tasks by tokio's budget (128 operations).
///
/// # Errors
/// Only if the socket cannot be registered with the reactor.
pub(crate) async fn accept_clients<M: Machine>(
    listener: StdListener,
    role: Role,
    shell: Shared<M>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut complained = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                complained = false;
                shell.borrow_mut().accepted(Socket::Tcp(stream), role);
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
pub(crate) fn open<M: Machine>(listener: StdListener, role: Role, shell: &Shared<M>) {
    let task = tokio::task::spawn_local({
        let shell = Rc::clone(shell);
        async move {
            if let Err(error) = accept_clients(listener, role, shell).await {
                tracing::error!(?role, "listening failed: {error}");
            }
        }
    });
    shell.borrow_mut().keep_listener(task.abort_handle());
}

fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|errno| errno.raw_os_error() == code))
}

/// Clients that may wait to be accepted: a whole fleet that reconnects at once. The kernel caps it at `somaxconn`.
const BACKLOG: i32 = 1024;

/// While descriptors or memory are short.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
