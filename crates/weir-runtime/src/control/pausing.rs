//! PAUSE, SUSPEND and RESUME, by command and by signal. Owns what is stopped and when all is quiet.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use weir_admin::snapshot::PoolRow;
use weir_pool::ClientId;
use weir_protocol::message::Report;

use super::acting::known;
use super::console::wrong_state;
use super::state::Control;
use weir_worker::Order;

/// Stops handing out server connections and answers when none is left.
pub(super) async fn pause(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref(), "pause").await?;
    begin_pause(control, database.clone())?;
    let resumed = control.resumed.get();
    loop {
        let snapshot = control.snapshot().await;
        let busy = |pool: &PoolRow| {
            let concerned = database.as_ref().is_none_or(|name| *name == pool.database);
            concerned && pool.sv_active + pool.sv_idle + pool.sv_login + pool.sv_being_canceled > 0
        };
        if control.resumed.get() != resumed {
            return Err(wrong_state("RESUME came before all was quiet"));
        }
        if !snapshot.pools.iter().any(busy) {
            return Ok(());
        }
        sleep(QUIET_LOOK).await;
    }
}

/// The same without waiting for quiet.
///
/// # Errors
/// When everything is paused or suspended already. A database that is paused may be paused again, as in PgBouncer.
pub(super) fn begin_pause(control: &Control, database: Option<String>) -> Result<(), Report> {
    {
        let mut paused = control.paused.borrow_mut();
        if paused.all || paused.suspended {
            return Err(wrong_state("already suspended/paused"));
        }
        match &database {
            None => paused.all = true,
            Some(name) => drop(paused.databases.insert(name.clone())),
        }
    }
    control.order(&Order::Pause(database));
    Ok(())
}

pub(super) async fn resume(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref(), "resume").await?;
    end_pause(control, database)
}

/// # Errors
/// When nothing is paused, or weir is about to end without giving out server connections.
pub(super) fn end_pause(control: &Control, database: Option<String>) -> Result<(), Report> {
    if control.waits_for_servers() {
        return Err(wrong_state("pooler is shutting down"));
    }
    let mut paused = control.paused.borrow_mut();
    let was_paused = match &database {
        None => {
            let some = !std::mem::take(&mut paused.databases).is_empty();
            let all = std::mem::take(&mut paused.all);
            std::mem::take(&mut paused.suspended) || all || some
        }
        Some(name) => paused.databases.remove(name),
    };
    drop(paused);
    control.resumed.set(control.resumed.get() + 1);
    control.order(&Order::Resume(database.clone()));
    match database {
        _ if was_paused => Ok(()),
        None => Err(wrong_state("pooler is not paused/suspended")),
        Some(name) => Err(wrong_state(format!("database {name} is not paused"))),
    }
}

/// Reads nothing any more from anybody but console clients, and answers when what was under way has left.
pub(super) async fn suspend(control: &Rc<Control>, asker: (u16, ClientId)) -> Result<(), Report> {
    {
        let mut paused = control.paused.borrow_mut();
        if paused.all || paused.suspended {
            return Err(wrong_state("already suspended/paused"));
        }
        if !paused.databases.is_empty() {
            return Err(wrong_state("cannot suspend with paused databases"));
        }
        paused.suspended = true;
    }
    let resumed = control.resumed.get();
    let console = serial_of(control, asker).await;
    control.order(&Order::Suspend(control.config().limits.suspend_timeout));
    spawn_local(resume_without(Rc::clone(control), console, resumed));
    loop {
        let snapshot = control.snapshot().await;
        if control.resumed.get() != resumed {
            return Err(wrong_state("RESUME came before all was quiet"));
        }
        let clients = snapshot.clients.iter().map(|row| row.buffered.outgoing);
        let servers = snapshot.servers.iter().map(|row| row.buffered.outgoing);
        if clients.chain(servers).all(|bytes| bytes == 0) {
            return Ok(());
        }
        sleep(QUIET_LOOK).await;
    }
}

/// The number that tells the console client from all others. Workers have no two clients in one place.
async fn serial_of(control: &Control, (_, client): (u16, ClientId)) -> Option<u64> {
    let clients = control.snapshot().await.clients;
    clients.iter().find(|row| row.slot == client.0).map(|row| row.id)
}

/// A suspended weir takes no new client, so the console client that suspended it must not leave it behind: PgBouncer
/// resumes then, and so does weir.
async fn resume_without(control: Rc<Control>, console: Option<u64>, resumed: u64) {
    loop {
        sleep(CONSOLE_LOOK).await;
        if control.resumed.get() != resumed {
            return;
        }
        let clients = control.snapshot().await.clients;
        if !clients.iter().any(|row| Some(row.id) == console) {
            tracing::info!("admin disappeared when suspended, doing RESUME");
            drop(end_pause(&control, None));
            return;
        }
    }
}

/// How often PAUSE and SUSPEND look whether all is quiet.
const QUIET_LOOK: Duration = Duration::from_millis(20);

/// How often SUSPEND looks whether its console client is still there.
const CONSOLE_LOOK: Duration = Duration::from_millis(250);
