//! How many connections from clients may be open, those on their way in included, and which one makes room for a newcomer
//! when every place is taken. Without that, some connections that say nothing would keep everybody out, and the console's
//! users, too.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;

use crate::client::{Client, Stage};
use crate::failures::Network;
use crate::io::Effects;
use crate::{Worker, key, sizes};

impl Worker {
    /// Most connections from clients at once.
    pub(crate) fn open_max(&self) -> usize {
        (sizes::clients_max(&self.config) as usize).saturating_add(LOGINS_OVER_MAX)
    }

    /// Whether this newcomer may stay, after somebody else had to go if need be.
    pub(crate) fn has_room(&mut self, now: Instant, newcomer: ClientId, effects: &mut Effects) -> bool {
        if self.clients.len() <= self.open_max() {
            return true;
        }
        let network = self.clients.get(key(newcomer.0)).and_then(network_of);
        let crowding = self.crowding.filter(|crowding| Some(*crowding) != network);
        let gives_way = |client: &Client| {
            let is_of_crowd = crowding.is_some() && network_of(client) == crowding;
            is_of_crowd || now.saturating_duration_since(client.accepted) >= STALLED_AFTER
        };
        let found = self.logins.iter().find(|&&(id, serial)| {
            self.clients.get(key(id.0)).is_some_and(|client| {
                client.serial == serial && matches!(client.stage, Stage::Login(_)) && gives_way(client)
            })
        });
        let Some(&(id, _)) = found else { return false };
        let text = "no more connections allowed (max_client_conn)";
        self.refuse_login(now, id, &Report::fatal(SqlState::TOO_MANY_CONNECTIONS, text), effects);
        true
    }

    /// Time has passed: finds out whether one network has most of the logins, where places are getting scarce.
    pub(crate) fn find_crowding(&mut self) {
        self.crowding = None;
        if self.clients.len() <= sizes::clients_max(&self.config) as usize {
            return;
        }
        let mut counts: HashMap<Network, usize> = HashMap::new();
        let logins = self.clients.iter().filter(|(_, client)| matches!(client.stage, Stage::Login(_)));
        let mut all = 0;
        for (_, client) in logins {
            all += 1;
            if let Some(network) = network_of(client) {
                *counts.entry(network).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        self.crowding = most.filter(|(_, count)| count * 2 > all).map(|(network, _)| network);
    }
}

fn network_of(client: &Client) -> Option<Network> {
    client.peer.map(|peer| Network::of(peer.ip()))
}

/// Connections above `max_client_conn` that may be on their way in, so that they can be told why they are refused.
const LOGINS_OVER_MAX: usize = 256;

/// A login of a few messages has had its time, over slow networks, too. Shorter, and a crowd that comes all at once would
/// push itself out.
const STALLED_AFTER: Duration = Duration::from_secs(3);
