//! URLs as people write them, and what must not leak from the bad ones.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::{PostgresUrl, patroni_base};
use crate::model::TlsMode;

#[track_caller]
fn check(url: &str, host: &str, port: u16, user: Option<&str>, password: Option<&str>) {
    let parsed = PostgresUrl::parse(url).unwrap();
    let found = parsed.password.as_ref().map(|password| password.expose().to_vec());
    assert_eq!((parsed.host.as_str(), parsed.port, parsed.user.as_deref()), (host, port, user), "{url}");
    assert_eq!(found.as_deref(), password.map(str::as_bytes), "{url}");
}

#[test]
fn connection_uris_are_read_as_libpq_reads_them() {
    check("postgres://127.0.0.1:5432", "127.0.0.1", 5432, None, None);
    check("postgresql://db1", "db1", 5432, None, None);
    check("postgres://u@db1:6000/", "db1", 6000, Some("u"), None);
    check("postgres://u:pw@[::1]:6000/app", "::1", 6000, Some("u"), Some("pw"));
    check("postgres://u%40x:p%3Aw%2F%25@db1", "db1", 5432, Some("u@x"), Some("p:w/%"));
    check("postgres://u:a@b@db1", "db1", 5432, Some("u"), Some("a@b"));
    check("postgres://u:a:b@db1", "db1", 5432, Some("u"), Some("a:b"));
    check("postgres://%2Frun%2Fpostgresql:5433/app", "/run/postgresql", 5433, None, None);
    check("postgres:///app?host=/run/postgresql", "/run/postgresql", 5432, None, None);
}

#[test]
fn tls_parameters_are_kept() {
    let url =
        PostgresUrl::parse("postgres://h/app?sslmode=verify-full&sslrootcert=ca.pem&sslcert=c&sslkey=k")
            .unwrap();
    assert_eq!(url.tls_mode, Some(TlsMode::VerifyFull));
    assert_eq!(url.ca_file.as_deref(), Some("ca.pem"));
    assert_eq!((url.cert_file.as_deref(), url.key_file.as_deref()), (Some("c"), Some("k")));
    assert_eq!(url.database.as_deref(), Some("app"));
}

#[test]
fn bad_urls_are_refused_without_quoting_them() {
    for url in [
        "mysql://hunter2@h",
        "h:5432",
        "postgres://",
        "postgres://u:hunter2@",
        "postgres://:hunter2@h",
        "postgres://u:hunter2@h:0",
        "postgres://u:hunter2@h:65536",
        "postgres://u:hunter2/x@h:5432",
        "postgres://u:hunter2@h:5432,h2:5432",
        "postgres://u:hunter2%@h",
        "postgres://u:hunter2%zz@h",
        "postgres://u:hunter2%+1@h",
        "postgres://u:hunter2%ff@h",
        "postgres://u:hunter2%00@h",
        "postgres://u:x?hunter2=1@h",
        "postgres://h?sslmode=hunter2",
        "postgres://[::1:hunter2",
    ] {
        let wrong = PostgresUrl::parse(url).unwrap_err();
        assert!(!format!("{wrong:?}").contains("hunter2"), "{url}: {wrong:?}");
    }
}

#[test]
fn patroni_bases_are_brought_to_one_form() {
    let check = |url: &str, base: &str| assert_eq!(patroni_base(url).unwrap(), base);
    check("http://n1:8008", "http://n1:8008");
    check("http://n1/", "http://n1:8008");
    check("http://10.0.0.1:1", "http://10.0.0.1:1");
    check("http://[fd00::1]", "http://[fd00::1]:8008");
    for bad in
        ["n1:8008", "http://", "http://n1:x", "http://n1:0", "http://n1/patroni", "http://n 1", "http://n1?x"]
    {
        assert!(patroni_base(bad).is_err(), "{bad}");
    }
    assert_eq!(patroni_base("https://n1").unwrap(), "https://n1:8008");
    assert!(!format!("{:?}", patroni_base("http://u:hunter2@n1").unwrap_err()).contains("hunter2"));
}
