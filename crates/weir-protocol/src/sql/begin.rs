//! One BEGIN or START TRANSACTION and the transaction modes it names: reads it, and writes one that means the same.
//! Refuses everything else.

use super::keyword::{behind_noise, is};
use super::lexer::Token;

/// The beginning of a transaction block, with the modes it names. Of a mode that is named twice the last one counts, as in
/// PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Begin {
    /// Its tag is START TRANSACTION.
    starts: bool,
    /// Places in [`MODES`]: clients hold these for as long as their transactions say nothing else.
    isolation: Option<u8>,
    access: Option<u8>,
    deferrable: Option<u8>,
}

impl Begin {
    pub(super) fn read(tokens: &[Token<'_>]) -> Option<Self> {
        let (starts, modes) = match tokens {
            [begin, rest @ ..] if is(begin, b"BEGIN") => (false, behind_noise(rest)),
            [start, transaction, rest @ ..] if is(start, b"START") && is(transaction, b"TRANSACTION") => {
                (true, rest)
            }
            _ => return None,
        };
        let mut begin = Self { starts, ..Self::default() };
        let mut rest = modes;
        while !rest.is_empty() {
            rest = match begin.read_mode(rest)? {
                [Token::Comma, next @ ..] if !next.is_empty() => next,
                behind => behind,
            };
        }
        Some(begin)
    }

    /// Reads one transaction mode; returns what follows, or `None` when there is none in front.
    fn read_mode<'t, 's>(&mut self, tokens: &'t [Token<'s>]) -> Option<&'t [Token<'s>]> {
        (0..).zip(MODES).find_map(|(place, (mode, _, of))| {
            let (front, rest) = tokens.split_at_checked(mode.len())?;
            let all = front.iter().zip(*mode).all(|(token, word)| is(token, word));
            if !all {
                return None;
            }
            match of {
                Mode::Isolation => self.isolation = Some(place),
                Mode::Access => self.access = Some(place),
                Mode::Deferrable => self.deferrable = Some(place),
            }
            Some(rest)
        })
    }

    /// PostgreSQL's tag for it.
    pub fn tag(self) -> &'static str {
        if self.starts { "START TRANSACTION" } else { "BEGIN" }
    }

    /// Appends the text of one that means the same.
    pub fn put_sql(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"BEGIN");
        for place in [self.isolation, self.access, self.deferrable].into_iter().flatten() {
            let text = MODES.get(usize::from(place)).map_or("", |(_, text, _)| *text);
            out.push(b' ');
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// The text may be one: a quick look at its first letters.
pub(super) fn may_be(sql: &[u8]) -> bool {
    match sql.trim_ascii_start() {
        [b'B' | b'b', b'E' | b'e', ..] | [b'S' | b's', b'T' | b't', ..] => true,
        // A comment or a semicolon in front.
        [b'-' | b'/' | b';', ..] => true,
        _ => false,
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Isolation,
    Access,
    Deferrable,
}

const MODES: &[(&[&[u8]], &str, Mode)] = &[
    (&[b"ISOLATION", b"LEVEL", b"SERIALIZABLE"], "ISOLATION LEVEL SERIALIZABLE", Mode::Isolation),
    (&[b"ISOLATION", b"LEVEL", b"REPEATABLE", b"READ"], "ISOLATION LEVEL REPEATABLE READ", Mode::Isolation),
    (&[b"ISOLATION", b"LEVEL", b"READ", b"COMMITTED"], "ISOLATION LEVEL READ COMMITTED", Mode::Isolation),
    (&[b"ISOLATION", b"LEVEL", b"READ", b"UNCOMMITTED"], "ISOLATION LEVEL READ UNCOMMITTED", Mode::Isolation),
    (&[b"READ", b"ONLY"], "READ ONLY", Mode::Access),
    (&[b"READ", b"WRITE"], "READ WRITE", Mode::Access),
    (&[b"DEFERRABLE"], "DEFERRABLE", Mode::Deferrable),
    (&[b"NOT", b"DEFERRABLE"], "NOT DEFERRABLE", Mode::Deferrable),
];
