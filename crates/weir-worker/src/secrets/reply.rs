//! The questions to PostgreSQL about users as bytes, and what its replies say. Knows no clients and keeps nothing.

use std::collections::BTreeSet;

use weir_auth::StoredSecret;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromServer;
use weir_protocol::{backend, frontend};

use super::Question;

/// What became of a question.
pub(super) enum Found {
    /// The user has this secret.
    Secret(StoredSecret),
    /// There is such a user, and nothing to hold a password against.
    NoSecret,
    /// There is no such user.
    Nobody,
    /// Those of the named groups that the user belongs to.
    Groups(BTreeSet<String>),
    /// PostgreSQL (or weir) could not answer.
    Failed(Report),
    /// Nobody answered in time.
    Late,
}

/// A question as one batch: PostgreSQL takes the user name as a parameter, never as part of the text. At most so many rows
/// come back; 0: all.
pub(super) fn request(query: &str, values: &[&str], rows_max: u32) -> Vec<u8> {
    let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_bytes())).collect();
    let mut request = Vec::new();
    frontend::parse(b"", query.as_bytes(), frontend::NO_TYPES, &mut request);
    frontend::bind_text(b"", b"", &values, &mut request);
    frontend::execute(b"", rows_max, &mut request);
    frontend::sync(&mut request);
    request
}

/// An array of texts as PostgreSQL reads it (manual, "Array Input and Output Syntax").
pub(super) fn text_array<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let quote = |value: &str| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let quoted: Vec<String> = values.map(quote).collect();
    format!("{{{}}}", quoted.join(","))
}

/// Finds the answer in what PostgreSQL replied. `None` if the reply is not complete.
pub(super) fn read(question: Question, reply: &[u8]) -> Option<Found> {
    let mut rest = reply;
    let mut found = match question {
        Question::Secret => Found::Nobody,
        Question::Groups => Found::Groups(BTreeSet::new()),
    };
    while let Ok(Some(header)) = frame::peek(rest, MESSAGE_BYTES_MAX) {
        let message = rest.get(..header.total)?;
        let body = &message[HEADER_BYTES..];
        match FromServer::of(header.tag) {
            Some(FromServer::DataRow) => found = with_row(found, body),
            Some(FromServer::ErrorResponse) => {
                let report = backend::read::report(body).map(|fields| fields.to_report());
                return Some(Found::Failed(report.unwrap_or_else(|_| unreadable())));
            }
            Some(FromServer::ReadyForQuery) => return Some(found),
            Some(_) => {}
            None => return Some(Found::Failed(unreadable())),
        }
        rest = &rest[header.total..];
    }
    None
}

fn with_row(found: Found, body: &[u8]) -> Found {
    let Ok(values) = backend::read::data_row(body) else { return Found::Failed(unreadable()) };
    match found {
        Found::Nobody => secret_of(&values),
        Found::Groups(mut groups) => {
            let name = values.first().copied().flatten().and_then(|name| str::from_utf8(name).ok());
            groups.extend(name.map(str::to_owned));
            Found::Groups(groups)
        }
        // The first row counts.
        Found::Secret(_) | Found::NoSecret | Found::Failed(_) | Found::Late => found,
    }
}

/// The second column, as in pg_shadow.
fn secret_of(values: &[Option<&[u8]>]) -> Found {
    let [name, secret, ..] = values else {
        return Found::Failed(
            Report::error(SqlState::CONFIG_FILE_ERROR, "auth_query must return two columns")
                .hint("Return the user name and the secret, as in pg_shadow."),
        );
    };
    let Some(secret) = secret else {
        // A function with OUT parameters returns a row of nothing where there is nobody.
        return if name.is_some() { Found::NoSecret } else { Found::Nobody };
    };
    let Ok(text) = str::from_utf8(secret) else { return Found::Nobody };
    let malformed = || Report::error(SqlState::CONFIG_FILE_ERROR, "auth_query returned a malformed secret");
    StoredSecret::parse(text).map_or_else(|_| Found::Failed(malformed()), Found::Secret)
}

pub(super) fn unreadable() -> Report {
    Report::error(SqlState::PROTOCOL_VIOLATION, "the reply to auth_query cannot be read")
}

/// Those of the groups `$2` that `$1` belongs to, directly or by other groups, and it itself. As in PostgreSQL a superuser
/// belongs to no group unless it was put there, and it does not matter what a membership inherits. Anybody may ask this.
pub(super) const GROUPS_QUERY: &str = "WITH RECURSIVE own(oid) AS (\
    SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) $1 \
    UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m, own WHERE m.member OPERATOR(pg_catalog.=) own.oid) \
    SELECT r.rolname FROM pg_catalog.pg_roles r, own WHERE r.oid OPERATOR(pg_catalog.=) own.oid \
    AND r.rolname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])";

#[cfg(test)]
mod tests {
    //! Replies as PostgreSQL writes them.

    use super::*;

    fn reply(rows: &[&[Option<&str>]]) -> Vec<u8> {
        let mut out = Vec::new();
        backend::parse_complete(&mut out);
        backend::bind_complete(&mut out);
        for row in rows {
            let values: Vec<_> = row.iter().map(|value| value.map(str::as_bytes)).collect();
            backend::data_row(&values, &mut out);
        }
        backend::command_complete("SELECT 1", &mut out);
        backend::ready_for_query(b'I', &mut out);
        out
    }

    #[test]
    fn rows_say_who_there_is() {
        let is = |rows: &[&[Option<&str>]], expected: fn(&Found) -> bool| {
            let found = read(Question::Secret, &reply(rows)).expect("a whole reply");
            assert!(expected(&found), "{rows:?}");
        };
        is(&[], |found| matches!(found, Found::Nobody));
        is(&[&[Some("ann"), Some("pw")]], |found| matches!(found, Found::Secret(StoredSecret::Plain(_))));
        is(&[&[Some("ann"), None]], |found| matches!(found, Found::NoSecret));
        is(&[&[None, None]], |found| matches!(found, Found::Nobody));
        is(&[&[Some("ann")]], |found| matches!(found, Found::Failed(_)));
        is(&[&[Some("ann"), Some("SCRAM-SHA-256$4096")]], |found| matches!(found, Found::Failed(_)));
        is(&[&[Some("ann"), None], &[Some("ann"), Some("pw")]], |found| matches!(found, Found::NoSecret));
    }

    #[test]
    fn a_reply_that_is_cut_short_says_nothing() {
        let whole = reply(&[&[Some("ann"), Some("pw")]]);
        for length in 0..whole.len() {
            assert!(read(Question::Secret, &whole[..length]).is_none(), "{length} bytes");
        }
    }

    #[test]
    fn groups_are_a_list() {
        let whole = reply(&[&[Some("staff")], &[Some("ann")]]);
        let Some(Found::Groups(groups)) = read(Question::Groups, &whole) else { panic!("no groups") };
        assert_eq!(groups, ["ann", "staff"].map(str::to_owned).into());
    }

    #[test]
    fn names_are_quoted_in_an_array() {
        let names = ["plain", "with \"quotes\"", "back\\slash", "a,b", ""];
        assert_eq!(text_array(names.into_iter()), r#"{"plain","with \"quotes\"","back\\slash","a,b",""}"#);
        assert_eq!(text_array(std::iter::empty()), "{}");
    }
}
