//! First packets as bytes, and the `options` string.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::frontend;

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
    packet.extend_from_slice(&code.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

fn startup_of(packet: &[u8]) -> Startup {
    match first_packet(packet).unwrap().unwrap() {
        (FirstPacket::Startup(startup), used) => {
            assert_eq!(used, packet.len());
            startup
        }
        (other @ (FirstPacket::Ssl | FirstPacket::GssEnc | FirstPacket::Cancel(_)), _) => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(packet: &[u8], why: BadStartup, code: &str) {
    assert_eq!(first_packet(packet), Err(why.clone()));
    assert_eq!(why.sqlstate().as_str(), code);
    assert_eq!(why.report().severity.as_str(), "FATAL");
}

const V3: u32 = 3 << 16;

#[test]
fn a_startup_message_gives_its_parameters_in_order() {
    let startup = startup_of(&packet(V3 | 2, b"user\0ann\0database\0shop\0application_name\0a b\0\0"));
    assert_eq!(startup.version, ProtocolVersion::V3_2);
    let names: Vec<_> = startup.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["user", "database", "application_name"]);
    assert_eq!((startup.user(), startup.database()), ("ann", "shop"));
}

#[test]
fn the_database_defaults_to_the_user() {
    assert_eq!(startup_of(&packet(V3, b"user\0ann\0\0")).database(), "ann");
    assert_eq!(startup_of(&packet(V3, b"user\0ann\0database\0\0\0")).database(), "ann");
}

#[test]
fn the_last_of_two_equal_names_wins() {
    let startup = startup_of(&packet(V3, b"user\0ann\0user\0bob\0\0"));
    assert_eq!(startup.user(), "bob");
    assert_eq!(startup.parameter("User"), None);
}

#[test]
fn protocol_options_and_unknown_minors_are_left_to_the_login() {
    let startup = startup_of(&packet(V3 | 9999, b"_pq_.test_protocol_negotiation\0\0user\0ann\0\0"));
    assert_eq!(startup.version, ProtocolVersion { major: 3, minor: 9999 });
    assert_eq!(startup.protocol_options, ["_pq_.test_protocol_negotiation"]);
    assert_eq!(startup.parameters.len(), 1);
}

#[test]
fn requests_for_encryption_are_recognised() {
    assert_eq!(first_packet(&packet(80_877_103, b"")), Ok(Some((FirstPacket::Ssl, 8))));
    assert_eq!(first_packet(&packet(80_877_104, b"")), Ok(Some((FirstPacket::GssEnc, 8))));
    refused(&packet(80_877_103, b"x"), BadStartup::BadLength, "08P01");
}

#[test]
fn what_follows_a_request_is_left_in_the_buffer() {
    let mut buffer = packet(80_877_103, b"");
    buffer.extend_from_slice(b"\x16\x03\x01");
    assert_eq!(first_packet(&buffer), Ok(Some((FirstPacket::Ssl, 8))));
}

#[test]
fn cancel_keys_have_4_to_256_bytes() {
    for length in [4, 5, 32, 255, 256] {
        let secret = vec![7; length];
        let mut packet = Vec::new();
        frontend::cancel_request(42, &secret, &mut packet);
        let key = BackendKey { pid: 42, secret: SecretKey::new(&secret).unwrap() };
        assert_eq!(first_packet(&packet), Ok(Some((FirstPacket::Cancel(key), 12 + length))));
    }
    for length in [0, 3, 257] {
        let mut packet = Vec::new();
        frontend::cancel_request(42, &vec![7; length], &mut packet);
        refused(&packet, BadStartup::BadCancelKey, "08P01");
    }
    refused(&packet(CANCEL_CODE, b""), BadStartup::BadCancelKey, "08P01");
}

#[test]
fn cancel_secrets_compare_whole_and_print_nothing() {
    let key = |bytes: &[u8]| SecretKey::new(bytes).unwrap();
    assert_eq!(key(b"abcd"), key(b"abcd"));
    assert_ne!(key(b"abcd"), key(b"abce"));
    assert_ne!(key(b"abcd"), key(b"abcde"));
    assert_eq!(
        format!("{:?}", BackendKey { pid: 1, secret: key(b"abcd") }),
        "BackendKey { pid: 1, secret: SecretKey(..) }"
    );
}

#[test]
fn bad_packets_are_refused_with_their_code() {
    refused(b"\0\0\0\x07", BadStartup::BadLength, "08P01");
    refused(b"\0\0\x27\x11", BadStartup::TooLong, "08P01");
    refused(b"GET / HTTP/1.1\r\n", BadStartup::TooLong, "08P01");
    refused(b"\x16\x03\x01\x02\0", BadStartup::TooLong, "08P01");
    let v2 = ProtocolVersion { major: 2, minor: 0 };
    refused(&packet(2 << 16, b"x"), BadStartup::UnsupportedVersion(v2), "0A000");
    refused(&packet(1234 << 16 | 5681, b""), BadStartup::UnknownRequest, "08P01");
    refused(&packet(V3, b""), BadStartup::BadLayout, "08P01");
    refused(&packet(V3, b"user\0ann\0"), BadStartup::BadLayout, "08P01");
    refused(&packet(V3, b"user\0ann\0\0x"), BadStartup::BadLayout, "08P01");
    refused(&packet(V3, b"user\0\0"), BadStartup::BadLayout, "08P01");
    refused(&packet(V3, b"user\0ann"), BadStartup::BadLayout, "08P01");
    refused(&packet(V3, b"user\0\xff\0\0"), BadStartup::NotUtf8, "22021");
    refused(&packet(V3, b"\0"), BadStartup::NoUser, "28000");
    refused(&packet(V3, b"user\0\0\0"), BadStartup::NoUser, "28000");
}

#[test]
fn the_longest_packet_fits_and_the_next_does_not() {
    let fill = STARTUP_BYTES_MAX - 8 - b"user\0\0\0".len();
    let body = |length: usize| [b"user\0".as_slice(), &vec![b'a'; length], b"\0\0"].concat();
    assert_eq!(startup_of(&packet(V3, &body(fill))).user().len(), fill);
    refused(&packet(V3, &body(fill + 1)), BadStartup::TooLong, "08P01");
}

#[test]
fn a_bad_version_is_refused_before_the_rest_arrives() {
    let v4 = ProtocolVersion { major: 4, minor: 1 };
    refused(b"\0\0\x10\0\0\x04\0\x01", BadStartup::UnsupportedVersion(v4), "0A000");
    assert!(opens_with_tls(b"\x16\x03\x01"));
    assert!(!opens_with_tls(b"\0\0\0\x08"));
}

#[track_caller]
fn options(text: &str, expected: &[(&str, &str)]) {
    let owned: Vec<_> = expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(parse_options(text), Ok(owned), "{text:?}");
}

#[test]
fn options_come_in_three_spellings() {
    options("", &[]);
    options("  \t\n", &[]);
    options("-c geqo=off", &[("geqo", "off")]);
    options("-cgeqo=off", &[("geqo", "off")]);
    options("--geqo=off", &[("geqo", "off")]);
    options(" -c  a=1 --b=2\t-cc=3 ", &[("a", "1"), ("b", "2"), ("c", "3")]);
    options("--statement-timeout=5s", &[("statement_timeout", "5s")]);
    options("-c my.var=x=y", &[("my.var", "x=y")]);
    options("-c search_path=", &[("search_path", "")]);
    options("-c a=1 -c a=2", &[("a", "1"), ("a", "2")]);
}

#[test]
fn a_backslash_takes_the_next_character_as_it_is() {
    options(r"-c search_path=a,\ b", &[("search_path", "a, b")]);
    options(r"-c a=\\", &[("a", r"\")]);
    options(r"-c a=\x", &[("a", "x")]);
    options("-c a=b\\\tc", &[("a", "b\tc")]);
    options("-c a=ä\\ ö", &[("a", "ä ö")]);
    options(r"-c a=b\", &[("a", "b")]);
}

#[test]
fn other_options_are_refused_without_showing_values() {
    let unsupported = Err(BadOptions::UnsupportedSwitch);
    for text in ["-d 5", "-fs", "-B", "geqo=off", "-", r"\"] {
        assert_eq!(parse_options(text), unsupported, "{text:?}");
    }
    assert_eq!(parse_options("-c"), Err(BadOptions::NoValue("-c".into())));
    assert_eq!(parse_options("-c geqo"), Err(BadOptions::NoValue("geqo".into())));
    assert_eq!(parse_options("--geqo"), Err(BadOptions::NoValue("geqo".into())));
    assert_eq!(parse_options("--"), Err(BadOptions::NoValue(String::new())));
    assert_eq!(parse_options("-c =1"), Err(BadOptions::NoName));
    assert_eq!(BadOptions::NoName.sqlstate().as_str(), "42601");
}
