//! Certificates, keys, authorities and lists of revoked certificates from their PEM files. Knows what each has to be, not
//! what handshakes make of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore};
use weir_admin::metrics::Expiring;
use weir_config::SYSTEM_AUTHORITIES;

use super::expiry;

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

/// A certificate chain with its key. `what` is the words for both files.
pub(super) fn read_pair(
    what: [&'static str; 2],
    chain_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsLoadError> {
    let chain = read_chain(what[0], chain_file)?;
    let key = read_key(what[1], key_file)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        if error == Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            let why = format!("is not the key of the certificate in {}", chain_file.display());
            return unusable(what[1], key_file, &why);
        }
        let is_certificate = matches!(error, Error::InvalidCertificate(_));
        let (what, file) = if is_certificate { (what[0], chain_file) } else { (what[1], key_file) };
        unusable(what, file, &error)
    })
}

pub(super) fn read_chain(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsLoadError> {
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

/// A certificate that is shown to servers, if there is one. What expires is added to `expiring`.
pub(super) fn read_shown(
    what: [&'static str; 2],
    files: [Option<&Path>; 2],
    provider: &CryptoProvider,
    expiring: &mut Vec<Expiring>,
) -> Result<Option<Arc<SingleCertAndKey>>, TlsLoadError> {
    let [Some(chain_file), Some(key_file)] = files else {
        // The configuration has refused halves.
        return Ok(None);
    };
    let pair = read_pair(what, chain_file, key_file, provider)?;
    expiring.extend(expiry::of_chain(what[0], chain_file, &pair.cert));
    Ok(Some(Arc::new(SingleCertAndKey::from(pair))))
}

/// The authorities in a file, or those that the system trusts.
pub(super) fn read_authorities(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsLoadError> {
    if path != Path::new(SYSTEM_AUTHORITIES) {
        return read_chain(what, path);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(unusable(what, path, &format!("the system has no authorities: {}", why.join(", "))));
    }
    // Some are in a form that nobody needs to understand here.
    let is_usable = |der: &CertificateDer<'static>| RootCertStore::empty().add(der.clone()).is_ok();
    Ok(found.certs.into_iter().filter(is_usable).collect())
}

pub(super) fn read_roots(what: &'static str, path: &Path) -> Result<Arc<RootCertStore>, TlsLoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(what, path)? {
        roots.add(certificate).map_err(|error| unusable(what, path, &error))?;
    }
    Ok(Arc::new(roots))
}

/// The lists in a file, if one is named.
pub(super) fn read_revocations(
    what: &'static str,
    path: Option<&Path>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsLoadError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let pem = read(what, path)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(what, path, &error))?;
    if lists.is_empty() {
        return Err(unusable(what, path, &"holds no PEM list of revoked certificates"));
    }
    Ok(lists)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsLoadError> {
    fs::read(path).map_err(|source| TlsLoadError::Unreadable { what, path: path.to_owned(), source })
}

pub(super) fn unusable(what: &'static str, path: &Path, why: &dyn std::fmt::Display) -> TlsLoadError {
    TlsLoadError::Unusable { what, path: path.to_owned(), why: why.to_string() }
}
