//! Threads and channels: workers start, listen, answer control and end, with a scripted machine inside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc as std_mpsc;

use tokio::sync::mpsc;
use weir_config::{FileContents, Files, Source};

use super::*;
use crate::shell::tests::{Event, Scripted, echo};
use weir_worker::{Effects, Order};

/// Nothing that the tests configure is in a file.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &Path) -> Result<FileContents, String> {
        Err("no such file".to_owned())
    }
}

fn config(write: SocketAddr, read: SocketAddr) -> Config {
    let text = format!(
        "[upstream]\nurl = \"postgres://127.0.0.1:5432\"\n\
         [listen]\nwrite = \"{write}\"\nread = \"{read}\"\nhttp = \"{}\"\n\
         [auth]\ntype = \"trust\"\n",
        free_address()
    );
    let source = Source { path: Path::new("test.toml"), text: &text, access: weir_config::Access::PRIVATE };
    weir_config::load(Some(source), &[], &NoFiles).unwrap().config
}

/// Free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn startup(write: SocketAddr, read: SocketAddr) -> Startup {
    Startup { config: config(write, read), reload: None, take_over: false }
}

type Script = fn(&Event, &mut Effects);

fn scripted(told: mpsc::UnboundedSender<Event>) -> Scripted<Script> {
    Scripted::new(echo as Script, told)
}

/// Runs control's part of a test beside the workers.
fn with_workers(control: impl AsyncFnOnce(ControlSetup, SocketAddr, SocketAddr)) {
    let (write, read) = (free_address(), free_address());
    let (told, _events) = mpsc::unbounded_channel();
    run_with(
        startup(write, read),
        move |_, _| scripted(told.clone()),
        |setup| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control(setup, write, read));
            Ok(())
        },
    )
    .unwrap();
}

fn talk(stream: &mut TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn both_doors_are_open_when_control_begins_and_closed_when_it_ends() {
    let (kept, keep) = std_mpsc::channel();
    with_workers(async |_setup, write, read| {
        for door in [write, read] {
            let mut stream = TcpStream::connect(door).unwrap();
            talk(&mut stream);
            kept.send(stream).unwrap();
        }
    });
    for mut stream in keep.try_iter() {
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
        assert!(TcpStream::connect(stream.peer_addr().unwrap()).is_err());
    }
}

#[test]
fn a_worker_answers_control() {
    with_workers(async |setup, _, _| {
        for worker in &setup.workers {
            assert!(worker.snapshot().await.is_some());
            worker.stop();
            assert!(worker.snapshot().await.is_none(), "an ended worker has no answer");
        }
    });
}

#[test]
fn a_drained_worker_says_so_once() {
    with_workers(async |mut setup, write, _| {
        let worker = setup.workers.first().unwrap();
        worker.order(Order::Drain);
        assert!(matches!(setup.reports.recv().await, Some(Report::Drained { worker: 0 })));
        assert!(TcpStream::connect(write).is_err());
        assert!(setup.reports.try_recv().is_err());
    });
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (told, _events) = mpsc::unbounded_channel();
    let outcome = run_with(startup(free_address(), address), move |_, _| scripted(told.clone()), |_| Ok(()));
    let error = outcome.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
}

#[test]
fn an_address_of_another_machine_is_passed_over_beside_one_of_this() {
    // TEST-NET-1 (RFC 5737): nobody's.
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], free_address().port()));
    let mut config = config(free_address(), free_address());
    config.listen.write.insert(0, elsewhere);
    let doors = listen::Doors::open(&config.listen, &config.tcp, None).unwrap();
    assert_eq!(doors.doors.len(), 2);
    config.listen.write.truncate(1);
    let error = listen::Doors::open(&config.listen, &config.tcp, None).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {elsewhere}: ")), "{error}");
}
