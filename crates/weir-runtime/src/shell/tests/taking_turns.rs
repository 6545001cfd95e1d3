//! Clients that log in wait for each other, and nobody else waits for them.

use super::*;

#[test]
fn a_crowd_that_logs_in_delays_nobody_who_is_in() {
    run(async {
        let mut world = World::new(echo);
        let (veteran, mut inside) = world.connect().await;
        world.shell.borrow_mut().machine.newcomers_from = veteran.0 + 1;
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(world.connect().await);
        }
        let_the_reactor_run().await;
        // Nobody has a chance to run before all is sent.
        for (_, stream) in &crowd {
            assert_eq!(stream.try_write(b"login").unwrap(), 5);
        }
        assert_eq!(inside.try_write(b"query").unwrap(), 5);
        let mut served = Vec::new();
        while served.len() <= CROWD {
            let Event::Received(ConnId::Client(client), _) = world.event().await else { panic!("not bytes") };
            served.push(client);
        }
        let place = served.iter().position(|client| *client == veteran).unwrap();
        assert!(place <= 2 * super::super::turns::TURNS_PER_ROUND as usize, "{place} were served first");
        // In the order they came, and everybody.
        served.remove(place);
        assert_eq!(served, crowd.iter().map(|(client, _)| *client).collect::<Vec<_>>());
        assert_eq!(read_exactly(&mut inside, 5).await, b"query");
    });
}

/// Whoever is given up while it waits is no obstacle.
#[test]
fn who_leaves_the_line_makes_room() {
    run(async {
        let mut world = World::new(echo);
        world.shell.borrow_mut().machine.newcomers_from = 0;
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(world.connect().await);
        }
        for (_, stream) in &crowd {
            assert_eq!(stream.try_write(b"login").unwrap(), 5);
        }
        let (last, mut stream) = crowd.pop().unwrap();
        drop(crowd);
        let mut heard = 0;
        while heard < CROWD {
            heard += usize::from(matches!(world.event().await, Event::Received(..)));
        }
        assert_eq!(read_exactly(&mut stream, 5).await, b"login");
        world.until(|shell| shell.conns.len() == 1 && shell.names.contains_key(&ConnId::Client(last))).await;
    });
}

const CROWD: usize = 100;
