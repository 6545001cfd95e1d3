//! Reading the configuration again. All or nothing: what is wrong in any part leaves everything as it was.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};

use super::follow;
use super::state::{Control, Following, now};
use crate::Configuration;
use crate::tls::TlsBundle;
use weir_config::{Config, Upstream};
use weir_worker::Order;

/// SET of the console: one setting, effective at once, until the next reload.
///
/// # Errors
/// What is wrong with it, for the console.
pub(super) fn set(control: &Control, key: &str, value: &str) -> Result<(), String> {
    attempt(control, |configuration| configuration.set(key, value))
}

/// Looks at the files about logins from time to time, as PgBouncer does with its user list.
pub(super) async fn watch_files(control: Rc<Control>) {
    let mut ticks = time::interval(FILES_LOOKED_AT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let renewed = control.reload.borrow_mut().as_mut().and_then(|configuration| configuration.renew());
        let outcome = renewed.map(|fresh| fresh.and_then(|fresh| adopt(&control, fresh)));
        if let Some(Err(why)) = outcome {
            tracing::error!("a file about logins has changed, and what was read before stays: {why}");
        }
    }
}

/// Reads, checks, and tells everybody.
///
/// # Errors
/// What is wrong, for the console; it has been logged.
pub(super) fn reload(control: &Control) -> Result<(), String> {
    let outcome = attempt(control, |configuration| configuration.read());
    if let Err(why) = &outcome {
        tracing::error!("the configuration in force stays: {why}");
    }
    outcome
}

fn attempt(
    control: &Control,
    ask: impl FnOnce(&mut dyn Configuration) -> Result<Config, String>,
) -> Result<(), String> {
    let fresh = match control.reload.borrow_mut().as_mut() {
        Some(configuration) => ask(configuration.as_mut())?,
        None => return Err("there is no configuration file to read again".to_owned()),
    };
    adopt(control, fresh)
}

fn adopt(control: &Control, fresh: Config) -> Result<(), String> {
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
    control.resolver.configure(&config.dns, now());
    control.order(&Order::Configure(Arc::clone(&config)));
    for worker in &control.workers {
        worker.adopt_tls(Arc::clone(&tls));
    }
    // As in PgBouncer: a server that would be met otherwise today is met anew, when its clients are done with it.
    for section in control.tls.borrow().outdated(&tls) {
        tracing::info!("server connections are replaced: what TLS to their servers goes by has changed");
        control.order(&Order::Reconnect(section));
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

/// A user who was added can log in after this at most.
const FILES_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
