//! The queue of replies that are owed to a client, in order: by PostgreSQL for what was forwarded, by weir for what it
//! answers itself, and by PostgreSQL to weir for what weir sent on its own account ("hidden").
//!
//! After an error in an extended-protocol batch PostgreSQL skips everything up to the next Sync (protocol chapter,
//! "Pipelining"), so the queue does the same, undoing what the skipped entries had promised.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::prepared::{ClientStatementName, Statement, StatementId, StatementKind, UnnamedMark};

/// One reply that is owed.
#[derive(Debug, Clone)]
pub enum Owed {
    /// ReadyForQuery after a simple Query or FunctionCall, with everything before it.
    Query(StatementKind),
    /// ReadyForQuery for a Sync.
    Sync,
    /// ParseComplete for a client's Parse that was forwarded.
    Parse(ParseOf),
    /// ParseComplete that weir gives, because the server knows the statement already.
    LocalParse(Option<ClientStatementName>),
    /// BindComplete.
    Bind,
    /// RowDescription or NoData (with ParameterDescription before it for a statement).
    Describe {
        /// A statement is described, not a portal.
        statement: bool,
    },
    /// CommandComplete, EmptyQueryResponse, PortalSuspended.
    Execute(StatementKind),
    /// CloseComplete for a portal.
    Close,
    /// CloseComplete that weir gives; the statement returns if the Close is skipped.
    LocalClose(Option<(ClientStatementName, Rc<Statement>)>),
    /// ParseComplete for a Parse that weir sent: swallowed.
    HiddenParse(ParseOf),
    /// CloseComplete for a Close that weir sent: swallowed. Names the statement when it was evicted.
    HiddenClose(Option<Rc<Statement>>),
    /// The whole reply to the query that applies startup parameters: swallowed.
    HiddenSettings,
    /// The whole reply to a query about session state: swallowed.
    HiddenState {
        /// It asks what there is; otherwise it sets what the client began with.
        question: bool,
    },
    /// The whole reply to a BEGIN that weir sent in front of a transaction's first statement: swallowed.
    HiddenBegin,
    /// Marks where the client ended (or failed) a COPY: no reply.
    CopyEnd,
}

/// A Parse under a name that the client has used already.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The client's name.
    pub name: ClientStatementName,
    /// What the name stands for; PostgreSQL is asked under weir's name for it.
    pub held: Rc<Statement>,
    /// What it would stand for.
    pub asked: Rc<Statement>,
}

/// What a Parse was about.
#[derive(Debug, Clone)]
pub enum ParseOf {
    /// The unnamed statement.
    Unnamed(UnnamedMark),
    /// A statement under weir's own name; the client's name for it when the client asked for it.
    Named(StatementId, Option<ClientStatementName>),
    /// A name that the client has used already: PostgreSQL is asked to take this statement a second time, and refuses.
    Taken(Box<Taken>),
    /// A statement under the client's own name (session mode, or prepared statements not handled).
    AsIs,
}

/// What the beginning of a COPY IN changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyIn {
    /// The client has not ended the COPY yet.
    pub open: bool,
    /// Syncs that were sent and that PostgreSQL does not answer, unless the COPY fails before it has read them.
    pub syncs_ignored: u32,
}

/// Replies owed, oldest first.
#[derive(Debug, Default)]
pub struct OwedQueue {
    entries: VecDeque<Owed>,
    ready_owed: u32,
}

impl OwedQueue {
    /// Nothing is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many replies are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many ReadyForQuery are owed.
    #[must_use]
    pub fn ready_owed(&self) -> u32 {
        self.ready_owed
    }

    /// The next reply owed.
    #[must_use]
    pub fn head(&self) -> Option<&Owed> {
        self.entries.front()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Owed> {
        self.entries.iter()
    }

    /// Owes one more.
    pub fn push(&mut self, owed: Owed) {
        self.ready_owed += u32::from(owed.ends_in_ready());
        self.entries.push_back(owed);
    }

    /// The oldest has been given.
    pub fn pop(&mut self) -> Option<Owed> {
        let owed = self.entries.pop_front()?;
        self.ready_owed -= u32::from(owed.ends_in_ready());
        Some(owed)
    }

    /// Removes and returns the next entry that an error makes PostgreSQL skip; `None` at a Sync or at the end.
    pub fn pop_skipped(&mut self) -> Option<Owed> {
        match self.head() {
            None | Some(Owed::Sync) => None,
            Some(_) => self.pop(),
        }
    }

    /// PostgreSQL entered COPY IN for the oldest entry: it ignores each Sync up to the end of the COPY (protocol chapter,
    /// "COPY Operations").
    pub fn copy_in_started(&mut self) -> CopyIn {
        let end = self.entries.iter().position(|owed| matches!(owed, Owed::CopyEnd));
        let until = end.unwrap_or(self.entries.len());
        let mut at = 0;
        let mut ignored = 0;
        self.entries.retain(|owed| {
            let sync = at < until && matches!(owed, Owed::Sync);
            // One end belongs to one COPY: the next COPY of the same query has an end of its own.
            let spent = Some(at) == end;
            at += 1;
            ignored += u32::from(sync);
            !sync && !spent
        });
        self.ready_owed -= ignored;
        CopyIn { open: end.is_none(), syncs_ignored: ignored }
    }

    /// Nothing is owed any more.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(ENTRIES_KEPT);
        self.ready_owed = 0;
    }
}

impl Owed {
    /// True for the entries that a ReadyForQuery answers.
    #[must_use]
    pub fn ends_in_ready(&self) -> bool {
        matches!(self, Owed::Query(_) | Owed::Sync | Owed::HiddenSettings | Owed::HiddenState { .. })
    }

    /// The client's name for a statement that this reply makes.
    #[must_use]
    pub fn promised_name(&self) -> Option<&[u8]> {
        let (Owed::Parse(ParseOf::Named(_, name)) | Owed::LocalParse(name)) = self else { return None };
        name.as_deref()
    }

    /// True for a simple query that weir sent on its own account.
    #[must_use]
    pub fn is_hidden_query(&self) -> bool {
        matches!(self, Owed::HiddenSettings | Owed::HiddenState { .. })
    }

    /// True for what weir sent on its own account.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        matches!(
            self,
            Owed::HiddenParse(_)
                | Owed::HiddenClose(_)
                | Owed::HiddenSettings
                | Owed::HiddenState { .. }
                | Owed::HiddenBegin
        )
    }
}

/// Entries one pairing may have in flight. A batch of a driver can have some hundred thousand in the sockets between weir
/// and PostgreSQL; a client that pipelines more is not read until half of them are answered, because the queue must have
/// an end.
pub const OWED_MAX: usize = 524_288;

/// Queue memory kept by an idle server connection.
const ENTRIES_KEPT: usize = 64;

#[cfg(test)]
#[path = "owed/tests.rs"]
mod tests;
