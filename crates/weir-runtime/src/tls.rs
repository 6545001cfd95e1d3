//! Everything weir does with rustls: certificates and verifiers from the configuration, and (in [`stream`]) the
//! records of one connection. No other module names rustls. Knows no socket.

mod certificate;
mod end_point;
mod offer;
mod stream;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use weir_auth::HbaMethod;
use weir_config::{AuthMethod, ClientTls, Config, ServerTls, TlsMode};

pub(crate) use stream::{BrokenTls, Received, TlsStream};

/// What handshakes need, as of one reading of the configuration. Replaced as a whole by a reload, so that a session
/// ticket handed out under older rules is worth nothing under the new ones.
#[derive(Debug, Clone)]
pub(crate) struct TlsBundle {
    towards_clients: Option<Arc<ServerConfig>>,
    /// `tls-server-end-point` of the certificate that clients are shown.
    own_end_point: Option<Arc<[u8]>>,
    towards_servers: Option<Arc<ClientConfig>>,
    server_mode: TlsMode,
}

impl TlsBundle {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// Names the file that is missing, unreadable or not what it should be.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsLoadError> {
        // Below verify-ca PgBouncer asks nobody for a certificate. Here clients may show one where it can let them in.
        let asks_for_certificates =
            config.auth.method == AuthMethod::Hba && config.auth.hba.asks_for(HbaMethod::Cert);
        Self::from_settings(&config.client_tls, &config.server_tls, asks_for_certificates)
    }

    pub(crate) fn from_settings(
        client: &ClientTls,
        server: &ServerTls,
        asks_for_certificates: bool,
    ) -> Result<Self, TlsLoadError> {
        let towards_clients =
            towards_clients(client, asks_for_certificates, &offer::provider(&client.offer))?;
        let (towards_clients, own_end_point) = towards_clients.unzip();
        Ok(Self {
            towards_clients,
            own_end_point: own_end_point.flatten().map(Into::into),
            towards_servers: towards_servers(server, &offer::provider(&server.offer))?,
            server_mode: server.mode,
        })
    }

    /// A handshake with a client is about to begin; `None` if weir has no certificate to show.
    pub(crate) fn accept(&self) -> Option<Box<TlsStream>> {
        let config = self.towards_clients.clone()?;
        TlsStream::accept(config, self.own_end_point.clone()).map(Box::new).ok()
    }

    /// A handshake with a server is about to begin. `host` is what the configuration or the cluster calls it.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate and the mode wants it checked.
    pub(crate) fn connect(&self, host: &str, peer: std::net::IpAddr) -> Result<TlsStream, BrokenTls> {
        let Some(config) = self.towards_servers.clone() else {
            return Err(BrokenTls::new("TLS towards PostgreSQL is switched off"));
        };
        let name = verify::server_name(host, peer, self.server_mode)?;
        TlsStream::connect(config, name)
    }

    /// What the configuration wants of connections to PostgreSQL.
    pub(crate) fn server_mode(&self) -> TlsMode {
        self.server_mode
    }
}

/// A certificate, key or authority file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsLoadError {
    /// A setting that the mode cannot do without.
    #[error("{mode} needs {needs}")]
    Missing {
        /// Key and value of the mode.
        mode: String,
        /// Key of the absent setting.
        needs: &'static str,
    },
    /// The file cannot be read.
    #[error("{what} {}: {source}", path.display())]
    Unreadable {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{what} {}: {why}", path.display())]
    Unusable {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Settings of handshakes with clients, and the channel binding data of the certificate in them.
type TowardsClients = (Arc<ServerConfig>, Option<Vec<u8>>);

fn towards_clients(
    settings: &ClientTls,
    asks_for_certificates: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<TowardsClients>, TlsLoadError> {
    let needs_certificates = match settings.mode {
        TlsMode::Disable => return Ok(None),
        TlsMode::Allow | TlsMode::Prefer | TlsMode::Require => false,
        TlsMode::VerifyCa | TlsMode::VerifyFull => true,
    };
    let mode = || format!("client_tls.mode = \"{}\"", mode_name(settings.mode));
    let chain_file = settings
        .cert_file
        .as_deref()
        .ok_or_else(|| TlsLoadError::Missing { mode: mode(), needs: "client_tls.cert_file" })?;
    let key_file = settings
        .key_file
        .as_deref()
        .ok_or_else(|| TlsLoadError::Missing { mode: mode(), needs: "client_tls.key_file" })?;
    let chain = read_chain("client TLS certificate", chain_file)?;
    let key = read_key("client TLS key", key_file)?;

    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&offer::versions(&settings.offer))
        .map_err(|error| unusable("client TLS certificate", chain_file, &error))?;
    let end_point = chain.first().and_then(|certificate| end_point::hash(certificate));
    let builder = if needs_certificates || asks_for_certificates {
        let ca_file = settings
            .ca_file
            .as_deref()
            .ok_or_else(|| TlsLoadError::Missing { mode: mode(), needs: "client_tls.ca_file" })?;
        let roots = read_roots("client TLS authority", ca_file)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let verifier = if needs_certificates { verifier } else { verifier.allow_unauthenticated() };
        let verifier = verifier.build().map_err(|error| unusable("client TLS authority", ca_file, &error))?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| unusable("client TLS key", key_file, &error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some((Arc::new(config), end_point)))
}

fn towards_servers(
    settings: &ServerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<ClientConfig>>, TlsLoadError> {
    let authorities = match settings.mode {
        TlsMode::Disable | TlsMode::Allow => return Ok(None),
        TlsMode::Prefer | TlsMode::Require => None,
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let ca_file = settings.ca_file.as_deref().ok_or_else(|| TlsLoadError::Missing {
                mode: format!("server_tls.mode = \"{}\"", mode_name(settings.mode)),
                needs: "server_tls.ca_file",
            })?;
            Some((read_chain("server TLS authority", ca_file)?, ca_file))
        }
    };
    let verifier = match authorities {
        None => verify::signatures_only(provider),
        Some((authorities, ca_file)) => verify::trusting(authorities, settings.mode, provider)
            .map_err(|why| unusable("server TLS authority", ca_file, &why))?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&offer::versions(&settings.offer))
        .map_err(|error| TlsLoadError::Missing { mode: error.to_string(), needs: "TLS 1.2 or 1.3" })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (settings.cert_file.as_deref(), settings.key_file.as_deref()) {
        (Some(chain_file), Some(key_file)) => {
            let chain = read_chain("server TLS certificate", chain_file)?;
            let key = read_key("server TLS key", key_file)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable("server TLS key", key_file, &error))?
        }
        (Some(_), None) => return Err(missing_half("server_tls.key_file")),
        (None, Some(_)) => return Err(missing_half("server_tls.cert_file")),
        (None, None) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Some(Arc::new(config)))
}

fn missing_half(needs: &'static str) -> TlsLoadError {
    TlsLoadError::Missing { mode: "a certificate to show to PostgreSQL".to_owned(), needs }
}

fn read_chain(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsLoadError> {
    let pem = read(what, path)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(what, path, &error))?;
    if chain.is_empty() {
        return Err(unusable(what, path, &"holds no PEM certificate"));
    }
    Ok(chain)
}

fn read_key(what: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsLoadError> {
    let pem = read(what, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        if matches!(error, rustls::pki_types::pem::Error::NoItemsFound) {
            return unusable(what, path, &"holds no unencrypted PEM private key");
        }
        unusable(what, path, &error)
    })
}

fn read_roots(what: &'static str, path: &Path) -> Result<RootCertStore, TlsLoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(what, path)? {
        roots.add(certificate).map_err(|error| unusable(what, path, &error))?;
    }
    Ok(roots)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsLoadError> {
    fs::read(path).map_err(|source| TlsLoadError::Unreadable { what, path: path.to_owned(), source })
}

fn unusable(what: &'static str, path: &Path, why: &dyn std::fmt::Display) -> TlsLoadError {
    TlsLoadError::Unusable { what, path: path.to_owned(), why: why.to_string() }
}

fn mode_name(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Allow => "allow",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}

/// The name that PostgreSQL 17 and newer registered for its protocol; older peers do not look at it.
const ALPN: &[u8] = b"postgresql";
