//! A pooler in one of the two seats: started with settings that mean the same for both. Knows no load.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_cluster::process::{self, Process};
use weir_cluster::wait::{Limit, until};
use weir_cluster::weir::user_list;
use weir_cluster::{RunDir, Weir, WeirOptions, free_ports, schema, sql};

use crate::SERVERS;

/// When a server goes back to the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// At the end of the transaction.
    Transaction,
    /// When the client leaves.
    Session,
}

impl Pooling {
    /// The word both poolers use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// What kind of pooler a binary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Weir,
    PgBouncer,
}

/// A binary that can take a seat.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    kind: Kind,
    /// First line of `--version`.
    pub(crate) version: String,
    /// Column heading.
    pub(crate) label: String,
}

impl Program {
    /// Asks the binary for its version, which also says what it is.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let output =
            Command::new(path).arg("--version").output().with_context(|| path.display().to_string())?;
        ensure!(output.status.success(), "{} --version: {}", path.display(), output.status);
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.lines().next().unwrap_or_default().trim().to_owned();
        let kind = if version.to_lowercase().contains("pgbouncer") { Kind::PgBouncer } else { Kind::Weir };
        // It is started in a folder of its own.
        let path = path.canonicalize()?;
        Ok(Self { path, kind, label: version.clone(), version })
    }

    /// Whether it is ours.
    pub(crate) fn is_weir(&self) -> bool {
        self.kind == Kind::Weir
    }

    /// Whether named statements work in transaction mode. The first seat is weir's; a PgBouncer in it is there for
    /// the noise alone.
    pub(crate) fn maps_prepared_statements(&self, seat: usize) -> bool {
        seat == 0 && self.kind == Kind::Weir
    }
}

/// A running pooler.
#[derive(Debug)]
pub(crate) enum Seat {
    /// weir.
    Weir { weir: Weir, label: String },
    /// PgBouncer; the folder goes after the process.
    PgBouncer { process: Process, address: SocketAddr, label: String, _folder: RunDir },
}

impl Seat {
    /// Starts `program` in front of `upstream` with [`SERVERS`] servers and waits until a query goes through.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn start(program: &Program, upstream: SocketAddr, pooling: Pooling) -> Result<Self> {
        let mut seat = match program.kind {
            Kind::Weir => start_weir(program, upstream, pooling).await?,
            Kind::PgBouncer => start_pgbouncer(program, upstream, pooling)?,
        };
        let address = seat.address();
        until("the pooler to answer", Limit::quick(Duration::from_secs(15)), async || {
            if let Self::PgBouncer { process, .. } = &mut seat
                && let Some(status) = process.ended()
            {
                return Some(Err(anyhow::anyhow!(
                    "PgBouncer ended: {status}\n{}",
                    process::tail(process.log())
                )));
            }
            sql::value(address, schema::APP, "SELECT 1").await.ok().map(|_| Ok(()))
        })
        .await
        .and_then(|outcome| outcome)?;
        Ok(seat)
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Weir { weir, .. } => weir.write(),
            Self::PgBouncer { address, .. } => *address,
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Weir { weir, .. } => weir.pid(),
            Self::PgBouncer { process, .. } => process.pid(),
        }
    }

    /// Its name in the table.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Weir { label, .. } | Self::PgBouncer { label, .. } => label,
        }
    }
}

async fn start_weir(program: &Program, upstream: SocketAddr, pooling: Pooling) -> Result<Seat> {
    let mut options = WeirOptions::on_free_ports()?.user(schema::APP.user, schema::APP.password).args([
        "--upstream".to_owned(),
        format!("postgres://{upstream}"),
        "--pool-mode".to_owned(),
        pooling.name().to_owned(),
        "--pool-size".to_owned(),
        SERVERS.to_string(),
        "--workers".to_owned(),
        "1".to_owned(),
        "--max-client-conn".to_owned(),
        CLIENTS_MAX.to_string(),
    ]);
    options.binary = Some(program.path.clone());
    Ok(Seat::Weir { weir: Weir::start(options).await?, label: program.label.clone() })
}

fn start_pgbouncer(program: &Program, upstream: SocketAddr, pooling: Pooling) -> Result<Seat> {
    let folder = RunDir::create("pgbouncer")?;
    let [port] = free_ports::<1>(Ipv4Addr::LOCALHOST.into())?;
    let users = folder.write(
        "userlist.txt",
        &user_list(&[(schema::APP.user.to_owned(), schema::APP.password.to_owned())]),
    )?;
    let settings = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {}\n\
         default_pool_size = {SERVERS}\nmax_client_conn = {CLIENTS_MAX}\n",
        upstream.ip(),
        upstream.port(),
        users.display(),
        pooling.name(),
    );
    let mut command = Command::new(&program.path);
    command.arg(folder.write("pgbouncer.ini", &settings)?).current_dir(folder.path());
    folder.account().apply(&mut command);
    let process = Process::start(command, folder.path(), &folder.log("pgbouncer"))?;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    Ok(Seat::PgBouncer { process, address, label: program.label.clone(), _folder: folder })
}

const CLIENTS_MAX: u32 = 5000;
