//! Cuts a console command into words. Owns quoting; refuses to know what any word means.

/// One piece of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// As typed. Keywords are always bare; names may be.
    Bare(String),
    /// Was inside `"` or `'`; a doubled quote stands for one.
    Quoted(String),
}

/// Why a command cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadWord {
    /// A quote is never closed.
    Unterminated,
    /// Something follows the semicolon.
    SecondCommand,
}

impl Word {
    /// The text, for a place where a name is wanted.
    pub(super) fn into_name(self) -> String {
        match self {
            Self::Bare(text) | Self::Quoted(text) => text,
        }
    }
}

/// The words of one command. Semicolons may end it; white space and `=` separate.
pub(super) fn cut(text: &str) -> Result<Vec<Word>, BadWord> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            ';' if rest.trim_matches(|c| is_space(c) || c == ';').is_empty() => return Ok(words),
            ';' => return Err(BadWord::SecondCommand),
            '"' | '\'' => quoted(rest, first)?,
            '=' => (Word::Bare("=".to_owned()), rest.get(1..).unwrap_or_default()),
            _ => bare(rest),
        };
        words.push(word);
        rest = after.trim_start_matches(is_space);
    }
    Ok(words)
}

fn bare(text: &str) -> (Word, &str) {
    let ends = |c: char| is_space(c) || matches!(c, ';' | '"' | '\'' | '=');
    let (word, after) = text.split_at(text.find(ends).unwrap_or(text.len()));
    (Word::Bare(word.to_owned()), after)
}

fn quoted(text: &str, quote: char) -> Result<(Word, &str), BadWord> {
    let mut name = String::new();
    let mut rest = text.get(1..).unwrap_or_default();
    while let Some((part, after)) = rest.split_once(quote) {
        name.push_str(part);
        match after.strip_prefix(quote) {
            Some(after_double) => {
                name.push(quote);
                rest = after_double;
            }
            None => return Ok((Word::Quoted(name), after)),
        }
    }
    Err(BadWord::Unterminated)
}

/// What PostgreSQL's lexer takes for white space.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}
