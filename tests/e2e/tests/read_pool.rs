//! Reads over real replicas: conflicts with recovery, replicas that freeze and die, lag, drain, promotion, policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{process, schema, sql};
use weir_e2e::replicated::Replicated;
use weir_e2e::stack::{ADMIN, Setup};
use weir_e2e::wire::{self, Message, PATIENCE, Wire, values};

const WHERE: &str = "SELECT inet_server_port()";

async fn reader(all: &Replicated) -> Result<Wire> {
    Wire::login(all.front.weir.read(), schema::APP).await
}

fn code(messages: &[Message]) -> String {
    messages.iter().find(|message| message.tag == b'E').map(Message::code).unwrap_or_default()
}

/// The only value of an answer.
fn only(messages: &[Message]) -> Result<String> {
    values(messages)?.into_iter().next().with_context(|| format!("no value in {messages:?}"))
}

/// Who answers this client now.
async fn served_by(all: &Replicated, wire: &mut Wire) -> Result<String> {
    let seen = wire.query(WHERE).await?;
    all.named(&only(&seen)?)
}

/// How often each member answers `count` questions of one client.
async fn shares(all: &Replicated, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut wire = reader(all).await?;
    let mut shares = BTreeMap::new();
    for _ in 0..count {
        *shares.entry(served_by(all, &mut wire).await?).or_default() += 1;
    }
    Ok(shares)
}

async fn until_served_by(all: &Replicated, wanted: &[&str]) -> Result<()> {
    let mut seen = BTreeMap::new();
    let outcome = until(&format!("reads on {wanted:?}"), Limit::quick(PATIENCE), async || {
        seen = shares(all, 12).await.ok()?;
        seen.keys().eq(wanted.iter().copied()).then_some(())
    })
    .await;
    outcome.with_context(|| format!("last saw {seen:?}"))
}

// covers: read_policy max_lag read_fallback
#[tokio::test]
async fn replicas_in_trouble_cost_no_read() -> Result<()> {
    let setup = Setup::new().pool_size(6).set("patroni", "max_lag = \"1MB\"");
    // Queries give way to recovery at once.
    let mut all = Replicated::start(setup, &[("max_standby_streaming_delay", "0")]).await?;
    let outcome = async {
        until_served_by(&all, &["n2", "n3"]).await?;
        conflicts(&all).await.context("conflicts")?;
        frozen(&all).await.context("a frozen replica")?;
        killed(&mut all).await.context("a killed replica")?;
        lagging(&all).await.context("a lagging replica")
    }
    .await;
    process::with_log(outcome, all.front.weir.log())
}

/// Locks the table on the primary for a moment, which every replica has to replay.
async fn disturb(all: &Replicated) -> Result<()> {
    let disturbance =
        "BEGIN; LOCK TABLE facts IN ACCESS EXCLUSIVE MODE; INSERT INTO facts VALUES (2); COMMIT";
    all.primary.superuser(disturbance).await.map(|_| ())
}

async fn conflicts(all: &Replicated) -> Result<()> {
    all.primary
        .superuser("CREATE TABLE facts (n int); GRANT ALL ON facts TO PUBLIC; INSERT INTO facts VALUES (1)")
        .await?;
    all.until_replayed().await?;
    let slow = "SELECT inet_server_port(), pg_sleep(1) FROM facts LIMIT 1 /* conflict */";
    let batch = [wire::parse("", slow), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    for request in [wire::query(slow), batch] {
        let mut wire = reader(all).await?;
        wire.send(&request).await?;
        let first = all.until_running("* conflict").await?;
        // The other one would replay the same at nearly the same moment.
        let other = all.replica(if first == "n2" { "n3" } else { "n2" }).address();
        sql::rows(other, schema::SUPERUSER, "SELECT pg_wal_replay_pause()").await?;
        let paused = "SELECT pg_get_wal_replay_pause_state()";
        until("a pause", Limit::quick(PATIENCE), async || {
            let state = sql::value(other, schema::SUPERUSER, paused).await.ok()?;
            (state == "paused").then_some(())
        })
        .await?;
        disturb(all).await?;
        let seen = wire.until_ready().await?;
        sql::rows(other, schema::SUPERUSER, "SELECT pg_wal_replay_resume()").await?;
        ensure!(code(&seen).is_empty(), "the conflict was told: {seen:?}");
        let second = all.named(&only(&seen)?)?;
        ensure!(first != second, "it ran again on {first}");
        all.until_replayed().await?;
    }
    // A transaction has to hear of it, and can go on after a rollback.
    let mut wire = reader(all).await?;
    wire.query("BEGIN").await?;
    wire.send(&wire::query(slow)).await?;
    all.until_running("* conflict").await?;
    disturb(all).await?;
    let seen = wire.until_ready().await?;
    ensure!(code(&seen) == "40001", "{seen:?}");
    wire.query("ROLLBACK").await?;
    wire.expect_usable().await
}

/// SIGSTOP of a whole PostgreSQL: it takes connections and says nothing.
async fn frozen(all: &Replicated) -> Result<()> {
    let mut wire = reader(all).await?;
    wire.send(&wire::query("SELECT inet_server_port(), pg_sleep(1) /* frozen */")).await?;
    let name = all.until_running("* frozen").await?;
    all.replica(&name).freeze();
    let outcome = async {
        let seen = wire.until_ready().await?;
        ensure!(code(&seen).is_empty(), "{seen:?}");
        ensure!(all.named(&only(&seen)?)? != name, "a frozen replica has answered");
        let why = all.member(&name, "why_not").await?;
        ensure!(why.contains("does not answer"), "{why}");
        Ok(())
    }
    .await;
    all.replica(&name).thaw();
    outcome?;
    until_served_by(all, &["n2", "n3"]).await
}

/// Reads until told to stop; nothing may fail.
async fn read_on(address: std::net::SocketAddr, stop: Arc<AtomicBool>) -> Result<u32> {
    let mut wire = Wire::login(address, schema::APP).await?;
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let seen = wire.query("SELECT count(*), pg_sleep(0.01) FROM facts").await.context("disconnected")?;
        ensure!(code(&seen).is_empty(), "a reader got {seen:?}");
        answers += 1;
    }
    Ok(answers)
}

/// `kill -9` of a replica's processes under load, and its return.
async fn killed(all: &mut Replicated) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let read = all.front.weir.read();
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(read_on(read, Arc::clone(&stop)))).collect();
    until_served_by(all, &["n2", "n3"]).await?;
    all.replicas[1].crash();
    let outcome = async {
        all.until_reads_go_to(&["n2"]).await?;
        until_served_by(all, &["n2"]).await
    }
    .await;
    all.replicas[1].start_again().await?;
    all.until_reads_go_to(&["n2", "n3"]).await?;
    until_served_by(all, &["n2", "n3"]).await?;
    stop.store(true, Ordering::Relaxed);
    let answers: Result<Vec<u32>> = try_join_all(readers).await?.into_iter().collect();
    ensure!(answers?.iter().all(|count| *count > 0), "a reader got no answer at all");
    outcome
}

/// Replay stands still while the primary writes; nobody but the monitors tells positions here.
async fn lagging(all: &Replicated) -> Result<()> {
    let replica = all.replica("n3");
    sql::rows(replica.address(), schema::SUPERUSER, "SELECT pg_wal_replay_pause()").await?;
    // Nothing is written: standing still is no lag.
    ensure!(all.member("n3", "read_eligible").await? == "yes");
    let outcome = async {
        all.primary
            .superuser("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 3)")
            .await?;
        all.until_reads_go_to(&["n2"]).await?;
        let (lag, source) = (all.member("n3", "lag").await?, all.member("n3", "lag_source").await?);
        ensure!(lag.parse::<u64>()? > 1 << 20 && source == "monitor", "lag {lag} by {source}");
        until_served_by(all, &["n2"]).await
    }
    .await;
    sql::rows(replica.address(), schema::SUPERUSER, "SELECT pg_wal_replay_resume()").await?;
    outcome?;
    all.until_reads_go_to(&["n2", "n3"]).await
}

// covers: read_policy
#[tokio::test]
async fn replicas_are_left_gently_and_shared_by_policy() -> Result<()> {
    let setup = Setup::new().pool_size(6).set("patroni", "read_policy = \"round-robin\"");
    let mut all = Replicated::start(setup, &[]).await?;
    let outcome = async {
        policies(&all).await.context("policies")?;
        drained(&all).await.context("a drain")?;
        restarted(&mut all).await.context("a scheduled restart")?;
        nobody_left(&all).await.context("no replica")?;
        promoted(&all).await.context("a promotion")
    }
    .await;
    process::with_log(outcome, all.front.weir.log())
}

async fn policies(all: &Replicated) -> Result<()> {
    until_served_by(all, &["n2", "n3"]).await?;
    let seen = shares(all, 20).await?;
    ensure!(seen.values().eq([&10, &10]), "in turn: {seen:?}");
    let file = all.front.folder().join("weir.toml");
    let text = std::fs::read_to_string(&file)?;
    all.tell("n3", |told| told.tags = r#"{"weir_weight": 300}"#.to_owned());
    for (policy, wanted) in [("weighted", [10, 30]), ("round-robin", [20, 20])] {
        std::fs::write(&file, text.replace("round-robin", policy))?;
        sql::rows(all.front.weir.write(), ADMIN, "RELOAD").await?;
        let mut seen = BTreeMap::new();
        let outcome = until(policy, Limit::quick(PATIENCE), async || {
            seen = shares(all, 40).await.ok()?;
            seen.values().copied().eq(wanted).then_some(())
        })
        .await;
        outcome.with_context(|| format!("{policy}: {seen:?}"))?;
    }
    Ok(())
}

/// A tag takes a replica away: what is open there ends in peace, and a REST API that hangs changes nothing.
async fn drained(all: &Replicated) -> Result<()> {
    let mut block = reader(all).await?;
    block.query("BEGIN").await?;
    let there = served_by(all, &mut block).await?;
    let other = if there == "n2" { "n3" } else { "n2" };
    all.tell(&there, |told| told.tags = r#"{"noloadbalance": true}"#.to_owned());
    all.until_reads_go_to(&[other]).await?;
    ensure!(shares(all, 10).await?.keys().eq([other]), "new transactions still go there");
    ensure!(served_by(all, &mut block).await? == there, "the open transaction has moved");
    ensure!(code(&block.query("COMMIT").await?).is_empty());
    ensure!(served_by(all, &mut block).await? == other);
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_user'";
    until("no connection to be left there", Limit::quick(PATIENCE), async || {
        let count = sql::value(all.replica(&there).address(), schema::SUPERUSER, left).await.ok()?;
        (count == "0").then_some(())
    })
    .await?;
    // It comes back while its REST API hangs again, which is no reason to leave it.
    all.tell(&there, |told| told.tags = "{}".to_owned());
    all.until_reads_go_to(&["n2", "n3"]).await?;
    all.tell(&there, |told| told.hangs = true);
    until("the API to fail", Limit::quick(PATIENCE), async || {
        all.member(&there, "api").await.ok()?.starts_with("failing for 3 s").then_some(())
    })
    .await?;
    until_served_by(all, &["n2", "n3"]).await?;
    all.tell(&there, |told| told.hangs = false);
    Ok(())
}

/// Reads in transactions, which a restart would break off, until told to stop; nothing may fail.
async fn read_blocks(address: std::net::SocketAddr, stop: Arc<AtomicBool>) -> Result<u32> {
    let mut wire = Wire::login(address, schema::APP).await?;
    let mut blocks = 0;
    while !stop.load(Ordering::Relaxed) {
        for step in ["BEGIN", "SELECT pg_sleep(0.02)", "SELECT 1", "COMMIT"] {
            let seen = wire.query(step).await.context("disconnected")?;
            ensure!(code(&seen).is_empty(), "{step} got {seen:?}");
        }
        blocks += 1;
    }
    Ok(blocks)
}

/// What Patroni is to restart soon begins no transaction any more, so that none is broken off.
async fn restarted(all: &mut Replicated) -> Result<()> {
    until_served_by(all, &["n2", "n3"]).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let read = all.front.weir.read();
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(read_blocks(read, Arc::clone(&stop)))).collect();
    let outcome = async {
        let at = "SELECT to_char((now() + interval '3 s') AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"')";
        let at = sql::value(all.primary.address(), schema::SUPERUSER, at).await?;
        all.tell("n3", |told| told.besides = format!(r#""scheduled_restart": {{"schedule": "{at}"}},"#));
        all.until_reads_go_to(&["n2"]).await?;
        let (why, restart) = (all.member("n3", "why_not").await?, all.member("n3", "restart").await?);
        ensure!(why.contains("a restart of n3 is scheduled for") && restart == format!("scheduled for {at}"), "{why}");
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_user'";
        until("transactions to end there", Limit::quick(PATIENCE), async || {
            (sql::value(all.replica("n3").address(), schema::SUPERUSER, busy).await.ok()? == "0").then_some(())
        })
        .await?;
        all.tell("n3", |told| {
            told.besides = String::new();
            told.state = "restarting";
        });
        all.replicas[1].stop(weir_cluster::ShutdownMode::Fast).await?;
        all.replicas[1].start_again().await?;
        all.tell("n3", |told| {
            told.started = "2026-01-01 00:01:00+00:00".to_owned();
            told.state = "streaming";
        });
        all.until_reads_go_to(&["n2", "n3"]).await?;
        until_served_by(all, &["n2", "n3"]).await
    }
    .await;
    stop.store(true, Ordering::Relaxed);
    let blocks: Result<Vec<u32>> = try_join_all(readers).await?.into_iter().collect();
    outcome?;
    ensure!(blocks?.iter().all(|count| *count > 0), "a reader got nothing done");
    Ok(())
}

/// With the last replica gone the leader serves reads, and takes no writes here.
async fn nobody_left(all: &Replicated) -> Result<()> {
    let mut wire = reader(all).await?;
    for name in ["n2", "n3"] {
        all.tell(name, |told| told.tags = r#"{"noloadbalance": true}"#.to_owned());
    }
    until_served_by(all, &["n1"]).await?;
    let seen = wire.query("CREATE TABLE forbidden (id int)").await?;
    ensure!(code(&seen) == "25006", "{seen:?}");
    for name in ["n2", "n3"] {
        all.tell(name, |told| told.tags = "{}".to_owned());
    }
    until_served_by(all, &["n2", "n3"]).await
}

/// A replica that is promoted behind everybody's back takes no write through the read door, not even in the moment before
/// weir hears of it, and is left.
async fn promoted(all: &Replicated) -> Result<()> {
    all.primary.superuser("CREATE TABLE forbidden (id int); GRANT ALL ON forbidden TO PUBLIC").await?;
    all.until_replayed().await?;
    let mut wires = try_join_all((0..4).map(|_| reader(all))).await?;
    for wire in &mut wires {
        wire.expect_usable().await?;
    }
    sql::rows(all.replica("n3").address(), schema::SUPERUSER, "SELECT pg_promote()").await?;
    for _ in 0..10 {
        for wire in &mut wires {
            let seen = wire.query("INSERT INTO forbidden VALUES (1)").await?;
            ensure!(code(&seen) == "25006", "{seen:?}");
        }
    }
    all.until_reads_go_to(&["n2"]).await?;
    until_served_by(all, &["n2"]).await?;
    for name in ["n2", "n3"] {
        let count = "SELECT count(*) FROM forbidden";
        let written = sql::value(all.replica(name).address(), schema::SUPERUSER, count).await?;
        ensure!(written == "0", "{name} took {written} rows");
    }
    Ok(())
}
