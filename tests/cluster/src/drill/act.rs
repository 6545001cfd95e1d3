//! How each event is made. Knows nothing of promises: what it saw itself beside the clients goes into [`Seen`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_postgres::NoTls;

use super::journal::Journal;
use super::load::{IdleCount, Load};
use super::watch::{Promotion, Watch};
use super::{Event, Front, console, present_rows};
use crate::cluster::{Cluster, Node};
use crate::schema;
use crate::sql;
use crate::wait::{Limit, until};

/// Everything that an event needs.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) front: &'a Front,
    pub(super) load: &'a mut Load,
    pub(super) journal: &'a Journal,
    pub(super) watch: &'a Watch,
    /// Who leads before.
    pub(super) old: &'a Node,
}

/// Writes that a server other than the leader took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stale {
    /// After the new leader was promoted, or over logins made after that: must not be.
    pub accepted: usize,
    /// On their way there when the old leader was lost, and given up before anybody wrote on the new one.
    pub in_flight: usize,
}

/// What was seen while the event was made.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Idle clients that were woken meanwhile.
    pub(super) idle: IdleCount,
    /// Rows of the old leader that the new one has not, where it could be asked before it was rewound.
    pub(super) only_on_old: Option<Stale>,
    /// In words.
    pub(super) note: String,
}

impl Stage<'_> {
    /// Makes the event; returns when what follows from it is under way.
    pub(super) async fn make(&mut self, event: Event) -> Result<Seen> {
        let old = self.old.name.as_str();
        match event {
            Event::Switchover => {
                self.cluster.patronictl("switchover", &["--leader", old]).await?;
                self.watch.promoted(FAILOVER_PATIENCE).await?;
            }
            Event::Planned => {
                console::switch_over(self.front.write).await?;
                self.watch.promoted(FAILOVER_PATIENCE).await?;
            }
            Event::Scheduled => {
                let at = sql::value(self.old.postgres, schema::SUPERUSER, SOON).await?;
                self.cluster.patronictl("switchover", &["--leader", old, "--scheduled", &at]).await?;
                self.watch.promoted(FAILOVER_PATIENCE).await?;
            }
            Event::Crash => {
                self.cluster.crash(old)?;
                self.watch.promoted(FAILOVER_PATIENCE).await?;
            }
            Event::Postmaster => {
                self.cluster.kill_postmaster(old)?;
                self.watch.promoted(FAILOVER_PATIENCE).await?;
            }
            Event::Freeze => return self.freeze().await,
            Event::Cut => return self.cut().await,
            Event::SilentApis => return self.silent_apis().await,
            Event::EtcdFailsafe => return self.etcd(ETCD_AWAY).await,
            Event::Etcd => return self.etcd_and_leader().await,
            Event::Pause => return self.pause().await,
            Event::Replica => return self.replica().await,
            Event::Lag => return self.lag().await,
            Event::Rolling => self.rolling().await?,
        }
        Ok(Seen::default())
    }

    async fn freeze(&mut self) -> Result<Seen> {
        self.cluster.freeze(&self.old.name)?;
        let promoted = self.promoted_and_written().await;
        // Whatever happened, nothing stays frozen.
        self.cluster.thaw_postgres(&self.old.name)?;
        let outcome = match promoted {
            Ok(promotion) => self.write_beside_the_thawed(&promotion).await,
            Err(problem) => Err(problem),
        };
        self.cluster.thaw_or_renew(&self.old.name).await?;
        outcome
    }

    async fn write_beside_the_thawed(&mut self, promotion: &Promotion) -> Result<Seen> {
        let idle = self.load.wake_idle().await;
        tokio::time::sleep(THAWED_ALONE).await;
        let only_on_old = self.look_at_old(promotion).await?;
        Ok(Seen { idle, only_on_old, note: String::new() })
    }

    async fn cut(&mut self) -> Result<Seen> {
        self.cluster.network()?.cut(self.old).await?;
        let promotion = self.promoted_and_written().await?;
        let only_on_old = self.look_at_old(&promotion).await?;
        self.cluster.network()?.heal().await?;
        Ok(Seen { only_on_old, ..Seen::default() })
    }

    async fn silent_apis(&mut self) -> Result<Seen> {
        let apis: Vec<_> = self.cluster.nodes.iter().map(|node| node.api).collect();
        self.cluster.network()?.silence(&apis).await?;
        tokio::time::sleep(APIS_SILENT).await;
        self.cluster.network()?.heal().await?;
        Ok(Seen { note: format!("for {:.0} s", APIS_SILENT.as_secs_f64()), ..Seen::default() })
    }

    async fn etcd(&mut self, away: Duration) -> Result<Seen> {
        self.cluster.stop_etcd().await?;
        tokio::time::sleep(away).await;
        self.cluster.start_etcd().await?;
        Ok(Seen { note: format!("away for {:.0} s", away.as_secs_f64()), ..Seen::default() })
    }

    async fn etcd_and_leader(&mut self) -> Result<Seen> {
        let began = Instant::now();
        self.cluster.stop_etcd().await?;
        until("Patroni to take the leader away", Limit::quick(FAILOVER_PATIENCE), async || {
            self.watch.so_far().lost_at
        })
        .await?;
        let lost = began.elapsed();
        tokio::time::sleep(LEADERLESS).await;
        self.cluster.start_etcd().await?;
        self.watch.promoted(FAILOVER_PATIENCE).await?;
        let note = format!("leader taken away after {:.1} s", lost.as_secs_f64());
        Ok(Seen { note, ..Seen::default() })
    }

    async fn pause(&mut self) -> Result<Seen> {
        let members = self.cluster.members().await?;
        // Not the synchronous standby: the leader would wait for it.
        let other = members.iter().find(|member| member.role == "replica").context("no other replica")?;
        let node = self.cluster.node(&other.name)?.clone();
        self.cluster.pause(true).await?;
        sql::rows(node.postgres, schema::SUPERUSER, "SELECT pg_catalog.pg_promote()").await?;
        tokio::time::sleep(TWO_WRITABLE).await;
        self.cluster.pause(false).await?;
        until("Patroni to take the leadership away again", Limit::slow(RECOVERY_PATIENCE), async || {
            let look = "SELECT pg_catalog.pg_is_in_recovery()";
            let standby = sql::value(node.postgres, schema::SUPERUSER, look).await.ok()?;
            (standby == "t").then_some(())
        })
        .await?;
        // Its timeline has left the leader's, and Patroni leaves it to the operator to throw it away. Not by `patronictl
        // reinit`: Patroni 3.0 may be about to rewind it at this moment, and does both at once for ever.
        self.cluster.renew_node(&node.name).await?;
        let note = format!("{} took writes for {:.0} s", node.name, TWO_WRITABLE.as_secs_f64());
        Ok(Seen { note, ..Seen::default() })
    }

    async fn replica(&mut self) -> Result<Seen> {
        let members = self.cluster.members().await?;
        let synchronous = members.iter().find(|member| member.role == "sync_standby");
        let name = synchronous.context("no synchronous standby to kill")?.name.clone();
        let node = self.cluster.node(&name)?.clone();
        self.cluster.crash(&name)?;
        tokio::time::sleep(REPLICA_GONE).await;
        let began = Instant::now();
        self.cluster.restart_node(&name)?;
        wait_reads(&node, true).await?;
        let note = format!("{name}; reads there {:.1} s after its start", began.elapsed().as_secs_f64());
        Ok(Seen { note, ..Seen::default() })
    }

    async fn lag(&mut self) -> Result<Seen> {
        let replica = self.cluster.nodes.iter().find(|node| node.name != self.old.name);
        let replica = replica.context("no replica")?.clone();
        wait_reads(&replica, true).await?;
        sql::rows(replica.postgres, schema::SUPERUSER, "SELECT pg_catalog.pg_wal_replay_pause()").await?;
        let paused = Instant::now();
        let left = async {
            sql::rows(self.old.postgres, schema::SUPERUSER, MUCH_LOG).await?;
            wait_reads(&replica, false).await
        }
        .await;
        let left = left.map(|()| paused.elapsed());
        sql::rows(replica.postgres, schema::SUPERUSER, "SELECT pg_catalog.pg_wal_replay_resume()").await?;
        let (left, resumed) = (left?, Instant::now());
        wait_reads(&replica, true).await?;
        let note = format!(
            "no reads on {} after {:.1} s, again {:.1} s after it went on",
            replica.name,
            left.as_secs_f64(),
            resumed.elapsed().as_secs_f64()
        );
        Ok(Seen { note, ..Seen::default() })
    }

    async fn rolling(&mut self) -> Result<()> {
        let old = self.old.name.as_str();
        let names: Vec<String> = self.cluster.nodes.iter().map(|node| node.name.clone()).collect();
        for name in names.iter().filter(|name| name.as_str() != old) {
            self.restart(name).await?;
        }
        self.cluster.patronictl("switchover", &["--leader", old]).await?;
        self.watch.promoted(FAILOVER_PATIENCE).await?;
        self.cluster.wait_healthy(RECOVERY_PATIENCE).await?;
        self.restart(old).await
    }

    async fn restart(&mut self, name: &str) -> Result<()> {
        self.cluster.patronictl("restart", &[name]).await?;
        self.cluster.wait_healthy(RECOVERY_PATIENCE).await
    }

    /// Waits for a promotion, and for a client's write behind it.
    async fn promoted_and_written(&mut self) -> Result<Promotion> {
        self.watch.promoted(FAILOVER_PATIENCE).await?;
        let promotion = self.watch.so_far().promotion.context("nobody was promoted")?;
        until("a write through the pooler", Limit::quick(WRITE_PATIENCE), async || {
            self.journal.first_write_after(promotion.seen)
        })
        .await?;
        Ok(promotion)
    }

    /// What the old leader has that the new one has not. It is asked over its Unix socket, which no network cut closes;
    /// `None` when it takes no connections, and so no writes.
    async fn look_at_old(&self, promotion: &Promotion) -> Result<Option<Stale>> {
        let config = schema::SUPERUSER.local_config(&self.old.folder, self.old.postgres.port());
        let client = until("the old leader to answer", Limit::quick(LOOK_PATIENCE), async || {
            let (client, connection) = config.connect(NoTls).await.ok()?;
            tokio::spawn(connection);
            Some(client)
        });
        let Ok(client) = client.await else { return Ok(None) };
        // Commits that wait for a synchronous standby are not seen until they are sent away.
        let _ = client.simple_query(CANCEL_WAITING).await;
        let late = format!("{LATE_LOGINS} interval '{} ms'", promotion.seen.elapsed().as_millis());
        let logins = sql::values(&client, &late).await?;
        let logins: usize = logins.first().and_then(|count| count.parse().ok()).context("a count")?;
        let ids = sql::values(&client, "SELECT id FROM public.drill WHERE id > 0").await?;
        let there: BTreeSet<i64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let new = present_rows(self.cluster.node(&promotion.node)?).await?;
        let only_there: BTreeSet<i64> = there.difference(&new).copied().collect();
        let accepted = self.journal.sent_after(promotion.seen, &only_there);
        Ok(Some(Stale { accepted: accepted + logins, in_flight: only_there.len() - accepted }))
    }
}

/// Waits until the pooler's clients are read for on this node, or are not any more.
async fn wait_reads(node: &Node, wanted: bool) -> Result<()> {
    let what = if wanted { "reads on the replica" } else { "reads to leave the replica" };
    until(what, Limit::quick(READS_PATIENCE), async || {
        let count = sql::value(node.postgres, schema::SUPERUSER, RECENT_READS).await.ok()?;
        ((count != "0") == wanted).then_some(())
    })
    .await
}

/// When a switchover is scheduled for: later than `patronictl` needs to say so.
const SOON: &str =
    "SELECT to_char((now() + interval '8 s') AT TIME ZONE 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS+00:00')";
const CANCEL_WAITING: &str =
    "SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep'";
/// Application sessions that began after a moment, so many milliseconds ago.
const LATE_LOGINS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE usename = 'app_user' AND backend_start > clock_timestamp() -";
const RECENT_READS: &str = "SELECT count(*) FROM pg_catalog.pg_stat_activity
    WHERE usename = 'app_user' AND query_start > clock_timestamp() - interval '500 ms'";
/// More than a replica may be behind to be read from.
const MUCH_LOG: &str = "SELECT pg_catalog.pg_logical_emit_message(false, 'drill', repeat('x', 40000000))";
pub(super) const FAILOVER_PATIENCE: Duration = Duration::from_secs(75);
pub(super) const RECOVERY_PATIENCE: Duration = Duration::from_secs(90);
const READS_PATIENCE: Duration = Duration::from_secs(60);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_PATIENCE: Duration = Duration::from_secs(2);
const THAWED_ALONE: Duration = Duration::from_secs(1);
const APIS_SILENT: Duration = Duration::from_secs(8);
/// Well beyond Patroni's `retry_timeout`.
const ETCD_AWAY: Duration = Duration::from_secs(12);
const LEADERLESS: Duration = Duration::from_secs(3);
const TWO_WRITABLE: Duration = Duration::from_secs(4);
const REPLICA_GONE: Duration = Duration::from_secs(3);
