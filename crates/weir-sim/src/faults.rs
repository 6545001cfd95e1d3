//! What goes wrong, and when it is mended. Each fault heals by itself, so that in the end all is well.

use std::time::Duration;

use crate::database::Phase;
use crate::dice::Dice;
use crate::node::Api;
use crate::wire::{Host, Segment};
use crate::world::{Event, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillPostgres(usize),
    KillNode(usize),
    PowerLoss(usize),
    NodeReturns(usize),
    Freeze(Host),
    Thaw(Host),
    Cut(Host, Host),
    Mend(Host, Host),
    StoreDown,
    StoreUp,
    Rest(usize, Api),
    Switchover(usize),
    TerminateBackend(usize),
    CrashRecover(usize),
    StopFast(usize),
    NoLoadBalance(usize, bool),
    ClientVanishes(usize),
}

impl World {
    /// Plans all faults of this story.
    pub(crate) fn plan_faults(&mut self, begin: Duration, end: Duration) {
        let mut dice = self.dice.fork();
        for _ in 0..self.plan.faults {
            let at = begin
                + Duration::from_micros(dice.below(u64::try_from((end - begin).as_micros()).unwrap_or(1)));
            let (fault, healing) = self.draw(&mut dice);
            self.agenda.at(at, Event::Fault(fault));
            if let Some((after, mended)) = healing {
                self.agenda.at(at + after, Event::Fault(mended));
            }
        }
    }

    fn draw(&self, dice: &mut Dice) -> (Fault, Option<(Duration, Fault)>) {
        let node = dice.index(self.plan.nodes);
        let (host, other) = (Host::Node(node), self.other_host(node, dice));
        let short = dice.millis(50, 3_000);
        let long = dice.millis(500, 15_000);
        let time = if dice.once_in(2) { short } else { long };
        match dice.below(24) {
            0 | 1 => (Fault::KillPostgres(node), None),
            2 | 3 => (Fault::KillNode(node), Some((long, Fault::NodeReturns(node)))),
            4 => (Fault::PowerLoss(node), Some((long, Fault::NodeReturns(node)))),
            5..8 => (Fault::Freeze(host), Some((time, Fault::Thaw(host)))),
            8 | 9 => (Fault::Cut(host, other), Some((time, Fault::Mend(host, other)))),
            10 => (Fault::Cut(other, host), Some((time, Fault::Mend(other, host)))),
            11 => (Fault::StoreDown, Some((time, Fault::StoreUp))),
            12 => (Fault::Rest(node, Api::Hangs), Some((time, Fault::Rest(node, Api::Honest)))),
            13 => (Fault::Rest(node, Api::Refuses), Some((time, Fault::Rest(node, Api::Honest)))),
            14 => {
                let lie = Api::Lies(dice.once_in(2));
                (Fault::Rest(node, lie), Some((short, Fault::Rest(node, Api::Honest))))
            }
            15..=17 => (Fault::Switchover(node), None),
            18 => (Fault::TerminateBackend(node), None),
            19 => (Fault::CrashRecover(node), None),
            20 => (Fault::StopFast(node), None),
            21 => (Fault::NoLoadBalance(node, true), Some((long, Fault::NoLoadBalance(node, false)))),
            22 => {
                let weir = Host::Weir(dice.index(self.plan.weirs));
                (Fault::Freeze(weir), Some((short, Fault::Thaw(weir))))
            }
            _ => (Fault::ClientVanishes(dice.index(self.plan.clients)), None),
        }
    }

    /// Somebody else whom a node talks to.
    fn other_host(&self, node: usize, dice: &mut Dice) -> Host {
        match dice.below(3) {
            0 => Host::Dcs,
            1 => Host::Node((node + 1 + dice.index(self.plan.nodes - 1)) % self.plan.nodes),
            _ => Host::Weir(dice.index(self.plan.weirs)),
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
            Fault::NodeReturns(node) => self.node_returns(node),
            Fault::Freeze(host) => self.freeze(host),
            Fault::Thaw(host) => self.thaw(host),
            Fault::Cut(from, to) => self.network.cut(from, to, true),
            Fault::Mend(from, to) => self.network.cut(from, to, false),
            Fault::StoreDown => self.dcs.is_up = false,
            Fault::StoreUp => self.dcs.is_up = true,
            Fault::Rest(node, api) => self.nodes[node].patroni.api = api,
            Fault::Switchover(node) => self.dcs.switchover = Some(node),
            Fault::TerminateBackend(node) => {
                let pids: Vec<u32> = self.nodes[node].backends.keys().copied().collect();
                if !pids.is_empty() {
                    let pid = pids[self.dice.index(pids.len())];
                    self.terminate_backend(node, pid);
                }
            }
            Fault::CrashRecover(node) => self.crash_recover(node),
            Fault::StopFast(node) => self.stop_fast(node, false),
            Fault::NoLoadBalance(node, on) => self.nodes[node].patroni.noloadbalance = on,
            Fault::ClientVanishes(client) => self.vanish_client(client),
        }
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
        self.thaw(Host::Node(node));
        // The kernel's keepalive finds out.
        for wire in std::mem::take(&mut self.nodes[node].ghosts) {
            self.transmit(wire, 1, Segment::Reset);
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
        for host in self.frozen.keys().copied().collect::<Vec<_>>() {
            self.thaw(host);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].patroni.api = Api::Honest;
            self.nodes[node].patroni.noloadbalance = false;
            if !self.nodes[node].patroni.is_up {
                self.node_returns(node);
            }
            if self.nodes[node].data.phase == (Phase::Stopping { restarts: false }) {
                self.note(format!("n{node} is about to be down"));
            }
        }
    }
}
