//! The few HTTP requests the tools make: to Patroni's REST API, also over TLS, and to weir's own pages.
//!
//! One request per connection, answer read to its end, everything bounded by time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer: status code and body.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// `GET path`, at most two seconds.
///
/// # Errors
/// No connection, no answer in time, or not HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    request(address, None, "GET", path, "", Duration::from_secs(2)).await
}

/// A request with a JSON body; over TLS with the files [`AUTHORITY`], [`CERTIFICATE`] and [`KEY`] of a folder.
///
/// # Errors
/// No connection, no answer within `patience`, or not HTTP.
pub async fn request(
    address: SocketAddr,
    tls: Option<&Path>,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> Result<Answer> {
    tokio::time::timeout(patience, reach(address, tls, method, path, body))
        .await
        .with_context(|| format!("{method} {address}{path}: no answer in time"))?
        .with_context(|| format!("{method} {address}{path}"))
}

async fn reach(
    address: SocketAddr,
    tls: Option<&Path>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    match tls {
        None => exchange(stream, &head).await,
        Some(folder) => {
            let connector = TlsConnector::from(Arc::new(client_config(folder)?));
            exchange(connector.connect(address.ip().into(), stream).await?, &head).await
        }
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn client_config(folder: &Path) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join(AUTHORITY))?)?;
    let own = CertificateDer::from_pem_file(folder.join(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![own], key)?)
}

fn parse(text: &str) -> Result<Answer> {
    let status = text
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.trim().parse().ok())
        .context("the answer is not HTTP")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(Answer { status, body: body.to_owned() })
}

/// Who signed the certificates of the REST APIs, and of those who ask them.
pub const AUTHORITY: &str = "api-authority.crt";
/// A certificate for whoever asks.
pub const CERTIFICATE: &str = "api-client.crt";
/// Its key.
pub const KEY: &str = "api-client.key";

const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_bare_status_line_is_an_answer() -> anyhow::Result<()> {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\n\r\n")?;
        assert_eq!((answer.status, answer.body.as_str()), (503, ""));
        Ok(())
    }

    #[test]
    fn the_body_stands_behind_the_empty_line() -> anyhow::Result<()> {
        let answer = parse("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n{\"a\": 1}")?;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"a\": 1}"));
        Ok(())
    }

    #[test]
    fn garbage_is_refused() {
        assert!(parse("SSH-2.0-OpenSSH").is_err());
    }
}
