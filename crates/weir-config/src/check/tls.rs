//! `[client_tls]`, `[server_tls]` and what `[patroni]` says of TLS: modes and the files they need. Parses no certificate; that is TLS's own business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::named::sections;
use crate::key::Family;
use crate::model::{
    CertificateFiles, ChannelBinding, ClientTls, PatroniTls, SYSTEM_AUTHORITIES, ServerTls, TlsMode, TlsOffer,
};
use crate::problem::Wrong;
use crate::reader::{Reader, Secrecy};
use crate::tls;
use crate::value::{CHANNEL_BINDINGS, TLS_MODES, Value, text, truth, word};

pub(super) fn check_client_tls(reader: &mut Reader<'_>) -> ClientTls {
    let mode = reader.required("client_tls.mode", word(TLS_MODES));
    let tls = ClientTls {
        mode,
        cert_file: pem(reader, "client_tls.cert_file", Pem::Certificate),
        key_file: pem(reader, "client_tls.key_file", Pem::Key),
        ca_file: pem(reader, "client_tls.ca_file", Pem::Certificate),
        crl_file: pem(reader, "client_tls.crl_file", Pem::Revocations),
        certificates: check_certificates(reader),
        offer: tls_offer(reader, "client_tls"),
    };
    reader.optional("client_tls.dheparams", tls::dheparams);
    let off = mode == TlsMode::Disable;
    for key in ["client_tls.cert_file", "client_tls.key_file"] {
        if !off && !reader.is_given(key) {
            let what = format!("{} needs a certificate and its key", shown_mode(mode));
            reader.complain(
                key,
                Wrong::new(what, "name the PEM file (options --client-tls-cert, --client-tls-key)"),
            );
        }
    }
    need_authority(reader, "client_tls.ca_file", mode, "--client-tls-ca");
    // An HBA file may ask for certificates whatever the mode.
    let is_checked = reader.is_given("client_tls.ca_file");
    warn_if_nobody_is_checked(reader, "client_tls", is_checked);
    if off && tls.cert_file.is_some() {
        reader.warn(
            "client_tls.cert_file is given but client_tls.mode is \"disable\": clients cannot use TLS; \
             set the mode to \"prefer\" or \"require\"",
        );
    }
    tls
}

/// `[certificates.NAME]`. Whose certificate it is stands in the certificate.
fn check_certificates(reader: &mut Reader<'_>) -> BTreeMap<String, CertificateFiles> {
    let mut certificates = BTreeMap::new();
    for (name, _) in sections(reader, Family::Certificates) {
        let path = format!("certificates.{name}");
        let cert_file = pem(reader, &format!("{path}.cert_file"), Pem::Certificate);
        let key_file = pem(reader, &format!("{path}.key_file"), Pem::Key);
        if let (Some(cert_file), Some(key_file)) = (cert_file, key_file) {
            certificates.insert(name, CertificateFiles { cert_file, key_file });
        }
        need_both_halves(reader, &format!("{path}."));
    }
    certificates
}

pub(super) fn check_server_tls(reader: &mut Reader<'_>) -> ServerTls {
    let tls = ServerTls {
        mode: reader.required("server_tls.mode", word(TLS_MODES)),
        ca_file: authorities(reader, "server_tls.ca_file"),
        crl_file: pem(reader, "server_tls.crl_file", Pem::Revocations),
        cert_file: pem(reader, "server_tls.cert_file", Pem::Certificate),
        key_file: pem(reader, "server_tls.key_file", Pem::Key),
        channel_binding: reader.required("server_tls.channel_binding", word(CHANNEL_BINDINGS)),
        offer: tls_offer(reader, "server_tls"),
    };
    need_authority(reader, "server_tls.ca_file", tls.mode, "--server-tls-ca");
    warn_if_nobody_is_checked(reader, "server_tls", tls.mode >= TlsMode::VerifyCa);
    need_both_halves(reader, "server_tls.");
    check_together(reader, "server_tls.", &tls);
    tls
}

/// What a database says of its own; the rest is as for all.
pub(super) fn check_database_tls(
    reader: &mut Reader<'_>,
    database: &str,
    general: &ServerTls,
) -> Option<Box<ServerTls>> {
    let prefix = format!("{database}.server_tls_");
    let key = |name: &str| format!("{prefix}{name}");
    if !reader.settings.items.keys().any(|path| path.starts_with(&prefix)) {
        return None;
    }
    let own = [pem(reader, &key("cert_file"), Pem::Certificate), pem(reader, &key("key_file"), Pem::Key)];
    need_both_halves(reader, &prefix);
    let [cert_file, key_file] = match own {
        [None, None] => [general.cert_file.clone(), general.key_file.clone()],
        own => own,
    };
    let tls = ServerTls {
        mode: reader.optional(&key("mode"), word(TLS_MODES)).unwrap_or(general.mode),
        ca_file: authorities(reader, &key("ca_file")).or_else(|| general.ca_file.clone()),
        crl_file: pem(reader, &key("crl_file"), Pem::Revocations).or_else(|| general.crl_file.clone()),
        cert_file,
        key_file,
        channel_binding: reader
            .optional(&key("channel_binding"), word(CHANNEL_BINDINGS))
            .unwrap_or(general.channel_binding),
        offer: general.offer.clone(),
    };
    if tls.ca_file.is_none() {
        need_authority(reader, &key("ca_file"), tls.mode, "--server-tls-ca");
    }
    check_together(reader, &prefix, &tls);
    Some(Box::new(tls))
}

/// What cannot hold at once.
fn check_together(reader: &mut Reader<'_>, prefix: &str, tls: &ServerTls) {
    if tls.mode == TlsMode::VerifyCa && tls.ca_file.as_deref() == Some(Path::new(SYSTEM_AUTHORITIES)) {
        let what = "anybody can have a certificate of the system's authorities, made out to some name";
        let wrong = Wrong::new(what, "set mode to \"verify-full\"");
        reader.complain(&format!("{prefix}ca_file"), wrong);
    }
    if tls.channel_binding == ChannelBinding::Require && tls.mode < TlsMode::Require {
        let what = "there is nothing to bind to without TLS";
        let wrong = Wrong::new(what, "set mode to \"require\" or more");
        reader.complain(&format!("{prefix}channel_binding"), wrong);
    }
}

pub(super) fn check_patroni_tls(reader: &mut Reader<'_>, urls: &[String]) -> PatroniTls {
    let tls = PatroniTls {
        ca_file: authorities(reader, "patroni.ca_file"),
        cert_file: pem(reader, "patroni.cert_file", Pem::Certificate),
        key_file: pem(reader, "patroni.key_file", Pem::Key),
        server_name: reader.optional("patroni.server_name", server_name),
        insecure: reader.required("patroni.insecure", truth),
    };
    need_both_halves(reader, "patroni.");
    let is_encrypted = urls.iter().any(|url| url.starts_with("https:"));
    if tls.insecure {
        reader.warn(
            "patroni.insecure is true: whoever answers in a member's place decides where clients' statements go; \
             name the authorities in patroni.ca_file instead",
        );
    } else if is_encrypted && !reader.is_given("patroni.ca_file") {
        let what = "https needs the authorities that sign the REST API's certificates";
        let remedy = "name their PEM file as patroni.ca_file, or \"system\" for those that the system trusts";
        reader.complain("patroni.urls", Wrong::new(what, remedy));
    }
    tls
}

/// A name that can stand in a certificate. Whether it is a good one is TLS's business.
fn server_name(value: &Value) -> Result<String, Wrong> {
    let written = text(value)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if written.is_empty() || !written.bytes().all(is_name) {
        let what = format!("{written:?} is neither a host name nor an address");
        return Err(Wrong::new(what, "write the name in the certificates, such as \"patroni.example.com\""));
    }
    Ok(written)
}

/// A file of authorities, or the word for the system's own.
fn authorities(reader: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
    match reader.settings.items.get(key).map(|item| &item.value) {
        Some(Value::Text(word)) if word == SYSTEM_AUTHORITIES => Some(PathBuf::from(word)),
        Some(_) | None => pem(reader, key, Pem::Certificate),
    }
}

fn tls_offer(reader: &mut Reader<'_>, section: &str) -> TlsOffer {
    let (v1_2, v1_3) = reader.required(&format!("{section}.protocols"), tls::protocols);
    let sane = TlsOffer::default();
    TlsOffer {
        v1_2,
        v1_3,
        ciphers: reader.required(&format!("{section}.ciphers"), tls::ciphers),
        tls13_ciphers: reader
            .optional(&format!("{section}.tls13_ciphers"), tls::tls13_ciphers)
            .unwrap_or(sane.tls13_ciphers),
        groups: reader.optional(&format!("{section}.ecdhcurve"), tls::groups).unwrap_or(sane.groups),
    }
}

fn need_authority(reader: &mut Reader<'_>, key: &str, mode: TlsMode, option: &str) {
    if mode >= TlsMode::VerifyCa && !reader.is_given(key) {
        let what =
            format!("{} needs the authorities that sign the other side's certificates", shown_mode(mode));
        reader.complain(key, Wrong::new(what, format!("name their PEM file (option {option})")));
    }
}

/// A certificate without its key, or the other way round. `prefix` stands in front of both names.
fn need_both_halves(reader: &mut Reader<'_>, prefix: &str) {
    let [certificate, key] = ["cert_file", "key_file"].map(|name| format!("{prefix}{name}"));
    if reader.is_given(&certificate) != reader.is_given(&key) {
        let wrong = Wrong::new(
            "a certificate and its key belong together",
            "give both cert_file and key_file, or neither",
        );
        reader.complain(if reader.is_given(&certificate) { &certificate } else { &key }, wrong);
    }
}

/// A list of revoked certificates is a false comfort where none is looked at.
fn warn_if_nobody_is_checked(reader: &mut Reader<'_>, section: &str, is_checked: bool) {
    if reader.is_given(&format!("{section}.crl_file")) && !is_checked {
        reader.warn(format!(
            "{section}.crl_file is given but no certificate is checked: set {section}.mode to \"verify-ca\" or \
             \"verify-full\" and name a ca_file"
        ));
    }
}

fn shown_mode(mode: TlsMode) -> String {
    format!("mode {:?}", crate::value::name_of(TLS_MODES, &mode))
}

/// What a PEM file has to hold (RFC 7468).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pem {
    Certificate,
    Key,
    Revocations,
}

/// A PEM file's path, after a look whether the right kind of thing is in it. Parsing it is TLS's business.
fn pem(reader: &mut Reader<'_>, key: &str, kind: Pem) -> Option<PathBuf> {
    let path = reader.path(key)?;
    let (secrecy, label, noun) = match kind {
        Pem::Certificate => (Secrecy::Public, "CERTIFICATE-----", "certificate"),
        Pem::Key => (Secrecy::Secret, "PRIVATE KEY-----", "private key"),
        Pem::Revocations => (Secrecy::Public, "X509 CRL-----", "list of revoked certificates"),
    };
    let contents = reader.contents(key, &path, secrecy)?;
    let found = String::from_utf8_lossy(contents.expose())
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(label));
    if !found {
        let what = format!("{} holds no PEM {noun}", path.display());
        reader.complain(key, Wrong::new(what, format!("name a file with a line -----BEGIN ... {label}")));
    }
    Some(path)
}
