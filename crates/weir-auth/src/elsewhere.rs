//! Passwords that somebody else judges: an LDAP directory or PAM. Owns what the options of the methods `ldap` and `pam` mean
//! (PostgreSQL's manual, "LDAP Authentication" and "PAM Authentication") and how names are written into what a directory is
//! asked. Asks nobody.

use std::fmt::Write as _;

use crate::Secret;
use crate::hba::lines::Wrong;
use crate::hba::token;

/// Who judges a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// A directory.
    Ldap(Directory),
    /// The PAM service of this name.
    Pam(String),
}

/// An LDAP directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Host names or addresses: the first that answers is asked.
    pub servers: Vec<String>,
    /// Of all of them.
    pub port: u16,
    /// How what is said to it is encrypted.
    pub encryption: LdapEncryption,
    /// How a user is known there.
    pub entry: Entry,
}

/// How a connection to a directory is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdapEncryption {
    /// Not at all.
    None,
    /// From the first byte on (`ldapscheme=ldaps`).
    Ldaps,
    /// From before the first password on (`ldaptls=1`).
    StartTls,
}

/// How a user's entry in a directory is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// By its name: the user's between these two.
    Named {
        /// `ldapprefix`.
        prefix: String,
        /// `ldapsuffix`.
        suffix: String,
    },
    /// It is looked for.
    Sought {
        /// The entry below which (`ldapbasedn`).
        base: String,
        /// As whom, with which password; `None`: as nobody.
        seeker: Option<(String, Secret)>,
        /// What it fits, with `$username` for the user's name.
        filter: String,
    },
}

impl Entry {
    /// The name to log in to the directory with, if it needs not be looked for.
    #[must_use]
    pub fn name_of(&self, user: &str) -> Option<String> {
        match self {
            Self::Named { prefix, suffix } => Some(format!("{prefix}{}{suffix}", escaped_in_name(user))),
            Self::Sought { .. } => None,
        }
    }
}

impl Authority {
    /// Reads options as they stand in an HBA line: `ldapserver=ldap.example.com ldapbasedn="dc=example,dc=com"`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn ldap(text: &str) -> Result<Self, (String, String)> {
        let (lines, open) = token::lines(text);
        if !open.is_empty() {
            return Err(wrong("a quote is not closed", OPTIONS));
        }
        let mut options = LdapOptions::default();
        for token in lines.into_iter().flat_map(|(_, fields)| fields).flatten() {
            let Some((name, value)) = token.text.split_once('=') else {
                return Err(not_an_option());
            };
            options.take(name, value)?;
        }
        options.finish()
    }
}

/// What the options have said so far.
#[derive(Debug, Default)]
pub(crate) struct LdapOptions {
    servers: Vec<String>,
    port: Option<u16>,
    is_ldaps: bool,
    starts_tls: bool,
    prefix: Option<String>,
    suffix: Option<String>,
    base: Option<String>,
    seeker: Option<String>,
    password: Option<Secret>,
    attribute: Option<String>,
    filter: Option<String>,
}

impl LdapOptions {
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<(), Wrong> {
        let text = || Some(value.to_owned());
        match (name, value) {
            ("ldapserver", _) => self.servers = value.split_whitespace().map(str::to_owned).collect(),
            ("ldapport", _) => match value.parse() {
                Ok(port) if port != 0 => self.port = Some(port),
                Ok(_) | Err(_) => return Err(wrong(&format!("{value:?} is not a port"), PORT)),
            },
            ("ldapscheme", "ldap") => self.is_ldaps = false,
            ("ldapscheme", "ldaps") => self.is_ldaps = true,
            ("ldapscheme", _) => return Err(wrong("ldapscheme says how to connect", SCHEME)),
            ("ldaptls", "0") => self.starts_tls = false,
            ("ldaptls", "1") => self.starts_tls = true,
            ("ldaptls", _) => return Err(wrong("ldaptls is yes or no", "write ldaptls=1 or leave it out")),
            ("ldapprefix", _) => self.prefix = text(),
            ("ldapsuffix", _) => self.suffix = text(),
            ("ldapbasedn", _) => self.base = text(),
            ("ldapbinddn", _) => self.seeker = text(),
            ("ldapbindpasswd", _) => self.password = Some(Secret::from(value)),
            ("ldapsearchattribute", _) => self.attribute = text(),
            ("ldapsearchfilter", _) => self.filter = text(),
            ("ldapurl", _) => {
                return Err(wrong(
                    "ldapurl is not understood",
                    "write ldapserver, ldapbasedn and the others",
                ));
            }
            (_, _) => return Err(wrong(&format!("there is no option {name:?} for ldap"), OPTIONS)),
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Authority, Wrong> {
        if self.servers.is_empty() {
            return Err(wrong("method ldap needs a server", "name it: ldapserver=ldap.example.com"));
        }
        let encryption = match (self.is_ldaps, self.starts_tls) {
            (true, true) => return Err(wrong("ldaps is encrypted already", "leave ldaptls out")),
            (true, false) => LdapEncryption::Ldaps,
            (false, true) => LdapEncryption::StartTls,
            (false, false) => LdapEncryption::None,
        };
        let usual = if self.is_ldaps { LDAPS_PORT } else { LDAP_PORT };
        let (servers, port) = (self.servers.clone(), self.port.unwrap_or(usual));
        Ok(Authority::Ldap(Directory { servers, port, encryption, entry: self.entry()? }))
    }

    fn entry(self) -> Result<Entry, Wrong> {
        let Self { prefix, suffix, base, seeker, password, attribute, filter, .. } = self;
        let is_sought = base.is_some()
            || seeker.is_some()
            || password.is_some()
            || attribute.is_some()
            || filter.is_some();
        if prefix.is_some() || suffix.is_some() {
            if is_sought {
                return Err(wrong("an entry is either named (ldapprefix, ldapsuffix) or looked for", EITHER));
            }
            let (prefix, suffix) = (prefix.unwrap_or_default(), suffix.unwrap_or_default());
            return Ok(Entry::Named { prefix, suffix });
        }
        let Some(base) = base else {
            return Err(wrong("nothing says where users are in the directory", EITHER));
        };
        let filter = match (attribute, filter) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "there are two ways to look for an entry",
                    "leave ldapsearchattribute out",
                ));
            }
            (None, Some(filter)) if !is_filter(&filter) => {
                return Err(wrong("ldapsearchfilter finds no user", "write one such as (uid=$username)"));
            }
            (None, Some(filter)) => filter,
            (Some(attribute), None) if !is_attribute(&attribute) => {
                return Err(wrong(&format!("{attribute:?} is not an attribute"), "write one such as uid"));
            }
            (attribute, None) => format!("({}=$username)", attribute.as_deref().unwrap_or("uid")),
        };
        let seeker = match (seeker, password) {
            (Some(name), Some(password)) if !password.is_empty() => Some((name, password)),
            (None, None) => None,
            (_, _) => {
                return Err(wrong(
                    "ldapbinddn and ldapbindpasswd belong together",
                    "write both, or leave both out to look for entries as nobody",
                ));
            }
        };
        Ok(Entry::Sought { base, seeker, filter })
    }
}

/// A filter with the user's name in it.
#[must_use]
pub fn filter_for(filter: &str, user: &str) -> String {
    filter.replace("$username", &escaped_in_filter(user))
}

/// RFC 4514, section 2.4. Without this a user could choose another entry by his name.
fn escaped_in_name(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut escaped = String::new();
    for (at, letter) in text.chars().enumerate() {
        let at_an_end = (at == 0 && matches!(letter, ' ' | '#')) || (at == last && letter == ' ');
        if at_an_end || matches!(letter, '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\') {
            escaped.push('\\');
        }
        if letter == '\0' { escaped.push_str("\\00") } else { escaped.push(letter) }
    }
    escaped
}

/// RFC 4515, section 3.
fn escaped_in_filter(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '*' | '(' | ')' | '\\' | '\0' => {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\{:02x}", u32::from(letter));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

fn is_attribute(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';');
    !text.is_empty() && text.bytes().all(is_fine)
}

/// Without the user's name in it, one entry's password would let everybody in.
fn is_filter(text: &str) -> bool {
    text.starts_with('(') && text.ends_with(')') && text.contains("$username")
}

/// It may be half of a password with a space in it, so it is not repeated.
pub(crate) fn not_an_option() -> Wrong {
    wrong("a word is not of the form NAME=VALUE", "write values with spaces in double quotes")
}

fn wrong(what: &str, remedy: &str) -> Wrong {
    (what.to_owned(), remedy.to_owned())
}

/// The PAM service that is asked where none is named: the rules are in `/etc/pam.d/weir`.
pub const PAM_SERVICE: &str = "weir";

const LDAP_PORT: u16 = 389;
const LDAPS_PORT: u16 = 636;

const PORT: &str = "write a number from 1 to 65535";
const SCHEME: &str = "write ldapscheme=ldaps or leave it out";
const EITHER: &str = "write ldapbasedn=\"ou=people,dc=example,dc=com\", or ldapprefix and ldapsuffix";
const OPTIONS: &str = "there are ldapserver, ldapport, ldapscheme, ldaptls, ldapprefix, ldapsuffix, ldapbasedn, ldapbinddn, ldapbindpasswd, ldapsearchattribute and ldapsearchfilter";

#[cfg(test)]
mod tests {
    use super::{Authority, Directory, Entry, LdapEncryption, escaped_in_name, filter_for};

    #[test]
    fn names_cannot_reach_out_of_their_place() {
        for (name, in_name, in_filter) in [
            ("app", "app", "app"),
            ("a,ou=admins", "a\\,ou\\=admins", "a,ou=admins"),
            ("*", "*", "\\2a"),
            ("x)(uid=*", "x)(uid\\=*", "x\\29\\28uid=\\2a"),
            ("back\\slash", "back\\\\slash", "back\\5cslash"),
            (" #both ends ", "\\ #both ends\\ ", " #both ends "),
            ("#1", "\\#1", "#1"),
            (" ", "\\ ", " "),
            ("a+b;\"<c>", "a\\+b\\;\\\"\\<c\\>", "a+b;\"<c>"),
            ("Zoë", "Zoë", "Zoë"),
        ] {
            assert_eq!(escaped_in_name(name), in_name);
            assert_eq!(filter_for("(uid=$username)", name), format!("(uid={in_filter})"));
        }
    }

    #[test]
    fn options_name_the_directory_and_the_entry() {
        let Ok(Authority::Ldap(named)) =
            Authority::ldap("ldapserver=\"a b\" ldapprefix=\"uid=\" ldapsuffix=\",dc=x\" ldaptls=1")
        else {
            panic!("it is right")
        };
        assert_eq!((named.servers.join("|").as_str(), named.port), ("a|b", 389));
        assert_eq!(named.encryption, LdapEncryption::StartTls);
        assert_eq!(named.entry.name_of("app").as_deref(), Some("uid=app,dc=x"));
        let sought = Authority::ldap(
            "ldapserver=a ldapscheme=ldaps ldapbasedn=\"dc=x,dc=y\" ldapbinddn=\"cn=w\" ldapbindpasswd=hunter2",
        );
        assert!(!format!("{sought:?}").contains("hunter2"));
        let entry = Entry::Sought {
            base: "dc=x,dc=y".into(),
            seeker: Some(("cn=w".into(), "hunter2".into())),
            filter: "(uid=$username)".into(),
        };
        let encryption = LdapEncryption::Ldaps;
        let directory = Directory { servers: vec!["a".into()], port: 636, encryption, entry };
        assert_eq!(sought, Ok(Authority::Ldap(directory)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "",
            "ldapserver",
            "ldapserver=a",
            "ldapserver=\"a",
            "ldapbasedn=x",
            "ldapserver=a ldapbasedn=x ldapprefix=y",
            "ldapserver=a ldapport=0 ldapbasedn=x",
            "ldapserver=a ldapbasedn=x ldapscheme=ldaps ldaptls=1",
            "ldapserver=a ldapbasedn=x ldaptls=yes",
            "ldapserver=a ldapbasedn=x ldapscheme=http",
            "ldapserver=a ldapbasedn=x ldapbinddn=y",
            "ldapserver=a ldapbasedn=x ldapbindpasswd=y",
            "ldapserver=a ldapbasedn=x ldapsearchfilter=(uid=app)",
            "ldapserver=a ldapbasedn=x ldapsearchattribute=\"a)(b\"",
            "ldapserver=a ldapbasedn=x ldapsearchattribute=uid ldapsearchfilter=(uid=$username)",
            "ldapurl=\"ldap://a/dc=x?uid\"",
            "ldapserver=a ldapbasedn=x ldapcolour=red",
        ] {
            assert!(Authority::ldap(bad).is_err(), "{bad}");
        }
    }
}
