//! Planned changes of the leader on a real Patroni cluster: with weir's SWITCHOVER nothing fails at all.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Cluster, ClusterOptions, Patroni, WeirOptions, http, process, schema, sql};
use weir_e2e::stack::{ADMIN, Front, Setup};
use weir_e2e::wire::{self, Message, Wire, values};

const NODE: &str = "SELECT host(inet_server_addr())";
/// A switchover takes seconds; the machine may have other work.
const SWITCHOVER: Duration = Duration::from_secs(90);
const API_PASSWORD: &str = "p:ss w\u{f6}rd";
/// Rows have numbers of their own.
static ROWS: AtomicI64 = AtomicI64::new(1);

async fn cluster(last: u8, patroni: Patroni) -> Result<Cluster> {
    let guarded = patroni != Patroni::Packaged;
    Cluster::start(ClusterOptions {
        label: format!("e2e-{last}"),
        base: Ipv4Addr::new(127, 0, last, 1),
        patroni,
        https: guarded,
        api_login: guarded.then(|| ("weir".to_owned(), API_PASSWORD.to_owned())),
        ..ClusterOptions::default()
    })
    .await
}

/// With a monitor, as a deployment has it.
fn setup() -> Setup {
    Setup::new()
        .pool_size(5)
        .user(schema::AUTH)
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("patroni", "switchover_wait = \"3s\"")
}

async fn login(address: SocketAddr) -> Result<Wire> {
    let mut wire = Wire::login(address, schema::APP).await?;
    wire.patience = SWITCHOVER;
    Ok(wire)
}

/// What a client sends, over and over again. Nothing of it may fail.
#[derive(Debug, Clone, Copy)]
enum Work {
    Statement,
    Batch,
    Transaction,
    Read,
}

impl Work {
    async fn once(self, wire: &mut Wire) -> Result<()> {
        let row = ROWS.fetch_add(1, Ordering::Relaxed);
        let insert = format!("INSERT INTO drill (id, writer) VALUES ({row}, 'planned')");
        let steps: &[&str] = match self {
            Self::Statement => &[&insert],
            Self::Transaction => &["BEGIN", &insert, NODE, "COMMIT"],
            Self::Read => &["SELECT count(*) FROM drill"],
            Self::Batch => {
                let batch =
                    [wire::parse("", &insert), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()];
                wire.send(&batch.concat()).await?;
                return succeeded(&wire.until_ready().await?);
            }
        };
        for step in steps {
            succeeded(&wire.query(step).await?)?;
        }
        Ok(())
    }
}

fn succeeded(seen: &[Message]) -> Result<()> {
    ensure!(seen.iter().all(|message| message.tag != b'E'), "{seen:?}");
    Ok(())
}

async fn work_on(address: SocketAddr, work: Work, stop: Arc<AtomicBool>) -> Result<u32> {
    let (mut wire, mut rounds) = (login(address).await?, 0);
    while !stop.load(Ordering::Relaxed) {
        work.once(&mut wire).await.with_context(|| format!("{work:?} after {rounds} rounds"))?;
        rounds += 1;
    }
    Ok(rounds)
}

/// Runs `event` while writers and readers work, none of which may see an error; idle clients stay as well.
async fn nothing_fails<T>(front: &Front, event: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let (write, read) = (front.weir.write(), front.weir.read());
    let mut idle = [login(write).await?, login(read).await?];
    let kinds = [Work::Statement, Work::Batch, Work::Transaction].into_iter().cycle().take(8);
    let clients = kinds.map(|work| (write, work)).chain([(read, Work::Read); 4]);
    let clients: Vec<_> =
        clients.map(|(address, work)| tokio::spawn(work_on(address, work, stop.clone()))).collect();
    let outcome = event().await;
    stop.store(true, Ordering::Relaxed);
    let rounds: Result<Vec<u32>> = try_join_all(clients).await?.into_iter().collect();
    let outcome = outcome?;
    ensure!(rounds?.iter().all(|rounds| *rounds > 0), "somebody got nothing done");
    for wire in &mut idle {
        wire.expect_usable().await.context("an idle client")?;
    }
    Ok(outcome)
}

async fn console(front: &Front) -> Result<Wire> {
    let mut wire = Wire::login(front.weir.write(), ADMIN).await?;
    wire.patience = SWITCHOVER;
    Ok(wire)
}

/// Message and detail of a refused command.
async fn refused(console: &mut Wire, command: &str) -> Result<String> {
    let seen = console.query(command).await?;
    let error = seen.iter().find(|message| message.tag == b'E').with_context(|| format!("{seen:?}"))?;
    Ok([b'M', b'D', b'H'].map(|field| error.field(field).unwrap_or_default()).join("\n"))
}

async fn leader_by_weir(wire: &mut Wire) -> Result<String> {
    values(&wire.query(NODE).await?)?.pop().context("no row")
}

/// SWITCHOVER under load, with `sql`, to whoever then leads.
async fn switches_over(cluster: &Cluster, front: &Front, to: Option<&str>) -> Result<()> {
    let before = cluster.leader().await.context("no leader")?.name.clone();
    let command = to.map_or_else(|| "SWITCHOVER".to_owned(), |to| format!("SWITCHOVER TO {to}"));
    let seen = nothing_fails(front, async || {
        let mut console = console(front).await?;
        let seen = console.query(&command).await?;
        succeeded(&seen)?;
        // The old leader comes back as a replica, and takes readers.
        cluster.wait_healthy(SWITCHOVER).await?;
        Ok(seen)
    })
    .await?;
    let notices: Vec<String> =
        seen.iter().filter(|message| message.tag == b'N').filter_map(|message| message.field(b'M')).collect();
    ensure!(notices.iter().any(|notice| notice.contains("leads on timeline")), "{notices:?}");
    let leader = cluster.leader().await.context("no leader")?;
    ensure!(leader.name != before && to.is_none_or(|to| to == leader.name), "{} leads", leader.name);
    let mut wire = login(front.weir.write()).await?;
    ensure!(leader_by_weir(&mut wire).await? == leader.postgres.ip().to_string());
    let rows = sql::rows(front.weir.write(), ADMIN, "SHOW FAILOVERS").await?;
    let told = |cell: &String| cell.contains(&format!("a switchover from {before}"));
    ensure!(rows.iter().flatten().flatten().any(told), "{rows:?}");
    Ok(())
}

/// A transaction that does not end stops the switchover, and nobody is held any longer.
async fn names_who_does_not_end(cluster: &Cluster, front: &Front) -> Result<()> {
    let before = cluster.leader().await.context("no leader")?.name.clone();
    let mut open = Wire::login_with(
        front.weir.write(),
        schema::APP,
        wire::PROTOCOL_3_0,
        &[("application_name", "the slow one")],
    )
    .await?;
    open.query("BEGIN").await?;
    open.query(NODE).await?;
    let (mut console, mut other) = (console(front).await?, login(front.weir.write()).await?);
    let told = refused(&mut console, "SWITCHOVER").await?;
    ensure!(told.contains("transactions did not end in time; Patroni was not asked"), "{told}");
    ensure!(told.contains("(the slow one), in a transaction for") && told.contains("KILL_CLIENT"), "{told}");
    other.expect_usable().await?;
    succeeded(&open.query("COMMIT").await?)?;
    ensure!(cluster.leader().await.context("no leader")?.name == before);
    let told = refused(&mut console, &format!("SWITCHOVER TO {before}")).await?;
    ensure!(told.contains("leads already"), "{told}");
    Ok(())
}

/// A switchover that Patroni was given a time for is prepared as well.
async fn is_prepared_when_scheduled(cluster: &Cluster, front: &Front) -> Result<()> {
    let leader = cluster.leader().await.context("no leader")?.clone();
    nothing_fails(front, async || {
        let at = seconds_from_now(6, leader.postgres).await?;
        let body = format!(r#"{{"leader": "{}", "scheduled_at": "{at}"}}"#, leader.name);
        let answer = http::request(leader.api, None, "POST", "/switchover", &body, SWITCHOVER).await?;
        ensure!(answer.status == 202, "{answer:?}");
        cluster.wait_leader(Some(&leader.name), SWITCHOVER).await?;
        cluster.wait_healthy(SWITCHOVER).await
    })
    .await?;
    let rows = sql::rows(front.weir.write(), ADMIN, "SHOW FAILOVERS").await?;
    let planned = format!("a switchover from {} is scheduled for", leader.name);
    ensure!(rows.iter().flatten().flatten().any(|cell| cell.starts_with(&planned)), "{rows:?}");
    Ok(())
}

/// A time in Patroni's spelling, by a server's clock.
async fn seconds_from_now(seconds: u32, server: SocketAddr) -> Result<String> {
    let at = format!(
        "SELECT to_char((now() + interval '{seconds} s') AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')"
    );
    sql::value(server, schema::APP, &at).await
}

/// So are restarts, of a replica and of the leader.
async fn restarts_are_prepared(cluster: &Cluster, front: &Front) -> Result<()> {
    let leader = cluster.leader().await.context("no leader")?.clone();
    let replica = cluster.nodes.iter().find(|node| node.name != leader.name).context("no replica")?.clone();
    let started = "SELECT pg_postmaster_start_time()";
    nothing_fails(front, async || {
        for (node, seconds) in [(&replica, 4), (&leader, 8)] {
            let before = sql::value(node.postgres, schema::APP, started).await?;
            let at = seconds_from_now(seconds, leader.postgres).await?;
            let body = format!(r#"{{"schedule": "{at}"}}"#);
            let answer = http::request(node.api, None, "POST", "/restart", &body, SWITCHOVER).await?;
            ensure!(answer.status == 202, "{answer:?}");
            until(&format!("{} to restart", node.name), Limit::slow(SWITCHOVER), async || {
                let now = sql::value(node.postgres, schema::APP, started).await.ok()?;
                (now != before).then_some(())
            })
            .await?;
        }
        cluster.wait_healthy(SWITCHOVER).await
    })
    .await?;
    let told = front.weir.log_text();
    for name in [&replica.name, &leader.name] {
        ensure!(told.contains(&format!("a restart of {name} is scheduled for")), "{name} was not prepared");
    }
    ensure!(!told.contains("but has not happened"), "a restart was not seen");
    let rows = sql::rows(front.weir.write(), ADMIN, "SHOW FAILOVERS").await?;
    let planned = format!("a restart of {} is scheduled for", leader.name);
    ensure!(rows.iter().flatten().flatten().any(|cell| cell.starts_with(&planned)), "{rows:?}");
    Ok(())
}

/// Callbacks are heard with the token only, and are hints.
async fn callbacks_are_heard(front: &Front, door: SocketAddr) -> Result<()> {
    let told = "a callback came, everybody is asked";
    for (header, status) in
        [("", 401), ("Authorization: Bearer guess\r\n", 403), ("Authorization: Basic x\r\n", 401)]
    {
        ensure!(call(door, header).await? == status, "{header}");
    }
    ensure!(!front.weir.log_text().contains(told), "a callback without the token was heard");
    ensure!(call(door, "Authorization: bearer open sesame\r\n").await? == 202);
    until("the callback to be heard", Limit::quick(wire::PATIENCE), async || {
        front.weir.log_text().contains(told).then_some(())
    })
    .await
}

async fn call(door: SocketAddr, header: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(door).await?;
    stream.write_all(format!("POST / HTTP/1.1\r\nHost: weir\r\n{header}\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("{answer:?}"))
}

// covers: switchover_wait callback_listen callback_token_file
#[tokio::test]
async fn patroni_3_by_console_and_by_schedule() -> Result<()> {
    let cluster = cluster(26, Patroni::Packaged).await?;
    let door = WeirOptions::on_free_ports()?.http;
    let front = setup()
        .set("patroni", &format!("callback_listen = \"{door}\""))
        .set("patroni", "callback_token_file = \"callback.token\"")
        .file("callback.token", "open sesame\n")
        .start_before_cluster(&cluster)
        .await?;
    let outcome = async {
        callbacks_are_heard(&front, door).await?;
        names_who_does_not_end(&cluster, &front).await?;
        switches_over(&cluster, &front, None).await?;
        is_prepared_when_scheduled(&cluster, &front).await?;
        restarts_are_prepared(&cluster, &front).await
    };
    process::with_log(outcome.await, front.weir.log())
}

// covers: patroni_username patroni_password_file
#[tokio::test]
async fn patroni_4_by_console_with_a_password() -> Result<()> {
    let cluster = cluster(27, Patroni::Venv("4.1.5".to_owned())).await?;
    let front = setup()
        .set("patroni", "username = \"weir\"\npassword_file = \"api.password\"")
        .file("api.password", "wrong")
        .start_before_cluster(&cluster)
        .await?;
    let outcome = async {
        let leader = cluster.leader().await.context("no leader")?.name.clone();
        let heir = cluster.nodes.iter().map(|node| node.name.clone()).find(|name| *name != leader);
        let heir = heir.context("no replica")?;
        let mut console = console(&front).await?;
        let told = nothing_fails(&front, async || refused(&mut console, "SWITCHOVER").await).await?;
        ensure!(told.contains("HTTP status 401") && told.contains("patroni.username"), "{told}");
        std::fs::write(front.folder().join("api.password"), API_PASSWORD)?;
        succeeded(&console.query("RELOAD").await?)?;
        switches_over(&cluster, &front, Some(&heir)).await
    };
    process::with_log(outcome.await, front.weir.log())
}
