//! weir as a child process: started with given arguments, waited for, stopped by its process id. Knows nothing of
//! what stands behind it.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::http;
use crate::process::{self, Process};
use crate::run_dir::RunDir;
use crate::wait::{Limit, until};

/// What to start and where it listens.
#[derive(Debug, Clone)]
pub struct WeirOptions {
    /// The program; `None` for [`Weir::binary`].
    pub binary: Option<PathBuf>,
    /// Where writes go in.
    pub write: SocketAddr,
    /// Where reads go in.
    pub read: SocketAddr,
    /// Metrics and health.
    pub http: SocketAddr,
    /// Further arguments, for example `--upstream postgres://127.0.0.1:5432`.
    pub args: Vec<String>,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
    /// Lines of the user list (`"user" "secret"`); empty for no `--auth-file`.
    pub users: Vec<(String, String)>,
    /// Passes the three listen addresses as options; switch off when a config file names them.
    pub pass_listen: bool,
    /// How long it may take to become ready.
    pub patience: Duration,
}

impl WeirOptions {
    /// Three free ports on 127.0.0.1.
    ///
    /// # Errors
    /// No free port.
    pub fn on_free_ports() -> Result<Self> {
        let [write, read, http] = free_ports::<3>(Ipv4Addr::LOCALHOST.into())?;
        Ok(Self::on(Ipv4Addr::LOCALHOST.into(), write, read, http))
    }

    /// Given ports on one address.
    #[must_use]
    pub fn on(ip: IpAddr, write: u16, read: u16, http: u16) -> Self {
        Self {
            binary: None,
            write: SocketAddr::new(ip, write),
            read: SocketAddr::new(ip, read),
            http: SocketAddr::new(ip, http),
            args: Vec::new(),
            env: Vec::new(),
            users: Vec::new(),
            pass_listen: true,
            patience: Duration::from_secs(15),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a line to the user list.
    #[must_use]
    pub fn user(mut self, name: &str, secret: &str) -> Self {
        self.users.push((name.to_owned(), secret.to_owned()));
        self
    }
}

/// A running weir. Dropping it kills it.
#[derive(Debug)]
pub struct Weir {
    // Declared first: dropped before the folder its log is in.
    process: Process,
    options: WeirOptions,
    run_dir: RunDir,
}

impl Weir {
    /// Starts weir and waits until `/readyz` says 200.
    ///
    /// # Errors
    /// The program is missing, ends early, or is not ready in time; the text holds the end of its log.
    pub async fn start(options: WeirOptions) -> Result<Self> {
        let mut weir = Self::spawn(options)?;
        weir.wait_ready().await?;
        Ok(weir)
    }

    /// Starts weir and does not wait; for tests of the start itself.
    ///
    /// # Errors
    /// The program is missing.
    pub fn spawn(options: WeirOptions) -> Result<Self> {
        let run_dir = RunDir::create("weir")?;
        let binary = options.binary.clone().map_or_else(Self::binary, Ok)?;
        let mut command = Command::new(&binary);
        if options.pass_listen {
            command.arg("--write-listen").arg(options.write.to_string());
            command.arg("--read-listen").arg(options.read.to_string());
            command.arg("--http-listen").arg(options.http.to_string());
        }
        if !options.users.is_empty() {
            command.arg("--auth-file").arg(run_dir.write("userlist.txt", &user_list(&options.users))?);
        }
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command.args(&options.args).current_dir(run_dir.path());
        let process = Process::start(command, run_dir.path(), &run_dir.log("weir"))?;
        Ok(Self { process, options, run_dir })
    }

    /// The program to start: `WEIR_BINARY`, else `weir` beside the running test's or tool's own build.
    ///
    /// # Errors
    /// Neither exists.
    pub fn binary() -> Result<PathBuf> {
        if let Some(named) = std::env::var_os("WEIR_BINARY") {
            return Ok(named.into());
        }
        let own = std::env::current_exe().context("own path")?;
        own.ancestors()
            .skip(1)
            .take(2)
            .map(|folder| folder.join("weir"))
            .find(|path| path.is_file())
            .context("no weir beside this program: build it first (cargo build -p weir) or set WEIR_BINARY")
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// weir ended or is not ready in time; the text holds the end of its log.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let address = self.options.http;
        let outcome = until("weir to be ready", Limit::quick(self.options.patience), async || {
            if let Some(status) = self.process.ended() {
                return Some(Err(anyhow::anyhow!("weir ended: {status}")));
            }
            let answer = http::get(address, "/readyz").await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        })
        .await;
        process::with_log(outcome.and_then(|ready| ready), self.process.log())
    }

    /// Where writes go in.
    #[must_use]
    pub fn write(&self) -> SocketAddr {
        self.options.write
    }

    /// Where reads go in.
    #[must_use]
    pub fn read(&self) -> SocketAddr {
        self.options.read
    }

    /// Metrics and health.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.options.http
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The log file.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        let bytes = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The folder it runs in, with `userlist.txt`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.run_dir.path()
    }

    /// Sends a signal (`Signal::HUP` reloads).
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It still runs after `patience`.
    pub async fn wait_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.process.wait(patience).await
    }

    /// SIGTERM, and after ten seconds SIGKILL.
    ///
    /// # Errors
    /// It does not end, not even when killed.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.stop(Signal::TERM, Duration::from_secs(10)).await
    }
}

/// Ports nobody listens on right now, below those that the system gives to outgoing connections: one of those could take a
/// port of that range before it is used. Another test may do so still, which is why each begins somewhere else.
///
/// # Errors
/// There are none.
pub fn free_ports<const COUNT: usize>(ip: IpAddr) -> Result<[u16; COUNT]> {
    let begin = RandomState::new().hash_one(std::process::id()) as usize % PORTS.len();
    // All are held together, so that they differ.
    let free =
        PORTS.cycle().skip(begin).take(PORTS.len()).filter_map(|port| TcpListener::bind((ip, port)).ok());
    let held: Vec<TcpListener> = free.take(COUNT).collect();
    ensure!(held.len() == COUNT, "no free ports on {ip}");
    let mut ports = [0; COUNT];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Where ports are looked for.
const PORTS: Range<u16> = 12_000..32_000;

/// The text of a user list in PgBouncer's format.
#[must_use]
pub fn user_list(users: &[(String, String)]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    users.iter().map(|(name, secret)| format!("{} {}\n", quoted(name), quoted(secret))).collect()
}
