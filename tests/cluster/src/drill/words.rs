//! What a client is told, in full: errors with their DETAIL, and the notices that come beside them. Judges nothing.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Connection, Error};

/// The notices of one connection since it was last asked for them; a bounded number.
#[derive(Debug, Clone, Default)]
pub(super) struct Notices {
    heard: Arc<Mutex<Vec<String>>>,
}

impl Notices {
    /// Drives the connection to its end and listens.
    pub(super) fn listen<S, T>(&self, mut connection: Connection<S, T>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let own = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    own.note(in_full(&notice));
                }
            }
        });
    }

    /// What was heard, and forgets it.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }

    fn note(&self, text: String) {
        let mut heard = self.lock();
        if heard.len() < NOTICES_MAX {
            heard.push(text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SQLSTATE, or a word for want of one.
pub(super) fn code_of(problem: &Error) -> String {
    problem.code().map_or_else(|| "closed".to_owned(), |code| code.code().to_owned())
}

/// An error as a client reads it.
pub(super) fn words_of(problem: &Error) -> String {
    problem.as_db_error().map_or_else(|| problem.to_string(), in_full)
}

fn in_full(said: &DbError) -> String {
    let detail = said.detail().map_or_else(String::new, |detail| format!(" DETAIL: {detail}"));
    format!("{}: {}{detail}", said.severity(), said.message())
}

const NOTICES_MAX: usize = 16;
