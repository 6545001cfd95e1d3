//! Host names of PostgreSQL servers: asked of the name server that weir.toml names, followed when their addresses change.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use weir_cluster::RunDir;
use weir_cluster::postgres::{Postgres, PostgresOptions};
use weir_cluster::wait::{Limit, until};
use weir_e2e::stack::Setup;
use weir_e2e::wire::{PATIENCE, values};

/// A name server that knows one address, whatever it is asked for; returns its resolv.conf line.
async fn name_server(address: Arc<Mutex<Ipv4Addr>>) -> Result<String> {
    let socket = UdpSocket::bind("127.0.30.54:0").await?;
    let line = format!("nameserver {}\n", socket.local_addr()?);
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let now = address.lock().map(|address| *address).unwrap_or(Ipv4Addr::UNSPECIFIED);
            let reply = answer(&question[..length], now).unwrap_or_default();
            if socket.send_to(&reply, from).await.is_err() {
                return;
            }
        }
    });
    Ok(line)
}

/// RFC 1035: the header, the question again, and one A record if that was asked for.
fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let name_end = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let is_a = question.get(name_end..name_end + 2)? == [0, 1];
    let mut reply = question.get(..2)?.to_vec();
    reply.extend([0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question.get(12..name_end + 4)?);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

/// Passes connections on to PostgreSQL and counts them.
async fn gate(address: Ipv4Addr, postgres: &Postgres) -> Result<Arc<AtomicU32>> {
    let target = postgres.address();
    let listener = TcpListener::bind((address, target.port())).await.context("opening a gate")?;
    let passed = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&passed);
    tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut outside = TcpStream::connect(target).await?;
                copy_bidirectional(&mut inside, &mut outside).await
            });
        }
    });
    Ok(passed)
}

// covers: resolv_conf
#[tokio::test]
async fn a_name_is_followed_to_its_new_address() -> Result<()> {
    let [old, new] = [Ipv4Addr::new(127, 0, 30, 61), Ipv4Addr::new(127, 0, 30, 62)];
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let port = postgres.address().port();
    let (by_old, by_new) = (gate(old, &postgres).await?, gate(new, &postgres).await?);
    let address = Arc::new(Mutex::new(old));
    let folder = RunDir::create("names")?;
    let resolv_conf = folder.path().join("resolv.conf");
    fs::write(&resolv_conf, name_server(Arc::clone(&address)).await?)?;
    let stack = Setup::new()
        .set("dns", &format!("resolv_conf = \"{}\"", resolv_conf.display()))
        .set("dns", "max_ttl = \"1s\"")
        .set("databases.mrg", &format!("hosts = [\"db.test:{port}\"]"))
        .start_before(postgres)
        .await?;
    let mut client = stack.wire().await?;
    client.query("BEGIN").await?;
    assert_eq!((by_old.load(Ordering::Relaxed), by_new.load(Ordering::Relaxed)), (1, 0));
    let hosts = stack.console("SHOW DNS_HOSTS").await?;
    let known: Vec<_> = hosts.iter().map(|row| (row[0].clone(), row[2].clone())).collect();
    assert_eq!(known, [(Some("db.test".to_owned()), Some(old.to_string()))]);
    if let Ok(mut address) = address.lock() {
        *address = new;
    }
    // Nobody asks for a new connection: weir finds out by itself, and the open transaction is not touched.
    until("the new address", Limit::quick(PATIENCE), async || {
        let hosts = stack.console("SHOW DNS_HOSTS").await.ok()?;
        (hosts.first()?.get(2)?.as_deref()? == new.to_string()).then_some(())
    })
    .await?;
    ensure!(values(&client.query("SELECT 1").await?)? == ["1"]);
    client.query("COMMIT").await?;
    // The old connection is let go of within a tick of the news, which may be after the COMMIT.
    until("a connection to the new address", Limit::quick(PATIENCE), async || {
        client.query("SELECT 2").await.ok()?;
        (by_new.load(Ordering::Relaxed) == 1).then_some(())
    })
    .await?;
    assert_eq!(by_old.load(Ordering::Relaxed), 1);
    Ok(())
}
