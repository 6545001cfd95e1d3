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
