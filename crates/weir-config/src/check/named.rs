//! Sections with names of their own: `[databases.NAME]`, `[users.NAME]`, `[peers.ID]`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::listen::port_number;
use super::pools::{POOL_SIZE_MAX, pool_size, query, server_lifetime};
use super::tls::check_database_tls;
use super::{CONNECTIONS_MAX, YEAR, millis};
use crate::key::Family;
use crate::logins::{Password, auth_query, check_password};
use crate::model::{Database, Host, Peer, ServerTls, User};
use crate::problem::{Place, Wrong};
use crate::reader::Reader;
use crate::url::split_port;
use crate::value::{LOAD_BALANCES, POOL_MODES, Value, count, duration_or_never, text, truth, word, words};

/// Client-facing names that reach the console instead of a database.
pub const CONSOLE_DATABASES: [&str; 2] = ["pgbouncer", "weir"];

/// What is said about single databases, and what holds for all others if they may be reached at all.
pub(super) struct Databases {
    pub(super) named: BTreeMap<String, Database>,
    pub(super) any: Option<Database>,
}

pub(super) fn check_databases(reader: &mut Reader<'_>, server_tls: &ServerTls) -> Databases {
    let mut named = BTreeMap::new();
    let mut fallback = None;
    for (name, place) in sections(reader, Family::Databases) {
        let path = format!("databases.{name}");
        if CONSOLE_DATABASES.contains(&name.as_str()) {
            let wrong = Wrong::new(
                "this name is the console's",
                "give the database another name, and set its dbname",
            );
            reader.complain_at(place, &path, wrong);
        } else if name.is_empty() {
            reader.complain_at(place, &path, Wrong::new("has no name", "write [databases.NAME]"));
        } else if name == ANY {
            fallback = Some(check_database(reader, &path, server_tls));
        } else {
            let database = check_database(reader, &path, server_tls);
            named.insert(name, database);
        }
    }
    let is_allowed = reader.required("any_database", truth);
    if fallback.is_some() && !is_allowed {
        let remedy = "leave one of the two out";
        let wrong =
            Wrong::new("other databases are refused, but there is a section [databases.\"*\"]", remedy);
        reader.complain("any_database", wrong);
    }
    // Where there is no upstream for all, only databases that name their hosts can be reached.
    let has_own_hosts = named.values().any(|database| !database.hosts.is_empty());
    let has_upstream = reader.is_given("upstream.url") || reader.is_given("patroni.urls");
    let is_implied = has_upstream || reader.is_given("any_database") || !has_own_hosts;
    let any = fallback.or_else(|| (is_allowed && is_implied).then(Database::default));
    Databases { named, any }
}

fn check_database(reader: &mut Reader<'_>, path: &str, general: &ServerTls) -> Database {
    let key = |name: &str| format!("{path}.{name}");
    let parameters = PARAMETERS
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), reader.optional(&key(name), text)?)))
        .collect();
    let user = reader.optional(&key("user"), text);
    let Password { file: _, secret: password } = check_password(reader, &key("password"), &key("user"));
    Database {
        dbname: reader.optional(&key("dbname"), text),
        hosts: reader.optional(&key("hosts"), hosts).unwrap_or_default(),
        load_balance: reader.optional(&key("load_balance"), word(LOAD_BALANCES)).unwrap_or_default(),
        user,
        password,
        auth_user: reader.optional(&key("auth_user"), text),
        auth_query: reader.optional(&key("auth_query"), auth_query),
        auth_database: reader.optional(&key("auth_database"), text),
        pool_mode: reader.optional(&key("pool_mode"), word(POOL_MODES)),
        pool_size: reader.optional(&key("pool_size"), pool_size),
        min_pool_size: reader.optional(&key("min_pool_size"), count(0..=POOL_SIZE_MAX)),
        reserve_pool_size: reader.optional(&key("reserve_pool_size"), count(0..=POOL_SIZE_MAX)),
        server_lifetime: reader.optional(&key("server_lifetime"), own_lifetime),
        query_wait_timeout: reader.optional(&key("query_wait_timeout"), duration_or_never(millis(1)..=YEAR)),
        max_db_connections: reader.optional(&key("max_db_connections"), count(0..=CONNECTIONS_MAX)),
        max_db_client_connections: reader
            .optional(&key("max_db_client_connections"), count(0..=CONNECTIONS_MAX)),
        connect_query: reader.optional(&key("connect_query"), query).filter(|query| !query.is_empty()),
        server_tls: check_database_tls(reader, path, general),
        parameters,
    }
}

fn own_lifetime(value: &Value) -> Result<Duration, Wrong> {
    server_lifetime(value)?.ok_or_else(|| {
        Wrong::new("cannot be unlimited for a single database", "write a long duration, such as \"365d\"")
    })
}

fn hosts(value: &Value) -> Result<Vec<Host>, Wrong> {
    let hosts: Vec<_> = words(value)?.iter().map(|word| host(word)).collect::<Result<_, _>>()?;
    if hosts.is_empty() {
        return Err(Wrong::new("is empty", "name a server, such as [\"db1:5432\"], or leave the key out"));
    }
    Ok(hosts)
}

/// `host`, `host:port`, `[address]:port`, `/directory` or `/directory:port`.
fn host(text: &str) -> Result<Host, Wrong> {
    let found = if text.starts_with(['/', '@']) {
        match text.rsplit_once(':') {
            Some((directory, port)) => port.parse().ok().map(|port| (directory, Some(port))),
            None => Some((text, None)),
        }
    } else {
        split_port(text)
    };
    match found {
        Some((host, port)) if !host.is_empty() => {
            Ok(Host { host: host.to_owned(), port: port.unwrap_or(POSTGRESQL_PORT) })
        }
        Some(_) | None => Err(Wrong::new(
            format!("{text:?} is not a server"),
            "write \"host\", \"host:5432\", \"[::1]:5432\", or a Unix socket's directory such as \"/run/postgresql:5432\"",
        )),
    }
}

pub(super) fn check_users(reader: &mut Reader<'_>) -> BTreeMap<String, User> {
    let limit = || duration_or_never(millis(1)..=YEAR);
    let mut users = BTreeMap::new();
    for (name, _) in sections(reader, Family::Users) {
        let key = |key: &str| format!("users.{name}.{key}");
        let user = User {
            pool_mode: reader.optional(&key("pool_mode"), word(POOL_MODES)),
            pool_size: reader.optional(&key("pool_size"), pool_size),
            reserve_pool_size: reader.optional(&key("reserve_pool_size"), count(0..=POOL_SIZE_MAX)),
            max_user_connections: reader.optional(&key("max_user_connections"), count(0..=CONNECTIONS_MAX)),
            max_user_client_connections: reader
                .optional(&key("max_user_client_connections"), count(0..=CONNECTIONS_MAX)),
            query_timeout: reader.optional(&key("query_timeout"), limit()),
            query_wait_timeout: reader.optional(&key("query_wait_timeout"), limit()),
            idle_transaction_timeout: reader.optional(&key("idle_transaction_timeout"), limit()),
            transaction_timeout: reader.optional(&key("transaction_timeout"), limit()),
            client_idle_timeout: reader.optional(&key("client_idle_timeout"), limit()),
        };
        users.insert(name, user);
    }
    users
}

pub(super) fn check_peers(reader: &mut Reader<'_>) -> BTreeMap<u16, Peer> {
    let mut peers = BTreeMap::new();
    for (name, place) in sections(reader, Family::Peers) {
        let key = |key: &str| format!("peers.{name}.{key}");
        let peer = Peer {
            host: reader.optional(&key("host"), text),
            port: reader.optional(&key("port"), port_number).unwrap_or(WEIR_PORT),
            pool_size: reader.optional(&key("pool_size"), count(1..=POOL_SIZE_MAX)).and_then(NonZeroU32::new),
        };
        match name.parse() {
            Ok(id @ 1..=PEER_ID_MAX) => {
                peers.insert(id, peer);
            }
            Ok(_) | Err(_) => {
                let what = format!("{name:?} is not a peer_id");
                let remedy = format!("write [peers.ID] with a number from 1 to {PEER_ID_MAX}");
                reader.complain_at(place, &format!("peers.{name}"), Wrong::new(what, remedy));
            }
        }
    }
    peers
}

pub(super) fn peer_id(value: &Value) -> Result<u16, Wrong> {
    // The count's upper bound fits.
    count(0..=u32::from(PEER_ID_MAX))(value).map(|id| u16::try_from(id).unwrap_or(PEER_ID_MAX))
}

pub(super) fn sections(reader: &Reader<'_>, family: Family) -> BTreeMap<String, Place> {
    reader.settings.named.get(&family).cloned().unwrap_or_default()
}

/// Stands for every database that has no section of its own.
pub(crate) const ANY: &str = "*";

/// What a database can preset for its clients.
const PARAMETERS: [&str; 4] = ["client_encoding", "datestyle", "timezone", "application_name"];

/// Peers' numbers are part of cancel keys, which have room for so much.
const PEER_ID_MAX: u16 = 16_383;

const POSTGRESQL_PORT: u16 = 5432;
const WEIR_PORT: u16 = 6432;
