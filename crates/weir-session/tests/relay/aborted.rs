//! The aborted transaction block that weir plays: like PostgreSQL's own, except that the first COMMIT is an error.

use weir_session::Mode;

use crate::postgres::Postgres;
use crate::stage::{Stage, scene};
use crate::words::{self, *};

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
            (query("ROLLBACK entirely"), "E:40001  Z:E"),
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
fn and_chain_opens_another_block() {
    let described = [parse("", "END AND CHAIN"), bind(""), describe_portal(""), execute(), sync()].concat();
    for (request, gets) in [
        (query("ROLLBACK AND CHAIN"), "C:ROLLBACK  Z:T"),
        (query("COMMIT WORK AND CHAIN"), "C:ROLLBACK  Z:T"),
        (unnamed("ROLLBACK AND CHAIN"), "1  2  C:ROLLBACK  Z:T"),
        (described, "1  2  n  C:ROLLBACK  Z:T"),
        // What comes behind it in the same batch is not run.
        (
            [parse("", "ABORT AND CHAIN"), bind(""), execute(), unnamed("select 1")].concat(),
            "1  2  C:ROLLBACK  E:25P02  Z:T",
        ),
    ] {
        scene(|stage| {
            told(stage);
            stage.sends(&request);
            stage.client_got(gets);
            stage.that_server_got(1, "");
            stage.sends(query("select 1"));
            stage.that_server_got(1, "P:=BEGIN  B:  E:  C:portal   Q:select 1");
            stage.server_replies(1, "1  2  C:BEGIN  3  C:SELECT 1  Z:T");
            stage.client_got("C:SELECT 1  Z:T");
        });
    }
}

#[test]
fn and_chain_ends_the_lost_transaction_but_a_commit_is_told_first() {
    scene(|stage| {
        untold(stage);
        stage.sends(query("ROLLBACK AND CHAIN"));
        stage.client_got("C:ROLLBACK  Z:T");
        stage.sends(query("COMMIT"));
        stage.client_got("C:COMMIT  Z:I");
        stage.that_server_got(1, "");
    });
    scene(|stage| {
        untold(stage);
        stage.sends([unnamed("COMMIT AND CHAIN"), query("COMMIT AND CHAIN")].concat());
        stage.client_got("E:40001  Z:E  C:ROLLBACK  Z:T");
    });
}

#[test]
fn and_chain_begins_with_what_the_lost_one_began_with_where_that_is_known() {
    let plain = "N:01000  C:ROLLBACK  Z:T";
    let serializable = "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY";
    let strict = || query("start transaction isolation level serializable, read only");
    let rows: [(&[Vec<u8>], &str, &str); 9] = [
        (&[strict()], "C:ROLLBACK  Z:T", serializable),
        (&[strict(), query("select 1"), unnamed("insert")], "C:ROLLBACK  Z:T", serializable),
        (&[unnamed("BEGIN READ ONLY")], "C:ROLLBACK  Z:T", "BEGIN READ ONLY"),
        (&[[parse("b", "BEGIN READ ONLY"), run("b")].concat()], "C:ROLLBACK  Z:T", "BEGIN READ ONLY"),
        (&[query("BEGIN; select 1")], plain, "BEGIN"),
        (&[strict(), query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")], plain, "BEGIN"),
        (&[strict(), query("select set_config('transaction_read_only', 'off', true)")], plain, "BEGIN"),
        (&[strict(), query("select 1; select 2")], plain, "BEGIN"),
        (&[strict(), query(&"x".repeat(70_000))], plain, "BEGIN"),
    ];
    for (requests, gets, begins) in rows {
        for defers in [false, true] {
            let mut stage = Stage::new(usize::MAX);
            stage.rules.defers_begin = defers;
            stage.recast(Mode::Transaction);
            let mut backend = Postgres::new();
            for request in [requests, &[query("select 2")]].concat() {
                stage.sends(request);
                backend.feed(&std::mem::take(&mut stage.servers[0].got));
                // The model knows BEGIN in no other form.
                let open = std::mem::take(&mut backend.output);
                let answered = words::heard(&open).replace("Z:I", "Z:T");
                stage.server_says(0, words::said(&answered));
            }
            stage.clients[0].got.clear();
            stage.server();
            stage.dies(0);
            stage.sends(query("ROLLBACK AND CHAIN"));
            stage.client_got(gets);
            stage.sends(query("select 3"));
            stage.that_server_got(1, &format!("P:={begins}  B:  E:  C:portal   Q:select 3"));
        }
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
