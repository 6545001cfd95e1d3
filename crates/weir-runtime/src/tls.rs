//! Everything weir does with rustls: certificates and verifiers from the configuration, and (in [`stream`]) the
//! records of one connection. No other module names rustls. Knows no socket.

mod certificate;
mod clients;
#[cfg(feature = "ldap")]
mod directories;
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

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_config::{ANY_DATABASE, AuthMethod, ClientTls, Config, ServerTls, TlsMode, Upstream};

use clients::TowardsClients;
#[cfg(feature = "ldap")]
pub(crate) use directories::towards_directories;
pub use files::TlsLoadError;
pub(crate) use patroni::{TowardsPatroni, fault};
pub(crate) use servers::TowardsServers;
pub(crate) use stream::{BrokenTls, Received, TlsStream};
use weir_admin::metrics::Expiring;

/// What handshakes need, as of one reading of the configuration. Replaced as a whole by a reload, so that a session
/// ticket handed out under older rules is worth nothing under the new ones.
#[derive(Debug, Clone)]
pub(crate) struct TlsBundle {
    towards_clients: Option<Arc<TowardsClients>>,
    towards_servers: TowardsServers,
    /// For databases with settings of their own.
    towards_servers_of: BTreeMap<String, TowardsServers>,
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
            config.auth.method == AuthMethod::Hba && config.auth.hba.asks_for_certificates();
        let mut bundle = Self::from_settings(&config.client_tls, &config.server_tls, asks_for_certificates)?;
        for (section, database) in config.sections() {
            if let Some(own) = &database.server_tls {
                let own = TowardsServers::load(own, &mut bundle.expiring)?;
                bundle.towards_servers_of.insert(section.to_owned(), own);
            }
        }
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
            towards_servers: TowardsServers::load(server, &mut expiring)?,
            towards_servers_of: BTreeMap::new(),
            towards_patroni: None,
            expiring,
        })
    }

    /// A handshake with a client is about to begin; `None` if weir has no certificate to show.
    pub(crate) fn accept(&self) -> Option<Box<TlsStream>> {
        TlsStream::accept(self.towards_clients.clone()?).map(Box::new).ok()
    }

    /// What holds for servers in general, or for those of one section of `[databases]`.
    pub(crate) fn towards_servers(&self, section: Option<&str>) -> &TowardsServers {
        section.and_then(|section| self.towards_servers_of.get(section)).unwrap_or(&self.towards_servers)
    }

    /// Whose server connections are of no use any more with `next`; `None` for everybody's.
    pub(crate) fn outdated(&self, next: &Self) -> Vec<Option<String>> {
        if self.towards_servers != next.towards_servers {
            return vec![None];
        }
        let (old, new) = (&self.towards_servers_of, &next.towards_servers_of);
        let mut sections: Vec<&String> = old.keys().chain(new.keys()).collect();
        sections.sort_unstable();
        sections.dedup();
        sections.retain(|section| old.get(*section) != new.get(*section));
        if sections.iter().any(|section| *section == ANY_DATABASE) {
            return vec![None];
        }
        sections.into_iter().cloned().map(Some).collect()
    }

    /// For https with Patroni; `None` if nothing says whom to trust there.
    pub(crate) fn towards_patroni(&self) -> Option<TowardsPatroni> {
        self.towards_patroni.clone()
    }

    /// What was read and ends some day.
    pub(crate) fn expiring(&self) -> &[Expiring] {
        &self.expiring
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
