//! Doors and what goes through them beside queries: Unix sockets, processes that share a port and forward each other's
//! cancel requests, and a new process that takes over from the old one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio_postgres::NoTls;
use weir_cluster::sql::{self, Login};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{RunDir, Weir, schema};
use weir_e2e::stack::{ADMIN, END_PATIENCE, Setup, Stack};
use weir_e2e::wire::{self, Message, PATIENCE, PROTOCOL_3_2, Wire};

fn with_sockets(folder: &RunDir) -> Setup {
    Setup::new().set("listen", &format!("unix_dir = \"{}\"", folder.path().display()))
}

/// Connects over a Unix socket.
async fn over_socket(folder: &Path, port: u16, login: Login<'_>) -> Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(folder).port(port).user(login.user).password(login.password).dbname(login.database);
    let (client, connection) = config.connect(NoTls).await.context("connecting over a Unix socket")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn value(client: &tokio_postgres::Client, query: &str) -> Result<String> {
    for message in client.simple_query(query).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or_default().to_owned());
        }
    }
    anyhow::bail!("{query} returned nothing")
}

async fn until_logged(weir: &Weir, what: &str) -> Result<()> {
    let seen = until(what, Limit::quick(PATIENCE), async || weir.log_text().contains(what).then_some(()));
    seen.await.with_context(|| weir.log_text())
}

#[tokio::test]
async fn unix_sockets_serve_clients_and_reach_postgresql() -> Result<()> {
    let folder = RunDir::create("sockets")?;
    let mut stack = with_sockets(&folder).set("listen", "unix_mode = \"0711\"").start().await?;
    let (write, read) = (stack.address().port(), stack.weir.read().port());
    let [write_file, read_file] = [write, read].map(|port| folder.path().join(format!(".s.PGSQL.{port}")));
    assert_eq!(fs::metadata(&write_file)?.mode() & 0o777, 0o711);
    let client = over_socket(folder.path(), write, schema::APP).await?;
    assert_eq!(value(&client, "SELECT 1").await?, "1");
    over_socket(folder.path(), read, schema::APP).await?;
    let own = std::process::id().to_string();
    let rows = stack.show("CLIENTS").await?;
    let cell = |row: &Vec<(String, String)>, name: &str| {
        row.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let row = rows.iter().find(|row| cell(row, "addr") == "unix").context("no client over a Unix socket")?;
    let shown = ["port", "local_addr", "local_port", "remote_pid"].map(|name| cell(row, name));
    assert_eq!(shown, [write.to_string(), "unix".to_owned(), write.to_string(), own.clone()]);
    let from = format!("@unix({own}):{write}");
    assert!(stack.weir.log_text().contains(&from), "{from} is not in the log");
    // The other side likewise: PostgreSQL by its socket.
    let place = stack.postgres.superuser("SHOW unix_socket_directories").await?;
    let place = place.into_iter().flatten().flatten().next().context("PostgreSQL has no socket")?;
    let port = stack.postgres.address().port();
    let database = schema::APP.database;
    let path = stack.folder().join("weir.toml");
    let more = format!("[databases.{database}]\nhosts = [\"{place}:{port}\"]\n");
    fs::write(&path, fs::read_to_string(&path)? + &more)?;
    stack.console("RELOAD").await?;
    stack.console("RECONNECT").await?;
    assert_eq!(value(&client, "SELECT coalesce(host(inet_server_addr()), 'unix')").await?, "unix");
    stack.weir.stop().await?;
    assert!(!write_file.exists() && !read_file.exists(), "the files are removed at the end");
    Ok(())
}

/// Sends the cancel request of a key to a port, and waits for the end of that connection.
async fn cancel(stack: &Stack, key: (u32, Vec<u8>)) -> Result<()> {
    let mut wire = Wire::connect(stack.address()).await?;
    wire.send(&wire::cancel_request(key.0, &key.1)).await?;
    let seen = wire.until_closed().await?;
    ensure!(seen.is_empty(), "a cancel request got an answer: {seen:?}");
    Ok(())
}

fn is_cancelled(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.code() == "57014")
}

// covers: so_reuseport peer_id peers.host peers.port
#[tokio::test]
async fn processes_on_one_port_forward_each_other_s_cancel_requests() -> Result<()> {
    let folders = [RunDir::create("peer")?, RunDir::create("peer")?];
    let [first, second] = [0, 1].map(|at: usize| folders[at].path().display().to_string());
    let mut setup = with_sockets(&folders[0]).set("listen", "reuse_port = true").set("", "peer_id = 1");
    // The port is the one that the kernel gave, so the peers are written below.
    setup = setup.set("limits", "max_client_conn = 100");
    let stack = setup.start().await?;
    let port = stack.address().port();
    let path = stack.folder().join("weir.toml");
    let peers = format!(
        "[peers.1]\nhost = \"{first}\"\nport = {port}\n[peers.2]\nhost = \"{second}\"\nport = {port}\n"
    );
    let text = fs::read_to_string(&path)? + &peers;
    fs::write(&path, &text)?;
    stack.console("RELOAD").await?;
    fs::write(
        stack.folder().join("second.toml"),
        text.replace("peer_id = 1", "peer_id = 2")
            .replace(&format!("unix_dir = \"{first}\""), &format!("unix_dir = \"{second}\"")),
    )?;
    let [http] = weir_cluster::weir::free_ports::<1>(std::net::Ipv4Addr::LOCALHOST.into())?;
    let other = stack.another("second.toml", &["--http-listen", &format!("127.0.0.1:{http}")])?;
    until_logged(&other, &format!("listening on unix:{second}")).await?;
    // The kernel spreads clients over both processes; each needs one at least.
    let mut victims = Vec::new();
    let mut owners = std::collections::BTreeSet::new();
    for at in 0..40 {
        let version = if at % 2 == 0 { wire::PROTOCOL_3_0 } else { PROTOCOL_3_2 };
        let wire = Wire::login_with(stack.address(), schema::APP, version, &[]).await?;
        owners.insert(wire.key.as_ref().context("no key")?.0.to_be_bytes()[0]);
        victims.push(wire);
        if owners.len() == 2 && at >= 7 {
            break;
        }
    }
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), [1, 2]);
    for wire in victims.iter_mut().take(8) {
        wire.send(&wire::query("SELECT pg_sleep(300)")).await?;
        stack.until_running("pg_sleep", 1).await?;
        // Whichever process it reaches.
        cancel(&stack, wire.key.clone().context("no key")?).await?;
        let seen = wire.until_ready().await?;
        assert!(is_cancelled(&seen), "{seen:?}");
    }
    assert_eq!(stack.show("PEER_POOLS").await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_new_process_takes_over_and_nobody_is_refused() -> Result<()> {
    let folder = RunDir::create("takeover")?;
    let mut stack = with_sockets(&folder).start().await?;
    let port = stack.address().port();
    let mut busy = stack.wire().await?;
    busy.query("BEGIN").await?;
    let mut idle = stack.wire().await?;
    idle.expect_usable().await?;
    let served = AtomicU32::new(0);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let come_and_go = async {
        while !*stopped.borrow() {
            let over_tcp = sql::connect(stack.address(), schema::APP).await?;
            ensure!(value(&over_tcp, "SELECT 1").await? == "1");
            let over_socket = over_socket(folder.path(), port, schema::APP).await?;
            ensure!(value(&over_socket, "SELECT 1").await? == "1");
            served.fetch_add(2, Ordering::Relaxed);
        }
        Ok(())
    };
    let take_over = async {
        let mut older: Option<Weir> = None;
        // More than once: the one that took over hands over in its turn.
        for _ in 0..3 {
            let before = served.load(Ordering::Relaxed);
            let younger = stack.another("weir.toml", &["-R"])?;
            until_logged(&younger, "took over from the running process").await?;
            if let Some(mut older) = older.replace(younger) {
                older
                    .wait_end(END_PATIENCE)
                    .await
                    .context("the process that was replaced, without clients")?;
            }
            let more = async || (served.load(Ordering::Relaxed) >= before + 6).then_some(());
            until("clients to come and go", Limit::quick(PATIENCE), more).await?;
        }
        stop.send(true)?;
        older.context("nobody took over")
    };
    let (outcome, youngest): (Result<()>, Result<Weir>) = tokio::join!(come_and_go, take_over);
    outcome.context("a client was refused")?;
    let mut youngest = youngest?;
    // Those who were there stay where they are, for as long as they like.
    assert!(stack.weir.ended().is_none());
    busy.query("COMMIT").await?;
    busy.expect_usable().await?;
    idle.expect_usable().await?;
    let pools = sql::rows(stack.address(), ADMIN, "SHOW VERSION").await?;
    assert!(!pools.is_empty(), "the console is the new process's");
    drop((busy, idle));
    stack.weir.wait_end(END_PATIENCE).await?;
    assert!(folder.path().join(format!(".s.PGSQL.{port}")).exists(), "the file belongs to the new process");
    youngest.signal(Signal::TERM);
    youngest.wait_end(END_PATIENCE).await?;
    assert!(!folder.path().join(format!(".s.PGSQL.{port}")).exists());
    Ok(())
}
