//! What kind of statements a query text holds, and how to quote text for one. Owns a small lexer on bytes; refuses to
//! parse SQL, and says "several" whenever it is not sure.
//!
//! [`classify`] is on the path of every query. It cuts only the beginning of a statement into tokens, and from there goes
//! to the statement's end in bigger steps.
//!
//! The lexer follows "Lexical Structure" of the manual: comments (nested ones too), quoted identifiers, string constants
//! with `standard_conforming_strings` on, `E''` strings, dollar quotes. It allocates nothing, is linear and looks at no
//! more than [`CLASSIFY_BYTES_MAX`] bytes.

mod assignments;
mod begin;
mod block;
mod keyword;
mod lexer;
mod marks;
mod quote;

pub use assignments::{Assignments, assignments};
pub use begin::Begin;
pub use keyword::{Ending, Keyword};
pub use marks::Marks;
pub use quote::{quote_identifier, quote_literal, quote_name};

use lexer::{Lexer, Token};

/// How far [`classify`] looks. A longer text counts as several statements.
pub const CLASSIFY_BYTES_MAX: usize = 64 * 1024;

/// How many statements a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// None: only white space, comments and semicolons.
    Zero,
    /// Exactly one, surely.
    One,
    /// More than one, or nobody knows.
    Several,
}

/// What [`classify`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classified {
    /// How many statements there are.
    pub statements: Count,
    /// Kind of the first one; `Other` when there is none.
    pub first: Keyword,
    /// Some statement commits, rolls back or prepares the whole transaction. May be true without need: the body of a
    /// `BEGIN ATOMIC ... END` function looks like statements.
    pub ends_transaction: bool,
    /// How the first statement ends the transaction; `None` if it does not.
    pub ending: Option<Ending>,
    /// The text was cut, did not end properly, or depends on a setting that weir cannot see. `statements` is `Several`
    /// then, and the other answers hold for what was read.
    pub doubtful: bool,
    /// What the statements may leave behind on their session, or take away: never all of it, since functions do as they
    /// like.
    pub marks: Marks,
}

/// Tells what a whole query text holds.
pub fn classify(sql: &[u8]) -> Classified {
    match sql.split_at_checked(CLASSIFY_BYTES_MAX) {
        Some((seen, rest)) if !rest.is_empty() => classify_prefix(seen),
        Some(_) | None => scan(sql, false),
    }
}

/// Tells what the beginning of a text holds whose end is not at hand; always doubtful, hence `Several`.
pub fn classify_prefix(sql: &[u8]) -> Classified {
    scan(sql.get(..CLASSIFY_BYTES_MAX).unwrap_or(sql), true)
}

/// What one BEGIN or START TRANSACTION asks for that says nothing but isolation level, READ ONLY or WRITE, and DEFERRABLE;
/// `None` for everything else.
pub fn lone_begin(sql: &[u8]) -> Option<Begin> {
    // An honest one is short. The bound keeps a huge comment from being read twice.
    if sql.len() > LONE_BEGIN_BYTES_MAX || !begin::may_be(sql) {
        return None;
    }
    let mut lexer = Lexer::new(sql);
    let mut begin = [Token::Other; LONE_BEGIN_TOKENS_MAX];
    let mut length = 0;
    let mut ended = false;
    for token in &mut lexer {
        if token == Token::Semicolon {
            ended |= length > 0;
            continue;
        }
        match begin.get_mut(length) {
            Some(place) if !ended => *place = token,
            Some(_) | None => return None,
        }
        length += 1;
    }
    let begin = Begin::read(begin.get(..length).unwrap_or_default());
    begin.filter(|_| !lexer.doubtful())
}

fn scan(sql: &[u8], cut: bool) -> Classified {
    let mut found = Classified {
        statements: Count::Zero,
        first: Keyword::Other,
        ends_transaction: false,
        ending: None,
        doubtful: cut,
        marks: Marks::NONE,
    };
    let mut lexer = Lexer::new(sql);
    while found.add_statement(&mut lexer) {}
    found.marks.add(lexer.marks());
    if cut || lexer.doubtful() {
        found.doubtful = true;
        found.statements = Count::Several;
    }
    found
}

impl Classified {
    /// Reads one statement; false when the text ended with it. Only its beginning is cut into tokens.
    fn add_statement(&mut self, lexer: &mut Lexer<'_>) -> bool {
        let mut depth = 0u32;
        let mut first = lexer.next();
        while first == Some(Token::Open) {
            depth += 1;
            first = lexer.next();
        }
        let word = match first {
            Some(Token::Semicolon) if depth == 0 => return true,
            None if depth == 0 => return false,
            Some(Token::Word(word)) => Keyword::of_word(word),
            Some(_) | None => Keyword::Other,
        };
        self.add(word, depth > 0, lexer);
        if first == Some(Token::Close) {
            depth = depth.saturating_sub(1);
        }
        let behind_word = lexer.rest();
        let more = lexer.skip_statement(depth);
        if word.is_query() {
            let skipped = behind_word.len() - lexer.rest().len();
            self.marks.add(marks::of_query(behind_word.get(..skipped).unwrap_or_default()));
        }
        more
    }

    fn add(&mut self, word: Keyword, parenthesised: bool, lexer: &Lexer<'_>) {
        let mut keyword = word;
        let mut ending = None;
        if parenthesised && !word.is_query() {
            keyword = Keyword::Other;
        } else if word.needs_more_words() {
            let ahead = lexer.ahead();
            keyword = word.followed_by(&ahead);
            ending = keyword.ends_transaction().then(|| keyword::ending(&ahead));
        }
        self.ends_transaction |= keyword.ends_transaction();
        self.marks.add(keyword.marks(lexer));
        self.statements = match self.statements {
            Count::Zero => {
                (self.first, self.ending) = (keyword, ending);
                Count::One
            }
            Count::One | Count::Several => Count::Several,
        };
    }
}

const LONE_BEGIN_TOKENS_MAX: usize = 24;
const LONE_BEGIN_BYTES_MAX: usize = 512;

#[cfg(test)]
mod slow;
#[cfg(test)]
mod tests;
