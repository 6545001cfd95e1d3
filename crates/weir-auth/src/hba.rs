//! Who may log in from where, and how: PgBouncer's `auth_hba_file`, which is PostgreSQL's `pg_hba.conf` without what
//! needs the catalog or a resolver. The first rule that fits decides. Opens no file: texts are handed in.

mod parse;
pub(crate) mod token;

use std::net::IpAddr;

/// All rules of a file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HbaRules {
    rules: Vec<HbaRule>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HbaRule {
    /// Its number in the file, from 1.
    pub line: usize,
    /// What it asks for.
    pub method: HbaMethod,
    /// Identity map that a certificate's or a system user's name goes through (`map=`).
    pub map: Option<String>,
    transport: Transport,
    databases: Vec<DatabaseName>,
    users: Vec<UserName>,
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
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HbaProblem {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What would be right, in the imperative.
    pub remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Addresses {
    All,
    Net { network: IpAddr, mask: IpAddr },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DatabaseName {
    All,
    SameUser,
    Replication,
    Named(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum UserName {
    All,
    Named(String),
}

impl HbaRules {
    /// Reads a file. `maps` are the identity maps that `map=` may name; `include` gives the text of a file that is named
    /// as `@file` in place of a list of databases or users.
    ///
    /// # Errors
    /// All lines that cannot be used.
    pub fn parse(
        text: &str,
        maps: &crate::IdentMaps,
        include: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, Vec<HbaProblem>> {
        parse::rules(text, maps, include).map(|rules| Self { rules })
    }

    /// The first rule that fits; `None`: nobody is let in without one.
    #[must_use]
    pub fn judge(&self, visitor: &Visitor<'_>) -> Option<&HbaRule> {
        self.rules.iter().find(|rule| rule.fits(visitor))
    }

    /// Whether any rule asks for this.
    #[must_use]
    pub fn asks_for(&self, method: HbaMethod) -> bool {
        self.rules.iter().any(|rule| rule.method == method)
    }
}

impl HbaRule {
    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        self.transport.fits(visitor)
            && self.databases.iter().any(|database| database.fits(visitor))
            && self.users.iter().any(|user| user.fits(visitor.user))
    }
}

impl Transport {
    fn fits(self, visitor: &Visitor<'_>) -> bool {
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
    fn hold(self, address: IpAddr) -> bool {
        match self {
            Self::All => true,
            // A socket that listens on both families shows IPv4 clients as ::ffff:a.b.c.d.
            Self::Net { network, mask } => match (network, mask, address.to_canonical()) {
                (IpAddr::V4(network), IpAddr::V4(mask), IpAddr::V4(address)) => network == address & mask,
                (IpAddr::V6(network), IpAddr::V6(mask), IpAddr::V6(address)) => network == address & mask,
                (_, _, _) => false,
            },
        }
    }
}

impl DatabaseName {
    fn fits(&self, visitor: &Visitor<'_>) -> bool {
        match self {
            Self::Replication => visitor.replication,
            Self::All => !visitor.replication,
            Self::SameUser => !visitor.replication && visitor.database == visitor.user,
            Self::Named(name) => !visitor.replication && visitor.database == name,
        }
    }
}

impl UserName {
    fn fits(&self, user: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name == user,
        }
    }
}

#[cfg(test)]
mod tests;
