//! Ways in other than SCRAM from the user list: each method by HBA file, with and without TLS, client certificates,
//! channel binding on both sides, and what changes at a reload. Clients are libpq's, through psql.

use anyhow::{Result, ensure};
use tokio::process::Command;
use weir_cluster::postgres::ServerTls;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, RunDir, schema};
use weir_e2e::libpq::whoami;
use weir_e2e::stack::Setup;
use weir_e2e::wire::PATIENCE;

const HBA: &str = "hostssl   all  certified   all           cert map=mail\n\
                   hostnossl all  md5_user    127.0.0.1/32  reject\n\
                   host      all  md5_user    127.0.0.1/32  md5\n\
                   host      all  plain_user  127.0.0.1/32  password\n\
                   host      all  free_user   127.0.0.1/32  trust\n\
                   host      all  @scram.txt  127.0.0.1/32  scram-sha-256\n";

/// The hash of `secret` for `md5_user`.
const MD5_SECRET: &str = "md539c4422cad2e8aa743c2904bf0925538";

/// PostgreSQL knows these users and believes weir whatever it says.
async fn believing_postgres() -> Result<Postgres> {
    let hba = ["certified", "md5_user", "plain_user", "free_user"]
        .map(|user| format!("host all {user} 127.0.0.1/32 trust"))
        .to_vec();
    let postgres = Postgres::start(PostgresOptions { hba, ..PostgresOptions::default() }).await?;
    postgres
        .superuser(
            "CREATE ROLE certified LOGIN; CREATE ROLE md5_user LOGIN; CREATE ROLE plain_user LOGIN; \
             CREATE ROLE free_user LOGIN",
        )
        .await?;
    Ok(postgres)
}

fn by_rules() -> Setup {
    Setup::new()
        .client_tls("prefer")
        .set("client_tls", "ca_file = \"authority.crt\"")
        .set("auth", "type = \"hba\"")
        .set("auth", "hba_file = \"hba.conf\"")
        .set("auth", "ident_file = \"ident.conf\"")
        .file("hba.conf", HBA)
        .file("scram.txt", &format!("{} boss\n", schema::APP.user))
        .file("ident.conf", "mail /^(.*)@example\\.com$ \\1\n")
        .users(&[
            (schema::APP.user, schema::APP.password),
            ("boss", "boss password"),
            ("certified", ""),
            ("md5_user", MD5_SECRET),
            ("plain_user", "secret"),
            ("free_user", ""),
        ])
}

// covers: auth_hba_file auth_ident_file
#[tokio::test]
async fn each_method_lets_its_own_in_and_nobody_else() -> Result<()> {
    let stack = by_rules().start_before(believing_postgres().await?).await?;
    let folder = stack.folder().display().to_string();
    let certificate = format!("sslcert={folder}/client.crt sslkey={folder}/client.key");
    let app = format!("user={} password={}", schema::APP.user, schema::APP.password);
    for (words, expected) in [
        (format!("{app} sslmode=disable"), Ok(schema::APP.user)),
        (format!("{app} sslmode=require channel_binding=require"), Ok(schema::APP.user)),
        (format!("{app} sslmode=disable channel_binding=require"), Err("channel binding")),
        (
            format!("user={} password=x sslmode=require", schema::APP.user),
            Err("password authentication failed"),
        ),
        ("user=md5_user password=secret sslmode=require".into(), Ok("md5_user")),
        ("user=md5_user password=guess sslmode=require".into(), Err("password authentication failed")),
        ("user=md5_user password=secret sslmode=disable".into(), Err("login rejected")),
        ("user=plain_user password=secret sslmode=disable".into(), Ok("plain_user")),
        ("user=plain_user password=guess sslmode=require".into(), Err("password authentication failed")),
        ("user=free_user sslmode=disable".into(), Ok("free_user")),
        (format!("user=certified sslmode=require {certificate}"), Ok("certified")),
        ("user=certified sslmode=require".into(), Err("TLS client certificate required")),
        ("user=certified sslmode=disable".into(), Err("login rejected")),
        (format!("user=free_user sslmode=require {certificate}"), Ok("free_user")),
        ("user=stranger password=x sslmode=prefer".into(), Err("login rejected")),
    ] {
        let seen = whoami(&stack, &words).await;
        match (expected, &seen) {
            (Ok(user), Ok(seen)) => assert_eq!(user, seen, "{words}"),
            (Err(why), Err(complaint)) => assert!(complaint.contains(why), "{words}: {complaint}"),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{words}: {seen:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn system_users_come_in_by_unix_socket() -> Result<()> {
    let sockets = RunDir::create("sockets")?;
    let directory = sockets.path().display().to_string();
    let id = Command::new("id").arg("-un").output().await?;
    let own = String::from_utf8(id.stdout)?.trim().to_owned();
    let stack = by_rules()
        .file("hba.conf", "local all free_user peer map=ops\nlocal all all peer\nhost all all all trust\n")
        .file("ident.conf", &format!("ops {own} free_user\nmail a b\n"))
        .set("listen", &format!("unix_dir = \"{directory}\""))
        .start_before(believing_postgres().await?)
        .await?;
    // The last host of the string counts.
    let by_socket = format!("host={directory} sslmode=disable");
    assert_eq!(whoami(&stack, &format!("{by_socket} user=free_user")).await.as_deref(), Ok("free_user"));
    let refused = whoami(&stack, &format!("{by_socket} user=plain_user")).await;
    assert!(refused.is_err_and(|complaint| complaint.contains("unix socket login rejected")));
    // Whoever runs weir administrates it, without a line for it.
    let admin = whoami(&stack, &format!("{by_socket} user=pgbouncer dbname=pgbouncer")).await;
    assert!(admin.is_err_and(|complaint| !complaint.contains("FATAL")), "the console knows no current_user");
    Ok(())
}

#[tokio::test]
async fn rules_change_at_a_reload_and_bad_ones_do_not() -> Result<()> {
    let stack = by_rules().start_before(believing_postgres().await?).await?;
    let connected = stack.wire().await?;
    let rules = stack.folder().join("hba.conf");
    std::fs::write(&rules, "host all boss,app_user all scram-sha-256\nhost all all all nonsense\n")?;
    let refused = stack.console("RELOAD").await;
    ensure!(refused.is_err_and(|problem| format!("{problem:?}").contains("hba.conf:2")), "no line was named");
    assert_eq!(whoami(&stack, "user=free_user").await.as_deref(), Ok("free_user"));
    std::fs::write(&rules, "host all boss,app_user all scram-sha-256\n")?;
    stack.console("RELOAD").await?;
    until("the new rules", Limit::quick(PATIENCE), async || whoami(&stack, "user=free_user").await.err())
        .await?;
    let mut connected = connected;
    connected.expect_usable().await
}

// covers: client_tls_ca_file
#[tokio::test]
async fn client_certificates_are_needed_with_verify_full() -> Result<()> {
    let setup = Setup::new().client_tls("verify-full").set("client_tls", "ca_file = \"authority.crt\"");
    let stack = setup.start().await?;
    let folder = stack.folder().display().to_string();
    let app = format!("user={} password={}", schema::APP.user, schema::APP.password);
    // As in PgBouncer the certificate has to be good, whatever name is in it.
    let with = format!("{app} sslmode=require sslcert={folder}/client.crt sslkey={folder}/client.key");
    assert_eq!(whoami(&stack, &with).await.as_deref(), Ok(schema::APP.user));
    assert!(whoami(&stack, &format!("{app} sslmode=require")).await.is_err());
    let plain = whoami(&stack, &format!("{app} sslmode=disable")).await;
    assert!(plain.is_err_and(|complaint| complaint.contains("SSL required")));
    Ok(())
}

// covers: client_tls_protocols
#[tokio::test]
async fn logins_are_bound_to_the_channel_on_both_sides() -> Result<()> {
    let tls = ServerTls::Required;
    let postgres = Postgres::start(PostgresOptions { tls, ..PostgresOptions::default() }).await?;
    let stack = Setup::new()
        .client_tls("require")
        .set("client_tls", "protocols = \"tlsv1.2\"")
        .set("client_tls", "ciphers = \"ECDHE-ECDSA-AES128-GCM-SHA256\"")
        .set("server_tls", "mode = \"require\"")
        .set("server_tls", "protocols = \"tlsv1.3\"")
        .start_before(postgres)
        .await?;
    let app = format!("user={} password={} channel_binding=require", schema::APP.user, schema::APP.password);
    assert_eq!(whoami(&stack, &format!("{app} sslmode=require")).await.as_deref(), Ok(schema::APP.user));
    let rows = stack.postgres.superuser("SELECT version FROM pg_stat_ssl WHERE ssl AND pid IN (SELECT pid FROM pg_stat_activity WHERE usename = 'app_user')").await?;
    assert_eq!(rows.into_iter().flatten().flatten().next().as_deref(), Some("TLSv1.3"));
    // A suite that only the other version has is not agreed upon.
    let modern = whoami(&stack, &format!("{app} sslmode=require ssl_min_protocol_version=TLSv1.3")).await;
    assert!(modern.is_err_and(|complaint| complaint.contains("SSL error")));
    Ok(())
}
