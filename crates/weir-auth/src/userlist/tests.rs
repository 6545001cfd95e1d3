//! User lists: a table of cases, and random text.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use proptest::prelude::*;

use super::UserList;
use crate::{Secret, StoredSecret};

/// Users and plain passwords of a list without problems.
#[track_caller]
fn check(text: &str, expected: &[(&str, &str)]) {
    let list = UserList::parse(text).unwrap();
    let plain = |secret: &StoredSecret| match secret {
        StoredSecret::Plain(password) => String::from_utf8(password.expose().to_vec()).unwrap(),
        StoredSecret::Md5(_) => "md5".to_owned(),
        StoredSecret::Scram(_) => "scram".to_owned(),
    };
    let found: Vec<_> = list.iter().map(|(user, secret)| (user.to_owned(), plain(secret))).collect();
    let expected: Vec<_> =
        expected.iter().map(|(user, secret)| ((*user).to_owned(), (*secret).to_owned())).collect();
    assert_eq!(found, expected, "{text}");
}

/// Lines with problems, and a piece of what is said about them.
#[track_caller]
fn check_problems(text: &str, expected: &[(usize, &str)]) {
    let problems = UserList::parse(text).unwrap_err();
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, expected.iter().map(|(line, _)| *line).collect::<Vec<_>>(), "{problems:?}");
    for (problem, (_, piece)) in problems.iter().zip(expected) {
        assert!(problem.why.contains(piece), "{problem} does not say {piece}");
    }
}

#[test]
fn lists_as_pgbouncer_reads_them() {
    check("", &[]);
    check("\n  \n; nobody\n;\"a\" \"b\"\n", &[]);
    check("\"app\" \"pencil\"", &[("app", "pencil")]);
    check("\"app\" \"pencil\"\r\n\"web\" \"pen\"\r\n", &[("app", "pencil"), ("web", "pen")]);
    check("  \"app\"\t\"pencil\" \"ignored\" too", &[("app", "pencil")]);
    check("\"a\"\"b\" \"c\"\"\"\"d\"", &[("a\"b", "c\"\"d")]);
    check("\"app\" \"\"", &[("app", "")]);
    check("\"app\" \"one\"\n\"app\" \"two\"", &[("app", "two")]);
    check("\u{feff}\"caf\u{e9}\" \"na\u{ef}ve\"", &[("caf\u{e9}", "na\u{ef}ve")]);
    check("\"m\" \"md5799d0c0d7b7b9676c938bf1f0c5eb5d6\"", &[("m", "md5")]);
    let verifier = crate::scram::Verifier::from_password(b"p", b"salt", 1).unwrap().to_postgres_string();
    check(&format!("\"s\" \"{verifier}\""), &[("s", "scram")]);
}

#[test]
fn all_problems_are_reported_with_their_lines_and_without_secrets() {
    check_problems("app pencil", &[(1, "double quotes")]);
    check_problems("# a comment of another file format", &[(1, "double quotes")]);
    check_problems("\"app", &[(1, "double quotes")]);
    check_problems("\"app\"", &[(1, "secret of user \"app\" is missing")]);
    check_problems("\"app\" pencil", &[(1, "secret of user \"app\" is missing")]);
    check_problems("\"app\" \"pencil", &[(1, "secret of user \"app\" is missing")]);
    check_problems("\"app\"\"pencil\"", &[(1, "secret of user \"app\"pencil\" is missing")]);
    check_problems("\"\" \"pencil\"", &[(1, "empty")]);
    check_problems("\"app\" \"SCRAM-SHA-256$hunter2\"", &[(1, "not a SCRAM verifier")]);
    check_problems("\"a\" \"b\"\nx\n;\n\"y\"\n\"c\" \"d\"\n", &[(2, ""), (4, "")]);
    for text in ["\"app\" \"hunter2", "\"app\" hunter2", "\"app\" \"SCRAM-SHA-256$hunter2\""] {
        let shown = format!("{:?}", UserList::parse(text).unwrap_err());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn debug_shows_names_only() {
    let mut list = UserList::default();
    assert!(list.is_empty());
    list.insert("app".into(), StoredSecret::Plain(Secret::from("hunter2")));
    assert_eq!((list.len(), format!("{list:?}").as_str()), (1, "{\"app\"}"));
    assert!(list.get("app").is_some() && list.get("App").is_none());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\"a; \\\\\n\r\t\u{e9}$]{0,60}") {
        let _ = UserList::parse(&text);
    }

    #[test]
    fn what_is_written_with_doubled_quotes_is_read(user in "[^\r\n]{1,20}", secret in "[^\r\n]{0,20}") {
        prop_assume!(StoredSecret::parse(&secret).is_ok());
        let quoted = |text: &str| text.replace('"', "\"\"");
        let list = UserList::parse(&format!("\"{}\" \"{}\"", quoted(&user), quoted(&secret))).unwrap();
        prop_assert_eq!(list.get(&user).cloned(), StoredSecret::parse(&secret).ok());
    }
}
