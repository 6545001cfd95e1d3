//! Eyes on PostgreSQL itself, past the pooler: when the old leader's sessions were lost, when a candidate was
//! promoted, when it took its first write. Judges nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::cluster::{Layout, Node};
use crate::schema;
use crate::sql;

/// A promotion as seen on the promoted server.
#[derive(Debug, Clone, Copy)]
pub struct Promotion {
    /// The last look that still found it in recovery.
    pub last_in_recovery: Instant,
    /// The first look that did not.
    pub seen: Instant,
    /// When a row written directly was acknowledged.
    pub direct_write: Option<Instant>,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// When a session on the old leader ended.
    pub lost_at: Option<Instant>,
    /// The first promotion.
    pub promotion: Option<Promotion>,
}

/// Watches until [`Watch::finish`].
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Starts watching the old leader and every other node.
    ///
    /// # Errors
    /// The old leader cannot be reached.
    pub async fn start(layout: &Layout, old: &Node) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (client, connection) = schema::SUPERUSER
            .config(old.postgres)
            .connect(NoTls)
            .await
            .with_context(|| format!("watching {}", old.postgres))?;
        let noted = Arc::clone(&seen);
        let mut tasks = vec![tokio::spawn(async move {
            // Ends when the server says farewell or the socket closes; the client is kept so that we do not end it.
            let _ = connection.await;
            drop(client);
            note(&noted, |seen| seen.lost_at = Some(Instant::now()));
        })];
        for node in layout.nodes.iter().filter(|node| node.name != old.name) {
            tasks.push(tokio::spawn(watch_candidate(node.postgres, Arc::clone(&seen))));
        }
        Ok(Self { seen, tasks })
    }

    /// Stops watching and tells.
    pub async fn finish(self) -> Seen {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks every few milliseconds until the server is promoted, then writes a row. Ends with its task.
async fn watch_candidate(address: SocketAddr, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Ok(client) = sql::connect(address, schema::SUPERUSER).await
            && let Some(mut promotion) = wait_promotion(&client).await
        {
            let row = format!(
                "INSERT INTO public.drill (id, writer) VALUES (-{}, 'watch')",
                address_number(address)
            );
            note(&seen, |seen| seen.promotion = Some(promotion));
            if client.simple_query(&row).await.is_ok() {
                promotion.direct_write = Some(Instant::now());
                note(&seen, |seen| seen.promotion = Some(promotion));
            }
            return;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// `None` when the session ended first.
async fn wait_promotion(client: &Client) -> Option<Promotion> {
    let mut last_in_recovery = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = client.simple_query("SELECT pg_catalog.pg_is_in_recovery()").await.ok()?;
        let in_recovery = answer.iter().any(|message| {
            let SimpleQueryMessage::Row(row) = message else { return false };
            row.get(0) == Some("t")
        });
        if !in_recovery {
            return Some(Promotion { last_in_recovery, seen: Instant::now(), direct_write: None });
        }
        last_in_recovery = asked;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn note(seen: &Mutex<Seen>, change: impl FnOnce(&mut Seen)) {
    change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A row id that no writer and no other watch uses: unique by time.
fn address_number(address: SocketAddr) -> u128 {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    nanos + u128::from(address.port())
}

const LOOK_PAUSE: Duration = Duration::from_millis(2);
