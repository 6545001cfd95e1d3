//! Console commands, SHOW tables and metrics: turns snapshots into answers. Knows no sockets.
//!
//! The way of a console query: [`console::parse`], then [`console::Rights::allow`], then either a reply from [`reply`]
//! (for what only has to be shown) or an act of the caller's followed by [`reply::done`].

pub mod averages;
pub mod console;
pub mod metrics;
pub mod reply;
pub mod snapshot;
pub mod tables;
