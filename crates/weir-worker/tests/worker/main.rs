//! A whole weir without a socket: the worker's machine between clients and PostgreSQL servers made of memory. Time and
//! chance are the tests' own. Refuses to look inside the machine: everything here is seen on the wire, in effects, or in
//! snapshots.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod access;
mod actor;
mod guessing;
mod histories;
mod postgres;
mod settings;
mod shell;
mod speaker;
mod world;

mod cancelling;
mod consoles;
mod databases;
mod deferring;
mod deposed;
mod deriving;
mod entering;
mod errands;
mod failing;
mod forcing;
mod holding;
mod leaving;
mod limiting;
mod looking_up;
mod losing;
mod ordering;
mod outlasting;
mod overdue;
mod planned;
mod pooling;
mod reading;
mod referring;
mod refused;
mod replicating;
mod restarting;
mod showing;
mod starting;
mod stuck;
mod timing;
mod welcoming;
