//! A server connection that no client holds: what PostgreSQL may say then, and the replies to weir's own queries.
//!
//! Owns the strictness of that time (nothing but notices and changed parameters may come); refuses to know clients.

use std::rc::Rc;

use weir_protocol::backend::{self, read::ErrorFields};
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromServer;

use crate::from_server::{LOOKED_INTO_BYTES_MAX, LOOKED_INTO_BYTES_MAX_U32, parameter_text};
use crate::server::{Dying, Server};
use crate::settings::{IN_HOT_STANDBY, Settings};

/// PostgreSQL's answer to a query of weir's own.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnReply {
    /// Text of the first error, if there was one.
    pub error: Option<Box<str>>,
}

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

    /// Reads the reply to a query of weir's own; takes whole messages from `carry`. `None`: more is to come. What the
    /// query does to the connection's parameters and statements is noted; `carried` is what is left after DISCARD ALL.
    ///
    /// # Errors
    /// If the connection cannot be used any longer: its last words, something unexpected, a transaction left open.
    pub fn own_reply(
        &mut self,
        carry: &mut Vec<u8>,
        carried: &Rc<Settings>,
    ) -> Result<Option<OwnReply>, &'static str> {
        while let Some(header) = frame::peek(carry, LOOKED_INTO_BYTES_MAX_U32).map_err(|_| "a bad message")? {
            if carry.len() < header.total {
                return Ok(None);
            }
            let frame: Vec<u8> = carry.drain(..header.total).collect();
            let body = &frame[HEADER_BYTES..];
            match FromServer::of(header.tag) {
                Some(FromServer::ReadyForQuery) if body == b"I" => {
                    // A simple query destroys the unnamed statement.
                    self.statements.forget_unnamed();
                    return Ok(Some(OwnReply { error: self.own_error.take() }));
                }
                Some(FromServer::ParameterStatus) => self.note_reported(body),
                Some(FromServer::CommandComplete) => {
                    match backend::read::command_tag(body).unwrap_or_default() {
                        b"DISCARD ALL" => self.was_reset(Rc::clone(carried)),
                        b"DEALLOCATE ALL" => self.statements.forget_all(),
                        b"SET" | b"RESET" => self.applied = None,
                        _ => {}
                    }
                }
                Some(FromServer::ErrorResponse) => {
                    let fields = backend::read::report(body).map_err(|_| "a bad message")?;
                    if fields.ends_connection() {
                        self.note_dying(&fields);
                        return Err("its last words");
                    }
                    let message = String::from_utf8_lossy(fields.message);
                    self.own_error.get_or_insert(message.into());
                }
                Some(FromServer::ReadyForQuery) => return Err("an open transaction"),
                Some(FromServer::CopyInResponse | FromServer::CopyBothResponse) => return Err("a COPY"),
                None => return Err("an unexpected message"),
                Some(_) => {}
            }
        }
        Ok(None)
    }

    pub(crate) fn note_reported(&mut self, body: &[u8]) {
        let Some((name, value)) = parameter_text(body, true) else { return };
        if name == IN_HOT_STANDBY {
            self.set_standby(value == "on");
        } else if self.reported.value(name) != Some(value) {
            Rc::make_mut(&mut self.reported).note(name, value);
        }
    }

    pub(crate) fn note_dying(&mut self, fields: &ErrorFields<'_>) {
        let code = fields.sqlstate().unwrap_or(SqlState::INTERNAL_ERROR);
        let message = String::from_utf8_lossy(fields.message).into_owned();
        self.dying = Some(Dying { code, message });
    }
}
