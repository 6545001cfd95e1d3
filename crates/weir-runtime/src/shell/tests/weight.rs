//! What an idle client weighs, and what happens when descriptors run out.

use std::fs::File;
use std::net::TcpStream as StdStream;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::super::conn::Conn;
use super::*;

/// Memory of this process that is resident.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * PAGE_BYTES
}

fn allow_descriptors(wanted: u64) -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    setrlimit(Resource::Nofile, limit).unwrap();
    getrlimit(Resource::Nofile).current.unwrap()
}

async fn idle_clients<S: FnMut(&Event, &mut Effects) + 'static>(
    world: &World<S>,
    count: usize,
) -> Vec<StdStream> {
    let before = world.shell.borrow().conns.len();
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        // No more at once than may wait to be accepted.
        for _ in 0..500.min(count - clients.len()) {
            clients.push(StdStream::connect(world.address).unwrap());
        }
        world.until(|shell| shell.conns.len() == before + clients.len()).await;
    }
    clients
}

#[test]
fn an_idle_client_weighs_little() {
    run(async {
        let count = usize::try_from(allow_descriptors(9_000)).unwrap() / 2 - 250;
        let mut world = World::new(echo);
        // Everything that is allocated once is allocated by these.
        let mut first = idle_clients(&world, 100).await;
        for client in &mut first {
            std::io::Write::write_all(client, b"warm").unwrap();
        }
        let_the_reactor_run().await;
        while world.events.try_recv().is_ok() {}
        let before = resident_bytes();
        let _clients = idle_clients(&world, count).await;
        let each = (resident_bytes() - before) / count;
        assert!(each <= IDLE_CLIENT_BYTES_MAX, "{each} bytes, {} of them the connection", size_of::<Conn>());
    });
}

/// Without the machine's share; the events that wait for the test are in it.
const IDLE_CLIENT_BYTES_MAX: usize = 2048;

#[test]
fn without_descriptors_clients_wait_and_the_others_are_served() {
    run(async {
        let mut world = World::new(echo);
        let (client, mut stream) = world.connect().await;
        // The client's end of the next connection takes the last one.
        allow_descriptors(500);
        let mut fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        fillers.pop();
        let mut waiting = StdStream::connect(world.address).unwrap();
        let_the_reactor_run().await;
        write(&mut stream, b"served").await;
        assert_eq!(world.bytes_from(ConnId::Client(client)).await, b"served");
        assert_eq!(read_exactly(&mut stream, 6).await, b"served");
        assert_eq!(world.shell.borrow().conns.len(), 1);

        drop(fillers);
        assert!(matches!(world.event().await, Event::Accepted(_)));
        std::io::Write::write_all(&mut waiting, b"late").unwrap();
        assert_eq!(world.bytes_from(ConnId::Client(ClientId(1))).await, b"late");
    });
}

/// On every platform that weir is built for.
const PAGE_BYTES: usize = 4096;
