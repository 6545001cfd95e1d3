//! PgBouncer's configuration files as they are installed and deployed: only paths, addresses and ports are put in the
//! test's own. Logins, limits, the log file, the pid file, SET and reloads are those of the file.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use weir_cluster::sql::{self, Login};
use weir_cluster::wait::{Limit, until};
use weir_cluster::weir::{free_ports, user_list};
use weir_cluster::{Postgres, PostgresOptions, RunDir, Weir, WeirOptions, schema};
use weir_e2e::wire::{Outcome, PATIENCE, PROTOCOL_3_0, Wire};

const DEPLOYMENT: &str = include_str!("../../../configs/pgbouncer.ini");

/// Looks up secrets in the deployment; a superuser, as its query reads `pg_shadow`.
const LOOKER: Login<'static> =
    Login { user: "pgbouncer", password: "pgbouncer password", database: schema::DATABASE };

/// Has a password in PostgreSQL and none in the user list.
const STRANGER: Login<'static> =
    Login { user: "stranger", password: "stranger password", database: schema::DATABASE };

/// A file with another value for some keys; `http_listen` is what the launcher asks for readiness.
fn adapted(text: &str, changes: &[(&str, String)], http: SocketAddr) -> Result<String> {
    let mut out = String::new();
    let mut found = 0;
    for line in text.lines() {
        let key = line.split('=').next().unwrap_or_default().trim();
        match changes.iter().find(|(name, _)| *name == key) {
            Some((name, value)) => {
                found += 1;
                out.push_str(&format!("{name} = {value}\n"));
            }
            None => out.push_str(&format!("{line}\n")),
        }
    }
    ensure!(found == changes.len(), "the file does not say all of {changes:?}");
    Ok(format!("{out}[weir]\nhttp_listen = {http}\n"))
}

fn in_folder(folder: &RunDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// The deployment in front of a PostgreSQL, with this user list.
async fn deploy(postgres: &Postgres, folder: &RunDir, users: &[(String, String)]) -> Result<Weir> {
    let options = WeirOptions::on_free_ports()?;
    let to = format!("host={} port={}", postgres.address().ip(), postgres.address().port());
    let text = DEPLOYMENT.replace("host=127.0.0.1 port=5432", &to);
    folder.write("userlist.txt", &user_list(users))?;
    let changes = [
        ("logfile", in_folder(folder, "pgbouncer.log")),
        ("pidfile", in_folder(folder, "pgbouncer.pid")),
        ("listen_addr", "127.0.0.1".to_owned()),
        ("listen_port", options.write.port().to_string()),
        ("unix_socket_dir", folder.path().display().to_string()),
        ("auth_file", in_folder(folder, "userlist.txt")),
        ("admin_users", schema::APP.user.to_owned()),
    ];
    let file = folder.write("pgbouncer.ini", &adapted(&text, &changes, options.http)?)?;
    Weir::start(WeirOptions { pass_listen: false, ..options }.args([file.display().to_string()])).await
}

async fn verifiers(postgres: &Postgres) -> Result<Vec<(String, String)>> {
    for login in [LOOKER, STRANGER] {
        let (user, password) = (login.user, login.password);
        postgres.superuser(&format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")).await?;
    }
    let mut users = Vec::new();
    for user in [schema::APP.user, LOOKER.user] {
        users.push((user.to_owned(), postgres.verifier(user).await?));
    }
    Ok(users)
}

// covers: listen_addr http_listen
#[tokio::test]
async fn a_deployment_of_pgbouncer_serves_by_pass_through_and_by_auth_query_if_it_can() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let folder = RunDir::create("ini")?;
    let mut users = verifiers(&postgres).await?;
    let weir = deploy(&postgres, &folder, &users).await?;
    for database in ["mrg", "mrg_read"] {
        let found =
            sql::value(weir.write(), Login { database, ..schema::APP }, "SELECT current_user").await?;
        assert_eq!(found, schema::APP.user);
    }
    let (_wire, outcome) = Wire::try_login(weir.write(), STRANGER, PROTOCOL_3_0, &[]).await?;
    let Outcome::Refused(report) = outcome else { bail!("nobody could have known the stranger's secret") };
    let said = format!("{report:?}");
    ensure!(said.contains("SCRAM verifier is not enough"), "{said}");
    let other = Login { database: "other", ..schema::APP };
    ensure!(sql::connect(weir.write(), other).await.is_err(), "a database that is not listed is reached");

    // A usable secret: the list is read again by itself.
    users.retain(|(name, _)| name != LOOKER.user);
    users.push((LOOKER.user.to_owned(), LOOKER.password.to_owned()));
    folder.write("userlist.txt", &user_list(&users))?;
    until("the stranger to get in", Limit::quick(PATIENCE), async || {
        let found = sql::value(weir.write(), STRANGER, "SELECT current_user").await.ok()?;
        (found == STRANGER.user).then_some(())
    })
    .await
}

// covers: logfile
#[tokio::test]
async fn settings_in_force_have_pgbouncer_s_names_and_can_be_set() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let folder = RunDir::create("ini")?;
    let users = verifiers(&postgres).await?;
    let weir = deploy(&postgres, &folder, &users).await?;
    let console = Login { database: "pgbouncer", ..schema::APP };
    let setting = async |key: &str| -> Result<String> {
        let rows = sql::rows(weir.write(), console, "SHOW CONFIG").await?;
        let row = rows.iter().find(|row| row[0].as_deref() == Some(key)).context("no such key")?;
        Ok(row[1].clone().unwrap_or_default())
    };
    assert_eq!(setting("default_pool_size").await?, "50");
    assert_eq!(setting("pool_mode").await?, "transaction");
    sql::rows(weir.write(), console, "SET default_pool_size = 7").await?;
    assert_eq!(setting("default_pool_size").await?, "7");
    let refused = sql::rows(weir.write(), console, "SET listen_port = 7").await;
    ensure!(format!("{refused:?}").contains("cannot be changed while weir runs"), "{refused:?}");

    // A wrong value leaves everything as it was, and RELOAD says what is wrong.
    let path = folder.path().join("pgbouncer.ini");
    let text = std::fs::read_to_string(&path)?;
    folder.write("pgbouncer.ini", &text.replace("query_timeout = 0\n", "query_timeout = soon\n"))?;
    let refused = sql::rows(weir.write(), console, "RELOAD").await;
    ensure!(format!("{refused:?}").contains("is not a time"), "{refused:?}");
    assert_eq!(setting("default_pool_size").await?, "7");
    folder.write("pgbouncer.ini", &text.replace("query_timeout = 0\n", "query_timeout = 90\n"))?;
    let log = folder.path().join("pgbouncer.log");
    std::fs::rename(&log, folder.path().join("pgbouncer.log.1"))?;
    weir.signal(Signal::HUP);
    until("the reload", Limit::quick(PATIENCE), async || {
        (setting("query_timeout").await.ok()? == "90").then_some(())
    })
    .await?;
    assert_eq!(setting("default_pool_size").await?, "50", "a reload forgets what was set");
    let written = std::fs::read_to_string(&log).context("the log file was not made anew")?;
    ensure!(written.contains("query_timeout"), "{written}");
    Ok(())
}

// covers: listen_port pidfile unix_socket_dir
#[tokio::test]
async fn the_example_of_the_package_starts_as_it_is() -> Result<()> {
    let installed = Path::new("/etc/pgbouncer/pgbouncer.ini");
    let checked = Command::new(Weir::binary()?).arg("--check-config").arg(installed).output()?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let folder = RunDir::create("ini")?;
    let options = WeirOptions::on_free_ports()?;
    let (port, http) = (options.write.port(), options.http);
    let changes = [
        ("logfile", in_folder(&folder, "pgbouncer.log")),
        ("pidfile", in_folder(&folder, "pgbouncer.pid")),
        ("listen_port", port.to_string()),
        ("unix_socket_dir", folder.path().display().to_string()),
    ];
    let text = std::fs::read_to_string(installed)?;
    let file = folder.write("pgbouncer.ini", &adapted(&text, &changes, http)?)?.display().to_string();
    let mut weir = Weir::start(WeirOptions { pass_listen: false, ..options }.args([file.as_str()])).await?;
    let pid = std::fs::read_to_string(folder.path().join("pgbouncer.pid"))?;
    assert_eq!(pid.trim(), weir.pid().to_string());
    ensure!(folder.path().join(format!(".s.PGSQL.{port}")).exists(), "no Unix socket");

    // A second one is refused by the pid file.
    let second = Command::new(Weir::binary()?).arg(&file).output()?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success() && said.contains("says that weir runs as process"), "{said}");
    ensure!(weir.stop().await?.success(), "weir did not end well");
    ensure!(!folder.path().join("pgbouncer.pid").exists(), "the pid file was left behind");
    Ok(())
}

#[tokio::test]
async fn the_background_needs_a_pid_file_and_is_left_alone() -> Result<()> {
    let folder = RunDir::create("ini")?;
    let [port] = free_ports::<1>(std::net::Ipv4Addr::LOCALHOST.into())?;
    let text = |pid_file: &str| {
        format!(
            "[pgbouncer]\n{pid_file}listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\n\
             unix_socket_dir =\nlogfile = {}\n",
            in_folder(&folder, "weir.log")
        )
    };
    let start = |text: &str| -> Result<std::process::Output> {
        let file = folder.write("weir.ini", text)?;
        Ok(Command::new(Weir::binary()?).arg("-d").arg(file).output()?)
    };
    let refused = start(&text(""))?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("-d needs a pid file"), "{said}");

    let pid_file = folder.path().join("weir.pid");
    ensure!(
        start(&text(&format!("pidfile = {}\n", pid_file.display())))?.status.success(),
        "it did not start"
    );
    let pid: i32 = until("the pid file", Limit::quick(PATIENCE), async || {
        std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
    })
    .await?;
    let log = folder.path().join("weir.log");
    let listens = until("it to listen", Limit::quick(PATIENCE), async || {
        std::fs::read_to_string(&log).ok()?.contains("listening on").then_some(())
    })
    .await;
    ensure!(Command::new("kill").arg(pid.to_string()).status()?.success(), "it had ended already");
    listens?;
    until("it to end", Limit::quick(PATIENCE), async || (!pid_file.exists()).then_some(())).await
}
