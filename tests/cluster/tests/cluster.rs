//! The cluster launcher against the real Patroni: comes up, switches over, survives a crash of its leader. Knows
//! nothing of weir.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use weir_cluster::{Cluster, ClusterOptions, Patroni, ServerTls, schema, sql};

#[tokio::test]
async fn a_cluster_switches_over_and_loses_its_leader() -> Result<()> {
    let options =
        ClusterOptions { base: Ipv4Addr::new(127, 0, 11, 1), synchronous: true, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await?;
    let first = cluster.leader().await.context("no leader")?.name.clone();
    cluster.switchover(None).await?;
    let second = cluster.wait_leader(Some(&first), Duration::from_secs(20)).await?.clone();
    cluster.wait_healthy(Duration::from_secs(40)).await?;
    sql::rows(second.postgres, schema::APP, "INSERT INTO drill (id, writer) VALUES (1, 'test')").await?;

    assert_eq!(cluster.crash_leader().await?, second.name);
    let third = cluster.wait_leader(Some(&second.name), Duration::from_secs(60)).await?.clone();
    assert_eq!(sql::value(third.postgres, schema::APP, "SELECT count(*) FROM drill").await?, "1");
    cluster.restart_node(&second.name)?;
    cluster.wait_healthy(Duration::from_secs(60)).await
}

#[tokio::test]
async fn patroni_4_from_pypi_comes_up_with_tls() -> Result<()> {
    let options = ClusterOptions {
        base: Ipv4Addr::new(127, 0, 12, 1),
        patroni: Patroni::Venv("4.1.5".to_owned()),
        tls: ServerTls::Required,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).await?;
    let leader = cluster.leader().await.context("no leader")?;
    let Err(refusal) = sql::connect(leader.postgres, schema::APP).await else {
        anyhow::bail!("a plain login was let in");
    };
    assert!(format!("{refusal:?}").contains("no encryption"), "{refusal:?}");
    assert!(cluster.authority_pem().is_some_and(std::path::Path::exists));
    Ok(())
}
