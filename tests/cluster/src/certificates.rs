//! A throw-away certificate authority for TLS tests. Knows nothing of who uses the files.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SignatureAlgorithm,
    date_time_ymd,
};

/// Kinds of keys: RSA, elliptic curves with a digest of their own, and one without any digest.
pub use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

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
    serial_number: SerialNumber,
}

impl Authority {
    /// Makes a new authority with a key of its own.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn new() -> Result<Self> {
        Self::signing_with(&rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// The same with keys of another kind; what it signs has such a key, too.
    ///
    /// # Errors
    /// The key could not be made.
    pub fn signing_with(algorithm: &'static SignatureAlgorithm) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).context("parameters of the authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "weir test authority");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate_for(algorithm)?)
            .context("signing the authority")?;
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
        let serial_number = SerialNumber::from(SERIAL_NUMBERS.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(serial_number.clone());
        let key = KeyPair::generate_for(self.issuer.key().algorithm())?;
        let certificate = params.signed_by(&key, &self.issuer).context("signing the certificate")?;
        Ok(Certificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), serial_number })
    }

    /// A list of certificates that the authority has taken back, as PEM, good for a long time.
    ///
    /// # Errors
    /// The list could not be signed.
    pub fn revoke(&self, certificates: &[&Certificate]) -> Result<String> {
        let revoked = |certificate: &&Certificate| RevokedCertParams {
            serial_number: certificate.serial_number.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: certificates.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer).context("signing the list")?.pem()?)
    }
}

/// No two certificates of one run have the same.
static SERIAL_NUMBERS: AtomicU64 = AtomicU64::new(1000);

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
