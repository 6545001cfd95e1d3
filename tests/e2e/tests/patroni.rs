//! Following a real Patroni cluster: where each port leads, what a switchover, a crash and a sick REST API do to the
//! clients. How long it takes is measured by the drill; here it is about what each client is told.

use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use tokio_postgres::SimpleQueryMessage;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Authority, Cluster, ClusterOptions, Patroni, http, process, schema, sql};
use weir_e2e::stack::{ADMIN, Front, Setup};
use weir_e2e::wire::{self, Message, PATIENCE, Wire, tags, values};

const NODE: &str = "SELECT host(inet_server_addr())";
/// Writers so far; each has a range of keys of its own.
static WRITERS: AtomicI64 = AtomicI64::new(0);
/// Patroni notices a crash after its `ttl` of 20 s.
const FAILOVER: Duration = Duration::from_secs(90);

async fn cluster(last: u8, patroni: Patroni, synchronous: bool) -> Result<Cluster> {
    let base = Ipv4Addr::new(127, 0, last, 1);
    let label = format!("e2e-{last}");
    // Patroni 4 with TLS on its REST API, Patroni 3 without.
    let https = patroni != Patroni::Packaged;
    let options = ClusterOptions { label, base, patroni, synchronous, https, ..ClusterOptions::default() };
    Cluster::start(options).await
}

async fn front(cluster: &Cluster) -> Result<Front> {
    Setup::new().pool_size(5).set("patroni", "hold_timeout = \"40s\"").start_before_cluster(cluster).await
}

async fn write_client(front: &Front) -> Result<Wire> {
    patient(front.weir.write()).await
}

async fn read_client(front: &Front) -> Result<Wire> {
    patient(front.weir.read()).await
}

/// A client that waits as long as a failover may take.
async fn patient(address: SocketAddr) -> Result<Wire> {
    let mut wire = Wire::login(address, schema::APP).await?;
    wire.patience = FAILOVER;
    Ok(wire)
}

async fn ask(wire: &mut Wire, sql: &str) -> Result<String> {
    let seen = wire.query(sql).await?;
    values(&seen)?.pop().with_context(|| format!("{sql}: {seen:?}"))
}

fn code(messages: &[Message]) -> String {
    messages.iter().find(|message| message.tag == b'E').map(Message::code).unwrap_or_default()
}

/// What a client that never stops asking went through.
#[derive(Debug, Default)]
struct Journal {
    acknowledged: Vec<i64>,
    in_doubt: u32,
    rolled_back: u32,
}

/// Writes until told to stop: single inserts and blocks in turn. Any other outcome than success, 40001 and 08007 is an
/// error, and so is a lost connection.
async fn write_on(address: SocketAddr, number: i64, stop: Arc<AtomicBool>) -> Result<Journal> {
    let mut wire = patient(address).await?;
    let mut journal = Journal::default();
    let mut id = number * 1_000_000;
    while !stop.load(Ordering::Relaxed) {
        id += 1;
        let insert = format!("INSERT INTO drill (id, writer) VALUES ({id}, 'e2e')");
        let steps = if id % 2 == 0 { vec![insert.as_str()] } else { vec!["BEGIN", &insert, "COMMIT"] };
        let mut outcome = String::new();
        for step in steps {
            let seen = wire.query(step).await.with_context(|| format!("writer {number} was disconnected"))?;
            outcome = code(&seen);
            if !outcome.is_empty() {
                break;
            }
        }
        match outcome.as_str() {
            "" => journal.acknowledged.push(id),
            "08007" => journal.in_doubt += 1,
            "40001" => {
                journal.rolled_back += 1;
                wire.query("ROLLBACK").await?;
            }
            other => anyhow::bail!("writer {number} got {other}"),
        }
    }
    Ok(journal)
}

/// Reads until told to stop; nothing may fail.
async fn read_on(address: SocketAddr, stop: Arc<AtomicBool>) -> Result<u32> {
    let mut wire = patient(address).await?;
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let seen = wire.query("SELECT count(*) FROM drill").await.context("a reader was disconnected")?;
        ensure!(code(&seen).is_empty(), "a reader got {seen:?}");
        answers += 1;
    }
    Ok(answers)
}

/// Runs `event` under load on both ports and returns what the writers saw.
async fn under_load(front: &Front, event: impl AsyncFnOnce() -> Result<()>) -> Result<Vec<Journal>> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut idle = [write_client(front).await?, read_client(front).await?];
    let (write, read) = (front.weir.write(), front.weir.read());
    let first = WRITERS.fetch_add(6, Ordering::Relaxed);
    let writers: Vec<_> =
        (first..first + 6).map(|number| tokio::spawn(write_on(write, number, stop.clone()))).collect();
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(read_on(read, stop.clone()))).collect();
    let outcome = event().await;
    stop.store(true, Ordering::Relaxed);
    let journals: Result<Vec<Journal>> = try_join_all(writers).await?.into_iter().collect();
    let answers: Result<Vec<u32>> = try_join_all(readers).await?.into_iter().collect();
    outcome?;
    ensure!(answers?.iter().all(|count| *count > 0), "a reader got no answer at all");
    for wire in &mut idle {
        wire.expect_usable().await.context("an idle client")?;
    }
    journals
}

/// Every acknowledged row is on `leader`.
async fn nothing_lost(leader: SocketAddr, journals: &[Journal]) -> Result<()> {
    let rows = sql::rows(leader, schema::APP, "SELECT id FROM drill").await?;
    let found: HashSet<i64> = rows.into_iter().flatten().flatten().filter_map(|id| id.parse().ok()).collect();
    let lost: Vec<i64> = journals
        .iter()
        .flat_map(|journal| &journal.acknowledged)
        .filter(|id| !found.contains(id))
        .copied()
        .collect();
    ensure!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}", lost.len());
    Ok(())
}

/// Waits until weir's write port leads to this node.
async fn until_led_by(wire: &mut Wire, leader: SocketAddr) -> Result<()> {
    let node = ask(wire, NODE).await?;
    ensure!(node == leader.ip().to_string(), "writes go to {node}, the leader is {leader}");
    Ok(())
}

async fn ports_lead_to_their_roles(cluster: &Cluster, front: &Front) -> Result<()> {
    let leader = cluster.leader().await.context("no leader")?.postgres;
    let mut writer = write_client(front).await?;
    until_led_by(&mut writer, leader).await?;
    ensure!(writer.parameter("in_hot_standby") == Some("off"));
    until_all_replicas_serve(front).await?;
    let mut nodes = BTreeSet::new();
    let mut readers = Vec::new();
    for _ in 0..6 {
        let mut reader = read_client(front).await?;
        ensure!(reader.parameter("in_hot_standby") == Some("on"), "{:?}", reader.parameters);
        // Held open, so that six connections spread over the replicas.
        reader.query("BEGIN").await?;
        nodes.insert(ask(&mut reader, NODE).await?);
        ensure!(code(&reader.query("CREATE TABLE forbidden (id int)").await?) == "25006");
        readers.push(reader);
        if readers.len() == 5 {
            break;
        }
    }
    ensure!(!nodes.contains(&leader.ip().to_string()), "reads on the leader: {nodes:?}");
    ensure!(nodes.len() == 2, "reads do not spread: {nodes:?}");
    Ok(())
}

/// A replica that is new may have a segment of the log still to replay, which is as much as it may lag.
async fn until_all_replicas_serve(front: &Front) -> Result<()> {
    let console = sql::connect(front.weir.write(), ADMIN).await?;
    until("both replicas to serve reads", Limit::quick(PATIENCE), async || {
        let rows = console.simple_query("SHOW MEMBERS").await.ok()?;
        let serves = |message: &&SimpleQueryMessage| {
            matches!(message, SimpleQueryMessage::Row(row) if row.get("read_eligible") == Some("yes"))
        };
        (rows.iter().filter(serves).count() == 2).then_some(())
    })
    .await
}

async fn console_shows_the_members(cluster: &Cluster, front: &Front) -> Result<()> {
    let rows = sql::rows(front.weir.write(), ADMIN, "SHOW MEMBERS").await?;
    for node in &cluster.nodes {
        let named = |row: &Vec<Option<String>>| row.iter().flatten().any(|cell| *cell == node.name);
        ensure!(rows.iter().any(named), "{} is not among {rows:?}", node.name);
    }
    Ok(())
}

/// A planned switchover: only what was open or in flight on the old leader may fail.
async fn switchover_under_load(cluster: &Cluster, front: &Front) -> Result<()> {
    let before = cluster.leader().await.context("no leader")?.name.clone();
    let mut block = write_client(front).await?;
    block.query("BEGIN").await?;
    ask(&mut block, NODE).await?;
    let journals = under_load(front, async || {
        cluster.switchover(None).await?;
        cluster.wait_leader(Some(&before), PATIENCE).await?;
        // The old leader is back as a replica, and writes have gone on.
        cluster.wait_healthy(FAILOVER).await
    })
    .await?;
    let leader = cluster.leader().await.context("no leader")?.postgres;
    nothing_lost(leader, &journals).await?;
    for journal in &journals {
        // One client has at most one request in flight at that moment.
        ensure!(journal.in_doubt + journal.rolled_back <= 1, "{journal:?}");
    }
    ensure!(code(&block.query("COMMIT").await?) == "40001", "the open block did not get its error");
    until_led_by(&mut block, leader).await?;
    ports_lead_to_their_roles(cluster, front).await
}

// covers: patroni_urls
#[tokio::test]
async fn patroni_3_roles_switchover_and_a_sick_api() -> Result<()> {
    let cluster = cluster(21, Patroni::Packaged, false).await?;
    let front = front(&cluster).await?;
    let outcome = async {
        ports_lead_to_their_roles(&cluster, &front).await?;
        console_shows_the_members(&cluster, &front).await?;
        switchover_under_load(&cluster, &front).await?;
        sick_api(&cluster, &front).await?;
        no_replica_left(&cluster, &front).await
    };
    process::with_log(outcome.await, front.weir.log())
}

// covers: patroni_ca_file patroni_cert_file patroni_key_file
#[tokio::test]
async fn patroni_4_roles_and_switchover_over_https() -> Result<()> {
    let cluster = cluster(22, Patroni::Venv("4.1.5".to_owned()), false).await?;
    let front = front(&cluster).await?;
    let outcome = async {
        ports_lead_to_their_roles(&cluster, &front).await?;
        console_shows_the_members(&cluster, &front).await?;
        switchover_under_load(&cluster, &front).await?;
        an_authority_that_changes(&cluster, &front).await
    };
    process::with_log(outcome.await, front.weir.log())
}

/// The REST APIs' certificates are signed by somebody else all at once, and weir gets to know only later.
async fn an_authority_that_changes(cluster: &Cluster, front: &Front) -> Result<()> {
    let file = front.folder().join("patroni.crt");
    let (right, wrong) = (std::fs::read_to_string(&file)?, Authority::new()?.certificate_pem());
    let mut writer = write_client(front).await?;
    for (authority, seen) in [(&wrong, "but another key"), (&right, "ok")] {
        std::fs::write(&file, authority)?;
        sql::rows(front.weir.write(), ADMIN, "RELOAD").await?;
        let what = format!("every API to be {seen}");
        until(&what, Limit::quick(PATIENCE), async || {
            let rows = sql::rows(front.weir.write(), ADMIN, "SHOW MEMBERS").await.ok()?;
            let is_so = |row: &Vec<Option<String>>| row.iter().flatten().any(|cell| cell.ends_with(seen));
            rows.iter().all(is_so).then_some(())
        })
        .await?;
        // The leader that answers by itself is kept meanwhile.
        writer.expect_usable().await?;
    }
    let log = front.weir.log_text();
    for node in &cluster.nodes {
        let told = format!("{}: REST API cannot be asked over TLS: the certificate is refused: ", node.name);
        let told = log.lines().filter(|line| line.contains(&told)).count();
        ensure!(told == 1, "{} times about {}: {log}", told, node.name);
    }
    Ok(())
}

/// Patroni's own processes stop answering for a while shorter than its `ttl`; PostgreSQL is well.
async fn sick_api(cluster: &Cluster, front: &Front) -> Result<()> {
    let apis: Vec<u32> = cluster.nodes.iter().flat_map(|node| patronis_in(&node.folder)).collect();
    ensure!(apis.len() >= 3, "found only {} Patroni processes", apis.len());
    let signal = |signal| apis.iter().for_each(|pid| process::send(*pid, signal));
    let journals = under_load(front, async || {
        signal(Signal::STOP);
        let silent_until = Instant::now() + Duration::from_secs(8);
        let mut newcomer = write_client(front).await?;
        while Instant::now() < silent_until {
            newcomer.expect_usable().await?;
        }
        Ok(())
    })
    .await;
    signal(Signal::CONT);
    for journal in journals? {
        ensure!(journal.in_doubt + journal.rolled_back == 0, "{journal:?}");
    }
    cluster.wait_healthy(FAILOVER).await
}

/// Patroni's own processes of a node.
fn patronis_in(folder: &Path) -> Vec<u32> {
    let is_patroni = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("patroni.yml"))
    };
    process::of_folder(folder).into_iter().filter(is_patroni).collect()
}

/// With both replicas gone the read port falls back to the leader, and never writes there.
async fn no_replica_left(cluster: &Cluster, front: &Front) -> Result<()> {
    let leader = cluster.leader().await.context("no leader")?.clone();
    for node in cluster.nodes.iter().filter(|node| node.name != leader.name) {
        cluster.crash(&node.name)?;
    }
    let mut reader = read_client(front).await?;
    until("reads to fall back to the leader", Limit::quick(PATIENCE), async || {
        let node = ask(&mut reader, NODE).await.ok()?;
        (node == leader.postgres.ip().to_string()).then_some(())
    })
    .await?;
    for sql in ["CREATE TABLE forbidden (id int)", "BEGIN; CREATE TABLE forbidden (id int); COMMIT"] {
        let seen = reader.query(sql).await?;
        ensure!(code(&seen) == "25006", "{sql}: {seen:?}");
        reader.query("ROLLBACK").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_crash_loses_no_acknowledged_row() -> Result<()> {
    let mut cluster = cluster(23, Patroni::Packaged, true).await?;
    let front = front(&cluster).await?;
    let outcome = crash_under_load(&mut cluster, &front).await;
    process::with_log(outcome, front.weir.log())?;
    let outcome = frozen_leader(&mut cluster, &front).await;
    process::with_log(outcome, front.weir.log())
}

async fn crash_under_load(cluster: &mut Cluster, front: &Front) -> Result<()> {
    let before = cluster.leader().await.context("no leader")?.name.clone();
    let journals = under_load(front, async || {
        cluster.crash_leader().await?;
        held(front).await?;
        cluster.wait_leader(Some(&before), FAILOVER).await?;
        // Somebody writes again.
        let mut late = write_client(front).await?;
        until("a write", Limit::quick(PATIENCE), async || {
            let seen = late.query("SELECT pg_current_xact_id()").await.ok()?;
            code(&seen).is_empty().then_some(())
        })
        .await
    })
    .await?;
    let leader = cluster.leader().await.context("no leader")?.postgres;
    nothing_lost(leader, &journals).await?;
    cluster.restart_node(&before)?;
    cluster.wait_healthy(FAILOVER).await
}

/// While there is no leader: new clients log in, their statements wait, the balancer is told to stay.
async fn held(front: &Front) -> Result<()> {
    let mut newcomer = write_client(front).await.context("logging in during a hold")?;
    newcomer.send(&wire::query("SELECT 'held'")).await?;
    let ready = http::get(front.weir.http(), "/readyz").await?;
    ensure!(ready.status == 200, "/readyz says {} during a hold: {}", ready.status, ready.body);
    // The answer comes when the hold ends.
    let first = newcomer.next(FAILOVER).await?.context("a held client was disconnected")?;
    let mut seen = vec![first];
    seen.append(&mut newcomer.until_ready().await?);
    ensure!(values(&seen)? == ["held"], "{seen:?}");
    Ok(())
}

/// A leader that is frozen and thawed after its successor took over: what was open there never commits. Its Patroni is
/// not thawed but started again: Patroni 3.0 may write the leader's key in etcd without looking whose it is meanwhile,
/// and takes the leadership back from its successor.
async fn frozen_leader(cluster: &mut Cluster, front: &Front) -> Result<()> {
    let old = cluster.leader().await.context("no leader")?.clone();
    let mut wire = write_client(front).await?;
    wire.query("BEGIN").await?;
    wire.query("INSERT INTO drill (id, writer) VALUES (-1, 'frozen')").await?;
    cluster.freeze(&old.name)?;
    let outcome = async {
        let new = cluster.wait_leader(Some(&old.name), FAILOVER).await?.postgres;
        let mut other = write_client(front).await?;
        until_led_by(&mut other, new).await?;
        // Nothing is written to the old connection any more, not even this.
        let seen = wire.query("COMMIT").await?;
        ensure!(code(&seen) == "40001", "COMMIT to a frozen leader: {seen:?}");
        ensure!(
            tags(&seen).ends_with('Z') && seen.last().is_some_and(|ready| ready.body == b"I"),
            "{seen:?}"
        );
        until_led_by(&mut wire, new).await
    }
    .await;
    for patroni in patronis_in(&old.folder) {
        process::send(patroni, Signal::KILL);
    }
    cluster.thaw(&old.name)?;
    outcome?;
    until("the old leader's Patroni to be gone", Limit::quick(PATIENCE), async || {
        cluster.ended_nodes().contains(&old.name).then_some(())
    })
    .await?;
    cluster.restart_node(&old.name)?;
    cluster.wait_healthy(FAILOVER).await?;
    let leader = cluster.leader().await.context("no leader")?.postgres;
    let found = sql::value(leader, schema::APP, "SELECT count(*) FROM drill WHERE id = -1").await?;
    ensure!(found == "0", "the frozen leader's transaction was committed");
    Ok(())
}

#[tokio::test]
async fn a_hold_that_lasts_too_long_is_an_error_and_the_client_stays() -> Result<()> {
    let cluster = cluster(24, Patroni::Packaged, false).await?;
    // Only PostgreSQL itself can say that it is gone while its Patroni is silent: this needs the monitor.
    let front = Setup::new()
        .user(schema::AUTH)
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("patroni", "hold_timeout = \"2s\"")
        .start_before_cluster(&cluster)
        .await?;
    let outcome = hold_times_out(&cluster, &front).await;
    process::with_log(outcome, front.weir.log())
}

async fn hold_times_out(cluster: &Cluster, front: &Front) -> Result<()> {
    let mut wire = write_client(front).await?;
    wire.expect_usable().await?;
    let leader = cluster.leader().await.context("no leader")?.name.clone();
    cluster.crash(&leader)?;
    let seen = until("a statement to be held for too long", Limit::quick(PATIENCE), async || {
        let seen = wire.query("SELECT pg_current_xact_id()").await;
        match seen {
            Ok(seen) if code(&seen) == "57P03" => Some(Ok(seen)),
            // In flight at the very moment of the crash.
            Ok(seen) if code(&seen) == "08007" => None,
            Ok(seen) if code(&seen).is_empty() => None,
            Ok(seen) => Some(Err(anyhow::anyhow!("{seen:?}"))),
            Err(lost) => Some(Err(lost)),
        }
    })
    .await??;
    let report = seen.first().context("no report")?;
    assert_eq!(report.field(b'S').as_deref(), Some("ERROR"));
    let new = cluster.wait_leader(Some(&leader), FAILOVER).await?.postgres;
    until("the same client to write again", Limit::quick(PATIENCE), async || {
        let seen = wire.query(NODE).await.ok()?;
        (values(&seen).ok()? == [new.ip().to_string()]).then_some(())
    })
    .await
}
