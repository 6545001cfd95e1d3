//! What a server says. Builders for weir playing the server are here, parsers of what PostgreSQL says are in [`read`].
//! Owns these messages' bodies; refuses to know their order.

pub mod read;

use crate::message::Report;
use crate::tag::FromServer;
use crate::wire::{length_word, message, put_list, put_text, put_value};

/// One column of a RowDescription: a plain value in text format that belongs to no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    /// Column name.
    pub name: &'a str,
    /// OID of the type in `pg_type`.
    pub type_oid: u32,
    /// Size of the type in bytes, -1 when it varies (`pg_type.typlen`).
    pub type_len: i16,
}

impl<'a> Column<'a> {
    /// A `text` column.
    pub const fn text(name: &'a str) -> Self {
        Self { name, type_oid: 25, type_len: -1 }
    }

    /// An `int4` column.
    pub const fn int4(name: &'a str) -> Self {
        Self { name, type_oid: 23, type_len: 4 }
    }

    /// An `int8` column.
    pub const fn int8(name: &'a str) -> Self {
        Self { name, type_oid: 20, type_len: 8 }
    }

    /// A `numeric` column.
    pub const fn numeric(name: &'a str) -> Self {
        Self { name, type_oid: 1700, type_len: -1 }
    }

    /// A `bytea` column.
    pub const fn bytea(name: &'a str) -> Self {
        Self { name, type_oid: 17, type_len: -1 }
    }

    /// A `bool` column.
    pub const fn boolean(name: &'a str) -> Self {
        Self { name, type_oid: 16, type_len: 1 }
    }
}

/// Login succeeded.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(AUTH_OK, &[], out);
}

/// Asks for the password in the clear.
pub fn authentication_cleartext(out: &mut Vec<u8>) {
    authentication(AUTH_CLEARTEXT, &[], out);
}

/// Asks for the md5 of password, user and this salt.
pub fn authentication_md5(salt: [u8; 4], out: &mut Vec<u8>) {
    authentication(AUTH_MD5, &salt, out);
}

/// Offers SASL mechanisms, best first.
pub fn authentication_sasl(mechanisms: &[&str], out: &mut Vec<u8>) {
    let mut names = Vec::new();
    for mechanism in mechanisms {
        put_text(mechanism.as_bytes(), &mut names);
    }
    names.push(0);
    authentication(AUTH_SASL, &names, out);
}

/// A SASL challenge.
pub fn authentication_sasl_continue(challenge: &[u8], out: &mut Vec<u8>) {
    authentication(AUTH_SASL_CONTINUE, challenge, out);
}

/// The server's own proof; AuthenticationOk follows.
pub fn authentication_sasl_final(outcome: &[u8], out: &mut Vec<u8>) {
    authentication(AUTH_SASL_FINAL, outcome, out);
}

/// A reported setting has this value.
pub fn parameter_status(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    message(FromServer::ParameterStatus.byte(), out, |out| {
        put_text(name, out);
        put_text(value, out);
    });
}

/// What the client needs for a cancel request. The secret has 4 bytes in protocol 3.0 and up to 256 in 3.2.
pub fn backend_key_data(pid: u32, secret: &[u8], out: &mut Vec<u8>) {
    message(FromServer::BackendKeyData.byte(), out, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Ready for the next request. `status` is `b'I'` (idle), `b'T'` (in a transaction) or `b'E'` (in a failed one).
pub fn ready_for_query(status: u8, out: &mut Vec<u8>) {
    message(FromServer::ReadyForQuery.byte(), out, |out| out.push(status));
}

/// An ErrorResponse.
pub fn error(report: &Report, out: &mut Vec<u8>) {
    message(FromServer::ErrorResponse.byte(), out, |out| put_report(report, out));
}

/// A NoticeResponse.
pub fn notice(report: &Report, out: &mut Vec<u8>) {
    message(FromServer::NoticeResponse.byte(), out, |out| put_report(report, out));
}

/// Tells the client which 3.x is the newest weir speaks, and which `_pq_.` options it did not recognise.
///
/// The manual calls the number a minor version, but PostgreSQL sends, and libpq compares, the full version word
/// (196610 for 3.2), so that is what goes out.
pub fn negotiate_protocol_version(newest_minor: u16, unrecognised: &[String], out: &mut Vec<u8>) {
    message(FromServer::NegotiateProtocolVersion.byte(), out, |out| {
        out.extend_from_slice(&3u16.to_be_bytes());
        out.extend_from_slice(&newest_minor.to_be_bytes());
        out.extend_from_slice(&length_word(unrecognised.len()));
        for option in unrecognised {
            put_text(option.as_bytes(), out);
        }
    });
}

/// Columns of the rows to come; at most 65,535.
pub fn row_description(columns: &[Column<'_>], out: &mut Vec<u8>) {
    message(FromServer::RowDescription.byte(), out, |out| {
        put_list(columns, out, |column, out| {
            put_text(column.name.as_bytes(), out);
            out.extend_from_slice(&[0; 6]); // no table, no attribute number
            out.extend_from_slice(&column.type_oid.to_be_bytes());
            out.extend_from_slice(&column.type_len.to_be_bytes());
            out.extend_from_slice(&(-1i32).to_be_bytes()); // no type modifier
            out.extend_from_slice(&[0; 2]); // text format
        });
    });
}

/// One row; `None` is NULL.
pub fn data_row(values: &[Option<&[u8]>], out: &mut Vec<u8>) {
    message(FromServer::DataRow.byte(), out, |out| {
        put_list(values, out, |value, out| put_value(*value, out));
    });
}

/// A statement succeeded, with its command tag (`SELECT 3`).
pub fn command_complete(tag: &str, out: &mut Vec<u8>) {
    message(FromServer::CommandComplete.byte(), out, |out| put_text(tag.as_bytes(), out));
}

/// Parse succeeded.
pub fn parse_complete(out: &mut Vec<u8>) {
    empty(FromServer::ParseComplete, out);
}

/// Bind succeeded.
pub fn bind_complete(out: &mut Vec<u8>) {
    empty(FromServer::BindComplete, out);
}

/// Close succeeded.
pub fn close_complete(out: &mut Vec<u8>) {
    empty(FromServer::CloseComplete, out);
}

/// The described statement returns no rows.
pub fn no_data(out: &mut Vec<u8>) {
    empty(FromServer::NoData, out);
}

/// The query held no statement.
pub fn empty_query_response(out: &mut Vec<u8>) {
    empty(FromServer::EmptyQueryResponse, out);
}

/// Execute stopped at its row limit.
pub fn portal_suspended(out: &mut Vec<u8>) {
    empty(FromServer::PortalSuspended, out);
}

/// Parameter type OIDs of the described statement; at most 65,535.
pub fn parameter_description(types: &[u32], out: &mut Vec<u8>) {
    message(FromServer::ParameterDescription.byte(), out, |out| {
        put_list(types, out, |oid, out| out.extend_from_slice(&oid.to_be_bytes()));
    });
}

fn authentication(kind: u32, data: &[u8], out: &mut Vec<u8>) {
    message(FromServer::Authentication.byte(), out, |out| {
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(data);
    });
}

fn empty(tag: FromServer, out: &mut Vec<u8>) {
    message(tag.byte(), out, |_| {});
}

fn put_report(report: &Report, out: &mut Vec<u8>) {
    let Report { severity, code, message, detail, hint } = report;
    let fields = [
        (b'S', Some(severity.as_str())),
        (b'V', Some(severity.as_str())),
        (b'C', Some(code.as_str())),
        (b'M', Some(message.as_str())),
        (b'D', detail.as_deref()),
        (b'H', hint.as_deref()),
    ];
    for (field, text) in fields {
        if let Some(text) = text {
            out.push(field);
            put_text(text.as_bytes(), out);
        }
    }
    out.push(0);
}

const AUTH_OK: u32 = 0;
const AUTH_CLEARTEXT: u32 = 3;
const AUTH_MD5: u32 = 5;
const AUTH_SASL: u32 = 10;
const AUTH_SASL_CONTINUE: u32 = 11;
const AUTH_SASL_FINAL: u32 = 12;

#[cfg(test)]
mod tests;
