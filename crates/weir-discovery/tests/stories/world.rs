//! A cluster made of plain values on a virtual clock: answers what discovery asks, late or never, as the members'
//! states say. Knows nothing of how discovery decides; checks that nobody is asked twice at once.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use weir_discovery::{
    Address, Answer, ApiUrl, Discovery, Event, Lag, Leadership, MonitorReport, PollFailure, ReadFallback,
    ReadPolicy, Request, Settings, Vitals,
};

/// How a thing answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Up,
    /// Refuses at once.
    Refused,
    /// Takes the request and never answers.
    Frozen,
}

/// One member's truth.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where its PostgreSQL and its REST API are.
    pub(crate) host: String,
    pub(crate) api: Reach,
    /// Holds the leader key, as far as its Patroni knows.
    pub(crate) key: bool,
    pub(crate) role: &'static str,
    pub(crate) state: &'static str,
    pub(crate) postgres: Reach,
    pub(crate) writes: bool,
    pub(crate) timeline: u32,
    pub(crate) system: u64,
    /// When its PostgreSQL was started.
    pub(crate) started: u64,
    pub(crate) location: u64,
    /// Round trip of a ping.
    pub(crate) distance: Duration,
    pub(crate) weight: Option<u32>,
    pub(crate) noloadbalance: bool,
    /// What `/cluster` has of it besides, as JSON in front of the rest.
    pub(crate) besides: String,
    /// `/cluster` names it.
    pub(crate) listed: bool,
    /// Its `/cluster` hangs.
    pub(crate) dcs_away: bool,
    /// When a history last touched it.
    pub(crate) changed_at: Option<Instant>,
    /// An established monitor connection.
    connected: bool,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) discovery: Discovery,
    /// Patroni 3: no names in answers.
    pub(crate) nameless: bool,
    pub(crate) latency: Duration,
    /// Monitors tell positions in the log.
    pub(crate) measures: bool,
    /// What `/cluster` has besides members, as JSON in front of them.
    pub(crate) besides: String,
    in_flight: VecDeque<(Instant, Event)>,
    /// Requests without an answer yet, by place.
    outstanding: BTreeMap<String, u32>,
    /// How often each kind of request was sent.
    pub(crate) sent: BTreeMap<&'static str, u32>,
}

pub(crate) const SYSTEM: u64 = 7_700_000_000_000_000_001;
/// When the world began: 2001-09-09 01:46:40 UTC.
const STARTED: Duration = Duration::from_secs(1_000_000_000);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn settings(seeds: &[&str]) -> Settings {
    Settings {
        seeds: seeds.iter().map(|name| url(name)).collect(),
        scope: None,
        max_lag_bytes: 1000,
        fallback: ReadFallback::Wait,
        policy: ReadPolicy::LeastConnections,
        poll_interval: Duration::from_secs(1),
        monitor: true,
    }
}

#[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
pub(crate) fn an_instant() -> Instant {
    Instant::now()
}

pub(crate) fn url(name: &str) -> ApiUrl {
    format!("http://{name}:8008").parse().expect("a URL")
}

pub(crate) fn address(name: &str) -> Address {
    Address { host: name.to_owned(), port: 5432 }
}

impl Node {
    pub(crate) fn standby(name: &str, timeline: u32) -> Self {
        Self {
            name: name.to_owned(),
            host: name.to_owned(),
            api: Reach::Up,
            key: false,
            role: "replica",
            state: "running",
            postgres: Reach::Up,
            writes: false,
            timeline,
            system: SYSTEM,
            started: 1,
            location: 10_000,
            distance: Duration::from_micros(300),
            weight: None,
            noloadbalance: false,
            besides: String::new(),
            listed: true,
            dcs_away: false,
            changed_at: None,
            connected: false,
        }
    }

    pub(crate) fn promote(&mut self, timeline: u32) {
        self.key = true;
        self.role = "primary";
        self.state = "running";
        self.postgres = Reach::Up;
        self.writes = true;
        self.timeline = timeline;
    }

    /// `kill -9` of Patroni and PostgreSQL.
    pub(crate) fn die(&mut self) {
        self.api = Reach::Refused;
        self.postgres = Reach::Refused;
    }

    pub(crate) fn rejoin(&mut self, timeline: u32) {
        *self = Self { noloadbalance: self.noloadbalance, ..Self::standby(&self.name, timeline) };
    }
}

impl World {
    /// a leads b and c on timeline 1; all three are seeds.
    pub(crate) fn three() -> Self {
        Self::with(settings(&["a", "b", "c"]))
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let start = an_instant();
        let mut nodes: Vec<Node> = ["a", "b", "c"].into_iter().map(|name| Node::standby(name, 1)).collect();
        nodes[0].promote(1);
        Self {
            now: start,
            start,
            nodes,
            discovery: Discovery::new(start, settings),
            nameless: false,
            latency: Duration::from_millis(2),
            measures: true,
            besides: String::new(),
            in_flight: VecDeque::new(),
            outstanding: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    pub(crate) fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).expect("a node of this name")
    }

    pub(crate) fn run_millis(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.turn(end);
        }
    }

    /// One turn of the shell's loop: ask, then wait for the next answer or deadline.
    pub(crate) fn turn(&mut self, end: Instant) {
        self.notice_dead_monitors();
        self.discovery.tell_time(self.now, STARTED + (self.now - self.start));
        for request in self.discovery.due(self.now) {
            self.send(request);
        }
        let deadline = self.discovery.deadline(self.now);
        assert!(deadline > self.now, "nothing may spin");
        let next = self.in_flight.front().map_or(end, |(at, _)| *at);
        // Monitors notice a death within this.
        self.now = next.min(deadline).min(end).min(self.now + Duration::from_millis(5));
        while self.in_flight.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, event) = self.in_flight.pop_front().expect("checked");
            *self.outstanding.get_mut(&place(&event)).expect("was sent") -= 1;
            self.discovery.step(self.now, event);
        }
    }

    pub(crate) fn leader(&self) -> Option<String> {
        match &self.discovery.topology().leader {
            Leadership::Led { member, .. } => Some(member.clone()),
            Leadership::Leaderless { .. } => None,
        }
    }

    /// Timeline and epoch number of the leader.
    pub(crate) fn reign(&self) -> Option<(u32, u64)> {
        match &self.discovery.topology().leader {
            Leadership::Led { epoch, epoch_number, .. } => {
                Some((epoch.map_or(0, |epoch| epoch.timeline), *epoch_number))
            }
            Leadership::Leaderless { .. } => None,
        }
    }

    pub(crate) fn why(&self) -> String {
        match &self.discovery.topology().leader {
            Leadership::Led { degraded, .. } => degraded.clone().unwrap_or_default(),
            Leadership::Leaderless { why } => why.clone(),
        }
    }

    /// Weights of those that serve reads.
    pub(crate) fn weights(&self) -> Vec<u32> {
        self.discovery.topology().replicas.iter().map(|target| target.weight).collect()
    }

    /// How far a member is behind.
    pub(crate) fn lag(&self, name: &str) -> Option<Lag> {
        let members = self.discovery.members(self.now);
        members.into_iter().find(|member| member.name == name).and_then(|member| member.lag)
    }

    pub(crate) fn readers(&self) -> Vec<String> {
        self.discovery.topology().replicas.iter().map(|target| target.member.clone()).collect()
    }

    fn notice_dead_monitors(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if node.connected && node.postgres == Reach::Refused {
                node.connected = false;
                let report = MonitorReport::Lost { why: "the connection ended".to_owned() };
                let event =
                    Event::Monitor { member: node.name.clone(), address: address(&node.host), report };
                self.discovery.step(self.now, event);
            }
        }
    }

    fn send(&mut self, request: Request) {
        let (kind, place_of, delay, event) = match request {
            Request::Primary { url } => {
                let (delay, result) = self.rest(&url, Self::primary_body);
                ("primary", url.to_string(), delay, Event::Polled { url, result })
            }
            Request::Cluster { url } => {
                let (delay, result) = match self.node_at(&url) {
                    Some(node) if node.dcs_away => (TIMEOUT, Err(PollFailure::TimedOut)),
                    Some(_) | None => self.rest(&url, Self::cluster_body),
                };
                ("cluster", url.to_string(), delay, Event::Cluster { url, result })
            }
            Request::Ping { member, address } => {
                let (delay, report) = self.ping(&address.host);
                ("ping", format!("{member} {address}"), delay, Event::Monitor { member, address, report })
            }
        };
        let outstanding = self.outstanding.entry(place_of).or_default();
        *outstanding += 1;
        assert_eq!(*outstanding, 1, "one request at a time: {event:?}");
        *self.sent.entry(kind).or_default() += 1;
        let at = self.now + delay;
        let index = self.in_flight.partition_point(|(other, _)| *other <= at);
        self.in_flight.insert(index, (at, event));
    }

    fn node_at(&self, url: &ApiUrl) -> Option<&Node> {
        self.nodes.iter().find(|node| node.host == url.host())
    }

    fn rest(
        &self,
        url: &ApiUrl,
        body: fn(&Self, &Node) -> Answer,
    ) -> (Duration, Result<Answer, PollFailure>) {
        match self.node_at(url).map(|node| (node, node.api)) {
            Some((node, Reach::Up)) => (self.latency, Ok(body(self, node))),
            Some((_, Reach::Frozen)) => (TIMEOUT, Err(PollFailure::TimedOut)),
            Some((_, Reach::Refused)) | None => {
                (self.latency, Err(PollFailure::Unreachable("connection refused".to_owned())))
            }
        }
    }

    fn primary_body(&self, node: &Node) -> Answer {
        let name = if self.nameless { String::new() } else { format!(r#", "name": "{}""#, node.name) };
        let xlog = if node.writes { "location" } else { "replayed_location" };
        let tags = match (node.noloadbalance, node.weight) {
            (true, _) => r#", "tags": {"noloadbalance": true}"#.to_owned(),
            (false, Some(weight)) => format!(r#", "tags": {{"weir_weight": {weight}}}"#),
            (false, None) => String::new(),
        };
        let body = format!(
            r#"{{"state": "{}", "role": "{}", "timeline": {}, "xlog": {{"{xlog}": {}}}, "postmaster_start_time": "{}",
                "database_system_identifier": "{}", "patroni": {{"version": "4.1.5", "scope": "s"{name}}}{tags}}}"#,
            node.state, node.role, node.timeline, node.location, node.started, node.system
        );
        Answer { status: if node.key { 200 } else { 503 }, body: body.into_bytes() }
    }

    fn cluster_body(&self, _asked: &Node) -> Answer {
        let members: Vec<String> = self
            .nodes
            .iter()
            .filter(|node| node.listed)
            .map(|node| {
                let Node { name, host, besides, .. } = node;
                let role = match (node.key, node.role) {
                    (true, _) => "leader",
                    (false, "standby_leader") => "standby_leader",
                    (false, _) => "replica",
                };
                format!(
                    r#"{{{besides}"name": "{name}", "role": "{role}", "state": "{}", "timeline": {}, "host": "{host}",
                        "port": 5432, "api_url": "http://{host}:8008/patroni"}}"#,
                    node.state, node.timeline
                )
            })
            .collect();
        Answer {
            status: 200,
            body: format!(r#"{{{} "members": [{}], "scope": "s"}}"#, self.besides, members.join(","))
                .into_bytes(),
        }
    }

    fn ping(&mut self, host: &str) -> (Duration, MonitorReport) {
        let (latency, measures) = (self.latency, self.measures);
        let Some(node) = self.nodes.iter_mut().find(|node| node.host == host) else {
            return (latency, MonitorReport::Unreachable { why: "refuses connections".to_owned() });
        };
        node.connected = node.postgres == Reach::Up;
        match node.postgres {
            Reach::Up => (
                latency,
                MonitorReport::Answered {
                    in_hot_standby: !node.writes,
                    timeline: node.writes.then_some(node.timeline),
                    system_identifier: node.writes.then_some(node.system),
                    started: node.writes.then_some(node.started),
                    vitals: Vitals {
                        location: measures.then_some(node.location),
                        round_trip: Some(node.distance),
                    },
                },
            ),
            Reach::Refused => (latency, MonitorReport::Unreachable { why: "refuses connections".to_owned() }),
            Reach::Frozen => (TIMEOUT, MonitorReport::Silent),
        }
    }
}

fn place(event: &Event) -> String {
    match event {
        Event::Polled { url, .. } | Event::Cluster { url, .. } => url.to_string(),
        Event::Monitor { member, address, .. } => format!("{member} {address}"),
        Event::Evidence(_) | Event::Pushed => String::new(),
    }
}
