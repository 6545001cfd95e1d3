//! Console commands that act on the connections of a database or on one client: RECONNECT, DISABLE, ENABLE, KILL,
//! KILL_CLIENT, WAIT_CLOSE. Workers do it; here is who may be meant, and what is said.

use std::time::Duration;

use tokio::time::sleep;
use weir_admin::snapshot::ServerRow;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use super::console::{failure, wrong_state};
use super::state::Control;
use weir_worker::Order;

/// Refuses the console itself, and the name of a database that is neither configured nor has pools, nor is paused since
/// it was: a typing error must not look like success.
pub(super) async fn known(control: &Control, database: Option<&str>, verb: &str) -> Result<(), Report> {
    let Some(name) = database else { return Ok(()) };
    if matches!(name, "pgbouncer" | "weir") && verb != "resume" {
        return Err(wrong_state(format!("cannot {verb} admin db: {name}")));
    }
    let config = control.config();
    if config.databases.contains_key(name) || control.paused.borrow().names(name) {
        return Ok(());
    }
    if control.snapshot().await.pools.iter().any(|pool| pool.database == name) {
        return Ok(());
    }
    Err(failure(SqlState::INVALID_CATALOG_NAME, format!("no such database: {name}"))
        .hint("SHOW DATABASES lists those that weir knows."))
}

/// Replaces server connections as transactions end.
pub(super) async fn reconnect(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref(), "reconnect").await?;
    control.order(&Order::Reconnect(database));
    Ok(())
}

/// DISABLE (true) or ENABLE (false). Clients that are in stay in.
pub(super) async fn disable(control: &Control, database: String, disabled: bool) -> Result<(), Report> {
    // PgBouncer says the same for both.
    known(control, Some(&database), "disable").await?;
    if disabled {
        control.paused.borrow_mut().disabled.insert(database.clone());
    } else {
        control.paused.borrow_mut().disabled.remove(&database);
    }
    control.order(&Order::Disable(database, disabled));
    Ok(())
}

/// Pauses, and closes everything at once.
pub(super) async fn kill(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref(), "kill").await?;
    {
        let mut paused = control.paused.borrow_mut();
        match &database {
            None => paused.all = true,
            Some(name) => drop(paused.databases.insert(name.clone())),
        }
    }
    control.order(&Order::Pause(database.clone()));
    control.order(&Order::Kill(database));
    Ok(())
}

pub(super) async fn kill_client(control: &Control, id: u64) -> Result<(), Report> {
    if !control.snapshot().await.clients.iter().any(|client| client.id == id) {
        return Err(failure(SqlState::UNDEFINED_OBJECT, "client not found")
            .hint("The id column of SHOW CLIENTS tells clients apart."));
    }
    control.order(&Order::KillClient(id));
    Ok(())
}

/// Waits until server connections that are to be replaced are gone.
pub(super) async fn wait_close(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref(), "wait in").await?;
    let is_meant = |server: &ServerRow| {
        server.close_needed && database.as_ref().is_none_or(|name| *name == server.database)
    };
    while control.snapshot().await.servers.iter().any(is_meant) {
        sleep(CLOSED_LOOK).await;
    }
    Ok(())
}

/// How often WAIT_CLOSE looks.
const CLOSED_LOOK: Duration = Duration::from_millis(50);
