//! Splits SQL text into the few kinds of tokens that matter here. Owns strings, comments and dollar quotes; refuses to
//! know grammar.

use super::marks::{self, Marks};

/// A token, with its text only where somebody looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an identifier without quotes.
    Word(&'a [u8]),
    /// An identifier in double quotes.
    Quoted,
    /// A string constant of any kind.
    Text,
    /// `;`
    Semicolon,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// Numbers, operators, everything else, byte by byte.
    Other,
}

/// An iterator over the tokens of a text.
#[derive(Clone)]
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    doubtful: bool,
    marks: Marks,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8]) -> Self {
        Self { rest: sql, doubtful: false, marks: Marks::NONE }
    }

    /// True when a string or comment had no end, or when a string would end elsewhere with
    /// `standard_conforming_strings` off.
    pub(super) fn doubtful(&self) -> bool {
        self.doubtful
    }

    /// What the functions may leave behind whose calls were skipped.
    pub(super) fn marks(&self) -> Marks {
        self.marks
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next token and its whole text, quotes included.
    pub(super) fn next_with_text(&mut self) -> Option<(Token<'a>, &'a [u8])> {
        loop {
            self.skip_blanks();
            match *self.rest {
                [] => return None,
                [b'/', b'*', ..] => self.block_comment(),
                [first, ..] => {
                    let start = self.rest;
                    let token = self.token(first);
                    return Some((token, start.get(..start.len() - self.rest.len()).unwrap_or_default()));
                }
            }
        }
    }

    /// The next tokens, without taking them; semicolons from the next semicolon or the end on.
    pub(super) fn ahead(&self) -> [Token<'a>; AHEAD_TOKENS] {
        let mut ahead = [Token::Semicolon; AHEAD_TOKENS];
        let tokens = self.clone().take_while(|token| *token != Token::Semicolon);
        ahead.iter_mut().zip(tokens).for_each(|(place, token)| *place = token);
        ahead
    }

    /// Moves behind the semicolon that ends this statement, of which `depth` parentheses are open; false when the text
    /// ends first. A semicolon inside parentheses (CREATE RULE) ends nothing.
    ///
    /// Equal to taking tokens, but goes from one mark to the next. What is between two marks is words, numbers and
    /// operators, of which only the last one can matter: it may go on behind the mark.
    pub(super) fn skip_statement(&mut self, mut depth: u32) -> bool {
        while let Some((between, rest)) = next_mark(self.rest).and_then(|at| self.rest.split_at_checked(at)) {
            self.rest = rest;
            match rest {
                [b';', ..] if depth == 0 => {
                    self.skip(1);
                    return true;
                }
                [b'(', ..] => {
                    self.marks.add(marks::of_call(between));
                    depth += 1;
                    self.skip(1);
                }
                [b')', ..] => {
                    depth = depth.saturating_sub(1);
                    self.skip(1);
                }
                [b'\'', ..] if ends_in_lone_e(between) => _ = self.escape_string(),
                [b'\'', ..] => _ = self.plain_string(),
                [b'"', quoted @ ..] => {
                    self.quoted_identifier();
                    self.marks.add(marks::of_quoted_call(quoted, self.rest));
                }
                [b'$', ..] if ends_in_word(between) => _ = self.word(),
                [b'$', ..] => _ = self.dollar(),
                [b'-', b'-', ..] => self.skip_blanks(),
                [b'/', b'*', ..] => self.block_comment(),
                _ => self.skip(1),
            }
        }
        self.rest = &[];
        false
    }

    fn token(&mut self, first: u8) -> Token<'a> {
        match first {
            b'\'' => self.plain_string(),
            b'"' => self.quoted_identifier(),
            b'$' => self.dollar(),
            b';' => self.single(Token::Semicolon),
            b'(' => self.single(Token::Open),
            b')' => self.single(Token::Close),
            b',' => self.single(Token::Comma),
            first if begins_word(first) => self.word(),
            _ => self.single(Token::Other),
        }
    }

    fn single(&mut self, token: Token<'a>) -> Token<'a> {
        self.skip(1);
        token
    }

    fn word(&mut self) -> Token<'a> {
        let length = self.rest.iter().position(|byte| !continues_word(*byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        if matches!(word, b"e" | b"E") && rest.first() == Some(&b'\'') {
            return self.escape_string();
        }
        Token::Word(word)
    }

    /// Also takes B'', X'', N'' and U&'' strings, whose prefix has been a word of its own.
    fn plain_string(&mut self) -> Token<'a> {
        self.skip(1);
        loop {
            let Some(quote) = memchr::memchr(b'\'', self.rest) else { return self.unterminated(Token::Text) };
            // With standard_conforming_strings off this quote would belong to the string.
            self.doubtful |= quote.checked_sub(1).and_then(|before| self.rest.get(before)) == Some(&b'\\');
            self.skip(quote + 1);
            if self.rest.first() != Some(&b'\'') {
                return Token::Text;
            }
            self.skip(1);
        }
    }

    fn escape_string(&mut self) -> Token<'a> {
        self.skip(1);
        loop {
            let Some(at) = memchr::memchr2(b'\'', b'\\', self.rest) else {
                return self.unterminated(Token::Text);
            };
            let escape = self.rest.get(at) == Some(&b'\\');
            self.skip(at + 1);
            if escape || self.rest.first() == Some(&b'\'') {
                self.skip(1);
            } else if !self.continues_string() {
                return Token::Text;
            }
        }
    }

    /// A string goes on in the next quotes when only white space with a line end is between them, and backslashes mean
    /// there what they meant before. Moves behind the opening quote then.
    fn continues_string(&mut self) -> bool {
        let end = self.rest;
        self.skip_blanks();
        let blanks = end.len() - self.rest.len();
        let line_ended =
            end.get(..blanks).is_some_and(|blanks| memchr::memchr2(b'\n', b'\r', blanks).is_some());
        if line_ended && self.rest.first() == Some(&b'\'') {
            self.skip(1);
            return true;
        }
        self.rest = end;
        false
    }

    fn quoted_identifier(&mut self) -> Token<'a> {
        self.skip(1);
        loop {
            let Some(quote) = memchr::memchr(b'"', self.rest) else {
                return self.unterminated(Token::Quoted);
            };
            self.skip(quote + 1);
            if self.rest.first() != Some(&b'"') {
                return Token::Quoted;
            }
            self.skip(1);
        }
    }

    fn dollar(&mut self) -> Token<'a> {
        let Some(delimiter) = dollar_delimiter(self.rest) else { return self.single(Token::Other) };
        self.skip(delimiter.len());
        match memchr::memmem::find(self.rest, delimiter) {
            Some(end) => {
                self.skip(end + delimiter.len());
                Token::Text
            }
            None => self.unterminated(Token::Text),
        }
    }

    /// White space and comments to the end of the line.
    fn skip_blanks(&mut self) {
        loop {
            match self.rest {
                [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, rest @ ..] => self.rest = rest,
                [b'-', b'-', ..] => {
                    let end = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
                    self.skip(end);
                }
                _ => return,
            }
        }
    }

    fn block_comment(&mut self) {
        self.skip(2);
        let mut depth = 1u32;
        while depth > 0 {
            let Some(at) = memchr::memchr2(b'*', b'/', self.rest) else {
                self.unterminated(Token::Other);
                return;
            };
            self.skip(at);
            match self.rest {
                [b'*', b'/', rest @ ..] => {
                    depth -= 1;
                    self.rest = rest;
                }
                [b'/', b'*', rest @ ..] => {
                    depth += 1;
                    self.rest = rest;
                }
                _ => self.skip(1),
            }
        }
    }

    fn unterminated(&mut self, token: Token<'a>) -> Token<'a> {
        self.doubtful = true;
        self.rest = &[];
        token
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.skip_blanks();
            match *self.rest {
                [] => return None,
                [b'/', b'*', ..] => self.block_comment(),
                [first, ..] => return Some(self.token(first)),
            }
        }
    }
}

/// The opening `$tag$` at the start of `text`, if there is one. `$1` is a parameter, `$` alone nothing.
fn dollar_delimiter(text: &[u8]) -> Option<&[u8]> {
    let tag = text.get(1..)?;
    let length = tag.iter().position(|byte| *byte == b'$' || !continues_word(*byte))?;
    let digit_first = tag.first().is_some_and(u8::is_ascii_digit);
    let delimited = tag.get(length) == Some(&b'$') && !digit_first;
    if delimited { text.get(..length + 2) } else { None }
}

/// Where the first byte is that may begin a string, quotes, a comment or a parameter, or is a semicolon or parenthesis.
pub(super) fn next_mark(text: &[u8]) -> Option<usize> {
    let (blocks, tail) = text.as_chunks();
    for (index, block) in blocks.iter().enumerate() {
        let marks = marks_in(u64::from_le_bytes(*block));
        if marks != 0 {
            return Some(index * BLOCK_BYTES + marks.trailing_zeros() as usize / 8);
        }
    }
    let behind = tail.iter().position(|byte| is_mark(*byte))?;
    Some(text.len() - tail.len() + behind)
}

/// Eight bytes at once: the top bit of each byte that is a mark, nothing else.
fn marks_in(block: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = ONES * 0x7f;
    let low = block & LOW;
    // Adding 0x7f carries into the top bit of a byte unless its seven low bits are zero, and never further.
    let differ = |bytes: u64, mark: u8| (bytes ^ (ONES * u64::from(mark))) + LOW;
    // Two marks that differ in one bit take one comparison, with that bit set.
    let quote = differ(low, b'\'') & differ(low, b'"') & differ(low, b'$');
    let comment = differ(low | (ONES * u64::from(b'-' ^ b'/')), b'/');
    let structure = differ(low, b';') & differ(low | (ONES * u64::from(b'(' ^ b')')), b')');
    !((quote & comment & structure) | block) & !LOW
}

/// True when a word reaches to the end of `text`, which starts outside of words and holds no marks. Digits in front of
/// a word are a number.
fn ends_in_word(text: &[u8]) -> bool {
    text.iter().rev().find(|byte| !byte.is_ascii_digit()).is_some_and(|byte| begins_word(*byte))
}

/// True when the last word of `text` is the E of an `E''` string.
fn ends_in_lone_e(text: &[u8]) -> bool {
    matches!(text, [before @ .., b'e' | b'E'] if !ends_in_word(before))
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'\'' | b'"' | b'$' | b'-' | b'/' | b';' | b'(' | b')')
}

const fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    WORD_BYTES[usize::from(byte)]
}

/// Which bytes continue a word; a look here is cheaper than a chain of comparisons.
static WORD_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        let known = byte as u8;
        table[byte] = begins_word(known) || known.is_ascii_digit() || known == b'$';
        byte += 1;
    }
    table
};

/// WORK AND CHAIN is the longest that matters behind a first word.
const AHEAD_TOKENS: usize = 5;
/// As many bytes as a `u64` has.
const BLOCK_BYTES: usize = 8;
