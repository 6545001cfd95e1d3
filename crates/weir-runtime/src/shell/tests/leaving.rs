//! A closed connection delivers its last message; an aborted one delivers nothing. Neither stays.

use super::super::Phase;
use super::*;

/// Answers with a long farewell and closes.
fn farewell(event: &Event, effects: &mut Effects) {
    if let Event::Received(from, _) = event {
        send(*from, &pattern(8 << 20), effects);
        ask(Effect::Close(*from), effects);
    }
}

#[test]
fn close_delivers_everything_first() {
    run(async {
        let mut world = World::new(farewell);
        let (_, mut stream) = world.connect().await;
        write(&mut stream, b"bye").await;
        assert_eq!(read_to_end(&mut stream).await, pattern(8 << 20));
        drop(stream);
        world.until(|shell| shell.conns.is_empty()).await;
        let Event::Received(..) = world.event().await else { panic!() };
        assert!(world.events.try_recv().is_err(), "the machine hears no more of what it has closed");
    });
}

#[test]
fn close_does_not_reset_a_client_that_is_still_sending() {
    run(async {
        let mut world = World::new(|event: &Event, effects: &mut Effects| {
            if let Event::Received(from, _) = event {
                send(*from, b"FATAL: enough", effects);
                ask(Effect::Close(*from), effects);
            }
        });
        let (_, mut stream) = world.connect().await;
        // Most of it is still unread when the machine closes.
        write(&mut stream, &pattern(1 << 20)).await;
        assert_eq!(read_to_end(&mut stream).await, b"FATAL: enough");
    });
}

#[test]
fn the_name_of_a_closed_connection_is_free_at_once() {
    run(async {
        let mut world = World::new(farewell);
        let (client, mut stream) = world.connect().await;
        write(&mut stream, b"bye").await;
        world.bytes_from(ConnId::Client(client)).await;
        assert!(world.shell.borrow().names.is_empty());
        assert_eq!(world.shell.borrow().conns.len(), 1);
        assert_eq!(read_to_end(&mut stream).await.len(), 8 << 20);
    });
}

#[test]
fn a_client_that_does_not_take_its_farewell_is_dropped() {
    run(async {
        let mut world = World::new(farewell);
        let (client, mut stream) = world.connect().await;
        write(&mut stream, b"bye").await;
        world.bytes_from(ConnId::Client(client)).await;
        let_the_reactor_run().await;
        world.shell.borrow_mut().tick();
        assert_eq!(world.shell.borrow().conns.len(), 1, "it still has time");
        for (_, conn) in &mut world.shell.borrow_mut().conns {
            assert!(matches!(conn.phase, Phase::Flushing(_)));
            conn.phase = Phase::Flushing(Instant::now());
        }
        world.shell.borrow_mut().tick();
        world.until(|shell| shell.conns.is_empty()).await;
        assert!(world.shell.borrow().leaving.is_empty());
    });
}

#[test]
fn abort_drops_what_was_not_sent() {
    run(async {
        let mut world = World::new(|event: &Event, effects: &mut Effects| {
            if let Event::Received(from, _) = event {
                send(*from, b"too late", effects);
                ask(Effect::Abort(*from), effects);
            }
        });
        let (_, mut stream) = world.connect().await;
        write(&mut stream, b"x").await;
        assert_eq!(read_to_end(&mut stream).await, b"");
        world.until(|shell| shell.conns.is_empty() && shell.names.is_empty()).await;
    });
}

#[test]
fn a_drained_shell_accepts_nobody_and_says_so() {
    run(async {
        let mut world = World::new(echo);
        let (_, mut stream) = world.connect().await;
        assert!(!world.shell.borrow().is_drained());
        world.shell.borrow_mut().order(Order::Drain);
        let_the_reactor_run().await;
        assert!(TcpStream::connect(world.address).await.is_err());
        assert!(world.shell.borrow().is_drained());
        write(&mut stream, b"served").await;
        assert_eq!(read_exactly(&mut stream, 6).await, b"served");
    });
}

#[test]
fn a_shell_that_hangs_up_leaves_no_socket() {
    run(async {
        let mut world = World::new(echo);
        let (_, mut stream) = world.connect().await;
        world.shell.borrow_mut().hang_up();
        assert_eq!(read_to_end(&mut stream).await, b"");
        world.until(|shell| shell.conns.is_empty()).await;
    });
}
