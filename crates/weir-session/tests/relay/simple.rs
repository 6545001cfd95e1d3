//! Simple queries: release, pipelines, notices, and the modes.

use weir_session::Mode;
use weir_session::server::TxStatus;

use crate::stage::scene;
use crate::words::{query, raw, sync, terminate};

#[test]
fn a_query_borrows_a_server_connection() {
    scene(|stage| {
        stage.sends(query("select 1"));
        stage.server_got("Q:select 1");
        stage.is_attached(true);
        stage.replies("T:a  D:1  C:SELECT 1  Z:I");
        stage.client_got("T:a  D:1  C:SELECT 1  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn a_transaction_keeps_it() {
    scene(|stage| {
        stage.begins();
        stage.is_attached(true);
        stage.round(query("insert"), "C:INSERT 0 1  Z:T");
        stage.round(query("bad"), "E:42601  Z:E");
        stage.is_attached(true);
        stage.tx(TxStatus::Failed);
        stage.round(query("ROLLBACK"), "C:ROLLBACK  Z:I");
        stage.is_attached(false);
        stage.tx(TxStatus::Idle);
    });
}

#[test]
fn session_mode_keeps_it_for_ever() {
    scene(|stage| {
        stage.recast(Mode::Session);
        stage.round(query("select 1"), "T:a  D:1  C:SELECT 1  Z:I");
        stage.is_attached(true);
        stage.sends(terminate());
        stage.ended(0, "terminated");
    });
}

#[test]
fn statement_mode_refuses_blocks() {
    scene(|stage| {
        stage.recast(Mode::Statement);
        stage.round(query("select 1"), "T:a  D:1  C:SELECT 1  Z:I");
        stage.is_attached(false);
        stage.sends([query("select 1"), query("BEGIN")].concat());
        // Nobody is told that he is in a block; what was done before is told.
        stage.replies("C:SELECT 1  Z:I  C:BEGIN  Z:T");
        let heard = stage.heard();
        let split = "C:SELECT 1  Z:I  C:BEGIN  FATAL:0A000";
        assert!(heard == "C:SELECT 1  Z:I  FATAL:0A000" || heard == split, "{heard}");
        stage.ended(0, "0A000");
    });
}

#[test]
fn two_requests_in_flight_are_two_replies_owed() {
    scene(|stage| {
        stage.sends([query("select 1"), query("select 2")].concat());
        stage.server_got("Q:select 1  Q:select 2");
        stage.replies("C:SELECT 1  Z:I");
        stage.is_attached(true);
        stage.replies("C:SELECT 1  Z:I");
        stage.is_attached(false);
        stage.client_got("C:SELECT 1  Z:I  C:SELECT 1  Z:I");
    });
}

#[test]
fn half_a_message_in_flight_keeps_it() {
    scene(|stage| {
        // Long enough to stream.
        let long = query(&"x".repeat(70_000));
        stage.sends([query("select 1"), long[..66_000].to_vec()].concat());
        stage.replies("C:SELECT 1  Z:I");
        stage.is_attached(true);
        stage.sends(&long[66_000..]);
        stage.replies("E:42601  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn what_comes_behind_the_last_reply_is_heeded() {
    scene(|stage| {
        stage.sends(query("select 1"));
        stage.replies("C:SELECT 1  Z:I  FATAL:57P01");
        stage.client_got("C:SELECT 1  Z:I");
        assert!(!stage.servers[0].alive, "the connection is not given to anybody else");
        stage.is_attached(false);
        assert!(stage.clients[0].end.is_none());
    });
}

#[test]
fn notices_and_notifications_pass_at_any_time() {
    scene(|stage| {
        stage.sends(query("select 1"));
        stage.replies("N:01000  A:xxxxhello  C:SELECT 1  N:57P01  N:57P02  Z:I");
        stage.client_got("N:01000  A:xxxxhello  C:SELECT 1  N:57P01  N:57P02  Z:I");
    });
}

#[test]
fn a_sync_without_a_server_connection_is_answered_here() {
    scene(|stage| {
        stage.sends([sync(), sync()].concat());
        stage.server_got("");
        stage.client_got("Z:I  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn an_empty_query_and_a_function_call() {
    scene(|stage| {
        stage.round(query(""), "I  Z:I");
        stage.is_attached(false);
        stage.sends(raw(b'F', &[0; 10]));
        stage.server_got("F");
        stage.replies("V:xxxx  Z:I");
        stage.client_got("V  Z:I");
        stage.is_attached(false);
        stage.sends(raw(b'F', &[0; 10]));
        stage.replies("E:42883  Z:I");
        stage.client_got("E:42883  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn figures_are_counted_for_each_reply() {
    scene(|stage| {
        stage.begins();
        stage.sends([query("select 1"), query("COMMIT")].concat());
        stage.replies("C:SELECT 1  Z:T  C:COMMIT  Z:I");
        let tally = stage.servers[0].server.take_tally();
        assert_eq!((tally.queries, tally.transactions), (3, 1));
        assert!(tally.transaction_micros >= tally.query_micros && tally.query_micros > 0);
        let long_ago = stage.now;
        stage.now += std::time::Duration::from_secs(60);
        stage.sends(&query("select 1")[..3]);
        stage.sends(&query("select 1")[3..]);
        stage.replies("C:SELECT 1  Z:I");
        let tally = stage.servers[0].server.take_tally();
        assert!(
            tally.transaction_micros < 60_000_000,
            "time between transactions counts for none: {long_ago:?}"
        );
    });
}

#[test]
fn a_client_that_waited_too_long_hears_it_and_stays() {
    use weir_protocol::{message::Report, sqlstate::SqlState};
    scene(|stage| {
        let late = || Report::error(SqlState::CANNOT_CONNECT_NOW, "no leader");
        let tell = |stage: &mut crate::stage::Stage| {
            stage.clients[0].session.refuse_next(late());
            stage.client_turn(0);
        };
        stage.held = true;
        stage.sends(query("select 1"));
        stage.client_got("");
        tell(stage);
        stage.client_got("E:57P03  Z:I");
        stage.sends(crate::words::unnamed("select 1"));
        tell(stage);
        stage.client_got("E:57P03  Z:I");
        stage.resume();
        stage.round(query("select 1"), "C:SELECT 1  Z:I");
    });
}
