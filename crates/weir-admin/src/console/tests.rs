//! The console's grammar, as a table, and that no input upsets it.

use proptest::prelude::*;

use super::*;

fn check(sql: &str, expected: Command) {
    assert_eq!(parse(sql.as_bytes()), Ok(expected), "{sql:?}");
}

fn refuse(sql: &[u8], code: SqlState) {
    let text = String::from_utf8_lossy(sql);
    assert_eq!(parse(sql).map_err(|report| report.code), Err(code), "{text:?}");
}

#[test]
fn every_table_has_a_name() {
    for (name, table) in TABLES {
        check(&format!("SHOW {name}"), Command::Show(table));
        check(&format!("select {};", name.to_ascii_lowercase()), Command::Show(table));
    }
    check("SHOW HELP", Command::Help);
}

#[test]
fn case_space_and_semicolons_do_not_matter() {
    let pools = Command::Show(Table::Pools);
    for sql in ["show pools", "Show Pools;", "  SHOW\n\tPOOLS ; ", "SHOW POOLS;;", "SHOW pools\r\n;\r\n"] {
        check(sql, pools.clone());
    }
    for sql in ["", "  ", ";", " ; ; "] {
        check(sql, Command::Empty);
    }
}

#[test]
fn comments_are_white_space() {
    let pools = Command::Show(Table::Pools);
    for sql in [
        "SHOW POOLS -- all of them",
        "SHOW POOLS; -- all; of them",
        "SHOW POOLS--;",
        "-- who asks\nSHOW POOLS",
        "/* who /* really */ asks; */ SHOW/**/POOLS /* ü */ ; /**/",
    ] {
        check(sql, pools.clone());
    }
    check("-- nothing", Command::Empty);
    check("PAUSE \"a--b/*c\" -- d", Command::Pause(Some("a--b/*c".to_owned())));
    check("RECONNECT my-d/b*", Command::Reconnect(Some("my-d/b*".to_owned())));
    for sql in
        ["SHOW POOLS /*", "/* /* */ SHOW POOLS", "SHOW POOLS /*/", "SHOW POOLS -- a\n b", "; SHOW POOLS"]
    {
        refuse(sql.as_bytes(), SqlState::SYNTAX_ERROR);
    }
}

#[test]
fn settings_that_drivers_ask_for() {
    check("SHOW client_encoding", Command::ShowSetting(Setting::ClientEncoding));
    check("SHOW default_transaction_isolation", Command::ShowSetting(Setting::DefaultTransactionIsolation));
    check("SHOW standard_conforming_strings", Command::ShowSetting(Setting::StandardConformingStrings));
    check("SHOW DateStyle;", Command::ShowSetting(Setting::DateStyle));
    check("show timezone", Command::ShowSetting(Setting::TimeZone));
}

#[test]
fn commands_and_their_databases() {
    let db = |name: &str| Some(name.to_owned());
    check("RELOAD", Command::Reload);
    check("pause", Command::Pause(None));
    check("PAUSE mrg;", Command::Pause(db("mrg")));
    check("PAUSE Mrg", Command::Pause(db("Mrg")));
    check("PAUSE \"my \"\"own\"\" db\";", Command::Pause(db("my \"own\" db")));
    check("PAUSE 'it''s; here'", Command::Pause(db("it's; here")));
    check("resume datenbank_ü", Command::Resume(db("datenbank_ü")));
    check("RESUME", Command::Resume(None));
    check("RECONNECT", Command::Reconnect(None));
    check("RECONNECT my-db", Command::Reconnect(db("my-db")));
    check("SHUTDOWN", Command::Shutdown(Shutdown::AtOnce));
    check("shutdown wait_for_clients", Command::Shutdown(Shutdown::WaitForClients));
    check("SHUTDOWN WAIT_FOR_SERVERS;", Command::Shutdown(Shutdown::WaitForServers));
    check("ACCEPT LEADER node-2", Command::AcceptLeader("node-2".to_owned()));
    check("SWITCHOVER;", Command::Switchover(None));
    check("switchover to \"node 2\"", Command::Switchover(Some("node 2".to_owned())));
    check("accept leader \"node 2\"", Command::AcceptLeader("node 2".to_owned()));
}

#[test]
fn commands_that_act_on_connections_and_settings() {
    let name = || "mrg".to_owned();
    check("DISABLE mrg", Command::Disable(name()));
    check("enable \"mrg\";", Command::Enable(name()));
    check("KILL mrg", Command::Kill(Some(name())));
    check("KILL", Command::Kill(None));
    check("KILL_CLIENT 17", Command::KillClient(17));
    check("SUSPEND;", Command::Suspend);
    check("WAIT_CLOSE", Command::WaitClose(None));
    check("WAIT_CLOSE mrg", Command::WaitClose(Some(name())));
    let set = |key: &str, value: &str| Command::Set { key: key.to_owned(), value: value.to_owned() };
    check("SET verbose = 1", set("verbose", "1"));
    check("set verbose=1;", set("verbose", "1"));
    check("SET pool.size TO '5'", set("pool.size", "5"));
    check("SET server_reset_query = ''", set("server_reset_query", ""));
    check("SET server_check_query = 'SELECT ''a b'''", set("server_check_query", "SELECT 'a b'"));
    assert_eq!(set("a", "b").tag(), "SET a=b");
}

#[test]
fn errors_have_pgbouncer_s_words() {
    let says = |sql: &str, expected: &str| {
        assert_eq!(parse(sql.as_bytes()).map_err(|report| report.message), Err(expected.to_owned()));
    };
    says("SHOW NOTHING", "invalid command 'SHOW NOTHING', use SHOW HELP;");
    says("SET", "invalid command 'SET', use SHOW HELP;");
    says("PAUSE a b", "invalid command 'PAUSE a b', use SHOW HELP;");
    says("DISABLE", "a database is required");
    says("KILL_CLIENT", "invalid client pointer supplied");
    for sql in ["SWITCHOVER n1", "SWITCHOVER TO", "SWITCHOVER TO n1 n2"] {
        refuse(sql.as_bytes(), SqlState::SYNTAX_ERROR);
    }
    for sql in ["SET a", "SET a b", "SET a = ", "SET a = b c", "SET = a", "KILL_CLIENT -1", "KILL_CLIENT x"] {
        refuse(sql.as_bytes(), SqlState::SYNTAX_ERROR);
    }
}

#[test]
fn everything_else_is_a_syntax_error() {
    for sql in [
        "BEGIN",
        "SHOW",
        "SELECT 1",
        "SHOW POOLS mrg",
        "SHOW POOLS; SHOW CLIENTS",
        "SHOW \"POOLS\"",
        "PAUSE one two",
        "PAUSE \"one",
        "PAUSE 'one",
        "RELOAD now",
        "SHUTDOWN later",
        "ACCEPT",
        "ACCEPT LEADER",
        "ACCEPT DEFEAT node",
        "\"SHOW\" POOLS",
        "=",
    ] {
        refuse(sql.as_bytes(), SqlState::SYNTAX_ERROR);
    }
}

#[test]
fn bytes_that_are_no_text_and_texts_without_end() {
    refuse(b"PAUSE \xff", SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    refuse(&[b' '; COMMAND_BYTES_MAX + 1], SqlState::PROGRAM_LIMIT_EXCEEDED);
}

#[test]
fn errors_repeat_little_and_nothing_unprintable() {
    let report = parse(format!("\x07{}", "x".repeat(1000)).as_bytes()).expect_err("no command");
    assert!(report.message.len() < 150, "{}", report.message);
    assert!(!report.message.contains('\x07'));
}

#[test]
fn stats_users_may_look_and_nothing_else() {
    for sql in ["", "SHOW POOLS", "SHOW HELP", "SHOW timezone", "SELECT stats"] {
        let command = parse(sql.as_bytes()).expect("a command");
        assert_eq!(Rights::Stats.allow(&command), Ok(()));
        assert_eq!(Rights::Admin.allow(&command), Ok(()));
    }
    let acts = [
        "RELOAD",
        "PAUSE",
        "RESUME",
        "RECONNECT",
        "SHUTDOWN",
        "ACCEPT LEADER a",
        "SWITCHOVER",
        "KILL",
        "KILL_CLIENT 1",
    ];
    let more = ["DISABLE a", "ENABLE a", "SUSPEND", "WAIT_CLOSE", "SET a=b", "SHOW FDS"];
    for sql in acts.into_iter().chain(more) {
        let command = parse(sql.as_bytes()).expect("a command");
        let code = Rights::Stats.allow(&command).map_err(|report| report.code);
        assert_eq!(code, Err(SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
        assert_eq!(Rights::Admin.allow(&command), Ok(()));
        assert!(sql.starts_with(&*command.tag()));
    }
}

proptest! {
    #[test]
    fn no_bytes_upset_it(sql in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&sql);
    }

    #[test]
    fn quoting_keeps_every_name(name in "[^\0]{0,40}") {
        let sql = format!("PAUSE \"{}\"", name.replace('"', "\"\""));
        prop_assert_eq!(parse(sql.as_bytes()), Ok(Command::Pause(Some(name))));
    }

    #[test]
    fn no_string_of_words_upsets_it(sql in "(SHOW|PAUSE|POOLS|\"|'|;|=|--|/\\*|\\*/|\n| |x){0,20}") {
        let _ = parse(sql.as_bytes());
    }
}
