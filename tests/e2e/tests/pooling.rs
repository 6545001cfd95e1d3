//! Who gets a server connection, for how long, and in which state it comes back: modes, limits, queues, clients that
//! leave in every possible moment.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{schema, sql};
use weir_e2e::measure;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, PATIENCE, Wire, tags, values};

async fn backend(wire: &mut Wire) -> Result<String> {
    let seen = wire.query("SELECT pg_backend_pid()").await?;
    values(&seen)?.pop().ok_or_else(|| anyhow::anyhow!("no process id: {seen:?}"))
}

#[tokio::test]
async fn a_transaction_keeps_its_server_and_gives_it_back() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut first = stack.wire().await?;
    let mut second = stack.wire().await?;
    assert_eq!(backend(&mut first).await?, backend(&mut second).await?);
    first.query("BEGIN; CREATE TABLE held (id int)").await?;
    second.send(&wire::query("SELECT count(*) FROM held")).await?;
    stack.until_pool("cl_waiting", "1").await?;
    first.query("INSERT INTO held VALUES (1)").await?;
    first.query("COMMIT").await?;
    assert_eq!(values(&second.until_ready().await?)?, ["1"]);
    Ok(())
}

// covers: default_pool_size
#[tokio::test]
async fn no_more_servers_than_the_pool_allows() -> Result<()> {
    let stack = Setup::new().pool_size(3).start().await?;
    let work = (0..20).map(|_| {
        let stack = &stack;
        async move {
            let mut wire = stack.wire().await?;
            let mut seen = Vec::new();
            for _ in 0..20 {
                seen.push(backend(&mut wire).await?);
            }
            anyhow::Ok(seen)
        }
    });
    let mut pids: Vec<String> = try_join_all(work).await?.into_iter().flatten().collect();
    pids.sort();
    pids.dedup();
    assert!(pids.len() <= 3, "{pids:?}");
    assert!(stack.servers().await?.len() <= 3);
    Ok(())
}

#[tokio::test]
async fn waiting_clients_are_served_in_order() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut holder = stack.wire().await?;
    holder.query("CREATE TABLE arrivals (at serial, who int)").await?;
    holder.query("BEGIN").await?;
    backend(&mut holder).await?;
    let mut queue = Vec::new();
    for who in 0..6 {
        let mut wire = stack.wire().await?;
        wire.send(&wire::query(&format!("INSERT INTO arrivals (who) VALUES ({who})"))).await?;
        stack.until_pool("cl_waiting", &(who + 1).to_string()).await?;
        queue.push(wire);
    }
    holder.query("COMMIT").await?;
    for wire in &mut queue {
        assert_eq!(tags(&wire.until_ready().await?), "CZ");
    }
    let order = values(&holder.query("SELECT who FROM arrivals ORDER BY at").await?)?;
    assert_eq!(order, ["0", "1", "2", "3", "4", "5"]);
    Ok(())
}

#[tokio::test]
async fn waiting_too_long_is_a_clear_error() -> Result<()> {
    let stack = Setup::new().pool_size(1).set("pool", "query_wait_timeout = \"1s\"").start().await?;
    let mut holder = stack.wire().await?;
    holder.query("BEGIN").await?;
    backend(&mut holder).await?;
    let mut late = stack.wire().await?;
    late.send(&wire::query("SELECT 1")).await?;
    let seen = late.until_closed().await?;
    let report = seen.iter().find(|message| message.tag == b'E');
    let text = report.and_then(|report| report.field(b'M')).unwrap_or_default();
    assert!(text.contains("query_wait_timeout"), "{seen:?}");
    assert_eq!(report.and_then(|report| report.field(b'S')).as_deref(), Some("FATAL"));
    holder.query("COMMIT").await?;
    stack.wire().await?.expect_usable().await
}

#[tokio::test]
async fn session_mode_keeps_the_server_and_cleans_it() -> Result<()> {
    let stack = Setup::new().pool_size(1).mode("session").start().await?;
    let mut first = stack.wire().await?;
    first.query("CREATE TEMP TABLE private (id int); SET search_path = pg_catalog").await?;
    first.query("PREPARE s AS SELECT 1").await?;
    let pid = backend(&mut first).await?;
    let mut second = stack.wire().await?;
    second.send(&wire::query("SELECT pg_backend_pid()")).await?;
    stack.until_pool("cl_waiting", "1").await?;
    assert_eq!(values(&first.query("SELECT count(*) FROM pg_temp.private").await?)?, ["0"]);
    first.send(&wire::terminate()).await?;
    assert_eq!(values(&second.until_ready().await?)?, [pid]);
    for sql in [
        "SELECT count(*) FROM pg_class WHERE relname = 'private'",
        "SELECT count(*) FROM pg_prepared_statements",
        "SELECT count(*) FROM pg_settings WHERE name = 'search_path' AND setting = 'pg_catalog'",
    ] {
        assert_eq!(values(&second.query(sql).await?)?, ["0"], "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn statement_mode_refuses_blocks() -> Result<()> {
    let stack = Setup::new().pool_size(1).mode("statement").start().await?;
    let mut other = stack.wire().await?;
    other.expect_usable().await?;
    let mut wire = stack.wire().await?;
    wire.expect_usable().await?;
    wire.send(&wire::query("BEGIN")).await?;
    let report = wire.until(b'E').await?.pop();
    let text = report.as_ref().and_then(|report| report.field(b'M')).unwrap_or_default();
    assert!(text.contains("statement"), "{report:?}");
    // Whatever became of that client, nobody inherits a transaction.
    assert_eq!(values(&other.query("SELECT now() = statement_timestamp()").await?)?, ["t"]);
    other.expect_usable().await
}

#[tokio::test]
async fn who_vanishes_in_a_transaction_leaves_nothing() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    stack.wire().await?.query("CREATE TABLE dirt (id int)").await?;
    for ending in ["reset", "terminate", "close"] {
        let mut wire = stack.wire().await?;
        wire.query("BEGIN").await?;
        wire.query("INSERT INTO dirt VALUES (1)").await?;
        wire.query("SET search_path = nowhere").await?;
        let pid = backend(&mut wire).await?;
        match ending {
            "reset" => wire.vanish()?,
            "terminate" => wire.send(&wire::terminate()).await?,
            _ => drop(wire),
        }
        let mut next = stack.wire().await?;
        assert_eq!(values(&next.query("SELECT count(*) FROM dirt").await?)?, ["0"], "{ending}");
        assert_ne!(backend(&mut next).await?, pid, "{ending}: the server was pooled");
        stack
            .until_postgres_says(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_vanishes_while_its_query_runs_frees_its_place() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut wire = stack.wire().await?;
    wire.send(&wire::query("SELECT pg_sleep(300)")).await?;
    stack.until_running("pg_sleep", 1).await?;
    wire.vanish()?;
    // The old server is not waited for.
    stack.wire().await?.expect_usable().await?;
    // Half a message, then gone.
    let mut wire = stack.wire().await?;
    let long = wire::query(&"x".repeat(100_000));
    wire.send(long.get(..5000).unwrap_or_default()).await?;
    wire.vanish()?;
    stack.wire().await?.expect_usable().await?;
    // A pipeline of which nobody will read the answers.
    let mut wire = stack.wire().await?;
    let many: Vec<u8> = (0..50).flat_map(|_| wire::query("SELECT repeat('x', 100000)")).collect();
    wire.send(&many).await?;
    wire.vanish()?;
    stack.wire().await?.expect_usable().await
}

#[tokio::test]
async fn idle_and_old_servers_are_closed() -> Result<()> {
    let setup = Setup::new().pool_size(5);
    let stack = setup
        .set("pool", "server_idle_timeout = \"1s\"")
        .set("pool", "server_lifetime = \"2s\"")
        .start()
        .await?;
    let mut wire = stack.wire().await?;
    let first = backend(&mut wire).await?;
    // Used without a pause it never idles; it is replaced for its age alone.
    until("the old server to be replaced", Limit::quick(PATIENCE), async || {
        let now = backend(&mut wire).await.ok()?;
        (now != first).then_some(())
    })
    .await?;
    until("idle servers to go", Limit::quick(PATIENCE), async || {
        stack.servers().await.ok()?.is_empty().then_some(())
    })
    .await?;
    wire.expect_usable().await
}

#[tokio::test]
async fn pause_holds_clients_and_resume_releases_them() -> Result<()> {
    let stack = Setup::new().pool_size(2).start().await?;
    let mut busy = stack.wire().await?;
    busy.query("BEGIN").await?;
    backend(&mut busy).await?;
    let address = stack.address();
    let pause = tokio::spawn(async move { sql::rows(address, weir_e2e::stack::ADMIN, "PAUSE").await });
    let mut held = stack.wire().await?;
    until("PAUSE to take effect", Limit::quick(PATIENCE), async || {
        let state = stack.show("STATE").await.ok()?;
        let paused = |row: &Vec<(String, String)>| {
            row.iter().any(|(_, value)| value == "paused") && row.iter().any(|(_, value)| value == "yes")
        };
        state.iter().any(paused).then_some(())
    })
    .await?;
    held.send(&wire::query("SELECT 'released'")).await?;
    stack.until_pool("cl_waiting", "1").await?;
    assert!(!pause.is_finished(), "PAUSE did not wait for the transaction");
    busy.query("COMMIT").await?;
    pause.await??;
    assert_eq!(stack.pool("cl_waiting").await?, "1");
    stack.console("RESUME").await?;
    assert_eq!(values(&held.until_ready().await?)?, ["released"]);
    Ok(())
}

#[tokio::test]
async fn reconnect_replaces_servers_between_transactions() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    let before = backend(&mut wire).await?;
    stack.console("RECONNECT").await?;
    assert_eq!(backend(&mut wire).await?, before);
    wire.query("COMMIT").await?;
    assert_ne!(backend(&mut wire).await?, before);
    Ok(())
}

#[tokio::test]
async fn two_thousand_idle_clients_and_fifty_busy_ones() -> Result<()> {
    measure::raise_file_limit()?;
    let stack = Setup::new().pool_size(10).set("limits", "max_client_conn = 5000").start().await?;
    // A raw client proves its password once; two thousand times PBKDF2 would measure the test.
    let mut idle = Vec::new();
    for chunk in 0..40 {
        let logins = (0..50).map(|_| quick_login(&stack));
        let mut group: Vec<Wire> = try_join_all(logins).await?;
        if chunk % 10 == 0 {
            group.first_mut().ok_or_else(|| anyhow::anyhow!("no client"))?.expect_usable().await?;
        }
        idle.append(&mut group);
    }
    let busy = (0..50_u32).map(|number| busy_client(&stack, number));
    try_join_all(busy).await?;
    assert!(stack.servers().await?.len() <= 10);
    // Every tenth of the idle ones wakes up.
    for wire in idle.iter_mut().step_by(10) {
        wire.expect_usable().await?;
    }
    Ok(())
}

async fn quick_login(stack: &Stack) -> Result<Wire> {
    Wire::login(stack.address(), schema::APP).await
}

async fn busy_client(stack: &Stack, number: u32) -> Result<()> {
    let mut wire = stack.wire().await?;
    for turn in 0..50_u32 {
        let expected = format!("{number}-{turn}");
        let batch = [
            wire::parse("s", "SELECT $1::text"),
            wire::bind("", "s", &[expected.as_bytes()]),
            wire::execute("", 0),
            wire::close(b'S', "s"),
            wire::sync(),
        ];
        wire.send(&batch.concat()).await?;
        let seen = wire.until_ready().await?;
        ensure!(values(&seen)? == [expected], "{seen:?}");
        if turn % 10 == 0 {
            let block = [wire::query("BEGIN"), wire::query("SELECT 1"), wire::query("COMMIT")].concat();
            wire.send(&block).await?;
            for _ in 0..3 {
                ensure!(!tags(&wire.until_ready().await?).contains('E'));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_whose_login_hangs_does_not_hang_weir() -> Result<()> {
    let stack = Setup::new().set("pool", "server_connect_timeout = \"1s\"").pool_size(1).start().await?;
    stack.wire().await?.expect_usable().await?;
    stack.postgres.freeze();
    let mut wire = stack.wire().await?;
    wire.send(&wire::query("SELECT 'thawed'")).await?;
    let quiet = wire.next(Duration::from_millis(500)).await;
    assert!(quiet.is_err(), "an answer from a frozen server: {quiet:?}");
    stack.postgres.thaw();
    let seen: Vec<Message> = wire.until_ready().await?;
    assert_eq!(values(&seen)?, ["thawed"]);
    Ok(())
}
