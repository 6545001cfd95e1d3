//! The bytes of the request in flight, kept so that it can be sent once more when it was provably not executed or rolled
//! back. Held with the server connection (there are few of those), bounded, and given up as soon as a byte of a reply has
//! reached the client.

use crate::prepared::StatementKind;

/// What is kept of the request in flight.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is in flight, or it cannot be repeated.
    #[default]
    Off,
    /// Frames are collected; nothing that could not be repeated was seen.
    Collecting { executes: u8 },
    /// The request is complete and may be repeated.
    Complete,
}

impl Replay {
    /// A request outside a transaction begins. `bytes_max` 0 keeps nothing.
    pub fn begin(&mut self, bytes_max: usize) {
        self.bytes.clear();
        self.state = if bytes_max == 0 { State::Off } else { State::Collecting { executes: 0 } };
    }

    /// A simple Query is sent.
    pub fn query(&mut self, frame: &[u8], kind: StatementKind, bytes_max: usize) {
        match self.state {
            State::Collecting { executes: 0 }
                if self.bytes.is_empty() && kind == StatementKind::Repeatable =>
            {
                self.keep(frame, bytes_max);
                self.complete();
            }
            State::Off | State::Collecting { .. } | State::Complete => self.give_up(),
        }
    }

    /// A Parse, Bind, Describe or Close of the client's is sent; `kind` of the statement it names.
    pub fn batch_frame(&mut self, frame: &[u8], kind: Option<StatementKind>, bytes_max: usize) {
        let repeatable = kind.is_none_or(|kind| kind == StatementKind::Repeatable);
        match self.state {
            State::Collecting { .. } if repeatable => self.keep(frame, bytes_max),
            State::Off | State::Collecting { .. } | State::Complete => self.give_up(),
        }
    }

    /// An Execute is sent: a batch with two of them is two statements, whose first may have been seen by others.
    pub fn execute(&mut self, frame: &[u8], bytes_max: usize) {
        match self.state {
            State::Collecting { executes: 0 } => {
                self.state = State::Collecting { executes: 1 };
                self.keep(frame, bytes_max);
            }
            State::Off | State::Collecting { .. } | State::Complete => self.give_up(),
        }
    }

    /// A Sync is sent.
    pub fn sync(&mut self, frame: &[u8], bytes_max: usize) {
        match self.state {
            State::Collecting { .. } => {
                self.keep(frame, bytes_max);
                self.complete();
            }
            State::Off | State::Complete => self.give_up(),
        }
    }

    /// Something was sent that cannot be repeated, or part of a reply reached the client.
    pub fn give_up(&mut self) {
        self.state = State::Off;
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
    }

    /// The request in flight may be repeated.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// The request's bytes as the client sent them, if it may be repeated.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let complete = self.state == State::Complete;
        self.state = State::Off;
        complete.then(|| std::mem::take(&mut self.bytes))
    }

    fn keep(&mut self, frame: &[u8], bytes_max: usize) {
        if self.bytes.len() + frame.len() > bytes_max {
            self.give_up();
        } else {
            self.bytes.extend_from_slice(frame);
        }
    }

    fn complete(&mut self) {
        if self.state != State::Off {
            self.state = State::Complete;
        }
    }
}

/// Memory that an idle server connection keeps for the next request.
const BYTES_KEPT: usize = 4096;

#[cfg(test)]
#[path = "replay/tests.rs"]
mod tests;
