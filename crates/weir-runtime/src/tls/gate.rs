//! Who comes in by a certificate. rustls' own verifier decides; this remembers whom it has turned away, for the log, and
//! asks it again where an older session goes on without a certificate. Knows no file.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{certificate, verify};

/// The verifier of client certificates.
#[derive(Debug)]
pub(super) struct Gate {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Whom it has turned away last, until somebody asks: a verifier is not told which connection it works for, and its
    /// words are only the kind of fault. Whoever ran the handshake asks at once.
    turned_away: Mutex<Option<String>>,
}

impl Gate {
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self { verifier, turned_away: Mutex::new(None) }
    }

    /// Whom the handshake that has just failed was about, and why.
    pub(super) fn turned_away(&self) -> Option<String> {
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Looks once more at a certificate that was shown in an older session. A ticket is good for half a day, and
    /// certificates and lists of revoked ones may end sooner.
    pub(super) fn look_again(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let Some((end_entity, intermediates)) = chain.split_first() else { return Ok(()) };
        self.verify_client_cert(end_entity, intermediates, UnixTime::now()).map(|_| ())
    }
}

impl ClientCertVerifier for Gate {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier.verify_client_cert(end_entity, intermediates, now).inspect_err(|error| {
            let whom = certificate::description(end_entity);
            let said = format!("the client's certificate ({whom}) is refused: {}", verify::why(error));
            *self.turned_away.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
