//! The configuration and the topologies that the stories start from. Owns defaults; each story changes what it is about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use weir_auth::scram::Verifier;
use weir_auth::{StoredSecret, UserList};
use weir_config::{
    Auth, AuthMethod, ClientTls, Config, Limits, Listen, Log, LogFormat, Patroni, PoolMode, PoolSettings,
    ReadFallback, ServerTls, TlsMode, Upstream,
};
use weir_discovery::{Address, Epoch, Leadership, ReadTarget, Topology};

/// The database cluster's own number.
pub(crate) const SYSTEM: u64 = 7_000_000_000_000_000_001;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "secret";

/// What weir's list and the servers hold for a user; few iterations, so that tests are quick.
pub(crate) fn verifier(user: &str) -> Verifier {
    Verifier::from_password(PASSWORD.as_bytes(), format!("salt of {user:10}").as_bytes(), 16).unwrap()
}

/// A cluster, pools of two, SCRAM, and the users app, other and (with a password) auth.
pub(crate) fn config() -> Config {
    let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut users = UserList::default();
    for user in ["app", "other", "admin", "stats"] {
        users.insert(user.to_owned(), StoredSecret::Scram(verifier(user)));
    }
    users.insert("auth".to_owned(), StoredSecret::Plain(PASSWORD.into()));
    let files = |mode| (mode, None, None, None);
    let (mode, key_file, cert_file, ca_file) = files(TlsMode::Disable);
    Config {
        listen: Listen { write: nowhere, read: nowhere, http: nowhere },
        upstream: Upstream::Patroni(patroni()),
        auth: Auth {
            method: AuthMethod::ScramSha256,
            file: None,
            password_file: None,
            users,
            user: Some("auth".to_owned()),
            query: Some("SELECT usename, passwd FROM pg_shadow WHERE usename=$1".to_owned()),
            database: None,
            admin_users: vec!["admin".to_owned()],
            stats_users: vec!["stats".to_owned()],
        },
        pool: pool(),
        databases: BTreeMap::new(),
        limits: limits(),
        client_tls: ClientTls {
            mode,
            key_file: key_file.clone(),
            cert_file: cert_file.clone(),
            ca_file: ca_file.clone(),
        },
        server_tls: ServerTls { mode, ca_file, key_file, cert_file },
        log: Log { format: LogFormat::Text, level: "info".to_owned() },
        workers: NonZeroU32::MIN,
    }
}

fn patroni() -> Patroni {
    Patroni {
        urls: vec!["http://10.0.0.1:8008".to_owned()],
        scope: None,
        max_lag_bytes: 16 << 20,
        read_fallback: ReadFallback::Primary,
        poll_interval: Duration::from_secs(1),
        poll_timeout: Duration::from_secs(2),
        hold_timeout: Duration::from_secs(60),
        monitor_user: None,
        monitor_password_file: None,
        monitor_password: None,
        monitor_database: "postgres".to_owned(),
    }
}

fn pool() -> PoolSettings {
    PoolSettings {
        mode: PoolMode::Transaction,
        size: size(2),
        query_wait_timeout: Some(Duration::from_secs(120)),
        server_idle_timeout: None,
        server_lifetime: None,
        server_connect_timeout: Duration::from_secs(15),
        server_reset_query: "DISCARD ALL".to_owned(),
        max_prepared_statements: 200,
    }
}

fn limits() -> Limits {
    Limits {
        max_client_conn: 100,
        client_login_timeout: Duration::from_secs(60),
        cancel_wait_timeout: Duration::from_secs(10),
        retry_bytes_max: 64 * 1024,
        shutdown_timeout: Duration::from_secs(60),
    }
}

/// The same for one server without a cluster.
pub(crate) fn plain() -> Config {
    let Address { host, port } = address("n1");
    Config { upstream: Upstream::Plain { host, port }, ..config() }
}

/// A pool size.
pub(crate) fn size(size: u32) -> NonZeroU32 {
    NonZeroU32::new(size).unwrap()
}

/// Where a member listens: n1 on 10.0.0.1 and so on.
pub(crate) fn address(member: &str) -> Address {
    Address { host: format!("10.0.0.{}", &member[1..]), port: 5432 }
}

/// Nobody leads; these replicas serve reads.
pub(crate) fn leaderless(replicas: &[&str]) -> Topology {
    Topology {
        leader: Leadership::Leaderless { why: "the leader is gone".to_owned() },
        ..led("n1", 1, replicas)
    }
}

/// This member leads on this timeline; these replicas serve reads.
pub(crate) fn led(leader: &str, timeline: u32, replicas: &[&str]) -> Topology {
    Topology {
        generation: u64::from(timeline),
        leader: Leadership::Led {
            member: leader.to_owned(),
            address: address(leader),
            epoch: Some(Epoch { system_identifier: SYSTEM, timeline }),
            epoch_number: u64::from(timeline),
            degraded: None,
        },
        replicas: replicas.iter().map(|member| target(member, false)).collect(),
        fallback: weir_discovery::ReadFallback::Primary,
        members: Vec::new(),
    }
}

/// A place to read from.
pub(crate) fn target(member: &str, is_primary: bool) -> ReadTarget {
    ReadTarget {
        member: member.to_owned(),
        address: address(member),
        is_primary,
        system_identifier: Some(SYSTEM),
    }
}
