//! Verifiers that weir derives from passwords, for clients that log in with SCRAM: known ones, and those of the user list
//! that are derived before anybody asks. Derived ahead, no login's time tells that its user is listed. Computes nothing.

use std::collections::HashMap;

use weir_auth::scram::{Derivation, DerivedKeys, Verifier, mock_salt};
use weir_auth::{Secret, StoredSecret};
use weir_config::{AuthMethod, Config};

/// What a worker knows of verifiers.
#[derive(Default)]
pub(crate) struct Verifiers {
    /// By user: verifiers derived from passwords, with the passwords.
    known: HashMap<String, (Secret, Verifier)>,
    /// Listed users whose verifiers have yet to be derived.
    ahead: Vec<(String, Derivation)>,
    /// The one that is being derived.
    under_way: Option<(String, Secret)>,
    /// How many more may be begun before the next tick.
    allowance: usize,
    /// The iteration count that most verifiers of the user list have.
    listed_iterations: Option<u32>,
}

impl Verifiers {
    /// Takes the user list of a configuration. `mock` makes the salts of derived verifiers.
    pub(crate) fn configure(&mut self, config: &Config, mock: &[u8]) {
        let (users, iterations) = (&config.auth.users, config.auth.scram_iterations);
        self.known.retain(|user, (known, verifier)| {
            verifier.iterations() == iterations
                && matches!(users.get(user), Some(StoredSecret::Plain(password)) if password == known)
        });
        self.listed_iterations = most_common(users.iter().filter_map(|(_, secret)| match secret {
            StoredSecret::Scram(verifier) => Some(verifier.iterations()),
            StoredSecret::Plain(_) | StoredSecret::Md5(_) => None,
        }));
        self.ahead.clear();
        if !asks_for_scram(config.auth.method) {
            return;
        }
        for (user, secret) in users.iter().take(KNOWN_MAX) {
            let StoredSecret::Plain(password) = secret else { continue };
            if !password.is_empty() && self.of(user, password).is_none() {
                let derivation = Derivation::new(password.clone(), &mock_salt(mock, user), iterations);
                self.ahead.push((user.to_owned(), derivation));
            }
        }
    }

    /// The verifier of this user's password, if it is known.
    pub(crate) fn of(&self, user: &str, password: &Secret) -> Option<Verifier> {
        self.known.get(user).filter(|(known, _)| known == password).map(|(_, verifier)| verifier.clone())
    }

    /// A verifier has been derived.
    pub(crate) fn remember(&mut self, user: String, password: Secret, derived: &DerivedKeys) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(user, (password, Verifier::of(derived)));
    }

    /// Iterations that a user without a verifier is shown: those that others of the list have, or else `usual`. Nothing that
    /// auth_query tells changes it: whoever may set his own verifier would set everybody's, and a count that changes
    /// between two attempts tells a made-up one.
    pub(crate) fn mock_iterations(&self, usual: u32) -> u32 {
        self.listed_iterations.unwrap_or(usual)
    }

    /// Time has passed.
    pub(crate) fn allow_more(&mut self) {
        self.allowance = AHEAD_PER_TICK_MAX;
    }

    /// What to derive for nobody in particular, one at a time.
    pub(crate) fn next_ahead(&mut self) -> Option<Derivation> {
        if self.under_way.is_some() || self.allowance == 0 {
            return None;
        }
        let (user, derivation) = loop {
            let next = self.ahead.pop()?;
            // A login may have come first.
            if self.of(&next.0, next.1.password()).is_none() {
                break next;
            }
        };
        self.allowance -= 1;
        self.under_way = Some((user, derivation.password().clone()));
        Some(derivation)
    }

    /// The one under way is done. The configuration may have changed meanwhile.
    pub(crate) fn derived_ahead(&mut self, derived: &DerivedKeys) {
        if let Some((user, password)) = self.under_way.take() {
            self.remember(user, password, derived);
        }
    }
}

/// Whether users of the list are asked for SCRAM proofs, whatever their secrets are.
fn asks_for_scram(method: AuthMethod) -> bool {
    match method {
        AuthMethod::ScramSha256 | AuthMethod::Hba => true,
        AuthMethod::Md5
        | AuthMethod::Plain
        | AuthMethod::Trust
        | AuthMethod::Any
        | AuthMethod::Cert
        | AuthMethod::Peer
        | AuthMethod::Ldap
        | AuthMethod::Pam => false,
    }
}

fn most_common(counts: impl Iterator<Item = u32>) -> Option<u32> {
    let mut times: HashMap<u32, usize> = HashMap::new();
    counts.for_each(|count| *times.entry(count).or_default() += 1);
    times.into_iter().max_by_key(|&(count, times)| (times, count)).map(|(count, _)| count)
}

/// Verifiers of passwords that are remembered at once.
const KNOWN_MAX: usize = 100_000;

/// Derived ahead between two ticks: a long list is worked through with a sixth of one core at 4096 iterations.
const AHEAD_PER_TICK_MAX: usize = 16;
