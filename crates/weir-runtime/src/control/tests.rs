//! The control thread against real sockets: a Patroni and a PostgreSQL made of a few lines each, and workers that are
//! only channels.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commands;
mod fakes;
mod following;
mod pages;
mod rest;
mod switchover;

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

/// Runs one test on a runtime like the control thread's, within a bound.
fn on_control_thread(test: impl Future<Output = ()>) {
    let runtime = super::runtime().unwrap();
    runtime.block_on(async { timeout(TEST_TIME_MAX, test).await.expect("the test is stuck") });
    runtime.shutdown_background();
}

const TEST_TIME_MAX: Duration = Duration::from_secs(30);
