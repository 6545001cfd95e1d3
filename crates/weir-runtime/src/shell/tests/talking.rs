//! Bytes arrive whole and in order, however little the kernel takes at a time.

use super::*;

#[test]
fn bytes_reach_the_machine_and_its_answer_the_client() {
    run(async {
        let mut world = World::new(echo);
        let (client, mut stream) = world.connect().await;
        write(&mut stream, b"hello").await;
        assert_eq!(world.bytes_from(ConnId::Client(client)).await, b"hello");
        assert_eq!(read_exactly(&mut stream, 5).await, b"hello");
    });
}

#[test]
fn an_answer_larger_than_the_kernel_takes_arrives_in_order() {
    run(async {
        let big = pattern(24 << 20);
        let expected = big.clone();
        let mut world = World::new(move |event: &Event, effects: &mut Effects| {
            if let Event::Received(from, bytes) = event {
                send(*from, if bytes == b"big" { &big } else { bytes }, effects);
            }
        });
        let (_, mut stream) = world.connect().await;
        write(&mut stream, b"big").await;
        world.until(|shell| shell.conns.iter().any(|(_, conn)| conn.full)).await;
        assert_eq!(read_exactly(&mut stream, expected.len()).await, expected);
        write(&mut stream, b"tail").await;
        assert_eq!(read_exactly(&mut stream, 4).await, b"tail");
        world.until(|shell| shell.conns.iter().all(|(_, conn)| conn.out.is_empty() && !conn.full)).await;
    });
}

#[test]
fn sends_of_one_turn_keep_their_order_with_others_between_them() {
    run(async {
        let mut world = World::new(|event: &Event, effects: &mut Effects| {
            if let Event::Received(_, bytes) = event {
                let (one, two) = (ConnId::Client(ClientId(0)), ConnId::Client(ClientId(1)));
                for byte in bytes {
                    send(one, &[*byte], effects);
                    send(two, &[byte.to_ascii_uppercase()], effects);
                }
            }
        });
        let (_, mut one) = world.connect().await;
        let (_, mut two) = world.connect().await;
        write(&mut one, b"abcdefgh").await;
        assert_eq!(read_exactly(&mut one, 8).await, b"abcdefgh");
        assert_eq!(read_exactly(&mut two, 8).await, b"ABCDEFGH");
    });
}

#[test]
fn the_end_of_a_client_is_told_once_and_its_memory_goes() {
    run(async {
        let mut world = World::new(echo);
        let (client, stream) = world.connect().await;
        drop(stream);
        world.end_of(ConnId::Client(client)).await;
        world.until(|shell| shell.conns.is_empty() && shell.names.is_empty()).await;
        assert!(world.events.try_recv().is_err());
    });
}

#[test]
fn what_was_read_before_a_reset_is_not_lost_to_a_failing_write() {
    run(async {
        // The machine writes to a peer that has answered and gone; its answer has to come first, then the end.
        let mut world = World::new(|event: &Event, effects: &mut Effects| {
            if let Event::Ordered = event {
                send(ConnId::Client(ClientId(0)), &pattern(1 << 20), effects);
            }
        });
        let (client, mut stream) = world.connect().await;
        write(&mut stream, b"last words").await;
        stream.set_zero_linger().unwrap();
        drop(stream);
        world.shell.borrow_mut().order(Order::Resume(None));
        assert!(matches!(world.event().await, Event::Ordered));
        // A reset may overtake the bytes: TCP promises no more.
        let mut event = world.event().await;
        if let Event::Received(_, bytes) = &event {
            assert_eq!(bytes, b"last words");
            event = world.event().await;
        }
        assert!(matches!(event, Event::Closed(ended) if ended == ConnId::Client(client)), "{event:?}");
    });
}

#[test]
fn questions_wait_for_control_and_evidence_does_not() {
    run(async {
        let address = weir_discovery::Address { host: "a".to_owned(), port: 1 };
        let mut world = World::new(move |event: &Event, effects: &mut Effects| {
            if let Event::Ordered = event {
                let question = |sql: &[u8]| {
                    Effect::Console(weir_worker::ConsoleRequest {
                        client: ClientId(0),
                        sql: sql.to_vec(),
                        admin: false,
                    })
                };
                ask(question(b"first"), effects);
                ask(question(b"second"), effects);
                let evidence = weir_discovery::SessionEvidence::Lost { address: address.clone() };
                ask(Effect::Evidence(evidence), effects);
            }
        });
        world.shell.borrow_mut().order(Order::Resume(None));
        for expected in [b"first".as_slice(), b"second"] {
            let report = world.reports.recv().await.unwrap();
            let Report::Console { worker: 0, request } = report else { panic!("{report:?}") };
            assert_eq!(request.sql, expected);
            world.shell.borrow_mut().tick();
        }
        assert!(world.reports.try_recv().is_err());
    });
}
