//! TLS on both sides. Handshakes are made by libpq, through psql; what must fail before a handshake is sent by hand.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use weir_cluster::postgres::ServerTls;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Authority, Postgres, PostgresOptions, http, schema};
use weir_e2e::libpq::{self, Connected, app, whoami};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Outcome, PATIENCE, PROTOCOL_3_0, Wire};

/// Words for libpq: the application's user with this mode, and authorities to check weir's certificate with.
fn words(sslmode: &str, root: Option<&Path>) -> String {
    let root = root.unwrap_or(Path::new("/nonexistent")).display();
    format!("{} sslmode={sslmode} sslrootcert={root}", app())
}

/// One query by psql; its output, or what it complained about.
async fn psql(stack: &Stack, sslmode: &str, root: Option<&Path>, sql: &str) -> Result<String> {
    libpq::ask(stack, &words(sslmode, root), sql).await.map_err(anyhow::Error::msg)
}

// covers: client_tls_cert_file client_tls_key_file
#[tokio::test]
async fn verify_full_accepts_the_right_certificate_only() -> Result<()> {
    let stack = Setup::new().client_tls("require").start().await?;
    let other = Setup::new().client_tls("require").start().await?;
    assert_eq!(psql(&stack, "verify-full", stack.authority(), "SELECT 'over TLS'").await?, "over TLS");
    assert_eq!(psql(&stack, "require", None, "SELECT 1").await?, "1");
    let refused = psql(&stack, "verify-full", other.authority(), "SELECT 1").await;
    assert!(refused.is_err(), "a stranger's certificate was trusted");
    Ok(())
}

// covers: client_tls_sslmode
#[tokio::test]
async fn require_refuses_a_client_without_tls() -> Result<()> {
    let stack = Setup::new().client_tls("require").start().await?;
    let (_, outcome) = Wire::try_login(stack.address(), schema::APP, PROTOCOL_3_0, &[]).await?;
    let Outcome::Refused(report) = outcome else { bail!("let in without TLS") };
    assert_eq!(report.code(), "28000", "{report:?}");
    let allowed = Setup::new().client_tls("prefer").start().await?;
    allowed.wire().await?.expect_usable().await?;
    assert_eq!(psql(&allowed, "verify-full", allowed.authority(), "SELECT 1").await?, "1");
    Ok(())
}

#[tokio::test]
async fn nothing_may_stand_behind_an_ssl_request() -> Result<()> {
    let stack = Setup::new().client_tls("prefer").start().await?;
    let mut wire = Wire::connect(stack.address()).await?;
    // CVE-2021-23214: what a man in the middle slips in would be read as if it came through TLS.
    let startup = wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user)]);
    wire.send(&[wire::ssl_request(), startup].concat()).await?;
    let seen = wire.until_closed().await.or_else(|problem| {
        // `S` is no message: the handshake was begun, and ended by what followed.
        if problem.to_string().contains("declares") { Ok(Vec::new()) } else { Err(problem) }
    })?;
    ensure!(seen.iter().all(|message| message.tag == b'E'), "{seen:?}");
    let codes: Vec<String> = seen.iter().map(Message::code).collect();
    ensure!(codes.iter().all(|code| code == "08P01"), "{codes:?}");
    Ok(())
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_disturbs_nobody() -> Result<()> {
    let stack = Setup::new().client_tls("require").start().await?;
    for garbage in [vec![0; 100], b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0x16, 3, 1, 0xff, 0xff]] {
        let mut wire = Wire::connect(stack.address()).await?;
        wire.send(&wire::ssl_request()).await?;
        assert_eq!(wire.byte().await?, b'S');
        wire.send(&garbage).await?;
        wire.half_close().await?;
    }
    assert_eq!(psql(&stack, "verify-full", stack.authority(), "SELECT 1").await?, "1");
    Ok(())
}

#[tokio::test]
async fn large_results_pass_through_tls() -> Result<()> {
    let stack = Setup::new().client_tls("require").start().await?;
    let sql = "SELECT md5(string_agg(n::text, '')) FROM generate_series(1, 1000) n";
    let expected = stack.postgres.superuser(sql).await?.into_iter().flatten().flatten().next();
    assert_eq!(Some(psql(&stack, "require", None, sql).await?), expected);
    let large = psql(&stack, "require", None, "SELECT repeat('0123456789', 1000000)").await?;
    assert_eq!(large.len(), 10_000_000);
    Ok(())
}

async fn server_tls(
    mode: &str,
    tls: ServerTls,
    ca: impl FnOnce(&Postgres) -> Option<String>,
) -> Result<Stack> {
    let postgres = Postgres::start(PostgresOptions { tls, ..PostgresOptions::default() }).await?;
    let mut setup = Setup::new().set("server_tls", &format!("mode = \"{mode}\""));
    if let Some(path) = ca(&postgres) {
        setup = setup.set("server_tls", &format!("ca_file = \"{path}\""));
    }
    setup.start_before(postgres).await
}

fn own_authority(postgres: &Postgres) -> Option<String> {
    postgres.authority_pem().map(|path| path.display().to_string())
}

async fn is_encrypted(stack: &Stack) -> Result<bool> {
    let mut wire = stack.wire().await?;
    let seen = wire.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await?;
    Ok(wire::values(&seen)? == ["t"])
}

// covers: server_tls_sslmode server_tls_ca_file
#[tokio::test]
async fn servers_are_reached_over_tls_as_configured() -> Result<()> {
    for (mode, tls, encrypted) in [
        ("disable", ServerTls::Offered, false),
        ("allow", ServerTls::Offered, false),
        ("allow", ServerTls::Required, true),
        ("prefer", ServerTls::Offered, true),
        ("prefer", ServerTls::Off, false),
        ("require", ServerTls::Required, true),
        ("verify-ca", ServerTls::Required, true),
        ("verify-full", ServerTls::Required, true),
    ] {
        let ca =
            |postgres: &Postgres| if mode.starts_with("verify") { own_authority(postgres) } else { None };
        let stack = server_tls(mode, tls, ca).await?;
        assert_eq!(is_encrypted(&stack).await?, encrypted, "{mode} with {tls:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_with_the_wrong_certificate_gets_no_password() -> Result<()> {
    let stranger = Setup::new().client_tls("require").start().await?;
    let ca = stranger.authority().map(|path| path.display().to_string());
    let stack = server_tls("verify-full", ServerTls::Required, |_| ca).await?;
    let (mut wire, outcome) = Wire::try_login(stack.address(), schema::APP, PROTOCOL_3_0, &[]).await?;
    let report = match outcome {
        Outcome::Refused(report) => Some(report),
        Outcome::Ready(_) => {
            wire.send(&wire::query("SELECT 1")).await?;
            wire.until(b'E').await?.pop()
        }
    };
    let report = report.context("no report")?;
    assert_eq!(report.code(), "08006", "{report:?}");
    let (message, detail) = (report.field(b'M'), report.field(b'D').unwrap_or_default());
    assert_eq!(message.as_deref(), Some("the database server cannot be trusted"));
    ensure!(detail.contains("the certificate is refused: an authority in ca_file has the name"), "{detail}");
    assert!(stack.servers().await?.is_empty());
    Ok(())
}

// covers: server_tls_channel_binding
#[tokio::test]
async fn a_server_that_cannot_bind_the_login_is_refused() -> Result<()> {
    for (hba, wish, expected) in [
        (None, "require", None),
        (Some("hostssl all app_user all trust"), "require", Some("does not prove that nobody stands")),
        (Some("hostssl all app_user all trust"), "prefer", None),
    ] {
        let hba = hba.map(str::to_owned).into_iter().collect();
        let tls = ServerTls::Required;
        let postgres = Postgres::start(PostgresOptions { tls, hba, ..PostgresOptions::default() }).await?;
        let setup = Setup::new().set("server_tls", "mode = \"require\"");
        let setup = setup.set("server_tls", &format!("channel_binding = \"{wish}\""));
        let stack = setup.start_before(postgres).await?;
        let seen = whoami(&stack, &app()).await;
        match expected {
            None => assert_eq!(seen.as_deref(), Ok(schema::APP.user), "{wish}"),
            Some(why) => {
                ensure!(seen.as_ref().is_err_and(|said| said.contains(why)), "{seen:?}");
            }
        }
    }
    Ok(())
}

// covers: server_tls_ca_file
#[tokio::test]
async fn a_database_has_tls_of_its_own_and_follows_a_new_authority() -> Result<()> {
    let tls = ServerTls::Required;
    let postgres = Postgres::start(PostgresOptions { tls, ..PostgresOptions::default() }).await?;
    let authority = postgres.authority_pem().context("no authority")?.to_owned();
    let section = format!("databases.{}", schema::DATABASE);
    let mut stack = Setup::new()
        .set("server_tls", "mode = \"disable\"")
        .set("pool", "query_wait_timeout = \"5s\"")
        .set(&section, "server_tls_mode = \"verify-full\"")
        .set(&section, "server_tls_ca_file = \"servers.crt\"")
        .file("servers.crt", &fs::read_to_string(&authority)?)
        .start_before(postgres)
        .await?;
    ensure!(is_encrypted(&stack).await?);
    let elsewhere = whoami(&stack, &format!("{} dbname=postgres", app())).await;
    ensure!(
        elsewhere.as_ref().is_err_and(|said| said.contains("no encryption")),
        "{elsewhere:?} {}",
        stack.weir.log_text()
    );

    let backend = "SELECT pg_backend_pid()";
    let (mut busy, mut idle) = (stack.wire().await?, stack.wire().await?);
    busy.query("BEGIN").await?;
    let old = wire::values(&busy.query(backend).await?)?;
    idle.expect_usable().await?;
    stack.postgres.renew_certificate().await?;
    // The new authority is not known yet, but nobody who is connected minds.
    idle.expect_usable().await?;
    fs::copy(&authority, stack.folder().join("servers.crt"))?;
    stack.console("RELOAD").await?;
    // New connections only from now on; a transaction keeps its own to its end.
    assert_eq!(wire::values(&busy.query(backend).await?)?, old);
    ensure!(wire::values(&idle.query(backend).await?)? != old);
    busy.query("COMMIT").await?;
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", old.concat());
    stack.until_postgres_says(&sql, "0").await?;
    busy.expect_usable().await?;
    // The other way round: what weir trusts is not what the server shows.
    stack.postgres.renew_certificate().await?;
    let wrong = Authority::new()?.certificate_pem();
    fs::write(stack.folder().join("servers.crt"), wrong)?;
    stack.console("RELOAD").await?;
    let refused = whoami(&stack, &app()).await;
    ensure!(refused.as_ref().is_err_and(|said| said.contains("cannot be trusted")), "{refused:?}");
    ensure!(stack.weir.ended().is_none());
    Ok(())
}

#[tokio::test]
async fn logins_are_bound_to_certificates_of_every_kind() -> Result<()> {
    use weir_cluster::certificates::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
    for (algorithm, binds) in
        [(&PKCS_RSA_SHA256, true), (&PKCS_ECDSA_P384_SHA384, true), (&PKCS_ED25519, false)]
    {
        let stack = with_authority("require", &Authority::signing_with(algorithm)?)?.start().await?;
        let root = words("verify-full", Some(&stack.folder().join("authority.crt")));
        for version in ["TLSv1.2", "TLSv1.3"] {
            let words = format!("{root} ssl_max_protocol_version={version}");
            let bound = whoami(&stack, &format!("{words} channel_binding=require")).await;
            ensure!(bound.is_ok() == binds, "{algorithm:?} {version}: {bound:?}");
            // Without a digest in the certificate it is not offered, and all else goes on.
            assert_eq!(
                whoami(&stack, &words).await.as_deref(),
                Ok(schema::APP.user),
                "{algorithm:?} {version}"
            );
        }
    }
    Ok(())
}

/// weir with a certificate of this authority for `localhost`, which also signs clients' certificates.
fn with_authority(mode: &str, authority: &Authority) -> Result<Setup> {
    let own = authority.issue("localhost", &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
    Ok(Setup::new()
        .file("weir.crt", &own.certificate_pem)
        .file("weir.key", &own.key_pem)
        .file("authority.crt", &authority.certificate_pem())
        .set("client_tls", &format!("mode = \"{mode}\""))
        .set("client_tls", "cert_file = \"weir.crt\"")
        .set("client_tls", "key_file = \"weir.key\""))
}

/// psql words for a certificate that lies beside weir.toml. libpq takes no key that others can read.
fn certified(stack: &Stack, name: &str) -> Result<String> {
    let file = |ending: &str| stack.folder().join(format!("{name}.{ending}"));
    fs::set_permissions(file("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(format!(
        "{} sslmode=require sslcert={} sslkey={}",
        app(),
        file("crt").display(),
        file("key").display()
    ))
}

#[tokio::test]
async fn a_certificate_that_is_revoked_counts_no_more_after_a_reload() -> Result<()> {
    let authority = Authority::new()?;
    let (alice, bob) = (authority.issue("alice", &[])?, authority.issue("bob", &[])?);
    let stack = with_authority("verify-full", &authority)?
        .set("client_tls", "ca_file = \"authority.crt\"")
        .set("client_tls", "crl_file = \"revoked.pem\"")
        .file("revoked.pem", &authority.revoke(&[])?)
        .file("alice.crt", &alice.certificate_pem)
        .file("alice.key", &alice.key_pem)
        .file("bob.crt", &bob.certificate_pem)
        .file("bob.key", &bob.key_pem)
        .start()
        .await?;
    let (alice_words, bob_words) = (certified(&stack, "alice")?, certified(&stack, "bob")?);
    let mut connected = Connected::new(&stack, &alice_words).await?;
    fs::write(stack.folder().join("revoked.pem"), authority.revoke(&[&alice])?)?;
    console_reload(&stack, &bob_words).await.map_err(anyhow::Error::msg)?;
    let refused = whoami(&stack, &alice_words).await;
    ensure!(refused.as_ref().is_err_and(|why| why.contains("revoked")), "{refused:?}");
    assert_eq!(whoami(&stack, &bob_words).await.as_deref(), Ok(schema::APP.user));
    let log = stack.weir.log_text();
    ensure!(log.contains("(common name \"alice\", serial number "), "who was refused? {log}");
    ensure!(log.contains("it was revoked"), "{log}");
    // Whoever is in stays in, as with PostgreSQL.
    connected.expect_usable().await?;
    // What cannot be read changes nothing, and is said.
    fs::write(
        stack.folder().join("revoked.pem"),
        "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n",
    )?;
    let complaint = console_reload(&stack, &bob_words).await;
    ensure!(complaint.as_ref().is_err_and(|why| why.contains("revoked.pem")), "{complaint:?}");
    ensure!(whoami(&stack, &alice_words).await.is_err() && whoami(&stack, &bob_words).await.is_ok());
    Ok(())
}

/// RELOAD through TLS, as an administrator.
async fn console_reload(stack: &Stack, words: &str) -> Result<String, String> {
    let admin = weir_e2e::stack::ADMIN;
    let words = format!("{words} user={} password='{}' dbname=pgbouncer", admin.user, admin.password);
    libpq::ask(stack, &words, "RELOAD").await
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() -> Result<()> {
    let (authority, other) = (Authority::new()?, Authority::new()?);
    let shop = other.issue("shop.example.com", &[])?;
    let stack = with_authority("require", &authority)?
        .file("other.crt", &other.certificate_pem())
        .file("shop.crt", &shop.certificate_pem)
        .file("shop.key", &shop.key_pem)
        .set("certificates.shop", "cert_file = \"shop.crt\"")
        .set("certificates.shop", "key_file = \"shop.key\"")
        .start()
        .await?;
    let [first, second] = ["authority.crt", "other.crt"].map(|name| stack.folder().join(name));
    let bound = "channel_binding=require";
    for (host, root, is_good) in [
        ("localhost", &first, true),
        ("localhost", &second, false),
        ("shop.example.com", &second, true),
        ("shop.example.com", &first, false),
        ("127.0.0.1", &first, true),
    ] {
        for version in ["TLSv1.2", "TLSv1.3"] {
            let tls = words("verify-full", Some(root));
            let words =
                format!("{tls} {bound} host={host} hostaddr=127.0.0.1 ssl_max_protocol_version={version}");
            assert_eq!(whoami(&stack, &words).await.is_ok(), is_good, "{words}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn certificates_are_renewed_without_anybody_noticing() -> Result<()> {
    let (old, new) = (Authority::new()?, Authority::new()?);
    let stack = with_authority("require", &old)?.file("new.crt", &new.certificate_pem()).start().await?;
    let [old_root, new_root] =
        ["authority.crt", "new.crt"].map(|name| words("verify-full", Some(&stack.folder().join(name))));
    let mut connected = Connected::new(&stack, &old_root).await?;
    let next = new.issue("localhost", &[])?;
    // Half of a change: the key of another certificate. The one in force stays.
    fs::write(stack.folder().join("weir.crt"), &next.certificate_pem)?;
    let complaint = console_reload(&stack, &old_root).await;
    let names_both = |why: &String| why.contains("weir.key: is not the key of the certificate in");
    ensure!(complaint.as_ref().is_err_and(names_both), "{complaint:?}");
    assert_eq!(whoami(&stack, &old_root).await.as_deref(), Ok(schema::APP.user));
    fs::write(stack.folder().join("weir.key"), &next.key_pem)?;
    console_reload(&stack, &old_root).await.map_err(anyhow::Error::msg)?;
    // At once, as RELOAD has returned.
    assert_eq!(whoami(&stack, &new_root).await.as_deref(), Ok(schema::APP.user));
    ensure!(whoami(&stack, &old_root).await.is_err(), "the old certificate is still shown");
    connected.expect_usable().await?;
    // And back by signal.
    let own = old.issue("localhost", &[])?;
    fs::write(stack.folder().join("weir.crt"), &own.certificate_pem)?;
    fs::write(stack.folder().join("weir.key"), &own.key_pem)?;
    stack.weir.signal(Signal::HUP);
    let limit = Limit::quick(PATIENCE);
    until("the old authority's certificate", limit, async || whoami(&stack, &old_root).await.ok()).await?;
    connected.expect_usable().await?;
    let metrics = http::get(stack.weir.http(), "/metrics").await?.body;
    ensure!(
        metrics.contains("weir_tls_expiry_timestamp_seconds{what=\"client TLS certificate\""),
        "{metrics}"
    );
    Ok(())
}
