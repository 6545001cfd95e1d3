//! Names the kind of a statement by its first words. Owns that list and the grammar of transaction commands; refuses to
//! know what a kind means for pooling.

use super::lexer::Token;

/// Kind of a statement, by its first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the command of the same name")]
pub enum Keyword {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Values,
    With,
    Table,
    Begin,
    StartTransaction,
    Commit,
    CommitPrepared,
    End,
    PrepareTransaction,
    Rollback,
    RollbackPrepared,
    RollbackTo,
    Abort,
    Savepoint,
    Release,
    Set,
    Reset,
    Discard,
    Deallocate,
    Prepare,
    Execute,
    Copy,
    Call,
    Do,
    Listen,
    Unlisten,
    Notify,
    Show,
    Explain,
    Declare,
    Fetch,
    Move,
    Close,
    Lock,
    Load,
    Create,
    Alter,
    Drop,
    Truncate,
    Vacuum,
    Analyze,
    Other,
}

impl Keyword {
    /// COMMIT, END, ROLLBACK, ABORT and PREPARE TRANSACTION: the transaction is over when it succeeds.
    pub const fn ends_transaction(self) -> bool {
        matches!(self, Self::Commit | Self::End | Self::Rollback | Self::Abort | Self::PrepareTransaction)
    }

    /// BEGIN and START TRANSACTION.
    pub const fn begins_transaction(self) -> bool {
        matches!(self, Self::Begin | Self::StartTransaction)
    }

    /// SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, WITH: what a single transaction of its own can roll back entirely.
    pub const fn is_plain_statement(self) -> bool {
        matches!(
            self,
            Self::Select
                | Self::Insert
                | Self::Update
                | Self::Delete
                | Self::Merge
                | Self::Values
                | Self::With
        )
    }

    /// What may stand in parentheses: SELECT, VALUES, WITH and TABLE.
    pub(super) const fn is_query(self) -> bool {
        matches!(self, Self::Select | Self::Values | Self::With | Self::Table)
    }

    /// The kind of the statement that starts with these tokens.
    pub(super) fn of(tokens: &[Token<'_>]) -> Self {
        let [Token::Word(first), rest @ ..] = tokens else { return Self::Other };
        let keyword = Self::of_word(first);
        // A word that begins several commands is decided by the next ones.
        if keyword == Self::StartTransaction && !next_is(rest, b"TRANSACTION") {
            return Self::Other;
        }
        if keyword == Self::Prepare {
            return prepare(rest);
        }
        if keyword == Self::Commit && next_is(rest, b"PREPARED") {
            return Self::CommitPrepared;
        }
        if keyword == Self::Rollback && next_is(rest, b"PREPARED") {
            return Self::RollbackPrepared;
        }
        if keyword == Self::Rollback && next_is(behind_noise(rest), b"TO") {
            return Self::RollbackTo;
        }
        keyword
    }

    fn of_word(word: &[u8]) -> Self {
        let mut upper = [0; WORD_BYTES_MAX];
        let Some(upper) = upper.get_mut(..word.len()) else { return Self::Other };
        upper.copy_from_slice(word);
        upper.make_ascii_uppercase();
        WORDS.iter().find_map(|(text, keyword)| (*text == &*upper).then_some(*keyword)).unwrap_or(Self::Other)
    }
}

/// True when a COMMIT, END, ROLLBACK or ABORT goes on with AND CHAIN.
pub(super) fn says_and_chain(tokens: &[Token<'_>]) -> bool {
    let rest = behind_noise(tokens.get(1..).unwrap_or_default());
    next_is(rest, b"AND") && next_is(rest.get(1..).unwrap_or_default(), b"CHAIN")
}

/// True for a whole BEGIN or START TRANSACTION with nothing but transaction modes.
pub(super) fn is_plain_begin(tokens: &[Token<'_>]) -> bool {
    let modes = match tokens {
        [begin, rest @ ..] if is(begin, b"BEGIN") => behind_noise(rest),
        [start, transaction, rest @ ..] if is(start, b"START") && is(transaction, b"TRANSACTION") => rest,
        _ => return false,
    };
    let mut rest = modes;
    while !rest.is_empty() {
        let Some(behind) = behind_mode(rest) else { return false };
        rest = match behind {
            [Token::Comma, next @ ..] if !next.is_empty() => next,
            behind => behind,
        };
    }
    true
}

/// What follows one transaction mode, or `None` when there is none in front.
fn behind_mode<'t, 's>(tokens: &'t [Token<'s>]) -> Option<&'t [Token<'s>]> {
    MODES.iter().find_map(|mode| {
        let (front, rest) = tokens.split_at_checked(mode.len())?;
        let all = front.iter().zip(*mode).all(|(token, word)| is(token, word));
        all.then_some(rest)
    })
}

/// PREPARE TRANSACTION takes a string; a statement to prepare may itself be named `transaction`.
fn prepare(rest: &[Token<'_>]) -> Keyword {
    match rest {
        [transaction, after, ..]
            if is(transaction, b"TRANSACTION") && !is(after, b"AS") && *after != Token::Open =>
        {
            Keyword::PrepareTransaction
        }
        _ => Keyword::Prepare,
    }
}

fn behind_noise<'t, 's>(tokens: &'t [Token<'s>]) -> &'t [Token<'s>] {
    match tokens {
        [noise, rest @ ..] if is(noise, b"WORK") || is(noise, b"TRANSACTION") => rest,
        tokens => tokens,
    }
}

fn next_is(tokens: &[Token<'_>], word: &[u8]) -> bool {
    tokens.first().is_some_and(|token| is(token, word))
}

fn is(token: &Token<'_>, word: &[u8]) -> bool {
    matches!(token, Token::Word(text) if text.eq_ignore_ascii_case(word))
}

const MODES: &[&[&[u8]]] = &[
    &[b"ISOLATION", b"LEVEL", b"SERIALIZABLE"],
    &[b"ISOLATION", b"LEVEL", b"REPEATABLE", b"READ"],
    &[b"ISOLATION", b"LEVEL", b"READ", b"COMMITTED"],
    &[b"ISOLATION", b"LEVEL", b"READ", b"UNCOMMITTED"],
    &[b"READ", b"ONLY"],
    &[b"READ", b"WRITE"],
    &[b"DEFERRABLE"],
    &[b"NOT", b"DEFERRABLE"],
];

const WORD_BYTES_MAX: usize = 10;

/// The commonest first.
const WORDS: &[(&[u8], Keyword)] = &[
    (b"SELECT", Keyword::Select),
    (b"INSERT", Keyword::Insert),
    (b"UPDATE", Keyword::Update),
    (b"DELETE", Keyword::Delete),
    (b"BEGIN", Keyword::Begin),
    (b"COMMIT", Keyword::Commit),
    (b"WITH", Keyword::With),
    (b"SET", Keyword::Set),
    (b"END", Keyword::End),
    (b"ROLLBACK", Keyword::Rollback),
    (b"START", Keyword::StartTransaction),
    (b"ABORT", Keyword::Abort),
    (b"MERGE", Keyword::Merge),
    (b"VALUES", Keyword::Values),
    (b"TABLE", Keyword::Table),
    (b"SAVEPOINT", Keyword::Savepoint),
    (b"RELEASE", Keyword::Release),
    (b"RESET", Keyword::Reset),
    (b"DISCARD", Keyword::Discard),
    (b"DEALLOCATE", Keyword::Deallocate),
    (b"PREPARE", Keyword::Prepare),
    (b"EXECUTE", Keyword::Execute),
    (b"COPY", Keyword::Copy),
    (b"CALL", Keyword::Call),
    (b"DO", Keyword::Do),
    (b"LISTEN", Keyword::Listen),
    (b"UNLISTEN", Keyword::Unlisten),
    (b"NOTIFY", Keyword::Notify),
    (b"SHOW", Keyword::Show),
    (b"EXPLAIN", Keyword::Explain),
    (b"DECLARE", Keyword::Declare),
    (b"FETCH", Keyword::Fetch),
    (b"MOVE", Keyword::Move),
    (b"CLOSE", Keyword::Close),
    (b"LOCK", Keyword::Lock),
    (b"LOAD", Keyword::Load),
    (b"CREATE", Keyword::Create),
    (b"ALTER", Keyword::Alter),
    (b"DROP", Keyword::Drop),
    (b"TRUNCATE", Keyword::Truncate),
    (b"VACUUM", Keyword::Vacuum),
    (b"ANALYZE", Keyword::Analyze),
    (b"ANALYSE", Keyword::Analyze),
];
