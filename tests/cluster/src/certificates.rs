//! A throw-away certificate authority for TLS tests. Knows nothing of who uses the files.

use std::net::IpAddr;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// An authority that lives as long as the test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its private key, both PEM.
pub struct Certificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (PKCS #8).
    pub key_pem: String,
}

impl Authority {
    /// Makes a new authority with a key of its own.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).context("parameters of the authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "weir test authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("signing the authority")?;
        Ok(Self { issuer })
    }

    /// The authority's own certificate, for `sslrootcert`.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate whose common name is `name`, valid for that name (when it is a host name), `localhost` and `addresses`.
    ///
    /// # Errors
    /// `name` cannot stand in a certificate.
    pub fn issue(&self, name: &str, addresses: &[IpAddr]) -> Result<Certificate> {
        let mut names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        names.extend(["localhost".to_owned(), name.replace('_', "-")]);
        let mut params = CertificateParams::new(names).context("names of the certificate")?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).context("signing the certificate")?;
        Ok(Certificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(..)")
    }
}
