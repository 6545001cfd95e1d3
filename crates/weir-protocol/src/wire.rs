//! Reading and writing the protocol's primitive types ("Message Data Types"). Owns integers, strings and length words;
//! refuses to know any message.

use thiserror::Error;

use crate::sqlstate::SqlState;

/// A message whose body does not follow the protocol. Says where, never what was inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("invalid {message} message: {why}")]
pub struct Malformed {
    /// Name of the message, as in the manual.
    pub message: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Malformed {
    /// The code to answer with: a protocol violation.
    pub const fn sqlstate(&self) -> SqlState {
        SqlState::PROTOCOL_VIOLATION
    }
}

/// The unread part of one message body.
#[derive(Clone, Copy)]
pub(crate) struct Body<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    pub(crate) fn of(message: &'static str, body: &'a [u8]) -> Self {
        Self { message, rest: body }
    }

    pub(crate) fn malformed(&self, why: &'static str) -> Malformed {
        Malformed { message: self.message, why }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed(TOO_SHORT))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Bytes up to the next NUL, which is consumed and not returned.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.malformed("a string has no end"))?;
        let (text, rest) = self.rest.split_at_checked(end).ok_or_else(|| self.malformed(TOO_SHORT))?;
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// A value with its length in front; a length of -1 is NULL.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        let declared = self.u32()?;
        if declared == NULL_LENGTH {
            return Ok(None);
        }
        let split = usize::try_from(declared).ok().and_then(|length| self.rest.split_at_checked(length));
        let (value, rest) = split.ok_or_else(|| self.malformed("a value is longer than its message"))?;
        self.rest = rest;
        Ok(Some(value))
    }

    /// Everything that is left.
    pub(crate) fn remainder(self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("bytes behind the last field")) }
    }
}

/// Appends a whole tagged message; `write` appends its body.
pub(crate) fn message(tag: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, write);
}

/// Appends a message without a tag, as the packets before login are.
pub(crate) fn untagged(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = length_word(out.len().saturating_sub(start));
    if let Some(word) = out.get_mut(start..start.saturating_add(4)) {
        word.copy_from_slice(&length);
    }
}

/// A length as the protocol writes it. Nothing near 4 GB is ever built, so saturation only keeps this total.
pub(crate) fn length_word(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Appends a string and its NUL. The format cannot carry a NUL inside, so the text is cut there: what follows could
/// otherwise be read as the next field.
pub(crate) fn put_text(text: &[u8], out: &mut Vec<u8>) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(text.get(..end).unwrap_or(text));
    out.push(0);
}

/// Appends a value with its length in front, or NULL.
pub(crate) fn put_value(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => out.extend_from_slice(&NULL_LENGTH.to_be_bytes()),
        Some(value) => {
            out.extend_from_slice(&length_word(value.len()));
            out.extend_from_slice(value);
        }
    }
}

/// Appends a count of at most 65,535 and that many items. The format has no room for more, so the rest is left out.
pub(crate) fn put_list<T>(items: &[T], out: &mut Vec<u8>, mut put: impl FnMut(&T, &mut Vec<u8>)) {
    let count = u16::try_from(items.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for item in items.iter().take(usize::from(count)) {
        put(item, out);
    }
}

const NULL_LENGTH: u32 = u32::MAX;
const TOO_SHORT: &str = "too short";
