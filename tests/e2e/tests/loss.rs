//! A server connection is lost, in front of one plain PostgreSQL: what was provably not done is done again, what was
//! provably undone is said to be undone, and what nobody can know is said to be in doubt.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use weir_cluster::postgres::ShutdownMode;
use weir_cluster::{process, schema};
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Wire, tags, values};

async fn backend(wire: &mut Wire) -> Result<String> {
    let seen = wire.query("SELECT pg_backend_pid()").await?;
    values(&seen)?.pop().context("no process id")
}

/// `pg_terminate_backend`: the session ends with FATAL 57P01. Returns once the process is gone.
async fn terminate(stack: &Stack, pid: &str) -> Result<()> {
    stack.postgres.superuser(&format!("SELECT pg_terminate_backend({pid})")).await?;
    stack.until_postgres_says(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0").await
}

/// The server process that runs a query with this marker.
async fn running(stack: &Stack, marker: &str) -> Result<String> {
    stack.until_running(marker, 1).await?;
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{marker}%' AND usename = '{}'",
        schema::APP.user
    );
    let rows = stack.postgres.superuser(&sql).await?;
    rows.into_iter().flatten().flatten().next().context("nobody runs it")
}

fn code(messages: &[Message]) -> String {
    messages.iter().find(|message| message.tag == b'E').map(Message::code).unwrap_or_default()
}

fn status(messages: &[Message]) -> String {
    let last = messages.last().filter(|last| last.tag == b'Z');
    last.map(|ready| String::from_utf8_lossy(&ready.body).into_owned()).unwrap_or_default()
}

/// SQLSTATE, severity and status of an answer that is one error.
fn error(messages: &[Message]) -> Result<(String, String, String)> {
    let report =
        messages.iter().find(|message| message.tag == b'E').context(format!("no error: {messages:?}"))?;
    let severity = report.field(b'S').unwrap_or_default();
    Ok((report.code(), severity, status(messages)))
}

fn expect(code: &str, status: &str) -> (String, String, String) {
    (code.to_owned(), "ERROR".to_owned(), status.to_owned())
}

async fn stack_with_table() -> Result<Stack> {
    let stack = Setup::new().pool_size(1).start().await?;
    stack.wire().await?.query("CREATE TABLE facts (id int PRIMARY KEY)").await?;
    Ok(stack)
}

#[tokio::test]
async fn a_server_lost_while_idle_is_not_noticed() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    for _ in 0..3 {
        let pid = backend(&mut wire).await?;
        terminate(&stack, &pid).await?;
        assert_eq!(tags(&wire.query("SELECT 1").await?), "TDCZ");
    }
    Ok(())
}

#[tokio::test]
async fn an_open_transaction_gets_one_error_and_then_an_aborted_block() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    wire.query("INSERT INTO facts VALUES (1)").await?;
    let pid = backend(&mut wire).await?;
    terminate(&stack, &pid).await?;
    // Nothing comes unasked.
    assert!(wire.next(Duration::from_millis(200)).await.is_err());
    assert_eq!(error(&wire.query("INSERT INTO facts VALUES (2)").await?)?, expect("40001", "E"));
    assert_eq!(error(&wire.query("SELECT 1").await?)?, expect("25P02", "E"));
    assert_eq!(error(&wire.query("INSERT INTO facts VALUES (3)").await?)?, expect("25P02", "E"));
    let batch =
        [wire::parse("", "SELECT 1"), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    wire.send(&batch).await?;
    assert_eq!(error(&wire.until_ready().await?)?, expect("25P02", "E"));
    let seen = wire.query("ROLLBACK").await?;
    assert_eq!((tags(&seen).as_str(), status(&seen).as_str()), ("CZ", "I"));
    assert_eq!(values(&wire.query("SELECT count(*) FROM facts").await?)?, ["0"]);
    Ok(())
}

#[tokio::test]
async fn commit_as_the_first_request_after_the_loss_is_an_error() -> Result<()> {
    let stack = stack_with_table().await?;
    for end in ["COMMIT", "END", "commit work; -- really"] {
        let mut wire = stack.wire().await?;
        wire.query("BEGIN").await?;
        wire.query("INSERT INTO facts VALUES (1)").await?;
        let pid = backend(&mut wire).await?;
        terminate(&stack, &pid).await?;
        assert_eq!(error(&wire.query(end).await?)?, expect("40001", "I"), "{end}");
        assert_eq!(values(&wire.query("SELECT count(*) FROM facts").await?)?, ["0"], "{end}");
    }
    // By the extended protocol too.
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    let pid = backend(&mut wire).await?;
    terminate(&stack, &pid).await?;
    let batch =
        [wire::parse("", "COMMIT"), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    wire.send(&batch).await?;
    assert_eq!(error(&wire.until_ready().await?)?, expect("40001", "I"));
    wire.expect_usable().await
}

#[tokio::test]
async fn rollback_as_the_first_request_succeeds() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    let pid = backend(&mut wire).await?;
    terminate(&stack, &pid).await?;
    let seen = wire.query("ROLLBACK").await?;
    assert_eq!((tags(&seen).as_str(), status(&seen).as_str()), ("CZ", "I"), "{seen:?}");
    assert_eq!(seen.first().map(Message::word).as_deref(), Some("ROLLBACK"));
    wire.expect_usable().await
}

#[tokio::test]
async fn savepoints_do_not_bring_a_lost_transaction_back() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    wire.query("SAVEPOINT s").await?;
    let pid = backend(&mut wire).await?;
    terminate(&stack, &pid).await?;
    assert_eq!(code(&wire.query("SELECT 1").await?), "40001");
    assert_eq!(error(&wire.query("ROLLBACK TO SAVEPOINT s").await?)?.2, "E");
    Ok(())
}

/// The same on a PostgreSQL that rolls the transaction back itself, and on one that is lost with it.
#[tokio::test]
async fn and_chain_after_a_loss_is_what_it_is_without_one() -> Result<()> {
    let stack = stack_with_table().await?;
    let modes = "SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'))";
    let chain = "ROLLBACK AND CHAIN";
    let batch =
        [wire::parse("", chain), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    for (begin, request) in [
        ("BEGIN", wire::query(chain)),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", wire::query(chain)),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", batch),
    ] {
        let mut heard = Vec::new();
        for loses in [false, true] {
            let mut wire = stack.wire().await?;
            wire.query(begin).await?;
            let pid = backend(&mut wire).await?;
            if loses {
                terminate(&stack, &pid).await?;
            }
            wire.send(&request).await?;
            let chained = wire.until_ready().await?;
            heard.push((
                tags(&chained),
                chained.iter().find(|message| message.tag == b'C').map(Message::word),
            ));
            assert_eq!(status(&chained), "T", "{chained:?}");
            heard.push((values(&wire.query(modes).await?)?.concat(), None));
            assert_eq!(wire.query("COMMIT").await?.first().map(Message::word).as_deref(), Some("COMMIT"));
        }
        assert_eq!(heard[..2], heard[2..], "{begin}");
    }
    // SET TRANSACTION is not remembered, and that is said.
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    wire.query("SET TRANSACTION READ ONLY").await?;
    let pid = backend(&mut wire).await?;
    terminate(&stack, &pid).await?;
    assert_eq!(tags(&wire.query(chain).await?), "NCZ");
    assert_eq!(code(&wire.query("INSERT INTO facts VALUES (7)").await?), "");
    wire.query("COMMIT").await?;
    assert_eq!(values(&wire.query("SELECT id FROM facts").await?)?, ["7"]);
    Ok(())
}

#[tokio::test]
async fn a_statement_in_flight_inside_a_transaction() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    wire.query("BEGIN").await?;
    wire.send(&wire::query("SELECT pg_sleep(300) /* inside */")).await?;
    let pid = running(&stack, "* inside").await?;
    terminate(&stack, &pid).await?;
    assert_eq!(error(&wire.until_ready().await?)?, expect("40001", "E"));
    wire.query("ROLLBACK").await?;
    wire.expect_usable().await
}

#[tokio::test]
async fn a_single_statement_that_was_provably_rolled_back_runs_again() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    // The sleep comes before the row is there, so the terminated attempt has inserted nothing.
    wire.send(&wire::query("INSERT INTO facts SELECT 1 FROM pg_sleep(2) /* again */")).await?;
    let pid = running(&stack, "* again").await?;
    terminate(&stack, &pid).await?;
    let seen = wire.until_ready().await?;
    assert_eq!(tags(&seen), "CZ", "{seen:?}");
    assert_eq!(values(&wire.query("SELECT count(*) FROM facts").await?)?, ["1"]);
    // The extended protocol, with a parameter and a named statement.
    let batch = [
        wire::parse("again", "INSERT INTO facts SELECT $1::int FROM pg_sleep(2) /* once more */"),
        wire::bind("", "again", &[b"2"]),
        wire::execute("", 0),
        wire::sync(),
    ];
    wire.send(&batch.concat()).await?;
    let pid = running(&stack, "* once more").await?;
    terminate(&stack, &pid).await?;
    let seen = wire.until_ready().await?;
    assert_eq!(tags(&seen), "12CZ", "{seen:?}");
    assert_eq!(values(&wire.query("SELECT count(*) FROM facts").await?)?, ["2"]);
    Ok(())
}

#[tokio::test]
async fn what_may_have_happened_is_in_doubt() -> Result<()> {
    let stack = stack_with_table().await?;
    for (number, sql) in [
        // Several statements, a block, and what the lexer does not vouch for.
        "INSERT INTO facts VALUES (1); SELECT pg_sleep(300) /* doubt */",
        "DO $$ BEGIN PERFORM pg_sleep(300); /* doubt */ END $$",
        "EXPLAIN ANALYZE SELECT pg_sleep(300) /* doubt */",
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = stack.wire().await?;
        wire.send(&wire::query(sql)).await?;
        let pid = running(&stack, "* doubt").await?;
        terminate(&stack, &pid).await?;
        let seen = wire.until_ready().await?;
        assert_eq!(error(&seen)?, expect("08007", "I"), "{number}");
        let detail = seen.iter().find_map(|message| message.field(b'D'));
        assert!(detail.is_some_and(|detail| !detail.is_empty()), "no detail: {seen:?}");
        wire.expect_usable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_reply_that_has_begun_is_not_begun_again() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    let sql = "SELECT n, repeat('x', 20000), pg_sleep(CASE WHEN n > 20 THEN 300 ELSE 0 END) /* rows */ FROM generate_series(1, 30) n";
    wire.send(&wire::query(sql)).await?;
    wire.until(b'D').await?;
    let pid = running(&stack, "* rows").await?;
    terminate(&stack, &pid).await?;
    let seen = wire.until_ready().await?;
    assert_eq!(code(&seen), "08007", "{:?}", seen.last());
    assert!(values(&seen)?.len() < 30);
    wire.expect_usable().await
}

#[tokio::test]
async fn a_killed_server_leaves_an_insert_in_doubt() -> Result<()> {
    let mut stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    let mut idle = stack.wire().await?;
    wire.send(&wire::query("INSERT INTO facts SELECT 1 FROM pg_sleep(300) /* crash */")).await?;
    running(&stack, "* crash").await?;
    stack.postgres.crash();
    assert_eq!(error(&wire.until_ready().await?)?, expect("08007", "I"));
    stack.postgres.start_again().await?;
    idle.expect_usable().await?;
    wire.expect_usable().await?;
    assert_eq!(values(&wire.query("SELECT count(*) FROM facts").await?)?, ["0"]);
    Ok(())
}

#[tokio::test]
async fn the_end_of_no_transaction_has_succeeded_whatever_became_of_it() -> Result<()> {
    let mut stack = Setup::new().pool_size(4).start().await?;
    let batch = |sql: &str| {
        [wire::parse("", sql), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat()
    };
    let requests = [wire::query("ROLLBACK"), wire::query("commit work"), batch("ABORT"), batch("END")];
    let mut wires = Vec::new();
    for _ in &requests {
        wires.push(stack.wire().await?);
    }
    // Each has a server connection at hand, so that its request is sent.
    for wire in &mut wires {
        wire.send(&wire::query("SELECT pg_sleep(0.2)")).await?;
    }
    for wire in &mut wires {
        wire.until_ready().await?;
    }
    stack.postgres.freeze();
    for (wire, request) in wires.iter_mut().zip(&requests) {
        wire.send(request).await?;
    }
    stack.until_pool("sv_active", "4").await?;
    stack.postgres.crash();
    let expected = ["ROLLBACK", "COMMIT", "ROLLBACK", "COMMIT"];
    for (wire, expected) in wires.iter_mut().zip(expected) {
        let seen = wire.until_ready().await?;
        let tag = seen.iter().find(|message| message.tag == b'C').map(Message::word);
        assert_eq!((tag.as_deref(), status(&seen).as_str()), (Some(expected), "I"), "{seen:?}");
    }
    stack.postgres.start_again().await?;
    for wire in &mut wires {
        wire.expect_usable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_backend_reports_57p02_to_its_neighbours() -> Result<()> {
    let stack = Setup::new().pool_size(2).start().await?;
    stack.wire().await?.query("CREATE TABLE facts (id int PRIMARY KEY)").await?;
    let mut victim = stack.wire().await?;
    let mut neighbour = stack.wire().await?;
    victim.send(&wire::query("INSERT INTO facts SELECT 1 FROM pg_sleep(300) /* victim */")).await?;
    neighbour.send(&wire::query("INSERT INTO facts SELECT 2 FROM pg_sleep(300) /* neighbour */")).await?;
    let pid = running(&stack, "* victim").await?;
    running(&stack, "* neighbour").await?;
    // One backend dies; the postmaster ends all others with WARNING 57P02 and recovers.
    process::send(pid.parse()?, rustix::process::Signal::KILL);
    for wire in [&mut victim, &mut neighbour] {
        assert_eq!(error(&wire.until_ready().await?)?, expect("08007", "I"));
        wire.expect_usable().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_commit_in_flight_is_in_doubt() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    // A deferred trigger makes COMMIT take long enough to be interrupted.
    wire.query(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_sleep(300); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON facts DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    .await?;
    wire.query("BEGIN").await?;
    wire.query("INSERT INTO facts VALUES (1)").await?;
    wire.send(&wire::query("COMMIT /* slowly */")).await?;
    let pid = running(&stack, "* slowly").await?;
    terminate(&stack, &pid).await?;
    assert_eq!(error(&wire.until_ready().await?)?, expect("08007", "I"));
    wire.expect_usable().await
}

#[tokio::test]
async fn an_application_s_own_57p01_is_its_own() -> Result<()> {
    let stack = stack_with_table().await?;
    let mut wire = stack.wire().await?;
    let pid = backend(&mut wire).await?;
    for state in ["57P01", "57P02", "25006", "40001"] {
        let raise = format!("DO $$ BEGIN RAISE SQLSTATE '{state}' USING MESSAGE = 'mine'; END $$");
        let seen = wire.query(&raise).await?;
        assert_eq!(error(&seen)?, expect(state, "I"));
        assert_eq!(seen.first().and_then(|report| report.field(b'M')).as_deref(), Some("mine"));
    }
    assert_eq!(backend(&mut wire).await?, pid, "the server was given up");
    Ok(())
}

#[tokio::test]
async fn session_mode_ends_with_the_server() -> Result<()> {
    let stack = Setup::new().mode("session").start().await?;
    let mut fresh = stack.wire().await?;
    let mut wire = stack.wire().await?;
    let pid = backend(&mut wire).await?;
    terminate(&stack, &pid).await?;
    // It may be told at once, or with its next request.
    let _ = wire.send(&wire::query("SELECT 1")).await;
    let seen = wire.until_closed().await?;
    let report = seen.iter().find(|message| message.tag == b'E').context(format!("{seen:?}"))?;
    assert_eq!((report.code().as_str(), report.field(b'S').as_deref()), ("57P01", Some("FATAL")));
    assert!(report.field(b'D').is_some(), "{report:?}");
    fresh.expect_usable().await
}

#[tokio::test]
async fn a_restart_under_load_disconnects_nobody() -> Result<()> {
    let mut stack = Setup::new().pool_size(4).start().await?;
    stack.wire().await?.query("CREATE TABLE acknowledged (id bigint PRIMARY KEY)").await?;
    let stop = Instant::now() + Duration::from_secs(8);
    let mut idle = stack.wire().await?;
    let address = stack.address();
    let writers: Vec<_> = (0..8_i64).map(|number| tokio::spawn(writer(address, number, stop))).collect();
    for _ in 0..2 {
        stack.postgres.stop(ShutdownMode::Fast).await?;
        stack.postgres.start_again().await?;
        stack.until_postgres_says("SELECT count(*) > 0 FROM acknowledged", "t").await?;
    }
    let mut acknowledged = 0;
    let mut unknown = 0;
    for outcome in try_join_all(writers).await? {
        let counts = outcome?;
        acknowledged += counts.0;
        unknown += counts.1;
    }
    idle.expect_usable().await?;
    let rows = stack.postgres.superuser("SELECT count(*) FROM acknowledged").await?;
    let rows: i64 = rows.into_iter().flatten().flatten().next().context("no count")?.parse()?;
    ensure!(acknowledged > 0, "nothing was written");
    ensure!(
        (acknowledged..=acknowledged + unknown).contains(&rows),
        "{rows} rows, {acknowledged} acknowledged, {unknown} in doubt"
    );
    Ok(())
}

/// Inserts until `stop`, alternating single statements and blocks. Returns what was acknowledged and what is in doubt.
async fn writer(address: std::net::SocketAddr, number: i64, stop: Instant) -> Result<(i64, i64)> {
    let mut wire = Wire::login(address, schema::APP).await?;
    let (mut acknowledged, mut unknown) = (0, 0);
    for turn in 0.. {
        if Instant::now() >= stop {
            break;
        }
        let insert = format!("INSERT INTO acknowledged VALUES ({})", number * 1_000_000 + turn);
        let steps =
            if turn % 2 == 0 { vec![insert.as_str()] } else { vec!["BEGIN", insert.as_str(), "COMMIT"] };
        let mut outcome = String::new();
        for step in steps {
            outcome =
                code(&wire.query(step).await.with_context(|| format!("client {number} was disconnected"))?);
            if !outcome.is_empty() {
                break;
            }
        }
        match outcome.as_str() {
            "" => acknowledged += 1,
            "08007" => unknown += 1,
            "40001" => {
                wire.query("ROLLBACK").await?;
            }
            other => anyhow::bail!("client {number} got {other}"),
        }
    }
    Ok((acknowledged, unknown))
}
