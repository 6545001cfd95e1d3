//! Asks others about passwords: LDAP directories and PAM, each where the build has its cargo feature, each on threads of its
//! own. Every question is answered in bounded time. Who waits for what, and how much is asked for at once, is the worker's
//! machine's.

#[cfg(feature = "ldap")]
mod ldap;
#[cfg(feature = "pam")]
mod pam;

use std::time::Duration;

use tokio::sync::oneshot;
use weir_auth::Authority;
use weir_worker::{Referral, Verdict};

/// The way to one worker's threads, which begin with the first question and end when this is dropped.
#[derive(Default)]
pub(crate) struct Elsewhere {
    #[cfg(feature = "ldap")]
    ldap: ldap::Asker,
    #[cfg(feature = "pam")]
    pam: pam::Asker,
}

impl Elsewhere {
    /// Begins to ask.
    pub(crate) fn ask(&mut self, referral: Referral) -> impl Future<Output = Verdict> + use<> {
        let answer = self.begin(referral);
        async move {
            match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(_)) => Verdict::Unavailable("whoever was asking has gone".to_owned()),
                Err(_) => Verdict::Unavailable(format!("no answer within {ANSWER_TIME_MAX:?}")),
            }
        }
    }

    fn begin(&mut self, referral: Referral) -> oneshot::Receiver<Verdict> {
        let (answer, verdict) = oneshot::channel();
        match &*referral.authority {
            #[cfg(feature = "ldap")]
            Authority::Ldap(_) => self.ldap.ask(referral, answer),
            #[cfg(feature = "pam")]
            Authority::Pam(_) => self.pam.ask(referral, answer),
            // The configuration's checks let no such authority through.
            #[allow(unreachable_patterns, reason = "there are none in a build with both features")]
            Authority::Ldap(_) | Authority::Pam(_) => drop(answer),
        }
        verdict
    }
}

/// An authority that takes longer counts as unavailable.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
