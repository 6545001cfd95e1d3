//! Who gets in, who does not, and with which SQLSTATE: SCRAM from all sources of secrets, the startup packet,
//! protocol versions. What TLS adds is in `tls`.

use anyhow::{Result, bail, ensure};
use futures_util::future::try_join_all;
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, Weir, WeirOptions, http, schema, sql};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Outcome, PATIENCE, PROTOCOL_3_0, PROTOCOL_3_2, Wire, tags};

/// The report that ends a login; the connection is closed behind it.
async fn refusal(stack: &Stack, login: Login<'_>, parameters: &[(&str, &str)]) -> Result<Message> {
    let (mut wire, outcome) = Wire::try_login(stack.address(), login, PROTOCOL_3_0, parameters).await?;
    let Outcome::Refused(report) = outcome else { bail!("{} was let in", login.user) };
    ensure!(report.field(b'S').as_deref() == Some("FATAL"), "{report:?} is not FATAL");
    ensure!(wire.until_closed().await?.is_empty(), "more came after the refusal");
    Ok(report)
}

#[tokio::test]
async fn the_right_password_gets_in_and_others_do_not_learn_why() -> Result<()> {
    let stack = Setup::new().start().await?;
    stack.wire().await?.expect_usable().await?;
    let wrong = refusal(&stack, Login { password: "guess", ..schema::APP }, &[]).await?;
    let unknown = refusal(&stack, Login { user: "nobody_here", ..schema::APP }, &[]).await?;
    assert_eq!((wrong.code(), unknown.code()), ("28P01".to_owned(), "28P01".to_owned()));
    let text = |report: &Message, user: &str| report.field(b'M').unwrap_or_default().replace(user, "USER");
    assert_eq!(text(&wrong, schema::APP.user), text(&unknown, "nobody_here"));
    stack.wire().await?.expect_usable().await
}

// covers: auth_file
#[tokio::test]
async fn a_verifier_in_the_user_list_is_enough() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let verifier = postgres.verifier(schema::APP.user).await?;
    ensure!(verifier.starts_with("SCRAM-SHA-256$"), "PostgreSQL stored {verifier}");
    let stack = Setup::new().users(&[(schema::APP.user, &verifier)]).start_before(postgres).await?;
    // Twice: the first login finds no server open yet, the second may find one.
    stack.wire().await?.expect_usable().await?;
    stack.wire().await?.expect_usable().await?;
    assert_eq!(refusal(&stack, Login { password: "guess", ..schema::APP }, &[]).await?.code(), "28P01");
    Ok(())
}

// covers: auth_user auth_query
#[tokio::test]
async fn auth_query_finds_users_who_are_not_in_the_list() -> Result<()> {
    let stack = Setup::new()
        .users(&[(schema::AUTH.user, schema::AUTH.password)])
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY))
        .start()
        .await?;
    stack.wire().await?.expect_usable().await?;
    assert_eq!(refusal(&stack, Login { password: "guess", ..schema::APP }, &[]).await?.code(), "28P01");
    assert_eq!(refusal(&stack, Login { user: "nobody_here", ..schema::APP }, &[]).await?.code(), "28P01");
    // The user's own startup parameters must not reach the connection that looks secrets up.
    let mut sly = stack.wire_with(&[("search_path", "pg_temp")]).await?;
    sly.expect_usable().await
}

#[tokio::test]
async fn a_changed_password_is_noticed() -> Result<()> {
    let stack = Setup::new()
        .users(&[(schema::AUTH.user, schema::AUTH.password)])
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY))
        .start()
        .await?;
    stack.wire().await?.expect_usable().await?;
    stack.postgres.superuser(&format!("ALTER ROLE {} PASSWORD 'changed'", schema::APP.user)).await?;
    let changed = Login { password: "changed", ..schema::APP };
    until("the new password to be accepted", Limit::quick(PATIENCE), async || {
        Wire::login(stack.address(), changed).await.ok()
    })
    .await?
    .expect_usable()
    .await?;
    assert_eq!(refusal(&stack, schema::APP, &[]).await?.code(), "28P01");
    Ok(())
}

#[tokio::test]
async fn credentials_in_the_url_look_users_up() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let login = schema::SUPERUSER;
    let url = format!("postgres://{}:{}@{}", login.user, login.password, postgres.address());
    // PgBouncer's default query reads pg_authid, which only a superuser may.
    let options = WeirOptions::on_free_ports()?.args(["--upstream", &url]);
    let weir = Weir::start(options).await?;
    Wire::login(weir.write(), schema::APP).await?.expect_usable().await?;
    assert!(!weir.log_text().contains(login.password), "the password is in the log");
    Ok(())
}

#[tokio::test]
async fn without_any_secret_weir_does_not_start() -> Result<()> {
    let options = WeirOptions::on_free_ports()?.args(["--upstream", "postgres://127.0.0.1:1"]);
    let mut weir = Weir::spawn(options)?;
    let status = weir.wait_end(PATIENCE).await?;
    assert!(!status.success());
    let log = weir.log_text();
    assert!(log.contains("psql") && log.contains("auth-file"), "no way out is named: {log}");
    Ok(())
}

#[tokio::test]
async fn trust_lets_anybody_in_when_asked_for() -> Result<()> {
    let postgres = PostgresOptions {
        hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(postgres).await?;
    let url = format!("postgres://{}", postgres.address());
    let options = WeirOptions::on_free_ports()?.args(["--upstream", &url, "--auth-type", "trust"]);
    let weir = Weir::start(options).await?;
    let mut wire = Wire::login(weir.write(), Login { password: "whatever", ..schema::APP }).await?;
    wire.expect_usable().await?;
    assert!(weir.log_text().to_lowercase().contains("trust"), "no warning: {}", weir.log_text());
    Ok(())
}

#[tokio::test]
async fn postgresqls_own_refusal_reaches_the_client() -> Result<()> {
    let stack =
        Setup::new().users(&[(schema::APP.user, schema::APP.password), ("ghost", "boo")]).start().await?;
    // A name that PostgreSQL does not know, and a database that it does not have.
    let ghost = Login { user: "ghost", password: "boo", ..schema::APP };
    for (login, code) in [(ghost, "28P01"), (Login { database: "nowhere", ..schema::APP }, "3D000")] {
        let (mut wire, outcome) = Wire::try_login(stack.address(), login, PROTOCOL_3_0, &[]).await?;
        // The login itself may have been answered from what is cached; then the first statement is refused.
        let report = match outcome {
            Outcome::Refused(report) => report,
            Outcome::Ready(_) => {
                wire.send(&wire::query("SELECT 1")).await?;
                wire.until(b'E').await?.pop().unwrap_or(Message { tag: 0, body: Vec::new() })
            }
        };
        assert_eq!(report.code(), code, "{report:?}");
    }
    stack.wire().await?.expect_usable().await
}

/// The one that a million hashes are computed for must not stop those who have work to do.
#[tokio::test]
async fn a_login_that_costs_much_delays_nobodys_queries() -> Result<()> {
    let key = format!("{}=", "A".repeat(43));
    let costly = format!("SCRAM-SHA-256$1000000:c2FsdA==${key}:{key}");
    let stack = Setup::new()
        .users(&[(schema::APP.user, schema::APP.password), ("costly", &costly)])
        .set("auth", "type = \"hba\"")
        .set("auth", "hba_file = \"hba.conf\"")
        .file("hba.conf", "host all costly all password\nhost all all all scram-sha-256\n")
        .start()
        .await?;
    let mut wire = stack.wire().await?;
    let mut costly = Wire::connect(stack.address()).await?;
    costly
        .send(&wire::startup(PROTOCOL_3_0, &[("user", "costly"), ("database", schema::APP.database)]))
        .await?;
    ensure!(costly.read().await?.tag == b'R');
    costly.send(&wire::message(b'p', b"guess\0")).await?;
    let login = costly.read();
    tokio::pin!(login);
    let mut served = 0;
    loop {
        tokio::select! {
            biased;
            report = &mut login => {
                assert_eq!(report?.code(), "28P01");
                break;
            }
            replies = wire.query("SELECT 1") => served += replies.map(|_| 1)?,
        }
    }
    ensure!(served >= 10, "only {served} queries were served while the password was hashed");
    Ok(())
}

#[tokio::test]
async fn a_newer_protocol_is_negotiated_down() -> Result<()> {
    let stack = Setup::new().start().await?;
    let grease = [("_pq_.test_protocol_negotiation", ""), ("application_name", "greased")];
    let newest = (3 << 16) | 9999;
    let (mut wire, outcome) = Wire::try_login(stack.address(), schema::APP, newest, &grease).await?;
    let Outcome::Ready(others) = outcome else { bail!("refused: {outcome:?}") };
    assert_eq!(tags(&others), "v", "{others:?}");
    let body = others.first().map(|message| message.body.clone()).unwrap_or_default();
    let mut wanted = Vec::new();
    // Newest minor version that weir speaks, then the options it does not know.
    wanted.extend_from_slice(&PROTOCOL_3_2.to_be_bytes());
    wanted.extend_from_slice(&1_u32.to_be_bytes());
    wanted.extend_from_slice(b"_pq_.test_protocol_negotiation\0");
    assert_eq!(body, wanted);
    wire.expect_usable().await
}

#[tokio::test]
async fn protocol_3_2_gives_a_long_cancel_key() -> Result<()> {
    let stack = Setup::new().start().await?;
    let old = stack.wire().await?;
    assert_eq!(old.key.as_ref().map(|(_, secret)| secret.len()), Some(4));
    let mut new = Wire::login_with(stack.address(), schema::APP, PROTOCOL_3_2, &[]).await?;
    let length = new.key.as_ref().map_or(0, |(_, secret)| secret.len());
    assert!((5..=256).contains(&length), "a key of {length} bytes");
    new.expect_usable().await
}

#[tokio::test]
async fn encryption_that_is_not_offered_is_declined_and_the_login_goes_on() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut wire = Wire::connect(stack.address()).await?;
    wire.send(&wire::gss_request()).await?;
    assert_eq!(wire.byte().await?, b'N');
    wire.send(&wire::ssl_request()).await?;
    assert_eq!(wire.byte().await?, b'N');
    let parameters = [("user", schema::APP.user), ("database", schema::APP.database)];
    wire.send(&wire::startup(PROTOCOL_3_0, &parameters)).await?;
    assert!(matches!(wire.prove(schema::APP.password).await?, Outcome::Ready(_)));
    wire.expect_usable().await
}

#[tokio::test]
async fn what_cannot_be_applied_later_is_refused_by_name() -> Result<()> {
    let stack = Setup::new().start().await?;
    let report = refusal(&stack, schema::APP, &[("log_connections", "on")]).await?;
    assert!(report.field(b'M').unwrap_or_default().contains("log_connections"), "{report:?}");
    let report = refusal(&stack, schema::APP, &[("replication", "database")]).await?;
    assert!(report.field(b'M').unwrap_or_default().contains("replication"), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_startup_packet_that_makes_no_sense_is_a_protocol_error() -> Result<()> {
    let stack = Setup::new().start().await?;
    let refuse = async |bytes: &[u8]| -> Result<String> {
        let mut wire = Wire::connect(stack.address()).await?;
        wire.send(bytes).await?;
        let seen = wire.until_closed().await?;
        Ok(seen.first().map(Message::code).unwrap_or_default())
    };
    assert_eq!(refuse(&wire::startup(PROTOCOL_3_0, &[("database", "mrg")])).await?, "28000");
    assert_eq!(refuse(&wire::startup(2 << 16, &[("user", "app_user")])).await?, "0A000");
    assert_eq!(refuse(&wire::packet(b"\0\x03\0\0user\0app_user")).await?, "08P01");
    // Longer than any startup packet may be, and shorter than its own length word.
    assert!(["08P01", ""].contains(&refuse(&[0, 1, 0, 0, 0, 3, 0, 0]).await?.as_str()));
    assert!(["08P01", ""].contains(&refuse(&[0, 0, 0, 3, 0, 3, 0, 0]).await?.as_str()));
    stack.wire().await?.expect_usable().await
}

// covers: max_client_conn
#[tokio::test]
async fn no_more_clients_than_allowed() -> Result<()> {
    let stack = Setup::new().set("limits", "max_client_conn = 3").start().await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(stack.wire().await?);
    }
    assert_eq!(refusal(&stack, schema::APP, &[]).await?.code(), "53300");
    held.pop();
    until("a free place", Limit::quick(PATIENCE), async || stack.wire().await.ok()).await?;
    for wire in &mut held {
        wire.expect_usable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_does_not_log_in_is_sent_away_in_time() -> Result<()> {
    let stack = Setup::new().set("limits", "client_login_timeout = \"1s\"").start().await?;
    let mut silent = Wire::connect(stack.address()).await?;
    let mut halfway = Wire::connect(stack.address()).await?;
    halfway.send(&wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user)])).await?;
    assert_eq!(tags(&[halfway.read().await?]), "R");
    silent.until_closed().await?;
    halfway.until_closed().await?;
    stack.wire().await?.expect_usable().await
}

// covers: failed_logins_free failed_login_delay_max
#[tokio::test]
async fn guessing_takes_time_and_disturbs_nobody_else() -> Result<()> {
    let stack = Setup::new()
        .set("auth", "failed_logins_free = 2")
        .set("auth", "failed_login_delay_max = \"30s\"")
        .start()
        .await?;
    let guess = Login { password: "guess", ..schema::APP };
    for _ in 0..2 {
        assert_eq!(refusal(&stack, guess, &[]).await?.code(), "28P01");
    }
    // The next ones wait for their answers: 100 ms and twice as long each time.
    let guesses: Vec<_> = (0..12).map(|_| refusal(&stack, guess, &[])).collect();
    let held_back = async {
        until("answers that are held back", Limit::quick(PATIENCE), async || {
            let metrics = http::get(stack.weir.http(), "/metrics").await.ok()?.body;
            metrics.lines().any(|line| line == "weir_logins_held_back_total 12").then_some(())
        })
        .await?;
        // Beside them, from the same address, those who know the password come and go.
        stack.wire().await?.expect_usable().await
    };
    tokio::select! {
        answers = try_join_all(guesses) => bail!("all are answered: {answers:?}"),
        served = held_back => served?,
    }
    let told = stack.weir.log_text().matches("logins from 127.0.0.1 fail repeatedly").count();
    ensure!(told == 1, "the log says so {told} times");
    Ok(())
}

#[tokio::test]
async fn clients_log_in_while_every_server_is_taken() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut busy = stack.wire().await?;
    busy.query("BEGIN").await?;
    busy.expect_usable().await?;
    let mut late = stack.wire().await?;
    late.send(&wire::query("SELECT 'after the wait'")).await?;
    stack.until_pool("cl_waiting", "1").await?;
    busy.query("COMMIT").await?;
    assert_eq!(wire::values(&late.until_ready().await?)?, ["after the wait"]);
    Ok(())
}

#[tokio::test]
async fn tokio_postgres_logs_in_as_well() -> Result<()> {
    let stack = Setup::new().start().await?;
    assert_eq!(sql::value(stack.address(), schema::APP, "SELECT current_user").await?, schema::APP.user);
    assert_eq!(sql::value(stack.weir.read(), schema::APP, "SHOW in_hot_standby").await?, "off");
    Ok(())
}
