//! Clients with certificates: revoked ones, intermediate authorities, older sessions; and weir's own, of which it has
//! several. The client's side is weir's as well, towards servers.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SigningKey,
    date_time_ymd,
};
use rustls::HandshakeKind;
use weir_config::{CertificateFiles, ClientTls, ServerTls, TlsMode};

use super::super::clients::TowardsClients;
use super::super::{BrokenTls, TlsBundle, TlsStream};
use super::{Authority, meet, server_off};

/// A root, an authority below it that signs clients' certificates, and what both have taken back.
struct House {
    root: Authority,
    below: CertifiedIssuer<'static, KeyPair>,
}

/// What is on a list of revoked certificates.
#[derive(Clone, Copy)]
struct Listed<'a> {
    serials: &'a [u64],
    year_it_ends: i32,
}

const EMPTY: Listed<'_> = Listed { serials: &[], year_it_ends: 2090 };
const ALICE: u64 = 7;
const BELOW: u64 = 3;

impl House {
    fn new() -> Self {
        let root = Authority::new();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.serial_number = Some(SerialNumber::from(BELOW));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "below");
        let below = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root.issuer).unwrap();
        Self { root, below }
    }

    /// A client of that name; it shows the authority below the root, too.
    fn client(&self, name: &str, serial: u64) -> ServerTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        let leaf = params.signed_by(&key, &self.below).unwrap();
        let cert_file = self.file(&format!("{name}.pem"), &(leaf.pem() + &self.below.pem()));
        let key_file = self.file(&format!("{name}.key"), &key.serialize_pem());
        ServerTls {
            mode: TlsMode::Require,
            cert_file: Some(cert_file),
            key_file: Some(key_file),
            ..server_off()
        }
    }

    /// Lists of the root and of the authority below it.
    fn lists(&self, root: Option<Listed<'_>>, below: Option<Listed<'_>>) -> Option<PathBuf> {
        let root = root.map(|listed| list(listed, &self.root.issuer));
        let below = below.map(|listed| list(listed, &self.below));
        let text: String = root.into_iter().chain(below).collect();
        (!text.is_empty()).then(|| self.file("revoked.pem", &text))
    }

    fn settings(&self, crl_file: Option<PathBuf>) -> ClientTls {
        ClientTls { crl_file, ..self.root.client_side(TlsMode::VerifyFull, "localhost") }
    }

    /// weir's side. Each call is one reading of the files.
    fn weir(&self, crl_file: Option<PathBuf>) -> TlsBundle {
        weir(&self.settings(crl_file))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn list(listed: Listed<'_>, issuer: &Issuer<'_, impl SigningKey>) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(listed.year_it_ends, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: listed.serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

fn weir(settings: &ClientTls) -> TlsBundle {
    TlsBundle::from_settings(settings, &server_off(), false).unwrap()
}

/// A client's side, which remembers its sessions.
fn client(settings: &ServerTls) -> TlsBundle {
    TlsBundle::from_settings(&super::client_off(), settings, false).unwrap()
}

fn enter(client: &TlsBundle, weir: &TlsBundle, host: &str) -> Result<[TlsStream; 2], BrokenTls> {
    meet(client.towards_servers(None).connect(host, Ipv4Addr::LOCALHOST.into())?, *weir.accept().unwrap())
}

/// Both protocols: certificates and tickets are handled by different code in each.
fn both_versions(settings: ServerTls) -> [ServerTls; 2] {
    let (mut older, mut newer) = (settings.clone(), settings);
    (older.offer.v1_3, newer.offer.v1_2) = (false, false);
    [older, newer]
}

// covers: client_tls_ca_file client_tls_crl_file
#[test]
fn who_was_revoked_stays_out_and_is_named() {
    let house = House::new();
    let listed = |serials| Listed { serials, ..EMPTY };
    let overdue = Listed { year_it_ends: 2021, ..EMPTY };
    let refused = |why: &str| Some(format!("(common name \"alice\", serial number 07) is refused: {why}"));
    let unknown = refused("no list of revoked certificates in crl_file is about one of its authorities");
    let late = refused("a list of revoked certificates in crl_file is past its date");
    for (case, root, below, expected) in [
        ("no list", None, None, None),
        ("another one", Some(EMPTY), Some(listed(&[8])), None),
        ("she", Some(EMPTY), Some(listed(&[8, ALICE])), refused("it was revoked")),
        ("her authority", Some(listed(&[BELOW])), Some(EMPTY), refused("it was revoked")),
        ("the wrong list", Some(listed(&[ALICE])), Some(EMPTY), None),
        ("no list of the root", None, Some(EMPTY), unknown.clone()),
        ("no list of her authority", Some(EMPTY), None, unknown),
        ("an old list", Some(EMPTY), Some(overdue), late.clone()),
        ("an old list of the root", Some(overdue), Some(EMPTY), late),
    ] {
        let weir = house.weir(house.lists(root, below));
        for settings in both_versions(house.client("alice", ALICE)) {
            let outcome = enter(&client(&settings), &weir, "localhost");
            match (outcome, &expected) {
                (Ok([_, server]), None) => {
                    assert_eq!(server.shown().common_name.as_deref(), Some("alice"), "{case}");
                }
                (Err(why), Some(expected)) => {
                    assert!(why.to_string().ends_with(expected), "{case}: {why}");
                }
                (outcome, _) => panic!("{case}: {outcome:?}"),
            }
        }
    }
}

// covers: server_tls_crl_file
#[test]
fn a_server_whose_certificate_was_revoked_is_refused() {
    let house = House::new();
    let shown = house.client("server", ALICE);
    let weir = weir(&ClientTls {
        mode: TlsMode::Require,
        cert_file: shown.cert_file,
        key_file: shown.key_file,
        ..super::client_off()
    });
    for (serials, expected) in
        [(&[8][..], None), (&[ALICE][..], Some("the certificate is refused: it was revoked"))]
    {
        let crl_file = house.lists(Some(EMPTY), Some(Listed { serials, ..EMPTY }));
        for settings in both_versions(ServerTls { crl_file, ..house.root.server_side(TlsMode::VerifyCa) }) {
            let outcome = enter(&client(&settings), &weir, "localhost").err().map(|why| why.to_string());
            assert_eq!(outcome.as_deref(), expected);
        }
    }
}

#[test]
fn sessions_are_resumed_until_the_files_are_read_again() {
    let house = House::new();
    for settings in both_versions(house.client("alice", ALICE)) {
        let (weir, alice) = (house.weir(None), client(&settings));
        let kind = |weir: &TlsBundle| {
            let [_, server] = enter(&alice, weir, "localhost").unwrap();
            assert_eq!(server.shown().common_name.as_deref(), Some("alice"), "also from a ticket");
            server.handshake_kind()
        };
        assert_eq!(kind(&weir), Some(HandshakeKind::Full));
        assert_eq!(kind(&weir), Some(HandshakeKind::Resumed));
        // The same files, read again: nobody else may hold the new key.
        let reloaded = house.weir(None);
        assert_eq!(kind(&reloaded), Some(HandshakeKind::Full));
        assert_eq!(kind(&reloaded), Some(HandshakeKind::Resumed));
        // A session skips the look at the certificate: it may not be a way around a new list.
        let listed = Some(Listed { serials: &[ALICE], ..EMPTY });
        let strict = house.weir(house.lists(Some(EMPTY), listed));
        let why = enter(&alice, &strict, "localhost").unwrap_err();
        assert!(why.to_string().contains("it was revoked"), "{why}");
    }
}

#[test]
fn an_older_session_s_certificate_is_looked_at_again() {
    let house = House::new();
    for settings in both_versions(house.client("alice", ALICE)) {
        let (weir, alice) = (house.weir(None), client(&settings));
        enter(&alice, &weir, "localhost").unwrap();
        // As if what makes her certificate bad had come with time alone: the same key for tickets, another judgement.
        let listed = Some(Listed { serials: &[ALICE], ..EMPTY });
        let crl_file = house.lists(Some(EMPTY), listed);
        let later = TowardsClients::load(&house.settings(crl_file), false, &mut Vec::new());
        let mut later = later.unwrap().unwrap();
        later.config = Arc::clone(&weir.towards_clients.as_ref().unwrap().config);
        let later = TlsBundle { towards_clients: Some(Arc::new(later)), ..weir };
        let why = enter(&alice, &later, "localhost").unwrap_err();
        assert!(why.to_string().contains("(common name \"alice\", serial number 07)"), "{why}");
    }
}

/// A certificate for these names, in files of its own.
fn own(
    house: &House,
    file: &str,
    names: &[&str],
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> CertificateFiles {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    CertificateFiles {
        cert_file: house.file(&format!("{file}.pem"), &leaf.pem()),
        key_file: house.file(&format!("{file}.key"), &key.serialize_pem()),
    }
}

#[test]
fn the_certificate_follows_the_name_and_the_binding_follows_the_certificate() {
    let house = House::new();
    let (sha256, sha384) = (&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384);
    let default = own(&house, "default", &["db.example.com", "*.example.net"], sha256);
    let further = [
        ("shop", own(&house, "shop", &["shop.example.com", "db.example.com"], sha384)),
        ("wild", own(&house, "wild", &["*.example.com"], sha256)),
        ("young", own(&house, "young", &["young.example.org"], &rcgen::PKCS_ED25519)),
        ("nobody", own(&house, "nobody", &[], sha256)),
    ];
    let settings = ClientTls {
        mode: TlsMode::Require,
        cert_file: Some(default.cert_file.clone()),
        key_file: Some(default.key_file.clone()),
        certificates: further.iter().map(|(name, files)| ((*name).to_owned(), files.clone())).collect(),
        ..super::client_off()
    };
    let weir = weir(&settings);
    let of = |files: &CertificateFiles| {
        let pem = std::fs::read_to_string(&files.cert_file).unwrap();
        let der: rustls::pki_types::CertificateDer<'_> =
            rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
        super::end_point::hash(&der)
    };
    let [shop, wild, young] = [0, 1, 2].map(|at| of(&further[at].1));
    assert_eq!(young, None, "Ed25519 names no digest");
    for (host, expected) in [
        ("shop.example.com", &shop),
        ("SHOP.example.com", &shop),
        ("db.example.com", &of(&default)),
        ("any.example.com", &wild),
        ("two.labels.example.com", &of(&default)),
        ("example.com", &of(&default)),
        ("any.example.net", &of(&default)),
        ("young.example.org", &young),
        ("elsewhere.example.org", &of(&default)),
        ("127.0.0.1", &of(&default)),
    ] {
        for settings in both_versions(ServerTls { mode: TlsMode::Require, ..server_off() }) {
            let client = client(&settings);
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let [seen, server] = enter(&client, &weir, host).unwrap();
                assert_eq!(server.handshake_kind(), Some(kind), "{host}");
                assert_eq!(&seen.peer_end_point(), expected, "{host} {kind:?}");
                assert_eq!(server.shown().end_point, seen.peer_end_point(), "{host} {kind:?}");
            }
        }
    }
}
