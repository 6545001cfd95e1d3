//! Server messages as bytes. Independent peers check the rest in `tests/pgwire.rs`.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::read::Authentication;
use super::*;
use crate::message::Severity;
use crate::sqlstate::SqlState;
use crate::startup::ProtocolVersion;

fn body(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    build(&mut out);
    out.split_off(crate::frame::HEADER_BYTES)
}

#[test]
fn an_error_carries_its_fields_in_the_usual_order() {
    let report = Report::fatal(SqlState::CANNOT_CONNECT_NOW, "no leader").detail("d").hint("h");
    let body = body(|out| error(&report, out));
    assert_eq!(body, b"SFATAL\0VFATAL\0C57P03\0Mno leader\0Dd\0Hh\0\0");
    let fields = read::report(&body).unwrap();
    assert_eq!(fields.to_report(), report);
    assert!(fields.ends_connection());
    assert_eq!(fields.sqlstate(), Some(SqlState::CANNOT_CONNECT_NOW));
    assert_eq!(report.to_string(), "FATAL: no leader (57P03); d");
}

#[test]
fn the_untranslated_severity_counts() {
    let fields = read::report(b"SFEHLER\0VERROR\0C42601\0Mx\0P15\0Fscan.l\0\0").unwrap();
    assert_eq!(Severity::parse(fields.severity), Some(Severity::Error));
    assert_eq!((fields.field(b'P'), fields.field(b'Z')), (Some(&b"15"[..]), None));
    assert_eq!(fields.fields().count(), 6);
    let old = read::report(b"SFEHLER\0C4260\0M\xff\0\0").unwrap();
    assert_eq!(old.to_report(), Report::error(SqlState::INTERNAL_ERROR, "\u{fffd}"));
    assert!(!old.ends_connection());
}

#[test]
fn a_nul_in_a_text_cannot_start_another_field() {
    let report = Report::error(SqlState::SYNTAX_ERROR, "a\0C00000");
    assert_eq!(body(|out| error(&report, out)), b"SERROR\0VERROR\0C42601\0Ma\0\0");
}

#[test]
fn malformed_bodies_are_refused() {
    assert!(read::report(b"SERROR\0").is_err());
    assert!(read::report(b"SERROR").is_err());
    assert!(read::report(b"\0x").is_err());
    assert!(read::authentication(b"\0\0\0\x05abc").is_err());
    assert!(read::authentication(b"\0\0\0\x0aSCRAM\0").is_err());
    assert!(read::ready_status(b"X").is_err());
    assert!(read::ready_status(b"").is_err());
    assert!(read::backend_key_data(b"\0\0\0\x01abc").is_err());
    assert!(read::backend_key_data(&[0; 4 + 257]).is_err());
    assert!(read::data_row(b"\0\x01\0\0\0\x05abcd").is_err());
    assert!(read::data_row(b"\xff\xff").is_err());
    assert!(read::parameter_status(b"a\0b\0c").is_err());
    let error = read::command_tag(b"SELECT 1").unwrap_err();
    assert_eq!((error.sqlstate().as_str(), error.message), ("08P01", "CommandComplete"));
}

#[test]
fn an_unknown_authentication_method_keeps_its_number() {
    assert_eq!(read::authentication(b"\0\0\0\x07"), Ok(Authentication::Unsupported(7)));
}

#[test]
fn version_negotiation_sends_the_full_word_and_reads_either() {
    let options = ["_pq_.a".to_owned()];
    let body = body(|out| negotiate_protocol_version(2, &options, out));
    assert_eq!(body, b"\0\x03\0\x02\0\0\0\x01_pq_.a\0");
    assert_eq!(read::negotiate_protocol_version(&body), Ok((ProtocolVersion::V3_2, vec![&b"_pq_.a"[..]])));
    let minor_alone = b"\0\0\0\x02\0\0\0\0";
    assert_eq!(read::negotiate_protocol_version(minor_alone), Ok((ProtocolVersion::V3_2, vec![])));
    assert!(read::negotiate_protocol_version(b"\0\x03\0\x02\xff\xff\xff\xff").is_err());
}

#[test]
fn null_and_empty_are_different_values() {
    let body = body(|out| data_row(&[None, Some(b""), Some(b"x")], out));
    assert_eq!(body, b"\0\x03\xff\xff\xff\xff\0\0\0\0\0\0\0\x01x");
    assert_eq!(read::data_row(&body), Ok(vec![None, Some(&b""[..]), Some(&b"x"[..])]));
}

#[test]
fn messages_are_appended() {
    let mut out = b"before".to_vec();
    parse_complete(&mut out);
    ready_for_query(b'I', &mut out);
    assert_eq!(out, b"before1\0\0\0\x04Z\0\0\0\x05I");
}

#[test]
fn codes_are_five_digits_or_capitals() {
    for code in SqlState::NAMED {
        assert_eq!(SqlState::parse(code.as_bytes()), Some(*code));
    }
    for bad in [&b""[..], b"0800", b"080061", b"08p01", b"08 01", b"08\xff01"] {
        assert_eq!(SqlState::parse(bad), None);
    }
    assert!(SqlState::ADMIN_SHUTDOWN.is_class(b"57"));
}
