//! Clients that begin with TLS without asking for it (libpq's `sslnegotiation=direct`).

use weir_config::TlsMode;

use super::*;
use crate::tls::tests::{Authority, both_sides};

#[test]
fn a_handshake_may_begin_with_what_was_read_in_the_clear() {
    run(async {
        let authority = Authority::new();
        let bundle = both_sides(TlsMode::Require, TlsMode::VerifyFull, &authority, "localhost");
        let mut tls = bundle.towards_servers(None).connect("localhost", loopback().ip()).unwrap();
        let mut world = World::with_tls(bundle, |event: &Event, effects: &mut Effects| {
            let Event::Received(from @ ConnId::Client(client), bytes) = event else { return };
            if weir_protocol::startup::opens_with_tls(bytes) {
                effects.bytes.extend_from_slice(bytes);
                let flight = effects.bytes.len() - bytes.len()..effects.bytes.len();
                ask(Effect::BeginTls(*client, flight), effects);
            } else {
                send(*from, bytes, effects);
            }
        });
        let (client, mut stream) = world.connect().await;
        let (mut cipher, mut plain, mut buffer) = (Vec::new(), Vec::new(), vec![0; 20_000]);
        tls.encrypt(b"hello", &mut cipher);
        while plain.len() < 5 {
            tls.take_records(&mut cipher);
            write(&mut stream, &cipher).await;
            cipher.clear();
            let length = stream.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "the handshake failed");
            tls.decrypt(&buffer[..length], &mut plain).unwrap();
        }
        assert_eq!(plain, b"hello");
        let first = world.bytes_from(ConnId::Client(client)).await;
        assert!(weir_protocol::startup::opens_with_tls(&first));
        let event = world.event().await;
        assert!(matches!(&event, Event::Encrypted(who, _) if *who == client), "{event:?}");
        assert_eq!(world.bytes_from(ConnId::Client(client)).await, b"hello");
    });
}

#[test]
fn what_only_looks_like_a_handshake_ends_the_connection() {
    run(async {
        let authority = Authority::new();
        let bundle = both_sides(TlsMode::Require, TlsMode::Require, &authority, "localhost");
        let mut world = World::with_tls(bundle, |event: &Event, effects: &mut Effects| {
            if let Event::Received(ConnId::Client(client), bytes) = event {
                effects.bytes.extend_from_slice(bytes);
                ask(Effect::BeginTls(*client, 0..bytes.len()), effects);
            }
        });
        let (client, mut stream) = world.connect().await;
        write(&mut stream, b"\x16\x03\x01\0\x05nope!").await;
        world.bytes_from(ConnId::Client(client)).await;
        world.end_of(ConnId::Client(client)).await;
    });
}
