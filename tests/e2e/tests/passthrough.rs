//! Pass-through: weir logs in to PostgreSQL with the keys that a client's own SCRAM login reveals. Where that cannot work, the
//! client hears why and what to change.

use anyhow::{Context, Result, ensure};
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, schema};
use weir_e2e::stack::{ADMIN, Setup, Stack};
use weir_e2e::wire::{Outcome, PATIENCE, PROTOCOL_3_0, Wire};

const APP: &str = schema::APP.user;

/// The refusal of the application: code, detail and hint.
async fn refusal(stack: &Stack) -> Result<(String, String, String)> {
    let (_, outcome) = Wire::try_login(stack.address(), schema::APP, PROTOCOL_3_0, &[]).await?;
    let Outcome::Refused(report) = outcome else { anyhow::bail!("the application was let in") };
    let said = |kind| report.field(kind).unwrap_or_default();
    Ok((report.code(), said(b'D'), said(b'H')))
}

#[track_caller]
fn check(refusal: &(String, String, String), code: &str, detail: &str, hint: &str) {
    assert_eq!((refusal.0.as_str(), refusal.1.as_str()), (code, detail));
    assert!(refusal.2.contains(hint), "{}", refusal.2);
}

/// PostgreSQL with this line in front of its pg_hba.conf, and the verifier that it stores for the application.
async fn postgres(hba: &str) -> Result<(Postgres, String)> {
    let hba = if hba.is_empty() { Vec::new() } else { vec![hba.to_owned()] };
    let postgres = Postgres::start(PostgresOptions { hba, ..PostgresOptions::default() }).await?;
    let verifier = postgres.verifier(APP).await?;
    Ok((postgres, verifier))
}

async fn in_front_of(postgres: Postgres, secret: &str) -> Result<Stack> {
    Setup::new().users(&[(APP, secret), (ADMIN.user, ADMIN.password)]).start_before(postgres).await
}

#[tokio::test]
async fn a_verifier_that_is_not_the_servers_opens_nothing() -> Result<()> {
    let (postgres, verifier) = postgres("").await?;
    // The same password, with another salt.
    let again = format!("ALTER ROLE {APP} PASSWORD '{}'", schema::APP.password);
    postgres.superuser(&again).await?;
    ensure!(postgres.verifier(APP).await? != verifier, "PostgreSQL took the same salt");
    let current = postgres.verifier(APP).await?;
    let stack = in_front_of(postgres, &verifier).await?;
    let refused = refusal(&stack).await?;
    let detail = "PostgreSQL does not accept the secret that weir has for this user.";
    check(&refused, "28P01", detail, "has to be the very one that PostgreSQL stores");
    // What the hint says helps.
    stack.write_users(&[(APP, &current), (ADMIN.user, ADMIN.password)])?;
    stack.console("RELOAD").await?;
    let usable = async || stack.wire().await.ok();
    until("the right verifier to open the server", Limit::quick(PATIENCE), usable)
        .await?
        .expect_usable()
        .await
}

#[tokio::test]
async fn keys_answer_no_server_that_wants_md5() -> Result<()> {
    let (postgres, verifier) = postgres(&format!("host all {APP} all md5")).await?;
    let set =
        format!("SET password_encryption = 'md5'; ALTER ROLE {APP} PASSWORD '{}'", schema::APP.password);
    postgres.superuser(&set).await?;
    let stack = in_front_of(postgres, &verifier).await?;
    let refused = refusal(&stack).await?;
    let detail = "PostgreSQL asks for md5, and weir has the keys of a SCRAM login only for this user.";
    check(&refused, "28000", detail, "put the user's password into the user list");
    stack.write_users(&[(APP, schema::APP.password), (ADMIN.user, ADMIN.password)])?;
    stack.console("RELOAD").await?;
    let usable = async || stack.wire().await.ok();
    until("a password to open the server", Limit::quick(PATIENCE), usable).await?.expect_usable().await
}

#[tokio::test]
async fn whoever_shows_no_password_reveals_no_keys() -> Result<()> {
    let (postgres, verifier) = postgres("").await?;
    let stack = Setup::new()
        .users(&[(APP, &verifier)])
        .set("auth", "type = \"trust\"")
        .start_before(postgres)
        .await?;
    let refused = refusal(&stack).await?;
    let detail = "PostgreSQL asks for scram-sha-256, and weir has nothing usable for this user.";
    check(&refused, "28000", detail, "A SCRAM verifier alone is not enough");
    Ok(())
}

#[tokio::test]
async fn keys_of_an_old_password_are_thrown_away() -> Result<()> {
    let stack = Setup::new()
        .users(&[(schema::AUTH.user, schema::AUTH.password)])
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY))
        .set("auth", "query_cache_time = \"1h\"")
        .start()
        .await?;
    let mut connected = stack.wire().await?;
    connected.expect_usable().await?;
    stack.postgres.superuser(&format!("ALTER ROLE {APP} PASSWORD 'changed'")).await?;
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{APP}'");
    stack.postgres.superuser(&kill).await?;
    stack
        .until_postgres_says(&format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{APP}'"), "0")
        .await?;
    connected.send(&weir_e2e::wire::query("SELECT 1")).await?;
    let last = connected.until_closed().await?.into_iter().find(|message| message.tag == b'E');
    let last = last.context("closed without a word")?;
    let hint = last.field(b'H').unwrap_or_default();
    ensure!(last.code() == "28P01" && hint.starts_with("If the password was changed, reconnect"), "{last:?}");
    // The verifier went with the keys, however long it would have counted.
    let changed = Login { password: "changed", ..schema::APP };
    Wire::login(stack.address(), changed).await?.expect_usable().await?;
    let (code, ..) = refusal(&stack).await?;
    ensure!(code == "28P01", "the old password was let in");
    Ok(())
}

#[tokio::test]
async fn an_auth_user_needs_more_than_a_verifier() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let verifier = postgres.verifier(schema::AUTH.user).await?;
    let stack = Setup::new()
        .users(&[(schema::AUTH.user, &verifier)])
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .start_before(postgres)
        .await?;
    let refused = refusal(&stack).await?;
    let detail = "A SCRAM verifier is not enough for that, and no password of that user is known.";
    check(&refused, "08006", detail, "Give the password in the user list or in password_file");
    ensure!(stack.weir.log_text().contains("a verifier alone cannot log in"), "no warning at start");
    Ok(())
}
