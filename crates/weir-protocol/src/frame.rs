//! Finds the edges of tagged messages. Owns the five byte header and its limits; refuses to know what a body means.

use thiserror::Error;

/// Length of the header of every message after startup: a tag byte and a length word.
pub const HEADER_BYTES: usize = 5;

/// Largest length word that PostgreSQL accepts for its big messages (1 GB less one byte).
pub const MESSAGE_BYTES_MAX: u32 = 0x3fff_ffff;

/// Where the message at the start of a buffer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// First byte of the message; [`crate::tag`] names it.
    pub tag: u8,
    /// Bytes of the whole message: tag, length word and body.
    pub total: usize,
}

impl Header {
    /// Bytes behind the header.
    pub const fn body_bytes(self) -> usize {
        self.total.saturating_sub(HEADER_BYTES)
    }
}

/// A length word that no honest peer sends. Nothing behind it can be trusted, so the connection has to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// The length does not even cover the length word itself.
    #[error("invalid message length {declared}")]
    Undersized {
        /// Tag of the message.
        tag: u8,
        /// The length word as it came.
        declared: u32,
    },
    /// The length is above what the caller allows here.
    #[error("message of {declared} bytes is longer than the {limit} bytes allowed")]
    Oversized {
        /// Tag of the message.
        tag: u8,
        /// The length word as it came.
        declared: u32,
        /// The limit that was given.
        limit: u32,
    },
}

impl BadFrame {
    /// Both variants are protocol violations.
    pub const fn sqlstate(&self) -> crate::sqlstate::SqlState {
        crate::sqlstate::SqlState::PROTOCOL_VIOLATION
    }
}

/// Reads the header at the start of `buffer`; `None` when fewer than five bytes are there.
///
/// `limit` is the largest length word to accept (the word counts itself, not the tag). Nothing is consumed and no
/// memory moves: a peer that announces a gigabyte has only said so.
pub fn peek(buffer: &[u8], limit: u32) -> Result<Option<Header>, BadFrame> {
    let Some((&[tag, a, b, c, d], _)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    match u32::from_be_bytes([a, b, c, d]) {
        declared @ 0..4 => Err(BadFrame::Undersized { tag, declared }),
        declared if declared > limit => Err(BadFrame::Oversized { tag, declared, limit }),
        declared => Ok(Some(Header { tag, total: declared as usize + 1 })),
    }
}

#[cfg(test)]
mod tests {
    //! The header alone; whole streams are cut in `tests/properties.rs`.

    use super::*;

    #[track_caller]
    fn check(buffer: &[u8], limit: u32, expected: Result<Option<Header>, BadFrame>) {
        assert_eq!(peek(buffer, limit), expected);
    }

    #[test]
    fn fewer_than_five_bytes_say_nothing() {
        for length in 0..HEADER_BYTES {
            check(&b"Q\0\0\0\x04"[..length], MESSAGE_BYTES_MAX, Ok(None));
        }
    }

    #[test]
    fn the_length_word_counts_itself_and_not_the_tag() {
        check(b"S\0\0\0\x04", 4, Ok(Some(Header { tag: b'S', total: 5 })));
        check(b"Q\0\0\x01\0whatever", 256, Ok(Some(Header { tag: b'Q', total: 257 })));
        assert_eq!(Header { tag: b'Q', total: 257 }.body_bytes(), 252);
    }

    #[test]
    fn a_length_below_its_own_size_is_refused() {
        for declared in 0..4u8 {
            let bad = BadFrame::Undersized { tag: b'Q', declared: u32::from(declared) };
            check(&[b'Q', 0, 0, 0, declared], MESSAGE_BYTES_MAX, Err(bad));
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_its_body_arrives() {
        let bad = |declared, limit| Err(BadFrame::Oversized { tag: b'p', declared, limit });
        check(b"p\0\0\x04\x01", 1024, bad(1025, 1024));
        check(b"p\xff\xff\xff\xff", MESSAGE_BYTES_MAX, bad(u32::MAX, MESSAGE_BYTES_MAX));
    }
}
