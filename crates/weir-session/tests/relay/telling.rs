//! The words of errors about lost connections.

use crate::stage::{Stage, scene};
use crate::words::*;

#[test]
fn what_the_client_is_told() {
    scene(|stage| {
        stage.sends(query("insert into t values (1)"));
        stage.dies(0);
        let report = stage.error_told();
        assert_eq!(report.severity, weir_protocol::message::Severity::Error);
        assert!(report.detail.is_some_and(|detail| detail.starts_with("The connection to n1 was lost")));
        stage.server();
        stage.sends(query("BEGIN"));
        stage.server_replies(1, "C:BEGIN  Z:T");
        stage.dies(1);
        stage.sends(query("select 1"));
        let report = stage.error_told();
        assert_eq!(report.code.as_str(), "40001");
        assert!(report.detail.is_some_and(|detail| detail.contains("n1")));
    });
}

#[test]
fn errors_name_the_failover_that_is_under_way() {
    let number = "This belongs to failover #7 (SHOW FAILOVERS).";
    let names = |stage: &mut Stage| stage.error_told().detail.is_some_and(|detail| detail.ends_with(number));
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
        assert!(names(stage), "named later");
        stage.clients[0].session.belongs_to_failover(8);
        assert!(!stage.clients[0].session.owes_explanation());
    });
}
