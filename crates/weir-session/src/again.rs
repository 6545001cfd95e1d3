//! Requests that PostgreSQL has refused through no fault of their own, and that run once more without the client's hearing of
//! it: on the same server connection for want of a good statement, on another member after a recovery conflict. Owns which
//! errors these are; refuses to know how bytes are forwarded.

use weir_protocol::backend::read::ErrorFields;

use crate::owed::{Owed, ParseOf};
use crate::server::{Server, TxStatus};
use crate::session::Session;

/// A request that has failed and is to be run again.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) bytes: Vec<u8>,
    /// On another member: this one has broken it off in favour of what it replays.
    pub(crate) elsewhere: bool,
}

impl Session {
    /// An error came, and the connection goes on. Notes what it shows, and whether the request runs again instead of failing.
    pub(crate) fn plan_again(&self, fields: &ErrorFields<'_>, server: &mut Server) {
        let elsewhere = is_recovery_conflict(fields, server);
        let bad_statement = shows_other_statements(fields, server);
        if bad_statement {
            server.statements.doubt_all();
        }
        let runs_again =
            bad_statement && self.may_run_again(server) || elsewhere && self.may_run_elsewhere(server);
        if runs_again {
            server.again = server.replay.take().map(|bytes| Again { bytes, elsewhere });
        }
    }

    /// A request that failed for want of a good statement runs again with its statements parsed anew, if it was the only
    /// one in flight and outside a transaction (its bytes are kept only then), and nothing of its reply was forwarded.
    fn may_run_again(&self, server: &Server) -> bool {
        !self.retried && self.tx == TxStatus::Idle && server.owed.ready_owed() == 1
    }

    /// The same for a request that leaves this server connection, which has to be at rest behind it.
    fn may_run_elsewhere(&self, server: &Server) -> bool {
        self.may_run_again(server) && self.can_repeat(server) && server.watch.is_quiet()
    }
}

/// Errors which show that the server connection's statements are not what weir takes them for: one of weir's own names is
/// missing or taken, or a statement cannot be run since its tables were altered.
fn shows_other_statements(fields: &ErrorFields<'_>, server: &Server) -> bool {
    let says = |text: &[u8]| fields.message.windows(text.len()).any(|window| window == text);
    match fields.code {
        b"26000" => says(b"\"weir_"),
        b"42P05" => says(b"\"weir_") && !matches!(server.owed.head(), Some(Owed::Parse(ParseOf::Taken(_)))),
        b"0A000" => says(b"cached plan"),
        _ => false,
    }
}

/// A standby has broken off the request in favour of what it has to replay (manual, "Handling Query Conflicts"). Only its
/// server loop and its recovery report that; 40001 from anywhere else is the application's own, and words are translated.
fn is_recovery_conflict(fields: &ErrorFields<'_>, server: &Server) -> bool {
    let code = matches!(fields.code, b"40001" | b"40P01");
    let by = fields.field(b'F').unwrap_or_default();
    server.standby && code && matches!(by, b"postgres.c" | b"standby.c")
}
