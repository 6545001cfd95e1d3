//! Console clients: databases `pgbouncer` and `weir` on both doors. Commands are executed by the control thread; this
//! module only speaks the protocol.

use std::time::Instant;

use weir_config::AuthMethod;
use weir_pool::ClientId;
use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES};
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromClient;
use weir_session::client_login::Admitted;

use crate::access::is_own_admin;
use crate::client::{Console, Skipping, Stage};
use crate::io::{ConnId, ConsoleRequest, Effect, Effects};
use crate::{Worker, cancel_key, key};

/// Who may administrate by Unix socket with the process's own user at the other end.
pub(crate) const OWN_ADMIN: &str = "pgbouncer";

/// Whether this database name is the console.
pub(crate) fn is_console(database: &str) -> bool {
    matches!(database, "pgbouncer" | "weir")
}

impl Worker {
    /// A client whose login ended well wants the console.
    pub(crate) fn open_console(
        &mut self,
        now: Instant,
        id: ClientId,
        admitted: &Admitted,
        effects: &mut Effects,
    ) -> Result<(), Report> {
        let listed = |users: &[String]| users.contains(&admitted.user);
        let client = self.clients.get(key(id.0));
        let is_own = client.is_some_and(|client| is_own_admin(client, &admitted.user, &admitted.database));
        let anybody = self.config.auth.method == AuthMethod::Any;
        let admin = is_own || anybody || listed(&self.config.auth.admin_users);
        if !admin && !listed(&self.config.auth.stats_users) {
            return Err(Report::fatal(SqlState::INVALID_AUTHORIZATION, "not allowed")
                .detail("The user may not use the console.")
                .hint("An operator can add the user to admin_users or stats_users."));
        }
        let secret = self.chance.bytes::<32>();
        let length = if admitted.minor >= 2 { secret.len() } else { 4 };
        let own = cancel_key::make(self.config.peer_id, self.index, id, &secret, length);
        let Some((client, own)) = self.clients.get_mut(key(id.0)).zip(own) else { return Ok(()) };
        client.stage = Stage::Console(Box::new(Console {
            user: admitted.user.clone(),
            admin,
            busy: false,
            is_cancelled: false,
            cancel_key: own.secret.clone(),
            parsed: None,
            skipping: Skipping::No,
        }));
        self.totals.logins_accepted += 1;
        effects.send_with(ConnId::Client(id), |out| {
            backend::authentication_ok(out);
            for (name, value) in weir_admin::reply::LOGIN_PARAMETERS {
                backend::parameter_status(name.as_bytes(), value.as_bytes(), out);
            }
            backend::backend_key_data(own.pid, own.secret.as_bytes(), out);
            backend::ready_for_query(b'I', out);
        });
        self.console_received(now, id, &[], effects);
        Ok(())
    }

    pub(crate) fn console_received(
        &mut self,
        now: Instant,
        id: ClientId,
        bytes: &[u8],
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        client.carry.extend_from_slice(bytes);
        self.console_steps(now, id, effects);
        self.balance_reading(id, effects);
    }

    fn console_steps(&mut self, now: Instant, id: ClientId, effects: &mut Effects) {
        loop {
            let Some(client) = self.clients.get_mut(key(id.0)) else { return };
            let Stage::Console(console) = &mut client.stage else { return };
            if console.busy {
                return;
            }
            let next = match frame::peek(&client.carry, CONSOLE_BYTES_MAX) {
                Ok(Some(header)) if client.carry.len() >= header.total => header,
                Ok(_) => return,
                Err(bad) => return self.end_console(now, id, Some(&bad.to_string()), effects),
            };
            let message: Vec<u8> = client.carry.drain(..next.total).collect();
            let body = &message[HEADER_BYTES..];
            let Some(tag) = FromClient::of(next.tag) else {
                return self.end_console(now, id, Some("unknown message type"), effects);
            };
            if tag == FromClient::Terminate {
                return self.end_console(now, id, None, effects);
            }
            if let Err(why) = console.message(id, tag, body, effects) {
                return self.end_console(now, id, Some(&why), effects);
            }
        }
    }

    /// The control thread has executed a command.
    pub(crate) fn console_reply(&mut self, now: Instant, id: ClientId, reply: &[u8], effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        match &mut client.stage {
            Stage::Console(console) => {
                console.busy = false;
                console.is_cancelled = false;
            }
            // The one who asked has left; from now on the id may be given to others.
            Stage::Left => return drop(self.clients.try_remove(key(id.0))),
            Stage::Login(_) | Stage::Welcoming(_) | Stage::Open(_) | Stage::Replicating(_) => return,
        }
        effects.send_with(ConnId::Client(id), |out| out.extend_from_slice(reply));
        self.console_received(now, id, &[], effects);
    }

    /// The control thread has something to say while it executes a command.
    pub(crate) fn console_notice(&mut self, id: ClientId, notice: &[u8], effects: &mut Effects) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        if client.is_asking_control() {
            effects.send_with(ConnId::Client(id), |out| out.extend_from_slice(notice));
        }
    }

    fn end_console(&mut self, now: Instant, id: ClientId, why: Option<&str>, effects: &mut Effects) {
        let report = why.map(|why| Report::fatal(SqlState::PROTOCOL_VIOLATION, why.to_owned()));
        self.end_client(now, id, report.as_ref(), why.unwrap_or("client close request"), effects);
    }

    /// Console clients do not hold up a shutdown.
    pub(crate) fn close_consoles(&mut self, now: Instant, effects: &mut Effects) {
        let is_console = |client: &crate::client::Client| matches!(client.stage, Stage::Console(_));
        let consoles: Vec<ClientId> = self
            .clients
            .iter()
            .filter(|(_, client)| is_console(client))
            .map(|(at, _)| crate::client_id(at))
            .collect();
        for id in consoles {
            self.end_console(now, id, None, effects);
        }
    }
}

impl Console {
    /// One message. Extended protocol works for a statement without parameters, which is what drivers send for a query
    /// by default: Parse, Bind, Describe of the portal, Execute, Sync.
    fn message(
        &mut self,
        id: ClientId,
        tag: FromClient,
        body: &[u8],
        effects: &mut Effects,
    ) -> Result<(), String> {
        let conn = ConnId::Client(id);
        if self.skipping != Skipping::No && !matches!(tag, FromClient::Sync | FromClient::Query) {
            return Ok(());
        }
        match tag {
            FromClient::Query => {
                let sql = frontend::read::query(body).map_err(|bad| bad.to_string())?.to_vec();
                self.ask(id, sql, effects);
            }
            FromClient::Parse => {
                let parse = frontend::read::parse(body).map_err(|bad| bad.to_string())?;
                self.parsed = Some(parse.sql.to_vec());
                effects.send_with(conn, backend::parse_complete);
            }
            FromClient::Bind => effects.send_with(conn, backend::bind_complete),
            FromClient::Describe => {
                let (kind, _) = frontend::read::describe(body).map_err(|bad| bad.to_string())?;
                if kind == TargetKind::Statement {
                    self.skipping = Skipping::ToSync;
                    effects.send_with(conn, |out| backend::error(&no_describe(), out));
                }
            }
            // The reply ends in ReadyForQuery, which stands for the Sync that follows.
            FromClient::Execute => {
                let sql = self.parsed.take().unwrap_or_default();
                self.skipping = Skipping::PastSync;
                self.ask(id, sql, effects);
            }
            FromClient::Sync => {
                if std::mem::replace(&mut self.skipping, Skipping::No) != Skipping::PastSync {
                    effects.send_with(conn, |out| backend::ready_for_query(b'I', out));
                }
            }
            FromClient::Close => effects.send_with(conn, backend::close_complete),
            FromClient::Flush | FromClient::CopyData | FromClient::CopyDone | FromClient::CopyFail => {}
            FromClient::FunctionCall | FromClient::Response | FromClient::Terminate => {
                return Err("the console takes queries only".to_owned());
            }
        }
        Ok(())
    }

    fn ask(&mut self, id: ClientId, sql: Vec<u8>, effects: &mut Effects) {
        self.busy = true;
        effects.list.push(Effect::Console(ConsoleRequest { client: id, sql, admin: self.admin }));
    }
}

fn no_describe() -> Report {
    Report::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "the console cannot describe a statement before it is executed",
    )
    .hint("Use simple queries, or a driver mode that does not prepare.")
}

/// Console commands are short.
const CONSOLE_BYTES_MAX: u32 = 16 * 1024;
