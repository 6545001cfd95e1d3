//! Eyes on PostgreSQL itself, past the pooler: when the old leader's sessions were lost, when a node was promoted (the old
//! one again, perhaps), when it took its first write. Judges nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::cluster::{Layout, Node};
use crate::schema;
use crate::sql;
use crate::wait::{Limit, until};

/// A promotion as seen on the promoted server.
#[derive(Debug, Clone)]
pub struct Promotion {
    /// Who was promoted.
    pub node: String,
    /// The last look that still found it in recovery, or not there.
    pub last_in_recovery: Instant,
    /// The first look that did not.
    pub seen: Instant,
    /// When a row written directly was acknowledged.
    pub direct_write: Option<Instant>,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When a session on the old leader ended.
    pub lost_at: Option<Instant>,
    /// The first promotion.
    pub promotion: Option<Promotion>,
}

/// A look at what was seen until now, for whoever waits for it.
#[derive(Debug, Clone)]
pub struct Eyes {
    seen: Arc<Mutex<Seen>>,
}

impl Eyes {
    /// What was seen until now.
    #[must_use]
    pub fn look(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
        let (noted, again) = (Arc::clone(&seen), old.clone());
        let mut tasks = vec![tokio::spawn(async move {
            // Ends when the server says farewell or the socket closes; the client is kept so that we do not end it.
            let _ = connection.await;
            drop(client);
            note(&noted, |seen| seen.lost_at = Some(Instant::now()));
            // From here on it is a candidate like the others.
            watch_candidate(again, noted).await;
        })];
        for node in layout.nodes.iter().filter(|node| node.name != old.name) {
            tasks.push(tokio::spawn(watch_candidate(node.clone(), Arc::clone(&seen))));
        }
        Ok(Self { seen, tasks })
    }

    /// Waits for a promotion and a row written there, and says who it is.
    ///
    /// # Errors
    /// Neither happened in time.
    pub async fn promoted(&self, patience: Duration) -> Result<String> {
        until("a node to be promoted and to take a write", Limit::quick(patience), async || {
            let promotion = self.so_far().promotion?;
            promotion.direct_write.map(|_| promotion.node)
        })
        .await
    }

    /// What was seen until now.
    #[must_use]
    pub fn so_far(&self) -> Seen {
        self.eyes().look()
    }

    /// For others that look.
    #[must_use]
    pub fn eyes(&self) -> Eyes {
        Eyes { seen: Arc::clone(&self.seen) }
    }

    /// Stops watching and tells.
    pub async fn finish(self) -> Seen {
        for task in &self.tasks {
            task.abort();
        }
        let seen = self.so_far();
        for task in self.tasks {
            let _ = task.await;
        }
        seen
    }
}

/// Looks every few milliseconds until the server is promoted, then writes a row. Ends with its task.
async fn watch_candidate(node: Node, seen: Arc<Mutex<Seen>>) {
    let mut last_in_recovery = Instant::now();
    loop {
        if let Ok(client) = sql::connect(node.postgres, schema::SUPERUSER).await
            && let Some(at) = wait_promotion(&client, &mut last_in_recovery).await
        {
            let promotion = Promotion { node: node.name, last_in_recovery, seen: at, direct_write: None };
            note(&seen, |seen| {
                seen.promotion.get_or_insert(promotion);
            });
            let query = format!(
                "INSERT INTO public.drill (id, writer) VALUES (-{}, 'watch')",
                unique_number(node.postgres)
            );
            if client.simple_query(&query).await.is_ok() {
                let written = Instant::now();
                note(&seen, |seen| {
                    if let Some(promotion) = &mut seen.promotion {
                        promotion.direct_write.get_or_insert(written);
                    }
                });
            }
            return;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// When it was seen out of recovery; `None` when the session ended first.
async fn wait_promotion(client: &Client, last_in_recovery: &mut Instant) -> Option<Instant> {
    loop {
        let asked = Instant::now();
        let answer = client.simple_query("SELECT pg_catalog.pg_is_in_recovery()").await.ok()?;
        let in_recovery = answer.iter().any(|message| {
            let SimpleQueryMessage::Row(row) = message else { return false };
            row.get(0) == Some("t")
        });
        if !in_recovery {
            return Some(Instant::now());
        }
        *last_in_recovery = asked;
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

fn note(seen: &Mutex<Seen>, change: impl FnOnce(&mut Seen)) {
    change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A row id that no writer and no other watch uses: unique by time.
fn unique_number(address: SocketAddr) -> u128 {
    let micros = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros());
    micros + u128::from(address.port())
}

const LOOK_PAUSE: Duration = Duration::from_millis(2);
