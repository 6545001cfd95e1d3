//! Prepared statements in transaction mode. A client's names mean something to that client only; on server connections
//! weir uses names of its own, one for each distinct (pool, text, parameter types, client_encoding, search_path), so that
//! clients which prepare the same statement share it.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::rc::{Rc, Weak};

use weir_protocol::sql::{self, Count, Ending, Keyword, Marks};

use crate::settings::{Interner, Reported, Settings};

/// A statement's identity on server connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
    /// The name on server connections.
    #[must_use]
    pub fn server_name(self) -> String {
        format!("weir_{}", self.0)
    }
}

/// A client's own name for a statement.
pub type ClientStatementName = Box<[u8]>;

/// What weir's names on server connections start with.
pub(crate) const NAME_PREFIX: &[u8] = b"weir_";

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
    /// What running it may leave behind.
    pub marks: Marks,
    /// PostgreSQL has parsed it at least once, so that a client which prepares it can be answered without asking.
    pub proven: Cell<bool>,
    context: u64,
}

impl Statement {
    fn is(&self, sql: &[u8], types: &[u8], context: u64) -> bool {
        *self.sql == *sql && *self.types == *types && self.context == context
    }
}

/// What matters about a statement when its server connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// A single SELECT/INSERT/UPDATE/DELETE/MERGE/VALUES/WITH: may be run again if it was provably rolled back.
    Repeatable,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT.
    Rollback,
    /// COMMIT or END with AND CHAIN.
    CommitAndChain,
    /// ROLLBACK or ABORT with AND CHAIN.
    RollbackAndChain,
    /// May end the transaction in a way that the lexer cannot vouch for.
    MayEnd,
    /// Anything else, which cannot end a transaction.
    Other,
}

impl StatementKind {
    /// What the lexer makes of a query's text.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        Self::with_marks(text).0
    }

    /// The same, and what running it may leave behind on the session.
    #[must_use]
    pub fn with_marks(text: &[u8]) -> (Self, Marks) {
        let class = sql::classify(text);
        let kind = match class.statements {
            Count::Zero => Self::Other,
            Count::Several => Self::MayEnd,
            Count::One => Self::of_one(class.first, class.ending),
        };
        (kind, class.marks)
    }

    /// It may end the transaction.
    #[must_use]
    pub fn may_end(self) -> bool {
        match self {
            Self::Commit | Self::Rollback | Self::CommitAndChain | Self::RollbackAndChain | Self::MayEnd => {
                true
            }
            Self::Repeatable | Self::Other => false,
        }
    }

    fn of_one(first: Keyword, ending: Option<Ending>) -> Self {
        if first.is_plain_statement() {
            return Self::Repeatable;
        }
        match (first, ending) {
            (Keyword::Commit | Keyword::End, Some(Ending::Plain)) => Self::Commit,
            (Keyword::Commit | Keyword::End, Some(Ending::Chains)) => Self::CommitAndChain,
            (Keyword::Rollback | Keyword::Abort, Some(Ending::Plain)) => Self::Rollback,
            (Keyword::Rollback | Keyword::Abort, Some(Ending::Chains)) => Self::RollbackAndChain,
            (first, _) if first.ends_transaction() => Self::MayEnd,
            (_, _) => Self::Other,
        }
    }
}

/// All named statements of one worker, found by content.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Sets of reported values, shared like statements.
    pub reported: Interner<Reported>,
    /// Sets of what clients have set since their startup.
    pub learned: Interner<Settings>,
    by_key: HashMap<u64, Vec<Weak<Statement>>>,
    hasher: foldhash::quality::RandomState,
    last_id: u64,
    last_unnamed: u64,
    sweep_at: usize,
}

impl Catalog {
    /// The statement with this content, if some client holds one.
    #[must_use]
    pub fn find(&self, sql: &[u8], types: &[u8], context: u64) -> Option<Rc<Statement>> {
        let bucket = self.by_key.get(&self.hasher.hash_one((sql, types, context)))?;
        bucket.iter().filter_map(Weak::upgrade).find(|statement| statement.is(sql, types, context))
    }

    /// The statement with this content. `context` stands for the client's client_encoding and search_path.
    pub fn intern(&mut self, sql: &[u8], types: &[u8], context: u64) -> Rc<Statement> {
        let key = self.hasher.hash_one((sql, types, context));
        let bucket = self.by_key.entry(key).or_default();
        let found = bucket.iter().filter_map(Weak::upgrade);
        if let Some(statement) = found.into_iter().find(|statement| statement.is(sql, types, context)) {
            return statement;
        }
        self.last_id += 1;
        let id = StatementId(self.last_id);
        let (kind, marks) = StatementKind::with_marks(sql);
        let statement = Rc::new(Statement {
            id,
            server_name: id.server_name().into_bytes().into(),
            sql: sql.into(),
            types: types.into(),
            kind,
            marks,
            proven: Cell::new(false),
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

/// The unnamed statement as a client last parsed it.
#[derive(Debug)]
pub struct Unnamed {
    /// Which Parse it was.
    pub mark: UnnamedMark,
    /// What the SQL is.
    pub kind: StatementKind,
    /// What running it may leave behind.
    pub marks: Marks,
    /// Query text and types as in the Parse message's body after the name; empty if too long to carry along.
    body: Vec<u8>,
}

impl Unnamed {
    /// The query's text; empty if it was too long to carry along.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.body.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// What to parse on another server connection; `None` if it was too long to carry along.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        (!self.body.is_empty()).then_some(&self.body)
    }
}

/// What one client has prepared, by its own names.
#[derive(Debug, Default)]
pub struct ClientStatements {
    #[expect(clippy::box_collection, reason = "most clients hold none, and idle clients are many")]
    named: Option<Box<HashMap<ClientStatementName, Rc<Statement>>>>,
    /// The unnamed statement.
    unnamed: Option<Box<Unnamed>>,
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

    /// DISCARD ALL or DEALLOCATE ALL succeeded: forgets the named statements, except for those parsed behind it.
    pub fn forget_named(&mut self, is_newer: impl Fn(&[u8]) -> bool) {
        if let Some(named) = &mut self.named {
            named.retain(|name, _| is_newer(name));
        }
        if self.is_empty() {
            self.named = None;
        }
    }

    /// The unnamed statement.
    #[must_use]
    pub fn unnamed(&self) -> Option<&Unnamed> {
        self.unnamed.as_deref()
    }

    /// Parses the unnamed statement anew. A `body` of `None` is too long to carry along.
    pub fn set_unnamed(
        &mut self,
        mark: UnnamedMark,
        (kind, marks): (StatementKind, Marks),
        body: Option<&[u8]>,
    ) {
        let unnamed =
            self.unnamed.get_or_insert_with(|| Box::new(Unnamed { mark, kind, marks, body: Vec::new() }));
        unnamed.mark = mark;
        unnamed.kind = kind;
        unnamed.marks = marks;
        unnamed.body.clear();
        unnamed.body.extend_from_slice(body.unwrap_or_default());
        // The memory serves the next Parse, but one long statement is no reason to keep it for ever.
        if unnamed.body.capacity() > UNNAMED_BYTES_KEPT.max(4 * unnamed.body.len()) {
            unnamed.body.shrink_to_fit();
        }
    }

    /// The unnamed statement is gone.
    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// That Parse failed, was skipped, or was lost with its server connection.
    pub fn unnamed_refuted(&mut self, mark: UnnamedMark) {
        if self.unnamed.as_ref().is_some_and(|unnamed| unnamed.mark == mark) {
            self.unnamed = None;
        }
    }
}

/// Which of weir's statements one server connection knows.
#[derive(Debug, Default)]
pub struct ServerStatements {
    known: HashMap<StatementId, Known, foldhash::fast::RandomState>,
    /// Evicted ones whose Close has not been answered. Rarely more than one.
    leaving: Vec<StatementId>,
    clock: u64,
    /// None was used last before this; a lower bound.
    oldest_use: u64,
    unnamed: UnnamedThere,
}

#[derive(Debug)]
struct Known {
    /// Held here too, so that a statement keeps its name while any server connection knows it.
    statement: Rc<Statement>,
    state: KnownState,
    used: u64,
    /// Parse messages on their way.
    in_flight: u32,
    /// More than one Parse was sent: if the last one fails, an earlier one may have succeeded.
    repeated: bool,
}

/// How sure weir is that a statement exists on a server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownState {
    /// ParseComplete came.
    Confirmed,
    /// A Parse is on its way, in this batch (counted by Syncs sent).
    Pending(u64),
    /// It may be there or not: it has to be closed before it is parsed.
    Unclear,
}

/// Which unnamed statement a server connection holds.
#[derive(Debug, Default)]
struct UnnamedThere {
    mark: Option<UnnamedMark>,
    /// Its Parse is on its way in this batch, and if that is skipped, another client's statement is still there.
    hides_other: Option<u64>,
    /// What is there belongs to the client that is attached.
    own: bool,
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
        match self.known.get_mut(&id) {
            Some(known) => {
                known.used = self.clock;
                Some(known.state)
            }
            None if self.leaving.contains(&id) => Some(KnownState::Unclear),
            None => None,
        }
    }

    /// A Parse under weir's name was sent in this batch.
    pub fn parse_sent(&mut self, statement: &Rc<Statement>, batch: u64) {
        self.clock += 1;
        let state = KnownState::Pending(batch);
        match self.known.entry(statement.id) {
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.state = state;
                known.used = self.clock;
                known.in_flight += 1;
                known.repeated = true;
            }
            Entry::Vacant(entry) => {
                let statement = Rc::clone(statement);
                entry.insert(Known { statement, state, used: self.clock, in_flight: 1, repeated: false });
            }
        }
    }

    /// ParseComplete came.
    pub fn confirm(&mut self, id: StatementId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.statement.proven.set(true);
            known.in_flight = known.in_flight.saturating_sub(1);
            if known.in_flight == 0 {
                known.state = KnownState::Confirmed;
                known.repeated = false;
            }
        }
    }

    /// The Parse failed or was skipped.
    pub fn refuted(&mut self, id: StatementId) {
        let Entry::Occupied(mut entry) = self.known.entry(id) else { return };
        let known = entry.get_mut();
        known.in_flight = known.in_flight.saturating_sub(1);
        match (known.in_flight, known.repeated) {
            (0, false) => _ = entry.remove(),
            (0, true) => known.state = KnownState::Unclear,
            // A later Parse follows a Close of its own; it decides.
            (_, _) => {}
        }
    }

    /// Another text was parsed under its name although it should have been there: something has deallocated it.
    pub fn replaced(&mut self, statement: Rc<Statement>) {
        let id = statement.id;
        self.not_evicted(statement);
        if let Some(known) = self.known.get_mut(&id)
            && known.in_flight == 0
        {
            known.state = KnownState::Unclear;
        }
    }

    /// Something that weir has not seen has changed what is there: each statement is closed and parsed anew before its
    /// next use.
    pub fn doubt_all(&mut self) {
        for known in self.known.values_mut() {
            known.state = match known.state {
                KnownState::Confirmed | KnownState::Unclear => KnownState::Unclear,
                KnownState::Pending(batch) => KnownState::Pending(batch),
            };
        }
    }

    /// The least recently used statement, if `max` are known and no unanswered request can name it: it was not used after
    /// `since`. It has to be closed.
    pub fn evict(&mut self, max: usize, since: u64) -> Option<Rc<Statement>> {
        // A batch may name more of them than there is room for; then each new one must not search them all in vain.
        if self.known.len() < max || since < self.oldest_use {
            return None;
        }
        let (&id, known) = self.known.iter().min_by_key(|(_, known)| known.used)?;
        if known.used > since || known.in_flight > 0 {
            self.oldest_use = known.used;
            return None;
        }
        self.leaving.push(id);
        self.known.remove(&id).map(|known| known.statement)
    }

    /// An eviction's Close was answered.
    pub fn evicted(&mut self, id: StatementId) {
        if let Some(at) = self.leaving.iter().position(|leaving| *leaving == id) {
            self.leaving.swap_remove(at);
        }
    }

    /// An eviction's Close was skipped by PostgreSQL: the statement is still there.
    pub fn not_evicted(&mut self, statement: Rc<Statement>) {
        self.evicted(statement.id);
        match self.known.entry(statement.id) {
            // It was parsed again in the meantime, with a Close in front. If both are skipped, it is still there.
            Entry::Occupied(mut entry) => entry.get_mut().repeated = true,
            Entry::Vacant(entry) => {
                let state = KnownState::Unclear;
                self.oldest_use = 0;
                entry.insert(Known { statement, state, used: 0, in_flight: 0, repeated: false });
            }
        }
    }

    /// The use counter now; see [`ServerStatements::evict`].
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// DISCARD ALL or DEALLOCATE ALL succeeded: forgets the named statements, except for those parsed behind it.
    pub fn forget_named(&mut self) {
        self.known.retain(|_, known| known.in_flight > 0);
    }

    /// Nothing is left: the connection was reset.
    pub fn forget_all(&mut self) {
        self.known.clear();
        self.leaving.clear();
        self.unnamed = UnnamedThere::default();
    }

    /// Another client is attached.
    pub fn next_client(&mut self) {
        self.unnamed.own = false;
        self.unnamed.hides_other = None;
    }

    /// Whether a Bind in this batch finds the client's unnamed statement there, or nothing of another client's.
    #[must_use]
    pub fn has_unnamed(&self, mark: UnnamedMark, batch: u64) -> bool {
        self.unnamed.mark == Some(mark) && self.unnamed.hides_other.is_none_or(|pending| pending == batch)
    }

    /// A Parse of the unnamed statement was sent in this batch.
    pub fn unnamed_sent(&mut self, mark: UnnamedMark, batch: u64) {
        if !self.unnamed.own {
            self.unnamed.hides_other = Some(batch);
        }
        self.unnamed.mark = Some(mark);
    }

    /// ParseComplete came for an unnamed statement.
    pub fn unnamed_confirmed(&mut self) {
        self.unnamed.own = true;
        self.unnamed.hides_other = None;
    }

    /// That Parse failed or was skipped: nobody knows which unnamed statement is there.
    pub fn unnamed_refuted(&mut self, mark: UnnamedMark) {
        if self.unnamed.mark == Some(mark) {
            self.unnamed.mark = None;
        }
    }

    /// The unnamed statement is gone.
    pub fn forget_unnamed(&mut self) {
        self.unnamed.mark = None;
    }
}

/// Table size below which the catalog is never swept.
const SWEEP_MIN: usize = 1024;

/// Bytes of a Parse message that weir keeps for one statement; longer ones are refused (named) or not carried to another
/// server connection (unnamed).
pub const STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Unnamed statements longer than this are not carried to another server connection.
pub const UNNAMED_BYTES_MAX: usize = 64 * 1024;

/// Memory that a client's unnamed statement may keep unused.
const UNNAMED_BYTES_KEPT: usize = 1024;

/// Named statements that one client may hold.
pub const CLIENT_STATEMENTS_MAX: usize = 10_000;

#[cfg(test)]
#[path = "prepared/tests.rs"]
mod tests;
