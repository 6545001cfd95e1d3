//! Good configurations: what comes out of them, what is warned about, and what overrules what.

use std::path::Path;
use std::time::Duration;

use weir_auth::{Secret, StoredSecret};

use super::{load_options, load_text, overrides, shelf, shown};
use crate::{AuthMethod, PoolMode, ReadFallback, Source, TlsMode, Upstream, load};

const FULL: &str = include_str!("full.toml");

#[test]
fn a_full_file_says_what_it_says() {
    let loaded = load_text(FULL).unwrap();
    assert_eq!(shown(&loaded), FULL_SHOWN);
    let [asker] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(asker.starts_with("auth_user \"asker\" has no password here: "), "{asker}");
    let config = loaded.config;
    assert_eq!(config.pool.query_wait_timeout, None);
    assert_eq!(config.pool.server_idle_timeout, None);
    assert_eq!(config.pool.server_lifetime, Some(Duration::from_secs(7200)));
    let app = &config.databases["app"];
    assert_eq!((app.dbname.as_deref(), app.pool_mode), (Some("app_v2"), Some(PoolMode::Statement)));
    assert_eq!(app.pool_size.map(u32::from), Some(3));
    assert_eq!(config.databases["a.b"], crate::Database::default());
    check_named(&config);
    assert_eq!(config.auth.users.get("weir"), Some(&StoredSecret::Plain(Secret::from("sesame"))));
    assert_eq!(config.auth.users.len(), 3);
    let Upstream::Patroni(patroni) = config.upstream else { panic!("not a cluster") };
    assert_eq!(patroni.monitor_password, Some(Secret::from("tick")));
    assert_eq!(patroni.login.password, Some(Secret::from("tick")));
    assert_eq!(patroni.read_fallback, ReadFallback::Wait);
    assert_eq!(patroni.read_policy, crate::ReadPolicy::Weighted);
}

fn check_named(config: &crate::Config) {
    let far = &config.databases["far"];
    let hosts: Vec<_> = far.hosts.iter().map(|host| (host.host.as_str(), host.port)).collect();
    let unix = [("/run/postgresql", 5432), ("/tmp", 6000), ("@pg", 6001)];
    assert_eq!(hosts, [&[("db1", 5432), ("db2", 5433), ("::1", 5434)], &unix[..]].concat());
    assert_eq!(far.load_balance, crate::LoadBalance::Disable);
    assert_eq!((far.user.as_deref(), &far.password), (Some("shared"), &Some(Secret::from("hush"))));
    assert_eq!(
        (far.auth_user.as_deref(), far.auth_query.as_deref(), far.auth_database.as_deref()),
        (Some("asker"), Some("select $1 where valuntil is null"), Some("users"))
    );
    assert_eq!((far.min_pool_size, far.reserve_pool_size), (Some(4), Some(5)));
    assert_eq!((far.server_lifetime, far.query_wait_timeout), (Some(Duration::ZERO), Some(None)));
    assert_eq!((far.max_db_connections, far.max_db_client_connections), (Some(6), Some(7)));
    assert_eq!(far.connect_query.as_deref(), Some("select 2"));
    let parameters = [("client_encoding", "LATIN1"), ("timezone", "UTC")];
    assert_eq!(far.parameters, parameters.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(config.any_database.as_ref().and_then(|any| any.pool_size), Some(crate::UNLIMITED));
    let batch = &config.users["batch"];
    let seconds = |seconds| Some(Some(Duration::from_secs(seconds)));
    assert_eq!(batch.pool_mode, Some(PoolMode::Session));
    assert_eq!((batch.pool_size.map(u32::from), batch.reserve_pool_size), (Some(8), Some(9)));
    assert_eq!((batch.max_user_connections, batch.max_user_client_connections), (Some(10), Some(11)));
    assert_eq!((batch.query_timeout, batch.query_wait_timeout), (seconds(12), Some(None)));
    assert_eq!((batch.idle_transaction_timeout, batch.transaction_timeout), (seconds(14), seconds(15)));
    assert_eq!(batch.client_idle_timeout, seconds(16));
    let peer = crate::Peer { host: Some("/tmp".into()), port: 7000, pool_size: 17.try_into().ok() };
    assert_eq!(config.peers[&1], peer);
    assert_eq!(config.peers[&2].host, None);
}

#[test]
fn databases_with_hosts_need_no_upstream_and_others_are_refused_then() {
    let auth = "[auth]\nfile = \"userlist.txt\"\n";
    let config = load_text(&format!("[databases.app]\nhosts = [\"db1\"]\n{auth}")).unwrap().config;
    assert!(matches!(config.upstream, Upstream::None) && config.any_database.is_none());
    assert!(config.database("app").is_some() && config.database("other").is_none());
    let config = load_text(&format!("[databases.\"*\"]\nhosts = [\"db1\"]\n{auth}")).unwrap().config;
    assert_eq!(config.database("other").map(|database| database.hosts.len()), Some(1));
    let config = load_text(&format!("any_database = false\n{auth}")).unwrap().config;
    assert!(config.database("other").is_none());
}

#[test]
fn doors_can_be_left_out_and_patience_can_be_endless() {
    let text = "[listen]\nwrite = []\nread = []\nhttp = \"\"\nunix_dir = \"@weir\"\nport = 7000\nread_port = 7001\n\
                [upstream]\nurl = \"postgres://db1\"\n[auth]\nfile = \"userlist.txt\"\n\
                [pool]\nserver_lifetime = 0\nserver_check_query = \"\"\n[limits]\nshutdown_timeout = \"forever\"\n";
    let config = load_text(text).unwrap().config;
    assert_eq!((config.listen.write.len(), config.listen.read.len(), config.listen.http), (0, 0, None));
    assert_eq!((config.listen.port, config.listen.read_port), (7000, Some(7001)));
    assert_eq!(config.listen.unix.map(|unix| (unix.dir, unix.mode)), Some(("@weir".to_owned(), 0o777)));
    assert_eq!((config.pool.server_lifetime, config.pool.server_check_query), (None, None));
    assert_eq!(config.limits.shutdown_timeout, None);
}

const FULL_SHOWN: &[&str] = &[
    "workers = 1",
    "any_database = true",
    "peer_id = 2",
    "listen.write = 0.0.0.0:7432, [::1]:7434",
    "listen.read = [::1]:7433",
    "listen.http = 127.0.0.1:7632",
    "listen.unix_dir = /run/weir",
    "listen.unix_mode = 0700",
    "listen.unix_group = clients",
    "listen.backlog = 5",
    "listen.reuse_port = true",
    "listen.defer_accept = 45s",
    "patroni.urls = http://n1:8008, http://n2:8008, http://[::1]:8009",
    "patroni.scope = main",
    "patroni.max_lag = 1MB",
    "patroni.read_fallback = wait",
    "patroni.read_policy = weighted",
    "patroni.poll_interval = 2s",
    "patroni.poll_timeout = 500ms",
    "patroni.hold_timeout = 90s",
    "patroni.monitor_user = watcher",
    "patroni.monitor_password_file = /etc/weir/monitor.password",
    "patroni.monitor_database = monitoring",
    "patroni.switchover_wait = 3s",
    "patroni.username = patroni",
    "patroni.password_file = /etc/weir/monitor.password",
    "patroni.callback_listen = 127.0.0.1:9633",
    "patroni.callback_token_file = /etc/weir/monitor.password",
    "patroni.ca_file = /etc/weir/servers-ca.crt",
    "patroni.cert_file = /etc/weir/weir-client.crt",
    "patroni.key_file = /etc/weir/weir-client.key",
    "patroni.server_name = patroni.internal",
    "patroni.insecure = false",
    "auth.type = scram-sha-256",
    "auth.hba_file = /etc/weir/hba.conf",
    "auth.ident_file = /etc/weir/ident.conf",
    "auth.scram_iterations = 5000",
    "auth.failed_logins_free = 1",
    "auth.failed_login_delay_max = 7s",
    "auth.file = /etc/weir/userlist.txt",
    "auth.user = weir",
    "auth.password_file = /etc/weir/weir.password",
    "auth.query = select usename, passwd from lookup($1) where valuntil is null",
    "auth.database = users",
    "auth.query_cache_time = 3s",
    "auth.query_timeout = 900ms",
    "auth.admin_users = root, alice",
    "auth.stats_users = watcher",
    "pool.mode = session",
    "pool.size = 7",
    "pool.min_size = 1",
    "pool.reserve_size = 2",
    "pool.reserve_timeout = 0",
    "pool.round_robin = true",
    "pool.query_wait_timeout = 0",
    "pool.query_wait_notify = 0",
    "pool.server_idle_timeout = 0",
    "pool.server_lifetime = 2h",
    "pool.server_connect_timeout = 3s",
    "pool.server_login_retry = 4s",
    "pool.server_check_query = select 1",
    "pool.server_check_delay = 0",
    "pool.server_reset_query_always = true",
    "pool.server_fast_close = true",
    "pool.defer_begin = false",
    "pool.max_prepared_statements = 0",
    "limits.max_client_conn = 5000",
    "limits.max_db_connections = 1",
    "limits.max_db_client_connections = 2",
    "limits.max_user_connections = 3",
    "limits.max_user_client_connections = 4",
    "limits.max_host_connections = 5",
    "limits.query_timeout = 6s",
    "limits.client_idle_timeout = 7s",
    "limits.idle_transaction_timeout = 8s",
    "limits.transaction_timeout = 9s",
    "limits.client_login_timeout = 20s",
    "limits.cancel_wait_timeout = 4s",
    "limits.suspend_timeout = 2s",
    "limits.shutdown_timeout = 0",
    "limits.autodb_idle_timeout = 0",
    "limits.retry_bytes_max = 0",
    "limits.max_packet_size = 1048576",
    "session.ignore_startup_parameters = options",
    "session.application_name_add_host = true",
    "session.disable_simple_protocol = true",
    "session.on_set = forget",
    "session.on_prepare = track",
    "session.on_listen = refuse",
    "session.on_advisory_lock = forget",
    "session.on_temporary_table = refuse",
    "session.on_hold_cursor = forget",
    "client_tls.mode = verify-ca",
    "client_tls.cert_file = /etc/weir/weir.crt",
    "client_tls.key_file = /etc/weir/weir.key",
    "client_tls.ca_file = /etc/weir/clients-ca.crt",
    "client_tls.crl_file = /etc/weir/clients.crl",
    "client_tls.protocols = tlsv1.3",
    "client_tls.ciphers = default",
    "client_tls.ecdhcurve = prime256v1",
    "client_tls.dheparams = auto",
    "server_tls.mode = verify-full",
    "server_tls.ca_file = /etc/weir/servers-ca.crt",
    "server_tls.crl_file = /etc/weir/servers.crl",
    "server_tls.cert_file = /etc/weir/weir-client.crt",
    "server_tls.key_file = /etc/weir/weir-client.key",
    "server_tls.channel_binding = prefer",
    "server_tls.protocols = secure",
    "server_tls.ciphers = ECDHE-RSA-AES128-GCM-SHA256",
    "server_tls.tls13_ciphers = TLS_AES_128_GCM_SHA256",
    "tcp.keepalive = false",
    "tcp.keepalive_idle = 1min",
    "tcp.keepalive_interval = 10s",
    "tcp.keepalive_count = 4",
    "tcp.user_timeout = 30s",
    "tcp.socket_buffer = 64kB",
    "dns.max_ttl = 1s",
    "dns.nxdomain_ttl = 0",
    "dns.zone_check_period = 1min",
    "dns.resolv_conf = /etc/weir/resolv.conf",
    "process.user = nobody",
    "process.pid_file = /run/weir.pid",
    "log.format = json",
    "log.level = warn,weir_discovery=debug",
    "log.file = /etc/weir/weir.log",
    "log.syslog = true",
    "log.syslog_ident = pool",
    "log.syslog_facility = local3",
    "log.connections = false",
    "log.disconnections = false",
    "log.pooler_errors = false",
    "log.stats = false",
    "log.stats_period = 5s",
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

const DEFAULTS_SHOWN: &[&str] = &[
    "workers = 1",
    "any_database = true",
    "peer_id = 0",
    "listen.write = 127.0.0.1:6432",
    "listen.read = 127.0.0.1:6433",
    "listen.http = 127.0.0.1:9632",
    "listen.unix_mode = 0777",
    "listen.backlog = 1024",
    "listen.reuse_port = false",
    "listen.defer_accept = 0",
    "patroni.urls = http://n1:8008, http://n2:8008",
    "patroni.max_lag = 16MB",
    "patroni.read_fallback = primary",
    "patroni.read_policy = least-connections",
    "patroni.poll_interval = 1s",
    "patroni.poll_timeout = 1s",
    "patroni.hold_timeout = 1min",
    "patroni.monitor_database = postgres",
    "patroni.switchover_wait = 10s",
    "patroni.insecure = false",
    "auth.type = scram-sha-256",
    "auth.scram_iterations = 4096",
    "auth.failed_logins_free = 3",
    "auth.failed_login_delay_max = 5s",
    "auth.file = userlist.txt",
    "auth.query_cache_time = 1s",
    "auth.query_timeout = 5s",
    "pool.mode = transaction",
    "pool.size = 20",
    "pool.min_size = 0",
    "pool.reserve_size = 0",
    "pool.reserve_timeout = 5s",
    "pool.round_robin = false",
    "pool.query_wait_timeout = 2min",
    "pool.query_wait_notify = 5s",
    "pool.server_idle_timeout = 10min",
    "pool.server_lifetime = 1h",
    "pool.server_connect_timeout = 15s",
    "pool.server_login_retry = 15s",
    "pool.server_check_query = <empty>",
    "pool.server_check_delay = 30s",
    "pool.server_reset_query = DISCARD ALL",
    "pool.server_reset_query_always = false",
    "pool.server_fast_close = false",
    "pool.defer_begin = true",
    "pool.max_prepared_statements = 200",
    "limits.max_client_conn = 1000",
    "limits.max_db_connections = 0",
    "limits.max_db_client_connections = 0",
    "limits.max_user_connections = 0",
    "limits.max_user_client_connections = 0",
    "limits.max_host_connections = 0",
    "limits.query_timeout = 0",
    "limits.client_idle_timeout = 0",
    "limits.idle_transaction_timeout = 0",
    "limits.transaction_timeout = 0",
    "limits.client_login_timeout = 1min",
    "limits.cancel_wait_timeout = 10s",
    "limits.suspend_timeout = 10s",
    "limits.shutdown_timeout = 1min",
    "limits.autodb_idle_timeout = 1h",
    "limits.retry_bytes_max = 64kB",
    "limits.max_packet_size = 2147483647",
    "session.track_extra_parameters = IntervalStyle",
    "session.application_name_add_host = false",
    "session.disable_simple_protocol = false",
    "session.on_set = track",
    "session.on_prepare = track",
    "session.on_listen = pin",
    "session.on_advisory_lock = pin",
    "session.on_temporary_table = pin",
    "session.on_hold_cursor = pin",
    "client_tls.mode = disable",
    "client_tls.protocols = secure",
    "client_tls.ciphers = default",
    "client_tls.ecdhcurve = auto",
    "client_tls.dheparams = auto",
    "server_tls.mode = prefer",
    "server_tls.channel_binding = prefer",
    "server_tls.protocols = secure",
    "server_tls.ciphers = default",
    "tcp.keepalive = true",
    "tcp.keepalive_idle = 15s",
    "tcp.keepalive_interval = 5s",
    "tcp.keepalive_count = 3",
    "tcp.user_timeout = 0",
    "tcp.socket_buffer = 0",
    "dns.max_ttl = 15s",
    "dns.nxdomain_ttl = 15s",
    "dns.zone_check_period = 0",
    "log.format = text",
    "log.level = info",
    "log.syslog = false",
    "log.syslog_ident = weir",
    "log.syslog_facility = daemon",
    "log.connections = true",
    "log.disconnections = true",
    "log.pooler_errors = true",
    "log.stats = true",
    "log.stats_period = 1min",
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
        let source = Source { path: Path::new("/etc/weir/weir.toml"), text, access: crate::Access::PRIVATE };
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
            "/etc/weir/open.txt holds secrets and every user of this machine can read it; chmod go-rwx /etc/weir/open.txt",
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
    check_warnings(
        &[cluster, list, ("--set", "server_tls.crl_file", "/etc/weir/servers.crl")],
        &[
            "server_tls.crl_file is given but no certificate is checked: set server_tls.mode to \"verify-ca\" or \
         \"verify-full\" and name a ca_file",
        ],
    );
}

#[test]
fn a_password_in_a_file_that_others_can_read_is_warned_about() {
    let warnings = |text: &str| {
        let source = Source { path: Path::new("/etc/weir/weir.toml"), text, access: super::OPEN };
        load(Some(source), &[], &shelf()).unwrap().warnings
    };
    let warned = |file: &str| {
        format!("{file} holds secrets and every user of this machine can read it; chmod go-rwx {file}")
    };
    const REST: &str = "[upstream]\nurl = \"postgres://db1\"\n[auth]\nfile = \"userlist.txt\"\n";
    for secret in [
        "[upstream]\nurl = \"postgres://u:pw@db1\"\n".to_owned(),
        format!("{REST}user = \"weir\"\npassword = \"pw\"\n"),
        format!(
            "{REST}[databases.a]\nuser = \"u\"\npassword = \"pw\"\n[databases.b]\nuser = \"u\"\npassword = \"pw\"\n"
        ),
        format!("{REST}[patroni]\nmonitor_user = \"u\"\nmonitor_password = \"pw\"\n"),
    ] {
        assert_eq!(warnings(&secret), [warned("/etc/weir/weir.toml")], "{secret}");
    }
    // Neither the place of a secret nor the name of a variable is one.
    for none in [
        REST.to_owned(),
        "[upstream]\nurl = \"postgres://u:${PASSWORD}@db1\"\n".to_owned(),
        format!("{REST}user = \"weir\"\npassword_file = \"weir.password\"\n"),
        format!("{REST}[databases.a]\nuser = \"u\"\npassword = \"${{PASSWORD}}\"\n"),
    ] {
        assert_eq!(warnings(&none), Vec::<String>::new(), "{none}");
    }
    let listed = "[upstream]\nurl = \"postgres://db1\"\n[auth]\nfile = \"open.txt\"\n";
    assert_eq!(warnings(listed), [warned("/etc/weir/open.txt")]);
}

#[test]
fn a_password_on_the_command_line_is_warned_about() {
    check_warnings(
        &[("--upstream", "upstream.url", "postgres://weir:pw@db1")],
        &[
            "the list of processes shows the password in --upstream to every user of this machine; name a file with it \
           with --auth-password-file",
        ],
    );
}

#[test]
fn secrets_come_from_files_and_from_the_environment() {
    let loaded = load_text(
        "[upstream]\nurl = \"postgres://${HOST}:5433\"\n\
         [auth]\nuser = \"${USER}\"\npassword_file = \"${CREDENTIALS_DIRECTORY}/weir.password\"\nquery = \"select $1, $$x$$ where valuntil is null\"\n\
         [databases.a]\nuser = \"u\"\npassword = \"a${PASSWORD}$${PASSWORD}\"\n\
         [databases.b]\nuser = \"u\"\npassword_file = \"monitor.password\"\nhosts = [\"${HOST}:1\", \"db2\"]\n",
    )
    .unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert!(matches!(&config.upstream, Upstream::Plain { host, port: 5433 } if host == "db1"));
    assert_eq!(config.auth.users.get("weir"), Some(&StoredSecret::Plain(Secret::from("sesame"))));
    assert_eq!(config.auth.query.as_deref(), Some("select $1, $$x$$ where valuntil is null"));
    assert_eq!(config.databases["a"].password, Some(Secret::from("ahunter2${PASSWORD}")));
    assert_eq!(config.databases["b"].password, Some(Secret::from("tick")));
    assert_eq!(config.databases["b"].hosts[0].host, "db1");
    let own = load_text(
        "[patroni]\nurls = [\"http://n1\"]\nmonitor_user = \"m\"\nmonitor_password = \"tack\"\n\
                         [auth]\nuser = \"weir\"\npassword = \"${PASSWORD}\"\n",
    )
    .unwrap();
    assert_eq!(own.config.auth.users.get("weir"), Some(&StoredSecret::Plain(Secret::from("hunter2"))));
    let Upstream::Patroni(patroni) = &own.config.upstream else { panic!("not a cluster") };
    assert_eq!(patroni.monitor_password, Some(Secret::from("tack")));
    // What is shown of all that, and all that Debug says, holds none of them.
    let shown = format!("{:?}{:?}{:?}{:?}", shown(&own), own.config, config, crate::config_rows(&own.config));
    for secret in ["hunter2", "tack", "tick", "sesame"] {
        assert!(!shown.contains(secret), "{shown}");
    }
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
    let loaded = load_text(
        "[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"userlist.txt\"\n[databases.app]\nauth_user = \"weir_scram\"\n",
    )
    .unwrap();
    assert_eq!(loaded.config.auth.query.as_deref(), Some(crate::DEFAULT_AUTH_QUERY), "somebody runs it");
    let warnings = [format!("auth_user \"weir_scram\" has only a SCRAM verifier: {sentence}")];
    assert_eq!(loaded.warnings, warnings);
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
