//! Runs PostgreSQL's pgbench and reads what it says. Knows nothing of what it is pointed at.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use weir_cluster::postgres::newest_bin_dir;
use weir_cluster::sql::Login;

/// How pgbench sends its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryMode {
    /// One Query message each.
    Simple,
    /// Unnamed statements, one Sync each.
    Extended,
    /// Named statements, parsed once per connection.
    Prepared,
}

impl QueryMode {
    /// The word pgbench and the tables use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// Which of pgbench's own scripts runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// One SELECT by key (`-S`).
    SelectOnly,
    /// A transaction of seven statements, "tpcb-like".
    TpcbLike,
}

/// How long a run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Seconds of the clock.
    Seconds(u32),
    /// Transactions of each client.
    Transactions(u32),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Pgbench<'a> {
    /// Where to connect.
    pub address: SocketAddr,
    /// As whom.
    pub login: Login<'a>,
    /// How queries are sent.
    pub mode: QueryMode,
    /// What runs.
    pub script: Script,
    /// Client connections.
    pub clients: u32,
    /// How long.
    pub length: Length,
    /// TLS with this authority's certificate checked (`verify-full`); `None` for no TLS.
    pub authority: Option<&'a Path>,
    /// Folder for one latency per transaction; `None` for none.
    pub latencies: Option<&'a Path>,
}

/// What pgbench reported.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Transactions done.
    pub transactions: u64,
    /// Transactions per second without the time to connect.
    pub tps: f64,
    /// Latency that half of the transactions stayed within, when latencies were asked for.
    pub median: Option<Duration>,
    /// Latency that 99 of 100 transactions stayed within, when latencies were asked for.
    pub p99: Option<Duration>,
}

impl Pgbench<'_> {
    /// Runs to the end. Anything pgbench complains about is an error, a single failed transaction included.
    ///
    /// # Errors
    /// pgbench is missing, fails, is still running a minute after its time, or counts failures.
    pub async fn run(&self) -> Result<Outcome> {
        let mut command = self.command()?;
        let patience = match self.length {
            Length::Seconds(seconds) => Duration::from_secs(u64::from(seconds) + 60),
            Length::Transactions(_) => Duration::from_secs(180),
        };
        let output = tokio::time::timeout(patience, command.output()).await.context("pgbench hangs")??;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench {}: {complaints}{said}", output.status);
        let wrong: Vec<&str> =
            complaints.lines().filter(|line| line.contains("error") || line.contains("aborted")).collect();
        ensure!(wrong.is_empty(), "pgbench complains: {}", wrong.join("\n"));
        let mut outcome = parse(&said)?;
        if let Some(folder) = self.latencies {
            let mut micros = latencies(folder)?;
            micros.sort_unstable();
            outcome.median = Some(percentile(&micros, 50)?);
            outcome.p99 = Some(percentile(&micros, 99)?);
        }
        Ok(outcome)
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(newest_bin_dir()?.join("pgbench"));
        let host =
            if self.authority.is_some() { "localhost".to_owned() } else { self.address.ip().to_string() };
        command
            .args(["--no-vacuum", "--host", &host, "--port", &self.address.port().to_string()])
            .args(["--username", self.login.user, "--protocol", self.mode.name()])
            .args(["--client", &self.clients.to_string(), "--jobs", &self.clients.min(2).to_string()])
            .env("PGPASSWORD", self.login.password)
            .env("PGSSLMODE", if self.authority.is_some() { "verify-full" } else { "disable" })
            .stdin(Stdio::null())
            .kill_on_drop(true);
        match self.script {
            Script::SelectOnly => command.arg("--select-only"),
            Script::TpcbLike => command.args(["--builtin", "tpcb-like"]),
        };
        match self.length {
            Length::Seconds(seconds) => command.args(["--time", &seconds.to_string()]),
            Length::Transactions(count) => command.args(["--transactions", &count.to_string()]),
        };
        if let Some(authority) = self.authority {
            command.env("PGSSLROOTCERT", authority);
        }
        if let Some(folder) = self.latencies {
            command.args(["--log", "--sampling-rate", LATENCY_SAMPLE]).arg("--log-prefix");
            command.arg(folder.join(LATENCY_PREFIX));
        }
        command.arg(self.login.database);
        Ok(command)
    }
}

/// Makes and fills pgbench's tables.
///
/// # Errors
/// pgbench is missing or fails.
pub async fn initialize(address: SocketAddr, login: Login<'_>, scale: u32) -> Result<()> {
    let output = Command::new(newest_bin_dir()?.join("pgbench"))
        .args(["--initialize", "--quiet", "--scale", &scale.to_string()])
        .args(["--host", &address.ip().to_string(), "--port", &address.port().to_string()])
        .args(["--username", login.user, login.database])
        .env("PGPASSWORD", login.password)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "pgbench --initialize: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn parse(said: &str) -> Result<Outcome> {
    let number = |label: &str| -> Option<f64> {
        let rest = said.lines().find_map(|line| line.strip_prefix(label))?;
        rest.trim().split([' ', '/']).next()?.parse().ok()
    };
    let transactions = number("number of transactions actually processed:").context(said.to_owned())?;
    let tps = number("tps =").context(said.to_owned())?;
    if let Some(failed) = number("number of failed transactions:").filter(|&failed| failed > 0.0) {
        bail!("{failed} failed transactions: {said}");
    }
    // A count; far below 2^53.
    Ok(Outcome { transactions: transactions as u64, tps, median: None, p99: None })
}

/// Microseconds of every logged transaction; the files are removed.
fn latencies(folder: &Path) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for path in log_files(folder)? {
        let text = fs::read_to_string(&path)?;
        found.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()));
        fs::remove_file(&path)?;
    }
    Ok(found)
}

fn log_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let ours = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(LATENCY_PREFIX))
    };
    Ok(fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(ours).collect())
}

fn percentile(sorted_micros: &[u64], percent: usize) -> Result<Duration> {
    let at = sorted_micros.len() * percent / 100;
    let micros = sorted_micros.get(at).or(sorted_micros.last()).context("pgbench logged no latency")?;
    Ok(Duration::from_micros(*micros))
}

const LATENCY_PREFIX: &str = "latency";
/// Logging every transaction would make pgbench itself the bottleneck.
const LATENCY_SAMPLE: &str = "0.1";

#[cfg(test)]
mod tests {
    use super::{parse, percentile};
    use std::time::Duration;

    #[test]
    fn the_summary_is_read() -> anyhow::Result<()> {
        let outcome = parse(
            "number of transactions actually processed: 1200/1200\nnumber of failed transactions: 0 (0.000%)\n\
             latency average = 1.2 ms\ntps = 815.5 (without initial connection time)\n",
        )?;
        assert_eq!((outcome.transactions, outcome.tps), (1200, 815.5));
        Ok(())
    }

    #[test]
    fn a_failed_transaction_is_an_error() {
        let said =
            "number of transactions actually processed: 9\nnumber of failed transactions: 1 (10%)\ntps = 1\n";
        assert!(parse(said).is_err());
    }

    #[test]
    fn the_99th_percentile_leaves_one_in_a_hundred_out() -> anyhow::Result<()> {
        let micros: Vec<u64> = (1..=1000).collect();
        assert_eq!(percentile(&micros, 99)?, Duration::from_micros(991));
        Ok(())
    }
}
