//! Settings of pgbouncer.ini that only a whole process shows: what is logged and how, who the process is, what its
//! sockets carry, and logins with a password from a file.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use tokio_postgres::SimpleQueryMessage;
use weir_cluster::sql::{self, Login};
use weir_cluster::wait::{Limit, until};
use weir_cluster::weir::{free_ports, user_list};
use weir_cluster::{Postgres, PostgresOptions, RunDir, Weir, WeirOptions, schema};
use weir_e2e::stack::{ADMIN, END_PATIENCE};
use weir_e2e::wire::{Outcome, PATIENCE, PROTOCOL_3_0, Wire};

/// A pgbouncer.ini in a folder of its own, with a user list of the application and [`ADMIN`], who may do everything.
struct File {
    folder: RunDir,
    options: WeirOptions,
}

impl File {
    fn new() -> Result<Self> {
        let folder = RunDir::create("settings")?;
        let listed = [ADMIN, schema::APP].map(|login| (login.user.to_owned(), login.password.to_owned()));
        folder.write("userlist.txt", &user_list(&listed))?;
        Ok(Self { folder, options: WeirOptions { pass_listen: false, ..WeirOptions::on_free_ports()? } })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// weir with these lines in its sections, not yet ready.
    fn spawn(&self, databases: &str, pgbouncer: &str, weir: &str) -> Result<Weir> {
        let text = format!(
            "[databases]\n{databases}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\n\
             auth_file = {}\nadmin_users = {}\n{pgbouncer}\n[weir]\nhttp_listen = {}\n{weir}\n",
            self.options.write.port(),
            self.path("userlist.txt"),
            ADMIN.user,
            self.options.http,
        );
        let file = self.folder.write("pgbouncer.ini", &text)?;
        Weir::spawn(self.options.clone().args([file.display().to_string()]))
    }

    async fn start(&self, databases: &str, pgbouncer: &str, weir: &str) -> Result<Weir> {
        let mut started = self.spawn(databases, pgbouncer, weir)?;
        started.wait_ready().await?;
        Ok(started)
    }
}

async fn until_logged(weir: &Weir, what: &str) -> Result<()> {
    let seen = until(what, Limit::quick(PATIENCE), async || weir.log_text().contains(what).then_some(()));
    seen.await.with_context(|| weir.log_text())
}

/// Somebody asks for a database that does not exist, and is told so; what the log says of it and of the start.
async fn log_of_a_refusal(pgbouncer: &str, weir: &str, last_words: &str) -> Result<String> {
    let file = File::new()?;
    file.folder.write("hba.conf", "host all all 127.0.0.1/32 trust\n")?;
    let by_rules = format!("auth_type = hba\nauth_hba_file = {}\n{pgbouncer}", file.path("hba.conf"));
    let weir = file.start("", &by_rules, weir).await?;
    let nowhere = Login { database: "nowhere", ..schema::APP };
    let (_, outcome) = Wire::try_login(weir.write(), nowhere, PROTOCOL_3_0, &[]).await?;
    ensure!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    until_logged(&weir, last_words).await?;
    Ok(weir.log_text())
}

const START: &str = "listening on";
/// Said of each client at the most talkative levels only.
const DETAIL: &str = "HBA rule of line";
const REFUSAL: &str = "pooler error: no such database: nowhere";
/// Comes after all others.
const END: &str = "closing because: no such database: nowhere";

// covers: verbose log_level log_pooler_errors log_format
#[tokio::test]
async fn the_log_says_as_much_as_it_should_in_its_format() -> Result<()> {
    for (pgbouncer, weir, last, said) in [
        ("", "", END, [true, false, true]),
        ("verbose = 1\nlog_pooler_errors = 0", "", END, [true, true, false]),
        ("verbose = 1", "log_level = info", END, [true, false, true]),
        ("log_disconnections = 0", "log_level = warn", REFUSAL, [false, false, true]),
    ] {
        let log = log_of_a_refusal(pgbouncer, weir, last).await?;
        let seen = [START, DETAIL, REFUSAL].map(|line| log.contains(line));
        assert_eq!(seen, said, "{pgbouncer} {weir}: {log}");
    }
    let log = log_of_a_refusal("", "log_format = json", END).await?;
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(object.get("message").is_some() && object.get("level").is_some(), "{line}");
    }
    Ok(())
}

// covers: user
#[tokio::test]
async fn the_process_becomes_the_user_that_the_file_names() -> Result<()> {
    let file = File::new()?;
    if rustix::process::geteuid().is_root() {
        let name = file.folder.account().name();
        let weir = file.start("", &format!("auth_type = trust\nuser = {name}"), "").await?;
        let owner = fs::metadata(file.folder.path())?;
        let status = fs::read_to_string(format!("/proc/{}/status", weir.pid()))?;
        for (line, id) in [("Uid:", owner.uid()), ("Gid:", owner.gid())] {
            let ids = status.lines().find_map(|found| found.strip_prefix(line)).context("no ids")?;
            let wanted = id.to_string();
            ensure!(id != 0 && ids.split_whitespace().all(|found| found == wanted), "{line} {ids}");
        }
    } else {
        let mut weir = file.spawn("", "auth_type = trust\nuser = root", "")?;
        ensure!(!weir.wait_end(END_PATIENCE).await?.success(), "nobody but root can become another user");
        until_logged(&weir, "only root can become user \"root\"").await?;
    }
    Ok(())
}

/// Seconds until the kernel asks whether the other side of each established connection to or from this port lives.
fn keepalive_timers(port: u16) -> Result<Vec<u64>> {
    let mut timers = Vec::new();
    for line in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, _, timer, ..] = fields.as_slice() else { continue };
        let suffix = format!(":{port:04X}");
        if *state == "01" && (local.ends_with(&suffix) || remote.ends_with(&suffix)) {
            let (kind, when) = timer.split_once(':').context("no timer")?;
            // proc(5): 02 is the timer of keepalive, in hundredths of a second.
            let left = if kind == "02" { u64::from_str_radix(when, 16)? / 100 } else { 0 };
            timers.push(left);
        }
    }
    Ok(timers)
}

/// A value of the application's database in SHOW STATS.
async fn figure(address: SocketAddr, column: &str) -> Result<u64> {
    let console = sql::connect(address, ADMIN).await?;
    for message in console.simple_query("SHOW STATS").await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        if row.get("database") == Some(schema::DATABASE) {
            return Ok(row.get(column).unwrap_or_default().parse()?);
        }
    }
    Ok(0)
}

// covers: read_listen_port password_file log_stats tcp_keepidle
#[tokio::test]
async fn doors_sockets_figures_and_a_password_of_the_file() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let file = File::new()?;
    // The list knows the one who asks for the others' secrets by name only.
    file.folder.write("userlist.txt", &user_list(&[(ADMIN.user.to_owned(), ADMIN.password.to_owned())]))?;
    file.folder.write("asker.password", &format!("{}\n", schema::AUTH.password))?;
    let [read] = free_ports::<1>(Ipv4Addr::LOCALHOST.into())?;
    let databases = format!("{} = host=127.0.0.1 port={}", schema::DATABASE, postgres.address().port());
    let pgbouncer = format!(
        "auth_type = scram-sha-256\nauth_user = {}\nauth_query = {}\npool_mode = transaction\n\
         tcp_keepidle = 7000\nstats_period = 1\nlog_stats = 0",
        schema::AUTH.user,
        schema::AUTH_QUERY,
    );
    let own = format!("read_listen_port = {read}\npassword_file = {}", file.path("asker.password"));
    let weir = file.start(&databases, &pgbouncer, &own).await?;

    let app =
        sql::connect(weir.write(), schema::APP).await.context("asking with the password of the file")?;
    app.simple_query("SELECT 1").await?;
    let reader = SocketAddr::new(weir.write().ip(), read);
    assert_eq!(sql::value(reader, schema::APP, "SHOW transaction_read_only").await?, "on");

    // The other ends have the system's two hours, or none.
    let is_ours = |left: &u64| (6000..=7000).contains(left);
    for port in [weir.write().port(), postgres.address().port()] {
        // What waits for its acknowledgement hides the timer for a moment.
        let seen = async || keepalive_timers(port).ok()?.iter().any(is_ours).then_some(());
        until("a timer of 7000 seconds", Limit::quick(PATIENCE), seen).await?;
    }

    until("the end of a period", Limit::quick(PATIENCE), async || {
        app.simple_query("SELECT pg_sleep(0.01)").await.ok()?;
        (figure(weir.write(), "avg_query_time").await.ok()? > 0).then_some(())
    })
    .await?;
    ensure!(!weir.log_text().contains(" stats: "), "it was to be silent");
    sql::rows(weir.write(), ADMIN, "SET log_stats = 1").await?;
    until_logged(&weir, " stats: ").await
}
