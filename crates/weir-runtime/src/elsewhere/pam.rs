//! Questions to PAM, whose modules may take their time and cannot be interrupted: on a few threads of their own.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nonstick::{AuthnFlags, ConversationAdapter, ErrorCode, Transaction, TransactionBuilder};
use tokio::sync::oneshot;
use weir_auth::{Authority, Secret};
use weir_worker::{Referral, Verdict};

type Task = (Referral, oneshot::Sender<Verdict>);

/// The way to the threads.
#[derive(Default)]
pub(super) struct Asker {
    tasks: Option<Sender<Task>>,
}

impl Asker {
    pub(super) fn ask(&mut self, referral: Referral, answer: oneshot::Sender<Verdict>) {
        let tasks = self.tasks.get_or_insert_with(start_threads);
        // Threads that could not be started drop the answer, which tells enough.
        if tasks.send((referral, answer)).is_err() {
            self.tasks = None;
        }
    }
}

/// No more than the machine asks for at once, and what nobody waits for any more, is ever in the channel.
fn start_threads() -> Sender<Task> {
    let (tasks, inbox) = mpsc::channel();
    let inbox = Arc::new(Mutex::new(inbox));
    for index in 0..THREADS {
        let inbox = Arc::clone(&inbox);
        if let Err(error) = thread::Builder::new().name(format!("pam-{index}")).spawn(move || work(&inbox)) {
            tracing::warn!("no thread to ask PAM on: {error}");
        }
    }
    tasks
}

fn work(inbox: &Mutex<Receiver<Task>>) {
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((referral, answer)) = next else { return };
        // Nobody waits for what would come too late.
        if !answer.is_closed() {
            drop(answer.send(judge(&referral)));
        }
    }
}

fn judge(Referral { authority, user, password, .. }: &Referral) -> Verdict {
    let Authority::Pam(service) = &**authority else {
        return Verdict::Unavailable("there is no service to ask".to_owned());
    };
    match log_in(service, user, password) {
        Ok(()) => Verdict::Right,
        Err(error) if is_trouble(error) => Verdict::Unavailable(format!("PAM service {service}: {error}")),
        Err(error) => {
            tracing::info!("PAM service {service} refuses {user:?}: {error}");
            Verdict::Wrong
        }
    }
}

/// The password, and then whether the account may be used.
fn log_in(service: &str, user: &str, password: &Secret) -> Result<(), ErrorCode> {
    let talk = Answers { password }.into_conversation();
    let mut transaction = TransactionBuilder::new_with_service(service).username(user).build(talk)?;
    transaction.authenticate(AuthnFlags::empty())?;
    transaction.account_management(AuthnFlags::empty())
}

/// Whether nobody looked at the password. A system error is none of these: that is what pam_exec says of a wrong one.
fn is_trouble(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::OpenError
            | ErrorCode::SymbolError
            | ErrorCode::ServiceError
            | ErrorCode::BufferError
            | ErrorCode::AuthInfoUnavailable
            | ErrorCode::Abort
    )
}

/// What PAM's modules are told: the password for whatever is not shown while it is typed, and nothing else.
struct Answers<'a> {
    password: &'a Secret,
}

impl ConversationAdapter for Answers<'_> {
    fn prompt(&self, _request: impl AsRef<OsStr>) -> Result<OsString, ErrorCode> {
        Err(ErrorCode::ConversationError)
    }

    fn masked_prompt(&self, _request: impl AsRef<OsStr>) -> Result<OsString, ErrorCode> {
        Ok(OsStr::from_bytes(self.password.expose()).to_owned())
    }

    fn error_msg(&self, message: impl AsRef<OsStr>) {
        tracing::info!("PAM says: {}", message.as_ref().display());
    }

    fn info_msg(&self, message: impl AsRef<OsStr>) {
        tracing::debug!("PAM says: {}", message.as_ref().display());
    }
}

/// So many questions at once.
const THREADS: usize = 4;
