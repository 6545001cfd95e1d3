//! Failed logins of suspect networks: answers that are held back, and expensive steps that wait for their turn. Who is
//! suspect is `failures`' to say.

use std::net::SocketAddr;
use std::time::Instant;

use weir_pool::{ClientId, Dice};
use weir_protocol::message::Report;

use crate::client::Login;
use crate::failures::{Consequence, Failures, Network, Patience};
use crate::io::{ConnId, Effect, Effects};
use crate::secrets::Wanted;
use crate::{Worker, key};

/// What is held back.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    pub(crate) failures: Failures,
    /// Answers that are given later.
    answers: Vec<Answer>,
    /// Clients of suspect networks, with their serials, whose users have to be looked up on PostgreSQL.
    lookups: Vec<(ClientId, u64, Wanted)>,
}

#[derive(Debug)]
struct Answer {
    due: Instant,
    client: ClientId,
    serial: u64,
    report: Report,
}

impl Worker {
    /// Somebody did not show who he is: says so, at once or later.
    pub(crate) fn fail_login(&mut self, now: Instant, id: ClientId, report: &Report, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let (serial, accepted) = (client.serial, client.accepted);
        client.note_judged();
        let Some(network) = client.peer.map(|peer| Network::of(peer.ip())) else {
            return self.refuse_login(now, id, report, effects);
        };
        let Consequence { delay, begins } = self.held_back.failures.fail(now, network, self.patience());
        if begins {
            tracing::warn!(
                "logins from {network} fail repeatedly; answers to failed ones are held back (last: {})",
                report.message
            );
        }
        if delay.is_zero() {
            return self.refuse_login(now, id, report, effects);
        }
        self.totals.logins_held_back += 1;
        let limit = self.config.limits.client_login_timeout;
        let latest = if limit.is_zero() { now + delay } else { (accepted + limit).max(now) };
        let answer = Answer { due: (now + delay).min(latest), client: id, serial, report: report.clone() };
        // Whatever it says now could only show that it was not let in.
        effects.list.push(Effect::StopReading(ConnId::Client(id)));
        self.held_back.answers.push(answer);
        if self.held_back.answers.len() > ANSWERS_MAX {
            let oldest = self.held_back.answers.remove(0);
            self.give_answer(now, &oldest, effects);
        }
    }

    /// A client goes; if it was asked for a proof and has shown none, that counts, however it goes.
    pub(crate) fn note_departure(&mut self, now: Instant, peer: Option<SocketAddr>, login: &Login) {
        if let Some(peer) = peer.filter(|_| login.was_asked) {
            self.held_back.failures.leave_unfinished(now, Network::of(peer.ip()));
        }
    }

    /// A client has shown who it is.
    pub(crate) fn note_success(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        client.note_judged();
        if let Some(peer) = client.peer {
            self.held_back.failures.succeed(Network::of(peer.ip()));
        }
    }

    /// Whether what this client's login costs has to wait for its turn.
    pub(crate) fn is_suspect(&self, now: Instant, id: ClientId) -> bool {
        let peer = self.clients.get(key(id.0)).and_then(|client| client.peer);
        peer.is_some_and(|peer| {
            self.held_back.failures.is_suspect(now, Network::of(peer.ip()), self.patience())
        })
    }

    /// The user of a suspect client is looked up when it is its turn.
    pub(crate) fn hold_back_lookup(&mut self, id: ClientId, wanted: Wanted) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        self.held_back.lookups.push((id, client.serial, wanted));
    }

    /// Time has passed.
    pub(crate) fn release_held_back(&mut self, now: Instant, effects: &mut Effects) {
        let due = |answer: &mut Answer| answer.due <= now;
        let answers: Vec<Answer> = self.held_back.answers.extract_if(.., due).collect();
        for answer in answers {
            self.give_answer(now, &answer, effects);
        }
        self.look_up_what_costs_nothing(now, effects);
        let mut turns = LOOKUPS_PER_TICK;
        while turns > 0 && !self.held_back.lookups.is_empty() {
            // Not in order: whoever comes behind a crowd that never ends gets his turn, too.
            let at = usize::try_from(self.chance.below(self.held_back.lookups.len() as u64)).unwrap_or(0);
            let (id, serial, wanted) = self.held_back.lookups.swap_remove(at);
            if self.clients.get(key(id.0)).is_some_and(|client| client.serial == serial) {
                turns -= 1;
                self.look_up(now, id, wanted, effects);
            }
        }
        for (network, failed) in self.held_back.failures.forget(now) {
            tracing::info!("no login from {network} has failed for a while; {failed} had");
        }
    }

    /// What is known, or is being asked anyway, needs no turn: a crowd of one user's clients is one question.
    fn look_up_what_costs_nothing(&mut self, now: Instant, effects: &mut Effects) {
        let (free, rest) = std::mem::take(&mut self.held_back.lookups)
            .into_iter()
            .partition(|(_, _, wanted)| self.is_known_or_asked(now, wanted));
        self.held_back.lookups = rest;
        for (id, serial, wanted) in free {
            if self.clients.get(key(id.0)).is_some_and(|client| client.serial == serial) {
                self.look_up(now, id, wanted, effects);
            }
        }
    }

    fn give_answer(&mut self, now: Instant, answer: &Answer, effects: &mut Effects) {
        if self.clients.get(key(answer.client.0)).is_some_and(|client| client.serial == answer.serial) {
            self.refuse_login(now, answer.client, &answer.report, effects);
        }
    }

    fn patience(&self) -> Patience {
        let auth = &self.config.auth;
        Patience { free: auth.failed_logins_free, delay_max: auth.failed_login_delay_max }
    }
}

/// Answers that are held back at once. With more the oldest is given early: they are connections, too.
const ANSWERS_MAX: usize = 1024;

/// Users of suspect networks that are looked up between two ticks, all networks together.
const LOOKUPS_PER_TICK: usize = 5;
