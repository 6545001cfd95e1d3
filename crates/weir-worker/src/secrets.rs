//! Where secrets come from: the user list, an auth_query run on PostgreSQL, and the keys that a client's own login
//! reveals (pass-through). The last live in memory only.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_auth::StoredSecret;
use weir_auth::scram::DerivedKeys;
use weir_config::DEFAULT_AUTH_QUERY;
use weir_pool::ClientId;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::SecretKey;
use weir_protocol::tag::FromServer;
use weir_protocol::{backend, frontend};
use weir_session::client_login::Admitted;
use weir_session::server_login::{ServerCredential, ServerSecret};
use weir_session::settings::{Reported, Settings};
use weir_session::{Mode, Session};

use crate::client::{Client, Open, Stage};
use crate::io::{Accepted, Effects, Role};
use crate::pools::{PoolIndex, PoolKey};
use crate::{Worker, client_id, key};

/// What a worker remembers about secrets.
pub(crate) struct Secrets {
    /// Makes the mock salts of unknown users stable within this process.
    pub(crate) mock: [u8; 32],
    /// By user: how to log in to PostgreSQL as them. With the database that told the secret, unless the user list did:
    /// the keys belong to the salt of one secret, and databases may be on different servers.
    learned: HashMap<(Option<String>, String), ServerSecret>,
    /// By user: keys derived from the user list's plaintext for PostgreSQL's salt.
    derived_keys: HashMap<String, DerivedKeys>,
    /// By (database, user): what auth_query returned lately.
    fetched: HashMap<(String, String), Fetched>,
    /// By (database, user): the query under way.
    lookups: HashMap<(String, String), ClientId>,
}

struct Fetched {
    secret: StoredSecret,
    at: Instant,
}

/// An auth_query under way, run by a client of weir's own.
pub(crate) struct Lookup {
    database: String,
    user: String,
    /// Clients that wait for the secret, with their serials.
    waiters: Vec<(ClientId, u64)>,
    reply: Vec<u8>,
    /// Kept to be sent once more if the connection is lost.
    request: Option<Vec<u8>>,
}

impl Lookup {
    /// Keeps what a client would receive, up to a bound.
    pub(crate) fn keep_reply(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(&mut self.reply);
        self.reply.truncate(REPLY_BYTES_MAX);
    }
}

/// How secrets are looked up for the clients of a database.
struct Asking {
    /// Client-facing database in which the query runs.
    database: String,
    user: String,
    query: String,
}

/// What became of an auth_query.
enum Found {
    /// The user has this secret.
    Secret(StoredSecret),
    /// There is such a user, and nothing to hold a password against.
    NoSecret,
    /// There is no such user.
    Nobody,
    /// PostgreSQL (or weir) could not answer.
    Failed(Report),
}

impl Secrets {
    pub(crate) fn new(mock: [u8; 32]) -> Self {
        Self {
            mock,
            learned: HashMap::new(),
            derived_keys: HashMap::new(),
            fetched: HashMap::new(),
            lookups: HashMap::new(),
        }
    }

    /// A client proved that it knows the password, and so revealed what opens the server.
    fn learn(&mut self, told_by: Option<&str>, user: &str, secret: ServerSecret) {
        self.learned.insert((told_by.map(str::to_owned), user.to_owned()), secret);
    }

    /// Keys were derived from a listed password for this server's salt: the next login needs not do it again.
    pub(crate) fn learn_derived(&mut self, user: &str, derived: DerivedKeys) {
        self.derived_keys.insert(user.to_owned(), derived);
    }

    /// PostgreSQL did not take what was known about a user.
    pub(crate) fn forget(&mut self, user: &str) {
        self.learned.retain(|(_, other), _| other != user);
        self.derived_keys.remove(user);
        self.fetched.retain(|(_, other), _| other != user);
    }

    /// What auth_query told about a user did not fit what the user knows.
    pub(crate) fn forget_fetched(&mut self, wanted: &(String, String)) {
        self.fetched.remove(wanted);
    }

    /// A reload may have changed the user list.
    pub(crate) fn forget_derived(&mut self) {
        self.derived_keys.clear();
        self.fetched.clear();
    }
}

impl Worker {
    /// How to log in to PostgreSQL for this pool.
    pub(crate) fn server_credential(&self, pool: &PoolKey) -> ServerCredential {
        let user = pool.user.as_str();
        let listed = self.config.auth.users.get(user);
        let forced = self.config.database(&pool.database).filter(|own| own.user.as_deref() == Some(user));
        let secret = match (forced.and_then(|own| own.password.as_ref()), listed) {
            (Some(password), _) | (None, Some(StoredSecret::Plain(password))) => {
                Some(ServerSecret::password(password.clone()))
            }
            (None, Some(StoredSecret::Md5(_) | StoredSecret::Scram(_)) | None) => None,
        };
        let told_by = listed.is_none().then(|| pool.database.clone());
        let learned = || self.secrets.learned.get(&(told_by, user.to_owned())).cloned();
        let secret = secret.or_else(learned).or_else(|| match listed {
            Some(StoredSecret::Md5(hash)) => Some(ServerSecret::Md5(hash.clone())),
            Some(StoredSecret::Plain(_) | StoredSecret::Scram(_)) | None => None,
        });
        let secret = secret.map(|secret| match secret {
            ServerSecret::Password { password, derived: _ } => {
                ServerSecret::Password { password, derived: self.secrets.derived_keys.get(user).cloned() }
            }
            ServerSecret::Keys(_) | ServerSecret::Md5(_) => secret,
        });
        ServerCredential { user: user.to_owned(), secret }
    }

    /// What a client's proof tells about its user.
    pub(crate) fn learn_secret(&mut self, admitted: &mut Admitted) {
        // Keys of a listed password belong to a salt of weir's own.
        if matches!(self.config.auth.users.get(&admitted.user), Some(StoredSecret::Plain(_))) {
            return;
        }
        let password = admitted.password.take().map(ServerSecret::password);
        let keys = admitted.keys.take().map(ServerSecret::Keys);
        let hash = admitted.md5.take().map(ServerSecret::Md5);
        if let Some(secret) = password.or(keys).or(hash) {
            let is_listed = self.config.auth.users.get(&admitted.user).is_some();
            self.secrets.learn((!is_listed).then_some(&admitted.database), &admitted.user, secret);
        }
    }

    /// A login machine wants to know a user's secret: answers at once, or starts an auth_query.
    pub(crate) fn find_secret(
        &mut self,
        now: Instant,
        id: ClientId,
        user: String,
        database: String,
        effects: &mut Effects,
    ) {
        if let Some(secret) = self.config.auth.users.get(&user) {
            return self.answer_secret(now, id, Some(secret.clone()), effects);
        }
        if crate::console::is_console(&database) || self.asking(&database).is_none() {
            return self.answer_secret(now, id, None, effects);
        }
        let wanted = (database, user);
        if self.fetched_secret(now, &wanted).is_none() && self.is_suspect(now, id) {
            return self.hold_back_lookup(id, wanted);
        }
        self.look_up(now, id, wanted, effects);
    }

    /// Asks auth_query, unless it has answered lately.
    pub(crate) fn look_up(
        &mut self,
        now: Instant,
        id: ClientId,
        wanted: (String, String),
        effects: &mut Effects,
    ) {
        if let Some(secret) = self.fetched_secret(now, &wanted) {
            self.note_cached(id, &wanted);
            return self.answer_secret(now, id, Some(secret), effects);
        }
        let Some(serial) = self.note_asking(id, &wanted) else { return };
        if let Some(lookup) = self.secrets.lookups.get(&wanted).copied()
            && let Some(inside) =
                self.clients.get_mut(key(lookup.0)).and_then(|client| client.inside.as_mut())
        {
            debug_assert!(
                inside.database == wanted.0 && inside.user == wanted.1,
                "a lookup of somebody else"
            );
            inside.waiters.push((id, serial));
            return;
        }
        self.start_lookup(now, wanted, vec![(id, serial)], effects);
    }

    /// How the secret of a client of `database` is looked up; `None`: it is not.
    fn asking(&self, database: &str) -> Option<Asking> {
        let (own, auth) = (self.config.database(database)?, &self.config.auth);
        let user = own.auth_user.as_ref().or(auth.user.as_ref())?.clone();
        // A database's own auth_user needs no query of its own, either.
        let usual = || own.auth_user.as_ref().map(|_| DEFAULT_AUTH_QUERY);
        let query = own.auth_query.as_deref().or(auth.query.as_deref()).or_else(usual)?.to_owned();
        let place = own.auth_database.as_ref().or(auth.database.as_ref());
        let database = place.map_or(database, String::as_str).to_owned();
        self.config.database(&database).is_some().then_some(Asking { database, user, query })
    }

    /// Whether somebody could know a user of this database who is not in the user list.
    pub(crate) fn is_asked_for(&self, database: &str) -> bool {
        self.asking(database).is_some()
    }

    /// Whether users commonly have secrets that md5 can check: that is what an unknown user is asked for, too.
    pub(crate) fn md5_is_usual(&self) -> bool {
        let is_md5 = |secret: &StoredSecret| !matches!(secret, StoredSecret::Scram(_));
        if self.config.auth.user.is_some() {
            return self.secrets.fetched.values().any(|fetched| is_md5(&fetched.secret));
        }
        self.config.auth.users.iter().any(|(_, secret)| is_md5(secret))
    }

    /// What auth_query returned lately. During a hold an old answer is better than none.
    fn fetched_secret(&self, now: Instant, wanted: &(String, String)) -> Option<StoredSecret> {
        let fetched = self.secrets.fetched.get(wanted)?;
        let fresh = now.saturating_duration_since(fetched.at) < FETCHED_FOR;
        let held = matches!(self.topology.leader, weir_discovery::Leadership::Leaderless { .. })
            && crate::places::follows_cluster(&self.config, &wanted.0);
        (fresh || held).then(|| fetched.secret.clone())
    }

    fn note_cached(&mut self, id: ClientId, wanted: &(String, String)) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        if let Stage::Login(login) = &mut client.stage {
            login.cached = Some(wanted.clone());
        }
    }

    fn note_asking(&mut self, id: ClientId, wanted: &(String, String)) -> Option<u64> {
        let client = self.clients.get_mut(key(id.0))?;
        if let Stage::Login(login) = &mut client.stage {
            login.asking = Some(wanted.clone());
        }
        Some(client.serial)
    }

    /// Makes a client of weir's own that runs the auth_query as auth_user, in the pool that auth_user's clients share.
    fn start_lookup(
        &mut self,
        now: Instant,
        wanted: (String, String),
        waiters: Vec<(ClientId, u64)>,
        effects: &mut Effects,
    ) {
        let mut role = Role::Write;
        let asked = self.asking(&wanted.0).and_then(|Asking { database, user, query }| {
            role = self.lookup_role(&database);
            Some((query, self.pool_for(PoolKey { database, user, role })?))
        });
        let Some((query, pool)) = asked else {
            for (id, _) in waiters {
                self.answer_secret(now, id, None, effects);
            }
            return;
        };
        // The server's own defaults, whatever the asking client's startup packet says: its search_path must not choose
        // which functions the auth_query finds (CVE-2025-12819).
        let settings = self.settings.intern(Settings::default());
        let told = self.catalog.reported.intern(Reported::default());
        let rules = crate::pools::rules_inside(&self.config, self.pools.entry(pool));
        let serial = self.next_serial();
        let mut client = Client::new(Accepted { role, peer: None, local: None, unix: None }, now, serial);
        client.stage = Stage::Open(Box::new(Open {
            session: Session::new(Mode::Transaction, rules, settings, told),
            pool,
            server: None,
            waiting_since: None,
            request_at: now,
            active_at: now,
            notified_of: None,
            cancel_key: SecretKey::new(&self.chance.bytes::<32>()).unwrap_or_else(no_key),
            application_name: "".into(),
            user: None,
        }));
        let request = lookup_request(&query, &wanted.1);
        let (database, user) = wanted.clone();
        let reply = Vec::new();
        let kept = Some(request.clone());
        client.inside = Some(Box::new(Lookup { database, user, waiters, reply, request: kept }));
        let id = client_id(self.clients.insert(client));
        self.secrets.lookups.insert(wanted, id);
        self.point_if_new(now, pool, effects);
        self.client_turn(now, id, &request, effects);
        self.lookup_interrupted(now, id, effects);
    }

    /// Secrets are the same on every member; while there is no leader a replica is asked.
    fn lookup_role(&self, database: &str) -> Role {
        if crate::places::has_hosts(&self.config, database) {
            return Role::Write;
        }
        match (&self.topology.leader, self.topology.replicas.is_empty()) {
            (weir_discovery::Leadership::Leaderless { .. }, false) => Role::Read,
            (weir_discovery::Leadership::Leaderless { .. }, true)
            | (weir_discovery::Leadership::Led { .. }, _) => Role::Write,
        }
    }

    /// The auth_query's server connection has been released: the reply is complete.
    pub(crate) fn lookup_answered(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(lookup) = self.clients.get_mut(key(id.0)).and_then(|client| client.inside.as_mut()) else {
            return;
        };
        let found = read_reply(&lookup.reply).unwrap_or_else(|| Found::Failed(unreadable()));
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

    /// Something else than a server's reply may have ended the auth_query: an error of weir's own.
    pub(crate) fn lookup_interrupted(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let ended = client.inside.as_ref().is_some_and(|lookup| read_reply(&lookup.reply).is_some());
        if ended && client.server().is_none() && !client.is_waiting() {
            self.lookup_answered(now, id, effects);
        }
    }

    /// No server connection could be had for the auth_query.
    pub(crate) fn lookup_failed(
        &mut self,
        now: Instant,
        id: ClientId,
        report: &Report,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.try_remove(key(id.0)) else { return };
        if let Stage::Open(open) = &client.stage {
            self.free_held(now, id, open, effects);
        }
        if let Some(lookup) = client.inside {
            self.finish_lookup(now, *lookup, Found::Failed(report.clone()), effects);
        }
    }

    fn finish_lookup(&mut self, now: Instant, lookup: Lookup, found: Found, effects: &mut Effects) {
        let wanted = (lookup.database, lookup.user);
        self.secrets.lookups.remove(&wanted);
        let refusal = match &found {
            Found::Failed(report) => Some(self.lookup_error(&wanted.0, report)),
            Found::Secret(_) | Found::NoSecret | Found::Nobody => None,
        };
        match &found {
            Found::Secret(secret) => {
                self.verifiers.note_told(secret);
                self.secrets.fetched.insert(wanted.clone(), Fetched { secret: secret.clone(), at: now });
                self.secrets
                    .fetched
                    .retain(|_, fetched| now.saturating_duration_since(fetched.at) < FETCHED_KEPT);
            }
            Found::NoSecret | Found::Nobody => self.secrets.forget(&wanted.1),
            Found::Failed(report) => {
                tracing::warn!(database = %wanted.0, user = %wanted.1, "auth_query failed: {}", report.message);
            }
        }
        for (id, serial) in lookup.waiters {
            if self.clients.get(key(id.0)).is_none_or(|client| client.serial != serial) {
                continue;
            }
            match (&refusal, &found) {
                (Some(report), _) => self.refuse_login(now, id, report, effects),
                (None, Found::Secret(secret)) => self.answer_secret(now, id, Some(secret.clone()), effects),
                (None, Found::NoSecret) => self.answer_existence(now, id, effects),
                (None, Found::Nobody | Found::Failed(_)) => self.answer_secret(now, id, None, effects),
            }
        }
    }

    /// What a client hears when its secret could not be looked up. PostgreSQL's own words may tell about other users, so
    /// they go to the log only.
    fn lookup_error(&self, database: &str, report: &Report) -> Report {
        if let Some(Asking { database, user, query: _ }) = self.asking(database)
            && report.code.is_class(b"28")
            && self
                .server_credential(&PoolKey { database, user: user.clone(), role: Role::Write })
                .secret
                .is_none()
        {
            return no_way_to_ask(&user);
        }
        Report::fatal(SqlState::CONNECTION_FAILURE, "the user could not be looked up on the server")
            .detail(format!("auth_query failed with SQLSTATE {}.", report.code.as_str()))
            .hint("See weir's log.")
    }

    /// A client on its way in left: nobody is asked on its behalf any longer.
    pub(crate) fn forget_asking(&mut self, id: ClientId, asking: Option<(String, String)>) {
        let Some(lookup) = asking.and_then(|wanted| self.secrets.lookups.get(&wanted).copied()) else {
            return;
        };
        if let Some(inside) = self.clients.get_mut(key(lookup.0)).and_then(|client| client.inside.as_mut()) {
            inside.waiters.retain(|(other, _)| *other != id);
        }
    }

    /// A hold has begun: what waits for a leader asks a replica instead.
    pub(crate) fn move_lookups(&mut self, now: Instant, effects: &mut Effects) {
        let lookups: Vec<ClientId> = self.secrets.lookups.values().copied().collect();
        for id in lookups {
            let Some(open) =
                self.clients.get(key(id.0)).filter(|client| client.is_waiting()).and_then(Client::open)
            else {
                continue;
            };
            let PoolKey { database, user: _, role } = &self.pools.entry(open.pool).key;
            if *role != Role::Write || self.lookup_role(database) == Role::Write {
                continue;
            }
            self.pools.entry_mut(open.pool).pool.forget(id);
            let Some(lookup) = self.clients.try_remove(key(id.0)).and_then(|client| client.inside) else {
                continue;
            };
            let wanted = (lookup.database, lookup.user);
            self.secrets.lookups.remove(&wanted);
            self.start_lookup(now, wanted, lookup.waiters, effects);
        }
    }

    /// The server that these lookups wait for is out of reach, and nothing else will answer them.
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

/// The auth_query as one batch: PostgreSQL takes the user name as a parameter, never as part of the text.
fn lookup_request(query: &str, user: &str) -> Vec<u8> {
    let mut request = Vec::new();
    frontend::parse(b"", query.as_bytes(), frontend::NO_TYPES, &mut request);
    frontend::bind_text(b"", b"", &[Some(user.as_bytes())], &mut request);
    frontend::execute(b"", 1, &mut request);
    frontend::sync(&mut request);
    request
}

/// Finds the secret in what PostgreSQL replied: the second column of the first row. `None` if the reply is not complete.
fn read_reply(reply: &[u8]) -> Option<Found> {
    let mut rest = reply;
    let mut found = Found::Nobody;
    while let Ok(Some(header)) = frame::peek(rest, MESSAGE_BYTES_MAX) {
        let message = rest.get(..header.total)?;
        let body = &message[HEADER_BYTES..];
        match FromServer::of(header.tag) {
            Some(FromServer::DataRow) => found = read_row(body),
            Some(FromServer::ErrorResponse) => {
                let report = backend::read::report(body).map(|fields| fields.to_report());
                return Some(Found::Failed(report.unwrap_or_else(|_| unreadable())));
            }
            Some(FromServer::ReadyForQuery) => return Some(found),
            Some(_) => {}
            None => return Some(Found::Failed(unreadable())),
        }
        rest = &rest[header.total..];
    }
    None
}

fn read_row(body: &[u8]) -> Found {
    let Ok(values) = backend::read::data_row(body) else { return Found::Failed(unreadable()) };
    let [_, secret, ..] = values.as_slice() else {
        return Found::Failed(
            Report::error(SqlState::CONFIG_FILE_ERROR, "auth_query must return two columns")
                .hint("Return the user name and the secret, as in pg_shadow."),
        );
    };
    let Some(secret) = secret else { return Found::NoSecret };
    let Ok(text) = std::str::from_utf8(secret) else { return Found::Nobody };
    StoredSecret::parse(text).map_or_else(
        |_| {
            Found::Failed(Report::error(
                SqlState::CONFIG_FILE_ERROR,
                "auth_query returned a malformed secret",
            ))
        },
        Found::Secret,
    )
}

fn unreadable() -> Report {
    Report::error(SqlState::PROTOCOL_VIOLATION, "the reply to auth_query cannot be read")
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

/// How long an answer of auth_query is good: a password changed in PostgreSQL is known here no later.
const FETCHED_FOR: Duration = Duration::from_secs(5);

/// How long an answer is kept for a hold.
const FETCHED_KEPT: Duration = Duration::from_secs(3600);

/// A reply to auth_query is one short row.
const REPLY_BYTES_MAX: usize = 64 * 1024;
