//! A question to PostgreSQL about a user: asked by a client of weir's own, in a pool that is for such questions only. So a
//! question needs no server connection of auth_user's ordinary clients, takes none from them, and queue, retry and failover
//! rules are the same code. Each question has a deadline; those of a database wait for those of no other.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use weir_discovery::Leadership;
use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::SecretKey;
use weir_session::settings::{Reported, Settings};
use weir_session::{Mode, Session};

use super::asking::Asking;
use super::reply::{self, Found};
use super::{Question, Wanted, Whose};
use crate::client::{Client, Open, Stage};
use crate::io::{Accepted, Effects, Role};
use crate::pools::{self, PoolIndex, PoolKey, Purpose};
use crate::{Worker, client_id, key};

/// A question under way, asked by a client of weir's own.
pub(crate) struct Lookup {
    pub(super) wanted: Wanted,
    /// Clients that wait for the answer, with their serials.
    pub(super) waiters: Vec<(ClientId, u64)>,
    reply: Vec<u8>,
    /// Kept to be sent once more if the connection is lost.
    request: Option<Vec<u8>>,
    /// When its time began to run.
    since: Instant,
    /// The configuration has changed since it was asked: the answer may be one to another question.
    is_stale: bool,
}

impl Lookup {
    /// Keeps what a client would receive, up to a bound.
    pub(crate) fn keep_reply(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(&mut self.reply);
        self.reply.truncate(REPLY_BYTES_MAX);
    }

    fn answer(&self) -> Option<Found> {
        reply::read(self.wanted.question, &self.reply)
    }
}

impl Worker {
    /// Makes a client of weir's own that asks as auth_user.
    pub(super) fn start_lookup(
        &mut self,
        now: Instant,
        wanted: Wanted,
        waiters: Vec<(ClientId, u64)>,
        effects: &mut Effects,
    ) {
        let Some((request, pool)) = self.place_lookup(&wanted) else {
            let refused = Report::error(SqlState::TOO_MANY_CONNECTIONS, "too many pools to look users up in");
            return self.answer_waiters(now, wanted, waiters, Found::Failed(refused), effects);
        };
        // Neither the asking client's startup packet nor ALTER ROLE or ALTER DATABASE chooses which functions and operators
        // the query finds (CVE-2025-12819).
        let settings = self.settings.intern(Settings::from_startup([("search_path", SEARCH_PATH)]));
        let told = self.catalog.reported.intern(Reported::default());
        let rules = pools::rules_inside(&self.config, self.pools.entry(pool));
        let serial = self.next_serial();
        let role = self.pools.entry(pool).key.role;
        let mut client = Client::new(Accepted { role, peer: None, local: None, unix: None }, now, serial);
        client.stage = Stage::Open(Box::new(Open {
            session: Session::new(Mode::Transaction, rules, settings, told),
            pool,
            server: None,
            waiting_since: None,
            held_since: None,
            request_at: now,
            active_at: now,
            notified_of: None,
            cancel_key: SecretKey::new(&self.chance.bytes::<32>()).unwrap_or_else(no_key),
            application_name: "".into(),
            user: None,
        }));
        let kept = Some(request.clone());
        let lookup = Lookup {
            wanted: wanted.clone(),
            waiters,
            reply: Vec::new(),
            request: kept,
            since: now,
            is_stale: false,
        };
        client.inside = Some(Box::new(lookup));
        let id = client_id(self.clients.insert(client));
        self.secrets.lookups.insert(wanted, id);
        self.point_if_new(now, pool, effects);
        self.client_turn(now, id, &request, effects);
        self.lookup_interrupted(now, id, effects);
    }

    /// What is asked, and in which pool.
    fn place_lookup(&mut self, wanted: &Wanted) -> Option<(Vec<u8>, PoolIndex)> {
        let Asking { database, user, query } = self.asking(&wanted.whose.0)?;
        let name = wanted.whose.1.as_str();
        let request = match wanted.question {
            Question::Secret => reply::request(&query, &[name], 1),
            Question::Groups => {
                let groups = reply::text_array(self.groups_that_matter(&wanted.whose.0).into_iter());
                reply::request(reply::GROUPS_QUERY, &[name, &groups], 0)
            }
        };
        let role = self.lookup_role(&database);
        let pool = self.pool_for(PoolKey { database, user, role, purpose: Purpose::Lookups })?;
        Some((request, pool))
    }

    /// Groups that a rule or a map names, and the one that is called like the database (`samerole`).
    fn groups_that_matter<'a>(&'a self, database: &'a str) -> BTreeSet<&'a str> {
        let auth = &self.config.auth;
        auth.hba.groups().chain(auth.ident.groups()).chain([database]).collect()
    }

    /// The server connection has been released: the reply is complete.
    pub(crate) fn lookup_answered(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(lookup) = self.clients.get_mut(key(id.0)).and_then(|client| client.inside.as_mut()) else {
            return;
        };
        let found = lookup.answer().unwrap_or_else(|| Found::Failed(reply::unreadable()));
        // To ask twice harms nobody.
        let is_in_doubt = |report: &Report| report.code == SqlState::TRANSACTION_RESOLUTION_UNKNOWN;
        if let Found::Failed(report) = &found
            && is_in_doubt(report)
            && let Some(request) = lookup.request.take()
        {
            lookup.reply.clear();
            return self.client_turn(now, id, &request, effects);
        }
        let Some(client) = self.clients.try_remove(key(id.0)) else { return };
        let Some(lookup) = client.inside else { return };
        self.finish_lookup(now, *lookup, found, effects);
    }

    /// Something else than a server's reply may have ended the question: an error of weir's own.
    pub(crate) fn lookup_interrupted(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let ended = client.inside.as_ref().is_some_and(|lookup| lookup.answer().is_some());
        if ended && client.server().is_none() && !client.is_waiting() {
            self.lookup_answered(now, id, effects);
        }
    }

    /// No server connection could be had for the question.
    pub(crate) fn lookup_failed(
        &mut self,
        now: Instant,
        id: ClientId,
        report: &Report,
        effects: &mut Effects,
    ) {
        self.end_lookup(now, id, Found::Failed(report.clone()), effects);
    }

    fn end_lookup(&mut self, now: Instant, id: ClientId, found: Found, effects: &mut Effects) {
        let Some(client) = self.clients.try_remove(key(id.0)) else { return };
        if let Stage::Open(open) = &client.stage {
            self.free_held(now, id, open, effects);
        }
        if let Some(lookup) = client.inside {
            self.finish_lookup(now, *lookup, found, effects);
        }
    }

    fn finish_lookup(&mut self, now: Instant, lookup: Lookup, found: Found, effects: &mut Effects) {
        self.secrets.lookups.remove(&lookup.wanted);
        if lookup.is_stale && !lookup.waiters.is_empty() {
            return self.start_lookup(now, lookup.wanted, lookup.waiters, effects);
        }
        if lookup.is_stale {
            return;
        }
        self.answer_waiters(now, lookup.wanted, lookup.waiters, found, effects);
    }

    fn answer_waiters(
        &mut self,
        now: Instant,
        Wanted { question: _, whose }: Wanted,
        waiters: Vec<(ClientId, u64)>,
        found: Found,
        effects: &mut Effects,
    ) {
        let found = Self::without_names_of_databases(&whose, found);
        let refusal = self.refusal(&whose.0, &found);
        let mut groups = Rc::default();
        match &found {
            Found::Secret(secret) => {
                self.secrets.fetched.keep(now, whose.clone(), secret.clone());
            }
            Found::NoSecret | Found::Nobody => self.secrets.forget(&whose.0, &whose.1),
            Found::Groups(found) => {
                groups = Rc::new(found.clone());
                self.secrets.groups.keep(now, whose.clone(), Rc::clone(&groups));
            }
            Found::Failed(report) => {
                tracing::warn!(database = %whose.0, user = %whose.1, "auth_query failed: {}", report.message);
            }
            Found::Late => {
                tracing::warn!(database = %whose.0, user = %whose.1, "auth_query was not answered in time");
            }
        }
        for (id, serial) in waiters {
            if self.clients.get(key(id.0)).is_none_or(|client| client.serial != serial) {
                continue;
            }
            match (&refusal, &found) {
                (Some(report), _) => self.refuse_login(now, id, report, effects),
                (None, Found::Secret(secret)) => self.answer_secret(now, id, Some(secret.clone()), effects),
                (None, Found::NoSecret) => self.answer_existence(now, id, effects),
                (None, Found::Groups(_)) => self.answer_groups(now, id, &groups, effects),
                (None, Found::Nobody | Found::Failed(_) | Found::Late) => {
                    self.answer_secret(now, id, None, effects);
                }
            }
        }
    }

    /// Strangers are not told which databases there are; the log is.
    fn without_names_of_databases(whose: &Whose, found: Found) -> Found {
        if let Found::Failed(report) = &found
            && report.code == SqlState::INVALID_CATALOG_NAME
        {
            tracing::warn!(database = %whose.0, user = %whose.1, "auth_query failed: {}", report.message);
            return Found::Nobody;
        }
        found
    }

    /// What a client hears when nothing could be found out about its user. PostgreSQL's own words may tell about other
    /// users, so they go to the log only.
    fn refusal(&self, database: &str, found: &Found) -> Option<Report> {
        let failed =
            Report::fatal(SqlState::CONNECTION_FAILURE, "the user could not be looked up on the server");
        let report = match found {
            Found::Secret(_) | Found::NoSecret | Found::Nobody | Found::Groups(_) => return None,
            Found::Late => {
                let limit = weir_config::show_duration(self.config.auth.query_timeout);
                return Some(
                    failed
                        .detail(format!("auth_query was not answered within {limit} (auth_query_timeout)."))
                        .hint("Try again. If it stays so, look for what the query waits for in PostgreSQL."),
                );
            }
            Found::Failed(report) => report,
        };
        if let Some(Asking { database, user, query: _ }) = self.asking(database)
            && report.code.is_class(b"28")
            && self.lacks_secret(database, &user)
        {
            return Some(no_way_to_ask(&user));
        }
        Some(
            failed
                .detail(format!("auth_query failed with SQLSTATE {}.", report.code.as_str()))
                .hint("See weir's log."),
        )
    }

    fn lacks_secret(&self, database: String, user: &str) -> bool {
        let pool = PoolKey { database, user: user.to_owned(), role: Role::Write, purpose: Purpose::Lookups };
        self.server_credential(&pool).secret.is_none()
    }

    /// Ends questions that PostgreSQL does not get done with, and tells it so. No time passes while nobody leads or the
    /// database is paused: then `client_login_timeout` bounds the wait.
    pub(crate) fn end_slow_lookups(&mut self, now: Instant, effects: &mut Effects) {
        if self.secrets.lookups.is_empty() {
            return;
        }
        let limit = self.config.auth.query_timeout;
        let lookups: Vec<ClientId> = self.secrets.lookups.values().copied().collect();
        for id in lookups {
            let Some(client) = self.clients.get_mut(key(id.0)) else { continue };
            let Some((Some(lookup), open)) = client.split_open() else { continue };
            let pool = &self.pools.entry(open.pool).pool;
            if open.server.is_none() && (pool.held() || pool.is_paused()) {
                lookup.since = now;
            }
            if now.saturating_duration_since(lookup.since) < limit {
                continue;
            }
            if let Some(server) = open.server.take() {
                self.cancel_overdue(now, server, effects);
                self.discard_because(now, server, "auth_query was not answered in time", effects);
            }
            self.end_lookup(now, id, Found::Late, effects);
        }
    }

    /// Forgets a question that no server connection is at work on.
    pub(super) fn drop_lookup(&mut self, id: ClientId) -> Option<Lookup> {
        let client = self.clients.try_remove(key(id.0))?;
        if let Some(open) = client.open() {
            self.pools.entry_mut(open.pool).pool.forget(id);
        }
        let lookup = client.inside?;
        self.secrets.lookups.remove(&lookup.wanted);
        Some(*lookup)
    }

    /// The question is under way on the server connection of a leader that has been given up: the answer may never come.
    fn is_stuck(&self, id: ClientId) -> bool {
        let Some(open) = self.clients.get(key(id.0)).and_then(Client::open) else { return false };
        let is_leaderless = matches!(self.topology.leader, Leadership::Leaderless { .. });
        open.server.is_some() && is_leaderless && self.follows_leader(open.pool)
    }

    /// Gives up a question that is under way, and its server connection. What its clients want to know is known already, or is
    /// asked where it would be asked now, in a time of its own: while nobody leads an old answer does, and a replica is as
    /// good; without a replica the question waits. The bound of it all is the clients' `client_login_timeout`.
    fn ask_elsewhere(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let server =
            self.clients.get_mut(key(id.0)).and_then(Client::open_mut).and_then(|open| open.server.take());
        let Some(Lookup { wanted, waiters, .. }) = self.drop_lookup(id) else { return };
        if let Some(server) = server {
            self.discard_because(now, server, "the leader was given up while it looked a user up", effects);
        }
        for (waiter, serial) in waiters {
            if self.clients.get(key(waiter.0)).is_some_and(|client| client.serial == serial) {
                self.look_up(now, waiter, wanted.clone(), effects);
            }
        }
    }

    /// A hold has begun or is over: what waits, or is under way on a leader that was given up, is asked where it would be
    /// asked now.
    pub(crate) fn move_lookups(&mut self, now: Instant, effects: &mut Effects) {
        let lookups: Vec<ClientId> = self.secrets.lookups.values().copied().collect();
        for id in lookups {
            if self.is_stuck(id) {
                self.ask_elsewhere(now, id, effects);
                continue;
            }
            let Some(open) =
                self.clients.get(key(id.0)).filter(|client| client.is_waiting()).and_then(Client::open)
            else {
                continue;
            };
            let PoolKey { database, role, .. } = &self.pools.entry(open.pool).key;
            if *role == self.lookup_role(database) {
                continue;
            }
            if let Some(lookup) = self.drop_lookup(id) {
                self.start_lookup(now, lookup.wanted, lookup.waiters, effects);
            }
        }
    }

    /// The configuration has changed: who is asked what, and which groups matter. Everything is asked anew.
    pub(crate) fn ask_anew(&mut self, now: Instant, effects: &mut Effects) {
        let lookups: Vec<ClientId> = self.secrets.lookups.values().copied().collect();
        for id in lookups {
            let Some(client) = self.clients.get_mut(key(id.0)) else { continue };
            if !client.is_waiting() {
                if let Some(lookup) = &mut client.inside {
                    lookup.is_stale = true;
                }
            } else if let Some(lookup) = self.drop_lookup(id) {
                self.start_lookup(now, lookup.wanted, lookup.waiters, effects);
            }
        }
    }

    /// The server that these questions wait for is out of reach, and nothing else will answer them.
    pub(crate) fn fail_lookups(
        &mut self,
        now: Instant,
        index: PoolIndex,
        report: &Report,
        effects: &mut Effects,
    ) {
        let lookups: Vec<ClientId> = self.secrets.lookups.values().copied().collect();
        for id in lookups {
            let client = self.clients.get(key(id.0));
            if client.is_some_and(|client| {
                client.is_waiting() && client.open().is_some_and(|open| open.pool == index)
            }) {
                self.lookup_failed(now, id, report, effects);
            }
        }
    }

    /// Closes a client that could not log in.
    pub(crate) fn refuse_login(
        &mut self,
        now: Instant,
        id: ClientId,
        report: &Report,
        effects: &mut Effects,
    ) {
        self.totals.logins_refused += 1;
        self.refuse_client(now, id, report, effects);
    }
}

/// auth_user itself cannot log in: a verifier tells whether somebody knows the password, and does not replace it.
fn no_way_to_ask(user: &str) -> Report {
    Report::fatal(
        SqlState::CONNECTION_FAILURE,
        format!("auth_query cannot be run: weir cannot log in to PostgreSQL as auth_user \"{user}\""),
    )
    .detail("A SCRAM verifier is not enough for that, and no password of that user is known.")
    .hint(
        "Give the password in the user list or in password_file, or let pg_hba.conf trust that user from weir's host.",
    )
}

/// A secret of the right length always makes a key; this is for the type only.
fn no_key() -> SecretKey {
    SecretKey::new(&[0; 4]).unwrap_or_else(no_key)
}

/// PostgreSQL's own functions and operators first, whatever stands in `public`, where a function without a schema is found as
/// by default; temporary tables last.
const SEARCH_PATH: &str = "pg_catalog, public, pg_temp";

/// A reply to auth_query is one short row; a user's groups are a few.
const REPLY_BYTES_MAX: usize = 64 * 1024;
