//! Many logins by each driver's own program (tests/drivers), started once for all of them. Holds no opinion on who should
//! get in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How a client reaches weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// TCP in the clear.
    Plain,
    /// TLS after an SSLRequest, weir's certificate not looked at.
    Tls,
    /// TLS, and weir's certificate has to be `localhost`'s.
    Verified,
    /// TLS, and the login has to be bound to the channel.
    Bound,
    /// TLS without an SSLRequest, by ALPN.
    Direct,
    /// TLS, protocol 3.2 and nothing older.
    Newest,
    /// TLS with a client certificate.
    Certificate,
    /// The Unix socket.
    Unix,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Plain,
        Self::Tls,
        Self::Verified,
        Self::Bound,
        Self::Direct,
        Self::Newest,
        Self::Certificate,
        Self::Unix,
    ];

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        !matches!(self, Self::Plain | Self::Unix)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Verified => "verified",
            Self::Bound => "bound",
            Self::Direct => "direct",
            Self::Newest => "newest",
            Self::Certificate => "certificate",
            Self::Unix => "unix",
        }
    }

    /// The part of libpq's connection string.
    fn words(self, folder: &str) -> String {
        match self {
            Self::Plain | Self::Unix => "sslmode=disable".to_owned(),
            Self::Tls => "sslmode=require".to_owned(),
            Self::Verified => format!("sslmode=verify-full sslrootcert={folder}/authority.crt"),
            Self::Bound => "sslmode=require channel_binding=require".to_owned(),
            Self::Direct => {
                format!("sslmode=verify-full sslrootcert={folder}/authority.crt sslnegotiation=direct")
            }
            Self::Newest => "sslmode=require min_protocol_version=3.2 max_protocol_version=latest".to_owned(),
            Self::Certificate => format!(
                "sslmode=verify-full sslrootcert={folder}/authority.crt \
                 sslcert={folder}/client.crt sslkey={folder}/client.key"
            ),
        }
    }
}

/// A driver's program and what the driver can.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    /// As tests/drivers/run.sh calls it.
    pub name: &'static str,
    cannot: &'static [How],
}

/// All drivers.
pub const DRIVERS: [Driver; 7] = [
    Driver { name: "psql", cannot: &[How::Direct, How::Newest] },
    Driver { name: "psycopg", cannot: &[] },
    Driver { name: "asyncpg", cannot: &[How::Bound, How::Newest] },
    Driver { name: "pgjdbc", cannot: &[How::Bound, How::Direct, How::Newest, How::Unix] },
    Driver { name: "node-postgres", cannot: &[How::Newest] },
    Driver { name: "lib-pq", cannot: &[How::Bound, How::Direct, How::Newest] },
    Driver { name: "pgx", cannot: &[How::Bound, How::Direct, How::Newest] },
];

impl Driver {
    /// Whether the driver can connect like this.
    #[must_use]
    pub fn can(&self, how: How) -> bool {
        !self.cannot.contains(&how)
    }

    /// Tries all these logins, one after the other.
    ///
    /// # Errors
    /// The program fails, hangs, or does not answer each of them.
    pub async fn log_in(&self, tries: &[Try]) -> Result<Vec<Answer>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../drivers/run.sh");
        let mut child = Command::new(script)
            .args(["logins", self.name])
            // What libpq would read there is nobody's business here.
            .env("HOME", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines: String = tries.iter().map(Try::line).collect();
        let mut input = child.stdin.take().context("no standard input")?;
        let feed = tokio::spawn(async move { input.write_all(lines.as_bytes()).await });
        let output = timeout(PATIENCE, child.wait_with_output()).await.context("the driver hangs")??;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {complaint}", self.name);
        feed.await??;
        let said = String::from_utf8(output.stdout)?;
        let answers: Vec<Answer> = said.lines().map(Answer::parse).collect::<Result<_>>()?;
        ensure!(
            answers.len() == tries.len(),
            "{}: {} answers to {} logins: {complaint}",
            self.name,
            answers.len(),
            tries.len()
        );
        Ok(answers)
    }
}

/// One login, followed by `SELECT current_user`.
#[derive(Debug, Clone)]
pub struct Try {
    /// How it gets there.
    pub how: How,
    /// Where `authority.crt`, `client.crt` and `client.key` are.
    pub folder: PathBuf,
    /// Where the Unix socket is.
    pub sockets: PathBuf,
    /// TCP port, also of the Unix socket.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password; not empty, and without blanks.
    pub password: String,
    /// Database.
    pub database: String,
}

impl Try {
    fn line(&self) -> String {
        let Self { how, folder, sockets, port, user, password, database } = self;
        let folder = folder.display();
        let host = if *how == How::Unix { sockets.display().to_string() } else { "localhost".to_owned() };
        let words = how.words(&folder.to_string());
        format!(
            "{}\t{folder}\t{host}\t{port}\t{user}\t{password}\t{database}\t\
             host={host} port={port} user={user} password={password} dbname={database} connect_timeout=20 {words}\n",
            how.name()
        )
    }
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}@{}", self.how, self.user, self.database)
    }
}

/// How a login ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// PostgreSQL's `current_user`.
    In(String),
    /// Refused, by weir or by the driver itself.
    Out {
        /// SQLSTATE; `None` where the driver itself refuses or tells none.
        code: Option<String>,
        /// The driver's words.
        text: String,
    },
}

impl Answer {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split('\t');
        let mut next = || words.next().with_context(|| format!("too short an answer: {line}"));
        match next()? {
            "ok" => Ok(Self::In(next()?.to_owned())),
            _ => {
                let code = Some(next()?.to_owned()).filter(|code| code != "-");
                Ok(Self::Out { code, text: next()?.to_owned() })
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(400);
