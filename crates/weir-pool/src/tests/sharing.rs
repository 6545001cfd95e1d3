//! Limits that several pools share: the stories, and random histories of several pools against what must always hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Several pools, their shared limits, and what a worker does for them.
struct Town {
    caps: Caps,
    pools: Vec<Pool>,
    /// Limits by pool: those of all its connections.
    fixed: Vec<Vec<CapId>>,
    hosts: BTreeMap<MemberId, CapId>,
    servers: BTreeMap<ServerId, PoolId>,
    /// Who waits, and since when.
    waiting: BTreeMap<ClientId, (PoolId, Instant)>,
    now: Instant,
    dice: Seeded,
    names: u32,
    /// Dials of the present step: pool, target, since when its client had waited.
    dialed: Vec<(PoolId, MemberId, Instant)>,
    /// What each limit allows.
    maxima: Vec<u32>,
}

impl Town {
    #[expect(clippy::disallowed_methods, reason = "the clock has to start somewhere")]
    fn new() -> Self {
        Self {
            caps: Caps::default(),
            pools: Vec::new(),
            fixed: Vec::new(),
            hosts: BTreeMap::new(),
            servers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            now: Instant::now(),
            dice: Seeded(11),
            names: 0,
            dialed: Vec::new(),
            maxima: Vec::new(),
        }
    }

    /// `pools` pools of the same database, which may have `max` connections.
    fn sharing(max: u32, pools: u32) -> Self {
        let mut town = Self::new();
        let cap = town.cap(max);
        for _ in 0..pools {
            town.pool(PoolKind::Write, limits(10), &[cap], &[1]);
        }
        town
    }

    fn cap(&mut self, max: u32) -> CapId {
        self.maxima.push(if max == 0 { u32::MAX } else { max });
        self.caps.add(NonZeroU32::new(max))
    }

    fn set_max(&mut self, max: u32) {
        assert!(self.caps.set_max(CapId(0), NonZeroU32::new(max)));
        self.maxima[0] = max;
        self.pools.iter().for_each(Pool::list_idle);
    }

    fn pool(&mut self, kind: PoolKind, limits: Limits, fixed: &[CapId], members: &[u32]) {
        let mut pool = Pool::new(kind, limits);
        pool.join(&self.caps, PoolId(self.pools.len() as u32), fixed);
        let targets: Vec<Target> = members.iter().map(|&member| target(member, 1)).collect();
        assert_eq!(pool.retarget(&targets, self.now), []);
        self.pools.push(pool);
        self.fixed.push(fixed.to_vec());
    }

    fn host(&mut self, member: u32, max: u32) {
        let cap = self.cap(max);
        self.caps.set_host(MemberId(member), cap);
        self.hosts.insert(MemberId(member), cap);
    }

    fn ask(&mut self, pool: usize) -> (ClientId, Checkout) {
        self.names += 1;
        let client = ClientId(self.names);
        let checkout = self.pools[pool].checkout(client, self.now, &mut self.dice);
        if checkout == Checkout::Queued {
            self.waiting.insert(client, (PoolId(pool as u32), self.now));
        }
        self.pump(pool);
        (client, checkout)
    }

    fn queue(&mut self, pool: usize) -> ClientId {
        let (client, checkout) = self.ask(pool);
        assert_eq!(checkout, Checkout::Queued);
        client
    }

    fn pump(&mut self, pool: usize) {
        self.dial(pool, false);
        let mut turns = 0;
        while let Some(PoolId(next)) = self.caps.next_turn() {
            self.dial(next as usize, true);
            turns += 1;
            assert!(turns < 1000, "turns without end");
        }
    }

    fn dial(&mut self, at: usize, is_turn: bool) {
        for _ in 0..1000 {
            let since = self.pools[at].unserved();
            let pool = &mut self.pools[at];
            let next = match is_turn {
                true => pool.dial_turn(self.now, &mut self.dice),
                false => pool.next_dial(self.now, &mut self.dice),
            };
            match next {
                NextDial::Nothing => return,
                NextDial::Evict(pool, server) => {
                    let facts = self.pools[pool.0 as usize].server(server).expect("it is there");
                    assert_eq!((facts.state, pool.0 as usize == at), (ServerState::Idle, false));
                    self.pools[pool.0 as usize].discard(server);
                    self.servers.remove(&server);
                    return;
                }
                NextDial::Dial(target) => {
                    self.names += 1;
                    let server = ServerId(self.names);
                    pool.dial_started(server, target, self.now);
                    self.servers.insert(server, PoolId(at as u32));
                    if let Some(since) = since {
                        self.dialed.push((PoolId(at as u32), target.member, since));
                    }
                    if is_turn {
                        return self.dial(at, false);
                    }
                }
            }
        }
        panic!("a pool that never has enough");
    }

    fn pick(&self, pick: usize, fits: impl Fn(ServerState) -> bool) -> Option<(ServerId, usize)> {
        let state = |server, pool: PoolId| Some(self.pools[pool.0 as usize].server(server)?.state);
        let fitting: Vec<(ServerId, usize)> = self
            .servers
            .iter()
            .filter(|(server, pool)| state(**server, **pool).is_some_and(&fits))
            .map(|(server, pool)| (*server, pool.0 as usize))
            .collect();
        fitting.get(pick.checked_rem(fitting.len())?).copied()
    }

    fn settled(&mut self, server: ServerId, pool: usize, settled: Settled) {
        match settled {
            Settled::Grant(client) => drop(self.waiting.remove(&client)),
            Settled::Idle => {}
            Settled::Retire => drop(self.servers.remove(&server)),
        }
        self.pump(pool);
    }

    fn ready(&mut self, pick: usize) {
        if let Some((server, pool)) = self.pick(pick, |state| state == ServerState::Dialing) {
            let settled = self.pools[pool].ready(server, self.now);
            self.settled(server, pool, settled);
        }
    }

    fn give_back(&mut self, pick: usize) {
        if let Some((server, pool)) = self.pick(pick, |state| matches!(state, ServerState::Active(_))) {
            let settled = self.pools[pool].give_back(server, self.now);
            self.settled(server, pool, settled);
        }
    }

    /// A client of the pool is served at once or after a dial.
    fn serve(&mut self, pool: usize) -> ServerId {
        let (client, checkout) = self.ask(pool);
        if let Checkout::Granted(server) = checkout {
            return server;
        }
        for _ in 0..100 {
            self.ready(0);
        }
        let holds = |facts: ServerFacts| facts.state == ServerState::Active(client);
        let mut own = self.pools[pool].servers().filter(|(_, facts)| holds(*facts));
        own.next().expect("it was served").0
    }

    fn free(&mut self, server: ServerId) {
        let pool = self.servers[&server].0 as usize;
        let settled = self.pools[pool].give_back(server, self.now);
        self.settled(server, pool, settled);
    }

    /// Connections by pool, dials included.
    fn slots(&self) -> Vec<u32> {
        self.pools.iter().map(|pool| pool.ledger.slots()).collect()
    }

    fn caps_of(&self, pool: usize, member: MemberId) -> Vec<CapId> {
        self.fixed[pool].iter().chain(self.hosts.get(&member)).copied().collect()
    }

    // What must always hold.

    fn check(&mut self) {
        self.caps.check_invariants(|cap| {
            let counts = |(server, pool): (&ServerId, &PoolId)| {
                let facts = self.pools[pool.0 as usize].server(*server).expect("known");
                self.caps_of(pool.0 as usize, facts.member).contains(&cap)
            };
            self.servers.iter().filter(|entry| counts(*entry)).count() as u32
        });
        let dialed = std::mem::take(&mut self.dialed);
        for at in 0..self.pools.len() {
            let Some(since) = self.pools[at].unserved() else { continue };
            if self.pools[at].ledger.slots() >= self.pools[at].limits().size.get() {
                continue;
            }
            for member in self.reachable(at) {
                assert!(!self.has_slot(at, member, &[]), "pool {at} waits though {member:?} has a slot");
                for (other, to, later) in &dialed {
                    let jumped =
                        *later > since && self.has_slot(at, member, &self.caps_of(other.0 as usize, *to));
                    assert!(!jumped, "pool {other:?} was dialed for before pool {at}");
                }
            }
        }
    }

    fn reachable(&self, pool: usize) -> Vec<MemberId> {
        let members = self.pools[pool].ledger.members.iter();
        members.filter(|member| member.may_dial(self.now)).map(|member| member.target.member).collect()
    }

    /// Whether a pool could dial a member, if these limits had one slot more.
    fn has_slot(&self, pool: usize, member: MemberId, freed: &[CapId]) -> bool {
        let idle = |cap: CapId| {
            self.servers.iter().any(|(server, owner)| {
                let facts = self.pools[owner.0 as usize].server(*server).expect("known");
                facts.state == ServerState::Idle
                    && owner.0 as usize != pool
                    && self.caps_of(owner.0 as usize, facts.member).contains(&cap)
            })
        };
        let room = |cap: &CapId| self.caps.used(*cap) < self.maxima[cap.0 as usize];
        self.caps_of(pool, member).iter().all(|cap| room(cap) || freed.contains(cap) || idle(*cap))
    }
}

#[test]
fn a_limit_holds_over_the_pools_that_share_it() {
    let mut town = Town::sharing(3, 2);
    for _ in 0..3 {
        town.queue(0);
        town.queue(1);
    }
    assert_eq!(town.slots(), [2, 1]);
    assert_eq!(town.caps.used(CapId(0)), 3);
}

#[test]
fn the_connection_that_has_rested_longest_makes_room() {
    let mut town = Town::sharing(3, 3);
    let (first, second, third) = (town.serve(0), town.serve(1), town.serve(1));
    for server in [second, first, third] {
        town.free(server);
        town.now += millis(1);
    }
    town.serve(2);
    assert_eq!(town.slots(), [1, 1, 1]);
    assert!(!town.servers.contains_key(&second), "it had rested longest");
    town.serve(2);
    assert!(!town.servers.contains_key(&first));
}

#[test]
fn busy_connections_are_never_closed_for_others() {
    let mut town = Town::sharing(1, 2);
    let busy = town.serve(0);
    assert_eq!(town.ask(1).1, Checkout::Queued);
    assert_eq!(town.slots(), [1, 0]);
    town.free(busy);
    assert_eq!(town.slots(), [0, 1]);
    assert!(town.pools[0].gave_way());
    town.ready(0);
    town.give_back(0);
    assert!(!town.pools[1].gave_way(), "nobody else waits");
}

#[test]
fn the_first_in_line_is_served_first_whatever_its_pool() {
    let mut town = Town::sharing(1, 3);
    let mut busy = town.serve(0);
    let mut clients = Vec::new();
    for pool in [2, 0, 1, 0, 2] {
        town.now += millis(20);
        clients.push((town.ask(pool).0, pool));
    }
    for (client, pool) in clients {
        town.now += millis(20);
        town.free(busy);
        town.ready(0);
        assert!(!town.waiting.contains_key(&client), "{client:?} of pool {pool} was passed over");
        busy = town.pick(0, |state| matches!(state, ServerState::Active(_))).expect("one is busy").0;
    }
}

#[test]
fn a_limit_that_is_pressed_against_does_not_reconnect_for_each_transaction() {
    let mut town = Town::sharing(1, 2);
    let busy = town.serve(0);
    let mut order = Vec::new();
    for pool in [1, 0, 1, 0] {
        town.now += millis(1);
        order.push(town.ask(pool).0);
    }
    town.free(busy);
    town.ready(0);
    assert!(!town.waiting.contains_key(&order[0]));
    town.give_back(0);
    assert!(!town.waiting.contains_key(&order[2]), "the same connection serves its own pool's next client");
    assert!(town.waiting.contains_key(&order[1]));
    town.now += crate::caps::HANDOVER_PAUSE;
    town.queue(1);
    town.give_back(0);
    town.ready(0);
    assert!(!town.waiting.contains_key(&order[1]), "nobody is passed over for long");
}

#[test]
fn a_host_that_is_full_does_not_keep_a_reader_from_another() {
    let mut town = Town::new();
    town.host(1, 1);
    town.host(2, 1);
    town.pool(PoolKind::Write, limits(9), &[], &[1]);
    town.pool(PoolKind::Read, limits(9), &[], &[1, 2]);
    town.serve(0);
    town.serve(1);
    assert_eq!(town.slots(), [1, 1]);
    assert_eq!(town.ask(1).1, Checkout::Queued);
    assert_eq!(town.slots(), [1, 1]);
    let (server, _) = town.pick(0, |_| true).expect("there are some");
    town.free(server);
    assert_eq!(town.slots(), [0, 2]);
}

#[test]
fn a_least_number_takes_no_slot_from_others() {
    let mut town = Town::new();
    let cap = town.cap(2);
    town.pool(PoolKind::Write, limits(9), &[cap], &[1]);
    town.pool(PoolKind::Write, Limits { min_size: 5, ..limits(9) }, &[cap], &[1]);
    let server = town.serve(0);
    town.free(server);
    town.pools[1].keep_min(true);
    for _ in 0..5 {
        town.pump(1);
        town.ready(0);
    }
    assert_eq!(town.slots(), [1, 1]);
    town.serve(0);
    town.serve(0);
    assert_eq!(town.slots(), [2, 0], "a client comes before it");
}

#[test]
fn a_smaller_limit_closes_what_is_too_much_and_a_greater_one_serves_who_waits() {
    let mut town = Town::sharing(0, 2);
    let servers = [town.serve(0), town.serve(0), town.serve(1), town.serve(1)];
    town.free(servers[0]);
    town.free(servers[2]);
    town.set_max(2);
    for at in 0..2 {
        for server in town.pools[at].expired(town.now) {
            town.servers.remove(&server);
        }
    }
    assert_eq!(town.slots(), [1, 1]);
    town.check();
    town.queue(0);
    assert_eq!(town.slots(), [1, 1]);
    town.set_max(3);
    town.pump(1);
    assert_eq!(town.slots(), [2, 1]);
    town.check();
}

#[test]
fn a_client_that_leaves_gives_up_its_place_in_line() {
    let mut town = Town::sharing(1, 2);
    let busy = town.serve(0);
    let (client, _) = town.ask(1);
    town.pools[1].forget(client);
    town.waiting.remove(&client);
    town.free(busy);
    assert_eq!(town.slots(), [1, 0], "nobody waits for its slot");
    town.check();
}

/// One thing that happens in a town. Numbers pick one of those that fit at that moment.
#[derive(Debug, Clone)]
enum Event {
    Ask(usize),
    Ready(usize),
    Fail(usize),
    GiveBack(usize),
    Lose(usize),
    Leave(usize),
    Expire(usize),
    Pause(usize),
    Resume(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => any::<usize>().prop_map(Event::Ask),
        8 => any::<usize>().prop_map(Event::Ready),
        1 => any::<usize>().prop_map(Event::Fail),
        9 => any::<usize>().prop_map(Event::GiveBack),
        1 => any::<usize>().prop_map(Event::Lose),
        2 => any::<usize>().prop_map(Event::Leave),
        1 => any::<usize>().prop_map(Event::Expire),
        1 => any::<usize>().prop_map(Event::Pause),
        2 => any::<usize>().prop_map(Event::Resume),
        4 => (0..30_u64).prop_map(Event::Pass),
    ]
}

impl Town {
    /// Three hosts, two databases, two users; a pool of each combination, and a read pool over two hosts.
    fn random(maxima: &[u32], sizes: &[u32]) -> Self {
        let mut town = Self::new();
        let caps: Vec<CapId> = maxima[..4].iter().map(|&max| town.cap(max)).collect();
        for (member, &max) in (1..).zip(&maxima[4..7]) {
            town.host(member, max);
        }
        let of = |size: u32, idle: u64| Limits { idle_timeout: Some(millis(idle)), ..limits(size) };
        for (at, (database, user)) in [(0, 2), (0, 3), (1, 2), (1, 3)].into_iter().enumerate() {
            let member = at as u32 % 2 + 1;
            town.pool(PoolKind::Write, of(sizes[at], 40), &[caps[database], caps[user]], &[member]);
        }
        town.pool(PoolKind::Read, of(sizes[4], 60), &[caps[0], caps[3]], &[2, 3]);
        town
    }

    fn play(&mut self, event: Event) {
        let pools = self.pools.len();
        match event {
            Event::Ask(pick) => drop(self.ask(pick % pools)),
            Event::Ready(pick) => self.ready(pick),
            Event::GiveBack(pick) => self.give_back(pick),
            Event::Fail(pick) => {
                if let Some((server, pool)) = self.pick(pick, |state| state == ServerState::Dialing) {
                    self.pools[pool].dial_failed(server, DialFailure::Refused, self.now);
                    self.servers.remove(&server);
                    self.pump(pool);
                }
            }
            Event::Lose(pick) => {
                if let Some((server, pool)) = self.pick(pick, |_| true) {
                    self.pools[pool].discard(server);
                    self.servers.remove(&server);
                    self.pump(pool);
                }
            }
            Event::Leave(pick) => {
                let at = pick.checked_rem(self.waiting.len()).unwrap_or_default();
                if let Some((&client, &(pool, _))) = self.waiting.iter().nth(at) {
                    self.waiting.remove(&client);
                    self.pools[pool.0 as usize].forget(client);
                }
            }
            Event::Expire(pick) => {
                let closed = self.pools[pick % pools].expired(self.now);
                self.close(pick % pools, &closed);
            }
            Event::Pause(pick) => {
                let closed = self.pools[pick % pools].pause();
                self.close(pick % pools, &closed);
            }
            Event::Resume(pick) => {
                self.pools[pick % pools].resume();
                self.pump(pick % pools);
            }
            Event::Pass(time) => {
                self.now += millis(time);
                // The tick, for members that may be dialed again.
                (0..pools).for_each(|pool| self.pump(pool));
                // Pools whose pause after a failure ended at the same moment are not in line yet.
                self.dialed.clear();
            }
        }
        self.check_running();
    }

    fn close(&mut self, pool: usize, closed: &[ServerId]) {
        for server in closed {
            self.servers.remove(server);
        }
        self.pump(pool);
    }

    /// [`Town::check`] but for paused pools, whose clients wait for something else.
    fn check_running(&mut self) {
        let paused: Vec<usize> = (0..self.pools.len()).filter(|&at| self.pools[at].is_paused()).collect();
        if paused.is_empty() {
            self.check();
        }
        self.dialed.clear();
    }

    /// Nothing fails any more: everybody who waits is served, each in its time.
    fn calm(&mut self) {
        for pool in 0..self.pools.len() {
            self.play(Event::Resume(pool));
        }
        for _ in 0..3000 {
            if self.waiting.is_empty() {
                return;
            }
            for event in [Event::Pass(20), Event::Ready(0), Event::GiveBack(0)] {
                self.play(event);
            }
        }
        panic!("{:?} are never served", self.waiting);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nobody_waits_beside_a_free_slot_and_no_limit_is_exceeded(
        maxima in proptest::collection::vec(0..6_u32, 7),
        sizes in proptest::collection::vec(1..5_u32, 5),
        events in proptest::collection::vec(event(), 0..250),
    ) {
        let mut town = Town::random(&maxima, &sizes);
        for event in events {
            town.play(event);
        }
        town.calm();
    }
}
