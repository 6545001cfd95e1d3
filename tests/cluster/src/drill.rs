//! The drill: load through a pooler in front of a cluster, a switchover, a crash, and what the clients noticed.
//!
//! Owns the order of things and the promises. What is measured is judged in [`journal`], shown by [`table`]; the
//! clients are in [`load`], the eyes on PostgreSQL itself in [`watch`]. Knows of the pooler only its two ports.

pub mod journal;
pub mod load;
pub mod table;
pub mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Node, describe};
use crate::progress::Progress;
use crate::schema;
use crate::sql;
use journal::{Journal, Tally};
use load::{IdleCount, Load};
use watch::Watch;

/// Where the clients of the drill connect.
#[derive(Debug, Clone, Copy)]
pub struct Front {
    /// The port that always reaches the leader.
    pub write: SocketAddr,
    /// The port that spreads over replicas.
    pub read: SocketAddr,
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A planned change of leader through Patroni's REST API.
    Switchover,
    /// `kill -9` of Patroni and every PostgreSQL process of the leader's node at once, in synchronous mode.
    Crash,
}

impl Event {
    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::Crash => "crash",
        }
    }
}

/// What one event did to the clients.
#[derive(Debug, Clone)]
pub struct Report {
    /// The event.
    pub event: Event,
    /// The leader before.
    pub from: String,
    /// The leader after.
    pub to: String,
    /// Connections dropped, statements failed, longest gap.
    pub tally: Tally,
    /// Idle clients: dropped, and all.
    pub idle: IdleCount,
    /// From promotion to the first write made directly on the new leader.
    pub direct_write: Option<Duration>,
    /// From promotion to the first write acknowledged through the write port.
    pub first_write: Option<Duration>,
    /// Rows that were acknowledged to clients since the drill began.
    pub acknowledged: usize,
    /// Of those, rows that the new leader does not have.
    pub lost: usize,
    /// Transactions of which only a part is there.
    pub torn: usize,
}

impl Report {
    /// Every promise that the event broke, as sentences; empty when all were kept.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut promise = |kept: bool, text: String| {
            if !kept {
                broken.push(format!("{}: {text}", self.event.name()));
            }
        };
        let Tally { dropped_write, dropped_read, refused, failed, .. } = &self.tally;
        promise(*dropped_write == 0, format!("{dropped_write} connections dropped on the write port"));
        promise(*dropped_read == 0, format!("{dropped_read} connections dropped on the read port"));
        promise(refused.is_empty(), format!("{} new connections refused", refused.values().sum::<usize>()));
        promise(self.idle.dropped == 0, format!("{} idle clients dropped", self.idle.dropped));
        promise(
            failed.is_empty(),
            format!(
                "{} statements failed that had nothing on the old leader",
                failed.values().sum::<usize>()
            ),
        );
        promise(self.lost == 0, format!("{} acknowledged rows lost", self.lost));
        promise(self.torn == 0, format!("{} transactions are there only in part", self.torn));
        match (self.event, self.first_write) {
            (_, None) => promise(false, "no write after the promotion".to_owned()),
            (Event::Switchover, Some(after)) => promise(
                after <= FIRST_WRITE_MAX,
                format!("first write {} ms after the promotion, not within 500", after.as_millis()),
            ),
            (Event::Crash, Some(_)) => {}
        }
        broken
    }
}

/// Runs the events one after the other under load and reports on each.
///
/// # Errors
/// The cluster or the pooler could not be used at all. Broken promises are no error but part of the reports.
pub async fn run(
    cluster: &mut Cluster,
    front: Front,
    events: &[Event],
    progress: Progress,
) -> Result<Vec<Report>> {
    let journal = Arc::new(Journal::default());
    progress.say("drill: connecting the clients");
    let mut load = Load::start(front, Arc::clone(&journal)).await?;
    progress.say(&format!("drill: load is on: {}", load.describe()));
    let mut reports = Vec::new();
    for &event in events {
        prepare(cluster, event, progress).await?;
        reports.push(play(cluster, event, &mut load, &journal, progress).await?);
    }
    load.stop().await;
    Ok(reports)
}

/// Brings the cluster into the state the event asks for.
async fn prepare(cluster: &mut Cluster, event: Event, progress: Progress) -> Result<()> {
    for name in cluster.ended_nodes() {
        cluster.restart_node(&name)?;
    }
    cluster.wait_healthy(RECOVERY_PATIENCE).await?;
    if event == Event::Crash {
        progress.say("drill: switching synchronous mode on");
        cluster.set_synchronous(true).await?;
    }
    progress.say(&format!("drill: before the {}: {}", event.name(), describe(&cluster.members().await?)));
    tokio::time::sleep(WARM_UP).await;
    Ok(())
}

async fn play(
    cluster: &mut Cluster,
    event: Event,
    load: &mut Load,
    journal: &Journal,
    progress: Progress,
) -> Result<Report> {
    let old = cluster.leader().await.context("no leader before the event")?.clone();
    let watch = Watch::start(cluster.layout(), &old).await?;
    let began = Instant::now();
    progress.say(&format!("drill: {} of {}", event.name(), old.name));
    match event {
        Event::Switchover => cluster.switchover(None).await?,
        Event::Crash => cluster.crash(&old.name)?,
    }
    let new = cluster.wait_leader(Some(&old.name), FAILOVER_PATIENCE).await?.clone();
    progress.say(&format!("drill: {} leads after {:.1} s", new.name, began.elapsed().as_secs_f64()));
    tokio::time::sleep(COOL_DOWN).await;
    let seen = watch.finish().await;
    let ended = Instant::now();
    let idle = load.check_idle().await;
    let tally = journal.tally(began, ended, seen.lost_at);
    let first_write = seen.promotion.and_then(|promotion| {
        let acknowledged = journal.first_write_after(promotion.last_in_recovery)?;
        Some(acknowledged.saturating_duration_since(promotion.seen))
    });
    let direct_write = seen
        .promotion
        .and_then(|promotion| Some(promotion.direct_write?.saturating_duration_since(promotion.seen)));
    let acknowledged = journal.acknowledged();
    let (lost, torn) = missing(&new, &acknowledged).await?;
    Ok(Report {
        event,
        from: old.name,
        to: new.name,
        tally,
        idle,
        direct_write,
        first_write,
        acknowledged: acknowledged.len(),
        lost,
        torn,
    })
}

/// How many acknowledged rows the leader does not have, and how many transactions it has only in part.
async fn missing(leader: &Node, acknowledged: &BTreeSet<i64>) -> Result<(usize, usize)> {
    let rows = sql::rows(leader.postgres, schema::SUPERUSER, "SELECT id FROM public.drill").await?;
    let present: BTreeSet<i64> =
        rows.into_iter().flatten().flatten().filter_map(|id| id.parse().ok()).collect();
    let torn = sql::value(leader.postgres, schema::SUPERUSER, TORN).await?.parse().context("a count")?;
    Ok((acknowledged.difference(&present).count(), torn))
}

/// Rows of a transaction carry its writer's name for it and its number of parts; fewer rows means it is torn.
const TORN: &str = "SELECT count(*) FROM (SELECT writer FROM public.drill WHERE part > 0
                    GROUP BY writer HAVING count(*) <> max(part)) torn";
const FIRST_WRITE_MAX: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_secs(3);
const COOL_DOWN: Duration = Duration::from_secs(3);
const FAILOVER_PATIENCE: Duration = Duration::from_secs(75);
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
