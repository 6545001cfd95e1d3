//! The old process's side of an online restart: offers the doors, and lets go of them when the new process serves
//! clients. Clients that are here stay until they leave.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

use super::shutdown;
use super::state::Control;
use crate::takeover::{self, DONE, GREETING, Inheritance, Offered, READY};
use crate::unix_socket::SocketFile;
use weir_discovery::{Leadership, Topology};

/// What goes with the doors: the page for metrics, and the files of Unix sockets.
pub(super) struct Estate {
    /// A second descriptor of the listening socket, and the task that serves the first.
    pub(super) http: Option<(StdTcpListener, AbortHandle)>,
    pub(super) files: Vec<SocketFile>,
}

/// Takes over from an older process if there is one, then offers the doors to a younger one.
pub(super) async fn run(control: Rc<Control>, inheritance: Option<Inheritance>, estate: Estate) {
    if let Some(inheritance) = inheritance {
        follows_somebody(&control).await;
        match tokio::task::spawn_blocking(|| inheritance.settle()).await {
            Ok(Ok(())) => tracing::info!("took over from the running process"),
            Ok(Err(error)) => {
                tracing::error!("the process that was to be replaced may still listen: {error}")
            }
            Err(error) => tracing::error!("taking over failed: {error}"),
        }
    }
    crate::notify::ready();
    let Some(name) = takeover::name(&control.config().listen) else {
        return control.keep(estate.files);
    };
    match takeover::offer(&name) {
        Ok((listener, file)) => serve(&control, listener, file, estate).await,
        Err(error) => {
            tracing::warn!("no process will be able to take over from this one (-R): unix:{name}: {error}");
            control.keep(estate.files);
        }
    }
}

/// Whether clients of this topology could be served: databases with hosts of their own need no leader.
pub(super) fn serves(topology: &Topology) -> bool {
    *topology == Topology::nobody() || matches!(topology.leader, Leadership::Led { .. })
}

/// A new process knows whom to send clients to before the old one stops; clients would have to wait otherwise.
async fn follows_somebody(control: &Control) {
    let led = async {
        while !serves(&control.topology(super::state::now())) {
            tokio::time::sleep(LEADER_LOOK).await;
        }
    };
    if timeout(LEADER_TIME_MAX, led).await.is_err() {
        tracing::info!("taking over although no leader is known yet");
    }
}

/// Waits for a new process. Ends with the hand-over, or with weir.
async fn serve(control: &Rc<Control>, listener: StdUnixListener, file: SocketFile, estate: Estate) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("no process will be able to take over from this one (-R): {error}");
            return control.keep(estate.files);
        }
    };
    let Estate { http, files } = estate;
    control.keep(files);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a process that wants to take over was not heard: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let page = http.as_ref().map(|(listener, _)| listener);
        match timeout(HANDOVER_TIME_MAX, hand_over(control, stream, page)).await {
            Ok(Ok(mut stream)) => {
                // The name has to be free before the new process hears that it may use it.
                drop((listener, file));
                control.leave_files();
                if let Some((_, task)) = http {
                    task.abort();
                }
                shutdown::replaced(control);
                if let Err(error) = stream.write_all(DONE).await {
                    tracing::warn!("the new process does not hear that it has the sockets: {error}");
                }
                return;
            }
            Ok(Err(error)) => tracing::warn!("a process wanted to take over and did not: {error}"),
            Err(_) => tracing::warn!("a process wanted to take over and was not ready in time"),
        }
    }
}

/// Returns when the new process serves clients.
async fn hand_over(
    control: &Control,
    mut stream: UnixStream,
    page: Option<&StdTcpListener>,
) -> io::Result<UnixStream> {
    let taker = stream.peer_cred()?;
    if !takeover::may_take(taker.uid()) {
        return Err(io::Error::other(format!("it belongs to another user ({})", taker.uid())));
    }
    let mut said = vec![0; GREETING.len()];
    stream.read_exact(&mut said).await?;
    if said != GREETING || control.is_draining() {
        return Err(io::Error::other("it speaks otherwise, or this process is about to end"));
    }
    let doors = control.doors().await;
    tracing::info!(pid = taker.pid(), "another process takes over {} doors", doors.len());
    let page = page.map(|page| page.as_fd());
    let descriptors: Vec<_> = doors.iter().map(OwnedFd::as_fd).chain(page).collect();
    let offered: io::Result<Vec<_>> = descriptors
        .into_iter()
        .map(|descriptor| Ok(Offered { label: takeover::label(descriptor)?, descriptor }))
        .collect();
    stream.writable().await?;
    takeover::send_doors(&stream, &offered?)?;
    // Else this process would go on listening after it has let go of its doors.
    drop(doors);
    let mut said = vec![0; READY.len()];
    stream.read_exact(&mut said).await?;
    if said == READY { Ok(stream) } else { Err(io::Error::other("it answered nonsense")) }
}

/// From the greeting to a new process that serves clients.
const HANDOVER_TIME_MAX: Duration = Duration::from_secs(60);

/// How long a new process looks for a leader before it takes over.
const LEADER_TIME_MAX: Duration = Duration::from_secs(5);
const LEADER_LOOK: Duration = Duration::from_millis(20);

/// While descriptors are short.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts [`run`] beside everything else.
pub(super) fn start(control: &Rc<Control>, inheritance: Option<Inheritance>, estate: Estate) {
    drop(spawn_local(run(Rc::clone(control), inheritance, estate)));
}
