//! The table of PgBouncer's settings and of those in `[weir]`: name, notation, default, and which of weir.toml's
//! settings each one is. The sources are PgBouncer's config(5) and the defaults of version 1.25.

use std::time::Duration;

use crate::keys::{FOREVER, ONCE};
use crate::problem::Wrong;
use crate::quantity::{parse_duration, show_duration};
use crate::value::Value;

/// One setting of PgBouncer's file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) section: Section,
    pub(crate) name: &'static str,
    /// PgBouncer's default, as it would be written.
    pub(crate) default: &'static str,
    pub(crate) meaning: Meaning,
}

/// The two sections with settings of the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    PgBouncer,
    Weir,
}

/// What a setting means here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A setting of weir.toml, read in this notation.
    Is(&'static str, Notation),
    /// One of several that only together say where to listen or how to log.
    Joint,
    /// Nothing that exists here; why.
    Inert(&'static str),
    /// It must be left out, or hold this; else what is wrong.
    Only(&'static str, &'static str),
}

/// How PgBouncer writes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notation {
    /// Text; empty is not given.
    Text,
    /// Text that may be empty.
    TextOrEmpty,
    /// One of a few words, in any case.
    Word,
    /// Words with commas.
    Words,
    Number,
    /// 0 or 1.
    Truth,
    /// Seconds, also with a fraction.
    Seconds,
    /// Seconds, of which 0 is without limit where weir needs one.
    Bounded,
    /// Seconds, of which 0 is for a single client.
    Lifetime,
    Millis,
    /// Seconds, or a word for no end.
    Patience,
    /// Bytes.
    Size,
    /// On or off, of which on is a second.
    Defer,
}

impl Notation {
    /// What the text says, in weir.toml's terms; `None` if it says that there is none.
    pub(crate) fn read(self, text: &str) -> Result<Option<Value>, Wrong> {
        let time = |duration| Some(Value::Text(show_duration(duration)));
        Ok(match self {
            Self::Text if text.is_empty() => None,
            Self::Text | Self::TextOrEmpty => Some(Value::Text(text.to_owned())),
            Self::Word => Some(Value::Text(text.to_ascii_lowercase())),
            Self::Words => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                Some(Value::Words(words.map(str::to_owned).collect()))
            }
            Self::Number => Some(Value::Number(number(text)?)),
            Self::Truth => Some(Value::Truth(truth(text)?)),
            Self::Seconds => time(seconds(text)?),
            Self::Bounded => time(Some(seconds(text)?).filter(|limit| !limit.is_zero()).unwrap_or(LONGEST)),
            Self::Lifetime => match seconds(text)? {
                Duration::ZERO => Some(Value::Text(ONCE.to_owned())),
                lifetime => time(lifetime),
            },
            Self::Millis => {
                let millis = u64::try_from(number(text)?).map_err(|_| not_a_number(text))?;
                time(Duration::from_millis(millis))
            }
            Self::Patience if text == FOREVER => Some(Value::Text(text.to_owned())),
            Self::Patience => time(seconds(text)?),
            Self::Size => Some(match number(text) {
                Ok(bytes) => Value::Number(bytes),
                Err(_) => Value::Text(text.to_owned()),
            }),
            Self::Defer => match number(text)? {
                0 => time(Duration::ZERO),
                _ => time(DEFER),
            },
        })
    }
}

/// Decimal, or as in C: hexadecimal behind `0x`, octal behind `0`.
fn number(text: &str) -> Result<i64, Wrong> {
    let parsed = match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => i64::from_str_radix(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => i64::from_str_radix(digits, 8),
        (None, Some(_) | None) => text.parse(),
    };
    parsed.map_err(|_| not_a_number(text))
}

fn not_a_number(text: &str) -> Wrong {
    Wrong::new(format!("{text:?} is not a number"), "write a whole number")
}

fn truth(text: &str) -> Result<bool, Wrong> {
    // PgBouncer takes numbers only; the words say no less.
    match text.to_ascii_lowercase().as_str() {
        "0" | "no" | "off" | "false" => Ok(false),
        "1" | "yes" | "on" | "true" => Ok(true),
        _ => match number(text) {
            Ok(_) => Ok(true),
            Err(_) => Err(Wrong::new(format!("{text:?} is neither yes nor no"), "write 1 or 0")),
        },
    }
}

/// Seconds without a unit, or a number with one.
fn seconds(text: &str) -> Result<Duration, Wrong> {
    if let Some(duration) = parse_duration(text) {
        return Ok(duration);
    }
    let seconds: f64 = text.parse().unwrap_or(f64::NAN);
    let millis = (seconds * 1000.0).ceil();
    if !(0.0..=MILLIS_MAX).contains(&millis) {
        return Err(Wrong::new(format!("{text:?} is not a time"), "write seconds, such as 15 or 0.5"));
    }
    Duration::try_from_secs_f64(millis / 1000.0)
        .map_err(|_| Wrong::new(format!("{text:?} is not a time"), "write seconds, such as 15 or 0.5"))
}

/// The setting of that name in that section.
pub(crate) fn find(section: Section, name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.section == section && setting.name == name)
}

const fn is(name: &'static str, default: &'static str, path: &'static str, notation: Notation) -> Setting {
    Setting { section: Section::PgBouncer, name, default, meaning: Meaning::Is(path, notation) }
}

const fn weir(name: &'static str, default: &'static str, path: &'static str, notation: Notation) -> Setting {
    Setting { section: Section::Weir, name, default, meaning: Meaning::Is(path, notation) }
}

const fn pgbouncer(name: &'static str, default: &'static str, meaning: Meaning) -> Setting {
    Setting { section: Section::PgBouncer, name, default, meaning }
}

use Meaning::{Inert, Joint, Only};
use Notation::{
    Bounded, Defer, Lifetime, Millis, Number, Patience, Seconds, Size, Text, TextOrEmpty, Truth, Word, Words,
};

/// Every setting, in the order of PgBouncer's manual, then those of `[weir]`.
pub(crate) const SETTINGS: &[Setting] = &[
    is("logfile", "", "log.file", Text),
    is("pidfile", "", "process.pid_file", Text),
    pgbouncer("listen_addr", "", Joint),
    pgbouncer("listen_port", "6432", Joint),
    is("unix_socket_dir", "/tmp", "listen.unix_dir", TextOrEmpty),
    is("unix_socket_mode", "0777", "listen.unix_mode", Text),
    is("unix_socket_group", "", "listen.unix_group", Text),
    is("user", "", "process.user", Text),
    is("pool_mode", "session", "pool.mode", Word),
    is("max_client_conn", "100", "limits.max_client_conn", Number),
    is("default_pool_size", "20", "pool.size", Number),
    is("min_pool_size", "0", "pool.min_size", Number),
    is("reserve_pool_size", "0", "pool.reserve_size", Number),
    is("reserve_pool_timeout", "5", "pool.reserve_timeout", Seconds),
    is("max_db_connections", "0", "limits.max_db_connections", Number),
    is("max_db_client_connections", "0", "limits.max_db_client_connections", Number),
    is("max_user_connections", "0", "limits.max_user_connections", Number),
    is("max_user_client_connections", "0", "limits.max_user_client_connections", Number),
    is("server_round_robin", "0", "pool.round_robin", Truth),
    is("track_extra_parameters", "IntervalStyle", "session.track_extra_parameters", Words),
    is("ignore_startup_parameters", "", "session.ignore_startup_parameters", Words),
    is("peer_id", "0", "peer_id", Number),
    is("disable_pqexec", "0", "session.disable_simple_protocol", Truth),
    is("application_name_add_host", "0", "session.application_name_add_host", Truth),
    pgbouncer("conffile", "", Inert("the file to read again is the one that weir was started with")),
    pgbouncer("service_name", "", Inert("it names a service of Windows")),
    pgbouncer("job_name", "pgbouncer", Inert("it names a service of Windows")),
    is("stats_period", "60", "log.stats_period", Seconds),
    is("max_prepared_statements", "200", "pool.max_prepared_statements", Number),
    is("scram_iterations", "4096", "auth.scram_iterations", Number),
    is("auth_type", "md5", "auth.type", Word),
    is("auth_hba_file", "", "auth.hba_file", Text),
    is("auth_ident_file", "", "auth.ident_file", Text),
    is("auth_file", "", "auth.file", Text),
    is("auth_user", "", "auth.user", Text),
    is("auth_query", crate::keys::DEFAULT_AUTH_QUERY, "auth.query", Text),
    is("auth_dbname", "", "auth.database", Text),
    is("auth_ldap_options", "", "auth.ldap_options", Text),
    is("syslog", "0", "log.syslog", Truth),
    is("syslog_ident", "pgbouncer", "log.syslog_ident", Text),
    is("syslog_facility", "daemon", "log.syslog_facility", Word),
    is("log_connections", "1", "log.connections", Truth),
    is("log_disconnections", "1", "log.disconnections", Truth),
    is("log_pooler_errors", "1", "log.pooler_errors", Truth),
    is("log_stats", "1", "log.stats", Truth),
    pgbouncer("verbose", "0", Joint),
    is("admin_users", "", "auth.admin_users", Words),
    is("stats_users", "", "auth.stats_users", Words),
    is("server_reset_query", "DISCARD ALL", "pool.server_reset_query", TextOrEmpty),
    is("server_reset_query_always", "0", "pool.server_reset_query_always", Truth),
    is("server_check_delay", "30", "pool.server_check_delay", Seconds),
    is("server_check_query", "<empty>", "pool.server_check_query", TextOrEmpty),
    is("server_fast_close", "0", "pool.server_fast_close", Truth),
    is("server_lifetime", "3600", "pool.server_lifetime", Lifetime),
    is("server_idle_timeout", "600", "pool.server_idle_timeout", Seconds),
    is("server_connect_timeout", "15", "pool.server_connect_timeout", Bounded),
    is("server_login_retry", "15", "pool.server_login_retry", Seconds),
    is("client_login_timeout", "60", "limits.client_login_timeout", Bounded),
    is("autodb_idle_timeout", "3600", "limits.autodb_idle_timeout", Seconds),
    pgbouncer("pool_idle_timeout", "0", Only("0", "empty pools are not freed on a clock")),
    is("dns_max_ttl", "15", "dns.max_ttl", Seconds),
    is("dns_nxdomain_ttl", "15", "dns.nxdomain_ttl", Seconds),
    is("dns_zone_check_period", "0", "dns.zone_check_period", Seconds),
    is("resolv_conf", "", "dns.resolv_conf", Text),
    is("query_wait_notify", "5", "pool.query_wait_notify", Seconds),
    pgbouncer("login_notify_message", "", Only("", "clients cannot be greeted with a message")),
    is("query_timeout", "0", "limits.query_timeout", Seconds),
    is("query_wait_timeout", "120", "pool.query_wait_timeout", Seconds),
    is("cancel_wait_timeout", "10", "limits.cancel_wait_timeout", Bounded),
    is("client_idle_timeout", "0", "limits.client_idle_timeout", Seconds),
    is("idle_transaction_timeout", "0", "limits.idle_transaction_timeout", Seconds),
    is("transaction_timeout", "0", "limits.transaction_timeout", Seconds),
    is("suspend_timeout", "10", "limits.suspend_timeout", Bounded),
    is("client_tls_sslmode", "disable", "client_tls.mode", Word),
    is("client_tls_key_file", "", "client_tls.key_file", Text),
    is("client_tls_cert_file", "", "client_tls.cert_file", Text),
    is("client_tls_ca_file", "", "client_tls.ca_file", Text),
    is("client_tls_protocols", "secure", "client_tls.protocols", Text),
    is("client_tls_ciphers", "default", "client_tls.ciphers", Text),
    is("client_tls13_ciphers", "", "client_tls.tls13_ciphers", Text),
    is("client_tls_ecdhcurve", "auto", "client_tls.ecdhcurve", Text),
    is("client_tls_dheparams", "auto", "client_tls.dheparams", Text),
    is("server_tls_sslmode", "prefer", "server_tls.mode", Word),
    is("server_tls_ca_file", "", "server_tls.ca_file", Text),
    is("server_tls_key_file", "", "server_tls.key_file", Text),
    is("server_tls_cert_file", "", "server_tls.cert_file", Text),
    is("server_tls_protocols", "secure", "server_tls.protocols", Text),
    is("server_tls_ciphers", "default", "server_tls.ciphers", Text),
    is("server_tls13_ciphers", "", "server_tls.tls13_ciphers", Text),
    pgbouncer("pkt_buf", "4096", Inert("an idle connection has no buffer, and busy ones share one")),
    is("max_packet_size", "2147483647", "limits.max_packet_size", Number),
    is("listen_backlog", "128", "listen.backlog", Number),
    pgbouncer("sbuf_loopcnt", "5", Inert("a turn of the event loop has its own bound")),
    is("so_reuseport", "0", "listen.reuse_port", Truth),
    is("tcp_defer_accept", "1", "listen.defer_accept", Defer),
    is("tcp_socket_buffer", "0", "tcp.socket_buffer", Size),
    is("tcp_keepalive", "1", "tcp.keepalive", Truth),
    // PgBouncer leaves these three to the system, which notices a dead peer after two hours.
    is("tcp_keepcnt", "3", "tcp.keepalive_count", Number),
    is("tcp_keepidle", "15", "tcp.keepalive_idle", Seconds),
    is("tcp_keepintvl", "5", "tcp.keepalive_interval", Seconds),
    is("tcp_user_timeout", "0", "tcp.user_timeout", Millis),
    weir("workers", "1", "workers", Number),
    weir("patroni_urls", "", "patroni.urls", Words),
    weir("patroni_scope", "", "patroni.scope", Text),
    weir("max_lag", "16MB", "patroni.max_lag", Size),
    weir("read_fallback", "primary", "patroni.read_fallback", Word),
    weir("read_policy", "least-connections", "patroni.read_policy", Word),
    weir("poll_interval", "1", "patroni.poll_interval", Seconds),
    weir("poll_timeout", "1", "patroni.poll_timeout", Seconds),
    weir("hold_timeout", "60", "patroni.hold_timeout", Seconds),
    weir("defer_begin", "1", "pool.defer_begin", Truth),
    weir("monitor_user", "", "patroni.monitor_user", Text),
    weir("monitor_password_file", "", "patroni.monitor_password_file", Text),
    weir("monitor_database", "postgres", "patroni.monitor_database", Text),
    weir("switchover_wait", "10", "patroni.switchover_wait", Seconds),
    weir("patroni_username", "", "patroni.username", Text),
    weir("patroni_password_file", "", "patroni.password_file", Text),
    weir("callback_listen", "", "patroni.callback_listen", Text),
    weir("callback_token_file", "", "patroni.callback_token_file", Text),
    weir("patroni_ca_file", "", "patroni.ca_file", Text),
    weir("patroni_cert_file", "", "patroni.cert_file", Text),
    weir("patroni_key_file", "", "patroni.key_file", Text),
    weir("patroni_server_name", "", "patroni.server_name", Text),
    weir("patroni_insecure", "0", "patroni.insecure", Truth),
    Setting { section: Section::Weir, name: "read_listen_port", default: "0", meaning: Joint },
    weir("http_listen", "", "listen.http", TextOrEmpty),
    weir("auth_query_cache_time", "1", "auth.query_cache_time", Seconds),
    weir("auth_query_timeout", "5", "auth.query_timeout", Seconds),
    weir("password_file", "", "auth.password_file", Text),
    weir("max_host_connections", "0", "limits.max_host_connections", Number),
    weir("failed_logins_free", "3", "auth.failed_logins_free", Number),
    weir("failed_login_delay_max", "5", "auth.failed_login_delay_max", Seconds),
    weir("retry_bytes_max", "64kB", "limits.retry_bytes_max", Size),
    weir("shutdown_timeout", "forever", "limits.shutdown_timeout", Patience),
    weir("client_tls_crl_file", "", "client_tls.crl_file", Text),
    weir("server_tls_crl_file", "", "server_tls.crl_file", Text),
    weir("server_tls_channel_binding", "prefer", "server_tls.channel_binding", Word),
    weir("on_set", "track", "session.on_set", Word),
    weir("on_prepare", "track", "session.on_prepare", Word),
    weir("on_listen", "pin", "session.on_listen", Word),
    weir("on_advisory_lock", "pin", "session.on_advisory_lock", Word),
    weir("on_temporary_table", "pin", "session.on_temporary_table", Word),
    weir("on_hold_cursor", "pin", "session.on_hold_cursor", Word),
    weir("log_format", "text", "log.format", Word),
    Setting { section: Section::Weir, name: "log_level", default: "", meaning: Joint },
];

/// What a limit of 0 becomes where a wait needs an end.
const LONGEST: Duration = Duration::from_secs(3600);

/// What PgBouncer passes on for `tcp_defer_accept`, whatever number stands there: its manual speaks of 45 seconds, in which a
/// client that says nothing would not be seen by `client_login_timeout`.
const DEFER: Duration = Duration::from_secs(1);

/// A hundred years; the checks have closer bounds.
const MILLIS_MAX: f64 = 3.2e12;
