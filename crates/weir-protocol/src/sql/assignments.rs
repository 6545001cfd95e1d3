//! Which run-time parameters a text sets for its session. Owns the grammar of SET and of calls of `set_config()`; refuses
//! to know values: PostgreSQL is asked for those.

use super::block::{self, Piece};
use super::lexer::{Lexer, Token};

/// What the text of a request sets for its session.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    /// Names in lower case.
    pub names: Vec<String>,
    /// Something may be set or reset whose name is not known, but PostgreSQL lists it.
    pub others: bool,
    /// Something may be set whose name is not known, and that PostgreSQL may not list.
    pub hidden: bool,
}

impl Assignments {
    /// The session keeps nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.others && !self.hidden
    }
}

/// Finds what a whole text sets. Not for the path of ordinary queries: it looks at every token.
#[must_use]
pub fn assignments(sql: &[u8]) -> Assignments {
    let mut found = Assignments::default();
    let mut lexer = Lexer::new(sql);
    let mut first = true;
    while let Some((token, text)) = lexer.next_with_text() {
        if token == Token::Semicolon {
            first = true;
            continue;
        }
        if first && matches!(token, Token::Word(word) if is(word, b"DO")) {
            block::of_do(&lexer, &mut |piece| found.piece(piece));
        }
        found.piece(&Piece { behind: &lexer, token, text, begins: first });
        first = false;
    }
    if lexer.doubtful() {
        found.others = true;
    }
    found
}

impl Assignments {
    fn piece(&mut self, piece: &Piece<'_, '_>) {
        let begins = |word| piece.begins && matches!(piece.token, Token::Word(text) if is(text, word));
        if begins(b"SET") {
            self.set(piece.behind);
        } else if begins(b"RESET") || begins(b"DISCARD") {
            self.others = true;
        } else if is(piece.text, b"set_config") || is(piece.text, b"\"set_config\"") {
            self.call(piece.behind);
        }
    }

    /// Behind SET.
    fn set(&mut self, lexer: &Lexer<'_>) {
        let mut ahead = lexer.clone();
        let Some((mut token, mut text)) = ahead.next_with_text() else { return };
        if matches!(token, Token::Word(word) if is(word, b"SESSION")) {
            let Some(next) = ahead.next_with_text() else { return };
            (token, text) = next;
        }
        let Token::Word(word) = token else {
            return self.named(token, text, ahead);
        };
        let skipped: [&[u8]; 6] =
            [b"LOCAL", b"TRANSACTION", b"CONSTRAINTS", b"ROLE", b"AUTHORIZATION", b"SEED"];
        if skipped.iter().any(|other| is(word, other)) {
            return;
        }
        let special: [(&[u8], &str); 3] =
            [(b"TIME", "timezone"), (b"NAMES", "client_encoding"), (b"SCHEMA", "search_path")];
        if let Some((_, name)) = special.iter().find(|(other, _)| is(word, other)) {
            // `SET time = 1` would be a parameter of that name, which does not exist.
            return self.names.push((*name).to_owned());
        }
        if is(word, b"CHARACTERISTICS") || is(word, b"XML") {
            self.others = true;
            return;
        }
        self.named(token, text, ahead);
    }

    /// A name, perhaps of several parts, then TO or `=`.
    fn named(&mut self, token: Token<'_>, text: &[u8], mut ahead: Lexer<'_>) {
        let mut name = String::new();
        let mut part = (token, text);
        loop {
            match part {
                (Token::Word(word), _) => name.push_str(&String::from_utf8_lossy(word).to_ascii_lowercase()),
                (Token::Quoted, quoted) => name.push_str(&unquoted(quoted)),
                _ => {
                    self.others = true;
                    return;
                }
            }
            match ahead.next_with_text() {
                Some((Token::Other, b".")) => name.push('.'),
                Some(_) => break,
                None => return,
            }
            let Some(next) = ahead.next_with_text() else { return };
            part = next;
        }
        match ahead.next() {
            Some(Token::Word(word)) if is(word, b"DEFAULT") => self.others = true,
            _ => self.keep(name.to_ascii_lowercase()),
        }
    }

    fn keep(&mut self, name: String) {
        if !OF_TRANSACTIONS.contains(&name.as_str()) {
            self.names.push(name);
        }
    }

    /// Behind the word `set_config`.
    fn call(&mut self, lexer: &Lexer<'_>) {
        let mut ahead = lexer.clone();
        if ahead.next() != Some(Token::Open) {
            return;
        }
        let local = third_is_true(ahead.clone());
        let name = ahead.next_with_text();
        let plain = ahead.next() == Some(Token::Comma);
        match name {
            _ if local => {}
            Some((Token::Text, text)) if plain && text.first() == Some(&b'\'') => {
                let name = text.get(1..text.len() - 1).unwrap_or_default();
                self.keep(String::from_utf8_lossy(name).to_ascii_lowercase());
            }
            _ => {
                self.others = true;
                self.hidden = true;
            }
        }
    }
}

/// These end with their transaction, however they are set.
const OF_TRANSACTIONS: [&str; 3] =
    ["transaction_isolation", "transaction_read_only", "transaction_deferrable"];

/// The call's last argument is the constant TRUE; `lexer` stands at its first one.
fn third_is_true(mut lexer: Lexer<'_>) -> bool {
    let mut depth = 0u32;
    let mut commas = 0;
    let mut last: Option<(Token<'_>, &[u8])> = None;
    while let Some((token, text)) = lexer.next_with_text() {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth == 0 => {
                return commas == 2
                    && last
                        .is_some_and(|(_, text)| is(text, b"TRUE") || text == b"'t'" || is(text, b"'true'"));
            }
            Token::Close => depth -= 1,
            Token::Comma if depth == 0 => {
                commas += 1;
                last = None;
                continue;
            }
            Token::Semicolon => return false,
            Token::Word(_) | Token::Quoted | Token::Text | Token::Comma | Token::Other => {}
        }
        // More than one token is an expression.
        last = if commas == 2 && last.is_none() { Some((token, text)) } else { Some((Token::Other, b"")) };
    }
    false
}

fn is(word: &[u8], wanted: &[u8]) -> bool {
    word.eq_ignore_ascii_case(wanted)
}

fn unquoted(text: &[u8]) -> String {
    let inner = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    String::from_utf8_lossy(inner).replace("\"\"", "\"")
}

#[cfg(test)]
#[path = "assignments/tests.rs"]
mod tests;
