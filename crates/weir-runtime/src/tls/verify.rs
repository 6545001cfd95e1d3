//! How far a PostgreSQL server's certificate is believed, by libpq's names for it: `prefer` and `require` check only
//! that the peer holds the key, `verify-ca` also who signed it, `verify-full` also whom it names.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use weir_config::TlsMode;

use super::BrokenTls;

/// For modes that trust any certificate.
pub(super) fn signatures_only(provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
    Arc::new(SignaturesOnly(Arc::clone(provider)))
}

/// For modes that trust the given authorities, except for what they have taken back. A list past its date counts as one
/// that revokes everything.
pub(super) fn trusting(
    authorities: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    mode: TlsMode,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    let strict = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .with_crls(revoked)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(Trusting { strict, authorities, checks_name: mode == TlsMode::VerifyFull }))
}

/// The name to ask for and to hold the certificate against. Without a check of names one that cannot stand in a
/// certificate (`db_1.local`) gives way to the address.
pub(super) fn server_name(host: &str, peer: IpAddr, mode: TlsMode) -> Result<ServerName<'static>, BrokenTls> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        Err(_) if mode == TlsMode::VerifyFull => {
            Err(BrokenTls::new(&format!("no certificate can be made out to the host name \"{host}\"")))
        }
        Err(_) => Ok(ServerName::from(peer)),
    }
}

/// What went wrong in a handshake, for people who have to mend it.
pub(super) fn told(error: &Error) -> String {
    let is_certificate = matches!(error, Error::InvalidCertificate(_));
    format!("{}{}", if is_certificate { "the certificate is refused: " } else { "" }, why(error))
}

/// What is wrong with a certificate.
pub(super) fn why(error: &Error) -> String {
    let Error::InvalidCertificate(error) = error else { return error.to_string() };
    // The library may learn of more faults.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the list is open, and each fault has words of its own"
    )]
    let words = match error {
        CertificateError::Revoked => "it was revoked",
        CertificateError::UnknownRevocationStatus => {
            "no list of revoked certificates in crl_file is about one of its authorities"
        }
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "a list of revoked certificates in crl_file is past its date"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::UnknownIssuer => "no authority in ca_file has signed it",
        CertificateError::BadSignature => {
            "an authority in ca_file has the name of the one that signed it, but another key"
        }
        other => return other.to_string(),
    };
    words.to_owned()
}

#[derive(Debug)]
struct SignaturesOnly(Arc<CryptoProvider>);

impl ServerCertVerifier for SignaturesOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// rustls' own verifier, except for two things that libpq sees otherwise.
#[derive(Debug)]
struct Trusting {
    strict: Arc<WebPkiServerVerifier>,
    authorities: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Trusting {
    /// `openssl req -x509` makes self-signed certificates that call themselves an authority, and PostgreSQL's manual
    /// shows it. Such a server is trusted by having its very certificate in the authority file.
    fn is_trusted_itself(&self, end_entity: &CertificateDer<'_>, other: &OtherError) -> bool {
        // Dates and signature scheme were checked before this was found.
        let verdict = other.0.downcast_ref::<webpki::Error>();
        verdict == Some(&webpki::Error::CaUsedAsEndEntity) && self.authorities.contains(end_entity)
    }
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // verify-ca. The name is checked last, after signatures, dates and revocation.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            Err(Error::InvalidCertificate(CertificateError::Other(other)))
                if self.is_trusted_itself(end_entity, &other) =>
            {
                if self.checks_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
