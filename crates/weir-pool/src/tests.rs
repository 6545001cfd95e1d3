//! What a pool promises, told as short stories on a clock that only moves when told to.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use crate::*;

mod choosing;
mod fixed;
mod histories;
mod reads;
mod resting;
mod sharing;
mod sizes;
mod waiting;
mod writes;

/// Limits that stand in nobody's way.
fn limits(size: u32) -> Limits {
    Limits {
        size: NonZeroU32::new(size).expect("a pool of at least one"),
        reserve: 0,
        reserve_timeout: None,
        min_size: 0,
        round_robin: false,
        balance: Balance::FewerBusy,
        login_retry: None,
        idle_timeout: None,
        lifetime: None,
        test_after: None,
        waiting_max: 100,
        dials_at_once: 100,
    }
}

fn target(member: u32, epoch: u64) -> Target {
    Target { member: MemberId(member), epoch }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A pool with a clock, dice, and fresh names for clients and servers.
struct Stage {
    pool: Pool,
    now: Instant,
    dice: Seeded,
    clients: u32,
    servers: u32,
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "the clock has to start somewhere")]
    fn new(kind: PoolKind, limits: Limits) -> Self {
        Self { pool: Pool::new(kind, limits), now: Instant::now(), dice: Seeded(7), clients: 0, servers: 0 }
    }

    /// A write pool on member 1, epoch 1.
    fn write(limits: Limits) -> Self {
        let mut stage = Self::new(PoolKind::Write, limits);
        assert_eq!(stage.retarget(&[target(1, 1)]), []);
        stage
    }

    /// A read pool on members 1 to `members`, each in epoch 1.
    fn read(members: u32, limits: Limits) -> Self {
        let mut stage = Self::new(PoolKind::Read, limits);
        let targets: Vec<Target> = (1..=members).map(|member| target(member, 1)).collect();
        assert_eq!(stage.retarget(&targets), []);
        stage
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn retarget(&mut self, targets: &[Target]) -> Vec<ServerId> {
        self.pool.retarget(targets, self.now)
    }

    /// A new client asks.
    fn ask(&mut self) -> (ClientId, Checkout) {
        self.clients += 1;
        let client = ClientId(self.clients);
        (client, self.pool.checkout(client, self.now, &mut self.dice))
    }

    /// A new client asks and has to wait.
    fn wait(&mut self) -> ClientId {
        let (client, checkout) = self.ask();
        assert_eq!(checkout, Checkout::Queued);
        client
    }

    /// A new client asks and is served at once.
    fn take(&mut self) -> ServerId {
        match self.ask().1 {
            Checkout::Granted(server) => server,
            Checkout::Queued | Checkout::QueueFull | Checkout::Failing => {
                panic!("nothing idle in {:?}", self.pool)
            }
        }
    }

    /// Starts every dial that the pool asks for.
    fn dial(&mut self) -> Vec<ServerId> {
        let mut started = Vec::new();
        while let NextDial::Dial(target) = self.pool.next_dial(self.now, &mut self.dice) {
            self.servers += 1;
            let server = ServerId(self.servers);
            self.pool.dial_started(server, target, self.now);
            started.push(server);
            assert!(started.len() < 1000, "a pool that never has enough");
        }
        started
    }

    fn fail(&mut self, server: ServerId) {
        self.pool.dial_failed(server, DialFailure::Refused, self.now);
    }

    fn ready(&mut self, server: ServerId) -> Settled {
        self.pool.ready(server, self.now)
    }

    fn give_back(&mut self, server: ServerId) -> Settled {
        self.pool.give_back(server, self.now)
    }

    /// Opens `count` connections for as many clients; all are in use afterwards.
    fn busy(&mut self, count: usize) -> Vec<ServerId> {
        let clients: Vec<ClientId> = (0..count).map(|_| self.wait()).collect();
        let servers = self.dial();
        assert_eq!(servers.len(), count);
        for (&server, &client) in servers.iter().zip(&clients) {
            assert_eq!(self.ready(server), Settled::Grant(client));
        }
        servers
    }

    /// Opens `count` connections and leaves them idle, given back in the order they were opened.
    fn idle(&mut self, count: usize) -> Vec<ServerId> {
        let servers = self.busy(count);
        for &server in &servers {
            assert_eq!(self.give_back(server), Settled::Idle);
        }
        servers
    }

    fn member(&self, server: ServerId) -> Option<MemberId> {
        self.pool.server(server).map(|facts| facts.member)
    }

    fn on(&self, member: u32) -> usize {
        self.pool.servers().filter(|(_, facts)| facts.member == MemberId(member) && !facts.retire).count()
    }

    fn counts(&self) -> (u32, u32, u32, u32) {
        let PoolCounts { active, idle, dialing, waiting, tested: _ } = self.pool.counts();
        (active, idle, dialing, waiting)
    }
}

/// A small generator (xorshift64); the seed is the history.
struct Seeded(u64);

impl Dice for Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
