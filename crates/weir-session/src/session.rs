//! A client after its login: which phase it is in, what it believes about its transaction, what it prepared. Between
//! transactions this is all that weir keeps for it.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;

use weir_protocol::backend;
use weir_protocol::message::Report;

use crate::aborted::Aborted;
use crate::deferred::Deferred;
use crate::owed::{OWED_MAX, Owed};
use crate::prepared::{ClientStatements, StatementKind};
use crate::server::{Server, Tally, TxStatus};
use crate::settings::{Reported, Settings};
use crate::state::{Policies, Watch};
use crate::wires::Wires;

/// When a client lets go of its server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// When it disconnects.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement; transaction blocks are refused.
    Statement,
}

/// What a turn leads to.
#[derive(Debug)]
pub struct Turn {
    /// Bytes of the input that are done with. The rest is an unfinished message, to be given again with more bytes behind
    /// it (or, after [`Then::NeedServer`], with a server).
    pub consumed: usize,
    /// What the caller has to do.
    pub then: Then,
}

/// What the caller has to do after a turn.
#[derive(Debug)]
pub enum Then {
    /// Wait for more bytes.
    Continue,
    /// A request was answered with an error instead of being run ([`Session::refuse_next`]). The rest of the input may begin
    /// another one: give it again, if the client may begin one now.
    Answered,
    /// Find a server connection, call [`Session::attached`], and give the rest of the input again.
    NeedServer,
    /// Take the server connection back: it is at rest, and this client does not hold it any longer.
    Release,
    /// These bytes are the client's input once more, in front of any that have not been consumed.
    Again(Vec<u8>),
    /// The same, but on another member. The server connection is at rest, and the client does not hold it any longer.
    Elsewhere(Vec<u8>),
    /// The client said goodbye.
    Terminate,
    /// Send this and close the client.
    Refuse(Box<Report>),
    /// The server connection is as good as gone; call [`Session::server_lost`].
    Lost,
    /// The server said something that answers nothing that was asked: both connections must go.
    Desync(&'static str),
    /// The client's startup parameters cannot be applied; PostgreSQL's own error body, to be sent as FATAL.
    SettingsRefused(Vec<u8>),
}

/// Limits that a session applies.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Bytes of a request kept for a retry; 0: never retry.
    pub retry_bytes_max: usize,
    /// Named statements are shared over server connections under weir's own names (`max_prepared_statements` is not 0).
    pub shares_statements: bool,
    /// Largest length word of a message, from either side; what is longer ends the connection.
    pub message_bytes_max: u32,
    /// Clients that send a simple Query are closed.
    pub refuses_simple_queries: bool,
    /// A transaction that has only said BEGIN takes no server connection.
    pub defers_begin: bool,
    /// What becomes of session state in transaction and statement pooling.
    pub policies: Policies,
    /// Stands for the client's database, user and role: a statement means the same only to clients that have them in common.
    pub scope: u64,
}

/// A logged-in client.
#[derive(Debug)]
pub struct Session {
    pub(crate) mode: Mode,
    pub(crate) phase: Phase,
    /// Transaction status as the client was last told.
    pub(crate) tx: TxStatus,
    pub(crate) statements: ClientStatements,
    pub(crate) rules: Rules,
    /// Bytes of the client's current message that are still to be forwarded.
    pub(crate) passing: usize,
    /// Bytes of the client's current message that are still to be dropped.
    pub(crate) swallowing: usize,
    /// What the unnamed portal runs.
    pub(crate) unnamed_portal: StatementKind,
    /// The most that any named portal of this transaction can do to it.
    pub(crate) named_portals: StatementKind,
    /// The request in flight has been sent a second time.
    pub(crate) retried: bool,
    /// More requests are in flight than may be: its input waits.
    pub(crate) stalled: bool,
    /// Parse messages answered without a server connection that no figures count yet.
    pub(crate) parses_uncounted: u64,
    /// What was answered without a server connection and no figures count yet.
    pub(crate) answered: Tally,
    /// Something has run on the server connection it holds (session mode).
    pub(crate) has_run: bool,
    /// Stands for [`Rules::scope`], client_encoding and search_path in the key of prepared statements.
    pub(crate) context: u64,
    /// What it asked for at startup.
    pub(crate) startup: Rc<Settings>,
    /// What it has now.
    settings: Rc<Settings>,
    pub(crate) told: Rc<Reported>,
}

/// What the session does with the client's next message.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Relays.
    Relaying,
    /// Drops everything up to the next Sync, which it answers.
    Skipping,
    /// The client has begun a transaction that PostgreSQL knows nothing of yet.
    Deferred(Deferred),
    /// Plays an aborted transaction block: its server connection is lost.
    Aborted(Box<Aborted>),
    /// Answers the next request with this error instead of running it.
    Refusing(Box<Report>),
}

impl Session {
    /// A client whose login just ended, told the values in `told`.
    #[must_use]
    pub fn new(mode: Mode, rules: Rules, settings: Rc<Settings>, told: Rc<Reported>) -> Self {
        Self {
            mode,
            phase: Phase::Relaying,
            tx: TxStatus::Idle,
            statements: ClientStatements::default(),
            rules,
            passing: 0,
            swallowing: 0,
            unnamed_portal: StatementKind::Other,
            named_portals: StatementKind::Other,
            retried: false,
            stalled: false,
            parses_uncounted: 0,
            answered: Tally::default(),
            has_run: false,
            context: context(&rules, &settings),
            startup: Rc::clone(&settings),
            settings,
            told,
        }
    }

    /// The configuration has changed: what becomes of session state from the next statement on.
    pub fn set_policies(&mut self, policies: Policies) {
        self.rules.policies = policies;
    }

    /// From now on the client has these on each server connection that it gets.
    pub(crate) fn carry(&mut self, settings: Rc<Settings>) {
        self.context = context(&self.rules, &settings);
        self.settings = settings;
    }

    /// What follows the client: its startup parameters, and what it has set since.
    #[must_use]
    pub fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// Named prepared statements it holds.
    #[must_use]
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    /// Transaction status as the client was last told.
    #[must_use]
    pub fn tx(&self) -> TxStatus {
        self.tx
    }

    /// When it lets go of its server connection.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// A server connection is given to the client: brings its parameters to what the client asked for.
    pub fn attached<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        self.has_run = false;
        server.tally.client_parses += std::mem::take(&mut self.parses_uncounted);
        if self.mode == Mode::Session {
            server.watch = Watch::default();
        }
        let keep = if self.mode == Mode::Session { 0 } else { self.rules.retry_bytes_max };
        server.replay.begin(keep);
        server.answered_uses = server.statements.clock();
        server.statements.next_client();
        server.query_started = None;
        server.transaction_started = None;
        server.reported_at_checkout = Rc::clone(&server.reported);
        if server.applied.as_ref().is_some_and(|applied| Rc::ptr_eq(applied, &self.settings)) {
            self.tell_news(server, wires);
            return;
        }
        let sql = self.settings.statements_from(server.applied.as_deref());
        if sql.is_empty() {
            server.applied = Some(Rc::clone(&self.settings));
            self.tell_news(server, wires);
            return;
        }
        wires.to_server(|out| weir_protocol::frontend::query(&sql, out));
        server.statements.forget_unnamed();
        server.applied = None;
        server.applying = Some(Rc::clone(&self.settings));
        server.owed.push(Owed::HiddenSettings);
    }

    /// Tells the client which reported values differ from what it was told last.
    pub(crate) fn tell_news<W: Wires>(&mut self, server: &Server, wires: &mut W) {
        if Rc::ptr_eq(&self.told, &server.reported) {
            return;
        }
        for (name, value) in server.reported.news_for(&self.told) {
            wires.to_client(|out| backend::parameter_status(name.as_bytes(), value.as_bytes(), out));
        }
        self.told = Rc::clone(&server.reported);
    }

    /// Its input waited for replies to what is in flight, and can go on.
    #[must_use]
    pub fn wants_turn(&self, server: &Server) -> bool {
        self.stalled && server.owed.len() <= OWED_MAX / 2 && !server.holds_requests_back()
    }

    /// Its input waits for replies to what is in flight.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// The client's next request is answered with this error instead of being run: its wait is over.
    pub fn refuse_next(&mut self, report: Report) {
        // If it was one that is sent a second time, that has come to nothing.
        self.retried = false;
        self.phase = match self.deferred_begin() {
            // Its block has failed.
            Some(begin) => {
                self.tx = TxStatus::Failed;
                Phase::Aborted(Box::new(Aborted::owing(report, Some(begin))))
            }
            None => Phase::Refusing(Box::new(report)),
        };
    }

    /// The client holds a server connection only until the end of its transaction, and that is reached.
    pub(crate) fn may_release(&self, server: &Server) -> bool {
        self.mode != Mode::Session
            && self.passing == 0
            && !self.stalled
            && server.watch.is_quiet()
            && server.at_rest().is_some()
    }
}

/// Stands for what a statement's text means something in: pool, client_encoding and search_path.
fn context(rules: &Rules, settings: &Settings) -> u64 {
    let keyed = (rules.scope, settings.value("client_encoding"), settings.value("search_path"));
    BuildHasherDefault::<DefaultHasher>::default().hash_one(keyed)
}
