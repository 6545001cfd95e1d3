//! The end of a request that may have left something behind: parameters that were reset are brought back, PostgreSQL is
//! asked what is there, and its answer decides what the client carries along and what ties it to its server connection.

use std::rc::Rc;

use weir_protocol::backend;
use weir_protocol::frontend;
use weir_protocol::sql::{Assignments, Count, Keyword, Marks, classify};
use weir_protocol::tag::FromServer;

use super::question::{ANSWER_BYTES_MAX, Answer, question};
use super::{Policy, StateKind};
use crate::owed::Owed;
use crate::prepared::Catalog;
use crate::server::{Server, TxStatus, Unsynced};
use crate::session::{Mode, Session};
use crate::settings::Settings;
use crate::wires::Wires;

impl Session {
    /// ReadyForQuery came.
    #[inline]
    pub(crate) fn tend_state<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        if server.syncs_in_doubt > 0 {
            ask_for_a_sign(server, wires);
        }
        if !server.watch.has_nothing_to_do() {
            self.ask_about_state(server, wires);
        }
    }

    #[cold]
    fn ask_about_state<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        if server.unsynced != Unsynced::Nothing || server.copy_in {
            return;
        }
        if server.watch.restores && server.status != TxStatus::Failed {
            server.watch.restores = false;
            let sql = self.startup.statement_after_reset();
            send_hidden(&sql, false, server, wires);
        }
        if server.status != TxStatus::Idle || self.mode == Mode::Session {
            return;
        }
        self.heed_reported(server);
        server.watch.landed |= !server.watch.suspects.is_empty();
        if std::mem::take(&mut server.watch.forgets_settings) {
            let applied = server.applied.take();
            server.watch.dirty |= applied.is_some_and(|applied| !applied.prepared().is_empty());
        }
        if server.watch.suspects.is_empty() || !server.owed.is_empty() {
            return;
        }
        let watch = &mut server.watch;
        watch.asked = std::mem::take(&mut watch.suspects);
        watch.asking = std::mem::take(&mut watch.assigned);
        if self.rules.policies.for_kind(StateKind::Setting) == Policy::Pin {
            // A value by itself does not tell whether the client has changed it.
            watch.asking.others = true;
        }
        watch.answer = Answer::default();
        let sql = question(watch.asked, &watch.asking, self.settings().values());
        send_hidden(&sql, true, server, wires);
    }

    /// A reported value changed without a text or tag that says so.
    fn heed_reported(&self, server: &mut Server) {
        let changed = std::mem::take(&mut server.watch.reported_changed);
        if !changed || server.reported == server.reported_at_checkout {
            return;
        }
        if self.policy(StateKind::Setting, &Assignments::default()) == Policy::Forget {
            server.watch.forgets_settings = true;
        } else if !server.watch.suspects.has(Marks::SETTING) {
            server.watch.suspects.add(Marks::SETTING);
            server.watch.assigned.others = true;
        }
    }

    /// What came in reply to a hidden query about state. True when it has to reach the client.
    pub(crate) fn hear_about_state(
        &mut self,
        tag: FromServer,
        body: &[u8],
        whole: bool,
        server: &mut Server,
        catalog: &mut Catalog,
    ) -> bool {
        let Some(Owed::HiddenState { question }) = server.owed.head() else { return false };
        let question = *question;
        if server.syncs_in_doubt > 0 && tag == FromServer::ReadyForQuery {
            server.syncs_in_doubt -= 1;
            return true;
        }
        if matches!(
            tag,
            FromServer::EmptyQueryResponse
                | FromServer::RowDescription
                | FromServer::CommandComplete
                | FromServer::ErrorResponse
        ) {
            server.syncs_in_doubt = 0;
        }
        if tag == FromServer::ReadyForQuery {
            server.owed.pop();
            if let Some(status) = body.first().and_then(|byte| TxStatus::from_byte(*byte)) {
                server.status = status;
            }
            if question {
                self.resolve(server, catalog);
            }
        } else if question && tag == FromServer::ErrorResponse {
            server.watch.answer.unusable = true;
        } else if question && tag == FromServer::DataRow {
            if whole {
                server.watch.answer.row(body);
            } else {
                server.watch.answer.unusable = true;
            }
        }
        // A client that listens may hear of something at any time.
        tag == FromServer::NotificationResponse
    }

    fn resolve(&mut self, server: &mut Server, catalog: &mut Catalog) {
        let watch = &mut server.watch;
        let asked = std::mem::take(&mut watch.asked);
        let asking = std::mem::take(&mut watch.asking);
        let answer = std::mem::take(&mut watch.answer);
        watch.landed = false;
        watch.kept = watch.kept.without(asked);
        if answer.unusable {
            watch.kept = watch.kept.with(asked);
            return;
        }
        watch.hides |= asking.hidden;
        let tracked = Marks::SETTING.with(Marks::PREPARED);
        watch.kept = watch.kept.with(answer.found.without(tracked));
        if watch.hides {
            watch.kept = watch.kept.with(Marks::SETTING);
        }
        if asked.has(tracked) {
            self.learn(asked, &asking, answer, server, catalog);
        }
    }

    /// Settings and statements prepared by SQL: carried along, or a reason to stay.
    fn learn(
        &mut self,
        asked: Marks,
        asking: &Assignments,
        answer: Answer,
        server: &mut Server,
        catalog: &mut Catalog,
    ) {
        let mut prepared = self.settings().prepared().to_vec();
        if asked.has(Marks::PREPARED) {
            let tracks = self.rules.policies.for_kind(StateKind::Prepared) == Policy::Track;
            if tracks && can_be_replayed(&answer.prepared) {
                prepared = answer.prepared;
            } else if answer.found.has(Marks::PREPARED) {
                server.watch.kept = server.watch.kept.with(Marks::PREPARED);
            }
        }
        let mut values = if asking.others { Vec::new() } else { self.settings().values().to_vec() };
        if asked.has(Marks::SETTING) {
            values.extend(answer.values);
        } else {
            values = self.settings().values().to_vec();
        }
        let mut learned = Settings::learned(values, prepared);
        let follows = self.policy(StateKind::Setting, asking) == Policy::Track;
        if asked.has(Marks::SETTING) && !follows && learned.values() != self.settings().values() {
            server.watch.kept = server.watch.kept.with(Marks::SETTING);
            let values = self.settings().values().to_vec();
            learned = Settings::learned(values, learned.prepared().to_vec());
        }
        if learned.bytes() > ANSWER_BYTES_MAX {
            server.watch.kept = server.watch.kept.with(asked);
            return;
        }
        if learned != **self.settings() {
            self.carry(catalog.learned.intern(learned));
        }
        server.reported_at_checkout = Rc::clone(&server.reported);
        server.applied = Some(Rc::clone(self.settings()));
    }
}

/// Each text is one PREPARE and nothing else: a string of several statements is kept as a whole by PostgreSQL.
fn can_be_replayed(prepared: &[(String, String)]) -> bool {
    prepared.iter().all(|(_, text)| {
        let class = classify(text.as_bytes());
        class.statements == Count::One && class.first == Keyword::Prepare && !class.doubtful
    })
}

/// Whether PostgreSQL answers a Sync that stood in front of a COPY is told by what it says first: that answer, or this one.
#[cold]
fn ask_for_a_sign<W: Wires>(server: &mut Server, wires: &mut W) {
    if server.owed.is_empty() && server.unsynced == Unsynced::Nothing && !server.copy_in {
        send_hidden(b";", false, server, wires);
    }
}

fn send_hidden<W: Wires>(sql: &[u8], question: bool, server: &mut Server, wires: &mut W) {
    if sql.is_empty() {
        return;
    }
    wires.to_server(|out| frontend::query(sql, out));
    // A simple query destroys the unnamed statement.
    server.statements.forget_unnamed();
    server.owed.push(Owed::HiddenState { question });
}

/// An error that ends the connection, in reply to a hidden query.
pub(crate) fn is_last_word(tag: FromServer, body: &[u8]) -> bool {
    tag == FromServer::ErrorResponse
        && backend::read::report(body).is_ok_and(|fields| fields.ends_connection())
}
