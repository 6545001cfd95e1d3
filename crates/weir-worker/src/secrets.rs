//! Where secrets come from: the user list, an auth_query run on PostgreSQL, and the keys that a client's own login
//! reveals (pass-through). The last live in memory only.
//!
//! Here is what a worker remembers and what it logs in to PostgreSQL with; `asking` says whom to ask about a user, `lookup`
//! asks, `reply` knows the bytes, and `answers` keeps what came back.

mod answers;
mod asking;
mod lookup;
mod reply;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use weir_auth::StoredSecret;
use weir_auth::scram::DerivedKeys;
use weir_pool::ClientId;
use weir_session::client_login::Admitted;
use weir_session::server_login::{ServerCredential, ServerSecret};

use crate::Worker;
use crate::pools::PoolKey;
use answers::Answers;

pub(crate) use answers::Whose;
pub(crate) use lookup::Lookup;

/// What is asked about a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// Its secret (auth_query).
    Secret,
    /// The groups that it belongs to, of those that matter.
    Groups,
}

/// What a login waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) question: Question,
    pub(crate) whose: Whose,
}

/// What a worker remembers about secrets.
pub(crate) struct Secrets {
    /// Makes the mock salts of unknown users stable within this process.
    pub(crate) mock: [u8; 32],
    /// By user: how to log in to PostgreSQL as them. With the database that told the secret, unless the user list did:
    /// the keys belong to the salt of one secret, and databases may be on different servers.
    learned: HashMap<(Option<String>, String), ServerSecret>,
    /// By user: keys derived from the user list's plaintext for PostgreSQL's salt.
    derived_keys: HashMap<String, DerivedKeys>,
    fetched: Answers<StoredSecret>,
    groups: Answers<Rc<BTreeSet<String>>>,
    /// The questions under way, each with weir's own client that asks it.
    lookups: HashMap<Wanted, ClientId>,
}

impl Secrets {
    pub(crate) fn new(mock: [u8; 32]) -> Self {
        Self {
            mock,
            learned: HashMap::new(),
            derived_keys: HashMap::new(),
            fetched: Answers::new(),
            groups: Answers::new(),
            lookups: HashMap::new(),
        }
    }

    /// A client proved that it knows the password, and so revealed what opens the server.
    fn learn(&mut self, told_by: Option<&str>, user: &str, secret: ServerSecret) {
        self.learned.insert((told_by.map(str::to_owned), user.to_owned()), secret);
    }

    /// Keys were derived from a listed password for this server's salt: the next login needs not do it again.
    pub(crate) fn learn_derived(&mut self, user: &str, derived: DerivedKeys) {
        self.derived_keys.insert(user.to_owned(), derived);
    }

    /// PostgreSQL does not take what was known about a user of this database, or knows the user no longer.
    pub(crate) fn forget(&mut self, database: &str, user: &str) {
        self.learned.remove(&(None, user.to_owned()));
        self.derived_keys.remove(user);
        let whose = (database.to_owned(), user.to_owned());
        self.fetched.forget(&whose);
        self.groups.forget(&whose);
        self.learned.remove(&(Some(whose.0), whose.1));
    }

    /// What auth_query told about a user did not fit what the user knows.
    pub(crate) fn forget_fetched(&mut self, whose: &Whose) {
        self.fetched.forget(whose);
    }

    /// A reload may have changed the user list, and whom to ask what.
    pub(crate) fn forget_derived(&mut self) {
        self.derived_keys.clear();
        self.fetched.clear();
        self.groups.clear();
    }
}

impl Worker {
    /// How to log in to PostgreSQL for this pool.
    pub(crate) fn server_credential(&self, pool: &PoolKey) -> ServerCredential {
        let user = pool.user.as_str();
        let listed = self.config.auth.users.get(user);
        let forced = self.config.database(&pool.database).filter(|own| own.user.as_deref() == Some(user));
        let secret = match (forced.and_then(|own| own.password.as_ref()), listed) {
            (Some(password), _) | (None, Some(StoredSecret::Plain(password))) => {
                Some(ServerSecret::password(password.clone()))
            }
            (None, Some(StoredSecret::Md5(_) | StoredSecret::Scram(_)) | None) => None,
        };
        let told_by = listed.is_none().then(|| pool.database.clone());
        let learned = || self.secrets.learned.get(&(told_by, user.to_owned())).cloned();
        let secret = secret.or_else(learned).or_else(|| match listed {
            Some(StoredSecret::Md5(hash)) => Some(ServerSecret::Md5(hash.clone())),
            Some(StoredSecret::Plain(_) | StoredSecret::Scram(_)) | None => None,
        });
        let secret = secret.map(|secret| match secret {
            ServerSecret::Password { password, derived: _ } => {
                ServerSecret::Password { password, derived: self.secrets.derived_keys.get(user).cloned() }
            }
            ServerSecret::Keys(_) | ServerSecret::Md5(_) => secret,
        });
        ServerCredential { user: user.to_owned(), secret }
    }

    /// What a client's proof tells about its user.
    pub(crate) fn learn_secret(&mut self, admitted: &mut Admitted) {
        // Keys of a listed password belong to a salt of weir's own.
        if matches!(self.config.auth.users.get(&admitted.user), Some(StoredSecret::Plain(_))) {
            return;
        }
        let password = admitted.password.take().map(ServerSecret::password);
        let keys = admitted.keys.take().map(ServerSecret::Keys);
        let hash = admitted.md5.take().map(ServerSecret::Md5);
        if let Some(secret) = password.or(keys).or(hash) {
            let is_listed = self.config.auth.users.get(&admitted.user).is_some();
            self.secrets.learn((!is_listed).then_some(&admitted.database), &admitted.user, secret);
        }
    }

    /// Whether users commonly have secrets that md5 can check: that is what an unknown user is asked for, too.
    pub(crate) fn md5_is_usual(&self) -> bool {
        let is_md5 = |secret: &StoredSecret| !matches!(secret, StoredSecret::Scram(_));
        if self.config.auth.user.is_some() {
            return self.secrets.fetched.values().any(is_md5);
        }
        self.config.auth.users.iter().any(|(_, secret)| is_md5(secret))
    }
}
