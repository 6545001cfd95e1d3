//! The plain PostgreSQL launcher, against the real server: comes up, answers, survives a stop and a crash, and leaves
//! nothing behind. Knows nothing of weir.

use anyhow::Result;
use weir_cluster::{Postgres, PostgresOptions, ServerTls, ShutdownMode, process, schema, sql};

#[tokio::test]
async fn logins_of_the_schema_work_with_scram_and_data_survives_a_crash() -> Result<()> {
    let mut server = Postgres::start(PostgresOptions::default()).await?;
    let app = sql::connect(server.address(), schema::APP).await?;
    app.simple_query("INSERT INTO drill (id, writer) VALUES (1, 'test')").await?;
    let found = sql::rows(
        server.address(),
        schema::AUTH,
        "SELECT usename, passwd FROM public.user_lookup('app_user')",
    )
    .await?;
    let verifier = server.verifier(schema::APP.user).await?;
    assert!(verifier.starts_with("SCRAM-SHA-256$"));
    assert_eq!(found, [[Some(schema::APP.user.to_owned()), Some(verifier)]]);

    server.crash();
    server.start_again().await?;
    server.stop(ShutdownMode::Fast).await?;
    server.start_again().await?;
    let count = sql::value(server.address(), schema::APP, "SELECT count(*) FROM drill").await?;
    assert_eq!(count, "1");
    Ok(())
}

#[tokio::test]
async fn required_tls_refuses_plain_logins() -> Result<()> {
    let server =
        Postgres::start(PostgresOptions { tls: ServerTls::Required, ..PostgresOptions::default() }).await?;
    let Err(refusal) = sql::connect(server.address(), schema::APP).await else {
        anyhow::bail!("a plain login was let in");
    };
    assert!(format!("{refusal:?}").contains("no encryption"), "{refusal:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_behind() -> Result<()> {
    let server = Postgres::start(PostgresOptions::default()).await?;
    let folder = server.log().parent().map(std::path::Path::to_owned).unwrap_or_default();
    assert!(!process::of_folder(&folder).is_empty());
    drop(server);
    assert!(process::of_folder(&folder).is_empty());
    assert!(!folder.exists());
    Ok(())
}
