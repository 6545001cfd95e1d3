//! The versions of PostgreSQL that Debian's package is not: the table in short, and what differs between versions on its way
//! through weir.

use anyhow::{Result, bail, ensure};
use weir_cluster::postgres::bin_dir;
use weir_cluster::schema;
use weir_cluster::sql::{self, Login};
use weir_e2e::logins::{DRIVERS, How};
use weir_e2e::wire::{Message, PROTOCOL_3_2, Wire};

use crate::people::{Method, PASSWORD};
use crate::world::{LATE, Lookups, World};

async fn everything(major: u32) -> Result<()> {
    let methods = [Method::Scram, Method::Md5, Method::Plain];
    let world = World::start(&methods, Some(bin_dir(major)?), Lookups::Usual).await?;
    let hows = [How::Plain, How::Bound, How::Newest];
    for driver in DRIVERS.iter().filter(|driver| ["psql", "psycopg"].contains(&driver.name)) {
        let wrong = world.compare(driver, world.doors(), &hows).await?;
        ensure!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
    }
    late(&world, major).await?;
    relay(&world, major).await
}

/// A role made by this very version, with as many iterations as it lets one choose.
async fn late(world: &World, major: u32) -> Result<()> {
    // PostgreSQL 16 and later.
    let iterations = if major < 16 { 4096 } else { 5000 };
    let choice = if major < 16 { String::new() } else { format!("SET scram_iterations = {iterations};") };
    world.postgres.superuser(&format!("{choice} CREATE ROLE {LATE} LOGIN PASSWORD '{PASSWORD}'")).await?;
    let verifier = world.postgres.verifier(LATE).await?;
    ensure!(verifier.starts_with(&format!("SCRAM-SHA-256${iterations}:")), "stored {verifier}");
    let login = Login { user: LATE, password: PASSWORD, ..schema::APP };
    assert_eq!(sql::value(world.address()?, login, "SELECT current_user").await?, LATE);
    Ok(())
}

async fn relay(world: &World, major: u32) -> Result<()> {
    let mut wire = Wire::login_with(world.address()?, schema::SUPERUSER, PROTOCOL_3_2, &[]).await?;
    let version = wire.parameter("server_version").unwrap_or_default();
    ensure!(version.starts_with(&major.to_string()), "{version}");
    assert_eq!(wire.parameter("in_hot_standby"), Some("off"));
    // Reported by PostgreSQL 18 and later.
    assert_eq!(wire.parameter("search_path").is_some(), major >= 18);
    let seen = wire.query("SET search_path = pg_catalog").await?;
    let told = seen.iter().any(|message| message.tag == b'S' && message.body.starts_with(b"search_path\0"));
    ensure!(told == (major >= 18), "{seen:?}");
    let hash = postgres_protocol::password::md5(PASSWORD.as_bytes(), "warned");
    let seen = wire.query(&format!("CREATE ROLE warned PASSWORD '{hash}'")).await?;
    let warned = seen.iter().filter(|message| message.tag == b'N').filter_map(|notice| notice.field(b'M'));
    // Deprecated in PostgreSQL 18.
    assert_eq!(warned.filter(|text| text.contains("MD5")).count(), usize::from(major >= 18), "{seen:?}");
    let Some(report) = wire.query("SELECT 1/0").await?.into_iter().find(|message| message.tag == b'E') else {
        bail!("no error");
    };
    assert_eq!(Message::code(&report), "22012");
    wire.expect_usable().await
}

#[tokio::test]
async fn postgresql_14() -> Result<()> {
    everything(14).await
}

#[tokio::test]
async fn postgresql_16() -> Result<()> {
    everything(16).await
}

#[tokio::test]
async fn postgresql_17() -> Result<()> {
    everything(17).await
}

#[tokio::test]
async fn postgresql_18() -> Result<()> {
    everything(18).await
}
