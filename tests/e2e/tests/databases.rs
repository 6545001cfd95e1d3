//! Databases with servers, users and queries of their own, beside the ones that weir's upstream has. Each test starts two
//! PostgreSQL servers at most and tries several settings on them.

use anyhow::{Context, Result, ensure};
use weir_cluster::sql::Login;
use weir_cluster::{Postgres, PostgresOptions, schema};
use weir_e2e::stack::{ADMIN, Setup, Stack};
use weir_e2e::wire::{self, Wire, values};

/// A port on which nothing listens.
const NOBODY: &str = "127.0.0.1:1";

/// A section of weir.toml for a database that is called mrg on its servers.
fn database(setup: Setup, name: &str, lines: &[&str]) -> Setup {
    let section = format!("databases.{name}");
    let setup = setup.set(&section, &format!("dbname = \"{}\"", schema::DATABASE));
    lines.iter().fold(setup, |setup, line| setup.set(&section, line))
}

/// `hosts = [...]`
fn hosts(places: &[&str]) -> String {
    let quoted: Vec<String> = places.iter().map(|place| format!("\"{place}\"")).collect();
    format!("hosts = [{}]", quoted.join(", "))
}

async fn servers() -> Result<[Postgres; 2]> {
    let start = || Postgres::start(PostgresOptions::default());
    let (one, two) = tokio::try_join!(start(), start())?;
    Ok([one, two])
}

async fn enter(stack: &Stack, database: &str) -> Result<Wire> {
    Wire::login(stack.address(), Login { database, ..schema::APP }).await
}

async fn value(wire: &mut Wire, sql: &str) -> Result<String> {
    let seen = wire.query(sql).await?;
    values(&seen)?.pop().with_context(|| format!("no value of {sql}: {seen:?}"))
}

/// The ports that this many connections to a database lead to, opened one after the other and all in use.
async fn ports(stack: &Stack, database: &str, count: usize) -> Result<Vec<u16>> {
    let mut clients = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..count {
        let mut client = enter(stack, database).await?;
        client.query("BEGIN").await?;
        ports.push(value(&mut client, "SHOW port").await?.parse()?);
        clients.push(client);
    }
    Ok(ports)
}

// covers: databases.dbname databases.host databases.port databases.client_encoding databases.datestyle databases.timezone
// covers: databases.application_name
#[tokio::test]
async fn each_database_has_its_own_way_to_its_servers() -> Result<()> {
    let [one, two] = servers().await?;
    let (first, second) = (one.address().to_string(), two.address().to_string());
    let (p, q) = (one.address().port(), two.address().port());
    let mut setup = Setup::new().set("", "any_database = false");
    setup = database(setup, "plain", &[]);
    setup = database(setup, "turns", &[&hosts(&[&first, &second])]);
    setup = database(setup, "first", &[&hosts(&[&first, &second]), "load_balance = \"disable\""]);
    setup = database(setup, "failing", &[&hosts(&[NOBODY, &second])]);
    let password = format!("password = \"{}\"", schema::SUPERUSER.password);
    setup = database(setup, "forced", &[&hosts(&[&second]), "user = \"postgres\"", &password]);
    let prepared = [
        "connect_query = \"CREATE TEMP TABLE ground (); SELECT 1/0\"",
        "connect_query = \"CREATE TEMP TABLE ground ()\"",
        "timezone = \"Asia/Tokyo\"",
        "datestyle = \"German\"",
        "application_name = \"mine\"",
        "client_encoding = \"LATIN1\"",
    ];
    setup = database(setup, "broken", &[&hosts(&[&second]), prepared[0]]);
    setup = database(setup, "prepared", &[&[hosts(&[&second]).as_str()], &prepared[1..]].concat());
    let folder = two.log().parent().context("a folder of its own")?.display().to_string();
    setup = database(setup, "socket", &[&hosts(&[&format!("{folder}:{q}")])]);
    let stack = setup.start_before(one).await?;

    let mut local = enter(&stack, "socket").await?;
    assert_eq!(value(&mut local, "SELECT inet_client_addr() IS NULL").await?, "t");
    assert_eq!(value(&mut local, "SHOW port").await?, q.to_string());
    assert_eq!(ports(&stack, "plain", 2).await?, [p, p]);
    assert_eq!(ports(&stack, "turns", 4).await?, [p, q, p, q]);
    assert_eq!(ports(&stack, "first", 3).await?, [p, p, p]);
    assert_eq!(ports(&stack, "failing", 3).await?, [q, q, q]);

    let mut forced = enter(&stack, "forced").await?;
    assert_eq!(value(&mut forced, "SELECT current_user").await?, schema::SUPERUSER.user);
    let users: Vec<String> = stack
        .show("POOLS")
        .await?
        .into_iter()
        .filter(|row| row.contains(&("database".to_owned(), "forced".to_owned())))
        .filter_map(|row| Some(row.into_iter().find(|(name, _)| name == "user")?.1))
        .collect();
    assert_eq!(users, [schema::SUPERUSER.user]);

    let mut reader = Wire::login(stack.weir.read(), Login { database: "forced", ..schema::APP }).await?;
    assert_eq!(
        value(&mut reader, "SHOW port").await?.parse::<u16>()?,
        q,
        "the read door leads to the same hosts"
    );
    assert_eq!(value(&mut reader, "SHOW transaction_read_only").await?, "on");

    let mut ready = enter(&stack, "prepared").await?;
    assert_eq!(value(&mut ready, "SELECT to_regclass('ground')").await?, "ground", "connect_query has run");
    for (name, wanted) in
        [("TimeZone", "Asia/Tokyo"), ("application_name", "mine"), ("client_encoding", "LATIN1")]
    {
        assert_eq!(value(&mut ready, &format!("SHOW {name}")).await?, wanted);
        assert_eq!(ready.parameter(name), Some(wanted), "and the client was told");
    }
    assert_eq!(value(&mut ready, "SHOW datestyle").await?, "German, DMY");
    let mut broken = enter(&stack, "broken").await?;
    assert_eq!(value(&mut broken, "SELECT 1").await?, "1", "errors of connect_query are only logged");

    let refused = enter(&stack, "nope").await.err().context("there is no such database")?;
    ensure!(format!("{refused:#}").contains("no such database: nope"), "{refused:#}");
    Ok(())
}

/// What a sequence has given out last.
async fn last(stack: &Stack, sequence: &str) -> Result<i64> {
    let rows = stack.postgres.superuser(&format!("SELECT last_value FROM {sequence}")).await?;
    Ok(rows.into_iter().flatten().flatten().next().context("a value")?.parse()?)
}

#[tokio::test]
async fn queries_of_its_own_run_when_the_settings_say() -> Result<()> {
    let stack = Setup::new()
        .pool_size(1)
        .set("pool", "server_check_query = \"SELECT nextval('checks')\"")
        .set("pool", "server_check_delay = \"0s\"")
        .set("pool", "server_reset_query = \"SELECT nextval('resets')\"")
        .set("pool", "server_reset_query_always = false")
        .start()
        .await?;
    for sequence in ["checks", "resets"] {
        let sql = format!("CREATE SEQUENCE {sequence}; GRANT ALL ON {sequence} TO {}", schema::APP.user);
        stack.postgres.superuser(&sql).await?;
    }
    let mut client = stack.wire().await?;
    let mut pids = Vec::new();
    for _ in 0..4 {
        pids.push(value(&mut client, "SELECT pg_backend_pid()").await?);
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "one connection is checked and given out again: {pids:?}");
    assert_eq!(last(&stack, "checks").await?, 4, "before each use");

    stack.edit_config("server_check_query", "server_check_query = \"SELECT 1/0\"")?;
    stack.console("RELOAD").await?;
    for _ in 0..2 {
        pids.push(value(&mut client, "SELECT pg_backend_pid()").await?);
    }
    pids.dedup();
    assert_eq!(pids.len(), 3, "what fails the check is replaced: {pids:?}");

    stack.edit_config("server_check_query", "server_check_query = \"\"")?;
    stack.edit_config("server_reset_query_always", "server_reset_query_always = true")?;
    stack.console("RELOAD").await?;
    for _ in 0..2 {
        pids.push(value(&mut client, "SELECT pg_backend_pid()").await?);
    }
    pids.dedup();
    assert_eq!(pids.len(), 3, "nothing is asked: {pids:?}");
    stack.until_postgres_says("SELECT last_value FROM resets", "2").await?;
    Ok(())
}

// covers: databases.pool_mode
#[tokio::test]
async fn a_reload_moves_and_removes_databases() -> Result<()> {
    let [one, two] = servers().await?;
    let mut setup = Setup::new().set("", "any_database = false").set("pool", "server_fast_close = true");
    setup = database(setup, "moving", &[&hosts(&[&one.address().to_string()]), "pool_mode = \"session\""]);
    setup = database(setup, "going", &[]);
    let stack = setup.start_before(one).await?;
    let mut moving = enter(&stack, "moving").await?;
    let mut going = enter(&stack, "going").await?;
    moving.query("BEGIN").await?;
    assert_eq!(value(&mut going, "SELECT 1").await?, "1");

    stack.edit_config("[databases.going]", "[databases.gone]")?;
    stack.edit_config("hosts", &hosts(&[&two.address().to_string()]))?;
    stack.console("RELOAD").await?;
    let removed = going.until_closed().await?;
    let texts: Vec<_> = removed.iter().map(|message| message.field(b'M')).collect();
    assert_eq!(texts, [Some("database removed".to_owned())]);
    assert_eq!(value(&mut moving, "SELECT 2").await?, "2", "a transaction ends where it began");
    moving.send(&wire::query("COMMIT")).await?;
    let seen = moving.until_closed().await?;
    assert_eq!(wire::tags(&seen), "CZE");
    assert_eq!(seen[2].field(b'M').as_deref(), Some("database configuration changed"));
    let mut again = enter(&stack, "moving").await?;
    assert_eq!(value(&mut again, "SHOW port").await?, two.address().port().to_string());
    Ok(())
}

/// A user list of verifiers only, as `pg_authid` has them, and a database with an auth_user of its own.
#[tokio::test]
async fn verifiers_serve_their_owners_and_nobody_else() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    postgres.superuser("CREATE ROLE stranger LOGIN PASSWORD 'strange'").await?;
    let app = postgres.verifier(schema::APP.user).await?;
    let asker = postgres.verifier(schema::AUTH.user).await?;
    let auth_user = format!("auth_user = \"{}\"", schema::AUTH.user);
    let mut setup = Setup::new();
    let auth_query = "auth_query = \"SELECT usename, passwd FROM pg_shadow WHERE usename=$1\"";
    setup = database(setup, "asking", &[&auth_user, auth_query]);
    setup = database(setup, "listed", &[]);
    let verifiers =
        [(schema::APP.user, app.as_str()), (schema::AUTH.user, asker.as_str()), (ADMIN.user, ADMIN.password)];
    let stack = setup.users(&verifiers).start_before(postgres).await?;
    assert!(stack.weir.log_text().contains("has only a SCRAM verifier"), "said at the start");

    let mut client = enter(&stack, "asking").await?;
    assert_eq!(
        value(&mut client, "SELECT current_user").await?,
        schema::APP.user,
        "the login revealed the keys"
    );
    let stranger = Login { user: "stranger", password: "strange", database: "asking" };
    let refused = Wire::login(stack.address(), stranger).await.err().context("nobody can ask")?;
    let wanted = format!("weir cannot log in to PostgreSQL as auth_user \"{}\"", schema::AUTH.user);
    ensure!(format!("{refused:#}").contains(&wanted), "{refused:#}");

    let passwords = [
        (schema::APP.user, app.as_str()),
        (schema::AUTH.user, schema::AUTH.password),
        (ADMIN.user, ADMIN.password),
    ];
    stack.write_users(&passwords)?;
    stack.console("RELOAD").await?;
    let mut found = Wire::login(stack.address(), stranger).await?;
    assert_eq!(value(&mut found, "SELECT current_user").await?, "stranger");
    let elsewhere = Login { database: "listed", ..stranger };
    let refused = Wire::login(stack.address(), elsewhere).await.err().context("it has no auth_user")?;
    ensure!(format!("{refused:#}").contains("28P01"), "{refused:#}");
    Ok(())
}
