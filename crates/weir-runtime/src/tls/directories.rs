//! TLS to LDAP directories: the system's authorities, and the certificate must be the server's.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use weir_config::{TlsMode, TlsOffer};

use super::files::{TlsLoadError, read_authorities, unusable};
use super::{offer, verify};

/// What handshakes with directories need.
///
/// # Errors
/// The system trusts nobody.
pub(crate) fn towards_directories() -> Result<Arc<ClientConfig>, TlsLoadError> {
    let offer = TlsOffer::default();
    let provider = offer::provider(&offer);
    let path = Path::new(weir_config::SYSTEM_AUTHORITIES);
    let authorities = read_authorities(AUTHORITY, path)?;
    let verifier = verify::trusting(authorities, Vec::new(), TlsMode::VerifyFull, &provider)
        .map_err(|why| unusable(AUTHORITY, path, &why))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&offer::versions(&offer))
        .map_err(|error| TlsLoadError::Missing { mode: error.to_string(), needs: "TLS 1.2 or 1.3" })?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Arc::new(builder.with_no_client_auth()))
}

const AUTHORITY: &str = "LDAP authority";
