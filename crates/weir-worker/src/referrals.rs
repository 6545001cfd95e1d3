//! Passwords that somebody else judges (LDAP, PAM): who waits for which verdict, and how many are asked for at once. The
//! shell asks ([`Effect::Refer`]); the login's own deadline holds meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use weir_auth::{Authority, Secret};
use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_session::client_login::Method;

use crate::client::Stage;
use crate::io::{Effect, Effects};
use crate::{Worker, key};

/// A question about a password.
#[derive(Debug, PartialEq, Eq)]
pub struct Referral {
    /// The shell hands it back with the verdict.
    pub ticket: ReferralTicket,
    /// Who is asked.
    pub authority: Arc<Authority>,
    /// Whose password it should be.
    pub user: String,
    /// What the client says that it is; never empty.
    pub password: Secret,
}

/// For whom somebody is asked: a client on its way in, and its serial number, since ids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReferralTicket(ClientId, u64);

/// What was said about a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the user's.
    Right,
    /// It is not, or the user may not log in.
    Wrong,
    /// Nobody could say; the reason is for the log.
    Unavailable(String),
}

/// Questions that wait. Each login has one at most, so they are as bounded as logins are.
#[derive(Debug, Default)]
pub(crate) struct Referrals {
    clients: VecDeque<Referral>,
    /// Of clients whose network has had too many failed logins.
    suspects: VecDeque<Referral>,
    /// How many of these may be asked before the next tick.
    allowance: usize,
    under_way: usize,
}

impl Referrals {
    /// Time has passed.
    pub(crate) fn allow_more(&mut self) {
        self.allowance = SUSPECTS_PER_TICK;
    }

    fn next(&mut self) -> Option<Referral> {
        if let Some(next) = self.clients.pop_front() {
            return Some(next);
        }
        if self.allowance == 0 {
            return None;
        }
        let next = self.suspects.pop_front()?;
        self.allowance -= 1;
        Some(next)
    }
}

impl Worker {
    /// A client is asked for a password that this authority judges.
    pub(crate) fn ask_for_others(
        &mut self,
        now: Instant,
        id: ClientId,
        authority: Arc<Authority>,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        login.authority = Some(authority);
        self.ask_password(now, id, Method::Elsewhere, None, effects);
    }

    /// The password has come.
    pub(crate) fn refer(&mut self, now: Instant, id: ClientId, password: Secret, effects: &mut Effects) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let Stage::Login(login) = &client.stage else { return };
        let (Some(authority), Some((_, user))) = (login.authority.clone(), login.announced.clone()) else {
            return;
        };
        let referral = Referral { ticket: ReferralTicket(id, client.serial), authority, user, password };
        match self.is_suspect(now, id) {
            true => self.referrals.suspects.push_back(referral),
            false => self.referrals.clients.push_back(referral),
        }
        self.start_referrals(effects);
    }

    /// Keeps as many under way as may be.
    pub(crate) fn start_referrals(&mut self, effects: &mut Effects) {
        while self.referrals.under_way < UNDER_WAY_MAX {
            let Some(next) = self.referrals.next() else { return };
            if self.waits_for(next.ticket) {
                self.referrals.under_way += 1;
                effects.list.push(Effect::Refer(next));
            }
        }
    }

    /// What became of [`Effect::Refer`].
    pub fn judged(&mut self, now: Instant, ticket: ReferralTicket, verdict: &Verdict, effects: &mut Effects) {
        self.referrals.under_way = self.referrals.under_way.saturating_sub(1);
        if self.waits_for(ticket) {
            self.client_judged(now, ticket, verdict, effects);
        }
        self.start_referrals(effects);
    }

    fn client_judged(
        &mut self,
        now: Instant,
        ReferralTicket(id, serial): ReferralTicket,
        verdict: &Verdict,
        effects: &mut Effects,
    ) {
        if let Verdict::Unavailable(why) = verdict {
            tracing::warn!("C-{serial}: nobody could say whether the password is right: {why}");
            return self.refuse_login(now, id, &nobody_knows(), effects);
        }
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        let step = login.machine.judged(*verdict == Verdict::Right);
        self.login_step(now, id, step, effects);
    }

    /// Whoever asked is still there.
    fn waits_for(&self, ReferralTicket(id, serial): ReferralTicket) -> bool {
        self.clients.get(key(id.0)).is_some_and(|client| client.serial == serial)
    }
}

fn nobody_knows() -> Report {
    Report::fatal(SqlState::CONNECTION_FAILURE, "the password could not be checked")
        .detail("The service that judges passwords gave no answer; weir's log says why.")
        .hint("Connect again.")
}

/// Asked at once. A directory that is down keeps each of these for as long as one question may take.
const UNDER_WAY_MAX: usize = 16;

/// Asked for suspects between two ticks, so that weir guesses for nobody at a directory's expense.
const SUSPECTS_PER_TICK: usize = 1;
