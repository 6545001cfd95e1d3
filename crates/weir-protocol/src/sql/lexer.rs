//! Splits SQL text into the few kinds of tokens that matter here. Owns strings, comments and dollar quotes; refuses to
//! know grammar.

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
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    doubtful: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a [u8]) -> Self {
        Self { rest: sql, doubtful: false }
    }

    /// True when a string or comment had no end, or when a string would end elsewhere with
    /// `standard_conforming_strings` off.
    pub(super) fn doubtful(&self) -> bool {
        self.doubtful
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

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}
