//! Opening a connection to PostgreSQL: name, TCP or Unix socket, SSLRequest, handshake. Knows no messages behind that.
//! The machine's deadlines decide; the bounds here only keep a forgotten dial from living for ever.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use weir_config::TlsMode;
use weir_discovery::Address;

use crate::socket::Socket;
use crate::tls::{Received, TlsBundle, TlsStream};
use weir_worker::DialError;

/// An open connection on which nothing of the PostgreSQL protocol but SSLRequest has been said.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Box<TlsStream>>,
}

/// Opens a connection. Dropping the future gives up at once.
pub(crate) async fn dial(address: &Address, tls: &TlsBundle) -> Result<Link, DialError> {
    if address.host.starts_with('/') {
        return dial_unix(address).await;
    }
    let attempt = async {
        let stream = connect(address).await?;
        match tls.server_mode() {
            TlsMode::Disable | TlsMode::Allow => Ok(Link { socket: Socket::Tcp(stream), tls: None }),
            TlsMode::Prefer => negotiate(stream, address, tls, true).await,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                negotiate(stream, address, tls, false).await
            }
        }
    };
    timeout(DIAL_TIME_MAX, attempt).await.unwrap_or(Err(DialError::TimedOut))
}

/// libpq uses no TLS on Unix sockets either, whatever the mode.
async fn dial_unix(address: &Address) -> Result<Link, DialError> {
    let path = Path::new(&address.host).join(format!(".s.PGSQL.{}", address.port));
    let stream = UnixStream::connect(&path)
        .await
        .map_err(|error| DialError::Refused(format!("could not connect to {}: {error}", path.display())))?;
    Ok(Link { socket: Socket::Unix(stream), tls: None })
}

/// Tries every address of the host until one accepts.
async fn connect(address: &Address) -> Result<TcpStream, DialError> {
    let candidates = resolve(address).await?;
    let patience = if candidates.len() > 1 { ONE_OF_MANY_TIME_MAX } else { DIAL_TIME_MAX };
    let mut last = DialError::NoAddress(format!("host \"{}\" has no address", address.host));
    for candidate in candidates {
        last = match timeout(patience, connect_to(candidate)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => DialError::Refused(format!("could not connect to {address}: {error}")),
            Err(_) => DialError::TimedOut,
        };
    }
    Err(last)
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let found = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|error| DialError::NoAddress(format!("host \"{}\": {error}", address.host)))?;
    Ok(found.take(ADDRESSES_MAX).collect())
}

async fn connect_to(candidate: SocketAddr) -> io::Result<TcpStream> {
    let socket = if candidate.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    prepare(&SockRef::from(&socket))?;
    socket.connect(candidate).await
}

/// Options of every TCP connection that weir holds. Set on a listening socket they are inherited by what it accepts.
///
/// `TCP_USER_TIMEOUT` is not among them: Linux counts it against a peer that acknowledges but does not read as well,
/// so with ten seconds a client that pauses in a large result, or a COPY that waits for a lock, is cut off.
///
/// # Errors
/// When the system refuses one.
pub(crate) fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// SSLRequest and, if the server agrees, the handshake.
async fn negotiate(
    mut stream: TcpStream,
    address: &Address,
    tls: &TlsBundle,
    plain_will_do: bool,
) -> Result<Link, DialError> {
    let mut request = Vec::new();
    weir_protocol::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|error| lost(address, &error))?;
    let answer = stream.read_u8().await.map_err(|error| lost(address, &error))?;
    match answer {
        b'S' => {}
        b'N' if plain_will_do => {
            refuse_extra_bytes(&stream, address)?;
            return Ok(Link { socket: Socket::Tcp(stream), tls: None });
        }
        b'N' => return Err(DialError::Tls(format!("{address} does not offer TLS"))),
        _ => return Err(DialError::Tls(format!("{address} answered SSLRequest with byte {answer:#04x}"))),
    }
    refuse_extra_bytes(&stream, address)?;
    let peer = stream.peer_addr().map_err(|error| lost(address, &error))?;
    let session = tls.connect(&address.host, peer.ip()).map_err(|why| DialError::Tls(why.to_string()))?;
    let session = handshake(&mut stream, Box::new(session), address).await?;
    Ok(Link { socket: Socket::Tcp(stream), tls: Some(session) })
}

/// What somebody slipped in before the handshake must not count as said after it (CVE-2021-23222).
fn refuse_extra_bytes(stream: &TcpStream, address: &Address) -> Result<(), DialError> {
    let mut extra = [0; 1];
    match stream.try_read(&mut extra) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Ok(0) | Err(_) => {
            Err(DialError::Refused(format!("{address} closed the connection after SSLRequest")))
        }
        Ok(_) => {
            Err(DialError::Tls(format!("{address} sent unencrypted bytes after its answer to SSLRequest")))
        }
    }
}

async fn handshake(
    stream: &mut TcpStream,
    mut session: Box<TlsStream>,
    address: &Address,
) -> Result<Box<TlsStream>, DialError> {
    let mut records = Vec::new();
    let mut plain = Vec::new();
    let mut buffer = vec![0; HANDSHAKE_BUFFER_BYTES];
    loop {
        records.clear();
        session.take_records(&mut records);
        stream.write_all(&records).await.map_err(|error| lost(address, &error))?;
        if !session.is_handshaking() {
            break;
        }
        let length = stream.read(&mut buffer).await.map_err(|error| lost(address, &error))?;
        if length == 0 {
            return Err(DialError::Tls(format!("{address} closed the connection during the TLS handshake")));
        }
        let result = session.decrypt(buffer.get(..length).unwrap_or_default(), &mut plain);
        if let Err(why) = result {
            say_goodbye(stream, &mut session).await;
            return Err(DialError::Tls(format!("TLS with {address}: {why}")));
        }
        if result == Ok(Received::Closed) || !plain.is_empty() {
            return Err(DialError::Tls(format!("{address} spoke before it was asked")));
        }
    }
    Ok(session)
}

/// Lets the server log why: the alert is all it gets to know.
async fn say_goodbye(stream: &mut TcpStream, session: &mut TlsStream) {
    let mut alert = Vec::new();
    session.take_records(&mut alert);
    if let Err(error) = stream.write_all(&alert).await {
        tracing::debug!("the TLS alert could not be sent: {error}");
    }
}

fn lost(address: &Address, error: &io::Error) -> DialError {
    DialError::Refused(format!("connection to {address} was lost: {error}"))
}

/// The machine aborts a dial that takes longer than `server_connect_timeout`; nobody waits longer than this.
const DIAL_TIME_MAX: Duration = Duration::from_secs(120);

/// With several addresses, a silent one may not use up the time of the others.
const ONE_OF_MANY_TIME_MAX: Duration = Duration::from_secs(3);

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;

/// More than one TLS record, so that a usual handshake takes one read per flight.
const HANDSHAKE_BUFFER_BYTES: usize = 20 * 1024;

const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
