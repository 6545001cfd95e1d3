//! A Patroni cluster on loopback addresses: etcd, three nodes, the schema. Owns the processes and the order of
//! starting; where things are and what can be done to them from any terminal is [`Layout`].

mod layout;
mod network;
mod patroni;

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

pub use layout::{Layout, Member, Node, Ports, describe};
pub use network::Network;
pub use patroni::Patroni;

use crate::certificates::Authority;
use crate::http;
use crate::postgres::{ServerTls, newest_bin_dir};
use crate::process::{self, Process};
use crate::progress::Progress;
use crate::run_dir::{RunDir, write_private};
use crate::schema;
use crate::sql;
use crate::wait::{Limit, until};

/// Patroni's clocks in seconds. It silently corrects what breaks `loop_wait + 2 * retry_timeout <= ttl` or is below its
/// minimum, which the default is.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a leader key lives without renewal: a crash is noticed after about this time.
    pub ttl: u32,
    /// Pause between two looks at the cluster.
    pub loop_wait: u32,
    /// How long requests to etcd and PostgreSQL are repeated.
    pub retry_timeout: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self { ttl: 20, loop_wait: 1, retry_timeout: 3 }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Name of the run, by which a second terminal finds it.
    pub label: String,
    /// Patroni's name of the cluster.
    pub scope: String,
    /// Address of the first node; the other nodes and etcd follow it. Take another one to run several side by side.
    pub base: Ipv4Addr,
    /// How many nodes.
    pub nodes: u8,
    /// Ports, the same on every node.
    pub ports: Ports,
    /// Which Patroni.
    pub patroni: Patroni,
    /// Synchronous replication: an acknowledged row is on two nodes.
    pub synchronous: bool,
    /// TLS on PostgreSQL; certificates are for the nodes' addresses.
    pub tls: ServerTls,
    /// The REST APIs speak TLS and want a certificate of whoever asks (`verify_client: required`).
    pub https: bool,
    /// Nodes can be cut off the network; needs root and nftables.
    pub separable: bool,
    /// PostgreSQL logs logins, and every statement that changes something before it is run; each line begins with the time
    /// in seconds since 1970.
    pub audited: bool,
    /// Patroni calls a script when a role changes; it does nothing until [`Cluster::call_back`].
    pub callbacks: bool,
    /// User and password without which the REST APIs change nothing.
    pub api_login: Option<(String, String)>,
    /// Patroni's clocks.
    pub timing: Timing,
    /// Lines put in front of pg_hba.conf.
    pub hba: Vec<String>,
    /// Who hears of progress.
    pub progress: Progress,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            label: "cluster".to_owned(),
            scope: "weir".to_owned(),
            base: Ipv4Addr::new(127, 0, 10, 1),
            nodes: 3,
            ports: Ports::default(),
            patroni: Patroni::Packaged,
            synchronous: false,
            tls: ServerTls::Off,
            https: false,
            separable: false,
            audited: false,
            callbacks: false,
            api_login: None,
            timing: Timing::default(),
            hba: Vec::new(),
            progress: Progress::silent(),
        }
    }
}

/// A running cluster. Dropping it ends everything and removes the data.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    patronis: Vec<Option<Process>>,
    etcd: Process,
    program: PathBuf,
    authority_pem: Option<PathBuf>,
    synchronous: bool,
    scope: String,
    looks_before_writing: bool,
    network: Option<Network>,
    progress: Progress,
    run_dir: RunDir,
}

impl Cluster {
    /// Brings the cluster up and waits until it is healthy: a leader, all replicas following, the schema loaded.
    ///
    /// # Errors
    /// A program is missing, an address is taken, or something does not come up; the text holds the end of the right
    /// log.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let run_dir = RunDir::create(&options.label)?;
        let mut layout = Layout::plan(options.base, options.nodes, options.ports, run_dir.path());
        layout.https = options.https.then(|| run_dir.path().to_owned());
        check_free(&layout)?;
        let bin_dir = newest_bin_dir()?;
        let program = options.patroni.program(&run_dir).await?;
        let network = match options.separable {
            true => Some(Network::start(&run_dir, &layout.nodes).await?),
            false => None,
        };
        let etcd = start_etcd(&run_dir, layout.etcd)?;
        let mut cluster = Self {
            patronis: layout.nodes.iter().map(|_| None).collect(),
            layout,
            etcd,
            program,
            authority_pem: None,
            synchronous: options.synchronous,
            scope: options.scope.clone(),
            looks_before_writing: options.patroni != Patroni::Packaged,
            network,
            progress: options.progress,
            run_dir,
        };
        cluster.wait_etcd().await?;
        cluster.write_nodes(&options, &bin_dir)?;
        cluster.write_callback("#!/bin/sh\n")?;
        let outcome = cluster.bring_up().await;
        process::with_log(outcome, &cluster.culprit_log())?;
        cluster.run_dir.write(LAYOUT_FILE, &cluster.layout.to_json())?;
        Ok(cluster)
    }

    /// Where things are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The run's folder with all logs.
    #[must_use]
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// The certificate that signed the servers', when TLS is on.
    #[must_use]
    pub fn authority_pem(&self) -> Option<&Path> {
        self.authority_pem.as_deref()
    }

    /// Waits until everybody is well again; see [`Layout::wait_healthy`].
    ///
    /// # Errors
    /// It did not happen in time.
    pub async fn wait_healthy(&self, patience: Duration) -> Result<()> {
        self.layout.wait_healthy(self.synchronous, patience).await
    }

    /// Switches synchronous replication on or off and waits until the cluster shows it.
    ///
    /// # Errors
    /// Patroni refuses, or no synchronous standby appears in time.
    pub async fn set_synchronous(&mut self, on: bool) -> Result<()> {
        self.layout.configure(&serde_json::json!({"synchronous_mode": on})).await?;
        self.synchronous = on;
        self.wait_healthy(Duration::from_secs(30)).await
    }

    /// Crashes the leader's node ([`Layout::crash`]) and returns its name.
    ///
    /// # Errors
    /// There is no leader.
    pub async fn crash_leader(&self) -> Result<String> {
        let name = self.layout.leader().await.context("no leader to crash")?.name.clone();
        self.layout.crash(&name)?;
        Ok(name)
    }

    /// Starts the node's Patroni again if it has ended.
    ///
    /// # Errors
    /// No such node, or Patroni cannot be started.
    pub fn restart_node(&mut self, name: &str) -> Result<()> {
        let index = self.layout.nodes.iter().position(|node| node.name == name);
        let index = index.with_context(|| format!("no node called {name}"))?;
        if self.patronis[index].as_mut().is_some_and(|patroni| patroni.ended().is_none()) {
            return Ok(());
        }
        self.patronis[index] = Some(self.start_patroni(&self.layout.nodes[index])?);
        Ok(())
    }

    /// Undoes [`Layout::freeze`] after another node took over. Patroni 3.0 is started again instead of being thawed: it
    /// writes the leader's key in etcd without looking whose it is meanwhile, takes the leadership back on the old
    /// timeline, and with it everything that was written since.
    ///
    /// # Errors
    /// No such node, or Patroni cannot be started.
    pub async fn thaw_or_renew(&mut self, name: &str) -> Result<()> {
        if !self.looks_before_writing {
            let index = self.layout.nodes.iter().position(|node| node.name == name);
            let patroni = index.and_then(|index| self.patronis[index].as_mut()).context("no such node")?;
            patroni.stop(Signal::KILL, Duration::from_secs(5)).await?;
            self.restart_node(name)?;
        }
        self.layout.thaw(name)
    }

    /// Throws a node's data away and starts it again: Patroni copies the leader's.
    ///
    /// # Errors
    /// No such node, its data cannot be removed, or Patroni cannot be started.
    pub async fn renew_node(&mut self, name: &str) -> Result<()> {
        self.layout.crash(name)?;
        let index = self.layout.nodes.iter().position(|node| node.name == name);
        let patroni = index.and_then(|index| self.patronis[index].as_mut()).context("no such node")?;
        patroni.stop(Signal::KILL, Duration::from_secs(5)).await?;
        let folder = &self.layout.node(name)?.folder;
        std::fs::remove_dir_all(folder.join("data"))?;
        // A killed postmaster that nobody has reaped yet looks alive to the next one, by the lock of its socket.
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(".s.PGSQL.") {
                std::fs::remove_file(entry.path())?;
            }
        }
        self.restart_node(name)
    }

    /// The network between the nodes and everybody.
    ///
    /// # Errors
    /// The cluster was not started as [`ClusterOptions::separable`].
    pub fn network(&mut self) -> Result<&mut Network> {
        self.network.as_mut().context("this cluster's network cannot be cut")
    }

    /// Kills etcd; its data stays.
    ///
    /// # Errors
    /// It does not even end after SIGKILL.
    pub async fn stop_etcd(&mut self) -> Result<()> {
        self.etcd.stop(Signal::KILL, Duration::from_secs(5)).await.map(|_| ())
    }

    /// Starts etcd again where [`Cluster::stop_etcd`] left it, and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_etcd(&mut self) -> Result<()> {
        self.etcd = start_etcd(&self.run_dir, self.layout.etcd)?;
        self.wait_etcd().await
    }

    /// Runs Patroni's own command line tool, for example `["restart", "n2"]`: the cluster's name goes behind the
    /// command, `--force` at the end.
    ///
    /// # Errors
    /// It failed; the text holds the end of its log.
    pub async fn patronictl(&self, command: &str, rest: &[&str]) -> Result<()> {
        let config = self.layout.nodes.first().context("no node")?.folder.join("patroni.yml");
        let mut tool = Command::new(self.program.with_file_name("patronictl"));
        tool.arg("-c").arg(config).args([command, &self.scope]).args(rest).arg("--force");
        self.run_dir.account().apply(&mut tool);
        without_settings(&mut tool, &["PATRONI"]);
        let log = self.run_dir.log("patronictl");
        process::run(tool, self.run_dir.path(), &log, PATRONICTL_PATIENCE).await
    }

    /// Patroni's callbacks tell weir of every change of a role from now on: the script that is shipped, with this door and
    /// this token.
    ///
    /// # Errors
    /// The file system refused.
    pub fn call_back(&self, door: SocketAddr, token: &str) -> Result<()> {
        let header = self.run_dir.write("weir.header", &format!("Authorization: Bearer {token}\n"))?;
        let script = include_str!("../../../configs/weir-callback.sh")
            .replace("/etc/patroni/weir.header", &header.display().to_string())
            .replace("10.0.0.5:9633 10.0.0.6:9633", &door.to_string());
        self.write_callback(&script)
    }

    /// A script that runs may not be written to: it is put in place of the old one.
    fn write_callback(&self, script: &str) -> Result<()> {
        let new = self.run_dir.write("callback.new", script)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o700))?;
        std::fs::rename(&new, self.run_dir.path().join(CALLBACK)).context("putting the callback in place")
    }

    /// Names of the nodes whose Patroni has ended.
    pub fn ended_nodes(&mut self) -> Vec<String> {
        let ended =
            |patroni: &mut Option<Process>| patroni.as_mut().is_none_or(|patroni| patroni.ended().is_some());
        let names = self.layout.nodes.iter().map(|node| node.name.clone());
        names.zip(&mut self.patronis).filter_map(|(name, patroni)| ended(patroni).then_some(name)).collect()
    }

    /// The stored verifier of `user`, read from the leader.
    ///
    /// # Errors
    /// No leader, or no such user.
    pub async fn verifier(&self, user: &str) -> Result<String> {
        let leader = self.layout.leader().await.context("no leader to ask")?;
        let query = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
        sql::value(leader.postgres, schema::SUPERUSER, &query).await
    }

    async fn wait_etcd(&mut self) -> Result<()> {
        let address = self.layout.etcd;
        let outcome = until("etcd", Limit::quick(Duration::from_secs(15)), async || {
            if let Some(status) = self.etcd.ended() {
                return Some(Err(anyhow::anyhow!("etcd ended: {status}")));
            }
            let answer = http::get(address, "/health").await.ok()?;
            (answer.status == 200).then_some(Ok(()))
        })
        .await;
        process::with_log(outcome.and_then(|ready| ready), self.etcd.log())?;
        self.progress.say(&format!("etcd answers on {address}"));
        Ok(())
    }

    fn write_nodes(&mut self, options: &ClusterOptions, bin_dir: &Path) -> Result<()> {
        let authority = Authority::new()?;
        for node in &self.layout.nodes {
            self.run_dir.folder(&node.name)?;
            let callback = options.callbacks.then(|| self.run_dir.path().join(CALLBACK));
            let content = patroni::configuration(options, &self.layout, node, bin_dir, callback.as_deref());
            let account = self.run_dir.account();
            write_private(&node.folder.join("patroni.yml"), &content, account)?;
            if options.tls != ServerTls::Off {
                let own = authority.issue(&node.name, &[node.postgres.ip()])?;
                write_private(&node.folder.join("server.crt"), &own.certificate_pem, account)?;
                write_private(&node.folder.join("server.key"), &own.key_pem, account)?;
            }
            if options.https {
                let own = authority.issue(&node.name, &[node.api.ip()])?;
                write_private(&node.folder.join("api.crt"), &own.certificate_pem, account)?;
                write_private(&node.folder.join("api.key"), &own.key_pem, account)?;
            }
        }
        if options.https {
            let client = authority.issue("tools", &[])?;
            self.run_dir.write(http::AUTHORITY, &authority.certificate_pem())?;
            self.run_dir.write(http::CERTIFICATE, &client.certificate_pem)?;
            self.run_dir.write(http::KEY, &client.key_pem)?;
        }
        if options.tls != ServerTls::Off {
            self.authority_pem = Some(self.run_dir.write("authority.crt", &authority.certificate_pem())?);
        }
        Ok(())
    }

    async fn bring_up(&mut self) -> Result<()> {
        for index in 0..self.layout.nodes.len() {
            let node = &self.layout.nodes[index];
            self.patronis[index] = Some(self.start_patroni(node)?);
        }
        self.progress.say("Patroni started on every node; the first one makes the database");
        self.wait_alive("a leader", async |layout| layout.leader().await.map(|_| ())).await?;
        let leader = self.layout.leader().await.context("the leader left again")?;
        self.progress.say(&format!("{} leads; loading roles and tables", leader.name));
        schema::load(leader.postgres).await?;
        let synchronous = self.synchronous;
        self.progress.say("waiting for the replicas");
        self.wait_alive("the replicas", async |layout| {
            layout.wait_healthy(synchronous, Duration::from_millis(200)).await.ok()?;
            have_schema(layout).await.then_some(())
        })
        .await?;
        self.progress.say(&format!("cluster is healthy: {}", describe(&self.layout.members().await?)));
        Ok(())
    }

    /// Waits for something while watching that no Patroni ends.
    async fn wait_alive(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&Layout) -> Option<()>,
    ) -> Result<()> {
        let layout = self.layout.clone();
        let ended = until(what, Limit::slow(BRING_UP_PATIENCE), async || {
            let ended = self.ended_nodes();
            if !ended.is_empty() {
                return Some(ended);
            }
            look(&layout).await.map(|()| Vec::new())
        })
        .await?;
        if !ended.is_empty() {
            bail!("Patroni ended on {}", ended.join(", "));
        }
        Ok(())
    }

    fn start_patroni(&self, node: &Node) -> Result<Process> {
        let mut command = Command::new(&self.program);
        command.arg(node.folder.join("patroni.yml")).current_dir(&node.folder);
        without_settings(&mut command, &["PATRONI", "PG"]);
        self.run_dir.account().apply(&mut command);
        if self.network.is_some() {
            command.gid(network::group_of(node).context("nodes have IPv4 addresses")?);
        }
        Process::start(command, &node.folder, &self.run_dir.log(&node.name))
    }

    /// The log to show when the cluster does not come up: of a node that ended, else of the first.
    fn culprit_log(&mut self) -> PathBuf {
        let name = self.ended_nodes().into_iter().next().unwrap_or_else(|| "n1".to_owned());
        self.run_dir.log(&name)
    }
}

impl Deref for Cluster {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        &self.layout
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Patroni would start PostgreSQL again: both at once, before the single processes are dropped.
        process::end_folder(self.run_dir.path());
        self.etcd.signal(Signal::KILL);
    }
}

/// Name of the script in the run folder that Patroni calls.
const CALLBACK: &str = "callback.sh";
/// Name of the file in the run folder that holds [`Layout::to_json`].
pub const LAYOUT_FILE: &str = "layout.json";

fn start_etcd(run_dir: &RunDir, address: SocketAddr) -> Result<Process> {
    let peer = SocketAddr::new(address.ip(), address.port() + 1);
    let mut command = Command::new("etcd");
    // Arguments win over settings that are there, not over others.
    without_settings(&mut command, &["ETCD"]);
    command
        .args(["--name", "etcd1"])
        .arg("--data-dir")
        .arg(run_dir.folder("etcd")?)
        .args(["--listen-client-urls", &format!("http://{address}")])
        .args(["--advertise-client-urls", &format!("http://{address}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
        .args(["--initial-cluster", &format!("etcd1=http://{peer}")])
        .args(["--log-level", "warn"])
        .current_dir(run_dir.path());
    run_dir.account().apply(&mut command);
    Process::start(command, run_dir.path(), &run_dir.log("etcd"))
}

/// A caller's own settings (`ETCD_NAME`, `PGHOST`, …) must not reach what is started.
fn without_settings(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in std::env::vars_os() {
        let theirs = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if name.to_str().is_some_and(theirs) {
            command.env_remove(name);
        }
    }
}

/// Says which address is taken before anything is started, rather than from a log after.
fn check_free(layout: &Layout) -> Result<()> {
    let nodes = layout.nodes.iter().flat_map(|node| [node.postgres, node.api]);
    for address in nodes.chain([layout.etcd]) {
        std::net::TcpListener::bind(address)
            .with_context(|| format!("{address} is not free: is another cluster running?"))?;
    }
    Ok(())
}

/// Whether the roles and tables have reached every node; a replica that follows may still be behind.
async fn have_schema(layout: &Layout) -> bool {
    for node in &layout.nodes {
        if sql::rows(node.postgres, schema::SUPERUSER, "SELECT FROM public.drill LIMIT 0").await.is_err() {
            return false;
        }
    }
    true
}

/// A restart of a member waits for a checkpoint and the streaming behind it.
const PATRONICTL_PATIENCE: Duration = Duration::from_secs(90);
const BRING_UP_PATIENCE: Duration = Duration::from_secs(90);
