//! From the configuration's protocols, ciphers and groups to rustls' own. Refuses nothing: the configuration did.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use weir_config::{Tls13Cipher, TlsCipher, TlsGroup, TlsOffer};

/// A provider that agrees upon nothing else.
pub(super) fn provider(offer: &TlsOffer) -> Arc<CryptoProvider> {
    let modern = offer.tls13_ciphers.iter().map(|cipher| modern_suite(*cipher)).filter(|_| offer.v1_3);
    let older = offer.ciphers.iter().map(|cipher| older_suite(*cipher)).filter(|_| offer.v1_2);
    Arc::new(CryptoProvider {
        cipher_suites: modern.chain(older).collect(),
        kx_groups: offer.groups.iter().map(|group| exchange(*group)).collect(),
        ..rustls::crypto::aws_lc_rs::default_provider()
    })
}

pub(super) fn versions(offer: &TlsOffer) -> Vec<&'static SupportedProtocolVersion> {
    let modern = offer.v1_3.then_some(&rustls::version::TLS13);
    let older = offer.v1_2.then_some(&rustls::version::TLS12);
    modern.into_iter().chain(older).collect()
}

fn modern_suite(cipher: Tls13Cipher) -> SupportedCipherSuite {
    match cipher {
        Tls13Cipher::Aes256 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Tls13Cipher::Aes128 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Tls13Cipher::ChaCha20 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    }
}

fn older_suite(cipher: TlsCipher) -> SupportedCipherSuite {
    match cipher {
        TlsCipher::EcdsaAes256 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TlsCipher::EcdsaAes128 => cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TlsCipher::EcdsaChaCha20 => cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TlsCipher::RsaAes256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TlsCipher::RsaAes128 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TlsCipher::RsaChaCha20 => cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn exchange(group: TlsGroup) -> &'static dyn SupportedKxGroup {
    match group {
        TlsGroup::X25519MlKem768 => kx_group::X25519MLKEM768,
        TlsGroup::X25519 => kx_group::X25519,
        TlsGroup::P256 => kx_group::SECP256R1,
        TlsGroup::P384 => kx_group::SECP384R1,
    }
}
