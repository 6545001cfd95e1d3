//! Keys that have to be derived from passwords, a millisecond and more each: who waits for which, and how many are under
//! way at once. The shell has them computed elsewhere ([`Effect::Derive`]), so that no login keeps a turn, and with it
//! everybody's queries, waiting.
//!
//! Server logins come first, since clients wait for them; then clients' logins; then, a few in each tick, those of networks
//! whose logins fail repeatedly, and what is derived ahead.

use std::collections::VecDeque;
use std::time::Instant;

use weir_auth::scram::{Derivation, DerivedKeys};
use weir_pool::{ClientId, ServerId};
use weir_session::client_login::LoginStep;

use crate::client::Stage;
use crate::io::{ConnId, Effect, Effects};
use crate::server::ServerStage;
use crate::{Worker, key};

/// For whom a derivation is made. The shell hands it back with the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(Whom);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// A client on its way in, and its serial number: ids are used again.
    Client(ClientId, u64),
    /// A server connection on its way in.
    Server(ServerId, u64),
    /// Nobody yet.
    Ahead,
}

/// Derivations that are asked for. Each login has one at most, so the queues are as bounded as logins are.
#[derive(Debug, Default)]
pub(crate) struct Derivations {
    servers: VecDeque<(Ticket, Derivation)>,
    clients: VecDeque<(Ticket, Derivation)>,
    /// Of clients whose network has had too many failed logins.
    suspects: VecDeque<(Ticket, Derivation)>,
    /// How many of these may be begun before the next tick.
    allowance: usize,
    under_way: usize,
}

impl Derivations {
    /// Time has passed.
    pub(crate) fn allow_more(&mut self) {
        self.allowance = SUSPECTS_PER_TICK;
    }
}

impl Worker {
    /// A client's login goes on when this has been derived.
    pub(crate) fn derive_for_client(
        &mut self,
        now: Instant,
        id: ClientId,
        derivation: Derivation,
        effects: &mut Effects,
    ) {
        let Some(client) = self.clients.get(key(id.0)) else { return };
        let ticket = Ticket(Whom::Client(id, client.serial));
        let queue = match self.is_suspect(now, id) {
            true => &mut self.derivations.suspects,
            false => &mut self.derivations.clients,
        };
        queue.push_back((ticket, derivation));
        self.start_derivations(effects);
    }

    /// A server connection's login goes on when this has been derived.
    pub(crate) fn derive_for_server(&mut self, id: ServerId, derivation: Derivation, effects: &mut Effects) {
        let Some(conn) = self.servers.get(key(id.0)) else { return };
        let ticket = Ticket(Whom::Server(id, conn.serial));
        self.derivations.servers.push_back((ticket, derivation));
        self.start_derivations(effects);
    }

    /// What became of [`Effect::Derive`].
    pub fn derived(&mut self, now: Instant, ticket: Ticket, derived: &DerivedKeys, effects: &mut Effects) {
        self.derivations.under_way = self.derivations.under_way.saturating_sub(1);
        if self.is_wanted(ticket) {
            match ticket.0 {
                Whom::Client(id, _) => self.client_derived(now, id, derived, effects),
                Whom::Server(id, _) => self.server_derived(id, derived.clone(), effects),
                Whom::Ahead => self.verifiers.derived_ahead(derived),
            }
        }
        self.start_derivations(effects);
    }

    /// Keeps as many under way as may be.
    pub(crate) fn start_derivations(&mut self, effects: &mut Effects) {
        while self.derivations.under_way < UNDER_WAY_MAX {
            let Some((ticket, derivation)) = self.next_derivation() else { return };
            self.derivations.under_way += 1;
            effects.list.push(Effect::Derive(ticket, derivation));
        }
    }

    fn next_derivation(&mut self) -> Option<(Ticket, Derivation)> {
        loop {
            let Derivations { servers, clients, suspects, allowance, under_way: _ } = &mut self.derivations;
            let (next, is_suspect) = match servers.pop_front().or_else(|| clients.pop_front()) {
                Some(next) => (next, false),
                None if *allowance == 0 => break,
                None => match suspects.pop_front() {
                    Some(next) => (next, true),
                    None => break,
                },
            };
            if self.is_wanted(next.0) {
                self.derivations.allowance -= usize::from(is_suspect);
                return Some(next);
            }
        }
        Some((Ticket(Whom::Ahead), self.verifiers.next_ahead()?))
    }

    /// Whoever asked is still there.
    fn is_wanted(&self, ticket: Ticket) -> bool {
        match ticket.0 {
            Whom::Client(id, serial) => {
                self.clients.get(key(id.0)).is_some_and(|client| client.serial == serial)
            }
            Whom::Server(id, serial) => self.servers.get(key(id.0)).is_some_and(|conn| conn.serial == serial),
            Whom::Ahead => true,
        }
    }

    fn client_derived(&mut self, now: Instant, id: ClientId, derived: &DerivedKeys, effects: &mut Effects) {
        let Some(client) = self.clients.get_mut(key(id.0)) else { return };
        let Stage::Login(login) = &mut client.stage else { return };
        if let Some((user, password)) = login.underived.take() {
            self.verifiers.remember(user, password, derived);
        }
        let mut step = LoginStep::Wait;
        effects.send_with(ConnId::Client(id), |out| step = login.machine.derived(derived, out));
        self.login_step(now, id, step, effects);
    }

    fn server_derived(&mut self, id: ServerId, derived: DerivedKeys, effects: &mut Effects) {
        let Some(conn) = self.servers.get_mut(key(id.0)) else { return };
        let ServerStage::Login(login) = &mut conn.stage else { return };
        effects.send_with(ConnId::Server(id), |out| login.derived(derived, out));
    }
}

/// Derivations for suspects between two ticks: a tenth of one core at 4096 iterations.
const SUSPECTS_PER_TICK: usize = 10;

/// Handed to the shell at once: what its threads compute, and one more for each so that none of them idles.
const UNDER_WAY_MAX: usize = 4;
