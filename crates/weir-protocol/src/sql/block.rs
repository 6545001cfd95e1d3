//! Code inside strings: the body of DO, and texts that such a body executes. Owns where a statement may begin in there;
//! refuses to know what the statements do.

use super::lexer::{Lexer, Token};

/// A token of code in a string.
pub(super) struct Piece<'c, 'a> {
    /// Stands behind the token.
    pub(super) behind: &'c Lexer<'a>,
    pub(super) token: Token<'a>,
    /// The token, quotes included.
    pub(super) text: &'a [u8],
    /// A statement may begin with it.
    pub(super) begins: bool,
}

/// Shows the code of a DO; `lexer` stands behind that word.
pub(super) fn of_do<'a>(lexer: &Lexer<'a>, see: &mut impl FnMut(&Piece<'_, 'a>)) {
    let mut ahead = lexer.clone();
    while let Some((token, text)) = ahead.next_with_text() {
        match token {
            Token::Semicolon => return,
            Token::Text => code(inner(text), 0, see),
            Token::Word(_) | Token::Quoted | Token::Open | Token::Close | Token::Comma | Token::Other => {}
        }
    }
}

fn code<'a, See: FnMut(&Piece<'_, 'a>)>(text: &'a [u8], depth: u32, see: &mut See) {
    let mut lexer = Lexer::new(text);
    let (mut begins, mut executes) = (true, false);
    while let Some((token, text)) = lexer.next_with_text() {
        see(&Piece { behind: &lexer, token, text, begins });
        begins = false;
        match token {
            Token::Semicolon => (begins, executes) = (true, false),
            Token::Word(word) if is_any(word, &OPENINGS) => begins = true,
            Token::Word(word) if is_any(word, &[b"EXECUTE"]) => executes = true,
            Token::Text if executes && depth < DEPTH_MAX => code(inner(text), depth + 1, see),
            Token::Word(_)
            | Token::Quoted
            | Token::Text
            | Token::Open
            | Token::Close
            | Token::Comma
            | Token::Other => {}
        }
    }
}

/// What is between the quotes of a string constant.
fn inner(text: &[u8]) -> &[u8] {
    let quote = match text.split_first() {
        Some((b'$', rest)) => memchr::memchr(b'$', rest).map_or(1, |tag| tag + 2),
        Some((b'e' | b'E', _)) => 2,
        Some(_) | None => 1,
    };
    let closing = if text.starts_with(b"$") { quote } else { 1 };
    text.len().checked_sub(closing).and_then(|end| text.get(quote..end)).unwrap_or_default()
}

fn is_any(word: &[u8], wanted: &[&[u8]]) -> bool {
    wanted.iter().any(|other| word.eq_ignore_ascii_case(other))
}

/// Behind these a statement begins.
const OPENINGS: [&[u8]; 4] = [b"BEGIN", b"THEN", b"ELSE", b"LOOP"];

/// Code that is executed by code that is executed: deeper nobody goes.
const DEPTH_MAX: u32 = 2;
