//! What a client that is let in sees of its queries.

use anyhow::{Context, Result};
use weir_cluster::schema::APP;
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::{Peer, transcript};
use weir_e2e::wire::{self, PATIENCE, Wire, query};

use crate::{HOLDS, asked, compare, compare_before, to_the_end, until_pools};

// covers: pool_mode
#[tokio::test]
async fn blocks_in_statement_mode() -> Result<()> {
    compare("auth_type = trust\npool_mode = statement", async |peer, diary| {
        let mut wire = peer.wire().await?;
        diary.note("statement", asked(&mut wire, "SELECT 1").await?);
        wire.send(&query("BEGIN")).await?;
        diary.note("block", to_the_end(&mut wire).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn queries_errors_and_copy() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    for mode in ["session", "transaction"] {
        compare_before(&postgres, &format!("auth_type = trust\npool_mode = {mode}"), async |peer, diary| {
            let mut wire = peer.wire().await?;
            for sql in [
                "SELECT 1; SELECT 2",
                "",
                "SELEC",
                "BEGIN",
                "SELECT 1/0",
                "SELECT 1",
                "COMMIT",
                "DO $$ BEGIN RAISE NOTICE 'hello'; END $$",
                "COPY (SELECT 1) TO STDOUT",
                "SELECT nowhere FROM nothing",
            ] {
                diary.note(sql, asked(&mut wire, sql).await?);
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn prepared_statements_in_session_mode() -> Result<()> {
    compare("auth_type = trust\npool_mode = session", async |peer, diary| {
        let mut wire = peer.wire().await?;
        for sql in [
            "PREPARE one AS SELECT 1",
            "EXECUTE one",
            "PREPARE one AS SELECT 2",
            "DEALLOCATE one",
            "EXECUTE one",
        ] {
            diary.note(sql, asked(&mut wire, sql).await?);
        }
        for (name, sql) in [("a", "SELECT 'a'"), ("a", "SELECT 'b'"), ("b", "SELECT 'b'")] {
            let batch =
                [wire::parse(name, sql), wire::bind("", name, &[]), wire::execute("", 0), wire::sync()];
            wire.send(&batch.concat()).await?;
            diary.note(&format!("{name} {sql}"), transcript(&wire.until_ready().await?));
        }
        Ok(())
    })
    .await
}

// covers: ignore_startup_parameters
#[tokio::test]
async fn startup_parameters() -> Result<()> {
    compare("auth_type = trust\nignore_startup_parameters = extra_float_digits", async |peer, diary| {
        for parameters in [
            &[("DateStyle", "SQL, DMY")][..],
            &[("TimeZone", "Asia/Tokyo")],
            &[("client_encoding", "LATIN1"), ("application_name", "it's me")],
            &[("extra_float_digits", "2")],
        ] {
            let (mut wire, outcome) = peer.try_wire(APP, parameters).await?;
            diary.note(&format!("{parameters:?}"), outcome);
            for shown in ["datestyle", "timezone", "client_encoding", "application_name"] {
                diary.note(shown, asked(&mut wire, &format!("SHOW {shown}")).await?);
            }
        }
        Ok(())
    })
    .await
}

/// Waits until PostgreSQL sleeps in a query with this word in it.
async fn until_asleep(postgres: &Postgres, word: &str) -> Result<()> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%pg_sleep%{word}%'"
    );
    until("the query to run", Limit::quick(PATIENCE), async || {
        (!postgres.superuser(&sql).await.ok()?.is_empty()).then_some(())
    })
    .await
}

async fn cancel(peer: &Peer, wire: &Wire) -> Result<()> {
    let (pid, secret) = wire.key.as_ref().context("no key")?;
    let mut cancel = Wire::connect(peer.address).await?;
    cancel.send(&wire::cancel_request(*pid, secret)).await?;
    cancel.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn cancelling() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let lines = "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1";
    compare_before(&postgres, lines, async |peer, diary| {
        let (mut wire, mut queued) = (peer.wire().await?, peer.wire().await?);
        let name = format!("{:?}", peer.kind);
        wire.send(&query(&format!("SELECT pg_sleep(60) /* {name} */"))).await?;
        until_asleep(&postgres, &name).await?;
        queued.send(&query("SELECT 'not cancelled'")).await?;
        until_pools(peer, "cl_waiting", 1).await?;
        cancel(peer, &wire).await?;
        diary.note("cancelled", transcript(&wire.until_ready().await?));
        diary.note("behind it", transcript(&queued.until_ready().await?));
        cancel(peer, &wire).await?;
        diary.note("nothing to cancel", asked(&mut wire, "SELECT 1").await?);
        asked(&mut wire, HOLDS).await?;
        queued.send(&query("SELECT 'cancelled in the queue'")).await?;
        until_pools(peer, "cl_waiting", 1).await?;
        cancel(peer, &queued).await?;
        diary.note("whom it waited for", asked(&mut wire, "COMMIT").await?);
        diary.note("in the queue", transcript(&queued.until_ready().await?));
        Ok(())
    })
    .await
}

// covers: disable_pqexec
#[tokio::test]
async fn simple_queries_can_be_forbidden() -> Result<()> {
    compare("auth_type = trust\npool_mode = transaction\ndisable_pqexec = 1", async |peer, diary| {
        let mut wire = peer.wire().await?;
        let batch =
            [wire::parse("", "SELECT 1"), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()];
        wire.send(&batch.concat()).await?;
        diary.note("extended", transcript(&wire.until_ready().await?));
        wire.send(&query("SELECT 1")).await?;
        diary.note("simple", to_the_end(&mut wire).await?);
        Ok(())
    })
    .await
}

// covers: max_packet_size
#[tokio::test]
async fn messages_can_be_too_long() -> Result<()> {
    compare("auth_type = trust\npool_mode = transaction\nmax_packet_size = 4096", async |peer, diary| {
        let mut wire = peer.wire().await?;
        diary.note("short", asked(&mut wire, &format!("SELECT length('{}')", "x".repeat(1000))).await?);
        wire.send(&query(&format!("SELECT length('{}')", "x".repeat(10_000)))).await?;
        diary.note("long", to_the_end(&mut wire).await?);
        Ok(())
    })
    .await
}

// covers: application_name_add_host
#[tokio::test]
async fn databases_that_no_line_names_and_names_with_an_address() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\napplication_name_add_host = 1\n[databases]\n* = {server}";
    compare(lines, async |peer, diary| {
        for database in ["postgres", "mrg", "not_there"] {
            let login = Login { database, ..APP };
            diary.note(database, peer.login(login).await);
        }
        let login = Login { database: "postgres", ..APP };
        let (mut wire, outcome) = peer.try_wire(login, &[("application_name", "mine")]).await?;
        diary.note("login", outcome);
        diary.note("name", crate::logs::numberless(&asked(&mut wire, "SHOW application_name").await?));
        diary.note("database", asked(&mut wire, "SELECT current_database()").await?);
        Ok(())
    })
    .await
}
