//! The clients of the drill: writers of single statements, writers of transactions, readers, and idle ones. Each
//! notes what it attempted; none judges.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, Statement};

use super::Front;
use super::journal::{Attempt, Journal, Outcome, Port};
use crate::schema;
use crate::sql;

/// Idle clients after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    idle: Vec<Client>,
}

#[derive(Debug)]
struct Shared {
    front: Front,
    journal: Arc<Journal>,
    next_id: AtomicI64,
    ended: AtomicBool,
}

/// What a busy client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// INSERT, alone, simple protocol.
    Insert,
    /// INSERT, alone, by a statement prepared once.
    PreparedInsert,
    /// BEGIN, two INSERTs, COMMIT.
    Transaction,
    /// SELECT on the read port.
    Read,
}

impl Load {
    /// Connects everybody and starts the work.
    ///
    /// # Errors
    /// A client cannot connect or its first statement fails.
    pub async fn start(front: Front, journal: Arc<Journal>) -> Result<Self> {
        let shared =
            Arc::new(Shared { front, journal, next_id: AtomicI64::new(1), ended: AtomicBool::new(false) });
        let mut idle = Vec::new();
        for port in [front.write, front.read] {
            for _ in 0..IDLE_PER_PORT {
                let client = sql::connect(port, schema::APP).await.context("connecting an idle client")?;
                // Used once, so that it is a client like any other that went quiet.
                client.simple_query("SELECT 1").await.context("the first statement of an idle client")?;
                idle.push(client);
            }
        }
        let mut busy = Vec::new();
        for (work, count) in CREW {
            for _ in 0..count {
                let number = u32::try_from(busy.len()).unwrap_or(u32::MAX);
                busy.push(tokio::spawn(keep_busy(Arc::clone(&shared), number, work)));
            }
        }
        Ok(Self { shared, busy, idle })
    }

    /// The crew in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let count = |wanted: &[Work]| -> usize {
            CREW.iter().filter(|(work, _)| wanted.contains(work)).map(|(_, count)| count).sum()
        };
        format!(
            "{} writers, {} of transactions, {} readers, {} idle clients",
            count(&[Work::Insert, Work::PreparedInsert]),
            count(&[Work::Transaction]),
            count(&[Work::Read]),
            self.idle.len()
        )
    }

    /// Asks every idle client for an answer on the connection it has; those without are forgotten afterwards.
    pub async fn check_idle(&mut self) -> IdleCount {
        let all = self.idle.len();
        let mut alive = Vec::with_capacity(all);
        for client in self.idle.drain(..) {
            let answer = tokio::time::timeout(ANSWER_PATIENCE, client.simple_query("SELECT 1")).await;
            if matches!(answer, Ok(Ok(_))) {
                alive.push(client);
            }
        }
        self.idle = alive;
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
async fn keep_busy(shared: Arc<Shared>, number: u32, work: Work) {
    let (port, address) = match work {
        Work::Insert | Work::PreparedInsert | Work::Transaction => (Port::Write, shared.front.write),
        Work::Read => (Port::Read, shared.front.read),
    };
    let worker = Worker { shared, number, port, address, work };
    while !worker.shared.ended() {
        let began = Instant::now();
        match Connected::open(&worker).await {
            Ok(connected) => worker.use_up(connected).await,
            Err(problem) => worker.note(began, Outcome::Refused(code_of(&problem))),
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

struct Worker {
    shared: Arc<Shared>,
    number: u32,
    port: Port,
    address: SocketAddr,
    work: Work,
}

struct Connected {
    client: Client,
    insert: Option<Statement>,
}

impl Connected {
    async fn open(worker: &Worker) -> Result<Self, Error> {
        let config = schema::APP.config(worker.address);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let insert = match worker.work {
            Work::PreparedInsert => Some(client.prepare(PREPARED_INSERT).await?),
            Work::Insert | Work::Transaction | Work::Read => None,
        };
        Ok(Self { client, insert })
    }
}

impl Worker {
    /// Works until the connection is gone.
    async fn use_up(&self, connected: Connected) {
        while !self.shared.ended() {
            let began = Instant::now();
            let done = tokio::time::timeout(ANSWER_PATIENCE, self.once(&connected)).await;
            let outcome = match done {
                Err(_) => Outcome::Failed("no answer".to_owned()),
                Ok(Ok(rows)) => Outcome::Done(rows),
                Ok(Err(problem)) => after_error(&connected.client, &problem).await,
            };
            let gone = matches!(outcome, Outcome::Dropped(_));
            self.note(began, outcome);
            if gone {
                return;
            }
            tokio::time::sleep(THINK_PAUSE).await;
        }
    }

    /// One statement, or one transaction. Returns the rows that are promised now.
    async fn once(&self, connected: &Connected) -> Result<Vec<i64>, Error> {
        let client = &connected.client;
        match (self.work, &connected.insert) {
            (Work::PreparedInsert, Some(insert)) => {
                let id = self.shared.id();
                client.execute(insert, &[&id, &self.name()]).await?;
                Ok(vec![id])
            }
            (Work::Insert | Work::PreparedInsert, _) => {
                let id = self.shared.id();
                client.simple_query(&insert(id, &self.name(), 0)).await?;
                Ok(vec![id])
            }
            (Work::Transaction, _) => self.transaction(client).await,
            (Work::Read, _) => {
                client.simple_query("SELECT max(id) FROM public.drill").await?;
                Ok(Vec::new())
            }
        }
    }

    async fn transaction(&self, client: &Client) -> Result<Vec<i64>, Error> {
        let ids = [self.shared.id(), self.shared.id()];
        // The rows of one transaction share a name and say how many they are.
        let name = format!("{} {}", self.name(), ids[0]);
        client.simple_query("BEGIN").await?;
        for id in ids {
            client.simple_query(&insert(id, &name, ids.len())).await?;
            tokio::time::sleep(THINK_PAUSE).await;
        }
        // Whatever the tag says: an acknowledged COMMIT promises the rows, and a rolled-back one shows as lost.
        client.simple_query("COMMIT").await?;
        Ok(ids.to_vec())
    }

    fn name(&self) -> String {
        format!("w{}", self.number)
    }

    fn note(&self, open_since: Instant, outcome: Outcome) {
        let (client, port) = (self.number, self.port);
        self.shared.journal.note(Attempt { client, port, open_since, ended: Instant::now(), outcome });
    }
}

/// Tells whether the connection survived the error, and ends the transaction if there was one.
async fn after_error(client: &Client, problem: &Error) -> Outcome {
    let code = code_of(problem);
    // A farewell is read before the end of the connection is.
    tokio::time::sleep(Duration::from_millis(20)).await;
    if client.is_closed() {
        return Outcome::Dropped(code);
    }
    match tokio::time::timeout(ANSWER_PATIENCE, client.simple_query("ROLLBACK")).await {
        Ok(Ok(_)) => Outcome::Failed(code),
        Ok(Err(_)) if client.is_closed() => Outcome::Dropped(code),
        Ok(Err(problem)) => Outcome::Failed(format!("{code}, then ROLLBACK {}", code_of(&problem))),
        Err(_) => Outcome::Failed(format!("{code}, then ROLLBACK no answer")),
    }
}

fn code_of(problem: &Error) -> String {
    problem.code().map_or_else(|| "closed".to_owned(), |code| code.code().to_owned())
}

fn insert(id: i64, writer: &str, part: usize) -> String {
    format!("INSERT INTO public.drill (id, writer, part) VALUES ({id}, '{writer}', {part})")
}

const PREPARED_INSERT: &str = "INSERT INTO public.drill (id, writer) VALUES ($1, $2)";
const CREW: [(Work, usize); 4] =
    [(Work::Insert, 5), (Work::PreparedInsert, 5), (Work::Transaction, 6), (Work::Read, 6)];
const IDLE_PER_PORT: usize = 100;
const THINK_PAUSE: Duration = Duration::from_millis(8);
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Longer than any hold.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);
