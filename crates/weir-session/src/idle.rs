//! A server connection that no client holds: what PostgreSQL may say then, and the reply to a reset query.
//!
//! Owns the strictness of that time (nothing but notices and changed parameters may come); refuses to know clients.

use std::rc::Rc;

use weir_protocol::backend::{self, read::ErrorFields};
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromServer;

use crate::from_server::{LOOKED_INTO_BYTES_MAX, LOOKED_INTO_BYTES_MAX_U32, parameter_text};
use crate::server::{Dying, Server};
use crate::settings::Settings;

impl Server {
    /// Bytes from a server connection that no client holds: notices, parameter changes, its last words. Returns how many
    /// bytes are done with, or why it must be closed.
    pub fn idle_bytes(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        let mut at = 0;
        while let Some(header) = frame::peek(&bytes[at..], MESSAGE_BYTES_MAX).map_err(|_| "a bad message")? {
            if header.total > LOOKED_INTO_BYTES_MAX {
                return Err("a long message while idle");
            }
            let Some(frame) = bytes.get(at..at + header.total) else { break };
            let body = &frame[HEADER_BYTES..];
            match FromServer::of(header.tag) {
                Some(FromServer::NoticeResponse | FromServer::NotificationResponse) => {}
                Some(FromServer::ParameterStatus) => {
                    self.note_reported(body);
                }
                Some(FromServer::ErrorResponse) => {
                    if let Ok(fields) = backend::read::report(body) {
                        self.note_dying(&fields);
                    }
                    return Err("an error while idle");
                }
                _ => return Err("an unexpected message while idle"),
            }
            at += header.total;
        }
        Ok(at)
    }

    /// Bytes in reply to a reset query; takes whole messages from `carry`. True when the connection is clean.
    ///
    /// # Errors
    /// If the reset failed, or something else came.
    pub fn reset_reply(&mut self, carry: &mut Vec<u8>, carried: Rc<Settings>) -> Result<bool, &'static str> {
        while let Some(header) = frame::peek(carry, LOOKED_INTO_BYTES_MAX_U32).map_err(|_| "a bad message")? {
            if carry.len() < header.total {
                return Ok(false);
            }
            let frame: Vec<u8> = carry.drain(..header.total).collect();
            let body = &frame[HEADER_BYTES..];
            match FromServer::of(header.tag) {
                Some(FromServer::ReadyForQuery) if body == b"I" => {
                    self.was_reset(carried);
                    return Ok(true);
                }
                Some(FromServer::ParameterStatus) => {
                    self.note_reported(body);
                }
                Some(FromServer::ErrorResponse) => return Err("an error"),
                Some(FromServer::ReadyForQuery) | None => return Err("an unexpected message"),
                Some(_) => {}
            }
        }
        Ok(false)
    }

    pub(crate) fn note_reported(&mut self, body: &[u8]) {
        if let Some((name, value)) = parameter_text(body, true)
            && self.reported.value(name) != Some(value)
        {
            Rc::make_mut(&mut self.reported).note(name, value);
        }
    }

    pub(crate) fn note_dying(&mut self, fields: &ErrorFields<'_>) {
        let code = fields.sqlstate().unwrap_or(SqlState::INTERNAL_ERROR);
        let message = String::from_utf8_lossy(fields.message).into_owned();
        self.dying = Some(Dying { code, message });
    }
}
