//! What a reload changes and what it leaves.

use super::load_text;
use crate::{Config, diff, reload};

const BEFORE: &str = "[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"userlist.txt\"\n";

fn config(text: &str) -> Config {
    load_text(text).unwrap().config
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(diff(&config(BEFORE), &config(BEFORE)), []);
}

#[test]
fn each_change_is_named_and_those_that_need_a_restart_say_so() {
    let after = "[listen]\nwrite = \"127.0.0.1:7432\"\n\
                 [patroni]\nurls = [\"http://n2\"]\nhold_timeout = \"5s\"\nmonitor_user = \"m\"\nmonitor_password_file = \"monitor.password\"\nusername = \"p\"\npassword = \"q\"\n\
                 [auth]\nfile = \"md5.txt\"\n[pool]\nsize = 5\n[databases.app]\npool_size = 2\n[log]\nformat = \"json\"\nlevel = \"debug\"\n";
    let (config, changes) = reload(&config(BEFORE), config(after));
    let said: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            r#"listen.write stays "127.0.0.1:6432": "127.0.0.1:7432" takes effect when weir is started again"#,
            r#"patroni.urls stays "http://n1:8008": "http://n2:8008" takes effect when weir is started again"#,
            r#"patroni.hold_timeout changed from "1min" to "5s""#,
            r#"patroni.monitor_user changed from "" to "m""#,
            r#"patroni.monitor_password_file changed from "" to "/etc/weir/monitor.password""#,
            r#"patroni.username changed from "" to "p""#,
            r#"auth.file changed from "/etc/weir/userlist.txt" to "/etc/weir/md5.txt""#,
            r#"pool.size changed from "20" to "5""#,
            r#"log.format stays "text": "json" takes effect when weir is started again"#,
            r#"log.level changed from "info" to "debug""#,
            "databases.app changed",
            "the user list changed and has 1 users",
            "the monitor's password changed",
            "the password for Patroni's REST API changed",
        ]
    );
    assert_eq!(changes.iter().filter(|change| change.needs_restart()).count(), 3);
    let waiting = diff(&config, &super::load_text(after).unwrap().config);
    assert!(waiting.iter().all(crate::Change::needs_restart), "all else is in force: {waiting:?}");
    assert_eq!(waiting.len(), 3);
}

#[test]
fn another_kind_of_upstream_needs_a_restart() {
    let after = "[upstream]\nurl = \"postgres://db1\"\n[auth]\nfile = \"userlist.txt\"\n";
    let (config, changes) = reload(&config(BEFORE), config(after));
    assert!(matches!(config.upstream, crate::Upstream::Patroni(_)));
    assert!(changes.iter().any(|change| change.needs_restart()));
}
