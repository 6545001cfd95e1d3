//! What no honest peer sends. Nothing may panic, wait for ever, or reach somebody it is not for.

use proptest::prelude::*;
use weir_session::Mode;

use crate::stage::{Stage, scene};
use crate::words::*;

/// Sent by client 0, this ends its connection with a protocol violation.
#[track_caller]
fn violates(bytes: impl AsRef<[u8]>) {
    for piece in [usize::MAX, 1, 5] {
        let mut stage = Stage::new(piece);
        stage.sends(bytes.as_ref());
        stage.ended(0, "08P01");
        let mut stage = Stage::new(piece);
        stage.begins();
        stage.sends(bytes.as_ref());
        stage.ended(0, "08P01");
        assert!(!stage.servers[0].alive, "its server connection is not at rest");
    }
}

#[test]
fn broken_messages_from_clients() {
    let broken: [&[u8]; 15] = [
        b"Q\0\0\0\x03",
        b"Q\xff\xff\xff\xff",
        b"z\0\0\0\x04",
        b"p\0\0\0\x05x",
        b"P\0\0\0\x04",
        b"P\0\0\0\x06\0\0",
        b"P\0\0\0\x06xx",
        b"B\0\0\0\x04",
        b"B\0\0\0\x06ab",
        b"D\0\0\0\x04",
        b"D\0\0\0\x06X\0",
        b"D\0\x01\0\x05S",
        b"E\0\0\0\x05\0",
        b"E\0\x01\0\x05\0",
        b"C\0\0\0\x05S",
    ];
    for bytes in broken {
        violates(bytes);
    }
    violates(raw(b'B', &[b'x'; 20_000]));
}

#[test]
fn a_sync_with_a_body_is_no_sync() {
    let mut stage = Stage::new(usize::MAX);
    stage.begins();
    stage.sends(raw(b'S', b"body"));
    stage.ended(0, "08P01");
    // Without a server connection there is nothing to break.
    let mut stage = Stage::new(3);
    stage.sends([raw(b'S', &[0; 100]), sync()].concat());
    stage.client_got("Z:I  Z:I");
}

#[test]
fn an_unfinished_message_takes_no_server_connection() {
    for message in
        [query("select 1"), parse("s", "select 1"), bind("s"), execute(), describe("s"), close("s")]
    {
        for end in 0..message.len() {
            let mut stage = Stage::new(usize::MAX);
            stage.sends(&message[..end]);
            stage.is_attached(false);
        }
    }
}

#[test]
fn replies_that_answer_nothing() {
    let cases = [
        (query("select 1"), "1", "ParseComplete"),
        (query("select 1"), "2", "BindComplete"),
        (query("select 1"), "3", "CloseComplete"),
        (query("select 1"), "n", "RowDescription"),
        (query("select 1"), "s", "CommandComplete"),
        (query("select 1"), "Z:x", "ReadyForQuery with an unknown status"),
        (unnamed("select 1"), "2", "BindComplete"),
        (unnamed("select 1"), "Z:I", "ReadyForQuery"),
        (unnamed("select 1"), "1  1", "ParseComplete"),
        (unnamed("select 1"), "1  2  T:x", "RowDescription"),
        (unnamed("select 1"), "1  2  C:SELECT 1  C:SELECT 1", "CommandComplete"),
    ];
    for (request, reply, what) in cases {
        let mut stage = Stage::new(usize::MAX);
        stage.sends(request);
        stage.replies(reply);
        stage.ended(0, what);
        assert!(!stage.servers[0].alive, "{reply}");
    }
}

#[test]
fn broken_messages_from_servers() {
    let cases: [(&[u8], &str); 6] = [
        (b"R\0\0\0\x08\0\0\0\0", "a login message after the login"),
        (b"K\0\0\0\x08\0\0\0\0", "a login message after the login"),
        (b"?\0\0\0\x04", "an unknown message type"),
        (b"D\0\0\0\x03", "a message of impossible length"),
        (b"D\xff\xff\xff\xff", "a message of impossible length"),
        (b"Z\0\0\0\x04", "ReadyForQuery with an unknown status"),
    ];
    for (bytes, what) in cases {
        scene(|stage| {
            stage.sends(query("select 1"));
            stage.server_says(0, bytes);
            stage.ended(0, what);
            assert!(!stage.servers[0].alive);
        });
    }
}

#[test]
fn a_reply_while_nothing_is_asked() {
    scene(|stage| {
        stage.begins();
        stage.replies("D:1");
        stage.ended(0, "a reply that nothing asked for");
    });
    for reply in ["D:1", "Z:I", "E:57P01", "FATAL:57P01"] {
        scene(|stage| {
            stage.replies(reply);
            assert!(!stage.servers[0].alive, "idle, and it said {reply}");
        });
    }
}

/// Frames that are whole, cut short, or nonsense.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let tag = proptest::sample::select(b"QPBDECSHFdcfX123nItTDCZESNGHVARK?".to_vec());
    let body = prop_oneof![
        Just(b"I".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"S\0".to_vec()),
        Just(b"\0select 1\0\0\0".to_vec()),
        Just(b"s\0select 1\0\0\0".to_vec()),
        Just(b"\0s\0\0\0\0\0\0\0".to_vec()),
        Just(b"\0\0\0\0\0\0\0\0".to_vec()),
        Just(b"\0\0\0\0\0".to_vec()),
        Just(b"SERROR\0C57P01\0Mx\0\0".to_vec()),
        Just(b"SWARNING\0C57P01\0Mx\0\0".to_vec()),
        Just(b"COMMIT\0".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    (tag, body, -1..2i32).prop_map(|(tag, body, off)| {
        let mut frame = raw(tag, &body);
        let declared = i32::try_from(body.len()).unwrap_or(0) + 4 + if off == 1 { off } else { 0 };
        frame[1..5].copy_from_slice(&declared.to_be_bytes());
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 5 } else { 400 }))]

    /// Whatever both sides say, in whatever pieces, and whenever the server connection dies: no panic, no endless turn, and
    /// no connection in unknown state for the next client (the stage asserts all three).
    #[test]
    fn nonsense_from_both_sides(
        talk in proptest::collection::vec((0..10u8, anything()), 0..40),
        piece in 1..40usize,
        mode in proptest::sample::select(vec![Mode::Session, Mode::Transaction, Mode::Statement]),
    ) {
        let mut stage = Stage::new(piece);
        stage.recast(mode);
        stage.rules.shares_statements = true;
        for (who, bytes) in talk {
            match who {
                0..6 => stage.sends(&bytes),
                6..9 if stage.servers[0].alive => stage.server_says(0, &bytes),
                9 if stage.servers[0].alive => stage.dies(0),
                _ => {}
            }
        }
    }
}
