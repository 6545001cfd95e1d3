//! What weir asks PostgreSQL about users: that changes there count in time, that nothing but the questions' own path decides
//! what they find, that a question which hangs holds up nobody else, and who belongs to a group.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, schema};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{Message, Outcome, PATIENCE, PROTOCOL_3_0, Wire};

/// Users are looked up by [`schema::AUTH`] with this query.
fn asking(query: &str) -> Setup {
    Setup::new()
        .users(&[(schema::AUTH.user, schema::AUTH.password), ("boss", "boss password")])
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{query}\""))
}

/// The report that ends a login; `None`: it is let in.
async fn refusal(stack: &Stack, login: Login<'_>) -> Result<Option<Message>> {
    let (_, outcome) = Wire::try_login(stack.address(), login, PROTOCOL_3_0, &[]).await?;
    Ok(match outcome {
        Outcome::Ready(_) => None,
        Outcome::Refused(report) => Some(report),
    })
}

async fn gets_in(stack: &Stack, login: Login<'_>) -> Result<()> {
    match refusal(stack, login).await? {
        None => Ok(()),
        Some(report) => bail!("{} is refused: {report:?}", login.user),
    }
}

async fn is_refused(stack: &Stack, login: Login<'_>, code: &str, words: &str) -> Result<()> {
    let report = refusal(stack, login).await?.with_context(|| format!("{} was let in", login.user))?;
    ensure!(report.code() == code && format!("{report:?}").contains(words), "{report:?}");
    Ok(())
}

/// Waits until PostgreSQL's new opinion of a user counts.
async fn until_refused(stack: &Stack, login: Login<'_>, why: &str) -> Result<()> {
    until(why, Limit::quick(PATIENCE), async || is_refused(stack, login, "28P01", "").await.ok()).await
}

const NEWCOMER: Login<'static> =
    Login { user: "newcomer", password: "first password", database: schema::DATABASE };

#[tokio::test]
async fn changes_in_postgresql_count_in_time() -> Result<()> {
    let stack = asking(schema::AUTH_QUERY).start().await?;
    let run = async |sql: &str| stack.postgres.superuser(sql).await;
    // That somebody was not there a moment ago counts for nothing.
    is_refused(&stack, NEWCOMER, "28P01", "").await?;
    run("CREATE ROLE newcomer LOGIN PASSWORD 'first password'").await?;
    gets_in(&stack, NEWCOMER).await?;

    run("ALTER ROLE newcomer PASSWORD 'second password'").await?;
    until_refused(&stack, NEWCOMER, "the old password to be refused").await?;
    let changed = Login { password: "second password", ..NEWCOMER };
    gets_in(&stack, changed).await?;

    run("ALTER ROLE newcomer VALID UNTIL '2001-01-01'").await?;
    until_refused(&stack, changed, "the expired password to be refused").await?;
    run("ALTER ROLE newcomer VALID UNTIL 'infinity'").await?;
    gets_in(&stack, changed).await?;

    run("ALTER ROLE newcomer NOLOGIN").await?;
    until_refused(&stack, changed, "a role that may not log in to be refused").await?;
    run("ALTER ROLE newcomer LOGIN").await?;
    gets_in(&stack, changed).await?;

    run("DROP ROLE newcomer").await?;
    until_refused(&stack, changed, "the dropped role to be refused").await
}

/// What PgBouncer asks by default, as a superuser.
#[tokio::test]
async fn the_default_query_knows_when_a_password_expires() -> Result<()> {
    let superuser = schema::SUPERUSER;
    let stack = Setup::new()
        .users(&[(superuser.user, superuser.password)])
        .set("auth", &format!("user = \"{}\"", superuser.user))
        .start()
        .await?;
    gets_in(&stack, schema::APP).await?;
    let expire = format!("ALTER ROLE {} VALID UNTIL '2001-01-01'", schema::APP.user);
    stack.postgres.superuser(&expire).await?;
    until_refused(&stack, schema::APP, "the expired password to be refused").await
}

/// A function of the same name that lets everybody in with their name as the password, in a schema that comes first wherever
/// anybody but weir has a say.
const TRAP: &str = "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC;
    CREATE FUNCTION trap.user_lookup(wanted text, OUT usename name, OUT passwd text) LANGUAGE sql AS 'SELECT wanted::name, wanted';
    ALTER ROLE weir_auth SET search_path = trap, public;
    ALTER DATABASE mrg SET search_path = trap, public";

#[tokio::test]
async fn nobody_else_chooses_what_the_question_finds() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    postgres.superuser(TRAP).await?;
    let stack = asking("SELECT usename, passwd FROM user_lookup($1)")
        .set("session", "track_extra_parameters = [\"search_path\"]")
        .set("databases.mrg", "connect_query = \"SET search_path = trap, public\"")
        .start_before(postgres)
        .await?;
    let trapped = Login { password: schema::APP.user, ..schema::APP };
    for parameters in [&[][..], &[("search_path", "trap")], &[("options", "-c search_path=trap")]] {
        let (_, outcome) = Wire::try_login(stack.address(), trapped, PROTOCOL_3_0, parameters).await?;
        ensure!(matches!(outcome, Outcome::Refused(_)), "the trap was found with {parameters:?}");
        let mut good = Wire::login_with(stack.address(), schema::APP, PROTOCOL_3_0, parameters).await?;
        good.expect_usable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_question_that_hangs_holds_up_nobody_else() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    postgres
        .superuser(
            "CREATE FUNCTION public.hang(wanted text, OUT usename name, OUT passwd text) LANGUAGE sql
             AS 'SELECT wanted::name, wanted FROM pg_sleep(600)'",
        )
        .await?;
    let stack = asking(schema::AUTH_QUERY)
        .set("auth", "query_timeout = \"3s\"")
        .set("databases.stuck", "dbname = \"mrg\"")
        .set("databases.stuck", "auth_query = \"SELECT usename, passwd FROM public.hang($1)\"")
        .start_before(postgres)
        .await?;
    let mut connected = stack.wire().await?;
    connected.expect_usable().await?;
    let stuck = Login { database: "stuck", ..schema::APP };
    let hanging = tokio::join!(
        refusal(&stack, stuck),
        refusal(&stack, Login { user: "somebody_else", ..stuck }),
        async {
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            stack.until_postgres_says(sleeps, "2").await?;
            // Both hang, and everybody else goes on: whoever is in, whoever comes, and whoever is asked about.
            connected.expect_usable().await?;
            gets_in(&stack, schema::APP).await?;
            is_refused(&stack, NEWCOMER, "28P01", "").await?;
            stack.until_postgres_says(sleeps, "2").await?;
            // In the end PostgreSQL is told to stop.
            stack.until_postgres_says(sleeps, "0").await
        }
    );
    for report in [hanging.0?, hanging.1?] {
        let report = report.context("somebody was let in")?;
        ensure!(report.code() == "08006", "{report:?}");
        let detail = report.field(b'D').unwrap_or_default();
        ensure!(detail == "auth_query was not answered within 3s (auth_query_timeout).", "{detail}");
        ensure!(report.field(b'H').is_some_and(|hint| hint.starts_with("Try again")), "no hint");
    }
    hanging.2
}

#[tokio::test]
async fn auth_users_clients_and_questions_have_pools_of_their_own() -> Result<()> {
    let stack = asking(schema::AUTH_QUERY)
        .pool_size(1)
        .set("limits", "max_db_connections = 1")
        .set("auth", "query_cache_time = 0")
        .start()
        .await?;
    let mut holder = Wire::login(stack.address(), schema::AUTH).await?;
    holder.query("BEGIN").await?;
    is_refused(&stack, NEWCOMER, "28P01", "").await?;
    is_refused(&stack, Login { password: "guess", ..schema::APP }, "28P01", "").await?;
    let roles: Vec<String> = stack
        .show("POOLS_BY_ROLE")
        .await?
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| (name == "role").then_some(value))
        .collect();
    ensure!(roles.iter().any(|role| role == "lookup"), "{roles:?}");
    holder.query("COMMIT").await?;
    holder.expect_usable().await
}

const GROUPS: &str = "CREATE ROLE staff; CREATE ROLE inner_circle IN ROLE staff; CREATE ROLE mrg;
    CREATE ROLE direct LOGIN IN ROLE staff; CREATE ROLE nested LOGIN NOINHERIT IN ROLE inner_circle;
    CREATE ROLE outsider LOGIN; CREATE ROLE owner LOGIN IN ROLE mrg; CREATE ROLE chief LOGIN SUPERUSER";

#[tokio::test]
async fn postgresql_says_who_belongs_to_a_group() -> Result<()> {
    let hba =
        ["direct", "nested", "outsider", "owner", "chief"].map(|user| format!("host all {user} all trust"));
    let postgres =
        Postgres::start(PostgresOptions { hba: hba.to_vec(), ..PostgresOptions::default() }).await?;
    postgres.superuser(GROUPS).await?;
    let stack = asking("SELECT rolname, NULL FROM pg_catalog.pg_roles WHERE rolname = $1")
        .set("auth", "type = \"hba\"")
        .set("auth", "hba_file = \"hba.conf\"")
        .file("hba.conf", "include_dir rules\ninclude_if_exists missing.conf\n")
        .file("rules/0.conf", "host all boss all scram-sha-256\n")
        .file("rules/1.conf", "host all +staff samehost trust\n")
        .file("rules/2.conf", "host samerole \"/^own\" samenet trust\nhost all +outsider all trust\n")
        .start_before(postgres)
        .await?;
    let guest = |user: &'static str| Login { user, password: "", database: schema::DATABASE };
    // Directly, by another group whatever is inherited, by the database's name, and by being the role itself.
    for user in ["direct", "nested", "owner", "outsider"] {
        gets_in(&stack, guest(user)).await.with_context(|| user)?;
    }
    // As in PostgreSQL a superuser belongs to no group unless it was put there.
    is_refused(&stack, guest("chief"), "28000", "login rejected").await?;
    stack.postgres.superuser("GRANT staff TO chief; REVOKE staff FROM direct").await?;
    let limit = Limit::quick(PATIENCE);
    until("the new member to get in", limit, async || gets_in(&stack, guest("chief")).await.ok()).await?;
    let gone = async || is_refused(&stack, guest("direct"), "28000", "login rejected").await.ok();
    until("the former member to be refused", limit, gone).await?;
    let mut bad = String::new();
    writeln!(bad, "host all +staff all trust\nhost all all /nonsense trust")?;
    std::fs::write(stack.folder().join("rules/3.conf"), bad)?;
    let refused = stack.console("RELOAD").await;
    ensure!(refused.is_err_and(|problem| format!("{problem:?}").contains("3.conf:2")), "no line was named");
    gets_in(&stack, guest("nested")).await
}
