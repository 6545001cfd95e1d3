//! A weir's shell made of memory: carries effects out over the network, brings back what happened, asks what discovery wants
//! to know, and publishes what it concludes. Checks the border's rules on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_discovery::{Event as Seen, Leadership, MonitorReport, PollFailure, Request as Wanted, Vitals};
use weir_pool::ClientId;
use weir_worker::{Accepted, ConnId, DialError, Dialed, Effect, Effects, Order, Role, Worker};

use crate::application::Kind;
use crate::backend::Backend;
use crate::database::Phase;
use crate::laws::Law;
use crate::node::Api;
use crate::plan::Step;
use crate::process::{Ask, Question, Told, address, node_at};
use crate::requests::Request;
use crate::wire::{End, Host, Party, Segment, WireId};
use crate::world::{Event, World};

impl World {
    /// One call into a weir's worker, and its effects.
    pub(crate) fn turn(&mut self, weir: usize, call: impl FnOnce(&mut Worker, Instant, &mut Effects)) {
        let now = self.instant();
        let process = &mut self.weirs[weir];
        call(&mut process.worker, now, &mut process.effects);
        self.carry_out(weir);
    }

    fn carry_out(&mut self, weir: usize) {
        let mut effects = std::mem::take(&mut self.weirs[weir].effects);
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Send(conn, range) => self.send_from_weir(weir, conn, &effects.bytes[range]),
                Effect::Dial(conn, to, _) => {
                    let node = node_at(&to.host).expect("the node of an address");
                    let wire = self.network.open(Party::Back(weir, conn), Party::Backend(node, None));
                    let replaced = self.weirs[weir].wires.insert(conn, (wire, 0));
                    Law::Border
                        .holds(replaced.is_none(), || format!("{conn:?} is dialed although it is there"));
                    self.transmit(wire, 0, Segment::Syn);
                    self.check_sum(weir);
                }
                Effect::DialCancel(id, to, ..) => {
                    let node = node_at(&to.host).expect("the node of an address");
                    let conn = ConnId::Cancel(id);
                    let wire = self.network.open(Party::Back(weir, conn), Party::Backend(node, None));
                    self.weirs[weir].wires.insert(conn, (wire, 0));
                    self.transmit(wire, 0, Segment::Syn);
                }
                Effect::Close(conn) => self.close_from_weir(weir, conn, Segment::Fin),
                Effect::Abort(conn) => self.close_from_weir(weir, conn, Segment::Reset),
                Effect::Evidence(evidence) => self.tell_discovery(weir, Seen::Evidence(evidence)),
                // Nobody sends so much that it matters.
                Effect::StopReading(_) | Effect::ReadAgain(_) => {}
                other @ (Effect::StartTls(_)
                | Effect::BeginTls(..)
                | Effect::Console(_)
                | Effect::Derive(..)
                | Effect::Refer(_)) => Law::Border.broken(&format!("nobody asked for {other:?}")),
            }
        }
        effects.clear();
        // What came of the effects, if anything, comes first.
        let later = std::mem::replace(&mut self.weirs[weir].effects, effects);
        assert!(later.list.is_empty(), "effects within effects");
    }

    fn send_from_weir(&mut self, weir: usize, conn: ConnId, bytes: &[u8]) {
        let Some(&(wire, end)) = self.weirs[weir].wires.get(&conn) else {
            Law::Border.broken(&format!("bytes for {conn:?}, which is not there"))
        };
        if let Some((_, Party::Backend(node, Some(pid)))) = self.network.parties(wire, end) {
            self.check_fence(weir, conn, node, pid);
            self.check_handover(weir, conn, (node, pid), bytes);
            self.note_read(weir, conn, (node, pid), bytes);
        }
        if let Some((_, Party::Client(client))) = self.network.parties(wire, end) {
            self.note_reply(client, bytes);
        }
        self.transmit_in_pieces(wire, end, bytes);
    }

    /// Nothing is written to a leader of an older timeline than the one that this weir follows.
    fn check_fence(&self, weir: usize, conn: ConnId, node: usize, pid: u32) {
        let Some(backend) = self.nodes[node].backends.get(&pid) else { return };
        let (timeline, followed) = (backend.timeline, self.weirs[weir].followed);
        let is_writer = !backend.user.is_empty() && backend.user != Kind::Reader.user();
        // Before it is given out, a new connection is asked which timeline it is on.
        let is_used = self.weirs[weir].worker.partner(conn).is_some();
        Law::Fence.holds(!is_writer || !is_used || timeline >= followed, || {
            format!("w{weir} writes to n{node} on timeline {timeline} and has followed {followed}")
        });
    }

    /// A server connection changes hands at rest.
    fn check_handover(&mut self, weir: usize, conn: ConnId, (node, pid): (usize, u32), bytes: &[u8]) {
        let process = &mut self.weirs[weir];
        let partner = process.worker.partner(conn);
        let before = process.partners.insert(conn, partner).flatten();
        let Some(backend) = self.nodes[node].backends.get(&pid).filter(|_| partner.is_some()) else { return };
        let under_way = self.network.under_way(backend.wire, 0);
        let is_still = under_way.is_some_and(|before| backend.is_at_rest(&before, bytes));
        Law::PooledAtRest.holds(before == partner || is_still, || {
            format!("{partner:?} gets it from {before:?} in the middle of something: {backend:?}")
        });
    }

    /// Something is sent for a query that stands alone.
    fn note_read(&mut self, weir: usize, conn: ConnId, (node, pid): (usize, u32), bytes: &[u8]) {
        let process = &self.weirs[weir];
        let front = process.worker.partner(conn).and_then(|partner| process.wires.get(&partner));
        let Some((Party::Client(client), _)) = front.and_then(|(wire, _)| self.network.parties(*wire, 0))
        else {
            return;
        };
        let application = &self.clients[client];
        if let Some(value) = application.waits_for.front().and_then(Request::value)
            && application.waits_for.len() == 1
        {
            let (data, backends) = self.nodes[node].serving();
            let standby = !data.writes() && backends.get(&pid).is_some_and(Backend::says_standby);
            let text = value.to_string();
            let is_there = bytes.windows(text.len()).any(|part| part == text.as_bytes());
            let is_it = is_there.then_some(self.agenda.now());
            self.ledger.read_sent(value, (weir, conn), standby, is_it);
        }
    }

    /// A client gets part of the reply to the only thing that it waits for.
    fn note_reply(&mut self, client: usize, bytes: &[u8]) {
        let waits_for = &self.clients[client].waits_for;
        let is_about_it = bytes.first().is_some_and(|tag| !b"NSA".contains(tag));
        if let Some(value) = waits_for.front().and_then(Request::value).filter(|_| waits_for.len() == 1)
            && is_about_it
        {
            self.ledger.read_answered(value, self.agenda.now());
        }
    }

    /// What weirs hold towards PostgreSQL, counted by what the shell has open.
    fn check_sum(&self, weir: usize) {
        let process = &self.weirs[weir];
        let open = process.wires.keys().filter(|conn| matches!(conn, ConnId::Server(_))).count();
        let max = process.max_db_connections.map_or(usize::MAX, |max| max as usize);
        Law::Limits.holds(open <= max, || format!("{open} server connections, and {max} may be"));
        let max = self.plan.max_host_connections.map_or(usize::MAX, |max| max as usize);
        for node in 0..self.nodes.len() {
            let is_there = |(conn, (wire, end)): &(&ConnId, &(WireId, End))| {
                let parties = self.network.parties(*wire, *end);
                matches!(conn, ConnId::Server(_))
                    && matches!(parties, Some((_, Party::Backend(at, _))) if at == node)
            };
            let open = process.wires.iter().filter(is_there).count();
            Law::Limits.holds(open <= max, || format!("{open} connections to n{node}, and {max} may be"));
        }
    }

    /// The same by user, counted by who has logged in.
    fn check_sizes(&self, weir: usize) {
        let process = &self.weirs[weir];
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for (wire, end) in process.wires.values() {
            if let Some((_, Party::Backend(node, Some(pid)))) = self.network.parties(*wire, *end)
                && let Some(backend) = self.nodes[node].backends.get(&pid)
            {
                *counts.entry(&backend.user).or_default() += 1;
            }
        }
        for (user, open) in counts {
            let keeps = [Kind::Sitter, Kind::Keeper].into_iter().find(|kind| kind.user() == user);
            let max = keeps.map_or(process.pool_size, |kind| self.plan.count(kind));
            Law::Limits.holds(user.is_empty() || open <= max, || {
                format!("{user} has {open} server connections, and {max} may be")
            });
        }
    }

    fn close_from_weir(&mut self, weir: usize, conn: ConnId, how: Segment) {
        self.weirs[weir].partners.remove(&conn);
        let Some((wire, end)) = self.weirs[weir].wires.remove(&conn) else {
            Law::Border.broken(&format!("{conn:?} is ended although it is not there"))
        };
        self.network.close(wire, end);
        if how == Segment::Reset && self.dice.once_in(2) {
            self.network.lose_sent(wire, end);
        }
        self.transmit(wire, end, how);
    }

    // What comes from the network.

    pub(crate) fn front_hears(
        &mut self,
        wire: WireId,
        weir: usize,
        client: Option<ClientId>,
        segment: Segment,
    ) {
        let conn = client.map(ConnId::Client);
        match (segment, conn) {
            (Segment::Syn, _) => self.welcome(wire, weir),
            (Segment::Bytes(bytes), Some(conn)) => {
                self.turn(weir, |worker, now, effects| worker.received(now, conn, &bytes, effects));
            }
            (Segment::Fin | Segment::Reset, Some(conn)) => self.lost_by_weir(weir, conn),
            (Segment::SynAck | Segment::Refused | Segment::Bytes(_) | Segment::Fin | Segment::Reset, _) => {}
        }
    }

    fn welcome(&mut self, wire: WireId, weir: usize) {
        if !self.weirs[weir].is_up {
            self.network.close(wire, 1);
            return self.transmit(wire, 1, Segment::Refused);
        }
        let reads = matches!(self.network.parties(wire, 0),
            Some((Party::Client(at), _)) if self.clients[at].kind == Kind::Reader);
        let role = if reads { Role::Read } else { Role::Write };
        let accepted = Accepted { role, peer: None, local: None, unix: None };
        let now = self.instant();
        let process = &mut self.weirs[weir];
        let id = process.worker.accept(now, accepted, &mut process.effects);
        process.wires.insert(ConnId::Client(id), (wire, 1));
        self.network.assign(wire, 1, Party::Front(weir, id));
        self.transmit(wire, 1, Segment::SynAck);
        self.carry_out(weir);
    }

    pub(crate) fn back_hears(&mut self, weir: usize, conn: ConnId, segment: Segment) {
        match segment {
            Segment::SynAck => {
                let dialed = Dialed { peer: None, local: None, tls: None, end_point: None };
                self.turn(weir, |worker, now, effects| worker.dialed(now, conn, Ok(dialed), effects));
            }
            Segment::Refused => {
                self.weirs[weir].wires.remove(&conn);
                let refused = DialError::Refused("connection refused".to_owned());
                self.turn(weir, |worker, now, effects| worker.dialed(now, conn, Err(refused), effects));
            }
            Segment::Bytes(bytes) => {
                self.turn(weir, |worker, now, effects| worker.received(now, conn, &bytes, effects));
            }
            Segment::Fin | Segment::Reset => self.lost_by_weir(weir, conn),
            Segment::Syn => {}
        }
    }

    fn lost_by_weir(&mut self, weir: usize, conn: ConnId) {
        self.weirs[weir].partners.remove(&conn);
        if let Some((wire, end)) = self.weirs[weir].wires.remove(&conn) {
            self.network.close(wire, end);
            self.turn(weir, |worker, now, effects| worker.closed(now, conn, effects));
        }
    }

    pub(crate) fn tick(&mut self, weir: usize) {
        if self.weirs[weir].is_up {
            self.turn(weir, Worker::tick);
            self.check_sizes(weir);
            self.check_plan(weir);
        }
        self.agenda.after(TICK, Event::Tick { weir });
    }

    // Discovery.

    pub(crate) fn due(&mut self, weir: usize, stamp: u64) {
        if self.weirs[weir].stamp == stamp && self.weirs[weir].is_up {
            self.follow_up(weir);
        }
    }

    fn tell_discovery(&mut self, weir: usize, seen: Seen) {
        let now = self.instant();
        self.weirs[weir].discovery.step(now, seen);
        // In a turn of its own, as in the control thread.
        let process = &mut self.weirs[weir];
        process.stamp += 1;
        let stamp = process.stamp;
        self.agenda.after(Duration::ZERO, Event::Due { weir, stamp });
    }

    /// A callback has come.
    pub(crate) fn called(&mut self, weir: usize) {
        if self.weirs[weir].is_up {
            self.tell_discovery(weir, Seen::Pushed);
        }
    }

    /// Asks what is due, and publishes.
    pub(crate) fn follow_up(&mut self, weir: usize) {
        let now = self.instant();
        self.tell_time(weir);
        for request in self.weirs[weir].discovery.due(now) {
            self.ask(weir, request);
        }
        self.publish(weir);
        let process = &mut self.weirs[weir];
        process.stamp += 1;
        let (stamp, deadline) = (process.stamp, process.discovery.deadline(now));
        let time = deadline.saturating_duration_since(now).max(Duration::from_micros(1));
        self.agenda.after(time, Event::Due { weir, stamp });
    }

    fn publish(&mut self, weir: usize) {
        let notes: Vec<String> = self.weirs[weir].discovery.notes().map(|note| note.text).collect();
        for text in notes {
            self.note(format!("w{weir}: {text}"));
        }
        let now = self.instant();
        let process = &mut self.weirs[weir];
        let topology = process.discovery.topology();
        if process.published == Some(topology.generation) {
            return;
        }
        process.published = Some(topology.generation);
        if let Leadership::Led { epoch: Some(epoch), .. } = &topology.leader {
            let has_asked = process.asked.len() == self.plan.nodes || now - process.started >= START_TIME_MAX;
            Law::StartsWithAll.holds(process.followed > 0 || has_asked, || {
                format!("w{weir} has heard of {:?}, and follows {epoch:?}", process.asked)
            });
            process.followed = process.followed.max(epoch.timeline);
        }
        if let Leadership::Led { address, .. } = &topology.leader
            && let Some(node) = node_at(&address.host)
        {
            self.reach(Step::IsFollowed, node);
        }
        self.turn(weir, |worker, now, effects| {
            worker.order(now, Order::Adopt(Arc::clone(&topology)), effects)
        });
    }

    fn ask(&mut self, weir: usize, request: Wanted) {
        let (host, ask, patience, question) = match request {
            Wanted::Primary { url } => {
                (url.host().to_owned(), Ask::Primary, REST_TIME_MAX, Question::Primary(url))
            }
            Wanted::Cluster { url } => {
                (url.host().to_owned(), Ask::Cluster, REST_TIME_MAX, Question::Cluster(url))
            }
            Wanted::Ping { member, address } => {
                let node = node_at(&address.host).expect("a node of this address");
                let is_connected = self.weirs[weir].watches[node];
                let patience = if is_connected { PING_TIME_MAX } else { OPEN_TIME_MAX };
                let host = address.host.clone();
                (host, Ask::Ping, patience, Question::Ping { member, address })
            }
        };
        let node = node_at(&host).expect("a node of this name");
        let process = &mut self.weirs[weir];
        process.last_question += 1;
        let number = process.last_question;
        process.questions.insert(number, question);
        self.agenda.after(patience, Event::Overdue { weir, number });
        if !self.network.is_cut(Host::Weir(weir), Host::Node(node)) && !self.network.loses_one() {
            let latency = self.network.latency();
            self.agenda.after(latency, Event::Asked { node, weir, number, ask });
            if patience == PING_TIME_MAX {
                // What is not answered gets company by a new connection.
                self.agenda.after(PING_PATIENCE + latency, Event::Asked { node, weir, number, ask });
            }
        }
    }

    /// A question has come to a node.
    pub(crate) fn asked(&mut self, node: usize, weir: usize, number: u64, ask: &Ask) {
        let told = match ask {
            Ask::Primary | Ask::Cluster if !self.nodes[node].patroni.is_up => Some(refused()),
            Ask::Primary | Ask::Cluster => match self.nodes[node].patroni.api {
                Api::Hangs => None,
                Api::Refuses => Some(refused()),
                Api::Honest | Api::Lies(_) | Api::WrongRole | Api::Garbage => {
                    self.rest(node, *ask).map(|answer| Told::Rest(Ok(answer)))
                }
            },
            Ask::Ping => Some(Told::Monitor(self.pinged(node, weir))),
        };
        let Some(told) = told else { return };
        if !self.network.is_cut(Host::Node(node), Host::Weir(weir)) && !self.network.loses_one() {
            let latency = self.network.latency();
            self.agenda.after(latency, Event::Answered { weir, number, told });
        }
    }

    fn pinged(&mut self, node: usize, weir: usize) -> MonitorReport {
        let round_trip = self.plan.distances[node] + self.dice.millis(0, 1);
        let server = &mut self.nodes[node];
        let system_identifier = server.system();
        let (data, _) = server.serving();
        if !data.is_open() {
            let is_down = data.phase == Phase::Down;
            let why = if is_down { "refuses connections" } else { "is starting up or shutting down" };
            return MonitorReport::Unreachable { why: why.to_owned() };
        }
        let (writes, timeline, started) = (data.writes(), data.timeline, data.started);
        let location = if writes { data.log.len() } else { data.replayed() } as u64;
        server.monitors.insert(weir);
        MonitorReport::Answered {
            in_hot_standby: !writes,
            timeline: writes.then_some(timeline),
            system_identifier: writes.then_some(system_identifier),
            started: Some(started),
            vitals: Vitals { location: Some(location), round_trip: Some(round_trip) },
        }
    }

    pub(crate) fn answered(&mut self, weir: usize, number: u64, told: Told) {
        let Some(question) = self.weirs[weir].questions.remove(&number) else { return };
        self.weirs[weir].has_asked(&question);
        let seen = match (question, told) {
            (Question::Primary(url), Told::Rest(result)) => Seen::Polled { url, result },
            (Question::Cluster(url), Told::Rest(result)) => Seen::Cluster { url, result },
            (Question::Ping { member, address }, Told::Monitor(report)) => {
                let node = node_at(&address.host).expect("a node of this address");
                self.weirs[weir].watches[node] = matches!(report, MonitorReport::Answered { .. });
                Seen::Monitor { member, address, report }
            }
            (question, told) => panic!("{told:?} answers {question:?}"),
        };
        self.tell_discovery(weir, seen);
    }

    pub(crate) fn overdue(&mut self, weir: usize, number: u64) {
        let Some(question) = self.weirs[weir].questions.remove(&number) else { return };
        self.weirs[weir].has_asked(&question);
        let seen = match question {
            Question::Primary(url) => Seen::Polled { url, result: Err(PollFailure::TimedOut) },
            Question::Cluster(url) => Seen::Cluster { url, result: Err(PollFailure::TimedOut) },
            Question::Ping { member, address } => {
                let node = node_at(&address.host).expect("a node of this address");
                self.weirs[weir].watches[node] = false;
                let report = MonitorReport::Silent;
                Seen::Monitor { member, address, report }
            }
        };
        self.tell_discovery(weir, seen);
    }

    pub(crate) fn monitor_ended(&mut self, weir: usize, node: usize) {
        let is_heard = !self.network.is_cut(Host::Node(node), Host::Weir(weir));
        if is_heard && std::mem::replace(&mut self.weirs[weir].watches[node], false) {
            // What was asked on it is not answered any more.
            let ended = format!("n{node}");
            self.weirs[weir]
                .questions
                .retain(|_, question| !matches!(question, Question::Ping { member, .. } if *member == ended));
            let report = MonitorReport::Lost { why: "the connection ended".to_owned() };
            self.tell_discovery(
                weir,
                Seen::Monitor { member: format!("n{node}"), address: address(node), report },
            );
        }
    }
}

fn refused() -> Told {
    Told::Rest(Err(PollFailure::Unreachable("connection refused".to_owned())))
}

/// After that a weir that was just started waits for nobody any more.
const START_TIME_MAX: Duration = Duration::from_secs(2);
/// The shell's clock.
const TICK: Duration = Duration::from_millis(100);
/// As in weir's monitor and in its default configuration.
const REST_TIME_MAX: Duration = Duration::from_secs(2);
const PING_TIME_MAX: Duration = Duration::from_secs(1);
const PING_PATIENCE: Duration = Duration::from_millis(300);
const OPEN_TIME_MAX: Duration = Duration::from_secs(2);
