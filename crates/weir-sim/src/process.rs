//! One weir: the real worker and the real discovery, and what the shell remembers for them. How its effects reach the
//! network is in `weir`.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_config::{AuthMethod, Config, FileContents, Files, PoolMode, Source, User};
use weir_discovery::{
    Address, Answer, ApiUrl, Discovery, MonitorReport, PollFailure, ReadFallback, Settings, Switchover,
    Topology,
};
use weir_worker::{ConnId, Effects, Worker};

use crate::application::Kind;
use crate::dice::Dice;
use crate::plan::Plan;
use crate::schedule::Calendar;
use crate::wire::{End, WireId};

/// A weir process.
pub(crate) struct Process {
    /// False between its death and its next start.
    pub(crate) is_up: bool,
    pub(crate) worker: Worker,
    pub(crate) discovery: Discovery,
    pub(crate) effects: Effects,
    /// Each connection's wire, and which end of it is ours.
    pub(crate) wires: HashMap<ConnId, (WireId, End)>,
    /// Whom each server connection served when bytes went there last.
    pub(crate) partners: HashMap<ConnId, Option<ConnId>>,
    /// Limits: the largest since the start, as what is too many after a reload may stay until it is let go of.
    pub(crate) pool_size: u32,
    pub(crate) max_db_connections: Option<u32>,
    config: Config,
    pub(crate) switchover: Option<Switchover>,
    /// What its host's calendar says.
    pub(crate) calendar: Calendar,
    /// Since when nobody begins a transaction because a switchover is scheduled.
    pub(crate) planned_since: Option<Instant>,
    /// Who led when Patroni was asked for it.
    pub(crate) asked_of: Option<usize>,
    /// Questions without an answer yet.
    pub(crate) questions: HashMap<u64, Question>,
    pub(crate) last_question: u64,
    /// Generation of the topology that the worker has.
    pub(crate) published: Option<u64>,
    /// When it was started.
    pub(crate) started: Instant,
    /// Nodes that have answered it, or have not for too long.
    pub(crate) asked: BTreeSet<usize>,
    /// The newest timeline that it has followed.
    pub(crate) followed: u32,
    /// Of [`crate::world::Event::Due`].
    pub(crate) stamp: u64,
    /// Nodes with a monitor connection.
    pub(crate) watches: Vec<bool>,
}

/// What discovery wants to know.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    Primary(ApiUrl),
    Cluster(ApiUrl),
    Ping { member: String, address: Address },
}

/// A question on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    Primary,
    Cluster,
    Ping,
}

/// An answer on its way.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Rest(Result<Answer, PollFailure>),
    Monitor(MonitorReport),
}

impl Process {
    pub(crate) fn new(plan: &Plan, now: Instant, dice: Dice) -> Self {
        let config = configured(plan);
        let nobody = Topology {
            leader: weir_discovery::Leadership::Leaderless { why: "nobody was asked yet".to_owned() },
            ..Topology::nobody()
        };
        Self {
            is_up: true,
            worker: Worker::new(Arc::new(config.clone()), Arc::new(nobody), Box::new(dice), 0),
            discovery: Discovery::new(now, settings(plan)),
            effects: Effects::default(),
            wires: HashMap::new(),
            partners: HashMap::new(),
            pool_size: plan.pool_size,
            max_db_connections: plan.max_db_connections,
            config,
            switchover: None,
            asked_of: None,
            calendar: Calendar::Right,
            planned_since: None,
            questions: HashMap::new(),
            last_question: 0,
            published: None,
            started: now,
            asked: BTreeSet::new(),
            followed: 0,
            stamp: 0,
            watches: vec![false; plan.nodes],
        }
    }

    /// A question is over, one way or the other.
    pub(crate) fn has_asked(&mut self, question: &Question) {
        if let Question::Primary(url) = question {
            self.asked.extend(node_at(url.host()));
        }
    }

    /// Another configuration: sizes change, now and then the time that a connection lives.
    pub(crate) fn reconfigured(&mut self, dice: &mut Dice) -> Arc<Config> {
        let size = 1 + u32::try_from(dice.below(4)).unwrap_or(0);
        self.pool_size = self.pool_size.max(size);
        self.config.pool.size = NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN);
        self.config.pool.server_lifetime = dice.once_in(2).then(|| dice.millis(500, 5_000));
        Arc::new(self.config.clone())
    }
}

/// Where a node's PostgreSQL listens.
pub(crate) fn address(node: usize) -> Address {
    Address { host: format!("10.0.0.{}", node + 1), port: 5432 }
}

/// The node that has this address or name of a REST API.
pub(crate) fn node_at(host: &str) -> Option<usize> {
    host.rsplit('.').next()?.parse::<usize>().ok()?.checked_sub(1)
}

fn settings(plan: &Plan) -> Settings {
    let url = |node: usize| format!("http://10.0.0.{}:8008", node + 1).parse().ok();
    Settings {
        seeds: (0..plan.nodes).filter_map(url).collect(),
        scope: None,
        max_lag_bytes: MAX_LAG,
        fallback: ReadFallback::Primary,
        policy: plan.policy,
        poll_interval: Duration::from_secs(1),
        monitor: plan.monitor,
    }
}

fn configured(plan: &Plan) -> Config {
    let source =
        Source { path: Path::new("weir.toml"), text: SETTINGS, access: weir_config::Access::PRIVATE };
    let mut config = match weir_config::load(Some(source), &[], &NoFiles) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("{problems:?}"),
    };
    config.auth.method = AuthMethod::Trust;
    config.pool.mode = PoolMode::Transaction;
    let sitters = User {
        pool_mode: Some(PoolMode::Session),
        pool_size: NonZeroU32::new(plan.count(Kind::Sitter)),
        ..User::default()
    };
    config.users.insert(Kind::Sitter.user().to_owned(), sitters);
    let keepers = User { pool_size: NonZeroU32::new(plan.count(Kind::Keeper)), ..User::default() };
    config.users.insert(Kind::Keeper.user().to_owned(), keepers);
    config.limits.max_db_connections = plan.max_db_connections.unwrap_or(0);
    config.limits.max_host_connections = plan.max_host_connections.unwrap_or(0);
    config.pool.size = NonZeroU32::new(plan.pool_size).unwrap_or(NonZeroU32::MIN);
    config.pool.query_wait_timeout = None;
    config.limits.retry_bytes_max = plan.retry_bytes_max;
    config
}

/// Commits that a replica may be behind.
pub(crate) const MAX_LAG: u64 = 20;

const SETTINGS: &str = r#"
[patroni]
urls = ["http://10.0.0.1:8008"]
[auth]
type = "trust"
[limits]
max_client_conn = 1000
[server_tls]
mode = "disable"
"#;

/// Nothing has to be read.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        Err(format!("{} is not here", path.display()))
    }
}
