//! `[databases]`, `[users]` and `[peers]`: each line is a name and a connection string.

use std::collections::BTreeMap;

use super::lines::IniLine;
use super::pairs::pairs;
use super::table::Notation::{self, Lifetime, Number, Seconds, Text, TextOrEmpty, Word};
use super::translate::Translator;
use crate::key::Family;
use crate::problem::{Place, Wrong};
use crate::suggest::nearest;
use crate::value::Value;

/// A key of a connection string: PgBouncer's name, weir.toml's, and the notation.
type Pair = (&'static str, &'static str, Notation);

pub(super) fn translate(translator: &mut Translator<'_>, lines: &[IniLine]) {
    for family in FAMILIES {
        // Of a name that stands there twice the last line holds, all of it.
        let named: BTreeMap<_, _> = lines
            .iter()
            .filter(|line| line.section == family.name())
            .map(|line| (line.key.as_str(), line))
            .collect();
        if family == Family::Databases && !named.contains_key("*") {
            translator.insert("any_database", "databases", translator.file.clone(), Value::Truth(false));
        }
        for line in named.into_values() {
            section(translator, family, line);
        }
    }
}

fn section(translator: &mut Translator<'_>, family: Family, line: &IniLine) {
    let path = format!("{}.{}", family.name(), line.key);
    let pairs = match pairs(&line.value) {
        Ok(pairs) => pairs,
        Err(wrong) => {
            translator.complain(&line.place, &path, wrong);
            return;
        }
    };
    translator.settings.named.entry(family).or_default().insert(line.key.clone(), line.place.clone());
    let mut server = Server::default();
    for (name, value) in pairs {
        match (family, name.as_str()) {
            (Family::Databases, "host") => server.host = Some(value),
            (Family::Databases, "port") => server.port = Some(value),
            (Family::Databases, "password") => server.password = Some(value),
            (Family::Databases | Family::Users | Family::Peers | Family::Certificates, name) => {
                pair(translator, family, line, name, &value);
            }
        }
    }
    if family == Family::Databases {
        server.settle(translator, &path, &line.place);
    }
}

fn pair(translator: &mut Translator<'_>, family: Family, line: &IniLine, name: &str, value: &str) {
    let path = format!("{}.{}", family.name(), line.key);
    let known = known_to(family);
    let written = format!("{path}.{name}");
    let Some((_, ours, notation)) = known.iter().find(|(theirs, ..)| *theirs == name) else {
        let remedy = match nearest(name, known.iter().map(|(theirs, ..)| *theirs)) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => {
                format!("there are {}", known.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", "))
            }
        };
        translator.complain(&line.place, &written, Wrong::new("there is no such key", remedy));
        return;
    };
    match notation.read(value) {
        Ok(Some(value)) => translator.insert(&format!("{path}.{ours}"), &written, line.place.clone(), value),
        Ok(None) => {}
        Err(wrong) => translator.complain(&line.place, &written, wrong),
    }
}

/// Every key of a connection string behind its section, such as `users.pool_mode`.
pub(super) fn keys() -> impl Iterator<Item = String> {
    let place = ["host", "port", "password"].map(|name| format!("{}.{name}", Family::Databases.name()));
    let known = FAMILIES.into_iter().flat_map(|family| {
        known_to(family).iter().map(move |(name, ..)| format!("{}.{name}", family.name()))
    });
    place.into_iter().chain(known)
}

fn known_to(family: Family) -> &'static [Pair] {
    match family {
        Family::Databases => DATABASE,
        Family::Users => USER,
        Family::Peers => PEER,
        Family::Certificates => &[],
    }
}

/// The sections that PgBouncer has.
const FAMILIES: [Family; 3] = [Family::Databases, Family::Users, Family::Peers];

/// The keys of a database that only make sense together.
#[derive(Default)]
struct Server {
    host: Option<String>,
    port: Option<String>,
    password: Option<String>,
}

impl Server {
    fn settle(self, translator: &mut Translator<'_>, path: &str, place: &Place) {
        let port = match self.port.as_deref().map_or(Ok(POSTGRESQL_PORT), str::parse::<u16>) {
            Ok(port @ 1..) => port,
            Ok(0) | Err(_) => {
                let what = format!("{:?} is not a port", self.port.unwrap_or_default());
                let wrong = Wrong::new(what, "write a number from 1 to 65535");
                translator.complain(place, &format!("{path}.port"), wrong);
                POSTGRESQL_PORT
            }
        };
        match (self.host, translator.given("patroni_urls")) {
            (None, Some(_)) => {}
            (host, _) => {
                let host = host.unwrap_or_else(|| default_host(translator));
                let words = host.split(',').map(|host| with_port(host.trim(), port)).collect();
                let written = format!("{path}.host");
                translator.insert(&format!("{path}.hosts"), &written, place.clone(), Value::Words(words));
            }
        }
        let Some(password) = self.password else { return };
        if translator.settings.items.contains_key(&format!("{path}.user")) {
            let written = format!("{path}.password");
            translator.insert(&written, &written, place.clone(), Value::Text(password));
        } else {
            translator.warnings.push(format!("{path}: a password without a user is not used"));
        }
    }
}

/// A database without a host is reached through the Unix socket's directory, or by TCP if there is none.
fn default_host(translator: &Translator<'_>) -> String {
    match translator.given("unix_socket_dir").map(|line| line.value.as_str()) {
        None => "/tmp".to_owned(),
        Some("") => "localhost".to_owned(),
        Some(directory) => directory.to_owned(),
    }
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with(['/', '@']) {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

const DATABASE: &[Pair] = &[
    ("dbname", "dbname", Text),
    ("user", "user", Text),
    ("auth_user", "auth_user", Text),
    ("auth_query", "auth_query", Text),
    ("auth_dbname", "auth_database", Text),
    ("pool_size", "pool_size", Number),
    ("min_pool_size", "min_pool_size", Number),
    ("reserve_pool_size", "reserve_pool_size", Number),
    ("reserve_pool", "reserve_pool_size", Number),
    ("connect_query", "connect_query", TextOrEmpty),
    ("pool_mode", "pool_mode", Word),
    ("query_wait_timeout", "query_wait_timeout", Seconds),
    ("load_balance_hosts", "load_balance", Word),
    ("max_db_connections", "max_db_connections", Number),
    ("max_db_client_connections", "max_db_client_connections", Number),
    ("server_lifetime", "server_lifetime", Lifetime),
    ("client_encoding", "client_encoding", Text),
    ("datestyle", "datestyle", Text),
    ("timezone", "timezone", Text),
    ("application_name", "application_name", Text),
];

const USER: &[Pair] = &[
    ("pool_size", "pool_size", Number),
    ("reserve_pool_size", "reserve_pool_size", Number),
    ("pool_mode", "pool_mode", Word),
    ("max_user_connections", "max_user_connections", Number),
    ("max_user_client_connections", "max_user_client_connections", Number),
    ("query_timeout", "query_timeout", Seconds),
    ("query_wait_timeout", "query_wait_timeout", Seconds),
    ("idle_transaction_timeout", "idle_transaction_timeout", Seconds),
    ("transaction_timeout", "transaction_timeout", Seconds),
    ("client_idle_timeout", "client_idle_timeout", Seconds),
];

const PEER: &[Pair] = &[("host", "host", Text), ("port", "port", Number), ("pool_size", "pool_size", Number)];

const POSTGRESQL_PORT: u16 = 5432;
