//! TLS with PostgreSQL: what weir shows, and whose certificate it believes.

use std::sync::Arc;

use rustls::ClientConfig;
use weir_admin::metrics::Expiring;
use weir_config::{ServerTls, TlsMode};

use super::expiry::REVOKED_SERVERS;
use super::files::{TlsLoadError, read_authorities, read_revocations, unusable};
use super::{ALPN, expiry, files, mode_name, offer, verify};

/// Reads the files; what expires is added to `expiring`. `None` if TLS is off.
pub(super) fn load(
    settings: &ServerTls,
    expiring: &mut Vec<Expiring>,
) -> Result<Option<Arc<ClientConfig>>, TlsLoadError> {
    let provider = offer::provider(&settings.offer);
    let verifier = match settings.mode {
        TlsMode::Disable | TlsMode::Allow => return Ok(None),
        TlsMode::Prefer | TlsMode::Require => verify::signatures_only(&provider),
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let ca_file = settings.ca_file.as_deref().ok_or_else(|| TlsLoadError::Missing {
                mode: format!("server_tls.mode = \"{}\"", mode_name(settings.mode)),
                needs: "server_tls.ca_file",
            })?;
            let authorities = read_authorities(AUTHORITY, ca_file)?;
            let revoked = read_revocations(REVOKED_SERVERS, settings.crl_file.as_deref())?;
            if let Some(path) = &settings.crl_file {
                expiring.extend(expiry::of_revocations(REVOKED_SERVERS, path, &revoked));
            }
            verify::trusting(authorities, revoked, settings.mode, &provider)
                .map_err(|why| unusable(AUTHORITY, ca_file, &why))?
        }
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
    Ok(Some(Arc::new(config)))
}

const CERTIFICATE: [&str; 2] = ["server TLS certificate", "server TLS key"];
const AUTHORITY: &str = "server TLS authority";
