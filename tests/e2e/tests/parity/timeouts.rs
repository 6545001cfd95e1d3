//! How clients that take too long are sent away.

use anyhow::Result;
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::wire::{Wire, query};

use crate::{asked, compare, compare_before, to_the_end};

const TRANSACTION: &str = "auth_type = trust\npool_mode = transaction\n";

// covers: idle_transaction_timeout
#[tokio::test]
async fn idle_in_a_transaction() -> Result<()> {
    compare(&format!("{TRANSACTION}idle_transaction_timeout = 1"), async |peer, diary| {
        let mut wire = peer.wire().await?;
        asked(&mut wire, "BEGIN").await?;
        diary.note("idle", to_the_end(&mut wire).await?);
        Ok(())
    })
    .await
}

// covers: query_timeout
#[tokio::test]
async fn a_query_that_lasts() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    for mode in ["session", "transaction"] {
        let lines = format!("auth_type = trust\npool_mode = {mode}\nquery_timeout = 1");
        compare_before(&postgres, &lines, async |peer, diary| {
            let mut wire = peer.wire().await?;
            wire.send(&query("SELECT pg_sleep(60)")).await?;
            diary.note("query", to_the_end(&mut wire).await?);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

// covers: client_idle_timeout client_login_timeout tcp_defer_accept
#[tokio::test]
async fn clients_that_do_nothing() -> Result<()> {
    compare(
        &format!("{TRANSACTION}client_idle_timeout = 1\nclient_login_timeout = 1"),
        async |peer, diary| {
            let mut silent = Wire::connect(peer.address).await?;
            let mut idle = peer.wire().await?;
            asked(&mut idle, "SELECT 1").await?;
            diary.note("idle", to_the_end(&mut idle).await?);
            diary.note("silent", to_the_end(&mut silent).await?);
            Ok(())
        },
    )
    .await
}
