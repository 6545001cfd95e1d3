//! One open connection as the shell keeps it: socket, TLS state if any, bytes that the kernel has not taken yet.
//! An idle one owns no buffer. Knows neither the machine nor other connections.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use crate::socket::Socket;
use crate::tls::TlsStream;
use weir_worker::ConnId;

/// Where a connection is stored. Valid until the connection's own task has removed it.
pub(super) type Key = usize;

/// A connection. Its own task reads it and waits for it; other tasks only write to it and wake that task.
#[derive(Debug)]
pub(super) struct Conn {
    /// What the machine calls it.
    pub(super) id: ConnId,
    pub(super) phase: Phase,
    /// `None` once the connection is dead.
    pub(super) socket: Option<Socket>,
    pub(super) tls: Option<Box<TlsStream>>,
    /// Records or plain bytes that the kernel has not taken yet.
    pub(super) out: Outgoing,
    /// What the present turn wants to send, still in the machine's effects.
    pub(super) pending: Range<usize>,
    /// Wakes the connection's own task.
    waker: Option<Waker>,
    /// Whose reading waits until `out` has shrunk.
    pub(super) denied: Option<Key>,
    /// The machine wants nothing more for now, but wants to know of the end.
    pub(super) stopped: bool,
    /// The reactor has forgotten whether bytes are there: the next read goes straight to the kernel.
    pub(super) unsure: bool,
    /// `out` is too long.
    pub(super) choked: bool,
    /// The kernel takes nothing at the moment, and the own task waits until it does.
    pub(super) full: bool,
    /// A write failed: what was sent last may still be read, then it is over.
    pub(super) broken: bool,
    /// Where it stands on its way in.
    pub(super) entry: Entry,
}

/// A connection's way in. Only clients have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It may not have logged in yet.
    Outside,
    /// It stands in the line of those who log in.
    Queued,
    /// It has come to the head of that line.
    Called,
    /// It is read whenever it has something to say.
    Inside,
}

/// A connection's way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The machine knows it.
    Open,
    /// The machine has closed it; what was sent is still on its way, until then at most.
    Flushing(Instant),
    /// All is sent and the peer knows; what it still sends is read and dropped until it ends too. A close with unread
    /// bytes would reset the connection and could destroy the last message on its way.
    Lingering(Instant),
    /// Only the task has to go.
    Dead,
}

impl Conn {
    /// An open connection.
    pub(super) fn new(id: ConnId, socket: Socket, tls: Option<Box<TlsStream>>) -> Self {
        Self {
            id,
            phase: Phase::Open,
            socket: Some(socket),
            tls,
            out: Outgoing::default(),
            pending: 0..0,
            waker: None,
            denied: None,
            stopped: false,
            unsure: false,
            choked: false,
            full: false,
            broken: false,
            entry: if matches!(id, ConnId::Client(_)) { Entry::Outside } else { Entry::Inside },
        }
    }

    /// Ends it at once. To a server nothing is sent any more, not even what the kernel has already taken.
    pub(super) fn drop_socket(&mut self) {
        if let (ConnId::Server(_), Some(socket)) = (self.id, &self.socket) {
            socket.drop_unsent();
        }
        (self.socket, self.tls) = (None, None);
    }

    /// Keeps the way to wake the task that polls now.
    pub(super) fn remember(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Lets the connection's own task run. Without a waker the task has not run yet, and will.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Reads once, the way that is right now.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(0)) };
        if self.unsure {
            self.unsure = false;
            match socket.read_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(length) => {
                    // A full buffer: more may be there, and the reactor does not know.
                    self.unsure = length == buffer.len();
                    return Poll::Ready(Ok(length));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        socket.poll_read(cx, buffer)
    }

    /// Waits for the peer's end without reading.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = &self.socket else { return Poll::Ready(()) };
        self.unsure = true;
        socket.poll_end(cx)
    }

    /// Queues bytes as they are, or encrypted if the connection is.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        let Self { tls, out, broken, .. } = self;
        if *broken || bytes.is_empty() {
            return;
        }
        match tls {
            Some(tls) => out.append_with(|buffer| tls.encrypt(bytes, buffer)),
            None => out.append_with(|buffer| buffer.extend_from_slice(bytes)),
        }
    }

    /// Queues what the present turn has sent so far, because the way of sending is about to change.
    pub(super) fn queue_pending(&mut self, bytes: &[u8]) {
        let range = std::mem::take(&mut self.pending);
        self.queue(bytes.get(range).unwrap_or_default());
    }

    /// Queues what TLS itself wants to say.
    pub(super) fn queue_records(&mut self) {
        let Self { tls, out, broken, .. } = self;
        if let Some(tls) = tls
            && !*broken
        {
            out.append_with(|buffer| tls.take_records(buffer));
        }
    }

    /// Queues the end of the TLS session.
    pub(super) fn queue_close(&mut self) {
        let Self { tls, out, broken, .. } = self;
        if let Some(tls) = tls
            && !*broken
        {
            out.append_with(|buffer| tls.close(buffer));
        }
    }

    /// Writes `bytes` with one system call, behind what is queued; queues what the kernel does not take. `scratch`
    /// is the worker's, for records of encrypted connections that leave at once.
    pub(super) fn write_or_queue(&mut self, bytes: &[u8], scratch: &mut Vec<u8>) {
        if !self.out.is_empty() || self.full || self.broken {
            self.queue(bytes);
            self.write_queued();
            return;
        }
        let Some(tls) = &mut self.tls else { return self.write_plain(bytes) };
        scratch.clear();
        tls.encrypt(bytes, scratch);
        self.write_plain(scratch);
    }

    /// Writes to the socket as it is. Nothing may be queued in front.
    fn write_plain(&mut self, bytes: &[u8]) {
        let Some(socket) = &self.socket else { return };
        if bytes.is_empty() {
            return;
        }
        let written = match socket.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return self.break_off(),
        };
        if let Some(rest) = bytes.get(written..)
            && !rest.is_empty()
        {
            self.out.append_with(|buffer| buffer.extend_from_slice(rest));
            self.full = true;
        }
    }

    /// Writes what is queued with one system call, unless the kernel is known to take nothing.
    pub(super) fn write_queued(&mut self) {
        if self.full || self.out.is_empty() {
            return;
        }
        let Some(socket) = &self.socket else { return };
        match socket.try_write(self.out.waiting()) {
            Ok(written) => {
                self.out.remove(written);
                self.full = !self.out.is_empty();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.full = true,
            Err(_) => self.break_off(),
        }
    }

    /// Waits until the kernel has taken everything that is queued. Only for the connection's own task.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.out.is_empty() {
            let Some(socket) = &self.socket else { return Poll::Ready(()) };
            if ready!(socket.poll_write_ready(cx)).is_err() {
                self.break_off();
                return Poll::Ready(());
            }
            self.full = false;
            self.write_queued();
        }
        self.full = false;
        Poll::Ready(())
    }

    /// Nothing more can be sent.
    fn break_off(&mut self) {
        self.broken = true;
        self.full = false;
        self.unsure = true;
        self.out.clear();
    }
}

/// Bytes on their way out, in order. Owns memory only while it holds bytes.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn append_with(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        // Moving the rest to the front costs as much as it frees, so each byte is moved once on average.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        append(&mut self.bytes);
    }

    fn remove(&mut self, length: usize) {
        self.start += length;
        debug_assert!(self.start <= self.bytes.len(), "no more can leave than was there");
        if self.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
