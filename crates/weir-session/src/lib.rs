//! One client, one server connection, and their pairing: what is forwarded, rewritten, answered here, and owed.
//!
//! Every type in this crate is a machine that takes bytes and appends bytes. Who gets a server connection, and when,
//! is not known here; neither are sockets, clocks and pools.
//!
//! | module | owns |
//! |---|---|
//! | [`session`] | a client after its login: phase, transaction status, what it prepared |
//! | `from_client`, `extended`, `from_server` | the two directions of the relay |
//! | `idle` | a server connection between clients |
//! | [`server`] | a server connection after its login: replies owed, statements known, parameters applied |
//! | [`owed`] | the queue of replies that PostgreSQL (or weir) still owes |
//! | [`prepared`] | prepared statements, shared between clients by text |
//! | [`settings`] | startup parameters that follow a client to each server connection |
//! | [`state`] | what clients would leave behind on a shared server connection, and the policies for it |
//! | [`replay`] | the bytes of a request that may be sent once more |
//! | [`lost`], [`cause`] | what a client is told when its server connection dies, and in which words |
//! | `deferred` | transactions that have only said BEGIN |
//! | `aborted` | the aborted transaction block that weir plays afterwards |
//! | [`tunnel`] | where messages end on a connection that is relayed unread (replication) |
//! | [`client_login`], [`server_login`] | the two logins |

pub mod cause;
pub mod client_login;
pub mod lost;
pub mod owed;
pub mod prepared;
pub mod replay;
pub mod server;
pub mod server_login;
pub mod session;
pub mod settings;
pub mod state;
pub mod tunnel;
pub mod wires;

mod aborted;
mod again;
mod deferred;
mod extended;
mod from_client;
mod from_server;
mod idle;
mod run;

pub use cause::LossCause;
pub use idle::OwnReply;
pub use lost::{AfterLoss, Told};
pub use server::{AtRest, Server};
pub use session::{Mode, Session, Then, Turn};
pub use wires::Wires;
