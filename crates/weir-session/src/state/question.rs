//! The query that asks PostgreSQL what a session has, and its answer. Owns their SQL and format; refuses to know why
//! somebody wants to know.
//!
//! It runs outside of transactions. Operators and functions are named with their schema, so that nothing in a client's
//! `search_path` can answer instead.

use weir_protocol::backend;
use weir_protocol::sql::{self, Assignments, Marks};

/// What PostgreSQL has answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) values: Vec<(String, String)>,
    pub(super) prepared: Vec<(String, String)>,
    /// What is there.
    pub(super) found: Marks,
    /// The question failed, or the answer cannot be used: everything that was asked for may be there.
    pub(super) unusable: bool,
    bytes: usize,
}

/// SQL that lists what of `asked` the session has.
pub(super) fn question(asked: Marks, assigned: &Assignments, known: &[(String, String)]) -> Vec<u8> {
    let mut parts = Vec::new();
    if asked.has(Marks::SETTING) {
        settings(assigned, known, &mut parts);
    }
    let rest = [
        (Marks::ROLE, ROLE),
        (Marks::PREPARED, PREPARED),
        (Marks::LISTENING, LISTENING),
        (Marks::LOCK, LOCK),
        (Marks::TEMPORARY, TEMPORARY),
        (Marks::CURSOR, CURSOR),
    ];
    parts.extend(rest.iter().filter(|(mark, _)| asked.has(*mark)).map(|(_, part)| part.as_bytes().to_vec()));
    parts.join(&b" UNION ALL "[..])
}

fn settings(assigned: &Assignments, known: &[(String, String)], parts: &mut Vec<Vec<u8>>) {
    let mut names: Vec<&str> = assigned.names.iter().map(String::as_str).collect();
    if assigned.others {
        parts.push(LISTED.as_bytes().to_vec());
        // Those that applications make up are in no list.
        names.extend(known.iter().map(|(name, _)| name.as_str()));
        names.retain(|name| name.contains('.'));
    }
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut part = b"SELECT 's',".to_vec();
        sql::quote_literal(name, &mut part);
        part.extend_from_slice(b",pg_catalog.current_setting(");
        sql::quote_literal(name, &mut part);
        part.extend_from_slice(b",true)");
        parts.push(part);
    }
}

impl Answer {
    /// One row of the answer.
    pub(super) fn row(&mut self, body: &[u8]) {
        self.bytes += body.len();
        if self.bytes > ANSWER_BYTES_MAX || self.add(body).is_none() {
            self.unusable = true;
        }
    }

    fn add(&mut self, body: &[u8]) -> Option<()> {
        let columns = backend::read::data_row(body).ok()?;
        let [Some(what), name, value] = columns.as_slice() else { return None };
        let text = |column: &Option<&[u8]>| {
            column.map(|bytes| str::from_utf8(bytes).map(str::to_owned)).transpose().ok()
        };
        let pair = text(name)?.zip(text(value)?);
        match *what {
            b"s" => self.values.extend(pair),
            b"p" => {
                self.found.add(Marks::PREPARED);
                self.prepared.extend(pair);
            }
            b"r" => self.found.add(Marks::ROLE),
            b"l" => self.found.add(Marks::LISTENING),
            b"a" => self.found.add(Marks::LOCK),
            b"t" => self.found.add(Marks::TEMPORARY),
            b"c" => self.found.add(Marks::CURSOR),
            _ => return None,
        }
        Some(())
    }
}

/// `transaction_isolation` and its kin belong to a transaction, whatever their source.
const LISTED: &str = "SELECT 's',name,setting FROM pg_catalog.pg_settings \
    WHERE source OPERATOR(pg_catalog.=) 'session' AND name OPERATOR(pg_catalog.<>) \
    ALL ('{transaction_isolation,transaction_read_only,transaction_deferrable}'::pg_catalog.text[])";

const ROLE: &str = "SELECT 'r','','' WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none' \
    OR session_user IS DISTINCT FROM (SELECT r.rolname FROM pg_catalog.pg_roles r \
    JOIN pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a \
    ON a.usesysid OPERATOR(pg_catalog.=) r.oid)";

const PREPARED: &str = "SELECT 'p',name,statement FROM pg_catalog.pg_prepared_statements WHERE from_sql";

const LISTENING: &str = "SELECT 'l','','' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())";

const LOCK: &str = "SELECT 'a','','' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
    WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

/// Whatever depends on the session's own schema is in it.
const TEMPORARY: &str = "SELECT 't','','' WHERE EXISTS (SELECT FROM pg_catalog.pg_depend \
    WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass \
    AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())";

const CURSOR: &str = "SELECT 'c','','' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)";

/// More than this is not carried from one server connection to the next: its client is tied to the one it has.
pub(super) const ANSWER_BYTES_MAX: usize = 16 * 1024;
