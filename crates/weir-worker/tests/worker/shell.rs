//! The shell made of memory: holds connections by name and carries effects out exactly in order. Insists on the border's
//! rules: nothing is sent to a name that the worker has given up or never had, no name is given twice.

use std::collections::{HashMap, VecDeque};

use weir_auth::scram::Derivation;
use weir_discovery::{Address, SessionEvidence};
use weir_worker::{ConnId, ConsoleRequest, Effect, Effects, Referral, Ticket};

use crate::postgres::Backend;
use crate::speaker::Speaker;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A client, by its place in the world's list.
    Speaker(usize),
    /// A server connection, by process id.
    Backend(u32),
    /// A connection for one cancel request.
    Cancel,
}

/// Connections and what the worker asked for.
#[derive(Default)]
pub(crate) struct Shell {
    pub(crate) names: HashMap<ConnId, End>,
    pub(crate) dials: VecDeque<(ConnId, Address)>,
    pub(crate) speakers: Vec<Speaker>,
    /// By process id, in the order they came.
    pub(crate) backends: std::collections::BTreeMap<u32, Backend>,
    /// Cancel requests that have arrived at PostgreSQL: process id and secret.
    pub(crate) cancels: Vec<(ConnId, u32, Vec<u8>)>,
    pub(crate) evidence: Vec<SessionEvidence>,
    pub(crate) asked: Vec<ConsoleRequest>,
    pub(crate) handshakes: Vec<ConnId>,
    /// Keys to be computed.
    pub(crate) derivations: VecDeque<(Ticket, Derivation)>,
    /// Passwords that others are asked about.
    pub(crate) referrals: Vec<Referral>,
    /// What became of server connections, in order.
    pub(crate) journal: Vec<(&'static str, ConnId)>,
}

impl Shell {
    pub(crate) fn carry_out(&mut self, effects: &mut Effects) {
        for effect in effects.list.drain(..) {
            self.note(&effect);
            match effect {
                Effect::Send(to, range) => self.send(to, &effects.bytes[range]),
                Effect::StartTls(client) | Effect::BeginTls(client, _) => {
                    self.handshakes.push(ConnId::Client(client));
                }
                Effect::Dial(conn, address, _) => self.dial(conn, address),
                Effect::DialCancel(id, Address { host, port }, remote, _) => {
                    let host = remote.map_or(host, |remote| remote.to_string());
                    self.dial(ConnId::Cancel(id), Address { host, port });
                }
                Effect::Close(conn) => self.end(conn, true),
                Effect::Abort(conn) => self.end(conn, false),
                Effect::StopReading(conn) => self.speaker(conn).stopped = true,
                Effect::ReadAgain(conn) => self.speaker(conn).stopped = false,
                Effect::Console(request) => self.asked.push(request),
                Effect::Evidence(evidence) => self.evidence.push(evidence),
                Effect::Refer(referral) => self.referrals.push(referral),
                Effect::Derive(ticket, derivation) => self.derivations.push_back((ticket, derivation)),
            }
        }
        effects.clear();
    }

    fn note(&mut self, effect: &Effect) {
        let entry = match effect {
            Effect::Send(conn, _) => ("send", *conn),
            Effect::Dial(conn, ..) => ("dial", *conn),
            Effect::Abort(conn) => ("abort", *conn),
            Effect::Close(conn) => ("close", *conn),
            Effect::StartTls(_)
            | Effect::BeginTls(..)
            | Effect::DialCancel(..)
            | Effect::StopReading(_)
            | Effect::ReadAgain(_)
            | Effect::Console(_)
            | Effect::Evidence(_)
            | Effect::Derive(..)
            | Effect::Refer(_) => return,
        };
        if matches!(entry.1, ConnId::Server(_)) {
            self.journal.push(entry);
        }
    }

    fn send(&mut self, to: ConnId, bytes: &[u8]) {
        match self.names.get(&to) {
            Some(End::Speaker(at)) => self.speakers[*at].receive(bytes),
            Some(End::Backend(pid)) => self.backends.get_mut(pid).unwrap().receive(bytes),
            Some(End::Cancel) => self.cancel(to, bytes),
            None => panic!("bytes for {to:?}, which is not there"),
        }
    }

    fn cancel(&mut self, conn: ConnId, bytes: &[u8]) {
        let (packet, _) = weir_protocol::startup::first_packet(bytes).unwrap().unwrap();
        let weir_protocol::startup::FirstPacket::Cancel(key) = packet else {
            panic!("a cancel connection carries a cancel request")
        };
        self.cancels.push((conn, key.pid, key.secret.as_bytes().to_vec()));
    }

    fn dial(&mut self, conn: ConnId, address: Address) {
        let known = self.names.contains_key(&conn) || self.dials.iter().any(|(other, _)| *other == conn);
        assert!(!known, "{conn:?} is dialed although it is there");
        self.dials.push_back((conn, address));
    }

    /// What was sent before a Close arrives; what was sent before an Abort may not.
    fn end(&mut self, conn: ConnId, flushed: bool) {
        let before = self.dials.len();
        self.dials.retain(|(other, _)| *other != conn);
        let was_dialing = self.dials.len() < before;
        match self.names.remove(&conn) {
            Some(End::Speaker(at)) => {
                self.speakers[at].open = false;
                if !flushed {
                    self.speakers[at].heard.push("aborted".to_owned());
                }
            }
            Some(End::Backend(pid)) => drop(self.backends.remove(&pid)),
            Some(End::Cancel) => self.cancels.retain(|(other, _, _)| *other != conn),
            None => assert!(was_dialing, "{conn:?} is ended although it is not there"),
        }
    }

    fn speaker(&mut self, conn: ConnId) -> &mut Speaker {
        match self.names.get(&conn) {
            Some(End::Speaker(at)) => &mut self.speakers[*at],
            other => panic!("{conn:?} is no client but {other:?}"),
        }
    }
}
