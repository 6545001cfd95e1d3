//! Commands of the console that act on connections, signals, timeouts and log lines, with real connections behind them;
//! and that what the console says is what a real PgBouncer says.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use weir_cluster::process::Process;
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_cluster::weir::{free_ports, user_list};
use weir_cluster::{RunDir, schema};
use weir_e2e::stack::{ADMIN, END_PATIENCE, STATS, Setup, Stack};
use weir_e2e::wire::{self, Outcome, PATIENCE, PROTOCOL_3_0, Wire, tags, values};

async fn admin(stack: &Stack) -> Result<Wire> {
    Wire::login(stack.address(), ADMIN).await
}

/// The one message before ReadyForQuery, as `tag text`; tables by their tag.
async fn said(console: &mut Wire, command: &str) -> Result<String> {
    let seen = console.query(command).await?;
    let mut parts = Vec::new();
    for message in &seen {
        match message.tag {
            b'C' => parts.push(format!("C {}", message.word())),
            b'E' | b'N' => parts.push(format!(
                "{} {} {}",
                char::from(message.tag),
                message.field(b'S').unwrap_or_default(),
                message.field(b'M').unwrap_or_default()
            )),
            _ => {}
        }
    }
    Ok(parts.join("; "))
}

/// Names and types of a table's columns.
async fn columns(console: &mut Wire, table: &str) -> Result<Vec<(String, u32)>> {
    let seen = console.query(&format!("SHOW {table}")).await?;
    let description =
        seen.first().filter(|message| message.tag == b'T').context(format!("{table}: {seen:?}"))?;
    let mut rest = description.body.get(2..).context("a short RowDescription")?;
    let mut columns = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, after) = rest.split_at(end);
        let oid = after.get(7..11).and_then(|bytes| bytes.try_into().ok()).context("a short column")?;
        columns.push((String::from_utf8(name.to_vec())?, u32::from_be_bytes(oid)));
        rest = after.get(19..).context("a short column")?;
    }
    Ok(columns)
}

/// Debian's PgBouncer in front of the same PostgreSQL.
struct Peer {
    _process: Process,
    _folder: RunDir,
    address: SocketAddr,
}

impl Peer {
    async fn start(upstream: SocketAddr) -> Result<Self> {
        let folder = RunDir::create("peer")?;
        let [port] = free_ports::<1>(Ipv4Addr::LOCALHOST.into())?;
        let users =
            [schema::APP, ADMIN, STATS].map(|login| (login.user.to_owned(), login.password.to_owned()));
        let users = folder.write("userlist.txt", &user_list(&users))?;
        let settings = format!(
            "[databases]\n{} = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             admin_users = {}\nstats_users = {}\n",
            schema::DATABASE,
            upstream.ip(),
            upstream.port(),
            users.display(),
            ADMIN.user,
            STATS.user,
        );
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg(folder.write("pgbouncer.ini", &settings)?).current_dir(folder.path());
        folder.account().apply(&mut command);
        let process = Process::start(command, folder.path(), &folder.log("pgbouncer"))?;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        until("PgBouncer to listen", Limit::quick(PATIENCE), async || {
            Wire::login(address, ADMIN).await.ok().map(|_| ())
        })
        .await?;
        Ok(Self { _process: process, _folder: folder, address })
    }
}

/// What PgBouncer 1.18 has, too, in an order that makes sense.
const COMMANDS: [&str; 50] = [
    "SHOW NOTHING",
    "SELEKT",
    "SHOW",
    "SHOW x y",
    "PAUSE nosuch",
    "RESUME nosuch",
    "RESUME",
    "PAUSE pgbouncer",
    "KILL nosuch",
    "KILL pgbouncer",
    "RECONNECT nosuch",
    "DISABLE",
    "DISABLE nosuch",
    "DISABLE pgbouncer",
    "ENABLE pgbouncer",
    "WAIT_CLOSE nosuch",
    "WAIT_CLOSE pgbouncer",
    "RECONNECT pgbouncer",
    "WAIT_CLOSE",
    "SET",
    "SET nosuch = 1",
    "SET default_pool_size = 5",
    "SET default_pool_size = '6'",
    "SET default_pool_size = abc",
    "PAUSE a b",
    "SHUTDOWN foo",
    "RELOAD x",
    "SHOW POOLS; SHOW POOLS",
    "SELECT 1",
    "SHOW client_encoding",
    "show Timezone",
    "SHOW datestyle",
    "show default_transaction_isolation",
    "SHOW STANDARD_CONFORMING_STRINGS",
    "show version;",
    "PAUSE",
    "PAUSE",
    "SUSPEND",
    "RESUME",
    "SUSPEND",
    "SUSPEND",
    "PAUSE",
    "RESUME",
    "RELOAD",
    "RECONNECT",
    "DISABLE $",
    "ENABLE $",
    "KILL $",
    "SUSPEND",
    "RESUME $",
];

#[tokio::test]
async fn the_console_says_what_pgbouncer_says() -> Result<()> {
    let stack = Setup::new().start().await?;
    let peer = Peer::start(stack.postgres.address()).await?;
    // Both know the database now.
    stack.wire().await?.expect_usable().await?;
    Wire::login(peer.address, schema::APP).await?.expect_usable().await?;
    let mut ours = admin(&stack).await?;
    let mut theirs = Wire::login(peer.address, ADMIN).await?;
    for command in COMMANDS {
        let command = command.replace('$', schema::DATABASE);
        assert_eq!(said(&mut ours, &command).await?, said(&mut theirs, &command).await?, "{command}");
    }
    for setting in ["client_encoding", "timezone", "datestyle", "default_transaction_isolation"] {
        let show = format!("SHOW {setting}");
        assert_eq!(columns(&mut ours, setting).await?, columns(&mut theirs, setting).await?);
        assert_eq!(values(&ours.query(&show).await?)?, values(&theirs.query(&show).await?)?, "{setting}");
    }
    // What 1.18 has comes in the same order, with later versions' columns between.
    for table in [
        "DATABASES",
        "POOLS",
        "CLIENTS",
        "SERVERS",
        "SOCKETS",
        "ACTIVE_SOCKETS",
        "USERS",
        "LISTS",
        "CONFIG",
        "FDS",
        "MEM",
        "DNS_HOSTS",
        "DNS_ZONES",
        "VERSION",
    ] {
        let ours = columns(&mut ours, table).await?;
        let mut later = ours.iter();
        for (name, kind) in columns(&mut theirs, table).await? {
            let name = if name == "reserve_pool" { "reserve_pool_size".to_owned() } else { name };
            ensure!(
                later.any(|ours| *ours == (name.clone(), kind)),
                "{table}: no {name} in place in {ours:?}"
            );
        }
    }
    let mut ours = Wire::login(stack.address(), STATS).await?;
    let mut theirs = Wire::login(peer.address, STATS).await?;
    for command in
        ["PAUSE", "RELOAD", "SHUTDOWN", "SHOW FDS", "KILL x", "SET x=1", "DISABLE x", "SUSPEND", "FOO"]
    {
        assert_eq!(said(&mut ours, command).await?, said(&mut theirs, command).await?, "{command}");
    }
    assert_eq!(said(&mut ours, "KILL_CLIENT 1").await?, "E ERROR admin access needed");
    let stranger = Login { database: "pgbouncer", ..schema::APP };
    let mut told = Vec::new();
    for address in [stack.address(), peer.address] {
        let (_, outcome) = Wire::try_login(address, stranger, PROTOCOL_3_0, &[]).await?;
        let Outcome::Refused(report) = outcome else { anyhow::bail!("the application is on the console") };
        told.push((report.field(b'S'), report.field(b'M')));
    }
    assert_eq!(told[0], told[1]);
    Ok(())
}

#[tokio::test]
async fn commands_end_connections() -> Result<()> {
    let stack = Setup::new().pool_size(3).start().await?;
    let mut console = admin(&stack).await?;
    let db = schema::DATABASE;
    let mut one = stack.wire_with(&[("application_name", "one")]).await?;
    let mut two = stack.wire().await?;
    for wire in [&mut one, &mut two] {
        wire.query("BEGIN").await?;
        wire.expect_usable().await?;
    }
    let clients = stack.show("CLIENTS").await?;
    let of_one = clients.iter().find(|row| row.iter().any(|(_, value)| value == "one")).context("no row")?;
    let id = of_one.iter().find(|(name, _)| name == "id").context("no id")?.1.clone();
    assert_eq!(said(&mut console, &format!("KILL_CLIENT {id}")).await?, "C KILL_CLIENT");
    assert_eq!(fate(&mut one).await?, "admin forced disconnect");
    assert_eq!(said(&mut console, &format!("KILL_CLIENT {id}")).await?, "E ERROR client not found");
    // WAIT_CLOSE waits for the transaction that holds the replaced connection.
    assert_eq!(said(&mut console, "RECONNECT").await?, "C RECONNECT");
    console.send(&wire::query("WAIT_CLOSE")).await?;
    assert!(console.next(Duration::from_millis(300)).await.is_err(), "a connection to be closed is in use");
    two.query("COMMIT").await?;
    assert_eq!(tags(&console.until_ready().await?), "CZ");
    assert_eq!(said(&mut console, &format!("DISABLE {db}")).await?, "C DISABLE");
    let (_, outcome) = Wire::try_login(stack.address(), schema::APP, PROTOCOL_3_0, &[]).await?;
    let Outcome::Refused(report) = outcome else { anyhow::bail!("a disabled database took a client") };
    assert_eq!(report.field(b'M'), Some(format!("database \"{db}\" is disabled")));
    two.expect_usable().await?;
    said(&mut console, &format!("ENABLE {db}")).await?;
    // While all is suspended nothing is read; the console works.
    assert_eq!(said(&mut console, "SUSPEND").await?, "C SUSPEND");
    two.send(&wire::query("SELECT 1")).await?;
    assert!(two.next(Duration::from_millis(300)).await.is_err(), "a suspended client was served");
    assert_eq!(said(&mut console, "RESUME").await?, "C RESUME");
    assert_eq!(values(&two.until_ready().await?)?, ["1"]);
    two.query("BEGIN").await?;
    two.query("SELECT 1").await?;
    assert_eq!(said(&mut console, &format!("KILL {db}")).await?, "C KILL");
    assert_eq!(fate(&mut two).await?, "database removed");
    until("PostgreSQL to lose its clients", Limit::quick(PATIENCE), async || {
        stack.servers().await.ok()?.is_empty().then_some(())
    })
    .await?;
    let mut late = stack.wire().await?;
    late.send(&wire::query("SELECT 2")).await?;
    assert!(late.next(Duration::from_millis(300)).await.is_err(), "a killed database waits for RESUME");
    assert_eq!(said(&mut console, &format!("RESUME {db}")).await?, "C RESUME");
    assert_eq!(values(&late.until_ready().await?)?, ["2"]);
    // A setting holds at once, also for clients that are there.
    assert_eq!(said(&mut console, "SET query_timeout = 1").await?, "C SET query_timeout=1");
    late.send(&wire::query("SELECT pg_sleep(100)")).await?;
    assert_eq!(fate(&mut late).await?, "query timeout");
    let log = stack.weir.log_text();
    for line in [
        &format!("login attempt: db={db} user={} tls=no", schema::APP.user),
        "closing because: admin forced disconnect (age=",
        "pooler error: database removed",
        "new connection to server (from 127.0.0.1:",
        &format!("KILL '{db}' command issued"),
        "SUSPEND command issued",
        " C-0x",
        " S-0x",
        &format!(": {db}/{}@127.0.0.1:", schema::APP.user),
    ] {
        assert!(log.contains(line), "{line} is not in {log}");
    }
    Ok(())
}

/// The FATAL that ended the connection.
async fn fate(wire: &mut Wire) -> Result<String> {
    let seen = wire.until_closed().await?;
    let last = seen.iter().rfind(|message| message.tag == b'E').context(format!("no error: {seen:?}"))?;
    ensure!(last.field(b'S').as_deref() == Some("FATAL"), "{last:?}");
    last.field(b'M').context("no message")
}

// covers: stats_period
#[tokio::test]
async fn time_runs_out() -> Result<()> {
    let setup = Setup::new().pool_size(3).set("pool", "query_wait_notify = \"200ms\"");
    let limits =
        ["query_timeout = \"2s\"", "idle_transaction_timeout = \"1s\"", "transaction_timeout = \"3s\""];
    let setup = limits.iter().fold(setup, |setup, line| setup.set("limits", line));
    let stack = setup
        .set("limits", "client_idle_timeout = \"4s\"")
        .set("log", "stats_period = \"1s\"")
        .start()
        .await?;
    let [mut slow, mut idle, mut long, mut queued, mut rests] = [
        stack.wire().await?,
        stack.wire().await?,
        stack.wire().await?,
        stack.wire().await?,
        stack.wire().await?,
    ];
    slow.send(&wire::query("SELECT pg_sleep(100)")).await?;
    for wire in [&mut idle, &mut long] {
        wire.query("BEGIN").await?;
        wire.query("SELECT 1").await?;
    }
    queued.send(&wire::query("SELECT 7")).await?;
    let notice = queued.read().await?;
    assert_eq!(notice.field(b'S').as_deref(), Some("NOTICE"), "{notice:?}");
    assert_eq!(
        notice.field(b'M').as_deref(),
        Some("No server connection available in postgres backend, client being queued")
    );
    let long = async {
        for _ in 0..50 {
            if long.query("SELECT pg_sleep(0.2)").await.is_err() {
                return Ok(());
            }
        }
        anyhow::bail!("the transaction goes on")
    };
    let (slow, idle, _) = tokio::try_join!(fate(&mut slow), fate(&mut idle), long)?;
    assert_eq!((slow.as_str(), idle.as_str()), ("query timeout", "idle transaction timeout"));
    assert_eq!(values(&queued.until_ready().await?)?, ["7"], "it got the place of one of them");
    assert_eq!(fate(&mut rests).await?, "client_idle_timeout");
    // The query whose time was over does not go on in PostgreSQL.
    stack.until_running("pg_sleep(100)", 0).await?;
    let log = stack.weir.log_text();
    for line in [
        "pooler error: query timeout",
        "pooler error: idle transaction timeout",
        "closing because: transaction timeout (age=",
        "closing because: client_idle_timeout (age=",
        " LOG stats: ",
    ] {
        assert!(log.contains(line), "{line} is not in {log}");
    }
    Ok(())
}

// covers: log_connections log_disconnections
#[tokio::test]
async fn signals_pause_resume_and_end() -> Result<()> {
    let silent = ["connections = false", "disconnections = false", "pooler_errors = false", "stats = false"];
    let setup = silent.iter().fold(Setup::new(), |setup, line| setup.set("log", line));
    let setup = setup.set("log", "stats_period = \"1s\"").set("limits", "shutdown_timeout = \"forever\"");
    let mut stack = setup.set("pool", "defer_begin = false").start().await?;
    let mut busy = stack.wire().await?;
    let mut idle = stack.wire().await?;
    stack.weir.signal(Signal::USR1);
    until("the pause", Limit::quick(PATIENCE), async || {
        let state = stack.show("STATE").await.ok()?;
        let paused = |row: &Vec<(String, String)>| row.iter().any(|(_, value)| value == "paused");
        let row = state.into_iter().find(paused)?;
        row.iter().any(|(_, value)| value == "yes").then_some(())
    })
    .await?;
    busy.send(&wire::query("BEGIN")).await?;
    assert!(busy.next(Duration::from_millis(300)).await.is_err(), "served in spite of SIGUSR1");
    stack.weir.signal(Signal::USR2);
    assert_eq!(tags(&busy.until_ready().await?), "CZ");
    // Without a bound SIGTERM waits for clients, who go on working.
    stack.weir.signal(Signal::TERM);
    until("the port to close", Limit::quick(PATIENCE), async || stack.wire().await.err().map(|_| ())).await?;
    idle.expect_usable().await?;
    busy.query("COMMIT").await?;
    busy.expect_usable().await?;
    drop((busy, idle));
    assert!(stack.weir.wait_end(END_PATIENCE).await?.success());
    let log = stack.weir.log_text();
    for switched_off in
        ["login attempt", "new connection to server", "closing because", "pooler error", "stats:"]
    {
        assert!(!log.contains(switched_off), "{switched_off} is in {log}");
    }
    Ok(())
}

#[tokio::test]
async fn sigint_waits_for_server_connections_only() -> Result<()> {
    let mut stack = Setup::new().start().await?;
    let mut busy = stack.wire().await?;
    let mut idle = stack.wire().await?;
    busy.query("BEGIN").await?;
    busy.expect_usable().await?;
    idle.expect_usable().await?;
    stack.weir.signal(Signal::INT);
    until("the port to close", Limit::quick(PATIENCE), async || stack.wire().await.err().map(|_| ())).await?;
    assert!(idle.next(Duration::from_millis(200)).await.is_err(), "an idle client may stay until the end");
    assert!(stack.weir.ended().is_none(), "weir did not wait for the transaction");
    busy.query("COMMIT").await?;
    assert!(stack.weir.wait_end(END_PATIENCE).await?.success());
    idle.until_closed().await?;
    Ok(())
}
