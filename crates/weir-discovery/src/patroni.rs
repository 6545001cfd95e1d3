//! What Patroni's REST API says, read tolerantly: versions 3 and 4 differ in roles and fields, later ones may add
//! more. A field of an unexpected shape counts as missing; only an answer that is no JSON object at all is refused.
//! Judges nothing.

use serde_json::{Map, Value};

use crate::restart::ScheduledRestart;
use crate::schedule::{Moment, Scheduled};
use crate::topology::Address;
use crate::url::ApiUrl;

/// An HTTP answer of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Body, at most [`ANSWER_BYTES_MAX`] bytes; the reader stops there.
    pub body: Vec<u8>,
}

/// Longest answer that is looked at.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Members taken from one `/cluster` answer; the rest is ignored.
pub const MEMBERS_MAX: usize = 64;

/// Why an answer says nothing about a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    /// Neither yes nor no: a proxy in between, or a missing client certificate (403).
    #[error("answered with HTTP status {0}")]
    Status(u16),
    #[error("answered more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("did not answer with a JSON object")]
    NotAnObject,
    #[error("named no members")]
    NoMembers,
}

/// Body of `GET /primary`, which is the same with 200 and 503.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Status {
    /// 200: holds a leader key that has not run out yet. Says nothing about PostgreSQL.
    pub leads: bool,
    pub role: String,
    pub state: String,
    /// When PostgreSQL was started, in Patroni's words.
    pub started: Option<String>,
    pub timeline: Option<u32>,
    pub system_identifier: Option<u64>,
    pub scope: Option<String>,
    /// Patroni 3.2 and later.
    pub name: Option<String>,
    /// Log position of a primary.
    pub location: Option<u64>,
    /// Log position that a replica has replayed.
    pub replayed: Option<u64>,
    pub tags: Vec<(String, String)>,
    /// Maintenance pause: Patroni promotes and restarts nobody.
    pub paused: bool,
    /// The DCS is away and the leader goes on because all members answer it.
    pub failsafe: bool,
}

impl Status {
    pub(crate) fn parse(answer: &Answer) -> Result<Self, BadAnswer> {
        let leads = match answer.status {
            200 => true,
            503 => false,
            other => return Err(BadAnswer::Status(other)),
        };
        let body = object(&answer.body)?;
        let patroni = body.get("patroni");
        let xlog = body.get("xlog");
        Ok(Self {
            leads,
            role: text(body.get("role")).unwrap_or_default(),
            state: text(body.get("state")).unwrap_or_default(),
            started: text(body.get("postmaster_start_time")),
            timeline: timeline(body.get("timeline")),
            system_identifier: number(body.get("database_system_identifier")),
            scope: text(patroni.and_then(|patroni| patroni.get("scope"))),
            name: text(patroni.and_then(|patroni| patroni.get("name"))),
            location: number(xlog.and_then(|xlog| xlog.get("location"))),
            replayed: number(xlog.and_then(|xlog| xlog.get("replayed_location"))),
            tags: tags(body.get("tags")),
            paused: flag(body.get("pause")),
            failsafe: flag(body.get("failsafe_mode_is_active")),
        })
    }

    /// What a primary has written, or a replica replayed.
    pub(crate) fn position(&self) -> Option<u64> {
        self.location.or(self.replayed)
    }

    /// `master` until Patroni 3, `primary` since 4.
    pub(crate) fn is_primary(&self) -> bool {
        matches!(self.role.as_str(), "primary" | "master")
    }
}

/// Answer to `GET /cluster`: the members as the DCS knows them, which is up to a ttl late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub scope: Option<String>,
    /// Maintenance mode.
    pub is_paused: bool,
    pub scheduled: Option<Scheduled>,
    pub members: Vec<Listed>,
}

/// One member in `/cluster`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: String,
    /// Missing while a member boots.
    pub url: Option<ApiUrl>,
    /// Missing while a member boots.
    pub address: Option<Address>,
    pub role: String,
    pub state: String,
    pub timeline: Option<u32>,
    /// Bytes; `None` for the leader, for "unknown" and where missing.
    pub lag: Option<u64>,
    pub tags: Vec<(String, String)>,
    /// Settings wait for a restart, whenever that may be.
    pub pending_restart: bool,
    pub restart: Option<ScheduledRestart>,
}

impl Listing {
    pub(crate) fn parse(answer: &Answer) -> Result<Self, BadAnswer> {
        if answer.status != 200 {
            return Err(BadAnswer::Status(answer.status));
        }
        let body = object(&answer.body)?;
        let members: Vec<Listed> = body
            .get("members")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Listed::parse)
            .take(MEMBERS_MAX)
            .collect();
        // An empty list is what a wiped or unreadable DCS looks like, never a cluster.
        if members.is_empty() {
            return Err(BadAnswer::NoMembers);
        }
        let is_paused = body.get("pause").and_then(Value::as_bool) == Some(true);
        let scheduled = body.get("scheduled_switchover").and_then(scheduled);
        Ok(Self { scope: text(body.get("scope")), is_paused, scheduled, members })
    }
}

impl Listed {
    fn parse(value: &Value) -> Option<Self> {
        let address = text(value.get("host"))
            .zip(number(value.get("port")).and_then(|port| u16::try_from(port).ok()))
            .filter(|(host, port)| !host.is_empty() && *port != 0)
            .map(|(host, port)| Address { host: unbracketed(host), port });
        Some(Self {
            name: text(value.get("name")).filter(|name| !name.is_empty())?,
            url: text(value.get("api_url")).and_then(|url| url.parse().ok()),
            address,
            role: text(value.get("role")).unwrap_or_default(),
            state: text(value.get("state")).unwrap_or_default(),
            timeline: timeline(value.get("timeline")),
            lag: number(value.get("lag")),
            tags: tags(value.get("tags")),
            pending_restart: flag(value.get("pending_restart")),
            restart: value.get("scheduled_restart").and_then(restart),
        })
    }
}

fn restart(value: &Value) -> Option<ScheduledRestart> {
    Some(ScheduledRestart {
        moment: Moment::parse(text(value.get("schedule"))?)?,
        role: text(value.get("role")),
        only_if_pending: flag(value.get("restart_pending")),
    })
}

fn scheduled(value: &Value) -> Option<Scheduled> {
    let moment = Moment::parse(text(value.get("at"))?)?;
    Some(Scheduled { moment, from: text(value.get("from")), to: text(value.get("to")) })
}

/// True for a tag that is there and not some spelling of "no".
pub(crate) fn is_set(tags: &[(String, String)], name: &str) -> bool {
    tags.iter().any(|(key, value)| key == name && !matches!(value.as_str(), "false" | "no" | "off" | "0"))
}

fn object(body: &[u8]) -> Result<Map<String, Value>, BadAnswer> {
    if body.len() > ANSWER_BYTES_MAX {
        return Err(BadAnswer::TooLong);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) | Err(_) => Err(BadAnswer::NotAnObject),
    }
}

/// A short text that is safe to print in a log line or a table.
fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    let fits = text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// A whole number, also when it is written as text: Patroni does that with the system identifier.
fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) => digits.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn flag(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool).unwrap_or_default()
}

fn timeline(value: Option<&Value>) -> Option<u32> {
    number(value).and_then(|number| u32::try_from(number).ok()).filter(|timeline| *timeline != 0)
}

fn tags(value: Option<&Value>) -> Vec<(String, String)> {
    let Some(Value::Object(map)) = value else {
        return Vec::new();
    };
    map.iter()
        .filter_map(|(key, value)| {
            let value = match value {
                Value::Bool(flag) => flag.to_string(),
                Value::Number(number) => number.to_string(),
                Value::String(_) => text(Some(value))?.to_ascii_lowercase(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((text(Some(&Value::from(key.as_str())))?, value))
        })
        .take(TAGS_MAX)
        .collect()
}

fn unbracketed(host: String) -> String {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.to_owned(),
        None => host,
    }
}

/// Longest name, role, state or host that is kept.
const TEXT_BYTES_MAX: usize = 255;

/// Tags kept per member.
const TAGS_MAX: usize = 32;

#[cfg(test)]
mod tests;
