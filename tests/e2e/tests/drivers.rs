//! Every driver's program (tests/drivers) through weir: SCRAM and TLS, transaction mode, fewer servers than the
//! driver has connections.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use weir_cluster::schema;
use weir_e2e::stack::Setup;

async fn drive(name: &str) -> Result<()> {
    drive_with(name, &[]).await
}

async fn drive_with(name: &str, settings: &[(&str, &str)]) -> Result<()> {
    let stack = Setup::new().pool_size(3).client_tls("prefer").start().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/run.sh");
    // The folders under target are the user's; the driver sees only what it is told.
    let run = Command::new(script)
        .args(["run", name])
        .env("PGHOST", "localhost")
        .env("PGPORT", stack.address().port().to_string())
        .env("PGDATABASE", schema::APP.database)
        .env("PGUSER", schema::APP.user)
        .env("PGPASSWORD", schema::APP.password)
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", stack.authority().context("no authority")?)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.context("the driver hangs")??;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}\n{}", weir_cluster::process::tail(stack.weir.log()));
    ensure!(said.contains("ok "), "it did not say that all is well: {said}");
    // Nothing of it stays behind.
    stack.until_pool("sv_active", "0").await?;
    ensure!(stack.servers().await?.len() <= 3, "more servers than the pool allows");
    stack.wire().await?.expect_usable().await
}

#[tokio::test]
async fn psql() -> Result<()> {
    drive("psql").await
}

#[tokio::test]
async fn psycopg_3() -> Result<()> {
    drive("psycopg").await
}

/// libpq 18 in psycopg's wheel; it would refuse anything older.
#[tokio::test]
async fn psycopg_3_with_protocol_3_2() -> Result<()> {
    drive_with("psycopg", &[("PGMINPROTOCOLVERSION", "3.2"), ("PGMAXPROTOCOLVERSION", "latest")]).await
}

#[tokio::test]
async fn asyncpg() -> Result<()> {
    drive("asyncpg").await
}

#[tokio::test]
async fn pgjdbc() -> Result<()> {
    drive("pgjdbc").await
}

#[tokio::test]
async fn node_postgres() -> Result<()> {
    drive("node-postgres").await
}

#[tokio::test]
async fn lib_pq() -> Result<()> {
    drive("lib-pq").await
}

#[tokio::test]
async fn pgx() -> Result<()> {
    drive("pgx").await
}

const PATIENCE: Duration = Duration::from_secs(150);
