//! Every way to be asked x every kind of stored secret x every way to connect x every driver, with real PostgreSQL behind
//! weir: who gets in, as whom, and with which SQLSTATE everybody else does not.

mod expect;
mod people;
mod versions;
mod world;

use anyhow::{Context, Result, ensure};
use weir_e2e::logins::{DRIVERS, How};

use expect::Gate;
use people::Method;
use world::{Lookups, World};

#[tokio::test]
async fn every_way_in_by_every_driver() -> Result<()> {
    let mut world = World::start(&Method::ALL, None, Lookups::ByFunction).await?;
    world.add(Gate::TlsOnly, Method::Scram, "require").await?;
    world.add(Gate::Method, Method::Md5, "prefer").await?;
    world.add(Gate::Method, Method::Plain, "allow").await?;
    world.add(Gate::Method, Method::Trust, "prefer").await?;
    let rules = world.doors().get(..1).context("no weir")?;
    // A method is the same machine whoever chooses it; one driver shows that the choice arrives.
    let runs = DRIVERS.iter().map(|driver| {
        let doors = if driver.name == "psycopg" { world.doors() } else { rules };
        world.compare(driver, doors, &How::ALL)
    });
    let mut wrong = Vec::new();
    for outcome in futures_util::future::join_all(runs).await {
        wrong.extend(outcome?);
    }
    ensure!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
