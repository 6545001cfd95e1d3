//! The `[auth]` section: who may log in, and with what weir itself logs in. Nobody is let in by silence: without a
//! user list, credentials or a written `trust` there is no configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_auth::{HbaMethod, Secret, StoredSecret, UserList};

use crate::ini::text_of;
use crate::model::{Auth, AuthMethod, Database, Dialect};
use crate::problem::{Place, Problem, Wrong};
use crate::reader::{Reader, Secrecy};
use crate::url::PostgresUrl;
use crate::value::{AUTH_METHODS, Value, count, duration, name_of, text, word, words};

mod access;

pub(crate) fn check_auth(reader: &mut Reader<'_>, url: Option<&PostgresUrl>) -> Auth {
    let method = reader.required("auth.type", word(AUTH_METHODS));
    let (ldap_options, authority) = access::check_authority(reader, method);
    let is_asked = reader.is_given("auth.user") || reader.settings.names_auth_user_of_a_database();
    let (ident_file, ident) = access::check_ident(reader, is_asked);
    let (hba_file, hba) = access::check_hba(reader, method, &ident, is_asked);
    let system_users = access::read_system_users(reader, method, &hba);
    let file = reader.path("auth.file");
    let mut users = file.as_deref().and_then(|file| read_user_list(reader, file)).unwrap_or_default();
    if let Some(PostgresUrl { user: Some(user), password: Some(password), .. }) = url {
        users.insert(user.clone(), StoredSecret::Plain(password.clone()));
    }
    let user = reader.optional("auth.user", text);
    let Password { file: password_file, secret: password } =
        check_password(reader, "auth.password", "auth.user");
    if let (Some(user), Some(password)) = (&user, password) {
        users.insert(user.clone(), StoredSecret::Plain(password));
    }
    let query = reader.required("auth.query", auth_query);
    let is_pgbouncer = reader.settings.dialect == Dialect::PgBouncer;
    if !is_asked && !is_pgbouncer && reader.is_given("auth.query") && !reader.is_given("auth.user") {
        let wrong = Wrong::new("nobody is named to run it", "name a user as auth.user (option --auth-user)");
        reader.complain("auth.query", wrong);
    }
    let auth = Auth {
        method,
        authority,
        ldap_options,
        hba_file,
        hba,
        ident_file,
        ident,
        system_users,
        scram_iterations: reader
            .required("auth.scram_iterations", count(1..=weir_auth::scram::ITERATIONS_MAX)),
        failed_logins_free: reader.required("auth.failed_logins_free", count(0..=1000)),
        failed_login_delay_max: reader
            .required("auth.failed_login_delay_max", duration(Duration::ZERO..=Duration::from_secs(60))),
        file,
        password_file,
        users,
        query: is_asked.then_some(query),
        user,
        database: reader.optional("auth.database", text),
        query_cache_time: reader.required("auth.query_cache_time", duration(Duration::ZERO..=CACHE_TIME_MAX)),
        query_timeout: reader.required("auth.query_timeout", duration(QUERY_TIMEOUT_MIN..=QUERY_TIMEOUT_MAX)),
        admin_users: reader.required("auth.admin_users", words),
        stats_users: reader.required("auth.stats_users", words),
    };
    warn(reader, &auth);
    auth
}

/// Whether somebody could find out who clients are, now that the databases' own ways are known.
pub(crate) fn check_lookups<'a>(
    reader: &mut Reader<'_>,
    auth: &Auth,
    url: Option<&PostgresUrl>,
    databases: impl Iterator<Item = (&'a str, &'a Database)>,
) {
    let mut somebody_asks = auth.user.is_some();
    for (name, database) in databases {
        somebody_asks |= database.auth_user.is_some();
        if let Some(query) = &database.auth_query {
            warn_about_validity(reader, &format!("databases.{name}.auth_query"), query);
        }
    }
    // A URL that could not be read may have held the credentials; it is complained about already.
    let url_is_unread = url.is_none() && reader.is_given("upstream.url");
    let own_user_asks = somebody_asks && auth.user.is_none();
    let is_silent = !url_is_unread && !own_user_asks && nobody_could_log_in(reader, auth);
    // PgBouncer starts without a user list, too; the warning below says what that means.
    if needs_secrets(auth) && is_silent && reader.settings.dialect == Dialect::Weir {
        reader.complain_at(reader.somewhere(), "auth.file", no_silent_trust(url));
    }
    if auth.users.is_empty() && !somebody_asks && needs_secrets(auth) {
        reader.warn("the user list is empty and there is no auth.user: nobody can log in");
    }
}

/// A password, and the file that it stands in if it has one of its own.
#[derive(Default)]
pub(crate) struct Password {
    pub(crate) file: Option<PathBuf>,
    pub(crate) secret: Option<Secret>,
}

/// Reads the password that stands under `key`, or in the file that `key` with `_file` behind it names. It belongs to the
/// user that `user_key` names.
pub(crate) fn check_password(reader: &mut Reader<'_>, key: &str, user_key: &str) -> Password {
    let file_key = format!("{key}_file");
    let (is_given, has_file) = (reader.is_given(key), reader.is_given(&file_key));
    let given = if has_file { &file_key } else { key };
    if is_given && has_file {
        let what = format!("there are two passwords, this one and {key}");
        reader.complain(&file_key, Wrong::new(what, "leave one of the two out"));
    } else if (is_given || has_file) && !reader.is_given(user_key) {
        let wrong = Wrong::new("is a password for nobody", format!("name its user as {user_key}"));
        reader.complain(given, wrong);
    }
    let file = reader.path(&file_key);
    let from_file = file.as_deref().and_then(|file| read_password(reader, &file_key, file));
    let secret = reader.optional(key, text).map(Secret::from);
    if secret.is_some() {
        reader.warn_if_secret_is_readable(key);
    }
    Password { file, secret: from_file.or(secret) }
}

/// Reads a file that holds a password on its first line.
fn read_password(reader: &mut Reader<'_>, key: &str, file: &Path) -> Option<Secret> {
    let contents = reader.contents(key, file, Secrecy::Secret)?;
    let line = contents.expose().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let password = line.strip_suffix(b"\r").unwrap_or(line);
    if password.is_empty() {
        let what = format!("{} has no password on its first line", file.display());
        reader.complain(key, Wrong::new(what, "write the password there, alone"));
        return None;
    }
    Some(Secret::from(password))
}

fn read_user_list(reader: &mut Reader<'_>, file: &Path) -> Option<UserList> {
    let contents = reader.contents("auth.file", file, Secrecy::Secret)?;
    let text = match text_of(contents.expose()) {
        Ok(text) => text,
        Err(why) => {
            let what = format!("cannot read {}: {why}", file.display());
            reader.complain("auth.file", Wrong::new(what, "write it as UTF-8"));
            return None;
        }
    };
    match UserList::parse(&text) {
        Ok(users) => Some(users),
        Err(problems) => {
            reader.problems.extend(problems.into_iter().map(|problem| Problem {
                place: Place::Line(file.to_owned(), problem.line),
                key: String::new(),
                wrong: Wrong::new(problem.why.to_string(), USER_LINE),
            }));
            None
        }
    }
}

pub(crate) fn auth_query(value: &Value) -> Result<String, Wrong> {
    let query = text(value)?;
    if query.contains("$1") && !query.contains('\0') {
        return Ok(query);
    }
    Err(Wrong::new(
        "has no $1 for the user's name",
        "write a SELECT that returns name and secret of the user $1",
    ))
}

/// Whether anybody is asked for something that only a stored secret can check.
pub(crate) fn needs_secrets(auth: &Auth) -> bool {
    match auth.method {
        AuthMethod::ScramSha256 | AuthMethod::Md5 | AuthMethod::Plain => true,
        AuthMethod::Trust
        | AuthMethod::Any
        | AuthMethod::Cert
        | AuthMethod::Peer
        | AuthMethod::Ldap
        | AuthMethod::Pam => false,
        AuthMethod::Hba => [HbaMethod::ScramSha256, HbaMethod::Md5, HbaMethod::Password]
            .into_iter()
            .any(|method| auth.hba.asks_for(method)),
    }
}

/// True if there is no user list and nobody whose password could ask PostgreSQL.
fn nobody_could_log_in(reader: &Reader<'_>, auth: &Auth) -> bool {
    ["auth.file", "auth.password", "auth.password_file"].iter().all(|key| !reader.is_given(key))
        && auth.users.is_empty()
}

fn no_silent_trust(url: Option<&PostgresUrl>) -> Wrong {
    let (server, or_credentials) = match url {
        Some(PostgresUrl { host, port, .. }) => (
            format!("-h {host} -p {port}"),
            ", or write a user with a password\n  who can read pg_authid into the URL: postgres://user:password@host:5432",
        ),
        None => ("-h LEADER".to_owned(), ""),
    };
    Wrong::new(
        "nobody could log in: there is no user list and no user with a password",
        format!(
            "make a user list as a superuser of PostgreSQL:\n    (umask 077; psql {server} -U postgres -XAtc \
             \"{SELECT_USER_LIST}\" > userlist.txt)\n  and name it with --auth-file userlist.txt \
             (file = \"userlist.txt\" in [auth]){or_credentials}"
        ),
    )
}

fn warn(reader: &mut Reader<'_>, auth: &Auth) {
    if matches!(auth.method, AuthMethod::Trust | AuthMethod::Any) {
        let word = name_of(AUTH_METHODS, &auth.method);
        reader.warn(format!(
            "auth type {word:?}: anybody who reaches weir is let in under any name, without a password"
        ));
        if !auth.admin_users.is_empty() || !auth.stats_users.is_empty() {
            reader.warn(format!(
                "auth type {word:?} with console users: anybody can use the console under their names"
            ));
        }
        return;
    }
    warn_about_auth_user(reader, auth);
    let of_md5 = auth.users.iter().filter(|(_, secret)| matches!(secret, StoredSecret::Md5(_))).count();
    if of_md5 > 0 && auth.method == AuthMethod::ScramSha256 {
        reader.warn(format!(
            "{of_md5} of {} users have md5 secrets, which SCRAM-SHA-256 cannot check: they cannot log in until they \
             have a new password or verifier",
            auth.users.len()
        ));
    }
}

fn warn_about_auth_user(reader: &mut Reader<'_>, auth: &Auth) {
    let Some(user) = auth.user.as_deref() else { return };
    warn_if_it_cannot_ask(reader, auth, user, "auth.user");
    warn_about_validity(reader, "auth.query", auth.query.as_deref().unwrap_or_default());
}

/// PostgreSQL refuses a password past its VALID UNTIL; weir can only if the query does (CVE-2025-2291).
fn warn_about_validity(reader: &mut Reader<'_>, key: &str, query: &str) {
    let query = query.to_ascii_lowercase();
    if !query.contains("valuntil") && !query.contains("validuntil") {
        reader.warn(format!(
            "{key} does not look at VALID UNTIL: expired passwords are let in unless the query leaves them out"
        ));
    }
}

/// Databases may have users of their own for that.
pub(crate) fn warn_about_databases<'a>(
    reader: &mut Reader<'_>,
    auth: &Auth,
    databases: impl Iterator<Item = &'a Database>,
) {
    let named: BTreeSet<&str> = databases.filter_map(|database| database.auth_user.as_deref()).collect();
    for user in named.into_iter().filter(|user| auth.user.as_deref() != Some(user)) {
        warn_if_it_cannot_ask(reader, auth, user, "auth_user");
    }
}

fn warn_if_it_cannot_ask(reader: &mut Reader<'_>, auth: &Auth, user: &str, key: &str) {
    let have = match auth.users.get(user) {
        Some(StoredSecret::Plain(_) | StoredSecret::Md5(_)) => return,
        Some(StoredSecret::Scram(_)) => "has only a SCRAM verifier",
        None => "has no password here",
    };
    reader.warn(format!(
        "{key} {user:?} {have}: auth_query needs its password (in the user list or auth.password_file) or \
         trust in pg_hba.conf; a verifier alone cannot log in to PostgreSQL, because it does not contain the \
         client key"
    ));
}

const CACHE_TIME_MAX: Duration = Duration::from_secs(3600);
const QUERY_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const QUERY_TIMEOUT_MAX: Duration = Duration::from_secs(60);

const USER_LINE: &str = "write one line per user: \"name\" \"password or SCRAM-SHA-256$... verifier\"";

/// As it stands between double quotes in a shell.
const SELECT_USER_LIST: &str =
    r#"select '\"'||rolname||'\" \"'||rolpassword||'\"' from pg_authid where rolpassword is not null"#;
