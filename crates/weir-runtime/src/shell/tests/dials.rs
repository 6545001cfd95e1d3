//! Dialing, encrypted and not, given up and refused; and the client's side of TLS, which answers here.

use tokio::net::{TcpListener, UnixListener};
use weir_config::TlsMode;
use weir_discovery::Address;
use weir_worker::{CancelId, Encryption};

use super::*;
use crate::tls::tests::{Authority, both_sides, towards_servers};

fn address_of(listener: &TcpListener) -> Address {
    Address { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() }
}

/// Dials when told to, aborts the dial when told again.
fn dial_then_abort(address: Address) -> impl FnMut(&Event, &mut Effects) {
    let mut orders = 0;
    move |event, effects| {
        if let Event::Ordered = event {
            orders += 1;
            let effect = if orders == 1 {
                Effect::Dial(SERVER, address.clone(), Encryption::default())
            } else {
                Effect::Abort(SERVER)
            };
            ask(effect, effects);
        }
    }
}

async fn dial_outcome(tls: TlsBundle, address: Address) -> Result<Dialed, DialError> {
    let mut world = World::with_tls(tls, dial_then_abort(address));
    world.shell.borrow_mut().order(Order::Resume(None));
    loop {
        if let Event::Dialed(SERVER, result) = world.event().await {
            return result;
        }
    }
}

/// A server that answers SSLRequest with these bytes and then keeps the connection.
async fn answers(answer: &'static [u8]) -> Address {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = address_of(&listener);
    task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(read_exactly(&mut stream, 8).await, [0, 0, 0, 8, 4, 210, 22, 47]);
        write(&mut stream, answer).await;
        read_to_end(&mut stream).await
    });
    address
}

#[test]
fn a_dialed_server_is_read_and_written() {
    run(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let mut world = World::new(dial_then_abort(address_of(&listener)));
        world.shell.borrow_mut().order(Order::Resume(None));
        let (mut server, from) = listener.accept().await.unwrap();
        assert!(matches!(world.event().await, Event::Ordered));
        let Event::Dialed(SERVER, Ok(dialed)) = world.event().await else { panic!() };
        assert_eq!(dialed.local, Some(from));
        assert_eq!(dialed.peer, Some(listener.local_addr().unwrap()));
        assert!(dialed.tls.is_none());
        write(&mut server, b"hello").await;
        assert_eq!(world.bytes_from(SERVER).await, b"hello");
        drop(server);
        world.end_of(SERVER).await;
    });
}

/// Else a COMMIT could reach an old leader long after its connection was given up: when the network is mended.
#[test]
fn what_has_not_arrived_at_an_aborted_server_never_does() {
    run(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let mut dials = dial_then_abort(address_of(&listener));
        let mut world = World::new(move |event: &Event, effects: &mut Effects| {
            dials(event, effects);
            if let Event::Dialed(conn, Ok(_)) = event {
                send(*conn, &vec![b'c'; 1 << 24], effects);
            }
        });
        world.shell.borrow_mut().order(Order::Resume(None));
        let (mut server, _) = listener.accept().await.unwrap();
        while !matches!(world.event().await, Event::Dialed(..)) {}
        world.shell.borrow_mut().order(Order::Resume(None));
        let mut arrived = Vec::new();
        let end = server.read_to_end(&mut arrived).await.map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "behind {} bytes", arrived.len());
    });
}

#[test]
fn a_unix_socket_is_found_by_its_directory() {
    run(async {
        let directory = std::env::temp_dir().join(format!("weir-dial-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(".s.PGSQL.5432");
        let listener = UnixListener::bind(&path).unwrap();
        let address = Address { host: directory.display().to_string(), port: 5432 };
        // Whatever the mode: no TLS on Unix sockets.
        let dialing = task::spawn_local(dial_outcome(towards_servers(TlsMode::Require, None), address));
        let (_server, _) = listener.accept().await.unwrap();
        let dialed = dialing.await.unwrap().unwrap();
        assert!(dialed.peer.is_none() && dialed.tls.is_none());
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn nobody_there_is_refused() {
    run(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = address_of(&listener);
        drop(listener);
        let Err(DialError::Refused(why)) = dial_outcome(no_tls(), address.clone()).await else { panic!() };
        assert!(why.contains(&address.to_string()), "{why}");
    });
}

#[test]
fn a_name_without_address_is_told_apart() {
    run(async {
        let address = Address { host: "no-such-host.invalid".to_owned(), port: 1 };
        assert!(matches!(dial_outcome(no_tls(), address).await, Err(DialError::NoAddress(_))));
    });
}

#[test]
fn an_aborted_dial_ends_and_is_never_reported() {
    run(async {
        // Accepts, but never answers SSLRequest.
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = address_of(&listener);
        let mut world = World::with_tls(towards_servers(TlsMode::Require, None), dial_then_abort(address));
        world.shell.borrow_mut().order(Order::Resume(None));
        let (mut server, _) = listener.accept().await.unwrap();
        read_exactly(&mut server, 8).await;
        world.shell.borrow_mut().order(Order::Resume(None));
        assert_eq!(read_to_end(&mut server).await, b"");
        assert!(world.shell.borrow().dialing.is_empty());
        for _ in 0..2 {
            assert!(matches!(world.event().await, Event::Ordered));
        }
        assert!(world.events.try_recv().is_err());
    });
}

#[test]
fn prefer_goes_on_in_the_clear_when_the_server_declines() {
    run(async {
        let dialed = dial_outcome(towards_servers(TlsMode::Prefer, None), answers(b"N").await).await.unwrap();
        assert!(dialed.tls.is_none());
    });
}

#[test]
fn require_does_not() {
    run(async {
        let outcome = dial_outcome(towards_servers(TlsMode::Require, None), answers(b"N").await).await;
        assert!(matches!(outcome, Err(DialError::Tls(_) | DialError::Untrusted(_))));
    });
}

#[test]
fn bytes_behind_the_answer_to_sslrequest_are_refused() {
    run(async {
        for (mode, answer) in [(TlsMode::Prefer, b"NE".as_slice()), (TlsMode::Require, b"SE")] {
            let outcome = dial_outcome(towards_servers(mode, None), answers(answer).await).await;
            assert!(matches!(outcome, Err(DialError::Tls(_) | DialError::Untrusted(_))), "{outcome:?}");
        }
    });
}

#[test]
fn a_cancel_request_goes_to_the_address_that_is_given_whatever_the_name_says() {
    run(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = Address { host: "nobody.invalid".to_owned(), ..address_of(&listener) };
        let remote = Some(loopback().ip());
        let mut world = World::new(move |event: &Event, effects: &mut Effects| {
            if let Event::Ordered = event {
                ask(Effect::DialCancel(CancelId(0), address.clone(), remote, Encryption::default()), effects);
            }
        });
        world.shell.borrow_mut().order(Order::Resume(None));
        assert!(matches!(world.event().await, Event::Ordered));
        let Event::Dialed(ConnId::Cancel(CancelId(0)), Ok(_)) = world.event().await else { panic!() };
    });
}

#[test]
fn another_answer_is_no_postgresql() {
    run(async {
        let outcome = dial_outcome(towards_servers(TlsMode::Prefer, None), answers(b"H").await).await;
        assert!(matches!(outcome, Err(DialError::Tls(_) | DialError::Untrusted(_))));
    });
}

/// The same shell plays both ends: it dials itself, answers SSLRequest as weir answers clients, then echoes.
async fn handshake_with_itself(
    tls: TlsBundle,
    host: &'static str,
) -> (Result<Dialed, DialError>, Vec<Event>) {
    let port = Rc::new(RefCell::new(0));
    let mut world = World::with_tls(tls, {
        let port = Rc::clone(&port);
        move |event: &Event, effects: &mut Effects| match event {
            Event::Ordered => {
                let address = Address { host: host.to_owned(), port: *port.borrow() };
                ask(Effect::Dial(SERVER, address, Encryption::default()), effects);
            }
            Event::Received(ConnId::Client(client), bytes)
                if bytes.len() == 8 && bytes[4..] == [4, 210, 22, 47] =>
            {
                send(ConnId::Client(*client), b"S", effects);
                ask(Effect::StartTls(*client), effects);
            }
            Event::Received(from @ ConnId::Client(_), bytes) => {
                send(*from, bytes, effects);
                ask(Effect::Close(*from), effects);
            }
            Event::Dialed(SERVER, Ok(_)) => send(SERVER, &pattern(3 << 20), effects),
            Event::Accepted(_)
            | Event::Received(..)
            | Event::Closed(_)
            | Event::Encrypted(..)
            | Event::Dialed(..) => {}
        }
    });
    *port.borrow_mut() = world.address.port();
    world.shell.borrow_mut().order(Order::Resume(None));
    let mut events = Vec::new();
    loop {
        let event = world.event().await;
        if let Event::Dialed(SERVER, result) = &event {
            let result = result.clone();
            if result.is_ok() {
                collect_until_end(&mut world, &mut events).await;
            }
            return (result, events);
        }
        events.push(event);
    }
}

async fn collect_until_end<S: FnMut(&Event, &mut Effects) + 'static>(
    world: &mut World<S>,
    events: &mut Vec<Event>,
) {
    loop {
        let event = world.event().await;
        let ended = matches!(event, Event::Closed(SERVER));
        events.push(event);
        if ended {
            return;
        }
    }
}

#[test]
fn both_sides_agree_on_tls_and_bytes_pass() {
    run(async {
        let authority = Authority::new();
        let bundle = both_sides(TlsMode::Require, TlsMode::Require, &authority, "localhost");
        let (result, events) = handshake_with_itself(bundle, "127.0.0.1").await;
        let dialed = result.unwrap();
        assert_eq!(dialed.tls.as_deref(), Some("TLSv1.3/TLS_AES_256_GCM_SHA384"));
        assert!(dialed.end_point.is_some());
        let encrypted = events.iter().any(|event| {
            matches!(event, Event::Encrypted(ClientId(0), how) if how == "TLSv1.3/TLS_AES_256_GCM_SHA384")
        });
        assert!(encrypted);
        let back: Vec<u8> = events
            .iter()
            .filter_map(|event| {
                if let Event::Received(SERVER, bytes) = event { Some(bytes.as_slice()) } else { None }
            })
            .flatten()
            .copied()
            .collect();
        // The first piece is echoed, then the connection is closed with all that was sent.
        assert!(!back.is_empty());
        assert_eq!(back, pattern(back.len()));
    });
}

#[test]
fn verify_ca_forgives_the_name_and_verify_full_does_not() {
    run(async {
        let authority = Authority::new();
        let check = async |mode, host, name: &'static str| {
            let bundle = both_sides(TlsMode::Require, mode, &authority, name);
            handshake_with_itself(bundle, host).await.0
        };
        assert!(check(TlsMode::VerifyCa, "127.0.0.1", "elsewhere.example").await.is_ok());
        assert!(check(TlsMode::VerifyFull, "localhost", "localhost").await.is_ok());
        let refused = check(TlsMode::VerifyFull, "localhost", "elsewhere.example").await;
        assert!(matches!(refused, Err(DialError::Tls(_) | DialError::Untrusted(_))), "{refused:?}");
    });
}

#[test]
fn a_self_signed_server_is_trusted_by_its_own_certificate() {
    run(async {
        let check = async |mode, trusted: &Authority, shown: &Authority, host| {
            handshake_with_itself(trusted.trusting_itself_shown(mode, shown), host).await.0
        };
        let (one, other) = (Authority::new(), Authority::new());
        for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
            assert!(check(mode, &one, &one, "localhost").await.is_ok(), "{mode:?}");
            assert!(check(mode, &one, &other, "localhost").await.is_err(), "{mode:?}");
        }
        assert!(check(TlsMode::VerifyCa, &one, &one, "127.0.0.1").await.is_ok());
        assert!(check(TlsMode::VerifyFull, &one, &one, "127.0.0.1").await.is_err());
    });
}

#[test]
fn a_stranger_s_certificate_is_refused() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
            let bundle = ours.trusting_but_showing(mode, &theirs, "localhost");
            let refused = handshake_with_itself(bundle, "localhost").await.0;
            assert!(
                matches!(refused, Err(DialError::Tls(_) | DialError::Untrusted(_))),
                "{mode:?}: {refused:?}"
            );
        }
    });
}

#[test]
fn a_client_without_a_certificate_is_refused_when_one_is_wanted() {
    run(async {
        let authority = Authority::new();
        let bundle = both_sides(TlsMode::VerifyCa, TlsMode::Require, &authority, "localhost");
        let (result, events) = handshake_with_itself(bundle, "localhost").await;
        // With TLS 1.3 the dialing side learns of the refusal only after its own handshake.
        assert!(result.is_err() || events.iter().any(|event| matches!(event, Event::Closed(SERVER))));
        assert!(!events.iter().any(|event| matches!(event, Event::Encrypted(..))));
    });
}
