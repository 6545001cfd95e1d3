//! The drill: load through a pooler in front of a cluster, events from a switchover to a network that is cut, and what
//! the clients noticed.
//!
//! Owns the order of things. What can happen is in [`event`], how it is made in `act`; the clients are in [`load`], the
//! eyes on PostgreSQL itself in [`watch`]; what is measured is judged in [`journal`] and [`report`] and shown by
//! [`table`]. Knows of the pooler only its two ports, and one command of weir's
//! console.

mod act;
mod console;
pub mod event;
mod held;
pub mod journal;
pub mod load;
pub mod report;
mod server_log;
pub mod table;
mod trace;
pub mod watch;
mod words;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::json;

pub use act::Stale;
pub use event::{Event, Fate};
pub use held::{Disorder, Held, Memory};
pub use report::Report;
pub use server_log::Logins;
pub(crate) use server_log::PREFIX as LOG_PREFIX;
pub use trace::Failure;

use crate::cluster::{Cluster, ClusterOptions, Node, describe};
use crate::progress::Progress;
use crate::schema;
use crate::sql;
use act::{RECOVERY_PATIENCE, Stage};
use held::{Crowd, NUMBERS};
use journal::{Attempt, Journal, Loss, SLACK};
use load::{IdleCount, Load};
use server_log::{Entry, Mark};
use trace::Evidence;
use watch::{Seen, Watch};

/// Where the clients of the drill connect.
#[derive(Debug, Clone)]
pub struct Front {
    /// The port that always reaches the leader.
    pub write: SocketAddr,
    /// The port that spreads over replicas.
    pub read: SocketAddr,
    /// What is known of the pooler, if it was started for this.
    pub own: Option<Own>,
}

/// A weir whose process is at hand.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its process id.
    pub pid: u32,
    /// Server connections of one pool at most.
    pub pool_size: u32,
    /// Its log.
    pub log: PathBuf,
}

impl Front {
    fn pid(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.pid)
    }

    fn callbacks(&self) -> usize {
        self.own.as_ref().map_or(0, |own| console::callbacks(&own.log))
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One after the other.
    pub events: Vec<Event>,
    /// Clients beside the load that are quiet until a leader is lost and then all write at once.
    pub held: u32,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Of the events until the end, or until the cluster or the pooler could not be used any more.
    pub reports: Vec<Report>,
    /// Whether everything was done. Broken promises are no error but part of the reports.
    pub ended: Result<()>,
}

/// A cluster that any event can be tried on: synchronous, so that no acknowledged row may be lost, separable, and with logs
/// that tell who wrote where, and with a place for callbacks.
#[must_use]
pub fn cluster_options() -> ClusterOptions {
    ClusterOptions {
        synchronous: true,
        separable: true,
        audited: true,
        callbacks: true,
        ..ClusterOptions::default()
    }
}

/// Runs the events one after the other under load and reports on each.
pub async fn run(cluster: &mut Cluster, front: &Front, plan: &Plan, progress: Progress) -> Outcome {
    let mut reports = Vec::new();
    let ended = play_all(cluster, front, plan, progress, &mut reports).await;
    Outcome { reports, ended }
}

async fn play_all(
    cluster: &mut Cluster,
    front: &Front,
    plan: &Plan,
    progress: Progress,
    reports: &mut Vec<Report>,
) -> Result<()> {
    let journal = Arc::new(Journal::default());
    progress.say("drill: connecting the clients");
    let mut load = Load::start(front, Arc::clone(&journal)).await?;
    let mut crowd = match plan.held {
        0 => None,
        count => Some(Crowd::gather(load.shared(), count, front.pid()).await?),
    };
    progress.say(&format!("drill: load is on: {}, {} to be held", load.describe(), plan.held));
    for &event in &plan.events {
        let mark = prepare(cluster, event).await.with_context(|| format!("before {}", event.name()))?;
        progress.say(&format!("drill: {} on {}", event.name(), describe(&cluster.members().await?)));
        journal.forget_before(Instant::now());
        let mut play = Play { cluster: &mut *cluster, front, load: &mut load, journal: &journal };
        let report = play.play(event, &mark, &mut crowd).await;
        let report = report.with_context(|| format!("the event {}", event.name()))?;
        progress.say(&table::line(&report));
        for failure in report.failures.iter().take(FAILURES_SHOWN_MAX) {
            progress.say(&format!("drill:   {}", failure.line));
        }
        reports.push(report);
    }
    load.stop().await;
    Ok(())
}

/// Brings the cluster into the state the event asks for. Logs are read from a little before the event, for what is under
/// way then.
async fn prepare(cluster: &mut Cluster, event: Event) -> Result<Mark> {
    cluster.wait_healthy(RECOVERY_PATIENCE).await?;
    if event == Event::EtcdFailsafe || event == Event::Etcd {
        let on = event == Event::EtcdFailsafe;
        cluster.configure(&json!({"failsafe_mode": on})).await?;
        if on {
            cluster.wait_ok("/failsafe", RECOVERY_PATIENCE).await?;
        }
    }
    let mark = Mark::now(cluster)?;
    tokio::time::sleep(WARM_UP).await;
    Ok(mark)
}

/// All that one event needs.
struct Play<'a> {
    cluster: &'a mut Cluster,
    front: &'a Front,
    load: &'a mut Load,
    journal: &'a Journal,
}

/// When an event was, by both clocks, and what was seen of it.
struct Story {
    began: Instant,
    began_at: SystemTime,
    ended: Instant,
    loss: Option<Loss>,
    seen: Seen,
    log: Vec<Entry>,
    present: BTreeSet<i64>,
}

impl Play<'_> {
    async fn play(&mut self, event: Event, mark: &Mark, crowd: &mut Option<Crowd>) -> Result<Report> {
        let old = self.cluster.leader().await.context("no leader before the event")?.clone();
        let watch = Watch::start(self.cluster.layout(), &old).await?;
        let heard = self.front.callbacks();
        let nobody_leads = matches!(event.fate(), Fate::Lost | Fate::MayReturn);
        let waiting = crowd.take_if(|_| nobody_leads).map(|crowd| crowd.wait(watch.eyes(), self.front.pid()));
        let (began, began_at) = (Instant::now(), SystemTime::now());
        let mut stage = Stage {
            cluster: &mut *self.cluster,
            front: self.front,
            load: &mut *self.load,
            journal: self.journal,
            watch: &watch,
            old: &old,
        };
        let made = stage.make(event).await?;
        recover(self.cluster).await?;
        let mut seen = watch.finish().await;
        if event.fate() == Fate::Stays {
            // Whoever was promoted by hand leads nobody.
            seen.promotion = None;
        }
        if let Some(waiting) = waiting {
            *crowd = Some(waiting.finish().await?);
        }
        let woken = self.load.wake_idle().await;
        let ended = Instant::now();
        let new = self.cluster.leader().await.context("no leader after the event")?.clone();
        let loss = loss(event, began, &seen);
        // Promises first: what is acknowledged has to be there by then.
        let promises = self.journal.promises();
        let (log, present) = (mark.since()?, present_rows(&new).await?);
        let story = Story { began, began_at, ended, loss, seen, log, present };
        let torn = sql::value(new.postgres, schema::SUPERUSER, TORN).await?.parse().context("a count")?;
        let held = match crowd {
            Some(crowd) => self.held(&story, crowd, &new).await?,
            None => None,
        };
        let promotion = story.seen.promotion.as_ref();
        let since = |at: Option<Instant>| Some(at?.saturating_duration_since(promotion?.seen));
        Ok(Report {
            event,
            from: old.name,
            to: new.name.clone(),
            tally: self.journal.tally(began, ended, loss),
            failures: self.failures(&story),
            idle: IdleCount { dropped: made.idle.dropped + woken.dropped, all: made.idle.all.max(woken.all) },
            direct_write: since(promotion.and_then(|promotion| promotion.direct_write)),
            first_write: since(self.first_write(&story)),
            rows: promises.hold_against(&story.present),
            torn,
            stale: self.stale(&story, &new.name),
            only_on_old: made.only_on_old,
            held,
            callbacks: self.front.callbacks() - heard,
            note: made.note,
        })
    }

    /// The first write through the pooler behind the promotion.
    fn first_write(&self, story: &Story) -> Option<Instant> {
        self.journal.first_write_after(story.seen.promotion.as_ref()?.last_in_recovery)
    }

    fn failures(&self, story: &Story) -> Vec<Failure> {
        let evidence = Evidence { log: &story.log, present: &story.present, began: story.began };
        let failures = self.journal.failures(story.began, story.ended, story.loss);
        failures.iter().map(|(attempt, standing)| evidence.explain(attempt, *standing)).collect()
    }

    /// Writes that a server other than the leader was asked for, by its own log, since the last moment at which nobody was
    /// promoted yet: that is before the pooler can have followed.
    fn stale(&self, story: &Story, leader: &str) -> Stale {
        let promotion = story.seen.promotion.as_ref();
        let moment = promotion.map_or(story.began, |promotion| promotion.last_in_recovery);
        let moment = story.began_at + moment.saturating_duration_since(story.began);
        let rows = server_log::rows_elsewhere(&story.log, leader, moment);
        // Who is let go to the new leader is let go after every request on the old one was given up.
        let followed = self.first_write(story);
        let given_up =
            |row: &&i64| followed.is_some_and(|followed| self.journal.given_up(**row, followed + SLACK));
        let in_flight = rows.iter().filter(given_up).count();
        Stale { accepted: rows.len() - in_flight, in_flight }
    }

    async fn held(&self, story: &Story, crowd: &Crowd, new: &Node) -> Result<Option<Held>> {
        let attempts = self.journal.attempts_of(&NUMBERS);
        let Some(promotion) = story.seen.promotion.as_ref().filter(|_| !attempts.is_empty()) else {
            return Ok(None);
        };
        let ids = attempts.iter().flat_map(|attempt: &Attempt| &attempt.rows).map(ToString::to_string);
        let ids = ids.collect::<Vec<_>>().join(",");
        let micros = "(extract(epoch FROM at) * 1000000)::bigint";
        let query = format!("SELECT id || ' ' || {micros} FROM public.drill WHERE id IN ({ids}) ORDER BY at");
        let client = sql::connect(new.postgres, schema::SUPERUSER).await?;
        let written = sql::values(&client, &query).await?;
        let row = |row: &String| {
            let (id, micros) = row.split_once(' ')?;
            Some((id.parse().ok()?, Duration::from_micros(micros.parse().ok()?)))
        };
        let written: Vec<_> = written.iter().filter_map(row).collect();
        let promoted = story.began_at + promotion.last_in_recovery.saturating_duration_since(story.began);
        Ok(Some(Held {
            logins: server_log::logins(&story.log, &promotion.node, promoted),
            pool_size: self.front.own.as_ref().map(|own| own.pool_size),
            memory: crowd.memory(),
            ..Held::of(&attempts, promotion.direct_write, &written)
        }))
    }
}

/// When what was on the old leader was lost.
fn loss(event: Event, began: Instant, seen: &Seen) -> Option<Loss> {
    match (event.fate(), seen.lost_at, &seen.promotion) {
        (Fate::Stays | Fate::Moves, _, _) | (_, _, None) => None,
        (Fate::Silent, _, Some(promotion)) => Some(Loss { from: began, until: promotion.seen }),
        (Fate::Lost | Fate::MayReturn, Some(at), _) => Some(Loss { from: at, until: at }),
        (Fate::Lost | Fate::MayReturn, None, _) => None,
    }
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
const FAILURES_SHOWN_MAX: usize = 40;
const WARM_UP: Duration = Duration::from_secs(1);
const COOL_DOWN: Duration = Duration::from_secs(1);
