//! Connection strings of `[databases]`, `[users]` and `[peers]`: `key=value key='a value'`. Knows no key.

use crate::problem::Wrong;

/// The pairs of a connection string in their order. In single quotes `''` stands for one quote; a backslash is itself.
/// The complaint quotes no value: it may be a password.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let Some(behind) = behind.trim_start().strip_prefix('=').filter(|_| !key.is_empty()) else {
            return Err(syntax("there is something else than key=value"));
        };
        let (value, behind) = match behind.trim_start().strip_prefix('\'') {
            Some(quoted) => {
                unquoted(quoted).ok_or_else(|| syntax(&format!("{key} has a quote without an end")))?
            }
            None => {
                let behind = behind.trim_start();
                let end = behind.find(char::is_whitespace).unwrap_or(behind.len());
                let (value, behind) = behind.split_at(end);
                (value.to_owned(), behind)
            }
        };
        if value.is_empty() {
            return Err(Wrong::new(format!("{key} is empty"), "write a value, or leave it out"));
        }
        if !behind.is_empty() && !behind.starts_with(char::is_whitespace) {
            return Err(syntax(&format!("no blank follows the value of {key}")));
        }
        pairs.push((key.to_owned(), value));
        rest = behind.trim_start();
    }
    Ok(pairs)
}

/// What stands before the closing quote, and what behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (piece, behind) = rest.split_once('\'')?;
        value.push_str(piece);
        match behind.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, behind)),
        }
    }
}

fn syntax(what: &str) -> Wrong {
    Wrong::new(
        format!("{what} in the connection string"),
        "write key=value with blanks between, and 'a value' with blanks in quotes",
    )
}
