//! What a supervisor is told (sd_notify(3)): ready, stopping. Nothing if none asked.

use std::env;
use std::os::unix::net::UnixDatagram;

use socket2::{Domain, Socket, Type};

use crate::unix_socket;

/// weir serves clients. The process id goes with it, because after an online restart it is another one.
pub(crate) fn ready() {
    say(&format!("READY=1\nMAINPID={}\n", std::process::id()));
}

/// weir has begun to end.
pub(crate) fn stopping() {
    say("STOPPING=1\n");
}

fn say(what: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else { return };
    let send = || {
        let name = name.to_str().ok_or(std::io::ErrorKind::InvalidInput)?;
        let socket = UnixDatagram::from(Socket::new(Domain::UNIX, Type::DGRAM, None)?);
        socket2::SockRef::from(&socket).connect(&unix_socket::address(name)?)?;
        socket.send(what.as_bytes())
    };
    if let Err(error) = send() {
        tracing::warn!("the supervisor was not told {:?}: {error}", what.trim_end());
    }
}
