//! Who may log in from where, and how: PgBouncer's `auth_hba_file`, which is PostgreSQL's `pg_hba.conf` (manual of
//! PostgreSQL 16) without what needs a resolver. The first rule that fits decides. Opens no file and asks nobody: texts and
//! groups are handed in.

pub(crate) mod lines;
mod parse;
pub(crate) mod token;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::elsewhere::Authority;
use crate::pattern::Pattern;
pub use lines::Surroundings;

/// All rules of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HbaRules {
    rules: Vec<HbaRule>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HbaRule {
    /// The file that it stands in.
    pub file: PathBuf,
    /// Its number in the file, from 1.
    pub line: usize,
    /// What it asks for.
    pub method: HbaMethod,
    /// Identity map that a certificate's or a system user's name goes through (`map=`).
    pub map: Option<String>,
    /// What has to be shown beside what the method asks for (`clientcert=`).
    pub certificate: CertificateDemand,
    /// Who judges the password, with [`HbaMethod::Ldap`] and [`HbaMethod::Pam`].
    pub authority: Option<Arc<Authority>>,
    transport: Transport,
    databases: Vec<DatabaseName>,
    users: Vec<UserName>,
}

/// Which certificate a rule asks for, whatever its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateDemand {
    /// None.
    None,
    /// One that a trusted authority has signed (`clientcert=verify-ca`).
    Trusted,
    /// One whose name is the user's, too (`clientcert=verify-full`).
    Named,
}

/// Which rule decides about somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// This one.
    Rule(&'a HbaRule),
    /// None fits: nobody is let in without one.
    NoRule,
    /// It depends on the groups that the user belongs to: judge again with [`Visitor::groups`].
    NeedsGroups(&'a HbaRule),
}

/// How a client shows who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HbaMethod {
    /// Not at all.
    Trust,
    /// It may not come in.
    Reject,
    /// md5, or SCRAM if the stored secret is a verifier.
    Md5,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// The password as it is.
    Password,
    /// The system user at the other end of the Unix socket.
    Peer,
    /// A TLS certificate.
    Cert,
    /// The password, which a directory judges.
    Ldap,
    /// The password, which PAM judges.
    Pam,
}

/// A client that wants in.
#[derive(Debug, Clone, Copy)]
pub struct Visitor<'a> {
    /// Where it comes from; `None`: by Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it speaks TLS.
    pub encrypted: bool,
    /// The database that it names.
    pub database: &'a str,
    /// The user that it names.
    pub user: &'a str,
    /// Whether it wants physical replication, which belongs to no database.
    pub replication: bool,
    /// The groups that the user belongs to, itself included, as far as they matter ([`HbaRules::groups`] and the database's
    /// name); `None`: not known.
    pub groups: Option<&'a BTreeSet<String>>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HbaProblem {
    /// The file.
    pub file: PathBuf,
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right, in the imperative.
    pub remedy: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Transport {
    Local,
    Tcp { tls: Tls, from: Addresses },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    Either,
    Needed,
    Forbidden,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Addresses {
    All,
    /// Any of these.
    Nets(Vec<Net>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Net {
    network: IpAddr,
    mask: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DatabaseName {
    All,
    SameUser,
    /// The user belongs to a group that is called like the database.
    SameRole,
    Replication,
    Pattern(Pattern),
    Named(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum UserName {
    All,
    /// Anybody in this group.
    Group(String),
    Pattern(Pattern),
    Named(String),
}

impl HbaRules {
    /// Reads a file. `maps` are the identity maps that `map=` may name; `around` has the files that it names.
    ///
    /// # Errors
    /// All lines that cannot be used.
    pub fn parse(
        file: &Path,
        text: &str,
        maps: &crate::IdentMaps,
        around: &dyn Surroundings,
    ) -> Result<Self, Vec<HbaProblem>> {
        parse::rules(file, text, maps, around).map(|rules| Self { rules })
    }

    /// The first rule that fits.
    #[must_use]
    pub fn judge(&self, visitor: &Visitor<'_>) -> Judgement<'_> {
        for rule in &self.rules {
            match rule.fits(visitor) {
                Some(true) => return Judgement::Rule(rule),
                Some(false) => {}
                None => return Judgement::NeedsGroups(rule),
            }
        }
        Judgement::NoRule
    }

    /// Whether any rule asks for this.
    #[must_use]
    pub fn asks_for(&self, method: HbaMethod) -> bool {
        self.rules.iter().any(|rule| rule.method == method)
    }

    /// Whether any rule asks for a certificate, by its method or beside it.
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        let asks =
            |rule: &HbaRule| rule.method == HbaMethod::Cert || rule.certificate != CertificateDemand::None;
        self.rules.iter().any(asks)
    }

    /// The groups that rules name.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().flat_map(|rule| &rule.users).filter_map(|user| match user {
            UserName::Group(name) => Some(name.as_str()),
            UserName::All | UserName::Pattern(_) | UserName::Named(_) => None,
        })
    }
}

impl HbaRule {
    /// `None`: it depends on groups that are not known.
    fn fits(&self, visitor: &Visitor<'_>) -> Option<bool> {
        if !self.transport.fits(visitor) {
            return Some(false);
        }
        let database = any(self.databases.iter().map(|database| database.fits(visitor)));
        let user = any(self.users.iter().map(|user| user.fits(visitor)));
        match (database, user) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        }
    }
}

/// Whether any of these is so, where some may not be known.
fn any(mut each: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    each.try_fold(Some(false), |so_far, one| match one {
        Some(true) => Err(Some(true)),
        Some(false) => Ok(so_far),
        None => Ok(None),
    })
    .unwrap_or_else(|found| found)
}

impl Transport {
    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        match (self, visitor.address) {
            (Self::Local, None) => true,
            (Self::Local, Some(_)) | (Self::Tcp { .. }, None) => false,
            (Self::Tcp { tls, from }, Some(address)) => {
                let encryption_fits = match tls {
                    Tls::Either => true,
                    Tls::Needed => visitor.encrypted,
                    Tls::Forbidden => !visitor.encrypted,
                };
                encryption_fits && from.hold(address)
            }
        }
    }
}

impl Addresses {
    fn hold(&self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            // A socket that listens on both families shows IPv4 clients as ::ffff:a.b.c.d.
            Self::Nets(nets) => nets.iter().any(|net| net.holds(address.to_canonical())),
        }
    }
}

impl Net {
    fn of(address: IpAddr, mask: IpAddr) -> Self {
        let network = match (address, mask) {
            (IpAddr::V4(address), IpAddr::V4(mask)) => IpAddr::V4(address & mask),
            (IpAddr::V6(address), IpAddr::V6(mask)) => IpAddr::V6(address & mask),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => address,
        };
        Self { network, mask }
    }

    fn holds(self, address: IpAddr) -> bool {
        match (self.network, self.mask, address) {
            (IpAddr::V4(network), IpAddr::V4(mask), IpAddr::V4(address)) => network == address & mask,
            (IpAddr::V6(network), IpAddr::V6(mask), IpAddr::V6(address)) => network == address & mask,
            (_, _, _) => false,
        }
    }
}

impl Visitor<'_> {
    fn is_in(&self, group: &str) -> Option<bool> {
        self.groups.map(|groups| groups.contains(group))
    }
}

impl DatabaseName {
    fn fits(&self, visitor: &Visitor<'_>) -> Option<bool> {
        if visitor.replication {
            return Some(*self == Self::Replication);
        }
        match self {
            Self::Replication => Some(false),
            Self::All => Some(true),
            Self::SameUser => Some(visitor.database == visitor.user),
            Self::SameRole => visitor.is_in(visitor.database),
            Self::Pattern(pattern) => Some(pattern.fits(visitor.database)),
            Self::Named(name) => Some(visitor.database == name),
        }
    }
}

impl UserName {
    fn fits(&self, visitor: &Visitor<'_>) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Group(name) => visitor.is_in(name),
            Self::Pattern(pattern) => Some(pattern.fits(visitor.user)),
            Self::Named(name) => Some(name == visitor.user),
        }
    }
}

#[cfg(test)]
mod tests;
