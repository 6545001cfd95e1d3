//! Names over a small name server on loopback: how long answers are used, turns, names that do not exist, addresses
//! that leave, zones. Clocks are handed in or held by tokio; conditions are waited for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::UdpSocket;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};

use super::*;
use crate::listen::tests::Folder;

/// Answers questions for the addresses of `db.test` and the serial number of `test`; no other name exists.
struct NameServer {
    addresses: Rc<RefCell<Vec<Ipv4Addr>>>,
    serial: Rc<Cell<u32>>,
    /// Questions for addresses that were answered.
    asked: Rc<Cell<u32>>,
    /// A question has come.
    question: Rc<Notify>,
    /// Held while answers wait.
    answering: Rc<Mutex<()>>,
    dns: Dns,
    _folder: Folder,
}

impl NameServer {
    async fn start(name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.30.53:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let folder = Folder::new(name);
        let path = folder.0.join("resolv.conf");
        std::fs::write(&path, format!("nameserver {address}\noptions attempts:1 timeout:2\n")).unwrap();
        let server = Self {
            addresses: Rc::new(RefCell::new(vec![Ipv4Addr::new(10, 0, 0, 1)])),
            serial: Rc::new(Cell::new(1)),
            asked: Rc::default(),
            question: Rc::default(),
            answering: Rc::default(),
            dns: Dns { resolv_conf: Some(path), ..Dns::default() },
            _folder: folder,
        };
        let (addresses, serial, asked) =
            (Rc::clone(&server.addresses), Rc::clone(&server.serial), Rc::clone(&server.asked));
        let (came, answering) = (Rc::clone(&server.question), Rc::clone(&server.answering));
        spawn_local(async move {
            let mut question = [0; 512];
            loop {
                let (length, from): (usize, SocketAddr) = socket.recv_from(&mut question).await.unwrap();
                came.notify_one();
                drop(answering.lock().await);
                let reply = answer(&question[..length], &addresses.borrow(), serial.get(), &asked);
                socket.send_to(&reply, from).await.unwrap();
            }
        });
        server
    }

    fn set(&self, addresses: &[[u8; 4]]) {
        self.addresses.replace(addresses.iter().copied().map(Ipv4Addr::from).collect());
    }
}

/// RFC 1035: the header, the question again, and records that point to its name.
fn answer(question: &[u8], addresses: &[Ipv4Addr], serial: u32, asked: &Cell<u32>) -> Vec<u8> {
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let name = question[12..name_end].to_ascii_lowercase();
    let kind = u16::from_be_bytes([question[name_end], question[name_end + 1]]);
    let is_host = name == b"\x02db\x04test\0";
    let mut records: Vec<Vec<u8>> = Vec::new();
    if is_host && kind == 1 {
        asked.set(asked.get() + 1);
        records = addresses.iter().map(|address| address.octets().to_vec()).collect();
    }
    if name == b"\x04test\0" && kind == 6 {
        let numbers = [serial, 60, 60, 60, 60].map(u32::to_be_bytes).concat();
        records.push([&[0, 0][..], &numbers].concat());
    }
    let exists = is_host || name == b"\x04test\0";
    let mut reply = question[..2].to_vec();
    reply.extend([0x85, if exists { 0x80 } else { 0x83 }, 0, 1, 0, u8::try_from(records.len()).unwrap()]);
    reply.extend([0, 0, 0, 0]);
    reply.extend(&question[12..name_end + 4]);
    for record in records {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 1]);
        reply.extend(u16::try_from(record.len()).unwrap().to_be_bytes());
        reply.extend(record);
    }
    reply
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.unwrap() });
}

fn ips(addresses: &[[u8; 4]]) -> Vec<IpAddr> {
    addresses.iter().copied().map(IpAddr::from).collect()
}

/// Makes what is known as old as it would be by then.
fn age(resolver: &Resolver, by: Duration) {
    resolver.hosts.borrow_mut().values_mut().for_each(|host| host.until -= by);
}

// covers: dns_max_ttl
#[test]
fn an_answer_is_used_for_max_ttl_whatever_the_name_server_says() {
    run(async {
        let server = NameServer::start("ttl").await;
        let resolver = Resolver::new(Dns { max_ttl: Duration::from_secs(15), ..server.dns.clone() });
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        let shown = &resolver.host_rows(Instant::now())[0];
        assert_eq!((shown.name.as_str(), &shown.addresses), ("db.test", &ips(&[[10, 0, 0, 1]])));
        assert!(shown.ttl > Duration::from_secs(14) && shown.ttl <= Duration::from_secs(15));
        server.set(&[[10, 0, 0, 2]]);
        // The server's own time to live is one second.
        age(&resolver, Duration::from_secs(13));
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        assert_eq!(server.asked.get(), 1);
        age(&resolver, Duration::from_secs(3));
        assert_eq!(resolver.stale(Instant::now()), ["db.test"]);
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 2]]));
        let left = AddressesLeft { host: "db.test".to_owned(), gone: ips(&[[10, 0, 0, 1]]) };
        assert_eq!(resolver.changes(), [left]);
        assert!(resolver.changes().is_empty() && resolver.stale(Instant::now()).is_empty());
    });
}

#[test]
fn old_addresses_are_used_while_name_servers_are_silent() {
    run(async {
        let server = NameServer::start("silent").await;
        let resolver = Resolver::new(Dns { max_ttl: Duration::from_secs(15), ..server.dns.clone() });
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        age(&resolver, Duration::from_secs(16));
        let silence = server.answering.lock().await;
        for _ in 0..3 {
            assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        }
        drop(silence);
    });
}

#[test]
fn a_name_that_deals_its_addresses_out_closes_no_connections() {
    run(async {
        let server = NameServer::start("dealt").await;
        let resolver = Resolver::new(Dns { max_ttl: Duration::from_secs(15), ..server.dns.clone() });
        let mut changes = Vec::new();
        for round in 0..20 {
            server.set(&[[10, 0, 0, 1 + round % 2]]);
            let found = resolver.addresses("db.test").await.unwrap();
            assert_eq!(found, ips(&[[10, 0, 0, 1 + round % 2]]), "new connections go where the answer says");
            age(&resolver, Duration::from_secs(16));
            changes.push(resolver.changes().len());
        }
        assert!(changes.iter().skip(4).all(|count| *count == 0), "{changes:?}");
    });
}

#[test]
fn what_nobody_asks_for_does_not_add_up() {
    run(async {
        let server = NameServer::start("unasked").await;
        let resolver = Resolver::new(server.dns.clone());
        for last in 1..=200 {
            server.set(&[[10, 0, 0, last]]);
            resolver.addresses("db.test").await.unwrap();
            age(&resolver, Duration::from_secs(16));
        }
        let changes = resolver.changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].gone.len(), LEFT_MAX);
        assert_eq!(changes[0].gone.last(), Some(&IpAddr::from([10, 0, 0, 199])));
    });
}

#[test]
fn those_who_ask_together_share_one_question_and_take_turns() {
    run(async {
        let server = NameServer::start("turns").await;
        server.set(&[[10, 0, 0, 3], [10, 0, 0, 1], [10, 0, 0, 2]]);
        let resolver = Resolver::new(server.dns.clone());
        let (one, two, three) = tokio::join!(
            resolver.addresses("db.test"),
            resolver.addresses("db.test"),
            resolver.addresses("db.test")
        );
        assert_eq!(one.unwrap(), ips(&[[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]]));
        assert_eq!(two.unwrap(), ips(&[[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 1]]));
        assert_eq!(three.unwrap(), ips(&[[10, 0, 0, 3], [10, 0, 0, 1], [10, 0, 0, 2]]));
        assert_eq!(server.asked.get(), 1);
    });
}

// covers: dns_nxdomain_ttl
#[test]
fn a_slow_answer_is_there_for_those_who_come_after_the_impatient() {
    run(async {
        let server = NameServer::start("slow").await;
        let resolver = Resolver::new(server.dns.clone());
        let hold = server.answering.lock().await;
        tokio::select! {
            _ = resolver.addresses("db.test") => panic!("nobody has answered"),
            () = server.question.notified() => {}
        }
        drop(hold);
        while resolver.host_rows(Instant::now())[0].addresses.is_empty() {
            yield_now().await;
        }
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        assert_eq!(server.asked.get(), 1);
    });
}

#[test]
fn a_name_that_does_not_exist_is_asked_for_again_after_nxdomain_ttl() {
    run(async {
        let server = NameServer::start("nxdomain").await;
        server.set(&[]);
        let dns =
            Dns { nxdomain_ttl: Duration::from_secs(40), max_ttl: Duration::ZERO, ..server.dns.clone() };
        let resolver = Resolver::new(dns);
        resolver.addresses("db.test").await.unwrap_err();
        resolver.addresses("nobody.test").await.unwrap_err();
        server.set(&[[10, 0, 0, 1]]);
        age(&resolver, Duration::from_secs(38));
        resolver.addresses("db.test").await.unwrap_err();
        age(&resolver, Duration::from_secs(3));
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        // Name servers that are out of order change nothing.
        server.set(&[]);
        age(&resolver, Duration::from_secs(1));
        assert_eq!(resolver.addresses("db.test").await.unwrap(), ips(&[[10, 0, 0, 1]]));
        assert!(resolver.changes().is_empty());
    });
}

// covers: dns_zone_check_period
#[test]
fn a_zone_s_new_serial_number_makes_its_names_old() {
    run(async {
        let server = NameServer::start("zone").await;
        let period = Some(Duration::from_secs(60));
        let resolver = Resolver::new(Dns { zone_check_period: period, ..server.dns.clone() });
        resolver.addresses("db.test").await.unwrap();
        let now = Instant::now();
        assert_eq!(resolver.zones_due(now), ["test"]);
        assert!(resolver.zones_due(now + Duration::from_secs(59)).is_empty());
        resolver.check_zone("test").await;
        let row = DnsZoneRow { name: "test".to_owned(), serial: 1, count: 1 };
        assert_eq!(resolver.zone_rows(), [row]);
        assert_eq!(resolver.zones_due(now + Duration::from_secs(61)), ["test"]);
        resolver.check_zone("test").await;
        assert!(resolver.stale(Instant::now()).is_empty(), "the same number changes nothing");
        server.serial.set(2);
        resolver.check_zone("test").await;
        assert_eq!(resolver.stale(Instant::now()), ["db.test"]);
        let without = Resolver::new(server.dns.clone());
        without.addresses("db.test").await.unwrap();
        assert!(without.zones_due(Instant::now()).is_empty(), "never, unless asked for");
    });
}

#[test]
fn etc_hosts_counts_with_and_without_name_servers_and_addresses_stand_for_themselves() {
    run(async {
        let server = NameServer::start("hosts").await;
        for dns in [server.dns.clone(), Dns::default()] {
            let resolver = Resolver::new(dns);
            let found = resolver.addresses("localhost").await.unwrap();
            assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
            assert_eq!(resolver.addresses("10.1.2.3").await.unwrap(), ips(&[[10, 1, 2, 3]]));
            assert_eq!(resolver.host_rows(Instant::now()).len(), 1);
        }
    });
}

#[test]
fn other_settings_make_everything_old() {
    run(async {
        let server = NameServer::start("reload").await;
        let resolver = Resolver::new(server.dns.clone());
        resolver.addresses("db.test").await.unwrap();
        resolver.configure(&server.dns, Instant::now());
        assert!(resolver.stale(Instant::now()).is_empty());
        let other = Dns { max_ttl: Duration::from_secs(99), ..server.dns.clone() };
        resolver.configure(&other, Instant::now());
        resolver.addresses("db.test").await.unwrap();
        assert!(resolver.host_rows(Instant::now())[0].ttl > Duration::from_secs(98));
        assert_eq!(server.asked.get(), 2);
    });
}
