//! COPY at a session: what is asked for, what comes, and how it ends. Knows rows by their numbers.

use weir_protocol::backend;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::{FromClient, FromServer};

use super::Backend;
use super::statements::Statement;
use crate::database::{Database, Row};
use crate::laws::Law;
use crate::requests::Signature;

/// COPY FROM STDIN as far as it has come.
#[derive(Debug)]
pub(super) struct CopyIn {
    by: Signature,
    rows: Vec<Row>,
    /// A cancel request has come, which counts when the client says something.
    pub(super) is_canceled: bool,
}

impl Backend {
    pub(super) fn begin_copy(&mut self, statement: &Statement, data: &Database) {
        if statement.sql.contains("TO STDOUT") {
            return self.copy_out(statement);
        }
        let by = statement.by().expect("only applications copy");
        if !data.writes() {
            return self.fail(SqlState::READ_ONLY_SQL_TRANSACTION);
        }
        // In text, without columns to speak of.
        put(FromServer::CopyInResponse, &[0, 0, 0], &mut self.out);
        self.flushed = self.out.len();
        self.copy = Some(CopyIn { by, rows: Vec::new(), is_canceled: false });
    }

    fn copy_out(&mut self, statement: &Statement) {
        let rows = statement.counted();
        put(FromServer::CopyOutResponse, &[0, 0, 0], &mut self.out);
        for row in &rows {
            put(FromServer::CopyData, format!("{row}\n").as_bytes(), &mut self.out);
        }
        put(FromServer::CopyDone, b"", &mut self.out);
        backend::command_complete(&format!("COPY {}", rows.len()), &mut self.out);
    }

    /// What comes while COPY FROM STDIN is open. Flush and Sync are overlooked there (manual, "COPY Operations").
    pub(super) fn copied(&mut self, tag: FromClient, body: &[u8], data: &mut Database) {
        let Some(mut copy) = self.copy.take() else { return };
        match tag {
            FromClient::CopyData | FromClient::CopyDone if copy.is_canceled => {
                self.fail(SqlState::QUERY_CANCELED);
                self.go_on(data);
            }
            FromClient::CopyData => {
                let text = String::from_utf8_lossy(body);
                let (row, who) = text.trim_end().split_once('\t').expect("a row and whose it is");
                Law::OneClientAtATime.holds(who == copy.by.who.to_string(), || {
                    format!("a row of {who} comes into the COPY of {}", copy.by.who)
                });
                copy.rows.push(row.parse().expect("a row's number"));
                self.copy = Some(copy);
            }
            FromClient::CopyDone => {
                let mut reply = Vec::new();
                backend::command_complete(&format!("COPY {}", copy.rows.len()), &mut reply);
                self.pending.append(&mut copy.rows);
                self.end_write(reply, data);
                self.go_on(data);
            }
            FromClient::CopyFail => {
                self.fail(SqlState::QUERY_CANCELED);
                self.go_on(data);
            }
            FromClient::Flush | FromClient::Sync => self.copy = Some(copy),
            FromClient::Terminate => self.doing = super::Doing::Dead,
            FromClient::Query
            | FromClient::Parse
            | FromClient::Bind
            | FromClient::Describe
            | FromClient::Execute
            | FromClient::Close
            | FromClient::FunctionCall
            | FromClient::Response => {
                Law::OneClientAtATime.broken(&format!("{tag:?} in the COPY of {}", copy.by.who))
            }
        }
    }
}

pub(super) fn is_of_copy(tag: FromClient) -> bool {
    matches!(tag, FromClient::CopyData | FromClient::CopyDone | FromClient::CopyFail)
}

fn put(tag: FromServer, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    out.push(tag.byte());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}
