//! Lines, quotes, includes: each case was seen with PgBouncer itself.

use proptest::prelude::*;

use super::*;

#[test]
fn connection_strings_are_read_as_pgbouncer_reads_them() {
    let text = "[databases] ; a comment\n\
                a = host=h1 port=1 dbname='x y' user=u password='it''s \\'\n\
                d = host = h3  port = 5\n\
                \t\"b \"\"c\" =\n\
                e=host=h4,h5 port=17 host=h6,::1 load_balance_hosts=Disable\n\
                # comment\n  ; another\n\
                a.b-c=dbname=x\\'y\n\
                [pgbouncer]\nauth_type=trust\nunix_socket_dir=/run/pg\n";
    let config = load_ini(text).unwrap().config;
    let hosts = |name: &str| {
        config.databases[name].hosts.iter().map(|host| (host.host.as_str(), host.port)).collect::<Vec<_>>()
    };
    assert_eq!(hosts("a"), [("h1", 1)]);
    assert_eq!(config.databases["a"].dbname.as_deref(), Some("x y"));
    assert_eq!(config.databases["a"].password, Some(weir_auth::Secret::from("it's \\")));
    assert_eq!(hosts("d"), [("h3", 5)]);
    assert_eq!(hosts("b \"c"), [("/run/pg", 5432)], "the Unix socket's directory");
    assert_eq!(hosts("e"), [("h6", 17), ("::1", 17)], "of a repeated key the last holds");
    assert_eq!(config.databases["e"].load_balance, LoadBalance::Disable);
    assert_eq!(config.databases["a.b-c"].dbname.as_deref(), Some("x\\'y"));
    assert!(config.any_database.is_none(), "nobody said *");
}

#[test]
fn the_last_of_repeated_keys_and_sections_holds() {
    let text = "[databases]\na=host=h1 pool_size=3\na=host=h2\n\
                [pgbouncer]\nauth_type=trust\ndefault_pool_size=3\ndefault_pool_size=4\r\n\
                [databases]\nb=host=h3\n[pgbouncer]\nmin_pool_size=0x2\n";
    let config = load_ini(text).unwrap().config;
    assert_eq!((config.pool.size.get(), config.pool.min_size), (4, 2));
    assert_eq!(config.databases["a"].hosts[0].host, "h2");
    assert_eq!(config.databases["a"].pool_size, None, "the whole line is replaced");
    assert_eq!(config.databases["b"].hosts[0].host, "h3");
}

#[test]
fn included_lines_stand_where_the_include_stands() {
    let text = "[pgbouncer]\nauth_type=trust\n%include /more.ini\nafter = host=h10\n";
    let config = load_ini(text).unwrap().config;
    assert_eq!(config.pool.size.get(), 9);
    assert!(config.databases.contains_key("included") && config.databases.contains_key("after"));
    assert_eq!(
        problems("[pgbouncer]\nauth_type=trust\n%include /nowhere.ini\n%includes\n"),
        [
            "3: cannot read /nowhere.ini: No such file or directory; name a file that weir's user can read",
            "4: this is none of PgBouncer's notations; write key = value, [section], %include FILE, or a comment behind ; or #",
        ]
    );
    let endless = problems("%include /loop.ini\n");
    assert!(endless[0].contains("more than 10 files include each other"), "{endless:?}");
}

#[test]
fn what_pgbouncer_refuses_is_refused_with_its_line() {
    let check = |line: &str, expected: &str| {
        let found = problems(&format!("[databases]\n{line}\n[pgbouncer]\nauth_type=trust\n"));
        assert_eq!(found, [format!("2: {expected}")], "{line}");
    };
    let syntax =
        "in the connection string; write key=value with blanks between, and 'a value' with blanks in quotes";
    check("a = dbname", &format!("databases.a: there is something else than key=value {syntax}"));
    check("a = host=h ;x", &format!("databases.a: there is something else than key=value {syntax}"));
    check(
        "a = dbname='x\\'y'",
        &format!("databases.a: dbname has a quote without an end {syntax}")
            .replace("dbname has a quote without an end", "no blank follows the value of dbname"),
    );
    check("a = host='h", &format!("databases.a: host has a quote without an end {syntax}"));
    check("a = host='' port=1", "databases.a: host is empty; write a value, or leave it out");
    check("a = host='h1'port=5", &format!("databases.a: no blank follows the value of host {syntax}"));
    check("a = pool_sise=1", "databases.a.pool_sise: there is no such key; did you mean \"pool_size\"?");
    check("a = port=abc", "databases.a.port: \"abc\" is not a port; write a number from 1 to 65535");
    check(
        "pgbouncer = host=h",
        "databases.pgbouncer: this name is the console's; give the database another name, and set its dbname",
    );
    check(
        "query timeout = 5",
        "this is none of PgBouncer's notations; write key = value, [section], %include FILE, or a comment behind ; or #",
    );
    check("[pgbouncer", "the section has no end; write ] behind its name");
    assert_eq!(
        problems("foo=1\n[pgbouncer]\nauth_type=trust\n"),
        ["1: foo stands above the first section; write [pgbouncer] on a line before it"]
    );
}

#[test]
fn a_password_is_never_quoted_back() {
    for line in ["a = password=hunter2 x", "a = password='hunter2", "a = user=u password=hunter2 foo=1"] {
        let found = problems(&format!("[databases]\n{line}\n[pgbouncer]\nauth_type=trust\n"));
        assert!(!found.is_empty() && !found.concat().contains("hunter2"), "{found:?}");
    }
}

#[test]
fn the_kind_of_file_is_told_by_its_name_or_its_first_section() {
    let check = |path: &str, text: &str, expected| {
        assert_eq!(super::super::is_ini(Path::new(path), text), expected, "{path} {text}");
    };
    check("/etc/x.ini", "", true);
    check("/etc/x.toml", "[pgbouncer]", false);
    check("/etc/x.conf", "; hello\n [pgbouncer]\n", true);
    check("/etc/x", "[databases]\na = host=b\n", true);
    check("/etc/x", "[databases.a]\nhosts = []\n", false);
    check("/etc/x", "[pool]\nsize = 1\n", false);
    check("/etc/x", "", false);
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z0-9._=\"'%#;\n *,-]{0,200}") {
        let _ = load_ini(&text);
        let _ = load_ini(&format!("[databases]\n{text}"));
        let _ = load_ini(&format!("[users]\na={text}\n[peers]\n1={text}"));
    }

    #[test]
    fn no_value_makes_the_reader_panic(index in 0..super::super::table::SETTINGS.len(), value in "\\PC{0,40}") {
        let setting = &super::super::table::SETTINGS[index];
        let _ = load_ini(&format!("[pgbouncer]\n{} = {value}\n[weir]\n{} = {value}\n", setting.name, setting.name));
        let _ = load_with(None, &[], &[(setting.name.to_owned(), value)], &shelf());
    }

    #[test]
    fn what_is_quoted_comes_out_whole(value in "[ -~]{1,30}") {
        let quoted = value.replace('\'', "''");
        let text = format!("[databases]\na = dbname='{quoted}' host=h\n[pgbouncer]\nauth_type=trust\n");
        let config = load_ini(&text).unwrap().config;
        prop_assert_eq!(config.databases["a"].dbname.as_deref(), Some(value.as_str()));
        let toml = to_toml(source(&text), &shelf()).unwrap();
        let again = load(Some(Source { path: Path::new("/p.toml"), ..source(&toml) }), &[], &shelf()).unwrap().config;
        prop_assert_eq!(again.databases["a"].dbname.as_deref(), Some(value.as_str()));
    }
}

#[test]
fn an_empty_file_is_refused_as_one_that_was_cut_short() {
    let missing = [" there is no section [pgbouncer]; write [pgbouncer] on a line"];
    assert_eq!(problems(""), missing);
    assert_eq!(problems("[databases]\na = host=h\n"), missing);
    assert!(!problems("[databases]\n[pgbouncer]\n").join("").contains("no section"));
}

#[test]
fn comments_need_not_be_utf8() {
    let bytes = b"; d\xe9faut\n  # \xff\r\n[pgbouncer]\nauth_type=trust\n";
    let text = crate::text_of(bytes).unwrap();
    assert_eq!(text, ";\n#\n[pgbouncer]\nauth_type=trust\n");
    let wrong = crate::text_of(b"; \xe9\n\n[databases]\nb\xfccher=\n").unwrap_err();
    assert_eq!(wrong, "line 4 is not UTF-8 text");
}

#[test]
fn numbers_are_written_as_in_c() {
    for (written, means) in [("010", 8), ("0x10", 16), ("+5", 5), ("0", 0), ("10", 10)] {
        assert_eq!(with(&format!("min_pool_size = {written}\n")).pool.min_size, means, "{written}");
    }
    for wrong in ["1_000", "08", "5.5", "", "0x", "1e3", "99999999999999999999"] {
        let text = format!("[pgbouncer]\nauth_type=trust\nmin_pool_size = {wrong}\n");
        assert_eq!(problems(&text).len(), 1, "{wrong}");
    }
}
