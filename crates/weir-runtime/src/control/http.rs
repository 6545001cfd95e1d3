//! The HTTP listener: metrics, health, readiness, status. A few connections at a time, one request each, all within
//! a deadline: nobody who is slow here costs anything.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use weir_admin::metrics;

use super::state::{Control, now};
use super::{page, view};

/// Serves as long as weir runs.
pub(super) async fn serve(control: Rc<Control>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = Rc::clone(&control);
                spawn_local(async move {
                    if timeout(CONNECTION_TIME_MAX, converse(control, stream)).await.is_err() {
                        tracing::debug!("an HTTP client was too slow");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely; they come back when others close.
                tracing::warn!("cannot accept an HTTP connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(control: Rc<Control>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let control = Rc::clone(&control);
        async move { Ok::<_, Infallible>(answer(&control, &request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("HTTP connection: {error}");
    }
}

async fn answer(control: &Control, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned());
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let snapshot = control.snapshot().await;
            let body = view::metrics(control, &snapshot, &control.topology(now()));
            page(StatusCode::OK, metrics::CONTENT_TYPE, body)
        }
        "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => {
            let (ready, body) = page::ready(&control.topology(now()), control.is_draining());
            text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
        }
        "/" => {
            let status = page::status(&control.topology(now()), view::VERSION, view::uptime(control));
            text(StatusCode::OK, status)
        }
        _ => text(StatusCode::NOT_FOUND, "see / /metrics /healthz /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", body)
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;

/// From accept to the last byte of the answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest request head.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
