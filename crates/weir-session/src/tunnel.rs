//! One direction of a pairing that is relayed unread (replication): where messages begin and end, and which came last.
//! Keeps no bytes but a header that has arrived in part; refuses to know what a message means.

use weir_protocol::frame::{self, BadFrame, HEADER_BYTES, MESSAGE_BYTES_MAX};

/// Counts the messages that pass in one direction.
#[derive(Debug, Default)]
pub struct Tunnel {
    /// The beginning of a header whose rest has not come yet.
    partial: Vec<u8>,
    /// Bytes of the current message that are still to come.
    left: usize,
    /// Tag of the last message that has begun.
    last: Option<u8>,
}

impl Tunnel {
    /// Takes note of bytes that pass. Returns how many of them belong to the messages up to and including the first one
    /// with the tag `until`, or all.
    ///
    /// # Errors
    /// A message announces an impossible length: nothing behind it can be trusted.
    pub fn pass(&mut self, bytes: &[u8], until: Option<u8>) -> Result<usize, BadFrame> {
        let mut at = 0;
        loop {
            let here = self.left.min(bytes.len() - at);
            at += here;
            self.left -= here;
            if self.left > 0 || (until.is_some() && self.last == until) || at == bytes.len() {
                return Ok(at);
            }
            let missing = HEADER_BYTES - self.partial.len();
            let more = missing.min(bytes.len() - at);
            self.partial.extend_from_slice(&bytes[at..at + more]);
            at += more;
            if let Some(header) = frame::peek(&self.partial, MESSAGE_BYTES_MAX)? {
                self.partial.clear();
                self.left = header.body_bytes();
                self.last = Some(header.tag);
            }
        }
    }

    /// Nothing of a message is under way: another one may be put in here.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.partial.is_empty()
    }

    /// Tag of the last message that has begun.
    #[must_use]
    pub fn last(&self) -> Option<u8> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"d\0\0\0\x06abZ\0\0\0\x05IX\0\0\0\x04";

    #[test]
    fn edges_are_found_however_the_stream_is_cut() {
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let mut tunnel = Tunnel::default();
                for part in [&STREAM[..first], &STREAM[first..second], &STREAM[second..]] {
                    assert_eq!(tunnel.pass(part, None), Ok(part.len()));
                }
                assert!(tunnel.is_between(), "cut at {first} and {second}");
                assert_eq!(tunnel.last(), Some(b'X'));
            }
        }
    }

    #[test]
    fn the_middle_of_a_message_is_no_edge() {
        let edges: Vec<usize> = (0..=STREAM.len())
            .filter(|&at| {
                let mut tunnel = Tunnel::default();
                tunnel.pass(&STREAM[..at], None).expect("a good stream");
                tunnel.is_between()
            })
            .collect();
        assert_eq!(edges, [0, 7, 13, 18]);
    }

    #[test]
    fn it_stops_behind_the_message_that_is_looked_for() {
        let mut tunnel = Tunnel::default();
        assert_eq!(tunnel.pass(STREAM, Some(b'Z')), Ok(13));
        assert_eq!((tunnel.last(), tunnel.is_between()), (Some(b'Z'), true));
    }

    #[test]
    fn an_impossible_length_is_refused() {
        assert!(Tunnel::default().pass(b"d\0\0\0\x03", None).is_err());
        assert!(Tunnel::default().pass(b"d\x7f\0\0\0", None).is_err());
    }
}
