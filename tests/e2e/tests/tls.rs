//! TLS on both sides. Handshakes are made by libpq, through psql; what must fail before a handshake is sent by hand.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Result, bail, ensure};
use tokio::process::Command;
use weir_cluster::postgres::ServerTls;
use weir_cluster::{Postgres, PostgresOptions, schema};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Outcome, PROTOCOL_3_0, Wire};

/// One query by psql; its output, or what it complained about.
async fn psql(stack: &Stack, sslmode: &str, root: Option<&Path>, sql: &str) -> Result<String> {
    let mut command = Command::new(stack.postgres.bin_dir().join("psql"));
    command
        .args(["-XAtq", "-h", "localhost", "-p", &stack.address().port().to_string()])
        .args(["-U", schema::APP.user, "-d", schema::APP.database, "-c", sql])
        .env("PGPASSWORD", schema::APP.password)
        .env("PGSSLMODE", sslmode)
        .env("PGSSLROOTCERT", root.unwrap_or(Path::new("/nonexistent")))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
    let code = report.as_ref().map(Message::code).unwrap_or_default();
    assert!(code.starts_with("08") || code == "57P03", "{report:?}");
    assert!(stack.servers().await?.is_empty());
    Ok(())
}
