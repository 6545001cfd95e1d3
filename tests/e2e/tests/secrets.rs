//! Where passwords come from, and that nothing weir says shows one.

use std::fs;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use weir_cluster::sql::{self, Login};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, http, schema};
use weir_e2e::stack::{ADMIN, Setup, Stack};
use weir_e2e::wire::PATIENCE;

/// Who is logged in with this, or why nobody is.
async fn whoami(stack: &Stack, login: Login<'_>) -> String {
    match sql::value(stack.address(), login, "SELECT current_user").await {
        Ok(user) => user,
        Err(error) => format!("{error:?}"),
    }
}

/// In the user list, each in another form; and in databases of their own.
const LISTED: Login<'static> = Login { user: "listed", password: "hush-listed", database: schema::DATABASE };
const OLD: Login<'static> = Login { user: "old", password: "hush-old", database: schema::DATABASE };
const FETCHED: Login<'static> =
    Login { user: "fetched", password: "hush-fetched", database: schema::DATABASE };
const REPORTER: &str = "hush-reporter";
const KEEPER: &str = "hush-keeper";
const ASKER: &str = "hush-asker";

const HBA: &str = "host all old all md5\nhost all fetched all password\nhost all all all scram-sha-256\n";

async fn roles() -> Result<Postgres> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    for login in [LISTED, FETCHED] {
        postgres
            .superuser(&format!("CREATE ROLE {} LOGIN PASSWORD '{}'", login.user, login.password))
            .await?;
    }
    for (user, password) in [("reporter", REPORTER), ("keeper", KEEPER)] {
        postgres.superuser(&format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'")).await?;
    }
    postgres.superuser("SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'hush-old'").await?;
    postgres.superuser(&format!("ALTER ROLE {} PASSWORD '{ASKER}'", schema::AUTH.user)).await?;
    Ok(postgres)
}

async fn start(postgres: Postgres, old: &str) -> Result<Stack> {
    let mut setup = Setup::new()
        .users(&[(ADMIN.user, ADMIN.password), (LISTED.user, LISTED.password), (OLD.user, old)])
        .client_tls("prefer")
        .set("auth", "type = \"hba\"")
        .set("auth", "failed_login_delay_max = \"0\"")
        .set("auth", "hba_file = \"hba.conf\"")
        .file("hba.conf", HBA)
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", "password = \"${ASKER}\"")
        .env("ASKER", ASKER)
        .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY))
        .env("REPORTER", REPORTER)
        .file("keeper.password", &format!("{KEEPER}\n"))
        .set("log", "level = \"trace\"");
    for (name, user, password) in [
        ("reports", "reporter", "password = \"${REPORTER}\""),
        ("kept", "keeper", "password_file = \"keeper.password\""),
        ("broken", "reporter", "password = \"hush-broken\""),
    ] {
        let section = format!("databases.{name}");
        let dbname = format!("dbname = \"{}\"", schema::DATABASE);
        setup =
            setup.set(&section, &dbname).set(&section, &format!("user = \"{user}\"")).set(&section, password);
    }
    setup.start_before(postgres).await
}

#[tokio::test]
async fn passwords_come_from_files_and_variables_and_files_are_read_again() -> Result<()> {
    let postgres = roles().await?;
    let old = postgres.verifier(OLD.user).await?;
    let stack = start(postgres, &old).await?;
    for login in [LISTED, FETCHED] {
        assert_eq!(whoami(&stack, login).await, login.user);
    }
    // PostgreSQL asks for SCRAM, which this user's own secret is no good for.
    assert_eq!(whoami(&stack, Login { database: "reports", ..OLD }).await, "reporter");
    assert_eq!(whoami(&stack, Login { database: "reports", ..LISTED }).await, "reporter");
    assert_eq!(whoami(&stack, Login { database: "kept", ..LISTED }).await, "keeper");
    stack.postgres.superuser("ALTER ROLE keeper PASSWORD 'hush-next'").await?;
    fs::write(stack.folder().join("keeper.password"), "hush-next\n")?;
    stack.console("RELOAD").await?;
    stack.console("RECONNECT kept").await?;
    until("the new password to be used", Limit::quick(PATIENCE), async || {
        (whoami(&stack, Login { database: "kept", ..LISTED }).await == "keeper").then_some(())
    })
    .await
}

#[tokio::test]
async fn nothing_that_weir_says_shows_a_secret() -> Result<()> {
    let postgres = roles().await?;
    let old = postgres.verifier(OLD.user).await?;
    let fetched = postgres.verifier(FETCHED.user).await?;
    let mut stack = start(postgres, &old).await?;
    let key = fs::read_to_string(stack.folder().join("weir.key"))?;
    let mut secrets: Vec<String> = [old.as_str(), ADMIN.password].map(str::to_owned).to_vec();
    secrets.extend(fetched.split(['$', ':']).skip(3).map(str::to_owned));
    secrets.extend(key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
    // Stands in for all that begin so.
    secrets.push("hush-".to_owned());

    let mut said = logins(&stack).await;
    said.extend(console(&stack).await);
    said.extend(bad_reloads(&stack).await?);
    for path in ["/", "/metrics", "/healthz", "/readyz", "/hush-none"] {
        let answer = http::get(stack.weir.http(), path).await?;
        said.push(answer.body.replace("/hush-none", ""));
    }
    said.push(fs::read_to_string(format!("/proc/{}/cmdline", stack.weir.pid()))?);
    stack.weir.stop().await?;
    said.push(stack.weir.log_text());
    let log = said.last().map_or("", String::as_str);
    ensure!(log.contains("password authentication failed"), "nothing failed:\n{log}");
    for secret in &secrets {
        let shown: Vec<_> =
            said.iter().flat_map(|text| text.lines()).filter(|line| line.contains(secret)).collect();
        ensure!(shown.is_empty(), "{secret} is shown: {shown:#?}");
    }
    Ok(())
}

/// Good ones and bad ones of every kind.
async fn logins(stack: &Stack) -> Vec<String> {
    let mut said = Vec::new();
    for login in [LISTED, OLD, FETCHED] {
        said.push(whoami(stack, login).await);
        said.push(whoami(stack, Login { password: "hush-typed", ..login }).await);
    }
    for database in ["reports", "kept", "broken", "hush_none", "pgbouncer"] {
        said.push(whoami(stack, Login { database, ..LISTED }).await.replace("hush_none", ""));
    }
    said.push(whoami(stack, Login { user: "nobody", password: "hush-typed", ..LISTED }).await);
    said
}

/// All tables, and commands that hold what they should not.
async fn console(stack: &Stack) -> Vec<String> {
    let mut said = Vec::new();
    for table in [
        "CONFIG",
        "DATABASES",
        "USERS",
        "CLIENTS",
        "SERVERS",
        "SOCKETS",
        "POOLS",
        "LISTS",
        "MEMBERS",
        "STATS",
        "MEM",
        "FDS",
        "HELP",
        "STATE",
        "DNS_HOSTS",
        "ACTIVE_SOCKETS",
    ] {
        said.push(format!("{:?}", stack.console(&format!("SHOW {table}")).await));
    }
    for command in [
        "SET auth.password = 'hush-set'",
        "SET patroni.monitor_password = 'hush-set'",
        "SET upstream.url = 'postgres://u:hush-set@127.0.0.1'",
    ] {
        let answer = stack.console(command).await;
        said.push(answer.map_or_else(|error| error.root_cause().to_string(), |_| "it was taken".to_owned()));
    }
    said
}

/// Files that are wrong in such a way that their secrets are near.
async fn bad_reloads(stack: &Stack) -> Result<Vec<String>> {
    let folder = stack.folder();
    let (toml, list) = (folder.join("weir.toml"), folder.join("userlist.txt"));
    let (good_toml, good_list) = (fs::read_to_string(&toml)?, fs::read_to_string(&list)?);
    let mut said = Vec::new();
    for (what, right, wrong) in [
        (&toml, "password = \"hush-broken\"", "password = \"hush-broken"),
        (&toml, "password = \"hush-broken\"", "password = [\"hush-broken\"]"),
        (&toml, "password = \"hush-broken\"", "password = hush-broken"),
        (&toml, "password = \"hush-broken\"", "pasword = \"hush-broken\""),
        (&toml, "password = \"hush-broken\"", "password_file = \"${REPORTER}\""),
        (&toml, "password = \"hush-broken\"", "pool_mode = \"${REPORTER}\""),
        (&toml, "password = \"hush-broken\"", "hosts = [\"${REPORTER}:x\"]"),
        (&toml, "password = \"${REPORTER}\"", "password = \"${REPORTER} ${\""),
        (&toml, "url = \"postgres://", "url = \"postgres://:hush-url@"),
        (&toml, "url = \"postgres://", "url = \"mysql://u:hush-url@"),
        (&list, "\"hush-listed\"", "\"hush-listed"),
        (&list, "\"hush-listed\"", "hush-listed"),
        (&list, "\"hush-listed\"", "\"SCRAM-SHA-256$hush-listed\""),
    ] {
        let good = if what == &toml { &good_toml } else { &good_list };
        ensure!(good.contains(right), "{right} is not there");
        fs::write(what, good.replace(right, wrong))?;
        let answer = stack.console("RELOAD").await;
        ensure!(answer.is_err(), "{wrong} is taken");
        said.push(format!("{answer:?}"));
        stack.weir.signal(Signal::HUP);
        fs::write(what, good)?;
    }
    stack.console("RELOAD").await?;
    Ok(said)
}

/// SASLprep (RFC 4013), and PostgreSQL's way out where it does not allow a password: what is stored, and what is typed.
const UNUSUAL: [(&str, &str); 7] = [
    ("I\u{ad}X", "IX"),
    ("\u{2168}", "IX"),
    ("caf\u{e9}", "cafe\u{301}"),
    ("a\u{a0}b", "a b"),
    // Prohibited: two directions of writing, a control character. They are taken as they are.
    ("\u{627}1", "\u{627}1"),
    ("caf\u{e9}\u{7}", "caf\u{e9}\u{7}"),
    ("\u{65e5}\u{672c} 'x' \"y\" \\", "\u{65e5}\u{672c} 'x' \"y\" \\"),
];

#[tokio::test]
async fn unusual_passwords_work_as_they_do_without_weir() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let names: Vec<String> = (0..UNUSUAL.len()).map(|at| format!("listed{at}")).collect();
    let mut users = vec![(schema::AUTH.user, schema::AUTH.password)];
    for (at, (stored, _)) in UNUSUAL.iter().enumerate() {
        let literal = stored.replace('\'', "''");
        postgres.superuser(&format!("CREATE ROLE fetched{at} LOGIN PASSWORD '{literal}'")).await?;
        postgres.superuser(&format!("CREATE ROLE listed{at} LOGIN PASSWORD '{literal}'")).await?;
        users.push((&names[at], stored));
    }
    let stack = Setup::new()
        .users(&users)
        .set("auth", "failed_login_delay_max = \"0\"")
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY))
        .start_before(postgres)
        .await?;
    for (at, (stored, twin)) in UNUSUAL.iter().enumerate() {
        for (typed, is_right) in [(*stored, true), (*twin, true), ("I", false), ("", false)] {
            for user in [format!("fetched{at}"), format!("listed{at}")] {
                let login = Login { user: &user, password: typed, database: schema::DATABASE };
                let direct = sql::value(stack.postgres.address(), login, "SELECT current_user").await;
                assert_eq!(direct.is_ok(), is_right, "{user} directly with {typed:?}");
                let through = whoami(&stack, login).await;
                assert_eq!(through == user, is_right, "{user} with {typed:?}: {through}");
            }
        }
    }
    Ok(())
}
