//! What `scripts/demo.sh` does, command by command. The drill is in [`drill`].

pub(crate) mod drill;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use weir_cluster::cluster::LAYOUT_FILE;
use weir_cluster::drill::Front;
use weir_cluster::run_dir::{self, Found};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{
    Cluster, ClusterOptions, Layout, Progress, RunDir, Weir, WeirOptions, front, http, process, schema, sql,
};

/// Cluster and weir up, then in the foreground until Ctrl-C.
pub(crate) async fn up() -> Result<ExitCode> {
    refuse_second()?;
    let progress = Progress::told();
    let mut interrupts = Interrupts::new()?;
    let options = ClusterOptions { label: DEMO.to_owned(), progress, ..ClusterOptions::default() };
    let started = tokio::select! {
        started = start(options, |_, weir| Ok(weir)) => started?,
        () = interrupts.next() => return Ok(interrupted(progress)),
    };
    let (mut cluster, mut weir) = started;
    write!(std::io::stdout(), "{}", what_to_type(&cluster, &weir))?;
    let outcome = tokio::select! {
        outcome = attend(&mut cluster, &mut weir, progress) => outcome,
        () = interrupts.next() => Ok(()),
    };
    progress.say("removing everything that was started");
    end_weir(&mut weir).await?;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Another node leads, and how long it took.
pub(crate) async fn switchover(candidate: Option<&str>) -> Result<ExitCode> {
    let (_, layout) = running()?;
    let old = layout.leader().await.context("no leader")?.name.clone();
    let progress = Progress::told();
    progress.say(&format!("switchover from {old}"));
    layout.switchover(candidate).await?;
    let new = layout.wait_leader(Some(&old), Duration::from_secs(60)).await?;
    progress.say(&format!("{} leads now", new.name));
    Ok(ExitCode::SUCCESS)
}

/// The leader's node dies, and how long until another leads.
pub(crate) async fn crash() -> Result<ExitCode> {
    let (_, layout) = running()?;
    let old = layout.leader().await.context("no leader")?.name.clone();
    let progress = Progress::told();
    progress.say(&format!("kill -9 of Patroni and PostgreSQL on {old}; its leader key lives for up to 20 s"));
    layout.crash(&old)?;
    let new = layout.wait_leader(Some(&old), Duration::from_secs(90)).await?;
    progress.say(&format!("{} leads now; {old} will be started again by the demo", new.name));
    Ok(ExitCode::SUCCESS)
}

/// Who leads, and what weir says.
pub(crate) async fn status() -> Result<ExitCode> {
    let (found, layout) = running()?;
    let mut out = std::io::stdout();
    writeln!(out, "demo runs as process {}, files in {}", found.owner, found.path.display())?;
    for member in layout.members().await? {
        let address =
            layout.node(&member.name).map_or_else(|_| "?".to_owned(), |node| node.postgres.to_string());
        let timeline = member.timeline.map_or_else(|| "?".to_owned(), |timeline| timeline.to_string());
        let lag = member.lag.map_or_else(String::new, |lag| format!(", {lag} bytes behind"));
        writeln!(
            out,
            "  {:<4} {address:<18} {:<13} {:<10} timeline {timeline}{lag}",
            member.name, member.role, member.state
        )?;
    }
    for (what, address) in [("writes", FRONT.write), ("reads", FRONT.read)] {
        let asked = Instant::now();
        let answer = sql::value(address, schema::APP, "SELECT host(inet_server_addr())");
        match tokio::time::timeout(Duration::from_secs(3), answer).await {
            Ok(Ok(server)) => {
                writeln!(
                    out,
                    "  weir {address} ({what}): answered by {server} in {} ms",
                    asked.elapsed().as_millis()
                )?;
            }
            Ok(Err(problem)) => writeln!(out, "  weir {address} ({what}): {}", causes(&problem))?,
            Err(_) => writeln!(out, "  weir {address} ({what}): holds (no answer within 3 s)")?,
        }
    }
    if let Ok(ready) = http::get(HTTP, "/readyz").await {
        writeln!(out, "  /readyz {}: {}", ready.status, ready.body.trim())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the demo that runs in another terminal.
pub(crate) async fn stop() -> Result<ExitCode> {
    let mut out = std::io::stdout();
    let Some(found) = RunDir::find(DEMO).or_else(|| RunDir::find(DRILL)) else {
        // What a killed one left is cleared away all the same.
        run_dir::clear_abandoned();
        writeln!(out, "no demo is running")?;
        return Ok(ExitCode::SUCCESS);
    };
    process::send(found.owner, Signal::TERM);
    let gone = until("the demo to end", Limit::slow(Duration::from_secs(20)), async || {
        (!found.owner_lives()).then_some(())
    });
    if gone.await.is_err() {
        process::send(found.owner, Signal::KILL);
        until("the demo to die", Limit::slow(Duration::from_secs(5)), async || {
            (!found.owner_lives()).then_some(())
        })
        .await?;
    }
    run_dir::clear_abandoned();
    writeln!(out, "stopped")?;
    Ok(ExitCode::SUCCESS)
}

/// An error and its causes in one text, outermost first.
pub(crate) fn causes(problem: &anyhow::Error) -> String {
    problem.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n  because: ")
}

async fn start(
    options: ClusterOptions,
    change: impl FnOnce(&Cluster, WeirOptions) -> Result<WeirOptions>,
) -> Result<(Cluster, Weir)> {
    let progress = options.progress;
    for address in [FRONT.write, FRONT.read, HTTP] {
        TcpListener::bind(address)
            .with_context(|| format!("{address} is not free, weir is to listen there"))?;
    }
    Weir::binary()?;
    let cluster = Cluster::start(options).await?;
    let ip = FRONT.write.ip();
    let options = WeirOptions::on(ip, FRONT.write.port(), FRONT.read.port(), HTTP.port());
    let weir = front::start(&cluster, change(&cluster, options)?).await?;
    progress
        .say(&format!("weir is ready: writes on {}, reads on {}, HTTP on {HTTP}", FRONT.write, FRONT.read));
    Ok((cluster, weir))
}

/// Tells what happens to the cluster, and starts a crashed node again once another one leads.
async fn attend(cluster: &mut Cluster, weir: &mut Weir, progress: Progress) -> Result<()> {
    let mut leader = cluster.leader().await.map(|node| node.name.clone());
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Some(status) = weir.ended() {
            bail!("weir ended: {status}\n{}", process::tail(weir.log()));
        }
        let now = cluster.leader().await.map(|node| node.name.clone());
        if now != leader {
            progress
                .say(&now.as_ref().map_or_else(|| "nobody leads".to_owned(), |name| format!("{name} leads")));
            leader = now;
        }
        for name in cluster.ended_nodes() {
            if leader.as_ref().is_some_and(|leader| *leader != name) {
                progress.say(&format!("starting {name} again"));
                cluster.restart_node(&name)?;
            }
        }
    }
}

/// A first SIGTERM lets clients finish, which a forgotten psql would make endless.
async fn end_weir(weir: &mut Weir) -> Result<()> {
    weir.signal(Signal::TERM);
    if weir.wait_end(Duration::from_secs(1)).await.is_err() {
        weir.stop().await?;
    }
    Ok(())
}

/// One at a time, as they share addresses; what a killed one left is cleared away.
fn refuse_second() -> Result<()> {
    run_dir::clear_abandoned();
    if let Some(found) = RunDir::find(DEMO).or_else(|| RunDir::find(DRILL)) {
        bail!("one is running already (process {}); end it with: scripts/demo.sh stop", found.owner);
    }
    Ok(())
}

fn running() -> Result<(Found, Layout)> {
    let found = RunDir::find(DEMO).or_else(|| RunDir::find(DRILL));
    let found = found.context("no demo is running; start one with: scripts/demo.sh")?;
    let layout = read_layout(&found.path).context("the demo is still starting")?;
    Ok((found, layout))
}

fn read_layout(folder: &Path) -> Result<Layout> {
    Layout::from_json(&std::fs::read_to_string(folder.join(LAYOUT_FILE))?)
}

fn interrupted(progress: Progress) -> ExitCode {
    progress.say("interrupted; removing everything that was started");
    ExitCode::from(130)
}

fn what_to_type(cluster: &Cluster, weir: &Weir) -> String {
    let psql = |port: SocketAddr, login: (&str, &str), database: &str| {
        format!(
            "PGPASSWORD={} psql 'host=127.0.0.1 port={} dbname={database} user={}'",
            login.1,
            port.port(),
            login.0
        )
    };
    let app = (schema::APP.user, schema::APP.password);
    format!(
        "
weir is in front of three PostgreSQL nodes. In another terminal:

  writes, always the leader     {write}
  reads, spread over replicas   {read}
  console (SHOW POOLS; …)       {console}
  metrics                       curl http://{HTTP}/metrics

  change the leader             scripts/demo.sh switchover
  kill the leader's node        scripts/demo.sh crash
  look                          scripts/demo.sh status
  logs                          {weir_log}
                                {cluster_log}/*.log

Ctrl-C here, or scripts/demo.sh stop, removes everything.

",
        write = psql(FRONT.write, app, schema::DATABASE),
        read = psql(FRONT.read, app, schema::DATABASE),
        console = psql(FRONT.write, front::ADMIN, "weir"),
        weir_log = weir.log().display(),
        cluster_log = cluster.run_dir().path().display(),
    )
}

/// Ctrl-C, SIGTERM, and SIGHUP from a terminal that closes.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const DEMO: &str = "demo";
const DRILL: &str = "drill";
const FRONT: Front = Front { write: local(6432), read: local(6433), own: None };
const HTTP: SocketAddr = local(9632);
const CALLBACKS: SocketAddr = local(9633);
