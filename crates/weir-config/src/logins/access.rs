//! The files that say who may log in from where (`auth.hba_file`) and under which other name (`auth.ident_file`). What
//! stands in them is understood by `weir-auth`; here they are found, read, and their problems given a place.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_auth::{Authority, HbaMethod, HbaProblem, HbaRules, IdentMaps, PAM_SERVICE, Surroundings};

use crate::model::{AuthMethod, TlsMode};
use crate::problem::{Place, Problem, Wrong};
use crate::reader::{Files, Reader, text_of};
use crate::value::{TLS_MODES, text, word};

pub(super) fn check_ident(reader: &mut Reader<'_>, is_asked: bool) -> (Option<PathBuf>, IdentMaps) {
    let Some((file, text)) = read(reader, "auth.ident_file") else { return (None, IdentMaps::default()) };
    let maps = IdentMaps::parse(&file, &text, &Around { files: reader.files, is_asked }).unwrap_or_else(
        |problems| {
            note(reader, problems);
            IdentMaps::default()
        },
    );
    (Some(file), maps)
}

/// `is_asked`: somebody is named to ask PostgreSQL about users.
pub(super) fn check_hba(
    reader: &mut Reader<'_>,
    method: AuthMethod,
    maps: &IdentMaps,
    is_asked: bool,
) -> (Option<PathBuf>, HbaRules) {
    if method != AuthMethod::Hba {
        // Nothing would use the rules, and PgBouncer does not look at them either.
        if method == AuthMethod::Cert {
            check_certificates(reader, method);
        }
        return (reader.path("auth.hba_file"), HbaRules::default());
    }
    let found = read(reader, "auth.hba_file");
    if found.is_none() && !reader.is_given("auth.hba_file") {
        let wrong = Wrong::new("type \"hba\" needs the file with the rules", "name it as auth.hba_file");
        reader.complain("auth.type", wrong);
    }
    let (file, rules) = match found {
        None => (None, HbaRules::default()),
        Some((file, text)) => {
            let rules = HbaRules::parse(&file, &text, maps, &Around { files: reader.files, is_asked });
            let rules = rules.unwrap_or_else(|problems| {
                note(reader, problems);
                HbaRules::default()
            });
            (Some(file), rules)
        }
    };
    if rules.asks_for_certificates() {
        check_certificates(reader, method);
    }
    (file, rules)
}

/// What these files name beside themselves.
struct Around<'a> {
    files: &'a dyn Files,
    is_asked: bool,
}

impl Surroundings for Around<'_> {
    fn read(&self, file: &Path) -> Result<String, Option<String>> {
        text_of(self.files, file).map_err(|why| self.files.exists(file).then_some(why))
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        self.files.list(folder)
    }

    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        self.files.networks()
    }

    fn tells_groups(&self) -> bool {
        self.is_asked
    }

    fn has_feature(&self, name: &str) -> bool {
        self.files.has_feature(name)
    }
}

/// The options for LDAP as far as they may be shown, and who judges passwords with the methods `ldap` and `pam`.
pub(super) fn check_authority(
    reader: &mut Reader<'_>,
    method: AuthMethod,
) -> (Option<String>, Option<Arc<Authority>>) {
    let options = reader.optional("auth.ldap_options", text);
    let authority = options.as_deref().filter(|text| !text.is_empty()).and_then(|options| {
        reader.warn_if_secret_is_readable("auth.ldap_options");
        let complain = |(what, remedy)| reader.complain("auth.ldap_options", Wrong::new(what, remedy));
        Authority::ldap(options).map_err(complain).ok()
    });
    let shown = options.clone().filter(|options| !options.contains("ldapbindpasswd"));
    let (name, authority) = match method {
        AuthMethod::Pam => ("pam", Some(Authority::Pam(PAM_SERVICE.to_owned()))),
        AuthMethod::Ldap if options.is_none() => {
            let remedy =
                "write them as in a line of an HBA file: ldapserver=ldap.example.com ldapbasedn=\"...\"";
            let wrong = Wrong::new("type \"ldap\" needs to be told about the directory", remedy);
            reader.complain("auth.ldap_options", wrong);
            ("ldap", None)
        }
        AuthMethod::Ldap => ("ldap", authority),
        AuthMethod::ScramSha256
        | AuthMethod::Md5
        | AuthMethod::Plain
        | AuthMethod::Trust
        | AuthMethod::Any
        | AuthMethod::Cert
        | AuthMethod::Peer
        | AuthMethod::Hba => return (shown, None),
    };
    if !reader.files.has_feature(name) {
        let remedy = format!("build it with --features {name}, as packages are, or write another type");
        let wrong = Wrong::new(format!("this weir was built without the feature {name:?}"), remedy);
        reader.complain("auth.type", wrong);
    }
    (shown, authority.map(Arc::new))
}

/// The system's own users, by whose names peers are known. Directories on the network are not asked: a login must not
/// wait for one.
pub(super) fn read_system_users(
    reader: &mut Reader<'_>,
    method: AuthMethod,
    rules: &HbaRules,
) -> BTreeMap<u32, String> {
    if method != AuthMethod::Peer && !(method == AuthMethod::Hba && rules.asks_for(HbaMethod::Peer)) {
        return BTreeMap::new();
    }
    let text = reader.text_of(Path::new(PASSWD));
    let text = text.unwrap_or_else(|why| {
        let what = format!("peer needs the names of the system's users, but {PASSWD} cannot be read: {why}");
        reader.complain("auth.type", Wrong::new(what, "let weir's user read it"));
        String::new()
    });
    text.lines().filter_map(system_user).collect()
}

/// `name:password:uid:...` (passwd(5)).
fn system_user(line: &str) -> Option<(u32, String)> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
}

/// A certificate that nobody has checked proves nothing.
fn check_certificates(reader: &mut Reader<'_>, method: AuthMethod) {
    let mode = reader.required("client_tls.mode", word(TLS_MODES));
    // As in PgBouncer; an HBA file may ask some clients only.
    if method == AuthMethod::Cert && mode < TlsMode::VerifyCa {
        let remedy = "write mode = \"verify-full\" in [client_tls], with a ca_file";
        reader.complain(
            "auth.type",
            Wrong::new("type \"cert\" needs client certificates to be checked", remedy),
        );
    } else if mode == TlsMode::Disable || !reader.is_given("client_tls.ca_file") {
        let remedy = "switch TLS on in [client_tls] and name a ca_file";
        let what = "method \"cert\" needs the authorities that sign client certificates";
        reader.complain("auth.hba_file", Wrong::new(what, remedy));
    }
}

fn read(reader: &mut Reader<'_>, key: &str) -> Option<(PathBuf, String)> {
    let file = reader.path(key)?;
    match reader.text_of(&file) {
        Ok(text) => Some((file, text)),
        Err(why) => {
            let what = format!("cannot read {}: {why}", file.display());
            reader.complain(key, Wrong::new(what, "name a file that weir's user can read"));
            None
        }
    }
}

fn note(reader: &mut Reader<'_>, problems: Vec<HbaProblem>) {
    reader.problems.extend(problems.into_iter().map(|HbaProblem { file, line, what, remedy }| Problem {
        place: Place::Line(file, line),
        key: String::new(),
        wrong: Wrong::new(what, remedy),
    }));
}

const PASSWD: &str = "/etc/passwd";
