//! Pools by user and mode, and the queries that the pooler asks on server connections by itself.

use anyhow::{Context, Result};
use weir_cluster::schema::{APP, AUTH, AUTH_QUERY, SUPERUSER};
use weir_cluster::sql::Login;
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::Peer;
use weir_e2e::wire::{Wire, query, terminate};

use crate::{Diary, asked, compare, compare_before, to_the_end, until_pools};

/// Two clients, one after the other: what the second finds of the first one's session, and whether it has its connection.
async fn two_sessions(peer: &Peer, diary: &mut Diary) -> Result<()> {
    let mut pids = Vec::new();
    for turn in ["first", "second"] {
        let mut wire = peer.wire().await?;
        for sql in [
            "SHOW work_mem",
            "SELECT count(*) FROM pg_prepared_statements",
            "SELECT count(*) FROM pg_listening_channels()",
        ] {
            diary.note(&format!("{turn}, {sql}"), asked(&mut wire, sql).await?);
        }
        pids.push(asked(&mut wire, "SELECT pg_backend_pid()").await?);
        asked(&mut wire, "SET work_mem = 1234; PREPARE p AS SELECT 1; LISTEN news").await?;
        wire.send(&terminate()).await?;
        wire.until_closed().await?;
        until_pools(peer, "sv_idle", 1).await?;
    }
    diary.note("one connection", pids.first() == pids.last());
    Ok(())
}

// covers: server_reset_query
#[tokio::test]
async fn what_a_session_leaves_behind() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    for reset in ["", "server_reset_query = RESET ALL", "server_reset_query ="] {
        let lines = format!("auth_type = trust\npool_mode = session\n{reset}");
        compare_before(&postgres, &lines, two_sessions).await.with_context(|| format!("{reset:?}"))?;
    }
    Ok(())
}

// covers: server_check_query server_check_delay
#[tokio::test]
async fn a_check_in_front_of_a_client() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    for check in ["SELECT 1", "SELECT 1/0"] {
        let lines = format!(
            "auth_type = trust\npool_mode = transaction\nserver_check_delay = 0\nserver_check_query = {check}"
        );
        compare_before(&postgres, &lines, async |peer, diary| {
            let mut wire = peer.wire().await?;
            let mut pids = Vec::new();
            for turn in ["first", "second"] {
                pids.push(asked(&mut wire, "SELECT pg_backend_pid()").await?);
                diary.note(turn, asked(&mut wire, "SELECT 'served'").await?);
            }
            diary.note(&format!("one connection through {check}"), pids.first() == pids.last());
            Ok(())
        })
        .await
        .context(check)?;
    }
    Ok(())
}

// covers: users.pool_mode
#[tokio::test]
async fn a_mode_of_a_user_s_own() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\n[users]\npostgres = pool_mode=statement";
    compare(lines, async |peer, diary| {
        let mut ordinary = peer.wire().await?;
        diary.note("ordinary", asked(&mut ordinary, "BEGIN").await?);
        let mut special = Wire::login(peer.address, SUPERUSER).await?;
        special.send(&query("BEGIN")).await?;
        diary.note("special", to_the_end(&mut special).await?);
        Ok(())
    })
    .await
}

// covers: auth_user auth_query unix_socket_dir
#[tokio::test]
async fn secrets_that_a_query_finds_and_logins_by_socket() -> Result<()> {
    let lines = format!(
        "auth_type = scram-sha-256\nunix_socket_dir = {{folder}}\nauth_user = {}\nauth_query = {AUTH_QUERY}",
        AUTH.user
    );
    let unlisted = Login { user: "unlisted", ..APP };
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    postgres.superuser(&format!("CREATE ROLE unlisted LOGIN PASSWORD '{}'", unlisted.password)).await?;
    compare_before(&postgres, &lines, async |peer, diary| {
        for login in [
            APP,
            Login { password: "guess", ..APP },
            unlisted,
            Login { password: "guess", ..unlisted },
            Login { user: "nobody_here", ..APP },
            Login { database: "nowhere", ..APP },
        ] {
            let what = format!("{}, {}", login.user, login.database);
            diary.note(&format!("{what}, by TCP"), peer.login(login).await);
            diary.note(&format!("{what}, by socket"), peer.login_by_socket(login).await);
        }
        Ok(())
    })
    .await
}
