//! Client messages as bytes. Independent peers check the rest in `tests/pgwire.rs`.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::read::{BindNames, NAME_BYTES_MAX};
use super::*;
use crate::frame::{HEADER_BYTES, MESSAGE_BYTES_MAX, peek};

#[test]
fn the_types_of_a_parse_pass_through_raw() {
    let mut out = Vec::new();
    parse(b"s1", b"SELECT $1", b"\0\x01\0\0\0\x17", &mut out);
    let parsed = read::parse(&out[HEADER_BYTES..]).unwrap();
    assert_eq!(
        (parsed.name, parsed.sql, parsed.types_raw),
        (&b"s1"[..], &b"SELECT $1"[..], &b"\0\x01\0\0\0\x17"[..])
    );
    assert!(read::parse(b"s1\0SELECT\0\0\x01\0\0\0").is_err());
    assert!(read::parse(b"s1\0SELECT\0\0\0x").is_err());
    assert!(read::parse(b"s1\0SELECT\0").is_err());
}

#[test]
fn the_names_of_a_bind_are_read_as_soon_as_they_are_there() {
    let mut out = Vec::new();
    bind_text(b"p", b"stmt", &[Some(b"1"), None], &mut out);
    let body = &out[HEADER_BYTES..];
    let names = BindNames { portal: b"p", statement: b"stmt", end: 7 };
    for length in 0..7 {
        assert_eq!(read::bind_names(&body[..length]), Ok(None));
    }
    for length in 7..=body.len() {
        assert_eq!(read::bind_names(&body[..length]), Ok(Some(names)));
    }
}

#[test]
fn a_bind_gets_another_name_without_its_values() {
    let (mut old, mut expected, mut renamed) = (Vec::new(), Vec::new(), Vec::new());
    bind_text(b"", b"mine", &[Some(b"value")], &mut old);
    bind_text(b"", b"weir_17", &[Some(b"value")], &mut expected);
    let body = &old[HEADER_BYTES..];
    let names = read::bind_names(body).unwrap().unwrap();
    let rest = &body[names.end..];
    bind_head(names.portal, b"weir_17", rest.len(), &mut renamed);
    renamed.extend_from_slice(rest);
    assert_eq!(renamed, expected);
    assert_eq!(peek(&renamed, MESSAGE_BYTES_MAX).unwrap().unwrap().total, renamed.len());
}

#[test]
fn a_name_without_end_is_refused_at_its_limit() {
    let fits = [vec![b'a'; NAME_BYTES_MAX], vec![0], vec![b'b'; NAME_BYTES_MAX], vec![0]].concat();
    assert_eq!(read::bind_names(&fits).unwrap().unwrap().end, fits.len());
    assert_eq!(read::bind_names(&vec![b'a'; NAME_BYTES_MAX]), Ok(None));
    assert!(read::bind_names(&vec![b'a'; NAME_BYTES_MAX + 1]).is_err());
    assert!(read::bind_names(&[vec![0], vec![b'a'; NAME_BYTES_MAX + 1]].concat()).is_err());
}

#[test]
fn targets_are_statements_or_portals() {
    assert_eq!(read::describe(b"Sx\0"), Ok((TargetKind::Statement, &b"x"[..])));
    assert_eq!(read::close(b"P\0"), Ok((TargetKind::Portal, &b""[..])));
    for bad in [&b""[..], b"Xx\0", b"Sx", b"Sx\0y"] {
        assert!(read::describe(bad).is_err());
        assert!(read::close(bad).is_err());
    }
}

#[test]
fn texts_without_end_or_with_more_behind_are_refused() {
    assert_eq!(read::query(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
    for bad in [&b""[..], b"SELECT 1", b"SELECT 1\0;", b"\0\0"] {
        assert!(read::query(bad).is_err());
        assert!(read::password(bad).is_err());
    }
    assert!(read::execute(b"p\0\0\0\0").is_err());
}

#[test]
fn a_sasl_start_may_have_no_data() {
    assert_eq!(read::sasl_initial_response(b"M\0\xff\xff\xff\xff"), Ok((&b"M"[..], None)));
    assert_eq!(read::sasl_initial_response(b"M\0\0\0\0\0"), Ok((&b"M"[..], Some(&b""[..]))));
    assert!(read::sasl_initial_response(b"M\0\0\0\0\x02x").is_err());
    assert!(read::sasl_initial_response(b"M\0\xff\xff\xff\xffx").is_err());
}

#[test]
fn a_startup_leaves_out_names_that_would_end_the_list() {
    let mut out = Vec::new();
    startup(ProtocolVersion::V3_0, &[("user", "a"), ("", "x"), ("\0", "y"), ("b", "c")], &mut out);
    assert_eq!(out, b"\0\0\0\x14\0\x03\0\0user\0a\0b\0c\0\0");
}
