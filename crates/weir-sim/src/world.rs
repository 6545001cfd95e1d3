//! Everything that exists in a story, and the loop that makes it happen: one event after the other, each at its host. An
//! event at a frozen host waits for the thaw.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash};
use std::mem;
use std::time::{Duration, Instant};

use weir_worker::Order;

use crate::agenda::Agenda;
use crate::application::Application;
use crate::database::{Database, Phase};
use crate::dcs::Dcs;
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::node::Node;
use crate::plan::Plan;
use crate::process::{Ask, Process, Told};
use crate::wire::{End, Host, Network, Party, Segment, WireId};

/// Something that happens at one host.
#[derive(Debug)]
pub(crate) enum Event {
    /// The foremost segment of this pipe arrives.
    Segment(WireId, End),
    /// A weir asks a node something that is no session: the REST API, or the monitor's ping.
    Asked { node: usize, weir: usize, number: u64, ask: Ask },
    /// The answer.
    Answered { weir: usize, number: u64, told: Told },
    /// No answer came in time.
    Overdue { weir: usize, number: u64 },
    /// A monitor connection has ended.
    MonitorEnded { weir: usize, node: usize },
    /// The clock of a weir's shell.
    Tick { weir: usize },
    /// Discovery wants to be asked what is due; older stamps do not count.
    Due { weir: usize, stamp: u64 },
    /// Patroni's loop.
    Patroni { node: usize, run: u32 },
    /// A phase of PostgreSQL ends.
    Phase { node: usize, run: u32 },
    /// A statement that took its time ends.
    Finished { node: usize, pid: u32 },
    /// A standby takes over what the primary has.
    Stream { node: usize },
    /// A standby tells how much it has.
    Acknowledged { node: usize, standby: usize, length: usize },
    /// An application does something.
    Act { client: usize },
    /// It has lost its patience, if this connection of it waits.
    Cancel { client: usize, who: u32 },
    /// A kernel has asked whether the other end is there, and it is not.
    Probed { wire: WireId },
    /// The time has come for which a switchover was scheduled.
    Scheduled { node: usize },
    /// One of Patroni's callbacks tells a weir that something has happened.
    Called { weir: usize },
    /// The next step of a SWITCHOVER.
    Planned { weir: usize },
    /// An operator's order.
    Operator { weir: usize, order: Order },
    /// Something goes wrong, or is mended.
    Fault(crate::faults::Fault),
}

/// Somewhere that can stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Host(Host),
    /// PostgreSQL of this node, all processes.
    Postgres(usize),
    /// Patroni of this node.
    Patroni(usize),
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) dice: Dice,
    pub(crate) network: Network,
    pub(crate) dcs: Dcs,
    pub(crate) nodes: Vec<Node>,
    pub(crate) weirs: Vec<Process>,
    pub(crate) clients: Vec<Application>,
    pub(crate) ledger: Ledger,
    /// What waits where all stands still, in the order it came.
    pub(crate) frozen: BTreeMap<Place, Vec<Event>>,
    /// No more faults, and nobody asks for anything new.
    pub(crate) is_calm: bool,
    /// weirs let everybody go.
    pub(crate) is_draining: bool,
    /// Connections that weirs ended.
    pub(crate) cut_off: u32,
    /// An operator has promoted a standby that may not have had everything.
    pub(crate) is_lossy: bool,
    /// Patroni has looked on for a while: who was promoted by hand, or took the key with an old timeline, takes an
    /// administrator's word to be followed.
    pub(crate) was_paused: bool,
    /// The last number of an application's connection.
    pub(crate) last_who: u32,
    /// All that happened, condensed.
    pub(crate) history: DefaultHasher,
    /// What happened, for the message of a failure; bounded.
    pub(crate) story: Vec<String>,
    epoch: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let network = Network::new(dice.fork());
        let epoch = Instant::now();
        let weirs = (0..plan.weirs).map(|_| Process::new(&plan, epoch, dice.fork())).collect();
        let mut world = Self {
            nodes: (0..plan.nodes).map(Node::new).collect(),
            clients: plan.clients.iter().map(|kind| Application::new(*kind, dice.fork())).collect(),
            dcs: Dcs::new(),
            agenda: Agenda::new(),
            network,
            weirs,
            ledger: Ledger::default(),
            frozen: BTreeMap::new(),
            is_calm: false,
            is_draining: false,
            cut_off: 0,
            is_lossy: !plan.synchronous,
            was_paused: false,
            last_who: 0,
            history: DefaultHasher::new(),
            story: Vec::new(),
            epoch,
            dice,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        if self.plan.is_standby {
            self.dcs.is_standby = true;
            self.nodes[0].data = Database::new(Phase::Standby);
        }
        self.ledger.expects_retries = self.plan.retry_bytes_max > 0;
        self.dcs.leader = Some((0, self.plan.ttl));
        for node in 0..self.nodes.len() {
            let delay = self.dice.millis(0, 200);
            self.agenda.after(delay, Event::Patroni { node, run: 0 });
        }
        for weir in 0..self.weirs.len() {
            self.agenda.after(Duration::ZERO, Event::Tick { weir });
            self.agenda.after(Duration::ZERO, Event::Due { weir, stamp: 0 });
        }
        for client in 0..self.clients.len() {
            let delay = self.dice.millis(0, 500);
            self.agenda.after(delay, Event::Act { client });
        }
    }

    /// The time as weirs read it.
    pub(crate) fn instant(&self) -> Instant {
        self.epoch + self.agenda.now()
    }

    /// Lets things happen until then.
    pub(crate) fn run_until(&mut self, end: Duration) {
        while self.agenda.now() < end {
            let Some(event) = self.agenda.next() else { return };
            let still = self.places(&event).into_iter().flatten().find(|place| self.is_frozen(*place));
            match still.and_then(|place| self.frozen.get_mut(&place)) {
                Some(waiting) => waiting.push(event),
                None => self.happen(event),
            }
        }
    }

    /// Who has to be awake for it.
    fn places(&self, event: &Event) -> [Option<Place>; 2] {
        let postgres = |node| [Some(Place::Host(Host::Node(node))), Some(Place::Postgres(node))];
        let patroni = |node| [Some(Place::Host(Host::Node(node))), Some(Place::Patroni(node))];
        match *event {
            Event::Segment(wire, from) => match self.network.parties(wire, from) {
                Some((_, Party::Backend(node, _))) => postgres(node),
                Some((_, to)) => [Some(Place::Host(to.host())), None],
                None => [None; 2],
            },
            Event::Asked { node, ask: Ask::Ping, .. }
            | Event::Phase { node, .. }
            | Event::Finished { node, .. }
            | Event::Stream { node }
            | Event::Acknowledged { node, .. } => postgres(node),
            Event::Asked { node, ask: Ask::Primary | Ask::Cluster, .. }
            | Event::Patroni { node, .. }
            | Event::Scheduled { node } => patroni(node),
            Event::Answered { weir, .. }
            | Event::Overdue { weir, .. }
            | Event::MonitorEnded { weir, .. }
            | Event::Tick { weir }
            | Event::Due { weir, .. }
            | Event::Planned { weir }
            | Event::Called { weir }
            | Event::Operator { weir, .. } => [Some(Place::Host(Host::Weir(weir))), None],
            Event::Probed { .. } | Event::Act { .. } | Event::Cancel { .. } | Event::Fault(_) => [None; 2],
        }
    }

    fn happen(&mut self, event: Event) {
        (self.agenda.now(), mem::discriminant(&event)).hash(&mut self.history);
        match event {
            Event::Segment(wire, from) => self.segment(wire, from),
            Event::Asked { node, weir, number, ask } => self.asked(node, weir, number, &ask),
            Event::Answered { weir, number, told } => self.answered(weir, number, told),
            Event::Overdue { weir, number } => self.overdue(weir, number),
            Event::MonitorEnded { weir, node } => self.monitor_ended(weir, node),
            Event::Tick { weir } => self.tick(weir),
            Event::Due { weir, stamp } => self.due(weir, stamp),
            Event::Patroni { node, run } => self.patroni(node, run),
            Event::Phase { node, run } => self.phase_over(node, run),
            Event::Finished { node, pid } => self.statement_finished(node, pid),
            Event::Stream { node } => self.stream(node),
            Event::Acknowledged { node, standby, length } => self.standby_has(node, standby, length),
            Event::Act { client } => self.act(client),
            Event::Cancel { client, who } => self.cancel(client, who),
            Event::Probed { wire } => self.transmit(wire, 1, Segment::Reset),
            Event::Scheduled { node } => self.scheduled_now(node),
            Event::Called { weir } => self.called(weir),
            Event::Planned { weir } => self.switch_over(weir),
            Event::Operator { weir, order } => self.operate(weir, order),
            Event::Fault(fault) => self.befall(fault),
        }
    }

    pub(crate) fn freeze(&mut self, place: Place) {
        self.frozen.entry(place).or_default();
    }

    /// What waited happens now, in its order.
    pub(crate) fn thaw(&mut self, place: Place) {
        for event in self.frozen.remove(&place).unwrap_or_default() {
            self.agenda.after(Duration::ZERO, event);
        }
    }

    pub(crate) fn is_frozen(&self, place: Place) -> bool {
        self.frozen.contains_key(&place)
    }

    /// Both are awake, and a question and its answer get through.
    pub(crate) fn can_talk(&self, a: Host, b: Host) -> bool {
        !self.is_frozen(Place::Host(a))
            && !self.is_frozen(Place::Host(b))
            && self.network.reach_each_other(a, b)
    }

    pub(crate) fn note(&mut self, what: String) {
        if self.story.len() == STORY_MAX {
            self.story.drain(..STORY_MAX / 2);
        }
        self.story.push(format!("{:9.3} {what}", self.agenda.now().as_secs_f64()));
    }
}

/// Lines that a failure's message shows at most.
const STORY_MAX: usize = 400;
