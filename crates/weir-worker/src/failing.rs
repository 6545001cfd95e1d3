//! What clients of databases with servers of their own hear when none of those can be logged in to: the first ones the
//! reason, all others at once that logins fail, until it is time to try again. Databases that follow a cluster hold instead.

use std::time::Instant;

use weir_pool::ClientId;
use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;

use crate::Worker;
use crate::clock::why_not_held;
use crate::io::Effects;
use crate::pools::PoolIndex;

impl Worker {
    /// Nobody who waits for this pool can be served.
    pub(crate) fn refuse_waiting(
        &mut self,
        now: Instant,
        index: PoolIndex,
        report: &Report,
        effects: &mut Effects,
    ) {
        let report = report.clone().with_severity(Severity::Fatal);
        self.refuse_welcoming(now, index, &report, effects);
        let waiting = self.pools.entry_mut(index).pool.overdue(now, std::time::Duration::ZERO);
        for client in waiting {
            self.refuse_client(now, client, &report, effects);
        }
    }

    /// Clients that wait for their welcome hear why there is none.
    pub(crate) fn refuse_welcoming(
        &mut self,
        now: Instant,
        index: PoolIndex,
        report: &Report,
        effects: &mut Effects,
    ) {
        for client in std::mem::take(&mut self.pools.entry_mut(index).welcoming) {
            self.refuse_login(now, client, report, effects);
        }
        self.demand_if_welcoming(index);
    }

    /// Nobody is dialed for a login that has ended.
    pub(crate) fn demand_if_welcoming(&mut self, index: PoolIndex) {
        let entry = self.pools.entry_mut(index);
        if entry.welcoming.is_empty() {
            entry.pool.demand_none();
        }
    }

    /// Clients that came while logins fail, or where nobody is waited for, are not welcomed: nothing is known yet that they
    /// could be told. True if so.
    pub(crate) fn refuse_newcomers(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) -> bool {
        let entry = self.pools.entry(index);
        let failure = entry.last_failure.clone().filter(|_| entry.pool.fails_fast(now));
        let not_held = || why_not_held(&self.topology, entry.key.role).filter(|_| entry.pool.held());
        let Some(report) = failure.or_else(not_held) else {
            return false;
        };
        self.refuse_welcoming(now, index, &report.with_severity(Severity::Fatal), effects);
        true
    }

    /// A client's request comes while logins fail.
    pub(crate) fn fail_fast(&mut self, now: Instant, id: ClientId, index: PoolIndex, effects: &mut Effects) {
        let text = "server login has been failing, try again later (server_login_retry)";
        let mut report = Report::fatal(SqlState::PROTOCOL_VIOLATION, text);
        if let Some(last) = &self.pools.entry(index).last_failure {
            report = report.detail(format!("The last attempt failed: {}.", last.message));
        }
        self.refuse_client(now, id, &report, effects);
    }
}
