//! What goes wrong, and when it is mended. Each fault heals by itself, so that in the end all is well.

use std::time::Duration;

use weir_worker::Order;

use crate::database::{Database, Phase};
use crate::dice::Dice;
use crate::node::Api;
use crate::plan::Step;
use crate::schedule::Calendar;
use crate::server::KEEPALIVE_MS;
use crate::wire::Host;
use crate::world::{Event, Place, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillPostgres(usize),
    KillNode(usize),
    PowerLoss(usize),
    NodeReturns(usize),
    Freeze(Place),
    Thaw(Place),
    Cut(Host, Host),
    Mend(Host, Host),
    /// Messages get lost everywhere, or no longer.
    Loss(bool),
    StoreDown,
    StoreUp,
    Rest(usize, Api),
    Switchover(usize),
    /// Maintenance begins or ends.
    Maintenance(bool),
    PromoteByHand(usize),
    TerminateBackend(usize),
    CrashRecover(usize),
    StopFast(usize),
    NoLoadBalance(usize, bool),
    /// A standby stops to replay, or goes on.
    Lag(usize, bool),
    /// Replay at a standby breaks off half of what is read there, or no longer.
    Conflicts(usize, bool),
    /// A switchover to this node is scheduled, so long ahead.
    Schedule(usize, Duration),
    /// A weir's calendar leaps.
    Calendar(usize, Calendar),
    /// A weir is killed, and started anew.
    WeirDies(usize),
    WeirStarts(usize),
    /// The cluster follows another one no longer.
    PromoteCluster,
    /// The node dies, and a server of another cluster gets its address.
    Stranger(usize),
    ClientVanishes(usize),
    /// An operator at the console of a weir.
    Console(usize, Wish),
}

/// What operators want, and take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Pause,
    Resume,
    Reconnect,
    Kill,
    KillClient,
    Reload,
    Switchover,
}

type Mending = Option<(Duration, Fault)>;

impl World {
    /// Plans all faults of this story.
    pub(crate) fn plan_faults(&mut self, begin: Duration, end: Duration) {
        let mut dice = self.dice.fork();
        if let Some(node) = self.plan.laggard {
            self.agenda.at(begin, Event::Fault(Fault::Lag(node, true)));
        }
        if self.plan.is_standby {
            let at = begin + dice.millis(0, 30_000);
            self.agenda.at(at, Event::Fault(Fault::PromoteCluster));
        }
        for _ in 0..self.plan.faults {
            let at = begin
                + Duration::from_micros(dice.below(u64::try_from((end - begin).as_micros()).unwrap_or(1)));
            let (fault, mending) = self.draw(&mut dice);
            self.agenda.at(at, Event::Fault(fault));
            if let Fault::Maintenance(true) = fault {
                let promotion = at + dice.millis(100, 3_000);
                let node = dice.index(self.plan.nodes);
                if dice.once_in(2) {
                    self.agenda.at(at, Event::Fault(Fault::KillPostgres(0)));
                }
                self.agenda.at(promotion, Event::Fault(Fault::PromoteByHand(node)));
            }
            if let Some((after, mended)) = mending {
                self.agenda.at(at + after, Event::Fault(mended));
            }
        }
    }

    fn draw(&self, dice: &mut Dice) -> (Fault, Mending) {
        if self.plan.is_planned {
            return (Fault::Console(0, Wish::Switchover), None);
        }
        let node = dice.index(self.plan.nodes);
        if self.plan.is_scheduled {
            return (Fault::Schedule(node, dice.millis(1_500, 8_000)), None);
        }
        let short = dice.millis(50, 3_000);
        let long = dice.millis(500, 15_000);
        let time = if dice.once_in(2) { short } else { long };
        match dice.below(12) {
            0 | 1 => draw_death(dice, node, long),
            2 | 3 => self.draw_freeze(dice, node, time),
            4 => self.draw_cut(dice, node, time),
            5 => match dice.below(3) {
                0 => (Fault::StoreDown, Some((time, Fault::StoreUp))),
                1 => (Fault::Loss(true), Some((time, Fault::Loss(false)))),
                _ => (Fault::Maintenance(true), Some((long, Fault::Maintenance(false)))),
            },
            6 => {
                let lie = Api::Lies(dice.once_in(2));
                let apis = [Api::Hangs, Api::Refuses, lie, lie, Api::WrongRole, Api::Garbage];
                (
                    Fault::Rest(node, apis[dice.index(apis.len())]),
                    Some((time, Fault::Rest(node, Api::Honest))),
                )
            }
            7 => (Fault::Switchover(node), None),
            8 => match dice.below(5) {
                0..2 => (Fault::Switchover(node), None),
                2 => self.draw_leap(dice, long),
                _ => (Fault::Schedule(node, dice.millis(500, 8_000)), None),
            },
            9 => match dice.below(5) {
                3 => (Fault::Conflicts(node, true), Some((long, Fault::Conflicts(node, false)))),
                4 => self.draw_restart(dice, short),
                0 => (Fault::NoLoadBalance(node, true), Some((long, Fault::NoLoadBalance(node, false)))),
                1 => (Fault::Lag(node, true), Some((long, Fault::Lag(node, false)))),
                _ => (Fault::ClientVanishes(dice.index(self.plan.clients.len())), None),
            },
            10 => self.draw_order(dice, short),
            _ => (Fault::ClientVanishes(dice.index(self.plan.clients.len())), None),
        }
    }

    fn draw_freeze(&self, dice: &mut Dice, node: usize, time: Duration) -> (Fault, Mending) {
        let place = match dice.below(5) {
            0 => Place::Postgres(node),
            1 => Place::Patroni(node),
            // Time leaps for it.
            2 => Place::Host(Host::Weir(dice.index(self.plan.weirs))),
            _ => Place::Host(Host::Node(node)),
        };
        (Fault::Freeze(place), Some((time, Fault::Thaw(place))))
    }

    fn draw_leap(&self, dice: &mut Dice, time: Duration) -> (Fault, Mending) {
        let (weir, by) = (dice.index(self.plan.weirs), dice.millis(100, 20_000));
        let leap = if dice.once_in(2) { Calendar::Ahead(by) } else { Calendar::Behind(by) };
        (Fault::Calendar(weir, leap), Some((time, Fault::Calendar(weir, Calendar::Right))))
    }

    fn draw_restart(&self, dice: &mut Dice, time: Duration) -> (Fault, Mending) {
        let weir = dice.index(self.plan.weirs);
        (Fault::WeirDies(weir), Some((time, Fault::WeirStarts(weir))))
    }

    /// One direction only, or both.
    fn draw_cut(&self, dice: &mut Dice, node: usize, time: Duration) -> (Fault, Mending) {
        let host = Host::Node(node);
        let other = match dice.below(3) {
            0 => Host::Dcs,
            1 => Host::Node((node + 1 + dice.index(self.plan.nodes - 1)) % self.plan.nodes),
            _ => Host::Weir(dice.index(self.plan.weirs)),
        };
        let (from, to) = if dice.once_in(3) { (other, host) } else { (host, other) };
        (Fault::Cut(from, to), Some((time, Fault::Mend(from, to))))
    }

    fn draw_order(&self, dice: &mut Dice, time: Duration) -> (Fault, Mending) {
        let weir = dice.index(self.plan.weirs);
        let resume = Some((time, Fault::Console(weir, Wish::Resume)));
        match dice.below(8) {
            6 | 7 => (Fault::Console(weir, Wish::Switchover), None),
            0 | 1 => (Fault::Console(weir, Wish::Pause), resume),
            2 => (Fault::Console(weir, Wish::Kill), resume),
            3 => (Fault::Console(weir, Wish::KillClient), None),
            4 => (Fault::Console(weir, Wish::Reconnect), None),
            _ => (Fault::Console(weir, Wish::Reload), None),
        }
    }

    pub(crate) fn befall(&mut self, fault: Fault) {
        self.note(format!("{fault:?}"));
        match fault {
            Fault::KillPostgres(node) => self.kill_postgres(node),
            Fault::KillNode(node) => {
                self.nodes[node].patroni.is_up = false;
                self.kill_postgres(node);
            }
            Fault::PowerLoss(node) => {
                self.nodes[node].patroni.is_up = false;
                self.isolate(node, true);
                self.vanish(node);
            }
            Fault::Stranger(node) => self.give_away(node),
            Fault::NodeReturns(node) => self.node_returns(node),
            Fault::Freeze(place) => self.freeze(place),
            Fault::Thaw(place) => self.thaw(place),
            Fault::Cut(from, to) => self.network.cut(from, to, true),
            Fault::Mend(from, to) => self.network.cut(from, to, false),
            Fault::Loss(is_lossy) => self.network.lose(is_lossy),
            Fault::StoreDown => self.dcs.is_up = false,
            Fault::StoreUp => self.dcs.is_up = true,
            Fault::Rest(node, api) => self.nodes[node].patroni.api = api,
            Fault::Switchover(node) => self.dcs.switchover = Some(node),
            Fault::Maintenance(on) => {
                self.dcs.paused = on;
                self.was_paused |= on;
            }
            Fault::PromoteByHand(node) => self.promote_by_hand(node),
            Fault::TerminateBackend(node) => self.terminate_any(node),
            Fault::CrashRecover(node) => self.crash_recover(node),
            Fault::StopFast(node) => self.stop_fast(node, false),
            Fault::NoLoadBalance(node, on) => self.nodes[node].patroni.noloadbalance = on,
            Fault::Lag(node, on) => {
                let data = &mut self.nodes[node].data;
                data.replay_stops_at = (on && !data.writes()).then_some(data.log.len());
            }
            Fault::Conflicts(node, on) => self.nodes[node].has_conflicts = on,
            Fault::Schedule(node, ahead) => self.schedule(node, ahead),
            Fault::Calendar(weir, calendar) => self.weirs[weir].calendar = calendar,
            Fault::WeirDies(weir) => self.kill_weir(weir),
            Fault::WeirStarts(weir) => self.start_weir(weir),
            Fault::PromoteCluster => self.dcs.is_standby = false,
            Fault::ClientVanishes(client) => self.vanish_client(client),
            Fault::Console(weir, Wish::Switchover) => self.begin_switchover(weir),
            Fault::Console(weir, wish) => {
                let order = self.order_for(weir, wish);
                self.agenda.after(Duration::ZERO, Event::Operator { weir, order });
            }
        }
    }

    fn terminate_any(&mut self, node: usize) {
        let pids: Vec<u32> = self.nodes[node].backends.keys().copied().collect();
        if !pids.is_empty() {
            let pid = pids[self.dice.index(pids.len())];
            self.terminate_backend(node, pid);
        }
    }

    fn order_for(&mut self, weir: usize, wish: Wish) -> Order {
        match wish {
            Wish::Switchover | Wish::Pause => Order::Pause(None),
            Wish::Resume => Order::Resume(None),
            Wish::Reconnect => Order::Reconnect(None),
            Wish::Kill => Order::Kill(None),
            Wish::KillClient => {
                let clients = self.weirs[weir].worker.snapshot(self.instant()).clients;
                let at = self.dice.index(clients.len());
                Order::KillClient(clients.get(at).map_or(0, |client| client.id))
            }
            Wish::Reload => Order::Configure(self.weirs[weir].reconfigured(&mut self.dice)),
        }
    }

    /// An operator's order reaches a weir. KILL pauses first, as the console does it.
    pub(crate) fn operate(&mut self, weir: usize, order: Order) {
        if !self.weirs[weir].is_up {
            return;
        }
        if matches!(order, Order::Kill(_) | Order::KillClient(_)) {
            for client in self.clients.iter_mut().filter(|client| client.weir == weir) {
                client.is_forced = true;
            }
        }
        if matches!(order, Order::Kill(_)) {
            self.turn(weir, |worker, now, effects| worker.order(now, Order::Pause(None), effects));
        }
        self.turn(weir, |worker, now, effects| worker.order(now, order, effects));
    }

    /// A step of a failover: in some stories the node that takes it dies there, once.
    pub(crate) fn reach(&mut self, step: Step, node: usize) {
        if self.plan.crash_at != Some(step) || self.is_calm || self.agenda.now() < FIRST_CRASH {
            return;
        }
        self.plan.crash_at = None;
        let after = self.dice.millis(0, 30);
        let (fault, mending) = match self.dice.below(3) {
            0 => (Fault::KillPostgres(node), None),
            1 => (Fault::KillNode(node), Some(Fault::NodeReturns(node))),
            _ => (Fault::PowerLoss(node), Some(Fault::NodeReturns(node))),
        };
        self.agenda.after(after, Event::Fault(fault));
        if let Some(mended) = mending {
            let later = self.dice.millis(500, 8_000);
            self.agenda.after(after + later, Event::Fault(mended));
        }
    }

    /// The node is gone for good as far as anybody can see, and its address belongs to somebody else.
    fn give_away(&mut self, node: usize) {
        self.nodes[node].patroni.is_up = false;
        self.kill_postgres(node);
        let mut stranger = Database::new(Phase::Primary);
        stranger.timeline = self.nodes[node].data.timeline;
        self.nodes[node].stranger = Some(stranger);
    }

    fn isolate(&mut self, node: usize, is_cut: bool) {
        let others = (0..self.plan.nodes)
            .map(Host::Node)
            .chain((0..self.plan.weirs).map(Host::Weir))
            .chain([Host::Dcs]);
        for other in others.collect::<Vec<_>>() {
            self.network.cut(Host::Node(node), other, is_cut);
            self.network.cut(other, Host::Node(node), is_cut);
        }
    }

    fn node_returns(&mut self, node: usize) {
        self.isolate(node, false);
        self.thaw(Place::Host(Host::Node(node)));
        if self.nodes[node].stranger.take().is_some() {
            self.kill_postgres(node);
        }
        // A machine that was switched off knows nothing of its connections. The other ends hear so when they speak next,
        // or when their kernels ask.
        for wire in std::mem::take(&mut self.nodes[node].ghosts) {
            let after = self.dice.millis(0, KEEPALIVE_MS);
            self.agenda.after(after, Event::Probed { wire });
        }
        let agent = &mut self.nodes[node].patroni;
        if agent.is_up {
            return;
        }
        agent.is_up = true;
        agent.leads = false;
        agent.run += 1;
        let run = agent.run;
        self.agenda.after(Duration::from_millis(200), Event::Patroni { node, run });
    }

    /// Everything that is still wrong is mended.
    pub(crate) fn mend_all(&mut self) {
        self.network.heal();
        self.dcs.is_up = true;
        self.dcs.switchover = None;
        self.dcs.scheduled = None;
        self.dcs.paused = false;
        self.dcs.is_standby = false;
        for host in self.frozen.keys().copied().collect::<Vec<_>>() {
            self.thaw(host);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].patroni.api = Api::Honest;
            self.nodes[node].patroni.noloadbalance = false;
            self.nodes[node].has_conflicts = false;
            if self.plan.laggard != Some(node) {
                self.nodes[node].data.replay_stops_at = None;
            }
            if !self.nodes[node].patroni.is_up {
                self.node_returns(node);
            }
        }
        for weir in 0..self.weirs.len() {
            self.start_weir(weir);
            self.weirs[weir].calendar = Calendar::Right;
            self.agenda.after(Duration::ZERO, Event::Operator { weir, order: Order::Resume(None) });
        }
    }
}

fn draw_death(dice: &mut Dice, node: usize, time: Duration) -> (Fault, Mending) {
    let returns = Some((time, Fault::NodeReturns(node)));
    match dice.below(7) {
        0 => (Fault::KillPostgres(node), None),
        1 => (Fault::KillNode(node), returns),
        2 => (Fault::PowerLoss(node), returns),
        3 => (Fault::Stranger(node), returns),
        4 => (Fault::TerminateBackend(node), None),
        5 => (Fault::CrashRecover(node), None),
        _ => (Fault::StopFast(node), None),
    }
}

/// Before that everybody finds its place.
const FIRST_CRASH: Duration = Duration::from_secs(3);
