//! Clients whose time is over: queries and transactions that take too long, clients that rest too long, inside a
//! transaction or outside. Owns when it is looked for them; what was asked for and what is under way is known elsewhere.
//!
//! Most clients are idle and most configurations set none of these limits, so nothing is kept in order for them: all
//! clients are looked through at most once a second (more often only for limits below four), and only if there is a limit
//! at all.

use std::time::{Duration, Instant};

use weir_config::{Config, User};
use weir_pool::ClientId;
use weir_protocol::backend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::cause::name_failover;
use weir_session::server::TxStatus;

use crate::client::{Client, Open};
use crate::io::{ConnId, Effects, Role};
use crate::pools::{PoolIndex, PoolKey};
use crate::{Worker, client_id, key};

/// When clients are looked through.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    /// Time between two looks; `None`: there is no limit to look for.
    pace: Option<Duration>,
    last: Option<Instant>,
    notified: Option<Instant>,
}

impl Deadlines {
    pub(crate) fn of(config: &Config) -> Self {
        let limits = &config.limits;
        let general = [
            limits.query_timeout,
            limits.client_idle_timeout,
            limits.idle_transaction_timeout,
            limits.transaction_timeout,
        ];
        let own = config.users.values().flat_map(|user| {
            [
                user.query_timeout,
                user.client_idle_timeout,
                user.idle_transaction_timeout,
                user.transaction_timeout,
            ]
            .map(Option::flatten)
        });
        let shortest = general.into_iter().chain(own).flatten().min();
        Self { pace: shortest.map(|limit| (limit / 4).clamp(PACE_MIN, PACE_MAX)), ..Self::default() }
    }

    /// Takes the limits of a new configuration.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.pace = Self::of(config).pace;
    }
}

/// Whose patience is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overdue {
    Query,
    /// A query that has not got a server connection yet.
    QueuedQuery,
    Transaction,
    IdleTransaction,
    Idle,
}

impl Overdue {
    /// PgBouncer's words, some with a blank and some with an underscore.
    fn report(self) -> Report {
        match self {
            Self::Query => Report::fatal(SqlState::QUERY_CANCELED, "query timeout")
                .detail("The query took longer than query_timeout and was cancelled."),
            Self::QueuedQuery => Report::fatal(SqlState::QUERY_CANCELED, "query_timeout")
                .detail("No server connection became free within query_timeout; nothing was executed."),
            Self::Transaction => Report::fatal(SqlState::TRANSACTION_TIMEOUT, "transaction timeout")
                .detail("The transaction took longer than transaction_timeout and was rolled back."),
            Self::IdleTransaction => {
                Report::fatal(SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT, "idle transaction timeout")
                    .detail(
                        "The transaction rested longer than idle_transaction_timeout and was rolled back.",
                    )
            }
            Self::Idle => Report::fatal(SqlState::IDLE_SESSION_TIMEOUT, "client_idle_timeout")
                .detail("The client rested longer than client_idle_timeout."),
        }
    }
}

impl Worker {
    /// Looks for clients whose time is over, if it is time to look.
    pub(crate) fn end_overdue_clients(&mut self, now: Instant, effects: &mut Effects) {
        let Some(pace) = self.deadlines.pace else { return };
        if self.deadlines.last.is_some_and(|last| now.saturating_duration_since(last) < pace) {
            return;
        }
        self.deadlines.last = Some(now);
        let mut overdue: Vec<(ClientId, Overdue)> = self
            .clients
            .iter()
            .filter_map(|(at, client)| Some((client_id(at), self.overdue(now, client)?)))
            .collect();
        overdue.extend(self.queued_too_long(now));
        for (id, what) in overdue {
            self.end_overdue(now, id, what, effects);
        }
    }

    /// Those that wait for a server connection. As in PgBouncer that counts for query_timeout; a hold has a limit of its own,
    /// and the time that one has taken before counts for nothing.
    fn queued_too_long(&self, now: Instant) -> Vec<(ClientId, Overdue)> {
        let mut late = Vec::new();
        for entry in self.pools.iter().filter(|entry| !entry.pool.held()) {
            let is_late = |&(id, waited): &(ClientId, Duration)| {
                let client = self.clients.get(key(id.0)).filter(|client| client.inside.is_none());
                let user =
                    client.and_then(Client::open).and_then(|open| self.user_settings(open, &entry.key));
                let limit =
                    user.and_then(|user| user.query_timeout).unwrap_or(self.config.limits.query_timeout);
                client.is_some() && limit.is_some_and(|limit| waited > limit)
            };
            late.extend(entry.pool.waits(now).filter(is_late).map(|(id, _)| (id, Overdue::QueuedQuery)));
        }
        late
    }

    fn overdue(&self, now: Instant, client: &Client) -> Option<Overdue> {
        let open = client.open().filter(|open| client.inside.is_none() && open.waiting_since.is_none())?;
        let entry = self.pools.entry(open.pool);
        let user = self.user_settings(open, &entry.key);
        let general = &self.config.limits;
        let own = |of: fn(&User) -> Option<Option<Duration>>, general: Option<Duration>| {
            user.and_then(of).unwrap_or(general)
        };
        let over = |limit: Option<Duration>, since: Option<Instant>| {
            let age = now.saturating_duration_since(since?);
            limit.is_some_and(|limit| age > limit).then_some(())
        };
        let held = entry.pool.held();
        let server = open.server.and_then(|server| self.servers.get(key(server.0))?.open());
        let transaction = own(|user| user.transaction_timeout, general.transaction_timeout);
        let deferred = open.session.deferred_since().filter(|_| !held);
        let begun = server.and_then(|server| server.transaction_started()).or(deferred);
        if over(transaction, begun).is_some() {
            return Some(Overdue::Transaction);
        }
        if let Some(server) = server.filter(|server| server.is_owing()) {
            let query = own(|user| user.query_timeout, general.query_timeout);
            return over(query, server.query_started()).map(|()| Overdue::Query);
        }
        let since = Some(open.active_at).filter(|_| !held);
        let rests = server.is_none_or(|server| server.at_rest().is_some());
        if open.session.tx() == TxStatus::Idle && rests {
            let limit = own(|user| user.client_idle_timeout, general.client_idle_timeout);
            return over(limit, since).map(|()| Overdue::Idle);
        }
        let limit = own(|user| user.idle_transaction_timeout, general.idle_transaction_timeout);
        over(limit, since).map(|()| Overdue::IdleTransaction)
    }

    /// Settings of the user that the client logged in as.
    fn user_settings(&self, open: &Open, key: &PoolKey) -> Option<&User> {
        if self.config.users.is_empty() {
            return None;
        }
        self.config.users.get(open.user.as_deref().unwrap_or(&key.user))
    }

    fn end_overdue(&mut self, now: Instant, id: ClientId, what: Overdue, effects: &mut Effects) {
        let Some(open) = self.clients.get_mut(key(id.0)).and_then(Client::open_mut) else { return };
        let report = what.report();
        if what != Overdue::Idle
            && let Some(server) = open.server.take()
        {
            // PostgreSQL would go on with a query whose client is gone.
            self.cancel_overdue(now, server, effects);
            self.discard_because(now, server, &report.message, effects);
        }
        self.refuse_client(now, id, &report, effects);
    }

    /// Tells clients that have waited long that they are queued, each once a wait.
    pub(crate) fn notify_queued(&mut self, now: Instant, effects: &mut Effects) {
        let Some(limit) = self.config.pool.query_wait_notify else { return };
        let pace = (limit / 4).clamp(PACE_MIN, PACE_MAX);
        if self.deadlines.notified.is_some_and(|last| now.saturating_duration_since(last) < pace) {
            return;
        }
        self.deadlines.notified = Some(now);
        for index in self.pools.indices() {
            let report = self.why_queued(index);
            for id in self.pools.entry(index).pool.long_waiting(now, limit) {
                self.notify(id, &report, effects);
            }
        }
        for (id, index) in self.long_held_sessions(now, limit) {
            self.notify(id, &self.why_queued(index), effects);
        }
    }

    /// Tells a client of its wait, unless it has been told.
    fn notify(&mut self, id: ClientId, report: &Report, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)).filter(|client| client.inside.is_none()) else {
            return;
        };
        let Some(open) = client.open_mut() else { return };
        let since = open.waiting_since.or(open.held_since);
        if since.is_some() && std::mem::replace(&mut open.notified_of, since) != since {
            effects.send_with(ConnId::Client(id), |out| backend::notice(report, out));
        }
    }

    /// What those who wait in this pool wait for.
    fn why_queued(&self, index: PoolIndex) -> Report {
        let entry = self.pools.entry(index);
        if !entry.pool.held() {
            return Report::notice(QUEUED);
        }
        let patience = "The request runs as soon as there is one; nothing has to be done.";
        let what = match entry.key.role {
            Role::Write => "waiting for a new leader",
            Role::Read => "waiting for a member that may serve reads",
        };
        let mut report = Report::notice(what).hint(patience);
        if let Some(why) = self.topology.why_held() {
            report = report.detail(format!("Writes are held: {why}."));
        } else if !entry.pool.has_no_target() {
            report = report.detail(format!("{}.", self.why_held(index)));
        }
        if let Some(number) = self.topology.failover_under_way() {
            name_failover(&mut report, number);
        }
        report
    }
}

/// PgBouncer's words.
const QUEUED: &str = "No server connection available in postgres backend, client being queued";

/// Bounds of the time between two looks: the clock's own step, and what an operator does not notice.
const PACE_MIN: Duration = Duration::from_millis(100);
const PACE_MAX: Duration = Duration::from_secs(1);
