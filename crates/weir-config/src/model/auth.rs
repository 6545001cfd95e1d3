//! Who may log in, and how that is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Login settings.
#[derive(Debug, Clone)]
pub struct Auth {
    /// How clients are asked for their secret.
    pub method: AuthMethod,
    /// Who judges passwords, with [`AuthMethod::Ldap`] and [`AuthMethod::Pam`].
    pub authority: Option<Arc<weir_auth::Authority>>,
    /// What says so for LDAP, as it was given; nothing if a password is in it.
    pub ldap_options: Option<String>,
    /// File that [`Auth::hba`] was read from.
    pub hba_file: Option<PathBuf>,
    /// Who may log in how, with [`AuthMethod::Hba`].
    pub hba: weir_auth::HbaRules,
    /// File that [`Auth::ident`] was read from.
    pub ident_file: Option<PathBuf>,
    /// Which certificate or system user may log in as whom.
    pub ident: weir_auth::IdentMaps,
    /// Names of the system's users by their numbers, if anybody is asked for them.
    pub system_users: BTreeMap<u32, String>,
    /// Iterations of verifiers that are derived from passwords in the user list.
    pub scram_iterations: u32,
    /// Failed logins from one network that are answered at once; the answers to more of them are held back.
    pub failed_logins_free: u32,
    /// Longest time that an answer to a failed login is held back; zero: none is.
    pub failed_login_delay_max: Duration,
    /// User list file (PgBouncer's format), already read into [`Auth::users`].
    pub file: Option<PathBuf>,
    /// File with the password of [`Auth::user`], already read into [`Auth::users`].
    pub password_file: Option<PathBuf>,
    /// The user list, with the credentials of the upstream URL and of [`Auth::user`] merged in.
    pub users: weir_auth::UserList,
    /// User that runs `query` for users who are not in the list.
    pub user: Option<String>,
    /// SELECT with `$1` = user name that returns (name, secret).
    pub query: Option<String>,
    /// Client-facing database to run `query` in; default: the client's own.
    pub database: Option<String>,
    /// How long an answer of `query` (or about groups) lets others in without being asked for again: changes in PostgreSQL
    /// count here after this time at the latest. Zero: each login asks.
    pub query_cache_time: Duration,
    /// Logins that wait for an answer longer are refused.
    pub query_timeout: Duration,
    /// Users with full console access.
    pub admin_users: Vec<String>,
    /// Users who may only SHOW.
    pub stats_users: Vec<String>,
}

/// How clients log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// SCRAM-SHA-256.
    ScramSha256,
    /// md5, or SCRAM-SHA-256 for a user whose stored secret is a SCRAM verifier.
    Md5,
    /// The password as it is.
    Plain,
    /// Nothing is asked; the name has to be in the user list if there is one.
    Trust,
    /// Nothing is asked and the name does not matter: for databases with a forced user only.
    Any,
    /// A certificate whose common name is the user's.
    Cert,
    /// The system user at the other end of a Unix socket has the user's name.
    Peer,
    /// The password as it is, which a directory judges.
    Ldap,
    /// The password as it is, which PAM judges.
    Pam,
    /// As [`Auth::hba`] says.
    Hba,
}
