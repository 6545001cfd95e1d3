//! Whose turn it is to log in. Clients on their way in are read a few at a time, and between two such rounds everybody who is
//! in has been served: a thousand logins at once delay no query by more than one round. Knows nothing of logins.

use std::collections::VecDeque;

use tokio::task;

use super::conn::{Entry, Key};
use super::{Shared, Shell};
use crate::machine::Machine;

/// Who waits for a turn, and how many more are left in this round.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: VecDeque<Key>,
    left: u32,
    /// A task begins the next round when everybody else has had a chance to run.
    is_rounding: bool,
}

impl<M: Machine> Shell<M> {
    /// Whether this connection, which is on its way in, may be read now; if not, its task is woken when it may.
    pub(super) fn may_take_turn(&mut self, key: Key) -> bool {
        let Some(conn) = self.conns.get_mut(key) else { return true };
        if !self.machine.is_newcomer(conn.id) {
            conn.entry = Entry::Inside;
            return true;
        }
        let before = conn.entry;
        if before == Entry::Called {
            conn.entry = Entry::Outside;
            return true;
        }
        if self.turns.waiting.is_empty() && self.turns.left > 0 {
            self.turns.left -= 1;
            return true;
        }
        conn.entry = Entry::Queued;
        if before != Entry::Queued {
            self.turns.waiting.push_back(key);
        }
        if !std::mem::replace(&mut self.turns.is_rounding, true)
            && let Some(shell) = self.me.upgrade()
        {
            task::spawn_local(round_after_round(shell));
        }
        false
    }

    /// Begins a round. False: nobody waits.
    fn begin_round(&mut self) -> bool {
        self.turns.left = TURNS_PER_ROUND;
        while self.turns.left > 0 {
            let Some(key) = self.turns.waiting.pop_front() else {
                self.turns.is_rounding = false;
                return false;
            };
            // Keys are used again; whoever has this one now and did not ask for a turn is not meant.
            let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.entry == Entry::Queued) else {
                continue;
            };
            conn.entry = Entry::Called;
            conn.wake();
            self.turns.left -= 1;
        }
        true
    }
}

/// Giving way lets everybody run who is awake, and the reactor tell who else should be.
async fn round_after_round<M: Machine>(shell: Shared<M>) {
    loop {
        task::yield_now().await;
        if !shell.borrow_mut().begin_round() {
            return;
        }
    }
}

/// A step of a login takes some 20 microseconds, and a TLS handshake a few hundred.
pub(super) const TURNS_PER_ROUND: u32 = 8;
