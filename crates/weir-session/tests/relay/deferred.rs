//! Transactions that have only said BEGIN: answered without a server connection, begun in front of the first statement.

use std::time::Duration;

use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::Mode;
use weir_session::server::TxStatus;

use crate::stage::{Stage, scene};
use crate::words::*;

/// What a server connection receives in front of the first statement.
const OPENING: &str = "P:=BEGIN  B:  E:  C:portal ";
/// What it replies.
const OPENED: &str = "1  2  C:BEGIN  3";

fn deferring(play: impl Fn(&mut Stage)) {
    scene(|stage| {
        stage.rules.defers_begin = true;
        stage.recast(Mode::Transaction);
        play(stage);
    });
}

#[track_caller]
fn asks(stage: &mut Stage, request: impl AsRef<[u8]>, reply: &str) {
    stage.sends(request);
    stage.client_got(reply);
    stage.server_got("");
    stage.is_attached(false);
}

#[test]
fn a_block_without_statements_never_reaches_postgresql() {
    deferring(|stage| {
        for (begin, tag) in [("BEGIN", "BEGIN"), ("start transaction read only;", "START TRANSACTION")] {
            for (end, ended) in [
                ("COMMIT", "COMMIT"),
                ("end", "COMMIT"),
                ("ROLLBACK", "ROLLBACK"),
                ("abort work;", "ROLLBACK"),
            ] {
                asks(stage, query(begin), &format!("C:{tag}  Z:T"));
                asks(stage, sync(), "Z:T");
                asks(stage, flush(), "");
                stage.tx(TxStatus::Open);
                asks(stage, query(end), &format!("C:{ended}  Z:I"));
                stage.tx(TxStatus::Idle);
                let answered = stage.clients[0].session.take_answered().expect("figures");
                assert_eq!((answered.queries, answered.transactions), (2, 1));
            }
        }
        assert_eq!(stage.clients[0].session.take_answered(), None);
    });
}

#[test]
fn it_begins_in_front_of_its_first_statement() {
    deferring(|stage| {
        asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
        stage.sends(query("select 1"));
        stage.server_got(&format!("{OPENING}  Q:select 1"));
        stage.replies(&format!("{OPENED}  C:SELECT 1  Z:T"));
        stage.client_got("C:SELECT 1  Z:T");
        stage.is_attached(true);
        stage.round(query("COMMIT"), "C:COMMIT  Z:I");
        stage.is_attached(false);
        // With its modes, and in front of a batch.
        asks(stage, query("BEGIN READ ONLY, ISOLATION LEVEL SERIALIZABLE NOT DEFERRABLE"), "C:BEGIN  Z:T");
        stage.sends(unnamed("select 2"));
        stage.server_got(
            "P:=BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY NOT DEFERRABLE  B:  E:  C:portal   P:=select 2  B:  E:  S",
        );
        stage.replies(&format!("{OPENED}  1  2  D:1  C:SELECT 1  Z:T"));
        stage.client_got("1  2  D:1  C:SELECT 1  Z:T");
        stage.round(query("ROLLBACK"), "C:ROLLBACK  Z:I");
    });
}

#[test]
fn what_is_more_than_a_plain_end_begins_it() {
    for sql in [
        "BEGIN",
        "SAVEPOINT a",
        "COMMIT; select 1",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "",
        "SET TRANSACTION READ ONLY",
    ] {
        deferring(|stage| {
            stage.policy(weir_session::state::Policy::Forget);
            asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
            stage.sends(query(sql));
            stage.server_got(&format!("{OPENING}  Q:{sql}"));
        });
    }
    // Neither session pooling nor what is more than BEGIN.
    for (mode, sql) in
        [(Mode::Session, "BEGIN"), (Mode::Statement, "BEGIN"), (Mode::Transaction, "BEGIN; select 1")]
    {
        deferring(|stage| {
            stage.recast(mode);
            stage.sends(query(sql));
            stage.server_got(&format!("Q:{sql}"));
        });
    }
}

#[test]
fn a_chain_begins_another_one_of_its_kind() {
    deferring(|stage| {
        asks(stage, query("BEGIN READ ONLY"), "C:BEGIN  Z:T");
        asks(stage, query("COMMIT AND CHAIN"), "C:COMMIT  Z:T");
        asks(stage, query("ROLLBACK AND CHAIN"), "C:ROLLBACK  Z:T");
        stage.sends(query("select 1"));
        stage.server_got("P:=BEGIN READ ONLY  B:  E:  C:portal   Q:select 1");
    });
}

#[test]
fn a_batch_of_its_own_is_deferred_if_it_comes_at_once() {
    let described = |sql: &str| [parse("", sql), bind(""), describe_portal(""), execute(), sync()].concat();
    let mut stage = Stage::new(usize::MAX);
    stage.rules.defers_begin = true;
    stage.recast(Mode::Transaction);
    asks(&mut stage, unnamed("BEGIN"), "1  2  C:BEGIN  Z:T");
    asks(&mut stage, described("COMMIT"), "1  2  n  C:COMMIT  Z:I");
    asks(&mut stage, described("BEGIN"), "1  2  n  C:BEGIN  Z:T");
    // The unnamed statement is the client's own.
    stage.sends([bind(""), execute(), sync()].concat());
    stage.server_got(&format!("{OPENING}  P:=BEGIN  B:  E:  S"));
    stage.replies(&format!("{OPENED}  1  2  C:BEGIN  Z:T"));
    stage.client_got("2  C:BEGIN  Z:T");
    stage.round(query("ROLLBACK"), "C:ROLLBACK  Z:I");
    // What drivers send in front of a statement goes out with it as it is.
    stage.sends([parse("", "BEGIN"), bind(""), execute(), unnamed("select 1")].concat());
    stage.server_got("P:=BEGIN  B:  E:  P:=select 1  B:  E:  S");
}

#[test]
fn if_it_fails_the_error_answers_the_statement() {
    for (request, sent, replies, more) in [
        (query("select 1"), "Q:select 1", "E:25001", "S"),
        (unnamed("select 1"), "P:=select 1  B:  E:  S", "E:25001", ""),
    ] {
        deferring(|stage| {
            asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
            stage.sends(&request);
            stage.server_got(&format!("{OPENING}  {sent}"));
            stage.replies(replies);
            stage.server_got(more);
            // What comes meanwhile waits, and meets the aborted block.
            stage.sends(query("insert"));
            stage.server_got("");
            stage.replies("Z:I");
            stage.client_got("E:25001  Z:E  E:25P02  Z:E");
            stage.is_attached(false);
            asks(stage, query("COMMIT"), "C:ROLLBACK  Z:I");
        });
    }
    // In the middle of a batch: it is skipped up to its Sync.
    deferring(|stage| {
        asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
        stage.sends([parse("", "select 1"), bind(""), execute(), flush()].concat());
        stage.server_got(&format!("{OPENING}  P:=select 1  B:  E:  H"));
        stage.replies("1  2  E:25001");
        stage.client_got("E:25001");
        stage.sends([bind(""), execute()].concat());
        stage.server_got("");
        stage.sends(sync());
        stage.server_got("S");
        stage.replies("Z:I");
        stage.client_got("Z:E");
        asks(stage, query("ROLLBACK"), "C:ROLLBACK  Z:I");
    });
}

/// What weir asks on its own account afterwards has a ReadyForQuery of its own, which is not the client's.
#[test]
fn if_it_fails_in_front_of_a_suspicious_statement_the_client_hears_so_once() {
    deferring(|stage| {
        asks(stage, query("BEGIN ISOLATION LEVEL SERIALIZABLE"), "C:BEGIN  Z:T");
        stage.sends(query("SET work_mem = '8MB'"));
        stage.replies("E:0A000");
        stage.replies("Z:I");
        stage.client_got("E:0A000  Z:E");
        let got = std::mem::take(&mut stage.servers[0].got);
        assert!(
            got.windows(15).any(|bytes| bytes == b"current_setting"),
            "weir asks what has become of work_mem"
        );
        stage.replies("T:what  C:SELECT 0  Z:I");
        stage.client_got("");
        asks(stage, query("ROLLBACK"), "C:ROLLBACK  Z:I");
    });
}

/// A long statement may still be on its way when PostgreSQL says that BEGIN has failed: nothing is written into its middle.
#[test]
fn if_it_fails_under_a_long_statement_the_sync_waits_for_its_end() {
    deferring(|stage| {
        asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
        let long = query(&format!("select '{}'", "x".repeat(200_000)));
        let (first, rest) = long.split_at(150_000);
        stage.sends(first);
        stage.replies("E:0A000");
        stage.sends(rest);
        let got = std::mem::take(&mut stage.servers[0].got);
        let at = got.windows(8).position(|bytes| bytes == b"select '").expect("the statement");
        assert_eq!(got[at + 8..at + 8 + 200_000], b"x".repeat(200_000)[..]);
        assert!(got.ends_with(b"'\0S\0\0\0\x04"), "the Sync comes behind it");
        stage.replies("Z:I");
        stage.client_got("E:0A000  Z:E");
        asks(stage, query("ROLLBACK"), "C:ROLLBACK  Z:I");
    });
}

#[test]
fn one_request_goes_with_it_and_the_others_wait_for_its_answer() {
    deferring(|stage| {
        stage.sends([query("BEGIN"), query("select 1"), query("select 2"), unnamed("select 3")].concat());
        stage.client_got("C:BEGIN  Z:T");
        stage.server_got(&format!("{OPENING}  Q:select 1"));
        stage.replies(OPENED);
        stage.server_got("Q:select 2  P:=select 3  B:  E:  S");
        stage.replies("C:SELECT 1  Z:T  C:SELECT 1  Z:T  1  2  C:SELECT 1  Z:T");
        stage.client_got("C:SELECT 1  Z:T  C:SELECT 1  Z:T  1  2  C:SELECT 1  Z:T");
    });
}

#[test]
fn parameters_are_applied_in_front_of_it() {
    deferring(|stage| {
        let paris = stage.client_with(Mode::Transaction, &[("TimeZone", "Europe/Paris")]);
        stage.client_sends(paris, query("BEGIN"));
        stage.that_client_got(paris, "C:BEGIN  Z:T");
        stage.client_sends(paris, query("select 1"));
        let got = asked(&std::mem::take(&mut stage.servers[0].got));
        let (set, rest) = got.split_once("  ").expect("two messages");
        assert!(set.contains("set_config"), "{got}");
        assert_eq!(rest, format!("{OPENING}  Q:select 1"));
        stage.replies(&format!("C:SELECT 1  Z:I  {OPENED}  C:SELECT 1  Z:T"));
        stage.that_client_got(paris, "C:SELECT 1  Z:T");
    });
}

#[test]
fn a_loss_is_one_inside_of_a_transaction() {
    // Nothing is lost with what has not begun.
    deferring(|stage| {
        asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
        stage.dies(0);
        let other = stage.server();
        stage.sends(query("select 1"));
        stage.that_server_got(other, &format!("{OPENING}  Q:select 1"));
    });
    for replies in ["", "1  2", OPENED] {
        for end in ["", "FATAL:57P01"] {
            deferring(|stage| {
                asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
                stage.sends(query("insert into t values (1)"));
                stage.server();
                stage.replies(replies);
                if end.is_empty() {
                    stage.dies(0)
                } else {
                    stage.replies(end)
                }
                stage.client_got("E:40001  Z:E");
                stage.that_server_got(1, "");
                stage.sends(query("select 1"));
                stage.client_got("E:25P02  Z:E");
                stage.sends(query("ROLLBACK"));
                stage.client_got("C:ROLLBACK  Z:I");
            });
        }
    }
    // Behind the error of a BEGIN that has failed.
    deferring(|stage| {
        asks(stage, query("BEGIN"), "C:BEGIN  Z:T");
        stage.sends(query("select 1"));
        stage.replies("E:25001");
        stage.dies(0);
        stage.client_got("E:25001  Z:E");
        stage.sends(query("ROLLBACK"));
        stage.client_got("C:ROLLBACK  Z:I");
    });
}

#[test]
fn a_wait_that_ends_fails_the_block() {
    deferring(|stage| {
        stage.held = true;
        stage.sends([query("BEGIN"), query("select 1")].concat());
        stage.client_got("C:BEGIN  Z:T");
        let report = Report::error(SqlState::CANNOT_CONNECT_NOW, "no leader");
        stage.clients[0].session.refuse_next(report);
        stage.client_turn(0);
        stage.client_got("E:57P03  Z:E");
        asks(stage, query("select 2"), "E:25P02  Z:E");
        asks(stage, query("COMMIT"), "C:ROLLBACK  Z:I");
    });
}

#[test]
fn its_time_counts_from_begin() {
    let mut stage = Stage::new(usize::MAX);
    stage.rules.defers_begin = true;
    stage.recast(Mode::Transaction);
    let before = stage.now;
    asks(&mut stage, query("BEGIN"), "C:BEGIN  Z:T");
    assert_eq!(stage.clients[0].session.deferred_since(), Some(before));
    stage.now += Duration::from_secs(5);
    stage.sends(query("select 1"));
    assert_eq!(stage.clients[0].session.deferred_since(), None);
    assert_eq!(stage.servers[0].server.transaction_started(), Some(before));
    stage.replies(&format!("{OPENED}  C:SELECT 1  Z:T"));
    stage.client_got("C:SELECT 1  Z:T");
    stage.round(query("COMMIT"), "C:COMMIT  Z:I");
    let tally = stage.servers[0].server.tally();
    assert_eq!((tally.queries, tally.transactions), (2, 1));
    assert!(tally.transaction_micros >= 5_000_000 && tally.query_micros < 1_000_000);
}
