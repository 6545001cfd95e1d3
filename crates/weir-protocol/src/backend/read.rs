//! Parsers of what PostgreSQL says, on the body of exactly one message (behind its five byte header). Owns bounds and
//! formats; refuses to keep anything: results borrow from the body.

use super::{AUTH_CLEARTEXT, AUTH_MD5, AUTH_OK, AUTH_SASL, AUTH_SASL_CONTINUE, AUTH_SASL_FINAL};
use crate::message::{Report, Severity};
use crate::sqlstate::SqlState;
use crate::startup::ProtocolVersion;
use crate::wire::{Body, Malformed};

/// What an Authentication message asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Nothing more: login succeeded.
    Ok,
    /// The password in the clear.
    Cleartext,
    /// An md5 response with this salt.
    Md5([u8; 4]),
    /// One of these SASL mechanisms.
    Sasl(Vec<&'a [u8]>),
    /// The answer to this SASL challenge.
    SaslContinue(&'a [u8]),
    /// Nothing, but check this proof of the server.
    SaslFinal(&'a [u8]),
    /// A method weir does not speak (Kerberos, GSSAPI, SSPI, ...), by its number.
    Unsupported(u32),
}

/// Reads an Authentication message.
pub fn authentication(body: &[u8]) -> Result<Authentication<'_>, Malformed> {
    let mut body = Body::of("Authentication", body);
    match body.u32()? {
        AUTH_OK => body.finish().map(|()| Authentication::Ok),
        AUTH_CLEARTEXT => body.finish().map(|()| Authentication::Cleartext),
        AUTH_MD5 => {
            let salt = body.array()?;
            body.finish().map(|()| Authentication::Md5(salt))
        }
        AUTH_SASL => sasl_mechanisms(body),
        AUTH_SASL_CONTINUE => Ok(Authentication::SaslContinue(body.remainder())),
        AUTH_SASL_FINAL => Ok(Authentication::SaslFinal(body.remainder())),
        other => Ok(Authentication::Unsupported(other)),
    }
}

fn sasl_mechanisms(mut body: Body<'_>) -> Result<Authentication<'_>, Malformed> {
    let mut mechanisms = Vec::new();
    loop {
        match body.text()? {
            b"" => break,
            mechanism => mechanisms.push(mechanism),
        }
    }
    body.finish().map(|()| Authentication::Sasl(mechanisms))
}

/// The fields of an ErrorResponse or NoticeResponse. Absent fields are empty or `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// The untranslated severity (`V`), or the translated one (`S`) of servers before 9.6.
    pub severity: &'a [u8],
    /// The SQLSTATE, as it came.
    pub code: &'a [u8],
    /// The one line message.
    pub message: &'a [u8],
    /// The DETAIL line.
    pub detail: Option<&'a [u8]>,
    /// The HINT line.
    pub hint: Option<&'a [u8]>,
    raw: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// All fields in the order they came, each with its type byte.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut body = Body::of("ErrorResponse", self.raw);
        std::iter::from_fn(move || match body.u8() {
            Ok(0) | Err(_) => None,
            Ok(field) => body.text().ok().map(|text| (field, text)),
        })
    }

    /// The first field of this type.
    pub fn field(&self, wanted: u8) -> Option<&'a [u8]> {
        self.fields().find_map(|(field, text)| (field == wanted).then_some(text))
    }

    /// The code, when it is one.
    pub fn sqlstate(&self) -> Option<SqlState> {
        SqlState::parse(self.code)
    }

    /// True for FATAL and PANIC: the server closes the connection.
    pub fn ends_connection(&self) -> bool {
        Severity::parse(self.severity).is_some_and(Severity::ends_connection)
    }

    /// The same said by weir: severity, code, message, detail and hint. Bytes that are not UTF-8 are replaced, an
    /// unknown severity becomes ERROR and an impossible code XX000.
    pub fn to_report(&self) -> Report {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Report {
            severity: Severity::parse(self.severity).unwrap_or(Severity::Error),
            code: self.sqlstate().unwrap_or(SqlState::INTERNAL_ERROR),
            message: text(self.message),
            detail: self.detail.map(text),
            hint: self.hint.map(text),
        }
    }
}

/// Reads an ErrorResponse or NoticeResponse.
pub fn report(body: &[u8]) -> Result<ErrorFields<'_>, Malformed> {
    let mut fields =
        ErrorFields { severity: b"", code: b"", message: b"", detail: None, hint: None, raw: body };
    let mut untranslated = None;
    let mut body = Body::of("ErrorResponse", body);
    loop {
        match body.u8()? {
            0 => break,
            b'S' => fields.severity = body.text()?,
            b'V' => untranslated = Some(body.text()?),
            b'C' => fields.code = body.text()?,
            b'M' => fields.message = body.text()?,
            b'D' => fields.detail = Some(body.text()?),
            b'H' => fields.hint = Some(body.text()?),
            _ => _ = body.text()?,
        }
    }
    body.finish()?;
    fields.severity = untranslated.unwrap_or(fields.severity);
    Ok(fields)
}

/// Reads a ParameterStatus: name and value.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut body = Body::of("ParameterStatus", body);
    let (name, value) = (body.text()?, body.text()?);
    body.finish().map(|()| (name, value))
}

/// Reads a BackendKeyData: process id and secret. The secret must have 4 to 256 bytes.
pub fn backend_key_data(body: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let mut body = Body::of("BackendKeyData", body);
    let pid = body.u32()?;
    match body.remainder() {
        secret if crate::startup::SECRET_KEY_BYTES.contains(&secret.len()) => Ok((pid, secret)),
        _ => Err(body.malformed("the secret must have 4 to 256 bytes")),
    }
}

/// Reads a ReadyForQuery: `b'I'`, `b'T'` or `b'E'`.
pub fn ready_status(body: &[u8]) -> Result<u8, Malformed> {
    match body {
        &[status @ (b'I' | b'T' | b'E')] => Ok(status),
        _ => Err(Malformed { message: "ReadyForQuery", why: "unknown transaction status" }),
    }
}

/// Reads a DataRow; `None` is NULL.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut body = Body::of("DataRow", body);
    let count = body.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(body.value()?);
    }
    body.finish().map(|()| values)
}

/// Reads a CommandComplete: the command tag.
pub fn command_tag(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut body = Body::of("CommandComplete", body);
    let tag = body.text()?;
    body.finish().map(|()| tag)
}

/// Reads a ParameterDescription: type OIDs.
pub fn parameter_description(body: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut body = Body::of("ParameterDescription", body);
    let count = body.u16()?;
    let mut types = Vec::new();
    for _ in 0..count {
        types.push(body.u32()?);
    }
    body.finish().map(|()| types)
}

/// One column of a RowDescription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnFields<'a> {
    /// Column name.
    pub name: &'a [u8],
    /// OID of its table, or 0.
    pub table_oid: u32,
    /// Number of the column in its table, or 0.
    pub attribute: i16,
    /// OID of its type.
    pub type_oid: u32,
    /// Size of the type in bytes, negative when it varies.
    pub type_len: i16,
    /// Type modifier, as an unsigned word.
    pub type_modifier: u32,
    /// 0 text, 1 binary.
    pub format: u16,
}

/// Reads a RowDescription.
pub fn row_description(body: &[u8]) -> Result<Vec<ColumnFields<'_>>, Malformed> {
    let mut body = Body::of("RowDescription", body);
    let count = body.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        columns.push(ColumnFields {
            name: body.text()?,
            table_oid: body.u32()?,
            attribute: body.i16()?,
            type_oid: body.u32()?,
            type_len: body.i16()?,
            type_modifier: body.u32()?,
            format: body.u16()?,
        });
    }
    body.finish().map(|()| columns)
}

/// A NOTIFY that reached the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'a> {
    /// Process id of the notifying backend.
    pub pid: u32,
    /// Channel name.
    pub channel: &'a [u8],
    /// Payload, possibly empty.
    pub payload: &'a [u8],
}

/// Reads a NotificationResponse.
pub fn notification(body: &[u8]) -> Result<Notification<'_>, Malformed> {
    let mut body = Body::of("NotificationResponse", body);
    let notification = Notification { pid: body.u32()?, channel: body.text()?, payload: body.text()? };
    body.finish().map(|()| notification)
}

/// Reads a NegotiateProtocolVersion: the newest version the server speaks and the options it did not recognise.
///
/// Servers send the full version word; one that goes by the manual's letter sends the minor version alone, which is
/// below any full word, so both are understood.
pub fn negotiate_protocol_version(body: &[u8]) -> Result<(ProtocolVersion, Vec<&[u8]>), Malformed> {
    let mut body = Body::of("NegotiateProtocolVersion", body);
    let (major, minor) = (body.u16()?, body.u16()?);
    let version = ProtocolVersion { major: if major == 0 { 3 } else { major }, minor };
    let count = body.u32()?;
    let mut options = Vec::new();
    for _ in 0..count {
        options.push(body.text()?);
    }
    body.finish().map(|()| (version, options))
}
