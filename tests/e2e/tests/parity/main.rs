//! The same clients against Debian's PgBouncer (1.18) and against weir, both started with the same pgbouncer.ini: they see the
//! same results, severities, codes and texts. Where weir means to differ, [`differences`] says so and why.

mod console;
mod differences;
mod limits;
mod logins;
mod logs;
mod pools;
mod queries;
mod servers;
mod timeouts;

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::{Kind, Peer, rows, transcript};
use weir_e2e::wire::{PATIENCE, Wire, query};

/// What a script has seen, line by line.
#[derive(Debug, Default)]
struct Diary(String);

impl Diary {
    fn note(&mut self, what: &str, seen: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{what}: {seen}");
    }
}

/// Runs a script against both at the same time, before one PostgreSQL, and compares what it wrote down.
async fn compare<Script>(lines: &str, script: Script) -> Result<()>
where
    Script: AsyncFn(&Peer, &mut Diary) -> Result<()>,
{
    compare_before(&Postgres::start(PostgresOptions::default()).await?, lines, script).await
}

async fn compare_before<Script>(postgres: &Postgres, lines: &str, script: Script) -> Result<()>
where
    Script: AsyncFn(&Peer, &mut Diary) -> Result<()>,
{
    let run = async |kind| {
        let peer = Peer::start(kind, postgres, lines).await?;
        let mut diary = Diary::default();
        let ended = script(&peer, &mut diary).await;
        ended.with_context(|| format!("{kind:?}, after:\n{}\n{}", diary.0, peer.log()))?;
        anyhow::Ok(diary.0)
    };
    let (bouncer, weir) = tokio::try_join!(run(Kind::PgBouncer), run(Kind::Weir))?;
    same(&bouncer, &weir)
}

/// Both diaries say the same, less what [`differences`] allows.
fn same(bouncer: &str, weir: &str) -> Result<()> {
    let expected: Vec<String> = bouncer.lines().map(differences::agreed).collect();
    let got: Vec<String> = weir.lines().map(str::to_owned).collect();
    let only = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|line| !others.contains(line)).map(|line| format!("    {line}")).collect()
    };
    let (missing, extra) = (only(&expected, &got).join("\n"), only(&got, &expected).join("\n"));
    ensure!(expected == got, "expected\n{missing}\nsaw\n{extra}\nin\n{weir}");
    Ok(())
}

/// Everything up to the end of the connection.
async fn to_the_end(wire: &mut Wire) -> Result<String> {
    Ok(transcript(&wire.until_closed().await?))
}

/// Begins a transaction that holds a server connection: weir takes none for BEGIN alone.
const HOLDS: &str = "BEGIN; SELECT 1";

async fn asked(wire: &mut Wire, sql: &str) -> Result<String> {
    wire.send(&query(sql)).await?;
    Ok(transcript(&wire.until_ready().await?))
}

/// Waits until a column of SHOW POOLS, summed over all pools, is `wanted`.
async fn until_pools(peer: &Peer, column: &str, wanted: u32) -> Result<()> {
    let console = peer.console().await?;
    let mut seen = 0;
    let outcome = until(column, Limit::quick(PATIENCE), async || {
        let pools = rows(&console, "SHOW POOLS").await.ok()?;
        seen = pools.iter().filter_map(|pool| pool.get(column)?.parse::<u32>().ok()).sum();
        (seen == wanted).then_some(())
    })
    .await;
    outcome.with_context(|| format!("{column} is {seen}, wanted {wanted}"))
}
