//! Ways to end: at once, or when transactions have ended, within `shutdown_timeout`.

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

/// Lets nobody in any more and everybody out at the next transaction boundary; ends when the last client is gone.
pub(super) fn drain(control: &Rc<Control>, because: &str) {
    if !control.start_draining() {
        return;
    }
    let patience = control.config().limits.shutdown_timeout;
    match patience {
        Some(patience) => {
            tracing::info!(
                "{because}: weir ends when transactions have ended, in {patience:?} at the latest"
            );
        }
        None => tracing::info!("{because}: weir ends when transactions have ended"),
    }
    // Clients that wait behind a PAUSE could not end.
    control.order(&Order::Resume(None));
    control.order(&Order::Drain);
    let Some(patience) = patience else { return };
    let control = Rc::clone(control);
    spawn_local(async move {
        sleep(patience).await;
        tracing::warn!("clients are cut off because shutdown_timeout is over");
        control.end();
    });
}
