//! A worker thread: its runtime, its clock, its inbox. Everything it owns stays on it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};
use weir_config::{Dns, Tcp};

use crate::handle::{Report, ToWorker};
use crate::listen::{self, Door};
use crate::machine::Machine;
use crate::shell::{Shared, Shell};
use crate::tls::TlsBundle;

/// What a worker thread starts with.
pub(crate) struct WorkerSetup {
    pub(crate) index: u16,
    pub(crate) doors: Vec<Door>,
    pub(crate) inbox: mpsc::UnboundedReceiver<ToWorker>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) tls: Arc<TlsBundle>,
    pub(crate) tcp: Tcp,
    pub(crate) dns: Dns,
}

/// Starts a worker. The machine is made on its thread because it never leaves it.
///
/// # Errors
/// When the system gives no thread or no reactor.
pub(crate) fn spawn<M: Machine>(
    setup: WorkerSetup,
    machine: impl FnOnce() -> M + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (started, wait) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(format!("worker-{}", setup.index)).spawn(move || {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(error) => return drop(started.send(Err(error))),
        };
        drop(started.send(Ok(())));
        runtime.block_on(work(setup, machine()));
        // A resolver that hangs must not keep the process from ending.
        runtime.shutdown_background();
    })?;
    wait.recv().unwrap_or_else(|_| Err(io::Error::other("the worker thread ended before it began")))?;
    Ok(thread)
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVER_THREADS_MAX)
        .build_local(LocalOptions::default())
}

async fn work<M: Machine>(setup: WorkerSetup, machine: M) {
    let WorkerSetup { index, doors, inbox, reports, tls, tcp, dns } = setup;
    let shell = Shell::new(machine, index, tls, tcp, dns, reports.clone());
    for door in doors {
        listen::open(door, &shell);
    }
    listen_to_control(&shell, inbox, &reports, index).await;
    shell.borrow_mut().hang_up();
}

async fn listen_to_control<M: Machine>(
    shell: &Shared<M>,
    mut inbox: mpsc::UnboundedReceiver<ToWorker>,
    reports: &mpsc::Sender<Report>,
    worker: u16,
) {
    let mut clock = time::interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_drained = false;
    loop {
        tokio::select! {
            word = inbox.recv() => match word {
                Some(ToWorker::Order(order)) => shell.borrow_mut().order(order),
                Some(ToWorker::Tls(bundle)) => shell.borrow_mut().adopt_tls(bundle),
                Some(ToWorker::Snapshot(answer)) => drop(answer.send(shell.borrow().snapshot())),
                Some(ToWorker::Unfinished(asker, answer)) => {
                    drop(answer.send(shell.borrow().unfinished(asker)));
                }
                Some(ToWorker::Doors(answer)) => drop(answer.send(shell.borrow().door_descriptors())),
                Some(ToWorker::Stop) | None => return,
            },
            _ = clock.tick() => {
                shell.borrow_mut().tick();
                if !told_drained && shell.borrow().is_drained() {
                    told_drained = reports.try_send(Report::Drained { worker }).is_ok();
                }
            }
        }
    }
}

/// How often the machine is told that time passes: no deadline is finer than this.
const TICK: Duration = Duration::from_millis(100);

/// Host names are resolved on other threads, so many at a time: names whose servers do not answer occupy one each for up to
/// half a minute, and the others must not wait for that.
const RESOLVER_THREADS_MAX: usize = 16;
