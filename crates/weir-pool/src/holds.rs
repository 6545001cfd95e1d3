//! When the clients of a pool wait for somebody who may serve them, and not for a connection that is busy. Knows no
//! reason: whether anybody leads is the caller's to say.

use std::time::Instant;

use crate::{Pool, ServerId, ServerState};

impl Pool {
    /// True while there is nobody to serve clients: they queue, and their wait counts as hold.
    pub fn held(&self) -> bool {
        self.has_no_target() || self.barred
    }

    /// True while nobody is named whom the pool could dial.
    pub fn has_no_target(&self) -> bool {
        self.suspended || self.ledger.members.is_empty()
    }

    /// The last login has shown that its target is not what it was said to be (a standby that poses as leader). If the pool
    /// has no other connection its clients do not wait for one that is busy, but for somebody who may serve them: their
    /// wait counts as hold until a login succeeds or [`Pool::retarget`] is called. Dials go on.
    pub fn bar(&mut self, now: Instant) {
        if self.ledger.open() == self.ledger.private {
            self.barred = true;
            self.queue.set_held(true, now);
        }
        self.finish();
    }

    /// Nobody is known to lead: clients queue, but connections stay, and transactions that are open on them may end. The
    /// next [`Pool::retarget`] ends the hold, and closes what does not belong to the target it names.
    ///
    /// Returns the connections in dialing or login for closing, forgotten already. The way to the leader may have been cut
    /// under them: nobody would answer, and behind the hold clients would wait until they time out.
    #[must_use = "these connections must be closed"]
    pub fn hold(&mut self, now: Instant) -> Vec<ServerId> {
        self.suspended = true;
        self.queue.set_held(true, now);
        let closed = self.let_go(false, |server| server.state == ServerState::Dialing);
        self.finish();
        closed
    }
}
