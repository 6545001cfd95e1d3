//! What clients see of server connections: their queries, their users, and servers that are not there.

use anyhow::{Result, bail};
use weir_cluster::schema::{APP, SUPERUSER};
use weir_cluster::sql::Login;
use weir_cluster::{Postgres, PostgresOptions, ShutdownMode};
use weir_e2e::peer::{Kind, Peer, transcript};
use weir_e2e::wire::{Wire, query};

use crate::{Diary, asked, compare, same, to_the_end, until_pools};

// covers: server_login_retry server_connect_timeout
#[tokio::test]
async fn servers_that_are_not_there() -> Result<()> {
    compare("auth_type = trust\nserver_login_retry = 1\nquery_wait_timeout = 1", async |peer, diary| {
        diary.note("dead", peer.login(Login { database: "dead", ..APP }).await);
        diary.note("not on the server", peer.login(Login { database: "gone", ..APP }).await);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_server_that_went_and_came_back() -> Result<()> {
    let mut postgres = Postgres::start(PostgresOptions::default()).await?;
    let lines = "auth_type = trust\npool_mode = transaction\nserver_login_retry = 1";
    let mut sides = Vec::new();
    for kind in [Kind::PgBouncer, Kind::Weir] {
        let peer = Peer::start(kind, &postgres, lines).await?;
        let mut wires = [peer.wire().await?, peer.wire().await?];
        asked(&mut wires[0], "SELECT 1").await?;
        sides.push((peer, wires, Diary::default()));
    }
    postgres.stop(ShutdownMode::Fast).await?;
    for (peer, [first, second], diary) in &mut sides {
        until_pools(peer, "sv_idle", 0).await?;
        first.send(&query("SELECT 'back again'")).await?;
        until_pools(peer, "cl_waiting", 1).await?;
        second.send(&query("SELECT 1")).await?;
        diary.note("while it is away", to_the_end(second).await?);
    }
    postgres.start_again().await?;
    for (_, [first, _], diary) in &mut sides {
        diary.note("who has waited", transcript(&first.until_ready().await?));
    }
    let [(_, _, bouncer), (_, _, weir)] = sides.as_slice() else { bail!("two sides") };
    same(&bouncer.0, &weir.0)
}

// covers: databases.user databases.password databases.connect_query
#[tokio::test]
async fn forced_users_and_queries_of_the_pooler() -> Result<()> {
    let lines = format!(
        "auth_type = trust\npool_mode = session\n[databases]\n\
         forced = {{server}} dbname=mrg user={} password={} connect_query='SET work_mem = 4567'\n\
         [users]\npostgres = pool_mode=transaction",
        APP.user, APP.password
    );
    compare(&lines, async |peer, diary| {
        let mut wire = Wire::login(peer.address, Login { database: "forced", ..SUPERUSER }).await?;
        for sql in ["SELECT current_user", "SHOW work_mem", "SET work_mem = 1234", "SHOW work_mem"] {
            diary.note(sql, asked(&mut wire, sql).await?);
        }
        Ok(())
    })
    .await
}
