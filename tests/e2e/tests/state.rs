//! What a client leaves behind on a shared server connection must not reach the next one, whatever the policy, and the
//! client that made it keeps it unless the policy says otherwise. All tests give two clients one server connection.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_cluster::schema;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{self, Message, PROTOCOL_3_0, Wire, tags, values};

const KINDS: [&str; 6] =
    ["on_set", "on_prepare", "on_listen", "on_advisory_lock", "on_temporary_table", "on_hold_cursor"];

async fn shared(policy: &str) -> Result<Stack> {
    let mut setup = Setup::new().pool_size(1);
    for key in KINDS {
        // The last four cannot be made anew.
        let tracked = matches!(key, "on_set" | "on_prepare");
        let policy = if policy == "track" && !tracked { "pin" } else { policy };
        setup = setup.set("session", &format!("{key} = \"{policy}\""));
    }
    setup.start().await
}

async fn one(wire: &mut Wire, sql: &str) -> Result<String> {
    let seen = wire.query(sql).await?;
    values(&seen)?.pop().with_context(|| format!("{sql}: {seen:?}"))
}

/// Both clients in turns: each sees its own value and nobody else's.
async fn alternate(first: &mut Wire, second: &mut Wire, sql: &str, expected: [&str; 2]) -> Result<()> {
    for round in 0..3 {
        ensure!(one(first, sql).await? == expected[0], "{sql}, round {round}, the first client");
        ensure!(one(second, sql).await? == expected[1], "{sql}, round {round}, the second client");
    }
    Ok(())
}

fn code(seen: &[Message]) -> String {
    seen.iter().find(|message| message.tag == b'E').map(Message::code).unwrap_or_default()
}

/// What is left of all kinds, as PostgreSQL counts it.
const LEFT: &str = "SELECT concat_ws('/', \
    (SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction%'), \
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
    (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_cursors WHERE is_holdable))";

const NOTHING: &str = "0/0/0/0/0/0";

/// One statement of each kind, what is left of it, and what takes it away.
const STATES: [(&str, &str, &str); 6] = [
    ("SET work_mem = '8MB'", "1/0/0/0/0/0", "RESET work_mem"),
    ("PREPARE mine AS SELECT 1", "0/1/0/0/0/0", "DEALLOCATE mine"),
    ("LISTEN news", "0/0/1/0/0/0", "UNLISTEN news"),
    ("SELECT pg_advisory_lock(42)", "0/0/0/1/0/0", "SELECT pg_advisory_unlock(42)"),
    ("CREATE TEMP TABLE mine (a int)", "0/0/0/0/1/0", "DROP TABLE mine"),
    ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "0/0/0/0/0/1", "CLOSE mine"),
];

#[tokio::test]
async fn settings_are_made_anew_for_their_client_only() -> Result<()> {
    let stack = shared("track").await?;
    let mut first = stack.wire().await?;
    let mut second = stack.wire_with(&[("work_mem", "7MB")]).await?;
    let zone = one(&mut second, "SHOW TimeZone").await?;
    first.query("SET work_mem = '8MB'").await?;
    alternate(&mut first, &mut second, "SHOW work_mem", ["8MB", "7MB"]).await?;
    first.query("SET my.tenant = 'a \"quoted'' one'").await?;
    let tenant = "SELECT coalesce(current_setting('my.tenant', true), '')";
    alternate(&mut first, &mut second, tenant, ["a \"quoted' one", ""]).await?;
    // Only what was committed counts.
    for sql in ["BEGIN", "SET work_mem = '9MB'", "SET LOCAL lock_timeout = '3s'", "ROLLBACK"] {
        first.query(sql).await?;
    }
    alternate(&mut first, &mut second, "SHOW work_mem", ["8MB", "7MB"]).await?;
    for sql in ["BEGIN", "SET LOCAL work_mem = '10MB'", "SET TimeZone = 'Asia/Tokyo'", "COMMIT"] {
        first.query(sql).await?;
    }
    alternate(&mut first, &mut second, "SHOW work_mem", ["8MB", "7MB"]).await?;
    alternate(&mut first, &mut second, "SHOW TimeZone", ["Asia/Tokyo", &zone]).await?;
    // By the extended protocol, by a function, and in a string of several statements.
    let set = [wire::parse("s", "SET search_path = pg_catalog, \"My schema\""), wire::sync()].concat();
    first.send(&set).await?;
    first.until_ready().await?;
    first.send(&[wire::bind("", "s", &[]), wire::execute("", 0), wire::sync()].concat()).await?;
    ensure!(tags(&first.until_ready().await?) == "2CZ");
    alternate(
        &mut first,
        &mut second,
        "SHOW search_path",
        ["pg_catalog, \"My schema\"", "\"$user\", public"],
    )
    .await?;
    first.query("SELECT set_config('statement_timeout', '12345', false)").await?;
    first.query("SET enable_seqscan = off; SET enable_sort = off").await?;
    let three = "SELECT concat_ws(' ', current_setting('statement_timeout'), \
        current_setting('enable_seqscan'), current_setting('enable_sort'))";
    alternate(&mut first, &mut second, three, ["12345ms off off", "0 on on"]).await?;
    // A reset goes back to where each client began.
    second.query("SET work_mem = '11MB'").await?;
    second.query("RESET work_mem").await?;
    first.query("RESET ALL").await?;
    alternate(&mut first, &mut second, "SHOW work_mem", ["4MB", "7MB"]).await?;
    ensure!(one(&mut first, three).await? == "0 on on");
    ensure!(stack.servers().await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn statements_prepared_by_sql_belong_to_their_client() -> Result<()> {
    let stack = shared("track").await?;
    let (mut first, mut second) = (stack.wire().await?, stack.wire().await?);
    first.query("PREPARE same(int) AS SELECT $1 + 1 -- one\n").await?;
    second.query("PREPARE same(int) AS SELECT $1 + 2;").await?;
    alternate(&mut first, &mut second, "EXECUTE same(40)", ["41", "42"]).await?;
    second.query("DEALLOCATE same").await?;
    ensure!(one(&mut first, "EXECUTE same(1)").await? == "2");
    ensure!(code(&second.query("EXECUTE same(1)").await?) == "26000");
    first.query("DEALLOCATE ALL").await?;
    ensure!(code(&first.query("EXECUTE same(1)").await?) == "26000");
    Ok(())
}

#[tokio::test]
async fn a_client_keeps_its_server_connection_while_it_has_something_there() -> Result<()> {
    let stack = shared("pin").await?;
    for (sql, left, end) in STATES {
        let (mut first, mut second) = (stack.wire().await?, stack.wire().await?);
        first.query(sql).await?;
        ensure!(one(&mut first, LEFT).await? == left, "{sql}");
        second.send(&wire::query(LEFT)).await?;
        stack.until_pool("cl_waiting", "1").await?;
        ensure!(one(&mut first, LEFT).await? == left, "{sql}: it is still there");
        first.query(end).await?;
        let seen = second.until_ready().await?;
        ensure!(values(&seen)? == [NOTHING], "{sql}: {seen:?}");
        // The same, but the client leaves without a word.
        first.query(sql).await?;
        first.vanish()?;
        ensure!(one(&mut second, LEFT).await? == NOTHING, "{sql}");
    }
    // What came to nothing ties nobody.
    let (mut first, mut second) = (stack.wire().await?, stack.wire().await?);
    for sql in ["BEGIN", "LISTEN news", "CREATE TEMP TABLE mine (a int)", "ROLLBACK"] {
        first.query(sql).await?;
    }
    ensure!(one(&mut second, LEFT).await? == NOTHING);
    Ok(())
}

#[tokio::test]
async fn a_listener_hears_its_news() -> Result<()> {
    let stack = shared("track").await?;
    let mut first = stack.wire().await?;
    first.query("LISTEN news").await?;
    let direct = Wire::login_with(stack.postgres.address(), schema::APP, PROTOCOL_3_0, &[]).await;
    let mut direct = direct?;
    direct.query("NOTIFY news, 'hello'").await?;
    let heard = first.next(Duration::from_secs(10)).await?.context("no news")?;
    ensure!(heard.tag == b'A', "{heard:?}");
    Ok(())
}

// covers: on_set on_prepare on_listen on_advisory_lock on_temporary_table on_hold_cursor
#[tokio::test]
async fn refused_statements_abort_what_they_are_in() -> Result<()> {
    let stack = shared("refuse").await?;
    let (mut first, mut second) = (stack.wire().await?, stack.wire().await?);
    for (sql, _, end) in STATES {
        let seen = first.query(sql).await?;
        ensure!(code(&seen) == "0A000" && tags(&seen) == "EZ", "{sql}: {seen:?}");
        ensure!(seen[0].field(b'D').is_some_and(|detail| detail.contains("on_")), "{sql}: {seen:?}");
        ensure!(seen[0].field(b'H').is_some(), "{sql}: {seen:?}");
        // In a transaction, in the middle of a pipeline.
        first.query("BEGIN").await?;
        let batch = [
            wire::parse("", "SELECT 1"),
            wire::bind("", "", &[]),
            wire::execute("", 0),
            wire::parse("", sql),
        ];
        let rest = [wire::bind("", "", &[]), wire::execute("", 0), wire::query("SELECT 'skipped'")];
        first.send(&[batch.concat(), rest.concat(), wire::sync()].concat()).await?;
        let seen = first.until_ready().await?;
        ensure!(code(&seen) == "0A000" && seen.last().map(Message::word).as_deref() == Some("E"), "{seen:?}");
        ensure!(code(&first.query("SELECT 1").await?) == "25P02");
        first.query("ROLLBACK").await?;
        // Taking away what is not there is PostgreSQL's business.
        first.query(end).await?;
        ensure!(one(&mut second, LEFT).await? == NOTHING, "{sql}");
    }
    // What every client keeps is not refused.
    first.query("SET TimeZone = 'Asia/Tokyo'").await?;
    ensure!(one(&mut second, "SHOW TimeZone").await? != "Asia/Tokyo");
    ensure!(one(&mut first, "SHOW TimeZone").await? == "Asia/Tokyo");
    Ok(())
}

#[tokio::test]
async fn forgotten_state_reaches_nobody() -> Result<()> {
    let stack = shared("forget").await?;
    let (mut first, mut second) = (stack.wire().await?, stack.wire().await?);
    for (sql, _, _) in STATES {
        first.query(sql).await?;
        ensure!(one(&mut second, LEFT).await? == NOTHING, "{sql}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_in_session_pooling_goes_back_to_the_client_s_own() -> Result<()> {
    let stack = Setup::new().pool_size(1).mode("session").start().await?;
    let mut wire =
        stack.wire_with(&[("DateStyle", "German"), ("my.var", "mine"), ("work_mem", "7MB")]).await?;
    let all = "SELECT concat_ws(' ', current_setting('DateStyle'), current_setting('my.var'), \
        current_setting('work_mem'))";
    for sql in ["SET DateStyle = 'ISO'; SET my.var = 'x'; SET work_mem = '9MB'", "RESET DateStyle"] {
        wire.query(sql).await?;
    }
    ensure!(one(&mut wire, all).await? == "German, DMY x 9MB");
    for reset in ["RESET ALL", "DISCARD ALL", "SET my.var TO DEFAULT"] {
        wire.query("SET my.var = 'y'").await?;
        wire.query(reset).await?;
        ensure!(one(&mut wire, all).await? == "German, DMY mine 7MB", "{reset}");
    }
    // A transaction that is rolled back takes its reset along.
    wire.query("SET work_mem = '9MB'").await?;
    for sql in ["BEGIN", "RESET work_mem"] {
        wire.query(sql).await?;
    }
    ensure!(one(&mut wire, "SHOW work_mem").await? == "7MB");
    wire.query("ROLLBACK").await?;
    ensure!(one(&mut wire, "SHOW work_mem").await? == "9MB");
    Ok(())
}

/// What a client has cannot always be made anew on the server connection that it gets.
#[tokio::test]
async fn what_cannot_be_made_anew_hurts_nobody() -> Result<()> {
    let stack = shared("track").await?;
    let mut first = stack.wire().await?;
    let mut second = stack.wire().await?;
    first.query("CREATE TABLE gone (a int); CREATE TABLE kept (a int)").await?;
    // A request is not run with other values than its client's.
    let mut wrong = stack.wire_with(&[("work_mem", "much")]).await?;
    wrong.send(&wire::query("INSERT INTO kept VALUES (1)")).await?;
    let seen = wrong.until_closed().await?;
    ensure!(code(&seen) == "22023", "{seen:?}");
    ensure!(one(&mut second, "SELECT count(*) FROM kept").await? == "0");
    // The table of a statement is gone when its client comes back.
    first.query("PREPARE lost AS SELECT * FROM gone").await?;
    second.query("DROP TABLE gone").await?;
    ensure!(one(&mut first, "SELECT 5").await? == "5");
    ensure!(code(&first.query("EXECUTE lost").await?) == "26000");
    // A function has taken away what weir knows of.
    let forget = "CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS \
        $$ BEGIN EXECUTE 'DEALLOCATE mine'; RETURN 1; END $$";
    for sql in [forget, "PREPARE mine AS SELECT 3", "SELECT forget()"] {
        first.query(sql).await?;
    }
    ensure!(one(&mut second, "SELECT 6").await? == "6");
    // A statement that is let go of before weir has learned of it.
    for _ in 0..5 {
        first.query("PREPARE brief AS SELECT 7").await?;
        first.query("DEALLOCATE brief").await?;
        ensure!(one(&mut second, "SELECT 8").await? == "8");
    }
    // Quotes do not hide what is called.
    first.query("SELECT \"pg_catalog\".\"set_config\"('work_mem', '8MB', false)").await?;
    alternate(&mut first, &mut second, "SHOW work_mem", ["8MB", "4MB"]).await?;
    // Nor does a block of code.
    first
        .query("DO $$ BEGIN PERFORM set_config('work_mem', '9MB', false); EXECUTE 'LISTEN news'; END $$")
        .await?;
    ensure!(one(&mut first, "SELECT count(*) FROM pg_listening_channels()").await? == "1");
    first.query("UNLISTEN *").await?;
    alternate(&mut first, &mut second, "SHOW work_mem", ["9MB", "4MB"]).await
}
