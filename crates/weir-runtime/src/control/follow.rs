//! Drives discovery: carries out what it wants to know, hands it the answers, and publishes what it concludes.
//! Decides nothing.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep_until;
use weir_config::{Config, Patroni, ReadFallback, ReadPolicy};
use weir_discovery::{Address, Discovery, Event, Request, Settings};

use super::monitor::credential;
use super::monitor::{self, MonitorHandle};
use super::patroni::{self, Call};
use super::state::{Control, Following, now};
use weir_worker::Order;

/// Follows as long as weir runs. With one plain PostgreSQL server there is nothing to follow.
pub(super) async fn follow(control: Rc<Control>, events: mpsc::Receiver<Event>) {
    match &control.following {
        Following::Plain(topology) => control.order(&Order::Adopt(topology.clone())),
        Following::Cluster { .. } => Follower::new(Rc::clone(&control), events).run().await,
    }
}

/// What discovery is told of the configuration.
pub(super) fn settings(config: &Config, patroni: &Patroni) -> Settings {
    let seeds = patroni
        .urls
        .iter()
        .filter_map(|url| url.parse().map_err(|error| tracing::error!("patroni.urls: {url}: {error}")).ok());
    Settings {
        seeds: seeds.collect(),
        scope: patroni.scope.clone(),
        max_lag_bytes: patroni.max_lag_bytes,
        fallback: match patroni.read_fallback {
            ReadFallback::Primary => weir_discovery::ReadFallback::Primary,
            ReadFallback::Wait => weir_discovery::ReadFallback::Wait,
            ReadFallback::Error => weir_discovery::ReadFallback::Error,
        },
        policy: match patroni.read_policy {
            ReadPolicy::LeastConnections => weir_discovery::ReadPolicy::LeastConnections,
            ReadPolicy::RoundRobin => weir_discovery::ReadPolicy::RoundRobin,
            ReadPolicy::Weighted => weir_discovery::ReadPolicy::Weighted,
            ReadPolicy::Nearest => weir_discovery::ReadPolicy::Nearest,
        },
        poll_interval: patroni.poll_interval,
        monitor: credential(config, patroni).is_some(),
    }
}

struct Follower {
    control: Rc<Control>,
    events: mpsc::Receiver<Event>,
    monitors: HashMap<(String, Address), MonitorHandle>,
    /// Generation that workers have.
    published: Option<u64>,
}

impl Follower {
    fn new(control: Rc<Control>, events: mpsc::Receiver<Event>) -> Self {
        Self { control, events, monitors: HashMap::new(), published: None }
    }

    async fn run(mut self) {
        let control = Rc::clone(&self.control);
        let Following::Cluster { discovery, events } = &control.following else { return };
        loop {
            let (requests, deadline) = {
                let mut discovery = discovery.borrow_mut();
                // A clock before 1970 is no clock.
                if let Ok(since_epoch) = SystemTime::now().duration_since(UNIX_EPOCH) {
                    discovery.tell_time(now(), since_epoch);
                }
                let requests = discovery.due(now());
                self.publish(&mut discovery);
                (requests, discovery.deadline(now()))
            };
            for request in requests {
                self.carry_out(request, events);
            }
            tokio::select! {
                event = self.events.recv() => {
                    let Some(event) = event else { return };
                    discovery.borrow_mut().step(now(), event);
                }
                () = sleep_until(deadline.into()) => {}
                () = control.poked() => {}
            }
        }
    }

    fn publish(&mut self, discovery: &mut Discovery) {
        for note in discovery.notes() {
            if note.warning {
                tracing::warn!("cluster: {}", note.text);
            } else {
                tracing::info!("cluster: {}", note.text);
            }
        }
        let topology = discovery.topology();
        if self.published != Some(topology.generation) {
            self.published = Some(topology.generation);
            self.control.order(&Order::Adopt(topology));
        }
    }

    fn carry_out(&mut self, request: Request, events: &mpsc::Sender<Event>) {
        let deadline = match &self.control.config().upstream {
            weir_config::Upstream::Patroni(patroni) => patroni.poll_timeout,
            weir_config::Upstream::Plain { .. } | weir_config::Upstream::None => return,
        };
        let events = events.clone();
        let way = self.control.way_to_patroni();
        match request {
            Request::Primary { url } => drop(spawn_local(async move {
                let result = patroni::call(&url, Call::Get("/primary"), &way, deadline).await;
                drop(events.send(Event::Polled { url, result }).await);
            })),
            Request::Cluster { url } => drop(spawn_local(async move {
                let result = patroni::call(&url, Call::Get("/cluster"), &way, deadline).await;
                drop(events.send(Event::Cluster { url, result }).await);
            })),
            Request::Ping { member, address } => self.ping(member, address, events),
        }
    }

    /// One task and one connection for each (member, address); a task that nobody asks any more ends by itself.
    fn ping(&mut self, member: String, address: Address, events: mpsc::Sender<Event>) {
        self.monitors.retain(|_, monitor| monitor.is_alive());
        let control = &self.control;
        let place = (member, address);
        let monitor = self
            .monitors
            .entry(place.clone())
            .or_insert_with(|| monitor::start(Rc::clone(control), place, events));
        monitor.ping();
    }
}
