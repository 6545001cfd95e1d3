//! One plain PostgreSQL with scram-sha-256 for everybody, the roles and tables of [`schema`], and
//! TLS if asked for. Knows nothing of clusters.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::certificates::Authority;
use crate::process::{self, Process};
use crate::run_dir::{RunDir, write_private};
use crate::schema;
use crate::sql::{self, Login};
use crate::wait::{Limit, until};
use crate::weir::free_ports;

/// Whether a server speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTls {
    /// It does not.
    Off,
    /// Clients may use it.
    Offered,
    /// Only TLS connections are let in (`hostssl`).
    Required,
}

/// How PostgreSQL is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Waits for clients to leave (SIGTERM).
    Smart,
    /// Ends sessions with 57P01 (SIGINT).
    Fast,
    /// No checkpoint, recovery at the next start (SIGQUIT).
    Immediate,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Address to listen on.
    pub address: IpAddr,
    /// Port; `None` takes a free one.
    pub port: Option<u16>,
    /// TLS; the certificate is for `address` and `localhost`.
    pub tls: ServerTls,
    /// Lines put in front of pg_hba.conf.
    pub hba: Vec<String>,
    /// Settings as in postgresql.conf, for example `("max_connections", "20")`.
    pub settings: Vec<(String, String)>,
    /// Folder of the programs, `None` for the newest that Debian's packages installed.
    pub bin_dir: Option<PathBuf>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: None,
            tls: ServerTls::Off,
            hba: Vec::new(),
            settings: Vec::new(),
            bin_dir: None,
        }
    }
}

/// A running PostgreSQL. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    // Declared first: dropped before the folder it works in.
    process: Process,
    address: SocketAddr,
    authority_pem: Option<PathBuf>,
    bin_dir: PathBuf,
    data: PathBuf,
    run_dir: RunDir,
}

impl Postgres {
    /// Makes a data folder, starts the server and loads the schema.
    ///
    /// # Errors
    /// A program is missing or the server does not come up; the text holds the end of its log.
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let run_dir = RunDir::create("postgres")?;
        let bin_dir = options.bin_dir.clone().map_or_else(newest_bin_dir, Ok)?;
        let port = match options.port {
            Some(port) => port,
            None => free_ports::<1>(options.address)?[0],
        };
        let address = SocketAddr::new(options.address, port);
        let data = run_dir.path().join("data");
        init(&run_dir, &bin_dir, &data).await?;
        let authority_pem = configure(&run_dir, &data, &options, address)?;
        let process = spawn(&run_dir, &bin_dir, &data)?;
        let mut server = Self { process, address, authority_pem, bin_dir, data, run_dir };
        server.wait_ready().await?;
        schema::load(server.address).await?;
        Ok(server)
    }

    /// Starts a streaming replica of this server, on a free port and with data of its own.
    ///
    /// # Errors
    /// The copy fails, or the replica does not come up.
    pub async fn replica(&self, settings: &[(&str, &str)]) -> Result<Self> {
        let run_dir = RunDir::create("replica")?;
        let ip = self.address.ip();
        let address = SocketAddr::new(ip, free_ports::<1>(ip)?[0]);
        let data = run_dir.path().join("data");
        let Login { user, password, .. } = schema::SUPERUSER;
        let source = format!("host={ip} port={} user={user} password={password}", self.address.port());
        let mut command = Command::new(self.bin_dir.join("pg_basebackup"));
        command.arg("--pgdata").arg(&data).args(["--dbname", &source, "--wal-method=stream"]);
        command.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf"]).current_dir(run_dir.path());
        run_dir.account().apply(&mut command);
        process::run(command, run_dir.path(), &run_dir.log("basebackup"), Duration::from_secs(60)).await?;
        // What stands last counts.
        let path = data.join("postgresql.auto.conf");
        let folder = run_dir.path().display().to_string();
        let port = address.port().to_string();
        let own = [("port", port.as_str()), ("unix_socket_directories", &folder)];
        let own = own.iter().chain(settings).map(|(name, value)| format!("{name} = '{value}'\n"));
        write_private(&path, &(fs::read_to_string(&path)? + &own.collect::<String>()), run_dir.account())?;
        let process = spawn(&run_dir, &self.bin_dir, &data)?;
        let bin_dir = self.bin_dir.clone();
        let mut server = Self { process, address, authority_pem: None, bin_dir, data, run_dir };
        server.wait_ready().await?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that signed the server's, when TLS is on.
    #[must_use]
    pub fn authority_pem(&self) -> Option<&Path> {
        self.authority_pem.as_deref()
    }

    /// Shows a certificate of another authority from now on, which becomes [`Postgres::authority_pem`].
    ///
    /// # Errors
    /// A file cannot be written, or the server does not read it.
    pub async fn renew_certificate(&self) -> Result<()> {
        write_certificates(&self.run_dir, &self.data, self.address.ip())?;
        self.superuser("SELECT pg_reload_conf()").await.map(|_| ())
    }

    /// The postmaster's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Folder of the PostgreSQL programs it was started from (`psql`, `pgbench`).
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Runs statements as the superuser in [`schema::DATABASE`] and returns rows as text.
    ///
    /// # Errors
    /// No connection, or a statement failed.
    pub async fn superuser(&self, query: &str) -> Result<Vec<Vec<Option<String>>>> {
        sql::rows(self.address, schema::SUPERUSER, query).await
    }

    /// The stored verifier of `user`, as it stands in `pg_authid`.
    ///
    /// # Errors
    /// No connection, or no such user.
    pub async fn verifier(&self, user: &str) -> Result<String> {
        let query = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
        sql::value(self.address, schema::SUPERUSER, &query).await
    }

    /// Stops the server; [`Postgres::start_again`] brings it back with its data.
    ///
    /// # Errors
    /// It does not end, not even when killed.
    pub async fn stop(&mut self, mode: ShutdownMode) -> Result<()> {
        let signal = match mode {
            ShutdownMode::Smart => Signal::TERM,
            ShutdownMode::Fast => Signal::INT,
            ShutdownMode::Immediate => Signal::QUIT,
        };
        self.process.stop(signal, Duration::from_secs(20)).await?;
        Ok(())
    }

    /// Kills the postmaster and all its children at once, as a power cut would.
    pub fn crash(&mut self) {
        process::kill_folder(&self.data);
    }

    /// Starts the server again on its data, on the same port.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        // After a crash the pid file is still there; the process it names is gone.
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
        self.process = spawn(&self.run_dir, &self.bin_dir, &self.data)?;
        self.wait_ready().await
    }

    /// Stops (`SIGSTOP`) the postmaster and its children: it accepts TCP and never answers.
    pub fn freeze(&self) {
        process::of_folder(&self.data).into_iter().for_each(|pid| process::send(pid, Signal::STOP));
    }

    /// Undoes [`Postgres::freeze`].
    pub fn thaw(&self) {
        process::of_folder(&self.data).into_iter().for_each(|pid| process::send(pid, Signal::CONT));
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let login = Login { database: "postgres", ..schema::SUPERUSER };
        let address = self.address;
        let tls_only = self.authority_pem.is_some();
        let outcome =
            until("PostgreSQL to accept connections", Limit::quick(Duration::from_secs(60)), async || {
                if let Some(status) = self.process.ended() {
                    return Some(Err(anyhow::anyhow!("PostgreSQL ended: {status}")));
                }
                match sql::connect(address, login).await {
                    Ok(_) => Some(Ok(())),
                    // Behind `hostssl` a plain login is refused, by a server that is up.
                    Err(problem) if tls_only && format!("{problem:#}").contains("no encryption") => {
                        Some(Ok(()))
                    }
                    Err(_) => None,
                }
            })
            .await;
        process::with_log(outcome.and_then(|ready| ready), self.process.log())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Before the process itself is dropped, which would kill it and leave its shared memory behind.
        process::end_folder(&self.data);
    }
}

/// The folder with the programs of the newest PostgreSQL that Debian's or Ubuntu's packages installed.
///
/// # Errors
/// There is none.
pub fn newest_bin_dir() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL's server package is not installed")?;
    versions
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max()
        .map(|(_, bin)| bin)
        .context("no PostgreSQL server under /usr/lib/postgresql")
}

/// The folder with the programs of PostgreSQL `major`: of the system's packages, or else what `tests/drivers/run.sh prepare` has
/// brought into the build folder.
///
/// # Errors
/// It is in neither place.
pub fn bin_dir(major: u32) -> Result<PathBuf> {
    let build = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let brought = build.join(format!("drivers/postgres/node_modules/postgresql-{major}/native/bin"));
    [PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")), brought]
        .into_iter()
        .find(|bin| bin.join("initdb").exists())
        .with_context(|| format!("PostgreSQL {major} is not here: tests/drivers/run.sh prepare brings it"))?
        .canonicalize()
        .context("its folder")
}

/// Settings that make a server quick to start and small; nothing a test relies on being otherwise.
pub(crate) const QUICK_SETTINGS: [(&str, &str); 9] = [
    // Files inside the data folder, gone with it.
    ("dynamic_shared_memory_type", "mmap"),
    ("fsync", "off"),
    ("full_page_writes", "on"),
    ("shared_buffers", "32MB"),
    ("min_wal_size", "48MB"),
    ("max_wal_size", "256MB"),
    ("password_encryption", "scram-sha-256"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
    ("timezone", "UTC"),
];

async fn init(run_dir: &RunDir, bin_dir: &Path, data: &Path) -> Result<()> {
    let password = run_dir.write("superuser_password", schema::SUPERUSER.password)?;
    let mut command = Command::new(bin_dir.join("initdb"));
    command
        .arg("--pgdata")
        .arg(data)
        .arg("--pwfile")
        .arg(&password)
        .args(["--username", schema::SUPERUSER.user, "--auth", "scram-sha-256"])
        .args(["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"])
        .current_dir(run_dir.path());
    run_dir.account().apply(&mut command);
    process::run(command, run_dir.path(), &run_dir.log("initdb"), Duration::from_secs(60)).await
}

fn configure(
    run_dir: &RunDir,
    data: &Path,
    options: &PostgresOptions,
    address: SocketAddr,
) -> Result<Option<PathBuf>> {
    let mut settings = String::new();
    let mut set = |name: &str, value: &str| {
        settings.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
    };
    set("listen_addresses", &address.ip().to_string());
    set("port", &address.port().to_string());
    set("unix_socket_directories", &run_dir.path().display().to_string());
    QUICK_SETTINGS.iter().for_each(|(name, value)| set(name, value));
    let mut authority_pem = None;
    if options.tls != ServerTls::Off {
        authority_pem = Some(write_certificates(run_dir, data, address.ip())?);
        set("ssl", "on");
    }
    options.settings.iter().for_each(|(name, value)| set(name, value));
    let path = data.join("postgresql.auto.conf");
    write_private(&path, &settings, run_dir.account())?;
    write_private(&data.join("pg_hba.conf"), &hba(options), run_dir.account())?;
    Ok(authority_pem)
}

fn hba(options: &PostgresOptions) -> String {
    let mut lines = options.hba.clone();
    lines.push("local all all scram-sha-256".to_owned());
    let kind = match options.tls {
        ServerTls::Off | ServerTls::Offered => "host",
        ServerTls::Required => {
            // The tools' own questions come without TLS.
            lines.push(format!("host all {} all scram-sha-256", schema::SUPERUSER.user));
            "hostssl"
        }
    };
    lines.push(format!("{kind} all all all scram-sha-256"));
    lines.push(format!("{kind} replication all all scram-sha-256\n"));
    lines.join("\n")
}

fn write_certificates(run_dir: &RunDir, data: &Path, address: IpAddr) -> Result<PathBuf> {
    let authority = Authority::new()?;
    let own = authority.issue("localhost", &[address])?;
    write_private(&data.join("server.crt"), &own.certificate_pem, run_dir.account())?;
    write_private(&data.join("server.key"), &own.key_pem, run_dir.account())?;
    run_dir.write("authority.crt", &authority.certificate_pem())
}

fn spawn(run_dir: &RunDir, bin_dir: &Path, data: &Path) -> Result<Process> {
    let mut command = Command::new(bin_dir.join("postgres"));
    command.arg("-D").arg(data).current_dir(run_dir.path());
    run_dir.account().apply(&mut command);
    Process::start(command, data, &run_dir.log("postgres"))
}
