//! What goes through weir must come out as if it were not there: simple and extended protocol, pipelines, COPY,
//! notices, large messages. Each answer is compared message by message with what PostgreSQL itself says.

use anyhow::{Result, ensure};
use weir_cluster::sql::Login;
use weir_cluster::{schema, sql};
use weir_e2e::measure;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Wire, tags, values};

const FUNCTION_BODY: &str = "CREATE FUNCTION noisy(depth int) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN RAISE NOTICE 'depth %', depth; RETURN depth; END $$";

/// Sends the same bytes to PostgreSQL itself and through weir, `ready` ReadyForQuery messages deep.
async fn same_as_direct(stack: &Stack, bytes: &[u8], ready: usize) -> Result<Vec<Message>> {
    let mut direct = Wire::login(stack.postgres.address(), schema::APP).await?;
    let mut through = stack.wire().await?;
    let expected = answers(&mut direct, bytes, ready).await?;
    let got = answers(&mut through, bytes, ready).await?;
    ensure!(got == expected, "through weir: {got:?}\ndirectly: {expected:?}");
    through.expect_usable().await?;
    Ok(got)
}

async fn answers(wire: &mut Wire, bytes: &[u8], ready: usize) -> Result<Vec<Message>> {
    wire.send(bytes).await?;
    let mut seen = Vec::new();
    for _ in 0..ready {
        seen.append(&mut wire.until_ready().await?);
    }
    Ok(seen)
}

async fn stack() -> Result<Stack> {
    let stack = Setup::new().pool_size(2).start().await?;
    sql::rows(stack.postgres.address(), schema::APP, FUNCTION_BODY).await?;
    Ok(stack)
}

#[tokio::test]
async fn simple_queries() -> Result<()> {
    let stack = stack().await?;
    for sql in [
        "SELECT 1",
        "",
        ";",
        "-- only a comment",
        "SELECT 1; SELECT 2, NULL; SELECT 'three'",
        "SELECT 1; SELECT 1/0; SELECT 2",
        "SELECT no_such_column",
        "SELEKT",
        "SHOW server_version",
        "SELECT generate_series(1, 3000), repeat('x', 200)",
        "BEGIN; SELECT 1; COMMIT",
        "DO $$ BEGIN RAISE NOTICE 'a notice'; RAISE WARNING 'a warning' USING DETAIL = 'd', HINT = 'h'; END $$",
        "SELECT 'E', E'\\'; COMMIT', $q$;ROLLBACK$q$ /* ; /* nested */ ; */",
    ] {
        same_as_direct(&stack, &wire::query(sql), 1).await?;
    }
    // Several at once, one of them failing: each has its own answer.
    let many = [wire::query("SELECT 1"), wire::query("SELECT 1/0"), wire::query("SELECT 3")].concat();
    same_as_direct(&stack, &many, 3).await?;
    Ok(())
}

#[tokio::test]
async fn extended_queries() -> Result<()> {
    let stack = stack().await?;
    let whole = [
        wire::parse("", "SELECT $1::int + 1"),
        wire::bind("", "", &[b"41"]),
        wire::describe(b'P', ""),
        wire::execute("", 0),
        wire::sync(),
    ]
    .concat();
    let seen = same_as_direct(&stack, &whole, 1).await?;
    assert_eq!((tags(&seen).as_str(), values(&seen)?), ("12TDCZ", vec!["42".to_owned()]));
    let no_rows = [
        wire::parse("", "DO 'BEGIN END'"),
        wire::describe(b'S', ""),
        wire::bind("", "", &[]),
        wire::execute("", 0),
        wire::sync(),
    ]
    .concat();
    same_as_direct(&stack, &no_rows, 1).await?;
    let empty = [wire::parse("", ""), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    same_as_direct(&stack, &empty, 1).await?;
    same_as_direct(&stack, &wire::sync(), 1).await?;
    same_as_direct(&stack, &[wire::bind("", "missing", &[]), wire::sync()].concat(), 1).await?;
    same_as_direct(&stack, &[wire::execute("missing", 0), wire::sync()].concat(), 1).await?;
    Ok(())
}

#[tokio::test]
async fn an_unnamed_statement_outlives_its_sync() -> Result<()> {
    let stack = stack().await?;
    // lib/pq: Parse, Describe and Sync first; Bind and Execute after it has seen the types.
    let prepare = [wire::parse("", "SELECT $1::int * 3"), wire::describe(b'S', ""), wire::sync()].concat();
    let run = [wire::bind("", "", &[b"14"]), wire::execute("", 0), wire::sync()].concat();
    let mut first = stack.wire().await?;
    let mut others = [stack.wire().await?, stack.wire().await?];
    for round in 0..10 {
        assert_eq!(tags(&answers(&mut first, &prepare, 1).await?), "1tTZ");
        // Others use both servers in between and leave unnamed statements of their own.
        for other in &mut others {
            let text = format!("SELECT 'round {round}'");
            let batch = [wire::parse("", &text), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()];
            answers(other, &batch.concat(), 1).await?;
        }
        let seen = answers(&mut first, &run, 1).await?;
        ensure!(values(&seen)? == ["42"], "round {round}: {seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_pipeline_with_an_error_in_the_middle() -> Result<()> {
    let stack = stack().await?;
    let one = |sql: &str| {
        [wire::parse("", sql), wire::bind("", "", &[]), wire::describe(b'P', ""), wire::execute("", 0)]
            .concat()
    };
    // Everything behind the error is skipped up to the Sync; the second batch runs.
    let bytes =
        [one("SELECT 1"), one("SELECT 1/0"), one("SELECT 2"), wire::sync(), one("SELECT 3"), wire::sync()];
    let seen = same_as_direct(&stack, &bytes.concat(), 2).await?;
    assert_eq!(tags(&seen), "12TDC1EZ12TDCZ");
    let hundred: Vec<u8> = (0..100)
        .flat_map(|n| [one(&format!("SELECT {n}, repeat('y', 300)")), wire::sync()].concat())
        .collect();
    assert_eq!(same_as_direct(&stack, &hundred, 100).await?.len(), 600);
    // Simple and extended mixed in one write.
    let mixed = [wire::query("SELECT 1"), one("SELECT 2"), wire::sync(), wire::query("SELECT 3")].concat();
    same_as_direct(&stack, &mixed, 3).await?;
    // A transaction that spans batches, with an error inside.
    let block =
        [wire::query("BEGIN"), one("SELECT 1/0"), wire::sync(), one("SELECT 2"), wire::sync()].concat();
    same_as_direct(&stack, &[block, wire::query("ROLLBACK")].concat(), 4).await?;
    Ok(())
}

#[tokio::test]
async fn a_flush_brings_answers_before_the_sync() -> Result<()> {
    let stack = stack().await?;
    let mut wire = stack.wire().await?;
    let batch = [wire::parse("", "SELECT 7"), wire::bind("", "", &[]), wire::execute("", 0), wire::flush()];
    wire.send(&batch.concat()).await?;
    assert_eq!(tags(&wire.until(b'C').await?), "12DC");
    wire.send(&[wire::parse("", "SELECT 1/0"), wire::flush()].concat()).await?;
    assert_eq!(tags(&[wire.read().await?]), "1");
    wire.send(&[wire::bind("", "", &[]), wire::execute("", 0), wire::flush()].concat()).await?;
    assert_eq!(wire.until(b'E').await?.last().map(Message::code), Some("22012".to_owned()));
    wire.send(&[wire::parse("", "SELECT 'skipped'"), wire::sync()].concat()).await?;
    assert_eq!(tags(&wire.until_ready().await?), "Z");
    wire.expect_usable().await
}

#[tokio::test]
async fn a_portal_is_read_in_pieces() -> Result<()> {
    let stack = stack().await?;
    let begin = [wire::query("BEGIN")].concat();
    let open =
        [wire::parse("", "SELECT generate_series(1, 5)"), wire::bind("p", "", &[]), wire::execute("p", 2)];
    let more = [wire::execute("p", 2), wire::execute("p", 2), wire::close(b'P', "p"), wire::sync()];
    let bytes = [begin, open.concat(), more.concat(), wire::query("COMMIT")].concat();
    let seen = same_as_direct(&stack, &bytes, 3).await?;
    assert_eq!(tags(&seen), "CZ12DDsDDsDC3ZCZ");
    // Over a Sync inside a transaction block.
    let bytes = [
        wire::query("BEGIN"),
        wire::parse("", "SELECT generate_series(1, 5)"),
        wire::bind("p", "", &[]),
        wire::execute("p", 2),
        wire::sync(),
        wire::execute("p", 0),
        wire::sync(),
        wire::query("COMMIT"),
    ];
    assert_eq!(tags(&same_as_direct(&stack, &bytes.concat(), 4).await?), "CZ12DDsZDDDCZCZ");
    Ok(())
}

#[tokio::test]
async fn notices_come_in_their_place() -> Result<()> {
    let stack = stack().await?;
    let seen =
        same_as_direct(&stack, &wire::query("SELECT noisy(n) FROM generate_series(1, 3) n"), 1).await?;
    assert_eq!(tags(&seen), "TNDNDNDCZ");
    Ok(())
}

#[tokio::test]
async fn a_notification_reaches_the_listener_of_the_transaction() -> Result<()> {
    let stack = Setup::new().mode("session").start().await?;
    let mut listener = stack.wire().await?;
    listener.query("LISTEN news").await?;
    let mut speaker = stack.wire().await?;
    speaker.query("NOTIFY news, 'hello'").await?;
    // Unasked for: the listener is idle.
    let heard = listener.read().await?;
    assert_eq!(heard.tag, b'A');
    assert!(heard.body.ends_with(b"news\0hello\0"), "{heard:?}");
    listener.expect_usable().await
}

#[tokio::test]
async fn a_function_call() -> Result<()> {
    let stack = stack().await?;
    let oid = sql::value(stack.postgres.address(), schema::APP, "SELECT 'int4pl'::regproc::oid").await?;
    let mut body = oid.parse::<u32>()?.to_be_bytes().to_vec();
    // One format code: all text; two arguments; result as text.
    body.extend_from_slice(&[0, 1, 0, 0, 0, 2]);
    for argument in [b"40", b"02"] {
        body.extend_from_slice(&wire::length_word(argument.len()));
        body.extend_from_slice(argument);
    }
    body.extend_from_slice(&[0, 0]);
    let seen = same_as_direct(&stack, &wire::message(b'F', &body), 1).await?;
    assert_eq!(tags(&seen), "VZ");
    Ok(())
}

#[tokio::test]
async fn copy_in_and_out() -> Result<()> {
    let stack = stack().await?;
    stack.wire().await?.query("CREATE TABLE copied (id int PRIMARY KEY, note text)").await?;
    let mut wire = stack.wire().await?;
    let rows = |from: u32, to: u32| -> Vec<u8> {
        (from..to).flat_map(|id| wire::message(b'd', format!("{id}\tnote {id}\n").as_bytes())).collect()
    };
    let done = wire::message(b'c', &[]);
    // Everything in one write, without waiting for CopyInResponse.
    wire.send(&[wire::query("COPY copied FROM STDIN"), rows(0, 5000), done.clone()].concat()).await?;
    assert_eq!(tags(&wire.until_ready().await?), "GCZ");
    // A duplicate key fails once all data was read, one in a batch skips to the Sync.
    wire.send(&[wire::query("COPY copied FROM STDIN"), rows(10, 20), done.clone()].concat()).await?;
    let seen = wire.until_ready().await?;
    assert_eq!((tags(&seen).as_str(), seen.get(1).map(Message::code)), ("GEZ", Some("23505".to_owned())));
    // The client itself gives up.
    wire.send(
        &[wire::query("COPY copied FROM STDIN"), rows(9000, 9010), wire::message(b'f', b"no\0")].concat(),
    )
    .await?;
    assert_eq!(wire.until_ready().await?.get(1).map(Message::code), Some("57014".to_owned()));
    // Extended protocol.
    let start =
        [wire::parse("", "COPY copied FROM STDIN"), wire::bind("", "", &[]), wire::execute("", 0)].concat();
    wire.send(&[start.clone(), rows(6000, 6100), done.clone(), wire::sync()].concat()).await?;
    assert_eq!(tags(&wire.until_ready().await?), "12GCZ");
    // In extended mode the Sync that a failed COPY skips to is the one behind the data.
    wire.send(&[start, rows(0, 10), done, wire::sync()].concat()).await?;
    assert_eq!(tags(&wire.until_ready().await?), "12GEZ");
    wire.expect_usable().await?;
    let out = wire.query("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT").await?;
    assert_eq!(out.iter().filter(|message| message.tag == b'd').count(), 5100);
    wire.expect_usable().await?;
    assert_eq!(stack.pool("sv_active").await?, "0");
    Ok(())
}

#[tokio::test]
async fn a_copy_that_fails_early_swallows_the_rest() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    stack.wire().await?.query("CREATE TABLE copied (id int)").await?;
    let mut wire = stack.wire().await?;
    wire.send(&wire::query("COPY copied FROM STDIN")).await?;
    wire.until(b'G').await?;
    wire.send(&wire::message(b'd', b"not a number\n")).await?;
    wire.send(&wire::message(b'd', &vec![b'1'; 200_000])).await?;
    let seen = wire.until_ready().await?;
    assert_eq!(tags(&seen), "EZ");
    // The client goes on for a while before it sees the error.
    wire.send(&wire::message(b'd', b"2\n")).await?;
    wire.send(&wire::message(b'c', &[])).await?;
    wire.expect_usable().await?;
    stack.wire().await?.expect_usable().await
}

#[tokio::test]
async fn a_large_row_and_a_large_parameter_pass_in_little_memory() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut wire = stack.wire().await?;
    wire.expect_usable().await?;
    let before = measure::resident_bytes(stack.weir.pid())?;
    let seen = wire.query(&format!("SELECT repeat('r', {LARGE_BYTES})")).await?;
    assert_eq!(values(&seen)?.first().map(String::len), Some(LARGE_BYTES));
    let peak_row = resident_peak(&stack)?;
    let large = vec![b'p'; LARGE_BYTES];
    let batch = [
        wire::parse("", "SELECT length($1::text)"),
        wire::bind("", "", &[&large]),
        wire::execute("", 0),
        wire::sync(),
    ];
    wire.send(&batch.concat()).await?;
    assert_eq!(values(&wire.until_ready().await?)?, [LARGE_BYTES.to_string()]);
    let text = String::from_utf8(large)?;
    assert_eq!(values(&wire.query(&format!("SELECT length('{text}')")).await?)?, [LARGE_BYTES.to_string()]);
    let peak = resident_peak(&stack)?;
    assert!(peak_row < before + GROWTH_BYTES_MAX, "a row: {before} grew to {peak_row}");
    assert!(peak < before + GROWTH_BYTES_MAX, "a parameter: {before} grew to {peak}");
    wire.expect_usable().await
}

#[tokio::test]
async fn a_client_that_reads_slowly_makes_postgresql_wait() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut slow = stack.wire().await?;
    let before = measure::resident_bytes(stack.weir.pid())?;
    slow.send(&wire::query("SELECT repeat('s', 1000) FROM generate_series(1, 100000)")).await?;
    // PostgreSQL cannot get rid of its 100 MB: it waits for weir, which waits for the client.
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    stack.until_postgres_says(waits, "1").await?;
    stack.wire().await?.expect_usable().await?;
    let peak = resident_peak(&stack)?;
    assert!(peak < before + GROWTH_BYTES_MAX, "{before} grew to {peak}");
    assert_eq!(values(&slow.until_ready().await?)?.len(), 100_000);
    slow.expect_usable().await
}

#[tokio::test]
async fn two_databases_and_users_never_share_servers() -> Result<()> {
    let stack = Setup::new().start().await?;
    let super_here = Login { database: "postgres", ..schema::SUPERUSER };
    let mut app = stack.wire().await?;
    let mut other = Wire::login(stack.address(), super_here).await?;
    for _ in 0..3 {
        let sql = "SELECT current_user || '@' || current_database()";
        assert_eq!(values(&app.query(sql).await?)?, ["app_user@mrg"]);
        assert_eq!(values(&other.query(sql).await?)?, ["postgres@postgres"]);
    }
    Ok(())
}

/// The most memory weir ever had.
fn resident_peak(stack: &Stack) -> Result<u64> {
    measure::resident_peak_bytes(stack.weir.pid())
}

const LARGE_BYTES: usize = 50 << 20;
const GROWTH_BYTES_MAX: u64 = 8 << 20;
