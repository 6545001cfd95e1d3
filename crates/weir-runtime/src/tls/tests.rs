//! Certificates for tests, and what the configuration may ask of files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod patroni;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::NamedGroup;
use weir_config::{
    ChannelBinding, ClientTls, ServerTls, Tls13Cipher, TlsCipher, TlsGroup, TlsMode, TlsOffer,
};

use super::{BrokenTls, TlsBundle, TlsLoadError, TlsStream, end_point};

/// A certificate authority with its files in a directory of its own.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("weir-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        std::fs::write(directory.join("ca.key"), issuer.key().serialize_pem()).unwrap();
        Self { directory, issuer }
    }

    pub(super) fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Certificate and key files for a host name.
    pub(super) fn leaf(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (self.directory.join("leaf.pem"), self.directory.join("leaf.key"));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// A weir that trusts this authority and shows a certificate of the other one.
    pub(crate) fn trusting_but_showing(&self, mode: TlsMode, other: &Self, name: &str) -> TlsBundle {
        let client = other.client_side(TlsMode::Require, name);
        TlsBundle::from_settings(&client, &self.server_side(mode), false).unwrap()
    }

    /// A weir that trusts this authority while the other one shows its own certificate, made out to `localhost`.
    pub(crate) fn trusting_itself_shown(&self, mode: TlsMode, shown: &Self) -> TlsBundle {
        let client = ClientTls {
            mode: TlsMode::Require,
            key_file: Some(shown.directory.join("ca.key")),
            cert_file: Some(shown.ca_file()),
            ..client_off()
        };
        TlsBundle::from_settings(&client, &self.server_side(mode), false).unwrap()
    }

    fn client_side(&self, mode: TlsMode, name: &str) -> ClientTls {
        let (chain, key) = self.leaf(name);
        ClientTls {
            mode,
            key_file: Some(key),
            cert_file: Some(chain),
            ca_file: Some(self.ca_file()),
            ..client_off()
        }
    }

    fn server_side(&self, mode: TlsMode) -> ServerTls {
        ServerTls { mode, ca_file: Some(self.ca_file()), ..server_off() }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// No TLS on either side.
pub(crate) fn no_tls() -> TlsBundle {
    towards_servers(TlsMode::Disable, None)
}

/// TLS on the server side only.
pub(crate) fn towards_servers(mode: TlsMode, authority: Option<&Authority>) -> TlsBundle {
    let server = ServerTls { mode, ca_file: authority.map(Authority::ca_file), ..server_off() };
    TlsBundle::from_settings(&client_off(), &server, false).unwrap()
}

/// A certificate for `name` towards clients, and trust in its authority towards servers.
pub(crate) fn both_sides(client: TlsMode, server: TlsMode, authority: &Authority, name: &str) -> TlsBundle {
    TlsBundle::from_settings(&authority.client_side(client, name), &authority.server_side(server), false)
        .unwrap()
}

fn client_off() -> ClientTls {
    ClientTls {
        mode: TlsMode::Disable,
        key_file: None,
        cert_file: None,
        ca_file: None,
        crl_file: None,
        certificates: BTreeMap::new(),
        offer: TlsOffer::default(),
    }
}

fn server_off() -> ServerTls {
    ServerTls {
        mode: TlsMode::Disable,
        ca_file: None,
        crl_file: None,
        key_file: None,
        cert_file: None,
        channel_binding: ChannelBinding::Prefer,
        offer: TlsOffer::default(),
    }
}

#[test]
fn a_missing_file_is_named() {
    let client = ClientTls {
        mode: TlsMode::Require,
        key_file: Some("/nonexistent/weir.key".into()),
        cert_file: Some("/nonexistent/weir.pem".into()),
        ..client_off()
    };
    let error = TlsBundle::from_settings(&client, &server_off(), false).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/weir.pem"), "{error}");
}

#[test]
fn a_key_in_place_of_a_certificate_is_named() {
    let authority = Authority::new();
    let mut client = authority.client_side(TlsMode::Require, "localhost");
    client.cert_file = client.key_file.clone();
    let error = TlsBundle::from_settings(&client, &server_off(), false).unwrap_err();
    assert!(matches!(error, TlsLoadError::Unusable { what: "client TLS certificate", .. }), "{error}");
}

#[test]
fn a_key_that_does_not_fit_is_named() {
    let authority = Authority::new();
    let client = authority.client_side(TlsMode::Require, "localhost");
    std::fs::write(client.key_file.as_ref().unwrap(), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = TlsBundle::from_settings(&client, &server_off(), false).unwrap_err();
    let words = error.to_string();
    for file in [&client.key_file, &client.cert_file] {
        assert!(words.contains(&file.as_ref().unwrap().display().to_string()), "{words}");
    }
    assert!(words.contains("is not the key of the certificate in"), "{words}");
}

#[test]
fn a_mode_says_what_it_cannot_do_without() {
    let client = ClientTls { mode: TlsMode::Require, ..client_off() };
    let error = TlsBundle::from_settings(&client, &server_off(), false).unwrap_err();
    assert_eq!(error.to_string(), "client_tls.mode = \"require\" needs client_tls.cert_file");

    let server = ServerTls { mode: TlsMode::VerifyFull, ..server_off() };
    let error = TlsBundle::from_settings(&client_off(), &server, false).unwrap_err();
    assert_eq!(error.to_string(), "server_tls.mode = \"verify-full\" needs server_tls.ca_file");
}

#[test]
fn without_tls_towards_clients_no_handshake_begins() {
    assert!(no_tls().accept().is_none());
}

#[test]
fn the_end_point_hash_follows_the_signature_s_digest() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, certificate.der());
    assert_eq!(end_point::hash(certificate.der()).as_deref(), Some(expected.as_ref()));

    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    assert_eq!(end_point::hash(certificate.der()), None);
}

#[test]
fn cut_or_foreign_der_has_no_end_point_hash() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let der: &[u8] = certificate.der();
    for length in 0..der.len() {
        assert_eq!(end_point::hash(&der[..length]), None, "{length}");
    }
    assert_eq!(end_point::hash(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
}

/// Both ends of a handshake of a bundle with itself, as weir's clients see it and as weir sees PostgreSQL.
fn handshake(bundle: &TlsBundle) -> Result<[TlsStream; 2], BrokenTls> {
    let host = bundle.towards_servers(None).connect("localhost", std::net::Ipv4Addr::LOCALHOST.into())?;
    meet(host, *bundle.accept().unwrap())
}

/// Lets both ends talk until both are through, and the client has whatever the server still had to say.
fn meet(mut client: TlsStream, mut server: TlsStream) -> Result<[TlsStream; 2], BrokenTls> {
    for _ in 0..5 {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut flight = Vec::new();
            let ends = [&mut client, &mut server];
            ends[from].take_records(&mut flight);
            ends[to].decrypt(&flight, &mut Vec::new())?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok([client, server])
}

/// A change of what is offered; description and group that come of it.
type Choice = (fn(&mut TlsOffer), &'static str, NamedGroup);

// covers: client_tls_ciphers client_tls13_ciphers client_tls_ecdhcurve client_tls_protocols
// covers: server_tls_ciphers server_tls13_ciphers server_tls_protocols
#[test]
fn what_one_side_offers_is_what_both_agree_upon() {
    let authority = Authority::new();
    let choices: [Choice; 5] = [
        (|_| {}, "TLSv1.3/TLS_AES_256_GCM_SHA384", NamedGroup::X25519MLKEM768),
        (
            |offer| offer.tls13_ciphers = vec![Tls13Cipher::ChaCha20],
            "TLSv1.3/TLS_CHACHA20_POLY1305_SHA256",
            NamedGroup::X25519MLKEM768,
        ),
        (
            |offer| offer.groups = vec![TlsGroup::P384],
            "TLSv1.3/TLS_AES_256_GCM_SHA384",
            NamedGroup::secp384r1,
        ),
        (|offer| offer.v1_3 = false, "TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", NamedGroup::X25519),
        (
            |offer| (offer.v1_3, offer.ciphers) = (false, vec![TlsCipher::EcdsaAes128]),
            "TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
            NamedGroup::X25519,
        ),
    ];
    for (change, description, group) in choices {
        for towards_clients in [true, false] {
            let mut client = authority.client_side(TlsMode::Require, "localhost");
            let mut server = authority.server_side(TlsMode::Require);
            change(if towards_clients { &mut client.offer } else { &mut server.offer });
            let bundle = TlsBundle::from_settings(&client, &server, false).unwrap();
            let [own, other] = handshake(&bundle).unwrap();
            assert_eq!((own.description(), own.group()), (description.to_owned(), Some(group)));
            assert_eq!(other.description(), description);
        }
    }
}

// covers: server_tls_cert_file server_tls_key_file
#[test]
fn weir_shows_its_certificate_to_servers_that_want_one() {
    let authority = Authority::new();
    let client = authority.client_side(TlsMode::VerifyFull, "localhost");
    let mut server = authority.server_side(TlsMode::Require);
    let without = TlsBundle::from_settings(&client, &server, false).unwrap();
    assert!(handshake(&without).is_err(), "nothing was shown");
    (server.cert_file, server.key_file) = (client.cert_file.clone(), client.key_file.clone());
    let with = TlsBundle::from_settings(&client, &server, false).unwrap();
    let [_, other] = handshake(&with).unwrap();
    assert!(other.peer_end_point().is_some());
}
