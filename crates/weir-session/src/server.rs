//! A server connection after its login: what it owes, which statements it knows, which parameters it carries.
//! Everything that belongs to a pairing lives here and not in the client, so that idle clients stay small.

use std::rc::Rc;
use std::time::Instant;

use weir_protocol::sql::Begin;
use weir_protocol::sqlstate::SqlState;

use crate::again::Again;
use crate::deferred::Opening;
use crate::owed::{Owed, OwedQueue};
use crate::prepared::{ServerStatements, Statement};
use crate::replay::Replay;
use crate::settings::{Reported, Settings};
use crate::state::{KINDS, StateKind, Watch};

/// Transaction status as ReadyForQuery reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxStatus {
    /// Outside a transaction block.
    Idle,
    /// In a transaction block.
    Open,
    /// In a failed transaction block.
    Failed,
}

impl TxStatus {
    /// The byte in ReadyForQuery.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            TxStatus::Idle => b'I',
            TxStatus::Open => b'T',
            TxStatus::Failed => b'E',
        }
    }

    /// From the byte in ReadyForQuery; `None` for any other byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(TxStatus::Idle),
            b'T' => Some(TxStatus::Open),
            b'E' => Some(TxStatus::Failed),
            _ => None,
        }
    }
}

/// A message that kills the connection which sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dying {
    /// SQLSTATE of the FATAL or PANIC error.
    pub code: SqlState,
    /// Its text.
    pub message: String,
}

/// What was sent in an extended-protocol batch whose Sync has not been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unsynced {
    /// There is no such batch.
    Nothing,
    /// Statements were prepared, described or closed: PostgreSQL has a transaction open, but nothing in it counts.
    Names,
    /// Portals were made or run: it counts.
    Work,
}

/// What PostgreSQL has said since its last ReadyForQuery of statements that it has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Nothing.
    Nothing,
    /// Something has run, and has not ended the transaction.
    Work,
    /// A COMMIT or ROLLBACK has succeeded, and nothing has run since then.
    End {
        /// It was a simple query; otherwise an Execute, whose Sync may be still to come.
        by_query: bool,
    },
    /// The same, and something else has run since then.
    EndThenWork,
}

impl Answered {
    /// The transaction that the last ReadyForQuery spoke of is over.
    pub(crate) fn has_ended(self) -> bool {
        matches!(self, Self::End { .. } | Self::EndThenWork)
    }

    /// Something has run since the last end of a transaction that is known of.
    pub(crate) fn has_worked(self) -> bool {
        matches!(self, Self::Work | Self::EndThenWork)
    }
}

/// A server connection as its sessions see it.
#[derive(Debug)]
pub struct Server {
    /// Replies owed to the attached client, and to weir itself.
    pub(crate) owed: OwedQueue,
    /// Prepared statements it knows.
    pub(crate) statements: ServerStatements,
    /// Parameters weir applied; `None`: not known any more.
    pub(crate) applied: Option<Rc<Settings>>,
    /// Parameters on their way (a hidden query is owed).
    pub(crate) applying: Option<Rc<Settings>>,
    /// Values it reported last.
    pub(crate) reported: Rc<Reported>,
    /// Values it reported when the attached client's parameters were in force.
    pub(crate) reported_at_checkout: Rc<Reported>,
    /// What the attached client may have left behind.
    pub(crate) watch: Watch,
    /// Status in its last ReadyForQuery.
    pub(crate) status: TxStatus,
    /// Bytes of the current message from the server that are still to be relayed.
    pub(crate) relaying: usize,
    /// Bytes of the current message from the server that are still to be dropped.
    pub(crate) dropping: usize,
    /// Syncs sent in front of a COPY IN, which reads over them unless it has failed before.
    pub(crate) syncs_in_doubt: u32,
    /// It is in COPY IN mode and the client has not ended the COPY.
    pub(crate) copy_in: bool,
    /// What was sent since the last Sync or Query.
    pub(crate) unsynced: Unsynced,
    /// The oldest request in flight has failed, and its ReadyForQuery is still to come.
    pub(crate) failed: bool,
    /// What has been answered of the request in flight.
    pub(crate) answered: Answered,
    /// What the transaction began with that is open, if that is known.
    pub(crate) begun: Option<Begin>,
    /// The BEGIN that was sent in front of the transaction's first statement.
    pub(crate) opening: Opening,
    /// Syncs sent in this pairing; names a batch.
    pub(crate) batch: u64,
    /// Uses of statements up to this count have been answered.
    pub(crate) answered_uses: u64,
    /// The request in flight has failed through no fault of its own, and is to be run again.
    pub(crate) again: Option<Again>,
    /// It is a standby, as far as is known.
    pub(crate) standby: bool,
    /// PostgreSQL itself tells about that, and so will tell when it is promoted (14 and later).
    pub(crate) tells_standby: bool,
    /// The request in flight, kept for a retry.
    pub(crate) replay: Replay,
    /// It has said something that answers nothing: what it says next is not known to be for anybody.
    pub(crate) out_of_step: bool,
    /// The first error in the reply to a query of weir's own that is being read.
    pub(crate) own_error: Option<Box<str>>,
    /// The FATAL error it announced.
    pub(crate) dying: Option<Dying>,
    /// A WARNING 57P01/57P02 it sent. If these are its last words, nobody can know whether the last request was executed;
    /// if something follows, it was the application's own and goes to the client.
    pub(crate) warning: Vec<u8>,
    /// Figures of this pairing that the worker has not collected yet.
    pub(crate) tally: Tally,
    pub(crate) query_started: Option<Instant>,
    pub(crate) transaction_started: Option<Instant>,
    /// Named prepared statements it may keep; 0: names are passed through.
    pub(crate) statements_max: usize,
}

/// Whom PostgreSQL works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorksFor {
    /// No client: nothing is owed, or only the answer to a query of weir's own.
    Nobody,
    /// The client that is attached.
    Client,
    /// It has to answer a query of weir's own, and then the client.
    WeirFirst,
}

/// What happened in a pairing, for statistics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Queries answered.
    pub queries: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Time in queries.
    pub query_micros: u64,
    /// Time in transactions.
    pub transaction_micros: u64,
    /// Parse messages from the client.
    pub client_parses: u64,
    /// Parse messages to the server.
    pub server_parses: u64,
    /// Bind messages.
    pub binds: u64,
    /// Statements that may have left state of each kind behind, by [`StateKind::index`].
    pub states: [u64; KINDS],
}

/// Proof that a server connection owes nobody anything and is outside a transaction. Only [`Server::at_rest`] makes one;
/// without it a connection cannot go back to its pool.
#[derive(Debug)]
pub struct AtRest(());

impl Server {
    /// A connection whose login just ended. `carried` are the parameters its startup packet asked for.
    #[must_use]
    pub fn new(reported: Rc<Reported>, carried: Rc<Settings>, statements_max: usize) -> Self {
        Self {
            owed: OwedQueue::default(),
            statements: ServerStatements::default(),
            applied: Some(carried),
            applying: None,
            reported_at_checkout: Rc::clone(&reported),
            reported,
            watch: Watch::default(),
            status: TxStatus::Idle,
            relaying: 0,
            dropping: 0,
            copy_in: false,
            syncs_in_doubt: 0,
            unsynced: Unsynced::Nothing,
            failed: false,
            answered: Answered::Nothing,
            begun: None,
            opening: Opening::Over,
            batch: 0,
            answered_uses: 0,
            again: None,
            standby: false,
            tells_standby: false,
            replay: Replay::default(),
            out_of_step: false,
            own_error: None,
            dying: None,
            warning: Vec::new(),
            tally: Tally::default(),
            query_started: None,
            transaction_started: None,
            statements_max,
        }
    }

    /// The proof that it may go back to its pool, if it may.
    #[must_use]
    pub fn at_rest(&self) -> Option<AtRest> {
        let quiet = self.owed.is_empty() && self.relaying == 0 && self.dropping == 0 && !self.copy_in;
        // A batch without its Sync is an open transaction that no ReadyForQuery has spoken of.
        let closed = self.status == TxStatus::Idle && self.unsynced == Unsynced::Nothing;
        let sound = self.dying.is_none() && !self.out_of_step && self.syncs_in_doubt == 0;
        (quiet && closed && sound).then_some(AtRest(()))
    }

    /// PostgreSQL drops everything up to a Sync that has not been sent yet.
    pub(crate) fn is_skipping(&self) -> bool {
        self.failed && self.owed.ready_owed() == 0
    }

    /// A row would be an answer to what the client asked first, and nothing is kept back in front of it.
    pub(crate) fn expects_rows(&self) -> bool {
        self.warning.is_empty() && matches!(self.owed.head(), Some(Owed::Query(_) | Owed::Execute(_)))
    }

    /// Owes the reply to a message of an extended-protocol batch.
    pub(crate) fn owe_in_batch(&mut self, owed: Owed) {
        let weight = match owed {
            Owed::Bind | Owed::Execute(_) => Unsynced::Work,
            Owed::Query(_)
            | Owed::Sync
            | Owed::Parse(_)
            | Owed::LocalParse(_)
            | Owed::Describe { .. }
            | Owed::Close
            | Owed::LocalClose(_)
            | Owed::HiddenParse(_)
            | Owed::HiddenClose(_)
            | Owed::HiddenSettings
            | Owed::HiddenState { .. }
            | Owed::HiddenBegin
            | Owed::CopyEnd => Unsynced::Names,
        };
        self.unsynced = self.unsynced.max(weight);
        self.owed.push(owed);
    }

    /// The figures collected since they were taken last.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Takes the figures collected since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Named statements it knows.
    #[must_use]
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    /// Values it reported last.
    #[must_use]
    pub fn reported(&self) -> &Rc<Reported> {
        &self.reported
    }

    /// Somebody has changed its parameters, and how is not known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.applied.is_none()
    }

    /// Says which parameters it carries; `None`: that is not known.
    pub fn set_carried(&mut self, carried: Option<Rc<Settings>>) {
        self.applied = carried;
    }

    /// It said so at its login, or does so now (`in_hot_standby`).
    pub fn set_standby(&mut self, standby: bool) {
        (self.standby, self.tells_standby) = (standby, true);
    }

    /// It was asked at its login, because it does not say so, nor will say when it is promoted (PostgreSQL 13 and older).
    pub fn take_for_standby(&mut self) {
        (self.standby, self.tells_standby) = (true, false);
    }

    /// It is a standby as far as it has said: a promoted one says so behind the next request. False where it does not say.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.standby && self.tells_standby
    }

    /// The FATAL error it announced, if any.
    #[must_use]
    pub fn dying(&self) -> Option<&Dying> {
        self.dying.as_ref()
    }

    /// When the query that is under way was sent.
    #[must_use]
    pub fn query_started(&self) -> Option<Instant> {
        self.query_started
    }

    /// When the transaction that is open, or the query outside of one that is under way, began.
    #[must_use]
    pub fn transaction_started(&self) -> Option<Instant> {
        self.transaction_started
    }

    /// Something of the last client may be left: it has to be reset before another client gets it.
    #[must_use]
    pub fn needs_cleaning(&self) -> bool {
        self.watch.needs_cleaning()
    }

    /// Kinds of session state that its client has used since the figures were taken.
    pub fn states_used(&self) -> impl Iterator<Item = StateKind> + use<> {
        let states = self.tally.states;
        StateKind::ALL.into_iter().filter(move |kind| states[kind.index()] > 0)
    }

    /// Part of a message has been given to the client, and the rest has not come.
    #[must_use]
    pub fn is_in_message(&self) -> bool {
        self.relaying > 0
    }

    /// Replies are owed.
    #[must_use]
    pub fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Whom PostgreSQL works for, as far as is known: what it works on is answered first.
    #[must_use]
    pub fn works_for(&self) -> WorksFor {
        let for_client = self.owed.iter().any(|owed| !owed.is_hidden());
        match self.owed.head() {
            Some(head) if for_client && head.is_hidden_query() => WorksFor::WeirFirst,
            Some(_) if for_client => WorksFor::Client,
            Some(_) | None => WorksFor::Nobody,
        }
    }

    /// A reset query (DISCARD ALL) ended well: nothing of the last client is left. `reported` are the values after it.
    pub fn was_reset(&mut self, carried: Rc<Settings>) {
        self.applied = Some(carried);
        self.statements.forget_all();
        self.watch = Watch::default();
    }

    /// Makes room for a new named statement; returns what to close.
    pub(crate) fn evict_statement(&mut self) -> Option<Rc<Statement>> {
        self.statements.evict(self.statements_max, self.answered_uses)
    }

    /// Counts a ReadyForQuery that a client was waiting for.
    pub(crate) fn count_ready(&mut self, now: Instant) {
        self.tally.queries += 1;
        if let Some(started) = self.query_started.take() {
            self.tally.query_micros += micros(now, started);
        }
        if self.owed.ready_owed() > 0 {
            self.query_started = Some(now);
        }
        if self.status == TxStatus::Idle {
            self.tally.transactions += 1;
            if let Some(started) = self.transaction_started.take() {
                self.tally.transaction_micros += micros(now, started);
            }
        }
    }
}

fn micros(now: Instant, then: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(then).as_micros()).unwrap_or(u64::MAX)
}
