//! Which server connections exist and in which state. Every change of state goes through [`Ledger::put`], so the
//! counters, the idle lists and the load of each member cannot drift apart. Knows no client's turn and no limit.

use std::collections::HashMap;
use std::time::Instant;

use foldhash::fast::FixedState;

use crate::members::{Member, Members};
use crate::share::Share;
use crate::{ServerFacts, ServerId, ServerState, Target};

/// The connections of one pool.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    servers: HashMap<ServerId, Server, FixedState>,
    pub(crate) members: Members,
    /// Limits that other pools share hear of each connection.
    pub(crate) share: Share,
    pub(crate) active: u32,
    pub(crate) idle: u32,
    pub(crate) dialing: u32,
    pub(crate) tested: u32,
    /// Of the active ones, those that belong to one client until they close.
    pub(crate) private: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Server {
    pub(crate) state: ServerState,
    pub(crate) target: Target,
    pub(crate) created: Instant,
    pub(crate) last_used: Instant,
    /// Ends when given back; off its member's account already.
    pub(crate) retire: bool,
}

impl Ledger {
    /// Connections that exist or are being made.
    pub(crate) fn slots(&self) -> u32 {
        self.active + self.idle + self.dialing + self.tested
    }

    /// Connections that are logged in.
    pub(crate) fn open(&self) -> u32 {
        self.slots() - self.dialing
    }

    /// There is no connection but those that clients have for themselves.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots() == self.private
    }

    pub(crate) fn get(&self, server: ServerId) -> Option<Server> {
        self.servers.get(&server).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ServerId, &Server)> {
        self.servers.iter().map(|(&id, server)| (id, server))
    }

    /// A new connection, in dialing.
    pub(crate) fn start(&mut self, server: ServerId, target: Target, now: Instant) {
        let retire = self.members.find(target).is_none();
        let entry = Server { state: ServerState::Dialing, target, created: now, last_used: now, retire };
        let known = self.servers.insert(server, entry);
        debug_assert!(known.is_none(), "{server:?} is already in the pool");
        self.count(server, entry, Step::Enter);
        self.share.count(target.member, Step::Enter);
    }

    /// Moves a connection to another state.
    pub(crate) fn put(&mut self, server: ServerId, state: ServerState, now: Instant) {
        let Some(entry) = self.servers.get_mut(&server) else { return };
        let before = *entry;
        entry.state = state;
        entry.last_used = now;
        let after = *entry;
        self.count(server, before, Step::Leave);
        self.count(server, after, Step::Enter);
        self.tell(server, before, Step::Leave);
        self.tell(server, after, Step::Enter);
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, server: ServerId) -> Option<Server> {
        let gone = self.servers.remove(&server)?;
        self.count(server, gone, Step::Leave);
        self.tell(server, gone, Step::Leave);
        self.share.count(gone.target.member, Step::Leave);
        Some(gone)
    }

    /// Lists the unused connections under limits that are new.
    pub(crate) fn list_idle(&self) {
        for (id, server) in self.iter() {
            self.tell(id, *server, Step::Enter);
        }
    }

    /// Tells the shared limits of a connection that rests.
    fn tell(&self, server: ServerId, entry: Server, step: Step) {
        if entry.state == ServerState::Idle {
            self.share.rest(entry.target.member, server, entry.last_used, step);
        }
    }

    /// Marks a connection to end when it is given back; it weighs on its member no more.
    pub(crate) fn retire(&mut self, server: ServerId) {
        let Some(entry) = self.servers.get_mut(&server) else { return };
        if entry.retire {
            return;
        }
        let before = *entry;
        entry.retire = true;
        if let Some(member) = self.members.find(before.target) {
            member.weigh(server, before.state, Step::Leave);
        }
    }

    /// Lets go of the connections that `which` picks: marks the busy ones, forgets and returns the rest. With
    /// `busy_too`, forgets and returns the busy ones as well.
    pub(crate) fn let_go(&mut self, busy_too: bool, which: impl Fn(&Server) -> bool) -> Vec<ServerId> {
        let mut picked: Vec<ServerId> =
            self.iter().filter(|(_, server)| which(server)).map(|(id, _)| id).collect();
        picked.sort_unstable();
        picked.retain(|&id| {
            let stays = !busy_too && self.get(id).is_some_and(|server| server.is_active());
            if stays {
                self.retire(id);
            } else {
                self.remove(id);
            }
            !stays
        });
        picked
    }

    fn count(&mut self, server: ServerId, entry: Server, step: Step) {
        let counter = match entry.state {
            ServerState::Dialing => &mut self.dialing,
            ServerState::Idle => &mut self.idle,
            ServerState::Active(_) | ServerState::Parted | ServerState::Private => &mut self.active,
            ServerState::Tested => &mut self.tested,
        };
        step.apply(counter);
        if entry.state == ServerState::Private {
            step.apply(&mut self.private);
        }
        if entry.retire {
            return;
        }
        if let Some(member) = self.members.find(entry.target) {
            member.weigh(server, entry.state, step);
        }
    }

    /// Panics if the books do not agree. Linear; for tests and debug builds.
    pub(crate) fn check_invariants(&self) {
        let in_state =
            |fits: fn(&ServerState) -> bool| self.servers.values().filter(|s| fits(&s.state)).count();
        assert_eq!(in_state(|s| *s == ServerState::Idle), self.idle as usize, "idle counter");
        assert_eq!(in_state(|s| *s == ServerState::Dialing), self.dialing as usize, "dialing counter");
        let is_active = |s: &ServerState| {
            matches!(s, ServerState::Active(_) | ServerState::Parted | ServerState::Private)
        };
        assert_eq!(in_state(is_active), self.active as usize, "active counter");
        assert_eq!(in_state(|s| *s == ServerState::Tested), self.tested as usize, "tested counter");
        let listed: usize = self.members.iter().map(|member| member.idle.len()).sum();
        assert_eq!(listed, self.idle as usize, "an idle connection is on no list, or on two");
        for member in self.members.iter() {
            self.check_member(member);
        }
    }

    fn check_member(&self, member: &Member) {
        let own = || self.servers.values().filter(|s| s.target == member.target && !s.retire);
        assert_eq!(
            own().filter(|s| s.is_active()).count(),
            member.busy as usize,
            "busy of {:?}",
            member.target
        );
        let dialing = own().filter(|s| s.state == ServerState::Dialing).count();
        assert_eq!(dialing, member.dialing as usize, "dialing of {:?}", member.target);
        for id in &member.idle {
            let server = self.servers.get(id);
            let fits = server
                .is_some_and(|s| s.state == ServerState::Idle && s.target == member.target && !s.retire);
            assert!(fits, "{id:?} is on the idle list of {:?} but is {server:?}", member.target);
        }
    }
}

impl Server {
    /// It will be given back, or discarded.
    pub(crate) fn is_active(&self) -> bool {
        matches!(
            self.state,
            ServerState::Active(_) | ServerState::Parted | ServerState::Private | ServerState::Tested
        )
    }

    pub(crate) fn facts(&self) -> ServerFacts {
        let Self { state, target: Target { member, epoch }, created, last_used, retire } = *self;
        ServerFacts { state, member, epoch, created, last_used, retire }
    }
}

/// Into a state, or out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Enter,
    Leave,
}

impl Step {
    pub(crate) fn apply(self, counter: &mut u32) {
        match self {
            Self::Enter => *counter += 1,
            Self::Leave => *counter -= 1,
        }
    }
}
