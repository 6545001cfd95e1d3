//! One worker, one client that is logged in, one server connection. Owns the wiring that the shell has otherwise.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use weir_config::{FileContents, Files, Source};
use weir_discovery::{Address, Topology};
use weir_protocol::frontend;
use weir_protocol::startup::ProtocolVersion;
use weir_worker::{Accepted, ConnId, Dialed, Effect, Effects, Entropy, Role, Worker};

use crate::Case;
use crate::postgres::Postgres;

/// A worker with a client and a server connection, ready for [`World::round_trip`].
pub struct World {
    worker: Worker,
    effects: Effects,
    now: Instant,
    client: ConnId,
    server: Option<ConnId>,
    postgres: Postgres,
}

/// One request and PostgreSQL's answer to what weir makes of it.
pub struct Conversation {
    request: Vec<u8>,
    reply: Vec<u8>,
    server: ConnId,
}

impl Conversation {
    /// How much PostgreSQL answers, all of it for the client.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.reply.len()
    }
}

impl World {
    /// Logs a client in, plays the case's preparation, and goes through its request often enough for weir and its
    /// buffers to settle.
    ///
    /// # Errors
    /// weir does something that is not in the script.
    pub fn new(case: &Case) -> Result<(Self, Conversation)> {
        let mut world = Self::empty(case.rows)?;
        let mut hello = Vec::new();
        frontend::startup(ProtocolVersion::V3_0, &[("user", "app"), ("database", "mrg")], &mut hello);
        world.rehearse(&hello)?;
        let (mut preparation, mut request) = (Vec::new(), Vec::new());
        (case.preparation)(&mut preparation);
        (case.request)(&mut request);
        if !preparation.is_empty() {
            world.rehearse(&preparation)?;
        }
        let mut reply = Vec::new();
        for _ in 0..REHEARSALS {
            let heard;
            (reply, heard) = world.rehearse(&request)?;
            ensure!(heard == reply.len(), "the client heard {heard} bytes instead of {}", reply.len());
        }
        let server = world.server.context("weir never dialed")?;
        let conversation = Conversation { request, reply, server };
        let heard = world.round_trip(&conversation);
        ensure!(heard == conversation.reply_bytes(), "played again, the client heard {heard} bytes");
        Ok((world, conversation))
    }

    /// What one core does for one round trip: the client's bytes in, the server's bytes in. Returns the length of what
    /// the client hears, which is [`Conversation::reply_bytes`] if all is well.
    pub fn round_trip(&mut self, conversation: &Conversation) -> usize {
        let Self { worker, effects, now, client, .. } = self;
        effects.clear();
        worker.received(*now, *client, &conversation.request, effects);
        effects.clear();
        worker.received(*now, conversation.server, &conversation.reply, effects);
        effects.bytes.len()
    }

    fn empty(rows: usize) -> Result<Self> {
        let source =
            Source { path: Path::new("weir.toml"), text: CONFIG, access: weir_config::Access::PRIVATE };
        let config = weir_config::load(Some(source), &[], &NoFiles)?.config;
        let topology = Topology::plain(Address { host: "127.0.0.1".to_owned(), port: 5432 });
        let mut worker = Worker::new(Arc::new(config), Arc::new(topology), Box::new(Counter(0)), 0);
        let mut effects = Effects::default();
        let now = Instant::now();
        let accepted = Accepted { role: Role::Write, peer: None, local: None, unix: None };
        let client = ConnId::Client(worker.accept(now, accepted, &mut effects));
        Ok(Self { worker, effects, now, client, server: None, postgres: Postgres::new(rows) })
    }

    /// The client says this, and PostgreSQL answers until there is nothing left to do. Returns what PostgreSQL said at
    /// last, and how many bytes the client heard.
    fn rehearse(&mut self, said: &[u8]) -> Result<(Vec<u8>, usize)> {
        self.effects.clear();
        self.worker.received(self.now, self.client, said, &mut self.effects);
        let (mut reply, mut heard) = (Vec::new(), 0);
        while !self.effects.list.is_empty() {
            let turn = std::mem::take(&mut self.effects);
            for effect in &turn.list {
                match effect {
                    Effect::Dial(server, ..) => self.dial(*server),
                    Effect::Send(to, range) if *to == self.client => heard += range.len(),
                    Effect::Send(to, range) => {
                        let bytes = turn.bytes.get(range.clone()).context("a range outside")?;
                        reply = self.postgres.answer(bytes)?;
                        self.worker.received(self.now, *to, &reply, &mut self.effects);
                    }
                    Effect::StartTls(_)
                    | Effect::BeginTls(..)
                    | Effect::Close(_)
                    | Effect::Abort(_)
                    | Effect::StopReading(_)
                    | Effect::ReadAgain(_)
                    | Effect::Console(_)
                    | Effect::DialCancel(..)
                    | Effect::Evidence(_)
                    | Effect::Derive(..)
                    | Effect::Refer(_) => anyhow::bail!("{effect:?} is not in the script"),
                }
            }
        }
        Ok((reply, heard))
    }

    fn dial(&mut self, server: ConnId) {
        self.server = Some(server);
        let dialed = Dialed { peer: None, local: None, tls: None, end_point: None };
        self.worker.dialed(self.now, server, Ok(dialed), &mut self.effects);
    }
}

/// Chance that is the same in every run.
struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

/// The configuration names no other file.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &Path) -> Result<FileContents, String> {
        Err("no such file".to_owned())
    }
}

const CONFIG: &str = "[upstream]\nurl = \"postgres://127.0.0.1:5432\"\n[auth]\ntype = \"trust\"\n";

/// Login, the first round trips, a statement seen for the second time: after these all round trips are the same.
const REHEARSALS: usize = 3;
