//! What is known of one setting: name, default, whether a reload can change it, and how the value in force is shown.
//! Knows no setting by name; the table of them all is in `keys.rs`.

use crate::keys::{CERTIFICATE_KEYS, DATABASE_KEYS, KEYS, PEER_KEYS, USER_KEYS};
use crate::model::Config;
use crate::value::Value;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Section and name, such as `pool.size`.
    pub path: &'static str,
    /// What holds when it is not given.
    pub default: Fallback,
    /// When a changed value takes effect.
    pub takes_effect: TakesEffect,
    /// The value in force, without secrets; empty if there is none.
    pub show: fn(&Config) -> String,
}

/// The value of a setting that was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// No value.
    Absent,
    /// This string.
    Text(&'static str),
    /// This number.
    Number(u32),
    /// Yes or no.
    Truth(bool),
    /// This list.
    Words(&'static [&'static str]),
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakesEffect {
    /// At a reload.
    AtReload,
    /// When weir is started again.
    AtRestart,
}

impl Fallback {
    /// The default as a value, to be read as if it had been written.
    pub(crate) fn value(self) -> Option<Value> {
        match self {
            Self::Absent => None,
            Self::Text(text) => Some(Value::Text(text.to_owned())),
            Self::Number(number) => Some(Value::Number(number.into())),
            Self::Truth(truth) => Some(Value::Truth(truth)),
            Self::Words(words) => Some(Value::Words(words.iter().map(|word| (*word).to_owned()).collect())),
        }
    }

    /// The default as weir.toml would spell it; `None` if there is none.
    #[must_use]
    pub fn as_toml(self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Text(text) => Some(format!("\"{text}\"")),
            Self::Number(number) => Some(number.to_string()),
            Self::Truth(truth) => Some(truth.to_string()),
            Self::Words(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                Some(format!("[{}]", quoted.join(", ")))
            }
        }
    }

    /// The default as [`Key::show`] would show it.
    #[must_use]
    pub fn shown(self) -> String {
        match self {
            Self::Absent => String::new(),
            Self::Truth(truth) => truth.to_string(),
            Self::Words(words) => words.join(", "),
            Self::Text(text) => text.to_owned(),
            Self::Number(number) => number.to_string(),
        }
    }
}

impl Key {
    /// The setting of that name.
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// Whether its value is nobody's business.
    pub(crate) fn is_secret(&self) -> bool {
        self.path.ends_with("password") || self.path == "auth.ldap_options"
    }

    /// Section and name within it; the section is empty for a setting that belongs to none.
    #[must_use]
    pub fn section_and_name(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// Sections of which there may be several, each with a name of its own: `[databases.NAME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Databases,
    Users,
    Peers,
    Certificates,
}

impl Family {
    pub(crate) const ALL: [Self; 4] = [Self::Databases, Self::Users, Self::Peers, Self::Certificates];

    /// As it is written in front of the name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Databases => "databases",
            Self::Users => "users",
            Self::Peers => "peers",
            Self::Certificates => "certificates",
        }
    }

    /// What each of the sections may hold.
    pub(crate) fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Databases => DATABASE_KEYS,
            Self::Users => USER_KEYS,
            Self::Peers => PEER_KEYS,
            Self::Certificates => CERTIFICATE_KEYS,
        }
    }
}

pub(crate) const fn live(path: &'static str, default: Fallback, show: fn(&Config) -> String) -> Key {
    Key { path, default, takes_effect: TakesEffect::AtReload, show }
}

pub(crate) const fn fixed(path: &'static str, default: Fallback, show: fn(&Config) -> String) -> Key {
    Key { path, default, takes_effect: TakesEffect::AtRestart, show }
}
