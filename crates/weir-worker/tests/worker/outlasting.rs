//! Holds that outlast every limit of time that clients have, one after the other at random: planned ones, lost leaders, and
//! leaders that let nobody in. Nobody is disconnected and nothing fails, but by hold_timeout, and for sessions that went
//! with their leader.

use std::time::{Duration, Instant};

use weir_config::{Config, PoolMode, Upstream, User};
use weir_discovery::Topology;
use weir_worker::Role;

use crate::settings::{config, leaderless, led, size};
use crate::world::{World, echo};

const SEEDS: u64 = 32;
const ROUNDS: usize = 6;

/// Every limit that a client's own clocks have. Holds last up to seven times as long.
const LIMIT: Duration = Duration::from_secs(4);
const HOLD_SECONDS: usize = 28;
const STEP: Duration = Duration::from_secs(1);

#[test]
fn no_clock_of_a_client_runs_during_a_hold() {
    for seed in 0..SEEDS {
        let mut story = Story::new(seed);
        for _ in 0..ROUNDS {
            story.calm();
            let hold = story.hold_begins();
            story.hold_lasts(hold);
            story.hold_ends(hold);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Writer,
    Reader,
    /// Session pooling.
    Tied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Leaderless,
    Planned,
    /// The member that is said to lead is a standby still.
    Posed,
}

#[derive(Debug, Clone, Copy)]
struct Guest {
    who: usize,
    kind: Kind,
    /// It has said BEGIN, and nothing since.
    in_block: bool,
    asked: Option<Instant>,
}

struct Story {
    seed: u64,
    world: World,
    guests: Vec<Guest>,
    dice: u64,
    leader: usize,
    timeline: u32,
    hold_timeout: Duration,
}

const NAMES: [&str; 2] = ["n1", "n2"];

impl Story {
    fn new(seed: u64) -> Self {
        let hold_timeout = Duration::from_secs(if seed.is_multiple_of(3) { 10 } else { 60 });
        let world = World::with(limited(seed, hold_timeout), led("n1", 1, &[]), seed);
        let dice = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { seed, world, guests: Vec::new(), dice, leader: 0, timeline: 1, hold_timeout }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 33) as usize % bound
    }

    /// Everybody is here, is served at once, and begins a block or rests.
    fn calm(&mut self) {
        for (kind, wanted) in [(Kind::Writer, 4), (Kind::Reader, 2), (Kind::Tied, 2)] {
            for _ in self.guests.iter().filter(|guest| guest.kind == kind).count()..wanted {
                let (role, user) = match kind {
                    Kind::Writer => (Role::Write, "app"),
                    Kind::Reader => (Role::Read, "app"),
                    Kind::Tied => (Role::Write, "other"),
                };
                let who = self.world.client_of(role, user);
                self.guests.push(Guest { who, kind, in_block: false, asked: None });
            }
        }
        for at in 0..self.guests.len() {
            let Guest { who, kind, in_block, .. } = self.guests[at];
            if in_block {
                assert_eq!(self.world.ask(who, "commit"), ["COMMIT", "ready I"], "seed {}", self.seed);
            }
            let heard = self.world.ask(who, "select 1");
            assert_eq!(heard, echo("select 1"), "seed {}: {kind:?}", self.seed);
            self.guests[at].in_block = kind != Kind::Tied && self.below(3) == 0;
            if self.guests[at].in_block {
                assert_eq!(self.world.ask(who, "begin"), ["BEGIN", "ready T"], "seed {}", self.seed);
            }
        }
        let pause = self.below(10) as u64;
        self.world.pass(Duration::from_millis(100 * pause));
    }

    fn hold_begins(&mut self) -> Hold {
        let hold = [Hold::Leaderless, Hold::Planned, Hold::Posed][self.below(3)];
        let topology = match hold {
            Hold::Leaderless => leaderless(&[]),
            Hold::Planned => Topology { planned: Some("a switchover".to_owned()), ..self.topology() },
            Hold::Posed => {
                self.change_leader(false);
                self.topology()
            }
        };
        self.world.adopt(topology);
        if hold == Hold::Posed {
            // Nobody knows of it before somebody has tried.
            for kind in [Kind::Writer, Kind::Reader] {
                let first = self.guests.iter().position(|guest| guest.kind == kind).unwrap();
                self.ask(first);
            }
            self.tied_are_lost();
        }
        hold
    }

    fn hold_lasts(&mut self, hold: Hold) {
        for _ in 0..1 + self.below(HOLD_SECONDS) {
            let at = self.below(self.guests.len());
            if self.below(2) == 0 && self.guests[at].asked.is_none() {
                self.ask(at);
            }
            self.world.pass(STEP);
            for at in 0..self.guests.len() {
                self.hears_of_hold_timeout(at, hold);
            }
        }
    }

    fn hold_ends(&mut self, hold: Hold) {
        let comes = hold != Hold::Posed && self.below(2) == 0;
        if comes {
            self.change_leader(true);
        }
        self.world.member(NAMES[self.leader]).in_recovery = false;
        self.world.dials_held = true;
        self.world.adopt(self.topology());
        let pause = self.below(20) as u64;
        self.world.pass(Duration::from_millis(100 * pause));
        self.world.dials_held = false;
        self.world.pass(Duration::from_millis(100));
        if comes {
            self.tied_are_lost();
        }
        for guest in &mut self.guests {
            let heard = self.world.heard(guest.who);
            let ready = if guest.in_block { "ready T" } else { "ready I" };
            let served = ["row select 2", "SELECT 1", ready];
            let expected: &[&str] = if guest.asked.take().is_some() { &served } else { &[] };
            assert_eq!(heard, expected, "seed {}: {guest:?} {}", self.seed, self.world.error(guest.who));
            assert!(self.world.is_open(guest.who), "seed {}: {guest:?}", self.seed);
        }
    }

    fn ask(&mut self, at: usize) {
        self.world.query(self.guests[at].who, "select 2");
        self.guests[at].asked = Some(self.world.now);
    }

    /// Nothing is heard during a hold but that it was too long for a request.
    fn hears_of_hold_timeout(&mut self, at: usize, hold: Hold) {
        let Guest { who, in_block, asked, .. } = self.guests[at];
        let heard = self.world.heard(who);
        let told = format!(
            "seed {}, {hold:?}: {:?} {heard:?} {}",
            self.seed,
            self.guests[at],
            self.world.error(who)
        );
        if heard.is_empty() {
            assert!(self.world.is_open(who), "{told}");
            return;
        }
        let ready = if in_block { "ready E" } else { "ready I" };
        assert_eq!(heard, ["ERROR 57P03", ready], "{told}");
        let waited = self.world.now - asked.expect(&told);
        assert!(
            waited >= self.hold_timeout && waited <= self.hold_timeout + 2 * STEP,
            "{told} after {waited:?}"
        );
        if in_block {
            assert_eq!(self.world.ask(who, "rollback"), ["ROLLBACK", "ready I"], "{told}");
        }
        (self.guests[at].in_block, self.guests[at].asked) = (false, None);
    }

    /// What their sessions had was on the leader before.
    fn tied_are_lost(&mut self) {
        for guest in self.guests.extract_if(.., |guest| guest.kind == Kind::Tied) {
            assert_eq!(self.world.heard(guest.who), ["FATAL 57P01"], "seed {}", self.seed);
        }
    }

    fn topology(&self) -> Topology {
        led(NAMES[self.leader], self.timeline, &[])
    }

    fn change_leader(&mut self, is_promoted: bool) {
        self.world.member(NAMES[self.leader]).in_recovery = true;
        self.leader = 1 - self.leader;
        self.timeline += 1;
        for member in &mut self.world.members {
            member.timeline = self.timeline;
        }
        self.world.member(NAMES[self.leader]).in_recovery = !is_promoted;
    }
}

/// Limits for everybody, or each user's own.
fn limited(seed: u64, hold_timeout: Duration) -> Config {
    let mut config = config();
    let limit = Some(LIMIT);
    let mut other = User { pool_mode: Some(PoolMode::Session), ..User::default() };
    if seed.is_multiple_of(2) {
        let limits = &mut config.limits;
        (limits.query_timeout, limits.client_idle_timeout) = (limit, limit);
        (limits.transaction_timeout, limits.idle_transaction_timeout) = (limit, limit);
        config.pool.query_wait_timeout = limit;
    } else {
        let own = |user: User| User {
            query_timeout: Some(limit),
            client_idle_timeout: Some(limit),
            transaction_timeout: Some(limit),
            idle_transaction_timeout: Some(limit),
            query_wait_timeout: Some(limit),
            ..user
        };
        other = own(other);
        config.users.insert("app".to_owned(), own(User::default()));
    }
    config.users.insert("other".to_owned(), other);
    config.pool.size = size(9);
    config.pool.defer_begin = true;
    if let Upstream::Patroni(patroni) = &mut config.upstream {
        patroni.hold_timeout = hold_timeout;
    }
    config
}
