//! The PostgreSQL wire protocol, versions 3.0 and 3.2, as functions on bytes.
//!
//! Owns where a message begins and ends ([`frame`]), what its first byte means ([`tag`]), the untagged packets that open
//! a connection ([`startup`]), the messages that weir itself says or must understand ([`backend`], [`frontend`]), error
//! codes and reports ([`sqlstate`], [`message`]), and a small lexer that tells what kind of statement a text holds
//! ([`sql`]). Refuses to know sockets, TLS, clocks, pools and credentials: nothing here waits, and nothing here decides.
//!
//! Conventions. A builder appends one whole message to the `Vec<u8>` that is its last argument. A parser lives in a
//! `read` module and takes the body of exactly one message, without its header; bytes that do not fit the format are an
//! error and never a panic. Text from the wire stays bytes, because its encoding is the business of the two ends.
//! Chapter names in the comments are those of "Frontend/Backend Protocol" in PostgreSQL's manual.

pub mod backend;
pub mod frame;
pub mod frontend;
pub mod message;
pub mod sql;
pub mod sqlstate;
pub mod startup;
pub mod tag;
mod wire;

pub use wire::Malformed;
