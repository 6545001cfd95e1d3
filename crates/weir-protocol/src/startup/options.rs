//! The `options` parameter of a StartupMessage: command line switches in one string. Owns its splitting and the switches
//! that set a parameter; refuses to know which parameters exist.

use thiserror::Error;

use crate::sqlstate::SqlState;

/// An `options` string that weir cannot carry over to a server. Its text may go to the client; values are not shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadOptions {
    /// A switch that does not set a parameter by name (or no switch at all).
    #[error("unsupported command-line argument in options: only -c name=value and --name=value are")]
    UnsupportedSwitch,
    /// A name without `=value`.
    #[error("option \"{0}\" in options requires a value")]
    NoValue(String),
    /// `=value` without a name.
    #[error("an option in options has no name")]
    NoName,
}

impl BadOptions {
    /// The code to answer with, as PostgreSQL does.
    pub const fn sqlstate(&self) -> SqlState {
        SqlState::SYNTAX_ERROR
    }
}

/// Splits `-c name=value`, `-cname=value` and `--name=value` into names and values, in order.
///
/// Words end at white space; a backslash takes the next character as it is, so `\ ` is a space and `\\` a backslash.
/// In names `-` stands for `_`, as on the server's command line. Other switches are refused, because no SET stands for them.
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, BadOptions> {
    let mut settings = Vec::new();
    let mut words = words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next().ok_or_else(|| BadOptions::NoValue("-c".to_owned()))?
        } else if let Some(setting) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            setting.to_owned()
        } else {
            return Err(BadOptions::UnsupportedSwitch);
        };
        settings.push(assignment(&setting)?);
    }
    Ok(settings)
}

fn assignment(setting: &str) -> Result<(String, String), BadOptions> {
    let (name, value) = setting.split_once('=').ok_or_else(|| BadOptions::NoValue(setting.to_owned()))?;
    if name.is_empty() {
        return Err(BadOptions::NoName);
    }
    Ok((name.replace('-', "_"), value.to_owned()))
}

fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for character in options.chars() {
        let space = matches!(character, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
        if escaped {
            word.get_or_insert_default().push(character);
            escaped = false;
        } else if character == '\\' {
            // Even a backslash with nothing behind it begins a word, an empty one.
            word.get_or_insert_default();
            escaped = true;
        } else if space {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(character);
        }
    }
    words.extend(word);
    words
}
