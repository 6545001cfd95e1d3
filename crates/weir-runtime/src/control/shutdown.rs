//! Ways to end: at once, or when transactions have ended, server connections are free or clients have left, within
//! `shutdown_timeout` if there is one.

use std::rc::Rc;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::state::Control;
use weir_worker::Order;

/// Cuts everybody off.
pub(super) fn at_once(control: &Control, because: &str) {
    tracing::info!("{because}: weir ends at once");
    control.end();
}

/// SIGTERM: PgBouncer waits until clients have left, for as long as that takes. Where `shutdown_timeout` bounds the
/// wait clients are sent away between two transactions instead, so that none is cut off in the middle of one.
pub(super) fn terminate(control: &Rc<Control>, because: &str) {
    if control.config().limits.shutdown_timeout.is_some() {
        drain(control, because);
    } else {
        wait_for_clients(control, because);
    }
}

/// Lets nobody in any more and everybody out at the next transaction boundary; ends when the last client is gone.
pub(super) fn drain(control: &Rc<Control>, because: &str) -> bool {
    begin(control, because, "transactions have ended", |control| {
        // Clients that wait behind a PAUSE could not end.
        control.order(&Order::Resume(None));
        control.order(&Order::Drain);
    })
}

/// Lets nobody in any more and gives no server connection out; ends when none is in use.
pub(super) fn wait_for_servers(control: &Rc<Control>, because: &str) -> bool {
    begin(control, because, "server connections are released", |control| {
        control.holds_back.set(true);
        control.order(&Order::WaitForServers);
    })
}

/// Lets nobody in any more; ends when the last client has left by itself.
pub(super) fn wait_for_clients(control: &Rc<Control>, because: &str) -> bool {
    begin(control, because, "clients have left", |control| control.order(&Order::WaitForClients))
}

/// Another process has the doors: ends when the last client has left. After `shutdown_timeout`, if there is one, each is
/// sent away at its next transaction boundary, and after as long again whoever is left is cut off.
pub(super) fn replaced(control: &Rc<Control>) {
    if !control.start_draining() {
        return;
    }
    tracing::info!("another process has taken over: weir ends when clients have left");
    control.order(&Order::WaitForClients);
    let Some(patience) = control.config().limits.shutdown_timeout else { return };
    let control = Rc::clone(control);
    spawn_local(async move {
        sleep(patience).await;
        tracing::info!("clients are sent away at the end of their transactions");
        control.order(&Order::Resume(None));
        control.order(&Order::Drain);
        sleep(patience).await;
        tracing::warn!("clients are cut off because shutdown_timeout is over");
        control.end();
    });
}

/// False if weir is about to end already.
fn begin(control: &Rc<Control>, because: &str, when: &str, order: impl FnOnce(&Control)) -> bool {
    if !control.start_draining() {
        return false;
    }
    let patience = control.config().limits.shutdown_timeout;
    match patience {
        Some(patience) => tracing::info!("{because}: weir ends when {when}, in {patience:?} at the latest"),
        None => tracing::info!("{because}: weir ends when {when}"),
    }
    order(control);
    let Some(patience) = patience else { return true };
    let control = Rc::clone(control);
    spawn_local(async move {
        sleep(patience).await;
        tracing::warn!("clients are cut off because shutdown_timeout is over");
        control.end();
    });
    true
}
