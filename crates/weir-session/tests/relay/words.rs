//! The vocabulary of the scenes: messages as functions, and messages as readable text.

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;

fn made(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

/// Any message.
pub(crate) fn raw(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    made(|out| frontend::query(sql.as_bytes(), out))
}

pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    made(|out| frontend::parse(name.as_bytes(), sql.as_bytes(), &[0, 0], out))
}

pub(crate) fn bind(statement: &str) -> Vec<u8> {
    bind_portal("", statement)
}

pub(crate) fn bind_portal(portal: &str, statement: &str) -> Vec<u8> {
    made(|out| frontend::bind_text(portal.as_bytes(), statement.as_bytes(), &[], out))
}

pub(crate) fn describe(statement: &str) -> Vec<u8> {
    made(|out| frontend::describe_statement(statement.as_bytes(), out))
}

pub(crate) fn describe_portal(portal: &str) -> Vec<u8> {
    made(|out| frontend::describe(TargetKind::Portal, portal.as_bytes(), out))
}

pub(crate) fn execute() -> Vec<u8> {
    execute_portal("")
}

pub(crate) fn execute_portal(portal: &str) -> Vec<u8> {
    made(|out| frontend::execute(portal.as_bytes(), 0, out))
}

pub(crate) fn close(statement: &str) -> Vec<u8> {
    made(|out| frontend::close_statement(statement.as_bytes(), out))
}

pub(crate) fn close_portal(portal: &str) -> Vec<u8> {
    made(|out| frontend::close(TargetKind::Portal, portal.as_bytes(), out))
}

pub(crate) fn sync() -> Vec<u8> {
    made(frontend::sync)
}

pub(crate) fn flush() -> Vec<u8> {
    made(frontend::flush)
}

pub(crate) fn terminate() -> Vec<u8> {
    made(frontend::terminate)
}

/// Parse, Bind, Execute and Sync of an unnamed statement.
pub(crate) fn unnamed(sql: &str) -> Vec<u8> {
    [parse("", sql), bind(""), execute(), sync()].concat()
}

/// Bind, Execute and Sync of a named statement.
pub(crate) fn run(statement: &str) -> Vec<u8> {
    [bind(statement), execute(), sync()].concat()
}

/// A piece of a COPY, in either direction.
pub(crate) fn data(text: &str) -> Vec<u8> {
    raw(b'd', text.as_bytes())
}

/// The end of a COPY, in either direction.
pub(crate) fn done() -> Vec<u8> {
    raw(b'c', b"")
}

pub(crate) fn copy_fail() -> Vec<u8> {
    made(|out| frontend::copy_fail(b"changed my mind", out))
}

/// What PostgreSQL says, from the text in which scenes are written: messages with two or more spaces between them, each
/// a tag and, behind a colon, what it holds. See [`heard`] for the way back.
pub(crate) fn said(text: &str) -> Vec<u8> {
    text.split("  ").map(str::trim).filter(|part| !part.is_empty()).flat_map(one_said).collect()
}

fn one_said(part: &str) -> Vec<u8> {
    let (tag, held) = part.split_once(':').unwrap_or((part, ""));
    made(|out| match tag {
        "1" => backend::parse_complete(out),
        "2" => backend::bind_complete(out),
        "3" => backend::close_complete(out),
        "n" => backend::no_data(out),
        "I" => backend::empty_query_response(out),
        "s" => backend::portal_suspended(out),
        "t" => backend::parameter_description(&[], out),
        "T" => {
            let column = backend::Column { name: held, type_oid: 25, type_len: -1 };
            backend::row_description(&[column], out);
        }
        "D" => backend::data_row(&[Some(held.as_bytes())], out),
        "C" => backend::command_complete(held, out),
        "Z" => backend::ready_for_query(held.as_bytes()[0], out),
        "S" => {
            let (name, value) = held.split_once('=').expect("name=value");
            backend::parameter_status(name.as_bytes(), value.as_bytes(), out);
        }
        "E" | "FATAL" | "N" => {
            let (code, message) = held.split_once(' ').unwrap_or((held, "because"));
            let code = SqlState::parse(code.as_bytes()).expect("an SQLSTATE");
            let severity = match tag {
                "E" => Severity::Error,
                "N" => Severity::Warning,
                _ => Severity::Fatal,
            };
            let report = Report::new(severity, code, message);
            if tag == "N" { backend::notice(&report, out) } else { backend::error(&report, out) }
        }
        // What a standby says that breaks a request off in favour of recovery; its words may be translated.
        "K" => out.extend(raw(b'E', format!("SERROR\0VERROR\0C40001\0Mkonflikt\0F{held}\0\0").as_bytes())),
        "G" | "H" => out.extend(raw(tag.as_bytes()[0], &[0, 0, 0])),
        "d" | "c" | "V" | "A" => out.extend(raw(tag.as_bytes()[0], held.as_bytes())),
        other => panic!("{other:?} is not in the vocabulary"),
    })
}

/// What a server connection received, as text.
pub(crate) fn asked(bytes: &[u8]) -> String {
    frames(bytes).map(|(tag, body)| one_asked(tag, body)).collect::<Vec<_>>().join("  ")
}

fn one_asked(tag: u8, body: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let tagged = |held: String| format!("{}:{held}", char::from(tag));
    match tag {
        b'Q' => tagged(text(frontend::read::query(body).expect("a query"))),
        b'P' => {
            let parse = frontend::read::parse(body).expect("a Parse");
            tagged(format!("{}={}", text(parse.name), text(parse.sql)))
        }
        b'B' => {
            let names = frontend::read::bind_names(body).expect("a Bind").expect("whole");
            let portal =
                if names.portal.is_empty() { String::new() } else { format!("{}=", text(names.portal)) };
            tagged(format!("{portal}{}", text(names.statement)))
        }
        b'D' | b'C' => {
            let (kind, name) = frontend::read::describe(body).expect("a Describe or Close");
            let portal = if kind == TargetKind::Portal { "portal " } else { "" };
            tagged(format!("{portal}{}", text(name)))
        }
        b'E' => tagged(text(frontend::read::execute(body).expect("an Execute").portal)),
        b'S' | b'H' | b'c' | b'f' | b'F' => char::from(tag).to_string(),
        b'd' => tagged(text(body)),
        other => panic!("a server cannot be sent {:?}", char::from(other)),
    }
}

/// What a client received, as text. Of errors only severity and code are shown.
pub(crate) fn heard(bytes: &[u8]) -> String {
    frames(bytes).map(|(tag, body)| one_heard(tag, body)).collect::<Vec<_>>().join("  ")
}

fn one_heard(tag: u8, body: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let tagged = |held: String| format!("{}:{held}", char::from(tag));
    match tag {
        b'E' | b'N' => {
            let fields = backend::read::report(body).expect("a report");
            let kind =
                if fields.ends_connection() { "FATAL".to_owned() } else { char::from(tag).to_string() };
            format!("{kind}:{}", text(fields.code))
        }
        b'D' => {
            let row = backend::read::data_row(body).expect("a row");
            tagged(row.into_iter().map(|value| text(value.unwrap_or(b"NULL"))).collect())
        }
        b'T' => tagged(
            backend::read::row_description(body).expect("columns").iter().map(|c| text(c.name)).collect(),
        ),
        b'C' => tagged(text(backend::read::command_tag(body).expect("a tag"))),
        b'S' => {
            let (name, value) = backend::read::parameter_status(body).expect("a parameter");
            tagged(format!("{}={}", text(name), text(value)))
        }
        b'Z' | b'd' | b'A' => tagged(text(body)),
        b't' | b'G' | b'H' | b'V' => char::from(tag).to_string(),
        _ if body.is_empty() => char::from(tag).to_string(),
        other => panic!("a client cannot be sent {:?}", char::from(other)),
    }
}

/// What of this are whole messages, as a client heard it.
pub(crate) fn whole(bytes: &[u8]) -> String {
    let end = boundaries(bytes).last().copied().unwrap_or(0);
    heard(&bytes[..end])
}

/// Where messages begin and end.
pub(crate) fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut found = vec![0];
    let mut at = 0;
    while let Some(header) = frame::peek(&bytes[at..], MESSAGE_BYTES_MAX).expect("a sane header") {
        at += header.total;
        if at > bytes.len() {
            break;
        }
        found.push(at);
    }
    found
}

/// The text of the last error a client received.
pub(crate) fn last_error(bytes: &[u8]) -> Report {
    let errors = frames(bytes).filter(|(tag, _)| *tag == b'E');
    let (_, body) = errors.last().expect("an error");
    backend::read::report(body).expect("a report").to_report()
}

/// Whole messages and nothing else.
fn frames(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let header = frame::peek(rest, MESSAGE_BYTES_MAX).expect("a sane header").expect("a whole header");
        let (frame, behind) = rest.split_at_checked(header.total).expect("a whole message");
        rest = behind;
        Some((header.tag, &frame[HEADER_BYTES..]))
    })
}
