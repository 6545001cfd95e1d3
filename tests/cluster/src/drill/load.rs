//! The clients of the drill: writers of single statements, writers of transactions, readers, newcomers that connect for
//! each statement, and idle ones. Each notes what it attempted; none judges.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, Statement};

use super::Front;
use super::journal::{Attempt, IN_DOUBT, Journal, Kind, Outcome, Port};
use super::words::{Notices, code_of, words_of};
use crate::schema;

/// Idle clients after an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleCount {
    /// Those that lost their connection or got no answer on it.
    pub dropped: usize,
    /// All.
    pub all: usize,
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    busy: Vec<JoinHandle<()>>,
    idle: Vec<(Worker, Connected)>,
}

/// What all clients have in common.
#[derive(Debug)]
pub(super) struct Shared {
    front: Front,
    journal: Arc<Journal>,
    next_id: AtomicI64,
    ended: AtomicBool,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// INSERT, alone, simple protocol.
    Insert,
    /// INSERT, alone, by a statement prepared once.
    PreparedInsert,
    /// BEGIN, two INSERTs, COMMIT.
    Transaction,
    /// SELECT on the read port.
    Read,
    /// A connection for one SELECT on the write port.
    WriteNewcomer,
    /// The same on the read port.
    ReadNewcomer,
    /// INSERT when asked to, silent otherwise.
    IdleWriter,
    /// SELECT when asked to, silent otherwise.
    IdleReader,
}

impl Work {
    fn port(self) -> Port {
        match self {
            Self::Insert | Self::PreparedInsert | Self::Transaction => Port::Write,
            Self::WriteNewcomer | Self::IdleWriter => Port::Write,
            Self::Read | Self::ReadNewcomer | Self::IdleReader => Port::Read,
        }
    }

    fn kind(self) -> Kind {
        if self == Self::Transaction { Kind::Transaction } else { Kind::Single }
    }
}

impl Load {
    /// Connects everybody and starts the work.
    ///
    /// # Errors
    /// A client cannot connect or its first statement fails.
    pub async fn start(front: &Front, journal: Arc<Journal>) -> Result<Self> {
        let shared = Arc::new(Shared {
            front: front.clone(),
            journal,
            next_id: AtomicI64::new(1),
            ended: AtomicBool::new(false),
        });
        let mut idle = Vec::new();
        let mut busy = Vec::new();
        let works = CREW.iter().flat_map(|&(work, count)| std::iter::repeat_n(work, count));
        for (work, number) in works.zip(0..) {
            let worker = Worker::new(&shared, number, work);
            if matches!(work, Work::IdleWriter | Work::IdleReader) {
                let connected = Connected::quiet(&worker).await.context("an idle client")?;
                idle.push((worker, connected));
            } else {
                busy.push(tokio::spawn(keep_busy(worker)));
            }
        }
        Ok(Self { shared, busy, idle })
    }

    /// What its clients have in common with others beside it.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The crew in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let count = |wanted: &[Work]| -> usize {
            CREW.iter().filter(|(work, _)| wanted.contains(work)).map(|(_, count)| count).sum()
        };
        format!(
            "{} writers ({} of transactions), {} readers, {} newcomers, {} idle clients",
            count(&[Work::Insert, Work::PreparedInsert, Work::Transaction]),
            count(&[Work::Transaction]),
            count(&[Work::Read]),
            count(&[Work::WriteNewcomer, Work::ReadNewcomer]),
            self.idle.len()
        )
    }

    /// Lets every idle client do something on the connection it has, all at once: write a row or read. Those that get no
    /// answer are forgotten afterwards.
    pub async fn wake_idle(&mut self) -> IdleCount {
        let all = self.idle.len();
        let woken: Vec<_> = self
            .idle
            .drain(..)
            .map(|(worker, connected)| {
                tokio::spawn(async move {
                    let alive = worker.attempt(&connected).await;
                    (worker, connected, alive)
                })
            })
            .collect();
        for task in woken {
            if let Ok((worker, connected, true)) = task.await {
                self.idle.push((worker, connected));
            }
        }
        IdleCount { dropped: all - self.idle.len(), all }
    }

    /// Ends the work.
    pub async fn stop(self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for mut task in self.busy {
            if tokio::time::timeout(Duration::from_secs(2), &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

impl Shared {
    fn id(&self) -> i64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// One busy client: works on one connection while that lives, connects again when it was dropped.
async fn keep_busy(worker: Worker) {
    while !worker.shared.ended() {
        let began = Instant::now();
        match Connected::open(&worker).await {
            Ok(connected) => worker.use_up(connected).await,
            Err(problem) => {
                let outcome = Outcome::Refused(code_of(&problem));
                worker.note(began, Vec::new(), outcome, words_of(&problem));
            }
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

/// One client: who it is and what it does.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    number: u32,
    address: SocketAddr,
    work: Work,
}

/// Its connection.
pub(super) struct Connected {
    client: Client,
    insert: Option<Statement>,
    notices: Notices,
}

impl Connected {
    async fn open(worker: &Worker) -> Result<Self, Error> {
        let config = schema::APP.config(worker.address);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        let notices = Notices::default();
        notices.listen(connection);
        let insert = match worker.work == Work::PreparedInsert {
            true => Some(client.prepare(PREPARED_INSERT).await?),
            false => None,
        };
        Ok(Self { client, insert, notices })
    }

    /// One that is used once, so that it is a client like any other that went quiet.
    pub(super) async fn quiet(worker: &Worker) -> Result<Self, Error> {
        let connected = Self::open(worker).await?;
        connected.client.simple_query("SELECT 1").await?;
        Ok(connected)
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connected").finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(shared: &Arc<Shared>, number: u32, work: Work) -> Self {
        let address = match work.port() {
            Port::Write => shared.front.write,
            Port::Read => shared.front.read,
        };
        Self { shared: Arc::clone(shared), number, address, work }
    }

    /// Works until the connection is gone; a newcomer leaves after one statement.
    async fn use_up(&self, connected: Connected) {
        while !self.shared.ended() {
            let alive = self.attempt(&connected).await;
            if !alive || matches!(self.work, Work::WriteNewcomer | Work::ReadNewcomer) {
                return;
            }
            tokio::time::sleep(THINK_PAUSE).await;
        }
    }

    /// One statement, or one transaction, noted. Returns whether the connection lives and answers.
    pub(super) async fn attempt(&self, connected: &Connected) -> bool {
        connected.notices.take();
        let began = Instant::now();
        let rows = match self.work {
            Work::Insert | Work::PreparedInsert | Work::IdleWriter => vec![self.shared.id()],
            Work::Transaction => vec![self.shared.id(), self.shared.id()],
            Work::Read | Work::WriteNewcomer | Work::ReadNewcomer | Work::IdleReader => Vec::new(),
        };
        let done = tokio::time::timeout(ANSWER_PATIENCE, self.once(connected, &rows)).await;
        let mut words = Vec::new();
        let outcome = match done {
            Err(_) => Outcome::Failed(NO_ANSWER.to_owned()),
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(trouble)) => {
                words = connected.notices.take();
                words.push(words_of(&trouble.problem));
                after_error(&connected.client, &trouble).await
            }
        };
        let alive = done_or_told(&outcome);
        self.note(began, rows, outcome, words.join("; "));
        alive
    }

    async fn once(&self, connected: &Connected, rows: &[i64]) -> Result<(), Trouble> {
        let client = &connected.client;
        let single = match (rows, &connected.insert) {
            ([], _) => client.simple_query("SELECT max(id) FROM public.drill").await.map(|_| ()),
            (&[id], Some(insert)) => client.execute(insert, &[&id, &self.name()]).await.map(|_| ()),
            (&[id], None) => client.simple_query(&insert(id, &self.name(), 0)).await.map(|_| ()),
            (ids, _) => return self.transaction(client, ids).await,
        };
        single.map_err(|problem| Trouble { problem, stage: Stage::Outside })
    }

    async fn transaction(&self, client: &Client, ids: &[i64]) -> Result<(), Trouble> {
        let at = |stage| move |problem| Trouble { problem, stage };
        // The rows of one transaction share a name and say how many they are.
        let name = format!("{} {}", self.name(), ids[0]);
        client.simple_query("BEGIN").await.map_err(at(Stage::Outside))?;
        for id in ids {
            client.simple_query(&insert(*id, &name, ids.len())).await.map_err(at(Stage::Inside))?;
            tokio::time::sleep(THINK_PAUSE).await;
        }
        // Whatever the tag says: an acknowledged COMMIT promises the rows, and a rolled-back one shows as lost.
        client.simple_query("COMMIT").await.map(|_| ()).map_err(at(Stage::Outside))
    }

    fn name(&self) -> String {
        format!("w{}", self.number)
    }

    fn note(&self, open_since: Instant, rows: Vec<i64>, outcome: Outcome, words: String) {
        self.shared.journal.note(Attempt {
            client: self.number,
            port: self.work.port(),
            kind: self.work.kind(),
            open_since,
            ended: Instant::now(),
            rows,
            outcome,
            words,
        });
    }
}

/// Whether the client knows where it stands: it has an answer, and a connection.
fn done_or_told(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done => true,
        Outcome::Failed(code) => code != NO_ANSWER,
        Outcome::Dropped(_) | Outcome::Refused(_) => false,
    }
}

/// What a statement failed with.
#[derive(Debug)]
struct Trouble {
    problem: Error,
    stage: Stage,
}

/// Where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Outside a transaction, at its first word, or at the COMMIT that ends it.
    Outside,
    /// In a transaction that has not said COMMIT: it is rolled back, and nothing else may be said of it.
    Inside,
}

/// Tells whether the connection survived the error, and ends the transaction if there was one.
async fn after_error(client: &Client, trouble: &Trouble) -> Outcome {
    let mut code = code_of(&trouble.problem);
    if code == IN_DOUBT && trouble.stage == Stage::Inside {
        code += " before COMMIT";
    }
    // A farewell is read before the end of the connection is.
    tokio::time::sleep(Duration::from_millis(20)).await;
    if client.is_closed() {
        return Outcome::Dropped(code);
    }
    if trouble.stage == Stage::Outside {
        return Outcome::Failed(code);
    }
    match tokio::time::timeout(ANSWER_PATIENCE, client.simple_query("ROLLBACK")).await {
        Ok(Ok(_)) => Outcome::Failed(code),
        Ok(Err(_)) if client.is_closed() => Outcome::Dropped(code),
        Ok(Err(problem)) => Outcome::Failed(format!("{code}, then ROLLBACK {}", code_of(&problem))),
        Err(_) => Outcome::Failed(format!("{code}, then ROLLBACK no answer")),
    }
}

fn insert(id: i64, writer: &str, part: usize) -> String {
    format!("INSERT INTO public.drill (id, writer, part) VALUES ({id}, '{writer}', {part})")
}

const PREPARED_INSERT: &str = "INSERT INTO public.drill (id, writer) VALUES ($1, $2)";
const CREW: [(Work, usize); 8] = [
    (Work::Insert, 3),
    (Work::PreparedInsert, 2),
    (Work::Transaction, 3),
    (Work::Read, 8),
    (Work::WriteNewcomer, 1),
    (Work::ReadNewcomer, 1),
    (Work::IdleWriter, 50),
    (Work::IdleReader, 50),
];
const NO_ANSWER: &str = "no answer";
const THINK_PAUSE: Duration = Duration::from_millis(12);
/// Between two connections of one client: logins cost both sides thousands of hashes.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// Longer than any hold.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);
