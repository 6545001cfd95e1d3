//! How a client has to show who it is: the configured method, or the HBA rule that fits it. Looks up no secret and
//! checks no proof, but certificates' and system users' names.

use std::time::Instant;

use weir_auth::{HbaMethod, Visitor};
use weir_config::AuthMethod;
use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::client_login::Method;

use crate::client::{Client, Demand, Login, Stage};
use crate::console::{OWN_ADMIN, is_console};
use crate::io::Effects;
use crate::{Worker, key};

/// How somebody may come in.
enum Way {
    /// As it is.
    Open,
    /// If it shows this.
    Demand(Demand),
}

impl Worker {
    /// A client has said who it is and where it wants to.
    pub(crate) fn named(
        &mut self,
        now: Instant,
        id: ClientId,
        user: String,
        database: String,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Stage::Login(login) = &client.stage else { return };
        match self.way_in(client, login, &user, &database) {
            Ok(Way::Open) => self.admit(now, id, effects),
            Ok(Way::Demand(demand)) => {
                self.set_demand(id, demand);
                self.find_secret(now, id, user, database, effects);
            }
            Err(report) => self.refuse_login(now, id, &report, effects),
        }
    }

    fn set_demand(&mut self, id: ClientId, demand: Demand) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        if let Stage::Login(login) = &mut client.stage {
            login.demand = demand;
        }
    }

    fn way_in(&self, client: &Client, login: &Login, user: &str, database: &str) -> Result<Way, Report> {
        if is_own_admin(client, user, database) {
            return Ok(Way::Open);
        }
        let method = match self.config.auth.method {
            AuthMethod::ScramSha256 => HbaMethod::ScramSha256,
            AuthMethod::Md5 => HbaMethod::Md5,
            AuthMethod::Plain => HbaMethod::Password,
            AuthMethod::Trust => HbaMethod::Trust,
            AuthMethod::Cert => HbaMethod::Cert,
            AuthMethod::Peer => HbaMethod::Peer,
            AuthMethod::Any => return self.any_way_in(database),
            AuthMethod::Hba => return self.way_by_rules(client, login, user, database),
        };
        self.way_by_method(method, None, client, login, user, database)
    }

    fn way_by_rules(
        &self,
        client: &Client,
        login: &Login,
        user: &str,
        database: &str,
    ) -> Result<Way, Report> {
        // Logical replication names a database and is judged like any other client, as in PostgreSQL.
        let replication = login.machine.startup().and_then(|startup| startup.parameter("replication"));
        let visitor = Visitor {
            address: client.peer.map(|peer| peer.ip()),
            encrypted: login.machine.is_encrypted(),
            database,
            user,
            replication: replication.is_some_and(is_physical),
        };
        let Some(rule) = self.config.auth.hba.judge(&visitor) else {
            tracing::info!("C-{}: no HBA rule fits {user}@{database}", client.serial);
            return Err(rejected("login rejected"));
        };
        tracing::debug!("C-{}: HBA rule of line {}", client.serial, rule.line);
        self.way_by_method(rule.method, rule.map.as_deref(), client, login, user, database)
    }

    fn way_by_method(
        &self,
        method: HbaMethod,
        map: Option<&str>,
        client: &Client,
        login: &Login,
        user: &str,
        database: &str,
    ) -> Result<Way, Report> {
        let name = match method {
            HbaMethod::ScramSha256 => return Ok(Way::Demand(Demand::Password(Method::Scram))),
            HbaMethod::Md5 => return Ok(Way::Demand(Demand::Password(Method::Md5))),
            HbaMethod::Password => return Ok(Way::Demand(Demand::Password(Method::Plain))),
            HbaMethod::Reject => return Err(rejected("login rejected")),
            HbaMethod::Trust => "trust",
            HbaMethod::Cert => {
                self.check_certificate(map, login, user)?;
                "cert"
            }
            HbaMethod::Peer => {
                self.check_peer(map, client, user)?;
                "peer"
            }
        };
        // Somebody has to know the user if there is anybody who could.
        if self.config.auth.file.is_some() || self.is_asked_for(database) {
            return Ok(Way::Demand(Demand::Existence(name)));
        }
        Ok(Way::Open)
    }

    /// With `any` the name is nobody's: PostgreSQL is logged in to as the database says.
    fn any_way_in(&self, database: &str) -> Result<Way, Report> {
        let has_user = self.config.database(database).is_none_or(|settings| settings.user.is_some());
        if has_user || is_console(database) {
            return Ok(Way::Open);
        }
        Err(Report::fatal(SqlState::PROTOCOL_VIOLATION, "bouncer config error")
            .detail("With auth_type any each database needs a user of its own to log in to PostgreSQL with."))
    }

    fn check_certificate(&self, map: Option<&str>, login: &Login, user: &str) -> Result<(), Report> {
        if !login.machine.is_encrypted() {
            return Err(rejected("TLS connection required"));
        }
        let Some(name) = &login.common_name else { return Err(rejected("TLS client certificate required")) };
        if self.config.auth.ident.allow(map, name, user) {
            return Ok(());
        }
        tracing::info!("certificate of {name:?} does not let user {user:?} in");
        Err(rejected("TLS certificate name mismatch"))
    }

    fn check_peer(&self, map: Option<&str>, client: &Client, user: &str) -> Result<(), Report> {
        let name = client.unix.and_then(|peer| self.config.auth.system_users.get(&peer.uid));
        match name {
            Some(name) if self.config.auth.ident.allow(map, name, user) => Ok(()),
            Some(_) | None => Err(rejected("unix socket login rejected")),
        }
    }
}

/// As in PgBouncer, whoever runs the process may administrate it: the user `pgbouncer` by Unix socket, with the process's
/// own user at the other end.
pub(crate) fn is_own_admin(client: &Client, user: &str, database: &str) -> bool {
    is_console(database) && user == OWN_ADMIN && client.unix.is_some_and(|peer| peer.is_own)
}

/// `replication=database` is logical replication (PostgreSQL's manual, "Streaming Replication Protocol").
fn is_physical(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "on" | "yes" | "1")
}

/// PgBouncer's words with PostgreSQL's code for a client that no rule lets in.
pub(crate) fn rejected(message: impl Into<String>) -> Report {
    Report::fatal(SqlState::INVALID_AUTHORIZATION, message.into())
}
