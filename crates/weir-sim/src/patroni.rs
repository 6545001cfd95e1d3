//! Patroni's loop at each node, as far as clients of the cluster can notice: the leader key, promotion, demotion, the
//! synchronous standby, switchovers, and what happens without the store.

use std::time::Duration;

use crate::database::Phase;
use crate::plan::Step;
use crate::wire::Host;
use crate::world::{Event, Place, World};

impl World {
    pub(crate) fn patroni(&mut self, node: usize, run: u32) {
        let agent = &self.nodes[node].patroni;
        if !agent.is_up || agent.run != run {
            return;
        }
        let jitter = self.dice.millis(0, 50);
        let pause = self.paced(node, self.plan.loop_wait) + jitter;
        self.agenda.after(pause, Event::Patroni { node, run });
        self.look_after(node);
    }

    /// A time as this node's clock counts it.
    fn paced(&self, node: usize, time: Duration) -> Duration {
        time * self.plan.paces[node] / 100
    }

    /// What happens in the store wakes everybody who watches it.
    fn wake_others(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let (delay, run) = (self.dice.millis(1, 60), self.nodes[other].patroni.run);
            self.agenda.after(delay, Event::Patroni { node: other, run });
        }
    }

    fn look_after(&mut self, node: usize) {
        let now = self.agenda.now();
        if !self.dcs.is_up || !self.network.reach_each_other(Host::Node(node), Host::Dcs) {
            return self.without_store(node, now);
        }
        self.nodes[node].patroni.lost_store_at = None;
        if self.dcs.paused {
            return self.in_maintenance(node, now);
        }
        match self.dcs.holder(now) {
            Some(holder) if holder == node => self.lead(node, now),
            Some(_) => self.follow(node),
            None => self.run_for_leader(node, now),
        }
    }

    /// A leader that cannot renew its key steps down before the key expires, unless everybody agrees that it stays.
    fn without_store(&mut self, node: usize, now: Duration) {
        let lost_at = *self.nodes[node].patroni.lost_store_at.get_or_insert(now);
        if !self.nodes[node].patroni.leads || now - lost_at < self.paced(node, self.plan.loop_wait) {
            return;
        }
        let agree = |other: usize| {
            other == node
                || self.nodes[other].patroni.is_up
                    && self.can_talk(Host::Node(node), Host::Node(other))
                    && !self.is_frozen(Place::Patroni(other))
        };
        if self.plan.failsafe && (0..self.nodes.len()).all(agree) {
            return;
        }
        self.note(format!("n{node}: Patroni has lost the store"));
        self.demote(node);
    }

    /// Nothing is started, stopped or promoted. The key goes with who writes, if nobody else has it.
    fn in_maintenance(&mut self, node: usize, now: Duration) {
        let (holder, writes) = (self.dcs.holder(now), self.nodes[node].data.writes());
        if writes && holder.is_none_or(|holder| holder == node) {
            self.dcs.leader = Some((node, now + self.plan.ttl));
        } else if holder == Some(node) && !self.dcs.is_standby {
            self.dcs.leader = None;
        }
        self.nodes[node].patroni.leads = self.dcs.holder(now) == Some(node);
    }

    /// An operator promotes a standby while Patroni looks on.
    pub(crate) fn promote_by_hand(&mut self, node: usize) {
        if self.dcs.paused && !self.dcs.is_standby && self.nodes[node].data.phase == Phase::Standby {
            self.note(format!("n{node}: promoted by hand"));
            self.is_lossy |= !self.dcs.may_take_over(node);
            self.dcs.sync = (node, None);
            self.nodes[node].data.synchronous = None;
            self.enter(node, Phase::Promoting, 10, 400);
        }
    }

    fn demote(&mut self, node: usize) {
        self.nodes[node].patroni.leads = false;
        self.call();
        if !matches!(self.nodes[node].data.phase, Phase::Standby | Phase::Starting { as_standby: true }) {
            self.stop_fast(node, true);
            self.reach(Step::Demotes, node);
        }
    }

    fn lead(&mut self, node: usize, now: Duration) {
        self.dcs.leader = Some((node, now + self.plan.ttl));
        self.nodes[node].patroni.leads = true;
        match self.nodes[node].data.phase {
            Phase::Primary => {
                self.keep_synchronous(node);
                self.maybe_switch_over(node);
                self.heed_schedule(node, now);
            }
            Phase::Standby if self.dcs.is_standby => {}
            Phase::Standby => self.promote(node),
            Phase::Down => {
                let as_standby = self.nodes[node].data.is_recovering;
                self.enter(node, Phase::Starting { as_standby }, 50, 1_500);
            }
            Phase::Starting { .. } | Phase::Promoting | Phase::Stopping { .. } => {}
        }
    }

    /// A callback script tells weirs, if there is one.
    fn call(&mut self) {
        for weir in 0..self.weirs.len() {
            if self.plan.calls {
                let latency = self.network.latency();
                self.agenda.after(latency, Event::Called { weir });
            }
        }
    }

    fn promote(&mut self, node: usize) {
        self.call();
        self.note(format!("n{node}: Patroni promotes"));
        self.dcs.sync = (node, None);
        self.nodes[node].data.synchronous = None;
        self.enter(node, Phase::Promoting, 10, 400);
        self.reach(Step::Promotes, node);
    }

    /// The store names a standby only after commits wait for it, and forgets it before they do not.
    fn keep_synchronous(&mut self, node: usize) {
        if !self.plan.synchronous {
            self.dcs.sync = (node, None);
            return;
        }
        let streams = |standby: &usize| {
            *standby != node
                && self.upstream_of(*standby) == Some(node)
                && self.nodes[*standby].data.phase == Phase::Standby
                && self.nodes[*standby].data.is_prefix_of(&self.nodes[node].data)
        };
        let current = self.nodes[node].data.synchronous;
        let good = current.filter(streams).or_else(|| (0..self.nodes.len()).find(streams));
        if good != current {
            self.dcs.sync = (node, None);
            self.nodes[node].data.synchronous = good;
            self.release_commits(node);
        }
        let data = &self.nodes[node].data;
        if good.is_some() && data.is_safe(data.log.len()) {
            self.dcs.sync = (node, good);
        }
        if let Some(standby) = good {
            self.agenda.after(Duration::from_millis(1), Event::Stream { node: standby });
        }
    }

    pub(crate) fn maybe_switch_over(&mut self, node: usize) {
        let Some(candidate) = self.dcs.switchover else { return };
        let is_ready = candidate != node
            && self.nodes[candidate].data.phase == Phase::Standby
            && self.upstream_of(candidate) == Some(node)
            && (!self.plan.synchronous || self.dcs.sync == (node, Some(candidate)));
        if !is_ready {
            self.dcs.switchover = None;
            return;
        }
        self.note(format!("n{node}: switchover to n{candidate}"));
        self.demote(node);
        self.dcs.leader = None;
        self.wake_others(node);
    }

    fn follow(&mut self, node: usize) {
        self.nodes[node].patroni.leads = false;
        match self.nodes[node].data.phase {
            Phase::Primary | Phase::Promoting | Phase::Starting { as_standby: false } => self.demote(node),
            Phase::Down => self.enter(node, Phase::Starting { as_standby: true }, 50, 1_500),
            Phase::Standby => {
                self.rewind_if_needed(node);
                self.agenda.after(Duration::from_millis(1), Event::Stream { node });
            }
            Phase::Starting { as_standby: true } | Phase::Stopping { .. } => {}
        }
    }

    fn rewind_if_needed(&mut self, node: usize) {
        if let Some(upstream) = self.upstream_of(node)
            && !self.nodes[node].data.is_prefix_of(&self.nodes[upstream].data)
        {
            self.note(format!("n{node}: has to be rewound"));
            self.stop_fast(node, true);
        }
    }

    fn run_for_leader(&mut self, node: usize, now: Duration) {
        if self.nodes[node].patroni.leads {
            // Its key has expired under it.
            self.note(format!("n{node}: Patroni's key has expired"));
            self.demote(node);
        }
        match self.nodes[node].data.phase {
            Phase::Down => return self.enter(node, Phase::Starting { as_standby: true }, 50, 1_500),
            Phase::Promoting | Phase::Starting { .. } | Phase::Stopping { .. } => return,
            Phase::Standby | Phase::Primary => {}
        }
        let wanted = self.dcs.switchover;
        let is_synchronous = self.plan.synchronous && !self.dcs.is_standby;
        let may = if is_synchronous { self.dcs.may_take_over(node) } else { self.is_healthiest(node) };
        if !may || wanted.is_some_and(|wanted| wanted != node) {
            // A candidate that does not come is not waited for.
            self.dcs.switchover =
                wanted.filter(|wanted| self.nodes[*wanted].patroni.is_up && *wanted != node);
            return;
        }
        self.dcs.switchover = None;
        self.dcs.leader = Some((node, now + self.plan.ttl));
        self.nodes[node].patroni.leads = true;
        self.reach(Step::HasKey, node);
        if self.nodes[node].data.phase == Phase::Standby && !self.dcs.is_standby {
            self.promote(node);
        }
        self.wake_others(node);
    }

    /// Nobody who can be asked has more of the log.
    fn is_healthiest(&self, node: usize) -> bool {
        let own = &self.nodes[node].data;
        (0..self.nodes.len()).filter(|other| *other != node).all(|other| {
            let data = &self.nodes[other].data;
            !self.nodes[other].patroni.is_up
                || !self.can_talk(Host::Node(node), Host::Node(other))
                || (data.timeline, data.log.len()) <= (own.timeline, own.log.len())
        })
    }
}
