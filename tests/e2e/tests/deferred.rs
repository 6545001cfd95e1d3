//! A transaction that has only said BEGIN takes no server connection and outlives its PostgreSQL; with its first statement it
//! becomes one like any other. Against a real PostgreSQL.

use anyhow::{Context, Result, ensure};
use weir_cluster::postgres::ShutdownMode;
use weir_cluster::schema;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, Wire, tags, values};

/// Codes of errors, tags of commands, and status.
fn told(messages: &[Message]) -> String {
    let words = messages.iter().filter_map(|message| match message.tag {
        b'E' | b'N' => Some(message.code()),
        b'C' => Some(message.word()),
        b'Z' => Some(String::from_utf8_lossy(&message.body).into_owned()),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

async fn tells(wire: &mut Wire, sql: &str, answer: &str) -> Result<()> {
    let seen = wire.query(sql).await?;
    ensure!(told(&seen) == answer, "{sql}: {} instead of {answer}", told(&seen));
    Ok(())
}

async fn of_figures(stack: &Stack, column: &str) -> Result<u64> {
    let rows = stack.show("STATS_TOTALS").await?;
    let is_ours = |row: &&Vec<(String, String)>| row.iter().any(|(_, value)| value == schema::DATABASE);
    let row = rows.iter().find(is_ours).context("no figures")?;
    let value = row.iter().find(|(name, _)| name == column).context("no such figure")?;
    Ok(value.1.parse()?)
}

#[tokio::test]
async fn begin_takes_no_server_connection_and_outlives_postgresql() -> Result<()> {
    let mut stack = Setup::new().pool_size(1).start().await?;
    let [mut one, mut two, mut three] = [stack.wire().await?, stack.wire().await?, stack.wire().await?];
    one.query("CREATE TABLE facts (id int PRIMARY KEY)").await?;
    let figures = (of_figures(&stack, "query_count").await?, of_figures(&stack, "xact_count").await?);
    // All three at once, with one server connection.
    for wire in [&mut one, &mut two, &mut three] {
        tells(wire, "BEGIN", "BEGIN T").await?;
    }
    stack.postgres.stop(ShutdownMode::Fast).await?;
    tells(&mut three, "COMMIT", "COMMIT I").await?;
    stack.postgres.start_again().await?;
    tells(&mut one, "INSERT INTO facts VALUES (1)", "INSERT 0 1 T").await?;
    tells(&mut one, "COMMIT", "COMMIT I").await?;
    tells(&mut two, "INSERT INTO facts VALUES (2)", "INSERT 0 1 T").await?;
    tells(&mut two, "ROLLBACK", "ROLLBACK I").await?;
    assert_eq!(values(&three.query("SELECT id FROM facts").await?)?, ["1"]);
    let after = (of_figures(&stack, "query_count").await?, of_figures(&stack, "xact_count").await?);
    assert_eq!((after.0 - figures.0, after.1 - figures.1), (9, 4));
    Ok(())
}

#[tokio::test]
async fn what_begins_is_what_was_asked_for() -> Result<()> {
    let stack = Setup::new().pool_size(1).start().await?;
    let mut wire = stack.wire_with(&[("TimeZone", "Europe/Paris")]).await?;
    let modes = "SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_read_only'),
        current_setting('transaction_deferrable'), current_setting('TimeZone'))";
    for (begin, expected) in [
        ("BEGIN", "read committed off off Europe/Paris"),
        (
            "start transaction isolation level serializable, read only, deferrable",
            "serializable on on Europe/Paris",
        ),
        (
            "BEGIN READ ONLY, READ WRITE ISOLATION LEVEL REPEATABLE READ",
            "repeatable read off off Europe/Paris",
        ),
    ] {
        wire.query(begin).await?;
        assert_eq!(values(&wire.query(modes).await?)?, [expected], "{begin}");
        tells(&mut wire, "ROLLBACK", "ROLLBACK I").await?;
    }
    // As a batch of its own, and first statements of all kinds.
    let batch = |sql: &str| {
        [
            wire::parse("", sql),
            wire::bind("", "", &[]),
            wire::describe(b'P', ""),
            wire::execute("", 0),
            wire::sync(),
        ]
        .concat()
    };
    wire.send(&batch("BEGIN READ ONLY")).await?;
    assert_eq!(tags(&wire.until_ready().await?), "12nCZ");
    wire.send(&batch("SELECT 1")).await?;
    assert_eq!(tags(&wire.until_ready().await?), "12TDCZ");
    tells(&mut wire, "CREATE TABLE t (id int)", "25006 E").await?;
    wire.send(&batch("COMMIT")).await?;
    assert_eq!(told(&wire.until_ready().await?), "ROLLBACK I");
    for (first, answer) in [
        ("BEGIN", "25001 BEGIN T"),
        ("SAVEPOINT a", "SAVEPOINT T"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET T"),
        ("SET LOCAL work_mem = '1MB'", "SET T"),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR T"),
        ("LISTEN news", "LISTEN T"),
        ("SELECT no_such_column", "42703 E"),
        ("COPY (SELECT 1) TO STDOUT", "COPY 1 T"),
        ("", "T"),
    ] {
        tells(&mut wire, "BEGIN", "BEGIN T").await?;
        tells(&mut wire, first, answer).await?;
        tells(&mut wire, "ROLLBACK", "ROLLBACK I").await?;
    }
    // All at once.
    wire.send(&["BEGIN", "SELECT 1", "SELECT 2", "COMMIT", "SELECT 3"].map(wire::query).concat()).await?;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.append(&mut wire.until_ready().await?);
    }
    assert_eq!(told(&seen), "BEGIN T SELECT 1 T SELECT 1 T COMMIT I SELECT 1 I");
    Ok(())
}

/// A standby has no serializable transactions, so BEGIN fails there.
#[tokio::test]
async fn a_begin_that_fails_runs_nothing_behind_it() -> Result<()> {
    let mut stack = Setup::new().pool_size(1).start().await?;
    stack.wire().await?.query("CREATE TABLE facts (id int PRIMARY KEY)").await?;
    stack.postgres.stop(ShutdownMode::Fast).await?;
    let data = stack.postgres.log().parent().context("no folder")?.join("data");
    std::fs::write(data.join("standby.signal"), "")?;
    stack.postgres.start_again().await?;
    let mut wire = stack.wire().await?;
    let batch =
        [wire::parse("", "SELECT 1"), wire::bind("", "", &[]), wire::execute("", 0), wire::sync()].concat();
    for request in
        [wire::query("SELECT 1"), batch, [wire::query("SELECT 1"), wire::query("SELECT 2")].concat()]
    {
        tells(&mut wire, "BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN T").await?;
        wire.send(&request).await?;
        assert_eq!(told(&wire.until_ready().await?), "0A000 E");
        if request.ends_with(b"2\0") {
            assert_eq!(told(&wire.until_ready().await?), "25P02 E");
        }
        tells(&mut wire, "SELECT 3", "25P02 E").await?;
        tells(&mut wire, "ROLLBACK", "ROLLBACK I").await?;
        wire.expect_usable().await?;
    }
    assert_eq!(stack.servers().await?.len(), 1, "the connection is kept");
    Ok(())
}
