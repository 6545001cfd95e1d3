//! Files that somebody writes: whatever stands in them, they are read or refused with places and reasons.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use weir_auth::{HbaRules, IdentMaps, Judgement, Surroundings, UserList, Visitor};
use weir_config::{Access, FileContents, Files, Owner, Problems, Source};

/// Rules about who comes in from where; then some visitors.
pub(crate) fn hba(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let file = Path::new("/etc/hba.conf");
    let maps = IdentMaps::parse(file, "mail /^(.*)@example.com$ \\1\n", &Around).unwrap_or_default();
    match HbaRules::parse(file, text, &maps, &Around) {
        Ok(rules) => {
            for address in
                [None, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(IpAddr::V6(Ipv6Addr::LOCALHOST))]
            {
                for (encrypted, user, replication) in [(false, "alice", true), (true, "shop", false)] {
                    let groups = Some(&BTreeSet::new());
                    let visitor = Visitor { address, encrypted, database: "shop", user, replication, groups };
                    match rules.judge(&visitor) {
                        Judgement::Rule(rule) if rule.file == file => {
                            assert!(rule.line <= 1 + text.lines().count());
                        }
                        Judgement::Rule(_) | Judgement::NoRule => {}
                        Judgement::NeedsGroups(_) => panic!("the groups are known"),
                    }
                    let _ = rules.judge(&Visitor { groups: None, ..visitor });
                }
            }
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// Identity maps; then some names.
pub(crate) fn ident(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match IdentMaps::parse(Path::new("/etc/ident.conf"), text, &Around) {
        Ok(maps) => {
            for map in [None, Some("mail"), Some("m")] {
                for outside in ["alice@example.com", "alice", "", "a.b\\1"] {
                    let _ = maps.allow(map, outside, "alice", None);
                    assert!(maps.allow(map, outside, "alice", Some(&BTreeSet::new())).is_some());
                }
            }
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// Some other files, one of which names itself, and a network.
struct Around;

impl Surroundings for Around {
    fn read(&self, file: &Path) -> Result<String, Option<String>> {
        match file.file_name().and_then(|name| name.to_str()) {
            Some("names") => Ok("alice, bob\n\"carol\"".to_owned()),
            Some("more.conf") => Ok("host all +staff samenet md5\ninclude more.conf\n".to_owned()),
            Some("self") => Ok("@self @self".to_owned()),
            Some(_) | None => Err(None),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(vec![folder.join("more.conf"), folder.join("names")])
    }

    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        Ok(vec![(IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(255, 0, 0, 0)))])
    }

    fn tells_groups(&self) -> bool {
        true
    }
}

/// A user list: whoever is in it is found again.
pub(crate) fn user_list(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match UserList::parse(text) {
        Ok(users) => {
            assert_eq!(users.iter().count(), users.len());
            assert!(users.iter().all(|(user, secret)| users.get(user) == Some(secret)));
        }
        Err(problems) => assert!(problems.iter().all(|problem| problem.line > 0)),
    }
}

/// PgBouncer's file. What is good can be converted, and is then as good.
pub(crate) fn ini(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let source = Source { path: Path::new("/etc/pgbouncer.ini"), text, access: weir_config::Access::PRIVATE };
    match weir_config::load(Some(source), &[], &Shelf) {
        Ok(_) => {
            let toml = weir_config::to_toml(source, &Shelf).expect("what loads can be converted");
            let converted = Source {
                path: Path::new("/etc/weir.toml"),
                text: &toml,
                access: weir_config::Access::PRIVATE,
            };
            if let Err(problems) = weir_config::load(Some(converted), &[], &Shelf) {
                panic!("{problems}\nin\n{toml}");
            }
        }
        Err(problems) => check_problems(&problems),
    }
}

/// weir's own file.
pub(crate) fn toml(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let source = Source { path: Path::new("/etc/weir.toml"), text, access: OPEN };
    match weir_config::load(Some(source), &[], &Shelf) {
        Ok(loaded) => {
            for key in weir_config::KEYS {
                let _ = (key.show)(&loaded.config);
            }
        }
        Err(problems) => check_problems(&problems),
    }
}

fn check_problems(Problems(problems): &Problems) {
    assert!(!problems.is_empty());
    assert!(
        problems.iter().all(|problem| !problem.wrong.what.is_empty() && !problem.wrong.remedy.is_empty())
    );
}

/// As anybody may read a file.
const OPEN: Access = Access { mode: 0o644, owner: Owner::Weir };

/// Every file says the same few things, whichever it is asked for.
struct Shelf;

impl Files for Shelf {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        let text = match path.file_name().and_then(|name| name.to_str()) {
            Some("userlist.txt") => "\"alice\" \"pencil\"\n",
            Some("hba") => "host all all all scram-sha-256\n",
            Some("pem") => {
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"
            }
            Some("more.ini") => "[databases]\nblog = host=db2\n%include more.ini\n",
            Some("passwd") => "alice:x:1000:1000::/:/bin/sh\n",
            Some(_) | None => return Err("No such file or directory".to_owned()),
        };
        Ok(FileContents { bytes: text.into(), access: OPEN })
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match name {
            "PW" => Ok("hunter2".to_owned()),
            _ => Err("is not set".to_owned()),
        }
    }
}
