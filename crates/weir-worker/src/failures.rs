//! Logins that fail again and again from one network: how many, and how long the next answer is held back. Knows no
//! connections and carries nothing out.
//!
//! Only answers to failed logins are held back. Whoever shares the network (a NAT, a proxy in front) and knows his
//! password is let in as if nothing had happened.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Whose failures are counted together: an IPv4 address, or the /64 that one IPv6 customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

/// Networks whose logins failed lately.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    networks: HashMap<Network, Record>,
    forgot: Option<Instant>,
}

#[derive(Debug)]
struct Record {
    failed: u32,
    /// Logins that were given up when a proof was asked for, and that no successful one has made good for: some programs
    /// look first whether a password is needed.
    unfinished: u32,
    last: Instant,
}

/// How failed logins are slowed down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// So many are answered at once.
    pub(crate) free: u32,
    /// Longest delay; zero: nobody is slowed down.
    pub(crate) delay_max: Duration,
}

/// What follows from a failed login.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Consequence {
    /// How long the answer is held back.
    pub(crate) delay: Duration,
    /// It is the first one of this network that is held back.
    pub(crate) begins: bool,
}

impl Network {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6([a, b, c, d]) => write!(f, "{}/64", Ipv6Addr::new(*a, *b, *c, *d, 0, 0, 0, 0)),
        }
    }
}

impl Failures {
    /// A login has failed.
    pub(crate) fn fail(&mut self, now: Instant, network: Network, patience: Patience) -> Consequence {
        let record = self.record(now, network);
        record.failed = record.failed.saturating_add(1);
        let over = record.weight().saturating_sub(patience.free);
        let delay = patience.delay(over);
        Consequence { delay, begins: over == 1 && !delay.is_zero() }
    }

    /// A client left when it was asked for a proof.
    pub(crate) fn leave_unfinished(&mut self, now: Instant, network: Network) {
        let record = self.record(now, network);
        record.unfinished = record.unfinished.saturating_add(1);
    }

    /// A login went well.
    pub(crate) fn succeed(&mut self, network: Network) {
        if let Some(record) = self.networks.get_mut(&network) {
            record.unfinished = record.unfinished.saturating_sub(1);
        }
    }

    /// The next failed login would be held back.
    pub(crate) fn is_suspect(&self, now: Instant, network: Network, patience: Patience) -> bool {
        !patience.delay_max.is_zero()
            && self.networks.get(&network).is_some_and(|record| {
                record.weight() > patience.free
                    && now.saturating_duration_since(record.last) < FORGOTTEN_AFTER
            })
    }

    /// Time has passed: forgets who was quiet for long. Tells whose answers were held back, and how many had failed.
    pub(crate) fn forget(&mut self, now: Instant, patience: Patience) -> Vec<(Network, u32)> {
        if self.forgot.is_some_and(|last| now.saturating_duration_since(last) < FORGETS_EVERY) {
            return Vec::new();
        }
        self.forgot = Some(now);
        let mut quiet = Vec::new();
        self.networks.retain(|network, record| {
            let stays = now.saturating_duration_since(record.last) < FORGOTTEN_AFTER;
            if !stays && record.weight() > patience.free && record.failed > 0 {
                quiet.push((*network, record.failed));
            }
            stays
        });
        quiet
    }

    fn record(&mut self, now: Instant, network: Network) -> &mut Record {
        if !self.networks.contains_key(&network) && self.networks.len() >= NETWORKS_MAX {
            let oldest =
                self.networks.iter().min_by_key(|(_, record)| record.last).map(|(network, _)| *network);
            oldest.map(|network| self.networks.remove(&network));
        }
        let fresh = || Record { failed: 0, unfinished: 0, last: now };
        let record = self.networks.entry(network).or_insert_with(fresh);
        if now.saturating_duration_since(record.last) >= FORGOTTEN_AFTER {
            *record = fresh();
        }
        record.last = now;
        record
    }
}

impl Record {
    fn weight(&self) -> u32 {
        self.failed.saturating_add(self.unfinished)
    }
}

impl Patience {
    /// Doubles with each failure over the free ones.
    fn delay(self, over: u32) -> Duration {
        match over.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_DELAY.saturating_mul(1 << doublings.min(16)).min(self.delay_max),
        }
    }
}

const FIRST_DELAY: Duration = Duration::from_millis(100);

/// A network without a failed login for so long starts anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

const FORGETS_EVERY: Duration = Duration::from_secs(10);

/// Networks that are remembered; the one that was quiet for longest makes room.
const NETWORKS_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
