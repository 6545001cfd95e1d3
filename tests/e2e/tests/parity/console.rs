//! The console: what commands answer, and what they do to clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_cluster::schema::{APP, DATABASE};
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::{Kind, Peer, command, transcript};
use weir_e2e::stack::STATS;
use weir_e2e::wire::query;

use crate::{asked, compare, to_the_end};

const TRUST: &str = "auth_type = trust";

#[tokio::test]
async fn commands_and_their_errors() -> Result<()> {
    compare(TRUST, async |peer, diary| {
        let console = peer.console().await?;
        for sql in [
            "PAUSE",
            "PAUSE",
            "RESUME",
            "RESUME",
            "PAUSE nowhere",
            "RESUME nowhere",
            "DISABLE nowhere",
            "ENABLE nowhere",
            "KILL nowhere",
            "RECONNECT nowhere",
            "WAIT_CLOSE nowhere",
            "FROB",
            "SHOW frob",
            "SET frob = 1",
            "SET query_timeout = 7",
            "SELECT 1",
            "RELOAD",
            "SUSPEND",
            "RESUME",
            "DISABLE mrg",
            "ENABLE mrg",
            "RECONNECT mrg",
        ] {
            diary.note(sql, command(&console, sql).await);
        }
        Ok(())
    })
    .await
}

// covers: admin_users stats_users
#[tokio::test]
async fn who_may_only_look() -> Result<()> {
    compare(TRUST, async |peer, diary| {
        let console = weir_cluster::sql::connect(peer.address, STATS).await?;
        for sql in ["PAUSE", "RELOAD", "SHUTDOWN", "SET query_timeout = 7", "KILL mrg"] {
            diary.note(sql, command(&console, sql).await);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pause_holds_and_kill_cuts() -> Result<()> {
    compare("auth_type = trust\npool_mode = transaction", async |peer, diary| {
        let console = peer.console().await?;
        let mut wire = peer.wire().await?;
        asked(&mut wire, "SELECT 1").await?;
        diary.note("pause", command(&console, &format!("PAUSE {DATABASE}")).await);
        wire.send(&query("SELECT 'after the pause'")).await?;
        let early = wire.next(Duration::from_millis(300)).await;
        diary.note("held", early.is_err());
        diary.note("resume", command(&console, &format!("RESUME {DATABASE}")).await);
        diary.note("served", transcript(&wire.until_ready().await?));
        diary.note("disable", command(&console, &format!("DISABLE {DATABASE}")).await);
        diary.note("newcomer", peer.try_wire(APP, &[]).await?.1);
        diary.note("there already", asked(&mut wire, "SELECT 1").await?);
        diary.note("enable", command(&console, &format!("ENABLE {DATABASE}")).await);
        diary.note("kill", command(&console, &format!("KILL {DATABASE}")).await);
        diary.note("killed", to_the_end(&mut wire).await?);
        diary.note("resume", command(&console, &format!("RESUME {DATABASE}")).await);
        diary.note("again", peer.login(APP).await);
        Ok(())
    })
    .await
}

/// Columns that a later PgBouncer has under another name.
const RENAMED: [(&str, &str); 1] = [("reserve_pool", "reserve_pool_size")];

#[tokio::test]
async fn show_has_the_columns_that_it_has_had() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let bouncer = Peer::start(Kind::PgBouncer, &postgres, TRUST).await?;
    let weir = Peer::start(Kind::Weir, &postgres, TRUST).await?;
    let (theirs, ours) = (bouncer.console().await?, weir.console().await?);
    for what in [
        "CLIENTS",
        "SERVERS",
        "POOLS",
        "DATABASES",
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "LISTS",
        "USERS",
        "CONFIG",
        "DNS_HOSTS",
        "DNS_ZONES",
        "MEM",
        "FDS",
        "SOCKETS",
        "ACTIVE_SOCKETS",
        "VERSION",
    ] {
        let columns = async |console| {
            let said = command(console, &format!("SHOW {what}")).await;
            let names = said
                .strip_prefix("columns(")
                .and_then(|rest| rest.split(')').next())
                .unwrap_or(&said)
                .to_owned();
            names.split(',').map(str::to_owned).collect::<Vec<String>>()
        };
        let (theirs, ours) = (columns(&theirs).await, columns(&ours).await);
        let now = |name: &String| {
            RENAMED.iter().find(|(was, _)| was == name).map_or(name.clone(), |(_, is)| (*is).to_owned())
        };
        let missing: Vec<String> = theirs.iter().map(now).filter(|name| !ours.contains(name)).collect();
        ensure!(missing.is_empty(), "SHOW {what} lacks {missing:?}: {ours:?}");
    }
    Ok(())
}
