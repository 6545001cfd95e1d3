//! Log lines about clients and server connections, in PgBouncer's shape, so that pgBadger and what people have made for
//! its log can read weir's: `C-0x1f: db/user@10.0.0.9:40000 closing because: client close request (age=3s)`. Owns the
//! words around; what happened, and whether a configuration wants to hear of it, comes from the callers and the switches.
//!
//! PgBouncer prints addresses of its memory. weir prints the numbers of SHOW CLIENTS and SHOW SERVERS, which no two
//! connections share, as `ptr` there has them.

use std::time::Instant;

use weir_pool::{ClientId, ServerId};
use weir_protocol::message::Report;

use crate::client::{Client, Stage};
use crate::server::ServerConn;
use crate::{Worker, key};

impl Worker {
    /// `C-0x1f: db/user@addr:port`.
    pub(crate) fn client_name(&self, client: &Client) -> String {
        let (database, user) = match &client.stage {
            Stage::Login(login) => match &login.announced {
                Some((database, user)) => (database.as_str(), user.as_str()),
                None => ("(nodb)", "(nouser)"),
            },
            Stage::Welcoming(waiting) => (waiting.admitted.database.as_str(), waiting.admitted.user.as_str()),
            Stage::Console(console) => ("pgbouncer", console.user.as_str()),
            Stage::Left => ("pgbouncer", "(nouser)"),
            Stage::Replicating(replicating) => {
                (self.pools.entry(replicating.pool).key.database.as_str(), &*replicating.user)
            }
            Stage::Open(open) => {
                let pool = &self.pools.entry(open.pool).key;
                (pool.database.as_str(), open.user(&pool.user))
            }
        };
        format!("C-{:#x}: {database}/{user}@{}", client.serial, client.peer_text())
    }

    /// `S-0x20: db/user@addr:port`.
    fn server_name(&self, conn: &ServerConn) -> String {
        let pool = &self.pools.entry(conn.pool).key;
        let place = &conn.address;
        if place.host.starts_with(['/', '@']) {
            return format!("S-{:#x}: {}/{}@unix:{}", conn.serial, pool.database, pool.user, place.port);
        }
        format!("S-{:#x}: {}/{}@{place}", conn.serial, pool.database, pool.user)
    }

    /// A client has said who it wants to be. Said once.
    pub(crate) fn log_login_attempt(&mut self, id: ClientId, user: &str, database: &str) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        if login.announced.is_some() {
            return;
        }
        login.announced = Some((database.to_owned(), user.to_owned()));
        if !self.config.log.connections {
            return;
        }
        if let Some(client) = self.clients.get(key(id.0)) {
            let tls = client.tls.as_deref().unwrap_or("no");
            tracing::info!("{} login attempt: db={database} user={user} tls={tls}", self.client_name(client));
        }
    }

    /// TLS with a client is over, mostly in the handshake: who it was stands in `why` if it showed a certificate.
    pub fn tls_broken(&self, id: ClientId, why: &str) {
        if let Some(client) = self.clients.get(key(id.0)) {
            tracing::info!("{} TLS ended: {why}", self.client_name(client));
        }
    }

    /// A client wants what is not there. PgBouncer says so in front of the line with the reason; a wrong password has that
    /// line only.
    pub(crate) fn log_login_failed(&self, id: ClientId, user: &str, database: &str) {
        if self.config.log.connections
            && let Some(client) = self.clients.get(key(id.0))
        {
            tracing::info!("{} login failed: db={database} user={user}", self.client_name(client));
        }
    }

    pub(crate) fn log_client_closing(&self, now: Instant, client: &Client, why: &str) {
        if self.config.log.disconnections && client.inside.is_none() {
            let age = now.saturating_duration_since(client.accepted).as_secs();
            tracing::info!("{} closing because: {why} (age={age}s)", self.client_name(client));
        }
    }

    /// weir says something to a client that PostgreSQL did not say.
    pub(crate) fn log_pooler_error(&self, id: ClientId, report: &Report) {
        if self.config.log.pooler_errors
            && let Some(client) = self.clients.get(key(id.0))
        {
            tracing::warn!("{} pooler error: {}", self.client_name(client), report.message);
        }
    }

    pub(crate) fn log_new_server(&self, id: ServerId) {
        if self.config.log.connections
            && let Some(conn) = self.servers.get(key(id.0))
        {
            let from = conn.local.map(|local| format!(" (from {local})")).unwrap_or_default();
            tracing::info!("{} new connection to server{from}", self.server_name(conn));
        }
    }

    pub(crate) fn log_server_closing(&self, now: Instant, conn: &ServerConn, why: &str) {
        if self.config.log.disconnections {
            let age = now.saturating_duration_since(conn.created).as_secs();
            tracing::info!("{} closing because: {why} (age={age}s)", self.server_name(conn));
        }
    }

    /// Why a connection that is at rest is closed, in PgBouncer's words.
    pub(crate) fn why_retired(&self, now: Instant, conn: &ServerConn) -> &'static str {
        let pool = &self.pools.entry(conn.pool).pool;
        let limits = pool.limits();
        let older = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        if pool.is_paused() {
            "pause mode"
        } else if limits.lifetime.is_some_and(|lifetime| older(conn.created, lifetime)) {
            "server lifetime over"
        } else if limits.idle_timeout.is_some_and(|limit| older(conn.used, limit)) {
            "server idle timeout"
        } else {
            "obsolete connection"
        }
    }
}
