//! Files of Unix sockets: rights, leftovers, locks, and who removes them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use super::*;
use crate::listen::tests::Folder;

fn path(folder: &Folder) -> String {
    name(&folder.0.display().to_string(), 6432)
}

#[test]
fn names_are_libpq_s() {
    assert_eq!(name("/run/postgresql", 6432), "/run/postgresql/.s.PGSQL.6432");
    assert_eq!(name("@weir", 5), "@weir/.s.PGSQL.5");
    assert_eq!(port_of(b"/run/postgresql/.s.PGSQL.6432"), 6432);
    assert_eq!(port_of(b""), 0);
    assert!(is_place("/tmp") && is_place("@x") && !is_place("localhost"));
}

// covers: unix_socket_mode unix_socket_group
#[test]
fn mode_and_group_are_as_asked_for() {
    let folder = Folder::new("mode");
    // Another one than the process has, where it may choose.
    let own = std::fs::metadata(&folder.0).unwrap().gid();
    let group = if rustix::process::geteuid().is_root() { own + 1 } else { own };
    let listen = UnixListen { mode: 0o750, group: Some(group.to_string()), ..folder.unix() };
    let _open = bind(&listen, &path(&folder), 16).unwrap();
    let found = std::fs::metadata(path(&folder)).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o750, group));
    assert_eq!(group_id("root").unwrap(), 0);
    assert_eq!(group_id("17").unwrap(), 17);
    let listen = UnixListen { group: Some("nobody has this".to_owned()), ..listen };
    assert!(bind(&listen, &path(&Folder::new("group")), 16).is_err());
}

#[test]
fn a_socket_without_listener_is_replaced_and_one_with_is_not() {
    let folder = Folder::new("stale");
    let (listener, file) = bind(&folder.unix(), &path(&folder), 16).unwrap();
    let refusal = bind(&folder.unix(), &path(&folder), 16).unwrap_err();
    assert_eq!(refusal.kind(), io::ErrorKind::AddrInUse);
    UnixStream::connect(path(&folder)).unwrap();
    file.leave();
    drop((listener, file));
    assert!(std::fs::metadata(path(&folder)).is_ok(), "a file that was left stays");
    let (_listener, file) = bind(&folder.unix(), &path(&folder), 16).unwrap();
    UnixStream::connect(path(&folder)).unwrap();
    drop(file);
    assert!(std::fs::metadata(path(&folder)).is_err(), "our own file goes");
}

#[test]
fn only_our_own_file_is_removed() {
    let folder = Folder::new("own");
    let (_listener, file) = bind(&folder.unix(), &path(&folder), 16).unwrap();
    // Kept under another name, so that its inode is not used again.
    std::fs::rename(path(&folder), folder.0.join("old")).unwrap();
    let (_other, _others) = bind(&folder.unix(), &path(&folder), 16).unwrap();
    drop(file);
    UnixStream::connect(path(&folder)).unwrap();
}

#[test]
fn what_is_no_socket_is_not_touched() {
    let folder = Folder::new("plain");
    std::fs::write(path(&folder), "precious").unwrap();
    assert!(bind(&folder.unix(), &path(&folder), 16).is_err());
    assert_eq!(std::fs::read_to_string(path(&folder)).unwrap(), "precious");
}

#[test]
fn the_lock_of_a_living_postgresql_is_respected_and_that_of_a_dead_one_is_not() {
    let folder = Folder::new("lock");
    let lock = format!("{}.lock", path(&folder));
    std::fs::write(&lock, format!("{}\n/data\n", std::process::id())).unwrap();
    assert!(bind(&folder.unix(), &path(&folder), 16).is_err());
    std::fs::write(&lock, "2147483646\n/data\n").unwrap();
    bind(&folder.unix(), &path(&folder), 16).unwrap();
}

#[test]
fn an_abstract_socket_has_no_file() {
    let name = format!("@weir-test-{}/.s.PGSQL.6432", std::process::id());
    let listen = UnixListen { dir: "@".to_owned(), mode: 0o777, group: None };
    let (_listener, _file) = bind(&listen, &name, 16).unwrap();
    assert!(bind(&listen, &name, 16).is_err());
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    probe.connect(&address(&name).unwrap()).unwrap();
}
