//! Where the pools of a database may dial: its own hosts, or whom the topology names. A function of configuration and
//! topology; knows no connection.

use std::rc::Rc;

use slab::Slab;
use weir_config::{Config, Database, Host, LoadBalance, Upstream};
use weir_discovery::{Address, Leadership, ReadFallback, Topology};
use weir_pool::{MemberId, PoolKind, Target};

use crate::io::Role;
use crate::key;

/// Somewhere to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) member: Rc<str>,
    pub(crate) address: Rc<Address>,
    pub(crate) is_primary: bool,
}

/// All places that pools have names for.
#[derive(Debug, Default)]
pub(crate) struct Places(Slab<Place>);

impl Places {
    /// Somewhere to dial, by the name that a pool uses.
    pub(crate) fn get(&self, member: MemberId) -> Option<&Place> {
        self.0.get(key(member.0))
    }

    /// Where the pools of this database and role may dial now.
    pub(crate) fn targets(
        &mut self,
        config: &Config,
        topology: &Topology,
        database: &str,
        role: Role,
    ) -> Vec<Target> {
        let hosts = fixed_hosts(config, database);
        match role {
            _ if !hosts.is_empty() => self.fixed(hosts),
            Role::Write => self.leader(topology).into_iter().collect(),
            Role::Read => self.readers(topology),
        }
    }

    fn fixed(&mut self, hosts: &[Host]) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for Host { host, port } in hosts {
            let address = Address { host: host.clone(), port: *port };
            let place = place(&address.to_string(), &address, true);
            let target = Target { member: self.id(place), epoch: 0 };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }

    fn leader(&mut self, topology: &Topology) -> Option<Target> {
        let Leadership::Led { member, address, epoch_number, .. } = &topology.leader else { return None };
        let place = place(member, address, true);
        Some(Target { member: self.id(place), epoch: *epoch_number })
    }

    fn readers(&mut self, topology: &Topology) -> Vec<Target> {
        let mut targets = Vec::new();
        for target in &topology.replicas {
            let place = place(&target.member, &target.address, target.is_primary);
            let epoch = if target.is_primary { reign(topology) } else { 0 };
            targets.push(Target { member: self.id(place), epoch });
        }
        if targets.is_empty() && topology.fallback == ReadFallback::Primary && topology.planned.is_none() {
            targets.extend(self.leader(topology));
        }
        targets
    }

    /// What a member's part of the load is, by the topology.
    pub(crate) fn weight(&self, topology: &Topology, member: MemberId) -> u32 {
        let name = self.get(member).map(|place| &*place.member);
        let target = topology.replicas.iter().find(|target| Some(target.member.as_str()) == name);
        target.map_or(1, |target| target.weight)
    }

    /// The name that pools use for a place.
    fn id(&mut self, place: Place) -> MemberId {
        let known = self.0.iter().find(|(_, other)| **other == place).map(|(at, _)| at);
        MemberId(crate::id_of(known.unwrap_or_else(|| self.0.insert(place))))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets the places that nobody names any more, and returns them: their names are given to others.
    pub(crate) fn forget(&mut self, is_named: impl Fn(MemberId) -> bool) -> Vec<(MemberId, Place)> {
        let names = self.0.iter().map(|(at, _)| MemberId(crate::id_of(at)));
        let unnamed: Vec<MemberId> = names.filter(|member| !is_named(*member)).collect();
        unnamed.into_iter().filter_map(|member| Some((member, self.0.try_remove(key(member.0))?))).collect()
    }
}

/// The number of the present epoch; 0 without a leader.
fn reign(topology: &Topology) -> u64 {
    match &topology.leader {
        Leadership::Led { epoch_number, .. } => *epoch_number,
        Leadership::Leaderless { .. } => 0,
    }
}

fn place(member: &str, address: &Address, is_primary: bool) -> Place {
    Place { member: member.into(), address: Rc::new(address.clone()), is_primary }
}

fn fixed_hosts<'a>(config: &'a Config, database: &str) -> &'a [Host] {
    config.database(database).map_or(&[], |database| &database.hosts)
}

/// The database names its own servers: the topology has no say in where its clients go.
pub(crate) fn has_hosts(config: &Config, database: &str) -> bool {
    !fixed_hosts(config, database).is_empty()
}

/// The database follows the cluster: it is held while nobody leads, and its connections are fenced.
pub(crate) fn follows_cluster(config: &Config, database: &str) -> bool {
    matches!(config.upstream, Upstream::Patroni(_)) && !has_hosts(config, database)
}

/// Whether server connections of a database belong to the past: they lead elsewhere, or were made in another way.
pub(crate) fn has_moved(before: &Config, after: &Config, database: &str) -> bool {
    let (Some(before), Some(after)) = (before.database(database), after.database(database)) else {
        return true;
    };
    let way = |database: &Database| {
        let Database { dbname, hosts, load_balance, user, password, connect_query, .. } = database;
        (dbname.clone(), hosts.clone(), *load_balance, user.clone(), password.clone(), connect_query.clone())
    };
    way(before) != way(after)
}

/// How the pools of a database choose among the places they may dial.
pub(crate) fn kind(config: &Config, database: &str, role: Role) -> PoolKind {
    let balance = config.database(database).filter(|database| !database.hosts.is_empty());
    match (balance.map(|database| database.load_balance), role) {
        (Some(LoadBalance::RoundRobin), _) => PoolKind::Turns,
        (Some(LoadBalance::Disable), _) => PoolKind::First,
        (None, Role::Write) => PoolKind::Write,
        (None, Role::Read) => PoolKind::Read,
    }
}
