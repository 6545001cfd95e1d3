//! Named statements in transaction mode: shared, brought along, evicted, and forgotten.

use weir_session::Mode;

use crate::stage::{Stage, scene};
use crate::words::*;

/// Client 0 has prepared `name` on server connection 0.
fn prepared(stage: &mut Stage, client: usize, server: usize, name: &str, sql: &str) {
    stage.client_sends(client, [parse(name, sql), sync()].concat());
    let hears = stage.servers[server].got.first() == Some(&b'P');
    stage.server_replies(server, if hears { "1  Z:I" } else { "Z:I" });
    stage.that_client_got(client, "1  Z:I");
    stage.servers[server].got.clear();
}

#[test]
fn two_clients_share_a_statement() {
    scene(|stage| {
        let other = stage.client(Mode::Transaction);
        stage.sends([parse("s", "select 1"), sync()].concat());
        stage.server_got("P:weir_1=select 1  S");
        stage.replies("1  Z:I");
        stage.client_got("1  Z:I");
        // The other one's name for it is another; nothing has to be parsed.
        stage.client_sends(other, [parse("t", "select 1"), describe("t"), sync()].concat());
        stage.server_got("D:weir_1  S");
        stage.replies("t  n  Z:I");
        stage.that_client_got(other, "1  t  n  Z:I");
        stage.sends(run("s"));
        stage.server_got("B:weir_1  E:  S");
        stage.replies("2  C:SELECT 1  Z:I");
        stage.client_got("2  C:SELECT 1  Z:I");
    });
}

#[test]
fn a_statement_follows_its_client_to_another_server_connection() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.servers[0].alive = false;
        let elsewhere = stage.server();
        stage.sends([bind("s"), describe("s"), execute(), sync()].concat());
        stage.that_server_got(elsewhere, "P:weir_1=select 1  B:weir_1  D:weir_1  E:  S");
        stage.server_replies(elsewhere, "1  2  t  n  C:SELECT 1  Z:I");
        stage.client_got("2  t  n  C:SELECT 1  Z:I");
        assert_eq!(stage.servers[elsewhere].server.take_tally().server_parses, 1);
    });
}

#[test]
fn a_reconnected_client_finds_it_parsed() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.recast(Mode::Transaction);
        stage.sends([parse("s", "select 1"), bind("s"), sync()].concat());
        stage.server_got("B:weir_1  S");
    });
}

#[test]
fn local_answers_keep_their_place() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.sends([bind("s"), parse("t", "select 1"), bind("t"), close("s"), execute(), sync()].concat());
        stage.server_got("B:weir_1  B:weir_1  E:  S");
        stage.client_got("");
        stage.replies("2  2  C:SELECT 1  Z:I");
        stage.client_got("2  1  2  3  C:SELECT 1  Z:I");
    });
}

#[test]
fn a_close_alone_needs_nobody() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.sends(close("s"));
        stage.client_got("3");
        stage.is_attached(false);
        stage.sends(sync());
        stage.server_got("");
        stage.client_got("Z:I");
        assert_eq!(stage.clients[0].session.statement_count(), 0);
        stage.sends(run("s"));
        stage.servers[0].got.clear();
        stage.replies("3  E:26000  Z:I");
        stage.client_got("E:26000  Z:I");
    });
}

#[test]
fn what_was_promised_behind_an_error_is_undone() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        prepared(stage, 0, 0, "shared", "select 3");
        let batch = [
            bind("missing"),
            close("s"),
            // The same name again, another that the server knows, and a new one.
            parse("s", "select 9"),
            parse("copy", "select 3"),
            parse("new", "select 4"),
            sync(),
        ];
        stage.sends(batch.concat());
        stage.replies("3  E:26000  Z:I");
        stage.client_got("E:26000  Z:I");
        stage.servers[0].got.clear();
        // The first name still means the first statement; the others mean nothing.
        stage.sends([run("s"), run("copy"), run("new")].concat());
        stage.server_got("B:weir_1  E:  S  C:copy  B:copy  E:  S  C:new  B:new  E:  S");
        stage.replies("2  C:SELECT 1  Z:I  3  E:26000  Z:I  3  E:26000  Z:I");
        stage.servers[0].got.clear();
        // And neither is known on the server connection.
        stage.sends([parse("new", "select 4"), sync()].concat());
        stage.server_got("P:weir_5=select 4  S");
    });
}

#[test]
fn a_parse_that_fails_makes_nothing() {
    scene(|stage| {
        stage.sends([parse("s", "bad"), sync()].concat());
        stage.replies("E:42601  Z:I");
        stage.client_got("E:42601  Z:I");
        stage.servers[0].got.clear();
        stage.sends([parse("s", "bad"), sync()].concat());
        // A reason why the catalog forgets at once: the name is a new one.
        stage.server_got("P:weir_2=bad  S");
    });
}

#[test]
fn a_name_that_is_taken_is_refused_by_postgresql() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.sends([parse("s", "select 2"), bind("s"), sync()].concat());
        stage.server_got("P:weir_1=select 2  B:weir_1  S");
        stage.replies("E:42P05  Z:I");
        stage.client_got("E:42P05  Z:I");
        // On a connection that does not know it, it is made known first.
        stage.servers[0].alive = false;
        let elsewhere = stage.server();
        stage.sends([parse("s", "select 2"), sync()].concat());
        stage.that_server_got(elsewhere, "P:weir_1=select 1  P:weir_1=select 2  S");
        stage.server_replies(elsewhere, "1  E:42P05  Z:I");
        stage.client_got("E:42P05  Z:I");
        stage.sends(run("s"));
        stage.that_server_got(elsewhere, "B:weir_1  E:  S");
    });
}

#[test]
fn a_parse_ahead_in_the_same_batch_is_enough() {
    scene(|stage| {
        stage.sends([parse("s", "select 1"), bind("s"), parse("t", "select 1"), bind("t"), sync()].concat());
        stage.server_got("P:weir_1=select 1  B:weir_1  B:weir_1  S");
        stage.replies("1  2  2  Z:I");
        stage.client_got("1  2  1  2  Z:I");
    });
}

#[test]
fn a_parse_in_an_earlier_batch_may_fail() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.servers[0].alive = false;
        let elsewhere = stage.server();
        stage.sends([bind("missing"), bind("s"), sync(), run("s"), run("s")].concat());
        stage.that_server_got(
            elsewhere,
            "C:missing  B:missing  P:weir_1=select 1  B:weir_1  S  \
             C:weir_1  P:weir_1=select 1  B:weir_1  E:  S  \
             C:weir_1  P:weir_1=select 1  B:weir_1  E:  S",
        );
        stage.server_replies(elsewhere, "3  E:26000  Z:I  3  1  2  C:SELECT 1  Z:I");
        // The last Parse is still on its way; a use behind it is not sure of it either.
        stage.sends(run("s"));
        stage.that_server_got(elsewhere, "C:weir_1  P:weir_1=select 1  B:weir_1  E:  S");
        stage.server_replies(elsewhere, "3  1  2  C:SELECT 1  Z:I  3  1  2  C:SELECT 1  Z:I");
        stage.client_got("E:26000  Z:I  2  C:SELECT 1  Z:I  2  C:SELECT 1  Z:I  2  C:SELECT 1  Z:I");
        stage.sends(run("s"));
        stage.that_server_got(elsewhere, "B:weir_1  E:  S");
    });
}

#[test]
fn a_close_that_ran_before_a_parse_that_failed() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.servers[0].alive = false;
        let elsewhere = stage.server();
        // The table is dropped between the two.
        stage.sends([run("s"), run("s")].concat());
        stage.servers[elsewhere].got.clear();
        stage.server_replies(elsewhere, "1  2  C:SELECT 1  Z:I  3  E:42P01  Z:I");
        stage.client_got("2  C:SELECT 1  Z:I  E:42P01  Z:I");
        // Whether it is there is not known, so it is closed first.
        stage.sends(run("s"));
        stage.that_server_got(elsewhere, "C:weir_1  P:weir_1=select 1  B:weir_1  E:  S");
    });
}

fn with_room_for_two(play: impl Fn(&mut Stage)) {
    scene(|stage| {
        stage.servers.clear();
        stage.statements_max = 2;
        stage.server();
        play(stage);
    });
}

#[test]
fn the_least_recently_used_is_evicted() {
    with_room_for_two(|stage| {
        prepared(stage, 0, 0, "a", "select 1");
        prepared(stage, 0, 0, "b", "select 2");
        stage.sends(run("a"));
        stage.replies("2  C:SELECT 1  Z:I");
        stage.servers[0].got.clear();
        stage.sends([parse("c", "select 3"), sync()].concat());
        stage.server_got("C:weir_2  P:weir_3=select 3  S");
        stage.replies("3  1  Z:I");
        assert_eq!(stage.servers[0].server.statement_count(), 2);
        stage.sends(run("b"));
        stage.server_got("C:weir_1  P:weir_2=select 2  B:weir_2  E:  S");
        stage.replies("3  1  2  C:SELECT 1  Z:I");
        stage.client_got("2  C:SELECT 1  Z:I  1  Z:I  2  C:SELECT 1  Z:I");
    });
}

#[test]
fn none_that_a_request_in_flight_names_is_evicted() {
    with_room_for_two(|stage| {
        let names = ["a", "b", "c", "d"];
        let all: Vec<u8> = names.iter().flat_map(|name| [parse(name, name), bind(name)].concat()).collect();
        stage.sends([all, sync()].concat());
        stage.server_got(
            "P:weir_1=a  B:weir_1  P:weir_2=b  B:weir_2  P:weir_3=c  B:weir_3  P:weir_4=d  B:weir_4  S",
        );
        stage.replies("1  2  1  2  1  2  1  2  Z:I");
        stage.sends([parse("e", "e"), sync()].concat());
        stage.server_got("C:weir_1  C:weir_2  P:weir_5=e  S");
    });
}

#[test]
fn a_table_that_was_overfilled_shrinks_again() {
    with_room_for_two(|stage| {
        let many: Vec<u8> = (0..20).flat_map(|n| parse(&n.to_string(), &n.to_string())).collect();
        stage.sends([many, sync()].concat());
        stage.replies(&format!("{}  Z:I", ["1"; 20].join("  ")));
        assert_eq!(stage.servers[0].server.statement_count(), 20);
        for n in 20..40 {
            stage.sends([parse(&n.to_string(), &n.to_string()), sync()].concat());
            let closed = stage.servers[0].got.iter().filter(|byte| **byte == b'C').count();
            stage.servers[0].got.clear();
            stage.replies(&format!("{}  1  Z:I", ["3"; 2][..closed].join("  ")));
        }
        assert_eq!(stage.servers[0].server.statement_count(), 2);
    });
}

#[test]
fn an_eviction_that_is_skipped_did_not_happen() {
    with_room_for_two(|stage| {
        prepared(stage, 0, 0, "a", "select 1");
        prepared(stage, 0, 0, "b", "select 2");
        // The next batch is on its way already when the first one fails.
        stage.sends([bind("missing"), parse("c", "select 3"), sync(), run("a")].concat());
        stage.server_got(
            "C:missing  B:missing  C:weir_1  P:weir_3=select 3  S  C:weir_1  P:weir_1=select 1  B:weir_1  E:  S",
        );
        stage.replies("3  E:26000  Z:I  3  1  2  C:SELECT 1  Z:I");
        stage.client_got("E:26000  Z:I  2  C:SELECT 1  Z:I");
        stage.sends([run("a"), run("b")].concat());
        stage.server_got("B:weir_1  E:  S  B:weir_2  E:  S");
    });
}

#[test]
fn names_of_nobody_are_not_looked_up() {
    scene(|stage| {
        // What another client prepared by SQL may have this very name.
        stage.sends([describe("other"), sync(), run("other"), close("other"), sync()].concat());
        stage.server_got("C:other  D:other  S  C:other  B:other  E:  S  S");
        stage.replies("3  E:26000  Z:I  3  E:26000  Z:I  Z:I");
        stage.client_got("E:26000  Z:I  E:26000  Z:I  3  Z:I");
    });
}

#[test]
fn weirs_own_names_are_not_for_clients() {
    scene(|stage| {
        let other = stage.client(Mode::Transaction);
        prepared(stage, other, 0, "s", "delete from secrets");
        stage.sends([describe("weir_1"), bind("weir_1"), close("weir_1"), sync()].concat());
        stage.server_got("D:weir?weir_1  B:weir?weir_1  S");
    });
}

#[test]
fn without_support_names_pass_through() {
    scene(|stage| {
        stage.servers.clear();
        stage.statements_max = 0;
        stage.server();
        stage.sends([parse("s", "select 1"), bind("s"), close("s"), describe("x"), sync()].concat());
        stage.server_got("P:s=select 1  B:s  C:s  D:x  S");
    });
}

#[test]
fn deallocate_all_and_discard_all_forget() {
    for tag in ["DEALLOCATE ALL", "DISCARD ALL"] {
        scene(|stage| {
            prepared(stage, 0, 0, "s", "select 1");
            stage.round(query(tag), &format!("C:{tag}  Z:I"));
            if tag == "DISCARD ALL" {
                // What the session has now was asked.
                stage.replies("T:name  C:SELECT 0  Z:I");
                stage.servers[0].got.clear();
            }
            assert_eq!(stage.clients[0].session.statement_count(), 0);
            stage.sends([run("s"), parse("s", "select 1"), sync()].concat());
            stage.server_got("C:s  B:s  E:  S  P:weir_2=select 1  S");
        });
    }
}

#[test]
fn a_name_that_becomes_free_in_its_batch_is_the_clients_again() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        let deallocate = [parse("", "DEALLOCATE ALL"), bind(""), execute()].concat();
        stage.sends([deallocate, parse("s", "select 2"), bind("s"), execute(), sync()].concat());
        stage.server_got("P:=DEALLOCATE ALL  B:  E:  P:weir_1=select 2  B:weir_1  E:  S");
        stage.replies("1  2  C:DEALLOCATE ALL  1  2  C:SELECT 2  Z:I");
        stage.client_got("1  2  C:DEALLOCATE ALL  1  2  C:SELECT 2  Z:I");
        stage.sends(run("s"));
        stage.server_got("P:weir_2=select 2  B:weir_2  E:  S");
        // The first text gets its name back where it is wanted.
        let other = stage.client(Mode::Transaction);
        stage.replies("1  2  C:SELECT 2  Z:I");
        stage.client_sends(other, [parse("x", "select 1"), bind("x"), sync()].concat());
        stage.server_got("C:weir_1  P:weir_1=select 1  B:weir_1  S");
    });
}

#[test]
fn what_is_parsed_behind_deallocate_all_is_not_forgotten() {
    scene(|stage| {
        prepared(stage, 0, 0, "old", "select 0");
        stage.sends([query("DEALLOCATE ALL"), [parse("s", "select 1"), sync()].concat()].concat());
        stage.replies("C:DEALLOCATE ALL  Z:I  1  Z:I");
        stage.client_got("C:DEALLOCATE ALL  Z:I  1  Z:I");
        stage.servers[0].got.clear();
        stage.sends(run("s"));
        stage.server_got("B:weir_2  E:  S");
        stage.replies("2  C:SELECT 1  Z:I");
        stage.servers[0].got.clear();
        stage.sends(run("old"));
        stage.server_got("C:old  B:old  E:  S");
    });
}

const SURPRISES: [&str; 2] = [
    "E:26000 prepared statement \"weir_1\" does not exist",
    "E:0A000 cached plan must not change result type",
];

#[test]
fn a_statement_that_went_bad_is_parsed_again_once() {
    for surprise in SURPRISES {
        scene(|stage| {
            prepared(stage, 0, 0, "s", "select 1");
            stage.sends([parse("t", "select 2"), describe("s"), run("s")].concat());
            stage.server_got("P:weir_2=select 2  D:weir_1  B:weir_1  E:  S");
            // Nothing has been forwarded, so the client does not hear of it.
            stage.replies(&format!("{surprise}  Z:I"));
            stage.client_got("");
            stage.server_got("P:weir_3=select 2  C:weir_1  P:weir_1=select 1  D:weir_1  B:weir_1  E:  S");
            // Only once.
            stage.replies(&format!("{surprise}  Z:I"));
            stage.client_got(if surprise.contains("26000") { "E:26000  Z:I" } else { "E:0A000  Z:I" });
            stage.server_got("");
            stage.sends(run("s"));
            stage.server_got("C:weir_1  P:weir_1=select 1  B:weir_1  E:  S");
            stage.replies("3  1  2  C:SELECT 1  Z:I");
            stage.client_got("2  C:SELECT 1  Z:I");
            stage.is_attached(false);
        });
    }
}

#[test]
fn replies_in_front_of_a_surprise_are_withdrawn_or_it_is_told() {
    let mut stage = Stage::new(usize::MAX);
    prepared(&mut stage, 0, 0, "s", "select 1");
    let batch = [parse("t", "select 2"), run("s")].concat();
    stage.sends(&batch);
    stage.replies(&format!("1  {}  Z:I", SURPRISES[0]));
    stage.client_got("");
    stage.server_got("P:weir_2=select 2  B:weir_1  E:  S  C:weir_2  P:weir_2=select 2  C:weir_1  P:weir_1=select 1  B:weir_1  E:  S");
    stage.replies("3  1  3  1  2  C:SELECT 1  Z:I");
    stage.client_got("1  2  C:SELECT 1  Z:I");
    // The first reply has gone out.
    stage.sends([parse("u", "select 3"), run("s")].concat());
    stage.replies("1");
    stage.replies(&format!("{}  Z:I", SURPRISES[0]));
    stage.client_got("1  E:26000  Z:I");
}

#[test]
fn what_cannot_run_again_hears_of_the_surprise() {
    for surprise in SURPRISES {
        scene(|stage| {
            prepared(stage, 0, 0, "s", "select 1");
            prepared(stage, 0, 0, "c", "CALL p()");
            stage.sends([run("s"), run("s")].concat());
            stage.replies(&format!("{surprise}  Z:I  {surprise}  Z:I"));
            let told = |n| vec![format!("{}  Z:I", &surprise[..7]); n].join("  ");
            stage.client_got(&told(2));
            stage.servers[0].got.clear();
            stage.sends(run("c"));
            stage.replies(&format!("3  1  {surprise}  Z:I"));
            stage.client_got(&told(1));
            stage.begins();
            stage.sends(run("s"));
            stage.replies(&format!("3  1  {surprise}  Z:E"));
            stage.client_got(&told(1).replace('I', "E"));
        });
    }
}

#[test]
fn a_request_behind_one_that_runs_again_waits_for_it() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.sends(run("s"));
        stage.replies(SURPRISES[0]);
        stage.servers[0].got.clear();
        stage.sends([query("select 2"), terminate()].concat());
        stage.server_got("");
        stage.replies("Z:I");
        stage.server_got("C:weir_1  P:weir_1=select 1  B:weir_1  E:  S  Q:select 2");
        stage.ended(0, "terminated");
    });
}

#[test]
fn a_request_that_runs_again_may_lose_its_server_connection() {
    scene(|stage| {
        prepared(stage, 0, 0, "s", "select 1");
        stage.sends(run("s"));
        stage.replies(SURPRISES[1]);
        let elsewhere = stage.server();
        stage.dies(0);
        stage.client_got("");
        stage.that_server_got(elsewhere, "P:weir_1=select 1  B:weir_1  E:  S");
    });
}

#[test]
fn a_proven_statement_needs_no_server_connection() {
    scene(|stage| {
        stage.rules.shares_statements = true;
        stage.recast(Mode::Transaction);
        prepared(stage, 0, 0, "s", "select 1");
        let other = stage.client(Mode::Transaction);
        stage.held = true;
        stage.client_sends(other, [parse("t", "select 1"), sync()].concat());
        stage.that_client_got(other, "1  Z:I");
        stage.client_sends(other, [parse("t", "select 1"), sync()].concat());
        stage.that_client_got(other, "");
        stage.resume();
        stage.server_got("P:weir_1=select 1  S");
    });
}

#[test]
fn encodings_and_search_paths_tell_statements_apart() {
    scene(|stage| {
        let other = stage.client_with(Mode::Transaction, &[("search_path", "audit")]);
        prepared(stage, 0, 0, "s", "select 1");
        stage.client_sends(other, [parse("s", "select 1"), sync()].concat());
        stage.server_got(
            "Q:BEGIN;SELECT pg_catalog.set_config('search_path','audit',false);COMMIT;  P:weir_2=select 1  S",
        );
    });
}

#[test]
fn too_many_or_too_long() {
    let mut stage = Stage::new(1 << 20);
    stage.sends(parse("s", &"x".repeat(1_100_000)));
    stage.ended(0, "54000");
    let mut stage = Stage::new(1 << 20);
    let all: Vec<u8> = (0..10_001).flat_map(|n| parse(&n.to_string(), &n.to_string())).collect();
    stage.sends(all);
    stage.ended(0, "54000");
}
