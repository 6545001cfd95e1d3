//! Doors: which are opened, how, and who comes in by them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use weir_config::UnixListen;

use super::*;

/// No address at all.
pub(crate) fn nothing() -> Listen {
    Listen {
        write: Vec::new(),
        read: Vec::new(),
        http: None,
        unix: None,
        port: 6432,
        read_port: None,
        backlog: 1024,
        reuse_port: false,
        defer_accept: None,
    }
}

/// A folder of this test's own, removed at its end.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn unix(&self) -> UnixListen {
        UnixListen { dir: self.0.display().to_string(), mode: 0o777, group: None }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn open(listen: &Listen) -> Doors {
    Doors::open(listen, &Tcp::default(), None).unwrap()
}

fn addresses(doors: &Doors) -> Vec<(Role, SocketAddr)> {
    let address = |door: &Door| match &door.socket {
        DoorSocket::Tcp(listener) => Some((door.role, listener.local_addr().unwrap())),
        DoorSocket::Unix(_) => None,
    };
    doors.doors.iter().filter_map(address).collect()
}

#[test]
fn a_door_has_as_many_addresses_as_are_named() {
    let write =
        vec!["127.0.0.1:0".parse().unwrap(), "127.0.30.7:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let doors = open(&Listen { write, read: vec!["127.0.0.1:0".parse().unwrap()], ..nothing() });
    let seen = addresses(&doors);
    let roles: Vec<Role> = seen.iter().map(|(role, _)| *role).collect();
    assert_eq!(roles, [Role::Write, Role::Write, Role::Write, Role::Read]);
    for (_, address) in seen {
        TcpStream::connect(address).unwrap();
    }
}

#[test]
fn all_of_ipv4_and_all_of_ipv6_go_together_on_one_port() {
    let port =
        addresses(&open(&Listen { write: vec!["127.0.0.1:0".parse().unwrap()], ..nothing() }))[0].1.port();
    let write = vec![SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from(([0_u16; 8], port))];
    let _doors = open(&Listen { write, ..nothing() });
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    TcpStream::connect(("::1", port)).unwrap();
}

#[test]
fn all_of_ipv6_alone_stands_for_ipv4_as_well() {
    let doors = open(&Listen { write: vec!["[::]:0".parse().unwrap()], ..nothing() });
    let port = addresses(&doors)[0].1.port();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    TcpStream::connect(("::1", port)).unwrap();
}

#[test]
fn two_processes_share_an_address_only_if_both_want_to() {
    let shared = Listen { write: vec!["127.0.0.1:0".parse().unwrap()], reuse_port: true, ..nothing() };
    let first = open(&shared);
    let address = addresses(&first)[0].1;
    let again = Listen { write: vec![address], ..shared };
    let _second = open(&again);
    let alone = Listen { reuse_port: false, ..again };
    let refusal = Doors::open(&alone, &Tcp::default(), None).unwrap_err();
    assert!(refusal.to_string().contains(&address.to_string()), "{refusal}");
}

// covers: listen_backlog
#[test]
fn the_queue_is_as_long_as_asked_for() {
    let write = vec!["127.0.0.1:0".parse().unwrap()];
    let doors = open(&Listen { write, backlog: 3, ..nothing() });
    let address = addresses(&doors)[0].1;
    // What `ss` calls Send-Q of a listening socket. The kernel's own table does not show it, so fill the queue: it
    // takes one more than its length.
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let held: Vec<_> = (0..8).map_while(|_| connect().ok()).collect();
    assert_eq!(held.len(), 4);
}

// covers: tcp_defer_accept
#[test]
fn a_deferred_client_is_seen_with_its_first_bytes() {
    let write = vec!["127.0.0.1:0".parse().unwrap()];
    let doors = open(&Listen { write, defer_accept: Some(Duration::from_secs(45)), ..nothing() });
    let DoorSocket::Tcp(listener) = &doors.doors[0].socket else { panic!() };
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nothing was said");
    client.write_all(b"hello").unwrap();
    let (mut accepted, _) = (0..1_000_000).find_map(|_| listener.accept().ok()).unwrap();
    accepted.set_nonblocking(false).unwrap();
    let mut word = [0; 5];
    accepted.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
}

#[test]
fn each_door_has_a_unix_socket_of_its_own_name() {
    let folder = Folder::new("doors");
    for (listen, ports) in [
        (Listen { unix: Some(folder.unix()), ..nothing() }, vec![6432]),
        (Listen { unix: Some(folder.unix()), read_port: Some(6433), ..nothing() }, vec![6432, 6433]),
        (Listen { unix: Some(folder.unix()), port: 7000, read_port: Some(7000), ..nothing() }, vec![7000]),
        (
            Listen { unix: Some(folder.unix()), read: vec!["127.0.0.1:17433".parse().unwrap()], ..nothing() },
            vec![6432, 17433],
        ),
    ] {
        let doors = open(&listen);
        for port in ports {
            UnixStream::connect(folder.0.join(format!(".s.PGSQL.{port}"))).unwrap();
        }
        drop(doors);
        assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "files are removed at the end");
    }
}

#[test]
fn nothing_to_listen_on_is_refused() {
    let refusal = Doors::open(&nothing(), &Tcp::default(), None).unwrap_err().to_string();
    assert!(refusal.contains("neither"), "{refusal}");
}
