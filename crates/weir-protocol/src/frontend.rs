//! What a client says. Builders for weir playing the client are here, parsers of what applications say are in [`read`].
//! Owns these messages' bodies; refuses to know their order.

pub mod read;

use crate::sql::Begin;
use crate::startup::{CANCEL_CODE, GSSENC_CODE, ProtocolVersion, SSL_CODE};
use crate::tag::FromClient;
use crate::wire::{length_word, message, put_list, put_text, put_value, untagged};

/// Whether a name belongs to a prepared statement or to a portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl TargetKind {
    /// The byte on the wire.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

/// StartupMessage. An empty name or one after a NUL would end the list, so such a parameter is left out.
pub fn startup(version: ProtocolVersion, parameters: &[(&str, &str)], out: &mut Vec<u8>) {
    untagged(out, |out| {
        out.extend_from_slice(&version.word().to_be_bytes());
        for (name, value) in parameters {
            if !name.is_empty() && !name.starts_with('\0') {
                put_text(name.as_bytes(), out);
                put_text(value.as_bytes(), out);
            }
        }
        out.push(0);
    });
}

/// Asks for TLS; the server answers with one byte, `S` or `N` (or an ErrorResponse).
pub fn ssl_request(out: &mut Vec<u8>) {
    untagged(out, |out| out.extend_from_slice(&SSL_CODE.to_be_bytes()));
}

/// Asks for GSSAPI encryption; the server answers with one byte, `G` or `N`.
pub fn gssenc_request(out: &mut Vec<u8>) {
    untagged(out, |out| out.extend_from_slice(&GSSENC_CODE.to_be_bytes()));
}

/// Asks, on a connection of its own, to cancel what the backend with this key is doing.
pub fn cancel_request(pid: u32, secret: &[u8], out: &mut Vec<u8>) {
    untagged(out, |out| {
        out.extend_from_slice(&CANCEL_CODE.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// A simple query.
pub fn query(sql: &[u8], out: &mut Vec<u8>) {
    message(FromClient::Query.byte(), out, |out| put_text(sql, out));
}

/// A batch without a Sync that begins a transaction: Parse, Bind and Execute of the unnamed statement, and Close of the
/// unnamed portal. If it fails, PostgreSQL skips what is sent behind it, a Query as well, up to the next Sync.
pub fn begin(begin: Begin, out: &mut Vec<u8>) {
    message(FromClient::Parse.byte(), out, |out| {
        out.push(0);
        begin.put_sql(out);
        out.push(0);
        out.extend_from_slice(NO_TYPES);
    });
    bind_text(b"", b"", &[], out);
    execute(b"", 0, out);
    close(TargetKind::Portal, b"", out);
}

/// Parse. `types_raw` is the list of parameter types as it stands on the wire, count included: what
/// [`read::Parse::types_raw`] holds, or [`NO_TYPES`].
pub fn parse(name: &[u8], sql: &[u8], types_raw: &[u8], out: &mut Vec<u8>) {
    message(FromClient::Parse.byte(), out, |out| {
        put_text(name, out);
        put_text(sql, out);
        out.extend_from_slice(types_raw);
    });
}

/// Bind with all parameters and results in text format; `None` is NULL.
pub fn bind_text(portal: &[u8], statement: &[u8], values: &[Option<&[u8]>], out: &mut Vec<u8>) {
    message(FromClient::Bind.byte(), out, |out| {
        put_text(portal, out);
        put_text(statement, out);
        out.extend_from_slice(&[0; 2]); // no format codes: all parameters are text
        put_list(values, out, |value, out| put_value(*value, out));
        out.extend_from_slice(&[0; 2]); // all results are text
    });
}

/// The header and names of a Bind whose other `rest_bytes` bytes (all behind [`read::BindNames::end`]) follow as they came.
/// Serves to put another statement name into a Bind that is too large to hold.
pub fn bind_head(portal: &[u8], statement: &[u8], rest_bytes: usize, out: &mut Vec<u8>) {
    out.push(FromClient::Bind.byte());
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put_text(portal, out);
    put_text(statement, out);
    let length = length_word(out.len().saturating_sub(start).saturating_add(rest_bytes));
    if let Some(word) = out.get_mut(start..start.saturating_add(4)) {
        word.copy_from_slice(&length);
    }
}

/// Asks for the shape of a statement or portal.
pub fn describe(kind: TargetKind, name: &[u8], out: &mut Vec<u8>) {
    target(FromClient::Describe, kind, name, out);
}

/// Asks for the shape of a statement.
pub fn describe_statement(name: &[u8], out: &mut Vec<u8>) {
    describe(TargetKind::Statement, name, out);
}

/// Forgets a statement or portal.
pub fn close(kind: TargetKind, name: &[u8], out: &mut Vec<u8>) {
    target(FromClient::Close, kind, name, out);
}

/// Forgets a statement.
pub fn close_statement(name: &[u8], out: &mut Vec<u8>) {
    close(TargetKind::Statement, name, out);
}

/// Runs a portal for at most `row_limit` rows; 0 means all.
pub fn execute(portal: &[u8], row_limit: u32, out: &mut Vec<u8>) {
    message(FromClient::Execute.byte(), out, |out| {
        put_text(portal, out);
        out.extend_from_slice(&row_limit.to_be_bytes());
    });
}

/// Ends a batch.
pub fn sync(out: &mut Vec<u8>) {
    message(FromClient::Sync.byte(), out, |_| {});
}

/// Asks for the replies so far.
pub fn flush(out: &mut Vec<u8>) {
    message(FromClient::Flush.byte(), out, |_| {});
}

/// Says good-bye.
pub fn terminate(out: &mut Vec<u8>) {
    message(FromClient::Terminate.byte(), out, |_| {});
}

/// Gives a COPY up, with the reason the server shall report.
pub fn copy_fail(reason: &[u8], out: &mut Vec<u8>) {
    message(FromClient::CopyFail.byte(), out, |out| put_text(reason, out));
}

/// Chooses a SASL mechanism and says its first message.
pub fn sasl_initial_response(mechanism: &str, response: &[u8], out: &mut Vec<u8>) {
    message(FromClient::Response.byte(), out, |out| {
        put_text(mechanism.as_bytes(), out);
        put_value(Some(response), out);
    });
}

/// A further SASL message.
pub fn sasl_response(response: &[u8], out: &mut Vec<u8>) {
    message(FromClient::Response.byte(), out, |out| out.extend_from_slice(response));
}

/// A password, plain or as md5 response.
pub fn password(password: &[u8], out: &mut Vec<u8>) {
    message(FromClient::Response.byte(), out, |out| put_text(password, out));
}

/// The raw type list of a Parse that names no parameter types.
pub const NO_TYPES: &[u8] = &[0, 0];

fn target(tag: FromClient, kind: TargetKind, name: &[u8], out: &mut Vec<u8>) {
    message(tag.byte(), out, |out| {
        out.push(kind.byte());
        put_text(name, out);
    });
}

#[cfg(test)]
mod tests;
