//! What is suspected and known of the session state of one pairing. Owns when PostgreSQL is asked; refuses to know what
//! the answer means.

use weir_protocol::sql::{self, Assignments, Marks};

use super::question::Answer;
use super::{Policy, StateKind};
use crate::server::Server;
use crate::session::{Mode, Session};
use crate::settings::is_tracked_always;

/// What the requests of a pairing may have left behind on the server connection.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// May be there: PostgreSQL is to be asked.
    pub(crate) suspects: Marks,
    /// Is there, and ties the client to the connection.
    pub(crate) kept: Marks,
    /// Has to be cleaned before another client gets it.
    pub(crate) dirty: bool,
    /// The client's settings are to be forgotten.
    pub(super) forgets_settings: bool,
    /// A reset has taken away what the client began with.
    pub(super) restores: bool,
    /// A reported value changed since the last transaction.
    pub(crate) reported_changed: bool,
    /// A suspected request has succeeded, its transaction is over: what it left is lost with the connection.
    pub(super) landed: bool,
    /// Parameters to ask for.
    pub(super) assigned: Assignments,
    /// Which question is under way, and what was answered so far.
    pub(super) asked: Marks,
    pub(super) asking: Assignments,
    /// Parameters may have been set that nobody can list.
    pub(crate) hides: bool,
    pub(super) answer: Answer,
}

impl Watch {
    /// Nothing is there, and nothing is suspected: the connection can be given back, or lost, as it is.
    pub(crate) fn is_quiet(&self) -> bool {
        self.suspects.is_empty() && self.kept.is_empty() && !self.restores && self.asked.is_empty()
    }

    /// What is there, or may be. What was asked for counts as long as the answer has not come: it tells how things were
    /// when PostgreSQL read the question.
    fn may_have(&self) -> Marks {
        self.kept.with(self.suspects).with(self.asked)
    }

    /// Nothing has to be done at the end of a request.
    pub(crate) fn has_nothing_to_do(&self) -> bool {
        self.suspects.is_empty() && !self.restores && !self.reported_changed && !self.forgets_settings
    }

    /// What is there would be lost with the connection.
    pub(crate) fn would_be_missed(&self) -> bool {
        !self.kept.is_empty() || self.landed
    }

    /// The connection has to be cleaned before another client gets it.
    pub(crate) fn needs_cleaning(&self) -> bool {
        self.dirty || !self.is_quiet()
    }
}

impl Session {
    /// A request with such a text is on its way. Called for each; most have no marks.
    #[inline]
    pub(crate) fn watch(&self, marks: Marks, text: &[u8], server: &mut Server) {
        if !marks.is_empty() {
            self.suspect(marks, text, server);
        }
    }

    #[cold]
    fn suspect(&self, marks: Marks, text: &[u8], server: &mut Server) {
        server.watch.restores |= marks.has(Marks::RESETS);
        if self.mode == Mode::Session {
            return;
        }
        let assigned =
            if marks.has(Marks::SETTING) { sql::assignments(text) } else { Assignments::default() };
        self.suspect_assigned(marks, assigned, server);
    }

    /// The tag of a request whose text says nothing for sure.
    pub(crate) fn suspect_by_tag(&self, tag: &[u8], server: &mut Server) {
        let marks = match tag {
            b"SET" => Marks::SETTING,
            b"RESET" => Marks::SETTING.with(Marks::RESETS),
            b"DISCARD ALL" => Marks::ALL.with(Marks::RESETS).with(Marks::LETS_GO),
            b"PREPARE" => Marks::PREPARED,
            b"DEALLOCATE" | b"DEALLOCATE ALL" => Marks::PREPARED.with(Marks::LETS_GO),
            b"LISTEN" => Marks::LISTENING,
            b"UNLISTEN" => Marks::LISTENING.with(Marks::LETS_GO),
            _ => return,
        };
        server.watch.restores |= marks.has(Marks::RESETS);
        if self.mode != Mode::Session {
            let assigned = Assignments { others: marks.has(Marks::SETTING), ..Assignments::default() };
            self.suspect_assigned(marks, assigned, server);
        }
    }

    fn suspect_assigned(&self, marks: Marks, assigned: Assignments, server: &mut Server) {
        let lets_go = marks.has(Marks::LETS_GO);
        for kind in StateKind::ALL {
            let mut marked = marks.common(kind.marks());
            if kind == StateKind::Setting && assigned.is_empty() {
                marked = marked.without(Marks::SETTING);
            }
            if marked.is_empty() {
                continue;
            }
            if lets_go && !self.has_any(kind, server) {
                continue;
            }
            if lets_go && !server.watch.may_have().has(Marks::ROLE) {
                marked = marked.without(Marks::ROLE);
            }
            if !lets_go {
                server.tally.states[kind.index()] += 1;
            }
            match self.policy(kind, &assigned) {
                Policy::Track | Policy::Pin | Policy::Refuse => server.watch.suspects.add(marked),
                Policy::Forget if marked.has(Marks::SETTING) => server.watch.forgets_settings = true,
                Policy::Forget => server.watch.dirty = true,
            }
        }
        if server.watch.suspects.has(Marks::SETTING) {
            server.watch.assigned.names.extend(assigned.names);
            server.watch.assigned.others |= assigned.others;
            server.watch.assigned.hidden |= assigned.hidden;
        }
    }

    /// Parameters that PgBouncer keeps for every client are kept here, too, whatever becomes of others.
    pub(super) fn policy(&self, kind: StateKind, assigned: &Assignments) -> Policy {
        let follows = kind == StateKind::Setting
            && !assigned.others
            && !assigned.names.is_empty()
            && assigned.names.iter().all(|name| is_tracked_always(name));
        if follows { Policy::Track } else { self.rules.policies.for_kind(kind) }
    }

    /// There may be something of this kind to let go of.
    fn has_any(&self, kind: StateKind, server: &Server) -> bool {
        let there = server.watch.may_have().has(kind.marks());
        let tracked = kind == StateKind::Prepared && !self.settings().prepared().is_empty();
        there || tracked || kind == StateKind::Setting
    }
}
