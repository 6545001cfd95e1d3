//! The records of one TLS connection: bytes in, bytes out. Knows no socket, so that plain and encrypted connections
//! are read and written by the same code.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, HandshakeKind, ServerConnection};

use super::clients::TowardsClients;
use super::gate::Gate;
use super::{certificate, end_point, verify};
use weir_worker::Encrypted;

/// One connection's TLS state, either side.
#[derive(Debug)]
pub(crate) struct TlsStream {
    records: Connection,
    /// With a client: what the handshake goes by.
    towards_client: Option<Arc<TowardsClients>>,
}

/// What a piece of ciphertext did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// More may come.
    Open,
    /// The peer said in the protocol that nothing more will come.
    Closed,
}

/// TLS with this peer is over. Its text is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokenTls(String);

impl TlsStream {
    /// The server's side.
    pub(super) fn accept(towards_client: Arc<TowardsClients>) -> Result<Self, BrokenTls> {
        let connection =
            ServerConnection::new(Arc::clone(&towards_client.config)).map_err(BrokenTls::from)?;
        Ok(Self::unbounded(Connection::Server(connection), Some(towards_client)))
    }

    /// The client's side; the first flight waits in [`TlsStream::take_records`].
    pub(super) fn connect(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, BrokenTls> {
        let connection = ClientConnection::new(config, name).map_err(BrokenTls::from)?;
        Ok(Self::unbounded(Connection::Client(connection), None))
    }

    /// Whoever calls [`TlsStream::encrypt`] takes the records at once, so rustls needs no bound of its own, and with
    /// one it would take less than it was given.
    fn unbounded(mut records: Connection, towards_client: Option<Arc<TowardsClients>>) -> Self {
        records.set_buffer_limit(None);
        Self { records, towards_client }
    }

    /// Takes in what was read from the socket and appends what it says to `plain`. Replies (handshake, alerts) wait
    /// in [`TlsStream::take_records`], also after an error.
    pub(crate) fn decrypt(&mut self, mut cipher: &[u8], plain: &mut Vec<u8>) -> Result<Received, BrokenTls> {
        let mut state = Received::Open;
        while !cipher.is_empty() && state == Received::Open {
            self.records.read_tls(&mut cipher).map_err(|error| BrokenTls::new(&error.to_string()))?;
            let was_handshaking = self.records.is_handshaking();
            let progress = self.records.process_new_packets().map_err(|error| self.broken(error))?;
            if was_handshaking && !self.records.is_handshaking() {
                self.look_again()?;
            }
            if progress.peer_has_closed() {
                state = Received::Closed;
            }
            self.drain_plaintext(progress.plaintext_bytes_to_read(), plain)?;
        }
        Ok(state)
    }

    /// Encrypts `plain` and appends the records, after any that were waiting.
    pub(crate) fn encrypt(&mut self, plain: &[u8], cipher: &mut Vec<u8>) {
        let written = self.records.writer().write_all(plain);
        debug_assert!(written.is_ok(), "without a buffer limit rustls takes everything");
        self.take_records(cipher);
    }

    /// Appends the records that wait to be sent.
    pub(crate) fn take_records(&mut self, cipher: &mut Vec<u8>) {
        while self.records.wants_write() {
            match self.records.write_tls(cipher) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Says in the protocol that nothing more will be sent.
    pub(crate) fn close(&mut self, cipher: &mut Vec<u8>) {
        self.records.send_close_notify();
        self.take_records(cipher);
    }

    /// True until both sides have finished the handshake.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.records.is_handshaking()
    }

    /// Version and cipher suite in the console's notation, such as `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub(crate) fn description(&self) -> String {
        // rustls spells it TLSv1_3.
        let version = self.records.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
        let version = version.replace('_', ".");
        let suite =
            self.records.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
        format!("{version}/{}", suite.replace("TLS13_", "TLS_"))
    }

    /// The group of the key exchange.
    #[cfg(test)]
    pub(super) fn group(&self) -> Option<rustls::NamedGroup> {
        self.records.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name)
    }

    /// Whether an older session went on.
    #[cfg(test)]
    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.records.handshake_kind()
    }

    /// `tls-server-end-point` of the peer's certificate.
    pub(crate) fn peer_end_point(&self) -> Option<Vec<u8>> {
        end_point::hash(self.records.peer_certificates()?.first()?)
    }

    /// The client goes on with an older session, in which it has shown a certificate.
    fn look_again(&self) -> Result<(), BrokenTls> {
        let resumed = self.records.handshake_kind() == Some(HandshakeKind::Resumed);
        match (self.gate(), self.records.peer_certificates()) {
            (Some(gate), Some(chain)) if resumed => {
                gate.look_again(chain).map_err(|error| self.broken(error))
            }
            (_, _) => Ok(()),
        }
    }

    /// With the words for whoever was turned away.
    fn broken(&self, error: rustls::Error) -> BrokenTls {
        self.gate().and_then(Gate::turned_away).map_or_else(|| error.into(), BrokenTls)
    }

    fn gate(&self) -> Option<&Gate> {
        self.towards_client.as_deref()?.gate.as_deref()
    }

    /// What a finished handshake with a client has shown.
    pub(crate) fn shown(&self) -> Encrypted {
        // Certificates that nobody vouches for do not get this far: they are not asked for, or the handshake fails.
        let certificate = self.records.peer_certificates().and_then(<[_]>::first);
        Encrypted {
            description: self.description(),
            end_point: self.own_end_point().map(<[u8]>::to_vec),
            common_name: certificate.and_then(|certificate| certificate::common_name(certificate)),
            names_protocol: self.records.alpn_protocol() == Some(super::ALPN),
        }
    }

    /// `tls-server-end-point` of the certificate that this side has shown as a server.
    fn own_end_point(&self) -> Option<&[u8]> {
        match &self.records {
            Connection::Server(connection) => self.towards_client.as_deref()?.end_point(connection),
            Connection::Client(_) => None,
        }
    }

    fn drain_plaintext(&mut self, length: usize, plain: &mut Vec<u8>) -> Result<(), BrokenTls> {
        if length == 0 {
            return Ok(());
        }
        let start = plain.len();
        plain.resize(start + length, 0);
        let into = plain.get_mut(start..).unwrap_or_default();
        self.records.reader().read_exact(into).map_err(|error| BrokenTls::new(&error.to_string()))
    }
}

impl BrokenTls {
    pub(super) fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl fmt::Display for BrokenTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<rustls::Error> for BrokenTls {
    fn from(error: rustls::Error) -> Self {
        Self(verify::told(&error))
    }
}

impl From<BrokenTls> for io::Error {
    fn from(error: BrokenTls) -> Self {
        Self::other(error.0)
    }
}
