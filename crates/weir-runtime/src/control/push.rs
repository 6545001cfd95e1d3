//! The door for Patroni's callbacks: whoever knows the token makes discovery ask everybody at once. What a callback says
//! is not looked at, since anybody could say it: members are asked instead. A few connections at a time, one small
//! request each, all within a deadline.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use weir_auth::Secret;
use weir_config::{Config, Upstream};

use super::state::Control;

/// Opens the door. Another process may have the same address during an online restart; a callback that reaches the wrong
/// one of the two is only a hint that is lost.
///
/// # Errors
/// The address is not to be had.
pub(crate) fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves as long as weir runs.
pub(super) async fn serve(control: Rc<Control>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let control = Rc::clone(&control);
                spawn_local(async move {
                    if timeout(CONNECTION_TIME_MAX, converse(control, stream, peer)).await.is_err() {
                        tracing::debug!(%peer, "a callback was too slow");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely; they come back when others close.
                tracing::warn!("cannot accept a callback: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(control: Rc<Control>, stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(move |request| {
        let answer = answer(&control, &request, peer);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%peer, "callback: {error}");
    }
}

fn answer(control: &Control, request: &Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET and POST are the same here\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return refusal;
    }
    match (shown_token(request), token(&control.config())) {
        (None, _) => {
            let mut refusal = text(StatusCode::UNAUTHORIZED, "say Authorization: Bearer and the token\n");
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refusal
        }
        // Secrets are compared in constant time.
        (Some(shown), Some(own)) if shown == *own => {
            control.pushed();
            text(StatusCode::ACCEPTED, "all members are asked\n")
        }
        (Some(_), _) => {
            tracing::debug!(%peer, "a callback with a wrong token");
            text(StatusCode::FORBIDDEN, "wrong token\n")
        }
    }
}

/// RFC 6750, section 2.1.
fn shown_token(request: &Request<Incoming>) -> Option<Secret> {
    let words = request.headers().get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = words.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| Secret::from(token))
}

fn token(config: &Config) -> Option<&Secret> {
    match &config.upstream {
        Upstream::Patroni(patroni) => patroni.callback.token.as_ref(),
        Upstream::Plain { .. } | Upstream::None => None,
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}

const SCHEME: &[u8] = b"Bearer ";

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4;

const BACKLOG: i32 = 16;

/// From accept to the last byte of the answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest request head; hyper takes no smaller limit.
const REQUEST_BYTES_MAX: usize = 8192;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
