//! What a statement may leave behind on the session it runs in, as far as its text tells. Owns the list of such
//! statements and functions; refuses to know what becomes of them.

use super::Keyword;
use super::block::{self, Piece};
use super::lexer::{Lexer, Token};

/// A set of traces that statements may leave on their session, or take away again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Marks(u16);

impl Marks {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Run-time parameters: SET (not LOCAL), RESET, DISCARD ALL, `set_config()`.
    pub const SETTING: Self = Self(1);
    /// SET ROLE, SET SESSION AUTHORIZATION, and what undoes them.
    pub const ROLE: Self = Self(1 << 1);
    /// SQL-level PREPARE and DEALLOCATE.
    pub const PREPARED: Self = Self(1 << 2);
    /// LISTEN and UNLISTEN.
    pub const LISTENING: Self = Self(1 << 3);
    /// Advisory locks that a session holds.
    pub const LOCK: Self = Self(1 << 4);
    /// Temporary tables, views and sequences that are not dropped at commit.
    pub const TEMPORARY: Self = Self(1 << 5);
    /// DECLARE ... WITH HOLD.
    pub const CURSOR: Self = Self(1 << 6);
    /// RESET, SET ... TO DEFAULT, DISCARD ALL: parameters go back to where the session began.
    pub const RESETS: Self = Self(1 << 7);
    /// The text takes something away and adds nothing: UNLISTEN, DEALLOCATE, DROP, CLOSE, DISCARD, RESET, unlocking.
    pub const LETS_GO: Self = Self(1 << 8);
    /// All that can be left behind.
    pub const ALL: Self = Self(0x7f);

    /// Nothing is marked.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Something of `other` is marked.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Adds what another statement of the same text does. Both have to let go for [`Marks::LETS_GO`] to stay.
    pub fn add(&mut self, other: Self) {
        if self.is_empty() || other.is_empty() {
            self.0 |= other.0;
        } else {
            self.0 = (self.0 | other.0) & !Self::LETS_GO.0 | (self.0 & other.0 & Self::LETS_GO.0);
        }
    }
}

impl Keyword {
    /// What a statement of this kind may leave behind. `lexer` stands behind its first word.
    pub(super) fn marks(self, lexer: &Lexer<'_>) -> Marks {
        if !self.may_leave_marks() {
            return Marks::NONE;
        }
        let table: [(Self, Rule); 12] = [
            (Self::Set, set),
            (Self::Reset, reset),
            (Self::Discard, discard),
            (Self::Prepare, |_| Marks::PREPARED),
            (Self::Deallocate, |_| Marks::PREPARED.with(Marks::LETS_GO)),
            (Self::Listen, |_| Marks::LISTENING),
            (Self::Unlisten, |_| Marks::LISTENING.with(Marks::LETS_GO)),
            (Self::Create, create),
            (Self::Drop, |_| Marks::TEMPORARY.with(Marks::LETS_GO)),
            (Self::Declare, declare),
            (Self::Close, |_| Marks::CURSOR.with(Marks::LETS_GO)),
            (Self::Do, do_block),
        ];
        table.iter().find(|(keyword, _)| *keyword == self).map_or(Marks::NONE, |(_, marks)| marks(lexer))
    }

    /// What most statements are cannot: this costs one look.
    const fn may_leave_marks(self) -> bool {
        matches!(
            self,
            Self::Set
                | Self::Reset
                | Self::Discard
                | Self::Prepare
                | Self::Deallocate
                | Self::Listen
                | Self::Unlisten
                | Self::Create
                | Self::Drop
                | Self::Declare
                | Self::Close
                | Self::Do
        )
    }
}

/// Tells by what follows a statement's first word.
type Rule = fn(&Lexer<'_>) -> Marks;

/// What the statements and calls in its body do; that some of them let go of something proves nothing.
fn do_block(lexer: &Lexer<'_>) -> Marks {
    let mut found = Marks::NONE;
    block::of_do(lexer, &mut |piece| found = found.with(of_piece(piece)));
    found.without(Marks::LETS_GO)
}

fn of_piece(piece: &Piece<'_, '_>) -> Marks {
    match piece.token {
        Token::Word(word) if piece.begins => {
            let keyword = Keyword::of_word(word);
            if keyword == Keyword::Do { Marks::NONE } else { keyword.marks(piece.behind) }
        }
        Token::Word(_) | Token::Quoted if piece.behind.clone().next() == Some(Token::Open) => {
            of_call(piece.text.strip_suffix(b"\"").unwrap_or(piece.text))
        }
        Token::Word(_)
        | Token::Quoted
        | Token::Text
        | Token::Semicolon
        | Token::Open
        | Token::Close
        | Token::Comma
        | Token::Other => Marks::NONE,
    }
}

fn declare(lexer: &Lexer<'_>) -> Marks {
    if phrase(lexer, &[b"WITH", b"HOLD"]) { Marks::CURSOR } else { Marks::NONE }
}

fn set(lexer: &Lexer<'_>) -> Marks {
    let mut tokens = lexer.clone().peekable();
    if is(tokens.peek(), b"SESSION") {
        tokens.next();
    }
    match tokens.next() {
        Some(Token::Word(word)) if any(word, &[b"LOCAL", b"TRANSACTION", b"CONSTRAINTS", b"SEED"]) => {
            Marks::NONE
        }
        Some(Token::Word(word)) if any(word, &[b"ROLE", b"AUTHORIZATION"]) => Marks::ROLE,
        Some(Token::Word(word)) if any(word, &[b"SESSION_AUTHORIZATION"]) => Marks::ROLE,
        _ if phrase(lexer, &[b"DEFAULT"]) => Marks::SETTING.with(Marks::RESETS),
        _ => Marks::SETTING,
    }
}

fn reset(lexer: &Lexer<'_>) -> Marks {
    let given = Marks::LETS_GO;
    match lexer.clone().next() {
        Some(Token::Word(word)) if any(word, &[b"ROLE", b"SESSION", b"SESSION_AUTHORIZATION"]) => {
            given.with(Marks::ROLE)
        }
        _ => given.with(Marks::SETTING).with(Marks::RESETS),
    }
}

fn discard(lexer: &Lexer<'_>) -> Marks {
    match lexer.clone().next() {
        Some(Token::Word(word)) if any(word, &[b"ALL"]) => {
            Marks::ALL.with(Marks::RESETS).with(Marks::LETS_GO)
        }
        Some(Token::Word(word)) if any(word, &[b"TEMP", b"TEMPORARY"]) => {
            Marks::TEMPORARY.with(Marks::LETS_GO)
        }
        _ => Marks::NONE,
    }
}

/// CREATE [OR REPLACE] [GLOBAL | LOCAL] TEMP ..., or a name in `pg_temp`.
fn create(lexer: &Lexer<'_>) -> Marks {
    let mut start = statement(lexer).take(CREATE_TOKENS_MAX);
    let temporary = start
        .any(|token| matches!(token, Token::Word(word) if any(word, &[b"TEMP", b"TEMPORARY", b"PG_TEMP"])));
    if temporary && !phrase(lexer, &[b"ON", b"COMMIT", b"DROP"]) { Marks::TEMPORARY } else { Marks::NONE }
}

/// What calling the function means whose name ends `text`; an open parenthesis is behind it.
#[inline]
pub(super) fn of_call(text: &[u8]) -> Marks {
    match text.trim_ascii_end() {
        // Few names end like this, and the rest of the comparison is for those.
        name @ [.., b'k' | b'K' | b'd' | b'D' | b'l' | b'L' | b'g' | b'G'] => of_suspect(name),
        _ => Marks::NONE,
    }
}

/// The same for a name in double quotes, with what follows its opening quote and its closing one.
#[inline]
pub(super) fn of_quoted_call(quoted: &[u8], behind: &[u8]) -> Marks {
    let is_call = match behind {
        [b'(', ..] => true,
        [b' ' | b'\t' | b'\n' | b'\r', ..] => behind.trim_ascii_start().starts_with(b"("),
        _ => false,
    };
    if !is_call {
        return Marks::NONE;
    }
    let name = quoted.len().checked_sub(behind.len() + 1).and_then(|length| quoted.get(..length));
    of_call(name.unwrap_or_default())
}

fn of_suspect(name: &[u8]) -> Marks {
    let ends = |word: &[u8]| {
        let at = name.len().checked_sub(word.len());
        at.and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(word))
    };
    if ends(b"advisory_lock") || ends(b"advisory_lock_shared") {
        Marks::LOCK
    } else if ends(b"advisory_unlock") || ends(b"advisory_unlock_shared") || ends(b"advisory_unlock_all") {
        Marks::LOCK.with(Marks::LETS_GO)
    } else if ends(b"set_config") {
        Marks::SETTING
    } else {
        Marks::NONE
    }
}

/// A query that says INTO TEMP makes a table.
pub(super) fn of_query(text: &[u8]) -> Marks {
    let mut rest = text;
    // P is the rarest letter of the word.
    while let Some(at) = memchr::memchr2(b'p', b'P', rest) {
        let (before, behind) = rest.split_at(at + 1);
        let found = before.len() >= b"INTO TEMP".len()
            && before.get(before.len() - 4..).is_some_and(|word| word.eq_ignore_ascii_case(b"TEMP"))
            && before
                .get(..before.len() - 4)
                .map(<[u8]>::trim_ascii_end)
                .and_then(|start| start.get(start.len().checked_sub(4)?..))
                .is_some_and(|word| word.eq_ignore_ascii_case(b"INTO"));
        if found {
            return Marks::TEMPORARY;
        }
        // The word can begin behind the last P only.
        rest = behind;
        if rest.len() < b"INTO TEMP".len() {
            break;
        }
    }
    Marks::NONE
}

/// The statement says these words one behind the other.
fn phrase(lexer: &Lexer<'_>, words: &[&[u8]]) -> bool {
    let mut matched = 0;
    for token in statement(lexer) {
        let says = |at: usize| words.get(at).is_some_and(|wanted| is(Some(&token), wanted));
        matched = if says(matched) { matched + 1 } else { usize::from(says(0)) };
        if matched == words.len() {
            return true;
        }
    }
    false
}

fn statement<'a>(lexer: &Lexer<'a>) -> impl Iterator<Item = Token<'a>> + use<'a> {
    lexer.clone().take_while(|token| *token != Token::Semicolon).take(STATEMENT_TOKENS_MAX)
}

fn is(token: Option<&Token<'_>>, wanted: &[u8]) -> bool {
    matches!(token, Some(Token::Word(word)) if word.eq_ignore_ascii_case(wanted))
}

fn any(word: &[u8], wanted: &[&[u8]]) -> bool {
    wanted.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// CREATE OR REPLACE LOCAL TEMP, or CREATE UNLOGGED TABLE IF NOT EXISTS pg_temp.
const CREATE_TOKENS_MAX: usize = 8;

/// What is behind so many tokens is not looked at.
const STATEMENT_TOKENS_MAX: usize = 10_000;

#[cfg(test)]
#[path = "marks/tests.rs"]
mod tests;
