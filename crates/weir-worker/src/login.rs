//! A client's way in: proof, limits, startup parameters, and the welcome that PostgreSQL would give.

use std::rc::Rc;
use std::time::Instant;

use weir_auth::StoredSecret;
use weir_config::TlsMode;
use weir_discovery::Leadership;
use weir_pool::ClientId;
use weir_protocol::backend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::Session;
use weir_session::client_login::{Admitted, ClientTls, Fresh, LoginPolicy, LoginStep, Method};
use weir_session::settings::{IN_HOT_STANDBY, Reported, Settings};

use crate::access::rejected;
use crate::client::{Demand, Open, Stage, Welcoming};
use crate::io::{ConnId, Effect, Effects, Role};
use crate::places;
use crate::pools::{self, PoolIndex, PoolKey, Purpose};
use crate::replication::Replication;
use crate::startup::startup_settings;
use crate::{Worker, cancel_key, key, sizes};

impl Worker {
    pub(crate) fn login_received(&mut self, now: Instant, id: ClientId, bytes: &[u8], effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let policy = LoginPolicy { tls: tls_policy(self.config.client_tls.mode, client.unix.is_some()) };
        let Stage::Login(login) = &mut client.stage else { return };
        let mut step = LoginStep::Wait;
        effects.send_with(ConnId::Client(id), |out| step = login.machine.received(bytes, &policy, out));
        self.login_step(now, id, step, effects);
    }

    pub(crate) fn login_step(&mut self, now: Instant, id: ClientId, step: LoginStep, effects: &mut Effects) {
        match step {
            LoginStep::Wait => {}
            LoginStep::StartTls => effects.list.push(Effect::StartTls(id)),
            LoginStep::BeginTls(flight) => {
                let start = effects.bytes.len();
                effects.bytes.extend_from_slice(&flight);
                effects.list.push(Effect::BeginTls(id, start..effects.bytes.len()));
            }
            LoginStep::Cancel(wanted) => self.cancel_requested(now, id, &wanted, effects),
            LoginStep::Named { user, database } => {
                self.log_login_attempt(id, &user, &database);
                self.named(now, id, user, database, effects);
            }
            LoginStep::Derive(derivation) => self.derive_for_client(now, id, derivation, effects),
            LoginStep::Refer(password) => self.refer(now, id, password, effects),
            LoginStep::Mismatch => self.doubt(now, id, effects),
            LoginStep::Admitted(admitted) => {
                self.log_login_attempt(id, &admitted.user, &admitted.database);
                self.note_success(id);
                if let Err(report) = self.admitted(now, id, *admitted, effects) {
                    self.refuse_login(now, id, &report, effects);
                }
            }
            LoginStep::Refused(report) => {
                if report.code == SqlState::INVALID_PASSWORD {
                    self.forget_cached(id);
                    return self.fail_login(now, id, &report, effects);
                }
                self.refuse_login(now, id, &report, effects);
            }
            LoginStep::Close => self.end_client(now, id, None, "closed during login", effects),
        }
    }

    /// Lets a client in of whom nothing is asked.
    pub(crate) fn admit(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        self.admit_with(now, id, None, effects);
    }

    fn admit_with(
        &mut self,
        now: Instant,
        id: ClientId,
        secret: Option<StoredSecret>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        let step = login.machine.admit(secret);
        self.login_step(now, id, step, effects);
    }

    /// What is stored for the user of a client on its way in is known now; `None`: nobody knows the user.
    pub(crate) fn answer_secret(
        &mut self,
        now: Instant,
        id: ClientId,
        secret: Option<StoredSecret>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        login.asking = None;
        if login.is_doubting {
            let step = login.machine.judge_again(secret);
            return self.login_step(now, id, step, effects);
        }
        match (login.demand, secret) {
            (Demand::Password(method), secret) => self.ask_password(now, id, method, secret, effects),
            (Demand::Existence(_), Some(secret)) => self.admit_with(now, id, Some(secret), effects),
            (Demand::Existence(method), None) => {
                // PgBouncer's words.
                let report = rejected(format!("\"{method}\" authentication failed"));
                self.fail_login(now, id, &report, effects);
            }
        }
    }

    /// The user of a client on its way in exists, and no password fits: enough where none is asked for.
    pub(crate) fn answer_existence(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        if login.is_doubting || matches!(login.demand, Demand::Password(_)) {
            return self.answer_secret(now, id, None, effects);
        }
        login.asking = None;
        self.admit(now, id, effects);
    }

    pub(crate) fn ask_password(
        &mut self,
        now: Instant,
        id: ClientId,
        method: Method,
        secret: Option<StoredSecret>,
        effects: &mut Effects,
    ) {
        let (nonce, md5_salt) = (self.chance.nonce(), self.chance.bytes());
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Stage::Login(login) = &client.stage else { return };
        let user = login.machine.startup().map(|startup| startup.user().to_owned()).unwrap_or_default();
        let method = match (method, &secret) {
            (Method::Md5, None) if !self.md5_is_usual() => Method::Scram,
            (Method::Scram | Method::Md5 | Method::Plain | Method::Elsewhere, _) => method,
        };
        let usual = self.config.auth.scram_iterations;
        let (iterations, derived, underived) = match (method, &secret) {
            (Method::Scram, Some(StoredSecret::Plain(password))) if !password.is_empty() => {
                let derived = self.verifiers.of(&user, password);
                let underived = derived.is_none().then(|| (user, password.clone()));
                (usual, derived, underived)
            }
            (Method::Scram | Method::Md5 | Method::Plain | Method::Elsewhere, _) => {
                (self.verifiers.mock_iterations(usual), None, None)
            }
        };
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        login.underived = underived;
        login.was_asked = true;
        let fresh = Fresh { nonce: &nonce, md5_salt, iterations, derived, mock_secret: &self.secrets.mock };
        let mut step = LoginStep::Wait;
        effects.send_with(ConnId::Client(id), |out| step = login.machine.ask(method, secret, fresh, out));
        self.login_step(now, id, step, effects);
    }

    /// The answer does not fit what is stored, or what was: an old secret is looked up once more before it counts.
    fn doubt(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let cached = self.forget_cached(id);
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        if let Some((database, user)) = cached {
            login.is_doubting = true;
            return self.find_secret(now, id, user, database, effects);
        }
        let step = login.machine.judge_again(None);
        self.login_step(now, id, step, effects);
    }

    /// The secret that this client was held against is not to be believed without asking again. Tells whose it is.
    fn forget_cached(&mut self, id: ClientId) -> Option<(String, String)> {
        let client = self.clients.get_mut(key(id.0))?;
        let Stage::Login(login) = &mut client.stage else { return None };
        let cached = login.cached.take()?;
        self.secrets.forget_fetched(&cached);
        Some(cached)
    }

    /// The client has proven who it is.
    fn admitted(
        &mut self,
        now: Instant,
        id: ClientId,
        mut admitted: Admitted,
        effects: &mut Effects,
    ) -> Result<(), Report> {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return Ok(()) };
        // What came behind the proof is the first request.
        client.carry = std::mem::take(&mut admitted.rest);
        if crate::console::is_console(&admitted.database) {
            return self.open_console(now, id, &admitted, effects);
        }
        let peer = client.peer_text();
        let Some(database) = self.config.database(&admitted.database) else {
            self.log_login_failed(id, &admitted.user, &admitted.database);
            return Err(no_such_database(&admitted.database));
        };
        self.check_disabled(&admitted.database)?;
        if !self.lets_logins_finish() {
            return Err(shutting_down());
        }
        self.check_limits(&admitted.database, &admitted.user)?;
        let replication = Replication::wanted(&admitted.startup)?;
        let settings = match replication {
            None => startup_settings(&admitted.startup, &self.config.session, &peer, &database.parameters)?,
            Some(_) => Settings::default(),
        };
        self.learn_secret(&mut admitted);
        let role = self.clients.get(key(id.0)).map_or(Role::Write, |client| client.role);
        let user = pools::server_user(&self.config, &admitted.database, &admitted.user);
        let wanted = PoolKey { database: admitted.database.clone(), user, role, purpose: Purpose::Clients };
        let Some(pool) = self.pool_for(wanted) else { return Err(too_many_pools()) };
        if let Some(kind) = replication {
            self.open_replication(now, id, admitted, kind, pool, effects);
            return Ok(());
        }
        let Some(client) = self.clients.get_mut(key(id.0)) else { return Ok(()) };
        let user = admitted.user.clone();
        client.stage = Stage::Welcoming(Box::new(Welcoming { admitted, settings, pool }));
        self.count_client(pool, &user);
        self.pools.entry_mut(pool).welcoming.push(id);
        self.point_if_new(now, pool, effects);
        self.welcome_all(now, pool, effects);
        Ok(())
    }

    fn check_disabled(&self, database: &str) -> Result<(), Report> {
        if !self.disabled.contains(database) {
            return Ok(());
        }
        Err(Report::fatal(SqlState::CANNOT_CONNECT_NOW, format!("database \"{database}\" is disabled"))
            .detail("An operator has disabled it on the console."))
    }

    /// Lets in everybody who waits for the values that PostgreSQL reports at login; if they are not known, asks for a
    /// server connection to learn them from.
    pub(crate) fn welcome_all(&mut self, now: Instant, index: PoolIndex, effects: &mut Effects) {
        let entry = self.pools.entry_mut(index);
        if entry.welcoming.is_empty() {
            return;
        }
        if entry.reported.is_none() && entry.pool.held() {
            self.borrow_reported(index);
        }
        if self.pools.entry(index).reported.is_none() {
            if self.refuse_newcomers(now, index, effects) {
                return;
            }
            self.pools.entry_mut(index).pool.demand_one(now);
            return self.pump(now, index, effects);
        }
        for id in std::mem::take(&mut self.pools.entry_mut(index).welcoming) {
            self.welcome(now, id, effects);
        }
    }

    /// During a hold nobody can be asked what PostgreSQL reports; at the other door somebody may have been.
    fn borrow_reported(&mut self, index: PoolIndex) {
        let mut key = self.pools.entry(index).key.clone();
        let is_read_only;
        (key.role, is_read_only) = match key.role {
            Role::Write => (Role::Read, "off"),
            Role::Read => (Role::Write, "on"),
        };
        let mut reported = self.pools.find(&key).and_then(|other| self.pools.entry(other).reported.clone());
        // Every connection for reads is asked for read-only transactions, which is true of that door only.
        if let Some(reported) = reported.as_mut().map(Rc::make_mut)
            && reported.value(READ_ONLY).is_some()
        {
            reported.note(READ_ONLY, is_read_only);
        }
        self.pools.entry_mut(index).reported = reported;
    }

    fn welcome(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        let secret: [u8; 32] = self.chance.bytes();
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Stage::Welcoming(waiting) = &client.stage else { return };
        let standby = self.says_standby(waiting.pool);
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Welcoming(waiting) = &client.stage else { return };
        let entry = self.pools.entry(waiting.pool);
        let reported = entry.reported.clone().unwrap_or_default();
        let told = self.catalog.reported.intern(told_at_login(&reported, &waiting.settings));
        // Version 3.0 knows keys of four bytes only (protocol chapter, "BackendKeyData").
        let length = if waiting.admitted.minor >= 2 { secret.len() } else { 4 };
        let peer_id = self.config.peer_id;
        let Some(own) = cancel_key::make(peer_id, self.index, id, &secret, length) else { return };
        effects.send_with(ConnId::Client(id), |out| {
            backend::authentication_ok(out);
            for (name, value) in told.iter() {
                backend::parameter_status(name.as_bytes(), value.as_bytes(), out);
            }
            backend::parameter_status(IN_HOT_STANDBY.as_bytes(), standby, out);
            backend::backend_key_data(own.pid, own.secret.as_bytes(), out);
            backend::ready_for_query(b'I', out);
        });
        self.totals.logins_accepted += 1;
        let pool = waiting.pool;
        let mode = sizes::mode(&self.config, &entry.key.database, &waiting.admitted.user);
        let Stage::Welcoming(waiting) = std::mem::replace(&mut client.stage, Stage::placeholder()) else {
            return;
        };
        let rules = pools::rules(&self.config, entry);
        let application_name = waiting.settings.value("application_name").unwrap_or_default().into();
        let settings = self.settings.intern(waiting.settings);
        let user = waiting.admitted.user;
        client.stage = Stage::Open(Box::new(Open {
            session: Session::new(mode, rules, settings, told),
            pool,
            server: None,
            waiting_since: None,
            held_since: None,
            request_at: now,
            active_at: now,
            notified_of: None,
            cancel_key: own.secret,
            application_name,
            user: (user != entry.key.user).then(|| user.into()),
        }));
        self.client_turn(now, id, &[], effects);
    }

    /// weir's own answer for `in_hot_standby`, so that `target_session_attrs` chooses the right door.
    fn says_standby(&self, pool: PoolIndex) -> &'static [u8] {
        let entry = self.pools.entry(pool);
        let falls_back = self.topology.replicas.iter().all(|target| target.is_primary)
            && matches!(self.topology.leader, Leadership::Led { .. });
        let standby = match places::has_hosts(&self.config, &entry.key.database) {
            true => entry.in_hot_standby,
            false => entry.key.role == Role::Read && !falls_back,
        };
        if standby { b"on" } else { b"off" }
    }
}

/// Unix sockets need no encryption, and PgBouncer offers none there.
fn tls_policy(mode: TlsMode, by_unix_socket: bool) -> ClientTls {
    match mode {
        _ if by_unix_socket => ClientTls::Off,
        TlsMode::Disable => ClientTls::Off,
        TlsMode::Allow | TlsMode::Prefer => ClientTls::Allowed,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => ClientTls::Required,
    }
}

/// What PostgreSQL would report to a client that asked for these settings. Where PostgreSQL writes a value differently
/// than the client did, the first checkout brings the correction.
fn told_at_login(reported: &Reported, settings: &Settings) -> Reported {
    let mut told = reported.clone();
    for (name, _) in reported.iter() {
        if let Some(value) = settings.value(&name.to_ascii_lowercase()) {
            told.note(name, value);
        }
    }
    told
}

/// PgBouncer's words. They come after the proof, so that only users learn which databases there are.
fn no_such_database(name: &str) -> Report {
    Report::fatal(SqlState::PROTOCOL_VIOLATION, format!("no such database: {name}"))
}

fn too_many_pools() -> Report {
    Report::fatal(SqlState::TOO_MANY_CONNECTIONS, "too many different databases and users")
}

pub(crate) fn shutting_down() -> Report {
    Report::fatal(SqlState::ADMIN_SHUTDOWN, "weir is shutting down").hint("Connect again.")
}

/// What makes :6433 refuse writes, wherever its connections lead.
pub(crate) const READ_ONLY: &str = "default_transaction_read_only";
