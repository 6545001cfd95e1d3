//! The way to a REST API, against a TLS server of its own: who is believed, by which name, and what each side's refusal
//! looks like to people.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use weir_config::{PatroniTls, TlsOffer};

use super::super::files::{read_chain, read_pair};
use super::super::offer;
use super::super::patroni::{TowardsPatroni, fault};
use super::Authority;

/// Answers one connection with a word. It shows `shown` and wants a certificate that `wanted` has signed.
async fn api(shown: (PathBuf, PathBuf), wanted: Option<&Authority>) -> TcpStream {
    let provider = offer::provider(&TlsOffer::default());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match wanted {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(read_chain("authority", &authority.ca_file()).unwrap());
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let pair = read_pair(["certificate", "key"], &shown.0, &shown.1, &provider).unwrap();
    let config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            stream.write_all(b"well").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    TcpStream::connect(address).await.unwrap()
}

/// What comes of asking it by `host`.
async fn ask(settings: &PatroniTls, api: TcpStream, host: &str) -> Result<String, String> {
    let tls = TowardsPatroni::load(settings, &mut Vec::new()).unwrap().expect("somebody to trust");
    let mut stream = tls.connect(api, host).await.map_err(|why| why.to_string())?;
    let mut answer = String::new();
    match stream.read_to_string(&mut answer).await {
        Ok(_) => Ok(answer),
        Err(error) => Err(fault(&error).expect("a fault of TLS").to_string()),
    }
}

// covers: patroni_server_name patroni_insecure
#[tokio::test]
async fn a_rest_api_is_believed_by_its_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let shown = authority.leaf("patroni.internal");
    let own = stranger.leaf("weir");
    let trusting = PatroniTls { ca_file: Some(authority.ca_file()), ..PatroniTls::default() };
    let named = PatroniTls { server_name: Some("patroni.internal".to_owned()), ..trusting.clone() };
    let mistaken = PatroniTls { ca_file: Some(stranger.ca_file()), ..named.clone() };
    let insecure = PatroniTls { insecure: true, ..PatroniTls::default() };
    let certified = PatroniTls { cert_file: Some(own.0), key_file: Some(own.1), ..named.clone() };
    for (case, settings, host, wanted, expected) in [
        ("by the host's name", &trusting, "patroni.internal", None, Ok("well")),
        ("by another name", &trusting, "127.0.0.1", None, Err("not valid for name")),
        ("by the name that is set", &named, "127.0.0.1", None, Ok("well")),
        ("another authority's", &mistaken, "127.0.0.1", None, Err("the certificate is refused: ")),
        ("whatever it is", &insecure, "127.0.0.1", None, Ok("well")),
        (
            "without the certificate that it wants",
            &named,
            "127.0.0.1",
            Some(&stranger),
            Err("Patroni refuses the handshake (CertificateRequired)"),
        ),
        ("with it", &certified, "127.0.0.1", Some(&stranger), Ok("well")),
        (
            "with the wrong one",
            &certified,
            "127.0.0.1",
            Some(&authority),
            Err("Patroni refuses the handshake ("),
        ),
    ] {
        let seen = ask(settings, api(shown.clone(), wanted).await, host).await;
        match (&seen, expected) {
            (Ok(seen), Ok(expected)) => assert_eq!(seen, expected, "{case}"),
            (Err(seen), Err(expected)) => assert!(seen.contains(expected), "{case}: {seen}"),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{case}: {seen:?}"),
        }
    }
    assert!(TowardsPatroni::load(&PatroniTls::default(), &mut Vec::new()).unwrap().is_none());
}
