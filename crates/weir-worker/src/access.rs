//! How a client has to show who it is: the configured method, or the HBA rule that fits it. Looks up no secret and
//! checks no proof, but certificates' and system users' names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use weir_auth::{Authority, CertificateDemand, HbaMethod, Judgement, Visitor};
use weir_config::AuthMethod;
use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::client_login::Method;

use crate::client::{Client, Demand, Login, Stage};
use crate::console::{OWN_ADMIN, is_console};
use crate::io::Effects;
use crate::replication::Replication;
use crate::secrets::{Question, Wanted, Whose};
use crate::{Worker, key};

/// How somebody may come in.
enum Way {
    /// As it is.
    Open,
    /// If it shows this.
    Demand(Demand),
    /// If its password is right in this one's eyes.
    Refer(Arc<Authority>),
    /// It depends on the groups that its user belongs to.
    AskGroups,
}

/// Somebody at the door.
struct Caller<'a> {
    client: &'a Client,
    login: &'a Login,
    user: &'a str,
    database: &'a str,
    /// The groups that the user belongs to, if they are known.
    groups: Option<&'a BTreeSet<String>>,
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
        let whose = (database, user);
        let groups = self.known_groups(now, &whose);
        self.judge(now, id, whose, groups.as_deref(), effects);
    }

    /// PostgreSQL has said which groups the user of a client on its way in belongs to.
    pub(crate) fn answer_groups(
        &mut self,
        now: Instant,
        id: ClientId,
        groups: &BTreeSet<String>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        let Some(wanted) = login.asking.take() else { return };
        self.judge(now, id, wanted.whose, Some(groups), effects);
    }

    fn judge(
        &mut self,
        now: Instant,
        id: ClientId,
        whose: Whose,
        groups: Option<&BTreeSet<String>>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Stage::Login(login) = &client.stage else { return };
        let (database, user) = (whose.0.as_str(), whose.1.as_str());
        match self.way_in(&Caller { client, login, user, database, groups }) {
            Ok(Way::Open) => self.admit(now, id, effects),
            Ok(Way::Demand(demand)) => {
                self.set_demand(id, demand);
                let (database, user) = whose;
                self.find_secret(now, id, user, database, effects);
            }
            Ok(Way::Refer(authority)) => self.ask_for_others(now, id, authority, effects),
            Ok(Way::AskGroups) if self.is_asked_for(database) => {
                let wanted = Wanted { question: Question::Groups, whose };
                self.look_up_in_turn(now, id, wanted, effects);
            }
            Ok(Way::AskGroups) => {
                tracing::warn!(
                    "a rule about groups cannot be judged for {user}@{database}: no auth_user is named for it"
                );
                self.refuse_login(now, id, &rejected("login rejected"), effects);
            }
            // It has cost a question.
            Err(report) if groups.is_some() => self.fail_login(now, id, &report, effects),
            Err(report) => self.refuse_login(now, id, &report, effects),
        }
    }

    fn set_demand(&mut self, id: ClientId, demand: Demand) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        if let Stage::Login(login) = &mut client.stage {
            login.demand = demand;
        }
    }

    fn way_in(&self, caller: &Caller<'_>) -> Result<Way, Report> {
        if is_own_admin(caller.client, caller.user, caller.database) {
            return Ok(Way::Open);
        }
        let method = match self.config.auth.method {
            AuthMethod::ScramSha256 => HbaMethod::ScramSha256,
            AuthMethod::Md5 => HbaMethod::Md5,
            AuthMethod::Plain => HbaMethod::Password,
            AuthMethod::Trust => HbaMethod::Trust,
            AuthMethod::Cert => HbaMethod::Cert,
            AuthMethod::Peer => HbaMethod::Peer,
            AuthMethod::Ldap => HbaMethod::Ldap,
            AuthMethod::Pam => HbaMethod::Pam,
            AuthMethod::Any => return self.any_way_in(caller.database),
            AuthMethod::Hba => return self.way_by_rules(caller),
        };
        self.way_by_method(method, (None, self.config.auth.authority.as_ref()), caller)
    }

    fn way_by_rules(&self, caller: &Caller<'_>) -> Result<Way, Report> {
        let Caller { client, login, user, database, groups } = *caller;
        // Logical replication names a database and is judged like any other client, as in PostgreSQL.
        let replication = login.machine.startup().map_or(Ok(None), Replication::wanted)?;
        let visitor = Visitor {
            address: client.peer.map(|peer| peer.ip()),
            encrypted: login.machine.is_encrypted(),
            database,
            user,
            replication: replication == Some(Replication::Physical),
            groups,
        };
        let rule = match self.config.auth.hba.judge(&visitor) {
            Judgement::Rule(rule) => rule,
            Judgement::NeedsGroups(_) => return Ok(Way::AskGroups),
            Judgement::NoRule => {
                tracing::info!("C-{}: no HBA rule fits {user}@{database}", client.serial);
                return Err(rejected("login rejected"));
            }
        };
        tracing::debug!("C-{}: HBA rule of line {} of {}", client.serial, rule.line, rule.file.display());
        let shown = match rule.certificate {
            CertificateDemand::None => Some(true),
            CertificateDemand::Trusted => certificate_name(login).map(|_| Some(true))?,
            CertificateDemand::Named => self.check_certificate(rule.map.as_deref(), caller)?,
        };
        match shown {
            Some(_) => {
                self.way_by_method(rule.method, (rule.map.as_deref(), rule.authority.as_ref()), caller)
            }
            None => Ok(Way::AskGroups),
        }
    }

    fn way_by_method(
        &self,
        method: HbaMethod,
        (map, authority): (Option<&str>, Option<&Arc<Authority>>),
        caller: &Caller<'_>,
    ) -> Result<Way, Report> {
        let (name, shown) = match method {
            HbaMethod::ScramSha256 => return Ok(Way::Demand(Demand::Password(Method::Scram))),
            HbaMethod::Md5 => return Ok(Way::Demand(Demand::Password(Method::Md5))),
            HbaMethod::Password => return Ok(Way::Demand(Demand::Password(Method::Plain))),
            HbaMethod::Ldap | HbaMethod::Pam => {
                let authority = authority.ok_or_else(|| rejected("login rejected"))?;
                return Ok(Way::Refer(Arc::clone(authority)));
            }
            HbaMethod::Reject => return Err(rejected("login rejected")),
            HbaMethod::Trust => ("trust", Some(true)),
            HbaMethod::Cert => ("cert", self.check_certificate(map, caller)?),
            HbaMethod::Peer => ("peer", self.check_peer(map, caller)?),
        };
        if shown.is_none() {
            return Ok(Way::AskGroups);
        }
        // Somebody has to know the user if there is anybody who could.
        if self.config.auth.file.is_some() || self.is_asked_for(caller.database) {
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

    /// `None`: it depends on groups that are not known.
    fn check_certificate(&self, map: Option<&str>, caller: &Caller<'_>) -> Result<Option<bool>, Report> {
        let name = certificate_name(caller.login)?;
        match self.config.auth.ident.allow(map, name, caller.user, caller.groups) {
            Some(false) => {
                tracing::info!("certificate of {name:?} does not let user {:?} in", caller.user);
                Err(rejected("TLS certificate name mismatch"))
            }
            allowed => Ok(allowed),
        }
    }

    /// `None`: it depends on groups that are not known.
    fn check_peer(&self, map: Option<&str>, caller: &Caller<'_>) -> Result<Option<bool>, Report> {
        let name = caller.client.unix.and_then(|peer| self.config.auth.system_users.get(&peer.uid));
        match name.map(|name| self.config.auth.ident.allow(map, name, caller.user, caller.groups)) {
            Some(allowed @ (Some(true) | None)) => Ok(allowed),
            Some(Some(false)) | None => Err(rejected("unix socket login rejected")),
        }
    }
}

/// The name in the certificate that a client has shown.
fn certificate_name(login: &Login) -> Result<&str, Report> {
    if !login.machine.is_encrypted() {
        return Err(rejected("TLS connection required"));
    }
    login.common_name.as_deref().ok_or_else(|| rejected("TLS client certificate required"))
}

/// As in PgBouncer, whoever runs the process may administrate it: the user `pgbouncer` by Unix socket, with the process's
/// own user at the other end.
pub(crate) fn is_own_admin(client: &Client, user: &str, database: &str) -> bool {
    is_console(database) && user == OWN_ADMIN && client.unix.is_some_and(|peer| peer.is_own)
}

/// PgBouncer's words with PostgreSQL's code for a client that no rule lets in.
pub(crate) fn rejected(message: impl Into<String>) -> Report {
    Report::fatal(SqlState::INVALID_AUTHORIZATION, message.into())
}
