//! Control without a cluster: waits for the signal to end, drains, ends. Answers the console with an error.

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time;
use weir_protocol::backend;
use weir_protocol::message;
use weir_protocol::sqlstate::SqlState;
use weir_worker::Order;

use crate::handle::Report;
use crate::{ControlSetup, RunError};

/// Runs until SIGTERM or SIGINT, and then until the last client is gone or `shutdown_timeout` is over.
pub(crate) fn run(setup: ControlSetup) -> Result<(), RunError> {
    let cannot_start = |source| RunError::Start { what: "the control thread", source };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    runtime.block_on(wait_for_the_end(setup)).map_err(cannot_start)
}

async fn wait_for_the_end(mut setup: ControlSetup) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            report = setup.reports.recv() => answer(&setup, report),
        }
    }
    for worker in &setup.workers {
        worker.order(Order::Drain);
    }
    let drained = async {
        let mut left = setup.workers.len();
        while left > 0 {
            if let Some(Report::Drained { worker: _ }) = setup.reports.recv().await {
                left -= 1;
            }
        }
    };
    if time::timeout(setup.config.limits.shutdown_timeout, drained).await.is_err() {
        tracing::warn!("clients are cut off because shutdown_timeout is over");
    }
    Ok(())
}

fn answer(setup: &ControlSetup, report: Option<Report>) {
    let Some(Report::Console { worker, request }) = report else { return };
    let mut reply = Vec::new();
    let why = message::Report::error(SqlState::FEATURE_NOT_SUPPORTED, "the console is not available");
    backend::error(&why, &mut reply);
    backend::ready_for_query(b'I', &mut reply);
    if let Some(worker) = setup.workers.iter().find(|handle| handle.index() == worker) {
        worker.order(Order::ConsoleReply(request.client, reply));
    }
}
