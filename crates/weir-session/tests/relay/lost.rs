//! A server connection is lost: what is in doubt, what was rolled back, what is done, and who must go.

use weir_session::Mode;

use crate::stage::{Stage, scene};
use crate::words::*;

/// How the connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Without a word.
    Eof,
    /// With FATAL and this code.
    Fatal(&'static str),
    /// With a warning (57P02: immediate shutdown; 57P01: a commit that is not replicated) and then without a word.
    Warned(&'static str),
    /// With the warning and then FATAL 57P01.
    WarnedFatal,
}
use End::{Eof, Fatal, Warned, WarnedFatal};

pub(crate) const STOPPED: End = Fatal("57P01");

pub(crate) fn ends(stage: &mut Stage, server: usize, end: End) {
    match end {
        Eof => stage.dies(server),
        Fatal(code) => stage.server_replies(server, &format!("FATAL:{code}")),
        Warned(code) => {
            stage.server_replies(server, &format!("N:{code}"));
            stage.dies(server);
        }
        WarnedFatal => stage.server_replies(server, "N:57P01  FATAL:57P01"),
    }
}

/// What the client finds afterwards.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Its next request runs on another connection.
    Free,
    /// It is in an aborted block.
    Aborted,
    /// Its batch is skipped up to the Sync, and then it is free.
    SkippingFree,
    /// Its batch is skipped up to the Sync, and then it is in an aborted block.
    SkippingAborted,
    /// Nothing has been said yet; the next request gets this error, and then it is free.
    NextGets(&'static str),
    /// The next request gets this error, and then it is in an aborted block.
    NextGetsAborted(&'static str),
}
use Then::{Aborted, Free, NextGets, NextGetsAborted, SkippingAborted, SkippingFree};

/// One row: a request outside (`false`) or inside (`true`) of a transaction, what came in reply before the end, the end,
/// what the client gets from then on, and what it finds afterwards.
type Row = (bool, Vec<u8>, &'static str, End, &'static str, Then);

fn play(row: &Row) {
    let (open, request, replies, end, gets, then) = row;
    scene(|stage| {
        if *open {
            stage.begins();
        }
        stage.sends(request);
        stage.replies(replies);
        stage.client_got(replies);
        stage.server();
        ends(stage, 0, *end);
        stage.client_got(gets);
        assert!(stage.clients[0].end.is_none(), "it stays: {row:?}");
        find(stage, *then);
    });
}

#[track_caller]
fn find(stage: &mut Stage, then: Then) {
    match then {
        Free => {}
        Aborted => {
            stage.sends(query("select 1"));
            stage.client_got("E:25P02  Z:E");
            stage.sends(query("ROLLBACK"));
            stage.client_got("C:ROLLBACK  Z:I");
        }
        SkippingFree => {
            stage.sends([bind(""), query("select 1"), done(), sync()].concat());
            stage.client_got("Z:I");
        }
        SkippingAborted => {
            stage.sends([bind(""), query("select 1"), done(), sync()].concat());
            stage.client_got("Z:E");
            return find(stage, Aborted);
        }
        NextGets(code) => {
            stage.sends(sync());
            stage.client_got(&format!("E:{code}  Z:I"));
        }
        NextGetsAborted(code) => {
            stage.sends(query("select 1"));
            stage.client_got(&format!("E:{code}  Z:E"));
            return find(stage, Aborted);
        }
    }
    stage.that_server_got(1, "");
    stage.sends(query("select 2"));
    stage.that_server_got(1, "Q:select 2");
    stage.server_replies(1, "C:SELECT 1  Z:I");
    stage.client_got("C:SELECT 1  Z:I");
}

fn begin_batch(sql: &str) -> Vec<u8> {
    [parse("", sql), bind(""), execute()].concat()
}

/// A batch of the extended protocol that is answered so far.
fn flushed(sql: &str) -> Vec<u8> {
    [begin_batch(sql), flush()].concat()
}

#[test]
fn outside_of_a_transaction() {
    let insert = || query("insert into t values (1)");
    let rows: Vec<Row> = vec![
        // 2.4: whether it was carried out is not known.
        (false, insert(), "", Eof, "E:08007  Z:I", Free),
        (false, insert(), "", Warned("57P02"), "E:08007  Z:I", Free),
        (false, insert(), "", Warned("57P01"), "E:08007  Z:I", Free),
        (false, insert(), "", WarnedFatal, "E:08007  Z:I", Free),
        (false, insert(), "", Fatal("57P02"), "E:08007  Z:I", Free),
        (false, insert(), "", Fatal("57P05"), "E:08007  Z:I", Free),
        (false, unnamed("insert"), "", Eof, "E:08007  Z:I", Free),
        // Part of a reply has been forwarded, so it cannot be repeated.
        (false, query("select 1"), "T:a", STOPPED, "E:08007  Z:I", Free),
        (false, query("select 1"), "T:a  D:1", Eof, "E:08007  Z:I", Free),
        (false, unnamed("select 1"), "1", STOPPED, "E:08007  Z:I", Free),
        (false, insert(), "C:INSERT 0 1", STOPPED, "E:08007  Z:I", Free),
        // 2.2 names what may be repeated; nothing else is.
        (false, query("CALL p()"), "", STOPPED, "E:08007  Z:I", Free),
        (false, query("select 1; select 2"), "", STOPPED, "E:08007  Z:I", Free),
        (false, query("BEGIN"), "", STOPPED, "E:08007  Z:I", Free),
        (false, query("VACUUM"), "", STOPPED, "E:08007  Z:I", Free),
        (false, unnamed("CALL p()"), "", STOPPED, "E:08007  Z:I", Free),
        (
            false,
            [begin_batch("insert"), begin_batch("insert"), sync()].concat(),
            "",
            STOPPED,
            "E:08007  Z:I",
            Free,
        ),
        (false, raw(b'F', &[0; 10]), "", STOPPED, "E:08007  Z:I", Free),
        // Pipelines: an answer for each request.
        (false, [insert(), insert()].concat(), "", STOPPED, "E:08007  Z:I  E:08007  Z:I", Free),
        (false, [insert(), insert()].concat(), "C:INSERT 0 1  Z:I", STOPPED, "E:08007  Z:I", Free),
        (
            false,
            [unnamed("x"), unnamed("y"), insert()].concat(),
            "1",
            Eof,
            "E:08007  Z:I  E:08007  Z:I  E:08007  Z:I",
            Free,
        ),
        (false, [insert(), unnamed("x")].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
    ];
    for row in &rows {
        play(row);
    }
}

#[test]
fn the_end_of_no_transaction() {
    let insert = || query("insert into t values (1)");
    let rows: Vec<Row> = vec![
        // Whether PostgreSQL has read them makes no difference.
        (false, query("ROLLBACK"), "", Eof, "C:ROLLBACK  Z:I", Free),
        (false, query("abort work"), "", STOPPED, "C:ROLLBACK  Z:I", Free),
        (false, query("COMMIT"), "", Warned("57P01"), "C:COMMIT  Z:I", Free),
        (false, query("END TRANSACTION AND NO CHAIN;"), "", Warned("57P02"), "C:COMMIT  Z:I", Free),
        (false, unnamed("ROLLBACK"), "1", Eof, "2  C:ROLLBACK  Z:I", Free),
        (false, unnamed("COMMIT"), "1  2", STOPPED, "C:COMMIT  Z:I", Free),
        (false, begin_batch("COMMIT"), "", Eof, "1  2  C:COMMIT", Free),
        (false, [begin_batch("ROLLBACK"), flush()].concat(), "1  2  C:ROLLBACK", Eof, "", Free),
        // PostgreSQL would have refused these, or they are something else.
        (false, query("ROLLBACK now"), "", Eof, "E:08007  Z:I", Free),
        (false, query("COMMIT AND CHAIN"), "", Eof, "E:08007  Z:I", Free),
        (false, query("COMMIT PREPARED 'x'"), "", Eof, "E:08007  Z:I", Free),
        (false, query("ROLLBACK PREPARED 'x'"), "", Eof, "E:08007  Z:I", Free),
        (false, query("ROLLBACK; insert into t values (1)"), "", Eof, "E:08007  Z:I", Free),
        // They are not alone.
        (false, [insert(), query("COMMIT")].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
        (false, [query("ROLLBACK"), insert()].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
        (false, [insert(), query("COMMIT")].concat(), "C:INSERT 0 1  Z:I", Eof, "C:COMMIT  Z:I", Free),
        (false, [begin_batch("insert"), unnamed("COMMIT")].concat(), "", Eof, "E:08007  Z:I", Free),
    ];
    for row in &rows {
        play(row);
    }
    // What has run in the same batch is committed by COMMIT, and can only be lost with ROLLBACK.
    for (end, gets) in [
        (unnamed("COMMIT"), "E:08007  Z:I"),
        (query("COMMIT"), "E:08007  Z:I"),
        (unnamed("ROLLBACK"), "1  2  C:ROLLBACK  Z:I"),
        (query("ROLLBACK"), "C:ROLLBACK  Z:I"),
    ] {
        scene(|stage| {
            stage.round(flushed("insert"), "1  2  C:INSERT 0 1");
            stage.sends(&end);
            stage.server();
            stage.dies(0);
            stage.client_got(gets);
            find(stage, Free);
        });
    }
}

#[test]
fn copies_and_unfinished_batches_outside_of_a_transaction() {
    let insert = || query("insert into t values (1)");
    let rows: Vec<Row> = vec![
        // COPY, with what the client still sends of it.
        (false, query("COPY t FROM STDIN"), "G", STOPPED, "E:08007  Z:I", Free),
        (false, [query("COPY t FROM STDIN"), data("1\n"), done()].concat(), "", Eof, "E:08007  Z:I", Free),
        (false, [query("COPY t FROM STDIN"), data("1\n"), done()].concat(), "G", Eof, "E:08007  Z:I", Free),
        (false, query("COPY t TO STDOUT"), "H  d:1", STOPPED, "E:08007  Z:I", Free),
        (false, [begin_batch("COPY t FROM STDIN"), sync()].concat(), "1  2  G", Eof, "E:08007", SkippingFree),
        (false, [begin_batch("COPY t FROM STDIN"), sync()].concat(), "1  2", Eof, "E:08007  Z:I", Free),
        // A batch without its Sync.
        (false, begin_batch("insert"), "", Eof, "E:08007", SkippingFree),
        (false, begin_batch("insert"), "", STOPPED, "E:08007", SkippingFree),
        (false, flushed("insert"), "1  2", Eof, "E:08007", SkippingFree),
        (false, flushed("insert"), "1  2  C:INSERT 0 1", Eof, "", NextGets("40001")),
        (false, [parse("", "insert"), flush()].concat(), "1", Eof, "", Free),
        (false, [parse("", "insert"), describe(""), flush()].concat(), "1  t", Eof, "E:08007", SkippingFree),
        // It has been told of an error already.
        (false, flushed("bad"), "E:42601", Eof, "", SkippingFree),
        (false, unnamed("bad"), "E:42601", Eof, "Z:I", Free),
        (false, query("bad"), "E:42601", STOPPED, "Z:I", Free),
        (false, [query("bad"), insert()].concat(), "E:42601", STOPPED, "Z:I  E:08007  Z:I", Free),
        (false, [unnamed("bad"), unnamed("insert")].concat(), "E:42601", Eof, "Z:I  E:08007  Z:I", Free),
        // A COMMIT in a batch of its own making.
        (false, unnamed("COMMIT"), "1  2  C:COMMIT", Eof, "Z:I", Free),
    ];
    for row in &rows {
        play(row);
    }
}

#[test]
fn inside_of_a_transaction() {
    let insert = || query("insert into t values (1)");
    let rows: Vec<Row> = vec![
        // 2.5: nothing that could end it was sent.
        (true, vec![], "", Eof, "", NextGetsAborted("40001")),
        (true, vec![], "", STOPPED, "", NextGetsAborted("40001")),
        (true, vec![], "", Fatal("25P03"), "", NextGetsAborted("40001")),
        (true, insert(), "", Eof, "E:40001  Z:E", Aborted),
        (true, insert(), "", STOPPED, "E:40001  Z:E", Aborted),
        (true, insert(), "", Warned("57P02"), "E:40001  Z:E", Aborted),
        (true, query("select 1"), "T:a  D:1", Eof, "E:40001  Z:E", Aborted),
        (true, query("select 1"), "C:SELECT 1", Eof, "E:40001  Z:E", Aborted),
        (true, unnamed("insert"), "1  2", STOPPED, "E:40001  Z:E", Aborted),
        (true, [insert(), insert()].concat(), "", Eof, "E:40001  Z:E  E:40001  Z:E", Aborted),
        (true, [unnamed("x"), insert()].concat(), "", Eof, "E:40001  Z:E  E:40001  Z:E", Aborted),
        (true, query("SAVEPOINT a"), "", Eof, "E:40001  Z:E", Aborted),
        (true, query("ROLLBACK TO a"), "", Eof, "E:40001  Z:E", Aborted),
        (true, query("CALL p()"), "", Eof, "E:40001  Z:E", Aborted),
        (true, query("COPY t FROM STDIN"), "G", Eof, "E:40001  Z:E", Aborted),
        (true, [query("COPY t FROM STDIN"), data("1\n"), done()].concat(), "G", Eof, "E:40001  Z:E", Aborted),
        (true, begin_batch("insert"), "1", Eof, "E:40001", SkippingAborted),
        (true, flushed("insert"), "1  2  C:INSERT 0 1", Eof, "", NextGetsAborted("40001")),
        (true, [parse("", "insert"), describe(""), sync()].concat(), "1  t  n", Eof, "E:40001  Z:E", Aborted),
    ];
    for row in &rows {
        play(row);
    }
}

#[test]
fn a_commit_in_flight() {
    let insert = || query("insert into t values (1)");
    let rows: Vec<Row> = vec![
        // 2.4: COMMIT or several statements in flight.
        (true, query("COMMIT"), "", Eof, "E:08007  Z:I", Free),
        (true, query("COMMIT"), "", STOPPED, "E:08007  Z:I", Free),
        (true, query("END"), "", Eof, "E:08007  Z:I", Free),
        (true, unnamed("COMMIT"), "", Eof, "E:08007  Z:I", Free),
        (true, unnamed("COMMIT"), "1  2", STOPPED, "E:08007  Z:I", Free),
        (true, [insert(), query("COMMIT")].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
        (true, [query("COMMIT"), insert()].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
        (true, query("PREPARE TRANSACTION 'x'"), "", Eof, "E:08007  Z:E", Aborted),
        (true, query("COMMIT AND CHAIN"), "", Eof, "E:08007  Z:E", Aborted),
        (true, query("insert; commit"), "", Eof, "E:08007  Z:E", Aborted),
        (true, begin_batch("COMMIT"), "1", Eof, "E:08007", SkippingFree),
        // PostgreSQL has said that it committed: only the end of the reply is missing.
        (true, query("COMMIT"), "C:COMMIT", Eof, "Z:I", Free),
        (true, unnamed("COMMIT"), "1  2  C:COMMIT", Eof, "Z:I", Free),
        (true, flushed("COMMIT"), "1  2  C:COMMIT", Eof, "", Free),
        (
            true,
            [begin_batch("COMMIT"), flushed("insert")].concat(),
            "1  2  C:COMMIT",
            Eof,
            "E:08007",
            SkippingFree,
        ),
        (
            true,
            [begin_batch("COMMIT"), flushed("insert")].concat(),
            "1  2  C:COMMIT  1  2  C:INSERT 0 1",
            Eof,
            "",
            NextGets("40001"),
        ),
        (
            true,
            [begin_batch("COMMIT"), unnamed("insert")].concat(),
            "1  2  C:COMMIT  1  2  C:INSERT 0 1",
            Eof,
            "E:08007  Z:I",
            Free,
        ),
        (true, unnamed("COMMIT AND CHAIN"), "1  2  C:COMMIT", Eof, "E:08007  Z:I", Free),
        (true, [query("COMMIT"), insert()].concat(), "C:COMMIT  Z:I", Eof, "E:08007  Z:I", Free),
    ];
    for row in &rows {
        play(row);
    }
}

#[test]
fn a_rollback_or_a_failed_request_in_flight() {
    let insert = || query("insert into t values (1)");
    let rows: Vec<Row> = vec![
        // A lone ROLLBACK gets what it asked for.
        (true, query("ROLLBACK"), "", Eof, "C:ROLLBACK  Z:I", Free),
        (true, query("ABORT"), "", STOPPED, "C:ROLLBACK  Z:I", Free),
        (true, query("ROLLBACK"), "C:ROLLBACK", Eof, "Z:I", Free),
        (true, unnamed("ROLLBACK"), "", Eof, "1  2  C:ROLLBACK  Z:I", Free),
        (true, unnamed("ROLLBACK"), "1", Eof, "2  C:ROLLBACK  Z:I", Free),
        (true, unnamed("ROLLBACK"), "1  2  C:ROLLBACK", Eof, "Z:I", Free),
        (
            true,
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
            "",
            Eof,
            "1  t  n  2  n  C:ROLLBACK  3  Z:I",
            Free,
        ),
        (true, [insert(), query("ROLLBACK")].concat(), "", Eof, "E:40001  Z:E  E:40001  Z:E", Aborted),
        // What was behind it may have run on its own.
        (true, [query("ROLLBACK"), insert()].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
        // The block that it opens is lost.
        (true, query("ROLLBACK AND CHAIN"), "", Eof, "E:40001  Z:E", Aborted),
        (true, unnamed("ABORT AND CHAIN"), "1  2", STOPPED, "E:40001  Z:E", Aborted),
        (true, [query("ROLLBACK AND CHAIN"), insert()].concat(), "", Eof, "E:08007  Z:I  E:08007  Z:I", Free),
        // It has been told of an error already.
        (true, query("bad"), "E:42601", Eof, "Z:E", Aborted),
        (true, unnamed("bad"), "E:42601", Eof, "Z:E", Aborted),
        (true, flushed("bad"), "E:42601", Eof, "", SkippingAborted),
        (true, query("COMMIT"), "E:23503", Eof, "Z:I", Free),
        (true, [query("bad"), insert()].concat(), "E:42601", Eof, "Z:E  E:25P02  Z:E", Aborted),
        (true, [query("bad"), query("ROLLBACK")].concat(), "E:42601", Eof, "Z:E  C:ROLLBACK  Z:I", Free),
        (true, [query("bad"), query("COMMIT")].concat(), "E:42601", Eof, "Z:E  C:ROLLBACK  Z:I", Free),
        (
            true,
            [query("bad"), query("ROLLBACK"), insert()].concat(),
            "E:42601",
            Eof,
            "Z:E  E:08007  Z:I  E:08007  Z:I",
            Free,
        ),
    ];
    for row in &rows {
        play(row);
    }
}

#[test]
fn inside_of_a_failed_transaction() {
    let rows: [(Vec<u8>, &str, Then); 11] = [
        (vec![], "", Aborted),
        (query("ROLLBACK AND CHAIN"), "E:40001  Z:E", Aborted),
        (query("COMMIT AND CHAIN"), "E:40001  Z:E", Aborted),
        (query("select 1"), "E:25P02  Z:E", Aborted),
        (query("ROLLBACK"), "C:ROLLBACK  Z:I", Free),
        (query("COMMIT"), "C:ROLLBACK  Z:I", Free),
        (unnamed("ROLLBACK"), "1  2  C:ROLLBACK  Z:I", Free),
        (query("ROLLBACK TO a"), "E:25P02  Z:E", Aborted),
        (query("ROLLBACK; insert; commit"), "E:08007  Z:E", Aborted),
        ([query("ROLLBACK"), query("insert")].concat(), "E:08007  Z:I  E:08007  Z:I", Free),
        ([query("ROLLBACK TO a"), query("COMMIT")].concat(), "E:08007  Z:I  E:08007  Z:I", Free),
    ];
    for (request, gets, then) in rows {
        scene(|stage| {
            stage.begins();
            stage.round(query("bad"), "E:42601  Z:E");
            stage.sends(&request);
            stage.server();
            stage.dies(0);
            stage.client_got(gets);
            find(stage, then);
        });
    }
}

#[test]
fn nothing_sent_nothing_lost() {
    scene(|stage| {
        let paris = stage.client_with(Mode::Transaction, &[("TimeZone", "Europe/Paris")]);
        // Only weir's own query is on its way, and half of a long Parse that is not.
        let long = parse("s", &"x".repeat(100_000));
        stage.client_sends(paris, &long[..70_000]);
        stage.server();
        stage.dies(0);
        stage.that_client_got(paris, "");
        stage.client_sends(paris, [&long[70_000..], &sync()].concat());
        assert!(stage.servers[1].got.len() > 100_000);
    });
}

#[test]
fn the_rest_of_a_message_is_swallowed() {
    scene(|stage| {
        let long = query(&format!("insert into t values ('{}')", "x".repeat(70_000)));
        stage.sends(&long[..60_000]);
        stage.sends(&long[60_000..70_000]);
        stage.server();
        stage.dies(0);
        stage.client_got(if stage.servers[0].got.is_empty() { "" } else { "E:08007  Z:I" });
        let sent = !stage.servers[0].got.is_empty();
        stage.sends([&long[70_000..], &query("select 1")].concat());
        if sent {
            stage.that_server_got(1, "Q:select 1");
        }
    });
}

#[test]
fn half_a_reply_cannot_be_mended() {
    let mut stage = Stage::new(usize::MAX);
    stage.sends(query("select 1"));
    let row = said(&format!("D:{}", "x".repeat(100)));
    stage.server_says(0, &row[..50]);
    stage.dies(0);
    stage.ended(0, "silently");
}

#[test]
fn session_mode_ends_with_its_server_connection() {
    for end in [Eof, STOPPED, Warned("57P02")] {
        scene(|stage| {
            stage.recast(Mode::Session);
            stage.round(query("select 1"), "C:SELECT 1  Z:I");
            ends(stage, 0, end);
            stage.client_got("FATAL:57P01");
            stage.ended(0, "57P01");
        });
    }
    scene(|stage| {
        let paris = stage.client_with(Mode::Session, &[("TimeZone", "Europe/Paris")]);
        // It has run nothing yet: parameters are weir's own.
        let long = parse("s", &"x".repeat(2_000_000));
        stage.client_sends(paris, &long[..5]);
        stage.dies(0);
        assert!(stage.clients[paris].end.is_none());
    });
}

#[test]
fn statements_outlive_the_connection() {
    scene(|stage| {
        stage.round([parse("s", "select 1"), sync()].concat(), "1  Z:I");
        // One is being prepared, one is being closed: an error undoes both.
        stage.sends([parse("t", "select 2"), close("s"), sync()].concat());
        stage.dies(0);
        stage.client_got("E:08007  Z:I");
        let elsewhere = stage.server();
        stage.sends([run("s"), parse("t", "select 2"), sync()].concat());
        stage.that_server_got(elsewhere, "P:weir_1=select 1  B:weir_1  E:  S  P:weir_3=select 2  S");
    });
}

#[test]
fn a_rollback_by_name_keeps_its_name() {
    scene(|stage| {
        stage.begins();
        stage.sends([parse("r", "ROLLBACK"), run("r")].concat());
        stage.dies(0);
        stage.client_got("1  2  C:ROLLBACK  Z:I");
        let elsewhere = stage.server();
        stage.sends(run("r"));
        stage.that_server_got(elsewhere, "P:weir_1=ROLLBACK  B:weir_1  E:  S");
    });
}

#[test]
fn errors_that_an_application_raises_are_its_own() {
    scene(|stage| {
        for code in ["57P01", "57P02", "57P03", "25006"] {
            stage.round(query("select raise()"), &format!("E:{code}  Z:I"));
        }
        stage.begins();
        stage.round(query("select raise()"), "E:57P01  Z:E");
        stage.round(query("ROLLBACK"), "C:ROLLBACK  Z:I");
    });
}
