//! A client that says exactly what a test tells it to, byte by byte, and shows every message that comes back.
//!
//! Every read has a deadline, so a missing answer is a failure and not a hang. Knows the message layout of the
//! protocol and SCRAM (by postgres-protocol, an implementation that weir does not use); holds no opinion on order.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_cluster::sql::Login;

/// Longest wait for a message unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Protocol 3.0.
pub const PROTOCOL_3_0: u32 = 3 << 16;
/// Protocol 3.2, with cancel keys of any length.
pub const PROTOCOL_3_2: u32 = (3 << 16) | 2;

/// One message from the other side.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type byte.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse, by its type byte.
    #[must_use]
    pub fn field(&self, kind: u8) -> Option<String> {
        let fields = self.body.split(|byte| *byte == 0);
        let text = fields.filter(|field| field.first() == Some(&kind)).find_map(|field| field.get(1..))?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// SQLSTATE of an ErrorResponse or NoticeResponse; empty for other messages.
    #[must_use]
    pub fn code(&self) -> String {
        if matches!(self.tag, b'E' | b'N') { self.field(b'C').unwrap_or_default() } else { String::new() }
    }

    /// The columns of a DataRow.
    ///
    /// # Errors
    /// It is another message or malformed.
    pub fn columns(&self) -> Result<Vec<Option<Vec<u8>>>> {
        ensure!(self.tag == b'D', "{self:?} is no row");
        let mut body = self.body.as_slice();
        let count = body.try_get_u16()?;
        (0..count).map(|_| column(&mut body)).collect()
    }

    /// The first column of a DataRow as text.
    ///
    /// # Errors
    /// It is another message, malformed or NULL.
    pub fn text(&self) -> Result<String> {
        let first = self.columns()?.into_iter().next().flatten().context("no text")?;
        Ok(String::from_utf8(first)?)
    }

    /// The body up to its first NUL, for a command tag.
    #[must_use]
    pub fn word(&self) -> String {
        String::from_utf8_lossy(self.body.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = char::from(self.tag);
        match self.tag {
            b'E' | b'N' => {
                let said = |kind| self.field(kind).unwrap_or_default();
                write!(f, "{tag}({} {}: {} {})", said(b'S'), said(b'C'), said(b'M'), said(b'D'))
            }
            b'C' => write!(f, "C({})", self.word()),
            b'Z' => write!(f, "Z({})", self.body.iter().map(|byte| char::from(*byte)).collect::<String>()),
            b'D' => write!(f, "D({})", self.text().unwrap_or_else(|_| "..".to_owned())),
            _ => write!(f, "{tag}[{}]", self.body.len()),
        }
    }
}

fn column(body: &mut &[u8]) -> Result<Option<Vec<u8>>> {
    let length = body.try_get_i32()?;
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (value, rest) = body.split_at_checked(length).context("a column ends early")?;
    *body = rest;
    Ok(Some(value.to_vec()))
}

/// The type bytes of some messages in order, as one word: `"TDCZ"`.
#[must_use]
pub fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| char::from(message.tag)).collect()
}

/// The first columns of all rows among some messages.
///
/// # Errors
/// A row holds a NULL or is malformed.
pub fn values(messages: &[Message]) -> Result<Vec<String>> {
    messages.iter().filter(|message| message.tag == b'D').map(Message::text).collect()
}

/// How a login ended.
#[derive(Debug)]
pub enum Outcome {
    /// With ReadyForQuery; the messages that are neither authentication, parameters nor key.
    Ready(Vec<Message>),
    /// With this ErrorResponse.
    Refused(Message),
}

/// A connection to weir (or to PostgreSQL) that is driven by hand.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    arrived: BytesMut,
    /// ParameterStatus messages of the login.
    pub parameters: Vec<(String, String)>,
    /// Process id and secret of BackendKeyData.
    pub key: Option<(u32, Vec<u8>)>,
    /// How long [`Wire::read`] and what is built on it wait for a message.
    pub patience: Duration,
}

impl Wire {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.context("connecting")??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, arrived: BytesMut::new(), parameters: Vec::new(), key: None, patience: PATIENCE })
    }

    /// Logs in with protocol 3.0 and reads up to ReadyForQuery.
    ///
    /// # Errors
    /// The login is refused.
    pub async fn login(address: SocketAddr, login: Login<'_>) -> Result<Self> {
        Self::login_with(address, login, PROTOCOL_3_0, &[]).await
    }

    /// Logs in with further startup parameters.
    ///
    /// # Errors
    /// The login is refused; the text holds the server's report.
    pub async fn login_with(
        address: SocketAddr,
        login: Login<'_>,
        version: u32,
        parameters: &[(&str, &str)],
    ) -> Result<Self> {
        let (wire, outcome) = Self::try_login(address, login, version, parameters).await?;
        match outcome {
            Outcome::Ready(_) => Ok(wire),
            Outcome::Refused(report) => bail!("refused: {report:?}"),
        }
    }

    /// Tries to log in.
    ///
    /// # Errors
    /// Neither ReadyForQuery nor an ErrorResponse ends the login.
    pub async fn try_login(
        address: SocketAddr,
        login: Login<'_>,
        version: u32,
        parameters: &[(&str, &str)],
    ) -> Result<(Self, Outcome)> {
        let mut wire = Self::connect(address).await?;
        let mut all = vec![("user", login.user), ("database", login.database)];
        all.extend_from_slice(parameters);
        wire.send(&startup(version, &all)).await?;
        let outcome = wire.prove(login.password).await?;
        Ok((wire, outcome))
    }

    /// Answers what the server asks until ReadyForQuery or a refusal.
    ///
    /// # Errors
    /// The server asks for something else than SCRAM, or neither comes.
    pub async fn prove(&mut self, password: &str) -> Result<Outcome> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut others = Vec::new();
        loop {
            let message = self.read().await?;
            match message.tag {
                b'R' => self.authenticate(&mut scram, &message.body).await?,
                b'S' => self.parameters.push(pair(&message.body)?),
                b'K' => {
                    let mut body = message.body.as_slice();
                    self.key = Some((body.try_get_u32()?, body.to_vec()));
                }
                b'Z' => return Ok(Outcome::Ready(others)),
                b'E' => return Ok(Outcome::Refused(message)),
                _ => others.push(message),
            }
        }
    }

    async fn authenticate(&mut self, scram: &mut ScramSha256, body: &[u8]) -> Result<()> {
        let mut rest = body;
        match rest.try_get_u32()? {
            AUTHENTICATION_OK => Ok(()),
            AUTHENTICATION_SASL => {
                let mut answer = BytesMut::new();
                postgres_protocol::message::frontend::sasl_initial_response(
                    SCRAM_SHA_256,
                    scram.message(),
                    &mut answer,
                )?;
                self.send(&answer).await
            }
            AUTHENTICATION_SASL_CONTINUE => {
                scram.update(rest)?;
                let answer = message(b'p', scram.message());
                self.send(&answer).await
            }
            AUTHENTICATION_SASL_FINAL => Ok(scram.finish(rest)?),
            other => bail!("authentication request {other} is not SCRAM"),
        }
    }

    /// A value that the login reported.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The other side is gone, or takes nothing for [`PATIENCE`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.context("the other side reads nothing")??;
        Ok(())
    }

    /// The next message, asynchronous ones included.
    ///
    /// # Errors
    /// Nothing comes within [`Wire::patience`], or the connection ends.
    pub async fn read(&mut self) -> Result<Message> {
        self.next(self.patience).await?.context("the connection was closed")
    }

    /// The next message; `None` when the connection ends instead.
    ///
    /// # Errors
    /// Neither comes within `patience`.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Message>> {
        timeout(patience, self.next_unbounded()).await.context("no answer in time")?
    }

    async fn next_unbounded(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = cut(&mut self.arrived)? {
                return Ok(Some(message));
            }
            match self.stream.read_buf(&mut self.arrived).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(reset) if reset.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// One bare byte, the answer to SSLRequest and GSSENCRequest.
    ///
    /// # Errors
    /// Nothing comes, or the connection ends.
    pub async fn byte(&mut self) -> Result<u8> {
        Ok(timeout(PATIENCE, self.stream.read_u8()).await.context("no answer in time")??)
    }

    /// All messages up to and with the next ReadyForQuery.
    ///
    /// # Errors
    /// It does not come.
    pub async fn until_ready(&mut self) -> Result<Vec<Message>> {
        self.until(b'Z').await
    }

    /// All messages up to and with the next one of this type.
    ///
    /// # Errors
    /// It does not come; the text names what came.
    pub async fn until(&mut self, tag: u8) -> Result<Vec<Message>> {
        let mut seen = Vec::new();
        loop {
            let message = self
                .read()
                .await
                .with_context(|| format!("waiting for {}, seen {seen:?}", char::from(tag)))?;
            seen.push(message);
            if seen.last().is_some_and(|last| last.tag == tag) {
                return Ok(seen);
            }
        }
    }

    /// Everything that comes until the other side closes.
    ///
    /// # Errors
    /// It does not close within [`Wire::patience`].
    pub async fn until_closed(&mut self) -> Result<Vec<Message>> {
        let mut seen = Vec::new();
        while let Some(message) =
            self.next(PATIENCE).await.with_context(|| format!("not closed, seen {seen:?}"))?
        {
            seen.push(message);
        }
        Ok(seen)
    }

    /// Checks that a query gets its own answer and nothing else but what may come unasked at any time.
    ///
    /// # Errors
    /// Something else came, or the connection is unusable.
    pub async fn expect_usable(&mut self) -> Result<()> {
        let mut answer = self.query("SELECT 'usable'").await?;
        answer.retain(|message| !matches!(message.tag, b'S' | b'N' | b'A'));
        ensure!(tags(&answer) == "TDCZ" && values(&answer)? == ["usable"], "not usable: {answer:?}");
        Ok(())
    }

    /// One simple query and its whole answer.
    ///
    /// # Errors
    /// The answer does not come.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Message>> {
        self.send(&query(sql)).await?;
        self.until_ready().await
    }

    /// Closes the socket so that the other side sees a reset instead of an orderly end.
    ///
    /// # Errors
    /// The socket refused.
    pub fn vanish(self) -> Result<()> {
        self.stream.set_zero_linger()?;
        Ok(())
    }

    /// Tells the other side that nothing more will be sent, and keeps reading.
    ///
    /// # Errors
    /// The socket refused.
    pub async fn half_close(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }
}

fn cut(arrived: &mut BytesMut) -> Result<Option<Message>> {
    let Some((&[tag, a, b, c, d], _)) = arrived.split_first_chunk::<5>() else { return Ok(None) };
    let declared = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
    ensure!((4..=MESSAGE_BYTES_MAX).contains(&declared), "message {tag:#x} declares {declared} bytes");
    if arrived.len() < declared + 1 {
        arrived.reserve(declared + 1 - arrived.len());
        return Ok(None);
    }
    let body = arrived.split_to(declared + 1).split_off(5).to_vec();
    Ok(Some(Message { tag, body }))
}

fn pair(body: &[u8]) -> Result<(String, String)> {
    let mut parts = body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
    parts.next().zip(parts.next()).context("a ParameterStatus ends early")
}

/// Any message: type byte, length, body.
#[must_use]
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&length_word(body.len() + 4));
    out.extend_from_slice(body);
    out
}

/// A packet without a type byte, as they open a connection.
#[must_use]
pub fn packet(body: &[u8]) -> Vec<u8> {
    let mut out = length_word(body.len() + 4).to_vec();
    out.extend_from_slice(body);
    out
}

/// A StartupMessage.
#[must_use]
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(&strings(&[name, value]));
    }
    body.push(0);
    packet(&body)
}

/// An SSLRequest.
#[must_use]
pub fn ssl_request() -> Vec<u8> {
    packet(&80_877_103_u32.to_be_bytes())
}

/// A GSSENCRequest.
#[must_use]
pub fn gss_request() -> Vec<u8> {
    packet(&80_877_104_u32.to_be_bytes())
}

/// A CancelRequest.
#[must_use]
pub fn cancel_request(pid: u32, secret: &[u8]) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend_from_slice(&pid.to_be_bytes());
    body.extend_from_slice(secret);
    packet(&body)
}

/// A Query.
#[must_use]
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &strings(&[sql]))
}

/// A Parse without parameter types.
#[must_use]
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut body = strings(&[name, sql]);
    body.extend_from_slice(&[0, 0]);
    message(b'P', &body)
}

/// A Bind with parameters and results as text.
#[must_use]
pub fn bind(portal: &str, statement: &str, values: &[&[u8]]) -> Vec<u8> {
    let mut body = strings(&[portal, statement]);
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(&u16::try_from(values.len()).unwrap_or(u16::MAX).to_be_bytes());
    for value in values {
        body.extend_from_slice(&length_word(value.len()));
        body.extend_from_slice(value);
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

/// A Describe (`b'S'` statement, `b'P'` portal).
#[must_use]
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[kind], strings(&[name]).as_slice()].concat())
}

/// A Close (`b'S'` statement, `b'P'` portal).
#[must_use]
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[kind], strings(&[name]).as_slice()].concat())
}

/// An Execute; 0 rows is all.
#[must_use]
pub fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    message(b'E', &[strings(&[portal]).as_slice(), &rows_max.to_be_bytes()].concat())
}

/// A Sync.
#[must_use]
pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

/// A Flush.
#[must_use]
pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// A Terminate.
#[must_use]
pub fn terminate() -> Vec<u8> {
    message(b'X', &[])
}

/// The length word of a message or a value.
#[must_use]
pub fn length_word(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Strings, each with its NUL.
#[must_use]
pub fn strings(parts: &[&str]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.bytes().chain([0])).collect()
}

const AUTHENTICATION_OK: u32 = 0;
const AUTHENTICATION_SASL: u32 = 10;
const AUTHENTICATION_SASL_CONTINUE: u32 = 11;
const AUTHENTICATION_SASL_FINAL: u32 = 12;
const MESSAGE_BYTES_MAX: usize = 256 << 20;
