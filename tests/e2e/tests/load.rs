//! pgbench in every query mode over a small pool, and weir's memory while it runs.

use std::path::Path;

use anyhow::{Context, Result};
use weir_cluster::schema;
use weir_e2e::pgbench::{self, Length, Pgbench, QueryMode, Script};
use weir_e2e::stack::{Setup, Stack};

async fn every_mode(stack: &Stack, script: Script, authority: Option<&Path>) -> Result<()> {
    pgbench::initialize(stack.postgres.address(), schema::APP, 1).await?;
    for mode in [QueryMode::Simple, QueryMode::Extended, QueryMode::Prepared] {
        let run = Pgbench {
            address: stack.address(),
            login: schema::APP,
            mode,
            script,
            clients: 32,
            length: Length::Transactions(TRANSACTIONS),
            authority,
            latencies: None,
        };
        let outcome = run.run().await.with_context(|| mode.name())?;
        assert_eq!(outcome.transactions, u64::from(32 * TRANSACTIONS), "{}", mode.name());
    }
    assert!(stack.servers().await?.len() <= 10, "more servers than the pool allows");
    stack.until_pool("sv_active", "0").await?;
    stack.wire().await?.expect_usable().await
}

async fn small_pool(tls: bool) -> Result<Stack> {
    let setup = Setup::new().pool_size(10);
    if tls { setup.client_tls("prefer") } else { setup }.start().await
}

#[tokio::test]
async fn select_only() -> Result<()> {
    every_mode(&small_pool(false).await?, Script::SelectOnly, None).await
}

#[tokio::test]
async fn tpcb_like() -> Result<()> {
    let stack = small_pool(false).await?;
    every_mode(&stack, Script::TpcbLike, None).await?;
    // Money is neither made nor lost: every transaction moved one sum through all three tables.
    let balanced =
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
        AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(stack.postgres.superuser(balanced).await?, [[Some("t".to_owned())]]);
    Ok(())
}

#[tokio::test]
async fn select_only_over_tls() -> Result<()> {
    let stack = small_pool(true).await?;
    let authority = stack.authority().map(Path::to_path_buf);
    every_mode(&stack, Script::SelectOnly, authority.as_deref()).await
}

#[tokio::test]
async fn tpcb_like_over_tls() -> Result<()> {
    let stack = small_pool(true).await?;
    let authority = stack.authority().map(Path::to_path_buf);
    every_mode(&stack, Script::TpcbLike, authority.as_deref()).await
}

const TRANSACTIONS: u32 = 100;
