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

    /// The kind of statement that begins with this word, as far as one word can tell.
    pub(super) fn of_word(word: &[u8]) -> Self {
        if word.len() > WORD_BYTES_MAX {
            return Self::Other;
        }
        let key = key(word);
        WORDS.iter().find_map(|(known, keyword)| (*known == key).then_some(*keyword)).unwrap_or(Self::Other)
    }

    /// True for a first word that begins several commands, or a command that may say AND CHAIN: the next words count.
    pub(super) const fn needs_more_words(self) -> bool {
        matches!(self, Self::StartTransaction | Self::Prepare) || self.ends_transaction()
    }

    /// The kind of the statement whose first word is of this kind, by the tokens behind that word.
    pub(super) fn followed_by(self, rest: &[Token<'_>]) -> Self {
        if self == Self::StartTransaction && !next_is(rest, b"TRANSACTION") {
            return Self::Other;
        }
        if self == Self::Prepare {
            return prepare(rest);
        }
        if self == Self::Commit && next_is(rest, b"PREPARED") {
            return Self::CommitPrepared;
        }
        if self == Self::Rollback && next_is(rest, b"PREPARED") {
            return Self::RollbackPrepared;
        }
        if self == Self::Rollback && next_is(behind_noise(rest), b"TO") {
            return Self::RollbackTo;
        }
        self
    }
}

/// How a transaction ends by a COMMIT, END, ROLLBACK or ABORT (or PREPARE TRANSACTION).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Nothing more is said, or AND NO CHAIN.
    Plain,
    /// AND CHAIN: another one begins.
    Chains,
    /// Something else is said.
    Unclear,
}

/// How a COMMIT, END, ROLLBACK or ABORT goes on that is followed by these tokens.
pub(super) fn ending(rest: &[Token<'_>]) -> Ending {
    let says = |tokens: &[Token<'_>], words: &[&[u8]]| {
        let (said, behind) = tokens.split_at_checked(words.len()).unwrap_or((&[], tokens));
        let all = said.len() == words.len() && said.iter().zip(words).all(|(token, word)| is(token, word));
        all && matches!(behind, [] | [Token::Semicolon, ..])
    };
    let rest = behind_noise(rest);
    if says(rest, &[]) || says(rest, &[b"AND", b"NO", b"CHAIN"]) {
        Ending::Plain
    } else if says(rest, &[b"AND", b"CHAIN"]) {
        Ending::Chains
    } else {
        Ending::Unclear
    }
}

/// PREPARE TRANSACTION takes a string; a statement to prepare may itself be named `transaction`.
fn prepare(rest: &[Token<'_>]) -> Keyword {
    match rest {
        [transaction, after, ..]
            if is(transaction, b"TRANSACTION")
                && !is(after, b"AS")
                && !matches!(after, Token::Open | Token::Semicolon) =>
        {
            Keyword::PrepareTransaction
        }
        _ => Keyword::Prepare,
    }
}

pub(super) fn behind_noise<'t, 's>(tokens: &'t [Token<'s>]) -> &'t [Token<'s>] {
    match tokens {
        [noise, rest @ ..] if is(noise, b"WORK") || is(noise, b"TRANSACTION") => rest,
        tokens => tokens,
    }
}

fn next_is(tokens: &[Token<'_>], word: &[u8]) -> bool {
    tokens.first().is_some_and(|token| is(token, word))
}

pub(super) fn is(token: &Token<'_>, word: &[u8]) -> bool {
    matches!(token, Token::Word(text) if text.eq_ignore_ascii_case(word))
}

/// A word of at most [`WORD_BYTES_MAX`] bytes as a number that ignores the case of letters. Clearing that bit turns
/// nothing but a letter into a letter, so only the same letters have the key of a word made of letters.
const fn key(word: &[u8]) -> u128 {
    let mut key = 0;
    let mut rest = word;
    while let [byte, behind @ ..] = rest {
        key = key << 8 | (*byte & !0x20) as u128;
        rest = behind;
    }
    key
}

const WORD_BYTES_MAX: usize = 10;

/// The commonest first.
const WORDS: &[(u128, Keyword)] = &[
    (key(b"SELECT"), Keyword::Select),
    (key(b"INSERT"), Keyword::Insert),
    (key(b"UPDATE"), Keyword::Update),
    (key(b"DELETE"), Keyword::Delete),
    (key(b"BEGIN"), Keyword::Begin),
    (key(b"COMMIT"), Keyword::Commit),
    (key(b"WITH"), Keyword::With),
    (key(b"SET"), Keyword::Set),
    (key(b"END"), Keyword::End),
    (key(b"ROLLBACK"), Keyword::Rollback),
    (key(b"START"), Keyword::StartTransaction),
    (key(b"ABORT"), Keyword::Abort),
    (key(b"MERGE"), Keyword::Merge),
    (key(b"VALUES"), Keyword::Values),
    (key(b"TABLE"), Keyword::Table),
    (key(b"SAVEPOINT"), Keyword::Savepoint),
    (key(b"RELEASE"), Keyword::Release),
    (key(b"RESET"), Keyword::Reset),
    (key(b"DISCARD"), Keyword::Discard),
    (key(b"DEALLOCATE"), Keyword::Deallocate),
    (key(b"PREPARE"), Keyword::Prepare),
    (key(b"EXECUTE"), Keyword::Execute),
    (key(b"COPY"), Keyword::Copy),
    (key(b"CALL"), Keyword::Call),
    (key(b"DO"), Keyword::Do),
    (key(b"LISTEN"), Keyword::Listen),
    (key(b"UNLISTEN"), Keyword::Unlisten),
    (key(b"NOTIFY"), Keyword::Notify),
    (key(b"SHOW"), Keyword::Show),
    (key(b"EXPLAIN"), Keyword::Explain),
    (key(b"DECLARE"), Keyword::Declare),
    (key(b"FETCH"), Keyword::Fetch),
    (key(b"MOVE"), Keyword::Move),
    (key(b"CLOSE"), Keyword::Close),
    (key(b"LOCK"), Keyword::Lock),
    (key(b"LOAD"), Keyword::Load),
    (key(b"CREATE"), Keyword::Create),
    (key(b"ALTER"), Keyword::Alter),
    (key(b"DROP"), Keyword::Drop),
    (key(b"TRUNCATE"), Keyword::Truncate),
    (key(b"VACUUM"), Keyword::Vacuum),
    (key(b"ANALYZE"), Keyword::Analyze),
    (key(b"ANALYSE"), Keyword::Analyze),
];
