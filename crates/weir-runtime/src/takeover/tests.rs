//! Two processes' worth of sockets in one: what is handed over is the same socket, and a failure changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::TcpStream;
use std::thread;

use super::*;
use crate::listen::tests::{Folder, nothing};

fn listen(folder: &Folder) -> Listen {
    Listen { unix: Some(folder.unix()), ..nothing() }
}

/// The old process: answers one greeting with these doors, and confirms.
fn answer(listener: &UnixListener, doors: &[Offered<BorrowedFd<'_>>]) -> io::Result<()> {
    listener.set_nonblocking(false)?;
    let (mut stream, _) = listener.accept()?;
    let mut said = vec![0; GREETING.len()];
    stream.read_exact(&mut said)?;
    assert_eq!(said, GREETING);
    send_doors(&stream, doors)?;
    let mut said = vec![0; READY.len()];
    stream.read_exact(&mut said)?;
    stream.write_all(DONE)
}

#[test]
fn a_listening_socket_survives_the_process_that_opened_it() {
    let folder = Folder::new("takeover");
    let name = name(&listen(&folder)).unwrap();
    assert!(Inheritance::ask(&name).unwrap().is_none(), "nobody is there");
    let (offer, file) = offer(&name).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix_name = unix_socket::name(&folder.0.display().to_string(), 6432);
    let (unix, _unix_file) = unix_socket::bind(&folder.unix(), &unix_name, 16).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let old = thread::spawn(move || {
        let doors = [tcp.as_fd(), unix.as_fd()]
            .map(|descriptor| Offered { label: label(descriptor).unwrap(), descriptor });
        answer(&offer, &doors)
    });
    let mut inheritance = Inheritance::ask(&name).unwrap().unwrap();
    let tcp = inheritance.take_tcp(address).unwrap();
    assert!(inheritance.take_tcp(address).is_none(), "each can be taken once");
    let unix = UnixListener::from(inheritance.take(&format!("unix {unix_name}")).unwrap());
    inheritance.settle().unwrap();
    old.join().unwrap().unwrap();
    drop(file);
    // Waited in the queue all the while.
    let (mut accepted, _) = tcp.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    accepted.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
    UnixStream::connect(&unix_name).unwrap();
    unix.set_nonblocking(false).unwrap();
    unix.accept().unwrap();
    assert!(Inheritance::ask(&name).unwrap().is_none(), "the offer is gone with its process");
}

#[test]
fn an_old_process_without_doors_hands_over_none() {
    let folder = Folder::new("empty-handed");
    let name = name(&listen(&folder)).unwrap();
    let (offer, _file) = offer(&name).unwrap();
    let old = thread::spawn(move || answer(&offer, &[]));
    let mut inheritance = Inheritance::ask(&name).unwrap().unwrap();
    assert!(inheritance.take_tcp("127.0.0.1:6432".parse().unwrap()).is_none());
    inheritance.settle().unwrap();
    old.join().unwrap().unwrap();
}

#[test]
fn nonsense_and_silence_are_errors() {
    let folder = Folder::new("nonsense");
    let name = name(&listen(&folder)).unwrap();
    let (offer, _file) = offer(&name).unwrap();
    for words in [&b"tcp 1.2.3.4:5\n\n"[..], b"half", b""] {
        thread::scope(|scope| {
            scope.spawn(|| {
                offer.set_nonblocking(false).unwrap();
                let (mut stream, _) = offer.accept().unwrap();
                stream.write_all(words).unwrap();
                let mut said = vec![0; GREETING.len()];
                stream.read_exact(&mut said).unwrap();
            });
            Inheritance::ask(&name).unwrap_err();
        });
    }
}

#[test]
fn only_the_same_user_and_root_may_take() {
    let own = rustix::process::geteuid().as_raw();
    assert!(may_take(own) && may_take(0) && !may_take(own + 1));
}

#[test]
fn the_offer_is_beside_the_clients_sockets_and_private() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new("private");
    let name = name(&listen(&folder)).unwrap();
    assert!(name.ends_with("/.s.weir.6432"));
    let _offer = offer(&name).unwrap();
    assert_eq!(std::fs::metadata(&name).unwrap().mode() & 0o777, 0o600);
    assert_eq!(super::name(&nothing()), None);
}
