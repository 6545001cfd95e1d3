//! What weir pools for: `[upstream]`, `[patroni]`, or nothing if every database names its hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{DAY, MINUTE, millis};
use crate::logins::check_password;
use crate::model::{Callback, Database, Patroni, PatroniLogin, Upstream};
use crate::problem::{Place, Wrong};
use crate::reader::Reader;
use crate::url::{PostgresUrl, patroni_base};
use crate::value::{
    READ_FALLBACKS, READ_POLICIES, TLS_MODES, Value, bytes, duration, listen_address, text, word, words,
};

/// Reads the URL and spreads what it says over the settings that say the same.
pub(super) fn read_upstream_url(reader: &mut Reader<'_>) -> Option<PostgresUrl> {
    let url = reader.optional("upstream.url", |value| PostgresUrl::parse(&text(value)?))?;
    let item = reader.settings.items.get("upstream.url")?.clone();
    if url.password.is_some() {
        reader.warn_if_secret_is_readable("upstream.url");
        if let Place::Option(option) = item.place {
            reader.warn(format!(
                "the list of processes shows the password in {option} to every user of this machine; name a file with \
                 it with --auth-password-file"
            ));
        }
    }
    let says = [
        ("auth.user", url.user.clone()),
        ("auth.database", url.database.clone()),
        ("server_tls.mode", url.tls_mode.map(|mode| crate::value::name_of(TLS_MODES, &mode).to_owned())),
        ("server_tls.ca_file", url.ca_file.clone()),
        ("server_tls.cert_file", url.cert_file.clone()),
        ("server_tls.key_file", url.key_file.clone()),
    ];
    for (key, value) in says {
        if let Some(value) = value {
            reader.settings.derive(key, Value::Text(value), &item);
        }
    }
    Some(url)
}

/// `None` only if something is wrong, which is noted.
pub(super) fn choose_upstream(
    reader: &mut Reader<'_>,
    url: Option<PostgresUrl>,
    patroni: Option<Patroni>,
    has_own_hosts: bool,
) -> Option<Upstream> {
    if reader.is_given("upstream.url") && reader.is_given("patroni.urls") {
        let remedy = "keep upstream.url for one PostgreSQL server, or patroni.urls for a cluster";
        reader.complain(
            "upstream.url",
            Wrong::new("there are two upstreams, this one and patroni.urls", remedy),
        );
        return None;
    }
    if !reader.is_given("upstream.url") && !reader.is_given("patroni.urls") {
        if has_own_hosts || reader.is_given("any_database") {
            return Some(Upstream::None);
        }
        let remedy = if reader.source.is_some() {
            "write url = \"postgres://host:5432\" in [upstream] for one server, \
             urls = [\"http://host:8008\"] in [patroni] for a cluster, or hosts = [\"host:5432\"] in [databases.NAME]"
        } else {
            "give --upstream postgres://host:5432 for one server, --patroni http://host:8008 for a cluster, \
             or a configuration file"
        };
        reader.complain_at(reader.somewhere(), "upstream.url", Wrong::new("nothing to connect to", remedy));
        return None;
    }
    match url {
        Some(PostgresUrl { host, port, .. }) => Some(Upstream::Plain { host, port }),
        None => patroni.map(|patroni| Upstream::Patroni(Box::new(patroni))),
    }
}

/// Without an upstream each database needs hosts of its own.
pub(super) fn need_hosts(
    reader: &mut Reader<'_>,
    databases: &BTreeMap<String, Database>,
    any: Option<&Database>,
) {
    let named = databases.iter().map(|(name, database)| (name.as_str(), database));
    let homeless: Vec<_> = named
        .chain(any.map(|any| ("*", any)))
        .filter(|(_, database)| database.hosts.is_empty())
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in homeless {
        let remedy = "write hosts = [\"host:5432\"] there, or an upstream for all in [upstream] or [patroni]";
        let wrong = Wrong::new("there is nothing to connect to for this database", remedy);
        let place = reader.place_of_database(&name);
        reader.complain_at(place, &format!("databases.{name}"), wrong);
    }
}

pub(super) fn check_patroni(reader: &mut Reader<'_>) -> Option<Patroni> {
    let urls = reader.optional("patroni.urls", patroni_urls).unwrap_or_default();
    let monitor_user = reader.optional("patroni.monitor_user", text);
    let monitor = check_password(reader, "patroni.monitor_password", "patroni.monitor_user");
    let username = reader.optional("patroni.username", user_of_basic);
    let own = check_password(reader, "patroni.password", "patroni.username");
    if username.is_some() && own.secret.is_none() && !reader.is_given("patroni.password_file") {
        let remedy = "write it as patroni.password, or name a file with it as patroni.password_file";
        reader.complain("patroni.username", Wrong::new("has no password", remedy));
    }
    let callback = check_callback(reader);
    let tls = Box::new(super::tls::check_patroni_tls(reader, &urls));
    let patroni = Patroni {
        urls,
        tls,
        scope: reader.optional("patroni.scope", text),
        max_lag_bytes: reader.required("patroni.max_lag", bytes(1 << 50)),
        read_fallback: reader.required("patroni.read_fallback", word(READ_FALLBACKS)),
        read_policy: reader.required("patroni.read_policy", word(READ_POLICIES)),
        poll_interval: reader.required("patroni.poll_interval", duration(millis(100)..=MINUTE)),
        poll_timeout: reader.required("patroni.poll_timeout", duration(millis(50)..=POLL_TIMEOUT_MAX)),
        hold_timeout: reader.required("patroni.hold_timeout", duration(millis(1)..=DAY)),
        monitor_user,
        monitor_password_file: monitor.file,
        monitor_password: monitor.secret,
        monitor_database: reader.required("patroni.monitor_database", text),
        switchover_wait: reader
            .required("patroni.switchover_wait", duration(millis(0)..=SWITCHOVER_WAIT_MAX)),
        callback,
        login: PatroniLogin { username, password_file: own.file, password: own.secret },
    };
    (!patroni.urls.is_empty()).then_some(patroni)
}

fn check_callback(reader: &mut Reader<'_>) -> Callback {
    let listen = reader.optional("patroni.callback_listen", listen_address);
    let token = check_password(reader, "patroni.callback_token", "patroni.callback_listen");
    if listen.is_some() && token.secret.is_none() && !reader.is_given("patroni.callback_token_file") {
        let remedy = "write patroni.callback_token, or name a file with it as patroni.callback_token_file";
        reader.complain("patroni.callback_listen", Wrong::new("has no token to ask for", remedy));
    }
    Callback { listen, token_file: token.file, token: token.secret }
}

/// RFC 7617: what stands in front of the first colon.
fn user_of_basic(value: &Value) -> Result<String, Wrong> {
    let user = text(value)?;
    if user.contains(':') || user.chars().any(char::is_control) {
        return Err(Wrong::new(
            "cannot be a user of a REST API",
            "write the username of Patroni's restapi.authentication; it has no colon",
        ));
    }
    Ok(user)
}

fn patroni_urls(value: &Value) -> Result<Vec<String>, Wrong> {
    let mut bases = Vec::new();
    for url in words(value)? {
        let base = patroni_base(&url)?;
        if !bases.contains(&base) {
            bases.push(base);
        }
    }
    if bases.is_empty() {
        return Err(Wrong::new(
            "is empty",
            "name the REST API of one member or more, such as \"http://host:8008\"",
        ));
    }
    Ok(bases)
}

/// Discovery gives an answer up for lost 15 s after it asked.
const POLL_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Clients wait as long.
const SWITCHOVER_WAIT_MAX: Duration = Duration::from_secs(600);
