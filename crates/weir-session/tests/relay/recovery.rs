//! Requests that a standby breaks off in favour of recovery: which of them run on another member instead of failing.

use crate::stage::{Stage, scene};
use crate::words::*;

const CONFLICT: &str = "K:postgres.c  Z:I";

/// Server connection 0 is one to a standby, 1 is another.
fn standby(stage: &mut Stage) {
    stage.servers[0].server.set_standby(true);
    stage.server();
}

#[test]
fn a_request_moves_with_all_of_its_messages() {
    let requests = [
        (query("select 1"), "T:a  ", "Q:select 1", "T:a  D:1  C:SELECT 1  Z:I"),
        (unnamed("select 1"), "1  2  ", "P:=select 1  B:  E:  S", "1  2  D:1  C:SELECT 1  Z:I"),
        (
            [parse("s", "select 1"), run("s")].concat(),
            "",
            "P:weir_2=select 1  B:weir_2  E:  S",
            "1  2  D:1  C:SELECT 1  Z:I",
        ),
    ];
    for (request, begun, again, reply) in requests {
        scene(|stage| {
            standby(stage);
            stage.sends(&request);
            // In one piece, since nothing of a reply that has begun may be repeated.
            stage.at_once(0, &format!("{begun}{CONFLICT}"));
            stage.client_got("");
            stage.that_server_got(1, again);
            stage.server_replies(1, reply);
            stage.client_got(reply);
        });
    }
}

#[test]
fn it_is_told_where_it_cannot_be_repeated() {
    let told = |request: &[u8], server_says: &str, client_hears: &str| {
        scene(|stage| {
            standby(stage);
            stage.sends(request);
            stage.at_once(0, server_says);
            stage.client_got(client_hears);
            stage.that_server_got(1, "");
        });
    };
    // Not PostgreSQL's recovery, but a function that says the same.
    told(&query("select 1"), "K:pl_exec.c  Z:I", "E:40001  Z:I");
    // Several statements, and what nobody vouches for.
    told(&query("select 1; select 2"), CONFLICT, "E:40001  Z:I");
    told(&query("do 'x'"), CONFLICT, "E:40001  Z:I");
    // Another one follows.
    let two = [query("select 1"), query("select 2")].concat();
    told(&two, "K:postgres.c  Z:I  C:SELECT 1  Z:I", "E:40001  Z:I  C:SELECT 1  Z:I");
}

#[test]
fn it_is_told_by_a_server_that_is_no_standby() {
    scene(|stage| {
        stage.server();
        stage.sends(query("select 1"));
        stage.at_once(0, CONFLICT);
        stage.client_got("E:40001  Z:I");
    });
}

#[test]
fn it_is_told_in_a_transaction_and_behind_rows() {
    scene(|stage| {
        standby(stage);
        stage.begins();
        stage.sends(query("select 1"));
        stage.at_once(0, "K:postgres.c  Z:E");
        stage.client_got("E:40001  Z:E");
    });
    scene(|stage| {
        standby(stage);
        stage.sends(query("select 1"));
        stage.replies("T:a  D:1");
        stage.at_once(0, CONFLICT);
        stage.client_got("T:a  D:1  E:40001  Z:I");
    });
}

#[test]
fn it_moves_from_a_standby_that_had_to_be_asked_which_counts_as_none_when_it_is_lost() {
    scene(|stage| {
        stage.servers[0].server.take_for_standby();
        assert!(!stage.servers[0].server.is_standby());
        stage.server();
        stage.sends(query("select 1"));
        stage.at_once(0, CONFLICT);
        stage.client_got("");
        stage.that_server_got(1, "Q:select 1");
    });
}

#[test]
fn it_moves_once() {
    scene(|stage| {
        standby(stage);
        stage.servers[1].server.set_standby(true);
        stage.sends(query("select 1"));
        stage.at_once(0, CONFLICT);
        stage.at_once(1, CONFLICT);
        stage.client_got("E:40001  Z:I");
    });
}

#[test]
fn a_promoted_standby_says_so() {
    scene(|stage| {
        standby(stage);
        stage.sends(query("select 1"));
        stage.replies("C:SELECT 1  S:in_hot_standby=off  Z:I");
        stage.client_got("C:SELECT 1  Z:I");
        assert!(!stage.servers[0].server.is_standby());
    });
}
