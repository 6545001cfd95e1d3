//! Console commands, SHOW tables and metrics: turns snapshots into answers. Knows no sockets.

pub mod snapshot;
