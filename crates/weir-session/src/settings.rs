//! Startup parameters that follow a client to each server connection it gets, and the values PostgreSQL reported.
//!
//! A server connection carries the set that weir applied to it. At checkout the difference goes both ways (SET and
//! RESET) in one simple query in front of the client's first message. A set that can no longer be known (the client ran
//! SET, RESET or DISCARD ALL) is rebuilt from the connection's own defaults.

use std::rc::Rc;

use weir_protocol::sql;

/// What a client has on every server connection that it gets: the run-time parameters that it asked for at startup or has
/// set since, and the statements that it prepared by SQL.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Sorted by name, names in lower case.
    values: Vec<(String, String)>,
    /// Names, and the PREPARE that makes each.
    prepared: Vec<(String, String)>,
}

/// Parameters in a startup packet that are not run-time settings.
const NOT_SETTINGS: [&str; 4] = ["user", "database", "replication", "options"];

/// Parameters that no client may carry to a shared connection: they change who it is, or PostgreSQL takes them at
/// connection start only (PGC_BACKEND and PGC_SU_BACKEND in its sources), when the client is not known yet.
const NEVER_APPLIED: [&str; 11] = [
    "role",
    "session_authorization",
    "is_superuser",
    "ignore_system_indexes",
    "jit_debugging_support",
    "jit_profiling_support",
    "local_preload_libraries",
    "log_connections",
    "log_disconnections",
    "post_auth_delay",
    "session_preload_libraries",
];

/// Parameters that PgBouncer keeps for each client whatever it is told: PostgreSQL reports them.
const TRACKED_ALWAYS: [&str; 5] =
    ["client_encoding", "datestyle", "timezone", "standard_conforming_strings", "application_name"];

/// A parameter that follows every client, in any case of letters.
#[must_use]
pub fn is_tracked_always(name: &str) -> bool {
    TRACKED_ALWAYS.iter().any(|tracked| tracked.eq_ignore_ascii_case(name))
}

impl Settings {
    /// Takes the run-time parameters from a startup packet's pairs (with `options` already taken apart and appended);
    /// the last value of a name wins.
    pub fn from_startup<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut kept: Vec<(String, String)> = Vec::new();
        for (name, value) in pairs {
            let name = name.to_ascii_lowercase();
            if NOT_SETTINGS.contains(&name.as_str()) || name.starts_with("_pq_.") {
                continue;
            }
            kept.retain(|(other, _)| *other != name);
            kept.push((name, value.to_owned()));
        }
        kept.sort();
        Self { values: kept, prepared: Vec::new() }
    }

    /// What PostgreSQL says that a session has. The last value of a name wins.
    #[must_use]
    pub fn learned(pairs: Vec<(String, String)>, mut prepared: Vec<(String, String)>) -> Self {
        let mut values: Vec<(String, String)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let name = name.to_ascii_lowercase();
            values.retain(|(other, _)| *other != name);
            values.push((name, value));
        }
        values.sort();
        prepared.sort();
        Self { values, prepared }
    }

    /// Names and values of the parameters.
    #[must_use]
    pub fn values(&self) -> &[(String, String)] {
        &self.values
    }

    /// Statements prepared by SQL: names, and the PREPARE that makes each.
    #[must_use]
    pub fn prepared(&self) -> &[(String, String)] {
        &self.prepared
    }

    /// The first parameter in the set that weir refuses to apply (such as `role` or `log_connections`), if any.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.values.iter().map(|(name, _)| name.as_str()).find(|name| NEVER_APPLIED.contains(name))
    }

    /// Value of a parameter.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Memory that the texts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.values.iter().chain(&self.prepared).map(|(name, value)| name.len() + value.len()).sum()
    }

    /// True when nothing was asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.prepared.is_empty()
    }

    /// SQL that turns a connection carrying `applied` into one carrying `self`. `None` for `applied` means that the
    /// connection's state is not known, so everything is reset first. Empty when nothing has to be done.
    ///
    /// A request follows in the same write. If PostgreSQL refuses a value, it is left in a failed transaction block, so
    /// that the request is not run with other values than the client's.
    #[must_use]
    pub fn statements_from(&self, applied: Option<&Settings>) -> Vec<u8> {
        let mut sql = Vec::new();
        let carried = |name: &str| applied.and_then(|set| set.value(name));
        let may_fail = self.values.iter().any(|(name, value)| carried(name) != Some(value));
        if may_fail {
            sql.extend_from_slice(b"BEGIN;");
        }
        let prepared = applied.map_or(&[][..], |applied| &applied.prepared);
        for (name, _) in prepared.iter().filter(|pair| !self.prepared.contains(pair)) {
            let mut text = b"DEALLOCATE ".to_vec();
            sql::quote_name(name, &mut text);
            push_attempt(&String::from_utf8_lossy(&text), &mut sql);
        }
        match applied {
            None => sql.extend_from_slice(b"RESET SESSION AUTHORIZATION;RESET ALL;"),
            Some(applied) => {
                for (name, _) in applied.values.iter().filter(|(name, _)| self.value(name).is_none()) {
                    sql.extend_from_slice(b"RESET ");
                    sql::quote_identifier(name, &mut sql);
                    sql.push(b';');
                }
            }
        }
        for (name, value) in self.values.iter().filter(|(name, value)| carried(name) != Some(value)) {
            push_set(name, value, &mut sql);
        }
        for (_, text) in self.prepared.iter().filter(|pair| !prepared.contains(pair)) {
            push_attempt(text, &mut sql);
        }
        if may_fail {
            sql.extend_from_slice(b"COMMIT;");
        }
        sql
    }
}

impl Settings {
    /// SQL that sets those of the parameters again that the session has not got from anybody: they were reset to what the
    /// server connection began with, while this client began with these. Empty when there are none.
    #[must_use]
    pub fn statement_after_reset(&self) -> Vec<u8> {
        let mut sql = Vec::new();
        for (name, value) in &self.values {
            let start: &[u8] = if sql.is_empty() { RESTORE_START } else { b"),(" };
            sql.extend_from_slice(start);
            sql::quote_literal(name, &mut sql);
            sql.push(b',');
            sql::quote_literal(value, &mut sql);
        }
        if !sql.is_empty() {
            sql.extend_from_slice(RESTORE_END);
        }
        sql
    }
}

const RESTORE_START: &[u8] = b"SELECT pg_catalog.set_config(w.name,w.value,false) FROM (VALUES (";

/// A parameter that PostgreSQL does not list is one that an application has made up: its value is empty after a reset.
const RESTORE_END: &[u8] = b")) AS w(name,value) LEFT JOIN pg_catalog.pg_settings s \
    ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) w.name \
    WHERE CASE WHEN s.name IS NULL THEN coalesce(pg_catalog.current_setting(w.name,true),'') OPERATOR(pg_catalog.=) '' \
    ELSE s.source OPERATOR(pg_catalog.<>) 'session' END";

/// `set_config` rather than SET, because SET would take the value of a list parameter such as `search_path` as one element,
/// while a startup packet's value is the whole list.
fn push_set(name: &str, value: &str, sql: &mut Vec<u8>) {
    sql.extend_from_slice(b"SELECT pg_catalog.set_config(");
    sql::quote_literal(name, sql);
    sql.push(b',');
    sql::quote_literal(value, sql);
    sql.extend_from_slice(b",false);");
}

/// A statement whose failure is nobody's but its own: a function may have deallocated what weir is to deallocate, and
/// what a client has prepared may name a table that is gone.
fn push_attempt(text: &str, sql: &mut Vec<u8>) {
    let mut execute = b"BEGIN EXECUTE ".to_vec();
    sql::quote_literal(text, &mut execute);
    execute.extend_from_slice(b"; EXCEPTION WHEN OTHERS THEN NULL; END");
    sql.extend_from_slice(b"DO ");
    sql::quote_literal(&String::from_utf8_lossy(&execute), sql);
    sql.push(b';');
}

/// Values that PostgreSQL reports by ParameterStatus, in the order of first report. `in_hot_standby` is never among them:
/// it is weir's own answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Reported(Vec<(String, String)>);

/// Reported by every member with its own role; weir answers it itself so that `target_session_attrs` works.
pub const IN_HOT_STANDBY: &str = "in_hot_standby";

impl Reported {
    /// Takes the ParameterStatus values of a server login.
    #[must_use]
    pub fn from_login(pairs: &[(String, String)]) -> Self {
        let mut reported = Self::default();
        for (name, value) in pairs {
            reported.note(name, value);
        }
        reported
    }

    /// Takes one ParameterStatus. Returns whether anything changed.
    pub fn note(&mut self, name: &str, value: &str) -> bool {
        if name == IN_HOT_STANDBY {
            return false;
        }
        if let Some((_, old)) = self.0.iter_mut().find(|(other, _)| other == name) {
            if old == value {
                return false;
            }
            value.clone_into(old);
            return true;
        }
        if self.0.len() >= REPORTED_MAX {
            return false;
        }
        self.0.push((name.to_owned(), value.to_owned()));
        true
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Value of a parameter.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Pairs of `self` that somebody who was told `told` does not know yet.
    pub fn news_for<'a>(&'a self, told: &'a Reported) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter().filter(|(name, value)| told.value(name) != Some(value))
    }
}

/// ParameterStatus names kept for one connection; PostgreSQL 18 reports 15, extensions may add some.
const REPORTED_MAX: usize = 64;

/// Equal sets are one allocation, so that comparing two is comparing two addresses.
#[derive(Debug)]
pub struct Interner<T>(std::collections::HashMap<Rc<T>, ()>);

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(std::collections::HashMap::new())
    }
}

impl<T: Eq + std::hash::Hash> Interner<T> {
    /// The shared copy of what `value` equals.
    pub fn intern_shared(&mut self, value: &Rc<T>) -> Rc<T> {
        if let Some((shared, ())) = self.0.get_key_value(value) {
            return Rc::clone(shared);
        }
        self.sweep();
        self.0.insert(Rc::clone(value), ());
        Rc::clone(value)
    }

    /// The shared copy of `value`.
    pub fn intern(&mut self, value: T) -> Rc<T> {
        if let Some((shared, ())) = self.0.get_key_value(&value) {
            return Rc::clone(shared);
        }
        self.sweep();
        let shared = Rc::new(value);
        self.0.insert(Rc::clone(&shared), ());
        shared
    }

    /// Forgets what nobody else holds, before the table grows.
    fn sweep(&mut self) {
        if self.0.len() >= self.0.capacity() {
            self.0.retain(|shared, ()| Rc::strong_count(shared) > 1);
        }
    }
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;
