//! `[listen]`: addresses and Unix sockets of the doors. Opens none.

use std::net::SocketAddr;
use std::time::Duration;

use super::millis;
use crate::model::{Listen, UnixListen};
use crate::problem::Wrong;
use crate::reader::Reader;
use crate::value::{
    Value, count, duration_or_never, listen_address_or_none, listen_addresses, text, text_or_empty, truth,
};

pub(super) fn check_listen(reader: &mut Reader<'_>) -> Listen {
    let write = reader.required("listen.write", listen_addresses);
    let read = reader.required("listen.read", listen_addresses);
    let http = reader.required("listen.http", listen_address_or_none);
    let doors = [("listen.write", &write[..]), ("listen.read", &read[..]), ("listen.http", http.as_slice())];
    for (left, right) in [(0, 1), (0, 2), (1, 2)] {
        let ((left, ours), (right, theirs)) = (doors[left], doors[right]);
        if ours.iter().any(|one| theirs.iter().any(|other| clash(*one, *other))) {
            let what = format!("{left} and {right} are the same");
            let remedy = "give each of the listeners a port of its own";
            reader.complain(if reader.is_given(right) { right } else { left }, Wrong::new(what, remedy));
        }
    }
    let unix = check_unix(reader);
    if write.is_empty() && unix.is_none() {
        let remedy = "give an address, or a directory for a Unix socket as listen.unix_dir";
        reader.complain("listen.write", Wrong::new("nobody could connect", remedy));
    }
    let port = reader.optional("listen.port", port_number);
    let read_port = reader.optional("listen.read_port", port_number);
    Listen {
        port: write.first().map(SocketAddr::port).or(port).unwrap_or(DEFAULT_PORT),
        read_port: read.first().map(SocketAddr::port).or(read_port),
        write,
        read,
        http,
        unix,
        backlog: reader.required("listen.backlog", count(1..=65_535)),
        reuse_port: reader.required("listen.reuse_port", truth),
        defer_accept: reader
            .required("listen.defer_accept", duration_or_never(millis(1000)..=Duration::from_secs(3600))),
    }
}

fn check_unix(reader: &mut Reader<'_>) -> Option<UnixListen> {
    let mode = reader.required("listen.unix_mode", file_mode);
    let group = reader.optional("listen.unix_group", text);
    let dir = reader.optional("listen.unix_dir", text_or_empty).filter(|dir| !dir.is_empty())?;
    Some(UnixListen { dir, mode, group })
}

/// Whether both cannot be listened on. Port 0 lets the kernel choose a free one, a different one each time.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let anywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (anywhere || one.ip() == other.ip())
}

/// An octal number in quotes.
fn file_mode(value: &Value) -> Result<u32, Wrong> {
    let mode = text(value)?;
    u32::from_str_radix(&mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
        Wrong::new(
            format!("{mode:?} is not a file mode"),
            "write an octal number, such as \"0777\" or \"0770\"",
        )
    })
}

pub(super) fn port_number(value: &Value) -> Result<u16, Wrong> {
    // The count's upper bound is the type's own.
    count(1..=u32::from(u16::MAX))(value).map(|port| u16::try_from(port).unwrap_or(u16::MAX))
}

const DEFAULT_PORT: u16 = 6432;
