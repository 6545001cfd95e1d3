//! Named prepared statements in transaction mode: a client's names are its own on every server it meets.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Wire, tags, values};

async fn stack(size: u32) -> Result<Stack> {
    Setup::new().pool_size(size).start().await
}

fn prepare(name: &str, sql: &str) -> Vec<u8> {
    [wire::parse(name, sql), wire::sync()].concat()
}

fn run(name: &str, values: &[&[u8]]) -> Vec<u8> {
    [wire::bind("", name, values), wire::execute("", 0), wire::sync()].concat()
}

async fn ask(wire: &mut Wire, bytes: &[u8]) -> Result<Vec<Message>> {
    wire.send(bytes).await?;
    wire.until_ready().await
}

#[tokio::test]
async fn one_name_means_another_statement_to_each_client() -> Result<()> {
    let stack = stack(3).await?;
    let work = (1..=12_u32).map(|factor| {
        let stack = &stack;
        async move {
            let mut wire = stack.wire().await?;
            let seen = ask(&mut wire, &prepare("same_name", &format!("SELECT $1::int * {factor}"))).await?;
            ensure!(tags(&seen) == "1Z", "{seen:?}");
            for n in 0..50_u32 {
                let seen = ask(&mut wire, &run("same_name", &[n.to_string().as_bytes()])).await?;
                ensure!(values(&seen)? == [(n * factor).to_string()], "{n} * {factor}: {seen:?}");
            }
            anyhow::Ok(())
        }
    });
    try_join_all(work).await?;
    assert_eq!(stack.servers().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_statement_follows_to_a_server_that_has_never_seen_it() -> Result<()> {
    let stack = stack(2).await?;
    let mut wire = stack.wire().await?;
    ask(&mut wire, &prepare("s", "SELECT pg_backend_pid() + 0 * $1::int")).await?;
    let first = values(&ask(&mut wire, &run("s", &[b"1"])).await?)?;
    // Somebody else sits on that server in a transaction.
    let mut other = stack.wire().await?;
    other.query("BEGIN").await?;
    let taken = values(&other.query("SELECT pg_backend_pid()").await?)?;
    assert_eq!(taken, first);
    let seen = ask(&mut wire, &run("s", &[b"1"])).await?;
    // The hidden Parse leaves no trace in the answer.
    assert_eq!(tags(&seen), "2DCZ");
    assert_ne!(values(&seen)?, first);
    other.query("COMMIT").await?;
    Ok(())
}

#[tokio::test]
async fn describe_and_close_know_the_client_s_name() -> Result<()> {
    let stack = stack(1).await?;
    let mut wire = stack.wire().await?;
    ask(&mut wire, &prepare("mine", "SELECT $1::int AS n")).await?;
    let mut other = stack.wire().await?;
    let seen = ask(&mut other, &[wire::describe(b'S', "mine"), wire::sync()].concat()).await?;
    assert_eq!(seen.first().map(Message::code), Some("26000".to_owned()), "{seen:?}");
    assert_eq!(tags(&ask(&mut wire, &[wire::describe(b'S', "mine"), wire::sync()].concat()).await?), "tTZ");
    assert_eq!(tags(&ask(&mut wire, &[wire::close(b'S', "mine"), wire::sync()].concat()).await?), "3Z");
    // Closing what is not there is no error.
    assert_eq!(tags(&ask(&mut wire, &[wire::close(b'S', "mine"), wire::sync()].concat()).await?), "3Z");
    let seen = ask(&mut wire, &run("mine", &[b"1"])).await?;
    assert_eq!(seen.first().map(Message::code), Some("26000".to_owned()), "{seen:?}");
    // The name is free again.
    assert_eq!(tags(&ask(&mut wire, &prepare("mine", "SELECT 'new' || $1")).await?), "1Z");
    assert_eq!(values(&ask(&mut wire, &run("mine", &[b"er"])).await?)?, ["newer"]);
    Ok(())
}

#[tokio::test]
async fn a_name_in_use_cannot_be_prepared_again() -> Result<()> {
    let stack = stack(1).await?;
    let mut wire = stack.wire().await?;
    ask(&mut wire, &prepare("s", "SELECT 1")).await?;
    let seen = ask(&mut wire, &prepare("s", "SELECT 2")).await?;
    assert_eq!(seen.first().map(Message::code), Some("42P05".to_owned()), "{seen:?}");
    assert_eq!(values(&ask(&mut wire, &run("s", &[])).await?)?, ["1"]);
    Ok(())
}

#[tokio::test]
async fn a_failed_parse_leaves_nothing_behind() -> Result<()> {
    let stack = stack(1).await?;
    let mut wire = stack.wire().await?;
    let seen = ask(&mut wire, &prepare("s", "SELECT FROM WHERE")).await?;
    assert_eq!(seen.first().map(Message::code), Some("42601".to_owned()));
    let seen = ask(&mut wire, &run("s", &[])).await?;
    assert_eq!(seen.first().map(Message::code), Some("26000".to_owned()));
    assert_eq!(tags(&ask(&mut wire, &prepare("s", "SELECT 1")).await?), "1Z");
    // Parsed behind an error in the same batch: skipped, so it does not exist either.
    let batch = [wire::parse("", "SELECT 1/0"), wire::bind("", "", &[]), wire::execute("", 0)].concat();
    let seen = ask(&mut wire, &[batch, wire::parse("t", "SELECT 2"), wire::sync()].concat()).await?;
    assert_eq!(tags(&seen), "1EZ");
    let seen = ask(&mut wire, &run("t", &[])).await?;
    assert_eq!(seen.first().map(Message::code), Some("26000".to_owned()), "{seen:?}");
    assert_eq!(values(&ask(&mut wire, &run("s", &[])).await?)?, ["1"]);
    Ok(())
}

#[tokio::test]
async fn discard_all_and_deallocate_all_forget() -> Result<()> {
    let stack = stack(1).await?;
    let mut first = stack.wire().await?;
    let mut second = stack.wire().await?;
    for forget in ["DISCARD ALL", "DEALLOCATE ALL"] {
        ask(&mut first, &prepare("s", "SELECT 'first'")).await?;
        ask(&mut second, &prepare("s", "SELECT 'second'")).await?;
        first.query(forget).await?;
        let seen = ask(&mut first, &run("s", &[])).await?;
        assert_eq!(seen.first().map(Message::code), Some("26000".to_owned()), "{forget}: {seen:?}");
        // The other client's statement was on that server too, and is back when it is needed.
        assert_eq!(values(&ask(&mut second, &run("s", &[])).await?)?, ["second"], "{forget}");
        ask(&mut second, &[wire::close(b'S', "s"), wire::sync()].concat()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_changed_table_does_not_break_statements_for_good() -> Result<()> {
    let stack = stack(1).await?;
    let mut wire = stack.wire().await?;
    wire.query("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)").await?;
    ask(&mut wire, &prepare("s", "SELECT * FROM changing")).await?;
    assert_eq!(values(&ask(&mut wire, &run("s", &[])).await?)?, ["1"]);
    wire.query("ALTER TABLE changing ADD COLUMN b int; UPDATE changing SET b = 2").await?;
    // "cached plan must not change result type" for one client only would be PostgreSQL's own answer; weir parses again.
    let seen = ask(&mut wire, &run("s", &[])).await?;
    assert_eq!(values(&seen)?, ["1"], "{seen:?}");
    let columns = seen.iter().find(|message| message.tag == b'D').map(Message::columns).transpose()?;
    assert_eq!(columns.map(|columns| columns.len()), Some(2));
    Ok(())
}

// covers: max_prepared_statements
#[tokio::test]
async fn more_statements_than_a_server_keeps() -> Result<()> {
    let stack = Setup::new().pool_size(1).set("pool", "max_prepared_statements = 10").start().await?;
    let mut wire = stack.wire().await?;
    for n in 0..100 {
        let seen = ask(&mut wire, &prepare(&format!("s{n}"), &format!("SELECT {n}"))).await?;
        ensure!(tags(&seen) == "1Z", "{n}: {seen:?}");
    }
    for n in (0..100).rev() {
        assert_eq!(values(&ask(&mut wire, &run(&format!("s{n}"), &[])).await?)?, [n.to_string()]);
    }
    let mut direct = stack.wire().await?;
    let kept = values(&direct.query("SELECT count(*) FROM pg_prepared_statements").await?)?;
    let kept: u32 = kept.first().map_or(Ok(u32::MAX), |count| count.parse())?;
    assert!(kept <= 11, "{kept} statements on the server");
    // A batch may name more statements than are kept: none that it still needs may go.
    let batch: Vec<u8> = (0..30)
        .flat_map(|n| [wire::bind("", &format!("s{n}"), &[]), wire::execute("", 0)].concat())
        .chain(wire::sync())
        .collect();
    let expected: Vec<String> = (0..30).map(|n: u32| n.to_string()).collect();
    assert_eq!(values(&ask(&mut wire, &batch).await?)?, expected);
    Ok(())
}

#[tokio::test]
async fn parameter_types_and_search_path_are_part_of_a_statement() -> Result<()> {
    let stack = stack(1).await?;
    let mut setup = stack.wire().await?;
    setup.query("CREATE SCHEMA one; CREATE TABLE one.t AS SELECT 'one' AS v").await?;
    setup.query("CREATE SCHEMA two; CREATE TABLE two.t AS SELECT 'two' AS v").await?;
    let mut one = stack.wire_with(&[("search_path", "one")]).await?;
    let mut two = stack.wire_with(&[("search_path", "two")]).await?;
    for wire in [&mut one, &mut two] {
        ask(wire, &prepare("s", "SELECT v FROM t")).await?;
    }
    for _ in 0..3 {
        assert_eq!(values(&ask(&mut one, &run("s", &[])).await?)?, ["one"]);
        assert_eq!(values(&ask(&mut two, &run("s", &[])).await?)?, ["two"]);
    }
    // One text, another declared type.
    let typed = |oid: u32| {
        let mut body = wire::strings(&["typed", "SELECT pg_typeof($1)::text"]);
        body.extend_from_slice(&[0, 1]);
        body.extend_from_slice(&oid.to_be_bytes());
        [wire::message(b'P', &body), wire::sync()].concat()
    };
    ask(&mut one, &typed(23)).await?;
    ask(&mut two, &typed(25)).await?;
    assert_eq!(values(&ask(&mut one, &run("typed", &[b"1"])).await?)?, ["integer"]);
    assert_eq!(values(&ask(&mut two, &run("typed", &[b"1"])).await?)?, ["text"]);
    Ok(())
}
