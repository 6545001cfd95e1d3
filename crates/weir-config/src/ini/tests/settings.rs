//! Every setting of PgBouncer's manual, and of `[weir]`, reaches the model.

use super::super::table::{Meaning, SETTINGS, Section};
use super::*;

/// A value that is not the default, in PgBouncer's notation; as SHOW CONFIG has it afterwards.
const OTHER: &[(&str, &str)] = &[
    ("logfile", "/var/log/x.log"),
    ("pidfile", "/run/x.pid"),
    ("listen_addr", "127.0.0.2,::1"),
    ("listen_port", "7000"),
    ("unix_socket_dir", "/run/x"),
    ("unix_socket_mode", "0700"),
    ("unix_socket_group", "staff"),
    ("user", "nobody"),
    ("pool_mode", "statement"),
    ("max_client_conn", "101"),
    ("default_pool_size", "21"),
    ("min_pool_size", "1"),
    ("reserve_pool_size", "2"),
    ("reserve_pool_timeout", "6.5"),
    ("max_db_connections", "3"),
    ("max_db_client_connections", "4"),
    ("max_user_connections", "5"),
    ("max_user_client_connections", "6"),
    ("server_round_robin", "1"),
    ("track_extra_parameters", "search_path, work_mem"),
    ("ignore_startup_parameters", "extra_float_digits, options"),
    ("peer_id", "7"),
    ("disable_pqexec", "1"),
    ("application_name_add_host", "1"),
    ("stats_period", "61"),
    ("max_prepared_statements", "0"),
    ("scram_iterations", "4097"),
    ("auth_type", "scram-sha-256"),
    ("auth_hba_file", "/etc/pgbouncer/hba.conf"),
    ("auth_ident_file", "/etc/pgbouncer/ident.conf"),
    ("auth_file", "/etc/pgbouncer/userlist.txt"),
    ("auth_user", "asker"),
    ("auth_query", "SELECT name, valuntil FROM lookup($1)"),
    ("auth_dbname", "users"),
    ("syslog", "1"),
    ("syslog_ident", "pool"),
    ("syslog_facility", "local7"),
    ("log_connections", "0"),
    ("log_disconnections", "0"),
    ("log_pooler_errors", "0"),
    ("log_stats", "0"),
    ("verbose", "1"),
    ("admin_users", "a, b"),
    ("stats_users", "c, d"),
    ("server_reset_query", "RESET ALL"),
    ("server_reset_query_always", "1"),
    ("server_check_delay", "0"),
    ("server_check_query", "select 1"),
    ("server_fast_close", "1"),
    ("server_lifetime", "0"),
    ("server_idle_timeout", "0"),
    ("server_connect_timeout", "2"),
    ("server_login_retry", "1"),
    ("client_login_timeout", "59"),
    ("autodb_idle_timeout", "1"),
    ("dns_max_ttl", "1"),
    ("dns_nxdomain_ttl", "2"),
    ("dns_zone_check_period", "3"),
    ("resolv_conf", "/etc/resolv.other"),
    ("query_wait_notify", "0"),
    ("query_timeout", "0.5"),
    ("query_wait_timeout", "0"),
    ("cancel_wait_timeout", "9"),
    ("client_idle_timeout", "8"),
    ("idle_transaction_timeout", "7"),
    ("transaction_timeout", "6"),
    ("suspend_timeout", "5"),
    ("client_tls_sslmode", "verify-ca"),
    ("client_tls_key_file", "/key"),
    ("client_tls_cert_file", "/crt"),
    ("client_tls_ca_file", "/crt"),
    ("client_tls_protocols", "tlsv1.3"),
    ("client_tls_ciphers", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("client_tls13_ciphers", "TLS_AES_128_GCM_SHA256"),
    ("client_tls_ecdhcurve", "prime256v1"),
    ("client_tls_dheparams", "auto"),
    ("server_tls_sslmode", "verify-full"),
    ("server_tls_ca_file", "/crt"),
    ("server_tls_key_file", "/key"),
    ("server_tls_cert_file", "/crt"),
    ("server_tls_protocols", "tlsv1.2"),
    ("server_tls_ciphers", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("server_tls13_ciphers", "TLS_AES_128_GCM_SHA256"),
    ("max_packet_size", "65536"),
    ("listen_backlog", "129"),
    ("so_reuseport", "1"),
    ("tcp_defer_accept", "0"),
    ("tcp_socket_buffer", "4096"),
    ("tcp_keepalive", "0"),
    ("tcp_keepcnt", "0"),
    ("tcp_keepidle", "0"),
    ("tcp_keepintvl", "0"),
    ("tcp_user_timeout", "1500"),
    ("auth_ldap_options", "ldapserver=d ldapbasedn=dc=x"),
    ("workers", "1"),
    ("patroni_urls", "http://n1:8008, http://n2:8008"),
    ("patroni_scope", "main"),
    ("max_lag", "1048576"),
    ("read_fallback", "wait"),
    ("read_policy", "nearest"),
    ("poll_interval", "0.5"),
    ("poll_timeout", "0.25"),
    ("hold_timeout", "30"),
    ("defer_begin", "0"),
    ("monitor_user", "watcher"),
    ("monitor_password_file", "/password"),
    ("monitor_database", "watched"),
    ("switchover_wait", "3"),
    ("patroni_username", "patroni"),
    ("patroni_password_file", "/password"),
    ("callback_listen", "127.0.0.1:9633"),
    ("callback_token_file", "/password"),
    ("patroni_ca_file", "/crt"),
    ("patroni_cert_file", "/crt"),
    ("patroni_key_file", "/key"),
    ("patroni_server_name", "patroni.internal"),
    ("patroni_insecure", "1"),
    ("read_listen_port", "7001"),
    ("http_listen", "127.0.0.1:7002"),
    ("auth_query_cache_time", "0"),
    ("auth_query_timeout", "7"),
    ("password_file", "/password"),
    ("max_host_connections", "12"),
    ("failed_logins_free", "2"),
    ("failed_login_delay_max", "6"),
    ("retry_bytes_max", "0"),
    ("shutdown_timeout", "13"),
    ("client_tls_crl_file", "/crl"),
    ("server_tls_crl_file", "/crl"),
    ("server_tls_channel_binding", "require"),
    ("on_set", "forget"),
    ("on_prepare", "pin"),
    ("on_listen", "refuse"),
    ("on_advisory_lock", "refuse"),
    ("on_temporary_table", "refuse"),
    ("on_hold_cursor", "refuse"),
    ("log_format", "json"),
    ("log_level", "debug"),
];

fn everything() -> String {
    let section = |section| {
        let lines = SETTINGS.iter().filter(move |setting| setting.section == section).filter_map(|setting| {
            let (name, value) = OTHER.iter().find(|(name, _)| *name == setting.name)?;
            Some(format!("{name} = {value}\n"))
        });
        lines.collect::<String>()
    };
    let (pgbouncer, weir) = (section(Section::PgBouncer), section(Section::Weir));
    format!("[databases]\n* = pool_size=0\n[pgbouncer]\n{pgbouncer}[weir]\n{weir}")
}

#[test]
fn every_setting_reaches_the_model_and_is_shown_from_there() {
    let Loaded { config, .. } = load_ini(&everything()).unwrap();
    let rows: BTreeMap<_, _> =
        config_rows(&config).into_iter().map(|row| (row.key, (row.value, row.default))).collect();
    for (name, value) in OTHER {
        assert_eq!(rows[*name].0, *value, "{name}");
        let cannot_differ = ["workers", "client_tls_dheparams"].contains(name);
        assert_eq!(rows[*name].1 == *value, cannot_differ, "{name} has another default");
    }
    let known = SETTINGS.iter().filter(|setting| matches!(setting.meaning, Meaning::Is(..) | Meaning::Joint));
    for setting in known {
        assert!(OTHER.iter().any(|(name, _)| *name == setting.name), "{} is not tried", setting.name);
    }
}

#[test]
fn the_defaults_in_the_table_hold_and_are_pgbouncer_s() {
    let config =
        load_ini("[pgbouncer]\nauth_type = trust\n[weir]\npatroni_urls = http://n1\n").unwrap().config;
    for row in config_rows(&config) {
        if !["auth_query", "auth_type", "patroni_urls", "log_level", "syslog_ident"]
            .contains(&row.key.as_str())
        {
            let as_written = |text: &str| match text {
                "forever" => "forever".to_owned(),
                "16MB" => (16 << 20).to_string(),
                "64kB" => (64 << 10).to_string(),
                text => text.to_owned(),
            };
            assert_eq!(row.value, as_written(&row.default), "{}", row.key);
        }
    }
    assert_eq!(config.pool.mode, PoolMode::Session);
    let problems = problems("[pgbouncer]\n");
    assert!(problems.iter().all(|problem| problem.contains("md5")), "{problems:?}");
    assert_eq!(config.limits.shutdown_timeout, None);
    assert_eq!((config.listen.write.len(), config.listen.read.len(), config.listen.http), (0, 0, None));
    assert_eq!(config.listen.unix.map(|unix| unix.dir).as_deref(), Some("/tmp"));
}

#[test]
fn defer_accept_is_on_or_off_as_in_pgbouncer() {
    let limit = |text: &str| {
        load_ini(&format!("[pgbouncer]\nauth_type = trust\ntcp_defer_accept = {text}\n"))
            .unwrap()
            .config
            .listen
            .defer_accept
    };
    assert_eq!(
        ["0", "1", "45"].map(limit),
        [None, Some(Duration::from_secs(1)), Some(Duration::from_secs(1))]
    );
}

#[test]
fn every_setting_of_weir_toml_can_be_written_here() {
    let reached: Vec<_> = SETTINGS
        .iter()
        .filter_map(|setting| match setting.meaning {
            Meaning::Is(path, _) => Some(path),
            Meaning::Joint | Meaning::Inert(_) | Meaning::Only(..) => None,
        })
        .collect();
    let joint =
        ["any_database", "listen.write", "listen.read", "listen.port", "listen.read_port", "log.level"];
    // A password of weir's own is in the user list or in a file that is named here.
    let elsewhere = [
        "upstream.url",
        "auth.password",
        "patroni.monitor_password",
        "patroni.password",
        "patroni.callback_token",
    ];
    for key in KEYS.iter().filter(|key| !elsewhere.contains(&key.path) && !joint.contains(&key.path)) {
        assert!(reached.contains(&key.path), "{} has no name in PgBouncer's file", key.path);
    }
}

#[test]
fn databases_users_and_peers_have_all_their_keys() {
    let text = "[databases]\n\
        a = dbname=b host=h port=1 user=u password=p auth_user=au auth_query='select $1' auth_dbname=ad pool_size=2 \
        min_pool_size=3 reserve_pool=4 connect_query='select ''x''' pool_mode=Statement query_wait_timeout=5 \
        load_balance_hosts=disable max_db_connections=6 max_db_client_connections=7 server_lifetime=0 \
        client_encoding=LATIN1 datestyle='ISO, DMY' timezone=UTC application_name=q\n\
        c = reserve_pool_size=8 server_lifetime=1.5\n\
        [users]\nx = pool_size=1 reserve_pool_size=2 pool_mode=session max_user_connections=3 \
        max_user_client_connections=4 query_timeout=5 query_wait_timeout=0 idle_transaction_timeout=7 \
        transaction_timeout=8 client_idle_timeout=9\n\
        [peers]\n1 = host=/tmp\n2 = host=h2 port=3 pool_size=4\n[pgbouncer]\nauth_type=trust\npeer_id=2\n";
    let config = load_ini(text).unwrap().config;
    for key in crate::ini_keys() {
        let Some((_, name)) = key.split_once('.') else { continue };
        assert!(text.contains(&format!("{name}=")), "{key} is not tried");
    }
    let seconds = Duration::from_secs;
    let a = &config.databases["a"];
    let hosts: Vec<_> = a.hosts.iter().map(|host| (host.host.as_str(), host.port)).collect();
    assert_eq!(hosts, [("h", 1)]);
    assert_eq!(a.password.as_ref().map(|password| password.expose()), Some(&b"p"[..]));
    let texts = [&a.dbname, &a.user, &a.auth_user, &a.auth_query, &a.auth_database, &a.connect_query];
    assert_eq!(
        texts.map(|text| text.as_deref().unwrap_or_default()),
        ["b", "u", "au", "select $1", "ad", "select 'x'"]
    );
    assert_eq!(
        (a.pool_size.map(u32::from), a.min_pool_size, a.reserve_pool_size),
        (Some(2), Some(3), Some(4))
    );
    assert_eq!((a.pool_mode, a.query_wait_timeout), (Some(PoolMode::Statement), Some(Some(seconds(5)))));
    assert_eq!((a.max_db_connections, a.max_db_client_connections), (Some(6), Some(7)));
    assert_eq!((a.server_lifetime, a.load_balance), (Some(Duration::ZERO), LoadBalance::Disable));
    let parameters: Vec<_> =
        a.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let given = [
        ("client_encoding", "LATIN1"),
        ("datestyle", "ISO, DMY"),
        ("timezone", "UTC"),
        ("application_name", "q"),
    ];
    assert_eq!(parameters, given);
    let c = &config.databases["c"];
    assert_eq!((c.reserve_pool_size, c.server_lifetime), (Some(8), Some(Duration::from_millis(1500))));
    let x = &config.users["x"];
    assert_eq!((x.pool_size.map(u32::from), x.reserve_pool_size), (Some(1), Some(2)));
    assert_eq!((x.pool_mode, x.max_user_connections), (Some(PoolMode::Session), Some(3)));
    assert_eq!((x.max_user_client_connections, x.query_timeout), (Some(4), Some(Some(seconds(5)))));
    assert_eq!((x.query_wait_timeout, x.idle_transaction_timeout), (Some(None), Some(Some(seconds(7)))));
    assert_eq!(
        (x.transaction_timeout, x.client_idle_timeout),
        (Some(Some(seconds(8))), Some(Some(seconds(9))))
    );
    let second = &config.peers[&2];
    assert_eq!((second.host.as_deref(), second.port), (Some("h2"), 3));
    assert_eq!(second.pool_size.map(u32::from), Some(4));
    assert_eq!((config.peers[&1].host.as_deref(), config.peers[&1].port), (Some("/tmp"), 6432));
}

#[test]
fn the_whole_can_be_said_in_weir_toml() {
    for text in [everything().as_str(), DEPLOYMENT, "[databases]\n[pgbouncer]\nauth_type=trust\n"] {
        let before = load_ini(text).unwrap().config;
        let toml = to_toml(source(text), &shelf()).unwrap();
        let after = load(Some(Source { path: Path::new("/x/weir.toml"), ..source(&toml) }), &[], &shelf());
        let mut after = after.unwrap_or_else(|problems| panic!("{problems}\n{toml}")).config;
        assert_eq!(diff(&before, &after), [], "{toml}");
        after.dialect = before.dialect;
        assert_eq!(format!("{before:?}"), format!("{after:?}"), "{toml}");
    }
}
