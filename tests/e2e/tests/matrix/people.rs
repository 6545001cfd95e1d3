//! The users of the matrix: one for each way to be asked and each kind of stored secret, so that what one login teaches
//! weir helps no other cell of the table. Knows nothing of who gets in.

use postgres_protocol::password;

/// Everybody's.
pub(crate) const PASSWORD: &str = "open-sesame";

/// The user that the server connections of [`Kind::Shared`] and [`Kind::SharedMd5`] belong to.
pub(crate) const SHARED: &str = "shared_user";

/// How weir asks clients who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Scram,
    Md5,
    Plain,
    Trust,
    Cert,
    Peer,
}

impl Method {
    pub(crate) const ALL: [Self; 6] =
        [Self::Scram, Self::Md5, Self::Plain, Self::Trust, Self::Cert, Self::Peer];

    /// Whether the client has to know a password.
    pub(crate) fn wants_password(self) -> bool {
        matches!(self, Self::Scram | Self::Md5 | Self::Plain)
    }
}

/// What is stored about a user, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The user list has the password.
    Listed,
    /// The user list has the md5 secret that PostgreSQL stores.
    ListedMd5,
    /// The user list has the verifier that PostgreSQL stores.
    ListedVerifier,
    /// auth_query returns a verifier.
    Asked,
    /// auth_query returns an md5 secret.
    AskedMd5,
    /// As [`Kind::Asked`], in a database whose server connections belong to one user.
    Shared,
    /// As [`Kind::AskedMd5`], in such a database.
    SharedMd5,
    /// The user list has a verifier of the password, with another salt than PostgreSQL's.
    OtherSalt,
    /// The user list has a verifier, PostgreSQL an md5 secret.
    ServerMd5,
    /// As [`Kind::Asked`], but `VALID UNTIL` is over.
    Expired,
    /// Nobody knows the user.
    Unknown,
    /// The user list has the password, and no map gives a certificate or a system user this name.
    Unmapped,
}

impl Kind {
    pub(crate) const ALL: [Self; 12] = [
        Self::Listed,
        Self::ListedMd5,
        Self::ListedVerifier,
        Self::Asked,
        Self::AskedMd5,
        Self::Shared,
        Self::SharedMd5,
        Self::OtherSalt,
        Self::ServerMd5,
        Self::Expired,
        Self::Unknown,
        Self::Unmapped,
    ];

    /// Whether there is such a user as far as weir can know.
    pub(crate) fn is_known(self) -> bool {
        !matches!(self, Self::Expired | Self::Unknown)
    }

    /// Whether weir has an md5 secret to hold a client against.
    pub(crate) fn is_md5(self) -> bool {
        matches!(self, Self::ListedMd5 | Self::AskedMd5 | Self::SharedMd5)
    }

    /// Whether weir has a SCRAM verifier to hold a client against.
    pub(crate) fn is_verifier(self) -> bool {
        matches!(self, Self::ListedVerifier | Self::Asked | Self::Shared | Self::OtherSalt | Self::ServerMd5)
    }

    /// Whether server connections belong to [`SHARED`].
    pub(crate) fn is_shared(self) -> bool {
        matches!(self, Self::Shared | Self::SharedMd5)
    }
}

/// A user, as PostgreSQL and weir's user list know it.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) method: Method,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// PostgreSQL's `rolpassword`; `None`: PostgreSQL does not know the user.
    pub(crate) stored: Option<String>,
    /// The secret in the user list.
    pub(crate) listed: Option<String>,
}

impl Person {
    /// Everybody who is asked in one of these ways.
    pub(crate) fn all(methods: &[Method]) -> Vec<Self> {
        let cells = methods.iter().flat_map(|method| Kind::ALL.map(|kind| (*method, kind)));
        let has_map = |method: Method| matches!(method, Method::Cert | Method::Peer);
        cells
            .filter(|(method, kind)| *kind != Kind::Unmapped || has_map(*method))
            .map(|(method, kind)| Self::new(method, kind))
            .collect()
    }

    fn new(method: Method, kind: Kind) -> Self {
        let name = format!("{method:?}_{kind:?}").to_lowercase();
        let md5 = || password::md5(PASSWORD.as_bytes(), &name);
        // Each call takes another salt.
        let verifier = || password::scram_sha_256(PASSWORD.as_bytes());
        let (stored, listed) = match kind {
            Kind::Listed | Kind::Unmapped => (Some(verifier()), Some(PASSWORD.to_owned())),
            Kind::ListedMd5 => (Some(md5()), Some(md5())),
            Kind::ListedVerifier => {
                let one = verifier();
                (Some(one.clone()), Some(one))
            }
            Kind::Asked | Kind::Shared | Kind::Expired => (Some(verifier()), None),
            Kind::AskedMd5 | Kind::SharedMd5 => (Some(md5()), None),
            Kind::OtherSalt => (Some(verifier()), Some(verifier())),
            Kind::ServerMd5 => (Some(md5()), Some(verifier())),
            Kind::Unknown => (None, None),
        };
        Self { method, kind, name, stored, listed }
    }

    /// What makes PostgreSQL know the user.
    pub(crate) fn statement(&self) -> Option<String> {
        let stored = self.stored.as_ref()?;
        let until = if self.kind == Kind::Expired { " VALID UNTIL '2001-01-01'" } else { "" };
        Some(format!("CREATE ROLE {} LOGIN PASSWORD '{stored}'{until};", self.name))
    }
}
