//! Options of TCP sockets, on both sides. Set on a listening socket they are inherited by what it accepts, so that no
//! option costs a system call per client. Knows no connection.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use weir_config::Tcp;

/// Sets the options on a socket that has none yet; what is 0 stays the system's own.
///
/// # Errors
/// When the system refuses one.
pub(crate) fn set(socket: &SockRef<'_>, tcp: &Tcp) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(tcp.keepalive)?;
    if tcp.keepalive {
        socket.set_tcp_keepalive(&keepalive(tcp))?;
    }
    socket.set_tcp_user_timeout(Some(tcp.user_timeout))?;
    if tcp.socket_buffer > 0 {
        let size = usize::try_from(tcp.socket_buffer).unwrap_or(usize::MAX);
        socket.set_send_buffer_size(size)?;
        socket.set_recv_buffer_size(size)?;
    }
    Ok(())
}

/// Sets the options on a listening socket that may have others already. What is 0 becomes the system's own again, but
/// for the sizes of buffers: the kernel does not forget that they were chosen.
///
/// # Errors
/// When the system refuses one.
pub(crate) fn set_anew(socket: &SockRef<'_>, tcp: &Tcp) -> io::Result<()> {
    let system = |name: &str, usual: u32| {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(usual)
    };
    let seconds = |wanted: Duration, name, usual| {
        if wanted.is_zero() { Duration::from_secs(system(name, usual).into()) } else { wanted }
    };
    let count = tcp.keepalive_count;
    let tcp = Tcp {
        keepalive_count: if count == 0 { system("tcp_keepalive_probes", 9) } else { count },
        keepalive_idle: seconds(tcp.keepalive_idle, "tcp_keepalive_time", 7200),
        keepalive_interval: seconds(tcp.keepalive_interval, "tcp_keepalive_intvl", 75),
        ..tcp.clone()
    };
    set(socket, &tcp)
}

fn keepalive(tcp: &Tcp) -> TcpKeepalive {
    let mut keepalive = TcpKeepalive::new();
    if tcp.keepalive_count > 0 {
        keepalive = keepalive.with_retries(tcp.keepalive_count);
    }
    if !tcp.keepalive_idle.is_zero() {
        keepalive = keepalive.with_time(tcp.keepalive_idle);
    }
    if !tcp.keepalive_interval.is_zero() {
        keepalive = keepalive.with_interval(tcp.keepalive_interval);
    }
    keepalive
}

/// Lets the kernel hand over a connection only when its first bytes are there, or after `patience` (tcp(7),
/// `TCP_DEFER_ACCEPT`).
///
/// # Errors
/// When the system refuses.
#[expect(unsafe_code, reason = "no library that weir uses has this option behind a safe function")]
pub(crate) fn defer_accept(listener: &TcpListener, patience: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(patience.as_secs()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open for as long as `listener` is borrowed, and the pointer and the length describe
    // one integer that lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
