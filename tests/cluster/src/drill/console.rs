//! The two things of weir's own that the drill knows: its console command SWITCHOVER, and what its log says when one of
//! Patroni's callbacks came.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use crate::front::ADMIN;
use crate::sql::{self, Login};

/// Types SWITCHOVER and waits until weir says how it went.
///
/// # Errors
/// It was refused or failed.
pub(super) async fn switch_over(address: SocketAddr) -> Result<()> {
    sql::rows(address, CONSOLE, "SWITCHOVER").await.map(|_| ())
}

/// Callbacks that weir has heard since it began this log.
pub(super) fn callbacks(log: &Path) -> usize {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().filter(|line| line.contains(CALLBACK)).count()
}

const CONSOLE: Login<'static> = Login { user: ADMIN.0, password: ADMIN.1, database: "weir" };
const CALLBACK: &str = "a callback came";
