//! Statements that the configuration refuses. Owns the error, and the statement that takes their place; refuses to know
//! where they come from.
//!
//! In place of the refused text PostgreSQL gets one that raises weir's error. So the error comes in the right place of a
//! pipeline, aborts an open transaction, and makes PostgreSQL skip to the Sync, by PostgreSQL's own rules.

use weir_protocol::message::Report;
use weir_protocol::sql::{self, Marks};
use weir_protocol::sqlstate::SqlState;

use super::{Policy, StateKind};
use crate::session::{Mode, Session};

impl Session {
    /// The error for a text that asks for what is refused, if it does.
    #[inline]
    pub(crate) fn refusal(&self, marks: Marks, text: &[u8]) -> Option<Report> {
        if marks.is_empty() { None } else { self.refused_kind(marks, text).map(report) }
    }

    #[cold]
    fn refused_kind(&self, marks: Marks, text: &[u8]) -> Option<StateKind> {
        if self.mode == Mode::Session || marks.has(Marks::LETS_GO) {
            return None;
        }
        StateKind::ALL.into_iter().find(|kind| {
            let mut marked = marks.common(kind.marks());
            if marked.is_empty() || self.rules.policies.for_kind(*kind) != Policy::Refuse {
                return false;
            }
            if *kind == StateKind::Setting {
                let assigned = sql::assignments(text);
                let follows = self.policy(*kind, &assigned) != Policy::Refuse;
                if follows || assigned.is_empty() {
                    marked = marked.without(Marks::SETTING);
                }
            }
            !marked.is_empty()
        })
    }
}

fn report(kind: StateKind) -> Report {
    let (what, key) = (kind.what(), kind.key());
    Report::error(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} cannot be used in transaction pooling"))
        .detail(format!(
            "The server connection goes to another client after the transaction, and {key} is \"refuse\"."
        ))
        .hint(format!("Use session pooling for this database, or set {key} to \"pin\"."))
}

/// SQL that raises the error.
pub(crate) fn raising(report: &Report) -> Vec<u8> {
    let mut out = b"DO $weir$BEGIN RAISE EXCEPTION USING ERRCODE='".to_vec();
    out.extend_from_slice(report.code.as_bytes());
    let parts = [
        (&b"',MESSAGE="[..], Some(report.message.as_ref())),
        (b",DETAIL=", report.detail.as_deref()),
        (b",HINT=", report.hint.as_deref()),
    ];
    for (name, text) in parts {
        if let Some(text) = text {
            out.extend_from_slice(name);
            sql::quote_literal(text, &mut out);
        }
    }
    out.extend_from_slice(b"; END$weir$");
    out
}
