//! COPY in both directions, in both protocols: PostgreSQL ignores each Sync while it reads a COPY, and what the client sends
//! of a COPY that has failed.

use crate::stage::{Stage, scene};
use crate::words::*;

#[test]
fn copy_in_simple() {
    scene(|stage| {
        stage.sends(query("COPY t FROM STDIN"));
        stage.replies("G");
        stage.sends([data("1\n"), data("2\n"), flush(), sync(), done()].concat());
        stage.server_got("Q:COPY t FROM STDIN  d:1\n  d:2\n  H  S  c");
        stage.is_attached(true);
        stage.replies("C:COPY 2  Z:I");
        stage.client_got("G  C:COPY 2  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_in_given_up() {
    scene(|stage| {
        stage.sends(query("COPY t FROM STDIN"));
        stage.replies("G");
        stage.sends([data("1\n"), copy_fail()].concat());
        stage.replies("E:57014  Z:I");
        stage.client_got("G  E:57014  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_in_that_fails_early() {
    scene(|stage| {
        stage.sends(query("COPY t FROM STDIN"));
        stage.replies("G  E:22P02  Z:I");
        stage.is_attached(false);
        // The client has not heard of it yet.
        stage.sends([data("1\n"), data("2\n"), done(), query("select 1")].concat());
        stage.server_got("Q:COPY t FROM STDIN  Q:select 1");
        stage.replies("C:SELECT 1  Z:I");
        stage.client_got("G  E:22P02  Z:I  C:SELECT 1  Z:I");
    });
}

#[test]
fn stray_copy_data_inside_a_transaction() {
    scene(|stage| {
        stage.begins();
        stage.sends(query("COPY t FROM STDIN"));
        stage.replies("G  E:22P02  Z:E");
        stage.sends([data("1\n"), done(), query("ROLLBACK"), data("2\n"), done()].concat());
        stage.server_got("Q:COPY t FROM STDIN  Q:ROLLBACK  d:2\n  c");
        stage.replies("C:ROLLBACK  Z:I");
        stage.client_got("G  E:22P02  Z:E  C:ROLLBACK  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_in_pipelined_in_one_go() {
    scene(|stage| {
        stage.sends([query("COPY t FROM STDIN"), data("1\n"), done(), query("select 1")].concat());
        stage.replies("G  C:COPY 1  Z:I  C:SELECT 1  Z:I");
        stage.client_got("G  C:COPY 1  Z:I  C:SELECT 1  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn two_copies_in_one_query() {
    scene(|stage| {
        stage.sends([query("COPY t FROM STDIN; COPY t FROM STDIN"), data("1\n"), done()].concat());
        stage.replies("G  C:COPY 1  G");
        // Still in COPY: this Sync is not answered.
        stage.sends([data("2\n"), sync(), done()].concat());
        stage.replies("C:COPY 1  Z:I");
        stage.client_got("G  C:COPY 1  G  C:COPY 1  Z:I");
        stage.is_attached(false);
    });
}

/// As libpq does it: the Sync goes out with the Execute, and another one behind the data.
fn extended_copy(stage: &mut Stage) {
    stage.sends([parse("", "COPY t FROM STDIN"), bind(""), execute(), sync()].concat());
    stage.replies("1  2  G");
    stage.client_got("1  2  G");
}

#[test]
fn copy_in_extended_ignores_syncs() {
    scene(|stage| {
        extended_copy(stage);
        stage.sends([data("1\n"), sync(), data("2\n"), done()].concat());
        stage.replies("C:COPY 2");
        stage.is_attached(true);
        stage.sends(sync());
        stage.replies("Z:I");
        stage.client_got("C:COPY 2  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_in_extended_in_one_go() {
    scene(|stage| {
        let copy = [parse("", "COPY t FROM STDIN"), bind(""), execute(), sync(), data("1\n"), done(), sync()];
        stage.sends([copy.concat(), unnamed("select 1")].concat());
        stage.replies("1  2  G  C:COPY 1  Z:I  1  2  C:SELECT 1");
        stage.is_attached(true);
        stage.replies("Z:I");
        stage.client_got("1  2  G  C:COPY 1  Z:I  1  2  C:SELECT 1  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_in_extended_that_fails_late() {
    scene(|stage| {
        extended_copy(stage);
        stage.sends(data("1\n"));
        stage.replies("E:22P02");
        stage.is_attached(true);
        stage.servers[0].got.clear();
        stage.sends([data("2\n"), done(), sync(), query("select 1")].concat());
        stage.server_got("S  Q:select 1");
        stage.replies("Z:I  C:SELECT 1  Z:I");
        stage.client_got("E:22P02  Z:I  C:SELECT 1  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_in_extended_that_fails_behind_its_end() {
    scene(|stage| {
        extended_copy(stage);
        stage.sends([data("1\n"), done(), sync()].concat());
        stage.replies("E:23505  Z:I");
        stage.client_got("E:23505  Z:I");
        // Was the Sync in front of the data read over?
        stage.replies("I  Z:I");
        stage.client_got("");
        stage.is_attached(false);
    });
}

#[test]
fn another_message_fails_the_copy() {
    scene(|stage| {
        stage.sends(query("COPY t FROM STDIN"));
        stage.replies("G");
        // PostgreSQL takes it for a broken COPY, and does not run it.
        stage.sends([data("1\n"), query("select 1")].concat());
        stage.replies("E:08P01  Z:I");
        stage.client_got("G  E:08P01  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn copy_out() {
    scene(|stage| {
        stage.sends(query("COPY t TO STDOUT"));
        stage.replies("H  d:1  d:2  c  C:COPY 2  Z:I");
        stage.client_got("H  d:1  d:2  c  C:COPY 2  Z:I");
        stage.is_attached(false);
        stage.sends(unnamed("COPY t TO STDOUT"));
        stage.replies("1  2  H  d:1  E:57014  Z:I");
        stage.client_got("1  2  H  d:1  E:57014  Z:I");
        stage.is_attached(false);
    });
}

#[test]
fn a_long_piece_that_outlives_its_copy() {
    let mut stage = Stage::new(usize::MAX);
    stage.sends(query("COPY t FROM STDIN"));
    stage.replies("G");
    let piece = data(&"x".repeat(1000));
    stage.sends(&piece[..500]);
    stage.replies("E:22P02  Z:I");
    stage.is_attached(true);
    stage.sends(&piece[500..]);
    stage.is_attached(false);
    stage.client_got("G  E:22P02  Z:I");
}

#[test]
fn a_copy_that_fails_before_it_reads_answers_the_sync_in_front_of_its_data() {
    // PostgreSQL reads over the Sync only if it gets so far (a trigger may fail first).
    for early in [true, false] {
        scene(|stage| {
            stage.sends([unnamed("copy t from stdin"), data("1"), done(), sync()].concat());
            stage.replies("1  2  G  E:P0001  Z:I");
            stage.servers[0].got.clear();
            stage.replies(if early { "Z:I  I  Z:I" } else { "I  Z:I" });
            stage.client_got(if early { "1  2  G  E:P0001  Z:I  Z:I" } else { "1  2  G  E:P0001  Z:I" });
            stage.is_attached(false);
            stage.round(query("select 1"), "C:SELECT 1  Z:I");
        });
    }
}
