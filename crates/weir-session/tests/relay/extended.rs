//! The extended protocol without shared statements: batches, Flush, errors in the middle, the unnamed statement.

use weir_session::Mode;
use weir_session::owed::OWED_MAX;

use crate::stage::{Stage, scene};
use crate::words::*;

#[test]
fn a_batch_passes_as_it_is() {
    scene(|stage| {
        stage.sends([parse("", "select 1"), bind(""), describe_portal(""), execute(), sync()].concat());
        stage.server_got("P:=select 1  B:  D:portal   E:  S");
        stage.replies("1  2  T:a  D:1  C:SELECT 1");
        stage.is_attached(true);
        stage.replies("Z:I");
        stage.client_got("1  2  T:a  D:1  C:SELECT 1  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn each_kind_of_reply_is_expected_where_it_belongs() {
    scene(|stage| {
        let batch = [
            parse("", "select 1"),
            describe(""),
            bind(""),
            describe_portal(""),
            execute(),
            execute(),
            close_portal(""),
            bind_portal("p", ""),
            execute_portal("p"),
            sync(),
        ];
        stage.sends(batch.concat());
        stage.replies("1  t  n  2  T:a  D:1  s  C:SELECT 1  3  2  I  Z:I");
        stage.client_got("1  t  n  2  T:a  D:1  s  C:SELECT 1  3  2  I  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn a_batch_without_its_sync_keeps_the_server_connection() {
    scene(|stage| {
        stage.sends([parse("", "insert"), bind(""), execute(), flush()].concat());
        stage.replies("1  2  C:INSERT 0 1");
        stage.client_got("1  2  C:INSERT 0 1");
        stage.is_attached(true);
        // Nothing is owed, and half a message arrives.
        stage.sends(&bind("")[..3]);
        stage.is_attached(true);
        stage.sends(&bind("")[3..]);
        stage.sends(flush());
        stage.is_attached(true);
        stage.sends([close("nothing"), flush()].concat());
        stage.is_attached(true);
        stage.servers[0].got.clear();
        stage.sends(sync());
        stage.server_got("S");
        stage.replies("2  Z:I");
        stage.client_got("2  3  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn an_error_skips_up_to_the_sync() {
    scene(|stage| {
        stage.sends([unnamed("bad"), unnamed("select 1")].concat());
        stage.replies("E:42601  Z:I");
        stage.is_attached(true);
        stage.replies("1  2  C:SELECT 1  Z:I");
        stage.client_got("E:42601  Z:I  1  2  C:SELECT 1  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn an_error_may_come_before_the_rest_of_its_batch() {
    scene(|stage| {
        stage.sends([parse("", "bad"), describe(""), flush()].concat());
        stage.server_got("P:=bad  D:  H");
        stage.replies("E:42601");
        stage.client_got("E:42601");
        stage.is_attached(true);
        // PostgreSQL would drop all of this.
        stage.sends(
            [bind(""), execute(), query("select 1"), parse("s", "x"), close("s"), data("x"), done()].concat(),
        );
        stage.is_attached(true);
        stage.sends([sync(), query("select 2")].concat());
        stage.server_got("S  Q:select 2");
        stage.replies("Z:I  C:SELECT 1  Z:I");
        stage.client_got("Z:I  C:SELECT 1  Z:I");
        stage.is_attached(false);
        assert_eq!(stage.clients[0].session.statement_count(), 0);
    });
}

#[test]
fn a_query_inside_a_failed_batch_is_skipped_too() {
    scene(|stage| {
        stage.sends([parse("", "bad"), query("select 1")].concat());
        stage.replies("E:42601");
        stage.is_attached(true);
        stage.sends(sync());
        stage.replies("Z:I");
        stage.client_got("E:42601  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn a_sync_may_fail_as_well() {
    scene(|stage| {
        stage.sends(unnamed("insert"));
        // A constraint that is checked at commit.
        stage.replies("1  2  C:INSERT 0 1  E:23503  Z:I");
        stage.client_got("1  2  C:INSERT 0 1  E:23503  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn local_replies_do_not_come_in_the_middle_of_a_message() {
    scene(|stage| {
        stage.sends([parse("", "select 1"), describe(""), close("unknown"), sync()].concat());
        stage.server_got("P:=select 1  D:  S");
        let long = "x".repeat(5000);
        stage.replies(&format!("1  t  T:{long}  Z:I"));
        stage.client_got(&format!("1  t  T:{long}  3  Z:I"));
    });
}

#[test]
fn the_unnamed_statement_follows_its_client() {
    scene(|stage| {
        let other = stage.client(Mode::Transaction);
        stage.server();
        stage.sends([parse("", "select 1"), sync()].concat());
        stage.server_got("P:=select 1  S");
        stage.replies("1  Z:I");
        stage.client_got("1  Z:I");
        // The first connection is taken by somebody else.
        stage.client_sends(other, [parse("", "select 2"), bind(""), execute(), flush()].concat());
        stage.that_server_got(0, "P:=select 2  B:  E:  H");
        stage.sends(run(""));
        stage.that_server_got(1, "P:=select 1  B:  E:  S");
        stage.server_replies(1, "1  2  C:SELECT 1  Z:I");
        stage.client_got("2  C:SELECT 1  Z:I");
        // There it is known now.
        stage.sends([describe(""), sync()].concat());
        stage.that_server_got(1, "D:  S");
        stage.server_replies(1, "t  n  Z:I");
        stage.client_got("t  n  Z:I");
        // Back on the first, somebody else's is in the way.
        stage.client_sends(other, sync());
        stage.server_replies(0, "1  2  C:SELECT 1  Z:I");
        stage.servers[0].got.clear();
        stage.sends(run(""));
        stage.that_server_got(0, "P:=select 1  B:  E:  S");
        stage.server_replies(0, "1  2  C:SELECT 1  Z:I");
        stage.client_got("2  C:SELECT 1  Z:I");
    });
}

#[test]
fn nobody_elses_unnamed_statement_is_found() {
    scene(|stage| {
        let other = stage.client(Mode::Transaction);
        stage.client_sends(other, unnamed("delete from secrets"));
        stage.replies("1  2  C:DELETE 1  Z:I");
        stage.servers[0].got.clear();
        stage.sends(run(""));
        stage.server_got("C:  B:  E:  S");
        stage.replies("3  E:26000  Z:I");
        stage.client_got("E:26000  Z:I");
    });
}

#[test]
fn nor_after_a_batch_that_should_have_replaced_it() {
    scene(|stage| {
        stage.server();
        let other = stage.client(Mode::Transaction);
        // Client 0 prepares on connection 1, while connection 0 gets the other's statement.
        stage.client_sends(other, [parse("", "delete from secrets"), flush()].concat());
        stage.sends([parse("", "select 1"), sync()].concat());
        stage.server_replies(1, "1  Z:I");
        stage.client_sends(other, sync());
        stage.server_replies(0, "1  Z:I");
        stage.client_got("1  Z:I");
        for backing in &mut stage.servers {
            backing.got.clear();
        }
        // Both batches are on their way before the first one fails.
        stage.sends([bind("missing"), bind(""), execute(), sync(), run("")].concat());
        stage.that_server_got(0, "C:missing  B:missing  P:=select 1  B:  E:  S  P:=select 1  B:  E:  S");
        stage.server_replies(0, "3  E:26000  Z:I  1  2  C:SELECT 1  Z:I");
        stage.client_got("E:26000  Z:I  2  C:SELECT 1  Z:I");
    });
}

#[test]
fn a_simple_query_destroys_the_unnamed_statement() {
    scene(|stage| {
        stage.round([parse("", "select 1"), sync()].concat(), "1  Z:I");
        stage.round(query("select 2"), "C:SELECT 1  Z:I");
        stage.sends(run(""));
        stage.server_got("C:  B:  E:  S");
    });
}

#[test]
fn pipelined_batches_with_the_unnamed_statement() {
    scene(|stage| {
        stage.sends([unnamed("bad"), parse("", "select 2")].concat());
        stage.replies("E:42601  Z:I");
        // The failure of the first must not forget the second.
        stage.servers[0].got.clear();
        stage.sends(run(""));
        stage.server_got("B:  E:  S");
        stage.replies("1  2  C:SELECT 1  Z:I");
        stage.client_got("E:42601  Z:I  1  2  C:SELECT 1  Z:I");
    });
}

#[test]
fn a_long_unnamed_statement_streams_but_does_not_travel() {
    scene(|stage| {
        let long = "x".repeat(70_000);
        let message = parse("", &long);
        stage.sends(&message[..100]);
        assert_eq!(stage.servers[0].got.len(), 100, "pieces of {}", stage.piece);
        stage.sends([&message[100..], &run("")].concat());
        stage.server_got(&format!("P:={long}  B:  E:  S"));
        stage.replies("1  2  C:SELECT 1  Z:I");
        stage.client_got("1  2  C:SELECT 1  Z:I");
        stage.servers[0].alive = false;
        let elsewhere = stage.server();
        stage.sends(run(""));
        stage.that_server_got(elsewhere, "C:  B:  E:  S");
    });
}

#[test]
fn a_large_bind_streams_in_bounded_pieces() {
    for piece in [1000, 60_000] {
        let mut stage = crate::stage::Stage::new(piece);
        stage.round([parse("ins", "insert"), sync()].concat(), "1  Z:I");
        let mut body = b"\0ins\0".to_vec();
        body.extend(std::iter::repeat_n(7, 3_000_000));
        let mut largest = 0;
        let mut total = 0;
        for part in raw(b'B', &body).chunks(piece) {
            stage.sends(part);
            let got = std::mem::take(&mut stage.servers[0].got);
            largest = largest.max(got.len());
            total += got.len();
        }
        assert_eq!(total, 5 + 1 + "weir_1".len() + 1 + 3_000_000);
        assert!(largest <= 80_000, "{largest} bytes at once");
        let mut largest = 0;
        stage.sends([execute(), sync()].concat());
        stage.replies("2");
        for part in said(&format!("D:{}", "y".repeat(2_000_000))).chunks(piece) {
            stage.server_says(0, part);
            largest = largest.max(std::mem::take(&mut stage.clients[0].got).len());
        }
        assert!(largest <= 60_100, "{largest} bytes at once");
        stage.replies("C:INSERT 0 1  Z:I");
        stage.is_attached(false);
    }
}

#[test]
fn session_mode_passes_names_through() {
    scene(|stage| {
        stage.recast(Mode::Session);
        let long = "x".repeat(1_100_000);
        if stage.piece > 8 {
            stage.sends([parse("big", &long), sync()].concat());
            stage.server_got(&format!("P:big={long}  S"));
            stage.replies("1  Z:I");
            stage.client_got("1  Z:I");
        }
        stage.sends(
            [parse("s", "select 1"), bind("s"), describe("s"), execute(), close("s"), sync()].concat(),
        );
        stage.server_got("P:s=select 1  B:s  D:s  E:  C:s  S");
        stage.replies("1  2  t  n  C:SELECT 1  3  Z:I");
        stage.client_got("1  2  t  n  C:SELECT 1  3  Z:I");
    });
}

#[test]
fn it_does_not_matter_where_bytes_are_cut() {
    let request = [
        parse("s", "select 1"),
        bind("s"),
        describe_portal(""),
        execute(),
        close("s"),
        sync(),
        query("select 2"),
        unnamed("bad"),
        run("missing"),
    ]
    .concat();
    let reply = said(
        "1  2  T:a  D:1  C:SELECT 1  Z:I  T:a  D:2  N:01000  C:SELECT 1  Z:I  E:42601  Z:I  3  E:26000  Z:I",
    );
    let asked = "P:weir_1=select 1  B:weir_1  D:portal   E:  S  Q:select 2  P:=bad  B:  E:  S  C:missing  B:missing  E:  S";
    let heard =
        "1  2  T:a  D:1  C:SELECT 1  3  Z:I  T:a  D:2  N:01000  C:SELECT 1  Z:I  E:42601  Z:I  E:26000  Z:I";
    for cut in 0..request.len().max(reply.len()) {
        let mut stage = crate::stage::Stage::new(usize::MAX);
        let (first, second) = request.split_at(cut.min(request.len()));
        stage.sends(first);
        stage.sends(second);
        stage.server_got(asked);
        let (first, second) = reply.split_at(cut.min(reply.len()));
        stage.server_says(0, first);
        stage.server_says(0, second);
        stage.client_got(heard);
        stage.is_attached(false);
    }
}

#[test]
fn a_client_that_asks_for_too_much_at_once_waits() {
    let mut stage = Stage::new(usize::MAX);
    let many = OWED_MAX + 10;
    stage.sends(query("select 1").repeat(many));
    stage.ended_not(0);
    assert!(stage.clients[0].session.is_stalled());
    assert_eq!(stage.servers[0].got.len(), query("select 1").len() * OWED_MAX);
    let reply = said("C:SELECT 1  Z:I");
    stage.server_says(0, reply.repeat(OWED_MAX / 2));
    assert!(!stage.clients[0].session.is_stalled(), "half of it is answered");
    assert_eq!(stage.servers[0].got.len(), query("select 1").len() * many);
    stage.server_says(0, reply.repeat(many - OWED_MAX / 2));
    assert_eq!(stage.clients[0].got.len(), reply.len() * many);
    stage.is_attached(false);
}
