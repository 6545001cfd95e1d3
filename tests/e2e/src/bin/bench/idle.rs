//! Memory that idle clients cost: what the pooler's resident memory grows by, divided by their number.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::Client;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{schema, sql};
use weir_e2e::measure;

use crate::seat::Seat;

/// What the idle clients have done before they idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Logged in, nothing else.
    LoggedIn,
    /// Logged in and run one statement.
    AfterOneQuery,
}

impl Kind {
    /// For the table.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::LoggedIn => "logged in",
            Self::AfterOneQuery => "after one query each",
        }
    }
}

/// Connects `count` clients with SCRAM and says what each costs.
///
/// # Errors
/// A client is refused or the pooler ends.
pub(crate) async fn bytes_per_client(seat: &Seat, count: u32, kind: Kind) -> Result<f64> {
    let before = settled_bytes(seat.pid()).await?;
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(connect(seat, kind).await.with_context(|| format!("idle client {number}"))?);
    }
    let after = settled_bytes(seat.pid()).await?;
    drop(clients);
    Ok((after as f64 - before as f64) / f64::from(count.max(1)))
}

async fn connect(seat: &Seat, kind: Kind) -> Result<Client> {
    let client = sql::connect(seat.address(), schema::APP).await?;
    if kind == Kind::AfterOneQuery {
        client.simple_query("SELECT 1").await?;
    }
    Ok(client)
}

/// Resident memory once ten looks in a row saw the same.
async fn settled_bytes(pid: u32) -> Result<u64> {
    let mut last = 0;
    let mut same = 0;
    until("the pooler's memory to settle", Limit::quick(Duration::from_secs(20)), async || {
        let now = match measure::resident_bytes(pid) {
            Ok(now) => now,
            Err(gone) => return Some(Err(gone)),
        };
        same = if now == last { same + 1 } else { 0 };
        last = now;
        (same >= LOOKS_ALIKE).then_some(Ok(now))
    })
    .await
    .and_then(|outcome| outcome)
}

const LOOKS_ALIKE: u32 = 10;
