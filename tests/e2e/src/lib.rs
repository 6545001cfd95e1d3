//! Tools of the end-to-end tests and of the comparison with PgBouncer: PostgreSQL with weir in front, a client that
//! is driven byte by byte, the drivers' programs, pgbench, process costs.
//!
//! Everything here looks at weir from outside; nothing links its crates, so that a mistake in them is not repeated
//! in what checks them.

pub mod libpq;
pub mod line;
pub mod logins;
pub mod measure;
pub mod peer;
pub mod pgbench;
pub mod replicated;
pub mod stack;
pub mod storm;
pub mod wire;
