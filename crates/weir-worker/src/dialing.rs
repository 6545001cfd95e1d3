//! A server connection's way in: dialed by the shell, logged in and fenced here, then given to the first in the queue.

use std::rc::Rc;
use std::time::Instant;

use weir_config::{ChannelBinding, TlsMode};
use weir_discovery::SessionEvidence;
use weir_pool::{DialFailure, ServerId};
use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;
use weir_session::Server;
use weir_session::server_login::{Fence, LoginFailure, Ready, ServerLogin, ServerStep};
use weir_session::settings::{IN_HOT_STANDBY, Reported, Settings};

use crate::io::{ConnId, DialError, Dialed, Effect, Effects, Encryption, Role};
use crate::login::READ_ONLY;
use crate::places;
use crate::pools::{PoolIndex, PoolKey};
use crate::server::{ServerConn, ServerStage};
use crate::{Worker, key};

impl Worker {
    /// What became of [`Effect::Dial`].
    pub fn dialed(
        &mut self,
        now: Instant,
        conn: ConnId,
        result: Result<Dialed, DialError>,
        effects: &mut Effects,
    ) {
        match conn {
            ConnId::Server(id) => match result {
                Ok(dialed) => self.server_reached(id, dialed, effects),
                Err(why) => self.server_unreachable(now, id, &why, effects),
            },
            ConnId::Cancel(id) => self.cancel_dialed(now, id, result.map(|_| ()), effects),
            ConnId::Client(_) => debug_assert!(false, "clients are not dialed"),
        }
    }

    fn server_reached(&mut self, id: ServerId, dialed: Dialed, effects: &mut Effects) {
        let nonce = self.chance.nonce();
        let Some(conn) = self.servers.get(key(id.0)) else { return };
        let entry = self.pools.entry(conn.pool);
        let wish = self.config.tls_to(&entry.key.database).channel_binding;
        let fence = self.fence(&entry.key, conn.reads_from_primary);
        let credential = self.server_credential(&entry.key);
        let read_only: &[(&str, &str)] = match entry.key.role {
            // On a replica, too: once promoted it would take writes until weir has heard of it.
            Role::Read => &[(READ_ONLY, "on")],
            Role::Write => &[],
        };
        let own = self.replication_parameters(conn);
        let own = own.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parameters: Vec<(&str, &str)> = own.chain(read_only.iter().copied()).collect();
        let mut login = None;
        effects.send_with(ConnId::Server(id), |out| {
            login = Some(ServerLogin::start(&entry.dbname, &parameters, credential, &nonce, fence, out));
        });
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.local = dialed.local;
        conn.remote = dialed.peer.map(|peer| peer.ip());
        if let Some(login) = &mut login {
            login.bind(dialed.end_point.filter(|_| wish != ChannelBinding::Disable));
            if wish == ChannelBinding::Require {
                login.insist_on_binding();
            }
        }
        conn.tls = dialed.tls.map(Into::into);
        if let Some(login) = login {
            conn.stage = ServerStage::Login(Box::new(login));
        }
    }

    /// The pool's database follows the cluster.
    pub(crate) fn follows_cluster(&self, pool: PoolIndex) -> bool {
        places::follows_cluster(&self.config, &self.pools.entry(pool).key.database)
    }

    /// Passes on what a connection to a member of the cluster has met. Servers that databases name are not its business.
    pub(crate) fn tell_discovery(&self, pool: PoolIndex, what: SessionEvidence, effects: &mut Effects) {
        if !places::has_hosts(&self.config, &self.pools.entry(pool).key.database) {
            effects.list.push(Effect::Evidence(what));
        }
    }

    /// What a new connection has to prove about its member.
    fn fence(&self, pool: &PoolKey, reads_from_primary: bool) -> Fence {
        if !places::follows_cluster(&self.config, &pool.database) {
            return Fence::None;
        }
        match pool.role {
            Role::Read if !reads_from_primary => Fence::Replica,
            // Without a leader it is one that was dialed before. It lives on only if its leader comes back as it was.
            Role::Read | Role::Write => Fence::Primary {
                expect_timeline: self.followed.map(|epoch| epoch.timeline),
                expect_system: self.followed.map(|epoch| epoch.system_identifier),
            },
        }
    }

    pub(crate) fn server_login_received(
        &mut self,
        now: Instant,
        id: ServerId,
        bytes: &[u8],
        effects: &mut Effects,
    ) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        let ServerStage::Login(login) = &mut conn.stage else { return };
        let mut step = ServerStep::Wait;
        effects.send_with(ConnId::Server(id), |out| step = login.received(bytes, out));
        match step {
            ServerStep::Wait => {}
            ServerStep::Derive(derivation) => self.derive_for_server(id, derivation, effects),
            ServerStep::Ready(ready) => self.server_ready(now, id, *ready, effects),
            ServerStep::Failed(failure) => self.server_login_failed(now, id, &failure, effects),
        }
    }

    fn server_ready(&mut self, now: Instant, id: ServerId, ready: Ready, effects: &mut Effects) {
        let reported = self.catalog.reported.intern(Reported::from_login(&ready.parameters));
        let carried = self.settings.intern(Settings::default());
        let statements_max = self.config.pool.max_prepared_statements as usize;
        let is_superuser = ready.parameter("is_superuser") == Some("on");
        // PostgreSQL 13 and older does not say; what it answers to weir's question may end unheard with a promotion.
        let says_standby = ready.parameter(IN_HOT_STANDBY) == Some("on");
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        conn.is_superuser = is_superuser;
        conn.pid = ready.pid;
        conn.secret = ready.secret;
        conn.in_hot_standby = says_standby;
        conn.used = now;
        let is_private = conn.replication.is_some();
        let mut server = Server::new(Rc::clone(&reported), carried, statements_max);
        if says_standby {
            server.set_standby(true);
        } else if ready.in_hot_standby == Some(true) {
            server.take_for_standby();
        }
        conn.stage = ServerStage::Open(Box::new(server));
        let index = conn.pool;
        if let Some(derived) = ready.derived {
            let user = self.pools.entry(index).key.user.clone();
            self.secrets.learn_derived(&user, derived);
        }
        if is_private {
            return self.replication_ready(now, id, &ready.parameters, &ready.rest, effects);
        }
        let entry = self.pools.entry_mut(index);
        entry.in_hot_standby = ready.in_hot_standby == Some(true);
        entry.last_failure = None;
        entry.stats.servers_opened += 1;
        self.log_new_server(id);
        if self.run_connect_query(now, id, effects) {
            self.errand_received(now, id, &ready.rest, effects);
        } else {
            self.pools.entry_mut(index).reported = Some(reported);
            self.take_into_use(now, id, &ready.rest, effects);
        }
    }

    pub(crate) fn server_unreachable(
        &mut self,
        now: Instant,
        id: ServerId,
        why: &DialError,
        effects: &mut Effects,
    ) {
        let Some(conn) = self.servers.try_remove(key(id.0)) else { return };
        tracing::warn!("cannot connect to {}: {why}", conn.name());
        let address = (*conn.address).clone();
        self.tell_discovery(conn.pool, SessionEvidence::Refused { address }, effects);
        let (message, hint) = match why {
            DialError::Untrusted(_) => (
                "the database server cannot be trusted",
                "Compare server_tls.mode and server_tls.ca_file with the certificate that the server shows.",
            ),
            DialError::Refused(_) | DialError::Tls(_) | DialError::TimedOut | DialError::NoAddress(_) => (
                "the database server cannot be reached",
                "Is PostgreSQL running there, and does it accept TCP connections?",
            ),
        };
        let report = Report::fatal(SqlState::CONNECTION_FAILURE, message)
            .detail(format!("Connecting to {} failed: {why}.", conn.name()))
            .hint(hint);
        let entry = self.pools.entry_mut(conn.pool);
        entry.pool.dial_failed(id, DialFailure::Refused, now);
        entry.last_failure = Some(report.clone());
        self.bar(now, conn.pool);
        if let Some(client) = conn.client.filter(|_| conn.replication.is_some()) {
            let report = (!self.follows_cluster(conn.pool)).then_some(&report);
            self.replication_not_dialed(now, client, report, effects);
            return self.pump(now, conn.pool, effects);
        }
        self.pump(now, conn.pool, effects);
        let tries_another = self.pools.entry(conn.pool).pool.counts().dialing > 0;
        if tries_another {
            return;
        }
        if matches!(why, DialError::Untrusted(_)) {
            // Nobody gains by waiting for the next attempt.
            self.refuse_waiting(now, conn.pool, &report, effects);
        }
        if !self.follows_cluster(conn.pool) {
            self.refuse_welcoming(now, conn.pool, &report, effects);
            self.fail_lookups(now, conn.pool, &report, effects);
        }
    }

    /// The connection ended in the middle of its login.
    pub(crate) fn server_login_ended(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        self.server_unreachable(
            now,
            id,
            &DialError::Refused("the connection was closed during login".to_owned()),
            effects,
        );
    }

    pub(crate) fn server_login_failed(
        &mut self,
        now: Instant,
        id: ServerId,
        failure: &LoginFailure,
        effects: &mut Effects,
    ) {
        effects.list.push(Effect::Abort(ConnId::Server(id)));
        if self.tries_with_tls(id, failure, effects) {
            return;
        }
        let Some(conn) = self.servers.try_remove(key(id.0)) else { return };
        if let Some(evidence) = evidence(&conn, failure) {
            self.tell_discovery(conn.pool, evidence, effects);
        }
        let entry = self.pools.entry_mut(conn.pool);
        let PoolKey { database, user, .. } = entry.key.clone();
        let report = failure.report(&user);
        let lasts = is_lasting(failure, &report);
        let kind = match () {
            () if report.code == SqlState::CANNOT_CONNECT_NOW => DialFailure::NotYet,
            () if lasts => DialFailure::NotLetIn,
            () => DialFailure::Refused,
        };
        entry.pool.dial_failed(id, kind, now);
        entry.last_failure = Some(report.clone());
        let is_in_vain = entry.pool.fails_fast(now);
        let others_may =
            self.follows_cluster(conn.pool) && !self.pools.entry(conn.pool).pool.is_shut_out(now);
        let may_change = lasts && !others_may && self.may_change(now, conn.pool, failure, &report);
        if is_nobody(failure) || may_change {
            self.bar(now, conn.pool);
        }
        tracing::warn!("login to {} as {user} failed: {}", conn.name(), report.message);
        if report.code == SqlState::INVALID_PASSWORD && !others_may {
            self.secrets.forget(&database, &user);
        }
        if let Some(client) = conn.client.filter(|_| conn.replication.is_some()) {
            // It alone has asked for this login.
            let report = is_final(failure).then(|| report.with_severity(Severity::Fatal));
            self.replication_not_dialed(now, client, report.as_ref(), effects);
        } else if lasts && !others_may && !may_change || is_in_vain {
            self.refuse_waiting(now, conn.pool, &report, effects);
        }
        self.pump(now, conn.pool, effects);
    }
}

impl Worker {
    /// Who should serve a pool of the cluster does not. That is evidence against it, and a hold for those who wait.
    fn bar(&mut self, now: Instant, pool: PoolIndex) {
        if self.follows_cluster(pool) {
            self.pools.entry_mut(pool).pool.bar(now);
            self.note_hold(now, pool);
        }
    }

    /// A leader that has only begun to lead does not let in whom the one before it did: that is worth a hold. Roles and
    /// passwords are the same on all members, so a wrong password is wrong on any.
    fn may_change(&self, now: Instant, pool: PoolIndex, failure: &LoginFailure, report: &Report) -> bool {
        let is_of_the_user =
            matches!(failure, LoginFailure::NoCredential { .. }) || report.code == SqlState::INVALID_PASSWORD;
        !is_of_the_user && self.follows_cluster(pool) && self.reign_is_new(now)
    }

    /// With mode `allow`: a server that lets nobody in without TLS is dialed again, with it. libpq does the same.
    fn tries_with_tls(&mut self, id: ServerId, failure: &LoginFailure, effects: &mut Effects) -> bool {
        let LoginFailure::Refused(report) = failure else { return false };
        let Some(conn) = self.servers.get(key(id.0)) else { return false };
        let mode = self.config.tls_to(&self.pools.entry(conn.pool).key.database).mode;
        let is_plain = conn.tls.is_none() && !conn.wants_tls && !conn.address.host.starts_with(['/', '@']);
        if mode != TlsMode::Allow || !is_plain || report.code != SqlState::INVALID_AUTHORIZATION {
            return false;
        }
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return false };
        conn.wants_tls = true;
        conn.stage = ServerStage::Dialing;
        self.dial_server(id, effects);
        true
    }

    /// Asks the shell to open the connection.
    pub(crate) fn dial_server(&self, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(id.0)) else { return };
        let tls = self.tls_towards(conn, conn.wants_tls);
        effects.list.push(Effect::Dial(ConnId::Server(id), (*conn.address).clone(), tls));
    }

    /// What a new connection to the server of this one needs of TLS.
    pub(crate) fn tls_towards(&self, conn: &ServerConn, is_needed: bool) -> Encryption {
        let database = &self.pools.entry(conn.pool).key.database;
        let of = self.config.database(database).and_then(|own| own.server_tls.as_ref());
        Encryption { of: of.map(|_| self.config.section_of(database).to_owned()), is_needed }
    }
}

/// What a failed login tells discovery.
fn evidence(conn: &ServerConn, failure: &LoginFailure) -> Option<SessionEvidence> {
    let address = (*conn.address).clone();
    match failure {
        LoginFailure::Refused(report) if report.code.is_class(b"57") => {
            Some(SessionEvidence::Fatal { address, code: *report.code.as_bytes() })
        }
        LoginFailure::NotPrimary | LoginFailure::WrongSystem { .. } => {
            Some(SessionEvidence::NotPrimary { address })
        }
        LoginFailure::WrongTimeline { seen, expected } if seen > expected => {
            Some(SessionEvidence::NewerTimeline { address, timeline: *seen })
        }
        // It is not the leader that is followed.
        LoginFailure::WrongTimeline { .. } => Some(SessionEvidence::NotPrimary { address }),
        LoginFailure::Refused(_)
        | LoginFailure::NotReplica
        | LoginFailure::NoCredential { .. }
        | LoginFailure::Unbound(_)
        | LoginFailure::Malformed(_) => None,
    }
}

/// Whether the member is not there, or not what it was said to be; one that is full or does not know the user serves others.
fn is_nobody(failure: &LoginFailure) -> bool {
    match failure {
        LoginFailure::Refused(report) => report.code.is_class(b"57"),
        LoginFailure::NotPrimary
        | LoginFailure::NotReplica
        | LoginFailure::WrongTimeline { .. }
        | LoginFailure::WrongSystem { .. } => true,
        LoginFailure::NoCredential { .. } | LoginFailure::Unbound(_) | LoginFailure::Malformed(_) => false,
    }
}

/// Whether a client that replicates is told at once: unless the server is starting or is not the one it should be.
fn is_final(failure: &LoginFailure) -> bool {
    match failure {
        LoginFailure::Refused(report) => !report.code.is_class(b"57"),
        LoginFailure::NoCredential { .. } | LoginFailure::Unbound(_) => true,
        LoginFailure::NotPrimary
        | LoginFailure::NotReplica
        | LoginFailure::WrongTimeline { .. }
        | LoginFailure::WrongSystem { .. }
        | LoginFailure::Malformed(_) => false,
    }
}

/// Whether trying again soon is of no use: wrong passwords, unknown databases, missing rights. A server that is starting,
/// full or no longer the leader is worth waiting for.
fn is_lasting(failure: &LoginFailure, report: &Report) -> bool {
    match failure {
        LoginFailure::Refused(_) => {
            report.code.is_class(b"28")
                || report.code.is_class(b"3D")
                || report.code == SqlState::INSUFFICIENT_PRIVILEGE
        }
        LoginFailure::NoCredential { .. } | LoginFailure::Unbound(_) => true,
        LoginFailure::NotPrimary
        | LoginFailure::NotReplica
        | LoginFailure::WrongTimeline { .. }
        | LoginFailure::WrongSystem { .. }
        | LoginFailure::Malformed(_) => false,
    }
}
