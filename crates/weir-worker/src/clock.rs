//! What time brings, ten times a second: waits that have lasted too long, connections that are too old. Nothing on the
//! query path sets a timer.

use std::time::{Duration, Instant};

use weir_config::Upstream;
use weir_discovery::{Leadership, ReadFallback, Topology};
use weir_pool::{ClientId, ServerId};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::cause::name_failover;

use crate::client::Client;
use crate::io::{ConnId, DialError, Effect, Effects, Role};
use crate::pools::{PoolIndex, PoolKey};
use crate::server::{ServerConn, ServerStage};
use crate::{Worker, key, server_id, sizes};

impl Worker {
    /// Time has passed. To be called every 100 ms; deadlines are kept to that precision.
    pub fn tick(&mut self, now: Instant, effects: &mut Effects) {
        self.clock = Some(now);
        self.release_held_back(now, effects);
        self.end_slow_logins(now, effects);
        self.find_crowding();
        self.end_slow_dials(now, effects);
        self.end_slow_errands(now, effects);
        self.tend_cancels(now, effects);
        self.end_slow_lookups(now, effects);
        self.note_holds(now);
        self.tend_held_sessions(now, effects);
        self.end_overdue_clients(now, effects);
        self.notify_queued(now, effects);
        self.end_rests(now, effects);
        self.forget_untold(now);
        self.make_kept_pools(now, effects);
        for index in self.pools.indices() {
            self.end_long_waits(now, index, effects);
            self.keep_min(index);
            self.close_old(now, index, effects);
            self.pump(now, index, effects);
        }
        self.forget_unused(now);
        self.verifiers.allow_more();
        self.derivations.allow_more();
        self.start_derivations(effects);
        self.referrals.allow_more();
        self.start_referrals(effects);
    }

    fn end_slow_logins(&mut self, now: Instant, effects: &mut Effects) {
        let limit = self.config.limits.client_login_timeout;
        if limit.is_zero() {
            // PgBouncer's zero: a login may take as long as it likes.
            let clients = &self.clients;
            let goes_on = |id: ClientId, serial: u64| {
                let client = clients.get(key(id.0)).filter(|client| client.serial == serial);
                client.is_some_and(Client::is_logging_in)
            };
            return self.logins.retain(|&(id, serial)| goes_on(id, serial));
        }
        while let Some(&(id, serial)) = self.logins.front() {
            let Some(client) = self.clients.get(key(id.0)).filter(|client| client.serial == serial) else {
                self.logins.pop_front();
                continue;
            };
            if client.is_logging_in() && now.saturating_duration_since(client.accepted) < limit {
                return;
            }
            self.logins.pop_front();
            if client.is_logging_in() {
                let report = Report::fatal(SqlState::CANNOT_CONNECT_NOW, "client_login_timeout")
                    .detail(format!("The login did not end within {} s.", limit.as_secs()));
                self.refuse_login(now, id, &report, effects);
            }
        }
    }

    /// The pool's database names several hosts.
    fn has_other_hosts(&self, pool: PoolIndex) -> bool {
        let database = self.config.database(&self.pools.entry(pool).key.database);
        database.is_some_and(|database| database.hosts.len() > 1)
    }

    fn end_slow_dials(&mut self, now: Instant, effects: &mut Effects) {
        let limit = self.config.pool.server_connect_timeout;
        let slow = |conn: &ServerConn| {
            // A host that does not answer may not use up the time of the others.
            let has_others = matches!(conn.stage, ServerStage::Dialing) && self.has_other_hosts(conn.pool);
            let limit = if has_others { limit.min(ONE_OF_MANY_TIME_MAX) } else { limit };
            now.saturating_duration_since(conn.created) >= limit
        };
        let late: Vec<ServerId> = self
            .servers
            .iter()
            .filter(|(_, conn)| conn.is_logging_in() && slow(conn))
            .map(|(at, _)| server_id(at))
            .collect();
        for id in late {
            effects.list.push(Effect::Abort(ConnId::Server(id)));
            self.server_unreachable(now, id, &DialError::TimedOut, effects);
        }
    }

    fn end_long_waits(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        let held = self.pools.entry(index).pool.held();
        let &PoolKey { ref database, ref user, role, .. } = &self.pools.entry(index).key;
        let limit = match held {
            true if why_not_held(&self.topology, role).is_some() => Some(Duration::ZERO),
            true => hold_timeout(&self.config.upstream),
            false => sizes::query_wait_timeout(&self.config, database, user),
        };
        // Clients of different users share the pool of a fixed one, and may have limits of their own.
        let is_shared = self.config.database(database).is_some_and(|database| database.user.is_some());
        if is_shared && !held {
            return self.end_long_waits_each(now, index, effects);
        }
        let Some(limit) = limit else { return };
        for id in self.pools.entry_mut(index).pool.overdue(now, limit) {
            self.pools.entry_mut(index).stats.wait_timeouts += 1;
            let report = if held { self.why_nobody(index, limit) } else { waited_too_long(limit) };
            self.end_wait(now, id, held, &report, effects);
        }
    }

    fn why_nobody(&self, index: PoolIndex, waited: Duration) -> Report {
        let role = self.pools.entry(index).key.role;
        why_not_held(&self.topology, role)
            .unwrap_or_else(|| no_leader(&self.topology, &self.why_held(index), waited))
    }

    /// What those who are held in this pool wait for.
    pub(crate) fn why_held(&self, index: PoolIndex) -> String {
        let entry = self.pools.entry(index);
        if entry.pool.has_no_target() {
            return self.topology.why_held().unwrap_or("no replica may serve reads").to_owned();
        }
        let who = match (entry.key.role, &self.topology.leader) {
            (Role::Write, Leadership::Led { member, .. }) => format!("{member} is said to lead"),
            (Role::Write | Role::Read, _) => "members are said to serve reads".to_owned(),
        };
        let last = entry.last_failure.as_ref();
        let last = last.map(|last| last.detail.as_ref().unwrap_or(&last.message).trim_end_matches('.'));
        format!("{who}, but no login succeeds there: {}", last.unwrap_or("none has come to an end"))
    }

    fn end_long_waits_each(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        let PoolKey { database, user, .. } = self.pools.entry(index).key.clone();
        let Self { pools, clients, config, .. } = self;
        let limit = |id: ClientId| {
            let open = clients.get(key(id.0)).and_then(|client| client.open());
            let user = open.map_or(user.as_str(), |open| open.user(&user));
            sizes::query_wait_timeout(config, &database, user)
        };
        let overdue = pools.entry_mut(index).pool.overdue_each(now, limit);
        let overdue: Vec<_> = overdue.into_iter().map(|id| (id, limit(id).unwrap_or_default())).collect();
        for (id, limit) in overdue {
            self.pools.entry_mut(index).stats.wait_timeouts += 1;
            self.end_wait(now, id, false, &waited_too_long(limit), effects);
        }
    }

    fn end_wait(&mut self, now: Instant, id: ClientId, held: bool, report: &Report, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let is_inside = client.inside.is_some();
        let Some(open) = client.open_mut() else { return };
        open.waiting_since = None;
        if is_inside {
            self.lookup_failed(now, id, report, effects);
        } else if held {
            self.log_pooler_error(id, report);
            let Some(open) = self.clients.get_mut(key(id.0)).and_then(Client::open_mut) else { return };
            open.session.refuse_next(report.clone());
            self.client_turn(now, id, &[], effects);
        } else {
            self.refuse_client(now, id, report, effects);
        }
    }

    fn close_old(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        let pool = &mut self.pools.entry_mut(index).pool;
        let mut old = pool.expired(now);
        old.extend(pool.rebalance(now));
        for server in old {
            self.close_server(server, effects);
        }
    }
}

/// How long a request may be held.
pub(crate) fn hold_timeout(upstream: &Upstream) -> Option<Duration> {
    match upstream {
        Upstream::Patroni(patroni) => Some(patroni.hold_timeout),
        Upstream::Plain { .. } | Upstream::None => None,
    }
}

/// The hold has lasted too long for this request; the client stays.
pub(crate) fn no_leader(topology: &Topology, why: &str, limit: Duration) -> Report {
    let mut report =
        Report::error(SqlState::CANNOT_CONNECT_NOW, "no database server is available for this request")
            .detail(format!("Waited {} s (hold_timeout): {why}.", limit.as_secs()))
            .hint("Nothing was executed. Try again; the connection to weir can go on being used.");
    if let Some(number) = topology.failover_under_way() {
        name_failover(&mut report, number);
    }
    report
}

/// With several hosts one that does not answer a dial is given up after this, if not earlier.
const ONE_OF_MANY_TIME_MAX: Duration = Duration::from_secs(3);

/// PgBouncer's words, which drivers and people know.
fn waited_too_long(limit: Duration) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, "query_wait_timeout")
        .detail(format!(
            "No server connection became free within {} s; nothing was executed.",
            limit.as_secs()
        ))
        .hint("Raise the pool size or shorten transactions.")
}

/// Why a request is not held although nobody can serve it now: no wait would help, or none is wanted.
pub(crate) fn why_not_held(topology: &Topology, role: Role) -> Option<Report> {
    match role {
        Role::Read if topology.fallback == ReadFallback::Error => Some(
            Report::error(SqlState::CANNOT_CONNECT_NOW, "no replica may serve reads")
                .hint("See SHOW MEMBERS in the console for the reason of each member."),
        ),
        Role::Write if topology.is_standby_cluster => Some(
            Report::error(
                SqlState::CANNOT_CONNECT_NOW,
                "this is a standby cluster, nobody in it takes writes",
            )
            .detail("It follows another cluster until it is promoted.")
            .hint("Send writes to the other cluster, and reads to weir's read port."),
        ),
        Role::Read | Role::Write => None,
    }
}
