//! Opening a connection to PostgreSQL: name, TCP or Unix socket, SSLRequest, handshake. Knows no messages behind that.
//! The machine's deadlines decide; the bounds here only keep a forgotten dial from living for ever.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket as RawSocket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use weir_config::{Tcp, TlsMode};
use weir_discovery::Address;

use crate::resolver::Resolver;
use crate::socket::Socket;
use crate::tls::{Received, TlsBundle, TlsStream, TowardsServers};
use crate::{tcp, unix_socket};
use weir_worker::{DialError, Encryption};

/// An open connection on which nothing of the PostgreSQL protocol but SSLRequest has been said.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Box<TlsStream>>,
}

/// What a dial needs beside the address.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) tls: Arc<TlsBundle>,
    pub(crate) encryption: Encryption,
    pub(crate) tcp: Tcp,
    pub(crate) resolver: Rc<Resolver>,
}

/// Opens a connection, to this address of the host if one is given. Dropping the future gives up at once.
pub(crate) async fn dial(
    address: &Address,
    remote: Option<IpAddr>,
    dialer: &Dialer,
) -> Result<Link, DialError> {
    if unix_socket::is_place(&address.host) {
        return dial_unix(address).await;
    }
    let Encryption { of, is_needed } = &dialer.encryption;
    let tls = dialer.tls.towards_servers(of.as_deref());
    let attempt = async {
        let stream = connect(address, remote, dialer).await?;
        match tls.mode() {
            TlsMode::Disable => Ok(Link { socket: Socket::Tcp(stream), tls: None }),
            TlsMode::Allow if !is_needed => Ok(Link { socket: Socket::Tcp(stream), tls: None }),
            TlsMode::Prefer if !is_needed => negotiate(stream, address, tls, true).await,
            TlsMode::Allow | TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => {
                negotiate(stream, address, tls, false).await
            }
        }
    };
    timeout(DIAL_TIME_MAX, attempt).await.unwrap_or(Err(DialError::TimedOut))
}

/// libpq uses no TLS on Unix sockets either, whatever the mode.
async fn dial_unix(address: &Address) -> Result<Link, DialError> {
    let name = unix_socket::name(&address.host, address.port);
    let refused = |error| DialError::Refused(format!("could not connect to {name}: {error}"));
    let stream = match name.strip_prefix('@') {
        // An abstract socket has no queue to wait in that tokio could wait for: it takes the connection at once or not.
        Some(_) => connect_abstract(&name).map_err(refused)?,
        None => UnixStream::connect(&name).await.map_err(refused)?,
    };
    Ok(Link { socket: Socket::Unix(stream), tls: None })
}

fn connect_abstract(name: &str) -> io::Result<UnixStream> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&unix_socket::address(name)?)?;
    UnixStream::from_std(socket.into())
}

/// Tries every address of the host until one accepts, or only the one that is given.
async fn connect(address: &Address, remote: Option<IpAddr>, dialer: &Dialer) -> Result<TcpStream, DialError> {
    let no_address = |why| DialError::NoAddress(format!("host \"{}\": {why}", address.host));
    let candidates = match remote {
        Some(remote) => vec![remote],
        None => dialer.resolver.addresses(&address.host).await.map_err(no_address)?,
    };
    let patience = if candidates.len() > 1 { ONE_OF_MANY_TIME_MAX } else { DIAL_TIME_MAX };
    let mut last = DialError::NoAddress(format!("host \"{}\" has no address", address.host));
    for candidate in candidates {
        let candidate = SocketAddr::new(candidate, address.port);
        last = match timeout(patience, connect_to(candidate, &dialer.tcp)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => DialError::Refused(format!("could not connect to {address}: {error}")),
            Err(_) => DialError::TimedOut,
        };
    }
    Err(last)
}

async fn connect_to(candidate: SocketAddr, tcp: &Tcp) -> io::Result<TcpStream> {
    let socket = if candidate.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    tcp::set(&SockRef::from(&socket), tcp)?;
    socket.connect(candidate).await
}

/// SSLRequest and, if the server agrees, the handshake.
async fn negotiate(
    mut stream: TcpStream,
    address: &Address,
    tls: &TowardsServers,
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
            return Err(DialError::Untrusted(format!("TLS with {address}: {why}")));
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

/// More than one TLS record, so that a usual handshake takes one read per flight.
const HANDSHAKE_BUFFER_BYTES: usize = 20 * 1024;
