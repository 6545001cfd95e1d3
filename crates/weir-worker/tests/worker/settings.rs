//! The configuration and the topologies that the stories start from. Owns defaults; each story changes what it is about.

use std::num::NonZeroU32;
use std::path::Path;

use weir_auth::scram::Verifier;
use weir_auth::{StoredSecret, UserList};
use weir_config::{Config, FileContents, Files, Source, Upstream};
use weir_discovery::{Address, Epoch, Leadership, ReadTarget, Topology};

/// The database cluster's own number.
pub(crate) const SYSTEM: u64 = 7_000_000_000_000_000_001;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "secret";

/// What weir's list and the servers hold for a user; few iterations, so that tests are quick.
pub(crate) fn verifier(user: &str) -> Verifier {
    Verifier::from_password(PASSWORD.as_bytes(), format!("salt of {user:10}").as_bytes(), 16).unwrap()
}

/// A cluster, pools of two, SCRAM, and the users app, other and (with a password) auth. The rest is what weir.toml has
/// when it says nothing.
pub(crate) fn config() -> Config {
    let mut users = UserList::default();
    for user in ["app", "other", "admin", "stats"] {
        users.insert(user.to_owned(), StoredSecret::Scram(verifier(user)));
    }
    users.insert("auth".to_owned(), StoredSecret::Plain(PASSWORD.into()));
    let mut config = loaded();
    config.auth.users = users;
    // Stories that wait are not about this.
    config.pool.query_wait_notify = None;
    // In most of them BEGIN is there to hold a server connection.
    config.pool.defer_begin = false;
    config
}

fn loaded() -> Config {
    let source = Source {
        path: Path::new("weir.toml"),
        text: include_str!("weir.toml"),
        access: weir_config::Access::PRIVATE,
    };
    weir_config::load(Some(source), &[], &EmptyFiles).unwrap().config
}

/// Every file is there and empty.
struct EmptyFiles;

impl Files for EmptyFiles {
    fn read(&self, _path: &Path) -> Result<FileContents, String> {
        Ok(FileContents { bytes: "".into(), access: weir_config::Access::PRIVATE })
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
        failover: 1,
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
        silent: Vec::new(),
        is_standby_cluster: false,
        failover: u64::from(timeline) - 1,
        given_up: None,
        planned: None,
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
        weight: 1,
    }
}
