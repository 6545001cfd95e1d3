//! What clients leave behind on a shared server connection: carried along, a reason to stay, refused, or cleaned away.

use weir_protocol::backend;
use weir_session::Mode;
use weir_session::state::Policy;

use crate::stage::{Stage, scene};
use crate::words::*;

const RESET: &str = "Q:RESET SESSION AUTHORIZATION;RESET ALL;";

/// What one named parameter is asked for with.
fn asked_for(name: &str) -> String {
    format!("Q:SELECT 's','{name}',pg_catalog.current_setting('{name}',true)")
}

/// The answer to a question: rows of what, name and value.
fn answer(stage: &mut Stage, rows: &[(&str, &str, &str)]) {
    let mut bytes = said("T:what");
    for (what, name, value) in rows {
        let columns = [Some(what.as_bytes()), Some(name.as_bytes()), Some(value.as_bytes())];
        backend::data_row(&columns, &mut bytes);
    }
    bytes.extend(said(&format!("C:SELECT {}  Z:I", rows.len())));
    stage.server_says(0, bytes);
}

/// A request that succeeds; PostgreSQL is asked a question that contains this.
#[track_caller]
fn suspect(stage: &mut Stage, sql: &str, tag: &str, question: &str) {
    stage.round(query(sql), &format!("C:{tag}  Z:I"));
    asks_for(stage, question);
}

#[track_caller]
fn asks_for(stage: &mut Stage, question: &str) {
    let got = asked(&std::mem::take(&mut stage.servers[0].got));
    assert!(got.starts_with("Q:SELECT '") && got.contains(question), "{question}: {got}");
    stage.is_attached(true);
}

#[test]
fn a_setting_follows_the_client_that_made_it() {
    scene(|stage| {
        let other = stage.client(Mode::Transaction);
        stage.sends(query("SET work_mem = '8MB'"));
        stage.server_got("Q:SET work_mem = '8MB'");
        stage.replies("C:SET  Z:I");
        stage.client_got("C:SET  Z:I");
        stage.server_got(&asked_for("work_mem"));
        answer(stage, &[("s", "work_mem", "8MB")]);
        stage.client_got("");
        stage.is_attached(false);
        stage.client_sends(other, query("select 1"));
        stage.server_got("Q:RESET \"work_mem\";  Q:select 1");
        stage.replies("C:RESET  Z:I  C:SELECT 1  Z:I");
        stage.that_client_got(other, "C:SELECT 1  Z:I");
        stage.sends(query("select 2"));
        stage.server_got("Q:BEGIN;SELECT pg_catalog.set_config('work_mem','8MB',false);COMMIT;  Q:select 2");
    });
}

#[test]
fn what_a_rolled_back_transaction_set_is_not_carried() {
    scene(|stage| {
        stage.begins();
        stage.round(query("SET my.var = 'x'"), "C:SET  Z:T");
        stage.round(query("ROLLBACK"), "C:ROLLBACK  Z:I");
        stage.servers[0].got.clear();
        answer(stage, &[]);
        assert!(stage.clients[0].session.settings().is_empty());
        stage.is_attached(false);
    });
}

#[test]
fn local_settings_cost_no_question() {
    for sql in ["SET LOCAL a = 1", "SET TRANSACTION READ ONLY", "select set_config('a', 'b', true)"] {
        scene(|stage| {
            stage.begins();
            stage.round(query(sql), "C:SET  Z:T");
            stage.round(query("COMMIT"), "C:COMMIT  Z:I");
            stage.server_got("");
            stage.is_attached(false);
        });
    }
}

#[test]
fn a_question_waits_for_the_end_of_a_pipeline() {
    scene(|stage| {
        stage.sends([query("SET a = 1"), query("select 1"), unnamed("SET b = 2")].concat());
        stage.replies("C:SET  Z:I  C:SELECT 1  Z:I");
        stage.server_got("Q:SET a = 1  Q:select 1  P:=SET b = 2  B:  E:  S");
        stage.replies("1  2  C:SET  Z:I");
        stage.client_got("C:SET  Z:I  C:SELECT 1  Z:I  1  2  C:SET  Z:I");
        stage.server_got(&format!("{} UNION ALL {}", asked_for("a"), &asked_for("b")[2..]));
        // The client goes on without waiting for the answer.
        stage.sends(query("select 2"));
        stage.server_got("Q:select 2");
        answer(stage, &[("s", "a", "1"), ("s", "b", "2")]);
        stage.replies("C:SELECT 1  Z:I");
        stage.client_got("C:SELECT 1  Z:I");
        stage.is_attached(false);
        assert_eq!(stage.clients[0].session.settings().values().len(), 2);
    });
}

#[test]
fn texts_that_nobody_can_vouch_for_are_judged_by_their_tags() {
    scene(|stage| {
        suspect(stage, "SET a = 'x\\'; SET b = 'y'", "SET", "pg_settings");
        answer(stage, &[]);
        stage.is_attached(false);
    });
}

#[test]
fn what_cannot_be_carried_ties_until_it_is_gone() {
    let kinds = [
        ("LISTEN x", "LISTEN", "l", "UNLISTEN *", "UNLISTEN"),
        ("select pg_advisory_lock(1)", "SELECT 1", "a", "select pg_advisory_unlock(1)", "SELECT 1"),
        ("CREATE TEMP TABLE t (a int)", "CREATE TABLE", "t", "DROP TABLE t", "DROP TABLE"),
        ("DECLARE c CURSOR WITH HOLD FOR select 1", "DECLARE CURSOR", "c", "CLOSE c", "CLOSE CURSOR"),
        ("SET ROLE x", "SET", "r", "RESET ROLE", "RESET"),
    ];
    for (sql, tag, row, end, end_tag) in kinds {
        scene(|stage| {
            let question = format!("'{row}'");
            suspect(stage, sql, tag, &question);
            answer(stage, &[(row, "", "")]);
            stage.is_attached(true);
            stage.round(query("select 1"), "C:SELECT 1  Z:I");
            stage.is_attached(true);
            assert!(stage.servers[0].server.needs_cleaning());
            suspect(stage, end, end_tag, &question);
            answer(stage, &[]);
            stage.is_attached(false);
            assert!(!stage.servers[0].server.needs_cleaning());
        });
    }
}

#[test]
fn a_lock_that_was_not_got_ties_nobody() {
    scene(|stage| {
        suspect(stage, "select pg_try_advisory_lock(1)", "SELECT 1", "pg_locks");
        answer(stage, &[]);
        stage.is_attached(false);
    });
}

#[test]
fn statements_prepared_by_sql_follow_their_client() {
    scene(|stage| {
        let other = stage.client(Mode::Transaction);
        suspect(stage, "PREPARE p AS select 1", "PREPARE", "pg_prepared_statements");
        answer(stage, &[("p", "p", "PREPARE p AS select 1")]);
        stage.is_attached(false);
        stage.client_sends(other, query("select 1"));
        // Neither may fail: a function may have been there before, and a table that is named may be gone.
        let attempt = |sql| format!("Q:DO 'BEGIN EXECUTE ''{sql}''; EXCEPTION WHEN OTHERS THEN NULL; END';");
        stage.server_got(&format!("{}  Q:select 1", attempt("DEALLOCATE \"p\"")));
        stage.replies("C:DO  Z:I  C:SELECT 1  Z:I");
        stage.sends(query("EXECUTE p"));
        stage.server_got(&format!("{}  Q:EXECUTE p", attempt("PREPARE p AS select 1")));
    });
}

#[test]
fn what_is_taken_away_while_it_is_asked_for_is_asked_for_again() {
    for (makes, tag, mark, takes, gone, row) in [
        (
            "PREPARE p AS select 1",
            "PREPARE",
            "'p'",
            "DEALLOCATE p",
            "DEALLOCATE",
            ["p", "p", "PREPARE p AS select 1"],
        ),
        ("LISTEN x", "LISTEN", "'l'", "UNLISTEN x", "UNLISTEN", ["l", "", ""]),
        ("SET ROLE x", "SET", "'r'", "RESET ROLE", "RESET", ["r", "", ""]),
    ] {
        scene(|stage| {
            suspect(stage, makes, tag, mark);
            // The client has its reply, and goes on before the answer to the question has come.
            stage.sends(query(takes));
            stage.server_got(&format!("Q:{takes}"));
            answer(stage, &[(row[0], row[1], row[2])]);
            stage.is_attached(true);
            stage.replies(&format!("C:{gone}  Z:I"));
            stage.client_got(&format!("C:{gone}  Z:I"));
            asks_for(stage, mark);
            answer(stage, &[]);
            stage.is_attached(false);
        });
    }
}

#[test]
fn a_statement_prepared_among_others_ties() {
    scene(|stage| {
        suspect(stage, "PREPARE p AS select 1", "PREPARE", "pg_prepared_statements");
        answer(stage, &[("p", "p", "insert into t values (1); PREPARE p AS select 1")]);
        stage.is_attached(true);
    });
}

#[test]
fn a_question_without_an_answer_ties() {
    scene(|stage| {
        suspect(stage, "LISTEN x", "LISTEN", "'l'");
        stage.replies("E:57014  Z:I");
        stage.client_got("");
        stage.is_attached(true);
    });
}

#[test]
fn refused_statements_become_an_error_in_their_place() {
    for sql in
        ["LISTEN x", "SET ROLE x", "SET work_mem = 1", "PREPARE p AS select 1", "CREATE TEMP TABLE t (a int)"]
    {
        scene(|stage| {
            stage.policy(Policy::Refuse);
            stage.sends(query(sql));
            let got = asked(&std::mem::take(&mut stage.servers[0].got));
            assert!(got.starts_with("Q:DO $weir$BEGIN RAISE EXCEPTION USING ERRCODE='0A000'"), "{got}");
            assert!(!got.contains(sql), "{got}");
            stage.replies("E:0A000  Z:I");
            stage.client_got("E:0A000  Z:I");
            stage.is_attached(false);
            stage.sends([parse("s", sql), bind("s"), execute(), sync()].concat());
            let got = asked(&std::mem::take(&mut stage.servers[0].got));
            assert!(got.contains("=DO $weir$") && !got.contains(sql), "{got}");
        });
    }
    for sql in ["SET timezone = 'UTC'", "UNLISTEN *", "RESET work_mem", "SET LOCAL work_mem = 1"] {
        scene(|stage| {
            stage.policy(Policy::Refuse);
            stage.sends(query(sql));
            stage.server_got(&format!("Q:{sql}"));
        });
    }
}

#[test]
fn forgotten_state_is_cleaned_away() {
    scene(|stage| {
        stage.policy(Policy::Forget);
        let other = stage.client(Mode::Transaction);
        stage.round(query("SET work_mem = 1"), "C:SET  Z:I");
        stage.is_attached(false);
        stage.client_sends(other, query("select 1"));
        stage.server_got(&format!("{RESET}  Q:select 1"));
        stage.replies("C:RESET  C:RESET  Z:I  C:SELECT 1  Z:I");
        stage.sends(query("LISTEN x"));
        stage.replies("C:LISTEN  Z:I");
        stage.is_attached(false);
        assert!(stage.servers[0].server.needs_cleaning(), "the caller resets it");
    });
}

#[test]
fn a_pinned_setting_ties_while_it_differs() {
    scene(|stage| {
        stage.policy(Policy::Pin);
        suspect(stage, "SET work_mem = '8MB'", "SET", "pg_settings");
        answer(stage, &[("s", "work_mem", "8192")]);
        stage.is_attached(true);
        suspect(stage, "RESET work_mem", "RESET", "pg_settings");
        answer(stage, &[]);
        stage.is_attached(false);
    });
}

#[test]
fn a_tied_client_dies_with_its_server_connection() {
    scene(|stage| {
        suspect(stage, "LISTEN x", "LISTEN", "'l'");
        answer(stage, &[("l", "", "")]);
        stage.dies(0);
        stage.ended(0, "57P01");
    });
    // What was set is not known yet.
    scene(|stage| {
        suspect(stage, "SET a = 1", "SET", "'a'");
        stage.dies(0);
        stage.ended(0, "57P01");
    });
    // It never came to that.
    scene(|stage| {
        stage.sends(query("SET a = 1"));
        stage.dies(0);
        stage.client_got("E:08007  Z:I");
    });
}

#[test]
fn a_reset_brings_back_what_the_client_began_with() {
    for mode in [Mode::Session, Mode::Transaction] {
        scene(|stage| {
            stage.clients.clear();
            stage.client_with(mode, &[("datestyle", "German")]);
            stage.round(query("select 1"), "");
            stage.replies("T:set_config  D:German  C:SELECT 1  Z:I  C:SELECT 1  Z:I");
            stage.client_got("C:SELECT 1  Z:I");
            stage.servers[0].got.clear();
            stage.sends(query("RESET datestyle"));
            stage.replies("C:RESET  Z:I");
            stage.client_got("C:RESET  Z:I");
            let got = asked(&std::mem::take(&mut stage.servers[0].got));
            assert!(got.contains("(VALUES ('datestyle','German')) AS w(name,value)"), "{got}");
            stage.sends(query("select 2"));
            stage.replies("T:set_config  D:German  C:SELECT 1  Z:I");
            stage.replies("C:SELECT 1  Z:I");
            stage.client_got("C:SELECT 1  Z:I");
        });
    }
}

#[test]
fn values_that_change_without_a_word_are_noticed() {
    scene(|stage| {
        stage.round(query("select f()"), "S:application_name=x  C:SELECT 1  Z:I");
        let got = asked(&std::mem::take(&mut stage.servers[0].got));
        assert!(got.contains("pg_settings"), "{got}");
        answer(stage, &[("s", "application_name", "x")]);
        stage.is_attached(false);
        assert_eq!(stage.clients[0].session.settings().value("application_name"), Some("x"));
        // There and back again is nothing.
        stage.round(query("select g()"), "S:application_name=y  S:application_name=x  C:SELECT 1  Z:I");
        stage.server_got("");
        stage.is_attached(false);
    });
}
