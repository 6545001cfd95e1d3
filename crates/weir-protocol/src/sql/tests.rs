//! Tables of texts and what the lexer must say about them.

use super::*;
use Count::{One, Several, Zero};
use Keyword as K;

#[track_caller]
fn check(sql: &str, statements: Count, first: Keyword) {
    let found = classify(sql.as_bytes());
    assert_eq!((found.statements, found.first, found.doubtful), (statements, first, false), "{sql}");
}

#[track_caller]
fn doubtful(sql: &str) {
    let found = classify(sql.as_bytes());
    assert_eq!((found.statements, found.doubtful), (Several, true), "{sql}");
}

#[track_caller]
fn ends(sql: &str, ends_transaction: bool, ending: Option<Ending>) {
    let found = classify(sql.as_bytes());
    assert_eq!((found.ends_transaction, found.ending), (ends_transaction, ending), "{sql}");
}

#[test]
fn statements_are_counted() {
    for sql in ["", " \t\r\n\x0b\x0c", ";", " ; ;; ", "-- nothing", "/* nothing */", "-- a\n;/* b */;"] {
        check(sql, Zero, K::Other);
    }
    for sql in
        ["SELECT 1", "select 1;", "SeLeCt 1 ; ; -- done", ";; SELECT 1", "/* a */ SELECT 1", "SELECT(1)"]
    {
        check(sql, One, K::Select);
    }
    for sql in ["SELECT 1; SELECT 2", "SELECT 1;SELECT 2;", "SELECT 1; /* ; */ x"] {
        check(sql, Several, K::Select);
    }
}

#[test]
fn first_words_name_the_statement() {
    let table = [
        ("INSERT INTO t VALUES (1)", K::Insert),
        ("UPDATE t SET a = 1", K::Update),
        ("DELETE FROM t", K::Delete),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING", K::Merge),
        ("VALUES (1), (2)", K::Values),
        ("WITH x AS (SELECT 1) SELECT * FROM x", K::With),
        ("TABLE t", K::Table),
        ("BEGIN", K::Begin),
        ("begin work", K::Begin),
        ("START TRANSACTION READ ONLY", K::StartTransaction),
        ("START nothing", K::Other),
        ("COMMIT", K::Commit),
        ("COMMIT PREPARED 'x'", K::CommitPrepared),
        ("END", K::End),
        ("ROLLBACK", K::Rollback),
        ("ROLLBACK WORK", K::Rollback),
        ("ROLLBACK TO a", K::RollbackTo),
        ("ROLLBACK WORK TO SAVEPOINT a", K::RollbackTo),
        ("rollback /* x */ transaction -- y\n to savepoint a", K::RollbackTo),
        ("ROLLBACK PREPARED 'x'", K::RollbackPrepared),
        ("ABORT", K::Abort),
        ("SAVEPOINT a", K::Savepoint),
        ("RELEASE a", K::Release),
        ("SET a = 1", K::Set),
        ("RESET ALL", K::Reset),
        ("DISCARD ALL", K::Discard),
        ("DEALLOCATE x", K::Deallocate),
        ("PREPARE x AS SELECT 1", K::Prepare),
        ("PREPARE TRANSACTION 'x'", K::PrepareTransaction),
        ("PREPARE TRANSACTION $$x$$", K::PrepareTransaction),
        ("PREPARE transaction AS SELECT 1", K::Prepare),
        ("PREPARE transaction (int) AS SELECT 1", K::Prepare),
        ("EXECUTE x", K::Execute),
        ("COPY t FROM STDIN", K::Copy),
        ("CALL f()", K::Call),
        ("DO $$ BEGIN END $$", K::Do),
        ("LISTEN a", K::Listen),
        ("UNLISTEN *", K::Unlisten),
        ("NOTIFY a", K::Notify),
        ("SHOW a", K::Show),
        ("EXPLAIN SELECT 1", K::Explain),
        ("DECLARE c CURSOR FOR SELECT 1", K::Declare),
        ("FETCH c", K::Fetch),
        ("MOVE c", K::Move),
        ("CLOSE c", K::Close),
        ("LOCK t", K::Lock),
        ("LOAD 'x'", K::Load),
        ("CREATE TABLE t ()", K::Create),
        ("ALTER TABLE t ADD a int", K::Alter),
        ("DROP TABLE t", K::Drop),
        ("TRUNCATE t", K::Truncate),
        ("VACUUM", K::Vacuum),
        ("ANALYSE", K::Analyze),
        ("GRANT SELECT ON t TO a", K::Other),
        ("DEALLOCATED", K::Other),
        ("SELECTED", K::Other),
        ("SELECT_", K::Other),
        ("\"SELECT\" 1", K::Other),
        ("1", K::Other),
        ("sélect", K::Other),
    ];
    for (sql, keyword) in table {
        check(sql, One, keyword);
    }
}

#[test]
fn only_queries_may_stand_in_parentheses() {
    check("(SELECT 1)", One, K::Select);
    check("((((((((SELECT 1))))))))", One, K::Select);
    check("(VALUES (1)) UNION (SELECT 2)", One, K::Values);
    check("(COMMIT)", One, K::Other);
    check("(", One, K::Other);
    ends("(COMMIT)", false, None);
}

#[test]
fn semicolons_inside_quotes_comments_and_parentheses_end_nothing() {
    for sql in [
        "SELECT ';'",
        "SELECT 'it''s;'",
        "SELECT '' ''",
        "SELECT \"a;\"\"b;\"",
        "SELECT E'\\';'",
        "SELECT e'\\\\' -- ;",
        "SELECT E'a''b;\\''",
        "SELECT E'a'\n'\\';'",
        "SELECT E'a' -- why not\n  '\\';'",
        "SELECT U&'\\0041;' UESCAPE '!'",
        "SELECT B'1;' || X'f;' || N'n;'",
        "SELECT $$;$$",
        "SELECT $a$;$b$;$$;$a$",
        "SELECT $_1$;$_1$",
        "SELECT $ä$;$ä$",
        "SELECT a$b$c FROM t",
        "SELECT $1 + $2",
        "SELECT 1$$;$$",
        "SELECT 1 /* ; /* ; */ ; */ + 1",
        "SELECT 1 */* ; */ 2",
        "SELECT 1 /*/ ; */ + 1",
        "SELECT 1 /***;***/",
        "SELECT 1 -- ; \r + 1",
        "SELECT 1 - -1",
        "SELECT (1;2)",
    ] {
        check(sql, One, K::Select);
    }
    check("CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)", One, K::Create);
}

#[test]
fn quotes_end_where_postgresql_ends_them() {
    for sql in [
        "SELECT ''; SELECT 1",
        "SELECT E'\\\\'; SELECT 1",
        "SELECT xE'a'; SELECT 1",
        "SELECT E'a' '; '; SELECT 1",
        "SELECT $$ $a$ $$; SELECT 1",
        "SELECT $a$ $$ $ab$ $a$; SELECT 1",
        "SELECT 1 -- x\n; SELECT 1",
        "SELECT /* /* */ */ 1; SELECT 1",
        "SELECT a$$; SELECT $$b",
    ] {
        let found = classify(sql.as_bytes());
        assert_eq!((found.statements, found.first), (Several, K::Select), "{sql}");
    }
    check("SELECT $1$; SELECT 1", Several, K::Select);
}

#[test]
fn what_does_not_end_or_depends_on_a_setting_is_doubtful() {
    for sql in [
        "SELECT '",
        "SELECT E'\\'",
        "SELECT E'a\\",
        "SELECT \"",
        "SELECT $$",
        "SELECT $a$ $b$",
        "SELECT /* /* */",
        "/*",
        "SELECT 'a\\'; COMMIT; --'",
        "SELECT 'C:\\'",
    ] {
        doubtful(sql);
    }
}

#[test]
fn ends_of_transactions_are_found_anywhere() {
    use Ending::{Chains, Plain, Unclear};
    let table: [(Option<Ending>, &[&str]); 4] = [
        (
            Some(Plain),
            &[
                "COMMIT",
                "commit work;",
                "END TRANSACTION",
                "ROLLBACK",
                "ABORT",
                "COMMIT AND NO CHAIN",
                "rollback transaction and no chain /* x */ ; -- y",
                "; /* x */ rollback",
                "ROLLBACK; SELECT 1",
            ],
        ),
        (Some(Chains), &["COMMIT AND CHAIN", "ROLLBACK WORK AND CHAIN", "end transaction and chain;"]),
        // Some later PostgreSQL may know more than this.
        (
            Some(Unclear),
            &[
                "PREPARE TRANSACTION 'a'",
                "COMMIT now",
                "ROLLBACK AND",
                "COMMIT WORK WORK",
                "ABORT AND NO CHAIN please",
                "COMMIT AND CHAIN AND CHAIN",
                "END \"AND\" CHAIN",
            ],
        ),
        (None, &["SELECT 1; COMMIT", "SELECT 1; ABORT AND CHAIN"]),
    ];
    for (ending, texts) in table {
        for sql in texts {
            ends(sql, true, ending);
        }
    }
    for sql in
        ["SELECT 'COMMIT'", "ROLLBACK TO a", "SELECT commit", "-- COMMIT", "COMMIT PREPARED 'a'", "BEGIN", ""]
    {
        ends(sql, false, None);
    }
}

#[test]
fn long_texts_are_cut_and_doubtful() {
    let fits = format!("SELECT '{}'", "a".repeat(CLASSIFY_BYTES_MAX - 9));
    check(&fits, One, K::Select);
    doubtful(&format!("{fits} "));
    let prefix = classify_prefix(b"INSERT INTO t VALUES (1)");
    assert_eq!((prefix.statements, prefix.first, prefix.doubtful), (Several, K::Insert, true));
}

#[test]
fn a_lone_begin_says_only_how_the_transaction_reads() {
    for sql in [
        "BEGIN",
        "begin;",
        " BEGIN ; ; -- go",
        "BEGIN WORK",
        "BEGIN TRANSACTION",
        "START TRANSACTION",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE",
        "START TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE NOT DEFERRABLE",
        "BEGIN WORK ISOLATION LEVEL READ UNCOMMITTED",
        "BEGIN /* ro */ READ ONLY",
        "; BEGIN",
    ] {
        let begin = lone_begin(sql.as_bytes()).expect(sql);
        // What weir sends in its place is one, too, and means the same.
        let mut again = Vec::new();
        begin.put_sql(&mut again);
        let read = lone_begin(&again).expect(sql);
        let mut twice = Vec::new();
        read.put_sql(&mut twice);
        assert_eq!(again, twice, "{sql}");
    }
    for sql in [
        "",
        ";",
        "BEGIN; SELECT 1",
        "BEGIN; BEGIN",
        "BEGIN ATOMIC",
        "BEGIN READ",
        "BEGIN READ ONLY,",
        "BEGIN , READ ONLY",
        "BEGIN READ ONLY,, READ WRITE",
        "BEGIN ISOLATION LEVEL SNAPSHOT",
        "BEGIN ISOLATION LEVEL",
        "BEGIN WORK TRANSACTION",
        "START",
        "START WORK",
        "(BEGIN)",
        "\"BEGIN\"",
        "BEGIN /*",
        "COMMIT",
        "SELECT 1",
    ] {
        assert!(lone_begin(sql.as_bytes()).is_none(), "{sql}");
    }
    assert!(lone_begin(format!("BEGIN{}", " ".repeat(1000)).as_bytes()).is_none());
    assert!(lone_begin(format!("BEGIN{}", " READ ONLY".repeat(40)).as_bytes()).is_none());
}

fn literal(text: &str) -> String {
    let mut out = Vec::new();
    quote_literal(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn identifier(name: &str) -> String {
    let mut out = Vec::new();
    quote_identifier(name, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn literals_are_quoted() {
    assert_eq!(literal(""), "''");
    assert_eq!(literal("it's"), "'it''s'");
    assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    assert_eq!(literal("Zürich"), "'Zürich'");
    assert_eq!(literal("a\0'; DROP"), "'a'");
}

#[test]
fn setting_names_are_quoted_part_by_part() {
    assert_eq!(identifier("TimeZone"), r#""TimeZone""#);
    assert_eq!(identifier("myapp.user"), r#""myapp"."user""#);
    assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
}

#[test]
fn a_quoted_literal_is_one_string_to_the_lexer() {
    for text in ["", "'", "\\", "\\'", "'';--", "/*", "$$", "\\\\\\", "a\nb'\n'c"] {
        check(&format!("SET x = {}; ", literal(text)), One, K::Set);
    }
}
