//! Real parts for the demo, the drill and the end-to-end tests: PostgreSQL servers, whole Patroni clusters and
//! weir itself, started on loopback addresses by an unprivileged user and stopped without a trace.
//!
//! Owns: processes, their logs, their run folder. Refuses to know: what weir does inside; it is started like any
//! other program and looked at from outside.

pub mod account;
pub mod certificates;
pub mod cluster;
pub mod drill;
pub mod front;
pub mod http;
pub mod postgres;
pub mod process;
pub mod progress;
pub mod run_dir;
pub mod schema;
pub mod sql;
pub mod wait;
pub mod weir;

pub use certificates::{Authority, Certificate};
pub use cluster::{Cluster, ClusterOptions, Layout, Patroni, Ports};
pub use postgres::{Postgres, PostgresOptions, ServerTls, ShutdownMode};
pub use progress::Progress;
pub use run_dir::RunDir;
pub use weir::{Weir, WeirOptions, free_ports};
