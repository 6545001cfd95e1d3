//! The queue by itself; what goes in and out of it is played in `tests/relay`.

use super::*;

fn queue(entries: &[Owed]) -> OwedQueue {
    let mut queue = OwedQueue::default();
    for owed in entries {
        queue.push(owed.clone());
    }
    queue
}

/// One letter for each entry.
fn spell(queue: &OwedQueue) -> String {
    queue.iter().map(letter).collect()
}

fn letter(owed: &Owed) -> char {
    match owed {
        Owed::Query(_) => 'Q',
        Owed::Sync => 'S',
        Owed::Parse(_) => 'P',
        Owed::LocalParse(_) => 'p',
        Owed::Bind => 'B',
        Owed::Describe { .. } => 'D',
        Owed::Execute(_) => 'E',
        Owed::Close => 'C',
        Owed::LocalClose(_) => 'c',
        Owed::HiddenParse(_) => 'h',
        Owed::HiddenClose(_) => 'x',
        Owed::HiddenSettings => '!',
        Owed::HiddenState { .. } => '?',
        Owed::HiddenBegin => 'b',
        Owed::CopyEnd => '.',
    }
}

const QUERY: Owed = Owed::Query(StatementKind::Other);
const EXECUTE: Owed = Owed::Execute(StatementKind::Other);

#[test]
fn ready_for_query_is_counted() {
    let mut queue = queue(&[Owed::HiddenSettings, QUERY, Owed::Bind, EXECUTE, Owed::Sync]);
    assert_eq!((queue.len(), queue.ready_owed()), (5, 3));
    let popped: Vec<u32> = std::iter::from_fn(|| queue.pop().map(|_| queue.ready_owed())).collect();
    assert_eq!(popped, [2, 1, 1, 1, 0]);
    assert!(queue.is_empty() && queue.pop().is_none());
}

#[test]
fn an_error_skips_to_the_sync() {
    let mut queue = queue(&[Owed::Bind, QUERY, EXECUTE, Owed::Sync, Owed::Bind]);
    assert_eq!(std::iter::from_fn(|| queue.pop_skipped()).count(), 3);
    assert_eq!((spell(&queue), queue.ready_owed()), ("SB".to_owned(), 1));
}

#[test]
fn copy_in_swallows_syncs_up_to_its_end() {
    let cases: [(&[Owed], bool, bool, &str); 5] = [
        (&[EXECUTE], true, false, "E"),
        (&[EXECUTE, Owed::Sync, Owed::Sync], true, true, "E"),
        (&[EXECUTE, Owed::Sync, Owed::CopyEnd, Owed::Sync], false, true, "ES"),
        (&[QUERY, Owed::CopyEnd, Owed::CopyEnd, Owed::Sync], false, false, "Q.S"),
        (&[EXECUTE, Owed::CopyEnd, Owed::Sync, QUERY], false, false, "ESQ"),
    ];
    for (entries, open, syncs_ignored, left) in cases {
        let mut queue = queue(entries);
        let copy = queue.copy_in_started();
        assert_eq!((copy.open, copy.syncs_ignored > 0), (open, syncs_ignored));
        assert_eq!(spell(&queue), left);
        let ready = left.chars().filter(|letter| "QS!".contains(*letter)).count();
        assert_eq!(usize::try_from(queue.ready_owed()), Ok(ready), "{left}");
    }
}

#[test]
fn entries_stay_small() {
    // OWED_MAX of them are the most that one client can make weir keep.
    assert!(size_of::<Owed>() <= 40, "{} bytes", size_of::<Owed>());
}
