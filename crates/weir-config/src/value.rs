//! Values as they stand in a file or on the command line, and the readers that turn one value into a type.
//! Knows where no value stands and which setting it belongs to.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use zeroize::Zeroize;

use crate::model::{
    AuthMethod, ChannelBinding, LoadBalance, LogFormat, PoolMode, ReadFallback, ReadPolicy, StatePolicy,
    TlsMode,
};
use crate::problem::Wrong;
use crate::quantity::{parse_bytes, parse_duration, show_bytes, show_duration};

/// One value, not yet understood.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Truth(bool),
    /// A list of strings.
    Words(Vec<String>),
    /// Anything else, by the name of its type: no setting takes it.
    Other(&'static str),
}

/// Only the type: a value may be a URL with a password.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Value({})", self.kind())
    }
}

impl Value {
    /// Overwrites what it says.
    pub(crate) fn wipe(&mut self) {
        match self {
            Self::Text(text) => text.zeroize(),
            Self::Words(words) => words.iter_mut().for_each(Zeroize::zeroize),
            Self::Number(_) | Self::Truth(_) | Self::Other(_) => {}
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Truth(_) => "a truth value",
            Self::Words(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

/// Any string that is not empty.
pub(crate) fn text(value: &Value) -> Result<String, Wrong> {
    match value {
        Value::Text(text) if text.is_empty() => {
            Err(Wrong::new("is empty", "write a value, or leave the key out"))
        }
        Value::Text(text) => Ok(text.clone()),
        Value::Number(_) | Value::Truth(_) | Value::Words(_) | Value::Other(_) => {
            Err(mistyped(value, "a string in quotes"))
        }
    }
}

/// Any string, the empty one included.
pub(crate) fn text_or_empty(value: &Value) -> Result<String, Wrong> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Number(_) | Value::Truth(_) | Value::Words(_) | Value::Other(_) => {
            Err(mistyped(value, "a string in quotes"))
        }
    }
}

/// A list of strings, none of them empty.
pub(crate) fn words(value: &Value) -> Result<Vec<String>, Wrong> {
    match value {
        Value::Words(words) if words.iter().any(String::is_empty) => {
            Err(Wrong::new("has an empty entry", "leave it out"))
        }
        Value::Words(words) => Ok(words.clone()),
        Value::Text(_) | Value::Number(_) | Value::Truth(_) | Value::Other(_) => {
            Err(mistyped(value, "a list of strings, such as [\"one\", \"two\"]"))
        }
    }
}

/// Yes or no.
pub(crate) fn truth(value: &Value) -> Result<bool, Wrong> {
    match value {
        Value::Truth(truth) => Ok(*truth),
        Value::Text(_) | Value::Number(_) | Value::Words(_) | Value::Other(_) => {
            Err(mistyped(value, "true or false, without quotes"))
        }
    }
}

/// A whole number within bounds.
pub(crate) fn count(bounds: RangeInclusive<u32>) -> impl Fn(&Value) -> Result<u32, Wrong> {
    move |value| {
        let remedy = format!("write a number from {} to {}", bounds.start(), bounds.end());
        match value {
            Value::Number(number) => match u32::try_from(*number) {
                Ok(count) if bounds.contains(&count) => Ok(count),
                Ok(_) | Err(_) => Err(Wrong::new(format!("{number} is out of range"), remedy)),
            },
            Value::Text(_) => Err(Wrong::new("is a string", format!("{remedy}, without quotes"))),
            Value::Truth(_) | Value::Words(_) | Value::Other(_) => {
                Err(Wrong::new(format!("is {}", value.kind()), remedy))
            }
        }
    }
}

/// A duration within bounds.
pub(crate) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, Wrong> {
    move |value| {
        let range = format!("{} to {}", show_duration(*bounds.start()), show_duration(*bounds.end()));
        let remedy = format!("write a duration from {range}, such as \"10s\", \"500ms\" or \"2min\"");
        let duration = as_duration(value).map_err(|what| Wrong::new(what, remedy.clone()))?;
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        Err(Wrong::new(format!("{} is out of range", show_duration(duration)), remedy))
    }
}

/// A duration within bounds, or 0 for "never" (`None`).
pub(crate) fn duration_or_never(
    bounds: RangeInclusive<Duration>,
) -> impl Fn(&Value) -> Result<Option<Duration>, Wrong> {
    let within = duration(bounds);
    move |value| match as_duration(value) {
        Ok(Duration::ZERO) => Ok(None),
        Ok(_) | Err(_) => match within(value) {
            Ok(duration) => Ok(Some(duration)),
            Err(Wrong { what, remedy }) => Err(Wrong::new(what, format!("{remedy}, or 0 for never"))),
        },
    }
}

fn as_duration(value: &Value) -> Result<Duration, String> {
    match value {
        Value::Text(text) if text == "0" => Ok(Duration::ZERO),
        Value::Text(text) => parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration")),
        Value::Number(0) => Ok(Duration::ZERO),
        Value::Number(number) => Err(format!("{number} has no unit")),
        Value::Truth(_) | Value::Words(_) | Value::Other(_) => Err(format!("is {}", value.kind())),
    }
}

/// A number of bytes up to a bound; a bare number is bytes.
pub(crate) fn bytes(max: u64) -> impl Fn(&Value) -> Result<u64, Wrong> {
    move |value| {
        let remedy = format!("write a size from 0 to {}, such as \"64kB\" or \"16MB\"", show_bytes(max));
        let size = match value {
            Value::Text(text) if text == "0" => Ok(0),
            Value::Text(text) => parse_bytes(text).ok_or_else(|| format!("{text:?} is not a size")),
            Value::Number(number) => u64::try_from(*number).map_err(|_| format!("{number} is out of range")),
            Value::Truth(_) | Value::Words(_) | Value::Other(_) => Err(format!("is {}", value.kind())),
        };
        match size {
            Ok(size) if size <= max => Ok(size),
            Ok(size) => Err(Wrong::new(format!("{} is out of range", show_bytes(size)), remedy)),
            Err(what) => Err(Wrong::new(what, remedy)),
        }
    }
}

/// One of a few words, each with its meaning.
pub(crate) fn word<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&Value) -> Result<T, Wrong> {
    move |value| {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let remedy = format!("write one of {}", names.join(", "));
        match value {
            Value::Text(text) => match choices.iter().find(|(name, _)| name == text) {
                Some((_, meaning)) => Ok(*meaning),
                None => Err(Wrong::new(format!("{text:?} is not known"), remedy)),
            },
            Value::Number(_) | Value::Truth(_) | Value::Words(_) | Value::Other(_) => {
                Err(Wrong::new(format!("is {}", value.kind()), remedy))
            }
        }
    }
}

/// An address to listen on: IP address and port. `localhost` stands for 127.0.0.1 and `*` for 0.0.0.0.
pub(crate) fn listen_address(value: &Value) -> Result<SocketAddr, Wrong> {
    let text = text(value)?;
    let address = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        Some(("*", port)) => format!("0.0.0.0:{port}"),
        Some(_) | None => text.clone(),
    };
    address.parse().map_err(|_| {
        Wrong::new(
            format!("{text:?} is not an IP address and a port"),
            "write for example \"127.0.0.1:6432\", \"[::1]:6432\", or \"0.0.0.0:6432\" for every IPv4 address",
        )
    })
}

/// Addresses to listen on, in a list or alone; an empty list is none.
pub(crate) fn listen_addresses(value: &Value) -> Result<Vec<SocketAddr>, Wrong> {
    match value {
        Value::Words(words) => words.iter().map(|word| listen_address(&Value::Text(word.clone()))).collect(),
        Value::Text(_) | Value::Number(_) | Value::Truth(_) | Value::Other(_) => {
            listen_address(value).map(|address| vec![address])
        }
    }
}

/// An address to listen on, or `""` for none.
pub(crate) fn listen_address_or_none(value: &Value) -> Result<Option<SocketAddr>, Wrong> {
    if matches!(value, Value::Text(text) if text.is_empty()) {
        return Ok(None);
    }
    listen_address(value).map(Some)
}

/// A log filter: a level, or `crate=level`, several with commas.
pub(crate) fn log_level(value: &Value) -> Result<String, Wrong> {
    let text = text(value)?;
    let good = text.split(',').all(|part| match part.split_once('=') {
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
        None => LEVELS.contains(&part),
    });
    if good {
        return Ok(text);
    }
    Err(Wrong::new(
        format!("{text:?} is not a log filter"),
        "write \"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\", \
         or levels by crate such as \"info,weir_discovery=debug\"",
    ))
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

fn mistyped(value: &Value, expected: &str) -> Wrong {
    Wrong::new(format!("is {}", value.kind()), format!("write {expected}"))
}

/// The name of a meaning in a table of words.
pub(crate) fn name_of<T: PartialEq>(choices: &[(&'static str, T)], meaning: &T) -> &'static str {
    // Each table lists every variant; a test walks all of them.
    choices.iter().find(|(_, known)| known == meaning).map_or("", |(name, _)| name)
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(crate) const POOL_MODES: &[(&str, PoolMode)] = &[
    ("session", PoolMode::Session),
    ("transaction", PoolMode::Transaction),
    ("statement", PoolMode::Statement),
];

pub(crate) const CHANNEL_BINDINGS: &[(&str, ChannelBinding)] = &[
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

pub(crate) const TLS_MODES: &[(&str, TlsMode)] = &[
    ("disable", TlsMode::Disable),
    ("allow", TlsMode::Allow),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

pub(crate) const AUTH_METHODS: &[(&str, AuthMethod)] = &[
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("md5", AuthMethod::Md5),
    ("plain", AuthMethod::Plain),
    ("trust", AuthMethod::Trust),
    ("any", AuthMethod::Any),
    ("cert", AuthMethod::Cert),
    ("peer", AuthMethod::Peer),
    ("ldap", AuthMethod::Ldap),
    ("pam", AuthMethod::Pam),
    ("hba", AuthMethod::Hba),
];

pub(crate) const READ_FALLBACKS: &[(&str, ReadFallback)] =
    &[("primary", ReadFallback::Primary), ("wait", ReadFallback::Wait), ("error", ReadFallback::Error)];

pub(crate) const READ_POLICIES: &[(&str, ReadPolicy)] = &[
    ("least-connections", ReadPolicy::LeastConnections),
    ("round-robin", ReadPolicy::RoundRobin),
    ("weighted", ReadPolicy::Weighted),
    ("nearest", ReadPolicy::Nearest),
];

pub(crate) const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Of what can be made anew on another server connection.
pub(crate) const STATE_POLICIES: &[(&str, StatePolicy)] = &[
    ("track", StatePolicy::Track),
    ("pin", StatePolicy::Pin),
    ("refuse", StatePolicy::Refuse),
    ("forget", StatePolicy::Forget),
];

/// Of what belongs to one server connection.
pub(crate) const BOUND_STATE_POLICIES: &[(&str, StatePolicy)] =
    &[("pin", StatePolicy::Pin), ("refuse", StatePolicy::Refuse), ("forget", StatePolicy::Forget)];

pub(crate) const LOAD_BALANCES: &[(&str, LoadBalance)] =
    &[("round-robin", LoadBalance::RoundRobin), ("disable", LoadBalance::Disable)];

/// The names of RFC 5424's facilities that programs may use.
pub(crate) const SYSLOG_FACILITIES: &[&str] = &[
    "auth", "authpriv", "daemon", "user", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
];
