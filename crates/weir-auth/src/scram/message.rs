//! Cutting SCRAM messages into their attributes (RFC 5802 section 7). Every byte here is the peer's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{SCRAM_BYTES_MAX, ScramError};

/// A message that is cut from its front.
pub(super) struct Attributes<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Starts with a message that was checked by [`bounded`].
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: Some(message) }
    }

    /// Takes the next attribute, which must have this name.
    pub(super) fn take(&mut self, name: u8, missing: &'static str) -> Result<&'a [u8], ScramError> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            Some(_) | None => Err(ScramError::Malformed(missing)),
        }
    }

    /// Walks over the optional extensions at the end.
    pub(super) fn finish(mut self) -> Result<(), ScramError> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Refuses anything that is left.
    pub(super) fn nothing_more(self) -> Result<(), ScramError> {
        self.rest.map_or(Ok(()), |_| Err(ScramError::Malformed("there is more behind the last attribute")))
    }

    /// Whether the next attribute is `m`, an extension that must be understood or refused.
    pub(super) fn mandatory_extension(&self) -> bool {
        self.rest.is_some_and(|rest| rest.starts_with(b"m="))
    }

    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ScramError> {
        let Some(rest) = self.rest else { return Ok(None) };
        let (attribute, behind) = match rest.iter().position(|byte| *byte == b',') {
            Some(comma) => (&rest[..comma], Some(&rest[comma + 1..])),
            None => (rest, None),
        };
        self.rest = behind;
        match attribute {
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(ScramError::Malformed("an attribute has no name")),
        }
    }
}

/// Refuses messages that are too long or hold a NUL, before anything else looks at them.
pub(super) fn bounded(message: &[u8]) -> Result<&[u8], ScramError> {
    if message.len() > SCRAM_BYTES_MAX {
        return Err(ScramError::Malformed("the message is too long"));
    }
    if message.contains(&0) {
        return Err(ScramError::Malformed("the message contains a null byte"));
    }
    Ok(message)
}

/// RFC 5802's `printable`: ASCII from `!` to `~`, without the comma.
pub(super) fn is_printable(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b',')
}

pub(super) fn decode(text: &[u8], wrong: &'static str) -> Result<Vec<u8>, ScramError> {
    STANDARD.decode(text).map_err(|_| ScramError::Malformed(wrong))
}

pub(super) fn decode_key(text: &[u8], wrong: &'static str) -> Result<[u8; 32], ScramError> {
    decode(text, wrong)?.try_into().map_err(|_| ScramError::Malformed(wrong))
}

pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
