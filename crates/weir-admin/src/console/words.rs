//! Cuts a console command into words. Owns quoting and comments; refuses to know what any word means.

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
    /// A comment is never closed.
    EndlessComment,
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

/// The words of one command. Semicolons may end it; white space, comments and `=` separate.
pub(super) fn cut(text: &str) -> Result<Vec<Word>, BadWord> {
    let mut words = Vec::new();
    let mut ended = false;
    let mut rest = skip_blank(text)?;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(';') {
            ended = true;
            rest = skip_blank(after)?;
            continue;
        }
        if ended {
            return Err(BadWord::SecondCommand);
        }
        let (word, after) = match first {
            '"' | '\'' => quoted(rest, first)?,
            '=' => (Word::Bare("=".to_owned()), rest.get(1..).unwrap_or_default()),
            _ => bare(rest),
        };
        words.push(word);
        rest = skip_blank(after)?;
    }
    Ok(words)
}

fn bare(text: &str) -> (Word, &str) {
    let ends = |c: char| is_space(c) || matches!(c, ';' | '"' | '\'' | '=');
    let comment =
        |at: usize| text.get(at..).is_some_and(|rest| rest.starts_with("--") || rest.starts_with("/*"));
    let end = text.char_indices().find(|&(at, c)| ends(c) || comment(at)).map_or(text.len(), |(at, _)| at);
    let (word, after) = text.split_at(end);
    (Word::Bare(word.to_owned()), after)
}

/// What follows white space and comments, which programs put around commands to tell who sent them.
fn skip_blank(text: &str) -> Result<&str, BadWord> {
    let mut rest = text.trim_start_matches(is_space);
    loop {
        let after = if rest.starts_with("--") {
            rest.split_once(['\n', '\r']).map_or("", |(_, after)| after)
        } else if rest.starts_with("/*") {
            skip_comment(rest)?
        } else {
            return Ok(rest);
        };
        rest = after.trim_start_matches(is_space);
    }
}

/// What follows a `/* */` comment, which may hold others (PostgreSQL documentation, "Comments").
fn skip_comment(text: &str) -> Result<&str, BadWord> {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
            if depth == 0 {
                return Ok(rest);
            }
        } else {
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    Err(BadWord::EndlessComment)
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
