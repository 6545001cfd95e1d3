//! TLS with PostgreSQL: what weir shows, and whose certificate it believes.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use weir_admin::metrics::Expiring;
use weir_config::{ServerTls, TlsMode};

use super::expiry::REVOKED_SERVERS;
use super::files::{TlsLoadError, read_authorities, read_revocations, unusable};
use super::{ALPN, BrokenTls, TlsStream, expiry, files, mode_name, offer, verify};

/// What handshakes with servers need, as far as one group of settings says it. Two are equal if a server that was let in
/// by one would have been met the same way by the other: the certificates that weir shows do not matter.
#[derive(Debug, Clone)]
pub(crate) struct TowardsServers {
    /// `None` if TLS is off.
    config: Option<Arc<ClientConfig>>,
    settings: ServerTls,
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl PartialEq for TowardsServers {
    fn eq(&self, other: &Self) -> bool {
        let met = |one: &Self| (one.settings.clone(), one.authorities.clone(), one.revoked.clone());
        met(self) == met(other)
    }
}

impl TowardsServers {
    /// Reads the files; what expires is added to `expiring`.
    pub(super) fn load(settings: &ServerTls, expiring: &mut Vec<Expiring>) -> Result<Self, TlsLoadError> {
        let mut towards =
            Self { config: None, settings: settings.clone(), authorities: Vec::new(), revoked: Vec::new() };
        let provider = offer::provider(&settings.offer);
        let verifier = match settings.mode {
            TlsMode::Disable => return Ok(towards),
            TlsMode::Allow | TlsMode::Prefer | TlsMode::Require => verify::signatures_only(&provider),
            TlsMode::VerifyCa | TlsMode::VerifyFull => towards.read_trust(expiring, &provider)?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&offer::versions(&settings.offer))
            .map_err(|error| TlsLoadError::Missing { mode: error.to_string(), needs: "TLS 1.2 or 1.3" })?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let own = [settings.cert_file.as_deref(), settings.key_file.as_deref()];
        let mut config = match files::read_shown(CERTIFICATE, own, &provider, expiring)? {
            Some(shown) => builder.with_client_cert_resolver(shown),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        towards.config = Some(Arc::new(config));
        Ok(towards)
    }

    fn read_trust(
        &mut self,
        expiring: &mut Vec<Expiring>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, TlsLoadError> {
        let ServerTls { mode, ca_file, crl_file, .. } = &self.settings;
        let ca_file = ca_file.as_deref().ok_or_else(|| TlsLoadError::Missing {
            mode: format!("server_tls.mode = \"{}\"", mode_name(*mode)),
            needs: "server_tls.ca_file",
        })?;
        self.authorities = read_authorities(AUTHORITY, ca_file)?;
        self.revoked = read_revocations(REVOKED_SERVERS, crl_file.as_deref())?;
        if let Some(path) = crl_file {
            expiring.extend(expiry::of_revocations(REVOKED_SERVERS, path, &self.revoked));
        }
        verify::trusting(self.authorities.clone(), self.revoked.clone(), *mode, provider)
            .map_err(|why| unusable(AUTHORITY, ca_file, &why))
    }

    /// What the settings want.
    pub(crate) fn mode(&self) -> TlsMode {
        self.settings.mode
    }

    /// A handshake is about to begin. `host` is what the configuration or the cluster calls the server.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate and the mode wants it checked.
    pub(crate) fn connect(&self, host: &str, peer: IpAddr) -> Result<TlsStream, BrokenTls> {
        let Some(config) = self.config.clone() else {
            return Err(BrokenTls::new("TLS towards PostgreSQL is switched off"));
        };
        let name = verify::server_name(host, peer, self.settings.mode)?;
        TlsStream::connect(config, name)
    }
}

const CERTIFICATE: [&str; 2] = ["server TLS certificate", "server TLS key"];
const AUTHORITY: &str = "server TLS authority";
