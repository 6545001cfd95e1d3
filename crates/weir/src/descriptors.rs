//! How many files and sockets the process may have open. Every client and every server connection is one.

use rustix::process::{Resource, getrlimit, setrlimit};
use weir_config::{Config, Database, UNLIMITED};

/// Raises what the process may have open as far as anybody may: the limit that shells and systemd begin with, 1024, is
/// there for programs that use select(2). Says what there is, in PgBouncer's words, and warns if that is not enough.
pub(crate) fn allow_many(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    let given = limit.current;
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit.current = given;
    }
    let expected = expected(config);
    let shown = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    tracing::info!(
        "kernel file descriptor limit: {} (hard: {}); max_client_conn: {}, max expected fd use: {expected}",
        shown(limit.current),
        shown(limit.maximum),
        config.limits.max_client_conn,
    );
    if limit.current.is_some_and(|limit| limit < expected) {
        tracing::warn!(
            "clients and connections to PostgreSQL may run out of file descriptors; raise the limit (ulimit -n, or \
             LimitNOFILE= of systemd) to {expected}, or lower max_client_conn"
        );
    }
}

/// All clients at once, those who are logging in, and a full pool per database.
fn expected(config: &Config) -> u64 {
    let size = |database: &Database| database.pool_size.unwrap_or(config.pool.size);
    let databases = config.databases.values().chain(&config.any_database);
    let servers = databases.map(size).filter(|size| *size != UNLIMITED).map(|size| u64::from(size.get()));
    u64::from(config.limits.max_client_conn) + LOGINS + OWN + servers.sum::<u64>()
}

/// Connections that may be on their way in beside `max_client_conn`.
const LOGINS: u64 = 256;

/// Doors, logs, the reactor, questions to members of a cluster.
const OWN: u64 = 64;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::path::Path;

    use weir_config::{Source, load};

    use super::*;
    use crate::disk::Disk;

    fn config(text: &str) -> Config {
        let text = format!("[auth]\ntype = \"trust\"\n[limits]\nmax_client_conn = 1000\n{text}");
        let source =
            Source { path: Path::new("weir.toml"), text: &text, access: weir_config::Access::PRIVATE };
        load(Some(source), &[], &Disk).unwrap().config
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(64);
        setrlimit(Resource::Nofile, limit).unwrap();
        allow_many(&config("[upstream]\nurl = \"postgres://127.0.0.1\"\n"));
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }

    #[test]
    fn clients_and_full_pools_are_expected() {
        let pools = "[databases.a]\nhosts = [\"h\"]\npool_size = 30\n[databases.b]\nhosts = [\"h\"]\n\
                     [databases.c]\nhosts = [\"h\"]\npool_size = 0\n";
        assert_eq!(expected(&config(pools)), 1000 + LOGINS + OWN + 30 + 20);
    }
}
