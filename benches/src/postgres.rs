//! PostgreSQL from a script: every query has the same rows. Owns how each message is answered; knows no worker.

use anyhow::{Context, Result, bail};
use weir_protocol::backend::{self, Column};
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend::{self, TargetKind};
use weir_protocol::tag::FromClient;

/// One connection to it.
pub(crate) struct Postgres {
    rows: usize,
    logged_in: bool,
    in_transaction: bool,
}

impl Postgres {
    /// Answers every query with this many rows.
    pub(crate) fn new(rows: usize) -> Self {
        Self { rows, logged_in: false, in_transaction: false }
    }

    /// What it says to these whole messages. Everything is taken for a query that succeeds.
    pub(crate) fn answer(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        if !self.logged_in {
            self.logged_in = true;
            self.welcome(&mut out);
            return Ok(out);
        }
        while !bytes.is_empty() {
            let header = frame::peek(bytes, MESSAGE_BYTES_MAX)?.context("half a header")?;
            let (message, rest) = bytes.split_at_checked(header.total).context("half a message")?;
            let tag = FromClient::of(header.tag).context("an unknown message")?;
            self.message(tag, message.get(HEADER_BYTES..).unwrap_or_default(), &mut out)?;
            bytes = rest;
        }
        Ok(out)
    }

    fn welcome(&self, out: &mut Vec<u8>) {
        backend::authentication_ok(out);
        for (name, value) in PARAMETERS {
            backend::parameter_status(name.as_bytes(), value.as_bytes(), out);
        }
        backend::backend_key_data(4711, &[1, 2, 3, 4], out);
        self.ready(out);
    }

    fn message(&mut self, tag: FromClient, body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match tag {
            FromClient::Query => self.query(frontend::read::query(body)?, out),
            FromClient::Parse => backend::parse_complete(out),
            FromClient::Bind => backend::bind_complete(out),
            FromClient::Describe => describe(frontend::read::describe(body)?.0, out),
            FromClient::Execute => self.result(out),
            FromClient::Close => backend::close_complete(out),
            FromClient::Sync => self.ready(out),
            FromClient::Flush => {}
            FromClient::FunctionCall
            | FromClient::CopyData
            | FromClient::CopyDone
            | FromClient::CopyFail
            | FromClient::Response
            | FromClient::Terminate => bail!("{tag:?} is not in the script"),
        }
        Ok(())
    }

    fn query(&mut self, sql: &[u8], out: &mut Vec<u8>) {
        if sql == b"BEGIN" {
            self.in_transaction = true;
            backend::command_complete("BEGIN", out);
        } else {
            backend::row_description(&COLUMNS, out);
            self.result(out);
        }
        self.ready(out);
    }

    fn result(&self, out: &mut Vec<u8>) {
        for _ in 0..self.rows {
            backend::data_row(&[Some(b"-4711"), Some(b"PostgreSQL")], out);
        }
        backend::command_complete(&format!("SELECT {}", self.rows), out);
    }

    fn ready(&self, out: &mut Vec<u8>) {
        backend::ready_for_query(if self.in_transaction { b'T' } else { b'I' }, out);
    }
}

fn describe(kind: TargetKind, out: &mut Vec<u8>) {
    if kind == TargetKind::Statement {
        backend::parameter_description(&[23], out);
    }
    backend::row_description(&COLUMNS, out);
}

const COLUMNS: [Column<'static>; 2] = [Column::int4("abalance"), Column::text("filler")];

/// What PostgreSQL 18 reports at login.
const PARAMETERS: [(&str, &str); 15] = [
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("TimeZone", "Etc/UTC"),
    ("IntervalStyle", "postgres"),
    ("search_path", "\"$user\", public"),
    ("is_superuser", "off"),
    ("application_name", ""),
    ("default_transaction_read_only", "off"),
    ("scram_iterations", "4096"),
    ("DateStyle", "ISO, MDY"),
    ("standard_conforming_strings", "on"),
    ("session_authorization", "app"),
    ("client_encoding", "UTF8"),
    ("server_version", "18.1"),
    ("server_encoding", "UTF8"),
];
