//! Stand-ins for everything around the control thread. They say what a test tells them to say.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use weir_admin::snapshot::{Snapshot, UnfinishedRow};
use weir_config::{Config, FileContents, Files, Source};
use weir_protocol::backend::{self, Column};
use weir_protocol::frame;
use weir_protocol::message::Report as Error;
use weir_protocol::sqlstate::SqlState;
use weir_worker::{Asker, Order};

use crate::Reload;
use crate::control::follow;
use crate::control::state::Control;
use crate::handle::{ToWorker, WorkerHandle};
use crate::tls::TlsBundle;

/// What is in the only file that tests configure.
pub(super) const PASSWORD: &str = "monitor's password";

struct OneFile;

impl Files for OneFile {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        let bytes = format!("{PASSWORD}\n").into_bytes();
        let is_it = path == Path::new("monitor.password");
        is_it
            .then(|| FileContents { bytes: bytes.into(), access: weir_config::Access::PRIVATE })
            .ok_or("no such file".to_owned())
    }
}

/// A checked configuration with this text in front of what every one needs.
pub(super) fn config(text: &str) -> Config {
    let text = format!("{text}\n[auth]\ntype = \"trust\"\n");
    let source = Source { path: Path::new("test.toml"), text: &text, access: weir_config::Access::PRIVATE };
    weir_config::load(Some(source), &[], &OneFile).unwrap().config
}

pub(super) fn plain() -> Config {
    config("[upstream]\nurl = \"postgres://127.0.0.1:5432\"")
}

pub(super) fn patroni(seed: SocketAddr) -> Config {
    let text =
        format!("[patroni]\nurls = [\"http://{seed}\"]\nmonitor_user = \"monitor\"\npoll_timeout = \"1s\"");
    config(&text)
}

/// A worker that writes down its orders and tells what the test has put into its snapshot.
pub(super) struct Worker {
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) snapshot: Rc<RefCell<Snapshot>>,
    /// Who is in a transaction, and what has become of whoever gave a command.
    pub(super) unfinished: Rc<RefCell<(Vec<UnfinishedRow>, Asker)>>,
    /// How often that was asked.
    pub(super) looks: Rc<Cell<u32>>,
}

/// A control thread's state with one worker, following if there is something to follow.
pub(super) fn control(config: Config, reload: Option<Reload>) -> (Rc<Control>, Worker) {
    let (handle, mut inbox) = WorkerHandle::new(0);
    let (told, orders) = mpsc::unbounded_channel();
    let snapshot = Rc::new(RefCell::new(Snapshot::default()));
    let shown = Rc::clone(&snapshot);
    let unfinished = Rc::new(RefCell::new((Vec::new(), Asker::Waits)));
    let open = Rc::clone(&unfinished);
    let looks: Rc<Cell<u32>> = Rc::default();
    let counted = Rc::clone(&looks);
    spawn_local(async move {
        while let Some(word) = inbox.recv().await {
            match word {
                ToWorker::Order(order) => drop(told.send(order)),
                ToWorker::Snapshot(answer) => drop(answer.send(shown.borrow().clone())),
                ToWorker::Unfinished(asker, answer) => {
                    counted.set(counted.get() + 1);
                    let (rows, fate) = open.borrow().clone();
                    drop(answer.send((rows, asker.map(|_| fate))));
                }
                ToWorker::Tls(_) | ToWorker::Doors(_) => {}
                ToWorker::Stop => return,
            }
        }
    });
    let tls = Arc::new(TlsBundle::load(&config).unwrap());
    let (control, events) = Control::new(Arc::new(config), vec![handle], reload, tls);
    spawn_local(follow::follow(Rc::clone(&control), events));
    (control, Worker { orders, snapshot, unfinished, looks })
}

/// A REST API that answers every request with `answer(path)`, raw bytes, and closes as Patroni does.
pub(super) async fn rest(answer: impl Fn(&str) -> Vec<u8> + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = Rc::clone(&answer);
            spawn_local(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap();
                stream.write_all(&answer(path)).await.ok();
            });
        }
    });
    address
}

/// A REST API that takes requests and answers none; `asked` says when `/primary` was wanted.
pub(super) async fn silent_rest(asked: Rc<RefCell<Vec<Instant>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = Rc::clone(&asked);
            spawn_local(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.unwrap_or(0) != 0 {
                    if request.ends_with(b"\r\n\r\n") && request.starts_with(b"GET /primary ") {
                        asked.borrow_mut().push(Instant::now());
                    }
                }
            });
        }
    });
    address
}

/// Patroni's kind of answer: HTTP/1.0, neither Content-Length nor keep-alive.
pub(super) fn http(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.0 {status} X\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n\r\n{body}")
        .into_bytes()
}

/// A PostgreSQL that lets everybody in and knows its role. Clones share it.
#[derive(Clone)]
pub(super) struct Postgres {
    pub(super) address: SocketAddr,
    pub(super) in_hot_standby: Rc<Cell<bool>>,
    pub(super) mood: Rc<RefCell<Mood>>,
    /// Connections let in.
    pub(super) logins: Rc<Cell<u32>>,
    /// The startup packet that came last.
    pub(super) startup: Rc<RefCell<Vec<u8>>>,
    /// Bumped to make every connection end with FATAL.
    ending: Rc<tokio::sync::Notify>,
}

/// How a PostgreSQL meets a new connection.
pub(super) enum Mood {
    Friendly,
    /// FATAL with this code instead of a login.
    Refusing(SqlState),
    /// Says nothing at all.
    Frozen,
    /// A login to who knows this password.
    Asking(&'static str),
}

impl Postgres {
    pub(super) async fn start(in_hot_standby: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            in_hot_standby: Rc::new(Cell::new(in_hot_standby)),
            mood: Rc::new(RefCell::new(Mood::Friendly)),
            logins: Rc::default(),
            startup: Rc::default(),
            ending: Rc::default(),
        };
        let accepting = server.clone();
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = accepting.clone();
                spawn_local(async move {
                    let ending = Rc::clone(&server.ending);
                    tokio::select! {
                        () = server.serve(stream) => {}
                        () = ending.notified() => {}
                    }
                });
            }
        });
        server
    }

    /// Ends all connections as a crash does.
    pub(super) fn drop_connections(&self) {
        self.ending.notify_waiters();
    }

    async fn serve(&self, mut stream: TcpStream) {
        let Some(startup) = startup(&mut stream).await else { return };
        assert!(!startup.is_empty());
        *self.startup.borrow_mut() = startup;
        let mut out = Vec::new();
        let wanted = match &*self.mood.borrow() {
            Mood::Asking(password) => Some(format!("{password}\0")),
            Mood::Friendly | Mood::Refusing(_) | Mood::Frozen => None,
        };
        if let Some(wanted) = wanted {
            stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.ok();
            if message(&mut stream).await != Some((b'p', wanted.into_bytes())) {
                return;
            }
        }
        let refusal = match &*self.mood.borrow() {
            Mood::Friendly | Mood::Asking(_) => None,
            Mood::Refusing(code) => Some(Some(*code)),
            Mood::Frozen => Some(None),
        };
        match refusal {
            None => {}
            Some(Some(code)) => {
                backend::error(&Error::fatal(code, "not now"), &mut out);
                stream.write_all(&out).await.ok();
                return;
            }
            Some(None) => std::future::pending().await,
        }
        self.logins.set(self.logins.get() + 1);
        let mut told = self.in_hot_standby.get();
        backend::authentication_ok(&mut out);
        backend::parameter_status(b"server_version", b"17.0", &mut out);
        backend::parameter_status(b"in_hot_standby", on_off(told), &mut out);
        backend::backend_key_data(7, &[1, 2, 3, 4], &mut out);
        backend::ready_for_query(b'I', &mut out);
        stream.write_all(&out).await.ok();
        while let Some((tag, body)) = message(&mut stream).await {
            if tag != b'Q' {
                return;
            }
            let mut out = Vec::new();
            if body == [0] {
                backend::empty_query_response(&mut out);
            } else {
                backend::row_description(&[Column::text("t"), Column::text("s")], &mut out);
                backend::data_row(&[Some(b"00000005"), Some(b"7710409261021857494")], &mut out);
                backend::command_complete("SELECT 1", &mut out);
            }
            let now = self.in_hot_standby.get();
            if now != told {
                told = now;
                backend::parameter_status(b"in_hot_standby", on_off(told), &mut out);
            }
            backend::ready_for_query(b'I', &mut out);
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

fn on_off(on: bool) -> &'static [u8] {
    if on { b"on" } else { b"off" }
}

/// The startup packet, after saying no to TLS.
async fn startup(stream: &mut TcpStream) -> Option<Vec<u8>> {
    loop {
        let length = stream.read_u32().await.ok()?;
        let mut packet = vec![0; length as usize - 4];
        stream.read_exact(&mut packet).await.ok()?;
        if packet.len() != 4 {
            return Some(packet);
        }
        stream.write_all(b"N").await.ok()?;
    }
}

async fn message(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut header).await.ok()?;
    let total = frame::peek(&header, 1024).ok()??.total;
    let mut body = vec![0; total - frame::HEADER_BYTES];
    stream.read_exact(&mut body).await.ok()?;
    Some((header[0], body))
}
