//! COPY FROM STDIN as an application does it: row after row once PostgreSQL has asked for them, and an end. Some
//! applications go on for a while after an error. Knows nothing of connections.

use std::collections::VecDeque;

use weir_protocol::frontend;
use weir_protocol::tag::FromClient;

use crate::database::Row;
use crate::dice::Dice;
use crate::requests::Style;

/// One that is under way.
#[derive(Debug)]
pub(crate) struct Copying {
    rows: VecDeque<Row>,
    is_extended: bool,
    /// PostgreSQL waits for data.
    pub(crate) is_asked: bool,
    /// An error came.
    pub(crate) has_failed: bool,
}

impl Copying {
    pub(crate) fn new(rows: &[Row], style: Style) -> Self {
        let is_extended = style != Style::Simple;
        Self { rows: rows.iter().copied().collect(), is_extended, is_asked: false, has_failed: false }
    }

    /// Puts what comes next, if it is time for it. False: that was the end.
    pub(crate) fn put_next(&mut self, who: u32, dice: &mut Dice, out: &mut Vec<u8>) -> Option<bool> {
        if self.has_failed {
            if self.is_asked && dice.once_in(2) {
                self.put_row(who, out);
                put(FromClient::CopyDone, b"", out);
            }
            self.put_sync(out);
            return Some(false);
        }
        if !self.is_asked {
            return None;
        }
        if self.put_row(who, out) {
            return Some(true);
        }
        if dice.once_in(6) {
            frontend::copy_fail(b"not today", out);
        } else {
            put(FromClient::CopyDone, b"", out);
        }
        self.put_sync(out);
        Some(false)
    }

    fn put_row(&mut self, who: u32, out: &mut Vec<u8>) -> bool {
        let row = self.rows.pop_front();
        if let Some(row) = row {
            put(FromClient::CopyData, format!("{row}\t{who}\n").as_bytes(), out);
        }
        row.is_some()
    }

    fn put_sync(&self, out: &mut Vec<u8>) {
        if self.is_extended {
            frontend::sync(out);
        }
    }
}

fn put(tag: FromClient, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    out.push(tag.byte());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}
