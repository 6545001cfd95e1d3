//! The table of settings: name, default, whether a reload can change it, and how the value in force is shown.
//! Everything else that needs a list of settings (the reader, SHOW CONFIG, the reload, the annotated file's test)
//! takes it from here. Knows no file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Config, Patroni, Upstream};
use crate::quantity::{show_bytes, show_duration};
use crate::value::{AUTH_METHODS, LOG_FORMATS, POOL_MODES, READ_FALLBACKS, TLS_MODES, Value, name_of};

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Section and name, such as `pool.size`.
    pub path: &'static str,
    /// What holds when it is not given.
    pub default: Fallback,
    /// When a changed value takes effect.
    pub takes_effect: TakesEffect,
    /// The value in force, without secrets; empty if there is none.
    pub show: fn(&Config) -> String,
}

/// The value of a setting that was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// No value.
    Absent,
    /// This string.
    Text(&'static str),
    /// This number.
    Number(u32),
    /// An empty list.
    NoWords,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// At a reload.
    AtReload,
    /// When weir is started again.
    AtRestart,
}

impl Fallback {
    /// The default as a value, to be read as if it had been written.
    pub(crate) fn value(self) -> Option<Value> {
        match self {
            Self::Absent => None,
            Self::Text(text) => Some(Value::Text(text.to_owned())),
            Self::Number(number) => Some(Value::Number(number.into())),
            Self::NoWords => Some(Value::Words(Vec::new())),
        }
    }

    /// The default as weir.toml would spell it; `None` if there is none.
    #[must_use]
    pub fn as_toml(self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Text(text) => Some(format!("\"{text}\"")),
            Self::Number(number) => Some(number.to_string()),
            Self::NoWords => Some("[]".to_owned()),
        }
    }

    /// The default as [`Key::show`] would show it.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            Self::Absent | Self::NoWords => String::new(),
            Self::Text(text) => text.to_owned(),
            Self::Number(number) => number.to_string(),
        }
    }
}

impl Key {
    /// The setting of that name.
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Section and name within it; the section is empty for a setting that belongs to none.
    #[must_use]
    pub fn section_and_name(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

const fn live(path: &'static str, default: Fallback, show: fn(&Config) -> String) -> Key {
    Key { path, default, takes_effect: TakesEffect::AtReload, show }
}

const fn fixed(path: &'static str, default: Fallback, show: fn(&Config) -> String) -> Key {
    Key { path, default, takes_effect: TakesEffect::AtRestart, show }
}

fn show_patroni(config: &Config, show: fn(&Patroni) -> String) -> String {
    match &config.upstream {
        Upstream::Patroni(patroni) => show(patroni),
        Upstream::Plain { .. } | Upstream::None => String::new(),
    }
}

fn show_upstream(config: &Config) -> String {
    match &config.upstream {
        Upstream::Plain { host, port } if host.starts_with('/') => {
            format!("postgres://{}:{port}", host.replace('/', "%2F"))
        }
        Upstream::Plain { host, port } if host.contains(':') => format!("postgres://[{host}]:{port}"),
        Upstream::Plain { host, port } => format!("postgres://{host}:{port}"),
        Upstream::Patroni(_) | Upstream::None => String::new(),
    }
}

fn show_path(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn show_addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn show_limit(limit: Option<Duration>) -> String {
    show_duration(limit.unwrap_or_default())
}

fn show_text(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

/// PgBouncer's own default since 1.24: a password past its VALID UNTIL does not count.
pub const DEFAULT_AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                                      FROM pg_authid WHERE rolname=$1 AND rolcanlogin";

use Fallback::{Absent, NoWords, Number, Text};

/// Every setting, in the order of `configs/weir.toml`. Those of `[databases.NAME]` are in [`DATABASE_KEYS`].
pub const KEYS: &[Key] = &[
    fixed("workers", Number(1), |c| c.workers.to_string()),
    fixed("listen.write", Text("127.0.0.1:6432"), |c| show_addresses(&c.listen.write)),
    fixed("listen.read", Text("127.0.0.1:6433"), |c| show_addresses(&c.listen.read)),
    fixed("listen.http", Text("127.0.0.1:9632"), |c| show_addresses(c.listen.http.as_slice())),
    fixed("upstream.url", Absent, show_upstream),
    fixed("patroni.urls", Absent, |c| show_patroni(c, |p| p.urls.join(", "))),
    fixed("patroni.scope", Absent, |c| show_patroni(c, |p| show_text(p.scope.as_ref()))),
    live("patroni.max_lag", Text("16MB"), |c| show_patroni(c, |p| show_bytes(p.max_lag_bytes))),
    live("patroni.read_fallback", Text("primary"), |c| {
        show_patroni(c, |p| name_of(READ_FALLBACKS, &p.read_fallback).to_owned())
    }),
    live("patroni.poll_interval", Text("1s"), |c| show_patroni(c, |p| show_duration(p.poll_interval))),
    live("patroni.poll_timeout", Text("1s"), |c| show_patroni(c, |p| show_duration(p.poll_timeout))),
    live("patroni.hold_timeout", Text("1min"), |c| show_patroni(c, |p| show_duration(p.hold_timeout))),
    live("patroni.monitor_user", Absent, |c| show_patroni(c, |p| show_text(p.monitor_user.as_ref()))),
    live("patroni.monitor_password_file", Absent, |c| {
        show_patroni(c, |p| show_path(p.monitor_password_file.as_ref()))
    }),
    live("patroni.monitor_database", Text("postgres"), |c| show_patroni(c, |p| p.monitor_database.clone())),
    live("auth.type", Text("scram-sha-256"), |c| name_of(AUTH_METHODS, &c.auth.method).to_owned()),
    live("auth.hba_file", Absent, |c| show_path(c.auth.hba_file.as_ref())),
    live("auth.ident_file", Absent, |c| show_path(c.auth.ident_file.as_ref())),
    live("auth.scram_iterations", Number(4096), |c| c.auth.scram_iterations.to_string()),
    live("auth.file", Absent, |c| show_path(c.auth.file.as_ref())),
    live("auth.user", Absent, |c| show_text(c.auth.user.as_ref())),
    live("auth.password_file", Absent, |c| show_path(c.auth.password_file.as_ref())),
    live("auth.query", Text(DEFAULT_AUTH_QUERY), |c| show_text(c.auth.query.as_ref())),
    live("auth.database", Absent, |c| show_text(c.auth.database.as_ref())),
    live("auth.admin_users", NoWords, |c| c.auth.admin_users.join(", ")),
    live("auth.stats_users", NoWords, |c| c.auth.stats_users.join(", ")),
    live("pool.mode", Text("transaction"), |c| name_of(POOL_MODES, &c.pool.mode).to_owned()),
    live("pool.size", Number(20), |c| c.pool.size.to_string()),
    live("pool.query_wait_timeout", Text("2min"), |c| show_limit(c.pool.query_wait_timeout)),
    live("pool.server_idle_timeout", Text("10min"), |c| show_limit(c.pool.server_idle_timeout)),
    live("pool.server_lifetime", Text("1h"), |c| show_limit(c.pool.server_lifetime)),
    live("pool.server_connect_timeout", Text("15s"), |c| show_duration(c.pool.server_connect_timeout)),
    live("pool.server_reset_query", Text("DISCARD ALL"), |c| c.pool.server_reset_query.clone()),
    live("pool.max_prepared_statements", Number(200), |c| c.pool.max_prepared_statements.to_string()),
    live("limits.max_client_conn", Number(1000), |c| c.limits.max_client_conn.to_string()),
    live("limits.client_login_timeout", Text("1min"), |c| show_duration(c.limits.client_login_timeout)),
    live("limits.cancel_wait_timeout", Text("10s"), |c| show_duration(c.limits.cancel_wait_timeout)),
    live("limits.retry_bytes_max", Text("64kB"), |c| show_bytes(c.limits.retry_bytes_max as u64)),
    live("limits.shutdown_timeout", Text("1min"), |c| show_limit(c.limits.shutdown_timeout)),
    live("client_tls.mode", Text("disable"), |c| name_of(TLS_MODES, &c.client_tls.mode).to_owned()),
    live("client_tls.cert_file", Absent, |c| show_path(c.client_tls.cert_file.as_ref())),
    live("client_tls.key_file", Absent, |c| show_path(c.client_tls.key_file.as_ref())),
    live("client_tls.ca_file", Absent, |c| show_path(c.client_tls.ca_file.as_ref())),
    live("client_tls.protocols", Text("secure"), |c| c.client_tls.offer.shown_protocols()),
    live("client_tls.ciphers", Text("default"), |c| c.client_tls.offer.shown_ciphers()),
    live("client_tls.tls13_ciphers", Absent, |c| c.client_tls.offer.shown_tls13_ciphers()),
    live("client_tls.ecdhcurve", Text("auto"), |c| c.client_tls.offer.shown_groups()),
    live("client_tls.dheparams", Text("auto"), |_| "auto".to_owned()),
    live("server_tls.mode", Text("prefer"), |c| name_of(TLS_MODES, &c.server_tls.mode).to_owned()),
    live("server_tls.ca_file", Absent, |c| show_path(c.server_tls.ca_file.as_ref())),
    live("server_tls.cert_file", Absent, |c| show_path(c.server_tls.cert_file.as_ref())),
    live("server_tls.key_file", Absent, |c| show_path(c.server_tls.key_file.as_ref())),
    live("server_tls.protocols", Text("secure"), |c| c.server_tls.offer.shown_protocols()),
    live("server_tls.ciphers", Text("default"), |c| c.server_tls.offer.shown_ciphers()),
    live("server_tls.tls13_ciphers", Absent, |c| c.server_tls.offer.shown_tls13_ciphers()),
    fixed("log.format", Text("text"), |c| name_of(LOG_FORMATS, &c.log.format).to_owned()),
    live("log.level", Text("info"), |c| c.log.level.clone()),
];

/// The settings of each `[databases.NAME]`; none has a default of its own, they fall back to `[pool]` and the name.
pub const DATABASE_KEYS: &[&str] = &["dbname", "pool_mode", "pool_size"];

/// Workers that this version can run.
pub const WORKERS_MAX: NonZeroU32 = NonZeroU32::MIN;
