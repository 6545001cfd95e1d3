//! Whole answers: which messages, in which order, always ended by ReadyForQuery.

use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromServer;

use super::*;

/// Tag and body of each message.
fn messages(mut bytes: &[u8]) -> Vec<(FromServer, &[u8])> {
    let mut messages = Vec::new();
    while let Some(header) = frame::peek(bytes, MESSAGE_BYTES_MAX).expect("a frame") {
        let (message, rest) = bytes.split_at(header.total);
        messages.push((FromServer::of(header.tag).expect("a known tag"), &message[HEADER_BYTES..]));
        bytes = rest;
    }
    assert_eq!(bytes, b"");
    assert_eq!(messages.pop(), Some((FromServer::ReadyForQuery, b"I".as_slice())));
    messages
}

#[test]
fn help_is_a_notice() {
    let bytes = help();
    let [(FromServer::NoticeResponse, notice), (FromServer::CommandComplete, tag)] = messages(&bytes)[..]
    else {
        panic!("{bytes:?}")
    };
    let notice = backend::read::report(notice).expect("a report");
    assert_eq!((notice.code, notice.message), (b"00000".as_slice(), b"Console usage".as_slice()));
    let detail = String::from_utf8_lossy(notice.detail.expect("a detail"));
    for word in [
        "SHOW HELP",
        "POOLS",
        "POOLS_BY_ROLE",
        "MEMBERS",
        "RELOAD",
        "PAUSE",
        "RECONNECT",
        "SHUTDOWN",
        "ACCEPT LEADER",
    ] {
        assert!(detail.contains(word), "{word}");
    }
    assert_eq!(tag, b"SHOW\0");
}

#[test]
fn a_setting_is_one_row() {
    let bytes = setting(Setting::TimeZone);
    let [
        (FromServer::RowDescription, columns),
        (FromServer::DataRow, row),
        (FromServer::CommandComplete, tag),
    ] = messages(&bytes)[..]
    else {
        panic!("{bytes:?}")
    };
    assert_eq!(backend::read::row_description(columns).expect("columns")[0].name, b"timezone");
    assert_eq!(backend::read::data_row(row), Ok(vec![Some(b"GMT".as_slice())]));
    assert_eq!(tag, b"SHOW\0");
}

#[test]
fn success_nothing_and_failure() {
    assert_eq!(messages(&done("PAUSE")), [(FromServer::CommandComplete, b"PAUSE\0".as_slice())]);
    assert_eq!(messages(&empty()), [(FromServer::EmptyQueryResponse, b"".as_slice())]);
    let bytes = failed(&Report::error(SqlState::SYNTAX_ERROR, "what?"));
    let [(FromServer::ErrorResponse, body)] = messages(&bytes)[..] else { panic!("{bytes:?}") };
    assert_eq!(backend::read::report(body).expect("a report").sqlstate(), Some(SqlState::SYNTAX_ERROR));
}
