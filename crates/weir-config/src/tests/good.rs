//! Good configurations: what comes out of them, what is warned about, and what overrules what.

use std::path::Path;
use std::time::Duration;

use weir_auth::{Secret, StoredSecret};

use super::{load_options, load_text, overrides, shelf, shown};
use crate::{AuthMethod, PoolMode, ReadFallback, Source, TlsMode, Upstream, load};

const FULL: &str = r#"
workers = 1
[listen]
write = "*:7432"
read = "[::1]:7433"
http = "localhost:7632"
[patroni]
urls = ["http://n1:8008", "http://n2/", "http://[::1]:8009", "http://n1"]
scope = "main"
max_lag = "1MB"
read_fallback = "wait"
poll_interval = "2s"
poll_timeout = "500ms"
hold_timeout = "90s"
monitor_user = "watcher"
monitor_password_file = "monitor.password"
monitor_database = "monitoring"
[auth]
type = "scram-sha-256"
hba_file = "hba.conf"
ident_file = "ident.conf"
scram_iterations = 5000
file = "userlist.txt"
user = "weir"
password_file = "weir.password"
query = "select usename, passwd from lookup($1) where valuntil is null"
database = "users"
admin_users = ["root", "alice"]
stats_users = ["watcher"]
[pool]
mode = "session"
size = 7
query_wait_timeout = 0
server_idle_timeout = "0"
server_lifetime = "2h"
server_connect_timeout = "3s"
server_reset_query = ""
max_prepared_statements = 0
[databases.app]
dbname = "app_v2"
pool_mode = "statement"
pool_size = 3
[databases."a.b"]
[limits]
max_client_conn = 5000
client_login_timeout = "20s"
cancel_wait_timeout = "4s"
retry_bytes_max = 0
shutdown_timeout = "0s"
[client_tls]
mode = "verify-ca"
cert_file = "weir.crt"
key_file = "weir.key"
ca_file = "clients-ca.crt"
protocols = "tlsv1.3"
ecdhcurve = "prime256v1"
dheparams = "none"
[server_tls]
mode = "verify-full"
ca_file = "servers-ca.crt"
cert_file = "/etc/weir/weir-client.crt"
key_file = "weir-client.key"
ciphers = "ECDHE-RSA-AES128-GCM-SHA256"
tls13_ciphers = "TLS_AES_128_GCM_SHA256"
[log]
format = "json"
level = "warn,weir_discovery=debug"
"#;

#[test]
fn a_full_file_says_what_it_says() {
    let loaded = load_text(FULL).unwrap();
    assert_eq!(shown(&loaded), FULL_SHOWN);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert_eq!(config.pool.query_wait_timeout, None);
    assert_eq!(config.pool.server_idle_timeout, None);
    assert_eq!(config.pool.server_lifetime, Some(Duration::from_secs(7200)));
    let app = &config.databases["app"];
    assert_eq!((app.dbname.as_deref(), app.pool_mode), (Some("app_v2"), Some(PoolMode::Statement)));
    assert_eq!(app.pool_size.map(u32::from), Some(3));
    assert_eq!(config.databases["a.b"], crate::Database::default());
    assert_eq!(config.auth.users.get("weir"), Some(&StoredSecret::Plain(Secret::from("sesame"))));
    assert_eq!(config.auth.users.len(), 3);
    let Upstream::Patroni(patroni) = config.upstream else { panic!("not a cluster") };
    assert_eq!(patroni.monitor_password, Some(Secret::from("tick")));
    assert_eq!(patroni.read_fallback, ReadFallback::Wait);
}

const FULL_SHOWN: [&str; 54] = [
    "workers = 1",
    "listen.write = 0.0.0.0:7432",
    "listen.read = [::1]:7433",
    "listen.http = 127.0.0.1:7632",
    "patroni.urls = http://n1:8008, http://n2:8008, http://[::1]:8009",
    "patroni.scope = main",
    "patroni.max_lag = 1MB",
    "patroni.read_fallback = wait",
    "patroni.poll_interval = 2s",
    "patroni.poll_timeout = 500ms",
    "patroni.hold_timeout = 90s",
    "patroni.monitor_user = watcher",
    "patroni.monitor_password_file = /etc/weir/monitor.password",
    "patroni.monitor_database = monitoring",
    "auth.type = scram-sha-256",
    "auth.hba_file = /etc/weir/hba.conf",
    "auth.ident_file = /etc/weir/ident.conf",
    "auth.scram_iterations = 5000",
    "auth.file = /etc/weir/userlist.txt",
    "auth.user = weir",
    "auth.password_file = /etc/weir/weir.password",
    "auth.query = select usename, passwd from lookup($1) where valuntil is null",
    "auth.database = users",
    "auth.admin_users = root, alice",
    "auth.stats_users = watcher",
    "pool.mode = session",
    "pool.size = 7",
    "pool.query_wait_timeout = 0",
    "pool.server_idle_timeout = 0",
    "pool.server_lifetime = 2h",
    "pool.server_connect_timeout = 3s",
    "pool.max_prepared_statements = 0",
    "limits.max_client_conn = 5000",
    "limits.client_login_timeout = 20s",
    "limits.cancel_wait_timeout = 4s",
    "limits.retry_bytes_max = 0",
    "limits.shutdown_timeout = 0",
    "client_tls.mode = verify-ca",
    "client_tls.cert_file = /etc/weir/weir.crt",
    "client_tls.key_file = /etc/weir/weir.key",
    "client_tls.ca_file = /etc/weir/clients-ca.crt",
    "client_tls.protocols = tlsv1.3",
    "client_tls.ciphers = default",
    "client_tls.ecdhcurve = prime256v1",
    "client_tls.dheparams = auto",
    "server_tls.mode = verify-full",
    "server_tls.ca_file = /etc/weir/servers-ca.crt",
    "server_tls.cert_file = /etc/weir/weir-client.crt",
    "server_tls.key_file = /etc/weir/weir-client.key",
    "server_tls.protocols = secure",
    "server_tls.ciphers = ECDHE-RSA-AES128-GCM-SHA256",
    "server_tls.tls13_ciphers = TLS_AES_128_GCM_SHA256",
    "log.format = json",
    "log.level = warn,weir_discovery=debug",
];

#[test]
fn the_defaults_are_these() {
    let loaded = load_options(&[
        ("--patroni", "patroni.urls", "http://n1:8008,http://n2:8008"),
        ("--auth-file", "auth.file", "userlist.txt"),
    ])
    .unwrap();
    assert_eq!(shown(&loaded), DEFAULTS_SHOWN);
    assert_eq!(loaded.config.auth.query, None, "nobody to run it");
}

const DEFAULTS_SHOWN: [&str; 37] = [
    "workers = 1",
    "listen.write = 127.0.0.1:6432",
    "listen.read = 127.0.0.1:6433",
    "listen.http = 127.0.0.1:9632",
    "patroni.urls = http://n1:8008, http://n2:8008",
    "patroni.max_lag = 16MB",
    "patroni.read_fallback = primary",
    "patroni.poll_interval = 1s",
    "patroni.poll_timeout = 1s",
    "patroni.hold_timeout = 1min",
    "patroni.monitor_database = postgres",
    "auth.type = scram-sha-256",
    "auth.scram_iterations = 4096",
    "auth.file = userlist.txt",
    "pool.mode = transaction",
    "pool.size = 20",
    "pool.query_wait_timeout = 2min",
    "pool.server_idle_timeout = 10min",
    "pool.server_lifetime = 1h",
    "pool.server_connect_timeout = 15s",
    "pool.server_reset_query = DISCARD ALL",
    "pool.max_prepared_statements = 200",
    "limits.max_client_conn = 1000",
    "limits.client_login_timeout = 1min",
    "limits.cancel_wait_timeout = 10s",
    "limits.retry_bytes_max = 64kB",
    "limits.shutdown_timeout = 1min",
    "client_tls.mode = disable",
    "client_tls.protocols = secure",
    "client_tls.ciphers = default",
    "client_tls.ecdhcurve = auto",
    "client_tls.dheparams = auto",
    "server_tls.mode = prefer",
    "server_tls.protocols = secure",
    "server_tls.ciphers = default",
    "log.format = text",
    "log.level = info",
];

#[test]
fn a_url_brings_its_credentials_and_its_tls() {
    let url = "postgres://admin:p%40ss@db1:5433/users?sslmode=verify-ca&sslrootcert=/etc/weir/servers-ca.crt";
    let config = load_options(&[("--upstream", "upstream.url", url)]).unwrap().config;
    assert!(matches!(&config.upstream, Upstream::Plain { host, port: 5433 } if host == "db1"));
    assert_eq!(config.auth.user.as_deref(), Some("admin"));
    assert_eq!(config.auth.query.as_deref(), Some(crate::DEFAULT_AUTH_QUERY));
    assert_eq!(config.auth.database.as_deref(), Some("users"));
    assert_eq!(config.auth.users.get("admin"), Some(&StoredSecret::Plain(Secret::from("p@ss"))));
    assert_eq!(config.server_tls.mode, TlsMode::VerifyCa);
    assert_eq!(config.server_tls.ca_file.as_deref(), Some(Path::new("/etc/weir/servers-ca.crt")));
    assert!(!format!("{config:?}").contains("p@ss"), "secrets must not be printed");
}

#[test]
fn options_overrule_the_file_and_explicit_ones_overrule_a_url() {
    let load = |text, options: &[(&'static str, &'static str, &str)]| {
        let source = Source { path: Path::new("/etc/weir/weir.toml"), text, world_readable: false };
        load(Some(source), &overrides(options), &shelf()).unwrap().config
    };
    let config = load(
        FULL,
        &[
            ("--upstream", "upstream.url", "postgres://u:pw@db1?sslmode=require"),
            ("--pool-size", "pool.size", "33"),
            ("--admin-user", "auth.admin_users", "bob"),
            ("--auth-file", "auth.file", "userlist.txt"),
        ],
    );
    assert!(
        matches!(&config.upstream, Upstream::Plain { host, .. } if host == "db1"),
        "the file's cluster is replaced"
    );
    assert_eq!(config.pool.size.get(), 33);
    assert_eq!(config.auth.admin_users, ["bob"]);
    assert_eq!(config.auth.user.as_deref(), Some("u"), "the URL of an option beats a line of the file");
    assert_eq!(config.server_tls.mode, TlsMode::Require);
    assert_eq!(
        config.auth.file.as_deref(),
        Some(Path::new("userlist.txt")),
        "relative to the working directory"
    );

    let config = load(
        "[upstream]\nurl = \"postgres://u:pw@db1?sslmode=require\"\n[server_tls]\nmode = \"disable\"\n",
        &[("--auth-user", "auth.user", "alice"), ("--auth-file", "auth.file", "userlist.txt")],
    );
    assert_eq!(config.server_tls.mode, TlsMode::Disable, "what is written out beats the URL beside it");
    assert_eq!(config.auth.user.as_deref(), Some("alice"));
}

#[track_caller]
fn check_warnings(options: &[(&'static str, &'static str, &str)], expected: &[&str]) {
    let warnings = load_options(options).unwrap().warnings;
    assert_eq!(warnings, expected);
}

#[test]
fn what_is_allowed_and_odd_is_warned_about() {
    let cluster = ("--patroni", "patroni.urls", "http://n1");
    let list = ("--auth-file", "auth.file", "/etc/weir/userlist.txt");
    check_warnings(&[cluster, list], &[]);
    check_warnings(
        &[cluster, ("--auth-type", "auth.type", "trust"), ("--stats-user", "auth.stats_users", "x")],
        &[
            "auth type \"trust\": anybody who reaches weir is let in under any name, without a password",
            "auth type \"trust\" with console users: anybody can use the console under their names",
        ],
    );
    check_warnings(
        &[cluster, ("--auth-file", "auth.file", "/etc/weir/open.txt")],
        &[
            "/etc/weir/open.txt holds secrets and every user of this machine can read it; chmod o-rwx /etc/weir/open.txt",
        ],
    );
    check_warnings(
        &[cluster, ("--auth-file", "auth.file", "/etc/weir/empty.txt")],
        &["the user list is empty and there is no auth.user: nobody can log in"],
    );
    check_warnings(
        &[cluster, ("--auth-file", "auth.file", "/etc/weir/md5.txt")],
        &[
            "1 of 1 users have md5 secrets, which SCRAM-SHA-256 cannot check: they cannot log in until they have a new \
         password or verifier",
        ],
    );
    check_warnings(
        &[cluster, list, ("--client-tls-cert", "client_tls.cert_file", "/etc/weir/weir.crt")],
        &["client_tls.cert_file is given but client_tls.mode is \"disable\": clients cannot use TLS; \
         set the mode to \"prefer\" or \"require\""],
    );
}

#[test]
fn a_password_in_a_file_that_everybody_can_read_is_warned_about() {
    let warnings = |text| {
        let source = Source { path: Path::new("/etc/weir/weir.toml"), text, world_readable: true };
        load(Some(source), &[], &shelf()).unwrap().warnings
    };
    assert_eq!(
        warnings("[upstream]\nurl = \"postgres://u:pw@db1\"\n"),
        [
            "/etc/weir/weir.toml holds secrets and every user of this machine can read it; chmod o-rwx /etc/weir/weir.toml",
        ]
    );
    let without = "[upstream]\nurl = \"postgres://db1\"\n[auth]\nfile = \"userlist.txt\"\n";
    assert_eq!(warnings(without), Vec::<String>::new());
}

#[test]
fn an_auth_user_without_a_usable_secret_is_warned_about() {
    let sentence = "auth_query needs its password (in the user list or auth.password_file) or trust in pg_hba.conf; \
                    a verifier alone cannot log in to PostgreSQL, because it does not contain the client key";
    let with = |user| {
        [
            ("--patroni", "patroni.urls", "http://n1"),
            ("--auth-file", "auth.file", "userlist.txt"),
            ("--auth-user", "auth.user", user),
        ]
    };
    check_warnings(&with("alice"), &[]);
    check_warnings(
        &with("weir_scram"),
        &[&format!("auth.user \"weir_scram\" has only a SCRAM verifier: {sentence}")],
    );
    check_warnings(&with("nobody"), &[&format!("auth.user \"nobody\" has no password here: {sentence}")]);
    let mut own_query = with("alice").to_vec();
    own_query.push(("--auth-query", "auth.query", "select * from lookup($1)"));
    check_warnings(
        &own_query,
        &[
            "auth.query does not look at VALID UNTIL: expired passwords are let in unless the query leaves them out",
        ],
    );
}

#[test]
fn trust_needs_to_be_written_and_then_holds() {
    let options = [("--upstream", "upstream.url", "postgres://db1"), ("--auth-type", "auth.type", "trust")];
    assert_eq!(load_options(&options).unwrap().config.auth.method, AuthMethod::Trust);
}
