//! Server connections that died: what their clients are told, and what discovery hears.

use std::time::Instant;

use weir_discovery::SessionEvidence;
use weir_pool::{ClientId, MemberId, ServerId};
use weir_session::{AfterLoss, LossCause, Told};

use crate::client::Stage;
use crate::io::{ConnId, Effect, Effects};
use crate::server::{ServerConn, ServerStage};
use crate::traffic::TurnWires;
use crate::{Worker, key};

impl Worker {
    /// The shell reports that a server connection ended.
    pub(crate) fn server_closed(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(id.0)) else { return };
        if conn.is_logging_in() {
            return self.server_login_ended(now, id, effects);
        }
        let (pool, address) = (conn.pool, (*conn.address).clone());
        let said_why = match conn.replication {
            Some(_) => self.has_said_why(conn),
            None => conn.open().is_some_and(|server| server.dying().is_some()),
        };
        if !said_why {
            self.tell_discovery(pool, SessionEvidence::Lost { address }, effects);
        }
        self.forget_lost(now, id, "the connection was closed by the server", effects);
    }

    /// PostgreSQL has said its last word on a connection (FATAL), or something that it must not say.
    pub(crate) fn server_died(&mut self, now: Instant, id: ServerId, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(id.0)) else { return };
        let dying = conn.open().and_then(|server| server.dying());
        let what = dying.map_or_else(
            || "PostgreSQL sent something unexpected".to_owned(),
            |dying| format!("PostgreSQL said \"{}\" ({})", dying.message, dying.code.as_str()),
        );
        if let Some(dying) = dying {
            let (address, code) = ((*conn.address).clone(), *dying.code.as_bytes());
            self.tell_discovery(conn.pool, SessionEvidence::Fatal { address, code }, effects);
        }
        self.lose(now, id, &what, effects);
    }

    /// Forgets a server connection that is gone or has to go, and tells its client what there is to tell.
    pub(crate) fn lose(&mut self, now: Instant, id: ServerId, what: &str, effects: &mut Effects) {
        if self.servers.contains(key(id.0)) {
            effects.list.push(Effect::Abort(ConnId::Server(id)));
            self.forget_lost(now, id, what, effects);
        }
    }

    /// The same for one that the shell has dropped already.
    pub(crate) fn forget_lost(&mut self, now: Instant, id: ServerId, what: &str, effects: &mut Effects) {
        let Some(mut conn) = self.servers.try_remove(key(id.0)) else { return };
        let entry = self.pools.entry_mut(conn.pool);
        entry.stats.servers_closed += 1;
        let member = entry.pool.server(id).map(|facts| facts.member);
        entry.pool.discard(id);
        if let ServerStage::Open(server) = &mut conn.stage {
            entry.add(server.take_tally());
        }
        self.log_server_closing(now, &conn, what);
        let index = conn.pool;
        if let Some(client) = conn.client.filter(|_| conn.replication.is_some()) {
            let what = format!("The connection to {} was lost ({what})", conn.name());
            self.replication_lost(now, client, &what, effects);
        } else if let Some(client) = conn.client {
            let not = member.filter(|_| conn.in_hot_standby);
            self.client_lost_server(now, client, (conn, not), what, effects);
        }
        self.pump(now, index, effects);
    }

    fn client_lost_server(
        &mut self,
        now: Instant,
        id: ClientId,
        (mut conn, not): (ServerConn, Option<MemberId>),
        what: &str,
        effects: &mut Effects,
    ) {
        let may_be_failover = self.follows_leader(conn.pool);
        let cause = LossCause {
            what: format!("the connection to {} was lost ({what})", conn.name()),
            read_only_member: conn.open().is_some_and(weir_session::Server::is_standby),
            failover: self.failover.number().filter(|_| may_be_failover),
        };
        let ServerStage::Open(server) = &mut conn.stage else { return };
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Open(open) = &mut client.stage else { return };
        open.server = None;
        let mut wires = TurnWires {
            effects,
            client: ConnId::Client(id),
            server: None,
            inside: client.inside.as_deref_mut(),
        };
        let mut repeats = false;
        let after = open.session.server_lost(server, &cause, &mut wires);
        let stats = &mut self.pools.entry_mut(conn.pool).stats;
        match after {
            AfterLoss::Stays(told) => {
                stats.transactions_lost += u64::from(told == Told::RolledBack);
                stats.in_doubt += u64::from(told == Told::InDoubt);
                let serial = client.serial;
                if may_be_failover && cause.failover.is_none() && open.session.owes_explanation() {
                    self.note_untold(now, id, serial);
                }
            }
            AfterLoss::Again(mut bytes) => {
                stats.retries += 1;
                bytes.append(&mut client.carry);
                client.carry = bytes;
                repeats = true;
            }
            AfterLoss::Close(report) => return self.refuse_client(now, id, &report, effects),
            AfterLoss::CloseSilently => {
                let why = "its server connection was lost in the middle of a message";
                return self.end_client(now, id, None, why, effects);
            }
        }
        if self.clients.get(key(id.0)).is_some_and(|client| client.inside.is_some()) {
            self.lookup_interrupted(now, id, effects);
        }
        if repeats {
            return self.go_elsewhere(now, id, not, effects);
        }
        self.client_turn(now, id, &[], effects);
    }
}
