//! Executes console commands. Speaks no protocol: answers are made by weir-admin and delivered by the worker that holds
//! the client.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use weir_admin::console::{self, Command, Rights, Shutdown};
use weir_admin::reply;
use weir_admin::snapshot::PoolRow;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use super::state::{Control, Following, now};
use super::{reload, shutdown, view};
use weir_worker::{ConsoleRequest, Order};

/// Executes one command; the answer follows when it is done.
pub(super) fn execute(control: &Rc<Control>, worker: u16, request: ConsoleRequest) {
    let control = Rc::clone(control);
    spawn_local(async move {
        let rights = if request.admin { Rights::Admin } else { Rights::Stats };
        let reply = match console::parse(&request.sql) {
            Ok(command) => match rights.allow(&command) {
                Ok(()) => obey(&control, command).await,
                Err(refusal) => reply::failed(&refusal),
            },
            Err(refusal) => reply::failed(&refusal),
        };
        if let Some(worker) = control.workers.iter().find(|handle| handle.index() == worker) {
            worker.order(Order::ConsoleReply(request.client, reply));
        }
    });
}

async fn obey(control: &Rc<Control>, command: Command) -> Vec<u8> {
    let tag = command.tag();
    if !matches!(command, Command::Show(_) | Command::Help | Command::ShowSetting(_) | Command::Empty) {
        tracing::info!("console: {command:?}");
    }
    let outcome = match command {
        Command::Empty => return reply::empty(),
        Command::Show(table) => return view::show(control, table).await,
        Command::Help => return reply::help(),
        Command::ShowSetting(setting) => return reply::setting(setting),
        Command::Reload => reload::reload(control).map_err(|why| failure(SqlState::CONFIG_FILE_ERROR, why)),
        Command::Pause(database) => pause(control, database).await,
        Command::Resume(database) => resume(control, database).await,
        Command::Reconnect(database) => reconnect(control, database).await,
        Command::Shutdown(how) => end(control, how),
        Command::AcceptLeader(member) => accept_leader(control, &member),
    };
    match outcome {
        Ok(()) => reply::done(tag),
        Err(report) => reply::failed(&report),
    }
}

fn failure(code: SqlState, why: impl Into<String>) -> Report {
    Report::error(code, why.into())
}

/// Refuses the name of a database that is neither configured nor has pools, nor is paused since it was: a typing
/// error must not look like success.
async fn known(control: &Control, database: Option<&str>) -> Result<(), Report> {
    let Some(name) = database else { return Ok(()) };
    if control.config().databases.contains_key(name) || control.paused.borrow().databases.contains(name) {
        return Ok(());
    }
    if control.snapshot().await.pools.iter().any(|pool| pool.database == name) {
        return Ok(());
    }
    Err(failure(SqlState::INVALID_CATALOG_NAME, format!("no such database: {name}"))
        .hint("SHOW DATABASES lists those that weir knows."))
}

/// Stops handing out server connections and answers when none is left.
async fn pause(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref()).await?;
    {
        let mut paused = control.paused.borrow_mut();
        let already = match &database {
            None => std::mem::replace(&mut paused.all, true),
            Some(name) => paused.all || !paused.databases.insert(name.clone()),
        };
        if already {
            return Err(failure(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "already paused"));
        }
    }
    let resumed = control.resumed.get();
    control.order(&Order::Pause(database.clone()));
    loop {
        let snapshot = control.snapshot().await;
        let busy = |pool: &PoolRow| {
            let concerned = database.as_ref().is_none_or(|name| *name == pool.database);
            concerned && pool.sv_active + pool.sv_idle + pool.sv_login + pool.sv_being_canceled > 0
        };
        if control.resumed.get() != resumed {
            return Err(failure(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "RESUME came before all was quiet",
            ));
        }
        if !snapshot.pools.iter().any(busy) {
            return Ok(());
        }
        sleep(QUIET_LOOK).await;
    }
}

async fn resume(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref()).await?;
    let mut paused = control.paused.borrow_mut();
    let was_paused = match &database {
        None => {
            let some = !std::mem::take(&mut paused.databases).is_empty();
            std::mem::take(&mut paused.all) || some
        }
        Some(name) => paused.databases.remove(name),
    };
    control.resumed.set(control.resumed.get() + 1);
    control.order(&Order::Resume(database));
    if was_paused { Ok(()) } else { Err(failure(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "not paused")) }
}

async fn reconnect(control: &Control, database: Option<String>) -> Result<(), Report> {
    known(control, database.as_deref()).await?;
    control.order(&Order::Reconnect(database));
    Ok(())
}

fn end(control: &Rc<Control>, how: Shutdown) -> Result<(), Report> {
    match how {
        Shutdown::AtOnce => shutdown::at_once(control, "SHUTDOWN"),
        Shutdown::WaitForServers => shutdown::drain(control, "SHUTDOWN WAIT_FOR_SERVERS"),
        Shutdown::WaitForClients => {
            return Err(failure(
                SqlState::FEATURE_NOT_SUPPORTED,
                "weir does not support SHUTDOWN WAIT_FOR_CLIENTS yet",
            )
            .hint("SHUTDOWN WAIT_FOR_SERVERS lets each client go at its next transaction boundary."));
        }
    }
    Ok(())
}

fn accept_leader(control: &Control, member: &str) -> Result<(), Report> {
    let Following::Cluster { discovery, events: _ } = &control.following else {
        return Err(failure(SqlState::FEATURE_NOT_SUPPORTED, "weir follows no cluster"));
    };
    let accepted = discovery.borrow_mut().accept_leader(now(), member);
    control.poke();
    match accepted {
        Ok(_) => Ok(()),
        Err(why) => Err(failure(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, why)),
    }
}

/// How often PAUSE looks whether all is quiet.
const QUIET_LOOK: Duration = Duration::from_millis(20);
