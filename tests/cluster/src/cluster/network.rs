//! Cutting nodes off the network on one machine's loopback, as a pulled cable would: packets vanish, nothing is
//! refused or reset. Knows addresses and groups, nothing of what runs there.
//!
//! All nodes share the loopback device, where a packet's source address does not tell who sent it. So each node's
//! processes run in a group of their own; nftables writes the group of whoever opens a connection into the
//! connection's mark, and a node is cut off by dropping what belongs to connections that cross its border in either
//! direction. The table is owned by the `nft` that made it: the kernel removes it with that process, which ends when
//! its input does, so that nothing stays even if this program is killed.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Node;
use crate::process::MARK;
use crate::run_dir::RunDir;
use crate::wait::{Limit, until};

/// The packet filter of one cluster. Dropping it heals everything.
#[derive(Debug)]
pub struct Network {
    nft: Child,
    table: String,
}

impl Network {
    /// Begins to mark connections; has to be there before the nodes are.
    ///
    /// # Errors
    /// No nftables, or no right to use it.
    pub async fn start(run_dir: &RunDir, nodes: &[Node]) -> Result<Self> {
        ensure!(rustix::process::getuid().is_root(), "cutting the network is for root only");
        let log = File::create(run_dir.log("network")).context("making the network's log")?;
        let nft = Command::new(NFT)
            .arg("-i")
            .env(MARK, run_dir.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {NFT} (install nftables)"))?;
        let mut network = Self { nft, table: format!("weir_{}", run_dir.token()) };
        let mut commands = format!(
            "add table inet {table} {{ flags owner; }}\n\
             add chain inet {table} origin {{ type filter hook output priority -150; }}\n\
             add chain inet {table} border {{ type filter hook input priority 0; }}\n",
            table = network.table
        );
        for node in nodes {
            let group = group_of(node).context("nodes have IPv4 addresses")?;
            commands += &format!(
                "add rule inet {} origin ct state new meta skgid {group} ct mark set {group}\n",
                network.table
            );
        }
        network.tell(&commands)?;
        network.wait_rules("origin", nodes.len()).await?;
        Ok(network)
    }

    /// Cuts the node off from everybody else until [`Network::heal`]; what runs on it still reaches itself.
    ///
    /// # Errors
    /// nftables did not take it.
    pub async fn cut(&mut self, node: &Node) -> Result<()> {
        let group = group_of(node).context("nodes have IPv4 addresses")?;
        let (table, ip) = (&self.table, node.postgres.ip());
        self.tell(&format!(
            "add rule inet {table} border ct mark {group} ct original ip daddr != {ip} drop\n\
             add rule inet {table} border ct mark != {group} ct original ip daddr {ip} drop\n"
        ))?;
        self.wait_rules("border", 2).await
    }

    /// Lets nothing through to these addresses and back until [`Network::heal`].
    ///
    /// # Errors
    /// nftables did not take it.
    pub async fn silence(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        let rule = |address: &SocketAddr| {
            let (table, ip, port) = (&self.table, address.ip(), address.port());
            let connection = format!("ct original ip daddr {ip} ct original proto-dst {port}");
            format!("add rule inet {table} border meta l4proto tcp {connection} drop\n")
        };
        self.tell(&addresses.iter().map(rule).collect::<String>())?;
        self.wait_rules("border", addresses.len()).await
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// nftables did not take it.
    pub async fn heal(&mut self) -> Result<()> {
        self.tell(&format!("flush chain inet {} border\n", self.table))?;
        self.wait_rules("border", 0).await
    }

    fn tell(&mut self, commands: &str) -> Result<()> {
        let input = self.nft.stdin.as_mut().context("nft has no input")?;
        input.write_all(commands.as_bytes()).and_then(|()| input.flush()).context("telling nft")
    }

    /// Waits until the chain has so many rules: nft says nothing when it is done.
    async fn wait_rules(&self, chain: &str, count: usize) -> Result<()> {
        until("nftables", Limit::quick(Duration::from_secs(5)), async || {
            let listed =
                Command::new(NFT).args(["list", "chain", "inet", &self.table, chain]).output().ok()?;
            let rules = String::from_utf8_lossy(&listed.stdout);
            let found = rules.lines().filter(|line| line.contains("ct ")).count();
            (listed.status.success() && found == count).then_some(())
        })
        .await
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}

/// The group in which a node's processes run: its address as a number, which no other cluster of this machine has.
pub(super) fn group_of(node: &Node) -> Option<u32> {
    match node.postgres.ip() {
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(_) => None,
    }
}

const NFT: &str = "/usr/sbin/nft";
