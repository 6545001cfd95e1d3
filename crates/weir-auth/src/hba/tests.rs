//! Files as people write them, against who comes.

use super::{HbaMethod, HbaProblem, HbaRules, Visitor};
use crate::IdentMaps;

fn parse(text: &str) -> Result<HbaRules, Vec<HbaProblem>> {
    let maps = IdentMaps::parse("mail /^(.*)@example\\.com$ \\1").expect("a good map");
    HbaRules::parse(text, &maps, &mut |name| match name {
        "apps.txt" => Ok("shop, blog\nall_of_it \"all\" # but not the keyword\n".to_owned()),
        "nested.txt" => Ok("@apps.txt".to_owned()),
        _ => Err("No such file or directory".to_owned()),
    })
}

fn visitor<'a>(from: &str, encrypted: bool, database: &'a str, user: &'a str) -> Visitor<'a> {
    let address = from.parse().ok();
    Visitor { address, encrypted, database, user, replication: false }
}

/// The line that decides.
#[track_caller]
fn check(text: &str, cases: &[(Visitor<'_>, Option<usize>)]) {
    let rules = parse(text).expect("the file is good");
    for (visitor, expected) in cases {
        assert_eq!(rules.judge(visitor).map(|rule| rule.line), *expected, "{visitor:?}");
    }
}

#[test]
fn the_first_line_that_fits_decides() {
    check(
        "local all all peer\n\
         # comment\n\
         hostssl all all 10.0.0.0/8 scram-sha-256\n\
         hostnossl all all 10.0.0.0/8 reject\n\
         host all all 127.0.0.1/32 md5\n\
         host all all ::1/128 trust\n",
        &[
            (visitor("", false, "d", "u"), Some(1)),
            (visitor("10.1.2.3", true, "d", "u"), Some(3)),
            (visitor("10.1.2.3", false, "d", "u"), Some(4)),
            (visitor("127.0.0.1", false, "d", "u"), Some(5)),
            (visitor("::ffff:127.0.0.1", false, "d", "u"), Some(5)),
            (visitor("127.0.0.2", false, "d", "u"), None),
            (visitor("::1", true, "d", "u"), Some(6)),
            (visitor("::2", true, "d", "u"), None),
        ],
    );
}

#[test]
fn names_lists_and_files() {
    check(
        "host shop,blog ann,\"bob\" all md5\n\
         host \"all\" carl all md5\n\
         host sameuser all all md5\n\
         host @apps.txt dora all md5\n\
         host d1, d2 eve all \\\n md5\n",
        &[
            (visitor("1.2.3.4", false, "shop", "ann"), Some(1)),
            (visitor("1.2.3.4", false, "blog", "bob"), Some(1)),
            (visitor("1.2.3.4", false, "other", "bob"), None),
            (visitor("1.2.3.4", false, "shop", "carl"), None),
            (visitor("1.2.3.4", false, "all", "carl"), Some(2)),
            (visitor("1.2.3.4", false, "zoe", "zoe"), Some(3)),
            (visitor("1.2.3.4", false, "all_of_it", "dora"), Some(4)),
            (visitor("1.2.3.4", false, "x", "dora"), None),
            (visitor("1.2.3.4", false, "d2", "eve"), Some(5)),
        ],
    );
}

#[test]
fn replication_is_not_part_of_all() {
    let text = "host all all all md5\nhost replication repl 10.0.0.0 255.0.0.0 scram-sha-256\n";
    let walsender = Visitor { replication: true, ..visitor("10.9.9.9", false, "", "repl") };
    let stranger = Visitor { replication: true, ..visitor("11.9.9.9", false, "", "repl") };
    check(
        text,
        &[(walsender, Some(2)), (stranger, None), (visitor("10.9.9.9", false, "d", "repl"), Some(1))],
    );
}

#[test]
fn prefixes_and_masks() {
    check(
        "host a all 192.168.7.9/24 md5\n\
         host b all 0.0.0.0/0 md5\n\
         host c all 2001:db8::/33 md5\n\
         host d all ::/0 md5\n\
         host e all 172.16.0.0 255.240.0.0 md5\n",
        &[
            (visitor("192.168.7.200", false, "a", "u"), Some(1)),
            (visitor("192.168.8.1", false, "a", "u"), None),
            (visitor("8.8.8.8", false, "b", "u"), Some(2)),
            (visitor("::1", false, "b", "u"), None),
            (visitor("2001:db8:7fff::1", false, "c", "u"), Some(3)),
            (visitor("2001:db8:8000::1", false, "c", "u"), None),
            (visitor("::1", false, "d", "u"), Some(4)),
            (visitor("172.31.1.1", false, "e", "u"), Some(5)),
            (visitor("172.32.1.1", false, "e", "u"), None),
        ],
    );
}

#[test]
fn maps_belong_to_certificates_and_peers() {
    let rules = parse("hostssl all all all cert map=mail\nlocal all all peer map=mail").expect("good");
    let rule = rules.judge(&visitor("1.2.3.4", true, "d", "u"));
    assert_eq!(rule.and_then(|rule| rule.map.as_deref()), Some("mail"));
    assert!(rules.asks_for(HbaMethod::Cert) && !rules.asks_for(HbaMethod::Trust));
}

#[test]
fn what_cannot_be_done_is_refused_with_its_line() {
    let bad = [
        "remote all all all md5",
        "hostgssenc all all all md5",
        "host samerole all all md5",
        "host all +admins all md5",
        "host /^app all all md5",
        "host all all example.com md5",
        "host all all .example.com md5",
        "host all all samenet md5",
        "host all all 10.0.0.0/33 md5",
        "host all all 10.0.0.0/+8 md5",
        "host all all 10.0.0.0 md5",
        "host all all 10.0.0.0 ffff:: md5",
        "host all all all ident",
        "host all all all ldap ldapserver=x",
        "host all all all any",
        "host all all all md6",
        "host all all all peer",
        "host all all all cert",
        "hostssl all all all cert map=unknown",
        "hostssl all all all md5 map=mail",
        "hostssl all all all md5 clientcert=verify-full",
        "host @missing.txt all all md5",
        "host @nested.txt all all md5",
        "host all all",
        "host all,",
        "local all all",
        "host \"all all all md5",
    ];
    let problems = parse(&bad.join("\n")).expect_err("every line is bad");
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, (1..=bad.len()).collect::<Vec<_>>(), "{problems:#?}");
    for problem in problems {
        assert!(!problem.what.is_empty() && !problem.remedy.is_empty());
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "[a-z0-9@+/:.,\"#\\\\ \n=*()-]{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!("host all all {text} md5"));
        let _ = IdentMaps::parse(&text);
        let _ = IdentMaps::parse(&format!("map /{text} \\1"));
    }
}
