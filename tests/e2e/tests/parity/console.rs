//! The console: what commands answer, and what they do to clients.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use weir_cluster::schema::{APP, DATABASE};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::{Kind, Peer, command, rows, transcript};
use weir_e2e::stack::STATS;
use weir_e2e::wire::{PATIENCE, query};

use crate::{HOLDS, asked, compare, to_the_end, until_pools};

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

#[tokio::test]
async fn show_tells_the_same_of_the_same_clients() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\nmax_db_connections = 7";
    compare(lines, async |peer, diary| {
        let console = peer.console().await?;
        let (mut busy, mut waiting) = (peer.wire().await?, peer.wire().await?);
        asked(&mut busy, HOLDS).await?;
        waiting.send(&query("SELECT 1")).await?;
        until_pools(peer, "cl_waiting", 1).await?;
        for (what, columns) in SAME {
            let rows = rows(&console, &format!("SHOW {what}")).await?;
            // 1.18 has a pool for its console.
            for row in rows.iter().filter(|row| {
                !["database", "name"].iter().any(|key| row.get(*key).is_some_and(|name| name == "pgbouncer"))
            }) {
                let cells = columns.iter().map(|name| row.get(*name).cloned().unwrap_or_default());
                diary.note(what, cells.collect::<Vec<_>>().join(" "));
            }
        }
        Ok(())
    })
    .await
}

/// Tables and those of their columns that say the same in both.
const SAME: [(&str, &[&str]); 4] = [
    (
        "POOLS",
        &[
            "database",
            "user",
            "cl_active",
            "cl_waiting",
            "sv_active",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
            "pool_mode",
        ],
    ),
    ("CLIENTS", &["type", "user", "database", "state", "close_needed", "tls"]),
    ("SERVERS", &["type", "user", "database", "state", "close_needed", "tls"]),
    (
        "DATABASES",
        &[
            "name",
            "host",
            "database",
            "force_user",
            "pool_size",
            "pool_mode",
            "max_connections",
            "current_connections",
            "paused",
            "disabled",
        ],
    ),
];

/// Settings that stand at another value in weir when the file says nothing of them, and why.
const OTHER_DEFAULTS: &[(&str, &str)] = &[
    ("auth_file", "each has its own folder"),
    ("conffile", "nothing is read from another file than the one that weir was started with"),
    ("listen_port", "each has its own port"),
    ("auth_query", "without an auth_user nobody asks"),
    ("client_tls_ciphers", "1.25 has another name for it"),
    ("server_tls_ciphers", "1.25 has another name for it"),
    ("server_check_query", "1.25 asks an empty query"),
    ("server_tls_sslmode", "1.25 prefers TLS"),
    ("syslog_ident", "two programs beside each other are told apart"),
    ("tcp_keepcnt", "a lost host is noticed within half a minute"),
    ("tcp_keepidle", "a lost host is noticed within half a minute"),
    ("tcp_keepintvl", "a lost host is noticed within half a minute"),
    ("unix_socket_mode", "1.25 writes it as people do"),
];

#[tokio::test]
async fn settings_have_the_same_names_and_defaults() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let config = async |kind| {
        let peer = Peer::start(kind, &postgres, TRUST).await?;
        let rows = rows(&peer.console().await?, "SHOW CONFIG").await?;
        let pair = |row: &HashMap<String, String>| Some((row.get("key")?.clone(), row.get("value")?.clone()));
        anyhow::Ok(rows.iter().filter_map(pair).collect::<HashMap<_, _>>())
    };
    let (theirs, ours) = (config(Kind::PgBouncer).await?, config(Kind::Weir).await?);
    ensure!(theirs.len() > 50, "SHOW CONFIG of PgBouncer: {theirs:?}");
    let differ = theirs.iter().filter(|(key, value)| {
        ours.get(*key) != Some(value) && !OTHER_DEFAULTS.iter().any(|(known, _)| known == key)
    });
    let differ: Vec<_> = differ.map(|(key, value)| (key, value, ours.get(key))).collect();
    ensure!(differ.is_empty(), "key, PgBouncer's value, weir's: {differ:?}");
    Ok(())
}

#[tokio::test]
async fn shutting_down() -> Result<()> {
    compare("auth_type = trust\npool_mode = transaction", async |peer, diary| {
        let console = peer.console().await?;
        let (mut idle, mut busy) = (peer.wire().await?, peer.wire().await?);
        asked(&mut idle, "SELECT 1").await?;
        asked(&mut busy, HOLDS).await?;
        diary.note("SHUTDOWN", command(&console, "SHUTDOWN").await);
        diary.note("idle", to_the_end(&mut idle).await?);
        diary.note("busy", to_the_end(&mut busy).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn interrupted() -> Result<()> {
    compare("auth_type = trust\npool_mode = transaction", async |peer, diary| {
        let (mut idle, mut busy) = (peer.wire().await?, peer.wire().await?);
        asked(&mut idle, "SELECT 1").await?;
        asked(&mut busy, HOLDS).await?;
        peer.signal(Signal::INT);
        until("the signal to be heard", Limit::quick(PATIENCE), async || {
            peer.log().contains("SIGINT").then_some(())
        })
        .await?;
        diary.note("in a transaction", asked(&mut busy, "SELECT 1").await?);
        busy.send(&query("COMMIT")).await?;
        diary.note("after it", to_the_end(&mut busy).await?);
        diary.note("idle", to_the_end(&mut idle).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_database_that_leaves_the_file() -> Result<()> {
    compare("auth_type = trust\npool_mode = transaction", async |peer, diary| {
        let console = peer.console().await?;
        let mut idle = peer.wire().await?;
        asked(&mut idle, "SELECT 1").await?;
        let path = peer.folder.path().join("pgbouncer.ini");
        let text = std::fs::read_to_string(&path)?;
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(DATABASE)).collect();
        std::fs::write(&path, kept.join("\n"))?;
        diary.note("RELOAD", command(&console, "RELOAD").await);
        diary.note("client", to_the_end(&mut idle).await?);
        diary.note("newcomer", peer.try_wire(APP, &[]).await?.1);
        Ok(())
    })
    .await
}
