//! Replication through weir: PostgreSQL's own tools and a subscription, one server connection for each client.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;
use weir_cluster::schema::SUPERUSER;
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, RunDir, ShutdownMode};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Outcome, PATIENCE, PROTOCOL_3_0, Wire, tags, values};

async fn publisher() -> Result<Stack> {
    Setup::new().pool_size(3).postgres("wal_level", "logical").start().await
}

async fn replicate(stack: &Stack, kind: &str) -> Result<Wire> {
    Wire::login_with(stack.address(), SUPERUSER, PROTOCOL_3_0, &[("replication", kind)]).await
}

/// One of PostgreSQL's programs, working through weir.
fn program(stack: &Stack, name: &str, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(stack.postgres.bin_dir().join(name));
    command
        .args(["-h", &stack.address().ip().to_string(), "-p", &stack.address().port().to_string()])
        .args(["-U", SUPERUSER.user, "--no-password", "-D"])
        .arg(folder)
        .args(args)
        .env("PGPASSWORD", SUPERUSER.password)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Result<()> {
    let output = timeout(Duration::from_secs(60), command.output()).await.context("too slow")??;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn asked(wire: &mut Wire, command: &str) -> Result<Vec<Message>> {
    wire.send(&wire::query(command)).await?;
    wire.until_ready().await
}

/// Replication connections that PostgreSQL has.
const WALSENDERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";

#[tokio::test]
async fn backups_and_the_log_stream_through_weir() -> Result<()> {
    let stack = publisher().await?;
    let folder = RunDir::create("replication")?;
    let backup = folder.path().join("backup");
    // The backup and its log: two connections at once, of a pool of three.
    let args = ["-X", "stream", "-c", "fast", "--no-sync"];
    run(program(&stack, "pg_basebackup", &backup, &args)).await?;
    ensure!(backup.join("PG_VERSION").exists() && backup.join("backup_manifest").exists());
    let archive = folder.path().join("archive");
    std::fs::create_dir(&archive)?;
    run(program(&stack, "pg_receivewal", &archive, &["--slot", "archive", "--create-slot"])).await?;
    let args = ["--slot", "archive", "--no-loop", "--no-sync"];
    let mut receiver = program(&stack, "pg_receivewal", &archive, &args).spawn()?;
    let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'archive'";
    stack.until_postgres_says(active, "t").await?;
    // A segment in which nothing was written is not switched.
    stack.postgres.superuser("CREATE TABLE noise ()").await?;
    let rows = stack.postgres.superuser("SELECT pg_walfile_name(pg_switch_wal())").await?;
    let segment = rows.into_iter().flatten().flatten().next().context("no segment")?;
    let complete = archive.join(&segment);
    until("the segment", Limit::quick(PATIENCE), async || complete.exists().then_some(())).await?;
    receiver.kill().await?;
    stack.until_postgres_says(WALSENDERS, "0").await
}

#[tokio::test]
async fn a_subscription_follows_its_publisher_through_weir() -> Result<()> {
    let stack = publisher().await?;
    let options = PostgresOptions {
        settings: vec![("wal_level".to_owned(), "logical".to_owned())],
        ..PostgresOptions::default()
    };
    let subscriber = Postgres::start(options).await?;
    let table = "CREATE TABLE notes (id int PRIMARY KEY, text text)";
    subscriber.superuser(table).await?;
    for sql in [table, "INSERT INTO notes VALUES (1, 'before')", "CREATE PUBLICATION paper FOR TABLE notes"] {
        stack.postgres.superuser(sql).await?;
    }
    let door = stack.address();
    subscriber
        .superuser(&format!(
            "CREATE SUBSCRIPTION reader CONNECTION 'host={} port={} user={} password={} dbname={}' PUBLICATION paper",
            door.ip(),
            door.port(),
            SUPERUSER.user,
            SUPERUSER.password,
            SUPERUSER.database,
        ))
        .await?;
    stack.postgres.superuser("INSERT INTO notes VALUES (2, 'after')").await?;
    until("both rows to arrive", Limit::quick(PATIENCE), async || {
        let rows = subscriber.superuser("SELECT string_agg(text, ' ' ORDER BY id) FROM notes").await.ok()?;
        (rows == [[Some("before after".to_owned())]]).then_some(())
    })
    .await?;
    subscriber.superuser("DROP SUBSCRIPTION reader").await?;
    stack.until_postgres_says(WALSENDERS, "0").await
}

#[tokio::test]
async fn commands_of_both_kinds_are_answered_by_a_connection_of_its_own() -> Result<()> {
    let stack = publisher().await?;
    let mut logical = replicate(&stack, "database").await?;
    let mut physical = replicate(&stack, "on").await?;
    assert_eq!(tags(&asked(&mut logical, "IDENTIFY_SYSTEM").await?), "TDCZ");
    // A setting stays, since nobody else gets this connection: SQL as in a session.
    asked(&mut logical, "SET application_name = 'mine'").await?;
    asked(&mut logical, "BEGIN").await?;
    let shown = asked(&mut logical, "SHOW application_name").await?;
    assert_eq!(values(&shown)?, ["mine"]);
    let refused = asked(&mut physical, "SELECT 1").await?;
    ensure!(refused.iter().any(|message| message.tag == b'E'), "SQL without a database: {refused:?}");
    let slot = "CREATE_REPLICATION_SLOT \"brief\" TEMPORARY LOGICAL test_decoding NOEXPORT_SNAPSHOT";
    asked(&mut logical, "ROLLBACK").await?;
    assert_eq!(tags(&asked(&mut logical, slot).await?), "TDCZ");
    let kinds = |rows: &[Vec<(String, String)>]| -> Vec<String> {
        let cells = rows.iter().flatten().filter(|(name, _)| name == "replication");
        let mut kinds: Vec<String> = cells.map(|(_, value)| value.clone()).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&stack.show("SERVERS").await?), ["logical", "physical"]);
    assert_eq!(kinds(&stack.show("CLIENTS").await?), ["logical", "none", "physical"]);
    drop(logical);
    stack.until_postgres_says(WALSENDERS, "1").await?;
    physical.send(&wire::message(b'X', b"")).await?;
    stack.until_postgres_says(WALSENDERS, "0").await
}

#[tokio::test]
async fn the_pool_counts_them_and_others_make_room() -> Result<()> {
    let stack = Setup::new().pool_size(1).postgres("wal_level", "logical").start().await?;
    let mut other = Wire::login(stack.address(), SUPERUSER).await?;
    other.expect_usable().await?;
    // The idle connection gives way.
    let mut first = replicate(&stack, "database").await?;
    assert_eq!(values(&asked(&mut first, "SELECT 1").await?)?, ["1"]);
    other.send(&wire::query("SELECT 'served at last'")).await?;
    until("the query to wait", Limit::quick(PATIENCE), async || {
        let pools = stack.show("POOLS").await.ok()?;
        let waits = |(name, value): &(String, String)| name == "cl_waiting" && value == "1";
        pools.iter().flatten().any(waits).then_some(())
    })
    .await?;
    drop(first);
    assert_eq!(values(&other.until_ready().await?)?, ["served at last"]);
    Ok(())
}

#[tokio::test]
async fn refusals_and_losses_are_told_in_postgresqls_words() -> Result<()> {
    let mut stack = publisher().await?;
    let wrong =
        Wire::try_login(stack.address(), SUPERUSER, PROTOCOL_3_0, &[("replication", "maybe")]).await?.1;
    let Outcome::Refused(report) = wrong else { bail!("a wrong value was taken") };
    assert_eq!(report.code(), "22023");
    let app: Login<'_> = weir_cluster::schema::APP;
    let unprivileged =
        Wire::try_login(stack.address(), app, PROTOCOL_3_0, &[("replication", "database")]).await?;
    let Outcome::Refused(report) = unprivileged.1 else { bail!("no privilege was needed") };
    assert_eq!(report.code(), "42501", "{report:?}");
    let mut wire = replicate(&stack, "database").await?;
    wire.expect_usable().await?;
    let mut streaming = replicate(&stack, "true").await?;
    let system = asked(&mut streaming, "IDENTIFY_SYSTEM").await?;
    let row = system.iter().find(|message| message.tag == b'D').context("no row")?.columns()?;
    let position = String::from_utf8(row.into_iter().nth(2).flatten().context("no position")?)?;
    streaming.send(&wire::query(&format!("START_REPLICATION PHYSICAL {position}"))).await?;
    streaming.until(b'W').await?;
    stack.postgres.stop(ShutdownMode::Immediate).await?;
    let last = wire.until_closed().await?;
    let fatal = last.iter().rfind(|message| message.tag == b'E').context("no last word")?;
    ensure!(fatal.field(b'S').as_deref() == Some("FATAL"), "{fatal:?}");
    assert!(fatal.code().starts_with("57P0"), "{fatal:?}");
    streaming.until_closed().await?;
    Ok(())
}
