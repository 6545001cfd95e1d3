//! Debian's PgBouncer and weir, each started with the same pgbouncer.ini, and transcripts of what a client sees there.
//! Holds no opinion on what is right; what the two may differ in is said by the tests.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio_postgres::{Client, SimpleQueryMessage};
use weir_cluster::process::Process;
use weir_cluster::sql::{self, Login};
use weir_cluster::wait::{Limit, until};
use weir_cluster::weir::user_list;
use weir_cluster::{Postgres, RunDir, Weir, free_ports, schema};

use crate::stack::{ADMIN, STATS};
use crate::wire::{Message, Outcome, PROTOCOL_3_0, Wire};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The package's program.
    PgBouncer,
    /// Ours.
    Weir,
}

/// A running pooler.
#[derive(Debug)]
pub struct Peer {
    // Declared first: dropped before the folder it works in.
    process: Process,
    /// Which one it is.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its configuration and user list.
    pub folder: RunDir,
}

/// Where Debian installs PgBouncer.
const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

impl Peer {
    /// Starts one of the two in front of `postgres` with these lines behind `[pgbouncer]`, which may begin further
    /// sections. `{server}` in them stands for PostgreSQL's address, `{dead}` for one that nobody listens on, `{folder}`
    /// for the folder of the files. The databases are [`schema::DATABASE`], one that the server lacks (`gone`), and one
    /// whose server is not there (`dead`).
    ///
    /// # Errors
    /// The program is missing or does not come up.
    pub async fn start(kind: Kind, postgres: &Postgres, lines: &str) -> Result<Self> {
        let users = [schema::APP, schema::SUPERUSER, schema::AUTH, ADMIN, STATS]
            .map(|login| (login.user.to_owned(), login.password.to_owned()));
        Self::start_program(&program(kind)?, kind, postgres, &users, &[], lines).await
    }

    /// The same of this program, with this user list, and with these files in its folder.
    ///
    /// # Errors
    /// The program does not come up.
    pub async fn start_program(
        program: &Path,
        kind: Kind,
        postgres: &Postgres,
        users: &[(String, String)],
        files: &[(&str, &str)],
        lines: &str,
    ) -> Result<Self> {
        let folder = RunDir::create(if kind == Kind::Weir { "peer_weir" } else { "peer_pgbouncer" })?;
        for (name, text) in files {
            folder.write(name, text)?;
        }
        folder.write("userlist.txt", &user_list(users))?;
        let [port, dead] = free_ports::<2>(Ipv4Addr::LOCALHOST.into())?;
        let ini = ini(&folder, postgres, port, dead, lines)?;
        let mut command = Command::new(program);
        command.arg(folder.write("pgbouncer.ini", &ini)?).current_dir(folder.path());
        folder.account().apply(&mut command);
        let process = Process::start(command, folder.path(), &folder.log("pooler"))?;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let mut peer = Self { process, kind, address, folder };
        peer.listens().await.with_context(|| format!("{ini}\n{}", peer.log()))?;
        Ok(peer)
    }

    async fn listens(&mut self) -> Result<()> {
        until("the pooler to listen", Limit::quick(Duration::from_secs(20)), async || {
            let ended = self.process.ended();
            match tokio::net::TcpStream::connect(self.address).await {
                Ok(_) => Some(Ok(())),
                Err(_) => ended.map(|status| Err(anyhow::anyhow!("it ended: {status}"))),
            }
        })
        .await?
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has written to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.log("pooler")).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How a login and a first query end: `ok`, or the refusal.
    pub async fn login(&self, login: Login<'_>) -> String {
        ends(&login.config(self.address)).await
    }

    /// The same over the Unix socket in [`Peer::folder`].
    pub async fn login_by_socket(&self, login: Login<'_>) -> String {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.folder.path()).port(self.address.port());
        config.user(login.user).password(login.password).dbname(login.database);
        ends(&config).await
    }

    /// A client that is driven message by message.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn wire(&self) -> Result<Wire> {
        Wire::login(self.address, schema::APP).await
    }

    /// How the login of a client with startup parameters ends.
    ///
    /// # Errors
    /// Neither ReadyForQuery nor an error comes.
    pub async fn try_wire(&self, login: Login<'_>, parameters: &[(&str, &str)]) -> Result<(Wire, String)> {
        let (wire, outcome) = Wire::try_login(self.address, login, PROTOCOL_3_0, parameters).await?;
        let said = match outcome {
            Outcome::Ready(_) => "ok".to_owned(),
            Outcome::Refused(report) => told(&report),
        };
        Ok((wire, said))
    }

    /// The console, as its administrator.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn console(&self) -> Result<Client> {
        sql::connect(self.address, ADMIN).await
    }
}

fn ini(folder: &RunDir, postgres: &Postgres, port: u16, dead: u16, lines: &str) -> Result<String> {
    let users = folder.path().join("userlist.txt");
    let (name, admin, stats) = (schema::DATABASE, ADMIN.user, STATS.user);
    let text = format!(
        "[databases]\n{name} = {{server}}\ngone = {{server}} dbname=not_there\ndead = {{dead}}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_file = {users}\n\
         admin_users = {admin}\nstats_users = {stats}\n{lines}\n",
        users = users.display(),
    );
    let server = format!("host={} port={}", postgres.address().ip(), postgres.address().port());
    let text = text.replace("{server}", &server).replace("{dead}", &format!("host=127.0.0.1 port={dead}"));
    Ok(text.replace("{folder}", &folder.path().display().to_string()))
}

fn program(kind: Kind) -> Result<PathBuf> {
    match kind {
        Kind::PgBouncer => Ok(PGBOUNCER.into()),
        Kind::Weir => Weir::binary(),
    }
}

async fn ends(config: &tokio_postgres::Config) -> String {
    match config.connect(tokio_postgres::NoTls).await {
        Ok((client, connection)) => {
            let task = tokio::spawn(connection);
            let asked = client.simple_query("SHOW client_encoding").await;
            task.abort();
            asked.map_or_else(|error| refusal(&error), |_| "ok".to_owned())
        }
        Err(error) => refusal(&error),
    }
}

/// What a console command answers: its columns and rows, its tag, or its error.
pub async fn command(console: &Client, sql: &str) -> String {
    match console.simple_query(sql).await {
        Ok(messages) => messages.iter().map(answer).collect::<Vec<_>>().join(" "),
        Err(error) => refusal(&error),
    }
}

/// The rows of a console command, by the names of their columns.
///
/// # Errors
/// The command fails.
pub async fn rows(console: &Client, sql: &str) -> Result<Vec<HashMap<String, String>>> {
    let mut rows = Vec::new();
    for message in console.simple_query(sql).await? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let names = row.columns().iter().enumerate();
        rows.push(
            names
                .map(|(at, column)| (column.name().to_owned(), row.get(at).unwrap_or("").to_owned()))
                .collect(),
        );
    }
    Ok(rows)
}

fn answer(message: &SimpleQueryMessage) -> String {
    match message {
        SimpleQueryMessage::Row(row) => {
            format!(
                "row({})",
                (0..row.len()).map(|at| row.get(at).unwrap_or("")).collect::<Vec<_>>().join(",")
            )
        }
        SimpleQueryMessage::CommandComplete(_) => "done".to_owned(),
        SimpleQueryMessage::RowDescription(columns) => {
            format!("columns({})", columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(","))
        }
        other => format!("{other:?}"),
    }
}

/// Severity, code and text of a driver's error.
#[must_use]
pub fn refusal(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(report) => format!("{} {} {}", report.severity(), report.code().code(), report.message()),
        None if error.is_closed() => "closed".to_owned(),
        None => format!("closed ({error})"),
    }
}

/// Severity, code and text of an ErrorResponse or NoticeResponse.
#[must_use]
pub fn told(report: &Message) -> String {
    let field = |kind| report.field(kind).unwrap_or_default();
    format!("{} {} {}", field(b'S'), field(b'C'), field(b'M'))
}

/// What a client saw, one word for each message: errors and notices in full, rows with their first column.
#[must_use]
pub fn transcript(messages: &[Message]) -> String {
    let words = messages.iter().filter(|message| message.tag != b'S').map(|message| match message.tag {
        b'E' | b'N' => format!("[{}]", told(message)),
        _ => format!("{message:?}"),
    });
    words.collect::<Vec<_>>().join(" ")
}
