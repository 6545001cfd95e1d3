//! Every way in which a PostgreSQL dies, against everything that a client may have under way: what the client is told, and
//! whether that is true of what is in the table afterwards. One PostgreSQL; all situations are under way at once when it
//! dies, so that each way of dying costs one restart.

mod situations;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio_postgres::Client;
use weir_cluster::postgres::ShutdownMode;
use weir_cluster::sql::Login;
use weir_cluster::{process, schema, sql};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{Message, Wire};

use situations::{Hears, SESSIONS, Situation};

/// How PostgreSQL dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// `pg_terminate_backend`: FATAL 57P01.
    Terminated,
    /// Fast shutdown: FATAL 57P01; a commit that waits for a standby warns instead.
    Fast,
    /// Immediate shutdown: WARNING 57P02, or nothing.
    Immediate,
    /// One backend is killed, and the postmaster ends all others.
    Backend,
    /// All processes are killed at once.
    Power,
    /// All processes stand still for a while, and then are killed.
    Frozen,
}

impl Death {
    /// PostgreSQL says to each session that it ends it, before anything is committed.
    fn is_proof(self) -> bool {
        matches!(self, Death::Terminated | Death::Fast)
    }
}

async fn stack() -> Result<Stack> {
    let stack = Setup::new()
        .pool_size(50)
        .postgres("synchronous_standby_names", "nobody")
        .postgres("synchronous_commit", "local")
        .set(&format!("databases.{SESSIONS}"), &format!("dbname = \"{}\"", schema::DATABASE))
        .set(&format!("databases.{SESSIONS}"), "pool_mode = \"session\"")
        .start()
        .await?;
    stack
        .wire()
        .await?
        .query(
            "CREATE TABLE facts (id int PRIMARY KEY);
             CREATE TABLE late (id int PRIMARY KEY);
             CREATE FUNCTION gate() RETURNS int LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN 1; END';
             CREATE FUNCTION announced_gate() RETURNS int LANGUAGE plpgsql AS
                $$BEGIN RAISE NOTICE 'at the gate'; RETURN gate(); END$$;
             CREATE FUNCTION replicated() RETURNS int LANGUAGE plpgsql AS
                $$BEGIN PERFORM set_config('synchronous_commit', 'on', true); RETURN 1; END$$;
             CREATE FUNCTION called(number int) RETURNS int LANGUAGE plpgsql AS
                'BEGIN PERFORM gate(); INSERT INTO facts VALUES (number); RETURN number; END';
             CREATE PROCEDURE commits(number int) LANGUAGE plpgsql AS
                'BEGIN INSERT INTO facts VALUES (number); COMMIT; PERFORM gate(); END';
             CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM gate(); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION waits()",
        )
        .await?;
    Ok(stack)
}

/// Codes, tags and status of all that came.
fn told(messages: &[Message]) -> String {
    let words = messages.iter().filter_map(|message| match message.tag {
        b'E' => Some(message.code()),
        b'C' => Some(message.word()),
        b'Z' => Some(String::from_utf8_lossy(&message.body).into_owned()),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Closes the gate until the connection is dropped, or PostgreSQL dies.
async fn gatekeeper(stack: &Stack) -> Result<Client> {
    let client = sql::connect(stack.postgres.address(), schema::SUPERUSER).await?;
    client.simple_query("SELECT pg_advisory_lock(1)").await?;
    Ok(client)
}

/// Puts the number of the situation where `NNN` stands; it has three digits, so that no length changes.
fn numbered(bytes: &[u8], number: u32) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in 0..out.len().saturating_sub(2) {
        if out[at..at + 3] == *b"NNN" {
            out[at..at + 3].copy_from_slice(number.to_string().as_bytes());
        }
    }
    out
}

/// A client in its situation.
struct Player {
    wire: Wire,
    number: u32,
    situation: Situation,
    /// What it has heard of the reply to its request.
    heard: Vec<Message>,
}

impl Player {
    async fn enter(stack: &Stack, number: u32, situation: Situation) -> Result<Self> {
        let login = Login { database: situation.database, ..schema::APP };
        let mut wire = Wire::login(stack.address(), login).await?;
        for request in &situation.before {
            wire.send(&numbered(request, number)).await?;
            let seen = wire.until_ready().await?;
            ensure!(!seen.iter().any(|message| message.tag == b'E'), "{}: {seen:?}", situation.what);
        }
        wire.send(&numbered(&situation.request, number)).await?;
        let mut heard = Vec::new();
        if situation.begun != 0 {
            heard = wire.until(situation.begun).await?;
        }
        Ok(Self { wire, number, situation, heard })
    }

    /// PostgreSQL is dead, or has risen again: what the client has been told, and that it can go on.
    async fn leave(mut self, death: Death) -> Result<Self> {
        self.wire.send(&numbered(&self.situation.after, self.number)).await?;
        let hears = match self.situation.hears {
            Hears::Again(words) if death.is_proof() => words,
            Hears::Again(_) => "08007 I",
            Hears::Always(words) => words,
            Hears::Over(detail) => return self.leave_for_good(detail).await,
        };
        for _ in hears.split(' ').filter(|word| matches!(*word, "I" | "E")) {
            self.heard.append(&mut self.wire.until_ready().await?);
        }
        // The tag of BEGIN and the like is not part of it.
        ensure!(told(&self.heard).ends_with(hears), "wanted {hears}, heard {:?}", self.heard);
        for error in self.heard.iter().filter(|message| message.tag == b'E') {
            ensure!(error.field(b'S').as_deref() == Some("ERROR"), "{error:?}");
            ensure!(error.field(b'D').is_some() && error.field(b'H').is_some(), "{error:?}");
        }
        if hears.ends_with('E') {
            let seen = self.wire.query("INSERT INTO facts VALUES (1)").await?;
            ensure!(told(&seen) == "25P02 E", "the rest of the transaction: {seen:?}");
            let seen = self.wire.query("ROLLBACK").await?;
            ensure!(told(&seen) == "ROLLBACK I", "{seen:?}");
        }
        self.wire.expect_usable().await?;
        Ok(self)
    }

    /// Its session is over, and it was told what became of what it had under way.
    async fn leave_for_good(mut self, detail: &str) -> Result<Self> {
        let seen = self.wire.until_closed().await?;
        let last = seen.last().with_context(|| "it was closed without a word")?;
        let said = (last.code(), last.field(b'S').unwrap_or_default());
        ensure!(said == ("57P01".to_owned(), "FATAL".to_owned()), "{seen:?}");
        ensure!(last.field(b'D').is_some_and(|told| told.ends_with(detail)), "{last:?}");
        ensure!(last.field(b'H').is_some(), "{last:?}");
        Ok(self)
    }

    /// What is in the tables agrees.
    async fn check(&self, death: Death, stack: &Stack) -> Result<()> {
        let sql = format!(
            "SELECT count(*) FROM (TABLE facts UNION ALL TABLE late) AS rows WHERE id IN ({0}, {0} + 500)",
            self.number
        );
        let rows = stack.postgres.superuser(&sql).await?;
        let rows: u8 = rows.into_iter().flatten().flatten().next().context("no count")?.parse()?;
        let (lost, again) = self.situation.rows;
        let expected = if death.is_proof() { again } else { lost };
        ensure!(rows == expected, "{rows} rows instead of {expected}");
        Ok(())
    }
}

async fn die(stack: &mut Stack, death: Death) -> Result<()> {
    let sessions = format!("FROM pg_stat_activity WHERE usename = '{}'", schema::APP.user);
    match death {
        Death::Terminated => {
            stack.postgres.superuser(&format!("SELECT pg_terminate_backend(pid) {sessions}")).await?;
        }
        Death::Fast | Death::Immediate => {
            let mode = if death == Death::Fast { ShutdownMode::Fast } else { ShutdownMode::Immediate };
            stack.postgres.stop(mode).await?;
            stack.postgres.start_again().await?;
        }
        Death::Backend => {
            let rows = stack.postgres.superuser(&format!("SELECT min(pid) {sessions}")).await?;
            let pid = rows.into_iter().flatten().flatten().next().context("nobody is there")?;
            process::send(pid.parse()?, Signal::KILL);
            // Whoever asks before the others are gone, too, could be given one of them.
            stack.until_pool("sv_active", "0").await?;
            stack.until_pool("sv_idle", "0").await?;
        }
        Death::Power | Death::Frozen => {
            if death == Death::Frozen {
                stack.postgres.freeze();
            }
            stack.postgres.crash();
            stack.postgres.start_again().await?;
        }
    }
    Ok(())
}

/// Everything at once.
async fn play(death: Death) -> Result<()> {
    let mut stack = stack().await?;
    let gate = gatekeeper(&stack).await?;
    let mut players = Vec::new();
    let function = stack.postgres.superuser("SELECT 'called(int)'::regprocedure::oid").await?;
    let function = function.into_iter().flatten().flatten().next().context("no function")?.parse()?;
    for (number, situation) in (100..).zip(situations::all(function)) {
        let what = situation.what;
        players.push(Player::enter(&stack, number, situation).await.context(what)?);
    }
    // All that is sent is under way.
    let waiting = players.iter().filter(|player| !player.situation.request.is_empty()).count();
    let copies = players.iter().filter(|player| player.situation.begun == b'G').count();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event IN ('advisory', 'SyncRep')",
        schema::APP.user
    );
    stack.until_postgres_says(&sql, &(waiting - copies).to_string()).await?;
    die(&mut stack, death).await?;
    drop(gate);
    for player in players {
        let what = player.situation.what;
        let outcome = async { player.leave(death).await?.check(death, &stack).await };
        let outcome = outcome.await.with_context(|| format!("{death:?}: {what}"));
        process::with_log(outcome, stack.weir.log())?;
    }
    Ok(())
}

#[tokio::test]
async fn sessions_are_terminated() -> Result<()> {
    play(Death::Terminated).await
}

#[tokio::test]
async fn a_fast_shutdown() -> Result<()> {
    play(Death::Fast).await
}

#[tokio::test]
async fn an_immediate_shutdown() -> Result<()> {
    play(Death::Immediate).await
}

#[tokio::test]
async fn a_backend_is_killed() -> Result<()> {
    play(Death::Backend).await
}

#[tokio::test]
async fn all_processes_are_killed() -> Result<()> {
    play(Death::Power).await
}

#[tokio::test]
async fn a_frozen_server_is_killed() -> Result<()> {
    play(Death::Frozen).await
}
