//! Start, reload and end of the process: options, configuration mistakes, SIGHUP, SIGTERM.

use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use weir_cluster::postgres::{Postgres, PostgresOptions};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{RunDir, Weir, WeirOptions, http, schema};
use weir_e2e::stack::{END_PATIENCE, Setup, Stack};
use weir_e2e::wire::{self, PATIENCE, Wire, tags, values};

fn run(args: &[&str]) -> Result<Output> {
    Command::new(Weir::binary()?).args(args).output().context("starting weir")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn help_and_version() -> Result<()> {
    let help = run(&["--help"])?;
    assert!(help.status.success());
    for option in [
        "--upstream",
        "--patroni",
        "--write-listen",
        "--read-listen",
        "--http-listen",
        "--auth-file",
        "--auth-user",
        "--auth-query",
        "--auth-type",
        "--admin-user",
        "--pool-mode",
        "--pool-size",
        "--max-client-conn",
        "--workers",
        "--check-config",
    ] {
        assert!(text(&help).contains(option), "{option} is not in --help");
    }
    let version = run(&["--version"])?;
    assert!(version.status.success() && text(&version).starts_with("weir "), "{}", text(&version));
    Ok(())
}

#[test]
fn wrong_options_are_named() -> Result<()> {
    for (args, named) in [
        (vec!["--no-such-option"], "--no-such-option"),
        (vec!["--upstream", "postgres://h", "--pool-size", "many"], "pool-size"),
        (vec!["--upstream", "postgres://h", "--pool-mode", "sometimes"], "sometimes"),
        (vec!["--upstream", "mysql://h"], "upstream"),
        (vec!["/no/such/file.toml"], "/no/such/file.toml"),
        (vec![], "--upstream"),
    ] {
        let output = run(&args)?;
        ensure!(!output.status.success(), "{args:?} was accepted");
        ensure!(text(&output).contains(named), "{args:?}: {named} is not in {}", text(&output));
    }
    Ok(())
}

#[test]
fn check_config_reports_every_problem_with_its_line() -> Result<()> {
    let folder = RunDir::create("config")?;
    let good = "[upstream]\nurl = \"postgres://127.0.0.1:1\"\n[auth]\nfile = \"userlist.txt\"\n";
    folder.write("userlist.txt", "\"a\" \"b\"\n")?;
    let path = folder.write("good.toml", good)?.display().to_string();
    let output = run(&["--check-config", &path])?;
    assert!(output.status.success(), "{}", text(&output));
    let bad =
        format!("{good}[pool]\nsize = \"many\"\nmoed = \"transaction\"\nquery_wait_timeout = \"soon\"\n");
    let path = folder.write("bad.toml", &bad)?.display().to_string();
    let output = run(&["--check-config", &path])?;
    assert!(!output.status.success());
    for part in ["bad.toml:6", "size", "bad.toml:7", "moed", "mode", "bad.toml:8", "query_wait_timeout"] {
        assert!(text(&output).contains(part), "{part} is not in {}", text(&output));
    }
    Ok(())
}

#[tokio::test]
async fn options_alone_are_enough() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = format!("postgres://{}", postgres.address());
    let options = WeirOptions::on_free_ports()?
        .user(schema::APP.user, schema::APP.password)
        .args(["--upstream", &url, "--pool-mode", "transaction", "--pool-size", "1"])
        .args(["--max-client-conn", "2", "--workers", "1", "--admin-user", schema::APP.user]);
    let weir = Weir::start(options).await?;
    let mut first = Wire::login(weir.write(), schema::APP).await?;
    let mut second = Wire::login(weir.read(), schema::APP).await?;
    first.expect_usable().await?;
    second.expect_usable().await?;
    assert!(Wire::login(weir.write(), schema::APP).await.is_err(), "a third client got in");
    drop(first);
    let console = weir_cluster::sql::Login { database: "weir", ..schema::APP };
    let mut admin =
        until("a free place", Limit::quick(PATIENCE), async || Wire::login(weir.write(), console).await.ok())
            .await?;
    assert!(tags(&admin.query("SHOW POOLS").await?).starts_with('T'));
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut options = WeirOptions::on_free_ports()?
        .user(schema::APP.user, schema::APP.password)
        .args(["--upstream", "postgres://127.0.0.1:1"]);
    options.write = stack.address();
    let mut weir = Weir::spawn(options)?;
    assert!(!weir.wait_end(PATIENCE).await?.success());
    let address = stack.address().to_string();
    assert!(weir.log_text().contains(&address), "{}", weir.log_text());
    stack.wire().await?.expect_usable().await
}

#[tokio::test]
async fn sighup_takes_new_users_and_sizes() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut stays = stack.wire().await?;
    stays.expect_usable().await?;
    stack.postgres.superuser("CREATE ROLE newcomer LOGIN PASSWORD 'fresh'").await?;
    let newcomer = weir_cluster::sql::Login { user: "newcomer", password: "fresh", ..schema::APP };
    assert!(Wire::login(stack.address(), newcomer).await.is_err());
    stack.write_users(&[
        (schema::APP.user, schema::APP.password),
        ("newcomer", "fresh"),
        ("boss", "boss password"),
    ])?;
    stack.edit_config("size = ", "size = 2")?;
    stack.weir.signal(Signal::HUP);
    let mut fresh = until("the new user to get in", Limit::quick(PATIENCE), async || {
        Wire::login(stack.address(), newcomer).await.ok()
    })
    .await?;
    fresh.expect_usable().await?;
    // Two transactions at once now.
    let mut second = stack.wire().await?;
    for wire in [&mut stays, &mut second] {
        wire.query("BEGIN").await?;
        wire.expect_usable().await?;
    }
    assert_eq!(stack.servers().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_broken_file_changes_nothing() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut stays = stack.wire().await?;
    stack.edit_config("size = ", "size = \"many\"")?;
    stack.weir.signal(Signal::HUP);
    until("the log to name the problem", Limit::quick(PATIENCE), async || {
        stack.weir.log_text().contains("size").then_some(())
    })
    .await?;
    stays.expect_usable().await?;
    stack.wire().await?.expect_usable().await?;
    // RELOAD on the console says so as well.
    assert!(stack.console("RELOAD").await.is_err());
    stack.edit_config("size = ", "size = 3")?;
    stack.console("RELOAD").await?;
    let databases = stack.show("DATABASES").await?;
    assert!(
        databases.iter().flatten().any(|(name, value)| name == "pool_size" && value == "3"),
        "{databases:?}"
    );
    Ok(())
}

#[tokio::test]
async fn sigterm_lets_transactions_finish() -> Result<()> {
    let mut stack = Setup::new().start().await?;
    let mut idle = stack.wire().await?;
    let mut busy = stack.wire().await?;
    busy.query("CREATE TABLE finished (id int)").await?;
    busy.query("BEGIN").await?;
    busy.query("INSERT INTO finished VALUES (1)").await?;
    stack.weir.signal(Signal::TERM);
    // The idle client is told and sent away; nobody new gets in.
    let seen = idle.until_closed().await?;
    assert!(seen.iter().all(|message| message.code() == "57P01"), "{seen:?}");
    until("the port to close", Limit::quick(PATIENCE), async || stack.wire().await.err().map(|_| ())).await?;
    assert!(stack.weir.ended().is_none(), "weir did not wait for the transaction");
    assert_eq!(tags(&busy.query("INSERT INTO finished VALUES (2)").await?), "CZ");
    assert_eq!(tags(&busy.query("COMMIT").await?), "CZ");
    let status = stack.weir.wait_end(END_PATIENCE).await?;
    assert!(status.success(), "{status}");
    let count = "SELECT count(*) FROM finished";
    assert_eq!(stack.postgres.superuser(count).await?, [[Some("2".to_owned())]]);
    assert!(stack.servers().await?.is_empty(), "servers were left open");
    Ok(())
}

#[tokio::test]
async fn readiness_ends_with_the_drain() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut busy = stack.wire().await?;
    busy.query("BEGIN").await?;
    busy.expect_usable().await?;
    assert_eq!(http::get(stack.weir.http(), "/readyz").await?.status, 200);
    stack.weir.signal(Signal::TERM);
    until("/readyz to say 503", Limit::quick(PATIENCE), async || {
        let answer = http::get(stack.weir.http(), "/readyz").await.ok()?;
        (answer.status == 503).then_some(())
    })
    .await?;
    busy.query("COMMIT").await?;
    Ok(())
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() -> Result<()> {
    let mut stack = Setup::new().start().await?;
    let mut busy = stack.wire().await?;
    busy.query("BEGIN").await?;
    busy.expect_usable().await?;
    stack.weir.signal(Signal::TERM);
    until("the port to close", Limit::quick(PATIENCE), async || stack.wire().await.err().map(|_| ())).await?;
    stack.weir.signal(Signal::TERM);
    stack.weir.wait_end(Duration::from_secs(3)).await?;
    busy.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn shutdown_on_the_console_ends_weir() -> Result<()> {
    let mut stack: Stack = Setup::new().start().await?;
    let mut idle = stack.wire().await?;
    assert_eq!(values(&idle.query("SELECT 1").await?)?, ["1"]);
    // The console connection itself may end before its answer.
    let _ = stack.console("SHUTDOWN").await;
    stack.weir.wait_end(END_PATIENCE).await?;
    idle.until_closed().await?;
    Ok(())
}

#[tokio::test]
async fn a_query_in_flight_survives_the_begin_of_a_drain() -> Result<()> {
    let mut stack = Setup::new().start().await?;
    let mut busy = stack.wire().await?;
    busy.send(&wire::query("SELECT pg_sleep(1), 'done'")).await?;
    stack.until_running("pg_sleep", 1).await?;
    stack.weir.signal(Signal::TERM);
    let seen = busy.until_ready().await?;
    assert!(!tags(&seen).contains('E'), "{seen:?}");
    stack.weir.wait_end(END_PATIENCE).await?;
    Ok(())
}
