//! Tools of the end-to-end tests and of the comparison with PgBouncer: pgbench, process costs, a raw client.
//!
//! Everything here looks at weir from outside; nothing links its crates, so that a mistake in them is not repeated
//! in what checks them.

pub mod measure;
pub mod pgbench;
