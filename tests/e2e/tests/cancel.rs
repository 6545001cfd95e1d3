//! Cancel requests: the right query, only that query, and what happens when there is none.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use weir_cluster::schema;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, PROTOCOL_3_2, Wire, values};

/// Sends a CancelRequest for a client and waits until weir closes that connection.
async fn cancel(stack: &Stack, client: &Wire) -> Result<()> {
    let (pid, secret) = client.key.clone().context("no key")?;
    let mut wire = Wire::connect(stack.address()).await?;
    wire.send(&wire::cancel_request(pid, &secret)).await?;
    let seen = wire.until_closed().await?;
    ensure!(seen.is_empty(), "a cancel request got an answer: {seen:?}");
    Ok(())
}

fn code(messages: &[Message]) -> Option<String> {
    messages.iter().find(|message| message.tag == b'E').map(Message::code)
}

#[tokio::test]
async fn a_running_query_is_cancelled() -> Result<()> {
    let stack = Setup::new().pool_size(2).start().await?;
    let mut wire = stack.wire().await?;
    let mut bystander = stack.wire().await?;
    for marker in ["first", "second"] {
        wire.send(&wire::query(&format!("SELECT pg_sleep(300) /* {marker} */"))).await?;
        bystander.send(&wire::query(&format!("SELECT pg_sleep(0.5), 'unharmed' /* {marker} */"))).await?;
        stack.until_running(&format!("sleep(300) /* {marker}"), 1).await?;
        cancel(&stack, &wire).await?;
        let seen = wire.until_ready().await?;
        assert_eq!(code(&seen).as_deref(), Some("57014"), "{seen:?}");
        assert_eq!(code(&bystander.until_ready().await?), None);
        wire.expect_usable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_long_key_cancels_and_a_wrong_one_does_not() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut wire = Wire::login_with(stack.address(), schema::APP, PROTOCOL_3_2, &[]).await?;
    wire.send(&wire::query("SELECT pg_sleep(300)")).await?;
    stack.until_running("pg_sleep", 1).await?;
    let key = wire.key.clone().context("no key")?;
    let shortened = key.1.get(..4).map(<[u8]>::to_vec).unwrap_or_default();
    let mut flipped = key.1.clone();
    flipped.iter_mut().for_each(|byte| *byte ^= 0x55);
    for wrong in [shortened, flipped, vec![0; 4], vec![0; 256], Vec::new()] {
        wire.key = Some((key.0, wrong));
        cancel(&stack, &wire).await?;
    }
    wire.key = Some((key.0.wrapping_add(1), key.1.clone()));
    cancel(&stack, &wire).await?;
    let quiet = wire.next(Duration::from_millis(300)).await;
    assert!(quiet.is_err(), "a wrong key did something: {quiet:?}");
    wire.key = Some(key);
    cancel(&stack, &wire).await?;
    assert_eq!(code(&wire.until_ready().await?).as_deref(), Some("57014"));
    Ok(())
}

#[tokio::test]
async fn a_cancel_for_an_idle_client_hits_nobody() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut idle = stack.wire().await?;
    idle.expect_usable().await?;
    let mut busy = stack.wire().await?;
    // Its server was the idle client's a moment ago.
    busy.send(&wire::query("SELECT pg_sleep(0.7), 'done'")).await?;
    stack.until_running("pg_sleep", 1).await?;
    for _ in 0..5 {
        cancel(&stack, &idle).await?;
    }
    assert_eq!(code(&busy.until_ready().await?), None);
    idle.expect_usable().await
}

#[tokio::test]
async fn a_waiting_client_is_cancelled_without_a_server() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut holder = stack.wire().await?;
    holder.query("BEGIN").await?;
    holder.expect_usable().await?;
    let mut waiting = stack.wire().await?;
    waiting.send(&wire::query("SELECT 'never'")).await?;
    stack.until_pool("cl_waiting", "1").await?;
    cancel(&stack, &waiting).await?;
    let seen = waiting.until_ready().await?;
    assert_eq!(code(&seen).as_deref(), Some("57014"), "{seen:?}");
    stack.until_pool("cl_waiting", "0").await?;
    // In the extended protocol the rest of the batch is skipped to its Sync.
    let batch =
        [wire::parse("", "SELECT 1"), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    waiting.send(&batch).await?;
    stack.until_pool("cl_waiting", "1").await?;
    cancel(&stack, &waiting).await?;
    assert_eq!(wire::tags(&waiting.until_ready().await?), "EZ");
    holder.query("COMMIT").await?;
    waiting.expect_usable().await?;
    holder.expect_usable().await
}

#[tokio::test]
async fn a_cancelled_transaction_stays_its_client_s() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    wire.send(&wire::query("SELECT pg_sleep(300)")).await?;
    stack.until_running("pg_sleep", 1).await?;
    cancel(&stack, &wire).await?;
    let seen = wire.until_ready().await?;
    assert_eq!(code(&seen).as_deref(), Some("57014"));
    assert_eq!(seen.last().map(|ready| ready.body.clone()), Some(b"E".to_vec()));
    assert_eq!(code(&wire.query("SELECT 1").await?).as_deref(), Some("25P02"));
    wire.query("ROLLBACK").await?;
    wire.expect_usable().await
}

#[tokio::test]
async fn a_storm_of_cancels_never_hits_a_neighbour() -> Result<()> {
    let stack = Setup::new().pool_size(3).start().await?;
    let until = Instant::now() + Duration::from_secs(4);
    let victims = (0..4).map(|_| victim(&stack, until));
    let neighbours = (0..6).map(|number| neighbour(&stack, number, until));
    let (hits, answered) = tokio::try_join!(try_join_all(victims), try_join_all(neighbours))?;
    assert!(hits.iter().sum::<u32>() > 0, "no cancel ever hit: {hits:?}");
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    stack.wire().await?.expect_usable().await
}

/// Cancels its own short queries all the time, early, in time and late. Returns how many were hit.
async fn victim(stack: &Stack, until: Instant) -> Result<u32> {
    let mut wire = stack.wire().await?;
    let mut hits = 0;
    while Instant::now() < until {
        wire.send(&wire::query("SELECT pg_sleep(0.005)")).await?;
        cancel(stack, &wire).await?;
        let seen = wire.until_ready().await?;
        match code(&seen).as_deref() {
            None => {}
            Some("57014") => hits += 1,
            Some(_) => anyhow::bail!("{seen:?}"),
        }
    }
    Ok(hits)
}

/// Must never see an error.
async fn neighbour(stack: &Stack, number: u32, until: Instant) -> Result<u32> {
    let mut wire = stack.wire().await?;
    let mut answered = 0;
    while Instant::now() < until {
        let seen = wire.query(&format!("SELECT {number} FROM pg_sleep(0.002)")).await?;
        ensure!(values(&seen)? == [number.to_string()], "somebody else's cancel: {seen:?}");
        answered += 1;
    }
    Ok(answered)
}
