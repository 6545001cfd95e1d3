//! A slow reader holds back exactly the connection that fills its buffer.

use super::super::{OUT_BYTES_HIGH, READ_BUFFER_BYTES};
use super::*;

const FAST: ConnId = ConnId::Client(ClientId(0));
const SLOW: ConnId = ConnId::Client(ClientId(1));

/// What the first client sends goes to the second; everybody else is echoed.
fn forward(event: &Event, effects: &mut Effects) {
    if let Event::Received(from, bytes) = event {
        send(if *from == FAST { SLOW } else { *from }, bytes, effects);
    }
}

fn waiting_for<S>(shell: &Shell<Scripted<S>>) -> usize {
    shell.conns.iter().map(|(_, conn)| conn.out.len()).max().unwrap_or(0)
}

#[test]
fn a_slow_reader_bounds_what_is_read_for_it() {
    run(async {
        let mut world = World::new(forward);
        let (_, mut fast) = world.connect().await;
        let (_, mut slow) = world.connect().await;
        world.pair(FAST, SLOW);
        let all = pattern(48 << 20);
        let sending = task::spawn_local({
            let all = all.clone();
            async move { fast.write_all(&all).await.map(|()| fast) }
        });
        world.until(|shell| shell.choked == 1).await;
        let_the_reactor_run().await;
        assert!(waiting_for(&world.shell.borrow()) <= OUT_BYTES_HIGH + READ_BUFFER_BYTES);
        assert!(!sending.is_finished());

        assert_eq!(read_exactly(&mut slow, all.len()).await, all);
        sending.await.unwrap().unwrap();
        world.until(|shell| shell.choked == 0).await;
    });
}

#[test]
fn others_are_served_while_one_is_held_back() {
    run(async {
        let mut world = World::new(forward);
        let (_, mut fast) = world.connect().await;
        let (_, _slow) = world.connect().await;
        world.pair(FAST, SLOW);
        let sending = task::spawn_local(async move { fast.write_all(&pattern(48 << 20)).await.is_err() });
        world.until(|shell| shell.choked == 1).await;
        let other = TcpStream::connect(world.address).await;
        let mut other = other.unwrap();
        write(&mut other, b"still here").await;
        assert_eq!(read_exactly(&mut other, 10).await, b"still here");
        assert!(!sending.is_finished());
    });
}

#[test]
fn a_connection_whose_link_has_ended_is_read_again() {
    run(async {
        let mut world = World::new(forward);
        let (_, mut fast) = world.connect().await;
        let (_, _slow) = world.connect().await;
        // Never paired: the machine has already given the sender to somebody else.
        let all = pattern(16 << 20);
        write(&mut fast, &all).await;
        world.until(|shell| shell.choked == 1 && waiting_for(shell) > OUT_BYTES_HIGH * 4).await;
    });
}

#[test]
fn the_end_of_a_slow_reader_releases_the_other() {
    run(async {
        let mut world = World::new(forward);
        let (_, mut fast) = world.connect().await;
        let (_, slow) = world.connect().await;
        world.pair(FAST, SLOW);
        let sending = task::spawn_local(async move {
            let sent = fast.write_all(&pattern(48 << 20)).await;
            sent.map(|()| fast)
        });
        world
            .until(|shell| shell.choked == 1 && shell.conns.iter().any(|(_, conn)| conn.denied.is_some()))
            .await;
        drop(slow);
        sending.await.unwrap().unwrap();
        world.until(|shell| shell.choked == 0).await;
    });
}

#[test]
fn a_client_that_does_not_read_its_own_answers_is_not_read() {
    run(async {
        let mut world = World::new(echo);
        let (_, stream) = world.connect().await;
        let (mut reading, mut writing) = stream.into_split();
        let all = pattern(48 << 20);
        let sending = task::spawn_local({
            let all = all.clone();
            async move { writing.write_all(&all).await.map(|()| writing) }
        });
        world.until(|shell| shell.choked == 1).await;
        let mut back = vec![0; all.len()];
        reading.read_exact(&mut back).await.unwrap();
        assert_eq!(back, all);
        sending.await.unwrap().unwrap();
    });
}

// covers: suspend_timeout
#[test]
fn a_suspended_shell_waits_for_slow_readers_as_long_as_it_is_told() {
    run(async {
        for (patience, survives) in [(Duration::from_secs(3600), true), (Duration::ZERO, false)] {
            let mut world = World::new(forward);
            let (_, mut fast) = world.connect().await;
            let (_, _slow) = world.connect().await;
            world.pair(FAST, SLOW);
            let sending = task::spawn_local(async move { fast.write_all(&pattern(48 << 20)).await.is_err() });
            world.until(|shell| shell.choked == 1).await;
            world.shell.borrow_mut().order(Order::Suspend(patience));
            world.shell.borrow_mut().tick();
            assert_eq!(world.shell.borrow().names.contains_key(&SLOW), survives, "{patience:?}");
            sending.abort();
        }
    });
}
