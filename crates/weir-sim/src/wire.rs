//! The network: connections as two pipes of segments, hosts that freeze, ways between hosts that are cut. Delays and loss
//! are here; what the bytes mean is not.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use weir_pool::ClientId;
use weir_worker::ConnId;

use crate::dice::Dice;

/// A machine in the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    /// PostgreSQL and Patroni.
    Node(usize),
    /// A weir.
    Weir(usize),
    /// The applications.
    Applications,
    /// etcd.
    Dcs,
}

/// Who holds one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// An application, by its place in the list.
    Client(usize),
    /// A weir's end towards an application.
    Front(usize, ClientId),
    /// A weir's end towards PostgreSQL.
    Back(usize, ConnId),
    /// A PostgreSQL backend: node and process id. Without a process id: the listening socket.
    Backend(usize, Option<u32>),
}

/// What travels.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    /// Asks for a connection.
    Syn,
    /// Grants it.
    SynAck,
    /// Nobody listens.
    Refused,
    Bytes(Vec<u8>),
    /// The end, after all bytes.
    Fin,
    /// The end, in the middle of whatever.
    Reset,
}

/// A connection's number; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WireId(pub(crate) u32);

/// The end that sends: 0 has opened the connection.
pub(crate) type End = usize;

#[derive(Debug)]
struct Wire {
    parties: [Party; 2],
    /// False once its process has closed this end or is gone.
    open: [bool; 2],
    pipes: [Pipe; 2],
}

#[derive(Debug, Default)]
struct Pipe {
    segments: VecDeque<Segment>,
    /// When the last one arrives: nothing overtakes.
    last_at: Duration,
}

/// All connections, and what stands between hosts.
#[derive(Debug)]
pub(crate) struct Network {
    wires: Vec<Option<Wire>>,
    cuts: BTreeSet<(Host, Host)>,
    /// Some of what is sent has to be sent again.
    is_lossy: bool,
    dice: Dice,
}

/// One segment has come to its receiver.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) segment: Segment,
    pub(crate) to: Party,
    /// The receiver's end is open.
    pub(crate) is_open: bool,
}

impl Party {
    pub(crate) fn host(self) -> Host {
        match self {
            Self::Client(_) => Host::Applications,
            Self::Front(weir, _) | Self::Back(weir, _) => Host::Weir(weir),
            Self::Backend(node, _) => Host::Node(node),
        }
    }
}

impl Network {
    pub(crate) fn new(dice: Dice) -> Self {
        Self { wires: Vec::new(), cuts: BTreeSet::new(), is_lossy: false, dice }
    }

    /// A message's way through a quiet network.
    pub(crate) fn latency(&mut self) -> Duration {
        if self.is_lossy && self.dice.once_in(10) {
            return self.dice.millis(200, 1_500);
        }
        if self.dice.once_in(200) { self.dice.millis(20, 80) } else { self.dice.millis(0, 2) }
    }

    /// Messages that way do not get through, or do again.
    pub(crate) fn cut(&mut self, from: Host, to: Host, is_cut: bool) {
        if is_cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
    }

    pub(crate) fn lose(&mut self, is_lossy: bool) {
        self.is_lossy = is_lossy;
    }

    /// A message that nobody sends again gets lost on the way.
    pub(crate) fn loses_one(&mut self) -> bool {
        self.is_lossy && self.dice.once_in(10)
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.is_lossy = false;
    }

    pub(crate) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether question and answer get through.
    pub(crate) fn reach_each_other(&self, a: Host, b: Host) -> bool {
        !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    pub(crate) fn open(&mut self, from: Party, to: Party) -> WireId {
        let id = WireId(u32::try_from(self.wires.len()).unwrap_or(u32::MAX));
        self.wires.push(Some(Wire { parties: [from, to], open: [true; 2], pipes: Default::default() }));
        id
    }

    fn wire(&mut self, id: WireId) -> Option<&mut Wire> {
        self.wires.get_mut(id.0 as usize)?.as_mut()
    }

    /// Puts a segment on its way; returns when it arrives. `None`: nobody can hear it any more.
    pub(crate) fn send(
        &mut self,
        id: WireId,
        from: End,
        segment: Segment,
        now: Duration,
    ) -> Option<Duration> {
        let latency = self.latency();
        let wire = self.wire(id)?;
        let pipe = &mut wire.pipes[from];
        pipe.segments.push_back(segment);
        pipe.last_at = pipe.last_at.max(now + latency);
        Some(pipe.last_at)
    }

    /// Who a pipe leads from and to.
    pub(crate) fn parties(&self, id: WireId, from: End) -> Option<(Party, Party)> {
        let wire = self.wires.get(id.0 as usize)?.as_ref()?;
        Some((wire.parties[from], wire.parties[1 - from]))
    }

    /// The bytes that are on their way; nothing if it is more than bytes.
    pub(crate) fn under_way(&self, id: WireId, from: End) -> Option<Vec<u8>> {
        let Some(wire) = self.wires.get(id.0 as usize).and_then(Option::as_ref) else {
            return Some(Vec::new());
        };
        let mut bytes = Vec::new();
        for segment in &wire.pipes[from].segments {
            let Segment::Bytes(more) = segment else { return None };
            bytes.extend_from_slice(more);
        }
        Some(bytes)
    }

    /// Takes the foremost segment out of a pipe.
    pub(crate) fn arrive(&mut self, id: WireId, from: End) -> Option<Arrival> {
        let wire = self.wire(id)?;
        let segment = wire.pipes[from].segments.pop_front()?;
        let arrival = Arrival { segment, to: wire.parties[1 - from], is_open: wire.open[1 - from] };
        if wire.open == [false; 2] && wire.pipes.iter().all(|pipe| pipe.segments.is_empty()) {
            self.wires[id.0 as usize] = None;
        }
        Some(arrival)
    }

    /// A process has closed its end, or has ended.
    pub(crate) fn close(&mut self, id: WireId, end: End) {
        if let Some(wire) = self.wire(id) {
            wire.open[end] = false;
        }
    }

    /// What has not arrived yet is lost, as when a machine dies.
    pub(crate) fn lose_sent(&mut self, id: WireId, from: End) {
        if let Some(wire) = self.wire(id) {
            wire.pipes[from].segments.clear();
        }
    }

    /// The listening socket's end becomes a process's.
    pub(crate) fn assign(&mut self, id: WireId, end: End, party: Party) {
        if let Some(wire) = self.wire(id) {
            wire.parties[end] = party;
        }
    }
}
