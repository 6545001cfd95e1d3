//! The control thread: one single-threaded runtime of small tasks around shared state that never leaves it. Follows the
//! cluster, executes console commands, serves HTTP, reloads, and ends weir. Touches no client and no pooled server
//! connection; workers hear from it by orders only.

mod acting;
mod console;
mod follow;
mod handover;
mod http;
mod monitor;
mod page;
mod patroni;
mod pausing;
pub(crate) mod push;
mod reload;
mod shutdown;
mod state;
mod switchover;
mod view;

#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time;

use crate::handle::Report;
use crate::{ControlSetup, RunError};
use handover::Estate;
use state::Control;

/// Runs until weir ends: by signal, by SHUTDOWN, or because a worker is gone.
pub(crate) fn run(setup: ControlSetup) -> Result<(), RunError> {
    let runtime = runtime().map_err(cannot_start)?;
    let outcome = runtime.block_on(work(setup));
    // A resolver that hangs must not keep the process from ending.
    runtime.shutdown_background();
    outcome
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS_MAX)
        .build_local(LocalOptions::default())
}

async fn work(setup: ControlSetup) -> Result<(), RunError> {
    let ControlSetup { config, workers, reports, callbacks, http, reload, tls, inheritance, files } = setup;
    let signals = Signals::listen().map_err(cannot_start)?;
    let (control, events) = Control::new(config, workers, reload, tls);
    let http = http.map(|http| serve_http(&control, http)).transpose().map_err(cannot_start)?;
    if let Some(callbacks) = callbacks {
        let callbacks = tokio::net::TcpListener::from_std(callbacks).map_err(cannot_start)?;
        spawn_local(push::serve(Rc::clone(&control), callbacks));
    }
    handover::start(&control, inheritance, Estate { http, files });
    spawn_local(follow::follow(Rc::clone(&control), events));
    spawn_local(listen_to_workers(Rc::clone(&control), reports));
    spawn_local(listen_to_signals(Rc::clone(&control), signals));
    spawn_local(keep_averages(Rc::clone(&control)));
    spawn_local(reload::watch_files(Rc::clone(&control)));
    control.ended().await;
    control.remove_files();
    crate::notify::stopping();
    Ok(())
}

fn serve_http(control: &Rc<Control>, http: TcpListener) -> io::Result<(TcpListener, AbortHandle)> {
    let second = http.try_clone()?;
    let http = tokio::net::TcpListener::from_std(http)?;
    let task = spawn_local(http::serve(Rc::clone(control), http));
    Ok((second, task.abort_handle()))
}

fn cannot_start(source: io::Error) -> RunError {
    RunError::Start { what: "the control thread", source }
}

async fn listen_to_workers(control: Rc<Control>, mut reports: mpsc::Receiver<Report>) {
    while let Some(report) = reports.recv().await {
        match report {
            Report::Console { worker, request } => console::execute(&control, worker, request),
            Report::Evidence(evidence) => control.evidence(evidence),
            Report::Drained { worker } => control.drained(worker),
        }
    }
    tracing::error!("all workers have ended");
    control.end();
}

/// Signals as PgBouncer's users know them: HUP reloads, TERM waits for clients, INT for server connections, a second TERM
/// or INT and QUIT do not wait; USR1 pauses, USR2 resumes.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    pause: Signal,
    resume: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }
}

async fn listen_to_signals(control: Rc<Control>, mut signals: Signals) {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => drop(reload::reload(&control)),
            _ = signals.terminate.recv() => {
                if control.is_draining() {
                    shutdown::at_once(&control, "SIGTERM while shutting down");
                } else {
                    shutdown::terminate(&control, "SIGTERM");
                }
            }
            _ = signals.interrupt.recv() => {
                if !shutdown::wait_for_servers(&control, "SIGINT") {
                    shutdown::at_once(&control, "SIGINT while shutting down");
                }
            }
            _ = signals.quit.recv() => shutdown::at_once(&control, "SIGQUIT"),
            _ = signals.pause.recv() => note("SIGUSR1", pausing::begin_pause(&control, None)),
            _ = signals.resume.recv() => note("SIGUSR2", pausing::end_pause(&control, None)),
        }
    }
}

/// What came of a signal that has no answer.
fn note(signal: &str, outcome: Result<(), weir_protocol::message::Report>) {
    match outcome {
        Ok(()) => tracing::info!("got {signal}"),
        Err(report) => tracing::info!("got {signal}, but {}", report.message),
    }
}

/// Averages are over whole periods, so that two programs that read them at different times see the same. A new length
/// holds from the next period on.
async fn keep_averages(control: Rc<Control>) {
    let mut end = time::Instant::now();
    loop {
        end += control.config().log.stats_period;
        time::sleep_until(end).await;
        end = time::Instant::now();
        let snapshot = control.snapshot().await;
        let line = {
            let mut averages = control.averages.borrow_mut();
            averages.close_period(state::now(), &snapshot.pools);
            averages.line()
        };
        if control.config().log.stats {
            tracing::info!("{line}");
        }
    }
}

/// Host names are resolved on other threads, so many at a time.
const RESOLVER_THREADS_MAX: usize = 4;
