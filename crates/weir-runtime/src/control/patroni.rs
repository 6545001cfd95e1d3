//! One call of a Patroni REST API: connect, ask at once, read a bounded answer, close. The whole has one deadline,
//! because a frozen host accepts connections and says nothing, and because a silent connection costs Patroni one of
//! its few threads. Does not read the answer's meaning.

use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use weir_discovery::{ANSWER_BYTES_MAX, Answer, ApiUrl, PollFailure};

use crate::resolver::Resolver;
use crate::tls::{TowardsPatroni, fault};

/// What is asked.
pub(super) enum Call<'a> {
    /// For what is at a path.
    Get(&'a str),
    /// To do something.
    Post {
        /// Where.
        path: &'a str,
        /// JSON.
        body: String,
        /// Who asks, as the header `Authorization` says it.
        authorization: Option<HeaderValue>,
    },
}

/// What it takes to get to a REST API.
pub(super) struct Way {
    /// Knows names.
    pub(super) resolver: Rc<Resolver>,
    /// For https.
    pub(super) tls: Option<TowardsPatroni>,
}

/// Asks.
///
/// # Errors
/// When there is no whole answer within `deadline`. [`PollFailure::Unreachable`] and [`PollFailure::Tls`] before the
/// question was sent; a refused client certificate may come later, but then nobody has heard the question either. What
/// breaks off in the middle is [`PollFailure::Broken`].
pub(super) async fn call(
    url: &ApiUrl,
    call: Call<'_>,
    way: &Way,
    deadline: Duration,
) -> Result<Answer, PollFailure> {
    timeout(deadline, reach(url, call, way)).await.unwrap_or(Err(PollFailure::TimedOut))
}

async fn reach(url: &ApiUrl, call: Call<'_>, way: &Way) -> Result<Answer, PollFailure> {
    // A host that is gone keeps nobody waiting for the whole of a long call.
    let connect = async {
        let in_time = timeout(CONNECT_TIME_MAX, connect(url, &way.resolver)).await;
        in_time.unwrap_or_else(|_| Err(PollFailure::Unreachable("no answer in time".to_owned())))
    };
    if !url.is_https() {
        return ask(connect.await?, url, call).await;
    }
    let no_authorities = || PollFailure::Tls("its URL is https, but there is no patroni.ca_file".to_owned());
    let tls = way.tls.as_ref().ok_or_else(no_authorities)?;
    let stream =
        tls.connect(connect.await?, url.host()).await.map_err(|why| PollFailure::Tls(why.to_string()))?;
    ask(stream, url, call).await
}

/// Tries a name's addresses in turn.
async fn connect(url: &ApiUrl, resolver: &Rc<Resolver>) -> Result<TcpStream, PollFailure> {
    let mut failure = PollFailure::Unreachable("its name has no address".to_owned());
    for address in resolver.addresses(url.host()).await.map_err(PollFailure::Unreachable)? {
        match TcpStream::connect((address, url.port())).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = unreachable(&error),
        }
    }
    Err(failure)
}

async fn ask<S>(stream: S, url: &ApiUrl, call: Call<'_>) -> Result<Answer, PollFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    // Ends when the answer is read or this function gives up: both drop what it serves.
    let connection = AbortOnDrop(spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::trace!("connection to a REST API: {error}");
        }
    }));
    let request = request(url, call).map_err(|error| PollFailure::Broken(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            PollFailure::Broken(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"))
        } else {
            broken(error.as_ref())
        }
    })?;
    drop(connection);
    Ok(Answer { status, body: body.to_bytes().to_vec() })
}

fn request(url: &ApiUrl, call: Call<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let builder = Request::builder()
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close");
    match call {
        Call::Get(path) => builder.method(Method::GET).uri(path).body(Full::default()),
        Call::Post { path, body, authorization } => {
            let mut builder = builder.method(Method::POST).uri(path).header(CONTENT_TYPE, "application/json");
            if let Some(authorization) = authorization {
                builder = builder.header(AUTHORIZATION, authorization);
            }
            builder.body(Full::new(Bytes::from(body)))
        }
    }
}

/// Short and without the address, which the reader knows: it becomes part of a sentence about the member.
fn unreachable(error: &io::Error) -> PollFailure {
    let why = if error.kind() == io::ErrorKind::ConnectionRefused {
        "connection refused".to_owned()
    } else {
        error.to_string()
    };
    PollFailure::Unreachable(why)
}

fn broken(error: &(dyn Error + 'static)) -> PollFailure {
    fault(error)
        .map_or_else(|| PollFailure::Broken(error.to_string()), |why| PollFailure::Tls(why.to_string()))
}

/// Polls have a shorter deadline as a whole.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest head of an answer; Patroni's has a few hundred bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// A task that must not outlive the request it serves.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
