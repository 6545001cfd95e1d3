//! Bad configurations and the exact words for them, all at once.

use super::{load_options, load_text};

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let problems = load_text(text).err().map(|problems| problems.to_string()).unwrap_or_default();
    let expected: Vec<_> = expected.iter().map(|line| format!("/etc/weir/weir.toml:{line}")).collect();
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
}

#[track_caller]
fn check_options(options: &[(&'static str, &'static str, &str)], expected: &[&str]) {
    let problems = load_options(options).err().map(|problems| problems.to_string()).unwrap_or_default();
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected);
}

/// A good beginning, so that only what follows is wrong. Eight lines.
const GOOD: &str = "[patroni]\nurls = [\"http://n1:8008\"]\n[auth]\nfile = \"userlist.txt\"\n\n\n\n\n";

#[track_caller]
fn check_after_good(text: &str, expected: &[&str]) {
    check(&format!("{GOOD}{text}"), expected);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    check(
        r#"workers = 2
colour = "blue"

[listen]
write = "6432"
read = "127.0.0.1:9632"

[patroni]
urls = ["n1:8008"]
hold_timeout = 60
max_lag = "16 MiB"

[auth]
typ = "scram-sha-256"
file = "userlist.txt"

[pool]
szie = 10
mode = "transactions"
size = -1
server_lifetime = "1 hour"

[database.app]
pool_size = 3

[databases.weir]
pool_size = 3

[databases.app]
pool_size = "3"
usr = "x"
port = 5
"#,
        &[
            "1: workers: 2 workers are not supported in this version; leave it out, or write 1",
            "2: colour: there is no such setting; above the first section stand workers, any_database, peer_id; all else is in a section",
            r#"5: listen.write: "6432" is not an IP address and a port; write for example "127.0.0.1:6432", "[::1]:6432", or "0.0.0.0:6432" for every IPv4 address"#,
            "6: listen.read: listen.read and listen.http are the same; give each of the listeners a port of its own",
            r#"9: patroni.urls: "n1:8008" is not the URL of a Patroni REST API; write http://host:8008 or https://host:8008"#,
            r#"10: patroni.hold_timeout: 60 has no unit; write a duration from 1ms to 1d, such as "10s", "500ms" or "2min""#,
            r#"11: patroni.max_lag: "16 MiB" is not a size; write a size from 0 to 1024TB, such as "64kB" or "16MB""#,
            r#"14: auth.typ: there is no such setting; did you mean "auth.type"?"#,
            r#"18: pool.szie: there is no such setting; did you mean "pool.size"?"#,
            r#"19: pool.mode: "transactions" is not known; write one of "session", "transaction", "statement""#,
            "20: pool.size: -1 is out of range; write a number from 0 to 262143",
            r#"21: pool.server_lifetime: "1 hour" is not a duration; write a duration from 1ms to 365d, such as "10s", "500ms" or "2min", or 0 for never, or "once" for a single client"#,
            "23: database: there is no such section; did you mean [databases]?",
            "26: databases.weir: this name is the console's; give the database another name, and set its dbname",
            "30: databases.app.pool_size: is a string; write a number from 0 to 262143, without quotes",
            r#"31: databases.app.usr: there is no such setting; did you mean "databases.app.user"?"#,
            "32: databases.app.port: there is no such setting; [databases.app] has dbname, hosts, load_balance, user, password, password_file, auth_user, auth_query, auth_database, pool_mode, pool_size, min_pool_size, reserve_pool_size, server_lifetime, query_wait_timeout, max_db_connections, max_db_client_connections, connect_query, server_tls_mode, server_tls_ca_file, server_tls_crl_file, server_tls_cert_file, server_tls_key_file, server_tls_channel_binding, client_encoding, datestyle, timezone, application_name",
        ],
    );
}

#[test]
fn notation_that_is_not_toml_is_found_with_its_line() {
    let problems = load_text("[pool]\nsize = \n[auth]\nfile = userlist\n").unwrap_err().to_string();
    let first: Vec<_> = problems.lines().filter(|line| line.contains("this is not TOML")).collect();
    assert_eq!(first.len(), 2, "{problems}");
    assert!(first[0].starts_with("/etc/weir/weir.toml:2: this is not TOML: "), "{problems}");
    assert!(first[1].starts_with("/etc/weir/weir.toml:4: this is not TOML: "), "{problems}");
}

#[test]
fn a_repeated_key_is_a_problem() {
    let problems = load_text(&format!("{GOOD}[pool]\nsize = 1\nsize = 2\n")).unwrap_err().to_string();
    assert!(problems.starts_with("/etc/weir/weir.toml:11: this is not TOML: duplicate key;"), "{problems}");
}

#[test]
fn values_of_the_wrong_type_are_named_by_their_type() {
    check_after_good(
        "[pool]\nsize = 2.5\nmode = 3\nserver_lifetime = true\nserver_reset_query = [\"x\"]\n\
         [limits]\nmax_client_conn = 99999999999999999999\nretry_bytes_max = -1\n[log]\nformat = [1]\nlevel = 1\n",
        &[
            "10: pool.size: is a number with a fraction; write a number from 0 to 262143",
            r#"11: pool.mode: is a number; write one of "session", "transaction", "statement""#,
            r#"12: pool.server_lifetime: is a truth value; write a duration from 1ms to 365d, such as "10s", "500ms" or "2min", or 0 for never, or "once" for a single client"#,
            "13: pool.server_reset_query: is a list; write a string in quotes",
            "15: limits.max_client_conn: is a number beyond 64 bits; write a number from 1 to 10000000",
            r#"16: limits.retry_bytes_max: -1 is out of range; write a size from 0 to 16MB, such as "64kB" or "16MB""#,
            r#"18: log.format: is a list of something else than strings; write one of "text", "json""#,
            "19: log.level: is a number; write a string in quotes",
        ],
    );
}

#[test]
fn sections_and_values_are_not_mistaken_for_each_other() {
    check(
        "pool = 5\n[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"userlist.txt\"\n[quux]\na = 1\n",
        &[
            "1: pool: is a section, not a value; write [pool] on a line of its own",
            "6: quux: there is no such section; the sections are [listen], [upstream], [patroni], [auth], [pool], [limits], [session], [client_tls], [server_tls], [tcp], [dns], [process], [log], [databases], [users], [peers], [certificates]",
        ],
    );
    check_after_good(
        "[databases]\napp = 5\n",
        &["10: databases.app: is not a section; write [databases.app] on a line of its own"],
    );
}

#[test]
fn pgbouncer_s_names_and_misplaced_keys_lead_to_ours() {
    check_after_good(
        "[pool]\ndefault_pool_size = 5\nmax_client_conn = 5\nworkers = 1\n[limits]\nauth_type = \"md5\"\n",
        &[
            r#"10: pool.default_pool_size: there is no such setting; write "size" in [pool]"#,
            r#"11: pool.max_client_conn: there is no such setting; write "max_client_conn" in [limits]"#,
            r#"12: pool.workers: there is no such setting; write "workers" above the first section"#,
            r#"14: limits.auth_type: there is no such setting; write "type" in [auth]"#,
        ],
    );
}

#[test]
fn two_listeners_cannot_share_an_address() {
    check_after_good(
        "[listen]\nwrite = \"0.0.0.0:6432\"\nread = \"127.0.0.1:6432\"\nhttp = \"[::1]:6433\"\n",
        &[
            "11: listen.read: listen.write and listen.read are the same; give each of the listeners a port of its own",
        ],
    );
}

#[test]
fn an_upstream_is_needed_and_one_is_enough() {
    check_options(
        &[("--auth-file", "auth.file", "userlist.txt")],
        &[
            "command line: upstream.url: nothing to connect to; give --upstream postgres://host:5432 for one server, \
         --patroni http://host:8008 for a cluster, or a configuration file",
        ],
    );
    let missing = load_text("[auth]\nfile = \"userlist.txt\"\n").unwrap_err().to_string();
    assert_eq!(
        missing,
        "/etc/weir/weir.toml: upstream.url: nothing to connect to; write url = \"postgres://host:5432\" in [upstream] \
         for one server, urls = [\"http://host:8008\"] in [patroni] for a cluster, \
         or hosts = [\"host:5432\"] in [databases.NAME]"
    );
    check_after_good(
        "[upstream]\nurl = \"postgres://n1\"\n",
        &["10: upstream.url: there are two upstreams, this one and patroni.urls; \
         keep upstream.url for one PostgreSQL server, or patroni.urls for a cluster"],
    );
}

#[test]
fn sections_with_names_are_checked_like_all_others() {
    check_after_good(
        r#"[databases."*"]
hosts = []
[databases.app]
hosts = ["db1:x"]
server_lifetime = 0
password = "p"
load_balance = "random"
[users.x]
query_timeout = 5
[peers.0]
[peers.one]
port = 0
"#,
        &[
            r#"10: databases.*.hosts: is empty; name a server, such as ["db1:5432"], or leave the key out"#,
            r#"12: databases.app.hosts: "db1:x" is not a server; write "host", "host:5432", "[::1]:5432", or a Unix socket's directory such as "/run/postgresql:5432""#,
            r#"13: databases.app.server_lifetime: cannot be unlimited for a single database; write a long duration, such as "365d""#,
            "14: databases.app.password: is a password for nobody; name its user as databases.app.user",
            r#"15: databases.app.load_balance: "random" is not known; write one of "round-robin", "disable""#,
            r#"17: users.x.query_timeout: 5 has no unit; write a duration from 1ms to 365d, such as "10s", "500ms" or "2min", or 0 for never"#,
            r#"18: peers.0: "0" is not a peer_id; write [peers.ID] with a number from 1 to 16383"#,
            r#"19: peers.one: "one" is not a peer_id; write [peers.ID] with a number from 1 to 16383"#,
            "20: peers.one.port: 0 is out of range; write a number from 1 to 65535",
        ],
    );
    check(
        "any_database = false\n[auth]\nfile = \"userlist.txt\"\n[listen]\nwrite = []\nunix_mode = \"rwx\"\n\
         [databases.\"*\"]\n[databases.app]\n[session]\non_listen = \"track\"\n[log]\nsyslog_facility = \"kern\"\n",
        &[
            r#"1: any_database: other databases are refused, but there is a section [databases."*"]; leave one of the two out"#,
            "5: listen.write: nobody could connect; give an address, or a directory for a Unix socket as listen.unix_dir",
            r#"6: listen.unix_mode: "rwx" is not a file mode; write an octal number, such as "0777" or "0770""#,
            r#"7: databases.*: there is nothing to connect to for this database; write hosts = ["host:5432"] there, or an upstream for all in [upstream] or [patroni]"#,
            r#"8: databases.app: there is nothing to connect to for this database; write hosts = ["host:5432"] there, or an upstream for all in [upstream] or [patroni]"#,
            r#"10: session.on_listen: "track" is not known; write one of "pin", "refuse", "forget""#,
            r#"12: log.syslog_facility: "kern" is not a facility of syslog; write one of auth, authpriv, daemon, user, local0, local1, local2, local3, local4, local5, local6, local7"#,
        ],
    );
}

#[test]
fn files_are_looked_at() {
    check(
        "[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"missing.txt\"\n\
         [client_tls]\nmode = \"require\"\ncert_file = \"weir.key\"\n[server_tls]\nmode = \"verify-full\"\nkey_file = \"weir.crt\"\n",
        &[
            "4: auth.file: cannot read /etc/weir/missing.txt: No such file or directory; name a file that weir's user can read",
            "7: client_tls.cert_file: /etc/weir/weir.key holds no PEM certificate; name a file with a line -----BEGIN ... CERTIFICATE-----",
            "10: server_tls.key_file: /etc/weir/weir.crt holds no PEM private key; name a file with a line -----BEGIN ... PRIVATE KEY-----",
            "10: server_tls.key_file: a certificate and its key belong together; give both cert_file and key_file, or neither",
            " client_tls.key_file: mode \"require\" needs a certificate and its key; name the PEM file (options --client-tls-cert, --client-tls-key)",
            " server_tls.ca_file: mode \"verify-full\" needs the authorities that sign the other side's certificates; name their PEM file (option --server-tls-ca)",
        ],
    );
    check_after_good(
        "[certificates.shop]\ncert_file = \"weir.crt\"\n[client_tls]\ncrl_file = \"weir.crt\"\n",
        &[
            "10: certificates.shop.cert_file: a certificate and its key belong together; give both cert_file and key_file, or neither",
            "12: client_tls.crl_file: /etc/weir/weir.crt holds no PEM list of revoked certificates; name a file with a line -----BEGIN ... X509 CRL-----",
        ],
    );
}

#[test]
fn https_needs_authorities() {
    check(
        "[patroni]\nurls = [\"https://n1\"]\nserver_name = \"a b\"\ncert_file = \"weir.crt\"\n\
         [auth]\nfile = \"userlist.txt\"\n[server_tls]\nmode = \"verify-ca\"\nca_file = \"system\"\n\
         [databases.app]\nserver_tls_mode = \"prefer\"\nserver_tls_channel_binding = \"require\"\n\
         server_tls_key_file = \"weir.key\"\n",
        &[
            "2: patroni.urls: https needs the authorities that sign the REST API's certificates; name their PEM file as patroni.ca_file, or \"system\" for those that the system trusts",
            "3: patroni.server_name: \"a b\" is neither a host name nor an address; write the name in the certificates, such as \"patroni.example.com\"",
            "4: patroni.cert_file: a certificate and its key belong together; give both cert_file and key_file, or neither",
            "9: server_tls.ca_file: anybody can have a certificate of the system's authorities, made out to some name; set mode to \"verify-full\"",
            "12: databases.app.server_tls_channel_binding: there is nothing to bind to without TLS; set mode to \"require\" or more",
            "13: databases.app.server_tls_key_file: a certificate and its key belong together; give both cert_file and key_file, or neither",
        ],
    );
}

#[test]
fn a_bad_user_list_is_told_by_its_own_lines_and_without_its_secrets() {
    let text = "[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"broken.txt\"\n";
    let problems = load_text(text).unwrap_err().to_string();
    let places: Vec<_> = problems.lines().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["/etc/weir/broken.txt:2", "/etc/weir/broken.txt:3"], "{problems}");
    assert!(!problems.contains("wonderland"), "{problems}");
}

#[test]
fn login_settings_need_each_other() {
    check(
        "[patroni]\nurls = [\"http://n1\"]\nusername = \"a:b\"\npassword = \"x\"\n[auth]\nfile = \"userlist.txt\"\n",
        &[
            "3: patroni.username: cannot be a user of a REST API; write the username of Patroni's restapi.authentication; it has no colon",
        ],
    );
    check(
        "[patroni]\nurls = [\"http://n1\"]\ncallback_listen = \"127.0.0.1:1\"\n[auth]\nfile = \"userlist.txt\"\n",
        &[
            "3: patroni.callback_listen: has no token to ask for; write patroni.callback_token, or name a file with it as patroni.callback_token_file",
        ],
    );
    check(
        "[patroni]\nurls = [\"http://n1\"]\nusername = \"p\"\nswitchover_wait = \"1h\"\n[auth]\nfile = \"userlist.txt\"\n",
        &[
            "3: patroni.username: has no password; write it as patroni.password, or name a file with it as patroni.password_file",
            r#"4: patroni.switchover_wait: 1h is out of range; write a duration from 0 to 10min, such as "10s", "500ms" or "2min""#,
        ],
    );
    check(
        "[patroni]\nurls = [\"http://n1\"]\nmonitor_password_file = \"monitor.password\"\n\
         [auth]\nfile = \"userlist.txt\"\npassword_file = \"nothing.password\"\nquery = \"select 1\"\n",
        &[
            "3: patroni.monitor_password_file: is a password for nobody; name its user as patroni.monitor_user",
            "6: auth.password_file: is a password for nobody; name its user as auth.user",
            "6: auth.password_file: /etc/weir/nothing.password has no password on its first line; write the password there, alone",
            "7: auth.query: has no $1 for the user's name; write a SELECT that returns name and secret of the user $1",
            "7: auth.query: nobody is named to run it; name a user as auth.user (option --auth-user)",
        ],
    );
}

#[test]
fn a_password_has_one_place_and_one_user() {
    check(
        "[patroni]\nurls = [\"http://n1\"]\nmonitor_password = \"hunter2\"\n\
         [auth]\nfile = \"userlist.txt\"\nuser = \"weir\"\npassword = \"hunter2\"\npassword_file = \"weir.password\"\n\
         [databases.a]\npassword_file = \"weir.password\"\n[databases.b]\nuser = \"x\"\npassword_file = \"nowhere\"\n",
        &[
            "3: patroni.monitor_password: is a password for nobody; name its user as patroni.monitor_user",
            "8: auth.password_file: there are two passwords, this one and auth.password; leave one of the two out",
            "10: databases.a.password_file: is a password for nobody; name its user as databases.a.user",
            "13: databases.b.password_file: cannot read /etc/weir/nowhere: No such file or directory; name a file that weir's user can read",
        ],
    );
}

#[test]
fn variables_that_cannot_be_used_are_named_and_never_what_they_say() {
    check(
        "[upstream]\nurl = \"postgres://u:${PASSWORD}@db1:x\"\n\
         [auth]\nuser = \"${NOBODY}\"\npassword_file = \"${PASSWORD}\"\nadmin_users = [\"a\", \"${\"]\n\
         type = \"${PASSWORD}\"\n[databases.a]\nhosts = [\"db1\", \"${PASSWORD}:y\"]\npool_mode = \"$${PASSWORD}\"\n",
        &[
            "2: upstream.url: the URL's port is not a number from 1 to 65535; write postgres://user:password@host:5432/database?sslmode=require, where only the host is needed and : / ? @ % in a password are written %3A %2F %3F %40 %25",
            "4: auth.user: the environment variable NOBODY is not set; set it in the environment that weir is started in, or write $${NOBODY} for these characters themselves",
            "5: auth.password_file: cannot read /etc/weir/${PASSWORD}: No such file or directory; name a file that weir's user can read",
            "6: auth.admin_users: has a ${ that begins no variable; write ${NAME} with letters, digits and _, or $${ for these characters themselves",
            "7: auth.type: \"${PASSWORD}\" is not known; write one of \"scram-sha-256\", \"md5\", \"plain\", \"trust\", \"any\", \"cert\", \"peer\", \"ldap\", \"pam\", \"hba\"",
            "9: databases.a.hosts: \"${PASSWORD}:y\" is not a server; write \"host\", \"host:5432\", \"[::1]:5432\", or a Unix socket's directory such as \"/run/postgresql:5432\"",
            "10: databases.a.pool_mode: \"${PASSWORD}\" is not known; write one of \"session\", \"transaction\", \"statement\"",
        ],
    );
}

#[test]
fn nobody_is_let_in_by_silence() {
    let refusal =
        |options: &[(&'static str, &'static str, &str)]| load_options(options).unwrap_err().to_string();
    let for_cluster = refusal(&[("--patroni", "patroni.urls", "http://n1")]);
    assert!(for_cluster.contains("there is no user list and no user with a password"), "{for_cluster}");
    assert!(
        for_cluster.contains(
            r#"(umask 077; psql -h LEADER -U postgres -XAtc "select '\"'||rolname||'\" \"'||rolpassword||'\"' from pg_authid where rolpassword is not null" > userlist.txt)"#
        ),
        "{for_cluster}"
    );
    let for_one = refusal(&[("--upstream", "upstream.url", "postgres://db1:5433")]);
    assert!(for_one.contains("psql -h db1 -p 5433 -U postgres"), "{for_one}");
    refusal(&[("--upstream", "upstream.url", "postgres://u@db1")]);
    refusal(&[("--upstream", "upstream.url", "postgres://db1"), ("--auth-user", "auth.user", "u")]);
    load_options(&[("--upstream", "upstream.url", "postgres://u:pw@db1")]).unwrap();
    load_options(&[("--upstream", "upstream.url", "postgres://db1"), ("--auth-type", "auth.type", "trust")])
        .unwrap();
}

#[test]
fn options_are_complained_about_by_their_names() {
    check_options(
        &[
            ("--upstream", "upstream.url", "postgres://u:hunter2/x@db1:5432/app"),
            ("--pool-size", "pool.size", "-1"),
            ("--workers", "workers", "4"),
            ("--auth-type", "auth.type", "pam"),
        ],
        &[
            "--auth-type: this weir was built without the feature \"pam\"; build it with --features pam, as packages are, or \
             write another type",
            "--pool-size: -1 is out of range; write a number from 0 to 262143",
            "--upstream: the URL's port is not a number from 1 to 65535; \
             write postgres://user:password@host:5432/database?sslmode=require, \
             where only the host is needed and : / ? @ % in a password are written %3A %2F %3F %40 %25",
            "--workers: 4 workers are not supported in this version; leave it out, or write 1",
        ],
    );
}

#[test]
fn access_files_are_told_by_their_own_lines() {
    let start = "[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"userlist.txt\"\n";
    let problems = |rest: &str| load_text(&format!("{start}{rest}")).unwrap_err().to_string();
    let both = problems("type = \"hba\"\nhba_file = \"broken.conf\"\nident_file = \"broken_ident.conf\"\n");
    let places: Vec<_> = both.lines().filter_map(|line| line.split(": ").next()).collect();
    let broken = "/etc/weir/broken.conf";
    assert_eq!(
        places,
        [&format!("{broken}:2"), &format!("{broken}:3"), "/etc/weir/broken_ident.conf:1"],
        "{both}"
    );
    assert!(problems("type = \"hba\"\n").contains("needs the file with the rules"));
    let certificates = problems("type = \"hba\"\nhba_file = \"cert.conf\"\nident_file = \"ident.conf\"\n");
    assert!(certificates.contains("needs the authorities"), "{certificates}");
    // Groups are refused for want of somebody to ask, and only then.
    assert!(both.contains("nobody is named to ask it"), "{both}");
    let grouped = "type = \"hba\"\nhba_file = \"groups.conf\"\n";
    assert!(problems(grouped).contains("groups.conf:1: only PostgreSQL knows"), "{}", problems(grouped));
    assert!(load_text(&format!("{start}{grouped}user = \"weir\"\n")).is_ok());
    assert!(problems("type = \"cert\"\n").contains("needs client certificates to be checked"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z0-9._=\"#\n '-]{0,200}") {
        let _ = load_text(&text);
    }

    #[test]
    fn no_value_makes_the_reader_panic(key in 0..crate::KEYS.len(), value in "\\PC{0,40}", number: i64) {
        let (section, name) = crate::KEYS[key].section_and_name();
        let section = if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        let _ = load_text(&format!("{section}{name} = '{value}'\n"));
        let _ = load_text(&format!("{section}{name} = {number}\n"));
        let _ = load_text(&format!("{section}{name} = ['{value}']\n"));
    }
}
