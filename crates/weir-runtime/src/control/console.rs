//! Executes console commands. Speaks no protocol: answers are made by weir-admin and delivered by the worker that holds
//! the client.

use std::rc::Rc;

use tokio::task::spawn_local;
use weir_admin::console::{self, Command, Rights, Shutdown};
use weir_admin::reply;
use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use super::state::{Control, Following, now};
use super::{acting, pausing, reload, shutdown, switchover, view};
use weir_worker::{ConsoleRequest, Order};

/// Executes one command; the answer follows when it is done.
pub(super) fn execute(control: &Rc<Control>, worker: u16, request: ConsoleRequest) {
    let control = Rc::clone(control);
    spawn_local(async move {
        let rights = if request.admin { Rights::Admin } else { Rights::Stats };
        let reply = match console::parse(&request.sql) {
            Ok(command) => match rights.allow(&command) {
                Ok(()) => obey(&control, (worker, request.client), command).await,
                Err(refusal) => reply::failed(&refusal),
            },
            Err(refusal) => reply::failed(&refusal),
        };
        if let Some(worker) = control.workers.iter().find(|handle| handle.index() == worker) {
            worker.order(Order::ConsoleReply(request.client, reply));
        }
    });
}

async fn obey(control: &Rc<Control>, asker: (u16, ClientId), command: Command) -> Vec<u8> {
    let tag = command.tag();
    announce(&command);
    let outcome = match command {
        Command::Empty => return reply::empty(),
        Command::Show(table) => return view::show(control, table).await,
        Command::Help => return reply::help(),
        Command::ShowSetting(setting) => return reply::setting(setting),
        Command::Reload => reload::reload(control).map_err(|why| failure(SqlState::CONFIG_FILE_ERROR, why)),
        Command::Pause(database) => pausing::pause(control, database).await,
        Command::Resume(database) => pausing::resume(control, database).await,
        Command::Suspend => pausing::suspend(control, asker).await,
        Command::Reconnect(database) => acting::reconnect(control, database).await,
        Command::Disable(database) => acting::disable(control, database, true).await,
        Command::Enable(database) => acting::disable(control, database, false).await,
        Command::Kill(database) => acting::kill(control, database).await,
        Command::KillClient(id) => acting::kill_client(control, id).await,
        Command::WaitClose(database) => acting::wait_close(control, database).await,
        Command::Set { key, value } => set(control, &key, &value).await,
        Command::Shutdown(how) => end(control, how),
        Command::AcceptLeader(member) => accept_leader(control, &member),
        Command::Switchover(to) => switchover::switch_over(control, asker, to).await,
    };
    match outcome {
        Ok(()) => reply::done(&tag),
        Err(report) => reply::failed(&report),
    }
}

/// PgBouncer's lines: `PAUSE command issued`, `PAUSE 'app' command issued`.
fn announce(command: &Command) {
    let tag = command.tag();
    match command {
        Command::Empty | Command::Show(_) | Command::Help | Command::ShowSetting(_) => {}
        Command::Pause(Some(name))
        | Command::Resume(Some(name))
        | Command::Reconnect(Some(name))
        | Command::Disable(name)
        | Command::Enable(name)
        | Command::Kill(Some(name))
        | Command::WaitClose(Some(name))
        | Command::AcceptLeader(name)
        | Command::Switchover(Some(name)) => tracing::info!("{tag} '{name}' command issued"),
        // What it is set to shows where it takes effect. It may be a password, though none can be set so.
        Command::Set { key, value: _ } => tracing::info!("SET {key} command issued"),
        Command::KillClient(id) => tracing::info!("{tag} '{id}' command issued"),
        Command::Reload
        | Command::Pause(None)
        | Command::Resume(None)
        | Command::Reconnect(None)
        | Command::Kill(None)
        | Command::WaitClose(None)
        | Command::Suspend
        | Command::Switchover(None)
        | Command::Shutdown(_) => tracing::info!("{tag} command issued"),
    }
}

/// The command makes no sense as things are.
pub(super) fn wrong_state(why: impl Into<String>) -> Report {
    failure(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, why)
}

pub(super) fn failure(code: SqlState, why: impl Into<String>) -> Report {
    Report::error(code, why.into())
}

async fn set(control: &Control, key: &str, value: &str) -> Result<(), Report> {
    let refused = |why| failure(SqlState::CANT_CHANGE_RUNTIME_PARAM, "SET failed").detail(why);
    reload::set(control, key, value).map_err(refused)
}

fn end(control: &Rc<Control>, how: Shutdown) -> Result<(), Report> {
    let begun = match how {
        Shutdown::AtOnce => {
            shutdown::at_once(control, "SHUTDOWN");
            true
        }
        Shutdown::WaitForServers => shutdown::wait_for_servers(control, "SHUTDOWN WAIT_FOR_SERVERS"),
        Shutdown::WaitForClients => shutdown::wait_for_clients(control, "SHUTDOWN WAIT_FOR_CLIENTS"),
    };
    if begun { Ok(()) } else { Err(wrong_state("already shutting down")) }
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
