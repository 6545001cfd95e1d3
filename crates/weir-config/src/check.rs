//! From settings as written to the model: every value checked, relations between values too. Login has its own file.
//! Opens no file; contents are handed in.

mod limits;
mod listen;
mod named;
mod pools;
mod process;
mod tls;
mod upstream;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::keys::WORKERS_MAX;
use crate::logins::{check_auth, check_lookups, needs_secrets, warn_about_databases};
use crate::model::{Config, Upstream};
use crate::problem::Wrong;
use crate::reader::Reader;
use crate::value::{Value, count};

pub use named::CONSOLE_DATABASES;

/// Checks everything. `None` only if something is wrong, which is noted.
pub(crate) fn check(reader: &mut Reader<'_>) -> Option<Config> {
    let url = upstream::read_upstream_url(reader);
    let listen = listen::check_listen(reader);
    let patroni = upstream::check_patroni(reader);
    let auth = check_auth(reader, url.as_ref());
    let pool = pools::check_pool(reader);
    let client_tls = tls::check_client_tls(reader);
    let server_tls = tls::check_server_tls(reader);
    let named::Databases { named: databases, any: any_database } =
        named::check_databases(reader, &server_tls);
    if needs_secrets(&auth) {
        warn_about_databases(reader, &auth, databases.values().chain(&any_database));
    }
    let named = databases.iter().map(|(name, database)| (name.as_str(), database));
    let all = named.chain(any_database.iter().map(|database| ("*", database)));
    check_lookups(reader, &auth, url.as_ref(), all);
    let users = named::check_users(reader);
    let peers = named::check_peers(reader);
    let peer_id = reader.required("peer_id", named::peer_id);
    let limits = limits::check_limits(reader);
    let session = limits::check_session(reader);
    let tcp = limits::check_tcp(reader);
    let dns = limits::check_dns(reader);
    let process = process::check_process(reader);
    let log = process::check_log(reader);
    let workers = reader.required("workers", workers);
    let has_own_hosts = databases.values().chain(&any_database).any(|database| !database.hosts.is_empty());
    let upstream = upstream::choose_upstream(reader, url, patroni, has_own_hosts)?;
    if matches!(upstream, Upstream::None) {
        upstream::need_hosts(reader, &databases, any_database.as_ref());
    }
    Some(Config {
        listen,
        upstream,
        auth,
        pool,
        databases,
        any_database,
        users,
        peers,
        peer_id,
        limits,
        client_tls,
        server_tls,
        session,
        tcp,
        dns,
        process,
        log,
        workers,
        dialect: reader.settings.dialect,
    })
}

fn workers(value: &Value) -> Result<NonZeroU32, Wrong> {
    let asked = count(1..=1024)(value)?;
    if asked > WORKERS_MAX.get() {
        return Err(Wrong::new(
            format!("{asked} workers are not supported in this version"),
            "leave it out, or write 1",
        ));
    }
    Ok(WORKERS_MAX)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Nothing that is meant to end takes longer.
const YEAR: Duration = Duration::from_secs(86_400 * 365);

/// More than a process can hold open.
const CONNECTIONS_MAX: u32 = 10_000_000;
