//! The aborted transaction block that weir plays: like PostgreSQL's own, except that the first COMMIT is an error.

use weir_session::Mode;

use crate::stage::{Stage, scene};
use crate::words::*;

/// A transaction was open, and its server connection died while nothing was in flight. Connection 1 is there.
fn untold(stage: &mut Stage) {
    stage.begins();
    stage.dies(0);
    stage.server();
}

/// The same, and the client has been told.
fn told(stage: &mut Stage) {
    untold(stage);
    stage.sends(query("select 1"));
    stage.client_got("E:40001  Z:E");
}

/// What each request gets; the block goes on (`E`) or has ended (`I`).
fn check(block: fn(&mut Stage), rows: &[(Vec<u8>, &str)]) {
    for (request, gets) in rows {
        scene(|stage| {
            block(stage);
            stage.sends(request);
            stage.client_got(gets);
            stage.that_server_got(1, "");
            let ended = gets.ends_with('I');
            stage.sends(query("select 2"));
            if ended {
                stage.that_server_got(1, "Q:select 2");
            } else {
                stage.client_got(if gets.contains('E') { "E:25P02  Z:E" } else { "E:40001  Z:E" });
            }
        });
    }
}

#[test]
fn the_first_request_gets_the_explanation() {
    check(
        untold,
        &[
            (query("select 1"), "E:40001  Z:E"),
            (query("COMMIT"), "E:40001  Z:I"),
            (query("END"), "E:40001  Z:I"),
            (query("ROLLBACK"), "C:ROLLBACK  Z:I"),
            (query("ABORT"), "C:ROLLBACK  Z:I"),
            (query("ROLLBACK TO a"), "E:40001  Z:E"),
            (query("COMMIT AND CHAIN"), "E:40001  Z:E"),
            (query("ROLLBACK; BEGIN"), "E:40001  Z:E"),
            (raw(b'F', &[0; 10]), "E:40001  Z:E"),
            (unnamed("select 1"), "E:40001  Z:E"),
            (unnamed("COMMIT"), "E:40001  Z:I"),
            (unnamed("ROLLBACK"), "1  2  C:ROLLBACK  Z:I"),
            (run(""), "E:40001  Z:E"),
            ([data("1"), done(), copy_fail(), flush(), query("select 1")].concat(), "E:40001  Z:E"),
            (
                [bind(""), query("ignored"), execute(), sync(), query("select 1")].concat(),
                "E:40001  Z:E  E:25P02  Z:E",
            ),
        ],
    );
}

#[test]
fn later_ones_get_25p02() {
    check(
        told,
        &[
            (query("select 1"), "E:25P02  Z:E"),
            (query("BEGIN"), "E:25P02  Z:E"),
            (query("SAVEPOINT a"), "E:25P02  Z:E"),
            (query("ROLLBACK TO a"), "E:25P02  Z:E"),
            (query("COMMIT PREPARED 'x'"), "E:25P02  Z:E"),
            (query("select 1; ROLLBACK"), "E:25P02  Z:E"),
            (query(&"x".repeat(70_000)), "E:25P02  Z:E"),
            (query("COMMIT"), "C:ROLLBACK  Z:I"),
            (query("end transaction;"), "C:ROLLBACK  Z:I"),
            (query("/* why */ rollback"), "C:ROLLBACK  Z:I"),
            // What was to follow is not run.
            (query("ROLLBACK; select 1"), "E:40001  Z:I"),
            (unnamed("select 1"), "E:25P02  Z:E"),
            (unnamed("COMMIT"), "1  2  C:ROLLBACK  Z:I"),
            (
                [
                    parse("", "ROLLBACK"),
                    describe(""),
                    bind(""),
                    describe_portal(""),
                    execute(),
                    close_portal(""),
                    sync(),
                ]
                .concat(),
                "1  t  n  2  n  C:ROLLBACK  3  Z:I",
            ),
            ([parse("r", "ROLLBACK"), run("r")].concat(), "1  2  C:ROLLBACK  Z:I"),
            (
                [parse("r", "ROLLBACK"), sync(), parse("r", "ROLLBACK"), sync()].concat(),
                "1  Z:E  E:42P05  Z:E",
            ),
            // Behind its end, in the same batch, there is no server connection to go on with.
            (
                [
                    unnamed("ROLLBACK").strip_suffix(&sync()[..]).unwrap_or_default().to_vec(),
                    bind(""),
                    execute(),
                    sync(),
                ]
                .concat(),
                "1  2  C:ROLLBACK  E:25P02  Z:I",
            ),
            (parse("", &"x".repeat(70_000)), "E:25P02"),
            ([bind_portal("", &"x".repeat(5000)), sync()].concat(), "E:25P02  Z:E"),
            ([close("s"), sync()].concat(), "3  Z:E"),
        ]
        .into_iter()
        .filter(|(_, gets)| gets.contains('Z'))
        .collect::<Vec<_>>(),
    );
}

#[test]
fn and_chain_opens_a_fresh_block() {
    for sql in ["ROLLBACK AND CHAIN", "COMMIT WORK AND CHAIN"] {
        scene(|stage| {
            told(stage);
            stage.sends([query(sql), query("select 1")].concat());
            stage.client_got("");
            stage.that_server_got(1, "Q:BEGIN  Q:select 1");
            stage.server_replies(1, "C:BEGIN  Z:T  C:SELECT 1  Z:T");
            stage.client_got("C:BEGIN  Z:T  C:SELECT 1  Z:T");
        });
    }
}

#[test]
fn an_empty_query_is_empty_here_too() {
    scene(|stage| {
        untold(stage);
        stage.sends([query(""), query(" ; -- nothing")].concat());
        stage.client_got("I  Z:E  I  Z:E");
        // It has not used up the explanation.
        stage.sends(query("COMMIT"));
        stage.client_got("E:40001  Z:I");
    });
}

#[test]
fn a_sync_alone_says_where_the_client_is() {
    scene(|stage| {
        untold(stage);
        stage.sends(sync());
        stage.client_got("Z:E");
    });
}

#[test]
fn statements_of_the_client_are_known_here_too() {
    scene(|stage| {
        stage.round([parse("r", "ROLLBACK"), parse("s", "select 1"), sync()].concat(), "1  1  Z:I");
        untold(stage);
        stage.sends([run("s"), run("nothing"), run("r")].concat());
        stage.client_got("E:40001  Z:E  E:25P02  Z:E  2  C:ROLLBACK  Z:I");
        stage.sends(run("s"));
        stage.that_server_got(1, "P:weir_2=select 1  B:weir_2  E:  S");
    });
}

#[test]
fn a_statement_named_here_is_parsed_where_it_is_used() {
    scene(|stage| {
        told(stage);
        stage.sends([parse("r", "ROLLBACK"), run("r")].concat());
        stage.client_got("1  2  C:ROLLBACK  Z:I");
        stage.sends(run("r"));
        stage.that_server_got(1, "P:weir_1=ROLLBACK  B:weir_1  E:  S");
    });
}

#[test]
fn unnamed_statements_made_here_are_told_apart() {
    scene(|stage| {
        // Two clients end their blocks with different unnamed statements and then run these again.
        let other = stage.client(Mode::Transaction);
        told(stage);
        stage.sends(unnamed("ROLLBACK"));
        stage.client_got("1  2  C:ROLLBACK  Z:I");
        stage.client_sends(other, query("BEGIN"));
        stage.server_replies(1, "C:BEGIN  Z:T");
        stage.dies(1);
        stage.client_sends(other, [query("select 1"), unnamed("COMMIT")].concat());
        stage.that_client_got(other, "C:BEGIN  Z:T  E:40001  Z:E  1  2  C:ROLLBACK  Z:I");
        let server = stage.server();
        stage.sends(run(""));
        stage.that_server_got(server, "P:=ROLLBACK  B:  E:  S");
        stage.server_replies(server, "1  2  C:ROLLBACK  Z:I");
        stage.client_sends(other, run(""));
        stage.that_server_got(server, "P:=COMMIT  B:  E:  S");
    });
}

#[test]
fn goodbye_is_heard_here_too() {
    scene(|stage| {
        told(stage);
        stage.sends(terminate());
        stage.ended(0, "terminated");
    });
}
