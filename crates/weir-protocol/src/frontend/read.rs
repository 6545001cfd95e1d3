//! Parsers of what applications say, on the body of exactly one message (behind its five byte header). Owns bounds and
//! formats; refuses to keep anything: results borrow from the body.

use super::TargetKind;
use crate::wire::{Body, Malformed};

/// Longest portal or statement name weir accepts in a Bind, so that its names fit a buffer while the rest streams.
pub const NAME_BYTES_MAX: usize = 8 * 1024;

/// Reads a Query: its text.
pub fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut body = Body::of("Query", body);
    let sql = body.text()?;
    body.finish().map(|()| sql)
}

/// A Parse message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Statement name, empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement's text.
    pub sql: &'a [u8],
    /// Parameter types as they stand on the wire: a two byte count and four bytes each.
    pub types_raw: &'a [u8],
}

/// Reads a Parse. The type list is checked for its length and left as it is.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut body = Body::of("Parse", body);
    let (name, sql) = (body.text()?, body.text()?);
    let types_raw = body.remainder();
    let count = body.u16()?;
    if body.remainder().len() != usize::from(count) * 4 {
        return Err(body.malformed("the list of types has another length than it says"));
    }
    Ok(Parse { name, sql, types_raw })
}

/// Reads a Describe: what kind of thing, and its name.
pub fn describe(body: &[u8]) -> Result<(TargetKind, &[u8]), Malformed> {
    target("Describe", body)
}

/// Reads a Close: what kind of thing, and its name.
pub fn close(body: &[u8]) -> Result<(TargetKind, &[u8]), Malformed> {
    target("Close", body)
}

/// An Execute message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Portal name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// Most rows to return; 0 means all.
    pub row_limit: u32,
}

/// Reads an Execute.
pub fn execute(body: &[u8]) -> Result<Execute<'_>, Malformed> {
    let mut body = Body::of("Execute", body);
    let execute = Execute { portal: body.text()?, row_limit: body.u32()? };
    body.finish().map(|()| execute)
}

/// The names at the start of a Bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindNames<'a> {
    /// Portal name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// Statement name, empty for the unnamed one.
    pub statement: &'a [u8],
    /// Where, in the body, formats and values begin.
    pub end: usize,
}

/// Reads the names of a Bind from as much of its body as has arrived; `None` asks for more bytes, and is a protocol
/// violation when there are no more. A name above [`NAME_BYTES_MAX`] is refused.
pub fn bind_names(prefix: &[u8]) -> Result<Option<BindNames<'_>>, Malformed> {
    let Some(portal) = bind_name(prefix)? else { return Ok(None) };
    let rest = prefix.get(portal.len() + 1..).unwrap_or_default();
    let Some(statement) = bind_name(rest)? else { return Ok(None) };
    let end = portal.len() + 1 + statement.len() + 1;
    Ok(Some(BindNames { portal, statement, end }))
}

/// Reads a SASLInitialResponse: mechanism, and the first message when there is one.
pub fn sasl_initial_response(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), Malformed> {
    let mut body = Body::of("SASLInitialResponse", body);
    let (mechanism, response) = (body.text()?, body.value()?);
    body.finish().map(|()| (mechanism, response))
}

/// Reads a PasswordMessage: the password without its NUL.
pub fn password(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut body = Body::of("PasswordMessage", body);
    let password = body.text()?;
    body.finish().map(|()| password)
}

fn target<'a>(message: &'static str, body: &'a [u8]) -> Result<(TargetKind, &'a [u8]), Malformed> {
    let mut body = Body::of(message, body);
    let kind = match body.u8()? {
        b'S' => TargetKind::Statement,
        b'P' => TargetKind::Portal,
        _ => return Err(body.malformed("neither a statement nor a portal")),
    };
    let name = body.text()?;
    body.finish().map(|()| (kind, name))
}

/// The bytes before the next NUL; `None` when it has not arrived.
fn bind_name(prefix: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let searched = prefix.get(..=NAME_BYTES_MAX).unwrap_or(prefix);
    match memchr::memchr(0, searched) {
        Some(end) => Ok(prefix.get(..end)),
        None if searched.len() > NAME_BYTES_MAX => {
            Err(Malformed { message: "Bind", why: "a name is too long" })
        }
        None => Ok(None),
    }
}
