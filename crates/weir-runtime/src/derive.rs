//! Threads that derive keys from passwords, so that a worker does not stand still meanwhile. Owns the threads and the way
//! to them; who waits for what, and how much is asked for at once, is the worker's machine's.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use weir_auth::scram::{Derivation, DerivedKeys};

/// The way to one worker's threads, which begin with the first derivation and end when this is dropped.
#[derive(Default)]
pub(crate) struct Deriver {
    tasks: Option<Sender<Task>>,
}

struct Task {
    derivation: Derivation,
    answer: oneshot::Sender<DerivedKeys>,
}

impl Deriver {
    /// Begins a derivation. The answer comes in any case: where the system gives no thread, it is computed at once.
    pub(crate) fn derive(&mut self, derivation: Derivation) -> oneshot::Receiver<DerivedKeys> {
        let (answer, derived) = oneshot::channel();
        let tasks = self.tasks.get_or_insert_with(start_threads);
        if let Err(mpsc::SendError(task)) = tasks.send(Task { derivation, answer }) {
            self.tasks = None;
            task.run();
        }
        derived
    }
}

impl Task {
    fn run(self) {
        // Whoever has gone is not told.
        drop(self.answer.send(self.derivation.run()));
    }
}

fn start_threads() -> Sender<Task> {
    let (tasks, inbox) = mpsc::channel();
    let inbox = Arc::new(Mutex::new(inbox));
    for index in 0..THREADS {
        let inbox = Arc::clone(&inbox);
        let started = thread::Builder::new().name(format!("derive-{index}")).spawn(move || work(&inbox));
        if let Err(error) = started {
            tracing::warn!("no thread to derive keys on: {error}");
        }
    }
    tasks
}

fn work(inbox: &Mutex<Receiver<Task>>) {
    // On Linux this is the thread's own: clients who are in go first.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!("keys are derived with the usual priority: {error}");
    }
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(task) = next else { return };
        task.run();
    }
}

/// So many derivations at once: one alone would let a server that asks for a million iterations hold up all others.
const THREADS: usize = 2;

/// Less of a core than the worker's thread gets where both want it.
const NICENESS: i32 = 5;

#[cfg(test)]
mod tests {
    use weir_auth::Secret;
    use weir_auth::scram::Derivation;

    use super::Deriver;

    #[test]
    fn many_are_derived_and_each_gets_its_own() {
        let mut deriver = Deriver::default();
        let of = |iterations| Derivation::new(Secret::from("pencil"), b"salt", iterations);
        let asked: Vec<_> = (1..20).map(|iterations| (iterations, deriver.derive(of(iterations)))).collect();
        for (iterations, derived) in asked {
            assert_eq!(derived.blocking_recv(), Ok(of(iterations).run()));
        }
    }

    #[test]
    fn who_has_gone_keeps_nobody_from_being_served() {
        let mut deriver = Deriver::default();
        drop(deriver.derive(Derivation::new(Secret::from("pencil"), b"salt", 1)));
        let asked = deriver.derive(Derivation::new(Secret::from("pencil"), b"salt", 2));
        assert_eq!(asked.blocking_recv().map(|derived| derived.iterations), Ok(2));
    }
}
