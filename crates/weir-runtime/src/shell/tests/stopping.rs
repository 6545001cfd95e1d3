//! A connection that the machine has stopped reading still tells its end, and loses nothing.

use super::*;

/// Stops whoever says `stop`; an order lets everybody go on.
fn stop_on_demand(event: &Event, effects: &mut Effects) {
    if let Event::Received(from, bytes) = event
        && bytes.starts_with(b"stop")
    {
        ask(Effect::StopReading(*from), effects);
    }
    if let Event::Ordered = event {
        ask(Effect::ReadAgain(ConnId::Client(ClientId(0))), effects);
    }
}

async fn stopped(world: &mut World<fn(&Event, &mut Effects)>) -> (ConnId, TcpStream) {
    let (client, mut stream) = world.connect().await;
    let conn = ConnId::Client(client);
    write(&mut stream, b"stop").await;
    world.bytes_from(conn).await;
    world.until(|shell| shell.conns.iter().all(|(_, conn)| conn.unsure)).await;
    (conn, stream)
}

fn world() -> World<fn(&Event, &mut Effects)> {
    World::new(stop_on_demand)
}

#[test]
fn the_end_is_noticed_behind_unread_bytes() {
    run(async {
        let mut world = world();
        let (conn, mut stream) = stopped(&mut world).await;
        write(&mut stream, b"never read").await;
        let_the_reactor_run().await;
        drop(stream);
        world.end_of(conn).await;
    });
}

#[test]
fn a_reset_is_noticed() {
    run(async {
        let mut world = world();
        let (conn, stream) = stopped(&mut world).await;
        stream.set_zero_linger().unwrap();
        drop(stream);
        world.end_of(conn).await;
    });
}

#[test]
fn bytes_that_came_meanwhile_are_read_afterwards() {
    run(async {
        let mut world = world();
        let (conn, mut stream) = stopped(&mut world).await;
        for piece in [b"one ", b"two "] {
            write(&mut stream, piece).await;
            let_the_reactor_run().await;
        }
        assert!(world.events.try_recv().is_err());
        world.shell.borrow_mut().order(Order::Resume(None));
        assert!(matches!(world.event().await, Event::Ordered));
        assert_eq!(world.bytes_from(conn).await, b"one two ");
        // From here on the reactor is believed again.
        write(&mut stream, b"three").await;
        assert_eq!(world.bytes_from(conn).await, b"three");
        drop(stream);
        world.end_of(conn).await;
    });
}

#[test]
fn more_than_one_buffer_is_read_afterwards() {
    run(async {
        let mut world = world();
        let (conn, mut stream) = stopped(&mut world).await;
        let all = pattern(300_000);
        let sending = task::spawn_local({
            let all = all.clone();
            async move {
                stream.write_all(&all).await.unwrap();
                stream
            }
        });
        let_the_reactor_run().await;
        world.shell.borrow_mut().order(Order::Resume(None));
        assert!(matches!(world.event().await, Event::Ordered));
        let mut read = Vec::new();
        while read.len() < all.len() {
            read.extend(world.bytes_from(conn).await);
        }
        assert_eq!(read, all);
        drop(sending.await.unwrap());
        world.end_of(conn).await;
    });
}

#[test]
fn stop_and_go_in_one_turn_changes_nothing() {
    run(async {
        let mut world = World::new(|event: &Event, effects: &mut Effects| {
            if let Event::Received(from, _) = event {
                ask(Effect::StopReading(*from), effects);
                ask(Effect::ReadAgain(*from), effects);
            }
        });
        let (client, mut stream) = world.connect().await;
        for _ in 0..3 {
            write(&mut stream, b"again").await;
            assert_eq!(world.bytes_from(ConnId::Client(client)).await, b"again");
        }
    });
}
