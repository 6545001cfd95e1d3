//! weir in front of a cluster, set up the way demo, drill and tests do it. Knows weir's options, nothing of its inside.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::process;
use crate::schema;
use crate::sql;
use crate::weir::{Weir, WeirOptions};

/// The console's administrator: name and password.
pub const ADMIN: (&str, &str) = ("admin", "admin_password");

/// Starts weir in front of `cluster` and waits until a query went through each port to the right kind of server.
///
/// The user list holds no password of the application: a verifier is enough, the keys come with the client's login.
///
/// # Errors
/// weir does not start, or a port does not answer; the text holds the end of weir's log.
pub async fn start(cluster: &Cluster, options: WeirOptions) -> Result<Weir> {
    let verifier = cluster.verifier(schema::APP.user).await?;
    let options = options
        .user(schema::APP.user, &verifier)
        .user(schema::AUTH.user, schema::AUTH.password)
        .user(ADMIN.0, ADMIN.1)
        .args(["--patroni", &cluster.patroni_urls()])
        .args(["--auth-user", schema::AUTH.user, "--auth-query", schema::AUTH_QUERY])
        .args(["--admin-user", ADMIN.0]);
    let weir = Weir::start(options).await?;
    process::with_log(check(weir.write(), "f").await, weir.log())?;
    process::with_log(check(weir.read(), "t").await, weir.log())?;
    Ok(weir)
}

/// Lets weir hear Patroni's callbacks at `door`, and Patroni call there.
///
/// # Errors
/// The file system refused.
pub fn hear_callbacks(cluster: &Cluster, options: WeirOptions, door: SocketAddr) -> Result<WeirOptions> {
    let token = cluster.run_dir().token();
    let config = format!("[patroni]\ncallback_listen = \"{door}\"\ncallback_token = \"{token}\"\n");
    let config = cluster.run_dir().write("weir.toml", &config)?;
    cluster.call_back(door, &token)?;
    Ok(options.args([config.display().to_string()]))
}

/// Asks through `address` until a server answers that is in recovery, or is not: until weir knows which replicas may serve,
/// the leader answers on the read port.
async fn check(address: SocketAddr, in_recovery: &str) -> Result<()> {
    let right_kind = async {
        loop {
            let answer = sql::value(address, schema::APP, "SELECT pg_catalog.pg_is_in_recovery()").await?;
            if answer == in_recovery {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(ANSWER_PATIENCE, right_kind)
        .await
        .with_context(|| format!("{address} does not lead to the right kind of server after 15 s"))?
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
