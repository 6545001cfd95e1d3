//! Clients that send garbage, half a message, too much or nothing. They are sent away; everybody else goes on, and no
//! server connection is left in a state that the next client would see.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};
use weir_cluster::schema;
use weir_e2e::measure;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, PATIENCE, PROTOCOL_3_0, Wire, tags, values};

/// A client that works before, during and after what `attack` does on one shared server.
async fn unharmed(attack: impl AsyncFnOnce(&Stack) -> Result<()>) -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut good = stack.wire().await?;
    good.expect_usable().await?;
    attack(&stack).await?;
    good.expect_usable().await?;
    let state = "SELECT now() = statement_timestamp() AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'evil')";
    ensure!(values(&good.query(state).await?)? == ["t"], "the server is dirty");
    stack.wire().await?.expect_usable().await?;
    stack.until_pool("sv_active", "0").await
}

/// The report before the connection is closed, if there was one.
async fn sent_away(wire: &mut Wire) -> Result<Option<String>> {
    let seen = wire.until_closed().await?;
    Ok(seen.iter().find(|message| message.tag == b'E').map(Message::code))
}

#[tokio::test]
async fn garbage_instead_of_a_login() -> Result<()> {
    unharmed(async |stack| {
        let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        let tls_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc][..], &[7; 500]].concat();
        let long = wire::packet(&[b'a'; 9_990]);
        for garbage in [vec![0; 64], vec![0xff; 64], http, tls_hello, long, vec![0, 0, 0, 8, 4, 210, 22, 99]]
        {
            let mut wire = Wire::connect(stack.address()).await?;
            wire.send(&garbage).await?;
            sent_away(&mut wire).await.with_context(|| format!("{garbage:?}"))?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn garbage_after_the_login_is_a_protocol_error() -> Result<()> {
    unharmed(async |stack| {
        let unknown_type = wire::message(b'!', b"what?");
        let too_short = vec![b'Q', 0, 0, 0, 3];
        let negative = vec![b'Q', 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        let server_message = wire::message(b'Z', b"I");
        for garbage in [unknown_type, too_short, negative, server_message] {
            let mut wire = stack.wire().await?;
            wire.send(&garbage).await?;
            let code = sent_away(&mut wire).await.with_context(|| format!("{garbage:?}"))?;
            ensure!(code.as_deref() == Some("08P01"), "{garbage:?} was answered with {code:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn garbage_inside_a_transaction_rolls_it_back() -> Result<()> {
    unharmed(async |stack| {
        stack.wire().await?.query("CREATE TABLE victims (id int)").await?;
        let mut wire = stack.wire().await?;
        wire.query("BEGIN; INSERT INTO victims VALUES (1)").await?;
        wire.send(&wire::message(b'!', b"what?")).await?;
        sent_away(&mut wire).await?;
        let count = stack.wire().await?.query("SELECT count(*) FROM victims").await?;
        ensure!(values(&count)? == ["0"], "{count:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn malformed_bodies_of_the_extended_protocol() -> Result<()> {
    unharmed(async |stack| {
        let bodies: [(u8, &[u8]); 12] = [
            (b'P', b""),
            (b'P', b"name without an end"),
            (b'P', b"evil\0SELECT 1\0\xff\xff"),
            (b'B', b""),
            (b'B', b"\0\0"),
            (b'B', b"\0\0\xff\xff\xff\xff"),
            (b'B', b"portal without an end"),
            (b'D', b""),
            (b'D', b"X\0"),
            (b'E', b"\0"),
            (b'C', b"Q\0"),
            (b'Q', b"no NUL at the end"),
        ];
        for (tag, body) in bodies {
            let mut wire = stack.wire().await?;
            wire.send(&[wire::message(tag, body), wire::sync()].concat()).await?;
            let seen =
                wire.next(wire::PATIENCE).await.with_context(|| format!("{} {body:?}", char::from(tag)))?;
            let code = seen.as_ref().map(Message::code).unwrap_or_default();
            // PostgreSQL calls it 08P01 as well, or 26000/34000 where a name can be read from it.
            let refused = ["08P01", "26000", "34000", "42601", "22021"].contains(&code.as_str());
            ensure!(refused, "{} {body:?}: {seen:?}", char::from(tag));
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn half_messages_and_silence() -> Result<()> {
    unharmed(async |stack| {
        let mut hung = Vec::new();
        let startup =
            wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user), ("database", schema::APP.database)]);
        for bytes in [&[][..], startup.get(..3).unwrap_or_default(), startup.get(..20).unwrap_or_default()] {
            let mut wire = Wire::connect(stack.address()).await?;
            wire.send(bytes).await?;
            hung.push(wire);
        }
        let query = wire::query("SELECT 'half'");
        for cut in [1, 4, 5, 9] {
            let mut wire = stack.wire().await?;
            wire.send(query.get(..cut).unwrap_or_default()).await?;
            hung.push(wire);
        }
        stack.wire().await?.expect_usable().await?;
        // One of them finishes after all.
        let mut last = hung.pop().ok_or_else(|| anyhow::anyhow!("no client"))?;
        last.send(query.get(9..).unwrap_or_default()).await?;
        ensure!(values(&last.until_ready().await?)? == ["half"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_byte_on_its_own() -> Result<()> {
    unharmed(async |stack| {
        let mut wire = Wire::connect(stack.address()).await?;
        for byte in
            wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user), ("database", schema::APP.database)])
        {
            wire.send(&[byte]).await?;
        }
        ensure!(matches!(wire.prove(schema::APP.password).await?, wire::Outcome::Ready(_)));
        let batch = [
            wire::parse("s", "SELECT $1::text"),
            wire::bind("", "s", &[b"in pieces"]),
            wire::execute("", 0),
            wire::close(b'S', "s"),
            wire::sync(),
        ];
        for byte in batch.concat() {
            wire.send(&[byte]).await?;
        }
        let seen = wire.until_ready().await?;
        ensure!(tags(&seen) == "12DC3Z" && values(&seen)? == ["in pieces"], "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_giant_that_never_ends_costs_little() -> Result<()> {
    let stack = Setup::new().pool_size(2).start().await?;
    stack.wire().await?.expect_usable().await?;
    let before = measure::resident_bytes(stack.weir.pid())?;
    let mut giants = Vec::new();
    for _ in 0..20 {
        let mut wire = stack.wire().await?;
        // Declares a gigabyte, sends a little of it.
        wire.send(&[&[b'Q', 0x3f, 0xff, 0xff, 0xff][..], &[b'x'; 100_000]].concat()).await?;
        giants.push(wire);
    }
    let mut beyond = stack.wire().await?;
    beyond.send(&[b'Q', 0x7f, 0xff, 0xff, 0xff]).await?;
    ensure!(sent_away(&mut beyond).await?.is_some(), "more than a gigabyte was accepted");
    drop(giants);
    stack.wire().await?.expect_usable().await?;
    let after = measure::resident_peak_bytes(stack.weir.pid())?;
    assert!(after < before + (16 << 20), "{before} grew to {after}");
    Ok(())
}

#[tokio::test]
async fn passwords_that_are_no_passwords() -> Result<()> {
    unharmed(async |stack| {
        let mut hello = wire::strings(&["SCRAM-SHA-256"]);
        hello.extend_from_slice(&wire::length_word(6));
        hello.extend_from_slice(b"n,,n=x");
        let answers: [&[u8]; 5] = [b"", b"plain\0", b"NO-SUCH-MECH\0\0\0\0\0", &hello, &[0xff; 5000]];
        for answer in answers {
            let mut wire = Wire::connect(stack.address()).await?;
            wire.send(&wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user)])).await?;
            ensure!(wire.read().await?.tag == b'R');
            wire.send(&wire::message(b'p', answer)).await?;
            let code = sent_away(&mut wire).await.with_context(|| format!("{answer:?}"))?.unwrap_or_default();
            ensure!(["08P01", "28P01", "28000", "0A000"].contains(&code.as_str()), "{answer:?}: {code}");
        }
        // A query where the password belongs.
        let mut wire = Wire::connect(stack.address()).await?;
        wire.send(&wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user)])).await?;
        wire.send(&wire::query("SELECT 1")).await?;
        let seen = wire.until_closed().await?;
        ensure!(seen.iter().all(|message| matches!(message.tag, b'R' | b'E')), "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads() -> Result<()> {
    unharmed(async |stack| {
        let mut wire = stack.wire().await?;
        let before = measure::resident_bytes(stack.weir.pid())?;
        // Far more questions and answers than socket buffers hold; the test does not wait for their acceptance.
        let flood: Vec<u8> = (0..2000).flat_map(|_| wire::query("SELECT repeat('f', 10000)")).collect();
        let push = tokio::time::timeout(std::time::Duration::from_secs(1), wire.send(&flood)).await;
        let after = measure::resident_peak_bytes(stack.weir.pid())?;
        ensure!(after < before + (8 << 20), "{before} grew to {after}, {push:?}");
        wire.vanish()
    })
    .await
}

/// Says something, hears so much, and then sends one byte of the rest again and again until it is sent away.
async fn trickle(stack: &Stack, opening: &[u8], answer: usize, rest: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(stack.address()).await?;
    stream.write_all(opening).await?;
    stream.read_exact(&mut vec![0; answer]).await?;
    let (mut read, mut write) = stream.into_split();
    let drip = async {
        let mut clock = interval(Duration::from_millis(20));
        for byte in rest {
            clock.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    // However it ends: with a report, or with what the system says of bytes that nobody wants any more.
    let end = async { read.read_to_end(&mut Vec::new()).await.ok() };
    let patient = timeout(PATIENCE, async {
        tokio::select! { () = drip => {}, _ = end => {} }
    });
    patient.await.with_context(|| format!("{opening:?} is still welcome"))
}

// covers: client_login_timeout
#[tokio::test]
async fn who_trickles_is_sent_away_at_every_stage_of_a_login() -> Result<()> {
    let slow = schema::AUTH_QUERY
        .replace("FROM", "FROM (SELECT pg_sleep(60) OFFSET 0) AS slow LEFT JOIN")
        .replace("($1)", "($1) ON true");
    let stack = Setup::new()
        .users(&[(schema::AUTH.user, schema::AUTH.password), (schema::APP.user, schema::APP.password)])
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", &format!("query = \"{slow}\""))
        .set("limits", "client_login_timeout = \"1s\"")
        .client_tls("allow")
        .start()
        .await?;
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    let startup = wire::packet(&[&[0, 3, 0, 0][..], b"user\0", &[b'a'; 5000]].concat());
    let known =
        wire::startup(PROTOCOL_3_0, &[("user", schema::APP.user), ("database", schema::APP.database)]);
    let looked_up = wire::startup(PROTOCOL_3_0, &[("user", "nobody"), ("database", schema::APP.database)]);
    let proof = wire::message(b'p', &[b'a'; 1000]);
    let stages = [
        (&[][..], 0, &startup[..]),
        (&wire::ssl_request(), 1, &hello),
        (&hello[..1], 0, &hello[1..]),
        (&known, 1, &proof),
        (&looked_up, 0, &proof),
    ];
    try_join_all(stages.map(|(opening, answer, rest)| trickle(&stack, opening, answer, rest))).await?;
    let told = stack.weir.log_text().matches("pooler error: client_login_timeout").count();
    ensure!(told == stages.len(), "{told} were told");
    // A slow auth_query keeps nobody else out.
    stack.wire().await?.expect_usable().await
}
