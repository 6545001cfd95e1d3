//! Files as people write them, against who comes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{CertificateDemand, HbaMethod, HbaProblem, HbaRules, Judgement, Surroundings, Visitor};
use crate::IdentMaps;

/// Files by path, and a machine with two addresses.
struct Shelf(BTreeMap<&'static str, &'static str>);

impl Surroundings for Shelf {
    fn read(&self, file: &Path) -> Result<String, Option<String>> {
        let file = file.to_str().expect("paths are text here");
        match file {
            "/etc/secret.conf" => Err(Some("Permission denied".to_owned())),
            _ => self.0.get(file).map(|text| (*text).to_owned()).ok_or(None),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        let files: Vec<PathBuf> =
            self.0.keys().map(PathBuf::from).filter(|file| file.parent() == Some(folder)).rev().collect();
        if files.is_empty() { Err("No such file or directory".to_owned()) } else { Ok(files) }
    }

    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        let net = |address: &str, mask: &str| (address.parse().unwrap(), mask.parse().unwrap());
        Ok(vec![net("10.1.2.3", "255.255.0.0"), net("2001:db8::7", "ffff:ffff::")])
    }

    fn tells_groups(&self) -> bool {
        true
    }

    fn has_feature(&self, name: &str) -> bool {
        ["ldap", "pam"].contains(&name)
    }
}

const FILE: &str = "/etc/hba.conf";

fn shelf() -> Shelf {
    Shelf(BTreeMap::from([
        ("/etc/apps.txt", "shop, blog\nall_of_it \"all\" # but not the keyword\n"),
        ("/etc/more/nested.txt", "@../more/inner.txt extra"),
        ("/etc/more/../more/inner.txt", "deep"),
        ("/etc/loop.txt", "@loop.txt"),
        ("/etc/loop.conf", "include loop.conf"),
        ("/etc/one.conf", "host one all all md5\ninclude more/two.conf\n"),
        ("/etc/more/two.conf", "# nothing\nhost two all all md5\n"),
        ("/etc/parts/b.conf", "host b all all md5\n"),
        ("/etc/parts/a.conf", "host a all all md5\n"),
        ("/etc/parts/.c.conf", "host c all all md5\n"),
        ("/etc/parts/d.txt", "host d all all md5\n"),
        ("/etc/wrong.conf", "host all all all md5\n\nhost all all all md6\n"),
    ]))
}

fn parse(text: &str) -> Result<HbaRules, Vec<HbaProblem>> {
    let maps = IdentMaps::parse(Path::new("/etc/ident.conf"), "mail /^(.*)@example\\.com$ \\1", &shelf());
    HbaRules::parse(Path::new(FILE), text, &maps.expect("a good map"), &shelf())
}

fn visitor<'a>(from: &str, encrypted: bool, database: &'a str, user: &'a str) -> Visitor<'a> {
    let address = from.parse().ok();
    Visitor { address, encrypted, database, user, replication: false, groups: None }
}

fn line(judgement: Judgement<'_>) -> Option<usize> {
    match judgement {
        Judgement::Rule(rule) => Some(rule.line),
        Judgement::NoRule => None,
        Judgement::NeedsGroups(rule) => panic!("line {} needs groups", rule.line),
    }
}

/// The line that decides.
#[track_caller]
fn check(text: &str, cases: &[(Visitor<'_>, Option<usize>)]) {
    let rules = parse(text).expect("the file is good");
    for (visitor, expected) in cases {
        assert_eq!(line(rules.judge(visitor)), *expected, "{visitor:?}");
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
    let Judgement::Rule(rule) = rules.judge(&visitor("1.2.3.4", true, "d", "u")) else { panic!("no rule") };
    assert_eq!(rule.map.as_deref(), Some("mail"));
    assert!(rules.asks_for(HbaMethod::Cert) && !rules.asks_for(HbaMethod::Trust));
}

#[test]
fn quotes_take_the_meaning_of_a_keyword_but_not_of_an_expression() {
    check(
        "host \"sameuser\" all all md5\n\
         host \"samerole\" \"+staff\" all md5\n\
         host \"/^db\\d{2,4}$\" \"/^(ann|bob)$\" all md5\n\
         host /^app_ /_ro$,carl all md5\n\
         host a\"ll\" last all md5\n",
        &[
            (visitor("1.2.3.4", false, "sameuser", "ann"), Some(1)),
            (visitor("1.2.3.4", false, "ann", "ann"), None),
            (visitor("1.2.3.4", false, "samerole", "+staff"), Some(2)),
            (visitor("1.2.3.4", false, "db123", "bob"), Some(3)),
            (visitor("1.2.3.4", false, "db1", "bob"), None),
            (visitor("1.2.3.4", false, "db123", "bobby"), None),
            (visitor("1.2.3.4", false, "app_shop", "web_ro"), Some(4)),
            (visitor("1.2.3.4", false, "app_shop", "carl"), Some(4)),
            (visitor("1.2.3.4", false, "an_app_", "carl"), None),
            // As in PostgreSQL only a quote in front makes a name of a word.
            (visitor("1.2.3.4", false, "whatever", "last"), Some(5)),
        ],
    );
}

#[test]
fn groups_are_asked_for_only_where_they_decide() {
    let rules = parse(
        "host all +banned 10.0.0.0/8 reject\n\
         host samerole all all md5\n\
         host samegroup all all scram-sha-256\n\
         host shop +staff,ann all trust\n",
    )
    .expect("good rules");
    assert_eq!(rules.groups().collect::<Vec<_>>(), ["banned", "staff"]);
    let asks = |visitor: &Visitor<'_>| matches!(rules.judge(visitor), Judgement::NeedsGroups(_));
    assert!(asks(&visitor("10.1.1.1", false, "shop", "ann")));
    assert!(asks(&visitor("1.2.3.4", false, "shop", "ann")), "the second line may fit");
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    for (from, user, groups, expected) in [
        ("10.1.1.1", "ann", groups(&["banned"]), Some(1)),
        ("1.2.3.4", "ann", groups(&["banned"]), Some(4)),
        ("1.2.3.4", "ann", groups(&["shop", "ann"]), Some(2)),
        ("1.2.3.4", "ann", groups(&[]), Some(4)),
        ("1.2.3.4", "bob", groups(&["staff"]), Some(4)),
        ("1.2.3.4", "bob", groups(&["other"]), None),
    ] {
        let visitor = Visitor { groups: Some(&groups), ..visitor(from, false, "shop", user) };
        assert_eq!(line(rules.judge(&visitor)), expected, "{visitor:?}");
    }
    // Nobody who replicates is in the role of a database.
    let walsender = Visitor { replication: true, ..visitor("1.2.3.4", false, "", "ann") };
    assert_eq!(line(rules.judge(&walsender)), None);
    let rules = parse("host shop ann,+staff all trust\n").expect("good rules");
    assert_eq!(line(rules.judge(&visitor("1.2.3.4", false, "shop", "ann"))), Some(1), "a name is enough");
}

#[test]
fn own_addresses_and_networks() {
    check(
        "host a all samehost md5\nhost b all samenet md5\n",
        &[
            (visitor("10.1.2.3", false, "a", "u"), Some(1)),
            (visitor("::ffff:10.1.2.3", false, "a", "u"), Some(1)),
            (visitor("10.1.2.4", false, "a", "u"), None),
            (visitor("2001:db8::7", false, "a", "u"), Some(1)),
            (visitor("10.1.200.1", false, "b", "u"), Some(2)),
            (visitor("10.2.0.1", false, "b", "u"), None),
            (visitor("2001:db8:1::1", false, "b", "u"), Some(2)),
            (visitor("2001:db9::1", false, "b", "u"), None),
        ],
    );
}

#[test]
fn certificates_beside_a_password() {
    let rules = parse(
        "hostssl a all all scram-sha-256 clientcert=verify-ca\n\
         hostssl b all all md5 clientcert=verify-full clientname=CN\n\
         hostssl c all all cert clientcert=verify-full\n\
         hostssl d all all md5\n",
    )
    .expect("good rules");
    assert!(rules.asks_for_certificates());
    let demand = |database| match rules.judge(&visitor("1.2.3.4", true, database, "u")) {
        Judgement::Rule(rule) => rule.certificate,
        other @ (Judgement::NoRule | Judgement::NeedsGroups(_)) => panic!("{other:?}"),
    };
    let demands = ["a", "b", "c", "d"].map(demand);
    let (none, named) = (CertificateDemand::None, CertificateDemand::Named);
    assert_eq!(demands, [CertificateDemand::Trusted, named, none, none]);
}

#[test]
fn files_include_files_and_lines_keep_their_places() {
    let rules = parse(
        "host zero all all md5\n\
         include one.conf\n\
         include_if_exists missing.conf\n\
         include_dir parts\n\
         include_if_exists \"more/two.conf\"\n\
         host @more/nested.txt all all md5\n\
         host \"include\" all all md5\n",
    )
    .expect("good rules");
    let place = |database| match rules.judge(&visitor("1.2.3.4", false, database, "u")) {
        Judgement::Rule(rule) => (rule.file.display().to_string(), rule.line),
        other @ (Judgement::NoRule | Judgement::NeedsGroups(_)) => panic!("{database}: {other:?}"),
    };
    for (database, file, line) in [
        ("zero", FILE, 1),
        ("one", "/etc/one.conf", 1),
        ("two", "/etc/more/two.conf", 2),
        ("a", "/etc/parts/a.conf", 1),
        ("b", "/etc/parts/b.conf", 1),
        ("deep", FILE, 6),
        ("extra", FILE, 6),
        ("include", FILE, 7),
    ] {
        assert_eq!(place(database), (file.to_owned(), line), "{database}");
    }
    for hidden in ["c", "d"] {
        assert_eq!(line(rules.judge(&visitor("1.2.3.4", false, hidden, "u"))), None, "{hidden}");
    }
    // PostgreSQL takes the parts of a folder by name.
    let problems = parse("include wrong.conf\ninclude_dir nowhere\n").expect_err("bad files");
    let places: Vec<_> =
        problems.iter().map(|problem| (problem.file.to_str().unwrap(), problem.line)).collect();
    assert_eq!(places, [(FILE, 2), ("/etc/wrong.conf", 3)]);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_line() {
    let bad = [
        "remote all all all md5",
        "hostgssenc all all all md5",
        "host all + all md5",
        "host /( all all md5",
        "host all /^[ all md5",
        "host all all example.com md5",
        "host all all .example.com md5",
        "host all all \"samenet\" md5",
        "host all all 10.0.0.0/33 md5",
        "host all all 10.0.0.0/+8 md5",
        "host all all 10.0.0.0 md5",
        "host all all 10.0.0.0 ffff:: md5",
        "host all all 10.0.0.0 255.0.255.0 md5",
        "host all all all ident",
        "host all all all ldap ldapserver=x",
        "host all all all ldap ldapserver=x ldapbasedn=dc=x word",
        "host all all all ldap ldapserver=x ldapbasedn=dc=x pamservice=y",
        "host all all all pam pamservice=",
        "host all all all pam ldapserver=x",
        "host all all all md5 pamservice=x",
        "host all all all any",
        "host all all all md6",
        "host all all all peer",
        "host all all all cert",
        "hostssl all all all cert map=unknown",
        "hostssl all all all md5 map=mail",
        "host all all all md5 clientcert=verify-full",
        "hostssl all all all md5 clientcert=1",
        "hostssl all all all cert clientcert=verify-ca",
        "hostssl all all all cert clientname=DN",
        "hostssl all all all md5 radiusservers=x",
        "hostssl all all all md5 verbatim",
        "host @missing.txt all all md5",
        "host @loop.txt all all md5",
        "include missing.conf",
        "include_if_exists secret.conf",
        "include a.conf, b.conf",
        "include",
        "include_dir nowhere",
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
    let endless = parse("include loop.conf").expect_err("a file that names itself");
    assert!(endless.iter().any(|problem| problem.what.contains("10 deep")), "{endless:?}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "[a-z0-9@+/:.,\"#\\\\ \n=*()-]{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!("host all all {text} md5"));
        let _ = IdentMaps::parse(Path::new(FILE), &text, &shelf());
        let _ = IdentMaps::parse(Path::new(FILE), &format!("map /{text} \\1"), &shelf());
    }
}
