//! The untagged packets that open a connection: StartupMessage, SSLRequest, GSSENCRequest and CancelRequest ("Start-up").
//! Owns their formats and limits; refuses to know what to answer.

mod options;

use std::fmt;
use std::ops::RangeInclusive;

use subtle::ConstantTimeEq;
use thiserror::Error;

pub use options::{BadOptions, parse_options};

use crate::message::Report;
use crate::sqlstate::SqlState;
use crate::wire::{Body, Malformed};

/// Most bytes of a first packet, its length word included.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// Lengths a cancel secret may have: 4 bytes in protocol 3.0, up to 256 in 3.2.
pub const SECRET_KEY_BYTES: RangeInclusive<usize> = 4..=256;

pub(crate) const CANCEL_CODE: u32 = 1234 << 16 | 5678;
pub(crate) const SSL_CODE: u32 = 1234 << 16 | 5679;
pub(crate) const GSSENC_CODE: u32 = 1234 << 16 | 5680;

/// A protocol version as a StartupMessage carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// Major version; 3 is the only one alive.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The version everybody speaks.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// The version with long cancel keys (PostgreSQL 18). There never was a 3.1.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version as one word on the wire.
    pub const fn word(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    const fn of_word(word: u32) -> Self {
        Self { major: (word >> 16) as u16, minor: (word & 0xffff) as u16 }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The secret half of a cancel key. Comparing takes the same time wherever two keys of one length differ, and printing
/// shows nothing.
#[derive(Clone)]
pub struct SecretKey(Box<[u8]>);

impl SecretKey {
    /// A key of 4 to 256 bytes; `None` for another length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        SECRET_KEY_BYTES.contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes, for the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// What a client shows to cancel a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendKey {
    /// The process id that BackendKeyData gave.
    pub pid: u32,
    /// The secret that BackendKeyData gave.
    pub secret: SecretKey,
}

/// A StartupMessage of major version 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The version asked for; the minor may be one that nobody speaks yet.
    pub version: ProtocolVersion,
    /// Names and values in the order they came, without protocol options. `user` is among them and not empty.
    pub parameters: Vec<(String, String)>,
    /// Names of the protocol options (`_pq_.` something), whatever their values.
    pub protocol_options: Vec<String>,
}

impl Startup {
    /// The value of a parameter. When a client sends one twice the last wins, as in PostgreSQL.
    pub fn parameter(&self, wanted: &str) -> Option<&str> {
        self.parameters.iter().rev().find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
    }

    /// The user; never empty.
    pub fn user(&self) -> &str {
        self.parameter("user").unwrap_or_default()
    }

    /// The database, which defaults to the user's name.
    pub fn database(&self) -> &str {
        self.parameter("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.user())
    }
}

/// What a client may say first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// It wants to log in.
    Startup(Startup),
    /// It wants TLS first.
    Ssl,
    /// It wants GSSAPI encryption first.
    GssEnc,
    /// It wants to cancel somebody's request and expects no answer.
    Cancel(BackendKey),
}

/// A first packet that cannot be accepted. Its text may go to the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadStartup {
    /// The length word covers less than the packet needs, or more than a request has.
    #[error("invalid length of startup packet")]
    BadLength,
    /// The length word is above [`STARTUP_BYTES_MAX`]; also what HTTP and other strangers look like.
    #[error("startup packet is longer than {STARTUP_BYTES_MAX} bytes")]
    TooLong,
    /// A major version other than 3.
    #[error("unsupported frontend protocol {0}: weir supports 3.0 to 3.2")]
    UnsupportedVersion(ProtocolVersion),
    /// A special request code that does not exist.
    #[error("unknown request code in startup packet")]
    UnknownRequest,
    /// The list of parameters is cut short or goes on behind its end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    BadLayout,
    /// A name or value is not UTF-8.
    #[error("startup packet contains text that is not valid UTF-8")]
    NotUtf8,
    /// No user, or an empty one.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A cancel request whose secret is not of 4 to 256 bytes.
    #[error("invalid length of cancel key in cancel request")]
    BadCancelKey,
}

impl BadStartup {
    /// The code to answer with.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::BadLength | Self::TooLong | Self::UnknownRequest | Self::BadLayout | Self::BadCancelKey => {
                SqlState::PROTOCOL_VIOLATION
            }
            Self::UnsupportedVersion(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::NotUtf8 => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION,
        }
    }

    /// The refusal as the client may read it.
    pub fn report(&self) -> Report {
        Report::fatal(self.sqlstate(), self.to_string())
    }
}

/// Reads the first packet; `None` while bytes are missing, else also how many bytes it took.
///
/// Bad lengths, versions and codes are refused as soon as they can be seen, before the rest has arrived.
pub fn first_packet(buffer: &[u8]) -> Result<Option<(FirstPacket, usize)>, BadStartup> {
    let Some((&length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let total = u32::from_be_bytes(length) as usize;
    match total {
        0..8 => return Err(BadStartup::BadLength),
        8..=STARTUP_BYTES_MAX => {}
        _ => return Err(BadStartup::TooLong),
    }
    let Some((&code, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let request = Request::of(u32::from_be_bytes(code), total)?;
    let Some(body) = buffer.get(8..total) else { return Ok(None) };
    let packet = match request {
        Request::Ssl => FirstPacket::Ssl,
        Request::GssEnc => FirstPacket::GssEnc,
        Request::Cancel => FirstPacket::Cancel(cancel(body)?),
        Request::Startup(version) => FirstPacket::Startup(startup(version, body)?),
    };
    Ok(Some((packet, total)))
}

/// True when a connection opens with a TLS handshake record instead of an SSLRequest (libpq's
/// `sslnegotiation=direct`). No valid first packet begins with that byte.
pub fn opens_with_tls(buffer: &[u8]) -> bool {
    buffer.first() == Some(&0x16)
}

enum Request {
    Startup(ProtocolVersion),
    Ssl,
    GssEnc,
    Cancel,
}

impl Request {
    fn of(code: u32, total: usize) -> Result<Self, BadStartup> {
        match code {
            SSL_CODE | GSSENC_CODE if total != 8 => Err(BadStartup::BadLength),
            SSL_CODE => Ok(Self::Ssl),
            GSSENC_CODE => Ok(Self::GssEnc),
            CANCEL_CODE => match total.checked_sub(12) {
                Some(secret) if SECRET_KEY_BYTES.contains(&secret) => Ok(Self::Cancel),
                Some(_) | None => Err(BadStartup::BadCancelKey),
            },
            code => match ProtocolVersion::of_word(code) {
                version @ ProtocolVersion { major: 3, .. } => Ok(Self::Startup(version)),
                ProtocolVersion { major: 1234, .. } => Err(BadStartup::UnknownRequest),
                version => Err(BadStartup::UnsupportedVersion(version)),
            },
        }
    }
}

fn cancel(body: &[u8]) -> Result<BackendKey, BadStartup> {
    let (pid, secret) = body.split_first_chunk::<4>().ok_or(BadStartup::BadCancelKey)?;
    let secret = SecretKey::new(secret).ok_or(BadStartup::BadCancelKey)?;
    Ok(BackendKey { pid: u32::from_be_bytes(*pid), secret })
}

fn startup(version: ProtocolVersion, body: &[u8]) -> Result<Startup, BadStartup> {
    let mut startup = Startup { version, parameters: Vec::new(), protocol_options: Vec::new() };
    let layout = |_: Malformed| BadStartup::BadLayout;
    let mut body = Body::of("StartupMessage", body);
    loop {
        let name = body.text().map_err(layout)?;
        if name.is_empty() {
            break;
        }
        let value = utf8(body.text().map_err(layout)?)?;
        let name = utf8(name)?;
        if name.starts_with(PROTOCOL_OPTION_PREFIX) {
            startup.protocol_options.push(name);
        } else {
            startup.parameters.push((name, value));
        }
    }
    body.finish().map_err(layout)?;
    if startup.user().is_empty() { Err(BadStartup::NoUser) } else { Ok(startup) }
}

fn utf8(text: &[u8]) -> Result<String, BadStartup> {
    str::from_utf8(text).map(str::to_owned).map_err(|_| BadStartup::NotUtf8)
}

const PROTOCOL_OPTION_PREFIX: &str = "_pq_.";

#[cfg(test)]
mod tests;
