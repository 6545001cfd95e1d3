//! The stage: clients, server connections and, between them, sessions driven as the worker drives them.

use std::time::{Duration, Instant};

use weir_protocol::backend;
use weir_protocol::message::Report;
use weir_session::prepared::Catalog;
use weir_session::server::TxStatus;
use weir_session::session::Rules;
use weir_session::settings::{Interner, Reported, Settings};
use weir_session::state::{Policies, Policy};
use weir_session::{AfterLoss, LossCause, Mode, Server, Session, Then, Turn, Wires};

use crate::words;

/// Plays a scene with bytes in pieces of several sizes.
pub(crate) fn scene(play: impl Fn(&mut Stage)) {
    for piece in [usize::MAX, 1, 2, 3, 7, 64] {
        play(&mut Stage::new(piece));
    }
}

pub(crate) struct Stage {
    pub(crate) piece: usize,
    pub(crate) now: Instant,
    pub(crate) rules: Rules,
    pub(crate) statements_max: usize,
    pub(crate) catalog: Catalog,
    pub(crate) settings: Interner<Settings>,
    pub(crate) clients: Vec<Actor>,
    pub(crate) servers: Vec<Backing>,
    /// No server connection is given out: a hold.
    pub(crate) held: bool,
    /// Number of the failover that is known to be under way.
    pub(crate) failover: Option<u64>,
}

/// A client.
pub(crate) struct Actor {
    pub(crate) session: Session,
    pub(crate) carry: Vec<u8>,
    pub(crate) got: Vec<u8>,
    pub(crate) server: Option<usize>,
    /// How its connection was ended, if it was.
    pub(crate) end: Option<String>,
}

/// A server connection.
pub(crate) struct Backing {
    pub(crate) server: Server,
    pub(crate) carry: Vec<u8>,
    pub(crate) got: Vec<u8>,
    pub(crate) client: Option<usize>,
    pub(crate) alive: bool,
}

struct Ends<'a> {
    client: &'a mut Vec<u8>,
    server: Option<&'a mut Vec<u8>>,
}

impl Wires for Ends<'_> {
    fn to_client(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(self.client);
    }

    fn to_server(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        fill(self.server.as_mut().expect("a server connection is attached"));
    }
}

impl Stage {
    /// One client (0) in transaction mode and one server connection (0).
    #[expect(clippy::disallowed_methods, reason = "the scene's clock starts somewhere")]
    pub(crate) fn new(piece: usize) -> Self {
        let mut stage = Self {
            piece,
            now: Instant::now(),
            rules: Rules {
                retry_bytes_max: 64 * 1024,
                shares_statements: false,
                message_bytes_max: u32::MAX,
                refuses_simple_queries: false,
                defers_begin: false,
                policies: Policies::default(),
                scope: 0,
            },
            statements_max: 100,
            catalog: Catalog::default(),
            settings: Interner::default(),
            clients: Vec::new(),
            servers: Vec::new(),
            held: false,
            failover: None,
        };
        stage.client(Mode::Transaction);
        stage.server();
        stage
    }

    pub(crate) fn client(&mut self, mode: Mode) -> usize {
        self.client_with(mode, &[])
    }

    pub(crate) fn client_with(&mut self, mode: Mode, parameters: &[(&str, &str)]) -> usize {
        let settings = self.settings.intern(Settings::from_startup(parameters.iter().copied()));
        let told = self.catalog.reported.intern(reported_at_login());
        let session = Session::new(mode, self.rules, settings, told);
        self.clients.push(Actor { session, carry: Vec::new(), got: Vec::new(), server: None, end: None });
        self.clients.len() - 1
    }

    pub(crate) fn server(&mut self) -> usize {
        let reported = self.catalog.reported.intern(reported_at_login());
        let carried = self.settings.intern(Settings::default());
        let server = Server::new(reported, carried, self.statements_max);
        self.servers.push(Backing { server, carry: Vec::new(), got: Vec::new(), client: None, alive: true });
        self.servers.len() - 1
    }

    /// The same policy for every kind of session state, from the next client on.
    pub(crate) fn policy(&mut self, policy: Policy) {
        self.rules.policies = Policies::of(|_| policy);
        self.recast(Mode::Transaction);
    }

    /// The only client (0) becomes one of another kind.
    pub(crate) fn recast(&mut self, mode: Mode) {
        self.clients.clear();
        self.client(mode);
    }

    pub(crate) fn sends(&mut self, bytes: impl AsRef<[u8]>) {
        self.client_sends(0, bytes);
    }

    pub(crate) fn client_sends(&mut self, client: usize, bytes: impl AsRef<[u8]>) {
        for piece in bytes.as_ref().chunks(self.piece) {
            self.clients[client].carry.extend_from_slice(piece);
            self.client_turn(client);
        }
    }

    pub(crate) fn replies(&mut self, text: &str) {
        self.server_says(0, words::said(text));
    }

    pub(crate) fn server_replies(&mut self, server: usize, text: &str) {
        self.server_says(server, words::said(text));
    }

    pub(crate) fn server_says(&mut self, server: usize, bytes: impl AsRef<[u8]>) {
        for piece in bytes.as_ref().chunks(self.piece) {
            self.servers[server].carry.extend_from_slice(piece);
            self.server_turn(server);
        }
    }

    /// The same in one piece, whatever the size of the others.
    pub(crate) fn at_once(&mut self, server: usize, text: &str) {
        self.servers[server].carry.extend(words::said(text));
        self.server_turn(server);
    }

    /// What server connection 0 received since it was last asked.
    #[track_caller]
    pub(crate) fn server_got(&mut self, expected: &str) {
        self.that_server_got(0, expected);
    }

    #[track_caller]
    pub(crate) fn that_server_got(&mut self, server: usize, expected: &str) {
        let got = std::mem::take(&mut self.servers[server].got);
        assert_eq!(words::asked(&got), expected, "server {server}, pieces of {}", self.piece);
    }

    /// What client 0 received since it was last asked.
    #[track_caller]
    pub(crate) fn client_got(&mut self, expected: &str) {
        self.that_client_got(0, expected);
    }

    #[track_caller]
    pub(crate) fn that_client_got(&mut self, client: usize, expected: &str) {
        let got = std::mem::take(&mut self.clients[client].got);
        assert_eq!(words::heard(&got), expected, "client {client}, pieces of {}", self.piece);
    }

    /// What client 0 received since it was last asked, for what depends on the size of the pieces.
    pub(crate) fn heard(&mut self) -> String {
        words::heard(&std::mem::take(&mut self.clients[0].got))
    }

    /// What the last error said to client 0; takes what it received.
    pub(crate) fn error_told(&mut self) -> Report {
        words::last_error(&std::mem::take(&mut self.clients[0].got))
    }

    /// A request and its reply, of no interest in themselves.
    #[track_caller]
    pub(crate) fn round(&mut self, request: impl AsRef<[u8]>, reply: &str) {
        self.sends(request);
        self.servers[0].got.clear();
        self.replies(reply);
        self.client_got(reply);
    }

    /// The transaction of client 0 is open.
    #[track_caller]
    pub(crate) fn begins(&mut self) {
        self.round(words::query("BEGIN"), "C:BEGIN  Z:T");
    }

    #[track_caller]
    pub(crate) fn is_attached(&self, expected: bool) {
        assert_eq!(self.clients[0].server.is_some(), expected, "pieces of {}", self.piece);
    }

    #[track_caller]
    pub(crate) fn ended(&self, client: usize, why: &str) {
        let end = self.clients[client].end.as_deref();
        assert_eq!(end, Some(why), "pieces of {}", self.piece);
    }

    #[track_caller]
    pub(crate) fn ended_not(&self, client: usize) {
        assert_eq!(self.clients[client].end, None, "pieces of {}", self.piece);
    }

    /// The server connection ends without a word.
    pub(crate) fn dies(&mut self, server: usize) {
        self.lose(server, false);
    }

    /// The connection to a member that was in hot standby ends without a word.
    pub(crate) fn replica_dies(&mut self, server: usize) {
        self.lose(server, true);
    }

    pub(crate) fn lose(&mut self, server: usize, read_only_member: bool) {
        let backing = &mut self.servers[server];
        backing.alive = false;
        let Some(client) = backing.client.take() else { return };
        let actor = &mut self.clients[client];
        actor.server = None;
        let cause = LossCause {
            what: "the connection to n1 was lost".to_owned(),
            read_only_member,
            failover: self.failover,
        };
        let mut ends = Ends { client: &mut actor.got, server: None };
        match actor.session.server_lost(&mut backing.server, &cause, &mut ends) {
            AfterLoss::Stays(_) => {}
            AfterLoss::Again(mut bytes) => {
                bytes.append(&mut actor.carry);
                actor.carry = bytes;
            }
            AfterLoss::Close(report) => self.refuse(client, &report),
            AfterLoss::CloseSilently => self.end(client, "silently"),
        }
        self.client_turn(client);
    }

    fn refuse(&mut self, client: usize, report: &Report) {
        backend::error(report, &mut self.clients[client].got);
        self.end(client, report.code.as_str());
    }

    fn end(&mut self, client: usize, why: &str) {
        let actor = &mut self.clients[client];
        actor.end = Some(why.to_owned());
        if let Some(server) = actor.server.take() {
            self.servers[server].client = None;
            self.servers[server].alive = self.servers[server].server.at_rest().is_some();
        }
    }

    /// The hold is over.
    pub(crate) fn resume(&mut self) {
        self.held = false;
        for client in 0..self.clients.len() {
            self.client_turn(client);
        }
    }

    pub(crate) fn client_turn(&mut self, client: usize) {
        let mut turns = 0;
        while self.clients[client].end.is_none() {
            turns += 1;
            assert!(turns < 10_000, "a client's turn has no end");
            let actor = &mut self.clients[client];
            let backing = actor.server.and_then(|server| self.servers.get_mut(server));
            let (server, wire) = backing.map(|backing| (&mut backing.server, &mut backing.got)).unzip();
            let mut ends = Ends { client: &mut actor.got, server: wire };
            let input = std::mem::take(&mut actor.carry);
            let turn = actor.session.from_client(self.now, &input, server, &mut self.catalog, &mut ends);
            actor.carry = input[turn.consumed..].to_vec();
            match turn.then {
                Then::Continue => return,
                Then::Answered => {}
                Then::NeedServer => {
                    if !self.attach(client) {
                        return;
                    }
                }
                Then::Release => self.release(client),
                Then::Again(bytes) => self.once_more(client, bytes),
                Then::Terminate => self.end(client, "terminated"),
                Then::Refuse(report) => self.refuse(client, &report),
                Then::Elsewhere(_) | Then::Lost | Then::Desync(_) | Then::SettingsRefused(_) => {
                    panic!("not from a client: {:?}", turn.then)
                }
            }
        }
    }

    /// These bytes are the client's input again, in front of what it has sent since.
    fn once_more(&mut self, client: usize, mut bytes: Vec<u8>) {
        let carry = &mut self.clients[client].carry;
        bytes.append(carry);
        *carry = bytes;
    }

    /// The first idle server connection, if there is one.
    fn attach(&mut self, client: usize) -> bool {
        let idle = self.servers.iter().position(|backing| backing.alive && backing.client.is_none());
        let Some(server) = idle.filter(|_| !self.held) else { return false };
        let (actor, backing) = (&mut self.clients[client], &mut self.servers[server]);
        actor.server = Some(server);
        backing.client = Some(client);
        let mut ends = Ends { client: &mut actor.got, server: Some(&mut backing.got) };
        actor.session.attached(&mut backing.server, &mut ends);
        true
    }

    fn release(&mut self, client: usize) {
        let server = self.clients[client].server.take().expect("released while attached");
        self.servers[server].client = None;
        assert!(self.servers[server].server.at_rest().is_some(), "released while not at rest");
    }

    pub(crate) fn server_turn(&mut self, server: usize) {
        self.now += Duration::from_millis(1);
        let backing = &mut self.servers[server];
        let input = std::mem::take(&mut backing.carry);
        let Some(client) = backing.client else {
            match backing.server.idle_bytes(&input) {
                Ok(consumed) => backing.carry = input[consumed..].to_vec(),
                Err(_) => backing.alive = false,
            }
            return;
        };
        let actor = &mut self.clients[client];
        let mut ends = Ends { client: &mut actor.got, server: Some(&mut backing.got) };
        let Turn { consumed, then } =
            actor.session.from_server(self.now, &input, &mut backing.server, &mut self.catalog, &mut ends);
        backing.carry = input[consumed..].to_vec();
        let goes_on = actor.session.wants_turn(&backing.server);
        match then {
            Then::Continue if goes_on => self.client_turn(client),
            Then::Continue => {}
            Then::Release => {
                self.release(client);
                self.waiting_turns();
            }
            Then::Again(bytes) => {
                self.once_more(client, bytes);
                self.client_turn(client);
            }
            Then::Elsewhere(bytes) => {
                self.release(client);
                // It is left to others for the time being.
                self.servers[server].alive = false;
                self.once_more(client, bytes);
                self.client_turn(client);
            }
            Then::Lost => self.lose(server, false),
            Then::Desync(what) => self.end(client, what),
            Then::Refuse(report) => self.refuse(client, &report),
            Then::SettingsRefused(body) => {
                let fields = backend::read::report(&body).expect("an error");
                let code = String::from_utf8_lossy(fields.code).into_owned();
                self.end(client, &code);
            }
            Then::NeedServer | Then::Terminate | Then::Answered => panic!("not from a server: {then:?}"),
        }
    }

    /// Clients that wait for a server connection get one.
    fn waiting_turns(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].server.is_none() && !self.clients[client].carry.is_empty() {
                self.client_turn(client);
            }
        }
    }

    #[track_caller]
    pub(crate) fn tx(&self, expected: TxStatus) {
        assert_eq!(self.clients[0].session.tx(), expected);
    }
}

/// What each server connection reports at its login, and each client is told.
fn reported_at_login() -> Reported {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Reported::from_login(&[
        pair("client_encoding", "UTF8"),
        pair("application_name", ""),
        pair("in_hot_standby", "off"),
    ])
}
