//! Tables of texts and what they may leave behind.

use super::super::classify;
use super::Marks;

#[track_caller]
fn check(sql: &str, expected: Marks) {
    for text in
        [sql.to_owned(), sql.to_lowercase(), format!("-- why\n/* not */ {sql};"), format!("{sql}; SELECT 1")]
    {
        assert_eq!(classify(text.as_bytes()).marks, expected, "{text}");
    }
}

#[test]
fn ordinary_statements_leave_nothing() {
    for sql in [
        "SELECT 1",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO temperatures SELECT lock FROM x",
        "UPDATE t SET a = (b)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
        "SELECT 'pg_advisory_lock(1)'",
        "SELECT f(/* pg_advisory_lock(1) */ 2)",
        "SET LOCAL work_mem = 1",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET CONSTRAINTS ALL DEFERRED",
        "CREATE TABLE temporary_things (a int)",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "DECLARE c CURSOR FOR SELECT 1",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
        "NOTIFY x",
        "BEGIN",
        "SELECT a INTO keep FROM temp",
    ] {
        check(sql, Marks::NONE);
    }
}

#[test]
fn settings() {
    for sql in
        ["SET a = 1", "SET SESSION a TO 'x'", "SET TIME ZONE 'UTC'", "SET my.var = 'x'", "SET NAMES 'x'"]
    {
        check(sql, Marks::SETTING);
    }
    check("SELECT set_config('a', 'b', false)", Marks::SETTING);
    check("SELECT pg_catalog.set_config ('a', 'b', true)", Marks::SETTING);
    check("SELECT \"pg_catalog\".\"set_config\"('a', 'b', false)", Marks::SETTING);
    check("SELECT 1, \"pg_advisory_lock\"\n (42)", Marks::LOCK);
    check("SELECT \"set_config\" FROM (t)", Marks::NONE);
    check("SELECT \"set_config", Marks::NONE);
    check("DO $$ BEGIN PERFORM set_config('a', 'b', false); END $$", Marks::SETTING);
    check(
        "DO $$ BEGIN PERFORM \"pg_advisory_lock\"(1); CREATE TEMP TABLE t (); END $$",
        Marks::LOCK.with(Marks::TEMPORARY),
    );
    check(
        "DO $$ BEGIN EXECUTE 'LISTEN x'; PERFORM pg_advisory_unlock(1); END $$",
        Marks::LISTENING.with(Marks::LOCK),
    );
    check("DO $$ BEGIN SELECT 1 INTO set; UPDATE t SET a = 1; RAISE 'SET a = 1'; END $$", Marks::NONE);
    check("SET a TO DEFAULT", Marks::SETTING.with(Marks::RESETS));
    check("RESET a", Marks::SETTING.with(Marks::RESETS).with(Marks::LETS_GO));
    check("SET ROLE x", Marks::ROLE);
    check("SET SESSION AUTHORIZATION x", Marks::ROLE);
    check("RESET ROLE", Marks::ROLE.with(Marks::LETS_GO));
    check("DISCARD ALL", Marks::ALL.with(Marks::RESETS).with(Marks::LETS_GO));
}

#[test]
fn what_lives_in_the_session() {
    check("LISTEN x", Marks::LISTENING);
    check("UNLISTEN *", Marks::LISTENING.with(Marks::LETS_GO));
    check("PREPARE p AS SELECT 1", Marks::PREPARED);
    check("PREPARE TRANSACTION 'x'", Marks::NONE);
    check("DEALLOCATE p", Marks::PREPARED.with(Marks::LETS_GO));
    check("DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1", Marks::CURSOR);
    check("CLOSE c", Marks::CURSOR.with(Marks::LETS_GO));
    for sql in [
        "CREATE TEMP TABLE t (a int)",
        "CREATE TEMPORARY SEQUENCE s",
        "CREATE OR REPLACE LOCAL TEMP VIEW v AS SELECT 1",
        "CREATE TABLE IF NOT EXISTS pg_temp.t (a int)",
        "CREATE TEMP TABLE t (a int) ON COMMIT DELETE ROWS",
        "SELECT 1 INTO TEMP t",
        "SELECT 1 AS p INTO  TEMPORARY TABLE t FROM p",
        "WITH a AS (SELECT 1) SELECT * INTO temp t FROM a",
    ] {
        check(sql, Marks::TEMPORARY);
    }
    for sql in [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock(1, 2)",
        "SELECT pg_catalog.pg_advisory_lock_shared (1)",
        "WITH l AS (SELECT pg_try_advisory_lock_shared(1)) SELECT 1",
        "(SELECT pg_advisory_lock(1))",
        "INSERT INTO t SELECT 1 WHERE pg_try_advisory_lock(2)",
    ] {
        check(sql, Marks::LOCK);
    }
    for sql in ["SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock_all()"] {
        check(sql, Marks::LOCK.with(Marks::LETS_GO));
    }
}

#[test]
fn each_statement_of_a_text_counts() {
    let marks = classify(b"BEGIN; LISTEN x; SELECT pg_advisory_lock(1); COMMIT").marks;
    assert_eq!(marks, Marks::LISTENING.with(Marks::LOCK));
}
