//! Where the parts of a cluster are, and what can be asked of it and done to it from any terminal: members, leader,
//! switchover, crash, freeze. Owns no process; finds them by their folders.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::http;
use crate::process;
use crate::schema;
use crate::sql;
use crate::wait::{Limit, until};

/// One node: a Patroni and its PostgreSQL on an address of their own.
#[derive(Debug, Clone)]
pub struct Node {
    /// Patroni's name of it.
    pub name: String,
    /// PostgreSQL.
    pub postgres: SocketAddr,
    /// Patroni's REST API.
    pub api: SocketAddr,
    /// Its configuration and data.
    pub folder: PathBuf,
}

/// A member as `/cluster` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// `leader`, `replica`, `sync_standby`, …
    pub role: String,
    /// `running`, `streaming`, `stopped`, …
    pub state: String,
    /// The timeline it is on, if known.
    pub timeline: Option<u64>,
    /// Bytes behind the leader, if known.
    pub lag: Option<u64>,
}

/// The parts of a cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    /// All nodes, in order of their addresses.
    pub nodes: Vec<Node>,
    /// etcd's client address.
    pub etcd: SocketAddr,
    /// Where the REST APIs speak TLS and ask for certificates: the folder with the files for [`http::request`].
    pub https: Option<PathBuf>,
}

impl Layout {
    /// Lays out `count` nodes n1, n2, … on consecutive addresses from `base`; etcd has the one behind them.
    #[must_use]
    pub fn plan(base: Ipv4Addr, count: u8, ports: Ports, folder: &Path) -> Self {
        let first = u32::from(base);
        let node = |index: u8| {
            let ip = IpAddr::V4(Ipv4Addr::from(first + u32::from(index)));
            let name = format!("n{}", index + 1);
            let folder = folder.join(&name);
            Node {
                name,
                postgres: SocketAddr::new(ip, ports.postgres),
                api: SocketAddr::new(ip, ports.api),
                folder,
            }
        };
        let etcd = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(first + u32::from(count))), ports.etcd);
        Self { nodes: (0..count).map(node).collect(), etcd, https: None }
    }

    /// The layout as text for [`Layout::from_json`] in another terminal.
    #[must_use]
    pub fn to_json(&self) -> String {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| {
                json!({"name": node.name, "postgres": node.postgres.to_string(), "api": node.api.to_string(),
                       "folder": node.folder.display().to_string()})
            })
            .collect();
        json!({"nodes": nodes, "etcd": self.etcd.to_string(), "https": self.https}).to_string()
    }

    /// Reads what [`Layout::to_json`] wrote.
    ///
    /// # Errors
    /// The text is something else.
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the layout of the run")?;
        let address =
            |value: &Value| text_of(value).parse::<SocketAddr>().context("an address in the layout");
        let nodes = value["nodes"].as_array().context("nodes in the layout")?;
        let nodes = nodes
            .iter()
            .map(|node| {
                Ok(Node {
                    name: text_of(&node["name"]),
                    postgres: address(&node["postgres"])?,
                    api: address(&node["api"])?,
                    folder: text_of(&node["folder"]).into(),
                })
            })
            .collect::<Result<_>>()?;
        let https = value["https"].as_str().map(PathBuf::from);
        Ok(Self { nodes, etcd: address(&value["etcd"])?, https })
    }

    /// The node called `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("no node called {name}"))
    }

    /// The REST addresses as weir's `--patroni` takes them.
    #[must_use]
    pub fn patroni_urls(&self) -> String {
        let scheme = if self.https.is_some() { "https" } else { "http" };
        let urls: Vec<String> = self.nodes.iter().map(|node| format!("{scheme}://{}", node.api)).collect();
        urls.join(",")
    }

    /// A request to a node's REST API, the way that it wants.
    async fn ask(
        &self,
        node: &Node,
        method: &str,
        path: &str,
        body: &str,
        patience: Duration,
    ) -> Result<http::Answer> {
        http::request(node.api, self.https.as_deref(), method, path, body, patience).await
    }

    /// Waits until a path of the leader's REST API answers 200.
    ///
    /// # Errors
    /// It did not happen in time.
    pub async fn wait_ok(&self, path: &str, patience: Duration) -> Result<()> {
        until(path, Limit::slow(patience), async || {
            let leader = self.leader().await?;
            (self.get(leader, path).await.ok()?.status == 200).then_some(())
        })
        .await
    }

    async fn get(&self, node: &Node, path: &str) -> Result<http::Answer> {
        self.ask(node, "GET", path, "", LOOK_PATIENCE).await
    }

    /// The members by `/cluster` of the first node that answers.
    ///
    /// # Errors
    /// No node answers.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let mut last = anyhow::anyhow!("the cluster has no node");
        for node in &self.nodes {
            match self.get(node, "/cluster").await.and_then(|answer| parse_members(&answer.body)) {
                Ok(members) => return Ok(members),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    /// The node that serves writes now: `/primary` says 200 and its body a running primary. `/cluster` would still
    /// name a dead leader until its key runs out.
    pub async fn leader(&self) -> Option<&Node> {
        for node in &self.nodes {
            let Ok(answer) = self.get(node, "/primary").await else { continue };
            let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let role = text_of(&body["role"]);
            let leads = role == "primary" || role == "master";
            if answer.status == 200 && leads && text_of(&body["state"]) == "running" {
                return Some(node);
            }
        }
        None
    }

    /// Waits for a leader other than `old`.
    ///
    /// # Errors
    /// None appeared in time.
    pub async fn wait_leader(&self, old: Option<&str>, patience: Duration) -> Result<&Node> {
        until("a leader", Limit::quick(patience), async || {
            self.leader().await.filter(|node| Some(node.name.as_str()) != old)
        })
        .await
    }

    /// Waits until one member leads, all others follow it on its timeline and receive its log, a synchronous standby is
    /// shown (when the cluster is synchronous) and a write goes through.
    ///
    /// # Errors
    /// It did not happen in time; the text shows the members.
    pub async fn wait_healthy(&self, synchronous: bool, patience: Duration) -> Result<()> {
        let healthy = until("a healthy cluster", Limit::slow(patience), async || {
            let members = self.members().await.ok()?;
            if members.len() != self.nodes.len() || !is_healthy(&members, synchronous) {
                return None;
            }
            let leader = self.leader().await?;
            sql::rows(leader.postgres, schema::SUPERUSER, WRITE_PROBE).await.ok()?;
            let streaming = sql::value(leader.postgres, schema::SUPERUSER, STREAMING).await.ok()?;
            (streaming.parse() == Ok(self.nodes.len() - 1)).then_some(())
        });
        if let Err(problem) = healthy.await {
            bail!("{problem}; members now: {}", describe(&self.members().await.unwrap_or_default()));
        }
        Ok(())
    }

    /// A planned switchover through Patroni's REST API, to `candidate` or to whom Patroni prefers. Returns when the
    /// API says it is done.
    ///
    /// # Errors
    /// No leader, or Patroni refuses.
    pub async fn switchover(&self, candidate: Option<&str>) -> Result<()> {
        let leader = self.leader().await.context("no leader to switch over from")?;
        let body = match candidate {
            Some(candidate) => json!({"leader": leader.name, "candidate": candidate}),
            None => json!({"leader": leader.name}),
        };
        let answer = self.ask(leader, "POST", "/switchover", &body.to_string(), SWITCHOVER_PATIENCE).await?;
        ensure!(answer.status == 200, "Patroni refused the switchover: {} {}", answer.status, answer.body);
        Ok(())
    }

    /// Kills Patroni and every PostgreSQL process of the node at once, as a power cut would.
    ///
    /// # Errors
    /// No such node.
    pub fn crash(&self, name: &str) -> Result<()> {
        process::kill_folder(&self.node(name)?.folder);
        Ok(())
    }

    /// Stops (`SIGSTOP`) all processes of the node: it accepts TCP and never answers.
    ///
    /// # Errors
    /// No such node.
    pub fn freeze(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::STOP)
    }

    /// Undoes [`Layout::freeze`] for PostgreSQL only: for as long as its Patroni sleeps, nothing keeps it from writing.
    ///
    /// # Errors
    /// No such node.
    pub fn thaw_postgres(&self, name: &str) -> Result<()> {
        let found = process::of_folder(&self.node(name)?.folder);
        found
            .into_iter()
            .filter(|&pid| process::is_postgres(pid))
            .for_each(|pid| process::send(pid, Signal::CONT));
        Ok(())
    }

    /// Kills the node's PostgreSQL (its first process, whose children end with it); Patroni lives.
    ///
    /// # Errors
    /// No such node, or PostgreSQL does not run.
    pub fn kill_postmaster(&self, name: &str) -> Result<()> {
        let file = self.node(name)?.folder.join("data/postmaster.pid");
        let content = std::fs::read_to_string(file).context("PostgreSQL does not run")?;
        let pid = content.lines().next().and_then(|line| line.parse().ok()).context("no process id")?;
        process::send(pid, Signal::KILL);
        Ok(())
    }

    /// Undoes [`Layout::freeze`].
    ///
    /// # Errors
    /// No such node.
    pub fn thaw(&self, name: &str) -> Result<()> {
        self.signal(name, Signal::CONT)
    }

    /// Changes Patroni's dynamic configuration, for example `{"synchronous_mode": true}`.
    ///
    /// # Errors
    /// No leader answers, or Patroni refuses.
    pub async fn configure(&self, change: &Value) -> Result<()> {
        let leader = self.leader().await.context("no leader to configure")?;
        let answer =
            self.ask(leader, "PATCH", "/config", &change.to_string(), Duration::from_secs(10)).await?;
        ensure!(answer.status == 200, "Patroni refused the change: {} {}", answer.status, answer.body);
        Ok(())
    }

    /// Tells Patroni to keep its hands off, or not any more, and waits until every node's has heard of it.
    ///
    /// # Errors
    /// Patroni refuses, or a node does not hear of it.
    pub async fn pause(&self, on: bool) -> Result<()> {
        self.configure(&json!({"pause": on})).await?;
        until("Patroni to hear of the pause", Limit::slow(PAUSE_PATIENCE), async || {
            for node in &self.nodes {
                let status: Value =
                    serde_json::from_str(&self.get(node, "/patroni").await.ok()?.body).ok()?;
                if status["pause"].as_bool().unwrap_or(false) != on {
                    return None;
                }
            }
            Some(())
        })
        .await
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        process::of_folder(&self.node(name)?.folder).into_iter().for_each(|pid| process::send(pid, signal));
        Ok(())
    }
}

/// Port numbers, the same on every node.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// PostgreSQL.
    pub postgres: u16,
    /// Patroni's REST API.
    pub api: u16,
    /// etcd's client port; its peer port is the next one.
    pub etcd: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { postgres: 5432, api: 8008, etcd: 2379 }
    }
}

/// The members in one line.
#[must_use]
pub fn describe(members: &[Member]) -> String {
    if members.is_empty() {
        return "none known".to_owned();
    }
    let one = |member: &Member| format!("{} {} {}", member.name, member.role, member.state);
    members.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn is_healthy(members: &[Member], synchronous: bool) -> bool {
    let Some(leader) = members.iter().find(|member| member.role == "leader") else { return false };
    let follows = |member: &Member| {
        matches!(member.state.as_str(), "running" | "streaming") && member.timeline == leader.timeline
    };
    members.iter().all(follows)
        && (!synchronous || members.iter().any(|member| member.role == "sync_standby"))
}

fn parse_members(body: &str) -> Result<Vec<Member>> {
    let value: Value = serde_json::from_str(body).context("the answer of /cluster")?;
    let members = value["members"].as_array().context("/cluster names no members")?;
    let member = |member: &Value| Member {
        name: text_of(&member["name"]),
        role: text_of(&member["role"]),
        state: text_of(&member["state"]),
        timeline: member["timeline"].as_u64(),
        lag: member["lag"].as_u64(),
    };
    Ok(members.iter().map(member).collect())
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A write that changes nothing: a primary gives out a transaction id, a standby refuses.
const WRITE_PROBE: &str = "SELECT pg_catalog.pg_current_xact_id()";
/// How many standbys receive the log and are not far behind. Patroni calls one "running" that receives nothing, and would
/// let it lead: everything since would be lost.
const STREAMING: &str = "SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'
    AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), replay_lsn) < 1048576";
/// A look at a REST API that is well takes no longer.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
const PAUSE_PATIENCE: Duration = Duration::from_secs(15);
const SWITCHOVER_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::{Layout, Ports, is_healthy, parse_members};

    #[test]
    fn another_terminal_reads_the_same_layout() -> anyhow::Result<()> {
        let layout = Layout::plan(Ipv4Addr::new(127, 0, 10, 1), 3, Ports::default(), Path::new("/x"));
        let read = Layout::from_json(&layout.to_json())?;
        assert_eq!(format!("{layout:?}"), format!("{read:?}"));
        assert_eq!(
            read.patroni_urls(),
            "http://127.0.10.1:8008,http://127.0.10.2:8008,http://127.0.10.3:8008"
        );
        Ok(())
    }

    #[test]
    fn health_needs_a_leader_and_everyone_on_its_timeline() -> anyhow::Result<()> {
        let members = |replica: &str| {
            parse_members(&format!(
                r#"{{"members": [{{"name": "n1", "role": "leader", "state": "running", "timeline": 2}}, {replica}]}}"#
            ))
        };
        let streaming =
            members(r#"{"name": "n2", "role": "replica", "state": "streaming", "timeline": 2, "lag": 0}"#)?;
        assert!(is_healthy(&streaming, false));
        assert!(!is_healthy(&streaming, true));
        let behind = members(
            r#"{"name": "n2", "role": "replica", "state": "running", "timeline": 1, "lag": "unknown"}"#,
        )?;
        assert!(!is_healthy(&behind, false));
        assert!(!is_healthy(&behind[1..], false));
        Ok(())
    }
}
