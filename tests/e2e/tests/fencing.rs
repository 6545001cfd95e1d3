//! Members that pose as leader, with real PostgreSQLs behind them: a standby, a leader from before a failover, a server of
//! another cluster. Nothing may be written to any of them, whoever says that they lead.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, ShutdownMode, process, schema, sql};
use weir_e2e::replicated::Replicated;
use weir_e2e::stack::{ADMIN, Setup};
use weir_e2e::wire::{Message, PATIENCE, Wire};

const TABLE: &str = "CREATE TABLE facts (what text); GRANT ALL ON facts TO PUBLIC";
const WRITE: &str = "INSERT INTO facts VALUES ('fact')";
const ROWS: &str = "SELECT count(*) FROM facts";

/// What a client reads while somebody poses as leader, depending on what weir can see.
struct Words {
    standby: &'static str,
    old_timeline: &'static str,
    foreign: &'static str,
}

/// Monitors look at every PostgreSQL.
const WATCHED: Words = Words {
    standby: "n2 is to lead, but its PostgreSQL is still in recovery",
    old_timeline: "n1 claims to lead and is refused: it is on timeline 1, we followed 2 already",
    foreign: "n3 claims to lead and is refused: its PostgreSQL belongs to another cluster",
};

/// There are none: what Patroni says is followed, as far as it goes, and each new connection asks PostgreSQL itself.
const UNWATCHED: Words = Words {
    standby: "n2 is said to lead, but no login succeeds there: the server is not the primary",
    old_timeline: "n1 is said to lead, but no login succeeds there: the server is on timeline 1, not 2",
    foreign: "n3 is said to lead, but no login succeeds there: the server belongs to the cluster with system identifier",
};

fn setup() -> Setup {
    Setup::new().pool_size(4).set("patroni", "hold_timeout = \"1s\"")
}

// covers: hold_timeout
#[tokio::test]
async fn nothing_is_written_to_whoever_poses_as_leader() -> Result<()> {
    fences(Replicated::start(setup(), &[]).await?, &WATCHED).await
}

#[tokio::test]
async fn nor_if_patroni_alone_is_asked() -> Result<()> {
    fences(Replicated::start_unwatched(setup()).await?, &UNWATCHED).await
}

async fn fences(mut all: Replicated, words: &Words) -> Result<()> {
    all.primary.superuser(TABLE).await?;
    all.until_replayed().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let write = all.front.weir.write();
    let insisting = tokio::spawn(insist(write, Arc::clone(&stop)));
    let log = all.front.weir.log().to_owned();
    let outcome = async {
        // This client is there from the beginning to the end.
        let mut wire = Wire::login(write, schema::APP).await?;
        wire.query(WRITE).await?;
        standby(&all, &mut wire, words).await.context("a standby")?;
        foreign_server(&mut all, &mut wire, words).await.context("another cluster's server")?;
        old_leader(&all, &mut wire, words).await.context("an old leader")?;
        way_out(&all, &mut wire).await.context("the way out")
    }
    .await;
    stop.store(true, Ordering::Relaxed);
    process::with_log(outcome, &log)?;
    let codes = insisting.await?.context("who writes all the time")?;
    // In doubt is what was under way when its leader was left.
    let expected = ["", "08007", "57P03"].map(str::to_owned);
    ensure!(codes.is_subset(&expected.into()) && codes.contains("57P03"), "{codes:?}");
    Ok(())
}

/// Writes on one connection until told to stop; returns the codes of all answers.
async fn insist(address: SocketAddr, stop: Arc<AtomicBool>) -> Result<BTreeSet<String>> {
    let mut wire = Wire::login(address, schema::APP).await?;
    let mut codes = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        codes.insert(code(&wire.query(WRITE).await.context("disconnected")?));
    }
    wire.query("SELECT 1").await?;
    Ok(codes)
}

fn code(messages: &[Message]) -> String {
    messages.iter().find(|message| message.tag == b'E').map(Message::code).unwrap_or_default()
}

/// `name` is the only one that claims to lead, and on this timeline.
fn announce(all: &Replicated, name: &str, timeline: u32) {
    for other in ["n1", "n2", "n3"] {
        all.tell(other, |told| told.leads = other == name);
    }
    all.tell(name, |told| told.timeline = timeline);
}

/// Waits until a write is given up, for this reason.
async fn until_held(wire: &mut Wire, why: &str) -> Result<()> {
    let mut seen = Vec::new();
    let outcome = until(why, Limit::quick(PATIENCE), async || {
        seen = match wire.query(WRITE).await {
            Ok(seen) => seen,
            Err(problem) => return Some(Err(problem)),
        };
        let error = seen.iter().find(|message| message.tag == b'E')?;
        match error.code().as_str() {
            "57P03" => {}
            // It was under way when its leader was left.
            "08007" => return None,
            _ => return Some(Err(anyhow::anyhow!("a client reads {error:?}"))),
        }
        let (detail, hint) = (error.field(b'D').unwrap_or_default(), error.field(b'H').unwrap_or_default());
        let is_useful =
            detail.starts_with("Waited 1 s (hold_timeout): ") && hint.contains("Nothing was executed");
        (is_useful && detail.contains(why)).then_some(Ok(()))
    })
    .await;
    outcome.and_then(|held| held).with_context(|| format!("last seen: {seen:?}"))
}

/// Waits until a write arrives at the PostgreSQL with this address.
async fn until_written_to(wire: &mut Wire, server: SocketAddr) -> Result<()> {
    let insert = "INSERT INTO facts SELECT inet_server_port() RETURNING what";
    let wanted = server.port().to_string();
    until(&format!("a write to {server}"), Limit::quick(PATIENCE), async || {
        let seen = match wire.query(insert).await {
            Ok(seen) => seen,
            Err(problem) => return Some(Err(problem)),
        };
        match code(&seen).as_str() {
            "" => weir_e2e::wire::values(&seen).ok()?.contains(&wanted).then_some(Ok(())),
            "57P03" | "08007" => None,
            _ => Some(Err(anyhow::anyhow!("a client reads {seen:?}"))),
        }
    })
    .await?
}

async fn rows(server: SocketAddr) -> Result<u64> {
    Ok(sql::value(server, schema::SUPERUSER, ROWS).await?.parse()?)
}

/// A replica's Patroni says that it leads; its PostgreSQL follows the leader.
async fn standby(all: &Replicated, wire: &mut Wire, words: &Words) -> Result<()> {
    // To monitors it may say what it likes of its timeline.
    announce(all, "n2", if words.standby == WATCHED.standby { 9 } else { 1 });
    until_held(wire, words.standby).await?;
    let Err(refused) = sql::rows(all.front.weir.write(), ADMIN, "ACCEPT LEADER n2").await else {
        bail!("a standby was accepted");
    };
    let refused = format!("{refused:#}");
    ensure!(refused.contains("n2 cannot lead yet") || refused.contains("n2 is not refused"), "{refused}");
    wire.send(&weir_e2e::wire::query(WRITE)).await?;
    announce(all, "n1", 1);
    all.tell("n2", |told| told.timeline = 1);
    let seen = wire.until_ready().await?;
    ensure!(matches!(code(&seen).as_str(), "" | "57P03"), "{seen:?}");
    until_written_to(wire, all.primary.address()).await
}

/// At a member's address there is another cluster's server, on the same timeline, with the same users and tables.
async fn foreign_server(all: &mut Replicated, wire: &mut Wire, words: &Words) -> Result<()> {
    let address = all.replica("n3").address();
    all.replicas[1].stop(ShutdownMode::Fast).await?;
    let options = PostgresOptions { port: Some(address.port()), ..PostgresOptions::default() };
    let foreign = Postgres::start(options).await?;
    foreign.superuser(TABLE).await?;
    announce(all, "n3", 1);
    until_held(wire, words.foreign).await?;
    // Its own Patroni is there, too.
    let system = "SELECT system_identifier FROM pg_control_system()";
    let system = sql::value(address, schema::SUPERUSER, system).await?;
    all.tell("n3", |told| told.system = system);
    until_held(wire, "n3 claims to lead and is refused: its system identifier is").await?;
    ensure!(rows(address).await? == 0, "another cluster was written to");
    announce(all, "n1", 1);
    until_written_to(wire, all.primary.address()).await
}

/// Everybody follows n2 to timeline 2, and n1 goes on as if nothing had happened.
async fn old_leader(all: &Replicated, wire: &mut Wire, words: &Words) -> Result<()> {
    let old = all.primary.address();
    let mut block = Wire::login(all.front.weir.write(), schema::APP).await?;
    block.query("BEGIN").await?;
    block.query(WRITE).await?;
    let n2 = all.replica("n2").address();
    sql::rows(n2, schema::SUPERUSER, "SELECT pg_promote()").await?;
    announce(all, "n2", 2);
    until_written_to(wire, n2).await?;
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_user'";
    until("the old leader to be left", Limit::quick(PATIENCE), async || {
        (sql::value(old, schema::SUPERUSER, connections).await.ok()? == "0").then_some(())
    })
    .await?;
    let before = rows(old).await?;
    let seen = block.query("COMMIT").await?;
    ensure!(code(&seen) == "40001", "{seen:?}");

    announce(all, "n1", 1);
    until_held(wire, WATCHED.old_timeline).await?;
    // Its Patroni gets the timeline right from the cluster's history, and its PostgreSQL has not moved.
    announce(all, "n1", 2);
    until_held(wire, words.old_timeline).await?;
    announce(all, "n2", 2);
    until_written_to(wire, n2).await?;
    ensure!(rows(old).await? == before, "the old leader was written to");
    block.expect_usable().await
}

/// All that is left is the old leader: who knows that it is meant can say so.
async fn way_out(all: &Replicated, wire: &mut Wire) -> Result<()> {
    announce(all, "n1", 1);
    until_held(wire, WATCHED.old_timeline).await?;
    let told = all.member("n1", "why_not").await?;
    ensure!(told.contains("ACCEPT LEADER n1"), "{told}");
    sql::rows(all.front.weir.write(), ADMIN, "ACCEPT LEADER n1").await?;
    until_written_to(wire, all.primary.address()).await
}
