//! Logins to LDAP directories in the users' names, on one thread for all of them. A connection serves one question: whoever
//! is logged in on it must not be taken for the next one.

use std::sync::Arc;
use std::thread;

use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Scope, SearchEntry, SearchOptions,
};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use weir_auth::{Authority, Directory, Entry, LdapEncryption, Secret, filter_for};
use weir_worker::{Referral, Verdict};

use super::ANSWER_TIME_MAX;
use crate::tls;

type Task = (Referral, oneshot::Sender<Verdict>);

/// The way to the thread.
#[derive(Default)]
pub(super) struct Asker {
    tasks: Option<mpsc::UnboundedSender<Task>>,
}

impl Asker {
    pub(super) fn ask(&mut self, referral: Referral, answer: oneshot::Sender<Verdict>) {
        let tasks = self.tasks.get_or_insert_with(start_thread);
        // A thread that could not be started drops the answer, which tells enough.
        if tasks.send((referral, answer)).is_err() {
            self.tasks = None;
        }
    }
}

/// No more than the machine asks for at once is ever in the channel.
fn start_thread() -> mpsc::UnboundedSender<Task> {
    let (tasks, mut inbox) = mpsc::unbounded_channel::<Task>();
    let work = move || {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::warn!("directories cannot be asked: {error}"),
        };
        runtime.block_on(async {
            while let Some((referral, answer)) = inbox.recv().await {
                tokio::spawn(async move {
                    if let Ok(verdict) = time::timeout(ANSWER_TIME_MAX, judge(&referral)).await {
                        drop(answer.send(verdict));
                    }
                });
            }
        });
    };
    if let Err(error) = thread::Builder::new().name("ldap".to_owned()).spawn(work) {
        tracing::warn!("no thread to ask directories on: {error}");
    }
    tasks
}

async fn judge(Referral { authority, user, password, .. }: &Referral) -> Verdict {
    let Authority::Ldap(directory) = &**authority else {
        return Verdict::Unavailable("there is no directory to ask".to_owned());
    };
    // Directories know passwords as UTF-8 (RFC 4513, section 5.1.3).
    let Ok(password) = str::from_utf8(password.expose()) else { return Verdict::Wrong };
    let mut troubles = Vec::new();
    for server in &directory.servers {
        match connect(directory, server).await {
            Ok(mut ldap) => {
                let verdict = log_in(&mut ldap, directory, user, password).await;
                drop(ldap.unbind().await);
                return verdict.unwrap_or_else(|error| Verdict::Unavailable(format!("{server}: {error}")));
            }
            Err(error) => troubles.push(format!("{server}: {error}")),
        }
    }
    Verdict::Unavailable(troubles.join("; "))
}

async fn connect(directory: &Directory, server: &str) -> Result<Ldap, String> {
    let mut settings = LdapConnSettings::new().set_conn_timeout(ANSWER_TIME_MAX / 4);
    let scheme = match directory.encryption {
        LdapEncryption::Ldaps => "ldaps",
        LdapEncryption::None | LdapEncryption::StartTls => "ldap",
    };
    if directory.encryption != LdapEncryption::None {
        let config = tls::towards_directories().map_err(|error| error.to_string())?;
        settings = settings
            .set_config(Arc::clone(&config))
            .set_starttls(directory.encryption == LdapEncryption::StartTls);
    }
    let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
    let url = format!("{scheme}://{host}:{}", directory.port);
    let (connection, ldap) =
        LdapConnAsync::with_settings(settings, &url).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.drive().await {
            tracing::debug!("connection to a directory: {error}");
        }
    });
    Ok(ldap)
}

async fn log_in(
    ldap: &mut Ldap,
    directory: &Directory,
    user: &str,
    password: &str,
) -> Result<Verdict, LdapError> {
    let name = match &directory.entry {
        entry @ Entry::Named { .. } => entry.name_of(user),
        Entry::Sought { base, seeker, filter } => {
            if let Some((name, password)) = seeker {
                log_in_to_seek(ldap, name, password).await?;
            }
            only_entry(ldap, base, &filter_for(filter, user)).await?
        }
    };
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Verdict::Wrong) };
    Ok(verdict(&ldap.simple_bind(&name, password).await?))
}

async fn log_in_to_seek(ldap: &mut Ldap, name: &str, password: &Secret) -> Result<(), LdapError> {
    ldap.simple_bind(name, &String::from_utf8_lossy(password.expose())).await?.success().map(drop)
}

/// The name of the one entry that fits; of several nobody knows whose the password is.
async fn only_entry(ldap: &mut Ldap, base: &str, filter: &str) -> Result<Option<String>, LdapError> {
    let options = SearchOptions::new().sizelimit(2);
    let found = ldap.with_search_options(options).search(base, Scope::Subtree, filter, vec!["1.1"]).await?;
    let mut names: Vec<String> = found
        .0
        .into_iter()
        .filter(|entry| !entry.is_ref() && !entry.is_intermediate())
        .map(|entry| SearchEntry::construct(entry).dn)
        .collect();
    if !matches!(found.1.rc, SUCCESS | SIZE_LIMIT_EXCEEDED) {
        return Err(LdapError::from(found.1));
    }
    match (names.pop(), names.pop()) {
        (Some(name), None) => Ok(Some(name)),
        (Some(_), Some(_)) => {
            tracing::warn!("several entries in the directory fit {filter}: nobody is let in by one of them");
            Ok(None)
        }
        (None, _) => Ok(None),
    }
}

/// What the directory says (RFC 4511, appendix A).
fn verdict(result: &LdapResult) -> Verdict {
    match result.rc {
        SUCCESS => Verdict::Right,
        OPERATIONS_ERROR
        | PROTOCOL_ERROR
        | STRONGER_NEEDED
        | CONFIDENTIALITY_NEEDED
        | BUSY
        | UNAVAILABLE
        | OTHER => Verdict::Unavailable(result.to_string()),
        _ => {
            tracing::info!("the directory refuses a login: {result}");
            Verdict::Wrong
        }
    }
}

const SUCCESS: u32 = 0;
const OPERATIONS_ERROR: u32 = 1;
const PROTOCOL_ERROR: u32 = 2;
const SIZE_LIMIT_EXCEEDED: u32 = 4;
const STRONGER_NEEDED: u32 = 8;
const CONFIDENTIALITY_NEEDED: u32 = 13;
const BUSY: u32 = 51;
const UNAVAILABLE: u32 = 52;
const OTHER: u32 = 80;
