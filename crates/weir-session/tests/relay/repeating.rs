//! A server connection is lost: what is sent once more, and how often.

use weir_session::Mode;

use crate::lost::{STOPPED, ends};
use crate::stage::{Stage, scene};
use crate::words::*;

#[test]
fn what_was_provably_rolled_back_is_sent_once_more() {
    let requests = [
        ("Q:insert into t values (1)", query("insert into t values (1)")),
        ("Q:WITH a AS (SELECT 1) TABLE a", query("WITH a AS (SELECT 1) TABLE a")),
        ("P:=update t set a = 1  B:  E:  S", unnamed("update t set a = 1")),
        (
            "P:=select  D:  B:  D:portal   E:  S",
            [parse("", "select"), describe(""), bind(""), describe_portal(""), execute(), sync()].concat(),
        ),
        ("P:weir_1=select  B:weir_1  E:  S", [parse("s", "select"), run("s")].concat()),
    ];
    for (asked, request) in requests {
        scene(|stage| {
            stage.sends(&request);
            stage.server_got(asked);
            stage.server();
            ends(stage, 0, STOPPED);
            stage.client_got("");
            // The catalog has forgotten the statement in between, so it is another one.
            stage.that_server_got(1, &asked.replace("weir_1", "weir_2"));
            // Only once.
            stage.server();
            ends(stage, 1, STOPPED);
            stage.that_server_got(2, "");
            stage.client_got("E:08007  Z:I");
            // And the next request may be repeated again.
            stage.sends(query("select 2"));
            ends(stage, 2, STOPPED);
            let last = stage.server();
            stage.resume();
            stage.that_server_got(last, "Q:select 2");
        });
    }
}

#[test]
fn replies_that_came_with_the_last_words_are_not_forwarded() {
    // PostgreSQL flushes what it has when it dies, so these come in one piece.
    let mut stage = Stage::new(usize::MAX);
    stage.sends([parse("s", "select"), run("s")].concat());
    let elsewhere = stage.server();
    stage.replies("1  2  D:1  FATAL:57P01");
    stage.client_got("");
    stage.that_server_got(elsewhere, "P:weir_1=select  B:weir_1  E:  S");
    stage.server_replies(elsewhere, "1  2  D:1  C:SELECT 1  Z:I");
    stage.client_got("1  2  D:1  C:SELECT 1  Z:I");
    // With CommandComplete among them it may be committed.
    stage.sends(query("insert into t values (1)"));
    stage.server_replies(elsewhere, "C:INSERT 0 1  FATAL:57P01");
    stage.client_got("C:INSERT 0 1  E:08007  Z:I");
    // So it may be behind a portal that its row limit has suspended: the Sync commits.
    let elsewhere = stage.server();
    stage.sends(unnamed("insert into t values (1), (2) returning id"));
    stage.server_replies(elsewhere, "1  2  D:1  s  FATAL:57P01");
    stage.client_got("1  2  D:1  s  E:08007  Z:I");
}

#[test]
fn a_repeated_request_waits_for_the_new_leader() {
    scene(|stage| {
        stage.sends(query("insert into t values (1)"));
        ends(stage, 0, STOPPED);
        stage.client_got("");
        stage.sends(query("select 2"));
        let leader = stage.server();
        stage.resume();
        stage.that_server_got(leader, "Q:insert into t values (1)  Q:select 2");
        stage.server_replies(leader, "C:INSERT 0 1  Z:I  C:SELECT 1  Z:I");
        stage.client_got("C:INSERT 0 1  Z:I  C:SELECT 1  Z:I");
    });
}

#[test]
fn requests_that_are_too_long_are_not_kept() {
    scene(|stage| {
        stage.rules.retry_bytes_max = 100;
        stage.recast(Mode::Transaction);
        stage.sends(query(&format!("select '{}'", "x".repeat(100))));
        ends(stage, 0, STOPPED);
        stage.client_got("E:08007  Z:I");
        stage.rules.retry_bytes_max = 0;
        stage.recast(Mode::Transaction);
        let next = stage.server();
        stage.sends(query("select 1"));
        ends(stage, next, STOPPED);
        stage.client_got("E:08007  Z:I");
    });
}

#[test]
fn reads_on_a_replica_are_repeated_after_any_loss() {
    scene(|stage| {
        stage.sends(query("select 1"));
        stage.server();
        stage.replies("N:57P02");
        stage.replica_dies(0);
        stage.client_got("");
        stage.that_server_got(1, "Q:select 1");
        stage.server();
        stage.replica_dies(1);
        stage.client_got("E:08007  Z:I");
        // In a transaction, too, they are what they are.
        stage.sends(query("BEGIN"));
        stage.server_replies(2, "C:BEGIN  Z:T");
        stage.sends(query("select 1"));
        stage.replica_dies(2);
        stage.client_got("C:BEGIN  Z:T  E:40001  Z:E");
    });
}
