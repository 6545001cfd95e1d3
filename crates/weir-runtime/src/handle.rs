//! The channels between the control thread and the workers: what may be said, and what happens when nobody listens.
//! Knows neither sockets nor decisions.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_admin::snapshot::{Snapshot, UnfinishedRow};
use weir_discovery::SessionEvidence;
use weir_pool::ClientId;

use crate::tls::TlsBundle;
use weir_worker::{Asker, ConsoleRequest, Order};

/// What control says to one worker. Orders are few and small, so this channel has no bound.
pub(crate) enum ToWorker {
    /// For the worker's machine.
    Order(Order),
    /// Use these certificates and verifiers for handshakes from now on.
    Tls(Arc<TlsBundle>),
    /// Tell how things are.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Tell who is in a transaction on the leader, and what has become of this console client, if it is the worker's.
    Unfinished(Option<ClientId>, oneshot::Sender<Unfinished>),
    /// Give a second descriptor of each door that is open.
    Doors(oneshot::Sender<Vec<OwnedFd>>),
    /// End now: close every socket and let the thread return.
    Stop,
}

/// Answer to [`ToWorker::Unfinished`].
pub(crate) type Unfinished = (Vec<UnfinishedRow>, Option<Asker>);

/// What a worker says to control.
#[derive(Debug)]
pub(crate) enum Report {
    /// A console client asked something; answer with [`Order::ConsoleReply`] to this worker.
    Console {
        /// Index of the worker that holds the client.
        worker: u16,
        /// The question.
        request: ConsoleRequest,
    },
    /// Something for discovery to look into.
    Evidence(SessionEvidence),
    /// After an order to end: this worker has nothing to wait for any more. Said once.
    Drained {
        /// Index of the worker.
        worker: u16,
    },
}

/// Reports that may wait for control. A console question that finds the channel full waits in its worker (each
/// client can have only one under way); evidence that finds it full is dropped, because that many reports in the
/// queue already start a poll and evidence never decides anything.
pub(crate) const REPORTS_WAITING_MAX: usize = 4096;

/// Control's end of one worker.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    index: u16,
    orders: mpsc::UnboundedSender<ToWorker>,
}

impl WorkerHandle {
    /// A handle and the end that the worker listens on.
    pub(crate) fn new(index: u16) -> (Self, mpsc::UnboundedReceiver<ToWorker>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        (Self { index, orders }, inbox)
    }

    /// Which worker this is; [`Report`]s carry the same number.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Gives an order. A worker that has already ended no longer needs it.
    pub(crate) fn order(&self, order: Order) {
        self.say(ToWorker::Order(order));
    }

    /// Replaces certificates and verifiers for handshakes that begin later.
    pub(crate) fn adopt_tls(&self, bundle: Arc<TlsBundle>) {
        self.say(ToWorker::Tls(bundle));
    }

    /// Asks how things are; `None` if the worker has ended.
    pub(crate) async fn snapshot(&self) -> Option<Snapshot> {
        let (answer, wait) = oneshot::channel();
        self.say(ToWorker::Snapshot(answer));
        wait.await.ok()
    }

    /// Asks who is in a transaction on the leader, and what has become of a console client; `None` if the worker has
    /// ended.
    pub(crate) async fn unfinished(&self, asker: Option<ClientId>) -> Option<Unfinished> {
        let (answer, wait) = oneshot::channel();
        self.say(ToWorker::Unfinished(asker, answer));
        wait.await.ok()
    }

    /// A second descriptor of each door that is open; none once the worker lets nobody in.
    pub(crate) async fn doors(&self) -> Vec<OwnedFd> {
        let (answer, wait) = oneshot::channel();
        self.say(ToWorker::Doors(answer));
        wait.await.unwrap_or_default()
    }

    /// Ends the worker at once, whatever its clients are doing.
    pub(crate) fn stop(&self) {
        self.say(ToWorker::Stop);
    }

    fn say(&self, word: ToWorker) {
        if self.orders.send(word).is_err() {
            tracing::debug!(worker = self.index, "worker has ended; order dropped");
        }
    }
}
