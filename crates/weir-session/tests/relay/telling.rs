//! The words of errors about lost connections.

use weir_session::Mode;

use crate::stage::{Stage, scene};
use crate::words::*;

/// Message, DETAIL and HINT, with what the stage says of the cause.
fn told(stage: &mut Stage) -> String {
    let report = stage.error_told();
    format!("{}|{}|{}", report.message, report.detail.unwrap_or_default(), report.hint.unwrap_or_default())
}

const LOST: &str = "The connection to n1 was lost";
const CHECK: &str =
    "Check whether its changes are there before repeating it. The connection to weir can go on being used.";

#[test]
fn what_is_in_doubt() {
    let request = "the outcome of this request is not known|\
                   LOST before PostgreSQL confirmed the request; it may or may not have been carried out.|";
    let commit = "the outcome of this transaction is not known|\
                  LOST before PostgreSQL confirmed the COMMIT; either all of the transaction was committed, or nothing.|";
    let read = "the answer to this request is lost|\
                LOST before the answer was complete. It was a standby's: nothing was changed there.|\
                Send it once more. The connection to weir can go on being used.";
    let rows: [(bool, bool, &str, String); 5] = [
        (false, false, "insert into t values (1)", format!("{request}{CHECK}")),
        (true, false, "COMMIT", format!("{commit}{CHECK}")),
        (true, false, "insert; commit; insert", format!("{request}Roll back, then check{}", &CHECK[5..])),
        (false, true, "select 1; select 2", read.to_owned()),
        (true, true, "select 1; commit", format!("{request}Roll back, then check{}", &CHECK[5..])),
    ];
    for (open, on_standby, sql, expected) in rows {
        scene(|stage| {
            if open {
                stage.begins();
            }
            stage.sends(query(sql));
            stage.lose(0, on_standby);
            assert_eq!(told(stage), expected.replace("LOST", LOST));
        });
    }
}

#[test]
fn what_was_rolled_back() {
    let expected = format!(
        "the transaction was rolled back because its server connection is lost|\
         {LOST}. Nothing of the transaction was committed.|\
         Roll back and run the whole transaction again on this connection."
    );
    for (before, after) in [(Some("select 1"), None), (None, Some("select 1")), (None, Some("COMMIT"))] {
        scene(|stage| {
            stage.begins();
            before.into_iter().for_each(|sql| stage.sends(query(sql)));
            stage.dies(0);
            after.into_iter().for_each(|sql| stage.sends(query(sql)));
            assert_eq!(told(stage), expected);
        });
    }
}

#[test]
fn what_is_lost_with_a_session() {
    let over = format!(
        "the server connection of this session is lost|{LOST}; what the session had set up there is gone."
    );
    let rolled_back = " Its transaction was rolled back.";
    let in_doubt = " What it had under way may or may not have been carried out.";
    let rows: [(Vec<u8>, &str, Vec<u8>, &str); 7] = [
        (query("select 1"), "C:SELECT 1  Z:I", vec![], ""),
        (query("select 1"), "C:SELECT 1  Z:I", query("insert"), in_doubt),
        (flush(), "", query("insert"), in_doubt),
        (
            [parse("", "insert"), bind(""), execute(), flush()].concat(),
            "1  2  C:INSERT 0 1",
            vec![],
            in_doubt,
        ),
        (query("BEGIN"), "C:BEGIN  Z:T", vec![], rolled_back),
        (query("BEGIN"), "C:BEGIN  Z:T", query("insert"), rolled_back),
        (query("BEGIN"), "C:BEGIN  Z:T", query("COMMIT"), in_doubt),
    ];
    for (before, reply, under_way, says) in rows {
        scene(|stage| {
            stage.recast(Mode::Session);
            stage.round(query("select 0"), "C:SELECT 1  Z:I");
            stage.round(&before, reply);
            stage.sends(&under_way);
            stage.dies(0);
            let hint = "Connect again. Transaction pooling keeps clients connected over such a loss.";
            assert_eq!(told(stage), format!("{over}{says}|{hint}"));
        });
    }
}

#[test]
fn errors_name_the_failover_that_is_under_way() {
    let names_as = |stage: &mut Stage, text: &str| {
        stage.error_told().detail.is_some_and(|detail| detail.ends_with(&format!("{text} (SHOW FAILOVERS).")))
    };
    let names = |stage: &mut Stage| names_as(stage, "That was during failover #7");
    scene(|stage| {
        stage.failover = Some(7);
        stage.sends(query("insert into t values (1)"));
        stage.dies(0);
        assert!(names(stage), "in doubt");
        stage.server();
        stage.sends([query("BEGIN"), query("select 1")].concat());
        stage.server_replies(1, "C:BEGIN  Z:T  C:SELECT 1  Z:T");
        stage.dies(1);
        stage.sends(query("select 1"));
        assert!(names(stage), "rolled back");
        stage.sends(query("select 1"));
        assert!(!names(stage), "only the error that explains");
    });
    // It is learned before the client asks again.
    scene(|stage| {
        stage.begins();
        stage.dies(0);
        assert!(stage.clients[0].session.owes_explanation());
        stage.clients[0].session.belongs_to_failover(7);
        stage.sends(query("select 1"));
        assert!(
            names_as(stage, "That PostgreSQL gave no sign of life afterwards: failover #7"),
            "named later"
        );
        stage.clients[0].session.belongs_to_failover(8);
        assert!(!stage.clients[0].session.owes_explanation());
    });
}
