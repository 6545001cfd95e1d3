//! What is kept for a retry, and what gives it up.

use super::*;

const MAX: usize = 100;

#[derive(Clone, Copy)]
enum Sent {
    Query(StatementKind),
    Frame(Option<StatementKind>),
    Execute,
    Sync,
    GiveUp,
}
use Sent::{Execute, Frame, GiveUp, Query, Sync};
use StatementKind::{Commit, MayEnd, Other, Repeatable};

fn kept(sent: &[Sent], bytes_max: usize) -> Option<usize> {
    let mut replay = Replay::default();
    replay.begin(bytes_max);
    for one in sent {
        match one {
            Query(kind) => replay.query(&[b'q'; 10], *kind, bytes_max),
            Frame(kind) => replay.batch_frame(&[b'f'; 10], *kind, bytes_max),
            Execute => replay.execute(&[b'e'; 10], bytes_max),
            Sync => replay.sync(&[b's'; 10], bytes_max),
            GiveUp => replay.give_up(),
        }
    }
    let complete = replay.is_complete();
    let bytes = replay.take();
    assert_eq!(bytes.is_some(), complete);
    assert_eq!(replay.take(), None, "only once");
    bytes.map(|bytes| bytes.len())
}

#[test]
fn single_repeatable_requests_are_kept() {
    let good = Some(Repeatable);
    let cases: [(&[Sent], Option<usize>); 14] = [
        (&[], None),
        (&[Query(Repeatable)], Some(10)),
        (&[Query(Other)], None),
        (&[Query(MayEnd)], None),
        (&[Query(Commit)], None),
        (&[Query(Repeatable), Query(Repeatable)], None),
        (&[Frame(good), Frame(good), Frame(None), Execute, Sync], Some(50)),
        (&[Frame(good), Execute], None),
        (&[Frame(Some(Other)), Execute, Sync], None),
        (&[Frame(good), Execute, Frame(good), Execute, Sync], None),
        (&[Frame(good), Sync, Frame(good), Sync], None),
        (&[Frame(good), Query(Repeatable)], None),
        (&[Query(Repeatable), Sync], None),
        (&[Query(Repeatable), GiveUp], None),
    ];
    for (at, (sent, expected)) in cases.into_iter().enumerate() {
        assert_eq!(kept(sent, MAX), expected, "case {at}");
        assert_eq!(kept(sent, 0), None, "never retry: case {at}");
    }
}

#[test]
fn the_limit_is_for_the_whole_request() {
    let good = Some(Repeatable);
    assert_eq!(kept(&[Query(Repeatable)], 9), None);
    assert_eq!(kept(&[Frame(good), Execute, Sync], 30), Some(30));
    assert_eq!(kept(&[Frame(good), Execute, Sync], 29), None);
}
