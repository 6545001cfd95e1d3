//! A table of texts and the parameters they set.

use super::{Assignments, assignments};

#[track_caller]
fn check(sql: &str, names: &[&str], others: bool, hidden: bool) {
    let expected =
        Assignments { names: names.iter().map(|name| (*name).to_owned()).collect(), others, hidden };
    assert_eq!(assignments(sql.as_bytes()), expected, "{sql}");
}

#[test]
fn names_of_parameters_are_found() {
    check("SELECT 1", &[], false, false);
    check("SET a = 1", &["a"], false, false);
    check("set Work_Mem to '8MB'; SET SESSION my.Var = 'x', 'y';", &["work_mem", "my.var"], false, false);
    check("SET \"My\".\"v\"\"ar\" TO 1", &["my.v\"ar"], false, false);
    check("SET TIME ZONE 'UTC'", &["timezone"], false, false);
    check("SET NAMES 'LATIN1'", &["client_encoding"], false, false);
    check("SET LOCAL a = 1; SET TRANSACTION READ ONLY; SET ROLE x", &[], false, false);
    check("SELECT 1 AS set, reset FROM t", &[], false, false);
}

#[test]
fn what_has_to_be_looked_for() {
    for sql in [
        "RESET a",
        "RESET ALL",
        "DISCARD ALL",
        "SET a TO DEFAULT",
        "SET a = DEFAULT",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET XML OPTION DOCUMENT",
        "SET 1",
    ] {
        check(sql, &[], true, false);
    }
}

#[test]
fn blocks_of_code() {
    check("DO $$ BEGIN SET a = 1; PERFORM set_config('b', 'x', false); END $$", &["a", "b"], false, false);
    check("DO LANGUAGE plpgsql 'BEGIN IF true THEN SET a = 1; END IF; END'", &["a"], false, false);
    check("DO $x$ BEGIN EXECUTE $$SET a = 1$$; EXECUTE 'RESET b'; END $x$", &["a"], true, false);
    check("DO $$ BEGIN EXECUTE format('SET %I = 1', x); SET LOCAL c = 1; END $$", &[], true, false);
    check("DO $$ BEGIN UPDATE t SET a = 1; RAISE 'SET a = 1'; END $$", &[], false, false);
    check("DO $$ BEGIN UPDATE t SET a = 1; END $$; SET b = 1", &["b"], false, false);
    check("DO 'SET", &[], true, false);
    check("DO $", &[], false, false);
    check("DO ''; DO $a$$a$", &[], false, false);
}

#[test]
fn calls_of_set_config() {
    check("SELECT set_config('My.var', $1, false)", &["my.var"], false, false);
    check("SELECT pg_catalog.set_config('a', f(1, 2) || 'x', $2)", &["a"], false, false);
    check("SELECT set_config('a', $1, true), set_config('b', (SELECT 1), TRUE)", &[], false, false);
    check("SELECT set_config('a', $1, not true)", &["a"], false, false);
    check("SELECT set_config($1, $2, false)", &[], true, true);
    check("SELECT set_config('transaction_isolation', $1, false)", &[], false, false);
    check(
        "SET transaction_read_only = on; SET transaction_timeout = 1",
        &["transaction_timeout"],
        false,
        false,
    );
    check("SELECT \"pg_catalog\".\"set_config\"('a', $1, false)", &["a"], false, false);
    check("SELECT set_config($1, $2, true)", &[], false, false);
    check("SELECT set_config('a' || 'b', $2, false)", &[], true, true);
    check("SELECT set_config", &[], false, false);
    check("SELECT set_config('a'", &[], true, true);
}
