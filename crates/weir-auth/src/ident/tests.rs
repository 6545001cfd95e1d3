//! Maps as people write them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::IdentMaps;
use crate::hba::Surroundings;

/// One other file.
struct OneFile;

impl Surroundings for OneFile {
    fn read(&self, file: &Path) -> Result<String, Option<String>> {
        (file == Path::new("/etc/more.conf")).then(|| "more carl carla\nmore x\n".to_owned()).ok_or(None)
    }

    fn list(&self, _folder: &Path) -> Result<Vec<PathBuf>, String> {
        Err("no folders".to_owned())
    }

    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        Err("no networks".to_owned())
    }

    fn tells_groups(&self) -> bool {
        true
    }
}

fn parse(text: &str) -> Result<IdentMaps, Vec<crate::HbaProblem>> {
    IdentMaps::parse(Path::new("/etc/ident.conf"), text, &OneFile)
}

#[test]
fn names_patterns_and_groups() {
    let maps = parse(
        "# outside to inside\n\
         plain  www-data   shop\n\
         plain  www-data   \"shop admin\"\n\
         mail   /^(.*)@example\\.com$  \\1\n\
         mail   \"/^root@.*$\"  postgres\n\
         any    /^ops-        all\n\
         name   ann           \"all\"\n\
         name   ann           \"+staff\"\n\
         shape  ann           /^ann_\n\
         caught /^(.*)$       +\\1\n",
    )
    .expect("the maps are good");
    for (map, outside, user, expected) in [
        (Some("plain"), "www-data", "shop", true),
        (Some("plain"), "www-data", "shop admin", true),
        (Some("plain"), "www-data", "www-data", false),
        (Some("plain"), "other", "shop", false),
        (Some("mail"), "ann@example.com", "ann", true),
        (Some("mail"), "ann@example.com", "bob", false),
        (Some("mail"), "ann@example.community", "ann", false),
        (Some("mail"), "root@anywhere", "postgres", true),
        (Some("any"), "ops-7", "whoever", true),
        (Some("any"), "dev-7", "whoever", false),
        (Some("name"), "ann", "all", true),
        (Some("name"), "ann", "+staff", true),
        (Some("name"), "ann", "whoever", false),
        (Some("shape"), "ann", "ann_ro", true),
        (Some("shape"), "ann", "joann_ro", false),
        (Some("shape"), "bob", "ann_ro", false),
        // What was caught is a name, even behind a plus.
        (Some("caught"), "staff", "+staff", true),
        (Some("caught"), "staff", "ann", false),
        (Some("missing"), "ann", "ann", false),
        (None, "ann", "ann", true),
        (None, "ann", "bob", false),
        (None, "", "bob", false),
    ] {
        assert_eq!(maps.allow(map, outside, user, None), Some(expected), "{map:?} {outside} {user}");
    }
}

#[test]
fn members_of_a_group_as_soon_as_they_are_known() {
    let maps = parse("ops root +admins\nops root ann\n").expect("good maps");
    let allow = |user, groups: Option<&BTreeSet<String>>| maps.allow(Some("ops"), "root", user, groups);
    assert_eq!((allow("bob", None), allow("ann", None)), (None, Some(true)));
    assert_eq!(allow("bob", Some(&BTreeSet::from(["admins".to_owned()]))), Some(true));
    assert_eq!(allow("bob", Some(&BTreeSet::from(["others".to_owned()]))), Some(false));
    assert_eq!(maps.groups().collect::<Vec<_>>(), ["admins"]);
}

#[test]
fn all_bad_lines_are_told_at_once() {
    let bad = "two fields\nm /( x\nm name \\1\nm a /[\ngood a b\nm \"open\nm a +\nm a b,c\n";
    let problems = parse(bad).expect_err("there are bad lines");
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 6, 7, 8]);
    let problems = parse("include more.conf\n").expect_err("a bad line in another file");
    assert_eq!((problems[0].file.as_path(), problems[0].line), (Path::new("/etc/more.conf"), 2));
}
