//! A primary with streaming replicas, and weir in front of them, led by an HTTP server that answers as Patroni's REST APIs
//! would. Nothing happens by itself here: PostgreSQL is real, who leads is what a test says.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Postgres, PostgresOptions, schema, sql};

use crate::stack::{ADMIN, Front, Setup};
use crate::wire::PATIENCE;

/// What the REST APIs say of one member.
#[derive(Debug, Clone)]
pub struct Told {
    /// Patroni's name of it.
    pub name: String,
    /// It leads; the others are replicas.
    pub leads: bool,
    /// Its state.
    pub state: &'static str,
    /// Its tags, as JSON.
    pub tags: String,
    /// Its own REST API takes requests and does not answer.
    pub hangs: bool,
    /// Its timeline.
    pub timeline: u32,
    /// The system identifier of its cluster.
    pub system: String,
    /// What `/cluster` has of it besides, as JSON in front of the rest.
    pub besides: String,
    /// When its PostgreSQL was started.
    pub started: String,
    /// How far it lags; `None`: Patroni does not know.
    pub lag: Option<u64>,
    postgres: SocketAddr,
    api: SocketAddr,
}

type Everybody = Arc<Mutex<Vec<Told>>>;

/// The whole set. Dropping it ends everything.
#[derive(Debug)]
pub struct Replicated {
    /// weir. Declared first, so that it ends first.
    pub front: Front,
    /// `n1`.
    pub primary: Postgres,
    /// `n2` and so on.
    pub replicas: Vec<Postgres>,
    told: Everybody,
    apis: Vec<JoinHandle<()>>,
}

impl Drop for Replicated {
    fn drop(&mut self) {
        self.apis.iter().for_each(JoinHandle::abort);
    }
}

impl Replicated {
    /// Starts a primary and two replicas, with these settings of postgresql.conf on the replicas, and weir.
    ///
    /// # Errors
    /// One of them does not come up.
    pub async fn start(setup: Setup, replica_settings: &[(&str, &str)]) -> Result<Self> {
        let setup = setup.set("patroni", &format!("monitor_user = \"{}\"", schema::SUPERUSER.user));
        Self::launch(setup, replica_settings, None).await
    }

    /// The same without monitors: weir knows of each PostgreSQL what Patroni says, and what its own logins meet.
    ///
    /// # Errors
    /// One of them does not come up.
    pub async fn start_unwatched(setup: Setup) -> Result<Self> {
        Self::launch(setup, &[], Some(0)).await
    }

    async fn launch(setup: Setup, replica_settings: &[(&str, &str)], lag: Option<u64>) -> Result<Self> {
        // Two copies are made at once, and replicas come back after a while.
        let kept = ("wal_keep_size".to_owned(), "128MB".to_owned());
        let options = PostgresOptions { settings: vec![kept], ..PostgresOptions::default() };
        let primary = Postgres::start(options).await?;
        let (one, other) =
            tokio::try_join!(primary.replica(replica_settings), primary.replica(replica_settings))?;
        let replicas = vec![one, other];
        let system = sql::value(
            primary.address(),
            schema::SUPERUSER,
            "SELECT system_identifier FROM pg_control_system()",
        )
        .await?;
        let told: Everybody = Arc::default();
        let mut apis = Vec::new();
        for (at, postgres) in std::iter::once(&primary).chain(&replicas).enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let member = Told {
                name: format!("n{}", at + 1),
                leads: at == 0,
                state: if at == 0 { "running" } else { "streaming" },
                tags: "{}".to_owned(),
                hangs: false,
                timeline: 1,
                system: system.clone(),
                besides: String::new(),
                started: "2026-01-01 00:00:00+00:00".to_owned(),
                lag,
                postgres: postgres.address(),
                api: listener.local_addr()?,
            };
            lock(&told).push(member);
            apis.push(tokio::spawn(serve(listener, Arc::clone(&told), at)));
        }
        let seed = format!("http://{}", lock(&told)[0].api);
        let front = setup.start_following(&seed).await?;
        let all = Self { front, primary, replicas, told, apis };
        all.until_reads_go_to(&["n2", "n3"]).await?;
        Ok(all)
    }

    /// Changes what is said of a member.
    pub fn tell(&self, name: &str, change: impl FnOnce(&mut Told)) {
        if let Some(member) = lock(&self.told).iter_mut().find(|member| member.name == name) {
            change(member);
        }
    }

    /// The replica of this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn replica(&self, name: &str) -> &Postgres {
        let at = lock(&self.told).iter().position(|member| member.name == name);
        &self.replicas[at.expect("a member of this name") - 1]
    }

    /// Who listens on this port.
    ///
    /// # Errors
    /// Nobody does.
    pub fn named(&self, port: &str) -> Result<String> {
        let all = lock(&self.told);
        let found = all.iter().find(|member| member.postgres.port().to_string() == port);
        Ok(found.with_context(|| format!("nobody listens on port {port}"))?.name.clone())
    }

    /// A column of SHOW MEMBERS.
    ///
    /// # Errors
    /// The console fails, or has no such member or column.
    pub async fn member(&self, name: &str, column: &str) -> Result<String> {
        let client = sql::connect(self.front.weir.write(), ADMIN).await?;
        for message in client.simple_query("SHOW MEMBERS").await? {
            let tokio_postgres::SimpleQueryMessage::Row(row) = message else { continue };
            if row.get("member") == Some(name) {
                return Ok(row.try_get(column)?.unwrap_or_default().to_owned());
            }
        }
        anyhow::bail!("SHOW MEMBERS has no {name}")
    }

    /// Waits until these members, and no others, serve reads by SHOW MEMBERS.
    ///
    /// # Errors
    /// They do not within [`PATIENCE`].
    pub async fn until_reads_go_to(&self, wanted: &[&str]) -> Result<()> {
        let mut seen = Vec::new();
        let names: Vec<String> = lock(&self.told).iter().map(|member| member.name.clone()).collect();
        let outcome = until(&format!("reads to go to {wanted:?}"), Limit::quick(PATIENCE), async || {
            seen.clear();
            for name in &names {
                if self.member(name, "read_eligible").await.ok()? == "yes" {
                    seen.push(name.clone());
                }
            }
            (seen == wanted).then_some(())
        })
        .await;
        outcome.with_context(|| format!("last saw {seen:?}"))
    }

    /// Waits until a replica runs a statement of the application that holds `marker`; says which one.
    ///
    /// # Errors
    /// None does within [`PATIENCE`].
    pub async fn until_running(&self, marker: &str) -> Result<String> {
        let query = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state = 'active' AND query LIKE '%{marker}%'",
            schema::APP.user
        );
        until(marker, Limit::quick(PATIENCE), async || {
            for replica in &self.replicas {
                let count = sql::value(replica.address(), schema::SUPERUSER, &query).await.ok()?;
                if count != "0" {
                    return self.named(&replica.address().port().to_string()).ok();
                }
            }
            None
        })
        .await
    }

    /// Waits until both replicas have replayed what the primary has written.
    ///
    /// # Errors
    /// They have not within [`PATIENCE`].
    pub async fn until_replayed(&self) -> Result<()> {
        let written =
            sql::value(self.primary.address(), schema::SUPERUSER, "SELECT pg_current_wal_lsn()").await?;
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        for replica in &self.replicas {
            until("replay", Limit::quick(PATIENCE), async || {
                let replayed = sql::value(replica.address(), schema::SUPERUSER, &query).await.ok()?;
                (replayed == "t").then_some(())
            })
            .await?;
        }
        Ok(())
    }
}

fn lock(told: &Everybody) -> std::sync::MutexGuard<'_, Vec<Told>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One member's REST API.
async fn serve(listener: TcpListener, told: Everybody, at: usize) {
    while let Ok((stream, _)) = listener.accept().await {
        let told = Arc::clone(&told);
        // Whoever hangs up hears nothing.
        tokio::spawn(async move { drop(answer(stream, &told, at).await) });
    }
}

async fn answer(mut stream: TcpStream, told: &Everybody, at: usize) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let all = lock(told).clone();
    if all[at].hangs {
        // Until the one who asked gives up.
        stream.read_buf(&mut request).await?;
        return Ok(());
    }
    let (status, body) = if request.starts_with(b"GET /cluster ") {
        (200, cluster(&all))
    } else {
        (if all[at].leads { 200 } else { 503 }, member(&all[at]))
    };
    let head = format!("HTTP/1.0 {status} X\r\nContent-Type: application/json\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).await?;
    Ok(())
}

/// Without positions in the log: monitors have to measure them.
fn member(told: &Told) -> String {
    let Told { name, leads, tags, timeline, system, started, .. } = told;
    let role = if *leads { "primary" } else { "replica" };
    // Here a replica that streams is said to be running.
    let state = if told.state == "streaming" { "running" } else { told.state };
    format!(
        r#"{{"state": "{state}", "role": "{role}", "timeline": {timeline}, "database_system_identifier": "{system}",
        "postmaster_start_time": "{started}", "tags": {tags}, "patroni": {{"version": "4.1.5", "scope": "weir", "name": "{name}"}}}}"#
    )
}

fn cluster(all: &[Told]) -> String {
    let mut members = String::new();
    for Told { name, leads, state, tags, timeline, besides, lag, postgres, api, .. } in all {
        let lag = lag.map_or_else(|| "\"unknown\"".to_owned(), |lag| lag.to_string());
        let role = if *leads { "leader" } else { "replica" };
        let comma = if members.is_empty() { "" } else { ", " };
        let _ = write!(
            members,
            r#"{comma}{{{besides}"name": "{name}", "role": "{role}", "state": "{state}", "api_url": "http://{api}/patroni",
            "host": "{}", "port": {}, "timeline": {timeline}, "lag": {lag}, "tags": {tags}}}"#,
            postgres.ip(),
            postgres.port()
        );
    }
    format!(r#"{{"members": [{members}], "scope": "weir"}}"#)
}
