//! The catalog, and what one server connection knows. How both are used is played in `tests/relay`.

use super::*;

#[test]
fn kinds_of_statements() {
    let cases = [
        ("select 1", StatementKind::Repeatable),
        ("/* x */ (select 1);", StatementKind::Repeatable),
        ("with a as (select 1) insert into t select * from a", StatementKind::Repeatable),
        ("merge into t using s on a = b when matched then delete", StatementKind::Repeatable),
        ("values (1)", StatementKind::Repeatable),
        ("commit", StatementKind::Commit),
        ("END WORK", StatementKind::Commit),
        ("rollback;", StatementKind::Rollback),
        ("ABORT", StatementKind::Rollback),
        ("commit and no chain", StatementKind::Commit),
        ("commit and chain", StatementKind::CommitAndChain),
        ("end and chain", StatementKind::CommitAndChain),
        ("rollback and chain", StatementKind::RollbackAndChain),
        ("abort work and chain", StatementKind::RollbackAndChain),
        ("rollback entirely", StatementKind::MayEnd),
        ("commit and chain; select 1", StatementKind::MayEnd),
        ("prepare transaction 'x'", StatementKind::MayEnd),
        ("select 1; select 2", StatementKind::MayEnd),
        ("select 'open", StatementKind::MayEnd),
        ("rollback to a", StatementKind::Other),
        ("commit prepared 'x'", StatementKind::Other),
        ("begin", StatementKind::Other),
        ("call p()", StatementKind::Other),
        ("do $$ begin commit; end $$", StatementKind::Other),
        ("vacuum", StatementKind::Other),
        ("", StatementKind::Other),
        (" -- nothing", StatementKind::Other),
    ];
    for (sql, kind) in cases {
        assert_eq!(StatementKind::of(sql.as_bytes()), kind, "{sql}");
    }
}

#[test]
fn the_catalog_tells_by_all_of_the_key() {
    let mut catalog = Catalog::default();
    let one = catalog.intern(b"select $1", &[0, 0], 1);
    assert!(Rc::ptr_eq(&one, &catalog.intern(b"select $1", &[0, 0], 1)));
    for (sql, types, context) in [
        (&b"select $2"[..], &[0, 0][..], 1),
        (b"select $1", &[0, 1, 0, 0, 0, 23], 1),
        (b"select $1", &[0, 0], 2),
    ] {
        assert_ne!(catalog.intern(sql, types, context).id, one.id);
        assert!(catalog.find(sql, types, context).is_none(), "nobody holds it");
    }
    assert!(catalog.find(b"select $1", &[0, 0], 1).is_some());
}

#[test]
fn the_catalog_forgets_what_nobody_holds() {
    let mut catalog = Catalog::default();
    let held: Vec<_> = (0..100u32).map(|n| catalog.intern(&n.to_be_bytes(), b"", 0)).collect();
    for n in 100..50_000u32 {
        catalog.intern(&n.to_be_bytes(), b"", 0);
    }
    assert!(catalog.by_key.len() <= SWEEP_MIN, "{} kept", catalog.by_key.len());
    for statement in &held {
        assert_eq!(catalog.intern(&statement.sql, b"", 0).id, statement.id);
    }
}

struct Side {
    catalog: Catalog,
    there: ServerStatements,
}

impl Side {
    fn new() -> Self {
        Self { catalog: Catalog::default(), there: ServerStatements::default() }
    }

    fn statement(&mut self, sql: &str) -> Rc<Statement> {
        self.catalog.intern(sql.as_bytes(), b"", 0)
    }
}

#[test]
fn a_parse_is_known_by_its_reply() {
    let mut side = Side::new();
    let one = side.statement("1");
    assert_eq!(side.there.use_of(one.id), None);
    side.there.parse_sent(&one, 7);
    assert_eq!(side.there.use_of(one.id), Some(KnownState::Pending(7)));
    assert!(!one.proven.get());
    side.there.confirm(one.id);
    assert_eq!(side.there.use_of(one.id), Some(KnownState::Confirmed));
    assert!(one.proven.get());
}

#[test]
fn the_last_of_several_parses_decides() {
    // Outcomes in order, and what is known then.
    let cases: [(&[bool], Option<KnownState>); 6] = [
        (&[false], None),
        (&[true], Some(KnownState::Confirmed)),
        (&[false, true], Some(KnownState::Confirmed)),
        (&[true, true], Some(KnownState::Confirmed)),
        (&[true, false], Some(KnownState::Unclear)),
        (&[false, false], Some(KnownState::Unclear)),
    ];
    for (outcomes, expected) in cases {
        let mut side = Side::new();
        let one = side.statement("1");
        for batch in 0..outcomes.len() {
            side.there.parse_sent(&one, batch as u64);
        }
        for (at, done) in outcomes.iter().enumerate() {
            assert_eq!(
                side.there.use_of(one.id),
                Some(KnownState::Pending(outcomes.len() as u64 - 1)),
                "before outcome {at}"
            );
            if *done { side.there.confirm(one.id) } else { side.there.refuted(one.id) }
        }
        assert_eq!(side.there.use_of(one.id), expected, "{outcomes:?}");
    }
}

#[test]
fn eviction_takes_the_oldest_that_nobody_waits_for() {
    let mut side = Side::new();
    let all: Vec<_> = ["a", "b", "c"].map(|sql| side.statement(sql)).into();
    for statement in &all {
        side.there.parse_sent(statement, 0);
    }
    let now = side.there.clock();
    assert!(side.there.evict(3, now).is_none(), "on their way");
    for statement in &all {
        side.there.confirm(statement.id);
    }
    assert!(side.there.evict(4, now).is_none(), "there is room");
    assert!(side.there.evict(3, 0).is_none(), "all were used by requests in flight");
    side.there.use_of(all[0].id);
    let now = side.there.clock();
    assert_eq!(side.there.evict(3, now).map(|gone| gone.id), Some(all[1].id));
    assert_eq!(side.there.use_of(all[1].id), Some(KnownState::Unclear), "its Close is on its way");
    side.there.evicted(all[1].id);
    assert_eq!(side.there.use_of(all[1].id), None);
    // A Close that is skipped.
    let now = side.there.clock();
    let gone = side.there.evict(2, now).map(|gone| (gone.id, gone));
    let Some((id, gone)) = gone else { panic!("one can be evicted") };
    assert_eq!(id, all[2].id);
    side.there.not_evicted(gone);
    assert_eq!(side.there.use_of(id), Some(KnownState::Unclear));
    assert_eq!(side.there.len(), 2);
}

#[test]
fn doubt_spares_what_is_on_its_way() {
    let mut side = Side::new();
    let (old, new) = (side.statement("old"), side.statement("new"));
    side.there.parse_sent(&old, 0);
    side.there.confirm(old.id);
    side.there.parse_sent(&new, 3);
    side.there.doubt_all();
    assert_eq!(side.there.use_of(old.id), Some(KnownState::Unclear));
    assert_eq!(side.there.use_of(new.id), Some(KnownState::Pending(3)));
    side.there.forget_named();
    assert_eq!(side.there.use_of(old.id), None);
    assert_eq!(side.there.use_of(new.id), Some(KnownState::Pending(3)), "it is parsed behind DEALLOCATE ALL");
}

#[test]
fn whose_unnamed_statement_is_there() {
    let mut catalog = Catalog::default();
    let (mine, next) = (catalog.next_unnamed(), catalog.next_unnamed());
    let mut there = ServerStatements::default();
    assert!(!there.has_unnamed(mine, 0));
    there.unnamed_sent(mine, 0);
    assert!(there.has_unnamed(mine, 0));
    assert!(!there.has_unnamed(mine, 1), "somebody else's may be there, if it is skipped");
    there.unnamed_confirmed();
    assert!(there.has_unnamed(mine, 1));
    there.unnamed_sent(next, 1);
    assert!(there.has_unnamed(next, 2), "if this is skipped, my own is there");
    assert!(!there.has_unnamed(mine, 2));
    there.unnamed_refuted(mine);
    assert!(there.has_unnamed(next, 2), "an older one failed");
    there.unnamed_refuted(next);
    assert!(!there.has_unnamed(next, 2));
    there.next_client();
    there.unnamed_sent(next, 5);
    assert!(!there.has_unnamed(next, 6));
}

#[test]
fn a_client_keeps_little_memory_for_its_unnamed_statement() {
    let mut catalog = Catalog::default();
    let mut statements = ClientStatements::default();
    statements.set_unnamed(
        catalog.next_unnamed(),
        (StatementKind::Other, Marks::NONE),
        Some(&[b'x'; 60_000]),
    );
    statements.set_unnamed(
        catalog.next_unnamed(),
        (StatementKind::Other, Marks::NONE),
        Some(b"select 1\0\0\0"),
    );
    let kept = statements.unnamed.as_ref().map_or(0, |unnamed| unnamed.body.capacity());
    assert!(kept <= UNNAMED_BYTES_KEPT, "{kept} bytes");
    assert_eq!(statements.unnamed().and_then(Unnamed::body), Some(&b"select 1\0\0\0"[..]));
    statements.set_unnamed(catalog.next_unnamed(), (StatementKind::MayEnd, Marks::NONE), None);
    assert_eq!(statements.unnamed().map(Unnamed::body), Some(None));
}
