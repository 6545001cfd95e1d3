//! TLS to Patroni's REST API, for whoever speaks HTTP with it: a socket in, an encrypted one out.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weir_admin::metrics::Expiring;
use weir_config::{PatroniTls, TlsMode, TlsOffer};

use super::files::{TlsLoadError, read_authorities, unusable};
use super::{BrokenTls, files, offer, verify};

/// What handshakes with a REST API need.
#[derive(Clone)]
pub(crate) struct TowardsPatroni {
    connector: TlsConnector,
    /// In place of the host in the URL.
    name: Option<ServerName<'static>>,
}

impl TowardsPatroni {
    /// Reads the files; what expires is added to `expiring`. `None` if there is nobody to trust.
    pub(super) fn load(
        settings: &PatroniTls,
        expiring: &mut Vec<Expiring>,
    ) -> Result<Option<Self>, TlsLoadError> {
        let offer = TlsOffer::default();
        let provider = offer::provider(&offer);
        let verifier = match &settings.ca_file {
            _ if settings.insecure => verify::signatures_only(&provider),
            None => return Ok(None),
            Some(path) => {
                let authorities = read_authorities(AUTHORITY, path)?;
                verify::trusting(authorities, Vec::new(), TlsMode::VerifyFull, &provider)
                    .map_err(|why| unusable(AUTHORITY, path, &why))?
            }
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&offer::versions(&offer))
            .map_err(|error| TlsLoadError::Missing { mode: error.to_string(), needs: "TLS 1.2 or 1.3" })?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let own = [settings.cert_file.as_deref(), settings.key_file.as_deref()];
        let config = match files::read_shown(CERTIFICATE, own, &provider, expiring)? {
            Some(shown) => builder.with_client_cert_resolver(shown),
            None => builder.with_no_client_auth(),
        };
        let name = settings.server_name.clone().map(|name| server_name(&name)).transpose()?;
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), name }))
    }

    /// Makes the handshake with the API at `host`, name or address.
    ///
    /// # Errors
    /// Who refuses whom, and why.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, BrokenTls> {
        let name = match self.name.clone() {
            Some(name) => name,
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| BrokenTls::new(&format!("no certificate can be made out to {host:?}")))?,
        };
        self.connector.connect(name, stream).await.map_err(|error| {
            fault(&error).unwrap_or_else(|| BrokenTls::new(&format!("the handshake broke off: {error}")))
        })
    }
}

impl std::fmt::Debug for TowardsPatroni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TowardsPatroni").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What TLS has to do with an error, if anything: with TLS 1.3 a server refuses a client's certificate only when the
/// client takes the handshake for done, so that HTTP is the first to hear of it.
pub(crate) fn fault(error: &(dyn StdError + 'static)) -> Option<BrokenTls> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inside = inside.and_then(|inside| inside.downcast_ref::<Error>());
        if let Some(error) = inside.or_else(|| error.downcast_ref::<Error>()) {
            return Some(BrokenTls::new(&words(error)));
        }
        next = error.source();
    }
    None
}

fn words(error: &Error) -> String {
    if let Error::AlertReceived(alert) = error {
        return format!(
            "Patroni refuses the handshake ({alert:?}): does cert_file hold the certificate that it wants?"
        );
    }
    verify::told(error)
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsLoadError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsLoadError::Missing {
        mode: format!("patroni.server_name = {name:?}"),
        needs: "to be a name that can stand in a certificate",
    })
}

const CERTIFICATE: [&str; 2] = ["patroni TLS certificate", "patroni TLS key"];
const AUTHORITY: &str = "patroni TLS authority";
