//! TLS settings: what holds, and how OpenSSL's and PgBouncer's words for protocols, ciphers and groups are understood.
//! What the TLS library cannot do is refused; words that only ask for something sane are taken. Knows no key by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::model::{ANY_DATABASE, Config, Database};
use crate::problem::Wrong;
use crate::value::{Value, text};

/// How much TLS a side wants; names as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the other side insists.
    Allow,
    /// If the other side can.
    Prefer,
    /// Always, certificates unchecked.
    Require,
    /// Always, certificate signed by a known authority.
    VerifyCa,
    /// Always, and a server's certificate names its host; for clients the same as [`TlsMode::VerifyCa`], as in
    /// PgBouncer.
    VerifyFull,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct ClientTls {
    /// What is asked of clients.
    pub mode: TlsMode,
    /// PEM private key.
    pub key_file: Option<PathBuf>,
    /// PEM certificate chain.
    pub cert_file: Option<PathBuf>,
    /// PEM authorities that sign client certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM lists of the client certificates that those authorities have taken back.
    pub crl_file: Option<PathBuf>,
    /// Further certificates by the names of their sections, for clients that ask for the host names in them.
    pub certificates: BTreeMap<String, CertificateFiles>,
    /// What may be agreed upon.
    pub offer: TlsOffer,
}

/// Whether a SCRAM login proves that nobody stands in between (RFC 5929); words as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never: for a proxy in between that ends TLS by itself.
    Disable,
    /// If the server can.
    Prefer,
    /// A server that cannot is refused.
    Require,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM certificate chain.
    pub cert_file: PathBuf,
    /// PEM private key.
    pub key_file: PathBuf,
}

/// TLS towards PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// What is asked of servers.
    pub mode: TlsMode,
    /// PEM authorities that sign server certificates, or [`SYSTEM_AUTHORITIES`].
    pub ca_file: Option<PathBuf>,
    /// PEM lists of the server certificates that those authorities have taken back.
    pub crl_file: Option<PathBuf>,
    /// PEM private key of weir's own certificate.
    pub key_file: Option<PathBuf>,
    /// PEM certificate that weir shows to servers.
    pub cert_file: Option<PathBuf>,
    /// Whether logins are tied to the certificate that the server shows.
    pub channel_binding: ChannelBinding,
    /// What may be agreed upon.
    pub offer: TlsOffer,
}

/// TLS towards Patroni's REST API, where its URL begins with `https`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatroniTls {
    /// PEM authorities that sign the APIs' certificates, or [`SYSTEM_AUTHORITIES`].
    pub ca_file: Option<PathBuf>,
    /// PEM certificate that weir shows, for `restapi.verify_client`.
    pub cert_file: Option<PathBuf>,
    /// PEM private key of that certificate.
    pub key_file: Option<PathBuf>,
    /// The host name or address that every API's certificate is made out to; otherwise the one in its URL.
    pub server_name: Option<String>,
    /// Takes any certificate.
    pub insecure: bool,
}

/// In place of a file: the authorities that the system trusts, as libpq's `sslrootcert=system`.
pub const SYSTEM_AUTHORITIES: &str = "system";

impl Config {
    /// What holds for TLS to the servers of a database.
    #[must_use]
    pub fn tls_to(&self, database: &str) -> &ServerTls {
        self.database(database).and_then(|own| own.server_tls.as_deref()).unwrap_or(&self.server_tls)
    }

    /// The name of the section that holds for a database: its own, or the one for all that have none.
    #[must_use]
    pub fn section_of<'a>(&self, database: &'a str) -> &'a str {
        if self.databases.contains_key(database) { database } else { ANY_DATABASE }
    }

    /// Every section of `[databases]` with its name.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Database)> {
        let named = self.databases.iter().map(|(name, database)| (name.as_str(), database));
        named.chain(self.any_database.iter().map(|any| (ANY_DATABASE, any)))
    }
}

/// What a TLS handshake may agree upon. Lists are in the order of preference and never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOffer {
    /// Whether TLS 1.2 will do.
    pub v1_2: bool,
    /// Whether TLS 1.3 will do. One of the two is allowed at least.
    pub v1_3: bool,
    /// Cipher suites for TLS 1.2.
    pub ciphers: Vec<TlsCipher>,
    /// Cipher suites for TLS 1.3.
    pub tls13_ciphers: Vec<Tls13Cipher>,
    /// Groups for the key exchange.
    pub groups: Vec<TlsGroup>,
}

impl Default for TlsOffer {
    fn default() -> Self {
        Self {
            v1_2: true,
            v1_3: true,
            ciphers: TlsCipher::ALL.to_vec(),
            tls13_ciphers: Tls13Cipher::ALL.to_vec(),
            groups: TlsGroup::ALL.to_vec(),
        }
    }
}

impl TlsOffer {
    /// Versions with commas; `secure` for both.
    pub(crate) fn shown_protocols(&self) -> String {
        match (self.v1_2, self.v1_3) {
            (true, false) => "tlsv1.2".to_owned(),
            (false, true) => "tlsv1.3".to_owned(),
            (_, _) => "secure".to_owned(),
        }
    }

    /// Suites with colons; `default` for all.
    pub(crate) fn shown_ciphers(&self) -> String {
        let names: Vec<_> = self.ciphers.iter().map(|cipher| cipher.name()).collect();
        if self.ciphers == TlsCipher::ALL { "default".to_owned() } else { names.join(":") }
    }

    /// Suites with colons; nothing for all.
    pub(crate) fn shown_tls13_ciphers(&self) -> String {
        let names: Vec<_> = self.tls13_ciphers.iter().map(|cipher| cipher.name()).collect();
        if self.tls13_ciphers == Tls13Cipher::ALL { String::new() } else { names.join(":") }
    }

    /// Groups with colons; `auto` for all.
    pub(crate) fn shown_groups(&self) -> String {
        let names: Vec<_> = self.groups.iter().map(|group| group.name()).collect();
        if self.groups == TlsGroup::ALL { "auto".to_owned() } else { names.join(":") }
    }
}

/// A cipher suite of TLS 1.2 that keeps past sessions secret and is authenticated (RFC 5289, RFC 7905).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsCipher {
    /// ECDHE-ECDSA-AES256-GCM-SHA384.
    EcdsaAes256,
    /// ECDHE-ECDSA-AES128-GCM-SHA256.
    EcdsaAes128,
    /// ECDHE-ECDSA-CHACHA20-POLY1305.
    EcdsaChaCha20,
    /// ECDHE-RSA-AES256-GCM-SHA384.
    RsaAes256,
    /// ECDHE-RSA-AES128-GCM-SHA256.
    RsaAes128,
    /// ECDHE-RSA-CHACHA20-POLY1305.
    RsaChaCha20,
}

/// A cipher suite of TLS 1.3 (RFC 8446, appendix B.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls13Cipher {
    /// TLS_AES_256_GCM_SHA384.
    Aes256,
    /// TLS_AES_128_GCM_SHA256.
    Aes128,
    /// TLS_CHACHA20_POLY1305_SHA256.
    ChaCha20,
}

/// A group for the key exchange (RFC 8446, section 4.2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsGroup {
    /// X25519MLKEM768: holds against quantum computers, too.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// secp256r1, which OpenSSL calls prime256v1.
    P256,
    /// secp384r1.
    P384,
}

impl TlsCipher {
    /// All of them, the strongest first.
    pub const ALL: &[Self] = &[
        Self::EcdsaAes256,
        Self::EcdsaAes128,
        Self::EcdsaChaCha20,
        Self::RsaAes256,
        Self::RsaAes128,
        Self::RsaChaCha20,
    ];

    /// OpenSSL's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EcdsaAes256 => "ECDHE-ECDSA-AES256-GCM-SHA384",
            Self::EcdsaAes128 => "ECDHE-ECDSA-AES128-GCM-SHA256",
            Self::EcdsaChaCha20 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            Self::RsaAes256 => "ECDHE-RSA-AES256-GCM-SHA384",
            Self::RsaAes128 => "ECDHE-RSA-AES128-GCM-SHA256",
            Self::RsaChaCha20 => "ECDHE-RSA-CHACHA20-POLY1305",
        }
    }
}

impl Tls13Cipher {
    /// All of them, the strongest first.
    pub const ALL: &[Self] = &[Self::Aes256, Self::Aes128, Self::ChaCha20];

    /// The name in RFC 8446, which OpenSSL uses as well.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes256 => "TLS_AES_256_GCM_SHA384",
            Self::Aes128 => "TLS_AES_128_GCM_SHA256",
            Self::ChaCha20 => "TLS_CHACHA20_POLY1305_SHA256",
        }
    }
}

impl TlsGroup {
    /// All of them, in the order in which they are offered.
    pub const ALL: &[Self] = &[Self::X25519MlKem768, Self::X25519, Self::P256, Self::P384];

    /// OpenSSL's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519MlKem768 => "X25519MLKEM768",
            Self::X25519 => "X25519",
            Self::P256 => "prime256v1",
            Self::P384 => "secp384r1",
        }
    }

    /// The group of this name, as OpenSSL or an RFC spells it.
    fn of(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "x25519mlkem768" => Some(Self::X25519MlKem768),
            "x25519" => Some(Self::X25519),
            "prime256v1" | "secp256r1" | "p-256" => Some(Self::P256),
            "secp384r1" | "p-384" => Some(Self::P384),
            _ => None,
        }
    }
}

/// `secure`, `all`, `legacy`, or versions with commas: whether TLS 1.2 and whether TLS 1.3 will do. Versions below are
/// not spoken; a list that names one besides is taken without it, as PgBouncer's `all` means "whatever is there".
pub(crate) fn protocols(value: &Value) -> Result<(bool, bool), Wrong> {
    let remedy = "write \"secure\", or one or both of \"tlsv1.2\" and \"tlsv1.3\" with a comma";
    let (mut v1_2, mut v1_3) = (false, false);
    let written = text(value)?;
    for word in written.split([',', ':']).map(str::trim) {
        match word.to_ascii_lowercase().as_str() {
            "secure" | "default" | "all" | "legacy" => (v1_2, v1_3) = (true, true),
            "tlsv1.2" => v1_2 = true,
            "tlsv1.3" => v1_3 = true,
            "tlsv1.0" | "tlsv1.1" => {}
            _ => return Err(Wrong::new(format!("{word:?} is not a TLS version"), remedy)),
        }
    }
    if !v1_2 && !v1_3 {
        return Err(Wrong::new(format!("{written:?}: TLS below 1.2 is broken and not spoken"), remedy));
    }
    Ok((v1_2, v1_3))
}

/// Cipher suites of TLS 1.2: a word that asks for a sane choice, or names with colons. Of an OpenSSL list the suites that
/// exist here are taken, in its order, as OpenSSL does with what it does not know; a list without any is refused.
pub(crate) fn ciphers(value: &Value) -> Result<Vec<TlsCipher>, Wrong> {
    let written = text(value)?;
    let mut chosen: Vec<TlsCipher> = Vec::new();
    for word in words(&written) {
        if SANE_CIPHERS.contains(&word.to_ascii_lowercase().as_str()) {
            chosen.extend(TlsCipher::ALL);
        } else if word.starts_with(['!', '-', '+', '@']) {
            // What OpenSSL lists leave out or move to the end (!aNULL, !3DES, @STRENGTH) does not exist here.
            chosen.retain(|cipher| word.starts_with(['+', '@']) || cipher.name() != &word[1..]);
        } else {
            chosen
                .extend(TlsCipher::ALL.iter().filter(|cipher| cipher.name() == word || has(**cipher, word)));
        }
    }
    unique(chosen, || {
        let names: Vec<_> = TlsCipher::ALL.iter().map(|cipher| cipher.name()).collect();
        (written.clone(), format!("write \"default\", or some of {} with colons", names.join(":")))
    })
}

/// Cipher suites of TLS 1.3, names with colons.
pub(crate) fn tls13_ciphers(value: &Value) -> Result<Vec<Tls13Cipher>, Wrong> {
    let written = text(value)?;
    let named = |word: &str| Tls13Cipher::ALL.iter().find(|cipher| cipher.name() == word).copied();
    let chosen: Vec<_> = words(&written).filter_map(named).collect();
    unique(chosen, || {
        let names: Vec<_> = Tls13Cipher::ALL.iter().map(|cipher| cipher.name()).collect();
        (written.clone(), format!("write some of {} with colons, or leave it out", names.join(":")))
    })
}

/// Groups for the key exchange: `auto`, or names with colons.
pub(crate) fn groups(value: &Value) -> Result<Vec<TlsGroup>, Wrong> {
    let remedy = "write \"auto\", or some of X25519MLKEM768:X25519:prime256v1:secp384r1 with colons";
    let written = text(value)?;
    if written.eq_ignore_ascii_case("auto") {
        return Ok(TlsGroup::ALL.to_vec());
    }
    if written.eq_ignore_ascii_case("none") {
        return Err(Wrong::new(
            "without a key exchange of elliptic curves there is no cipher suite left",
            remedy,
        ));
    }
    let mut chosen = Vec::new();
    for word in words(&written) {
        match TlsGroup::of(word) {
            Some(group) if chosen.contains(&group) => {}
            Some(group) => chosen.push(group),
            None => return Err(Wrong::new(format!("{word:?} is not a group that weir has"), remedy)),
        }
    }
    Ok(chosen)
}

/// PgBouncer's setting for key exchanges without elliptic curves, which do not exist here: `auto` and `none` ask for
/// nothing that is missing.
pub(crate) fn dheparams(value: &Value) -> Result<(), Wrong> {
    let written = text(value)?;
    match written.to_ascii_lowercase().as_str() {
        "auto" | "none" => Ok(()),
        _ => Err(Wrong::new(
            format!("{written:?}: there is no DHE key exchange, only ECDHE"),
            "write \"auto\", or leave it out",
        )),
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split([':', ',', ' ']).map(str::trim).filter(|word| !word.is_empty())
}

/// Whether an OpenSSL keyword such as `AESGCM` or `ECDHE+AESGCM` names a group of suites with this one in it.
fn has(cipher: TlsCipher, keyword: &str) -> bool {
    keyword.split('+').all(|part| match part {
        "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "TLSv1.2" => true,
        "AESGCM" | "AES" => cipher.name().contains("-AES"),
        "AES128" => cipher.name().contains("-AES128"),
        "AES256" => cipher.name().contains("-AES256"),
        "CHACHA20" => cipher.name().contains("-CHACHA20"),
        "ECDSA" | "aECDSA" => cipher.name().starts_with("ECDHE-ECDSA"),
        "RSA" | "aRSA" => keyword.contains('+') && cipher.name().starts_with("ECDHE-RSA"),
        _ => false,
    })
}

fn unique<T: PartialEq>(chosen: Vec<T>, complaint: impl Fn() -> (String, String)) -> Result<Vec<T>, Wrong> {
    let mut kept: Vec<T> = Vec::new();
    for one in chosen {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    if kept.is_empty() {
        let (written, remedy) = complaint();
        return Err(Wrong::new(format!("{written:?} names no cipher suite that weir has"), remedy));
    }
    Ok(kept)
}

/// Words that ask for a sane choice rather than for something in particular: PgBouncer's shortcuts and OpenSSL's.
const SANE_CIPHERS: &[&str] =
    &["default", "secure", "compat", "legacy", "insecure", "all", "normal", "fast", "high", "medium", "auto"];

#[cfg(test)]
mod tests {
    //! Words for protocols, ciphers and groups.

    use super::{Tls13Cipher, TlsCipher, TlsGroup, ciphers, dheparams, groups, protocols, tls13_ciphers};
    use crate::value::Value;

    fn written(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn versions_below_1_2_are_left_out_and_never_alone() {
        for (text, expected) in [
            ("secure", Some((true, true))),
            ("all", Some((true, true))),
            ("tlsv1.0,tlsv1.1,tlsv1.2", Some((true, false))),
            ("tlsv1.3", Some((false, true))),
            ("tlsv1.2, TLSv1.3", Some((true, true))),
            ("tlsv1.0", None),
            ("sslv3", None),
            ("", None),
        ] {
            assert_eq!(protocols(&written(text)).ok(), expected, "{text}");
        }
    }

    #[test]
    fn cipher_lists_keep_what_exists_in_their_order() {
        use TlsCipher::{EcdsaAes128, EcdsaAes256, EcdsaChaCha20, RsaAes128, RsaAes256, RsaChaCha20};
        let all = TlsCipher::ALL.to_vec();
        for (text, expected) in [
            ("default", Some(all.clone())),
            ("HIGH:!aNULL", Some(all.clone())),
            ("HIGH:MEDIUM:+3DES:!aNULL", Some(all)),
            ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", Some(vec![RsaAes128, RsaAes256])),
            ("AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256", Some(vec![RsaAes128])),
            ("ECDHE+CHACHA20", Some(vec![EcdsaChaCha20, RsaChaCha20])),
            ("ECDHE+AESGCM+ECDSA", Some(vec![EcdsaAes256, EcdsaAes128])),
            (
                "high:-ECDHE-RSA-CHACHA20-POLY1305:!ECDHE-ECDSA-CHACHA20-POLY1305:-x",
                Some(vec![EcdsaAes256, EcdsaAes128, RsaAes256, RsaAes128]),
            ),
            ("RC4-SHA", None),
            ("!aNULL", None),
        ] {
            assert_eq!(ciphers(&written(text)).ok(), expected, "{text}");
        }
        assert_eq!(tls13_ciphers(&written("TLS_AES_128_GCM_SHA256")).ok(), Some(vec![Tls13Cipher::Aes128]));
        assert!(tls13_ciphers(&written("TLS_SM4_GCM_SM3")).is_err());
    }

    #[test]
    fn groups_are_known_by_their_openssl_names() {
        assert_eq!(groups(&written("auto")).ok(), Some(TlsGroup::ALL.to_vec()));
        assert_eq!(groups(&written("prime256v1:X25519")).ok(), Some(vec![TlsGroup::P256, TlsGroup::X25519]));
        assert!(groups(&written("brainpoolP256r1")).is_err());
        assert!(groups(&written("none")).is_err());
        assert!(dheparams(&written("auto")).is_ok() && dheparams(&written("legacy")).is_err());
    }
}
