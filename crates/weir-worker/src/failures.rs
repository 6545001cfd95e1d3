//! Logins that fail again and again from one network: how many, and how long the next answer is held back. Knows no
//! connections and carries nothing out.
//!
//! Only answers to failed logins are held back. Whoever shares the network (a NAT, a proxy in front) and knows his
//! password is let in as if nothing had happened. What counts against a network halves every minute, so that the health
//! check that asks every second and the job with an old password do not add up for ever.

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
    /// Failed logins that count still.
    failed: u32,
    /// Logins that were given up when a proof was asked for, and that no successful one has made good for: some programs
    /// look first whether a password is needed, or only whether somebody answers. They delay no answer; what they cost is
    /// bounded.
    unfinished: u32,
    /// All failed logins.
    failed_ever: u32,
    last: Instant,
    /// When what counts was halved last.
    halved: Instant,
    /// That answers are held back was said.
    is_told: bool,
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
        record.failed_ever = record.failed_ever.saturating_add(1);
        let delay = patience.delay(record.failed.saturating_sub(patience.free));
        let begins = !delay.is_zero() && !std::mem::replace(&mut record.is_told, !delay.is_zero());
        Consequence { delay, begins }
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

    /// Logins from there have failed, or were given up, so often that what the next one costs is bounded.
    pub(crate) fn is_suspect(&self, now: Instant, network: Network, patience: Patience) -> bool {
        !patience.delay_max.is_zero()
            && self.networks.get(&network).is_some_and(|record| record.weight(now) > patience.free)
    }

    /// Time has passed: forgets who was quiet for long. Tells whose answers were held back, and how many had failed.
    pub(crate) fn forget(&mut self, now: Instant) -> Vec<(Network, u32)> {
        if self.forgot.is_some_and(|last| now.saturating_duration_since(last) < FORGETS_EVERY) {
            return Vec::new();
        }
        self.forgot = Some(now);
        let mut quiet = Vec::new();
        self.networks.retain(|network, record| {
            let stays = now.saturating_duration_since(record.last) < FORGOTTEN_AFTER;
            if !stays && record.is_told {
                quiet.push((*network, record.failed_ever));
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
        let record = self.networks.entry(network).or_insert_with(|| Record::new(now));
        if now.saturating_duration_since(record.last) >= FORGOTTEN_AFTER {
            *record = Record::new(now);
        }
        record.halve(now);
        record.last = now;
        record
    }
}

impl Record {
    fn new(now: Instant) -> Self {
        Self { failed: 0, unfinished: 0, failed_ever: 0, last: now, halved: now, is_told: false }
    }

    /// How often what counts is to be halved by now.
    fn halvings(&self, now: Instant) -> u32 {
        let times = now.saturating_duration_since(self.halved).as_secs() / HALVED_EVERY.as_secs();
        u32::try_from(times).unwrap_or(u32::MAX)
    }

    fn halve(&mut self, now: Instant) {
        let halvings = self.halvings(now);
        self.failed = self.failed.checked_shr(halvings).unwrap_or(0);
        self.unfinished = self.unfinished.checked_shr(halvings).unwrap_or(0);
        self.halved += HALVED_EVERY.saturating_mul(halvings);
    }

    fn weight(&self, now: Instant) -> u32 {
        self.failed.saturating_add(self.unfinished).checked_shr(self.halvings(now)).unwrap_or(0)
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

/// What counts against a network becomes half of it.
const HALVED_EVERY: Duration = Duration::from_secs(60);

/// A network without a failed login for so long starts anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

const FORGETS_EVERY: Duration = Duration::from_secs(10);

/// Networks that are remembered; the one that was quiet for longest makes room.
const NETWORKS_MAX: usize = 10_000;

#[cfg(test)]
mod tests;
