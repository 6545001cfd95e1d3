//! The drill: load through a pooler in front of a cluster, events from a switchover to a network that is cut, and what
//! the clients noticed.
//!
//! Owns the order of things. What can happen is in [`event`], how it is made in `act`; the clients are in [`load`], the
//! eyes on PostgreSQL itself in [`watch`]; what is measured is judged in [`journal`] and [`report`] and shown by
//! [`table`]. Knows of the pooler only its two ports, and one command of weir's
//! console.

mod act;
pub mod event;
pub mod journal;
pub mod load;
pub mod report;
pub mod table;
pub mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

pub use act::Stale;
pub use event::{Event, Fate};
pub use report::Report;

use crate::cluster::{Cluster, ClusterOptions, Node, describe};
use crate::progress::Progress;
use crate::schema;
use crate::sql;
use act::{RECOVERY_PATIENCE, Stage};
use journal::{Journal, Loss};
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

/// A cluster that any event can be tried on: synchronous, so that no acknowledged row may be lost, and separable.
#[must_use]
pub fn cluster_options() -> ClusterOptions {
    ClusterOptions { synchronous: true, separable: true, ..ClusterOptions::default() }
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
        prepare(cluster, event).await.with_context(|| format!("before {}", event.name()))?;
        progress.say(&format!("drill: {} on {}", event.name(), describe(&cluster.members().await?)));
        journal.forget_before(Instant::now());
        let report = play(cluster, front, event, &mut load, &journal).await;
        let report = report.with_context(|| format!("the event {}", event.name()))?;
        progress.say(&table::line(&report));
        reports.push(report);
    }
    load.stop().await;
    Ok(reports)
}

/// Brings the cluster into the state the event asks for.
async fn prepare(cluster: &mut Cluster, event: Event) -> Result<()> {
    cluster.wait_healthy(RECOVERY_PATIENCE).await?;
    if event == Event::EtcdFailsafe || event == Event::Etcd {
        let on = event == Event::EtcdFailsafe;
        cluster.configure(&json!({"failsafe_mode": on})).await?;
        if on {
            cluster.wait_ok("/failsafe", RECOVERY_PATIENCE).await?;
        }
    }
    tokio::time::sleep(WARM_UP).await;
    Ok(())
}

async fn play(
    cluster: &mut Cluster,
    front: Front,
    event: Event,
    load: &mut Load,
    journal: &Journal,
) -> Result<Report> {
    let old = cluster.leader().await.context("no leader before the event")?.clone();
    let watch = Watch::start(cluster.layout(), &old).await?;
    let began = Instant::now();
    let mut stage =
        Stage { cluster: &mut *cluster, front, load: &mut *load, journal, watch: &watch, old: &old };
    let made = stage.make(event).await?;
    recover(cluster).await?;
    let seen = watch.finish().await;
    let woken = load.wake_idle().await;
    let ended = Instant::now();
    let loss = match (event.fate(), seen.lost_at, &seen.promotion) {
        (Fate::Stays | Fate::Moves, _, _) | (_, _, None) => None,
        (Fate::Silent, _, Some(promotion)) => Some(Loss { from: began, until: promotion.seen }),
        (Fate::Lost | Fate::MayReturn, Some(at), _) => Some(Loss { from: at, until: at }),
        (Fate::Lost | Fate::MayReturn, None, _) => None,
    };
    let first_write = seen.promotion.as_ref().and_then(|promotion| {
        let acknowledged = journal.first_write_after(promotion.last_in_recovery)?;
        Some(acknowledged.saturating_duration_since(promotion.seen))
    });
    let direct_write = seen
        .promotion
        .as_ref()
        .and_then(|promotion| Some(promotion.direct_write?.saturating_duration_since(promotion.seen)));
    let new = cluster.leader().await.context("no leader after the event")?;
    let promises = journal.promises();
    let torn = sql::value(new.postgres, schema::SUPERUSER, TORN).await?.parse().context("a count")?;
    Ok(Report {
        event,
        from: old.name,
        to: new.name.clone(),
        tally: journal.tally(began, ended, loss),
        idle: IdleCount { dropped: made.idle.dropped + woken.dropped, all: made.idle.all.max(woken.all) },
        direct_write,
        first_write,
        rows: promises.hold_against(&present_rows(new).await?),
        torn,
        stale: made.stale,
        note: made.note,
    })
}

/// Starts what ended, and waits until everything is well; the clients' troubles until then belong to the event.
async fn recover(cluster: &mut Cluster) -> Result<()> {
    for name in cluster.ended_nodes() {
        cluster.restart_node(&name)?;
    }
    cluster.wait_healthy(RECOVERY_PATIENCE).await?;
    tokio::time::sleep(COOL_DOWN).await;
    ensure!(cluster.ended_nodes().is_empty(), "Patroni ended on {}", cluster.ended_nodes().join(", "));
    Ok(())
}

/// Ids of the clients' rows that a node has.
async fn present_rows(node: &Node) -> Result<BTreeSet<i64>> {
    let client = sql::connect(node.postgres, schema::SUPERUSER).await?;
    let ids = sql::values(&client, "SELECT id FROM public.drill WHERE id > 0").await?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Rows of a transaction carry its writer's name for it and its number of parts; fewer rows means it is torn.
const TORN: &str = "SELECT count(*) FROM (SELECT writer FROM public.drill WHERE part > 0
                    GROUP BY writer HAVING count(*) <> max(part)) torn";
const WARM_UP: Duration = Duration::from_secs(1);
const COOL_DOWN: Duration = Duration::from_secs(1);
