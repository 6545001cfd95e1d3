//! TLS with clients: which certificate is shown to whom, and whose certificate is believed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use weir_admin::metrics::Expiring;
use weir_config::{ClientTls, TlsMode};

use super::expiry::REVOKED_CLIENTS;
use super::files::{TlsLoadError, read_pair, read_revocations, read_roots, unusable};
use super::gate::Gate;
use super::{ALPN, end_point, expiry, mode_name, offer};

/// What handshakes with clients need.
#[derive(Debug)]
pub(super) struct TowardsClients {
    pub(super) config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    /// If clients are asked for certificates.
    pub(super) gate: Option<Arc<Gate>>,
}

impl TowardsClients {
    /// Reads the files; what expires is added to `expiring`. `None` if TLS is off.
    pub(super) fn load(
        settings: &ClientTls,
        asks_for_certificates: bool,
        expiring: &mut Vec<Expiring>,
    ) -> Result<Option<Self>, TlsLoadError> {
        if settings.mode == TlsMode::Disable {
            return Ok(None);
        }
        let provider = offer::provider(&settings.offer);
        let chain_file = needed(settings, settings.cert_file.as_deref(), "client_tls.cert_file")?;
        let key_file = needed(settings, settings.key_file.as_deref(), "client_tls.key_file")?;
        let shown = Arc::new(Shown::load(settings, chain_file, key_file, &provider, expiring)?);
        let gate = gate(settings, asks_for_certificates, &provider, expiring)?.map(Arc::new);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&offer::versions(&settings.offer))
            .map_err(|error| unusable(CERTIFICATE[0], chain_file, &error))?;
        let builder = match gate.clone() {
            Some(gate) => builder.with_client_cert_verifier(gate),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A key that nobody else has, made anew with each reading: a ticket lets a client in by what was checked when
        // it was given out, so it may not outlive the files.
        config.ticketer = Ticketer::new().map_err(|error| unusable(CERTIFICATE[0], chain_file, &error))?;
        Ok(Some(Self { config: Arc::new(config), shown, gate }))
    }

    /// `tls-server-end-point` of the certificate that was shown. Which one that is follows from nothing but the name that
    /// the client has asked for, also where an older session goes on: rustls resumes none under another name.
    pub(super) fn end_point(&self, connection: &ServerConnection) -> Option<&[u8]> {
        self.shown.choose(connection.server_name()).end_point.as_deref()
    }
}

/// Certificates by the names that clients ask for.
#[derive(Debug)]
struct Shown {
    /// For those who ask for no name or for another one.
    default: Arc<Own>,
    /// Names as the certificates have them, in small letters, wildcards included.
    named: HashMap<String, Arc<Own>>,
}

/// A certificate of weir's own.
#[derive(Debug)]
struct Own {
    key: Arc<CertifiedKey>,
    end_point: Option<Vec<u8>>,
}

impl Shown {
    fn load(
        settings: &ClientTls,
        chain_file: &Path,
        key_file: &Path,
        provider: &CryptoProvider,
        expiring: &mut Vec<Expiring>,
    ) -> Result<Self, TlsLoadError> {
        let mut named = HashMap::new();
        let mut read = |chain_file: &Path, key_file: &Path| {
            let key = read_pair(CERTIFICATE, chain_file, key_file, provider)?;
            expiring.extend(expiry::of_chain(CERTIFICATE[0], chain_file, &key.cert));
            let own = Arc::new(Own {
                end_point: key.cert.first().and_then(|own| end_point::hash(own)),
                key: Arc::new(key),
            });
            let names = names(&own.key);
            let is_nameless = names.is_empty();
            for name in names {
                // Where two certificates have the same name the first one keeps it.
                named.entry(name).or_insert_with(|| Arc::clone(&own));
            }
            Ok((own, is_nameless))
        };
        let (default, _) = read(chain_file, key_file)?;
        for (section, files) in &settings.certificates {
            let (_, is_nameless) = read(&files.cert_file, &files.key_file)?;
            if is_nameless {
                let file = files.cert_file.display();
                tracing::warn!(
                    "certificates.{section}: {file} names no host, so no client will ever be shown it"
                );
            }
        }
        Ok(Self { default, named })
    }

    /// The certificate with exactly this name, or else with a wildcard for its first label (RFC 6125, section 6.4.3).
    fn choose(&self, asked: Option<&str>) -> &Own {
        let Some(asked) = asked.map(str::to_ascii_lowercase) else { return &self.default };
        let by_wildcard = || self.named.get(&format!("*.{}", asked.split_once('.')?.1));
        self.named.get(&asked).or_else(by_wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.choose(hello.server_name()).key))
    }
}

/// The host names in a certificate (RFC 5280, section 4.2.1.6).
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(Ok(certificate)) = key.cert.first().map(webpki::EndEntityCert::try_from) else {
        return Vec::new();
    };
    certificate.valid_dns_names().map(str::to_ascii_lowercase).collect()
}

fn gate(
    settings: &ClientTls,
    asks_for_certificates: bool,
    provider: &Arc<CryptoProvider>,
    expiring: &mut Vec<Expiring>,
) -> Result<Option<Gate>, TlsLoadError> {
    let needs_certificates = settings.mode >= TlsMode::VerifyCa;
    if !needs_certificates && !asks_for_certificates {
        return Ok(None);
    }
    let ca_file = needed(settings, settings.ca_file.as_deref(), "client_tls.ca_file")?;
    let roots = read_roots(AUTHORITY, ca_file)?;
    let revoked = read_revocations(REVOKED_CLIENTS, settings.crl_file.as_deref())?;
    if let Some(path) = &settings.crl_file {
        expiring.extend(expiry::of_revocations(REVOKED_CLIENTS, path, &revoked));
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(revoked)
        // OpenSSL is as strict: an old list may lack the very certificate that somebody has stolen.
        .enforce_revocation_expiration();
    let verifier = if needs_certificates { verifier } else { verifier.allow_unauthenticated() };
    let verifier = verifier.build().map_err(|error| {
        // The authorities are good, or they could not have been read.
        unusable(REVOKED_CLIENTS, settings.crl_file.as_deref().unwrap_or(ca_file), &error)
    })?;
    Ok(Some(Gate::new(verifier)))
}

fn needed<'a>(
    settings: &ClientTls,
    file: Option<&'a Path>,
    needs: &'static str,
) -> Result<&'a Path, TlsLoadError> {
    let mode = || format!("client_tls.mode = \"{}\"", mode_name(settings.mode));
    file.ok_or_else(|| TlsLoadError::Missing { mode: mode(), needs })
}

const CERTIFICATE: [&str; 2] = ["client TLS certificate", "client TLS key"];
const AUTHORITY: &str = "client TLS authority";
