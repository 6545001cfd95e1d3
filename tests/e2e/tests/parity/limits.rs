//! What happens to whoever comes when there is no room.

use anyhow::{Context, Result};
use weir_cluster::schema::{APP, DATABASE, SUPERUSER};
use weir_cluster::sql::Login;
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::{Peer, transcript};
use weir_e2e::wire::{Wire, query};

use crate::{Diary, HOLDS, asked, compare, compare_before, to_the_end, until_pools};

// covers: max_client_conn
#[tokio::test]
async fn too_many_clients() -> Result<()> {
    compare("auth_type = trust\nmax_client_conn = 2", async |peer, diary| {
        let _held = [peer.wire().await?, peer.wire().await?];
        diary.note("third", peer.try_wire(APP, &[]).await?.1);
        diary.note("console", peer.try_wire(weir_e2e::stack::ADMIN, &[]).await?.1);
        Ok(())
    })
    .await
}

/// One client in a transaction, and one of `second` behind it who is served when the first has ended.
async fn one_after_the_other(peer: &Peer, diary: &mut Diary, second: Login<'_>) -> Result<()> {
    let mut holder = peer.wire().await?;
    let mut waiter = Wire::login(peer.address, second).await?;
    diary.note("begin", asked(&mut holder, HOLDS).await?);
    waiter.send(&query("SELECT 'served'")).await?;
    until_pools(peer, "cl_waiting", 1).await?;
    diary.note("commit", asked(&mut holder, "COMMIT").await?);
    diary.note("waiter", transcript(&waiter.until_ready().await?));
    Ok(())
}

// covers: default_pool_size databases.pool_size max_db_connections databases.max_db_connections max_user_connections users.max_user_connections
#[tokio::test]
async fn limits_on_server_connections_make_clients_wait() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let base = "auth_type = trust\npool_mode = transaction\n";
    for (limit, second) in [
        ("default_pool_size = 1", APP),
        ("[databases]\nmrg = {server} pool_size=1", APP),
        ("max_db_connections = 1", SUPERUSER),
        ("[databases]\nmrg = {server} max_db_connections=1", SUPERUSER),
        (
            "max_user_connections = 1\n[databases]\nother = {server} dbname=mrg",
            Login { database: "other", ..APP },
        ),
        (
            "[databases]\nother = {server} dbname=mrg\n[users]\napp_user = max_user_connections=1",
            Login { database: "other", ..APP },
        ),
    ] {
        compare_before(&postgres, &format!("{base}{limit}"), async |peer, diary| {
            one_after_the_other(peer, diary, second).await
        })
        .await
        .context(limit)?;
    }
    Ok(())
}

// covers: query_wait_timeout
#[tokio::test]
async fn waiting_too_long() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\nquery_wait_timeout = 1";
    compare(lines, async |peer, diary| {
        let mut holder = peer.wire().await?;
        let mut waiter = peer.wire().await?;
        diary.note("begin", asked(&mut holder, HOLDS).await?);
        waiter.send(&query("SELECT 1")).await?;
        diary.note("waiter", to_the_end(&mut waiter).await?);
        diary.note("holder", asked(&mut holder, "COMMIT").await?);
        Ok(())
    })
    .await
}

// covers: reserve_pool_size reserve_pool_timeout
#[tokio::test]
async fn a_reserve_for_those_who_wait() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\ndefault_pool_size = 1\nreserve_pool_size = 1\n\
                 reserve_pool_timeout = 1\nquery_wait_timeout = 3";
    compare(lines, async |peer, diary| {
        let mut wires = [peer.wire().await?, peer.wire().await?, peer.wire().await?];
        let [first, second, third] = &mut wires;
        diary.note("first", asked(first, HOLDS).await?);
        diary.note("second, by the reserve", asked(second, HOLDS).await?);
        third.send(&query("SELECT 1")).await?;
        diary.note("third", to_the_end(third).await?);
        Ok(())
    })
    .await
}

// covers: min_pool_size
#[tokio::test]
async fn the_least_number_of_connections_is_kept() -> Result<()> {
    let lines = format!(
        "auth_type = trust\npool_mode = transaction\nmin_pool_size = 3\n[databases]\n{DATABASE} = {{server}} user={} password={}",
        APP.user, APP.password
    );
    compare(&lines, async |peer, diary| {
        let _client = peer.wire().await?;
        until_pools(peer, "sv_idle", 3).await?;
        diary.note("connections", "three");
        Ok(())
    })
    .await
}
