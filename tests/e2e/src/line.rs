//! A connection that costs little, with or without TLS: bytes out, whole messages in. Knows no login.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wire;

/// An open connection.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    arrived: Vec<u8>,
}

/// Trust in the authority of this file, and a full handshake in every connection.
///
/// # Errors
/// The file cannot be read.
pub fn trusting(authority: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).context("reading the authority")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

impl Line {
    /// Connects, and with `tls` has the connection encrypted.
    ///
    /// # Errors
    /// Nobody listens, or there is no TLS.
    pub async fn open(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let mut line = Self { stream, tls: None, arrived: Vec::new() };
        if let Some(config) = tls {
            line.stream.write_all(&wire::ssl_request()).await?;
            ensure!(line.stream.read_u8().await? == b'S', "no TLS");
            let name = ServerName::try_from("localhost")?;
            line.tls = Some(Box::new(ClientConnection::new(config, name)?));
            line.shake_hands().await?;
        }
        Ok(line)
    }

    /// Differs between connections that are open at the same time.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.stream.local_addr().map_or(0, |address| address.port())
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.stream.write_all(bytes).await?,
        }
        self.flush().await
    }

    /// The next message: its tag and its body.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some(&[tag, a, b, c, d]) = self.arrived.first_chunk() {
                let end = u32::from_be_bytes([a, b, c, d]) as usize + 1;
                if self.arrived.len() >= end {
                    let message: Vec<u8> = self.arrived.drain(..end).collect();
                    return Ok((tag, message.get(5..).unwrap_or_default().to_vec()));
                }
            }
            self.receive().await?;
        }
    }

    async fn shake_hands(&mut self) -> Result<()> {
        self.flush().await?;
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            self.receive().await?;
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        Ok(self.stream.write_all(&out).await?)
    }

    async fn receive(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        let count = self.stream.read(&mut chunk).await?;
        let mut bytes = chunk.get(..count).unwrap_or_default();
        ensure!(!bytes.is_empty(), "the connection was closed");
        let Some(tls) = &mut self.tls else {
            self.arrived.extend_from_slice(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes)?;
            tls.process_new_packets()?;
            match tls.reader().read_to_end(&mut self.arrived) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => bail!(error),
            }
        }
        Ok(())
    }
}
