//! What whole files mean: the deployment, clusters, what has no meaning, SET, and what is refused.

use super::*;

#[test]
fn the_deployment_means_what_it_says() {
    let Loaded { config, warnings } = load_ini(DEPLOYMENT).unwrap();
    assert_eq!(config.pool.mode, PoolMode::Transaction);
    assert_eq!(config.pool.size.get(), 50);
    assert_eq!(
        (config.auth.method, config.auth.user.as_deref()),
        (AuthMethod::ScramSha256, Some("pgbouncer"))
    );
    assert_eq!(config.databases.keys().collect::<Vec<_>>(), ["mrg", "mrg_read"]);
    assert!(config.database("other").is_none());
    assert!(matches!(config.upstream, Upstream::None));
    let addresses: Vec<_> = config.listen.write.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:6432", "[::]:6432"]);
    assert!(warnings.iter().any(|warning| warning.contains("auth_query needs its password")), "{warnings:?}");
}

#[test]
fn a_database_without_a_host_follows_the_cluster() {
    let text = "[databases]\napp=\nfar = host=h\n[pgbouncer]\nauth_type=trust\n[weir]\npatroni_urls = http://n1, http://n2\n";
    let config = load_ini(text).unwrap().config;
    let Upstream::Patroni(patroni) = &config.upstream else { panic!("no cluster") };
    assert_eq!(patroni.urls, ["http://n1:8008", "http://n2:8008"]);
    assert!(config.databases["app"].hosts.is_empty() && config.databases["far"].hosts.len() == 1);
}

#[test]
fn the_fallback_database_stands_for_all_others() {
    let config =
        load_ini("[databases]\n* = host=h pool_size=3\n[pgbouncer]\nauth_type=trust\n").unwrap().config;
    let database = config.database("anything").unwrap();
    assert_eq!((database.hosts[0].host.as_str(), database.pool_size.map(u32::from)), ("h", Some(3)));
}

#[test]
fn an_auth_query_can_have_its_user_at_a_single_database() {
    let query = "auth_file=/etc/pgbouncer/userlist.txt\nauth_query=select a, valuntil from f($1)\n";
    let text = format!("[databases]\na = host=h auth_user=asker\n[pgbouncer]\nauth_type=trust\n{query}");
    assert!(load_ini(&text).unwrap().config.auth.query.is_some());
}

// covers: conffile service_name job_name pkt_buf sbuf_loopcnt
#[test]
fn what_has_no_meaning_is_said_once() {
    let text = "[pgbouncer]\nauth_type=trust\npkt_buf=8192\nsbuf_loopcnt=1\nservice_name=x\njob_name=y\n\
                conffile=/p.ini\n[databases]\na = password=x\n";
    let warnings = load_ini(text).unwrap().warnings;
    let listed = "these settings have no meaning in weir: \
                  conffile (the file to read again is the one that weir was started with), \
                  service_name (it names a service of Windows), job_name (it names a service of Windows), \
                  pkt_buf (an idle connection has no buffer, and busy ones share one), \
                  sbuf_loopcnt (a turn of the event loop has its own bound)";
    assert!(warnings.contains(&listed.to_owned()), "{warnings:?}");
    assert!(
        warnings.contains(&"databases.a: a password without a user is not used".to_owned()),
        "{warnings:?}"
    );
}

// covers: login_notify_message pool_idle_timeout client_tls_dheparams
#[test]
fn everything_that_is_wrong_is_said_at_once_in_pgbouncer_s_names() {
    let text = "[databases]\na = host=h pool_size=x pool_mode=foo\n[pgbouncer]\nauth_type = ldap\nfoo = 1\n\
                quary_timeout = 5\nquery_timeout = soon\ndefault_pool_size = -5\npool_mode = sesion\n\
                listen_port = 0\nhold_timeout = 5\nauth_ldap_options = x\nlogin_notify_message = hi\n\
                log_connections = perhaps\n[wier]\na = 1\n[weir]\nread_listen_port = x\n\
                [pgbouncer]\npool_idle_timeout = 60\nclient_tls_dheparams = legacy\n";
    assert_eq!(
        problems(text),
        [
            "2: databases.a.pool_size: \"x\" is not a number; write a whole number",
            "2: databases.a.pool_mode: \"foo\" is not known; write one of \"session\", \"transaction\", \"statement\"",
            "4: auth_type: this weir was built without the feature \"ldap\"; build it with --features ldap, as packages are, or write another type",
            "5: foo: there is no such setting; see PgBouncer's manual, or configs/pgbouncer.ini for [weir]",
            "6: quary_timeout: there is no such setting; did you mean \"query_timeout\"?",
            "7: query_timeout: \"soon\" is not a time; write seconds, such as 15 or 0.5",
            "8: default_pool_size: -5 is out of range; write a number from 0 to 262143",
            "9: pool_mode: \"sesion\" is not known; write one of \"session\", \"transaction\", \"statement\"",
            "10: listen_port: \"0\" is not a port; write a number from 1 to 65535",
            "11: hold_timeout: there is no such setting; write it in [weir]",
            "12: auth_ldap_options: a word is not of the form NAME=VALUE; write values with spaces in double quotes",
            "13: login_notify_message: clients cannot be greeted with a message; leave it out",
            "14: log_connections: \"perhaps\" is neither yes nor no; write 1 or 0",
            "16: a: there is no section [wier]; did you mean [weir]?",
            "18: read_listen_port: \"x\" is not a port; write a number from 1 to 65535",
            "20: pool_idle_timeout: empty pools are not freed on a clock; leave it out",
            "21: client_tls_dheparams: \"legacy\": there is no DHE key exchange, only ECDHE; write \"auto\", or leave it out",
        ]
    );
}

#[test]
fn limits_of_zero_have_an_end_where_weir_waits() {
    let config =
        with("client_login_timeout=0\nserver_connect_timeout=0\ncancel_wait_timeout=0\nsuspend_timeout=0\n");
    let hour = Duration::from_secs(3600);
    let limits = &config.limits;
    assert_eq!(
        [
            limits.client_login_timeout,
            config.pool.server_connect_timeout,
            limits.cancel_wait_timeout,
            limits.suspend_timeout
        ],
        [hour; 4]
    );
}

#[test]
fn set_changes_what_a_reload_can_change() {
    let sets = |sets: &[(&str, &str)]| {
        let sets: Vec<_> = sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        load_with(Some(source(DEPLOYMENT)), &[], &sets, &shelf()).map(|loaded| loaded.config)
    };
    let config = sets(&[
        ("query_timeout", "5"),
        ("query_timeout", "7.5"),
        ("pool_mode", "Session"),
        ("limits.max_client_conn", "7"),
        ("verbose", "2"),
        ("hold_timeout", "3"),
        ("client_tls_sslmode", "disable"),
        ("log.stats", "false"),
        ("auth.admin_users", "x, y"),
        ("pool.server_check_query", ""),
    ])
    .unwrap();
    assert_eq!(config.limits.query_timeout, Some(Duration::from_millis(7500)));
    assert_eq!((config.pool.mode, config.limits.max_client_conn), (PoolMode::Session, 7));
    assert_eq!((config.log.level.as_str(), config.log.stats), ("trace", false));
    assert_eq!((config.client_tls.mode, config.auth.admin_users.len()), (TlsMode::Disable, 2));
    assert_eq!(config.pool.server_check_query, None);
    let refused =
        |key: &str, value: &str| sets(&[(key, value)]).err().map(|why| why.to_string()).unwrap_or_default();
    let fixed = "it cannot be changed while weir runs; change the file and start weir again";
    assert_eq!(refused("listen_port", "1"), format!("SET: {fixed}"));
    assert_eq!(refused("listen.write", "x"), format!("SET: {fixed}"));
    assert_eq!(refused("pkt_buf", "1"), format!("SET: {fixed}"));
    assert_eq!(refused("query_timeout", "x"), "SET: \"x\" is not a time; write seconds, such as 15 or 0.5");
    assert_eq!(
        refused("pool_mode", "x"),
        "SET: \"x\" is not known; write one of \"session\", \"transaction\", \"statement\""
    );
    assert_eq!(
        refused("query_timout", "1"),
        "SET: there is no such setting; did you mean \"query_timeout\"?"
    );
    assert_eq!(refused("qqq", "1"), "SET: there is no such setting; see SHOW CONFIG");
}

#[test]
fn without_a_file_set_knows_both_kinds_of_names() {
    let overrides = [("--upstream", "upstream.url", "postgres://u:p@db1")];
    let overrides = crate::tests::overrides(&overrides);
    let sets =
        [("default_pool_size".to_owned(), "3".to_owned()), ("pool.min_size".to_owned(), "2".to_owned())];
    let config = load_with(None, &overrides, &sets, &shelf()).unwrap().config;
    assert_eq!((config.pool.size.get(), config.pool.min_size), (3, 2));
}
