//! Reading the configuration again. All or nothing: what is wrong in any part leaves everything as it was.

use std::sync::Arc;

use super::follow;
use super::state::{Control, Following, now};
use crate::tls::TlsBundle;
use weir_config::Upstream;
use weir_worker::Order;

/// SET of the console: one setting, effective at once, until the next reload.
///
/// # Errors
/// What is wrong with it, for the console.
pub(super) fn set(control: &Control, key: &str, value: &str) -> Result<(), String> {
    let _ = control;
    Err(format!("weir cannot change {key} to {value} yet; change the configuration file and RELOAD"))
}

/// Reads, checks, and tells everybody.
///
/// # Errors
/// What is wrong, for the console; it has been logged.
pub(super) fn reload(control: &Control) -> Result<(), String> {
    let outcome = attempt(control);
    if let Err(why) = &outcome {
        tracing::error!("the configuration in force stays: {why}");
    }
    outcome
}

fn attempt(control: &Control) -> Result<(), String> {
    let fresh = match control.reload.borrow_mut().as_mut() {
        Some(read) => read()?,
        None => return Err("there is no configuration file to read again".to_owned()),
    };
    let (config, changes) = weir_config::reload(&control.config(), fresh);
    // Files are read again even if no setting changed: that is how certificates are renewed.
    let tls = Arc::new(TlsBundle::load(&config).map_err(|error| error.to_string())?);
    for change in &changes {
        if change.needs_restart() {
            tracing::warn!("reload: {change}");
        } else {
            tracing::info!("reload: {change}");
        }
    }
    let config = Arc::new(config);
    control.order(&Order::Configure(Arc::clone(&config)));
    for worker in &control.workers {
        worker.adopt_tls(Arc::clone(&tls));
    }
    if let (Following::Cluster { discovery, events: _ }, Upstream::Patroni(patroni)) =
        (&control.following, &config.upstream)
    {
        discovery.borrow_mut().configure(now(), follow::settings(&config, patroni));
        control.poke();
    }
    *control.tls.borrow_mut() = tls;
    *control.config.borrow_mut() = config;
    tracing::info!("configuration read again, {} changes", changes.len());
    Ok(())
}
