//! Bytes to and from one PostgreSQL, encrypted or not. Knows no messages.

use std::future::poll_fn;
use std::io;

use weir_discovery::Address;

use crate::dial::{self, Dialer};
use crate::tls::Received;
use weir_worker::DialError;

/// An open connection.
pub(super) struct Link {
    link: dial::Link,
    buffer: Vec<u8>,
    cipher: Vec<u8>,
}

impl Link {
    pub(super) async fn dial(address: &Address, dialer: &Dialer) -> Result<Self, DialError> {
        let link = dial::dial(address, None, dialer).await?;
        Ok(Self { link, buffer: vec![0; READ_BYTES], cipher: Vec::new() })
    }

    /// Hash of the server's certificate, for channel binding.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        self.link.tls.as_ref().and_then(|tls| tls.peer_end_point())
    }

    /// Appends what has arrived to `plain`; false when the peer has ended. Loses nothing when it is cancelled.
    pub(super) async fn read(&mut self, plain: &mut Vec<u8>) -> io::Result<bool> {
        let Self { link, buffer, cipher } = self;
        let before = plain.len();
        // A TLS record may carry nothing for us.
        while plain.len() == before {
            let length = poll_fn(|cx| link.socket.poll_read(cx, buffer)).await?;
            let arrived = buffer.get(..length).unwrap_or_default();
            if arrived.is_empty() {
                return Ok(false);
            }
            match &mut link.tls {
                None => plain.extend_from_slice(arrived),
                Some(tls) => {
                    let state =
                        tls.decrypt(arrived, plain).map_err(|why| io::Error::other(why.to_string()))?;
                    cipher.clear();
                    tls.take_records(cipher);
                    // An answer to a key update: tiny, and lost only with the connection.
                    if !cipher.is_empty() && link.socket.try_write(cipher)? != cipher.len() {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                    if state == Received::Closed {
                        return Ok(plain.len() > before);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Writes everything. When cancelled, the connection is of no use any more.
    pub(super) async fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        let Self { link, buffer: _, cipher } = self;
        let mut left = match &mut link.tls {
            None => plain,
            Some(tls) => {
                cipher.clear();
                tls.encrypt(plain, cipher);
                cipher.as_slice()
            }
        };
        while !left.is_empty() {
            match link.socket.try_write(left) {
                Ok(written) => left = left.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| link.socket.poll_write_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what the kernel takes at once and closes.
    pub(super) fn close_with(mut self, last_words: &[u8]) {
        let mut cipher = Vec::new();
        let words = match &mut self.link.tls {
            None => last_words,
            Some(tls) => {
                tls.encrypt(last_words, &mut cipher);
                tls.close(&mut cipher);
                cipher.as_slice()
            }
        };
        if let Err(error) = self.link.socket.try_write(words) {
            tracing::trace!("a monitor's goodbye was not heard: {error}");
        }
    }
}

/// A ping's answer is a few dozen bytes.
const READ_BYTES: usize = 8 * 1024;
