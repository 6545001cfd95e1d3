//! Who gets in, and what the others are told.

use anyhow::{Context, Result};
use weir_cluster::schema::APP;
use weir_cluster::sql::Login;
use weir_cluster::{Postgres, PostgresOptions};
use weir_e2e::peer::Peer;
use weir_e2e::stack::{ADMIN, STATS};

use crate::{Diary, compare_before, logs};

async fn everybody(peer: &Peer, diary: &mut Diary) -> Result<()> {
    for (what, login) in [
        ("right", APP),
        ("wrong password", Login { password: "guess", ..APP }),
        ("unknown user", Login { user: "nobody_here", ..APP }),
        ("unknown database", Login { database: "nowhere", ..APP }),
        ("database that the server lacks", Login { database: "gone", ..APP }),
        ("console", ADMIN),
        ("console as nobody", Login { database: "pgbouncer", ..APP }),
        ("console, wrong password", Login { password: "guess", ..STATS }),
        ("unknown user on the console", Login { user: "nobody_here", ..ADMIN }),
    ] {
        diary.note(&format!("{}, {}, {what}", login.user, login.database), peer.login(login).await);
        // Each is written of before the next one comes, so that both logs have one order.
        logs::note_client(peer, diary, login).await?;
    }
    Ok(())
}

// covers: auth_type auth_file
#[tokio::test]
async fn by_scram_md5_plain_and_trust() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    for kind in ["scram-sha-256", "md5", "plain", "trust"] {
        compare_before(&postgres, &format!("auth_type = {kind}"), everybody).await.context(kind)?;
    }
    let anybody =
        format!("auth_type = any\n[databases]\nmrg = {{server}} user={} password={}", APP.user, APP.password);
    compare_before(&postgres, &anybody, async |peer, diary| {
        for login in [APP, Login { user: "nobody_here", ..APP }, Login { database: "nowhere", ..APP }, ADMIN]
        {
            diary.note(login.database, peer.login(login).await);
        }
        Ok(())
    })
    .await
}
