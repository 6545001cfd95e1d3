//! What clients leave behind on a shared server connection: settings, statements prepared by SQL, LISTEN, advisory locks,
//! temporary tables, cursors WITH HOLD. Owns the policies for them and what is suspected and known of one pairing.
//!
//! Texts and command tags only raise a suspicion. At the end of the transaction PostgreSQL is asked what is there
//! (module `question`), so that a rolled back SET, a lock that was not got, or a table that was dropped ties nobody.
//! Refuses to know pools: a client that is tied keeps its server connection, and what was tied is cleaned by its caller.

mod kind;
mod question;
mod refusal;
mod resolve;
mod watch;

pub use kind::{KINDS, Policies, Policy, StateKind};

pub(crate) use refusal::raising;
pub(crate) use resolve::is_last_word;
pub(crate) use watch::Watch;
