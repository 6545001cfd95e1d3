//! What a reload changes, and what it cannot change. Compares two checked configurations; acts on nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::key::TakesEffect;
use crate::keys::KEYS;
use crate::model::{Config, Dns, Log, SessionSettings, Upstream};

/// One difference between the configuration in force and a new one. Shows itself without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A setting that takes effect at once.
    Setting {
        /// Its name, such as `pool.size`.
        key: &'static str,
        /// The value in force.
        from: String,
        /// The new value.
        to: String,
    },
    /// A setting that needs a restart: the value in force stays until then.
    NeedsRestart {
        /// Its name, such as `listen.write`.
        key: &'static str,
        /// The value in force, which stays.
        from: String,
        /// The value after a restart.
        to: String,
    },
    /// A `[databases.NAME]` section was added, removed or altered.
    Database {
        /// Client-facing name.
        name: String,
    },
    /// A `[users.NAME]` section was added, removed or altered.
    User {
        /// User name.
        name: String,
    },
    /// `[peers]` has other entries.
    Peers,
    /// `[certificates]` has other entries.
    Certificates,
    /// The user list has other users or other secrets.
    Users {
        /// Users of the new list.
        count: usize,
    },
    /// The HBA file, the identity maps or the options for LDAP say something else.
    AccessRules,
    /// The monitor's password is another one.
    MonitorPassword,
    /// The password for the REST API is another one.
    PatroniPassword,
    /// The token of callbacks is another one.
    CallbackToken,
}

impl Change {
    /// Whether the change waits for a restart.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        match self {
            Self::NeedsRestart { .. } => true,
            Self::Setting { .. }
            | Self::Database { .. }
            | Self::User { .. }
            | Self::Peers
            | Self::Certificates
            | Self::Users { .. }
            | Self::AccessRules
            | Self::MonitorPassword
            | Self::PatroniPassword
            | Self::CallbackToken => false,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { key, from, to } => write!(f, "{key} changed from {from:?} to {to:?}"),
            Self::NeedsRestart { key, from, to } => {
                write!(f, "{key} stays {from:?}: {to:?} takes effect when weir is started again")
            }
            Self::Database { name } => write!(f, "databases.{name} changed"),
            Self::User { name } => write!(f, "users.{name} changed"),
            Self::Peers => f.write_str("the peers changed"),
            Self::Certificates => f.write_str("the further certificates changed"),
            Self::Users { count } => write!(f, "the user list changed and has {count} users"),
            Self::AccessRules => {
                f.write_str("the HBA rules, the identity maps or the options for LDAP changed")
            }
            Self::MonitorPassword => f.write_str("the monitor's password changed"),
            Self::CallbackToken => f.write_str("the token of Patroni's callbacks changed"),
            Self::PatroniPassword => f.write_str("the password for Patroni's REST API changed"),
        }
    }
}

/// Everything in which `new` differs from `old`. Files that are named by path (certificates) are not compared.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes: Vec<_> = KEYS
        .iter()
        .filter_map(|key| {
            let (from, to) = ((key.show)(old), (key.show)(new));
            if from == to {
                return None;
            }
            Some(match key.takes_effect {
                TakesEffect::AtReload => Change::Setting { key: key.path, from, to },
                TakesEffect::AtRestart => Change::NeedsRestart { key: key.path, from, to },
            })
        })
        .collect();
    changes.extend(altered(&old.databases, &new.databases).map(|name| Change::Database { name }));
    if old.any_database.is_some() && new.any_database.is_some() && old.any_database != new.any_database {
        changes.push(Change::Database { name: "*".to_owned() });
    }
    changes.extend(altered(&old.users, &new.users).map(|name| Change::User { name }));
    if old.peers != new.peers {
        changes.push(Change::Peers);
    }
    if old.client_tls.certificates != new.client_tls.certificates {
        changes.push(Change::Certificates);
    }
    if !same_users(old, new) {
        changes.push(Change::Users { count: new.auth.users.len() });
    }
    if old.auth.hba != new.auth.hba
        || old.auth.ident != new.auth.ident
        || old.auth.authority != new.auth.authority
    {
        changes.push(Change::AccessRules);
    }
    if let (Upstream::Patroni(before), Upstream::Patroni(after)) = (&old.upstream, &new.upstream) {
        changes
            .extend((before.monitor_password != after.monitor_password).then_some(Change::MonitorPassword));
        changes.extend((before.login.password != after.login.password).then_some(Change::PatroniPassword));
        changes.extend((before.callback.token != after.callback.token).then_some(Change::CallbackToken));
    }
    changes
}

/// The configuration that holds after a reload: the new one, but what needs a restart stays as it is.
#[must_use]
pub fn reload(old: &Config, new: Config) -> (Config, Vec<Change>) {
    let changes = diff(old, &new);
    let upstream = match (&old.upstream, new.upstream) {
        (Upstream::Patroni(before), Upstream::Patroni(mut after)) => {
            after.urls.clone_from(&before.urls);
            after.scope.clone_from(&before.scope);
            after.callback.listen = before.callback.listen;
            Upstream::Patroni(after)
        }
        (before, _) => before.clone(),
    };
    let log = Log { format: old.log.format, ..new.log };
    let dns = Dns { resolv_conf: old.dns.resolv_conf.clone(), ..new.dns };
    let session = SessionSettings {
        track_extra_parameters: old.session.track_extra_parameters.clone(),
        disable_simple_protocol: old.session.disable_simple_protocol,
        ..new.session
    };
    let config = Config {
        listen: old.listen.clone(),
        workers: old.workers,
        process: old.process.clone(),
        upstream,
        log,
        dns,
        session,
        ..new
    };
    (config, changes)
}

/// The names whose sections differ.
fn altered<T: PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
) -> impl Iterator<Item = String> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned().collect::<Vec<_>>().into_iter()
}

fn same_users(old: &Config, new: &Config) -> bool {
    old.auth.users.len() == new.auth.users.len()
        && old.auth.users.iter().all(|(name, secret)| new.auth.users.get(name) == Some(secret))
}
