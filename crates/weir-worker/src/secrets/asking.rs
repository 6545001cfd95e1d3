//! Whom PostgreSQL is asked as about a client's user, and in which database; who waits for the answer. Asks nothing itself.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use weir_auth::StoredSecret;
use weir_config::DEFAULT_AUTH_QUERY;
use weir_pool::ClientId;

use super::{Question, Wanted, Whose};
use crate::client::Stage;
use crate::console::is_console;
use crate::io::{Effects, Role};
use crate::{Worker, key, places};

/// How the users of a database are looked up.
pub(super) struct Asking {
    /// Client-facing database in which the query runs.
    pub(super) database: String,
    /// As whom.
    pub(super) user: String,
    /// The auth_query.
    pub(super) query: String,
}

impl Worker {
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
        if is_console(&database) || self.asking(&database).is_none() {
            return self.answer_secret(now, id, None, effects);
        }
        let wanted = Wanted { question: Question::Secret, whose: (database, user) };
        self.look_up_in_turn(now, id, wanted, effects);
    }

    /// Asks PostgreSQL, but for those who have failed often when it is their turn.
    pub(crate) fn look_up_in_turn(
        &mut self,
        now: Instant,
        id: ClientId,
        wanted: Wanted,
        effects: &mut Effects,
    ) {
        if self.is_suspect(now, id) && !self.is_known_or_asked(now, &wanted) {
            return self.hold_back_lookup(id, wanted);
        }
        self.look_up(now, id, wanted, effects);
    }

    /// Asks PostgreSQL, unless it has told a secret lately.
    pub(crate) fn look_up(&mut self, now: Instant, id: ClientId, wanted: Wanted, effects: &mut Effects) {
        let fetched = match wanted.question {
            Question::Secret => self.fetched_secret(now, &wanted.whose),
            Question::Groups => None,
        };
        if let Some(secret) = fetched {
            self.note_cached(id, &wanted.whose);
            return self.answer_secret(now, id, Some(secret), effects);
        }
        self.wait_for(now, id, wanted, effects);
    }

    /// The groups that a user is known to belong to, of those that matter; `None`: PostgreSQL has to be asked.
    pub(crate) fn known_groups(&self, now: Instant, whose: &Whose) -> Option<Rc<BTreeSet<String>>> {
        let age = self.config.auth.query_cache_time;
        let fresh = self.secrets.groups.younger_than(age, now, whose);
        fresh
            .or_else(|| self.secrets.groups.of_any_age(whose).filter(|_| self.nobody_leads(&whose.0)))
            .cloned()
    }

    /// Nobody new has to be asked for this.
    pub(crate) fn is_known_or_asked(&self, now: Instant, wanted: &Wanted) -> bool {
        self.secrets.lookups.contains_key(wanted)
            || wanted.question == Question::Secret && self.fetched_secret(now, &wanted.whose).is_some()
    }

    /// The client's login waits until this is known.
    fn wait_for(&mut self, now: Instant, id: ClientId, wanted: Wanted, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let serial = client.serial;
        if let Stage::Login(login) = &mut client.stage {
            login.asking = Some(wanted.clone());
        }
        if let Some(lookup) = self.secrets.lookups.get(&wanted).copied()
            && let Some(inside) =
                self.clients.get_mut(key(lookup.0)).and_then(|client| client.inside.as_mut())
        {
            debug_assert!(inside.wanted == wanted, "a lookup of somebody else");
            inside.waiters.push((id, serial));
            return;
        }
        self.start_lookup(now, wanted, vec![(id, serial)], effects);
    }

    /// How the users of a database are looked up; `None`: they are not. Console users are where auth_dbname says.
    pub(super) fn asking(&self, database: &str) -> Option<Asking> {
        let auth = &self.config.auth;
        let own = if is_console(database) { None } else { Some(self.config.database(database)?) };
        let own_user = own.and_then(|own| own.auth_user.as_ref());
        let user = own_user.or(auth.user.as_ref())?.clone();
        // A database's own auth_user needs no query of its own, either.
        let usual = || own_user.map(|_| DEFAULT_AUTH_QUERY);
        let own_query = own.and_then(|own| own.auth_query.as_deref());
        let query = own_query.or(auth.query.as_deref()).or_else(usual)?.to_owned();
        let place = own.and_then(|own| own.auth_database.as_ref()).or(auth.database.as_ref());
        let place = place.map(String::as_str).or_else(|| own.map(|_| database))?.to_owned();
        self.config.database(&place).is_some().then_some(Asking { database: place, user, query })
    }

    /// Whether somebody could know a user of this database who is not in the user list.
    pub(crate) fn is_asked_for(&self, database: &str) -> bool {
        self.asking(database).is_some()
    }

    /// What auth_query returned lately. During a hold an old answer is better than none.
    fn fetched_secret(&self, now: Instant, whose: &Whose) -> Option<StoredSecret> {
        let age = self.config.auth.query_cache_time;
        let fresh = self.secrets.fetched.younger_than(age, now, whose);
        fresh
            .or_else(|| self.secrets.fetched.of_any_age(whose).filter(|_| self.nobody_leads(&whose.0)))
            .cloned()
    }

    fn nobody_leads(&self, database: &str) -> bool {
        self.topology.why_held().is_some() && places::follows_cluster(&self.config, database)
    }

    fn note_cached(&mut self, id: ClientId, whose: &Whose) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        if let Stage::Login(login) = &mut client.stage {
            login.cached = Some(whose.clone());
        }
    }

    /// Secrets are the same on every member; while there is no leader a replica is asked.
    pub(super) fn lookup_role(&self, database: &str) -> Role {
        if places::has_hosts(&self.config, database) {
            return Role::Write;
        }
        match self.topology.why_held() {
            Some(_) if !self.topology.replicas.is_empty() => Role::Read,
            Some(_) | None => Role::Write,
        }
    }

    /// A client on its way in left: nobody is asked on its behalf any longer. So no more questions wait than clients do.
    pub(crate) fn forget_asking(&mut self, id: ClientId, asking: Option<Wanted>) {
        let Some(wanted) = asking else { return };
        let Some(lookup) = self.secrets.lookups.get(&wanted).copied() else { return };
        let Some(client) = self.clients.get_mut(key(lookup.0)) else { return };
        let Some(inside) = client.inside.as_mut() else { return };
        inside.waiters.retain(|(other, _)| *other != id);
        if inside.waiters.is_empty() && client.is_waiting() {
            self.drop_lookup(lookup);
        }
    }
}
