//! Prepared statements in transaction mode. A client's names mean something to that client only; on server connections
//! weir uses names of its own, one for each distinct (text, parameter types, client_encoding, search_path), so that
//! clients which prepare the same statement share it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::rc::{Rc, Weak};

use weir_protocol::sql::{self, Count, Keyword};

use crate::settings::{Interner, Reported};

/// A statement's identity on server connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
    /// The name on server connections.
    #[must_use]
    pub fn server_name(self) -> String {
        format!("{NAME_PREFIX}{}", self.0)
    }
}

/// A client's own name for a statement.
pub type ClientStatementName = Box<[u8]>;

/// What weir's names on server connections start with.
const NAME_PREFIX: &str = "weir_";

/// A named statement that at least one client holds.
#[derive(Debug)]
pub struct Statement {
    /// Its identity on server connections.
    pub id: StatementId,
    /// Its name there.
    pub server_name: Box<[u8]>,
    /// Query text.
    pub sql: Box<[u8]>,
    /// Parameter types as they stood in the Parse message (count and OIDs).
    pub types: Box<[u8]>,
    /// What the SQL is, for the rules about lost requests.
    pub kind: StatementKind,
    context: u64,
}

/// What matters about a statement when its server connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// A single SELECT/INSERT/UPDATE/DELETE/MERGE/VALUES/WITH: may be run again if it was provably rolled back.
    Repeatable,
    /// COMMIT or END (without AND CHAIN).
    Commit,
    /// ROLLBACK or ABORT (without AND CHAIN).
    Rollback,
    /// May end the transaction in a way that the lexer cannot vouch for.
    MayEnd,
    /// Anything else, which cannot end a transaction.
    Other,
}

impl StatementKind {
    /// What the lexer makes of a query's text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let class = sql::classify(text);
        match class.statements {
            Count::Zero => Self::Other,
            Count::Several => Self::MayEnd,
            Count::One => Self::of_one(class.first, class.chain),
        }
    }

    fn of_one(first: Keyword, chain: bool) -> Self {
        match first {
            Keyword::Commit | Keyword::End if !chain => Self::Commit,
            Keyword::Rollback | Keyword::Abort if !chain => Self::Rollback,
            Keyword::Commit
            | Keyword::End
            | Keyword::Rollback
            | Keyword::Abort
            | Keyword::PrepareTransaction => Self::MayEnd,
            first if REPEATABLE.contains(&first) => Self::Repeatable,
            _ => Self::Other,
        }
    }
}

/// Statements that leave nothing behind when their transaction is rolled back.
const REPEATABLE: [Keyword; 7] = [
    Keyword::Select,
    Keyword::Insert,
    Keyword::Update,
    Keyword::Delete,
    Keyword::Merge,
    Keyword::Values,
    Keyword::With,
];

/// All named statements of one worker, found by content.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Sets of reported values, shared like statements.
    pub reported: Interner<Reported>,
    by_key: HashMap<u64, Vec<Weak<Statement>>>,
    hasher: foldhash::quality::RandomState,
    last_id: u64,
    last_unnamed: u64,
    sweep_at: usize,
}

impl Catalog {
    /// The statement with this content. `context` stands for the client's client_encoding and search_path.
    pub fn intern(&mut self, sql: &[u8], types: &[u8], context: u64, kind: StatementKind) -> Rc<Statement> {
        let key = self.hasher.hash_one((sql, types, context));
        let bucket = self.by_key.entry(key).or_default();
        let found = bucket.iter().filter_map(Weak::upgrade).find(|statement| {
            *statement.sql == *sql && *statement.types == *types && statement.context == context
        });
        if let Some(statement) = found {
            return statement;
        }
        self.last_id += 1;
        let id = StatementId(self.last_id);
        let statement = Rc::new(Statement {
            id,
            server_name: id.server_name().into_bytes().into(),
            sql: sql.into(),
            types: types.into(),
            kind,
            context,
        });
        bucket.retain(|weak| weak.strong_count() > 0);
        bucket.push(Rc::downgrade(&statement));
        self.sweep();
        statement
    }

    /// A mark that no other Parse of an unnamed statement in this worker carries.
    pub fn next_unnamed(&mut self) -> UnnamedMark {
        self.last_unnamed += 1;
        UnnamedMark(self.last_unnamed)
    }

    /// Forgets statements that nobody holds, whenever the table has doubled.
    fn sweep(&mut self) {
        if self.by_key.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.by_key.retain(|_, bucket| bucket.iter().any(|weak| weak.strong_count() > 0));
        self.sweep_at = self.by_key.len() * 2;
    }
}

/// Tells one Parse of the unnamed statement from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnnamedMark(u64);

impl UnnamedMark {
    /// Of a statement that no server connection has parsed.
    pub const NOWHERE: Self = Self(0);
}

/// The unnamed statement as a client last parsed it.
#[derive(Debug)]
pub struct Unnamed {
    /// Which Parse it was.
    pub mark: UnnamedMark,
    /// Query text and types as in the Parse message's body after the name; `None` if too long to carry along.
    pub body: Option<Box<[u8]>>,
    /// What the SQL is.
    pub kind: StatementKind,
}

/// What one client has prepared, by its own names.
#[derive(Debug, Default)]
pub struct ClientStatements {
    named: Option<Box<HashMap<ClientStatementName, Rc<Statement>>>>,
    /// The unnamed statement.
    pub unnamed: Option<Box<Unnamed>>,
}

impl ClientStatements {
    /// The statement that the client calls `name`.
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.named.as_ref()?.get(name)
    }

    /// How many named statements it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.len())
    }

    /// Holds none by name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers a statement.
    pub fn insert(&mut self, name: ClientStatementName, statement: Rc<Statement>) {
        self.named.get_or_insert_default().insert(name, statement);
    }

    /// Forgets a statement.
    pub fn remove(&mut self, name: &[u8]) -> Option<Rc<Statement>> {
        self.named.as_mut()?.remove(name)
    }

    /// DISCARD ALL or DEALLOCATE ALL succeeded.
    pub fn forget_all(&mut self) {
        self.named = None;
        self.unnamed = None;
    }
}

/// Which of weir's statements one server connection knows.
#[derive(Debug, Default)]
pub struct ServerStatements {
    known: HashMap<StatementId, Known, foldhash::fast::RandomState>,
    clock: u64,
    /// Which unnamed statement the connection holds, as far as weir can tell.
    pub unnamed: Option<UnnamedMark>,
}

#[derive(Debug, Clone)]
struct Known {
    state: KnownState,
    used: u64,
    name: Box<[u8]>,
}

/// How sure weir is that a statement exists on a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownState {
    /// ParseComplete came.
    Confirmed,
    /// A Parse is on its way, in this batch (counted by Syncs sent).
    Pending(u64),
}

impl ServerStatements {
    /// How many are known or on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// None is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether the statement exists there; counts as a use.
    pub fn use_of(&mut self, id: StatementId) -> Option<KnownState> {
        self.clock += 1;
        let known = self.known.get_mut(&id)?;
        known.used = self.clock;
        Some(known.state)
    }

    /// A Parse under weir's name was sent in this batch.
    pub fn parse_sent(&mut self, statement: &Statement, batch: u64) {
        self.clock += 1;
        let name = statement.server_name.clone();
        self.known.insert(statement.id, Known { state: KnownState::Pending(batch), used: self.clock, name });
    }

    /// ParseComplete came.
    pub fn confirm(&mut self, id: StatementId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.state = KnownState::Confirmed;
        }
    }

    /// The Parse failed or was skipped.
    pub fn refuted(&mut self, id: StatementId) {
        if self.known.get(&id).is_some_and(|known| known.state != KnownState::Confirmed) {
            self.known.remove(&id);
        }
    }

    /// The least recently used statement that may go when more than `max` are known, with its name. `in_use` names those
    /// that an unanswered request refers to: they all were used in this very pairing, after `since`.
    pub fn evict(&mut self, max: usize, since: u64) -> Option<(StatementId, Box<[u8]>)> {
        if self.known.len() < max {
            return None;
        }
        let (&id, known) = self.known.iter().min_by_key(|(_, known)| known.used)?;
        if known.used > since || known.state != KnownState::Confirmed {
            return None;
        }
        let name = known.name.clone();
        self.known.remove(&id);
        Some((id, name))
    }

    /// An eviction's Close was skipped by PostgreSQL: the statement is still there.
    pub fn not_evicted(&mut self, id: StatementId) {
        self.known.insert(
            id,
            Known { state: KnownState::Confirmed, used: 0, name: id.server_name().into_bytes().into() },
        );
    }

    /// The use counter now; see [`ServerStatements::evict`].
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// DISCARD ALL or DEALLOCATE ALL succeeded.
    pub fn forget_all(&mut self) {
        self.known.clear();
        self.unnamed = None;
    }
}

/// Table size below which the catalog is never swept.
const SWEEP_MIN: usize = 1024;

/// Bytes of a Parse message that weir keeps for one statement; longer ones are refused (named) or not carried to another
/// server connection (unnamed).
pub const STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Unnamed statements longer than this are not carried to another server connection.
pub const UNNAMED_BYTES_MAX: usize = 64 * 1024;

/// Named statements that one client may hold.
pub const CLIENT_STATEMENTS_MAX: usize = 10_000;

#[cfg(test)]
#[path = "prepared/tests.rs"]
mod tests;
