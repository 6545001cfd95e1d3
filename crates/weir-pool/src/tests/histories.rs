//! Random histories against a simple model: who waits in which order, who holds what. The pool checks its own books
//! after each step (debug builds); the model checks its answers.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

/// One thing that happens. Numbers pick one of those that fit at that moment.
#[derive(Debug, Clone)]
enum Step {
    Ask,
    /// A request that has failed on this member.
    AskElsewhere(u32),
    Dial,
    Ready(usize),
    DialFailed(usize),
    Part(usize),
    GiveBack(usize),
    Lose(usize),
    Forget(usize),
    Overdue(u64),
    Retarget(Vec<(u32, u64)>),
    Reconnect,
    Expire,
    Rebalance,
    Pause,
    Resume,
    Demand,
    Resize(u32),
    Keep(bool),
    Weigh(Vec<u32>, bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Ask),
        2 => (1..4_u32).prop_map(Step::AskElsewhere),
        6 => Just(Step::Dial),
        6 => any::<usize>().prop_map(Step::Ready),
        1 => any::<usize>().prop_map(Step::DialFailed),
        1 => any::<usize>().prop_map(Step::Part),
        8 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => any::<usize>().prop_map(Step::Forget),
        1 => (0..500_u64).prop_map(Step::Overdue),
        1 => proptest::collection::vec((1..4_u32, 1..3_u64), 0..4).prop_map(Step::Retarget),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Expire),
        2 => Just(Step::Rebalance),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => Just(Step::Demand),
        1 => (1..8_u32).prop_map(Step::Resize),
        1 => any::<bool>().prop_map(Step::Keep),
        2 => (proptest::collection::vec(0..4_u32, 4), any::<bool>()).prop_map(|(weights, in_turn)| Step::Weigh(weights, in_turn)),
        4 => (0..300_u64).prop_map(Step::Pass),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Dialing,
    Idle,
    With(ClientId),
    Parted,
}

impl Place {
    fn is_busy(self) -> bool {
        matches!(self, Place::With(_) | Place::Parted)
    }
}

/// What must be true, kept apart from the pool's own books.
struct Model {
    stage: Stage,
    kind: PoolKind,
    targets: Vec<Target>,
    queue: VecDeque<ClientId>,
    servers: BTreeMap<ServerId, (Target, Place)>,
}

impl Model {
    fn new(kind: PoolKind, limits: Limits) -> Self {
        let stage = Stage::new(kind, limits);
        Self { stage, kind, targets: Vec::new(), queue: VecDeque::new(), servers: BTreeMap::new() }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Ask => self.ask(),
            Step::AskElsewhere(not) => self.ask_elsewhere(MemberId(not)),
            Step::Dial => self.dial(),
            Step::Ready(pick) => {
                if let Some(server) = self.pick(pick, |place| place == Place::Dialing) {
                    let settled = self.stage.ready(server);
                    self.settled(server, settled);
                }
            }
            Step::DialFailed(pick) => {
                if let Some(server) = self.pick(pick, |place| place == Place::Dialing) {
                    self.stage.fail(server);
                    self.servers.remove(&server);
                }
            }
            Step::Part(pick) => {
                if let Some(server) = self.pick(pick, |place| matches!(place, Place::With(_))) {
                    self.stage.pool.part(server, self.stage.now);
                    self.servers.entry(server).and_modify(|(_, place)| *place = Place::Parted);
                }
            }
            Step::GiveBack(pick) => {
                if let Some(server) = self.pick(pick, Place::is_busy) {
                    let settled = self.stage.give_back(server);
                    self.settled(server, settled);
                }
            }
            Step::Lose(pick) => {
                if let Some(server) = self.pick(pick, |_| true) {
                    self.stage.pool.discard(server);
                    self.servers.remove(&server);
                }
            }
            Step::Forget(pick) => {
                if let Some(client) =
                    self.queue.len().checked_sub(1).and_then(|last| self.queue.remove(pick % (last + 1)))
                {
                    self.stage.pool.forget(client);
                }
            }
            Step::Overdue(limit) => {
                for client in self.stage.pool.overdue(self.stage.now, millis(limit)) {
                    assert_eq!(self.queue.pop_front(), Some(client), "timeouts go in order");
                }
            }
            Step::Retarget(targets) => self.retarget(&targets),
            Step::Reconnect => self.closed(|pool, _| pool.retire_all()),
            Step::Expire => self.closed(|pool, now| pool.expired(now)),
            Step::Rebalance => self.closed(|pool, now| pool.rebalance(now).into_iter().collect()),
            Step::Pause => self.closed(|pool, _| pool.pause()),
            Step::Resume => self.stage.pool.resume(),
            Step::Demand => self.stage.pool.demand_one(self.stage.now),
            Step::Resize(size) => {
                let limits =
                    Limits { size: NonZeroU32::new(size).expect("1 or more"), ..*self.stage.pool.limits() };
                self.stage.pool.set_limits(limits);
            }
            Step::Weigh(weights, in_turn) => self.weigh(&weights, in_turn),
            Step::Keep(keep) => self.stage.pool.keep_min(keep),
            Step::Pass(time) => self.stage.pass(millis(time)),
        }
        self.compare();
    }

    fn pick(&self, pick: usize, fits: impl Fn(Place) -> bool) -> Option<ServerId> {
        let fitting: Vec<ServerId> =
            self.servers.iter().filter(|(_, (_, place))| fits(*place)).map(|(&id, _)| id).collect();
        fitting.get(pick.checked_rem(fitting.len())?).copied()
    }

    fn ask(&mut self) {
        let (client, checkout) = self.stage.ask();
        match checkout {
            Checkout::Granted(server) => {
                assert!(self.queue.is_empty(), "{client:?} jumped the queue");
                let (target, place) = self.servers[&server];
                assert_eq!(place, Place::Idle);
                assert!(self.targets.contains(&target), "{target:?} is not current");
                self.servers.insert(server, (target, Place::With(client)));
            }
            Checkout::Queued => self.queue.push_back(client),
            Checkout::Failing => {
                assert!(self.stage.pool.limits().login_retry.is_some());
                assert!(
                    self.servers.values().all(|(_, place)| *place == Place::Dialing),
                    "it has connections"
                );
            }
            Checkout::QueueFull => assert!(self.queue.len() >= self.stage.pool.limits().waiting_max as usize),
        }
    }

    fn weigh(&mut self, weights: &[u32], in_turn: bool) {
        self.stage.pool.set_weights(|target| weights[target.member.0 as usize]);
        let balance = if in_turn { Balance::InTurn } else { Balance::FewerBusy };
        let limits = Limits { balance, ..*self.stage.pool.limits() };
        self.stage.pool.set_limits(limits);
    }

    fn ask_elsewhere(&mut self, not: MemberId) {
        let stage = &mut self.stage;
        stage.clients += 1;
        let client = ClientId(stage.clients);
        if let Some(server) = stage.pool.checkout_elsewhere(client, not, stage.now, &mut stage.dice) {
            let (target, place) = self.servers[&server];
            assert_eq!(place, Place::Idle);
            assert!(target.member != not && self.targets.contains(&target), "{target:?} is no other");
            assert!(self.queue.is_empty(), "{client:?} jumped the queue");
            self.servers.insert(server, (target, Place::With(client)));
        }
    }

    fn dial(&mut self) {
        let before = self.servers.values().filter(|(_, place)| *place == Place::Dialing).count();
        let started = self.stage.dial();
        assert!(started.is_empty() || !self.stage.pool.is_paused());
        let at_once = self.stage.pool.limits().dials_at_once as usize;
        assert!(started.is_empty() || before + started.len() <= at_once);
        for server in started {
            let facts = self.stage.pool.server(server).expect("just started");
            let target = Target { member: facts.member, epoch: facts.epoch };
            assert!(self.targets.contains(&target), "{target:?} is not current");
            self.servers.insert(server, (target, Place::Dialing));
        }
    }

    fn settled(&mut self, server: ServerId, settled: Settled) {
        let (target, _) = self.servers[&server];
        let place = match settled {
            Settled::Grant(client) => {
                assert_eq!(self.queue.pop_front(), Some(client), "out of turn");
                Place::With(client)
            }
            Settled::Idle => {
                assert!(self.queue.is_empty(), "idle although {:?} wait", self.queue);
                Place::Idle
            }
            Settled::Retire => {
                self.servers.remove(&server);
                return;
            }
        };
        assert!(self.targets.contains(&target), "{target:?} is not current");
        self.servers.insert(server, (target, place));
    }

    fn retarget(&mut self, targets: &[(u32, u64)]) {
        let one_each: BTreeMap<u32, u64> = targets.iter().copied().collect();
        let most = if self.kind == PoolKind::Write { 1 } else { usize::MAX };
        self.targets = one_each.into_iter().map(|(member, epoch)| target(member, epoch)).take(most).collect();
        let targets = self.targets.clone();
        self.closed(|pool, now| pool.retarget(&targets, now));
        for (target, place) in self.servers.values() {
            let ends_its_work = self.kind == PoolKind::Read && place.is_busy();
            assert!(self.targets.contains(target) || ends_its_work, "{target:?} outlived its time");
        }
    }

    fn closed(&mut self, act: impl FnOnce(&mut Pool, Instant) -> Vec<ServerId>) {
        for server in act(&mut self.stage.pool, self.stage.now) {
            let (target, place) = self.servers.remove(&server).expect("closed one that was not there");
            let cut = place.is_busy();
            assert!(
                !cut || self.kind == PoolKind::Write && !self.targets.contains(&target),
                "cut a busy {target:?}"
            );
        }
    }

    fn compare(&self) {
        assert_eq!(self.stage.pool.waiting(), self.queue.len());
        assert_eq!(self.stage.pool.servers().count(), self.servers.len());
        for (server, (target, place)) in &self.servers {
            let facts = self.stage.pool.server(*server).expect("the pool forgot one");
            let state = match place {
                Place::Dialing => ServerState::Dialing,
                Place::Idle => ServerState::Idle,
                Place::With(client) => ServerState::Active(*client),
                Place::Parted => ServerState::Parted,
            };
            assert_eq!((facts.state, facts.member, facts.epoch), (state, target.member, target.epoch));
        }
    }

    /// Faults stop, somebody leads: everybody who waits is served.
    fn calm(&mut self) {
        self.play(Step::Resume);
        self.play(Step::Retarget(vec![(9, 9)]));
        for _ in 0..1000 {
            if self.queue.is_empty() {
                return;
            }
            self.play(Step::Dial);
            for step in [Step::Ready(0), Step::GiveBack(0), Step::Pass(20)] {
                self.play(step);
            }
        }
        panic!("{:?} still wait in {:?}", self.queue, self.stage.pool);
    }
}

fn play(kind: PoolKind, limits: Limits, steps: Vec<Step>) {
    let mut model = Model::new(kind, limits);
    model.play(Step::Retarget(vec![(1, 1), (2, 1)]));
    for step in steps {
        model.play(step);
    }
    model.calm();
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let time = || proptest::option::of((0..2000_u64).prop_map(millis));
    let reserve = || (0..3_u32, time(), 0..4_u32);
    (1..6_u32, time(), time(), 0..8_u32, 1..4_u32, reserve(), time(), any::<bool>()).prop_map(
        |(size, idle_timeout, lifetime, waiting_max, dials_at_once, reserve, login_retry, round_robin)| {
            Limits {
                idle_timeout,
                lifetime,
                waiting_max,
                dials_at_once,
                reserve: reserve.0,
                reserve_timeout: reserve.1,
                min_size: reserve.2,
                login_retry,
                round_robin,
                ..limits(size)
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_write_pool_keeps_its_promises(limits in any_limits(), steps in proptest::collection::vec(step(), 0..200)) {
        play(PoolKind::Write, limits, steps);
    }

    #[test]
    fn a_read_pool_keeps_its_promises(limits in any_limits(), steps in proptest::collection::vec(step(), 0..200)) {
        play(PoolKind::Read, limits, steps);
    }
}
