//! Everything weir does with rustls: certificates and verifiers from the configuration, and (in [`stream`]) the
//! records of one connection. No other module names rustls. Knows no socket.

mod certificate;
mod clients;
mod end_point;
mod expiry;
mod files;
mod gate;
mod offer;
mod patroni;
mod servers;
mod stream;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use rustls::ClientConfig;
use weir_auth::HbaMethod;
use weir_config::{AuthMethod, ClientTls, Config, ServerTls, TlsMode, Upstream};

use clients::TowardsClients;
pub use files::TlsLoadError;
pub(crate) use patroni::{TowardsPatroni, fault};
pub(crate) use stream::{BrokenTls, Received, TlsStream};
use weir_admin::metrics::Expiring;

/// What handshakes need, as of one reading of the configuration. Replaced as a whole by a reload, so that a session
/// ticket handed out under older rules is worth nothing under the new ones.
#[derive(Debug, Clone)]
pub(crate) struct TlsBundle {
    towards_clients: Option<Arc<TowardsClients>>,
    towards_servers: Option<Arc<ClientConfig>>,
    server_mode: TlsMode,
    towards_patroni: Option<TowardsPatroni>,
    /// What was read and ends some day.
    expiring: Vec<Expiring>,
}

impl TlsBundle {
    /// Reads the files that the configuration names, and says in the log which of them have expired or soon will.
    ///
    /// # Errors
    /// Names the file that is missing, unreadable or not what it should be.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsLoadError> {
        // Below verify-ca PgBouncer asks nobody for a certificate. Here clients may show one where it can let them in.
        let asks_for_certificates =
            config.auth.method == AuthMethod::Hba && config.auth.hba.asks_for(HbaMethod::Cert);
        let mut bundle = Self::from_settings(&config.client_tls, &config.server_tls, asks_for_certificates)?;
        if let Upstream::Patroni(patroni) = &config.upstream {
            bundle.towards_patroni = TowardsPatroni::load(&patroni.tls, &mut bundle.expiring)?;
        }
        expiry::warn(&bundle.expiring);
        Ok(bundle)
    }

    pub(crate) fn from_settings(
        client: &ClientTls,
        server: &ServerTls,
        asks_for_certificates: bool,
    ) -> Result<Self, TlsLoadError> {
        let mut expiring = Vec::new();
        Ok(Self {
            towards_clients: TowardsClients::load(client, asks_for_certificates, &mut expiring)?
                .map(Arc::new),
            towards_servers: servers::load(server, &mut expiring)?,
            towards_patroni: None,
            expiring,
            server_mode: server.mode,
        })
    }

    /// A handshake with a client is about to begin; `None` if weir has no certificate to show.
    pub(crate) fn accept(&self) -> Option<Box<TlsStream>> {
        TlsStream::accept(self.towards_clients.clone()?).map(Box::new).ok()
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

    /// For https with Patroni; `None` if nothing says whom to trust there.
    pub(crate) fn towards_patroni(&self) -> Option<TowardsPatroni> {
        self.towards_patroni.clone()
    }

    /// What was read and ends some day.
    pub(crate) fn expiring(&self) -> &[Expiring] {
        &self.expiring
    }

    /// What the configuration wants of connections to PostgreSQL.
    pub(crate) fn server_mode(&self) -> TlsMode {
        self.server_mode
    }
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
