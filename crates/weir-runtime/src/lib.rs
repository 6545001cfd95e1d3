//! Sockets, TLS, timers and threads: the only library of weir that touches the outside world. Owns the data plane
//! (one thread per worker, one small task per socket) and the control thread. Decides nothing about sessions, pools
//! or leaders; those decisions are made by pure machines that this crate feeds and obeys.

mod control;
mod derive;
mod dial;
mod elsewhere;
mod entropy;
mod handle;
mod listen;
mod machine;
mod notify;
mod resolver;
mod shell;
mod socket;
mod takeover;
mod tcp;
mod thread;
mod tls;
mod unix_socket;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic;
use std::process;
use std::sync::Arc;

use tokio::sync::mpsc;
use weir_config::{Config, Listen, Upstream};
use weir_discovery::{Address, Leadership, ReadFallback, Topology};
use weir_worker::Worker;

use entropy::SystemEntropy;
use handle::{REPORTS_WAITING_MAX, Report, WorkerHandle};
use listen::{Door, Doors};
use machine::Machine;
use takeover::Inheritance;
use thread::WorkerSetup;
use tls::TlsBundle;
use unix_socket::SocketFile;

pub use tls::TlsLoadError;

/// What weir starts with.
pub struct Startup {
    /// The configuration in force.
    pub config: Config,
    /// Reads the configuration again, for SIGHUP and RELOAD; `None` if there is nothing to read again. The error is
    /// for the log and the console, and the old configuration stays in force.
    pub reload: Option<Reload>,
    /// Takes the listening sockets over from the process that runs, if there is one (`-R`).
    pub take_over: bool,
}

/// See [`Startup::reload`].
pub type Reload = Box<dyn Configuration>;

/// Where configurations come from while weir runs. Errors are for the log and the console.
pub trait Configuration: Send {
    /// Reads everything again and forgets what SET said.
    ///
    /// # Errors
    /// Everything that is wrong.
    fn read(&mut self) -> Result<Config, String>;

    /// Puts one setting on top of what was read last.
    ///
    /// # Errors
    /// What is wrong with it; it is forgotten then.
    fn set(&mut self, key: &str, value: &str) -> Result<Config, String>;

    /// If the user list or another file about logins has changed since it was read: what holds with the new one.
    fn renew(&mut self) -> Option<Result<Config, String>>;
}

/// Reads again, and knows nothing of SET.
impl<F: FnMut() -> Result<Config, String> + Send> Configuration for F {
    fn read(&mut self) -> Result<Config, String> {
        self()
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<Config, String> {
        Err(format!("{key} cannot be set"))
    }

    fn renew(&mut self) -> Option<Result<Config, String>> {
        None
    }
}

/// Why weir did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A certificate, key or authority file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsLoadError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address, or the name of a Unix socket behind `unix:`.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The running process does not hand its sockets over.
    #[error("cannot take over from the running process: {source}")]
    TakeOver {
        /// What went wrong.
        source: io::Error,
    },
    /// The system gave no thread, no reactor or no signal handler.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What was to be started.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What the control thread works with. It runs on the thread that called [`run`] and ends weir by returning.
pub(crate) struct ControlSetup {
    /// The configuration in force.
    pub(crate) config: Arc<Config>,
    /// Every worker; they listen already and hold every client until they are told a topology.
    pub(crate) workers: Vec<WorkerHandle>,
    /// What the workers have to say.
    pub(crate) reports: mpsc::Receiver<Report>,
    /// Listening, non-blocking: metrics, health and status.
    pub(crate) http: Option<TcpListener>,
    /// Listening, non-blocking: Patroni's callbacks.
    pub(crate) callbacks: Option<TcpListener>,
    /// See [`Startup::reload`].
    pub(crate) reload: Option<Reload>,
    /// What the workers' handshakes go by.
    pub(crate) tls: Arc<TlsBundle>,
    /// What was taken over; the older process stops when it hears of it.
    pub(crate) inheritance: Option<Inheritance>,
    /// Files of the Unix sockets.
    pub(crate) files: Vec<SocketFile>,
}

/// Runs weir until control says that it is enough: after SIGTERM or SHUTDOWN, when every client is gone or time is
/// up. Blocks the calling thread, which becomes the control thread.
///
/// # Errors
/// When weir cannot start: an address in use, a certificate that cannot be used.
pub fn run(startup: Startup) -> Result<(), RunError> {
    end_on_panic();
    let machine = |config: Arc<Config>, index| {
        let topology = Arc::new(first_topology(&config));
        Worker::new(config, topology, Box::new(SystemEntropy::new()), index)
    };
    run_with(startup, machine, control::run)
}

/// A panic in a task is otherwise caught by the runtime, and a worker would go on with a machine that stopped
/// half-way through a thought. Ending is loud, and a supervisor starts weir anew.
fn end_on_panic() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        tracing::error!("weir ends because of an internal error: {info}");
        process::abort();
    }));
}

/// What workers know before control has told them anything.
fn first_topology(config: &Config) -> Topology {
    match &config.upstream {
        Upstream::Plain { host, port } => Topology::plain(Address { host: host.clone(), port: *port }),
        Upstream::None => Topology::nobody(),
        Upstream::Patroni(patroni) => Topology {
            generation: 0,
            leader: Leadership::Leaderless { why: "no member has answered yet".to_owned() },
            replicas: Vec::new(),
            fallback: match patroni.read_fallback {
                weir_config::ReadFallback::Primary => ReadFallback::Primary,
                weir_config::ReadFallback::Wait => ReadFallback::Wait,
                weir_config::ReadFallback::Error => ReadFallback::Error,
            },
            silent: Vec::new(),
            is_standby_cluster: false,
            failover: 0,
            given_up: None,
            planned: None,
            members: Vec::new(),
        },
    }
}

/// Starts the workers with the machines that `machine` makes and leaves the thread to `control`; ends them when that
/// returns.
fn run_with<M: Machine>(
    startup: Startup,
    machine: impl Fn(Arc<Config>, u16) -> M + Clone + Send + 'static,
    control: impl FnOnce(ControlSetup) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let Startup { config, reload, take_over } = startup;
    let tls = Arc::new(TlsBundle::load(&config)?);
    let config = Arc::new(config);
    let workers_wanted = u16::try_from(config.workers.get()).unwrap_or(u16::MAX);
    let mut inheritance = if take_over { ask_for_doors(&config.listen)? } else { None };
    let http =
        config.listen.http.map(|address| listen_for_http(address, inheritance.as_mut())).transpose()?;
    let callbacks = match &config.upstream {
        Upstream::Patroni(patroni) => patroni.callback.listen.map(listen_for_callbacks).transpose()?,
        Upstream::Plain { .. } | Upstream::None => None,
    };
    let Doors { doors, files } = Doors::open(&config.listen, &config.tcp, inheritance.as_mut())?;
    let mut doors = Some(doors);
    let (reports_in, reports) = mpsc::channel(REPORTS_WAITING_MAX);
    let mut workers = Vec::new();
    let mut threads = Vec::new();
    for index in 0..workers_wanted {
        let (handle, inbox) = WorkerHandle::new(index);
        // The kernel gives each client to one of them.
        let doors = match &doors {
            _ if index + 1 == workers_wanted => doors.take().unwrap_or_default(),
            Some(doors) => doors.iter().map(Door::try_clone).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        let setup = WorkerSetup {
            index,
            doors,
            inbox,
            reports: reports_in.clone(),
            tls: Arc::clone(&tls),
            tcp: config.tcp.clone(),
            dns: config.dns.clone(),
        };
        let machine = machine.clone();
        let config = Arc::clone(&config);
        let thread = thread::spawn(setup, move || machine(config, index))
            .map_err(|source| RunError::Start { what: "a worker thread", source })?;
        workers.push(handle);
        threads.push(thread);
    }
    let workers_too = workers.clone();
    let setup = ControlSetup {
        config,
        workers: workers_too,
        reports,
        http,
        callbacks,
        reload,
        tls,
        inheritance,
        files,
    };
    let outcome = control(setup);
    workers.iter().for_each(WorkerHandle::stop);
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker thread ended with a panic");
        }
    }
    outcome
}

fn listen_for_http(
    address: SocketAddr,
    inherited: Option<&mut Inheritance>,
) -> Result<TcpListener, RunError> {
    let listen = || {
        let listener = match inherited.and_then(|inherited| inherited.take_tcp(address)) {
            Some(listener) => listener,
            None => TcpListener::bind(address)?,
        };
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| RunError::Listen { address: address.to_string(), source })
}

fn listen_for_callbacks(address: SocketAddr) -> Result<TcpListener, RunError> {
    control::push::listen(address).map_err(|source| RunError::Listen { address: address.to_string(), source })
}

fn ask_for_doors(listen: &Listen) -> Result<Option<Inheritance>, RunError> {
    let Some(name) = takeover::name(listen) else {
        let source = io::Error::other(
            "the sockets are handed over in the directory for Unix sockets, and none is set",
        );
        return Err(RunError::TakeOver { source });
    };
    let inheritance = Inheritance::ask(&name).map_err(|source| RunError::TakeOver { source })?;
    if inheritance.is_none() {
        tracing::info!("no process runs that could hand its sockets over; starting as usual");
    }
    Ok(inheritance)
}
