//! The table of settings. Everything that needs a list of settings (the reader, SHOW CONFIG, the reload, the annotated
//! file's test) takes it from here. Knows no file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::key::{Fallback, Key, fixed, live};
use crate::model::{Config, Patroni, UNLIMITED, UnixListen, Upstream};
use crate::quantity::{show_bytes, show_duration};
use crate::value::{
    AUTH_METHODS, CHANNEL_BINDINGS, LOG_FORMATS, POOL_MODES, READ_FALLBACKS, READ_POLICIES, STATE_POLICIES,
    TLS_MODES, name_of,
};

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

/// A secret.
fn show_nothing(_: &Config) -> String {
    String::new()
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

fn show_size(size: NonZeroU32) -> String {
    if size == UNLIMITED { "0".to_owned() } else { size.to_string() }
}

/// Only if there are Unix sockets.
fn show_unix(config: &Config, show: fn(&UnixListen) -> String) -> String {
    config.listen.unix.as_ref().map(show).unwrap_or_default()
}

/// A port that is the first address's own needs no words.
fn show_port(addresses: &[SocketAddr], port: Option<u16>) -> String {
    port.filter(|_| addresses.is_empty()).map(|port| port.to_string()).unwrap_or_default()
}

fn show_lifetime(lifetime: Option<Duration>) -> String {
    match lifetime {
        Some(Duration::ZERO) => ONCE.to_owned(),
        Some(_) | None => show_limit(lifetime),
    }
}

fn show_patience(limit: Option<Duration>) -> String {
    limit.map_or_else(|| FOREVER.to_owned(), show_duration)
}

fn show_check_query(query: Option<&String>) -> String {
    match query.map(String::as_str) {
        Some("") => EMPTY_QUERY.to_owned(),
        Some(query) => query.to_owned(),
        None => String::new(),
    }
}

/// `pool.server_lifetime` of a server connection that serves a single client.
pub(crate) const ONCE: &str = "once";

/// `limits.shutdown_timeout` that never ends.
pub(crate) const FOREVER: &str = "forever";

/// `pool.server_check_query` that is PostgreSQL's empty query; PgBouncer's word for it.
pub(crate) const EMPTY_QUERY: &str = "<empty>";

/// PgBouncer's own default since 1.24: a password past its VALID UNTIL does not count.
pub const DEFAULT_AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                                      FROM pg_authid WHERE rolname=$1 AND rolcanlogin";

use Fallback::{Absent, Number, Text, Truth, Words};

/// Every setting, in the order of `configs/weir.toml`. Those of `[databases.NAME]` are in [`DATABASE_KEYS`], those of
/// `[users.NAME]` in [`USER_KEYS`], those of `[peers.ID]` in [`PEER_KEYS`] and those of `[certificates.NAME]` in
/// [`CERTIFICATE_KEYS`].
pub const KEYS: &[Key] = &[
    fixed("workers", Number(1), |c| c.workers.to_string()),
    live("any_database", Truth(true), |c| c.any_database.is_some().to_string()),
    live("peer_id", Number(0), |c| c.peer_id.to_string()),
    fixed("listen.write", Words(&["127.0.0.1:6432"]), |c| show_addresses(&c.listen.write)),
    fixed("listen.read", Words(&["127.0.0.1:6433"]), |c| show_addresses(&c.listen.read)),
    fixed("listen.http", Text("127.0.0.1:9632"), |c| show_addresses(c.listen.http.as_slice())),
    fixed("listen.unix_dir", Absent, |c| show_unix(c, |unix| unix.dir.clone())),
    fixed("listen.unix_mode", Text("0777"), |c| {
        format!("{:04o}", c.listen.unix.as_ref().map_or(0o777, |unix| unix.mode))
    }),
    fixed("listen.unix_group", Absent, |c| show_unix(c, |unix| show_text(unix.group.as_ref()))),
    fixed("listen.port", Absent, |c| show_port(&c.listen.write, Some(c.listen.port))),
    fixed("listen.read_port", Absent, |c| show_port(&c.listen.read, c.listen.read_port)),
    fixed("listen.backlog", Number(1024), |c| c.listen.backlog.to_string()),
    fixed("listen.reuse_port", Truth(false), |c| c.listen.reuse_port.to_string()),
    fixed("listen.defer_accept", Text("0"), |c| show_limit(c.listen.defer_accept)),
    fixed("upstream.url", Absent, show_upstream),
    fixed("patroni.urls", Absent, |c| show_patroni(c, |p| p.urls.join(", "))),
    fixed("patroni.scope", Absent, |c| show_patroni(c, |p| show_text(p.scope.as_ref()))),
    live("patroni.max_lag", Text("16MB"), |c| show_patroni(c, |p| show_bytes(p.max_lag_bytes))),
    live("patroni.read_fallback", Text("primary"), |c| {
        show_patroni(c, |p| name_of(READ_FALLBACKS, &p.read_fallback).to_owned())
    }),
    live("patroni.read_policy", Text("least-connections"), |c| {
        show_patroni(c, |p| name_of(READ_POLICIES, &p.read_policy).to_owned())
    }),
    live("patroni.poll_interval", Text("1s"), |c| show_patroni(c, |p| show_duration(p.poll_interval))),
    live("patroni.poll_timeout", Text("1s"), |c| show_patroni(c, |p| show_duration(p.poll_timeout))),
    live("patroni.hold_timeout", Text("1min"), |c| show_patroni(c, |p| show_duration(p.hold_timeout))),
    live("patroni.monitor_user", Absent, |c| show_patroni(c, |p| show_text(p.monitor_user.as_ref()))),
    live("patroni.monitor_password", Absent, show_nothing),
    live("patroni.monitor_password_file", Absent, |c| {
        show_patroni(c, |p| show_path(p.monitor_password_file.as_ref()))
    }),
    live("patroni.monitor_database", Text("postgres"), |c| show_patroni(c, |p| p.monitor_database.clone())),
    live("patroni.switchover_wait", Text("10s"), |c| show_patroni(c, |p| show_duration(p.switchover_wait))),
    live("patroni.username", Absent, |c| show_patroni(c, |p| show_text(p.login.username.as_ref()))),
    live("patroni.password", Absent, show_nothing),
    live("patroni.password_file", Absent, |c| show_patroni(c, |p| show_path(p.login.password_file.as_ref()))),
    fixed("patroni.callback_listen", Absent, |c| {
        show_patroni(c, |p| show_addresses(p.callback.listen.as_slice()))
    }),
    live("patroni.callback_token", Absent, show_nothing),
    live("patroni.callback_token_file", Absent, |c| {
        show_patroni(c, |p| show_path(p.callback.token_file.as_ref()))
    }),
    live("patroni.ca_file", Absent, |c| show_patroni(c, |p| show_path(p.tls.ca_file.as_ref()))),
    live("patroni.cert_file", Absent, |c| show_patroni(c, |p| show_path(p.tls.cert_file.as_ref()))),
    live("patroni.key_file", Absent, |c| show_patroni(c, |p| show_path(p.tls.key_file.as_ref()))),
    live("patroni.server_name", Absent, |c| show_patroni(c, |p| show_text(p.tls.server_name.as_ref()))),
    live("patroni.insecure", Truth(false), |c| show_patroni(c, |p| p.tls.insecure.to_string())),
    live("auth.type", Text("scram-sha-256"), |c| name_of(AUTH_METHODS, &c.auth.method).to_owned()),
    live("auth.ldap_options", Absent, |c| show_text(c.auth.ldap_options.as_ref())),
    live("auth.hba_file", Absent, |c| show_path(c.auth.hba_file.as_ref())),
    live("auth.ident_file", Absent, |c| show_path(c.auth.ident_file.as_ref())),
    live("auth.scram_iterations", Number(4096), |c| c.auth.scram_iterations.to_string()),
    live("auth.failed_logins_free", Number(3), |c| c.auth.failed_logins_free.to_string()),
    live("auth.failed_login_delay_max", Text("5s"), |c| show_duration(c.auth.failed_login_delay_max)),
    live("auth.file", Absent, |c| show_path(c.auth.file.as_ref())),
    live("auth.user", Absent, |c| show_text(c.auth.user.as_ref())),
    live("auth.password", Absent, show_nothing),
    live("auth.password_file", Absent, |c| show_path(c.auth.password_file.as_ref())),
    live("auth.query", Text(DEFAULT_AUTH_QUERY), |c| show_text(c.auth.query.as_ref())),
    live("auth.database", Absent, |c| show_text(c.auth.database.as_ref())),
    live("auth.query_cache_time", Text("1s"), |c| show_duration(c.auth.query_cache_time)),
    live("auth.query_timeout", Text("5s"), |c| show_duration(c.auth.query_timeout)),
    live("auth.admin_users", Words(&[]), |c| c.auth.admin_users.join(", ")),
    live("auth.stats_users", Words(&[]), |c| c.auth.stats_users.join(", ")),
    live("pool.mode", Text("transaction"), |c| name_of(POOL_MODES, &c.pool.mode).to_owned()),
    live("pool.size", Number(20), |c| show_size(c.pool.size)),
    live("pool.min_size", Number(0), |c| c.pool.min_size.to_string()),
    live("pool.reserve_size", Number(0), |c| c.pool.reserve_size.to_string()),
    live("pool.reserve_timeout", Text("5s"), |c| show_limit(c.pool.reserve_timeout)),
    live("pool.round_robin", Truth(false), |c| c.pool.round_robin.to_string()),
    live("pool.query_wait_timeout", Text("2min"), |c| show_limit(c.pool.query_wait_timeout)),
    live("pool.query_wait_notify", Text("5s"), |c| show_limit(c.pool.query_wait_notify)),
    live("pool.server_idle_timeout", Text("10min"), |c| show_limit(c.pool.server_idle_timeout)),
    live("pool.server_lifetime", Text("1h"), |c| show_lifetime(c.pool.server_lifetime)),
    live("pool.server_connect_timeout", Text("15s"), |c| show_duration(c.pool.server_connect_timeout)),
    live("pool.server_login_retry", Text("15s"), |c| show_duration(c.pool.server_login_retry)),
    live("pool.server_check_query", Text(EMPTY_QUERY), |c| {
        show_check_query(c.pool.server_check_query.as_ref())
    }),
    live("pool.server_check_delay", Text("30s"), |c| show_duration(c.pool.server_check_delay)),
    live("pool.server_reset_query", Text("DISCARD ALL"), |c| c.pool.server_reset_query.clone()),
    live("pool.server_reset_query_always", Truth(false), |c| c.pool.server_reset_query_always.to_string()),
    live("pool.server_fast_close", Truth(false), |c| c.pool.server_fast_close.to_string()),
    live("pool.defer_begin", Truth(true), |c| c.pool.defer_begin.to_string()),
    live("pool.max_prepared_statements", Number(200), |c| c.pool.max_prepared_statements.to_string()),
    live("limits.max_client_conn", Number(1000), |c| c.limits.max_client_conn.to_string()),
    live("limits.max_db_connections", Number(0), |c| c.limits.max_db_connections.to_string()),
    live("limits.max_db_client_connections", Number(0), |c| c.limits.max_db_client_connections.to_string()),
    live("limits.max_user_connections", Number(0), |c| c.limits.max_user_connections.to_string()),
    live("limits.max_user_client_connections", Number(0), |c| {
        c.limits.max_user_client_connections.to_string()
    }),
    live("limits.max_host_connections", Number(0), |c| c.limits.max_host_connections.to_string()),
    live("limits.query_timeout", Text("0"), |c| show_limit(c.limits.query_timeout)),
    live("limits.client_idle_timeout", Text("0"), |c| show_limit(c.limits.client_idle_timeout)),
    live("limits.idle_transaction_timeout", Text("0"), |c| show_limit(c.limits.idle_transaction_timeout)),
    live("limits.transaction_timeout", Text("0"), |c| show_limit(c.limits.transaction_timeout)),
    live("limits.client_login_timeout", Text("1min"), |c| show_duration(c.limits.client_login_timeout)),
    live("limits.cancel_wait_timeout", Text("10s"), |c| show_duration(c.limits.cancel_wait_timeout)),
    live("limits.suspend_timeout", Text("10s"), |c| show_duration(c.limits.suspend_timeout)),
    live("limits.shutdown_timeout", Text("1min"), |c| show_patience(c.limits.shutdown_timeout)),
    live("limits.autodb_idle_timeout", Text("1h"), |c| show_limit(c.limits.autodb_idle_timeout)),
    live("limits.retry_bytes_max", Text("64kB"), |c| show_bytes(c.limits.retry_bytes_max as u64)),
    live("limits.max_packet_size", Number(2_147_483_647), |c| c.limits.max_packet_size.to_string()),
    live("session.ignore_startup_parameters", Words(&[]), |c| c.session.ignore_startup_parameters.join(", ")),
    fixed("session.track_extra_parameters", Words(&["IntervalStyle"]), |c| {
        c.session.track_extra_parameters.join(", ")
    }),
    live("session.application_name_add_host", Truth(false), |c| {
        c.session.application_name_add_host.to_string()
    }),
    fixed("session.disable_simple_protocol", Truth(false), |c| c.session.disable_simple_protocol.to_string()),
    live("session.on_set", Text("track"), |c| name_of(STATE_POLICIES, &c.session.on_set).to_owned()),
    live("session.on_prepare", Text("track"), |c| name_of(STATE_POLICIES, &c.session.on_prepare).to_owned()),
    live("session.on_listen", Text("pin"), |c| name_of(STATE_POLICIES, &c.session.on_listen).to_owned()),
    live("session.on_advisory_lock", Text("pin"), |c| {
        name_of(STATE_POLICIES, &c.session.on_advisory_lock).to_owned()
    }),
    live("session.on_temporary_table", Text("pin"), |c| {
        name_of(STATE_POLICIES, &c.session.on_temporary_table).to_owned()
    }),
    live("session.on_hold_cursor", Text("pin"), |c| {
        name_of(STATE_POLICIES, &c.session.on_hold_cursor).to_owned()
    }),
    live("client_tls.mode", Text("disable"), |c| name_of(TLS_MODES, &c.client_tls.mode).to_owned()),
    live("client_tls.cert_file", Absent, |c| show_path(c.client_tls.cert_file.as_ref())),
    live("client_tls.key_file", Absent, |c| show_path(c.client_tls.key_file.as_ref())),
    live("client_tls.ca_file", Absent, |c| show_path(c.client_tls.ca_file.as_ref())),
    live("client_tls.crl_file", Absent, |c| show_path(c.client_tls.crl_file.as_ref())),
    live("client_tls.protocols", Text("secure"), |c| c.client_tls.offer.shown_protocols()),
    live("client_tls.ciphers", Text("default"), |c| c.client_tls.offer.shown_ciphers()),
    live("client_tls.tls13_ciphers", Absent, |c| c.client_tls.offer.shown_tls13_ciphers()),
    live("client_tls.ecdhcurve", Text("auto"), |c| c.client_tls.offer.shown_groups()),
    live("client_tls.dheparams", Text("auto"), |_| "auto".to_owned()),
    live("server_tls.mode", Text("prefer"), |c| name_of(TLS_MODES, &c.server_tls.mode).to_owned()),
    live("server_tls.ca_file", Absent, |c| show_path(c.server_tls.ca_file.as_ref())),
    live("server_tls.crl_file", Absent, |c| show_path(c.server_tls.crl_file.as_ref())),
    live("server_tls.cert_file", Absent, |c| show_path(c.server_tls.cert_file.as_ref())),
    live("server_tls.key_file", Absent, |c| show_path(c.server_tls.key_file.as_ref())),
    live("server_tls.channel_binding", Text("prefer"), |c| {
        name_of(CHANNEL_BINDINGS, &c.server_tls.channel_binding).to_owned()
    }),
    live("server_tls.protocols", Text("secure"), |c| c.server_tls.offer.shown_protocols()),
    live("server_tls.ciphers", Text("default"), |c| c.server_tls.offer.shown_ciphers()),
    live("server_tls.tls13_ciphers", Absent, |c| c.server_tls.offer.shown_tls13_ciphers()),
    live("tcp.keepalive", Truth(true), |c| c.tcp.keepalive.to_string()),
    live("tcp.keepalive_idle", Text("15s"), |c| show_duration(c.tcp.keepalive_idle)),
    live("tcp.keepalive_interval", Text("5s"), |c| show_duration(c.tcp.keepalive_interval)),
    live("tcp.keepalive_count", Number(3), |c| c.tcp.keepalive_count.to_string()),
    live("tcp.user_timeout", Text("0"), |c| show_duration(c.tcp.user_timeout)),
    live("tcp.socket_buffer", Text("0"), |c| show_bytes(c.tcp.socket_buffer.into())),
    live("dns.max_ttl", Text("15s"), |c| show_duration(c.dns.max_ttl)),
    live("dns.nxdomain_ttl", Text("15s"), |c| show_duration(c.dns.nxdomain_ttl)),
    live("dns.zone_check_period", Text("0"), |c| show_limit(c.dns.zone_check_period)),
    fixed("dns.resolv_conf", Absent, |c| show_path(c.dns.resolv_conf.as_ref())),
    fixed("process.user", Absent, |c| show_text(c.process.user.as_ref())),
    fixed("process.pid_file", Absent, |c| show_path(c.process.pid_file.as_ref())),
    fixed("log.format", Text("text"), |c| name_of(LOG_FORMATS, &c.log.format).to_owned()),
    live("log.level", Text("info"), |c| c.log.level.clone()),
    live("log.file", Absent, |c| show_path(c.log.file.as_ref())),
    live("log.syslog", Truth(false), |c| c.log.syslog.is_some().to_string()),
    live("log.syslog_ident", Text("weir"), |c| {
        c.log.syslog.as_ref().map_or("weir", |syslog| &syslog.ident).to_owned()
    }),
    live("log.syslog_facility", Text("daemon"), |c| {
        c.log.syslog.as_ref().map_or("daemon", |syslog| &syslog.facility).to_owned()
    }),
    live("log.connections", Truth(true), |c| c.log.connections.to_string()),
    live("log.disconnections", Truth(true), |c| c.log.disconnections.to_string()),
    live("log.pooler_errors", Truth(true), |c| c.log.pooler_errors.to_string()),
    live("log.stats", Truth(true), |c| c.log.stats.to_string()),
    live("log.stats_period", Text("1min"), |c| show_duration(c.log.stats_period)),
];

/// The settings of each `[databases.NAME]`; none has a default of its own, they fall back to `[pool]`, `[limits]` and
/// the name.
pub const DATABASE_KEYS: &[&str] = &[
    "dbname",
    "hosts",
    "load_balance",
    "user",
    "password",
    "password_file",
    "auth_user",
    "auth_query",
    "auth_database",
    "pool_mode",
    "pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "server_lifetime",
    "query_wait_timeout",
    "max_db_connections",
    "max_db_client_connections",
    "connect_query",
    "server_tls_mode",
    "server_tls_ca_file",
    "server_tls_crl_file",
    "server_tls_cert_file",
    "server_tls_key_file",
    "server_tls_channel_binding",
    "client_encoding",
    "datestyle",
    "timezone",
    "application_name",
];

/// The settings of each `[users.NAME]`; none has a default of its own, they fall back to the database's and the
/// general ones.
pub const USER_KEYS: &[&str] = &[
    "pool_mode",
    "pool_size",
    "reserve_pool_size",
    "max_user_connections",
    "max_user_client_connections",
    "query_timeout",
    "query_wait_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "client_idle_timeout",
];

/// The settings of each `[peers.ID]`.
pub const PEER_KEYS: &[&str] = &["host", "port", "pool_size"];

/// The settings of each `[certificates.NAME]`.
pub const CERTIFICATE_KEYS: &[&str] = &["cert_file", "key_file"];

/// Workers that this version can run.
pub const WORKERS_MAX: NonZeroU32 = NonZeroU32::MIN;
