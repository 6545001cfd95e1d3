//! From settings as written to the model: every value checked, relations between values too. Login has its own file.
//! Opens no file; contents are handed in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::Source;
use crate::key::WORKERS_MAX;
use crate::logins::check_auth;
use crate::model::{
    ClientTls, Config, Database, Dns, Limits, Listen, Log, Patroni, PoolSettings, Process, ServerTls,
    SessionSettings, Tcp, TlsMode, TlsOffer, Upstream,
};
use crate::problem::{Place, Wrong};
use crate::reader::{Reader, Secrecy};
use crate::tls;
use crate::url::{PostgresUrl, patroni_base};
use crate::value::{
    LOG_FORMATS, POOL_MODES, READ_FALLBACKS, TLS_MODES, Value, bytes, count, duration, duration_or_never,
    listen_address, log_level, text, text_or_empty, word, words,
};

/// Checks everything. `None` only if something is wrong, which is noted.
pub(crate) fn check(reader: &mut Reader<'_>) -> Option<Config> {
    let url = read_upstream_url(reader);
    let listen = check_listen(reader);
    let patroni = check_patroni(reader);
    let auth = check_auth(reader, url.as_ref());
    let pool = check_pool(reader);
    let databases = check_databases(reader);
    let limits = check_limits(reader);
    let client_tls = check_client_tls(reader);
    let server_tls = check_server_tls(reader);
    let log = Log {
        format: reader.required("log.format", word(LOG_FORMATS)),
        level: reader.required("log.level", log_level),
        file: None,
        syslog: None,
        connections: true,
        disconnections: true,
        pooler_errors: true,
        stats: true,
        stats_period: MINUTE,
    };
    let workers = reader.required("workers", workers);
    let upstream = choose_upstream(reader, url, patroni)?;
    Some(Config {
        listen,
        upstream,
        auth,
        pool,
        databases,
        any_database: Some(Database::default()),
        users: BTreeMap::new(),
        peers: BTreeMap::new(),
        peer_id: 0,
        limits,
        client_tls,
        server_tls,
        session: SessionSettings::default(),
        tcp: Tcp::default(),
        dns: Dns::default(),
        process: Process::default(),
        log,
        workers,
    })
}

/// Reads the URL and spreads what it says over the settings that say the same.
fn read_upstream_url(reader: &mut Reader<'_>) -> Option<PostgresUrl> {
    let url = reader.optional("upstream.url", |value| PostgresUrl::parse(&text(value)?))?;
    let place = reader.settings.items.get("upstream.url")?.place.clone();
    if let (Some(Source { path, world_readable: true, .. }), Place::Line(..), Some(_)) =
        (reader.source, &place, &url.password)
    {
        reader.warn_readable(path);
    }
    let says = [
        ("auth.user", url.user.clone()),
        ("auth.database", url.database.clone()),
        ("server_tls.mode", url.tls_mode.map(|mode| crate::value::name_of(TLS_MODES, &mode).to_owned())),
        ("server_tls.ca_file", url.ca_file.clone()),
        ("server_tls.cert_file", url.cert_file.clone()),
        ("server_tls.key_file", url.key_file.clone()),
    ];
    for (key, value) in says {
        if let Some(value) = value {
            reader.settings.derive(key, Value::Text(value), &place);
        }
    }
    Some(url)
}

fn choose_upstream(
    reader: &mut Reader<'_>,
    url: Option<PostgresUrl>,
    patroni: Option<Patroni>,
) -> Option<Upstream> {
    if reader.is_given("upstream.url") && reader.is_given("patroni.urls") {
        let remedy = "keep upstream.url for one PostgreSQL server, or patroni.urls for a cluster";
        reader.complain(
            "upstream.url",
            Wrong::new("there are two upstreams, this one and patroni.urls", remedy),
        );
        return None;
    }
    if !reader.is_given("upstream.url") && !reader.is_given("patroni.urls") {
        let remedy = if reader.source.is_some() {
            "write url = \"postgres://host:5432\" in [upstream] for one server, \
             or urls = [\"http://host:8008\"] in [patroni] for a cluster"
        } else {
            "give --upstream postgres://host:5432 for one server, --patroni http://host:8008 for a cluster, \
             or a configuration file"
        };
        reader.complain_at(reader.somewhere(), "upstream.url", Wrong::new("nothing to connect to", remedy));
        return None;
    }
    match url {
        Some(PostgresUrl { host, port, .. }) => Some(Upstream::Plain { host, port }),
        None => patroni.map(Upstream::Patroni),
    }
}

fn check_listen(reader: &mut Reader<'_>) -> Listen {
    const KEYS: [&str; 3] = ["listen.write", "listen.read", "listen.http"];
    let [write, read, http] = KEYS.map(|key| reader.required(key, listen_address));
    for (left, right) in [(0, 1), (0, 2), (1, 2)] {
        let addresses = [write, read, http];
        if clash(addresses[left], addresses[right]) {
            let what = format!("{} and {} are the same", KEYS[left], KEYS[right]);
            let remedy = "give each of the listeners a port of its own";
            let key = if reader.is_given(KEYS[right]) { KEYS[right] } else { KEYS[left] };
            reader.complain(key, Wrong::new(what, remedy));
        }
    }
    Listen {
        write: vec![write],
        read: vec![read],
        http: Some(http),
        unix: None,
        port: write.port(),
        read_port: Some(read.port()),
        backlog: 1024,
        reuse_port: false,
        defer_accept: None,
    }
}

/// Whether both cannot be listened on. Port 0 lets the kernel choose a free one, a different one each time.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let anywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (anywhere || one.ip() == other.ip())
}

fn check_patroni(reader: &mut Reader<'_>) -> Option<Patroni> {
    let urls = reader.optional("patroni.urls", patroni_urls).unwrap_or_default();
    let monitor_password_file = reader.path("patroni.monitor_password_file");
    let monitor_password = monitor_password_file
        .as_deref()
        .and_then(|file| crate::logins::read_password(reader, "patroni.monitor_password_file", file));
    let monitor_user = reader.optional("patroni.monitor_user", text);
    if monitor_password_file.is_some() && !reader.is_given("patroni.monitor_user") {
        let wrong = Wrong::new("is a password for nobody", "name its user as patroni.monitor_user");
        reader.complain("patroni.monitor_password_file", wrong);
    }
    let patroni = Patroni {
        urls,
        scope: reader.optional("patroni.scope", text),
        max_lag_bytes: reader.required("patroni.max_lag", bytes(1 << 50)),
        read_fallback: reader.required("patroni.read_fallback", word(READ_FALLBACKS)),
        poll_interval: reader.required("patroni.poll_interval", duration(millis(100)..=MINUTE)),
        poll_timeout: reader.required("patroni.poll_timeout", duration(millis(50)..=MINUTE)),
        hold_timeout: reader.required("patroni.hold_timeout", duration(millis(1)..=DAY)),
        monitor_user,
        monitor_password_file,
        monitor_password,
        monitor_database: reader.required("patroni.monitor_database", text),
    };
    (!patroni.urls.is_empty()).then_some(patroni)
}

fn patroni_urls(value: &Value) -> Result<Vec<String>, Wrong> {
    let mut bases = Vec::new();
    for url in words(value)? {
        let base = patroni_base(&url)?;
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    if bases.is_empty() {
        return Err(Wrong::new(
            "is empty",
            "name the REST API of one member or more, such as \"http://host:8008\"",
        ));
    }
    Ok(bases)
}

fn check_pool(reader: &mut Reader<'_>) -> PoolSettings {
    PoolSettings {
        mode: reader.required("pool.mode", word(POOL_MODES)),
        size: reader.required("pool.size", pool_size),
        min_size: 0,
        reserve_size: 0,
        reserve_timeout: Some(Duration::from_secs(5)),
        round_robin: false,
        query_wait_timeout: reader.required("pool.query_wait_timeout", duration_or_never(millis(1)..=DAY)),
        query_wait_notify: Some(Duration::from_secs(5)),
        server_login_retry: Duration::from_secs(15),
        server_check_query: Some(String::new()),
        server_check_delay: Duration::from_secs(30),
        server_reset_query_always: false,
        server_fast_close: false,
        server_idle_timeout: reader
            .required("pool.server_idle_timeout", duration_or_never(millis(1)..=DAY * 30)),
        server_lifetime: reader.required("pool.server_lifetime", duration_or_never(millis(1)..=DAY * 30)),
        server_connect_timeout: reader
            .required("pool.server_connect_timeout", duration(millis(10)..=MINUTE * 10)),
        server_reset_query: reader.required("pool.server_reset_query", server_reset_query),
        max_prepared_statements: reader.required("pool.max_prepared_statements", count(0..=100_000)),
    }
}

fn server_reset_query(value: &Value) -> Result<String, Wrong> {
    let query = text_or_empty(value)?;
    if query.contains('\0') {
        return Err(Wrong::new("holds a NUL character", "write plain SQL, such as \"DISCARD ALL\""));
    }
    Ok(query)
}

fn check_databases(reader: &mut Reader<'_>) -> BTreeMap<String, Database> {
    let mut databases = BTreeMap::new();
    for (name, place) in reader.settings.databases.clone() {
        let path = format!("databases.{name}");
        if CONSOLE_DATABASES.contains(&name.as_str()) {
            let wrong = Wrong::new(
                "this name is the console's",
                "give the database another name, and set its dbname",
            );
            reader.complain_at(place, &path, wrong);
            continue;
        }
        if name == "*" {
            let what = "there is no section for all databases";
            let wrong =
                Wrong::new(what, "leave it out: every database can be reached, and [pool] holds for all");
            reader.complain_at(place, &path, wrong);
            continue;
        }
        if name.is_empty() {
            reader.complain_at(place, &path, Wrong::new("has no name", "write [databases.NAME]"));
            continue;
        }
        let database = Database {
            dbname: reader.optional(&format!("{path}.dbname"), text),
            pool_mode: reader.optional(&format!("{path}.pool_mode"), word(POOL_MODES)),
            pool_size: reader.optional(&format!("{path}.pool_size"), pool_size),
            ..Database::default()
        };
        databases.insert(name, database);
    }
    databases
}

fn check_limits(reader: &mut Reader<'_>) -> Limits {
    let retry_bytes_max = reader.required("limits.retry_bytes_max", bytes(16 << 20));
    Limits {
        max_client_conn: reader.required("limits.max_client_conn", count(1..=1_000_000)),
        max_db_connections: 0,
        max_db_client_connections: 0,
        max_user_connections: 0,
        max_user_client_connections: 0,
        max_host_connections: 0,
        query_timeout: None,
        client_idle_timeout: None,
        idle_transaction_timeout: None,
        transaction_timeout: None,
        autodb_idle_timeout: Some(MINUTE * 60),
        suspend_timeout: Duration::from_secs(10),
        max_packet_size: i32::MAX.unsigned_abs(),
        client_login_timeout: reader.required("limits.client_login_timeout", duration(millis(100)..=DAY)),
        cancel_wait_timeout: reader
            .required("limits.cancel_wait_timeout", duration(millis(100)..=MINUTE * 10)),
        retry_bytes_max: usize::try_from(retry_bytes_max).unwrap_or(usize::MAX),
        shutdown_timeout: Some(reader.required("limits.shutdown_timeout", duration(Duration::ZERO..=DAY))),
    }
}

fn check_client_tls(reader: &mut Reader<'_>) -> ClientTls {
    let mode = reader.required("client_tls.mode", word(TLS_MODES));
    let tls = ClientTls {
        mode,
        cert_file: pem(reader, "client_tls.cert_file", Pem::Certificate),
        key_file: pem(reader, "client_tls.key_file", Pem::Key),
        ca_file: pem(reader, "client_tls.ca_file", Pem::Certificate),
        offer: tls_offer(reader, "client_tls"),
    };
    reader.optional("client_tls.dheparams", tls::dheparams);
    let off = mode == TlsMode::Disable;
    for key in ["client_tls.cert_file", "client_tls.key_file"] {
        if !off && !reader.is_given(key) {
            let what = format!("{} needs a certificate and its key", shown_mode(mode));
            reader.complain(
                key,
                Wrong::new(what, "name the PEM file (options --client-tls-cert, --client-tls-key)"),
            );
        }
    }
    need_authority(reader, "client_tls.ca_file", mode, "--client-tls-ca");
    if off && tls.cert_file.is_some() {
        reader.warn(
            "client_tls.cert_file is given but client_tls.mode is \"disable\": clients cannot use TLS; \
             set the mode to \"prefer\" or \"require\"",
        );
    }
    tls
}

fn check_server_tls(reader: &mut Reader<'_>) -> ServerTls {
    let mode = reader.required("server_tls.mode", word(TLS_MODES));
    let tls = ServerTls {
        mode,
        ca_file: pem(reader, "server_tls.ca_file", Pem::Certificate),
        cert_file: pem(reader, "server_tls.cert_file", Pem::Certificate),
        key_file: pem(reader, "server_tls.key_file", Pem::Key),
        offer: tls_offer(reader, "server_tls"),
    };
    need_authority(reader, "server_tls.ca_file", mode, "--server-tls-ca");
    let pair = ["server_tls.cert_file", "server_tls.key_file"];
    if let [true, false] | [false, true] = pair.map(|key| reader.is_given(key)) {
        let wrong = Wrong::new(
            "a certificate and its key belong together",
            "give both cert_file and key_file, or neither",
        );
        reader.complain(if reader.is_given(pair[0]) { pair[0] } else { pair[1] }, wrong);
    }
    tls
}

fn tls_offer(reader: &mut Reader<'_>, section: &str) -> TlsOffer {
    let (v1_2, v1_3) = reader.required(&format!("{section}.protocols"), tls::protocols);
    let sane = TlsOffer::default();
    TlsOffer {
        v1_2,
        v1_3,
        ciphers: reader.required(&format!("{section}.ciphers"), tls::ciphers),
        tls13_ciphers: reader
            .optional(&format!("{section}.tls13_ciphers"), tls::tls13_ciphers)
            .unwrap_or(sane.tls13_ciphers),
        groups: reader.optional(&format!("{section}.ecdhcurve"), tls::groups).unwrap_or(sane.groups),
    }
}

fn need_authority(reader: &mut Reader<'_>, key: &str, mode: TlsMode, option: &str) {
    if mode >= TlsMode::VerifyCa && !reader.is_given(key) {
        let what =
            format!("{} needs the authorities that sign the other side's certificates", shown_mode(mode));
        reader.complain(key, Wrong::new(what, format!("name their PEM file (option {option})")));
    }
}

fn shown_mode(mode: TlsMode) -> String {
    format!("mode {:?}", crate::value::name_of(TLS_MODES, &mode))
}

/// What a PEM file has to hold (RFC 7468).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pem {
    Certificate,
    Key,
}

/// A PEM file's path, after a look whether the right kind of thing is in it. Parsing it is TLS's business.
fn pem(reader: &mut Reader<'_>, key: &str, kind: Pem) -> Option<std::path::PathBuf> {
    let path = reader.path(key)?;
    let (secrecy, label, noun) = match kind {
        Pem::Certificate => (Secrecy::Public, "CERTIFICATE-----", "certificate"),
        Pem::Key => (Secrecy::Secret, "PRIVATE KEY-----", "private key"),
    };
    let contents = reader.contents(key, &path, secrecy)?;
    let found = String::from_utf8_lossy(contents.expose())
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(label));
    if !found {
        let what = format!("{} holds no PEM {noun}", path.display());
        reader.complain(key, Wrong::new(what, format!("name a file with a line -----BEGIN ... {label}")));
    }
    Some(path)
}

fn pool_size(value: &Value) -> Result<NonZeroU32, Wrong> {
    // The count's lower bound is 1, so the fallback is never taken.
    count(1..=POOL_SIZE_MAX)(value).map(|size| NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN))
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

/// PostgreSQL's own `max_connections` ends at 262143.
const POOL_SIZE_MAX: u32 = 262_143;

/// Client-facing names that reach the console instead of a database.
pub const CONSOLE_DATABASES: [&str; 2] = ["pgbouncer", "weir"];
