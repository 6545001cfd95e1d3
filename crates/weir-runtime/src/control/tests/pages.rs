//! The HTTP listener as probes and browsers meet it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::fakes::{control, patroni, plain};
use super::on_control_thread;
use crate::control::state::Control;
use crate::control::{handover, http};

async fn serve(control: &Rc<Control>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(http::serve(Rc::clone(control), listener));
    address
}

/// Status and body.
async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: weir\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[test]
fn each_page_has_its_place() {
    on_control_thread(async {
        let (control, _worker) = control(plain(), None);
        let address = serve(&control).await;
        assert_eq!(ask(address, "GET", "/healthz").await, (200, "alive\n".to_owned()));
        assert_eq!(ask(address, "GET", "/readyz").await, (200, "ready\n".to_owned()));
        let (status, body) = ask(address, "GET", "/metrics").await;
        assert!(status == 200 && body.contains("weir_leader_known 1"), "{body}");
        let (status, body) = ask(address, "GET", "/").await;
        assert!(status == 200 && body.contains("127.0.0.1:5432"), "{body}");
        assert_eq!(ask(address, "GET", "/favicon.ico").await.0, 404);
        assert_eq!(ask(address, "POST", "/metrics").await.0, 405);
        assert_eq!(ask(address, "HEAD", "/healthz").await, (200, String::new()));
    });
}

#[test]
fn weir_is_ready_during_a_hold_and_not_during_a_drain() {
    on_control_thread(async {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (control, _worker) = control(patroni(nobody), None);
        let address = serve(&control).await;
        let (status, body) = ask(address, "GET", "/readyz").await;
        assert!(status == 200 && body.starts_with("ready, holding writes: "), "{body}");
        control.start_draining();
        let (status, body) = ask(address, "GET", "/readyz").await;
        assert_eq!((status, body.as_str()), (503, "weir is shutting down\n"));
    });
}

#[test]
fn nothing_is_held_where_nobody_is_followed() {
    on_control_thread(async {
        let mut config = plain();
        config.upstream = weir_config::Upstream::None;
        let (control, _worker) = control(config, None);
        let address = serve(&control).await;
        assert_eq!(ask(address, "GET", "/readyz").await, (200, "ready\n".to_owned()));
        let now = Instant::now();
        assert!(handover::serves(&control.topology(now)), "nothing has to be waited for");
    });
}

#[test]
fn slow_and_many_clients_keep_nobody_out() {
    on_control_thread(async {
        let (control, _worker) = control(plain(), None);
        let address = serve(&control).await;
        let mut silent = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /met").await.unwrap();
            silent.push(stream);
        }
        let began = Instant::now();
        assert_eq!(ask(address, "GET", "/healthz").await.0, 200);
        assert!(began.elapsed() < Duration::from_secs(12), "those who say nothing are cut off");
    });
}
