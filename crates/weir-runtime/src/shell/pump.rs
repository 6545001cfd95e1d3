//! The task of one socket: a few words that say which connection to look at when the reactor has news of it.
//! Reads, waits for the way out to clear, sees a closed connection off.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::conn::{Entry, Key, Phase};
use super::{LINGER_TIME_MAX, OUT_BYTES_LOW, Shared, Shell};
use crate::machine::Machine;
use crate::tls::{BrokenTls, Received};
use weir_worker::ConnId;

/// Serves one connection until it is gone.
pub(super) struct Pump<M> {
    shell: Shared<M>,
    key: Key,
}

impl<M> Pump<M> {
    pub(super) fn new(shell: Shared<M>, key: Key) -> Self {
        Self { shell, key }
    }
}

impl<M: Machine> Future for Pump<M> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.shell.borrow_mut().poll_conn(self.key, cx)
    }
}

impl<M: Machine> Shell<M> {
    fn poll_conn(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<()> {
        let Some(conn) = self.conns.get_mut(key) else { return Poll::Ready(()) };
        conn.remember(cx.waker());
        match conn.phase {
            Phase::Open => self.poll_open(key, cx),
            Phase::Flushing(_) | Phase::Lingering(_) => self.poll_leaving(key, cx),
            Phase::Dead => {}
        }
        if self.conns.get(key).is_some_and(|conn| conn.phase == Phase::Dead) {
            self.conns.remove(key);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Anything that makes the connection leave this phase also wakes its task, so no case is lost by returning.
    fn poll_open(&mut self, key: Key, cx: &mut Context<'_>) {
        self.push_out(key, cx);
        if self.conns.get(key).is_some_and(|conn| conn.entry != Entry::Inside) && !self.may_take_turn(key) {
            return;
        }
        for _ in 0..READS_PER_POLL_MAX {
            match self.poll_once(key, cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return self.end(key),
                Poll::Pending => return,
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Reads once and lets the machine work on it. False: the connection is over.
    fn poll_once(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<bool> {
        if self.suspended.is_some() && self.conns.get(key).is_some_and(|conn| self.is_suspended(conn.id)) {
            return Poll::Pending;
        }
        let Some(conn) = self.conns.get_mut(key) else { return Poll::Pending };
        if conn.phase != Phase::Open {
            return Poll::Pending;
        }
        if conn.stopped {
            if !conn.broken {
                ready!(conn.poll_end(cx));
            }
            return Poll::Ready(false);
        }
        if self.choked > 0 && self.is_held_back(key) {
            return Poll::Pending;
        }
        let Some(conn) = self.conns.get_mut(key) else { return Poll::Pending };
        match conn.poll_read(cx, &mut self.read_buffer) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(false),
            Poll::Ready(Ok(length)) => Poll::Ready(self.take_in(key, length)),
            Poll::Pending if conn.broken => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }

    /// True while what this connection sends would only pile up in front of a slow one.
    fn is_held_back(&mut self, key: Key) -> bool {
        let Some(conn) = self.conns.get(key) else { return false };
        if conn.choked && matches!(conn.id, ConnId::Client(_)) {
            return true;
        }
        let slow = self.machine.partner(conn.id).and_then(|partner| self.names.get(&partner).copied());
        let Some(slow) = slow.and_then(|slow| self.conns.get_mut(slow)) else { return false };
        if !slow.choked {
            return false;
        }
        let before = slow.denied.replace(key).filter(|&before| before != key);
        if let Some(before) = before.and_then(|before| self.conns.get(before)) {
            before.wake();
        }
        true
    }

    /// Works on what lies in the read buffer. False: the connection is over.
    fn take_in(&mut self, key: Key, length: usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        if conn.tls.is_some() {
            return self.take_in_records(key, length);
        }
        let bytes = self.read_buffer.get(..length).unwrap_or_default();
        self.machine.received(Instant::now(), conn.id, bytes, &mut self.effects);
        self.carry_out();
        true
    }

    fn take_in_records(&mut self, key: Key, length: usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return false };
        let Some(tls) = &mut conn.tls else { return false };
        let id = conn.id;
        let now = Instant::now();
        let was_handshaking = tls.is_handshaking();
        self.plain.clear();
        let result = tls.decrypt(self.read_buffer.get(..length).unwrap_or_default(), &mut self.plain);
        let established = (result.is_ok() && was_handshaking && !tls.is_handshaking()).then(|| tls.shown());
        if result.is_err() && was_handshaking {
            // The machine has not heard that this comes through TLS.
            self.plain.clear();
        }
        conn.queue_records();
        if !conn.out.is_empty() {
            self.touched.push(key);
        }
        if let Some(shown) = established
            && let ConnId::Client(client) = id
        {
            self.machine.tls_established(now, client, shown, &mut self.effects);
        }
        if !self.plain.is_empty() {
            self.machine.received(now, id, &self.plain, &mut self.effects);
            self.plain.shrink_to(super::READ_BUFFER_BYTES);
        }
        self.carry_out();
        match result {
            Ok(Received::Open) => true,
            Ok(Received::Closed) => false,
            Err(why) => {
                self.log_broken(id, &why);
                false
            }
        }
    }

    /// TLS with a peer is over; whoever it was, the machine knows more of it than its number.
    pub(super) fn log_broken(&self, id: ConnId, why: &BrokenTls) {
        match id {
            ConnId::Client(client) => self.machine.tls_broken(client, &why.to_string()),
            ConnId::Server(_) | ConnId::Cancel(_) => tracing::info!(connection = ?id, "TLS ended: {why}"),
        }
    }

    /// Gets rid of what the kernel did not take earlier.
    fn push_out(&mut self, key: Key, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let _pending_too = conn.poll_drained(cx);
        if conn.choked && conn.out.len() <= OUT_BYTES_LOW {
            self.release_denied(key);
        }
    }

    /// The peer is gone.
    fn end(&mut self, key: Key) {
        self.lose(key);
        self.carry_out();
    }

    fn poll_leaving(&mut self, key: Key, cx: &mut Context<'_>) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if let Phase::Flushing(_) = conn.phase {
            if conn.poll_drained(cx).is_pending() {
                return;
            }
            let Some(socket) = &conn.socket else { return };
            if conn.broken || socket.shutdown_write().is_err() {
                return self.kill(key);
            }
            conn.phase = Phase::Lingering(Instant::now() + LINGER_TIME_MAX);
            // The machine may have stopped the reading, and so lost track of what is there.
            conn.unsure = true;
        }
        for _ in 0..READS_PER_POLL_MAX {
            match conn.poll_read(cx, &mut self.read_buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(0) | Err(_)) => return self.kill(key),
                Poll::Ready(Ok(_)) => {}
            }
        }
        cx.waker().wake_by_ref();
    }
}

/// After so many reads that filled the buffer others get their turn.
const READS_PER_POLL_MAX: u32 = 4;
